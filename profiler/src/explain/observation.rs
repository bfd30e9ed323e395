//! Steps that somebody measured, out of the rows of a result file.

use serde::Serialize;

use super::step_work::StepShape;
use crate::recorder::StepKind;
use crate::results::{Basis, Load, ResultRow};

/// A measured step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// What ran.
    pub shape: StepShape,
    /// How long it took, seconds.
    pub seconds: f64,
    /// What the time was measured over.
    pub basis: Basis,
    /// What must be known of it before it is believed; empty for a step that was timed alone.
    pub caveat: Option<&'static str>,
    /// Which row of the input it is from, from 0.
    pub row: usize,
}

impl Observation {
    /// Tokens through the layers per second.
    pub fn tokens_per_s(&self) -> f64 {
        self.shape.tokens() as f64 / self.seconds
    }
}

/// The steps of one kind: of every shape the least disturbed one, and what the others of the same shape took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observations {
    /// One per shape, by batch, tokens and context.
    pub fastest: Vec<Observation>,
    /// Slower ones of the same shapes.
    pub repeats: Vec<Observation>,
}

impl Observations {
    /// The steps of `kind` in `rows`.
    pub fn of(rows: &[ResultRow], kind: StepKind) -> Observations {
        let mut all: Vec<Observation> = rows
            .iter()
            .enumerate()
            .filter_map(|(index, row)| match kind {
                StepKind::Prefill => prefill(row, index),
                StepKind::Decode => decode(row, index),
            })
            .filter(|o| o.seconds.is_finite() && o.seconds > 0.0 && o.shape.tokens() > 0)
            .collect();
        let order = |o: &Observation| {
            (
                o.caveat.is_some(),
                o.shape.batch_size,
                o.shape.new_tokens,
                o.shape.context,
            )
        };
        all.sort_by(|a, b| {
            order(a)
                .cmp(&order(b))
                .then(a.seconds.total_cmp(&b.seconds))
        });
        let mut observations = Observations::default();
        for observation in all {
            let is_repeat = observations
                .fastest
                .last()
                .is_some_and(|o| o.shape == observation.shape && o.caveat == observation.caveat);
            if is_repeat {
                observations.repeats.push(observation);
            } else {
                observations.fastest.push(observation);
            }
        }
        observations
    }

    /// Those that were timed alone; if there is none, those that come closest.
    pub fn usable(&self) -> Vec<&Observation> {
        let clean: Vec<_> = self.fastest.iter().filter(|o| o.caveat.is_none()).collect();
        if clean.is_empty() {
            self.fastest.iter().collect()
        } else {
            clean
        }
    }
}

fn whole(tokens: f64) -> Option<u64> {
    (tokens.is_finite() && (0.5..1e12).contains(&tokens)).then(|| tokens.round() as u64)
}

fn prefill(row: &ResultRow, index: usize) -> Option<Observation> {
    let latency = row.ttft.as_ref()?;
    let new_tokens = whole(row.input_len?.tokens)?;
    let (batch_size, caveat) = match (row.load, latency.basis) {
        (Load::StaticBatch(batch), Basis::PrefillStep | Basis::PromptWithoutSampling) => {
            (batch, None)
        }
        (Load::StaticBatch(batch), _) => (
            batch,
            Some("measured by a client: its way to the server and the scheduler are in it"),
        ),
        _ => (
            1,
            Some("a time to first token under load: it holds the wait for other requests"),
        ),
    };
    let depth = row.kv_depth.and_then(whole).unwrap_or(0);
    Some(Observation {
        shape: StepShape {
            kind: StepKind::Prefill,
            batch_size,
            new_tokens,
            context: depth + new_tokens,
        },
        seconds: latency.typical_s()?,
        basis: latency.basis,
        caveat,
        row: index,
    })
}

fn decode(row: &ResultRow, index: usize) -> Option<Observation> {
    let latency = row.tpot.as_ref()?;
    let depth = row.kv_depth.unwrap_or(0.0);
    let input = match latency.basis {
        // llama-bench generates on an empty cache, or on one of its `depth`.
        Basis::GenerationWithoutSampling => 0.0,
        _ => row.input_len?.tokens,
    };
    // The median step stands in the middle of the generation.
    let context = whole(depth + input + row.output_len?.tokens / 2.0)?;
    let (batch_size, caveat) = match (row.load, latency.basis) {
        (Load::StaticBatch(batch), Basis::DecodeStep | Basis::GenerationWithoutSampling) => {
            (batch, None)
        }
        (Load::StaticBatch(batch), _) => (
            batch,
            Some("per output token as a client saw it: scheduling and streaming are in it"),
        ),
        (Load::Concurrency { limit, mean }, _) => (
            whole(mean.or(limit)?)?,
            Some(
                "per output token under load: the mean number of requests in flight is taken for the batch, and prefills of others \
                 run in between",
            ),
        ),
        (Load::Unknown, _) => return None,
    };
    Some(Observation {
        shape: StepShape {
            kind: StepKind::Decode,
            batch_size,
            new_tokens: 1,
            context,
        },
        seconds: latency.typical_s()?,
        basis: latency.basis,
        caveat,
        row: index,
    })
}
