//! A whole job of many requests, of which only the duration is known: what it needs at least, however its requests were batched.
//!
//! Prompts are taken to run in batches of the size at which a prompt is cheapest, and tokens to be generated in the largest batch that
//! the load, the number of requests and the card's memory allow. Nothing that computes the same on the device is faster: a floor of the
//! job, whatever its scheduler did. (Prompts with a common beginning, computed once, are another job.)

use serde::Serialize;

use super::Subject;
use crate::explain::ceilings::Ceilings;
use crate::explain::floor::{operation_floor, step_floor};
use crate::explain::limiters::{Limiter, Suspect};
use crate::explain::statement::Statement;
use crate::explain::step_work::{StepModel, StepShape, StepWork};
use crate::gpus::GPUS;
use crate::recorder::StepKind;
use crate::results::{Basis, Load, ResultRow};

/// More requests in a batch make a request no cheaper by any figure that is shown.
const LARGEST_BATCH: u64 = 4096;

/// An explained job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobExplanation {
    /// What ran, and how long it took.
    pub job: Job,
    /// What it needs at least, on the given device; absent when that is not known or its memory cannot hold the model.
    pub floor: Option<JobFloor>,
    /// The same on every GPU of the table, when the device is not known: those that could be as fast, then those that could not.
    pub on_gpus: Vec<GpuFloor>,
    /// Every limiter as the whole story, likeliest first; empty without a device.
    pub suspects: Vec<Suspect>,
    /// In plain words.
    pub statements: Vec<Statement>,
}

/// Requests that were given to a framework, and the time until the last was finished.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Which row of the input it is, from 0.
    pub row: usize,
    /// How many.
    pub requests: f64,
    /// Prompt tokens of each, in the mean.
    pub input_tokens: f64,
    /// Generated tokens of each, the first one included, in the mean.
    pub output_tokens: f64,
    /// From the first request to the end of the last, seconds.
    pub seconds: f64,
    /// How many ran at once.
    pub at_once: AtOnce,
    /// Requests per second that the client sent, where it did not send them all at once.
    pub sent_per_s: Option<f64>,
}

/// How many requests ran at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AtOnce {
    /// One batch of all of them.
    All,
    /// No more than so many: the client's limit, or the mean in flight.
    AtMost(f64),
    /// The file does not say.
    Unknown,
}

/// What a job needs at least.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobFloor {
    /// Prefill and decode, one after the other, seconds.
    pub total_s: f64,
    /// The prompts.
    pub prefill_s: f64,
    /// Prompts per batch.
    pub prefill_batch: u64,
    /// The generated tokens.
    pub decode_s: f64,
    /// Requests per decode step.
    pub decode_batch: u64,
    /// Steps that decode takes so.
    pub decode_steps: f64,
    /// If prompts run within the decode steps (chunked prefill), so that arithmetic hides the reading of weights: the longer of the two.
    pub overlapped_s: f64,
    /// All-reduces at the whole rate of the link, in none of the above; zero on one rank.
    pub communication_s: f64,
    /// Arithmetic of one rank, FLOP.
    pub flops: f64,
    /// Weights and KV cache that one rank reads in its decode steps, bytes.
    pub decode_bytes: f64,
    /// Model FLOPs utilisation: arithmetic over the duration, of the peak.
    pub mfu: f64,
    /// Memory bandwidth utilisation: `decode_bytes` over the duration, of the bandwidth. More, if batches were smaller.
    pub mbu: f64,
}

impl JobFloor {
    /// The least of the two, whatever a scheduler does.
    pub fn least_s(&self) -> f64 {
        self.overlapped_s.min(self.total_s)
    }
}

/// A job on a GPU of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuFloor {
    /// The GPU's name.
    pub gpu: &'static str,
    /// What the job needs at least, seconds; absent when the memory cannot hold the model.
    pub floor_s: Option<f64>,
    /// The part of the duration that this is.
    pub share: Option<f64>,
}

/// The jobs of a result that are known well enough. Steps that were timed singly are no job.
pub(super) fn jobs(rows: &[ResultRow]) -> Vec<Job> {
    rows.iter()
        .enumerate()
        .filter_map(|(index, row)| job(row, index))
        .collect()
}

fn job(row: &ResultRow, index: usize) -> Option<Job> {
    let call = row.e2e.as_ref().filter(|e2e| e2e.basis == Basis::WholeCall);
    let (requests, seconds, at_once) = match row.load {
        Load::StaticBatch(batch) => (batch as f64, call?.typical_s()?, AtOnce::All),
        Load::Concurrency { limit, mean } => {
            let most = [limit, mean].into_iter().flatten().reduce(f64::min);
            let at_once = most.map_or(AtOnce::Unknown, AtOnce::AtMost);
            (row.requests? as f64, row.duration_s?, at_once)
        }
        Load::Unknown => return None,
    };
    let sent = row.workload.get("request_rate").map(|rate| rate.parse());
    let job = Job {
        row: index,
        requests,
        input_tokens: row.input_len?.tokens,
        output_tokens: row.output_len?.tokens,
        seconds,
        at_once,
        sent_per_s: sent
            .and_then(Result::ok)
            .filter(|rate: &f64| rate.is_finite() && *rate > 0.0),
    };
    let is_usable = |value: f64| (0.5..1e12).contains(&value);
    let is_known = [job.requests, job.input_tokens, job.output_tokens]
        .into_iter()
        .all(is_usable);
    (is_known && seconds.is_finite() && seconds > 0.0).then_some(job)
}

/// Explains a job; without a model nothing can be said of it. `devices` are the one that was given, or none.
pub(super) fn explain(job: Job, model: &dyn StepModel, subject: &Subject<'_>) -> JobExplanation {
    let plan = subject
        .device
        .and_then(|device| Plan::new(&job, model, device));
    let floor = subject.device.zip(plan.as_ref());
    let floor = floor.map(|(device, plan)| plan.floor(&job, model, device));
    let suspects = match (subject.device, &plan) {
        // What is faster than possible was not limited by anything here.
        (Some(device), Some(plan))
            if floor.as_ref().is_some_and(|f| f.least_s() <= job.seconds) =>
        {
            plan.suspects(&job, model, device)
        }
        _ => Vec::new(),
    };
    let on_gpus = match subject.device {
        Some(_) => Vec::new(),
        None => on_gpus(&job, model, subject),
    };
    let mut explanation = JobExplanation {
        job,
        floor,
        on_gpus,
        suspects,
        statements: Vec::new(),
    };
    explanation.statements = super::sentences::of_job(&explanation, model, subject);
    explanation
}

fn on_gpus(job: &Job, model: &dyn StepModel, subject: &Subject<'_>) -> Vec<GpuFloor> {
    let mut all: Vec<GpuFloor> = GPUS
        .iter()
        .map(|gpu| {
            let ceilings = Ceilings::of_gpu_for(gpu, None, subject.precision);
            let plan = Plan::new(job, model, &ceilings);
            // Nothing is ruled out that could be.
            let floor_s = plan.map(|plan| plan.floor(job, model, &ceilings).least_s());
            GpuFloor {
                gpu: gpu.name,
                floor_s,
                share: floor_s.map(|floor_s| floor_s / job.seconds),
            }
        })
        .collect();
    let key = |g: &GpuFloor| match g.share {
        Some(share) if share <= 1.0 => (0, -share),
        Some(share) => (1, share),
        None => (2, 0.0),
    };
    all.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    all
}

/// A job as the steps that are cheapest.
struct Plan {
    prefill: StepWork,
    prefill_batch: u64,
    prefill_steps: f64,
    decode: StepWork,
    decode_batch: u64,
    decode_steps: f64,
}

impl Plan {
    /// Nothing if the device's memory cannot hold the model and one request.
    fn new(job: &Job, model: &dyn StepModel, device: &Ceilings) -> Option<Plan> {
        let prompt = job.input_tokens.round().max(1.0) as u64;
        let context = (job.input_tokens + job.output_tokens / 2.0)
            .round()
            .max(1.0) as u64;
        let most = match job.at_once {
            AtOnce::All => job.requests,
            AtOnce::AtMost(n) => n.min(job.requests),
            AtOnce::Unknown => job.requests,
        };
        let fits = match device.memory_bytes {
            Some(bytes) => {
                let left = bytes - model.weight_bytes() as f64;
                left / (model.kv_bytes_per_token().max(1) as f64 * context as f64)
            }
            None => f64::INFINITY,
        };
        if fits < 1.0 {
            return None;
        }
        let largest = most.min(fits).min(LARGEST_BATCH as f64).max(1.0) as u64;
        let shape = |kind, batch_size| StepShape {
            kind,
            batch_size,
            new_tokens: if kind == StepKind::Prefill { prompt } else { 1 },
            context: if kind == StepKind::Prefill {
                prompt
            } else {
                context
            },
        };
        let cheapest = |kind: StepKind| {
            let batches = sizes(largest).into_iter().map(|batch| {
                let work = model.step(&shape(kind, batch));
                let each_s = step_floor(&work, device).total_s / batch as f64;
                (each_s, batch, work)
            });
            batches.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        // One batch is one batch, however cheap another would be.
        let chosen = |kind| match job.at_once {
            AtOnce::All => Some((0.0, largest, model.step(&shape(kind, largest)))),
            _ => cheapest(kind),
        };
        let (_, prefill_batch, prefill) = chosen(StepKind::Prefill)?;
        let (_, decode_batch, decode) = chosen(StepKind::Decode)?;
        Some(Plan {
            prefill_steps: job.requests / prefill_batch as f64,
            prefill,
            prefill_batch,
            // The first token comes from the prefill.
            decode_steps: job.requests * (job.output_tokens - 1.0).max(0.0) / decode_batch as f64,
            decode,
            decode_batch,
        })
    }

    fn floor(&self, job: &Job, model: &dyn StepModel, device: &Ceilings) -> JobFloor {
        // Stages of a pipeline work at the same time, on different batches.
        let stages = model.pp().max(1) as f64;
        let prefill = step_floor(&self.prefill, device);
        let decode = step_floor(&self.decode, device);
        let prefill_s = self.prefill_steps * prefill.total_s / stages;
        let decode_s = self.decode_steps * decode.total_s / stages;
        let [prefill_arithmetic_s, _] = both(&self.prefill, device);
        let [decode_arithmetic_s, decode_memory_s] = both(&self.decode, device);
        let arithmetic_s =
            self.prefill_steps * prefill_arithmetic_s + self.decode_steps * decode_arithmetic_s;
        let flops = self.total(stages, |work| work.total().flops as f64);
        let read = self.decode.total();
        let decode_bytes = self.decode_steps * (read.weight_bytes + read.kv_bytes) as f64 / stages;
        JobFloor {
            total_s: prefill_s + decode_s,
            prefill_s,
            prefill_batch: self.prefill_batch,
            decode_s,
            decode_batch: self.decode_batch,
            decode_steps: self.decode_steps,
            overlapped_s: arithmetic_s.max(self.decode_steps * decode_memory_s) / stages,
            communication_s: (self.prefill_steps * prefill.communication_s
                + self.decode_steps * decode.communication_s)
                / stages,
            flops,
            decode_bytes,
            mfu: flops / job.seconds / device.weights_flops_per_s,
            mbu: decode_bytes / job.seconds / device.bytes_per_s,
        }
    }

    /// Something of all steps together, on one rank of one stage.
    fn total(&self, stages: f64, of: impl Fn(&StepWork) -> f64) -> f64 {
        (self.prefill_steps * of(&self.prefill) + self.decode_steps * of(&self.decode)) / stages
    }

    /// Every limiter as the whole story of the job.
    fn suspects(&self, job: &Job, model: &dyn StepModel, device: &Ceilings) -> Vec<Suspect> {
        let stages = model.pp().max(1) as f64;
        let mut suspects: Vec<Suspect> = Limiter::ALL
            .into_iter()
            .filter_map(|limiter| {
                let amount = self.total(stages, |work| limiter.amount(work));
                (amount > 0.0).then(|| Suspect::alone(limiter, amount, job.seconds, device))
            })
            .collect();
        suspects.sort_by(|a, b| a.score.total_cmp(&b.score));
        suspects
    }
}

/// Powers of two up to `largest`, and that.
fn sizes(largest: u64) -> Vec<u64> {
    let mut sizes: Vec<u64> = (0..64)
        .map(|i| 1 << i)
        .take_while(|n| *n < largest)
        .collect();
    sizes.push(largest);
    sizes
}

/// Arithmetic and bytes of a step, each at its ceiling, seconds.
fn both(step: &StepWork, device: &Ceilings) -> [f64; 2] {
    let mut sum = [0.0; 2];
    for operation in &step.operations {
        let floor = operation_floor(operation, device);
        for (sum, part) in sum.iter_mut().zip(floor) {
            *sum += operation.calls as f64 * part;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_to_try() {
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(6), [1, 2, 4, 6]);
        assert_eq!(sizes(8), [1, 2, 4, 8]);
    }
}
