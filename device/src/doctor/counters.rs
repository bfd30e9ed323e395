//! Whether this process may read hardware counters.

use std::fs;

use serde::Serialize;

/// How a person gets the permission; see <https://developer.nvidia.com/ERR_NVGPUCTRPERM>.
pub(super) const WAY_OUT: &str = "load the kernel module with NVreg_RestrictProfilingToAdminUsers=0 (`options nvidia \
     NVreg_RestrictProfilingToAdminUsers=0` in /etc/modprobe.d, then reboot), or run with CAP_SYS_ADMIN (in a container: \
     --cap-add SYS_ADMIN)";

/// The permission to read hardware counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Whether it is given; not known where there is no NVIDIA kernel module.
    pub allowed: Option<bool>,
    /// From what that follows.
    pub reason: String,
}

pub(super) fn examine() -> Counters {
    let parameters = fs::read_to_string("/proc/driver/nvidia/params").ok();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge(parameters.as_deref(), &status)
}

/// `parameters` are those of the kernel module, `status` is the process's.
fn judge(parameters: Option<&str>, status: &str) -> Counters {
    let Some(parameters) = parameters else {
        return Counters {
            allowed: None,
            reason: "no NVIDIA kernel module is loaded".to_owned(),
        };
    };
    // The module's parameter NVreg_RestrictProfilingToAdminUsers shows under this name.
    let restricted = value_of(parameters, "RmProfilingAdminOnly").map(|value| value != "0");
    match restricted {
        Some(false) => Counters {
            allowed: Some(true),
            reason: "the kernel module allows every user".to_owned(),
        },
        _ if is_admin(status) => Counters {
            allowed: Some(true),
            reason: "this process has CAP_SYS_ADMIN".to_owned(),
        },
        Some(true) => Counters {
            allowed: Some(false),
            reason: "the kernel module allows administrators only".to_owned(),
        },
        None => Counters {
            allowed: None,
            reason: "the kernel module does not tell".to_owned(),
        },
    }
}

fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
}

/// Whether the process's effective capabilities hold CAP_SYS_ADMIN, number 21.
fn is_admin(status: &str) -> bool {
    let capabilities =
        value_of(status, "CapEff").and_then(|value| u64::from_str_radix(value, 16).ok());
    capabilities.is_some_and(|bits| bits & 1 << 21 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_and_the_capabilities_decide() {
        let check = |parameters: Option<&str>, status: &str, expected: Option<bool>| {
            assert_eq!(judge(parameters, status).allowed, expected);
        };
        let (user, root) = ("CapEff:\t0000000000000000\n", "CapEff:\t000001ffffffffff\n");
        // Docker's root is no administrator.
        let container = "CapEff:\t00000000a80425fb\n";
        let (open, closed) = (
            "RmProfilingAdminOnly: 0\n",
            "ResmanDebugLevel: 1\nRmProfilingAdminOnly: 1\n",
        );
        check(None, root, None);
        check(Some(open), user, Some(true));
        check(Some(closed), user, Some(false));
        check(Some(closed), container, Some(false));
        check(Some(closed), root, Some(true));
        check(Some("x: 1\n"), user, None);
        check(Some(closed), "", Some(false));
    }
}
