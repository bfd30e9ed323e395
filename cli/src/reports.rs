//! What is made from a record alone: tables, flame graphs, traces.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use stepscope_flamegraphs::{
    FoldOptions, SvgOptions, diff_svg, folded, subtitle_for, svg, title_for,
};
use stepscope_profiler::microbench::{self, Microbench};
use stepscope_profiler::trace::{self, Selection};
use stepscope_profiler::{Record, StepKind, report};

use crate::args;
use crate::output::{Failure, print_stderr, write_stdout};

pub(crate) fn report(args: &args::Report) -> Result<(), Failure> {
    if Microbench::is_at(&args.record) {
        let bench = Microbench::read(&args.record)?;
        let text = if args.json {
            format!("{:#}\n", microbench::json(&bench))
        } else {
            microbench::text(&bench)
        };
        return write_stdout(text.as_bytes());
    }
    let record = Record::read(&args.record)?;
    let text = if args.json {
        format!("{:#}\n", report::json(&record))
    } else {
        report::text(&record)
    };
    write_stdout(text.as_bytes())
}

pub(crate) fn flamegraph(args: &args::Flamegraph) -> Result<(), Failure> {
    let options = FoldOptions {
        point: args.point,
        by_layer: args.by_layer,
    };
    if let [old_path, new_path] = args.diff.as_slice() {
        let (old, new) = (read_timed(old_path)?, read_timed(new_path)?);
        check_point(&old, args.point)?;
        check_point(&new, args.point)?;
        let folder = folder_for(args.out.as_deref(), new_path)?;
        for kind in kinds(&new) {
            let (old_stacks, new_stacks) =
                (folded(&old, kind, &options), folded(&new, kind, &options));
            if old_stacks.is_empty() {
                print_stderr(&format!(
                    "{}: {} has no such step to compare with",
                    kind.name(),
                    old_path.display()
                ));
                continue;
            }
            let graph = diff_svg(
                &old_stacks,
                &new_stacks,
                &svg_options(&new, kind, args.point, args.icicle),
            )?;
            let path = folder.join(format!("{}-diff.svg", kind.name()));
            write_file(&path, graph.svg.as_bytes())?;
            print_stderr(&format!("wrote {}", path.display()));
            for stack in graph.only_in_old {
                print_stderr(&format!(
                    "only in {}, so not in the graph: {stack}",
                    old_path.display()
                ));
            }
        }
        return Ok(());
    }
    let Some(path) = &args.record else {
        return Err(Failure::input("give a record, or two after --diff"));
    };
    let record = read_timed(path)?;
    check_point(&record, args.point)?;
    let folder = folder_for(args.out.as_deref(), path)?;
    for path in write_flamegraphs(&record, &folder, &options, args.icicle)? {
        print_stderr(&format!("wrote {}", path.display()));
    }
    Ok(())
}

pub(crate) fn trace(args: &args::Trace) -> Result<(), Failure> {
    let record = read_timed(&args.record)?;
    check_point(&record, args.point)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None => folder_for(None, &args.record)?.join("trace.json"),
    };
    write_trace(&record, args.point, &path)?;
    print_stderr(&format!("wrote {}", path.display()));
    Ok(())
}

/// A record that holds times.
fn read_timed(path: &Path) -> Result<Record, Failure> {
    let record = Record::read(path)?;
    if record.has_times() {
        return Ok(record);
    }
    Err(Failure::input(format!(
        "{}: an emulated device ran these steps, which has no time to draw; `stepscope report` shows what it counted",
        path.display()
    )))
}

/// Writes `prefill.svg` and `decode.svg`, each with its folded stacks beside it, and returns what was written.
pub(crate) fn write_flamegraphs(
    record: &Record,
    folder: &Path,
    options: &FoldOptions,
    icicle: bool,
) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::new();
    for kind in kinds(record) {
        let stacks = folded(record, kind, options);
        let graph = svg(&stacks, &svg_options(record, kind, options.point, icicle))?;
        let path = folder.join(format!("{}.svg", kind.name()));
        write_file(&path, graph.as_bytes())?;
        let stacks_path = path.with_extension("folded");
        write_file(&stacks_path, (stacks.join("\n") + "\n").as_bytes())?;
        written.extend([path, stacks_path]);
    }
    Ok(written)
}

/// Writes a Chrome trace.
pub(crate) fn write_trace(
    record: &Record,
    point: Option<usize>,
    path: &Path,
) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::run(format!("cannot write {}: {e}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    trace::write(record, &Selection { point, kind: None }, &mut file)?;
    file.flush().map_err(failed)
}

/// The kinds of steps that a record holds.
fn kinds(record: &Record) -> impl Iterator<Item = StepKind> {
    let decodes = record.points.iter().any(|p| p.decode.is_some());
    let prefills = !record.points.is_empty();
    let prefill = prefills.then_some(StepKind::Prefill);
    prefill
        .into_iter()
        .chain(decodes.then_some(StepKind::Decode))
}

fn svg_options(record: &Record, kind: StepKind, point: Option<usize>, icicle: bool) -> SvgOptions {
    SvgOptions {
        title: title_for(record, kind, point),
        subtitle: Some(subtitle_for(record, kind, point)),
        icicle,
        ..SvgOptions::default()
    }
}

fn check_point(record: &Record, point: Option<usize>) -> Result<(), Failure> {
    match point {
        Some(n) if n >= record.points.len() => Err(Failure::input(format!(
            "--point {n}: the record has {} points, counted from 0",
            record.points.len()
        ))),
        _ => Ok(()),
    }
}

/// The folder to write to: `out`, made if it is not there, or the one that `record` lies in.
fn folder_for(out: Option<&Path>, record: &Path) -> Result<PathBuf, Failure> {
    match out {
        Some(folder) => {
            fs::create_dir_all(folder).map_err(|e| {
                Failure::run(format!("cannot make the folder {}: {e}", folder.display()))
            })?;
            Ok(folder.to_owned())
        }
        None if record.is_dir() => Ok(record.to_owned()),
        None => Ok(record.parent().unwrap_or(Path::new(".")).to_owned()),
    }
}

fn write_file(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    fs::write(path, contents)
        .map_err(|e| Failure::run(format!("cannot write {}: {e}", path.display())))
}
