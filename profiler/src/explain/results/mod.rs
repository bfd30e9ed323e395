//! Why another program's result is what it is.

mod job;
mod sentences;
mod text;
mod trust;

use serde::Serialize;

use super::candidates::{Candidate, candidates};
use super::ceilings::Ceilings;
use super::fit::{Fit, fit};
use super::floor::{StepFloor, step_floor};
use super::limiters::{Growth, Suspect, growth, suspects};
use super::observation::{Observation, Observations};
use super::precision::Precision;
use super::statement::Statement;
use super::step_work::{StepModel, StepWork};
use crate::activity::{Grade, Trust};
use crate::recorder::StepKind;
use crate::results::ResultRow;

pub(super) use text::job_title;

pub use job::{AtOnce, GpuFloor, Job, JobExplanation, JobFloor};

/// What is to be explained, and what is known about it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The rows of a result.
    pub rows: &'a [ResultRow],
    /// The model, if known: without it there are no floors, and no limiter can be judged.
    pub model: Option<&'a dyn StepModel>,
    /// The device, if known: without it every GPU of the table is considered.
    pub device: Option<&'a Ceilings>,
    /// The number format of the model's matrices.
    pub precision: Precision,
    /// Tokens that the KV pool has room for on one rank, where the result tells.
    pub pool_tokens: Option<f64>,
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject")
            .field("rows", &self.rows.len())
            .field("model", &self.model.map(StepModel::name))
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("pool_tokens", &self.pool_tokens)
            .finish()
    }
}

/// An explained result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// How far it can be believed.
    pub trust: Trust,
    /// What it comes to, the first thing to read.
    pub summary: Vec<Statement>,
    /// Prefill steps, when there are any.
    pub prefill: Option<StepsExplanation>,
    /// Decode steps, when there are any.
    pub decode: Option<StepsExplanation>,
    /// Whole jobs of which the duration is known, one per row; empty without a model.
    pub jobs: Vec<JobExplanation>,
    /// The GPUs of the table, possible ones first; empty when the device was given or the model is not known.
    pub candidates: Vec<Candidate>,
    /// What weakens it, and what would make it better.
    pub remarks: Vec<Statement>,
}

/// The explained steps of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepsExplanation {
    /// Prefill or decode.
    pub kind: StepKind,
    /// The steps, by size.
    pub steps: Vec<ExplainedStep>,
    /// The time as a sum of what is fixed and what grows; absent with a single shape.
    pub fit: Option<Fit>,
    /// From the smallest to the largest step.
    pub growth: Option<Growth>,
    /// Every limiter as the whole story of the largest step, likeliest first; empty without a model.
    pub suspects: Vec<Suspect>,
    /// In plain words.
    pub statements: Vec<Statement>,
}

/// A measured step beside its floor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedStep {
    /// What was measured.
    pub observation: Observation,
    /// Tokens through the layers per second, all requests together.
    pub tokens_per_s: f64,
    /// On the given device.
    pub floor: Option<StepFloor>,
}

/// Explains a result.
pub fn explain(subject: &Subject<'_>) -> Explanation {
    let prefills = Observations::of(subject.rows, StepKind::Prefill);
    let decodes = Observations::of(subject.rows, StepKind::Decode);
    let prefill_steps = with_work(&prefills, subject.model);
    let decode_steps = with_work(&decodes, subject.model);
    let candidates = match (subject.model, subject.device) {
        // A job alone rules out GPUs by itself.
        (Some(model), None) if !(prefill_steps.is_empty() && decode_steps.is_empty()) => {
            candidates(
                model,
                &prefill_steps,
                &decode_steps,
                subject.pool_tokens,
                subject.precision,
            )
        }
        _ => Vec::new(),
    };
    let devices = match subject.device {
        Some(device) => vec![device.clone()],
        None => considered(&candidates, subject.precision),
    };
    let explain_steps = |kind, observations: &Observations, steps: &[(&Observation, StepWork)]| {
        steps_explanation(kind, observations, steps, subject, &devices)
    };
    let prefill = explain_steps(StepKind::Prefill, &prefills, &prefill_steps);
    let decode = explain_steps(StepKind::Decode, &decodes, &decode_steps);
    let jobs = subject.model.map_or_else(Vec::new, |model| {
        let jobs = job::jobs(subject.rows).into_iter();
        jobs.map(|job| job::explain(job, model, subject)).collect()
    });
    let mut explanation = Explanation {
        trust: Trust {
            grade: Grade::Good,
            reasons: Vec::new(),
        },
        summary: Vec::new(),
        prefill,
        decode,
        jobs,
        candidates,
        remarks: Vec::new(),
    };
    explanation.trust = trust::of(&explanation, subject);
    explanation.summary = sentences::summary(&explanation, subject, &devices);
    explanation.remarks = sentences::remarks(&explanation, subject);
    explanation
}

/// The devices that the ranges of limiters are taken over: those that are possible and whose memory does not speak against them.
fn considered(candidates: &[Candidate], precision: Precision) -> Vec<Ceilings> {
    let possible = candidates.iter().filter(|c| c.impossible.is_none());
    let best: Vec<_> = possible
        .clone()
        .filter(|c| c.memory_fits != Some(false))
        .collect();
    let chosen = if best.is_empty() {
        possible.collect()
    } else {
        best
    };
    chosen
        .into_iter()
        .map(|c| Ceilings::of_gpu_for(c.gpu, None, precision))
        .collect()
}

/// Usable observations in order of size, with their work; without a model the work is empty.
fn with_work<'a>(
    observations: &'a Observations,
    model: Option<&dyn StepModel>,
) -> Vec<(&'a Observation, StepWork)> {
    let work_of = |o: &Observation| model.map_or_else(StepWork::default, |m| m.step(&o.shape));
    let mut steps: Vec<_> = observations
        .usable()
        .into_iter()
        .map(|o| (o, work_of(o)))
        .collect();
    steps.sort_by(|(a, _), (b, _)| {
        let size = |o: &Observation| (o.shape.tokens(), o.shape.context);
        size(a).cmp(&size(b))
    });
    steps
}

fn steps_explanation(
    kind: StepKind,
    observations: &Observations,
    steps: &[(&Observation, StepWork)],
    subject: &Subject<'_>,
    devices: &[Ceilings],
) -> Option<StepsExplanation> {
    if steps.is_empty() {
        return None;
    }
    let of_fit: Vec<&Observation> = steps.iter().map(|(o, _)| *o).collect();
    let explained = steps
        .iter()
        .map(|(observation, work)| ExplainedStep {
            observation: (*observation).clone(),
            tokens_per_s: observation.tokens_per_s(),
            floor: (subject.model.is_some())
                .then_some(subject.device)
                .flatten()
                .map(|device| step_floor(work, device)),
        })
        .collect();
    let mut explanation = StepsExplanation {
        kind,
        steps: explained,
        fit: fit(&of_fit),
        growth: growth(steps),
        suspects: match subject.model {
            Some(_) => suspects(steps, devices),
            None => Vec::new(),
        },
        statements: Vec::new(),
    };
    explanation.statements =
        sentences::of_steps(&explanation, observations, steps, subject, devices);
    Some(explanation)
}
