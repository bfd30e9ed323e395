//! Standard output, standard error, and how an error becomes an exit code.

use std::io::{self, Write as _};

/// Why a command ended without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or unreadable input: exit code 2.
    Input(anyhow::Error),
    /// The run failed: exit code 1.
    Run(anyhow::Error),
    /// Standard output was closed by its reader: nobody is waiting for more.
    OutputClosed,
}

impl Failure {
    pub(crate) fn input(message: impl Into<String>) -> Failure {
        Failure::Input(anyhow::Error::msg(message.into()))
    }

    pub(crate) fn run(message: impl Into<String>) -> Failure {
        Failure::Run(anyhow::Error::msg(message.into()))
    }

    /// What it says.
    pub(crate) fn into_message(self) -> String {
        match self {
            Failure::Input(error) | Failure::Run(error) => format!("{error:#}"),
            Failure::OutputClosed => "nobody reads the output any more".to_owned(),
        }
    }
}

impl From<stepscope_engine::Error> for Failure {
    fn from(error: stepscope_engine::Error) -> Failure {
        if error.is_input() {
            Failure::Input(error.into())
        } else {
            Failure::Run(error.into())
        }
    }
}

impl From<stepscope_profiler::Error> for Failure {
    fn from(error: stepscope_profiler::Error) -> Failure {
        if error.is_input() {
            Failure::Input(error.into())
        } else {
            Failure::Run(error.into())
        }
    }
}

impl From<stepscope_flamegraphs::Error> for Failure {
    fn from(error: stepscope_flamegraphs::Error) -> Failure {
        Failure::Input(error.into())
    }
}

impl From<stepscope_kernels::Error> for Failure {
    fn from(error: stepscope_kernels::Error) -> Failure {
        Failure::Run(error.into())
    }
}

impl From<stepscope_microbench::Error> for Failure {
    fn from(error: stepscope_microbench::Error) -> Failure {
        match error {
            stepscope_microbench::Error::Unusable(_) => Failure::Input(error.into()),
            _ => Failure::Run(error.into()),
        }
    }
}

/// Writes to standard output and flushes it.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(e) => Err(Failure::run(format!(
            "cannot write to standard output: {e}"
        ))),
    }
}

/// Writes a line to standard error. Nobody can be told when that fails.
pub(crate) fn print_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `error: …`, on one line.
pub(crate) fn print_error(message: &str) {
    let line = message
        .split('\n')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    print_stderr(&format!("error: {line}"));
}
