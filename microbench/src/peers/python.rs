//! The machine's Python, and what a program of it says.

use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

/// The interpreter: `$STEPSCOPE_PYTHON`, or `python3`.
pub fn interpreter() -> String {
    std::env::var("STEPSCOPE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Waits for `child` until `limit` is over, and ends it then: no status.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => thread::sleep(POLL),
            Ok(None) | Err(_) => {
                let _ = child.kill(); // it may have ended just now
                let _ = child.wait();
                return None;
            }
        }
    }
}

/// What a script printed on standard output, and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// All of it, also of a script that was stopped.
    pub stdout: String,
    /// Why it is not whole, in one line.
    pub failure: Option<String>,
}

/// Runs a script of the program's own with `arguments`, `input` on its standard input, for as long as `limit`.
pub fn ask(script: &str, arguments: &[&str], input: &str, limit: Duration) -> Answer {
    ask_of(&interpreter(), script, arguments, input, limit)
}

fn ask_of(python: &str, script: &str, arguments: &[&str], input: &str, limit: Duration) -> Answer {
    let failed = |failure: String| Answer {
        stdout: String::new(),
        failure: Some(failure),
    };
    let child = Command::new(python)
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed(format!("{python} cannot be started: {error}")),
    };
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes()); // a script that has ended says why itself
    }
    // A pipe that nobody reads would stop the script.
    let stdout = child.stdout.take().map(Reader::start);
    let stderr = child.stderr.take().map(Reader::start);
    let status = wait(&mut child, limit);
    let [stdout, stderr] =
        [stdout, stderr].map(|reader| reader.map(Reader::text).unwrap_or_default());
    let failure = match status {
        None => Some(format!("stopped after {:.0} s", limit.as_secs_f64())),
        Some(status) if status.success() => None,
        Some(status) => Some(format!("{}: {}", ending(status), telling_line(&stderr))),
    };
    Answer { stdout, failure }
}

/// Reads a pipe to its end beside everything else.
struct Reader {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: thread::JoinHandle<()>,
}

impl Reader {
    fn start(mut pipe: impl std::io::Read + Send + 'static) -> Reader {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let to = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut piece) {
                let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
                to.extend_from_slice(&piece[..len]);
            }
        });
        Reader { bytes, thread }
    }

    /// What came. A program that the script started may hold the pipe open for longer than anybody wants to wait.
    fn text(self) -> String {
        const PATIENCE: Duration = Duration::from_secs(1);
        let start = Instant::now();
        while !self.thread.is_finished() && start.elapsed() < PATIENCE {
            thread::sleep(POLL);
        }
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// How a program ended.
pub fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(), // the signal's name
    }
}

/// The line of standard error that tells why a program failed: the last that names an error, as `KeyError: 'x'` at the end of a
/// traceback; or else the last one.
pub fn telling_line(stderr: &str) -> &str {
    let names_an_error = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        line.contains(':')
            && !name.contains(' ')
            && ["error", "Error", "Exception", "Interrupt"]
                .iter()
                .any(|end| name.ends_with(end))
    };
    let lines = || stderr.lines().map(str::trim_end).rev();
    lines()
        .find(names_an_error)
        .or_else(|| lines().find(|line| !line.is_empty()))
        .unwrap_or("it says nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sh` is asked as Python is: with `-c`, a script, and arguments.
    fn ask_shell(script: &str, limit: Duration) -> Answer {
        ask_of("sh", script, &["name", "argument"], "input\n", limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_script_gets_its_input_and_is_heard() {
        let answer = ask_shell("read line; echo \"$line $1\"", LONG);
        assert_eq!(answer.stdout, "input argument\n");
        assert_eq!(answer.failure, None);
    }

    #[test]
    fn a_failure_is_one_line_and_keeps_what_was_said() {
        let script = "echo before; echo 'KeyError: 3' >&2; echo bye >&2; exit 7";
        let answer = ask_shell(script, LONG);
        assert_eq!(answer.stdout, "before\n");
        assert_eq!(answer.failure.unwrap(), "exit code 7: KeyError: 3");
        let answer = ask_shell("kill -9 $$", LONG);
        assert!(answer.failure.unwrap().contains("signal"));
    }

    #[test]
    fn a_script_that_hangs_is_stopped() {
        // What it started goes on, and holds the pipe.
        let answer = ask_shell("echo before; sleep 60", Duration::from_millis(300));
        assert_eq!(answer.stdout, "before\n");
        assert_eq!(answer.failure.unwrap(), "stopped after 0 s");
    }

    #[test]
    fn no_python_is_said() {
        let answer = ask_of("/nowhere/python", "", &[], "", LONG);
        let failure = answer.failure.unwrap();
        assert!(
            failure.starts_with("/nowhere/python cannot be started"),
            "{failure}"
        );
    }

    #[test]
    fn the_line_that_tells_is_found() {
        let traceback = "Traceback (most recent call last):\n  File \"x.py\", line 1\nValueError: no such backend: x\n\n";
        assert_eq!(telling_line(traceback), "ValueError: no such backend: x");
        let warned = "torch.OutOfMemoryError: CUDA out of memory\n[rank0]: leaked semaphore\n";
        assert_eq!(
            telling_line(warned),
            "torch.OutOfMemoryError: CUDA out of memory"
        );
        assert_eq!(
            telling_line("first\nlast words: none\n \n"),
            "last words: none"
        );
        assert_eq!(telling_line("error: no GPU\n"), "error: no GPU");
        assert_eq!(telling_line(""), "it says nothing");
    }
}
