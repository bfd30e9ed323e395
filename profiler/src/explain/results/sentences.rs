//! What an explained result comes to, in words.

mod in_practice;
mod job;
mod summary;

use self::in_practice::in_practice;
pub(super) use self::job::of_job;
pub(super) use self::summary::{remarks, summary};
use super::{StepsExplanation, Subject};
use crate::explain::ceilings::Ceilings;
use crate::explain::fit::{Fit, Per};
use crate::explain::limiters::Limiter;
use crate::explain::observation::{Observation, Observations};
use crate::explain::statement::{Figure, Statement};
use crate::explain::step_work::{StepModel, StepWork};
use crate::quantity::{self, percent, significant};
use crate::recorder::StepKind;

/// A term that makes up this share of a step is what bounds it.
const BOUND_SHARE: f64 = 0.7;
/// Repeats of a shape that took this much longer are worth a word.
const WORTH_A_WORD: f64 = 0.02;
/// A limiter so many times outside its range is no explanation.
const FAR: f64 = 3.0;

fn seconds(value: f64) -> String {
    quantity::duration(value * 1e9)
}

/// The sentences on steps of one kind: how the time is made up, what it is not, what it could be.
pub(super) fn of_steps(
    explanation: &StepsExplanation,
    observations: &Observations,
    steps: &[(&Observation, StepWork)],
    subject: &Subject<'_>,
    devices: &[Ceilings],
) -> Vec<Statement> {
    let mut statements = vec![measured(explanation)];
    if let (Some(model), Some((largest, work))) = (subject.model, steps.last()) {
        statements.extend(floors(explanation, subject));
        if explanation.kind == StepKind::Prefill {
            statements.extend(compute(largest, work, devices));
        }
        statements.extend(all_reduce(explanation, largest, work, devices));
        if let (StepKind::Decode, Some(fit)) = (explanation.kind, &explanation.fit) {
            statements.extend(decode_parts(fit, steps, model));
        }
    }
    statements.extend(repeats(observations));
    statements
}

/// How long the steps take and what the fit makes of that.
fn measured(explanation: &StepsExplanation) -> Statement {
    let title = explanation.kind.title();
    let steps = &explanation.steps;
    let mut figures: Vec<Figure> = steps
        .iter()
        .map(|step| {
            let o = &step.observation;
            Figure::new(
                o.shape.label(),
                step.tokens_per_s,
                "token/s",
                format!(
                    "{} tokens / {:.6} s, row {}",
                    o.shape.tokens(),
                    o.seconds,
                    o.row + 1
                ),
            )
        })
        .collect();
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return Statement::plain(format!("{title} was not measured."));
    };
    let told = |step: &super::ExplainedStep| {
        let o = &step.observation;
        let what = match explanation.kind {
            StepKind::Prefill => format!("{} tokens take", o.shape.tokens()),
            StepKind::Decode => format!("a step of batch {} takes", o.shape.batch_size),
        };
        format!(
            "{what} {} ({:.1} token/s)",
            seconds(o.seconds),
            step.tokens_per_s
        )
    };
    let Some(fit) = &explanation.fit else {
        return Statement::new(
            format!(
                "{title}: {}. One shape alone does not say what of it is fixed and what grows with the batch.",
                told(last)
            ),
            figures,
        );
    };
    let mut parts = Vec::new();
    let largest = &last.observation;
    let mut dominant: Option<(Per, f64)> = None;
    for term in &fit.terms {
        let share = term.seconds * term.per.amount(&largest.shape) / largest.seconds;
        if dominant.is_none_or(|(_, most)| share > most) {
            dominant = Some((term.per, share));
        }
        parts.push(format!("{} {}", seconds(term.seconds), term.per.title()));
        figures.push(Figure::new(
            format!("{title}, {}", term.per.title()),
            term.seconds,
            "s",
            fit_arithmetic(fit, term.per, steps),
        ));
    }
    let how = match dominant {
        Some((Per::Step, share)) if share >= BOUND_SHARE => format!(
            "{title} is bound by something that every step has, whatever the batch ({} of the largest step)",
            percent(share)
        ),
        Some((per, share)) if share >= BOUND_SHARE => format!(
            "{title} is bound by something that it pays {}",
            match per {
                Per::Token => "for every token",
                Per::Sequence => "for every sequence",
                _ => "for every token of context",
            }
        ),
        _ => format!("{title} is made of a fixed part and one that grows"),
    };
    let range = if steps.len() > 2 {
        format!(
            "from \"{}\" to \"{}\"",
            first.observation.shape.label(),
            last.observation.shape.label()
        )
    } else {
        format!("{} and {}", told(first), told(last))
    };
    let mut text = format!("{how}: {}. Measured: {range}.", parts.join(" + "));
    for term in fit.terms.iter().filter(|t| !t.or.is_empty()) {
        let others: Vec<_> = term.or.iter().map(|per| per.title()).collect();
        text += &format!(
            " Whether that is {} or {} these rows cannot tell.",
            term.per.title(),
            others.join(" or ")
        );
    }
    match fit.worst_error {
        Some(error) => {
            text += &format!(
                " The sum is within {} of each of the {} shapes.",
                percent(error.max(1e-4)),
                fit.rows
            );
        }
        None => {
            text += &format!(
                " {} shapes give {} unknowns exactly; a third batch size would test it.",
                fit.rows,
                fit.terms.len()
            );
        }
    }
    Statement::new(text, figures)
}

/// The arithmetic of a coefficient: exact for two shapes and two terms, otherwise the method's name.
fn fit_arithmetic(fit: &Fit, per: Per, steps: &[super::ExplainedStep]) -> String {
    if let ([a, b], [fixed, slope]) = (steps, fit.terms.as_slice()) {
        let (a, b) = (&a.observation, &b.observation);
        let (x, y) = (slope.per.amount(&a.shape), slope.per.amount(&b.shape));
        if fixed.per == Per::Step && per == slope.per {
            return format!("({:.6} s − {:.6} s) / ({y} − {x})", b.seconds, a.seconds);
        }
        if per == Per::Step {
            return format!("{:.6} s − {x} × {:.6e} s", a.seconds, slope.seconds);
        }
    }
    format!(
        "least squares with terms ≥ 0 over {} shapes, each weighted by 1 / its time",
        fit.rows
    )
}

/// How far above their floors the steps are, on a device that is known.
fn floors(explanation: &StepsExplanation, subject: &Subject<'_>) -> Option<Statement> {
    let device = subject.device?;
    let last = explanation.steps.last()?;
    let floor = last.floor.as_ref()?;
    let o = &last.observation;
    let times = o.seconds / floor.total_s;
    let made_of = {
        let parts = [
            ("arithmetic", floor.compute_s),
            ("weights", floor.weights_s),
            ("KV cache", floor.kv_s),
            ("activations", floor.activations_s),
        ];
        let named: Vec<String> = parts
            .iter()
            .filter(|(_, s)| *s > 0.005 * floor.total_s)
            .map(|(name, s)| format!("{name} {}", seconds(*s)))
            .collect();
        named.join(", ")
    };
    let text = if floor.total_s > o.seconds {
        format!(
            "This cannot be: the floor of {} on {} is {} ({made_of}), and it took {}. The GPU, the model, --tp or the data type is \
             another one, or the row is wrong.",
            o.shape.label(),
            device.device,
            seconds(floor.total_s),
            seconds(o.seconds),
        )
    } else {
        format!(
            "{} takes {} times its floor of {} on {} ({made_of}); separate good kernels without communication would take {}.",
            capitalised(&o.shape.label()),
            significant(times, 3),
            seconds(floor.total_s),
            device.device,
            seconds(floor.good_kernels_s),
        )
    };
    Some(Statement::new(
        text,
        vec![
            Figure::new(
                "floor",
                floor.total_s,
                "s",
                format!(
                    "sum over operations of the longer of FLOP / {} and bytes / {}; {}",
                    quantity::with_prefix(device.weights_flops_per_s, "FLOP/s"),
                    quantity::with_prefix(device.bytes_per_s, "B/s"),
                    device.source
                ),
            ),
            Figure::new(
                "good kernels",
                floor.good_kernels_s,
                "s",
                "sum over operations of 1.85 µs + the longer of FLOP / 77 % of the peak and bytes / 83 % of the bandwidth".to_owned(),
            ),
        ],
    ))
}

/// How far tensor-core compute is from the time of a prefill.
fn compute(largest: &Observation, work: &StepWork, devices: &[Ceilings]) -> Option<Statement> {
    let slowest = devices
        .iter()
        .min_by(|a, b| a.weights_flops_per_s.total_cmp(&b.weights_flops_per_s))?;
    let flops = work.total().flops as f64;
    let rate = flops / largest.seconds;
    let share = rate / slowest.weights_flops_per_s;
    let whose = if devices.len() > 1 {
        format!(
            "of what the slowest GPU that it may be, {}, does:",
            slowest.device
        )
    } else {
        format!("of what {} does:", slowest.device)
    };
    let verdict = if share > 1.0 {
        "Tensor cores cannot be that fast"
    } else if share < 0.2 {
        "Tensor-core compute is far from it"
    } else if share < 0.4 {
        "Tensor-core compute is not the whole of it"
    } else {
        "Tensor-core compute is a good part of it"
    };
    Some(Statement::new(
        format!(
            "{verdict}: each rank did {} in {}, {}, which is {} {whose} {}.",
            quantity::with_prefix(flops, "FLOP"),
            seconds(largest.seconds),
            quantity::with_prefix(rate, "FLOP/s"),
            percent(share),
            quantity::with_prefix(slowest.weights_flops_per_s, "FLOP/s"),
        ),
        vec![
            Figure::new(
                "arithmetic of one rank",
                flops,
                "FLOP",
                format!(
                    "{} by the cost models of its operations",
                    largest.shape.label()
                ),
            ),
            Figure::new(
                "rate of one rank",
                rate,
                "FLOP/s",
                format!("{flops:.4e} FLOP / {:.6} s", largest.seconds),
            ),
            Figure::new(
                format!("peak of {}", slowest.device),
                slowest.weights_flops_per_s,
                "FLOP/s",
                slowest.source.clone(),
            ),
        ],
    ))
}

/// What the ranks' sums would have to be.
fn all_reduce(
    explanation: &StepsExplanation,
    largest: &Observation,
    work: &StepWork,
    devices: &[Ceilings],
) -> Option<Statement> {
    let communication = &work.communication;
    if communication.ranks < 2 {
        return None;
    }
    let limiter = match explanation.kind {
        StepKind::Prefill => Limiter::AllReduceBandwidth,
        StepKind::Decode => Limiter::AllReduceLatency,
    };
    let suspect = explanation.suspects.iter().find(|s| s.limiter == limiter)?;
    let count = communication.all_reduces;
    let bytes = quantity::bytes(communication.all_reduce_bytes as f64);
    let ranks = communication.ranks;
    let (text, figure) = match limiter {
        Limiter::AllReduceBandwidth => (
            format!(
                "All-reduces would account for all of it if each rank sent {}: the {ranks} ranks sum {count} tensors of {bytes} per step, \
                 of which a ring sends 2 × {} / {ranks}, {} per rank. {}",
                quantity::with_prefix(suspect.needed, "B/s"),
                ranks - 1,
                quantity::bytes(suspect.amount),
                in_practice(suspect, devices),
            ),
            Figure::new(
                "all-reduce rate needed",
                suspect.needed,
                "B/s",
                format!(
                    "{count} × {} B × 2 × {} / {ranks} / {:.6} s",
                    communication.all_reduce_bytes,
                    ranks - 1,
                    largest.seconds
                ),
            ),
        ),
        _ => (
            format!(
                "All-reduces would account for all of it if each took {}: there are {count} per step, of {bytes} each. {}",
                seconds(suspect.needed),
                in_practice(suspect, devices),
            ),
            Figure::new(
                "time per all-reduce needed",
                suspect.needed,
                "s",
                format!("{:.6} s / {count}", largest.seconds),
            ),
        ),
    };
    let mut figures = vec![figure];
    figures.push(Figure::new(
        "all-reduces per step",
        count as f64,
        "",
        "one after each attention and each MLP block, and one after the embedding".to_owned(),
    ));
    Some(Statement::new(text, figures))
}

/// What the fixed part and the growing part of a decode step would have to be.
fn decode_parts(
    fit: &Fit,
    steps: &[(&Observation, StepWork)],
    model: &dyn StepModel,
) -> Vec<Statement> {
    let (Some((smallest, small_work)), Some((largest, large_work))) = (steps.first(), steps.last())
    else {
        return Vec::new();
    };
    let fixed_s = fit.term(Per::Step);
    let per_sequence_s = fit.term(Per::Sequence);
    let mut statements = Vec::new();
    let shares: Vec<String> = [smallest, largest]
        .iter()
        .map(|o| {
            format!(
                "{} of the {} at batch {}",
                percent(fixed_s / o.seconds),
                seconds(o.seconds),
                o.shape.batch_size
            )
        })
        .collect();
    if fixed_s > 0.0 {
        let weights = large_work.total().weight_bytes as f64;
        let mut text = format!(
            "The fixed part, {} ({}), is what reading {} of weights takes at {}",
            seconds(fixed_s),
            shares.join(", "),
            quantity::bytes(weights),
            quantity::with_prefix(weights / fixed_s, "B/s"),
        );
        let mut figures = vec![
            Figure::new(
                "weights read by one rank",
                weights,
                "B",
                format!(
                    "all matrices of {} but the embedding, over {} ranks",
                    model.name(),
                    model.tp()
                ),
            ),
            Figure::new(
                "bandwidth needed",
                weights / fixed_s,
                "B/s",
                format!("{weights:.4e} B / {fixed_s:.6} s"),
            ),
        ];
        let count = large_work.communication.all_reduces as f64;
        if count > 0.0 {
            text += &format!(
                ", or {count:.0} all-reduces at {} each; it may be any mix of the two and of launches and host work, which cost the \
                 same whatever the batch",
                seconds(fixed_s / count),
            );
            figures.push(Figure::new(
                "time per all-reduce needed",
                fixed_s / count,
                "s",
                format!("{fixed_s:.6} s / {count:.0}"),
            ));
        }
        statements.push(Statement::new(text + ".", figures));
    }
    let more = (largest.shape.batch_size - smallest.shape.batch_size) as f64;
    if per_sequence_s > 0.0 && more > 0.0 {
        let per_sequence =
            |limiter: Limiter| (limiter.amount(large_work) - limiter.amount(small_work)) / more;
        let kv = per_sequence(Limiter::Kv);
        let sent = per_sequence(Limiter::AllReduceBandwidth);
        let mut text = format!(
            "The part that grows, {} per sequence, is what reading a sequence's {} of KV cache takes at {}",
            seconds(per_sequence_s),
            quantity::bytes(kv),
            quantity::with_prefix(kv / per_sequence_s, "B/s"),
        );
        let mut figures = vec![
            Figure::new(
                "KV cache per sequence and rank",
                kv,
                "B",
                format!(
                    "{} tokens × {} B per token",
                    largest.shape.context,
                    model.kv_bytes_per_token()
                ),
            ),
            Figure::new(
                "bandwidth needed",
                kv / per_sequence_s,
                "B/s",
                format!("{kv:.4e} B / {per_sequence_s:.6e} s"),
            ),
        ];
        if sent > 0.0 {
            text += &format!(
                ", or what sending {} in all-reduces takes at {}",
                quantity::bytes(sent),
                quantity::with_prefix(sent / per_sequence_s, "B/s"),
            );
            figures.push(Figure::new(
                "all-reduce rate needed",
                sent / per_sequence_s,
                "B/s",
                format!("{sent:.4e} B / {per_sequence_s:.6e} s"),
            ));
        }
        statements.push(Statement::new(text + ".", figures));
    }
    statements
}

/// Shapes that were measured more than once.
fn repeats(observations: &Observations) -> Option<Statement> {
    let slower: Vec<(&Observation, f64)> = observations
        .repeats
        .iter()
        .filter_map(|repeat| {
            let fastest = observations
                .fastest
                .iter()
                .find(|o| o.shape == repeat.shape)?;
            let excess = repeat.seconds / fastest.seconds - 1.0;
            (excess > WORTH_A_WORD).then_some((repeat, excess))
        })
        .collect();
    if slower.is_empty() {
        return None;
    }
    let told: Vec<String> = slower
        .iter()
        .map(|(o, excess)| {
            format!(
                "{} also took {} ({} more)",
                o.shape.label(),
                seconds(o.seconds),
                percent(*excess)
            )
        })
        .collect();
    let figures = slower
        .iter()
        .map(|(o, _)| {
            Figure::new(
                o.shape.label(),
                o.seconds,
                "s",
                format!("row {}", o.row + 1),
            )
        })
        .collect();
    Some(Statement::new(
        format!(
            "The faster of repeated measurements was taken: {}. The first run of a shape pays for what is done once.",
            told.join("; ")
        ),
        figures,
    ))
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + characters.as_str()
    })
}
