//! How people read numbers: three or four digits, a prefix that fits, and the unit.

/// `value` with `digits` significant digits and no exponent; digits before the point are never cut.
pub fn significant(value: f64, digits: u32) -> String {
    if !value.is_finite() {
        return "n/a".to_owned();
    }
    let decimals = |value: f64| {
        let magnitude = if value == 0.0 {
            0
        } else {
            value.abs().log10().floor() as i32
        };
        (digits as i32 - 1 - magnitude).clamp(0, 12) as usize
    };
    let text = format!("{value:.*}", decimals(value));
    // Rounding may have added a digit: 9.996 became 10.00.
    let rounded = text.parse().unwrap_or(value);
    format!("{value:.*}", decimals(rounded))
}

/// A time given in nanoseconds, with three digits: `312 ns`, `2.13 µs`, `15.8 ms`, `1.42 s`.
pub fn duration(nanoseconds: f64) -> String {
    duration_with_digits(nanoseconds, 3)
}

/// [`duration`] with as many significant digits as asked for.
pub fn duration_with_digits(nanoseconds: f64, digits: u32) -> String {
    if !nanoseconds.is_finite() {
        return "n/a".to_owned();
    }
    // The largest number that still rounds to three digits before the point.
    let limit = 1e3 - 0.5 * 10_f64.powi(3 - digits.max(3) as i32);
    let (divisor, unit) = match nanoseconds.abs() {
        ns if ns < limit => (1.0, "ns"),
        ns if ns < limit * 1e3 => (1e3, "µs"),
        ns if ns < limit * 1e6 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let is_whole = divisor == 1.0 && nanoseconds.fract() == 0.0;
    let digits = if is_whole { 1 } else { digits };
    format!("{} {unit}", significant(nanoseconds / divisor, digits))
}

/// `value` of `unit` with a decimal prefix: `270 MB`, `17.1 GB/s`, `194 GFLOP/s`.
pub fn with_prefix(value: f64, unit: &str) -> String {
    const PREFIXES: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut scaled = value;
    let mut index = 0;
    while scaled.abs() >= 999.5 && index + 1 < PREFIXES.len() {
        scaled /= 1e3;
        index += 1;
    }
    let digits = if index == 0 && scaled.fract() == 0.0 {
        1
    } else {
        3
    };
    format!("{} {}{unit}", significant(scaled, digits), PREFIXES[index])
}

/// A number of things, billions as the field writes them: `135M`, `8.03B`.
pub fn count(count: f64) -> String {
    with_prefix(count, "").replace(' ', "").replace('G', "B")
}

/// A number of bytes, in powers of 1000 as bandwidths are.
pub fn bytes(bytes: f64) -> String {
    with_prefix(bytes, "B")
}

/// A fraction as a percentage: `78 %`.
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    if !percent.is_finite() {
        "n/a".to_owned()
    } else if percent > 0.0 && percent < 0.95 {
        format!("{} %", significant(percent, 1))
    } else {
        format!("{percent:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(actual: String, expected: &str) {
        assert_eq!(actual, expected);
    }

    #[test]
    fn digits_that_matter() {
        check(significant(0.0, 3), "0.00");
        check(significant(0.012_345, 3), "0.0123");
        check(significant(9.996, 3), "10.0");
        check(significant(15.8123, 3), "15.8");
        check(significant(1_234.5, 3), "1234");
        check(significant(-2.5, 3), "-2.50");
        check(significant(f64::NAN, 3), "n/a");
        check(significant(1e-30, 3), "0.00");
    }

    #[test]
    fn durations() {
        check(duration(0.0), "0 ns");
        check(duration(312.0), "312 ns");
        check(duration(2_130.0), "2.13 µs");
        check(duration(999_600.0), "1.00 ms");
        check(duration(15_812_345.0), "15.8 ms");
        check(duration(1.42e9), "1.42 s");
        check(duration_with_digits(999_949.0, 4), "999.9 µs");
        check(duration_with_digits(999_950.0, 4), "1.000 ms");
        check(duration_with_digits(397_474_512.0, 4), "397.5 ms");
        check(duration(f64::INFINITY), "n/a");
    }

    #[test]
    fn prefixes() {
        check(bytes(512.0), "512 B");
        check(bytes(270_123_456.0), "270 MB");
        check(with_prefix(17.1e9, "B/s"), "17.1 GB/s");
        check(with_prefix(999.9e9, "FLOP/s"), "1.00 TFLOP/s");
        check(count(134_515_008.0), "135M");
        check(count(8.03e9), "8.03B");
        check(count(12.0), "12");
        check(with_prefix(3e21, "B"), "3000000 PB");
    }

    #[test]
    fn percentages() {
        check(percent(0.7831), "78 %");
        check(percent(0.004), "0.4 %");
        check(percent(0.0), "0 %");
        check(percent(f64::NAN), "n/a");
    }
}
