//! An explained result as text: sentences first, the numbers under them.

use super::{Explanation, JobExplanation, StepsExplanation};
use crate::explain::candidates::Candidate;
use crate::explain::limiters::Suspect;
use crate::quantity::{self, percent, significant};
use crate::report::{Table, heading, none, verdict};

impl Explanation {
    /// The whole explanation. `why` puts the figures under each sentence.
    pub fn text(&self, why: bool) -> String {
        let mut sections = vec![verdict(&self.trust)];
        sections.extend(self.summary.iter().map(|s| s.render(why)));
        for steps in [&self.prefill, &self.decode].into_iter().flatten() {
            sections.push(heading(steps.kind.title()));
            sections.extend(steps.statements.iter().map(|s| s.render(why)));
            sections.push(steps_table(steps));
            sections.extend(suspects_table(steps));
        }
        for job in &self.jobs {
            sections.push(heading(&job_title(job, self.jobs.len())));
            sections.extend(job.statements.iter().map(|s| s.render(why)));
            sections.extend(job_suspects_table(job));
            sections.extend(gpus_table(job));
        }
        sections.extend(candidates_text(&self.candidates));
        if !self.remarks.is_empty() {
            sections.push(heading("Remarks"));
            let remarks: Vec<String> = self.remarks.iter().map(|s| s.render(why)).collect();
            sections.push(remarks.join("\n"));
        }
        sections.join("\n\n") + "\n"
    }
}

fn milliseconds(seconds: f64) -> String {
    significant(seconds * 1e3, 4)
}

fn steps_table(steps: &StepsExplanation) -> String {
    let has_floor = steps.steps.iter().any(|s| s.floor.is_some());
    let mut header = vec![
        "step".to_owned(),
        "time\nms".to_owned(),
        "token/s".to_owned(),
    ];
    if has_floor {
        header.extend([
            "floor\nms".to_owned(),
            "floor / time\n%".to_owned(),
            "good kernels\nms".to_owned(),
        ]);
    }
    let mut table = Table::new("lrrrrr", header);
    for step in &steps.steps {
        let mut cells = vec![
            step.observation.shape.label(),
            milliseconds(step.observation.seconds),
            format!("{:.1}", step.tokens_per_s),
        ];
        if has_floor {
            cells.extend(match &step.floor {
                Some(floor) => [
                    milliseconds(floor.total_s),
                    significant(100.0 * floor.total_s / step.observation.seconds, 3),
                    milliseconds(floor.good_kernels_s),
                ],
                None => [none(), none(), none()],
            });
        }
        table.row(cells);
    }
    table.render()
}

fn suspects_table(steps: &StepsExplanation) -> Option<String> {
    if steps.suspects.is_empty() {
        return None;
    }
    let last = steps.steps.last()?;
    let mut header = vec![
        "if this were the whole story".to_owned(),
        "in the step".to_owned(),
        "it would need".to_owned(),
        "in practice".to_owned(),
        "off by".to_owned(),
    ];
    if let Some(growth) = steps.growth {
        header.push(format!(
            "grew, as the time\ngrew {}×",
            significant(growth.seconds, 3)
        ));
    }
    let mut table = Table::new("lrrrrr", header);
    for suspect in &steps.suspects {
        let mut cells = vec![
            suspect.limiter.title().to_owned(),
            amount(suspect),
            rate(suspect, suspect.needed),
            in_practice(suspect),
            off_by(suspect),
        ];
        if steps.growth.is_some() {
            cells.push(
                suspect
                    .growth
                    .map_or_else(none, |g| format!("{}×", significant(g, 3))),
            );
        }
        table.row(cells);
    }
    let title = format!(
        "What each limiter would have to be, {}, likeliest first:",
        last.observation.shape.label()
    );
    Some(format!("{title}\n{}", table.render()))
}

/// `The whole job`, or with its row where there are several.
pub(in crate::explain) fn job_title(job: &JobExplanation, jobs: usize) -> String {
    match jobs {
        1 => "The whole job".to_owned(),
        _ => format!("The whole job of row {}", job.job.row + 1),
    }
}

fn job_suspects_table(job: &JobExplanation) -> Option<String> {
    if job.suspects.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "lrrrr",
        [
            "if this were the whole story".to_owned(),
            "in the job".to_owned(),
            "it would need".to_owned(),
            "in practice".to_owned(),
            "off by".to_owned(),
        ],
    );
    for suspect in &job.suspects {
        table.row([
            suspect.limiter.title().to_owned(),
            amount(suspect),
            rate(suspect, suspect.needed),
            in_practice(suspect),
            off_by(suspect),
        ]);
    }
    let title = "What each limiter would have to be, with the best batching, likeliest first:";
    Some(format!("{title}\n{}", table.render()))
}

/// GPUs that a table lists.
const GPU_ROWS: usize = 12;

fn gpus_table(job: &JobExplanation) -> Option<String> {
    if job.on_gpus.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "lrr",
        [
            "GPU".to_owned(),
            "least time\ns".to_owned(),
            "% of the\ntime".to_owned(),
        ],
    );
    let possible = job
        .on_gpus
        .iter()
        .filter(|g| g.share.is_some_and(|s| s <= 1.0));
    for gpu in possible.take(GPU_ROWS) {
        table.row([
            gpu.gpu.to_owned(),
            gpu.floor_s.map_or_else(none, |s| significant(s, 4)),
            gpu.share.map_or_else(none, |s| significant(100.0 * s, 3)),
        ]);
    }
    let too_slow: Vec<&str> = job
        .on_gpus
        .iter()
        .filter(|g| g.share.is_none_or(|s| s > 1.0))
        .map(|g| g.gpu)
        .collect();
    let mut text = format!(
        "What the job needs at least on one rank of:\n{}",
        table.render()
    );
    if !too_slow.is_empty() {
        text += &format!("\nToo slow or too small: {}", too_slow.join(", "));
    }
    Some(text)
}

fn in_practice(suspect: &Suspect) -> String {
    suspect.plausible.map_or_else(none, |range| {
        format!(
            "{} – {}",
            rate(suspect, range.from),
            rate(suspect, range.to)
        )
    })
}

fn off_by(suspect: &Suspect) -> String {
    suspect.distance.map_or_else(none, |d| {
        if d <= 1.0 {
            "within".to_owned()
        } else {
            format!("{}×", significant(d, 2))
        }
    })
}

fn amount(suspect: &Suspect) -> String {
    match suspect.limiter.unit() {
        "FLOP/s" => quantity::with_prefix(suspect.amount, "FLOP"),
        "B/s" => quantity::bytes(suspect.amount),
        _ => format!("{:.0}", suspect.amount),
    }
}

fn rate(suspect: &Suspect, value: f64) -> String {
    match suspect.limiter.unit() {
        "s" => quantity::duration(value * 1e9),
        unit => quantity::with_prefix(value, unit),
    }
}

fn candidates_text(candidates: &[Candidate]) -> Vec<String> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let share = |value: Option<f64>| value.map_or_else(none, percent);
    let mut table = Table::new(
        "lrrrrr",
        [
            "GPU".to_owned(),
            "weights + KV pool\nof its memory".to_owned(),
            "prefill's floor\nof the time".to_owned(),
            "decode's floor\nof the time".to_owned(),
            "link".to_owned(),
            "all-reduces on it\nwould be slow by".to_owned(),
        ],
    );
    let (impossible, possible): (Vec<_>, Vec<_>) =
        candidates.iter().partition(|c| c.impossible.is_some());
    for candidate in &possible {
        let mut memory = share(candidate.memory_share);
        if candidate.memory_fits == Some(true) {
            memory = format!("fits: {memory}");
        }
        table.row([
            candidate.gpu.name.to_owned(),
            memory,
            share(candidate.prefill_share),
            share(candidate.decode_share),
            format!(
                "{} {}",
                candidate.gpu.link.kind.title(),
                quantity::with_prefix(candidate.gpu.link.bytes_per_s, "B/s")
            ),
            candidate.link_distance.map_or_else(none, |distance| {
                if distance <= 1.0 {
                    "usual".to_owned()
                } else {
                    format!("{}×", significant(distance, 2))
                }
            }),
        ]);
    }
    let mut sections = vec![heading("Which GPU it may be")];
    if possible.is_empty() {
        sections.push(
            "None of the table: the model, --tp, the data type or the result is not what it seems."
                .to_owned(),
        );
    } else {
        sections.push(table.render());
    }
    if !impossible.is_empty() {
        let mut lines = "It cannot be:".to_owned();
        for candidate in impossible {
            if let Some(reason) = &candidate.impossible {
                lines += &format!("\n  {}: {reason}", candidate.gpu.name);
            }
        }
        sections.push(lines);
    }
    sections
}
