//! What could be the whole story of a step's time, and what it would have to be for that.
//!
//! Each limiter is taken as the only cause: the rate (or the time per event) that it would need is set against what such things
//! reach in practice on the device, and the way it grows with the batch against the way the measured time grew. Neither alone
//! convicts: reading weights explains any decode step at some bandwidth, but not one that takes twice as long for twice the batch.

use serde::Serialize;

use super::ceilings::{Ceilings, Range, practice};
use super::observation::Observation;
use super::step_work::StepWork;

/// What a step may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limiter {
    /// Arithmetic of the tensor cores.
    Compute,
    /// Reading the weights.
    Weights,
    /// Reading the KV cache.
    Kv,
    /// Moving the tensors that ranks sum.
    AllReduceBandwidth,
    /// Starting and finishing each of these sums.
    AllReduceLatency,
    /// Launching kernels.
    Launches,
    /// Work on the host, once per step.
    Host,
}

impl Limiter {
    /// All of them.
    pub const ALL: [Limiter; 7] = [
        Limiter::Compute,
        Limiter::Weights,
        Limiter::Kv,
        Limiter::AllReduceBandwidth,
        Limiter::AllReduceLatency,
        Limiter::Launches,
        Limiter::Host,
    ];

    /// As tables name it.
    pub fn title(self) -> &'static str {
        match self {
            Limiter::Compute => "tensor-core compute",
            Limiter::Weights => "reading weights",
            Limiter::Kv => "reading the KV cache",
            Limiter::AllReduceBandwidth => "all-reduce bandwidth",
            Limiter::AllReduceLatency => "all-reduce latency",
            Limiter::Launches => "kernel launches",
            Limiter::Host => "work on the host",
        }
    }

    /// Whether it is judged by a rate, amount over time; otherwise by the time of one event.
    pub fn is_rate(self) -> bool {
        !matches!(
            self,
            Limiter::AllReduceLatency | Limiter::Launches | Limiter::Host
        )
    }

    /// The unit of [`Suspect::needed`].
    pub fn unit(self) -> &'static str {
        match self {
            Limiter::Compute => "FLOP/s",
            _ if self.is_rate() => "B/s",
            _ => "s",
        }
    }

    /// How much of it a step has: FLOP, bytes, or events.
    pub fn amount(self, step: &StepWork) -> f64 {
        let total = step.total();
        match self {
            Limiter::Compute => total.flops as f64,
            Limiter::Weights => total.weight_bytes as f64,
            Limiter::Kv => total.kv_bytes as f64,
            Limiter::AllReduceBandwidth => step.communication.ring_bytes(),
            Limiter::AllReduceLatency => step.communication.all_reduces as f64,
            Limiter::Launches => step.launches() as f64,
            Limiter::Host => 1.0,
        }
    }

    /// The rate, or the time per event, with which `amount` takes `seconds`.
    pub fn needed(self, amount: f64, seconds: f64) -> f64 {
        if self.is_rate() {
            amount / seconds
        } else {
            seconds / amount
        }
    }

    /// Decades by which it stands behind the others: what a host takes per step is an assumption, where all other ranges were
    /// measured by somebody.
    fn handicap(self) -> f64 {
        match self {
            Limiter::Host => 0.3,
            _ => 0.0,
        }
    }

    /// What it reaches in practice on a device.
    pub fn plausible(self, ceilings: &Ceilings) -> Option<Range> {
        let share_of = |share: Range, whole: f64| Range {
            from: share.from * whole,
            to: share.to * whole,
        };
        match self {
            Limiter::Compute => Some(share_of(practice::COMPUTE, ceilings.weights_flops_per_s)),
            Limiter::Weights | Limiter::Kv => {
                Some(share_of(practice::MEMORY, ceilings.bytes_per_s))
            }
            Limiter::AllReduceBandwidth => practice::all_reduce_bytes_per_s(ceilings),
            Limiter::AllReduceLatency => practice::all_reduce_s(ceilings),
            Limiter::Launches => Some(practice::LAUNCH_S),
            Limiter::Host => Some(practice::HOST_S),
        }
    }
}

/// A limiter as the only cause of a step's time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    /// The limiter.
    pub limiter: Limiter,
    /// FLOP, bytes or events in the step.
    pub amount: f64,
    /// The rate it would need (FLOP/s, B/s), or the time of one event (s).
    pub needed: f64,
    /// What it reaches in practice, over all devices considered.
    pub plausible: Option<Range>,
    /// How far `needed` lies outside of that, as a factor; 1 within.
    pub distance: Option<f64>,
    /// By how much its amount grew from the smallest to the largest step; absent with a single step.
    pub growth: Option<f64>,
    /// Less is likelier: decades outside the plausible range, plus the difference between the exponents with which its amount and
    /// the time grew, doubled, plus 0.3 for the host, of which nothing was measured.
    pub score: f64,
}

impl Suspect {
    /// A limiter as the only cause of something that is not known to have grown.
    pub(super) fn alone(limiter: Limiter, amount: f64, seconds: f64, device: &Ceilings) -> Suspect {
        let needed = limiter.needed(amount, seconds);
        let plausible = limiter.plausible(device);
        let distance = plausible.map(|range| range.distance(needed));
        Suspect {
            limiter,
            amount,
            needed,
            plausible,
            distance,
            growth: None,
            score: distance.map_or(0.0, f64::log10) + limiter.handicap(),
        }
    }
}

/// How the time of steps grew from the smallest to the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Growth {
    /// Tokens.
    pub tokens: f64,
    /// Time.
    pub seconds: f64,
}

/// Every limiter as the whole story of the last of `steps` (the largest), likeliest first. `devices` are the devices it may have
/// run on.
pub(super) fn suspects(steps: &[(&Observation, StepWork)], devices: &[Ceilings]) -> Vec<Suspect> {
    let Some((largest, work)) = steps.last() else {
        return Vec::new();
    };
    let first = steps.first().filter(|_| steps.len() > 1);
    let growth = growth(steps);
    let mut suspects: Vec<Suspect> = Limiter::ALL
        .into_iter()
        .filter_map(|limiter| {
            let amount = limiter.amount(work);
            if amount <= 0.0 {
                return None; // one rank has no all-reduce
            }
            let needed = limiter.needed(amount, largest.seconds);
            let ranges = devices.iter().filter_map(|d| limiter.plausible(d));
            let plausible = ranges.reduce(Range::union);
            let distance = plausible.map(|range| range.distance(needed));
            let grew = first.map(|(_, smallest)| amount / limiter.amount(smallest));
            let mismatch = match (growth, grew) {
                (Some(time), Some(grew)) if time.tokens > 1.01 && grew > 0.0 => {
                    (grew.ln() - time.seconds.ln()).abs() / time.tokens.ln()
                }
                _ => 0.0,
            };
            Some(Suspect {
                limiter,
                amount,
                needed,
                plausible,
                distance,
                growth: grew,
                score: distance.map_or(0.0, f64::log10) + 2.0 * mismatch + limiter.handicap(),
            })
        })
        .collect();
    suspects.sort_by(|a, b| a.score.total_cmp(&b.score));
    suspects
}

/// How the time grew over `steps`, which are in order of size.
pub(super) fn growth(steps: &[(&Observation, StepWork)]) -> Option<Growth> {
    let (first, last) = (&steps.first()?.0, &steps.last()?.0);
    (steps.len() > 1).then(|| Growth {
        tokens: last.shape.tokens() as f64 / first.shape.tokens() as f64,
        seconds: last.seconds / first.seconds,
    })
}
