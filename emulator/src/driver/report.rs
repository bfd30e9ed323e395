//! What becomes of the reports of launches: lines of JSON in a file, lines on stderr, or a list for the program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::Mutex;

use super::config::Configuration;
use super::gpu::Gpu;
use super::registry::lock;
use crate::check::Finding;
use crate::{Launch, Report};

/// A launch and what it did.
#[derive(Debug, Clone)]
pub struct LaunchReport {
    /// The kernel.
    pub kernel: String,
    /// Blocks, by axis.
    pub grid: [u32; 3],
    /// Threads of a block, by axis.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
    /// What it did.
    pub report: Report,
}

/// Findings of a kernel that are printed in full.
const PRINTED: u64 = 20;

#[allow(
    clippy::print_stderr,
    reason = "a C function cannot say more than a number"
)]
pub(super) fn complain(message: &str) {
    eprintln!("stepscope's emulated device: {message}");
}

/// Passes on the report of a launch.
pub(super) fn note(gpu: &Gpu, configuration: &Configuration, launch: &Launch, report: Report) {
    if !report.output.is_empty() {
        let mut stdout = std::io::stdout().lock();
        // A closed stdout loses the kernel's output, as it would lose the program's own.
        let _ = stdout.write_all(report.output.as_bytes());
        let _ = stdout.flush();
    }
    match &configuration.report {
        Some(path) => {
            let line = json_line(gpu.ordinal, launch, &report);
            let file = OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                complain(&format!(
                    "cannot write the report {}: {error}",
                    path.display()
                ));
            }
        }
        None if !configuration.keep_reports => print(&report.kernel, &report.findings),
        None => {}
    }
    if configuration.keep_reports {
        lock(&gpu.reports).push(LaunchReport {
            kernel: report.kernel.clone(),
            grid: launch.grid,
            block: launch.block,
            dynamic_shared_bytes: launch.dynamic_shared_bytes,
            report,
        });
    }
}

/// Prints findings, the first ones of each kernel in full.
fn print(kernel: &str, findings: &[Finding]) {
    static COUNTS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());
    if findings.is_empty() {
        return;
    }
    let mut counts = lock(&COUNTS);
    let count = counts.entry(kernel.to_owned()).or_insert(0);
    let before = *count;
    for finding in findings {
        *count += 1;
        if *count <= PRINTED {
            complain(&finding.to_string());
        }
    }
    if *count > PRINTED && *count > before {
        let more = *count - PRINTED;
        complain(&format!(
            "{kernel}: {more} more findings so far, not printed"
        ));
    }
}

fn json_line(device: usize, launch: &Launch, report: &Report) -> String {
    let mut line = format!(
        "{{\"device\":{device},\"kernel\":{}",
        quoted(&report.kernel)
    );
    let _ = write!(
        line,
        ",\"grid\":{},\"block\":{},\"dynamic_shared_bytes\":{},\"counters\":{{",
        list(launch.grid),
        list(launch.block),
        launch.dynamic_shared_bytes
    );
    for (index, metric) in report.counters.metrics().iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        // No counter is infinite; a ratio without a denominator is 0.
        let _ = write!(line, "{comma}{}:{}", quoted(metric.name), metric.value);
    }
    line.push_str("},\"findings\":[");
    for (index, finding) in report.findings.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(line, "{comma}{}", json_finding(finding));
    }
    line.push(']');
    if let Some(failure) = &report.failure {
        let _ = write!(line, ",\"failure\":{}", quoted(&failure.to_string()));
    }
    line.push_str("}\n");
    line
}

fn json_finding(finding: &Finding) -> String {
    format!(
        "{{\"kind\":{},\"severity\":{},\"file\":{},\"line\":{},\"count\":{},\"message\":{}}}",
        quoted(&format!("{:?}", finding.kind)),
        quoted(&format!("{:?}", finding.severity)),
        quoted(&finding.party.file),
        finding.party.line,
        finding.count,
        quoted(&finding.to_string())
    )
}

fn list(values: [u32; 3]) -> String {
    format!("[{},{},{}]", values[0], values[1], values[2])
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", control as u32);
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Counters;

    #[test]
    fn a_launch_is_one_line_of_json() {
        let report = Report {
            kernel: "scale\"<1>".to_owned(),
            counters: Counters::default(),
            lines: Vec::new(),
            findings: Vec::new(),
            output: String::new(),
            failure: Some(crate::Error::new(crate::ErrorKind::Trap, "a\nb\u{1}")),
        };
        let line = json_line(1, &Launch::new([2, 1, 1], [32, 1, 1]), &report);
        let start = r#"{"device":1,"kernel":"scale\"<1>","grid":[2,1,1],"block":[32,1,1],"dynamic_shared_bytes":0,"counters":{"smsp__inst_executed.sum":0,"#;
        assert!(line.starts_with(start), "{line}");
        assert!(
            line.ends_with("\"findings\":[],\"failure\":\"a\\nb\\u0001\"}\n"),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}
