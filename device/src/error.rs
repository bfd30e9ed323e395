use std::path::{Path, PathBuf};

/// What can go wrong between this program and NVIDIA's libraries.
///
/// The message says what failed, on what, and the way out; [`Error::kind`] is for code that goes on differently.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Cause>);

/// The sorts of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A library is nowhere, or cannot be opened.
    MissingLibrary,
    /// A library is there but too old to have a function.
    MissingFunction,
    /// The driver is older than what is asked of it.
    DriverTooOld,
    /// The driver works, but there is no such device.
    NoDevice,
    /// Device or pinned memory ran out.
    OutOfMemory,
    /// A source does not compile.
    Compile,
    /// The arguments of a call do not fit together; nothing was asked of the driver.
    Arguments,
    /// The driver refused a call.
    Driver,
    /// NVRTC refused a call, other than for a source's mistakes.
    Compiler,
    /// cuBLASLt refused a call, or has no algorithm for what was asked.
    Blas,
    /// CUPTI refused a call, or may not be used here.
    Profiler,
    /// The file system refused.
    File,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("{library} was not found (tried {}); {way_out}", tried.join(", "))]
    MissingLibrary {
        library: &'static str,
        tried: Vec<String>,
        way_out: &'static str,
    },
    #[error("{variable}={} cannot be used: {reason}", value.display())]
    ChosenLibrary {
        variable: &'static str,
        value: PathBuf,
        reason: String,
    },
    #[error("{} has no {function}, which came with CUDA {since}; {way_out}", path.display())]
    MissingFunction {
        path: PathBuf,
        function: &'static str,
        since: &'static str,
        way_out: &'static str,
    },
    #[error(
        "{what} needs a driver for CUDA {needs} (R{branch} or newer), but this one is for CUDA {has}; update the NVIDIA driver"
    )]
    DriverTooOld {
        what: String,
        needs: Version,
        branch: &'static str,
        has: Version,
    },
    #[error("{0}")]
    NoDevice(String),
    #[error("{what} needs {bytes} bytes of {memory} memory, which the driver did not grant{}", free_of_total(*.free))]
    OutOfMemory {
        what: String,
        bytes: usize,
        memory: &'static str,
        free: Option<(usize, usize)>,
    },
    #[error("{program} does not compile for {arch}: {first}")]
    Compile {
        program: String,
        arch: String,
        first: String,
        log: String,
    },
    #[error("{0}")]
    Arguments(String),
    #[error("{doing}{function} failed: {name} ({code}){}", hint(*code))]
    Driver {
        doing: String,
        function: &'static str,
        code: u32,
        name: String,
    },
    #[error("{doing}{function} failed: {name} ({code})")]
    Compiler {
        doing: String,
        function: &'static str,
        code: u32,
        name: &'static str,
    },
    #[error("{doing}{function} failed: {name} ({code})")]
    Blas {
        doing: String,
        function: &'static str,
        code: u32,
        name: &'static str,
    },
    #[error("{doing}{function} failed: {name} ({code}){}", crate::cupti::way_out(*code))]
    Cupti {
        doing: String,
        function: &'static str,
        code: u32,
        name: &'static str,
    },
    #[error("{0}")]
    Profiler(String),
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        verb: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A CUDA version as the driver and NVRTC give it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// 13 of 13.0.
    pub major: u32,
    /// 0 of 13.0.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Version, String> {
        let parts = text.split_once('.');
        let numbers =
            parts.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        let (major, minor) =
            numbers.ok_or_else(|| format!("{text:?} is no version; one looks like 13.0"))?;
        Ok(Version { major, minor })
    }
}

impl Error {
    pub(crate) fn new(cause: Cause) -> Error {
        Error(Box::new(cause))
    }

    /// The arguments of a call do not fit together; `message` names both sides.
    pub(crate) fn arguments(message: impl Into<String>) -> Error {
        Error::new(Cause::Arguments(message.into()))
    }

    pub(crate) fn no_device(message: impl Into<String>) -> Error {
        Error::new(Cause::NoDevice(message.into()))
    }

    /// A measurement that cannot be taken here; `message` says why and what to do.
    pub(crate) fn profiler(message: impl Into<String>) -> Error {
        Error::new(Cause::Profiler(message.into()))
    }

    pub(crate) fn file(verb: &'static str, path: &Path, source: std::io::Error) -> Error {
        Error::new(Cause::File {
            verb,
            path: path.to_owned(),
            source,
        })
    }

    /// What sort of error this is.
    pub fn kind(&self) -> Kind {
        match *self.0 {
            Cause::MissingLibrary { .. } | Cause::ChosenLibrary { .. } => Kind::MissingLibrary,
            Cause::MissingFunction { .. } => Kind::MissingFunction,
            Cause::DriverTooOld { .. } => Kind::DriverTooOld,
            Cause::NoDevice(_) => Kind::NoDevice,
            Cause::OutOfMemory { .. } => Kind::OutOfMemory,
            Cause::Compile { .. } => Kind::Compile,
            Cause::Arguments(_) => Kind::Arguments,
            Cause::Driver { .. } => Kind::Driver,
            Cause::Compiler { .. } => Kind::Compiler,
            Cause::Blas { .. } => Kind::Blas,
            Cause::Cupti { .. } | Cause::Profiler(_) => Kind::Profiler,
            Cause::File { .. } => Kind::File,
        }
    }

    /// The number the driver, NVRTC, cuBLASLt or CUPTI answered with, if it was one of their calls that failed.
    pub fn code(&self) -> Option<u32> {
        match *self.0 {
            Cause::Driver { code, .. }
            | Cause::Compiler { code, .. }
            | Cause::Blas { code, .. }
            | Cause::Cupti { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Where a library was looked for that is nowhere.
    pub fn tried(&self) -> &[String] {
        match &*self.0 {
            Cause::MissingLibrary { tried, .. } => tried,
            _ => &[],
        }
    }

    /// Whether the context is of no use after it: a kernel crashed, and every later call would answer the same.
    pub fn loses_context(&self) -> bool {
        matches!(
            *self.0,
            Cause::Driver {
                code: 700 | 702 | 709 | 710 | 713..=719,
                ..
            }
        )
    }

    /// Everything the compiler said, if a source did not compile.
    pub fn compiler_log(&self) -> Option<&str> {
        match &*self.0 {
            Cause::Compile { log, .. } => Some(log),
            _ => None,
        }
    }

    /// Whether the machine lacks something that can be installed or plugged in, as opposed to a run that failed.
    pub fn is_absence(&self) -> bool {
        matches!(
            self.kind(),
            Kind::MissingLibrary | Kind::MissingFunction | Kind::DriverTooOld | Kind::NoDevice
        )
    }

    /// The same error, saying what was being done: `launching rms_norm: cuLaunchKernelEx failed: …`.
    pub(crate) fn during(mut self, what: &str) -> Error {
        if let Cause::Driver { doing, .. }
        | Cause::Compiler { doing, .. }
        | Cause::Blas { doing, .. }
        | Cause::Cupti { doing, .. } = &mut *self.0
        {
            *doing = format!("{what}: {doing}");
        }
        self
    }
}

fn free_of_total(free: Option<(usize, usize)>) -> String {
    match free {
        Some((free, total)) => format!(" ({free} of {total} bytes are free)"),
        None => String::new(),
    }
}

/// What a person can do about the driver's error `code`.
fn hint(code: u32) -> &'static str {
    match code {
        100 => "; no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES",
        209 => "; the code was compiled for another architecture than this device's",
        222 => {
            "; NVRTC is newer than the driver: update the driver, or take the NVRTC of the driver's CUDA version"
        }
        700 => {
            "; a kernel accessed memory out of bounds, and the context is lost: compute-sanitizer finds the place"
        }
        701 => "; the launch asks for more registers or shared memory than the device has",
        716 => "; a kernel accessed memory that is not aligned, and the context is lost",
        719 => "; a kernel crashed, and the context is lost: compute-sanitizer finds the place",
        802 | 803 => {
            "; the driver's library and kernel module do not match: reboot after an update of the driver"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_thing_and_the_way_out() {
        let error = Error::new(Cause::MissingLibrary {
            library: "NVRTC",
            tried: vec!["libnvrtc.so.13".to_owned(), "/usr/local/cuda".to_owned()],
            way_out: "pip install it",
        });
        assert_eq!(
            error.to_string(),
            "NVRTC was not found (tried libnvrtc.so.13, /usr/local/cuda); pip install it"
        );
        assert!(error.is_absence());
        let error = Error::new(Cause::OutOfMemory {
            what: "the KV pool".to_owned(),
            bytes: 100,
            memory: "device",
            free: Some((60, 80)),
        });
        assert_eq!(
            error.to_string(),
            "the KV pool needs 100 bytes of device memory, which the driver did not grant (60 of 80 bytes are free)"
        );
        assert_eq!(error.kind(), Kind::OutOfMemory);
    }

    #[test]
    fn what_was_being_done_is_added_outermost_first() {
        let error = Error::new(Cause::Driver {
            doing: String::new(),
            function: "cuLaunchKernelEx",
            code: 701,
            name: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES".to_owned(),
        });
        let text = error.during("launching gemm").during("decode").to_string();
        assert!(
            text.starts_with("decode: launching gemm: cuLaunchKernelEx failed: CUDA_ERROR_LAUNCH"),
            "{text}"
        );
        assert!(
            text.contains("(701); the launch asks for more registers"),
            "{text}"
        );
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |text: &str| Version::try_from(text.to_owned());
        assert!(version("12.9").unwrap() < version("12.10").unwrap());
        assert_eq!(version("13.0").unwrap().to_string(), "13.0");
        assert!(version("13").is_err());
    }
}
