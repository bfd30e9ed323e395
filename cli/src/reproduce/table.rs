//! Both sides of a reproduction, for people.

use stepscope_profiler::explain::record::{Part, PartKind};
use stepscope_profiler::quantity::{duration, percent, significant};
use stepscope_profiler::report::Table;

use super::Reproduction;

pub(super) fn text(reproduction: &Reproduction) -> String {
    let mut sections = vec![
        format!(
            "theirs: {}\nours:   {}",
            reproduction.theirs, reproduction.ours
        ),
        latencies(reproduction),
    ];
    for pair in &reproduction.pairs {
        let shape = format!(
            "batch {}, {} in, {} out",
            pair.batch_size, pair.input_len, pair.output_len
        );
        for (name, times, parts) in [
            ("prefill", pair.prefill_s, &pair.prefill_parts),
            ("decode step", pair.decode_s, &pair.decode_parts),
        ] {
            if let [Some(theirs), Some(ours)] = times
                && ours > 0.0
            {
                sections.push(difference(&shape, name, theirs, ours, parts));
            }
        }
    }
    if !reproduction.left_out.is_empty() {
        let lines = reproduction.left_out.iter().map(|l| format!("\n  {l}"));
        sections.push(format!("Not run:{}", lines.collect::<String>()));
    }
    sections.join("\n\n") + "\n"
}

fn latencies(reproduction: &Reproduction) -> String {
    let header = [
        "batch",
        "in",
        "out",
        "prefill\ntheirs, ms",
        "prefill\nours, ms",
        "ours /\ntheirs",
        "decode step\ntheirs, ms",
        "decode step\nours, ms",
        "ours /\ntheirs",
    ];
    let mut table = Table::new("rrrrrrrrr", header.map(str::to_owned));
    for pair in &reproduction.pairs {
        let mut cells = [pair.batch_size, pair.input_len, pair.output_len]
            .map(|n| n.to_string())
            .to_vec();
        for [theirs, ours] in [pair.prefill_s, pair.decode_s] {
            let none = || "–".to_owned();
            let cell = |s: Option<f64>| s.map_or_else(none, |s| significant(s * 1e3, 4));
            let ratio = theirs.zip(ours).filter(|(theirs, _)| *theirs > 0.0);
            cells.extend([
                cell(theirs),
                cell(ours),
                ratio.map_or_else(none, |(theirs, ours)| {
                    format!("{}×", significant(ours / theirs, 3))
                }),
            ]);
        }
        table.row(cells);
    }
    table.render()
}

/// What the difference can be: ours is known part by part, theirs as a whole.
fn difference(shape: &str, name: &str, theirs: f64, ours: f64, parts: &[Part]) -> String {
    let factor = ours / theirs;
    let times = format!(
        "{} against {}",
        duration(ours * 1e9),
        duration(theirs * 1e9)
    );
    let mut text = if (0.98..1.02).contains(&factor) {
        format!("{shape}: the {name} takes the same, {times}.")
    } else if factor > 1.0 {
        let factor = significant(factor, 3);
        format!("{shape}: our {name} takes {factor} times as long, {times}.")
    } else {
        let factor = significant(1.0 / factor, 3);
        format!("{shape}: our {name} is {factor} times as fast, {times}.")
    };
    let floor_ns: f64 = parts
        .iter()
        .filter(|p| p.kind.is_floor())
        .map(|p| p.ns)
        .sum();
    let largest = parts
        .iter()
        .filter(|p| !p.kind.is_floor() && p.kind != PartKind::Unexplained)
        .max_by(|a, b| a.ns.total_cmp(&b.ns));
    if let Some(largest) = largest.filter(|_| floor_ns > 0.0) {
        text += &format!(
            " Of ours, {} ({}) is what the work needs at the ceilings of this device, and {} ({}) {}.",
            duration(floor_ns),
            percent(floor_ns / 1e9 / ours),
            duration(largest.ns),
            percent(largest.ns / 1e9 / ours),
            largest.kind.title()
        );
        let theirs_over = theirs * 1e9 / floor_ns;
        text += &if theirs_over < 1.0 {
            format!(
                " Theirs is {} of this floor: it ran on a faster device.",
                percent(theirs_over)
            )
        } else {
            format!(
                " Theirs is {} times this floor.",
                significant(theirs_over, 3)
            )
        };
    }
    text
}
