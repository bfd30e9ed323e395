use std::fmt;
use std::str::FromStr;

use crate::Error;

/// What code is generated for: a device's exact architecture, or the virtual one that a driver compiles further.
///
/// ```
/// use stepscope_device::nvrtc::Arch;
///
/// let hopper = Arch::of_device(9, 0);
/// assert_eq!(hopper.to_string(), "sm_90a");
/// assert_eq!("sm_90a".parse::<Arch>().unwrap(), hopper);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    number: u32,
    suffix: Option<char>,
    is_real: bool,
}

impl Arch {
    /// The exact architecture of a device of compute capability `major.minor`.
    ///
    /// From 9.0 on it is the one with the suffix `a`: wgmma, tcgen05 and `setmaxnreg` need it, and code for it runs on that
    /// compute capability only.
    pub fn of_device(major: u32, minor: u32) -> Arch {
        Arch {
            number: major * 10 + minor,
            suffix: (major >= 9).then_some('a'),
            is_real: true,
        }
    }

    /// The virtual architecture whose PTX any device of compute capability `number / 10` or above can run.
    pub fn virtual_of(number: u32) -> Arch {
        Arch {
            number,
            suffix: None,
            is_real: false,
        }
    }

    /// Ten times the compute capability: 90 for 9.0.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Whether machine code comes out, as opposed to PTX alone.
    pub fn is_real(self) -> bool {
        self.is_real
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_real { "sm" } else { "compute" };
        write!(f, "{kind}_{}", self.number)?;
        match self.suffix {
            Some(suffix) => write!(f, "{suffix}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Arch, Error> {
        let parsed = (|| {
            let (kind, rest) = text.split_once('_')?;
            let is_real = match kind {
                "sm" => true,
                "compute" => false,
                _ => return None,
            };
            let digits = rest.trim_end_matches(['a', 'f']);
            let mut suffix = rest[digits.len()..].chars();
            let arch = Arch {
                number: digits
                    .parse()
                    .ok()
                    .filter(|number| (10..1000).contains(number))?,
                suffix: suffix.next(),
                is_real,
            };
            suffix.next().is_none().then_some(arch)
        })();
        parsed.ok_or_else(|| {
            Error::arguments(format!(
                "{text:?} is no architecture; one looks like sm_80 or sm_90a"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_read_as_they_are_written() {
        for text in ["sm_80", "sm_90a", "sm_120f", "compute_75"] {
            assert_eq!(text.parse::<Arch>().unwrap().to_string(), text);
        }
        for text in [
            "", "80", "sm_", "sm_9", "sm_90ab", "sm_90b", "gpu_90", "sm_-90",
        ] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn devices_before_hopper_have_no_suffix() {
        let names = [(8, 0), (8, 9), (9, 0), (12, 0)]
            .map(|(major, minor)| Arch::of_device(major, minor).to_string());
        assert_eq!(names, ["sm_80", "sm_89", "sm_90a", "sm_120a"]);
    }
}
