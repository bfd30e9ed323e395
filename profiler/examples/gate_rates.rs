//! How often the gate alarms on this machine when nothing changed, and what it finds: from records of one build.
//!
//! Record some two dozen processes, then give the folder that holds theirs (any depth):
//! `cargo run --release -p stepscope-profiler --example gate_rates -- runs/null`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use std::path::{Path, PathBuf};

use stepscope_profiler::gate::Select;
use stepscope_profiler::{Record, gate};

#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
#[path = "../tests/support/rates.rs"]
mod rates;

fn main() {
    let Some(folder) = std::env::args().nth(1) else {
        println!("usage: gate_rates FOLDER, with the records of processes of one build in it");
        return;
    };
    let mut files = Vec::new();
    find(Path::new(&folder), &mut files);
    files.sort();
    let observe = |path: &PathBuf| {
        gate::observe(&path.display().to_string(), &Record::read(path).unwrap()).unwrap()
    };
    let processes: Vec<gate::Observed> = files.iter().map(observe).collect();
    println!("{} processes of {folder}", processes.len());
    if processes.len() < 3 {
        println!("at least three are needed");
        return;
    }
    println!(
        "Steps:\n{}",
        rates::table(&processes, Select::Steps, &rates::SLOWDOWNS)
    );
    println!(
        "Steps and operations:\n{}",
        rates::table(&processes, Select::All, &[0.0])
    );
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if path.file_name().is_some_and(|name| name == "record.json") {
            files.push(path);
        }
    }
}
