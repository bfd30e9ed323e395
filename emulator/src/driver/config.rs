//! What the driver offers: set by the program that has the driver within itself, or by environment variables.

use std::path::PathBuf;

use crate::Limits;
use crate::check::Checks;

/// The devices that the driver offers, and what it does about their kernels.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// How many devices.
    pub devices: usize,
    /// Their compute capability: 8.0, 8.6, 8.9 or 9.0.
    pub compute_capability: (u32, u32),
    /// Memory of each.
    pub memory_bytes: u64,
    /// Multiprocessors of each; `None` for what a GPU of this compute capability has.
    pub multiprocessors: Option<u32>,
    /// What launches are checked for.
    pub checks: Checks,
    /// When a kernel is given up.
    pub limits: Limits,
    /// A file that gets one JSON line per launch.
    pub report: Option<PathBuf>,
    /// Whether reports are kept for [`take_reports`](super::take_reports).
    pub keep_reports: bool,
}

impl Default for Configuration {
    /// One device as an H100 with 16 GiB, unchecked.
    fn default() -> Self {
        Self {
            devices: 1,
            compute_capability: (9, 0),
            memory_bytes: 16 << 30,
            multiprocessors: None,
            checks: Checks::NONE,
            limits: Limits::default(),
            report: None,
            keep_reports: false,
        }
    }
}

const DEVICES: &str = "STEPSCOPE_EMULATED_DEVICES";
const CAPABILITY: &str = "STEPSCOPE_EMULATED_CAPABILITY";
const MEMORY: &str = "STEPSCOPE_EMULATED_MEMORY";
const SMS: &str = "STEPSCOPE_EMULATED_SMS";
const CHECKS: &str = "STEPSCOPE_EMULATED_CHECKS";
const REPORT: &str = "STEPSCOPE_EMULATED_REPORT";

impl Configuration {
    /// The defaults, with what the variables `STEPSCOPE_EMULATED_…` of the environment say.
    ///
    /// # Errors
    /// A variable has a value that cannot be understood; the message names it.
    pub fn from_environment() -> Result<Self, String> {
        Self::from_variables(|name| std::env::var_os(name)?.into_string().ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut configuration = Self::default();
        let set = |name| variable(name).filter(|value: &String| !value.is_empty());
        if let Some(value) = set(DEVICES) {
            configuration.devices = value
                .parse()
                .ok()
                .filter(|count| *count <= 64)
                .ok_or_else(|| wrong(DEVICES, &value, "a number up to 64"))?;
        }
        if let Some(value) = set(CAPABILITY) {
            configuration.compute_capability = match value.as_str() {
                "8.0" => (8, 0),
                "8.6" => (8, 6),
                "8.9" => (8, 9),
                "9.0" => (9, 0),
                _ => return Err(wrong(CAPABILITY, &value, "8.0, 8.6, 8.9 or 9.0")),
            };
        }
        if let Some(value) = set(MEMORY) {
            configuration.memory_bytes =
                bytes(&value).ok_or_else(|| wrong(MEMORY, &value, "bytes, or as 512M or 16G"))?;
        }
        if let Some(value) = set(SMS) {
            let count = value
                .parse()
                .ok()
                .filter(|count| (1..=1024).contains(count));
            let count = count.ok_or_else(|| wrong(SMS, &value, "a number from 1 to 1024"))?;
            configuration.multiprocessors = Some(count);
        }
        if let Some(value) = set(CHECKS) {
            let expected = "memory, race, sync and init in a list, all or none";
            configuration.checks = checks(&value).ok_or_else(|| wrong(CHECKS, &value, expected))?;
        }
        configuration.report = set(REPORT).map(PathBuf::from);
        Ok(configuration)
    }
}

fn wrong(name: &str, value: &str, expected: &str) -> String {
    format!("{name}={value} is not understood; it can be {expected}")
}

fn bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        b'T' | b't' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

fn checks(text: &str) -> Option<Checks> {
    let mut checks = Checks::NONE;
    for word in text.split(',').map(str::trim) {
        match word {
            "all" => checks = Checks::ALL,
            "none" => {}
            "memory" => checks.memory = true,
            "race" => checks.race = true,
            "sync" => checks.sync = true,
            "init" => checks.init = true,
            _ => return None,
        }
    }
    Some(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Configuration, String> {
        let value = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Configuration::from_variables(value)
    }

    #[test]
    fn variables_are_understood() {
        assert_eq!(of(&[]), Ok(Configuration::default()));
        let all = of(&[
            (DEVICES, "4"),
            (CAPABILITY, "8.9"),
            (MEMORY, "24G"),
            (SMS, "16"),
            (CHECKS, "memory, race"),
            (REPORT, "r.jsonl"),
        ]);
        let expected = Configuration {
            devices: 4,
            compute_capability: (8, 9),
            memory_bytes: 24 << 30,
            multiprocessors: Some(16),
            checks: Checks {
                memory: true,
                race: true,
                ..Checks::NONE
            },
            report: Some("r.jsonl".into()),
            ..Configuration::default()
        };
        assert_eq!(all, Ok(expected));
        assert_eq!(of(&[(CHECKS, "all")]).unwrap().checks, Checks::ALL);
        assert_eq!(of(&[(MEMORY, "1000")]).unwrap().memory_bytes, 1000);
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            (DEVICES, "two"),
            (CAPABILITY, "7.5"),
            (MEMORY, "0"),
            (MEMORY, "16 GB"),
            (SMS, "0"),
            (CHECKS, "races"),
        ] {
            let error = of(&[(name, value)]).unwrap_err();
            assert!(
                error.starts_with(&format!("{name}={value} is not")),
                "{error}"
            );
        }
    }
}
