//! The mean step of a kind, split into items that add up to its wall time.

use crate::record::{OperationTotal, Roofs, StepTotal};
use crate::recorder::{Phase, Timer, Work};
use crate::roofline::{self, Bound, Floor};

/// The mean over the steps of a [`StepTotal`]; times in nanoseconds per step.
#[derive(Debug)]
pub(crate) struct Breakdown {
    /// Steps that the mean is over.
    pub(crate) steps: usize,
    pub(crate) wall_ns: f64,
    pub(crate) phases: Vec<PhaseMean>,
    /// Merged over layers, longest first.
    pub(crate) operations: Vec<OperationMean>,
    /// The floors of all operations together.
    pub(crate) floors: Floors,
    /// The work of a step.
    pub(crate) work: WorkMean,
}

/// A phase of the mean step.
#[derive(Debug)]
pub(crate) struct PhaseMean {
    pub(crate) name: Phase,
    /// What of its time no operation covers.
    pub(crate) uncovered_ns: f64,
    pub(crate) has_operations: bool,
}

/// An operation of the mean step, all its layers together.
#[derive(Debug)]
pub(crate) struct OperationMean {
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) phase: Phase,
    pub(crate) calls: f64,
    /// What took its time.
    pub(crate) timer: Timer,
    /// False where no timer saw it, as inside a graph that was replayed as a whole.
    pub(crate) is_timed: bool,
    pub(crate) ns: f64,
    pub(crate) work: WorkMean,
    /// Zero where no roof was measured.
    pub(crate) floor_ns: f64,
    /// What makes it, nanoseconds: compute, weights, KV cache, activations.
    pub(crate) floor_parts: [f64; 4],
    /// What bounds a call.
    pub(crate) bound: Option<Bound>,
}

impl OperationMean {
    /// Floor over time: 1 is as fast as this machine can.
    pub(crate) fn roof_share(&self) -> Option<f64> {
        share(self.floor_ns, self.ns).filter(|_| self.floor_ns > 0.0)
    }

    /// Whether it is faster than its roof by more than measurement noise explains.
    pub(crate) fn is_above_roof(&self) -> bool {
        self.is_timed && self.floor_ns > self.ns * roofline::ABOVE_ROOF
    }
}

/// [`Work`] per step.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkMean {
    pub(crate) flops: f64,
    pub(crate) weight_bytes: f64,
    pub(crate) kv_bytes: f64,
    pub(crate) activation_bytes: f64,
}

impl WorkMean {
    pub(crate) fn bytes(&self) -> f64 {
        self.weight_bytes + self.kv_bytes + self.activation_bytes
    }

    fn add(&mut self, work: &Work, steps: f64) {
        self.flops += work.flops as f64 / steps;
        self.weight_bytes += work.weight_bytes as f64 / steps;
        self.kv_bytes += work.kv_bytes as f64 / steps;
        self.activation_bytes += work.activation_bytes as f64 / steps;
    }
}

/// Floors of a step in nanoseconds, by what makes them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Floors {
    pub(crate) compute_ns: f64,
    pub(crate) weights_ns: f64,
    pub(crate) kv_ns: f64,
    pub(crate) activations_ns: f64,
}

impl Floors {
    pub(crate) fn total_ns(&self) -> f64 {
        self.compute_ns + self.weights_ns + self.kv_ns + self.activations_ns
    }

    /// Compute, weights, KV cache, activations.
    fn parts(&self) -> [f64; 4] {
        [
            self.compute_ns,
            self.weights_ns,
            self.kv_ns,
            self.activations_ns,
        ]
    }

    /// Adds `ns` of an operation's floor to what makes it: compute, or bytes by the time they take.
    fn add(&mut self, floor: &Floor, ns: f64) {
        match floor.bound {
            Bound::Compute => self.compute_ns += ns,
            Bound::Memory { .. } => {
                let per_second = ns / floor.memory_s;
                self.weights_ns += floor.weights_s * per_second;
                self.kv_ns += floor.kv_s * per_second;
                self.activations_ns += floor.activations_s * per_second;
            }
        }
    }
}

/// `part / whole`, where there is a whole.
pub(crate) fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then_some(part / whole)
}

impl Breakdown {
    /// Nothing when no step was summed.
    pub(crate) fn new(total: &StepTotal, roofs: Option<&Roofs>) -> Option<Breakdown> {
        if total.steps == 0 {
            return None;
        }
        let steps = total.steps as f64;
        let mut breakdown = Breakdown {
            steps: total.steps,
            wall_ns: total.wall_ns as f64 / steps,
            phases: Vec::new(),
            operations: Vec::new(),
            floors: Floors::default(),
            work: WorkMean::default(),
        };
        for operation in &total.operations {
            breakdown.work.add(&operation.work, steps);
        }
        for operation in &total.operations {
            breakdown.add_operation(operation, steps, roofs);
        }
        breakdown.add_phases(total, steps);
        breakdown.operations.sort_by(|a, b| b.ns.total_cmp(&a.ns));
        Some(breakdown)
    }

    fn add_operation(&mut self, operation: &OperationTotal, steps: f64, roofs: Option<&Roofs>) {
        let index = self
            .operations
            .iter()
            .position(|mean| {
                mean.name == operation.name
                    && mean.kernel == operation.kernel
                    && mean.phase == operation.phase
                    && mean.timer == operation.timer
            })
            .unwrap_or_else(|| {
                self.operations.push(OperationMean {
                    name: operation.name.clone(),
                    kernel: operation.kernel.clone(),
                    phase: operation.phase,
                    calls: 0.0,
                    timer: operation.timer,
                    is_timed: operation.timer != Timer::None,
                    ns: 0.0,
                    work: WorkMean::default(),
                    floor_ns: 0.0,
                    floor_parts: [0.0; 4],
                    bound: None,
                });
                self.operations.len() - 1
            });
        let step_bytes = self.work.weight_bytes + self.work.kv_bytes;
        let mean = &mut self.operations[index];
        mean.calls += operation.count as f64 / steps;
        mean.ns += operation.duration_ns as f64 / steps;
        mean.work.add(&operation.work, steps);
        let mut per_call = WorkMean::default();
        per_call.add(&operation.work, operation.count as f64);
        let floor = roofs
            .filter(|_| operation.count > 0)
            .and_then(|roofs| roofline::mean_floor(&per_call, roofs, step_bytes));
        if let Some(floor) = floor {
            let floor_ns = floor.seconds * 1e9 * operation.count as f64 / steps;
            let mut of_operation = Floors::default();
            of_operation.add(&floor, floor_ns);
            let parts = of_operation.parts();
            for (sum, part) in mean.floor_parts.iter_mut().zip(parts) {
                *sum += part;
            }
            self.floors.add(&floor, floor_ns);
            mean.floor_ns += floor_ns;
            // Layers of one kind share their shapes: the first speaks for all.
            mean.bound.get_or_insert(floor.bound);
        }
    }

    fn add_phases(&mut self, total: &StepTotal, steps: f64) {
        for name in Phase::ALL {
            let has_time = total.phases.iter().any(|p| p.name == name);
            let mut operations = self
                .operations
                .iter()
                .filter(|o| o.phase == name && o.is_timed)
                .peekable();
            let has_operations = operations.peek().is_some();
            if !has_time && !has_operations {
                continue;
            }
            let phase_ns = total.phase_ns(name) as f64 / steps;
            let covered_ns = operations.map(|o| o.ns).sum::<f64>();
            self.phases.push(PhaseMean {
                name,
                uncovered_ns: (phase_ns - covered_ns).max(0.0),
                has_operations,
            });
        }
    }

    /// All operations together, nanoseconds.
    pub(crate) fn operations_ns(&self) -> f64 {
        self.operations.iter().map(|o| o.ns).sum()
    }

    /// Time of phases with operations that no operation covers, nanoseconds.
    pub(crate) fn between_operations_ns(&self) -> f64 {
        let with_operations = self.phases.iter().filter(|p| p.has_operations);
        with_operations.map(|p| p.uncovered_ns).sum()
    }

    /// Time of phases without operations, and of whatever else the step's wall time holds, nanoseconds.
    pub(crate) fn outside_operations_ns(&self) -> f64 {
        (self.wall_ns - self.operations_ns() - self.between_operations_ns()).max(0.0)
    }
}
