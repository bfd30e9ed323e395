//! What a GPU's hardware counted of kernels, put beside the operations that launched them.
//!
//! Counting makes kernels run one at a time, and some of them again: a step that is counted is none that is timed. It runs for it
//! alone, after the timed ones, on the same prompts and without graphs.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use stepscope_device::cupti::Counted;

use crate::record::Step;
use crate::recorder::{StepKind, Work};

/// Counts what the hardware does in each kernel. Each error is a sentence.
pub trait KernelCounters: fmt::Debug + Send {
    /// Counts every kernel from here on, up to `most_kernels`.
    ///
    /// # Errors
    /// Why it cannot be done here.
    fn start(&mut self, most_kernels: usize) -> Result<(), String>;

    /// What was counted since, once the device has nothing more to do.
    ///
    /// # Errors
    /// Why it cannot be told.
    fn finish(&mut self) -> Result<Counted, String>;
}

/// Where numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountSource {
    /// The hardware's own counters.
    Measured,
}

/// A step whose kernels were counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountedStep {
    /// Prefill or decode.
    pub kind: StepKind,
    /// Where the numbers come from.
    pub source: CountSource,
    /// The chip, as CUPTI calls it: `GH100`.
    pub chip: String,
    /// What was counted, under Nsight Compute's names.
    pub metrics: Vec<String>,
    /// How often each kernel ran for it.
    pub passes: usize,
    /// Its operations, all layers together, in the order in which they first ran.
    pub operations: Vec<CountedOperation>,
}

/// What was counted of an operation's kernels, all layers of the step together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountedOperation {
    /// The operation.
    pub name: String,
    /// The kernel that ran it, as operations name it.
    pub kernel: String,
    /// Launches.
    pub launches: u64,
    /// Its work, by the cost model.
    #[serde(flatten)]
    pub work: Work,
    /// By metric: sums over launches of what ends in `.sum`, means over launches of the rest. What was not counted of every launch
    /// is left out.
    pub values: BTreeMap<String, f64>,
}

/// Bytes read from the device's memory.
pub(crate) const DRAM_READ: &str = "dram__bytes_read.sum";
/// Bytes written to the device's memory.
pub(crate) const DRAM_WRITE: &str = "dram__bytes_write.sum";

impl CountedOperation {
    /// Bytes read from and written to the device's memory, if both were counted.
    pub fn dram_bytes(&self) -> Option<f64> {
        Some(self.values.get(DRAM_READ)? + self.values.get(DRAM_WRITE)?)
    }
}

impl CountedStep {
    /// What was counted of the launches of `step`, in the order in which its operations made them.
    ///
    /// # Errors
    /// A sentence where the kernels counted are not those launched.
    pub fn of(step: &Step, counted: &Counted) -> Result<CountedStep, String> {
        let launched: usize = step.operations.iter().map(|o| o.launches as usize).sum();
        if launched != counted.kernels.len() {
            return Err(format!(
                "the {} step launched {launched} kernels, but {} were counted: which are whose is not known",
                step.kind.name(),
                counted.kernels.len()
            ));
        }
        let mut kernels = counted.kernels.iter();
        let mut operations: Vec<CountedOperation> = Vec::new();
        for operation in &step.operations {
            let values: Vec<&Vec<f64>> =
                kernels.by_ref().take(operation.launches as usize).collect();
            let is_same = |o: &&mut CountedOperation| {
                o.name == operation.name && o.kernel == operation.kernel
            };
            let total = match operations.iter_mut().find(is_same) {
                Some(total) => total,
                None => {
                    operations.push(CountedOperation {
                        name: operation.name.to_string(),
                        kernel: operation.kernel.to_string(),
                        launches: 0,
                        work: Work::default(),
                        values: counted.metrics.iter().map(|m| (m.clone(), 0.0)).collect(),
                    });
                    let last = operations.len() - 1;
                    &mut operations[last]
                }
            };
            total.launches += u64::from(operation.launches);
            total.work += operation.work;
            for launch in values {
                for (metric, value) in counted.metrics.iter().zip(launch) {
                    // One that is not a number makes the sum none.
                    if let Some(sum) = total.values.get_mut(metric) {
                        *sum += value;
                    }
                }
            }
        }
        for operation in &mut operations {
            let launches = operation.launches;
            operation.values.retain(|metric, value| {
                if !metric.ends_with(".sum") && launches > 0 {
                    *value /= launches as f64;
                }
                value.is_finite() && launches > 0
            });
        }
        Ok(CountedStep {
            kind: step.kind,
            source: CountSource::Measured,
            chip: counted.chip.clone(),
            metrics: counted.metrics.clone(),
            passes: counted.passes,
            operations,
        })
    }

    /// Bytes of the device's memory that were counted, and those that the cost model has, of the operations that have both.
    pub fn dram_and_model_bytes(&self) -> Option<(f64, f64)> {
        let both = self
            .operations
            .iter()
            .filter_map(|o| Some((o.dram_bytes()?, o.work.bytes() as f64)));
        both.reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Operation;
    use crate::recorder::{Phase, Timer};

    fn step(operations: &[(&'static str, &'static str, u32)]) -> Step {
        let operation = |&(name, kernel, launches): &(&'static str, &'static str, u32)| Operation {
            name: name.into(),
            kernel: kernel.into(),
            phase: Phase::Forward,
            layer: None,
            work: Work {
                weight_bytes: 100,
                ..Work::default()
            },
            launches,
            start_ns: 0,
            duration_ns: 0,
            timer: Timer::None,
        };
        Step {
            kind: StepKind::Decode,
            index: 0,
            batch_size: 1,
            wall_ns: 0,
            phases: Vec::new(),
            operations: operations.iter().map(operation).collect(),
            kernels: Vec::new(),
            findings: Vec::new(),
            device: None,
            sm_clock_mhz: None,
        }
    }

    fn counted(metrics: &[&str], kernels: &[&[f64]]) -> Counted {
        Counted {
            chip: "GH100".to_owned(),
            metrics: metrics.iter().map(|&m| m.to_owned()).collect(),
            passes: 1,
            kernels: kernels.iter().map(|&k| k.to_vec()).collect(),
        }
    }

    #[test]
    fn launches_belong_to_the_operations_that_made_them() {
        let step = step(&[
            ("qkv", "gemv", 1),
            ("attention", "split", 2),
            ("qkv", "gemv", 1),
            ("nothing", "none", 0),
        ]);
        let counted = counted(
            &[DRAM_READ, DRAM_WRITE, "lts__t_sector_hit_rate.pct"],
            &[
                &[110.0, 4.0, 10.0],
                &[50.0, 2.0, 20.0],
                &[7.0, f64::NAN, 40.0],
                &[120.0, 6.0, 30.0],
            ],
        );
        let counted = CountedStep::of(&step, &counted).unwrap();
        let [qkv, attention, nothing] = counted.operations.as_slice() else {
            panic!("{:?}", counted.operations);
        };
        assert_eq!((qkv.launches, qkv.work.weight_bytes), (2, 200));
        // Bytes add up; a share is a mean.
        assert_eq!(qkv.dram_bytes(), Some(240.0));
        assert_eq!(qkv.values["lts__t_sector_hit_rate.pct"], 20.0);
        // One launch whose writes are not known leaves the sum unknown.
        assert_eq!(attention.values[DRAM_READ], 57.0);
        assert_eq!(attention.dram_bytes(), None);
        assert_eq!((nothing.launches, nothing.values.len()), (0, 0));
        assert_eq!(counted.dram_and_model_bytes(), Some((240.0, 200.0)));
    }

    #[test]
    fn more_or_fewer_kernels_than_were_launched_are_nobodys() {
        let step = step(&[("qkv", "gemv", 2)]);
        for kernels in [&[&[1.0][..]][..], &[&[1.0], &[1.0], &[1.0]]] {
            let error = CountedStep::of(&step, &counted(&[DRAM_READ], kernels)).unwrap_err();
            let expected = format!(
                "the decode step launched 2 kernels, but {} were counted",
                kernels.len()
            );
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn what_was_counted_reads_back_as_it_was_written() {
        let step = step(&[("qkv", "gemv", 1)]);
        let counted = CountedStep::of(&step, &counted(&[DRAM_READ], &[&[8192.5]])).unwrap();
        let text = serde_json::to_string(&counted).unwrap();
        assert!(text.contains(r#""source":"measured""#), "{text}");
        assert_eq!(serde_json::from_str::<CountedStep>(&text).unwrap(), counted);
    }
}
