//! What an explained result comes to, and what weakens it.

use super::in_practice::in_practice;
use super::{FAR, capitalised, seconds};
use crate::explain::ceilings::Ceilings;
use crate::explain::fit::Per;
use crate::explain::limiters::Limiter;
use crate::explain::precision::Precision;
use crate::explain::results::{Explanation, StepsExplanation, Subject};
use crate::explain::statement::{Figure, Statement};
use crate::quantity::{self, percent, significant};
use crate::results::{Framework, Load};

/// What it comes to.
pub(in crate::explain::results) fn summary(
    explanation: &Explanation,
    subject: &Subject<'_>,
    devices: &[Ceilings],
) -> Vec<Statement> {
    let mut statements = Vec::new();
    for steps in [&explanation.prefill, &explanation.decode]
        .into_iter()
        .flatten()
    {
        statements.extend(likeliest(steps, devices));
    }
    statements.extend(same_rate(explanation, subject));
    statements.extend(which_gpu(explanation, subject));
    statements
}

/// A result of which the slowest GPU's floors are a smaller share was not limited by a GPU.
const NO_GPU: f64 = 0.02;

/// The GPUs that nothing speaks against, when the GPU is not known.
fn which_gpu(explanation: &Explanation, subject: &Subject<'_>) -> Option<Statement> {
    let candidates = &explanation.candidates;
    let possible: Vec<_> = candidates
        .iter()
        .filter(|c| c.impossible.is_none())
        .collect();
    if candidates.is_empty() {
        return None;
    }
    let closest = possible
        .iter()
        .flat_map(|c| [c.prefill_share, c.decode_share])
        .flatten()
        .fold(0.0, f64::max);
    if closest < NO_GPU {
        return Some(Statement::plain(format!(
            "No GPU of the table is as slow as this: the slowest needs {} of the time. It ran on a CPU, or waited for something that these \
             limiters do not know.",
            percent(closest)
        )));
    }
    let likely: Vec<_> = possible.iter().filter(|c| c.is_likely()).collect();
    if likely.is_empty() || likely.len() > 8 {
        return Some(Statement::plain(format!(
            "The GPU is not known: of the {} of the table {} are possible, and the result does not tell them apart.",
            candidates.len(),
            possible.len()
        )));
    }
    let names: Vec<_> = likely.iter().map(|c| c.gpu.title).collect();
    let mut reasons = Vec::new();
    let mut figures = Vec::new();
    if let (Some(share), Some(tokens), Some(model)) = (
        likely.first().and_then(|c| c.memory_share),
        subject.pool_tokens,
        subject.model,
    ) {
        let needed = model.weight_bytes() as f64 + tokens * model.kv_bytes_per_token() as f64;
        reasons.push(format!(
            "weights and KV pool take {} of each, {} of the memory of these cards",
            quantity::bytes(needed),
            percent(share)
        ));
        figures.push(Figure::new(
            "weights and KV pool of one rank",
            needed,
            "B",
            format!(
                "{} B of weights + {tokens:.0} tokens × {} B",
                model.weight_bytes(),
                model.kv_bytes_per_token()
            ),
        ));
    }
    if likely.iter().all(|c| c.link_distance.is_some()) {
        reasons.push("all-reduces are no faster than their links".to_owned());
    }
    reasons.push("they could have read the weights in the time of a decode step".to_owned());
    Some(Statement::new(
        format!(
            "The GPU is most likely {}: {}.",
            any_of(&names),
            reasons.join(", ")
        ),
        figures,
    ))
}

/// `a`, `a or b`, `a, b or c`.
fn any_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// How the time of steps of a kind is made up, and the limiter that explains them best, if one does.
fn likeliest(steps: &StepsExplanation, devices: &[Ceilings]) -> Option<Statement> {
    let title = steps.kind.title();
    let mut text = match (&steps.fit, steps.growth) {
        (Some(fit), Some(growth)) => {
            let largest = &steps.steps.last()?.observation;
            let fixed = fit.term(Per::Step) / largest.seconds;
            format!(
                "{title}: {} times as many tokens took {} times as long; {} of the largest step is the same for every step.",
                significant(growth.tokens, 3),
                significant(growth.seconds, 4),
                percent(fixed),
            )
        }
        _ => format!("{title}:"),
    };
    let Some(best) = steps.suspects.first() else {
        return (steps.fit.is_some()).then(|| Statement::plain(text));
    };
    let needed = match best.limiter.unit() {
        "s" => format!("{} each", seconds(best.needed)),
        unit => quantity::with_prefix(best.needed, unit),
    };
    let is_close = best.distance.is_none_or(|d| d < FAR) && best.score < FAR.log10();
    let name = match text.ends_with('.') {
        true => capitalised(best.limiter.title()),
        false => best.limiter.title().to_owned(),
    };
    if is_close {
        text += &format!(
            " {name} explains it best, at {needed}. {}",
            in_practice(best, devices)
        );
    } else {
        text += &format!(
            "{} limiter explains it alone; {} comes closest, at {needed}.",
            if text.ends_with('.') { " No" } else { " no" },
            best.limiter.title()
        );
    }
    Some(Statement::new(
        text,
        vec![Figure::new(
            format!("{} needed", best.limiter.title()),
            best.needed,
            best.limiter.unit(),
            match best.limiter.is_rate() {
                true => format!("{:.4e} in the largest step, over its time", best.amount),
                false => format!("the largest step's time over {:.0}", best.amount),
            },
        )],
    ))
}

/// Whether the all-reduce rate that prefill would need also explains how decode grows with the batch.
fn same_rate(explanation: &Explanation, subject: &Subject<'_>) -> Option<Statement> {
    let model = subject.model?;
    let prefill = explanation.prefill.as_ref()?;
    let decode = explanation.decode.as_ref()?;
    let rate = prefill
        .suspects
        .iter()
        .find(|s| s.limiter == Limiter::AllReduceBandwidth)?;
    let per_sequence_s = decode.fit.as_ref()?.term(Per::Sequence);
    let shape = decode.steps.last()?.observation.shape;
    if per_sequence_s <= 0.0 || shape.batch_size == 0 {
        return None;
    }
    let sent = model.step(&shape).communication.ring_bytes() / shape.batch_size as f64;
    let explained_s = sent / rate.needed;
    let share = explained_s / per_sequence_s;
    let text = if (0.5..1.1).contains(&share) {
        format!(
            "The same rate accounts for decode too: at {}, the {} that a decode step sends per sequence take {}, {} of the {} by which it \
             grows. Two measurements that have nothing else in common agree on the link between the GPUs.",
            quantity::with_prefix(rate.needed, "B/s"),
            quantity::bytes(sent),
            seconds(explained_s),
            percent(share),
            seconds(per_sequence_s),
        )
    } else {
        format!(
            "That rate does not carry over to decode: at {}, what a decode step sends per sequence takes {}, and it grows by {}.",
            quantity::with_prefix(rate.needed, "B/s"),
            seconds(explained_s),
            seconds(per_sequence_s),
        )
    };
    Some(Statement::new(
        text,
        vec![
            Figure::new(
                "sent per sequence in a decode step",
                sent,
                "B",
                "all-reduces × hidden size × 2 B × 2 (ranks − 1) / ranks".to_owned(),
            ),
            Figure::new(
                "time of that at prefill's rate",
                explained_s,
                "s",
                format!("{sent:.4e} B / {:.4e} B/s", rate.needed),
            ),
        ],
    ))
}

/// Whether no row says how many requests of which lengths it is of.
fn job_is_unknown(subject: &Subject<'_>) -> bool {
    subject
        .rows
        .iter()
        .all(|row| row.input_len.is_none() || row.output_len.is_none() || row.load == Load::Unknown)
}

/// Why there are no floors, and how to get them.
fn nothing_to_hold(subject: &Subject<'_>) -> Statement {
    let missing = |what: &str, option: &str, is_missing: bool| {
        is_missing.then(|| (what.to_owned(), option.to_owned()))
    };
    let row = subject.rows.first();
    let lacks: Vec<(String, String)> = row
        .into_iter()
        .flat_map(|row| {
            [
                missing("its batch", "--batch N", row.load == Load::Unknown),
                missing(
                    "the prompts' length",
                    "--input-len N",
                    row.input_len.is_none(),
                ),
                missing(
                    "how much was generated",
                    "--output-len N",
                    row.output_len.is_none(),
                ),
            ]
        })
        .flatten()
        .collect();
    let said: Vec<&str> = lacks.iter().map(|(what, _)| what.as_str()).collect();
    let options: Vec<&str> = lacks.iter().map(|(_, option)| option.as_str()).collect();
    let mut text = "There is nothing to hold a floor against".to_owned();
    if said.is_empty() {
        return Statement::plain(
            text + ": no row holds a time together with its batch and lengths.",
        );
    }
    text += &format!(
        ": the file does not say {}. {} add what you know.",
        said.join(", "),
        options.join(", ")
    );
    if row.is_some_and(|row| row.framework == Framework::Vllm && row.program == "bench latency") {
        text += " Where nothing else was asked for, vllm bench latency takes 8, 32 and 128.";
    }
    Statement::plain(text)
}

/// What weakens the explanation.
pub(in crate::explain::results) fn remarks(
    explanation: &Explanation,
    subject: &Subject<'_>,
) -> Vec<Statement> {
    let mut remarks = Vec::new();
    if explanation.prefill.is_none()
        && explanation.decode.is_none()
        && explanation.jobs.is_empty()
        && subject.model.is_some()
    {
        remarks.push(nothing_to_hold(subject));
    }
    if subject.model.is_none() {
        remarks.push(Statement::plain(
            "Without a model there are no floors: --model NAME or --model config.json adds them.",
        ));
        if job_is_unknown(subject) {
            remarks.push(nothing_to_hold(subject));
        }
    }
    if subject.device.is_none()
        && (explanation.prefill.is_some() || explanation.decode.is_some())
        && subject.model.is_some()
    {
        remarks.push(Statement::plain(
            "The GPU was not given: ranges are over all that it may be. --gpu NAME narrows them.",
        ));
    }
    if subject.precision != Precision::HALF && subject.model.is_some() {
        remarks.push(Statement::plain(format!(
            "Floors are for {}; scales, and layers that stay in 16 bits, are left out.",
            subject.precision.words()
        )));
    }
    if let Some(model) = subject.model.filter(|model| model.pp() > 1) {
        remarks.push(Statement::plain(format!(
            "A batch passes through the {} pipeline stages one after the other, so that floors are those of all stages together; what \
             they send each other is left out.",
            model.pp()
        )));
    }
    let mut caveats: Vec<&str> = [&explanation.prefill, &explanation.decode]
        .into_iter()
        .flatten()
        .flat_map(|steps| steps.steps.iter().filter_map(|s| s.observation.caveat))
        .collect();
    caveats.dedup();
    for caveat in caveats {
        remarks.push(Statement::plain(format!("A time here is {caveat}.")));
    }
    for (index, row) in subject.rows.iter().enumerate() {
        for remark in &row.remarks {
            remarks.push(Statement::plain(format!("Row {}: {remark}", index + 1)));
        }
    }
    remarks
}
