use super::Arch;

/// A source to compile, with everything that decides what comes out of it.
///
/// Sources and headers are texts in memory: no file is looked for, and NVIDIA's headers are not needed.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// The source's real path: what errors name.
    pub name: String,
    /// CUDA C++.
    pub source: String,
    /// What `#include "name"` finds: name and text.
    pub headers: Vec<(String, String)>,
    /// The kernels to instantiate, as C++ writes them: `rms_norm<896>`, `&gemm<bf16, 128>`. Kernels that are no templates need
    /// not be named if they are `extern "C"`.
    pub expressions: Vec<String>,
    /// How to compile.
    pub options: Options,
}

impl Program {
    /// The program `source`, whose errors name `name`.
    pub fn new(name: impl Into<String>, source: impl Into<String>) -> Program {
        Program {
            name: name.into(),
            source: source.into(),
            ..Program::default()
        }
    }

    /// Adds what `#include "name"` finds.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, text: impl Into<String>) -> Program {
        self.headers.push((name.into(), text.into()));
        self
    }

    /// Adds a kernel to instantiate.
    #[must_use]
    pub fn kernel(mut self, expression: impl Into<String>) -> Program {
        self.expressions.push(expression.into());
        self
    }

    /// Compiles with `options`.
    #[must_use]
    pub fn options(mut self, options: Options) -> Program {
        self.options = options;
        self
    }
}

/// How to compile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Approximate division, square root and transcendental functions, subnormals flushed to zero.
    pub fast_math: bool,
    /// Source lines in the machine code, for profilers; the code itself is the same.
    pub line_info: bool,
    /// The most registers a thread may use; the compiler chooses if there is no limit.
    pub max_registers: Option<u32>,
    /// Macros: name, and value if any.
    pub defines: Vec<(String, Option<String>)>,
    /// Folders that `#include` also looks in. What lies there is not known in advance, so nothing is cached.
    pub include_folders: Vec<String>,
    /// More options, as NVRTC's documentation writes them.
    pub others: Vec<String>,
}

impl Options {
    /// NVRTC's options for `arch`.
    ///
    /// ptxas always reports what each kernel uses: the report costs no time and belongs to the result.
    pub fn arguments(&self, arch: Arch) -> Vec<String> {
        let mut arguments = vec![
            format!("--gpu-architecture={arch}"),
            "--std=c++17".to_owned(),
        ];
        if arch.is_real() {
            arguments.push("--ptxas-options=-v".to_owned());
        }
        if self.fast_math {
            arguments.push("--use_fast_math".to_owned());
        }
        if self.line_info {
            arguments.push("--generate-line-info".to_owned());
        }
        if let Some(registers) = self.max_registers {
            arguments.push(format!("--maxrregcount={registers}"));
        }
        for (name, value) in &self.defines {
            arguments.push(match value {
                Some(value) => format!("--define-macro={name}={value}"),
                None => format!("--define-macro={name}"),
            });
        }
        for folder in &self.include_folders {
            arguments.push(format!("--include-path={folder}"));
        }
        arguments.extend(self.others.iter().cloned());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_that_nvrtc_documents() {
        let options = Options {
            fast_math: true,
            line_info: true,
            max_registers: Some(128),
            defines: vec![
                ("N".to_owned(), Some("4".to_owned())),
                ("FAST".to_owned(), None),
            ],
            include_folders: vec!["include".to_owned()],
            others: vec!["--restrict".to_owned()],
        };
        assert_eq!(
            options.arguments(Arch::of_device(9, 0)),
            [
                "--gpu-architecture=sm_90a",
                "--std=c++17",
                "--ptxas-options=-v",
                "--use_fast_math",
                "--generate-line-info",
                "--maxrregcount=128",
                "--define-macro=N=4",
                "--define-macro=FAST",
                "--include-path=include",
                "--restrict",
            ]
        );
        assert_eq!(
            Options::default().arguments(Arch::virtual_of(80)),
            ["--gpu-architecture=compute_80", "--std=c++17"]
        );
    }
}
