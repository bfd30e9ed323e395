//! The folders in which NVIDIA's libraries may lie.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// One of our own environment variables.
    Chosen,
    /// `CUDA_HOME` or `CUDA_PATH`.
    CudaHome,
    /// The system's loader: `LD_LIBRARY_PATH` or its cache.
    Loader,
    /// A Python environment's packages.
    PythonPackages,
    /// A folder where distributions or NVIDIA's installers put it.
    System,
    /// `target/cuda` of the repository, where `cargo xtask cuda` unpacks.
    Target,
    /// No file at all: the program brings it along.
    Program,
}

impl Origin {
    /// The origin in words, for a person.
    pub fn words(self) -> &'static str {
        match self {
            Origin::Chosen => "chosen by environment variable",
            Origin::CudaHome => "CUDA_HOME or CUDA_PATH",
            Origin::Loader => "the system's loader",
            Origin::PythonPackages => "Python packages",
            Origin::System => "system folder",
            Origin::Target => "target/cuda",
            Origin::Program => "part of this program",
        }
    }
}

/// What the search looks at, beside the file system: filled from this process, or by hand in tests.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// The value of an environment variable.
    pub(crate) variables: Vec<(&'static str, OsString)>,
    /// The program's own file.
    pub(crate) executable: Option<PathBuf>,
    /// Folders of Python packages beyond `VIRTUAL_ENV`'s; asked for only when the search comes there.
    pub(crate) site_packages: Option<fn() -> &'static [PathBuf]>,
    /// `/`, except in tests.
    pub(crate) root: PathBuf,
}

impl Surroundings {
    /// Those of this process; `ours` are the environment variables of stepscope to take along.
    pub(crate) fn of_this_process(ours: &[&'static str]) -> Surroundings {
        let theirs = [
            "CUDA_HOME",
            "CUDA_PATH",
            "VIRTUAL_ENV",
            "CARGO_MANIFEST_DIR",
        ];
        let names = ours.iter().chain(&theirs);
        Surroundings {
            variables: names
                .filter_map(|name| Some((*name, env::var_os(name)?)))
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            executable: env::current_exe().ok(),
            site_packages: Some(site_packages_of_python3),
            root: PathBuf::from("/"),
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Path> {
        let mut variables = self.variables.iter();
        let (_, value) = variables.find(|(variable, _)| *variable == name)?;
        Some(Path::new(value))
    }

    /// The `lib` folders of the toolkit that `CUDA_HOME` or `CUDA_PATH` names.
    pub(crate) fn cuda_home(&self) -> Vec<PathBuf> {
        let homes = ["CUDA_HOME", "CUDA_PATH"];
        let homes = homes.iter().filter_map(|name| self.variable(name));
        homes.flat_map(toolkit_folders).collect()
    }

    /// The `lib` folders of NVIDIA's wheels in the Python environments at hand.
    pub(crate) fn python_packages(&self, component: &str) -> Vec<PathBuf> {
        let mut sites = Vec::new();
        if let Some(environment) = self.variable("VIRTUAL_ENV") {
            let pythons = subfolders(&environment.join("lib"), "python3");
            sites.extend(pythons.iter().map(|python| python.join("site-packages")));
        }
        if let Some(ask) = self.site_packages {
            sites.extend(ask().iter().cloned());
        }
        sites
            .iter()
            .flat_map(|site| wheel_folders(site, component))
            .collect()
    }

    /// The `lib` folders of toolkits where installers and distributions put them.
    pub(crate) fn system_toolkits(&self) -> Vec<PathBuf> {
        let toolkits = ["usr/local/cuda", "opt/cuda"];
        let toolkits = toolkits.iter().map(|folder| self.root.join(folder));
        toolkits
            .flat_map(|folder| toolkit_folders(&folder))
            .collect()
    }

    /// Where drivers lie that the loader may not know: other distributions, WSL, NixOS.
    pub(crate) fn driver_folders(&self) -> Vec<PathBuf> {
        [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
            "usr/lib64",
            "usr/lib",
            "usr/lib/wsl/lib",
            "run/opengl-driver/lib",
            "usr/local/nvidia/lib64",
        ]
        .iter()
        .map(|folder| self.root.join(folder))
        .collect()
    }

    /// The `lib` folders of the wheels that `cargo xtask cuda` unpacked: in the `target` folder that this program lies in, or in
    /// that of the package that cargo runs. Neither the current folder nor anything further up is asked: whoever can
    /// write there would choose what is loaded.
    pub(crate) fn target_cuda(&self, component: &str) -> Vec<PathBuf> {
        let executable = self.executable.iter().flat_map(|file| file.ancestors());
        let of_executable = executable
            .filter(|folder| folder.file_name() == Some(OsStr::new("target")))
            .take(1);
        let mut targets: Vec<PathBuf> = of_executable.map(Path::to_owned).collect();
        if let Some(package) = self.variable("CARGO_MANIFEST_DIR") {
            // The package's own, or that of the workspace around it.
            targets.extend(
                package
                    .ancestors()
                    .take(2)
                    .map(|folder| folder.join("target")),
            );
        }
        targets
            .iter()
            .flat_map(|target| wheel_folders(&target.join("cuda"), component))
            .collect()
    }
}

/// The `lib` folders of a toolkit installed in `home`.
fn toolkit_folders(home: &Path) -> Vec<PathBuf> {
    [
        "lib64",
        "lib",
        "targets/x86_64-linux/lib",
        "targets/sbsa-linux/lib",
        "extras/CUPTI/lib64",
    ]
    .iter()
    .map(|folder| home.join(folder))
    .collect()
}

/// The `lib` folders of NVIDIA's wheels below `site`: one tree `nvidia/cu13` since CUDA 13, one folder per component
/// before, and for libraries that are no part of CUDA.
fn wheel_folders(site: &Path, component: &str) -> Vec<PathBuf> {
    let nvidia = site.join("nvidia");
    let mut folders = subfolders(&nvidia, "cu");
    // `cu14` before `cu13`, and `cuda_nvrtc`, which is no such tree, not at all.
    folders.retain(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name[2..].bytes().all(|byte| byte.is_ascii_digit())
    });
    folders.reverse();
    folders.push(nvidia.join(component));
    folders
        .iter()
        .map(|folder| folder.join("lib"))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// The folders in `folder` whose names begin with `prefix`, sorted.
fn subfolders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// The package folders of the `python3` on `PATH`; none without one. Asked once per process: starting Python takes some
/// tens of milliseconds.
fn site_packages_of_python3() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let script =
            "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')";
        let output = Command::new("python3")
            .args(["-I", "-c", script])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        match output {
            Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
                .lines()
                .map(PathBuf::from)
                .collect(),
            _ => Vec::new(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relative(folders: &[PathBuf], root: &Path) -> Vec<String> {
        folders
            .iter()
            .map(|folder| {
                folder
                    .strip_prefix(root)
                    .unwrap_or(folder)
                    .display()
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn wheels_of_both_layouts_are_found_newest_first() {
        let root = tempfile::tempdir().unwrap();
        let site = root.path().join("venv/lib/python3.12/site-packages");
        for folder in [
            "cu13/lib",
            "cu14/lib",
            "cuda_nvrtc/lib",
            "cudnn/lib",
            "cu13x",
        ] {
            fs::create_dir_all(site.join("nvidia").join(folder)).unwrap();
        }
        let surroundings = Surroundings {
            variables: vec![("VIRTUAL_ENV", root.path().join("venv").into())],
            ..Surroundings::default()
        };
        assert_eq!(
            relative(&surroundings.python_packages("cuda_nvrtc"), &site),
            [
                "nvidia/cu14/lib",
                "nvidia/cu13/lib",
                "nvidia/cuda_nvrtc/lib"
            ]
        );
    }

    #[test]
    fn target_cuda_is_that_of_the_program_or_of_cargo() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("target/cuda/nvidia/cu13/lib")).unwrap();
        for (executable, manifest) in [
            (Some("target/release/stepscope"), None),
            (None, Some("device")),
        ] {
            let manifest =
                manifest.map(|folder| ("CARGO_MANIFEST_DIR", root.path().join(folder).into()));
            let surroundings = Surroundings {
                variables: manifest.into_iter().collect(),
                executable: executable.map(|file| root.path().join(file)),
                ..Surroundings::default()
            };
            assert_eq!(
                relative(&surroundings.target_cuda("cuda_nvrtc"), root.path()),
                ["target/cuda/nvidia/cu13/lib"]
            );
        }
    }

    #[test]
    fn cuda_home_comes_before_cuda_path() {
        let surroundings = Surroundings {
            variables: vec![("CUDA_PATH", "/b".into()), ("CUDA_HOME", "/a".into())],
            ..Surroundings::default()
        };
        let folders = surroundings.cuda_home();
        assert_eq!(folders[0], Path::new("/a/lib64"));
        assert!(folders.contains(&PathBuf::from("/b/lib64")));
    }
}
