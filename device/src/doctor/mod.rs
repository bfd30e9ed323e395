//! What this machine has of what stepscope can use, and what to do about the rest.
//!
//! ```
//! let report = stepscope_device::doctor::examine();
//! println!("{report}");
//! assert_eq!(report.libraries.len(), 6);
//! ```

mod counters;
mod gpus;
mod libraries;
mod text;

use std::path::PathBuf;

use serde::Serialize;

use crate::driver::Driver;
use crate::error::Version;
use crate::library::Library;
use crate::nvrtc::{Cache, Compiler, Usage};
pub use counters::Counters;
pub use gpus::{Gpu, GpuState};
pub use libraries::LibraryReport;

/// The findings of [`examine`].
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Every library that stepscope can use, in the order of [`Library::ALL`].
    pub libraries: Vec<LibraryReport>,
    /// The driver, if it works.
    pub driver: Option<DriverReport>,
    /// Why it does not work, if its library is there.
    pub driver_problem: Option<String>,
    /// The GPUs that the driver sees.
    pub gpus: Vec<Gpu>,
    /// Whether this process may read hardware counters.
    pub counters: Counters,
    /// The compiler, if it works.
    pub compiler: Option<CompilerReport>,
    /// Where compiled kernels are kept; none for a user without a home.
    pub cache: Option<CacheReport>,
    /// What is missing.
    pub missing: Vec<Missing>,
}

/// A driver that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriverReport {
    /// The newest CUDA that it supports.
    pub cuda: Version,
    /// Its own version, `580.65.06` for instance, if its kernel module tells.
    pub version: Option<String>,
    /// Functions that stepscope calls and it does not have.
    pub missing_functions: Vec<&'static str>,
}

/// A compiler that works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CompilerReport {
    /// NVRTC's version.
    pub version: Version,
    /// The compute capabilities that it compiles for, as 90 for 9.0.
    pub compute_capabilities: Vec<u32>,
}

/// The cache of compiled kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// Where it lies, or will lie.
    pub folder: PathBuf,
    /// How much it holds.
    #[serde(flatten)]
    pub usage: Usage,
}

/// Something that this machine does not have, or does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What it is.
    pub what: String,
    /// What cannot be done without it.
    pub disables: &'static str,
    /// How to get it.
    pub way_out: String,
    /// Where it was looked for, if it is a library that is nowhere.
    pub tried: Vec<String>,
}

/// Looks at this machine. Nothing is changed, and nothing that is missing is an error.
pub fn examine() -> Report {
    // First of all, so that each is found where the search finds it.
    let libraries = libraries::examine();
    let (driver, driver_problem) = match Driver::open() {
        Ok(driver) => (Some(driver), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (compiler, compiler_problem) = match Compiler::open() {
        Ok(compiler) => (Some(compiler), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let nvml = libraries
        .iter()
        .find(|library| library.library == Library::Nvml);
    let nvml_path = nvml.and_then(|library| library.path.as_deref());
    let has_library = libraries
        .iter()
        .any(|report| report.library == Library::Driver && report.path.is_some());
    let (gpus, gpu_problem) = match driver
        .as_deref()
        .map(|driver| gpus::examine(driver, nvml_path))
    {
        Some(Ok(gpus)) => (gpus, None),
        Some(Err(error)) => (Vec::new(), Some(error.to_string())),
        None => (Vec::new(), None),
    };
    let mut report = Report {
        libraries,
        driver: driver.as_deref().map(|driver| DriverReport {
            cuda: driver.version(),
            version: gpus::kernel_module_version(),
            missing_functions: driver.missing_functions(),
        }),
        // A library that is not there is told as such.
        driver_problem: driver_problem.filter(|_| has_library).or(gpu_problem),
        gpus,
        counters: counters::examine(),
        compiler: compiler.map(|compiler| CompilerReport {
            version: compiler.version(),
            compute_capabilities: compiler.supported().to_vec(),
        }),
        cache: Cache::for_this_user().map(|cache| CacheReport {
            folder: cache.folder().to_owned(),
            usage: cache.usage(),
        }),
        missing: Vec::new(),
    };
    report.missing = missing(&report, compiler_problem);
    report
}

/// What `report` lacks, the most important first.
fn missing(report: &Report, compiler_problem: Option<String>) -> Vec<Missing> {
    const RUNS_ON_A_GPU: &str = "running anything on a GPU";
    let mut missing = Vec::new();
    for library in report
        .libraries
        .iter()
        .filter(|library| library.path.is_none())
    {
        // One that is nowhere can be got; one that was chosen and does not open has a problem of its own.
        let own_problem = library.problem.clone().filter(|_| library.tried.is_empty());
        missing.push(Missing {
            what: library.title.to_owned(),
            disables: libraries::needed_for(library.library),
            way_out: own_problem.unwrap_or_else(|| library.library.way_out().to_owned()),
            tried: library.tried.clone(),
        });
    }
    if let Some(problem) = &report.driver_problem {
        missing.push(Missing {
            what: "a driver that works".to_owned(),
            disables: RUNS_ON_A_GPU,
            way_out: problem.clone(),
            tried: Vec::new(),
        });
    }
    let has_compiler =
        |library: &&LibraryReport| library.library == Library::Nvrtc && library.path.is_some();
    if let (Some(problem), Some(_)) = (compiler_problem, report.libraries.iter().find(has_compiler))
    {
        missing.push(Missing {
            what: "an NVRTC that works".to_owned(),
            disables: libraries::needed_for(Library::Nvrtc),
            way_out: problem,
            tried: Vec::new(),
        });
    }
    if let (Some(driver), Some(compiler)) = (&report.driver, &report.compiler)
        && driver.cuda.major < compiler.version.major
    {
        missing.push(Missing {
            what: format!("an NVRTC for the driver's CUDA {}", driver.cuda),
            disables: RUNS_ON_A_GPU,
            way_out: format!(
                "NVRTC {} makes code that this driver refuses: update the driver, or `pip install nvidia-cuda-nvrtc-cu{}`",
                compiler.version, driver.cuda.major
            ),
            tried: Vec::new(),
        });
    }
    if report.counters.allowed == Some(false) {
        missing.push(Missing {
            what: "permission to read hardware counters".to_owned(),
            disables: "hardware counters of kernels (times are not affected)",
            way_out: counters::WAY_OUT.to_owned(),
            tried: Vec::new(),
        });
    }
    if report.cache.is_none() {
        missing.push(Missing {
            what: "a place for compiled kernels".to_owned(),
            disables: "starting without compiling every kernel anew",
            way_out: "set STEPSCOPE_CACHE or HOME to an absolute path".to_owned(),
            tried: Vec::new(),
        });
    }
    missing
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::library::Origin;

    /// The report about a machine with nothing but an NVRTC.
    pub(crate) fn without_a_gpu() -> Report {
        let libraries = Library::ALL
            .map(|library| LibraryReport::absent(library, format!("get {}", library.title())));
        let mut report = Report {
            libraries: libraries.to_vec(),
            driver: None,
            driver_problem: None,
            gpus: Vec::new(),
            counters: Counters {
                allowed: None,
                reason: "no NVIDIA kernel module is loaded".to_owned(),
            },
            compiler: Some(CompilerReport {
                version: Version {
                    major: 13,
                    minor: 0,
                },
                compute_capabilities: vec![80, 90],
            }),
            cache: Some(CacheReport {
                folder: "/home/me/.cache/stepscope".into(),
                usage: Usage {
                    files: 2,
                    bytes: 3 << 20,
                },
            }),
            missing: Vec::new(),
        };
        let nvrtc = &mut report.libraries[2];
        nvrtc.path = Some("/opt/libnvrtc.so.13".into());
        nvrtc.origin = Some(Origin::PythonPackages);
        nvrtc.version = Some("13.0".to_owned());
        nvrtc.problem = None;
        report.missing = missing(&report, None);
        report
    }

    #[test]
    fn each_missing_thing_says_what_it_disables_and_how_to_get_it() {
        let mut report = without_a_gpu();
        assert_eq!(report.missing.len(), 5);
        assert!(
            report
                .missing
                .iter()
                .all(|missing| !missing.disables.is_empty() && !missing.way_out.is_empty())
        );
        report.counters.allowed = Some(false);
        report.cache = None;
        report.driver_problem = Some("cuInit failed".to_owned());
        let added = missing(&report, Some("nvrtcVersion failed".to_owned()));
        let added: Vec<&str> = added[5..]
            .iter()
            .map(|missing| missing.what.as_str())
            .collect();
        assert_eq!(
            added,
            [
                "a driver that works",
                "an NVRTC that works",
                "permission to read hardware counters",
                "a place for compiled kernels",
            ]
        );
    }

    #[test]
    fn a_driver_older_than_the_compiler_is_told() {
        let mut report = without_a_gpu();
        report.driver = Some(DriverReport {
            cuda: Version {
                major: 12,
                minor: 8,
            },
            version: None,
            missing_functions: Vec::new(),
        });
        let missing = missing(&report, None);
        let last = missing.last().unwrap();
        assert_eq!(last.what, "an NVRTC for the driver's CUDA 12.8");
        assert!(
            last.way_out
                .ends_with("`pip install nvidia-cuda-nvrtc-cu12`"),
            "{}",
            last.way_out
        );
    }
}
