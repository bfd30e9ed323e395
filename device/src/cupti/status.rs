//! What CUPTI answers, in words.

use super::Cupti;
use crate::Error;
use crate::error::Cause;

/// No record is left in a buffer. Not an error.
pub(super) const MAX_LIMIT_REACHED: u32 = 12;

/// Another profiler is at work.
pub(super) const MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED: u32 = 39;

/// The error of a call that was answered with `status`.
pub(super) fn refused(function: &'static str, status: u32) -> Error {
    Error::new(Cause::Cupti {
        doing: String::new(),
        function,
        code: status,
        name: name(status),
    })
}

/// The names of `CUptiResult` in cupti_result.h of CUDA 12.9 and 13.5, as far as a call of ours can be answered with them.
fn name(status: u32) -> &'static str {
    match status {
        1 => "CUPTI_ERROR_INVALID_PARAMETER",
        2 => "CUPTI_ERROR_INVALID_DEVICE",
        3 => "CUPTI_ERROR_INVALID_CONTEXT",
        7 => "CUPTI_ERROR_INVALID_OPERATION",
        8 => "CUPTI_ERROR_OUT_OF_MEMORY",
        9 => "CUPTI_ERROR_HARDWARE",
        10 => "CUPTI_ERROR_PARAMETER_SIZE_NOT_SUFFICIENT",
        11 => "CUPTI_ERROR_API_NOT_IMPLEMENTED",
        MAX_LIMIT_REACHED => "CUPTI_ERROR_MAX_LIMIT_REACHED",
        13 => "CUPTI_ERROR_NOT_READY",
        14 => "CUPTI_ERROR_NOT_COMPATIBLE",
        15 => "CUPTI_ERROR_NOT_INITIALIZED",
        17 => "CUPTI_ERROR_INVALID_METRIC_NAME",
        18 => "CUPTI_ERROR_QUEUE_EMPTY",
        21 => "CUPTI_ERROR_INVALID_KIND",
        23 => "CUPTI_ERROR_DISABLED",
        26 => "CUPTI_ERROR_HARDWARE_BUSY",
        27 => "CUPTI_ERROR_NOT_SUPPORTED",
        33 => "CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED",
        35 => "CUPTI_ERROR_INSUFFICIENT_PRIVILEGES",
        36 => "CUPTI_ERROR_OLD_PROFILER_API_INITIALIZED",
        38 => "CUPTI_ERROR_LEGACY_PROFILER_NOT_SUPPORTED",
        MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED",
        40 => "CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES",
        41 => "CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED",
        42 => "CUPTI_ERROR_CMP_DEVICE_NOT_SUPPORTED",
        43 => "CUPTI_ERROR_MIG_DEVICE_NOT_SUPPORTED",
        44 => "CUPTI_ERROR_SLI_DEVICE_NOT_SUPPORTED",
        45 => "CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED",
        47 => "CUPTI_ERROR_HES_TRACE_NOT_SUPPORTED_ON_MPS",
        999 => "CUPTI_ERROR_UNKNOWN",
        _ => "an error that this version of stepscope does not know",
    }
}

/// What a person can do about CUPTI's error `code`.
pub(crate) fn way_out(code: u32) -> &'static str {
    match code {
        8 => "; host memory ran out: record fewer steps",
        14 => {
            "; CUPTI does not fit the driver: install the CUPTI of the driver's CUDA version, or set STEPSCOPE_CUPTI"
        }
        15 => "; CUPTI found no driver that works: see `stepscope doctor`",
        26 => {
            "; another profiler holds the GPU's counters: end it, or where it is DCGM pause it with `dcgmi profile --pause`"
        }
        27 => "; this GPU or this driver cannot do it",
        33 => "; the GPU is virtualised and its host does not allow profiling",
        35 => {
            "; hardware counters need a permission: load the kernel module with NVreg_RestrictProfilingToAdminUsers=0, or run \
             with CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN)"
        }
        36 | 38 => {
            "; something in this process used CUPTI's older interface already: run stepscope alone"
        }
        MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED => {
            "; another profiler has this process already (Nsight Systems, Nsight Compute, cuda-gdb): run without it"
        }
        40 => "; the GPU is virtualised: its host must give this guest the permission to profile",
        41 => "; the GPU runs in confidential-computing mode, in which it cannot be profiled",
        43 => "; the device is a MIG slice: counters need the whole GPU",
        45 => "; the driver of WSL does not support it: update the Windows driver",
        999 => {
            "; CUPTI does not say why, which is also what CUPTI 13 answers where there is no driver"
        }
        _ => "",
    }
}

/// The CUDA version that a CUPTI with this number came with: the list in cupti_version.h up to CUDA 12.9, `xxyyzz` from 13.0 on.
pub(crate) fn cuda_version(number: u32) -> String {
    let known = match number {
        18 => "11.8",
        19 => "12.0",
        20 => "12.2",
        21 => "12.3",
        22 => "12.4",
        23 => "12.5",
        24 => "12.6",
        26 => "12.8",
        27 => "12.9",
        28 => "12.9 Update 1",
        130_000.. => {
            let [major, minor, update] = [number / 10_000, number % 10_000 / 100, number % 100];
            return match update {
                0 => format!("{major}.{minor}"),
                _ => format!("{major}.{minor} Update {update}"),
            };
        }
        _ => return format!("of interface version {number}"),
    };
    known.to_owned()
}

impl Cupti {
    /// Why records of this version can be wrong in a way that does not show in them, if it is known for that.
    pub fn known_problem(&self) -> Option<&'static str> {
        match self.number() {
            // CUDA.jl #2328. Its number is that of 12.4 without the update, which is not affected.
            22 => Some(
                "the CUPTI of CUDA 12.4 Update 1 records no kernels; if none appear, install a newer one",
            ),
            // kineto #1165; NVIDIA's notes to 13.1 Update 1 name a fix.
            ..=130_100 => Some(
                "CUPTI before CUDA 13.1 Update 1 can damage records of kernels inside CUDA graphs; what is kept was checked",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn answers_name_the_reason_and_the_way_out() {
        let check = |code: u32, expected: &str| {
            let error = refused("cuptiSubscribe", code).during("starting to record");
            assert_eq!(error.kind(), Kind::Profiler);
            assert_eq!(error.code(), Some(code));
            let text = error.to_string();
            assert!(text.starts_with("starting to record: cuptiSubscribe failed: "));
            assert!(text.contains(expected), "{text}");
        };
        check(
            26,
            "HARDWARE_BUSY (26); another profiler holds the GPU's counters",
        );
        check(35, "PRIVILEGES (35); hardware counters need a permission");
        check(39, "Nsight Systems, Nsight Compute, cuda-gdb");
        check(43, "MIG slice");
        check(4711, "does not know (4711)");
    }

    #[test]
    fn a_refusal_of_cupti_is_no_crash_of_a_kernel() {
        assert!(!refused("cuptiActivityEnable", 719).loses_context());
    }

    #[test]
    fn versions_are_those_of_cuda() {
        for (number, expected) in [
            (27, "12.9"),
            (28, "12.9 Update 1"),
            (25, "of interface version 25"),
            (130_000, "13.0"),
            (130_001, "13.0 Update 1"),
            (130_500, "13.5"),
        ] {
            assert_eq!(cuda_version(number), expected);
        }
    }
}
