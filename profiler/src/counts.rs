//! What a device counts while it runs kernels, put beside the operations that launched them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::{Operation, Step};

/// What one launch did, as a device that counts tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The function that was launched.
    pub function: String,
    /// Counters by name.
    pub counters: Vec<(&'static str, u64)>,
    /// What was found wrong: one line each, and how often it was seen.
    pub findings: Vec<(String, u64)>,
}

/// Counters of the launches of one function for one operation, summed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelCount {
    /// The operation; empty for launches of none.
    pub operation: String,
    /// The kernel, as the operation names it.
    pub kernel: String,
    /// The function that was launched; a kernel may be several.
    pub function: String,
    /// Launches.
    pub launches: u64,
    /// Counters by name; those that are 0 are left out.
    pub counters: BTreeMap<String, u64>,
}

/// Something wrong that a device found in a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The operation that launched the kernel.
    pub operation: String,
    /// The function that was launched.
    pub function: String,
    /// What was found, in one line.
    pub message: String,
    /// How often.
    pub count: u64,
}

impl KernelCount {
    /// A counter; 0 if nothing was counted under this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

impl Step {
    /// Takes over what the device counted: `launches` are those of the step, in the order in which its operations made them.
    pub fn take_counts(&mut self, launches: Vec<Launch>) {
        let owners: Vec<(String, String)> = self.operations.iter().flat_map(of_operation).collect();
        let mut owners = owners.into_iter();
        for launch in launches {
            let (operation, kernel) = owners.next().unwrap_or_default();
            let counters = launch.counters.into_iter().filter(|&(_, value)| value > 0);
            let count = KernelCount {
                operation: operation.clone(),
                kernel,
                function: launch.function.clone(),
                launches: 1,
                counters: counters
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            };
            let findings: Vec<Finding> = launch
                .findings
                .into_iter()
                .map(|(message, count)| Finding {
                    operation: operation.clone(),
                    function: launch.function.clone(),
                    message,
                    count,
                })
                .collect();
            merge(&mut self.kernels, &[count], &mut self.findings, &findings);
        }
    }
}

/// The name of an operation and of its kernel, as often as it launched functions.
fn of_operation(operation: &Operation) -> impl Iterator<Item = (String, String)> + use<> {
    let owner = (operation.name.to_string(), operation.kernel.to_string());
    std::iter::repeat_n(owner, operation.launches as usize)
}

/// Adds counts and findings to those of the same kernel for the same operation.
pub(crate) fn merge(
    kernels: &mut Vec<KernelCount>,
    more_kernels: &[KernelCount],
    findings: &mut Vec<Finding>,
    more_findings: &[Finding],
) {
    for more in more_kernels {
        let same = |k: &&mut KernelCount| {
            k.operation == more.operation && k.kernel == more.kernel && k.function == more.function
        };
        match kernels.iter_mut().find(same) {
            Some(kernel) => {
                kernel.launches += more.launches;
                for (name, value) in &more.counters {
                    let sum = kernel.counters.entry(name.clone()).or_default();
                    *sum = sum.saturating_add(*value);
                }
            }
            None => kernels.push(more.clone()),
        }
    }
    for more in more_findings {
        let same = |f: &&mut Finding| {
            f.operation == more.operation
                && f.function == more.function
                && f.message == more.message
        };
        match findings.iter_mut().find(same) {
            Some(finding) => finding.count = finding.count.saturating_add(more.count),
            None => findings.push(more.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::StepTotal;
    use crate::recorder::{Level, Phase, Recorder, StepKind, Work};

    fn launch(function: &str, instructions: u64, findings: &[&str]) -> Launch {
        Launch {
            function: function.to_owned(),
            counters: vec![("warp_instructions", instructions), ("branches", 0)],
            findings: findings.iter().map(|f| ((*f).to_owned(), 2)).collect(),
        }
    }

    #[test]
    fn launches_belong_to_the_operations_that_made_them() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};

        let launched = Arc::new(AtomicU64::new(7));
        let mut recorder = Recorder::new(Level::Operations).counting(Some(Arc::clone(&launched)));
        recorder.begin_step(StepKind::Decode, 0, 1);
        recorder.phase(Phase::Forward, |recorder| {
            for (name, kernel, launches) in [
                ("qkv", "gemv", 1),
                ("attention", "split", 2),
                ("o", "gemv", 1),
                ("qkv", "gemv", 1),
            ] {
                let ran = recorder.operation(name, None, Work::default(), || {
                    launched.fetch_add(launches, Ordering::Relaxed);
                    Ok::<_, ()>(kernel)
                });
                assert!(ran.is_ok());
            }
        });
        let mut step = recorder.end_step();
        step.take_counts(vec![
            launch("gemv", 10, &[]),
            launch("attend", 20, &["race"]),
            launch("merge", 5, &[]),
            launch("gemv", 11, &[]),
            launch("gemv", 12, &[]),
        ]);
        let mut total = StepTotal::empty();
        total.add(&step);
        total.add(&step);
        let kernels: Vec<_> = total
            .kernels
            .iter()
            .map(|k| {
                let names = (k.operation.as_str(), k.kernel.as_str(), k.function.as_str());
                (names, k.launches, k.counter("warp_instructions"))
            })
            .collect();
        assert_eq!(
            kernels,
            [
                (("qkv", "gemv", "gemv"), 4, 44),
                (("attention", "split", "attend"), 2, 40),
                (("attention", "split", "merge"), 2, 10),
                (("o", "gemv", "gemv"), 2, 22),
            ]
        );
        assert!(!total.kernels[0].counters.contains_key("branches"));
        let [finding] = total.findings.as_slice() else {
            panic!("{:?}", total.findings);
        };
        assert_eq!(
            (finding.operation.as_str(), finding.count),
            ("attention", 4)
        );
    }
}
