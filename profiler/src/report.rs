//! Tables for people and figures for programs, from a record.
//!
//! All times of a table are wall times unless its header says otherwise; shares are of the wall time of the step they stand
//! under, and each column of shares adds up to 100 %.

mod counters;
mod device;
mod json;
mod latency;
mod measured;
mod operations;
mod phases;
mod replays;
mod table;

use crate::breakdown::share;
use crate::quantity;
use crate::record::{Point, Record};
use crate::recorder::StepKind;
use crate::roofline;
use latency::Latencies;

pub use device::overhead_text;
pub(crate) use device::verdict;
pub use json::json;
pub(crate) use operations::calls;
pub(crate) use phases::ShownSteps;
pub use table::Table;
pub(crate) use table::{TimeUnit, none, percentage};

/// One point: its phases, latencies and operations, and what bounds its steps. Empty when there is no such point.
pub fn point_text(record: &Record, point_index: usize) -> String {
    let Some(point) = record.points.get(point_index) else {
        return String::new();
    };
    if !record.has_times() {
        return counters::text(point);
    }
    let mut sections = vec![heading(&point.label())];
    sections.extend(phases::text(point));
    sections.extend(latency::text(point));
    for kind in [StepKind::Prefill, StepKind::Decode] {
        if point.total(kind).is_some() {
            let roofs = record.environment.roofs.as_ref();
            sections.extend(operations::text(point, kind, roofs));
            sections.push(fold_line(&roofline::sentence(record, point_index, kind)));
            sections.extend(device::activity_text(point, kind));
        }
    }
    sections.extend(replays::text(point));
    sections.extend(point.counted.iter().map(measured::text));
    sections.extend(device::watch_text(record, point));
    sections.extend(device::clock_text(point));
    sections.join("\n\n") + "\n"
}

/// The whole report: what ran where, all points, memory, and what is missing.
pub fn text(record: &Record) -> String {
    let mut sections = vec![header(record)];
    if !record.complete {
        sections.push(
            "INCOMPLETE: the run was interrupted or failed before the end of its sweep.".to_owned(),
        );
    }
    if record.points.is_empty() {
        sections.push("No point was measured.".to_owned());
    }
    if record.points.len() > 1 && record.has_times() {
        sections.push(summary(&record.points));
    }
    for index in 0..record.points.len() {
        sections.push(point_text(record, index).trim_end().to_owned());
    }
    sections.push(memory_text(record));
    if !record.skipped.is_empty() {
        let mut lines = "Skipped points".to_owned();
        for skipped in &record.skipped {
            lines += &format!(
                "\n  batch={} in={} out={}: {}",
                skipped.batch_size, skipped.input_len, skipped.output_len, skipped.reason
            );
        }
        sections.push(lines);
    }
    sections.join("\n\n") + "\n"
}

pub(crate) fn heading(title: &str) -> String {
    format!("{title}\n{}", "═".repeat(title.chars().count()))
}

fn header(record: &Record) -> String {
    let (run, model, machine) = (&record.run, &record.run.model, &record.environment);
    let commit = record.program.commit.as_deref();
    let mut lines = vec![
        format!(
            "{} {}{} · run {:?} · {}",
            record.program.name,
            record.program.version,
            commit.map_or_else(String::new, |commit| format!(" ({commit})")),
            run.name,
            record.started
        ),
        format!(
            "model    {}: {}, {} parameters, {}, {}{}",
            model.name,
            model.architecture,
            quantity::count(model.parameters as f64),
            model.load_format,
            run.dtype,
            if run.tp == 1 {
                String::new()
            } else {
                format!(", tp {}", run.tp)
            }
        ),
        device_line(record),
        format!(
            "machine  {}, {}, {} of memory{}",
            machine.host.as_deref().unwrap_or("unnamed host"),
            machine.os,
            quantity::bytes(machine.memory_bytes as f64),
            machine
                .load_average
                .map_or_else(String::new, |load| format!(
                    ", load average {load:.1} at the start"
                ))
        ),
    ];
    lines.extend(device::timing_lines(record));
    lines.push(match &machine.roofs {
        None if !record.has_times() => {
            "times    none: an emulated device counts what kernels do, and has no time".to_owned()
        }
        None => "roofs    not measured".to_owned(),
        Some(roofs) => {
            let reads: Vec<String> = roofs
                .bandwidth
                .iter()
                .map(|level| {
                    let limit = level.up_to_bytes.map_or_else(String::new, |limit| {
                        format!(" (up to {})", quantity::bytes(limit as f64))
                    });
                    let rate = quantity::with_prefix(level.bytes_per_s, "B/s");
                    format!("{rate} from {}{limit}", level.name)
                })
                .collect();
            format!(
                "roofs    {} in float32; reads {} ({})",
                quantity::with_prefix(roofs.flops_per_s, "FLOP/s"),
                reads.join(", "),
                roofs.method
            )
        }
    });
    lines.push(format!("command  {}", record.program.command.join(" ")));
    let indent = "command  ".len();
    let folded = lines.iter().map(|line| fold_line_under(line, indent));
    folded.collect::<Vec<_>>().join("\n")
}

/// What ran the steps.
fn device_line(record: &Record) -> String {
    let (run, machine) = (&record.run, &record.environment);
    let Some(gpu) = &machine.gpu else {
        return format!(
            "device   {}: {}, {} of {} threads, {}",
            run.device, machine.cpu.name, run.threads, machine.cpu.threads, machine.cpu.simd
        );
    };
    let [major, minor] = gpu.compute_capability;
    let graphs = match run.cuda_graph {
        Some(true) => "; decode steps replay CUDA graphs",
        Some(false) => "; no CUDA graphs",
        None => "",
    };
    let tuned = run.tuning.as_ref().map_or(String::new(), |tuning| {
        format!(
            "; tuned kernels for {} shapes from {}",
            tuning.shapes, tuning.file
        )
    });
    format!(
        "device   {}: {}, compute capability {major}.{minor}, {} multiprocessors, {}, driver for CUDA {}, NVRTC {}; host {}{graphs}{tuned}",
        run.device,
        gpu.name,
        gpu.multiprocessors,
        quantity::bytes(gpu.memory_bytes as f64),
        gpu.driver,
        gpu.nvrtc,
        machine.cpu.name
    )
}

/// The figures of all points, in sglang's definitions; medians over repetitions, and over all decode steps.
fn summary(points: &[Point]) -> String {
    let rows: Vec<Latencies> = points.iter().map(Latencies::of).collect();
    let unit_of = |ns: fn(&Latencies) -> Option<f64>| {
        TimeUnit::for_largest(rows.iter().filter_map(ns).fold(0.0, f64::max))
    };
    let prefill = unit_of(Latencies::prefill_ns);
    let decode = unit_of(Latencies::decode_ns);
    let total = unit_of(Latencies::total_ns);
    let mut table = Table::new(
        "rrrrrrrrr",
        [
            "batch".to_owned(),
            "in".to_owned(),
            "out".to_owned(),
            format!("prefill\n{}", prefill.name),
            "prefill\ntoken/s".to_owned(),
            format!("decode step\n{}", decode.name),
            "decode\ntoken/s".to_owned(),
            format!("total\n{}", total.name),
            "total\ntoken/s".to_owned(),
        ],
    );
    for (point, latencies) in points.iter().zip(&rows) {
        let rates = latencies.tokens_per_s(point);
        let rate =
            |rate: Option<f64>| rate.map_or_else(table::none, |r| quantity::significant(r, 4));
        table.row([
            point.batch_size.to_string(),
            point.input_len.to_string(),
            point.output_len.to_string(),
            prefill.optional(latencies.prefill_ns()),
            rate(rates.prefill),
            decode.optional(latencies.decode_ns()),
            rate(rates.decode),
            total.optional(latencies.total_ns()),
            rate(rates.total),
        ]);
    }
    format!(
        "All points: medians over repetitions; decode steps over all of them\n\n{}",
        table.render()
    )
}

/// Where memory went, in the whole run.
pub fn memory_text(record: &Record) -> String {
    let memory = &record.memory;
    let used = share(memory.kv_used_peak as f64, memory.kv_pool as f64);
    let rows = [
        ("weights", Some(memory.weights), String::new()),
        (
            "  of which mapped",
            Some(memory.weights_mapped),
            String::new(),
        ),
        ("KV pool", Some(memory.kv_pool), String::new()),
        (
            "  of which used, peak",
            Some(memory.kv_used_peak),
            used.map_or_else(String::new, |used| {
                format!("{} of the pool", quantity::percent(used))
            }),
        ),
        ("token pool", Some(memory.token_pool), String::new()),
        ("activations", Some(memory.activations), String::new()),
        (
            "process, peak",
            memory.peak_rss,
            match memory.peak_rss {
                Some(_) => "resident, mapped pages included".to_owned(),
                None => "this system does not tell".to_owned(),
            },
        ),
    ];
    let mut table = Table::new("lrl", ["memory", "size", ""].map(str::to_owned));
    for (name, bytes, note) in rows {
        let size = bytes.map_or_else(table::none, |bytes| quantity::bytes(bytes as f64));
        table.row([name.to_owned(), size, note]);
    }
    table.render()
}

/// Breaks a paragraph into lines that fit a terminal beside the tables.
pub(crate) fn fold_line(text: &str) -> String {
    fold_line_under(text, 0)
}

/// [`fold_line`] with the lines after the first indented.
pub(crate) fn fold_line_under(text: &str, indent: usize) -> String {
    const WIDTH: usize = 110;
    let mut folded = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > indent && column + 1 + width > WIDTH {
            folded.push('\n');
            folded.push_str(&" ".repeat(indent));
            column = indent;
        } else if !folded.is_empty() {
            folded.push(' ');
            column += 1;
        }
        folded += word;
        column += width;
    }
    folded
}
