//! A job in words: how fast it was, how far above what it needs, and what that leaves open.

use super::{capitalised, seconds};
use crate::explain::limiters::{Limiter, Suspect};
use crate::explain::results::Subject;
use crate::explain::results::job::{AtOnce, Job, JobExplanation, JobFloor};
use crate::explain::statement::{Figure, Statement};
use crate::explain::step_work::StepModel;
use crate::quantity::{self, percent, significant};

/// Requests that were served no slower than they were sent, to within this.
const KEPT_UP: f64 = 0.95;

/// The sentences on a job.
pub(in crate::explain::results) fn of_job(
    explanation: &JobExplanation,
    model: &dyn StepModel,
    subject: &Subject<'_>,
) -> Vec<Statement> {
    let job = &explanation.job;
    let mut statements = vec![measured(job)];
    statements.extend(arrivals(job));
    match (&explanation.floor, subject.device) {
        (Some(floor), Some(device)) => {
            statements.push(floors(job, floor, &device.device, subject));
            if floor.least_s() > job.seconds {
                return statements; // nothing that follows from it would mean anything
            }
            statements.push(utilisation(job, floor, model.tp() * model.pp(), subject));
            statements.extend(communication(job, floor));
            statements.extend(likeliest(explanation));
        }
        (None, Some(device)) => statements.push(Statement::plain(format!(
            "This cannot be: {} of {} on one rank and the KV cache of one request do not fit the memory of {}. The GPU, the model, --tp or \
             the data type is another one.",
            quantity::bytes(model.weight_bytes() as f64),
            model.name(),
            device.device,
        ))),
        (_, None) => statements.extend(which_gpu(explanation)),
    }
    statements
}

fn measured(job: &Job) -> Statement {
    let requests = job.requests;
    let rate = requests / job.seconds;
    let tokens = rate * (job.input_tokens + job.output_tokens);
    Statement::new(
        format!(
            "{} requests of {} prompt tokens and {} generated ones took {}: {} requests/s, {} token/s in and out.",
            count(requests),
            count(job.input_tokens),
            count(job.output_tokens),
            seconds(job.seconds),
            significant(rate, 4),
            significant(tokens, 4),
        ),
        vec![Figure::new(
            "tokens per second, in and out",
            tokens,
            "token/s",
            format!(
                "{requests} × ({} + {}) / {:.6} s, row {}",
                job.input_tokens,
                job.output_tokens,
                job.seconds,
                job.row + 1
            ),
        )],
    )
}

fn count(value: f64) -> String {
    match value.fract() == 0.0 && value < 1e9 {
        true => format!("{value}"),
        false => significant(value, 4),
    }
}

/// Whether the client's own pace was the limit.
fn arrivals(job: &Job) -> Option<Statement> {
    let sent = job.sent_per_s?;
    let served = job.requests / job.seconds;
    let text = if served >= KEPT_UP * sent {
        format!(
            "The client sent {} requests/s, and they were served as fast: the rate is the client's. What follows says how busy the GPU was, \
             not how fast it could be.",
            significant(sent, 3)
        )
    } else {
        format!(
            "The client sent {} requests/s, and {} were served: the server was the limit.",
            significant(sent, 3),
            significant(served, 3)
        )
    };
    Some(Statement::new(
        text,
        vec![Figure::new(
            "served of sent",
            served / sent,
            "",
            format!("{} / {:.6} s / {sent}", job.requests, job.seconds),
        )],
    ))
}

fn floors(job: &Job, floor: &JobFloor, device: &str, subject: &Subject<'_>) -> Statement {
    let times = job.seconds / floor.total_s;
    let batching = match job.at_once {
        AtOnce::All => "as one batch".to_owned(),
        AtOnce::AtMost(n) => format!(
            "with the best batching of at most {} at once",
            significant(n, 3)
        ),
        AtOnce::Unknown => "with the best batching possible".to_owned(),
    };
    let made_of = format!(
        "prompts {}, generating {} in steps of {}",
        seconds(floor.prefill_s),
        seconds(floor.decode_s),
        floor.decode_batch
    );
    let text = if floor.least_s() > job.seconds {
        format!(
            "This cannot be: {device} needs {} at least, {batching} ({made_of}), and it took {}. The GPU, the model, --tp, the data type or \
             the lengths are other ones, or prompts had a common beginning that was computed once.",
            seconds(floor.least_s()),
            seconds(job.seconds),
        )
    } else {
        let mut text = format!(
            "It took {} times the {} that {device} needs at least, {batching} ({made_of}).",
            significant(times, 3),
            seconds(floor.total_s),
        );
        if job.at_once == AtOnce::Unknown {
            text += " How many requests ran at once the file does not say: smaller batches need more, --concurrency N says so.";
        }
        if job.at_once != AtOnce::All && floor.overlapped_s < 0.95 * floor.total_s {
            text += &format!(
                " Prompts that run within the steps of others (chunked prefill) can hide one behind the other: then {} at least.",
                seconds(floor.overlapped_s)
            );
        }
        text
    };
    let rates = subject.device.map_or_else(String::new, |device| {
        format!(
            "{}, {}; {}",
            quantity::with_prefix(device.weights_flops_per_s, "FLOP/s"),
            quantity::with_prefix(device.bytes_per_s, "B/s"),
            device.source
        )
    });
    Statement::new(
        text,
        vec![
            Figure::new(
                "prompts",
                floor.prefill_s,
                "s",
                format!(
                    "{} batches of {} prompt{}, each operation the longer of FLOP and bytes at {rates}",
                    significant(job.requests / floor.prefill_batch as f64, 4),
                    floor.prefill_batch,
                    if floor.prefill_batch == 1 { "" } else { "s" }
                ),
            ),
            Figure::new(
                "generating",
                floor.decode_s,
                "s",
                format!(
                    "{} steps of {} requests with {} tokens of context, likewise",
                    significant(floor.decode_steps, 4),
                    floor.decode_batch,
                    count((job.input_tokens + job.output_tokens / 2.0).round())
                ),
            ),
            Figure::new(
                "one hidden behind the other",
                floor.overlapped_s,
                "s",
                "the longer of all arithmetic and of all that decode steps read and write"
                    .to_owned(),
            ),
        ],
    )
}

fn utilisation(job: &Job, floor: &JobFloor, ranks: u64, subject: &Subject<'_>) -> Statement {
    let peak = subject.device.map_or(f64::NAN, |d| d.weights_flops_per_s);
    let bandwidth = subject.device.map_or(f64::NAN, |d| d.bytes_per_s);
    let who = match ranks {
        1 => "The GPU",
        _ => "Each rank",
    };
    let at_least = if job.at_once == AtOnce::All {
        ""
    } else {
        "at least "
    };
    Statement::new(
        format!(
            "{who} did {} in that time, {} of its peak (MFU), and read {at_least}{} of weights and KV cache to generate, {} of its \
             bandwidth (MBU).",
            quantity::with_prefix(floor.flops, "FLOP"),
            percent(floor.mfu),
            quantity::bytes(floor.decode_bytes),
            percent(floor.mbu),
        ),
        vec![
            Figure::new(
                "MFU",
                floor.mfu,
                "",
                format!(
                    "{:.4e} FLOP / {:.6} s / {peak:.4e} FLOP/s",
                    floor.flops, job.seconds
                ),
            ),
            Figure::new(
                "MBU",
                floor.mbu,
                "",
                format!(
                    "{:.4e} B / {:.6} s / {bandwidth:.4e} B/s",
                    floor.decode_bytes, job.seconds
                ),
            ),
        ],
    )
}

fn communication(job: &Job, floor: &JobFloor) -> Option<Statement> {
    (floor.communication_s > 0.0).then(|| {
        Statement::new(
            format!(
                "All-reduces at the whole rate of the link would add {}, {} of the time, if nothing hid them.",
                seconds(floor.communication_s),
                percent(floor.communication_s / job.seconds)
            ),
            vec![Figure::new(
                "all-reduces",
                floor.communication_s,
                "s",
                "2 (ranks − 1) / ranks of every tensor that is summed, over the link's rate".to_owned(),
            )],
        )
    })
}

/// The limiter that needs the least unusual rate to be the whole story.
fn likeliest(explanation: &JobExplanation) -> Option<Statement> {
    let best = explanation.suspects.first()?;
    let within = |suspect: &&Suspect| suspect.distance.is_some_and(|d| d <= 1.0);
    let needed = |suspect: &Suspect| match suspect.limiter.unit() {
        "s" => format!("{} each", seconds(suspect.needed)),
        unit => quantity::with_prefix(suspect.needed, unit),
    };
    let host = explanation
        .suspects
        .iter()
        .find(|s| s.limiter == Limiter::Host);
    let host = host
        .filter(within)
        .filter(|host| host.limiter != best.limiter);
    let mut text = if within(&best) {
        format!(
            "{} could be all of it, at {}, which is usual.",
            capitalised(best.limiter.title()),
            needed(best)
        )
    } else {
        format!(
            "{} comes closest to being all of it, and would have to be {}, which is not usual.",
            capitalised(best.limiter.title()),
            needed(best)
        )
    };
    if let Some(host) = host {
        text += &format!(
            " Work on the host could be, at {} per step; what it takes is an assumption.",
            seconds(host.needed)
        );
    } else if !within(&best) {
        text += " Several share the time";
        text += match explanation.job.at_once {
            AtOnce::All => ".",
            _ => ", or batches were smaller than the best ones.",
        };
    }
    Some(Statement::plain(text))
}

fn which_gpu(explanation: &JobExplanation) -> Option<Statement> {
    let could = explanation
        .on_gpus
        .iter()
        .filter(|g| g.share.is_some_and(|s| s <= 1.0));
    let names: Vec<&str> = could.clone().map(|g| g.gpu).collect();
    let all = explanation.on_gpus.len();
    if names.is_empty() {
        return Some(Statement::plain(
            "No GPU of the table is that fast on one rank: the model, --tp, --pp, the data type or the lengths are other ones, or prompts had \
             a common beginning that was computed once.",
        ));
    }
    let closest = could.clone().next()?;
    Some(Statement::new(
        format!(
            "{} of the {all} GPUs of the table are fast enough; it would be closest to what {} needs at least ({} of the time). --gpu NAME \
             says how far above that it is.",
            names.len(),
            closest.gpu,
            percent(closest.share?),
        ),
        vec![Figure::new(
            format!("least on {}", closest.gpu),
            closest.floor_s?,
            "s",
            "the best batching possible, prompts and generating one hidden behind the other"
                .to_owned(),
        )],
    ))
}
