//! `stepscope lab --timeline`: what the warps of a kernel did when.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::catalog::family_of;
use stepscope_microbench::Subject as _;
use stepscope_microbench::lab::timeline::{Events, chrome_trace, role_name};
use stepscope_microbench::lab::{KernelFile, Loaded, directives};
use stepscope_microbench::operations::Comparison;
use stepscope_profiler::report::Table;

use super::{Session, of_source, write_file};
use crate::output::{Failure, print_stderr, write_stdout};

/// The events of one launch, what their roles are called, whose they are, and how the results were.
struct Written {
    events: Events,
    roles: Vec<(u8, String)>,
    name: String,
    comparisons: Vec<Comparison>,
}

pub(super) fn run(
    session: &Session<'_>,
    file: Option<&KernelFile>,
    path: &Path,
) -> Result<ExitCode, Failure> {
    let written = match file {
        Some(file) => of_file(session, file)?,
        None => of_builtin(session)?,
    };
    report(session, &written, path)
}

fn of_file(session: &Session<'_>, file: &KernelFile) -> Result<Written, Failure> {
    let (cuda, case) = (session.cuda, &session.case);
    let point = file
        .point(&session.args.param)
        .map_err(|error| Failure::input(format!("--param {}: {error}", session.args.param)))?;
    let loaded = file
        .load(cuda, &point, case.shape(), true)
        .map_err(of_source)?;
    let Loaded {
        module,
        launches,
        scratch_bytes,
        ..
    } = loaded;
    let mut foreign = case.foreign(cuda, 1, launches, scratch_bytes)?;
    // The first launch loads code and touches memory; the second one is looked at.
    if !session.gpu.is_emulated() {
        foreign.launch(0)?;
    }
    Events::clear(&module, cuda.stream())?;
    foreign.launch(0)?;
    cuda.synchronize()?;
    Ok(Written {
        events: Events::read(&module, cuda.stream())?,
        roles: file.directives.roles.clone(),
        name: file.path.clone(),
        comparisons: foreign.compare()?,
    })
}

fn of_builtin(session: &Session<'_>) -> Result<Written, Failure> {
    let (cuda, case) = (session.cuda, &session.case);
    cuda.write_events();
    let mut builtin = case.builtin(cuda, 1)?;
    let launched = builtin.launch_watched(0)?;
    cuda.synchronize()?;
    let modules = cuda.event_modules();
    let has_events = |(expression, _): &&(String, _)| {
        launched
            .iter()
            .any(|launch| launch.expression == *expression)
            && family_of(expression, cuda.dtype())
                .is_some_and(|family| !directives::roles(family.source.text).is_empty())
    };
    let Some((expression, module)) = modules.iter().find(has_events) else {
        return Err(Failure::input(format!(
            "the kernel of this program for {} at {} writes no events; that of gemm with more than 32 rows does, and a file by --kernel can",
            case.operation().name,
            case.shape()
        )));
    };
    let roles = family_of(expression, cuda.dtype()).map(|family| family.source.text);
    if !session.gpu.is_emulated() {
        Events::clear(module, cuda.stream())?;
        builtin.launch(0)?;
        cuda.synchronize()?;
    }
    Ok(Written {
        events: Events::read(module, cuda.stream())?,
        roles: roles.map(directives::roles).unwrap_or_default(),
        name: expression.clone(),
        comparisons: builtin.compare()?,
    })
}

fn report(session: &Session<'_>, written: &Written, path: &Path) -> Result<ExitCode, Failure> {
    let case = &session.case;
    let Written {
        events,
        roles,
        name: whose,
        comparisons,
    } = written;
    if events.events.is_empty() {
        return Err(Failure::input(format!(
            "{whose}: no event was written; call timeline_begin and timeline_end"
        )));
    }
    let spans = events.spans();
    let mut by_role: BTreeMap<u8, (usize, Vec<f64>)> = BTreeMap::new();
    for span in &spans.spans {
        let (count, times) = by_role.entry(span.begin.role).or_default();
        *count += 1;
        times.push(span.end_ns.saturating_sub(span.begin.time_ns) as f64);
    }
    // The counter of an emulated device orders events; what it says is no time.
    let has_time = !session.gpu.is_emulated();
    let mut header = vec!["Role".to_owned(), "spans".to_owned()];
    if has_time {
        header.extend(["median (ns)", "all warps together (µs)"].map(str::to_owned));
    }
    let mut table = Table::new(if has_time { "lrrr" } else { "lr" }, header);
    for (role, (count, times)) in by_role {
        let mut cells = vec![role_name(roles, role), count.to_string()];
        if has_time {
            let median = stepscope_profiler::stats::median(&times).unwrap_or(0.0);
            cells.push(format!("{median:.0}"));
            cells.push(format!("{:.2}", times.iter().sum::<f64>() / 1e3));
        }
        table.row(cells);
    }
    let name = case.operation().name;
    let mut text = format!("{name} at {}: {}\n\n", case.shape(), whose) + &table.render();
    text += &format!(
        "\n\nevents: {}; without their other half: {}; without room: {}\n",
        events.events.len() + events.lost,
        spans.unpaired,
        events.lost
    );
    write_stdout(text.as_bytes())?;
    if has_time {
        let what = format!("{name} at {}, {}", case.shape(), session.gpu.device().name);
        let trace = chrome_trace(&spans, roles, &what);
        write_file(path, format!("{trace}\n").as_bytes())?;
        print_stderr(&format!(
            "{} is written: open it in https://ui.perfetto.dev",
            path.display()
        ));
    } else {
        print_stderr(&format!(
            "{} is not written: an emulated device has no time",
            path.display()
        ));
    }
    let is_right = comparisons.iter().all(Comparison::is_right) && spans.unpaired == 0;
    for wrong in comparisons
        .iter()
        .filter(|comparison| !comparison.is_right())
    {
        print_stderr(&wrong.to_string());
    }
    Ok(match is_right {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
