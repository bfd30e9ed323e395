//! Memory that is asked for in full before a long load begins, and never by an allocation that aborts.

use std::fs;

use crate::error::Error;

/// An error if this machine has not `bytes` to spare. Systems that do not tell are believed.
pub(crate) fn require(bytes: u64, what: &str) -> Result<(), Error> {
    match available() {
        Some(available) if available < bytes => Err(Error::input(format!(
            "{what} need {} of memory, but {} are available: take a smaller model or fewer layers (config override \"num_hidden_layers\"), or a 16-bit dtype",
            gigabytes(bytes),
            gigabytes(available)
        ))),
        _ => Ok(()),
    }
}

/// `len` default elements; `what` names them if memory runs out.
pub(crate) fn zeroed<T: Copy + Default>(
    len: usize,
    what: impl Fn() -> String,
) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| {
        stepscope_kernels::Error::out_of_memory(what(), len as u128 * size_of::<T>() as u128)
    })?;
    values.resize(len, T::default());
    Ok(values)
}

/// Bytes that this process can still have: what the machine has free or can free, and what its control group allows.
fn available() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = parse_meminfo(&info)?;
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(u64::MAX);
    Some(machine.min(group))
}

fn parse_meminfo(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_kibibytes() {
        let info = "MemTotal:       24601480 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(parse_meminfo(info), Some(20_480_000_000));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn what_no_machine_has_is_refused_by_name() {
        let error = require(u64::MAX, "the weights").unwrap_err();
        assert!(error.is_input());
        assert!(
            error
                .to_string()
                .starts_with("the weights need 18446744073.7 GB of memory")
        );
    }

    #[test]
    fn an_absurd_vector_is_an_error() {
        assert!(zeroed::<f32>(usize::MAX, || "tensor t".to_owned()).is_err());
    }
}
