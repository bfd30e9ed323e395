//! Finding and opening NVIDIA's libraries.
//!
//! Each library is looked for at absolute paths and opened from there, in this order:
//!
//! 1. our own environment variable ([`Library::variable`]): a file, or a folder that holds it. If it is set, nothing else
//!    is tried;
//! 2. `CUDA_HOME`, then `CUDA_PATH`;
//! 3. the system's loader (`LD_LIBRARY_PATH` and its cache);
//! 4. the Python packages of `VIRTUAL_ENV`, then of the `python3` on `PATH`: `nvidia/cu13/lib`, `nvidia/*/lib`;
//! 5. `/usr/local/cuda` and `/opt/cuda`;
//! 6. `target/cuda` of the repository, where `cargo xtask cuda` unpacks.
//!
//! The driver's library comes with the driver, never with a toolkit, whose `stubs/libcuda.so` is no driver: for it, steps
//! 2, 4 and 6 are left out, and step 5 looks where distributions put drivers.

pub(crate) mod places;
pub(crate) mod table;

use std::collections::HashSet;
use std::ffi::{CStr, OsStr, c_void};
use std::fs;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use crate::Error;
use crate::error::Cause;
pub use places::Origin;
use places::Surroundings;

/// A library of NVIDIA's that stepscope can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Library {
    /// `libcuda`, the driver.
    Driver,
    /// `libnvrtc`, the compiler.
    Nvrtc,
    /// `libnvidia-ml`, the state of the GPUs.
    Nvml,
    /// `libcupti`, timestamps and counters of kernels.
    Cupti,
    /// `libcublasLt`, the matrix multiplication to compare with.
    CublasLt,
    /// `libnccl`, collectives between GPUs.
    Nccl,
}

/// What is to be known about a library before it is looked for.
struct Facts {
    title: &'static str,
    variable: &'static str,
    /// Newest first.
    file_names: &'static [&'static str],
    /// The folder below `nvidia/` of the wheels that are not part of the tree `nvidia/cu13`.
    component: &'static str,
    /// A function that every version of it has.
    probe: &'static str,
    /// Beginnings of the names of files beside it that it looks for by bare name.
    companions: &'static [&'static str],
    way_out: &'static str,
}

impl Library {
    /// All of them, in the order in which a person wants to read about them.
    pub const ALL: [Library; 6] = [
        Library::Driver,
        Library::Nvml,
        Library::Nvrtc,
        Library::Cupti,
        Library::CublasLt,
        Library::Nccl,
    ];

    fn facts(self) -> Facts {
        match self {
            Library::Driver => Facts {
                title: "the NVIDIA driver's libcuda",
                variable: "STEPSCOPE_LIBCUDA",
                file_names: &["libcuda.so.1"],
                component: "",
                probe: "cuInit",
                companions: &[],
                way_out: "install the NVIDIA driver (in a container: start it with `--gpus all`), or set STEPSCOPE_LIBCUDA",
            },
            Library::Nvrtc => Facts {
                title: "NVIDIA's run-time compiler NVRTC",
                variable: "STEPSCOPE_NVRTC",
                file_names: &["libnvrtc.so.13", "libnvrtc.so.12"],
                component: "cuda_nvrtc",
                probe: "nvrtcVersion",
                companions: &["libnvrtc-builtins.so."],
                way_out: "`pip install nvidia-cuda-nvrtc` brings it (90 MB; in the repository: `cargo xtask cuda`), or set STEPSCOPE_NVRTC",
            },
            Library::Nvml => Facts {
                title: "the NVIDIA driver's libnvidia-ml",
                variable: "STEPSCOPE_NVML",
                file_names: &["libnvidia-ml.so.1"],
                component: "",
                probe: "nvmlInit_v2",
                companions: &[],
                way_out: "it comes with the NVIDIA driver (in a container: NVIDIA_DRIVER_CAPABILITIES=compute,utility), or set STEPSCOPE_NVML",
            },
            Library::Cupti => Facts {
                title: "NVIDIA's profiling interface CUPTI",
                variable: "STEPSCOPE_CUPTI",
                file_names: &["libcupti.so.13", "libcupti.so.12"],
                component: "cuda_cupti",
                probe: "cuptiGetVersion",
                companions: &["libnvperf_host.so", "libnvperf_target.so"],
                way_out: "`pip install nvidia-cuda-cupti` brings it (11 MB), or set STEPSCOPE_CUPTI",
            },
            Library::CublasLt => Facts {
                title: "NVIDIA's cuBLASLt",
                variable: "STEPSCOPE_CUBLASLT",
                file_names: &["libcublasLt.so.13", "libcublasLt.so.12"],
                component: "cublas",
                probe: "cublasLtGetVersion",
                companions: &[],
                way_out: "`pip install nvidia-cublas` brings it, or set STEPSCOPE_CUBLASLT",
            },
            Library::Nccl => Facts {
                title: "NVIDIA's NCCL",
                variable: "STEPSCOPE_NCCL",
                file_names: &["libnccl.so.2"],
                component: "nccl",
                probe: "ncclGetVersion",
                companions: &[],
                way_out: "`pip install nvidia-nccl-cu13` brings it, or set STEPSCOPE_NCCL",
            },
        }
    }

    /// What it is called in messages.
    pub fn title(self) -> &'static str {
        self.facts().title
    }

    /// The environment variable that chooses its file, or the folder that holds it.
    pub fn variable(self) -> &'static str {
        self.facts().variable
    }

    /// How a person gets it.
    pub fn way_out(self) -> &'static str {
        self.facts().way_out
    }

    fn comes_with_the_driver(self) -> bool {
        matches!(self, Library::Driver | Library::Nvml)
    }
}

/// A library that was found and opened. It stays loaded until the process ends.
#[derive(Debug)]
pub struct Found {
    /// The file it was opened from.
    pub path: PathBuf,
    /// What led there.
    pub origin: Origin,
    pub(crate) handle: ManuallyDrop<Handle>,
}

/// Finds `library` and opens the newest version of it.
///
/// # Errors
/// It is nowhere; the error lists every place that was looked at. Or the environment variable names a file that cannot be
/// opened.
pub fn open(library: Library) -> Result<Found, Error> {
    open_among(library, library.facts().file_names)
}

/// Opens the file at `path` as `library`, and looks nowhere else.
pub(crate) fn open_at(library: Library, path: &Path) -> Result<Found, Error> {
    let mut tried = Vec::new();
    open_file(&library.facts(), path, Origin::Chosen, &mut tried).ok_or_else(|| {
        if tried.is_empty() {
            tried.push(format!("{}, which is no file", path.display()));
        }
        Error::new(Cause::MissingLibrary {
            library: library.title(),
            tried,
            way_out: "another file can be given",
        })
    })
}

/// As [`open`], among the versions in `file_names` only.
pub(crate) fn open_among(library: Library, file_names: &[&str]) -> Result<Found, Error> {
    let surroundings = Surroundings::of_this_process(&[library.variable()]);
    open_in(&surroundings, library, file_names)
}

fn open_in(
    surroundings: &Surroundings,
    library: Library,
    file_names: &[&str],
) -> Result<Found, Error> {
    let facts = library.facts();
    let mut tried = Vec::new();
    if let Some(value) = surroundings.variable(facts.variable) {
        let files = if value.is_dir() {
            file_names.iter().map(|name| value.join(name)).collect()
        } else {
            vec![value.to_owned()]
        };
        let found = files
            .iter()
            .find_map(|file| open_file(&facts, file, Origin::Chosen, &mut tried));
        return found.ok_or_else(|| {
            let reason = if tried.is_empty() {
                format!("there is no {}", file_names.join(" or "))
            } else {
                tried.join(", ")
            };
            Error::new(Cause::ChosenLibrary {
                variable: facts.variable,
                value: value.to_owned(),
                reason,
            })
        });
    }
    let found = search(surroundings, library, file_names, &mut tried);
    found.ok_or_else(|| {
        Error::new(Cause::MissingLibrary {
            library: facts.title,
            tried,
            way_out: facts.way_out,
        })
    })
}

/// The first of `file_names` that opens, place by place; what did not open, and where nothing was, goes into `tried`.
fn search(
    surroundings: &Surroundings,
    library: Library,
    file_names: &[&str],
    tried: &mut Vec<String>,
) -> Option<Found> {
    let facts = library.facts();
    let in_folders = |folders: Vec<PathBuf>, origin: Origin, tried: &mut Vec<String>| {
        let mut seen = HashSet::new();
        for folder in folders
            .into_iter()
            .filter(|folder| seen.insert(folder.clone()))
        {
            let mut files = file_names.iter().map(|name| folder.join(name));
            if let Some(found) = files.find_map(|file| open_file(&facts, &file, origin, tried)) {
                return Some(found);
            }
            if folder.is_dir() {
                tried.push(folder.display().to_string());
            }
        }
        None
    };
    let with_driver = library.comes_with_the_driver();
    if !with_driver {
        let found = in_folders(surroundings.cuda_home(), Origin::CudaHome, tried);
        if found.is_some() {
            return found;
        }
    }
    let mut names = file_names.iter();
    if let Some(found) = names.find_map(|name| open_by_loader(&facts, name)) {
        return Some(found);
    }
    tried.push(format!("{} by the loader", file_names.join(" and ")));
    if with_driver {
        return in_folders(surroundings.driver_folders(), Origin::System, tried);
    }
    let packages = surroundings.python_packages(facts.component);
    if packages.is_empty() {
        tried.push("Python packages".to_owned());
    }
    in_folders(packages, Origin::PythonPackages, tried)
        .or_else(|| in_folders(surroundings.system_toolkits(), Origin::System, tried))
        .or_else(|| {
            in_folders(
                surroundings.target_cuda(facts.component),
                Origin::Target,
                tried,
            )
        })
}

/// Opens `file` with its companions. One that exists but does not open leaves the reason in `tried`.
fn open_file(facts: &Facts, file: &Path, origin: Origin, tried: &mut Vec<String>) -> Option<Found> {
    if !file.is_file() {
        return None;
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    open_companions(facts, folder);
    match open_checked(facts, file.as_os_str()) {
        Ok(handle) => Some(Found {
            path: file.to_owned(),
            origin: first_origin(file, origin),
            handle: ManuallyDrop::new(handle),
        }),
        Err(reason) => {
            tried.push(format!("{} ({reason})", file.display()));
            None
        }
    }
}

/// The files that were opened in this process, with what led to them first: the loader finds them by bare name from then on.
static OPENED: Mutex<Vec<(PathBuf, Origin)>> = Mutex::new(Vec::new());

/// What led to `path` when it was opened first.
fn first_origin(path: &Path, origin: Origin) -> Origin {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, first)) = opened.iter().find(|(file, _)| file == path) {
        return *first;
    }
    opened.push((path.to_owned(), origin));
    origin
}

fn open_by_loader(facts: &Facts, name: &str) -> Option<Found> {
    let handle = open_checked(facts, OsStr::new(name)).ok()?;
    let path = file_of(&handle, facts.probe).unwrap_or_else(|| PathBuf::from(name));
    if let Some(folder) = path.parent() {
        open_companions(facts, folder);
    }
    Some(Found {
        origin: first_origin(&path, Origin::Loader),
        path,
        handle: ManuallyDrop::new(handle),
    })
}

/// Opens the files beside a library that it looks for by bare name, which the loader then finds already loaded.
fn open_companions(facts: &Facts, folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_companion = facts
            .companions
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if is_companion && let Ok(handle) = open_now(path.as_os_str()) {
            // Stays loaded: the library that needs it does too.
            std::mem::forget(handle);
        }
    }
}

/// Opens `file` and makes sure that it is the library it is taken for.
fn open_checked(facts: &Facts, file: &OsStr) -> Result<Handle, String> {
    let handle = open_now(file).map_err(|error| one_line(&error.to_string()))?;
    // SAFETY: the symbol is looked up, not used.
    let probe = unsafe { handle.get::<*const ()>(facts.probe.as_bytes()) };
    match probe {
        Ok(_) => Ok(handle),
        Err(_) => Err(format!("it has no {}", facts.probe)),
    }
}

fn open_now(file: &OsStr) -> Result<Handle, libloading::Error> {
    // SAFETY: loading runs the initialisers of a library that the person chose, or that lies where NVIDIA's installers put
    // it; there is no other way to use it, and it is never unloaded, so no finaliser runs under our feet.
    unsafe { Handle::open(Some(file), RTLD_NOW | RTLD_LOCAL) }
}

/// The address of a function of the library, if it has it.
pub(crate) fn symbol(handle: &Handle, name: &str) -> Option<*const c_void> {
    // SAFETY: the symbol's address is taken, and nothing is done with it.
    let symbol = unsafe { handle.get::<*const c_void>(name.as_bytes()) };
    symbol.ok().map(|address| *address)
}

/// The file that `handle` was opened from, by way of its function `name`.
fn file_of(handle: &Handle, name: &str) -> Option<PathBuf> {
    let address = symbol(handle, name)?;
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is large enough, and zeroes are valid for its pointers and integers.
    let info = unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr gives a terminated string that lives as long as the library is loaded; it is copied here.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
    path.is_absolute().then_some(path)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn nowhere(variables: Vec<(&'static str, std::ffi::OsString)>, root: &Path) -> Surroundings {
        Surroundings {
            variables,
            root: root.to_owned(),
            ..Surroundings::default()
        }
    }

    #[test]
    fn a_library_that_is_nowhere_says_what_was_tried_and_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/local/cuda/lib64")).unwrap();
        let surroundings = nowhere(Vec::new(), root.path());
        let error = open_in(&surroundings, Library::Nvrtc, &["libnvrtc.so.99"]).unwrap_err();
        assert_eq!(error.kind(), Kind::MissingLibrary);
        let text = error.to_string();
        for part in [
            "libnvrtc.so.99 by the loader",
            "usr/local/cuda/lib64",
            "Python packages",
            "pip install",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_no_library_is_named_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("usr/local/cuda/lib64");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libnvrtc.so.99"), "text").unwrap();
        let surroundings = nowhere(Vec::new(), root.path());
        let error = open_in(&surroundings, Library::Nvrtc, &["libnvrtc.so.99"]).unwrap_err();
        assert!(error.to_string().contains("libnvrtc.so.99 ("), "{error}");
    }

    #[test]
    fn a_chosen_file_is_the_only_one_tried() {
        let root = tempfile::tempdir().unwrap();
        for (value, reason) in [
            (root.path().join("absent.so"), "there is no libcuda.so.1"),
            (root.path().to_owned(), "there is no libcuda.so.1"),
        ] {
            let variables = vec![("STEPSCOPE_LIBCUDA", value.clone().into_os_string())];
            let surroundings = nowhere(variables, root.path());
            let error = open_in(&surroundings, Library::Driver, &["libcuda.so.1"]).unwrap_err();
            let expected = format!(
                "STEPSCOPE_LIBCUDA={} cannot be used: {reason}",
                value.display()
            );
            assert_eq!(error.to_string(), expected);
            assert!(error.is_absence());
        }
    }

    #[test]
    fn a_library_of_another_kind_is_refused() {
        // The C library opens, but is not the driver.
        let surroundings = nowhere(
            vec![("STEPSCOPE_LIBCUDA", "/proc/self/exe".into())],
            Path::new("/"),
        );
        let error = open_in(&surroundings, Library::Driver, &["libcuda.so.1"]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("STEPSCOPE_LIBCUDA=/proc/self/exe cannot be used"),
            "{error}"
        );
    }

    #[test]
    fn the_loader_tells_the_file() {
        let libc = Facts {
            probe: "malloc",
            ..Library::Driver.facts()
        };
        match open_by_loader(&libc, "libc.so.6") {
            Some(found) => assert!(found.path.is_absolute(), "{}", found.path.display()),
            None => println!("skipped: this system has no libc.so.6"),
        }
    }
}
