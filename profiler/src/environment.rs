//! The machine a run runs on, and what of its memory is left.

use std::time::{SystemTime, UNIX_EPOCH};

use sysinfo::{
    CpuRefreshKind, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System,
};

use crate::record::{Cpu, Environment, Roofs};

/// Looks at this machine. `simd` names the instruction sets that the kernels use; `roofs` is what the machine was measured
/// to be capable of in this run.
pub fn measure(simd: &str, roofs: Option<Roofs>) -> Environment {
    let system = System::new_with_specifics(
        RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram()),
    )
    .ok();
    let cpu = system.as_ref().and_then(|system| system.cpus().first());
    Environment {
        host: System::host_name().ok(),
        os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        cpu: Cpu {
            name: cpu
                .map(|cpu| cpu.brand().trim())
                .filter(|brand| !brand.is_empty())
                .unwrap_or("unknown CPU")
                .to_owned(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd.to_owned(),
        },
        memory_bytes: system.map_or(0, |system| system.total_memory()),
        load_average: System::load_average().ok().map(|load| load.one),
        gpu: None,
        roofs,
    }
}

/// Bytes that can still be allocated without swapping: what the system calls available, or what the process's cgroup leaves
/// it where that is less. 0 where neither tells.
pub fn available_memory_bytes() -> u64 {
    let Ok(mut system) = System::new_with_specifics(
        RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()),
    ) else {
        return 0;
    };
    let available = system.available_memory();
    let own_limits = sysinfo::get_current_pid().ok().and_then(|pid| {
        system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[pid]),
            false,
            ProcessRefreshKind::nothing(),
        );
        system.process(pid)?.cgroup_limits()
    });
    match own_limits.or_else(|| system.cgroup_limits()) {
        // Not `free_memory`: that counts page cache as used, and with it the mapped weights, which the kernel gives up first.
        Some(limits) => available.min(limits.total_memory.saturating_sub(limits.rss)),
        None => available,
    }
}

/// The most memory this process ever held (`VmHWM`), on Linux.
pub fn peak_rss_bytes() -> Option<u64> {
    parse_peak_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak_rss(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Now, in UTC, as RFC 3339 writes it: `2026-02-03T04:05:06Z`.
pub fn utc_now() -> String {
    // A clock before 1970 is a wrong clock; the epoch says so plainly enough.
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    rfc3339(since_epoch.as_secs())
}

fn rfc3339(unix_seconds: u64) -> String {
    let (days, second_of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (
        second_of_day / 3_600,
        second_of_day / 60 % 60,
        second_of_day % 60,
    );
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of the month, both from 1, of the Gregorian date `days` after 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`). Years begin in March there, so that the leap day is the last of its year.
pub fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let era = days / DAYS_PER_400_YEARS;
    let day_of_era = days % DAYS_PER_400_YEARS;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix_seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"), // 2100 is no leap year
        ] {
            assert_eq!(rfc3339(unix_seconds), expected);
        }
        assert_eq!(utc_now().len(), "1970-01-01T00:00:00Z".len());
    }

    #[test]
    fn this_machine_has_a_cpu_and_memory() {
        let environment = measure("avx2", None);
        assert!(!environment.cpu.name.is_empty());
        assert!(environment.cpu.threads >= 1);
        let available = available_memory_bytes();
        assert!(available > 0 && available <= environment.memory_bytes);
    }

    #[test]
    fn peak_memory_is_read_from_the_status() {
        assert_eq!(
            parse_peak_rss("VmPeak:\t  500 kB\nVmHWM:\t    1864 kB\nVmRSS:\t 1 kB\n"),
            Some(1864 * 1024)
        );
        assert_eq!(parse_peak_rss("VmHWM: many kB"), None);
        assert_eq!(parse_peak_rss(""), None);
        if cfg!(target_os = "linux") {
            assert!(peak_rss_bytes() > Some(100_000));
        }
    }
}
