//! `stepscope compare`: results of any frameworks side by side.

use std::process::ExitCode;

use stepscope_profiler::compare::export::export;
use stepscope_profiler::compare::{Comparison, Source};
use stepscope_profiler::results;

use crate::args::compare::Compare;
use crate::output::{Failure, print_error, print_stderr, write_stdout};

pub(crate) fn run(args: &Compare) -> Result<ExitCode, Failure> {
    let mut sources = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for path in &args.files {
        match results::read(path) {
            Ok(import) => sources.push(Source {
                name: path.display().to_string(),
                import,
            }),
            // One bad file costs no other.
            Err(error) => {
                print_error(&error.to_string());
                code = ExitCode::from(2);
            }
        }
    }
    if sources.is_empty() {
        return Ok(code);
    }
    for setting in &args.set {
        setting.apply(&mut sources).map_err(Failure::input)?;
    }
    let comparison = Comparison::new(&sources);
    let text = match args.to {
        Some(to) => exported(&comparison, to.form())?,
        None if args.markdown => comparison.markdown(),
        None if args.csv => comparison.csv(),
        None if args.json => format!("{:#}\n", comparison.json()),
        None => comparison.text(),
    };
    write_stdout(text.as_bytes())?;
    Ok(code)
}

/// The rows in another program's form; what it cannot hold is told of on standard error.
fn exported(
    comparison: &Comparison<'_>,
    form: stepscope_profiler::compare::export::Form,
) -> Result<String, Failure> {
    let exported = export(form, &comparison.entries);
    let place = |number: usize| {
        let entry = comparison
            .entries
            .iter()
            .find(|entry| entry.number == number);
        entry.map_or_else(String::new, |entry| match entry.row.line {
            Some(line) => format!("{}:{line}", entry.source),
            None => entry.source.to_owned(),
        })
    };
    for (number, reason) in &exported.refused {
        print_stderr(&format!("not written: {}: {reason}", place(*number)));
    }
    for note in &exported.notes {
        print_stderr(&format!("note: {note}"));
    }
    if exported.text.is_empty() {
        return Err(Failure::input("no result can be written in that form"));
    }
    Ok(exported.text)
}
