//! A comparison, for a person.

use stepscope_microbench::operations::Comparison;
use stepscope_profiler::report::Table;

use super::evaluate::{Figure, Group, Side};
use super::time;
use super::{Findings, Session};

/// Opcodes that a table has.
const OPCODES: usize = 12;

pub(super) fn page(session: &Session<'_>, findings: &Findings) -> String {
    let Findings {
        mine,
        incumbent,
        times,
    } = findings;
    let mut sections = vec![header(session, findings), results(mine)];
    if let Some(other) = incumbent.as_ref().filter(|other| !other.is_right()) {
        sections.push(format!("of the incumbent: {}", results(other)));
    }
    let other = incumbent.as_ref();
    for group in [
        Group::Resources,
        Group::Instructions,
        Group::Opcodes,
        Group::Counters,
    ] {
        sections.extend(table(group, mine, other));
    }
    if mine.functions().is_none() {
        sections.push("machine instructions are not known without nvdisasm; `stepscope doctor` says where it is looked for".to_owned());
    }
    sections.push(match times {
        Some(times) => time::text(times),
        None if session.gpu.is_emulated() => {
            "no times: an emulated device has none; on a GPU both are timed in turn".to_owned()
        }
        None if mine.is_right() => "no times: --kernel names the kernel that is timed".to_owned(),
        None => "no times: wrong results have none".to_owned(),
    });
    sections.push(verdict(mine));
    sections.join("\n\n") + "\n"
}

fn header(session: &Session<'_>, findings: &Findings) -> String {
    let device = session.gpu.device();
    let [major, minor] = device.compute_capability;
    let on = match session.gpu.is_emulated() {
        true => format!("emulated device of compute capability {major}.{minor}"),
        false => device.name.clone(),
    };
    let case = &session.case;
    let mut text = format!("{} at {}; {on}", case.operation().name, case.shape());
    for side in [Some(&findings.mine), findings.incumbent.as_ref()]
        .into_iter()
        .flatten()
    {
        for kernel in &side.kernels {
            let axes = |[x, y, z]: [u32; 3]| format!("{x} × {y} × {z}");
            text += &format!(
                "\n  {}: {}, grid {}, block {}",
                side.name,
                kernel.name,
                axes(kernel.launch.grid),
                axes(kernel.launch.block)
            );
        }
    }
    text
}

/// Each output beside its reference, and what was found.
fn results(side: &Side) -> String {
    let mut lines: Vec<String> = match &side.comparisons {
        Ok(comparisons) => comparisons.iter().map(Comparison::to_string).collect(),
        Err(why) => vec![format!("it did not run to its end: {why}")],
    };
    lines.extend(
        side.findings
            .iter()
            .map(|finding| format!("found: {finding}")),
    );
    lines.join("\n")
}

fn table(group: Group, mine: &Side, other: Option<&Side>) -> Option<String> {
    let mut names: Vec<&Figure> = Vec::new();
    let sides = [Some(mine), other];
    for figure in sides.into_iter().flatten().flat_map(|side| &side.figures) {
        if figure.group == group && names.iter().all(|known| known.name != figure.name) {
            names.push(figure);
        }
    }
    let value = |side: &Side, name: &str| side.figure(group, name);
    let rows = names.into_iter().map(|figure| {
        let [a, b] = sides.map(|side| side.and_then(|side| value(side, &figure.name)));
        // A class or an opcode that a side does not have, it has no times.
        let is_count = matches!(group, Group::Instructions | Group::Opcodes);
        let or_none = |v: Option<f64>, side: Option<&Side>| match side {
            Some(side) if is_count && side.functions().is_some() => v.or(Some(0.0)),
            _ => v,
        };
        (figure, or_none(a, Some(mine)), or_none(b, other))
    });
    let mut rows: Vec<_> = rows
        .filter(|(_, a, b)| [a, b].iter().any(|v| v.is_some_and(|v| v != 0.0)))
        .collect();
    if group == Group::Opcodes {
        // Those that differ most.
        let difference =
            |a: Option<f64>, b: Option<f64>| (a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs();
        other?;
        rows.retain(|&(_, a, b)| a != b);
        rows.sort_by(|x, y| difference(y.1, y.2).total_cmp(&difference(x.1, x.2)));
        rows.truncate(OPCODES);
    } else if group == Group::Instructions {
        rows.sort_by_key(|(figure, ..)| figure.name == "all");
    }
    if rows.is_empty() {
        return None;
    }
    let mut header = vec![group.title().to_owned(), mine.name.clone()];
    header.extend(other.map(|other| other.name.clone()));
    header.extend(other.map(|_| "change".to_owned()));
    let mut table = Table::new(if other.is_some() { "lrrr" } else { "lr" }, header);
    for (figure, a, b) in rows {
        let shown =
            |v: Option<f64>| v.map_or("–".to_owned(), |v| format!("{v:.*}", figure.decimals));
        let mut cells = vec![figure.name.clone(), shown(a)];
        if other.is_some() {
            cells.push(shown(b));
            cells.push(change(a, b));
        }
        table.row(cells);
    }
    Some(table.render())
}

/// From the incumbent's number to the new one.
fn change(mine: Option<f64>, other: Option<f64>) -> String {
    match (mine, other) {
        (Some(mine), Some(other)) if mine == other => String::new(),
        (Some(mine), Some(0.0)) => format!("+{mine}"),
        (Some(mine), Some(other)) if mine / other >= 10.0 => format!("× {:.1}", mine / other),
        (Some(mine), Some(other)) => format!("{:+.1} %", 100.0 * (mine / other - 1.0)),
        _ => String::new(),
    }
}

fn verdict(side: &Side) -> String {
    let results = match &side.comparisons {
        Err(_) => "it did not run to its end",
        Ok(all) if all.iter().all(Comparison::is_right) => "results are right",
        Ok(_) => "results are wrong",
    };
    match side.findings.len() {
        0 if side.counters.is_some() => format!("{results}; nothing was found"),
        0 => results.to_owned(),
        n => format!("{results}; findings: {n}"),
    }
}
