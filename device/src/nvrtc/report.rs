//! What ptxas says about the machine code it made.

use serde::{Deserialize, Serialize};

/// What a kernel's machine code uses, as ptxas reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// The kernel's lowered name.
    pub name: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Barriers of a block.
    pub barriers: u32,
    /// Static shared memory of a block.
    pub shared_bytes: u32,
    /// Local memory of a thread for its own variables, callees included.
    pub stack_bytes: u32,
    /// Bytes that a thread writes to local memory because registers ran out.
    pub spill_store_bytes: u32,
    /// Bytes that a thread reads back.
    pub spill_load_bytes: u32,
    /// Constant memory, all banks together, as far as ptxas reports it.
    pub constant_bytes: u32,
}

impl KernelReport {
    /// Whether registers ran out.
    pub fn spills(&self) -> bool {
        self.spill_store_bytes > 0 || self.spill_load_bytes > 0
    }
}

/// A remark of ptxas that costs speed, like `wgmma` made serial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advisory {
    /// ptxas's number, `C7510` for instance; empty where it gave none.
    pub code: String,
    /// What it says.
    pub text: String,
}

/// The report about a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Sorted by name.
    pub kernels: Vec<KernelReport>,
    /// In ptxas's order.
    pub advisories: Vec<Advisory>,
}

impl Report {
    /// The report about the kernel with this lowered name.
    pub fn kernel(&self, name: &str) -> Option<&KernelReport> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Reads what `--ptxas-options=-v` puts into the program's log; the compiler's own lines are passed over.
    ///
    /// ```
    /// use stepscope_device::nvrtc::Report;
    ///
    /// let report = Report::parse(
    ///     "ptxas info    : Compiling entry function 'k' for 'sm_80'
    ///      ptxas info    : Function properties for k
    ///      ptxas         .     0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
    ///      ptxas info    : Used 10 registers, used 1 barriers, 128 bytes smem, 368 bytes cmem[0]",
    /// );
    /// let kernel = report.kernel("k").unwrap();
    /// assert_eq!((kernel.registers, kernel.shared_bytes, kernel.spill_load_bytes), (10, 128, 4));
    /// ```
    pub fn parse(log: &str) -> Report {
        let mut report = Report::default();
        let mut properties_of = String::new();
        for line in log
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("ptxas"))
        {
            if let Some(name) = line
                .split_once("Compiling entry function '")
                .and_then(|(_, rest)| rest.split('\'').next())
            {
                report.kernels.push(KernelReport {
                    name: name.to_owned(),
                    ..KernelReport::default()
                });
            } else if let Some((_, name)) = line.split_once("Function properties for ") {
                name.trim().clone_into(&mut properties_of);
            } else if let Some((_, quantities)) = line.split_once("Used ") {
                if let Some(kernel) = report.kernels.last_mut() {
                    take_usage(kernel, quantities);
                }
            } else if line.contains("bytes stack frame") {
                // Functions that kernels call have properties too; what they use is in their kernels' sums.
                if let Some(kernel) = report
                    .kernels
                    .iter_mut()
                    .find(|kernel| kernel.name == properties_of)
                {
                    take_properties(kernel, line);
                }
            } else if let Some(advisory) = advisory(line) {
                report.advisories.push(advisory);
            }
        }
        report.kernels.sort_by(|a, b| a.name.cmp(&b.name));
        report
    }
}

/// `10 registers, used 1 barriers, 128 bytes smem, 400 bytes cumulative stack size, 368 bytes cmem[0]`
fn take_usage(kernel: &mut KernelReport, quantities: &str) {
    for (number, noun) in quantities.split(',').filter_map(quantity) {
        match noun {
            "registers" => kernel.registers = number,
            "barriers" => kernel.barriers = number,
            "bytes smem" => kernel.shared_bytes = number,
            "bytes cumulative stack size" => kernel.stack_bytes = kernel.stack_bytes.max(number),
            noun if noun.starts_with("bytes cmem[") => kernel.constant_bytes += number,
            _ => {}
        }
    }
}

/// `ptxas         .     448 bytes stack frame, 272 bytes spill stores, 328 bytes spill loads`
fn take_properties(kernel: &mut KernelReport, line: &str) {
    let quantities = line
        .trim_start_matches("ptxas")
        .trim_start_matches([' ', '.']);
    for (number, noun) in quantities.split(',').filter_map(quantity) {
        match noun {
            "bytes stack frame" => kernel.stack_bytes = kernel.stack_bytes.max(number),
            "bytes spill stores" => kernel.spill_store_bytes = number,
            "bytes spill loads" => kernel.spill_load_bytes = number,
            _ => {}
        }
    }
}

/// `(128, "bytes smem")` of ` 128 bytes smem`, and `(1, "barriers")` of ` used 1 barriers`.
fn quantity(text: &str) -> Option<(u32, &str)> {
    let text = text.trim();
    let text = text.strip_prefix("used ").unwrap_or(text);
    let (number, noun) = text.split_once(' ')?;
    Some((number.parse().ok()?, noun))
}

/// `ptxas info    : (C7510) Potential Performance Loss: …`, and anything that ptxas calls a warning.
fn advisory(line: &str) -> Option<Advisory> {
    let (head, text) = line.split_once(" : ").or_else(|| line.split_once(": "))?;
    let text = text.trim();
    let coded = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let coded = coded.filter(|(code, _)| {
        code.strip_prefix('C').is_some_and(|number| {
            number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    match coded {
        Some((code, text)) => Some(Advisory {
            code: code.to_owned(),
            text: text.trim().to_owned(),
        }),
        None if head.contains("warning") => Some(Advisory {
            code: String::new(),
            text: text.to_owned(),
        }),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NVRTC 13.0.88 wrote it for a template, a kernel that calls a function with a stack, and one that spills.
    const LOG: &str = "\
k.cu(5): warning #177-D: variable \"unused\" was declared but never referenced
  extern \"C\" __global__ void call(float*p){ int unused; p[0]=f(p[1])+cc[3]; }
                                                ^

Remark: The warnings can be suppressed with \"-diag-suppress <warning-number>\"

ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1kILi32EEvPf' for 'sm_90a'
ptxas info    : Function properties for _Z1kILi32EEvPf
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 128 bytes smem
ptxas info    : Compile time = 6.499 ms
ptxas info    : Compiling entry function 'call' for 'sm_90a'
ptxas info    : Function properties for call
ptxas         .     400 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 38 registers, used 0 barriers, 400 bytes cumulative stack size
ptxas info    : Compile time = 19.913 ms
ptxas info    : Function properties for _Z1ff
ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'spill' for 'sm_90a'
ptxas info    : Function properties for spill
ptxas         .     448 bytes stack frame, 272 bytes spill stores, 328 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 448 bytes cumulative stack size
";

    #[test]
    fn each_kernel_has_its_own_numbers() {
        let report = Report::parse(LOG);
        let numbers: Vec<_> = report
            .kernels
            .iter()
            .map(|k| {
                (
                    k.name.as_str(),
                    k.registers,
                    k.barriers,
                    k.shared_bytes,
                    k.stack_bytes,
                    k.spill_store_bytes,
                    k.spill_load_bytes,
                )
            })
            .collect();
        assert_eq!(
            numbers,
            [
                ("_Z1kILi32EEvPf", 10, 1, 128, 0, 0, 0),
                ("call", 38, 0, 0, 400, 0, 0),
                ("spill", 32, 1, 0, 448, 272, 328),
            ]
        );
        assert_eq!(report.advisories, []);
        assert!(report.kernel("spill").unwrap().spills());
        assert!(!report.kernel("call").unwrap().spills());
    }

    #[test]
    fn advisories_keep_their_numbers() {
        let report = Report::parse(
            "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to x in function 'k'
ptxas warning : Too big maxrregcount value specified 1024, will be ignored
ptxas info    : (see below) nothing",
        );
        let advisories: Vec<_> = report
            .advisories
            .iter()
            .map(|a| (a.code.as_str(), a.text.as_str()))
            .collect();
        assert_eq!(
            advisories,
            [
                (
                    "C7510",
                    "Potential Performance Loss: wgmma.mma_async instructions are serialized due to x in function 'k'"
                ),
                (
                    "",
                    "Too big maxrregcount value specified 1024, will be ignored"
                ),
            ]
        );
    }

    #[test]
    fn constant_banks_add_up_and_noise_is_passed_over() {
        let report = Report::parse(
            "ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Used 12 registers, used x barriers, 360 bytes cmem[0], 8 bytes cmem[4]
ptxas info    : Used",
        );
        assert_eq!(report.kernels[0].constant_bytes, 368);
        assert_eq!(Report::parse(""), Report::default());
    }
}
