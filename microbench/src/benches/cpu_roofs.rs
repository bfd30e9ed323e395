//! What bounds a benchmark on the CPU device: measured on this machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use stepscope_kernels::{Cpu, HostRoofs, Traffic};
use stepscope_profiler::microbench::Roof;
use stepscope_profiler::quantity::with_prefix;

use super::roofs::{Bound, Origin};

/// What an operation that is repeated on the same data does to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WorkingSet {
    pub(super) bytes: u64,
    pub(super) traffic: Traffic,
}

/// The rates of this machine. That of arithmetic is the best so far: what else runs on the machine comes and goes, and lets a
/// measurement at the beginning fall short. Those of memory depend on where the data lie, and a level of caches ends nowhere sharply: they are
/// measured for each working set of its own size.
#[derive(Debug)]
pub(super) struct CpuRoofs {
    cpu: Rc<Cpu>,
    of_levels: HostRoofs,
    flops_per_s: Cell<f64>,
    measured: RefCell<BTreeMap<WorkingSet, Option<f64>>>,
}

impl CpuRoofs {
    pub(super) fn measure(cpu: &Rc<Cpu>) -> CpuRoofs {
        let of_levels = cpu.measure_roofs();
        CpuRoofs {
            flops_per_s: Cell::new(of_levels.flops_per_s),
            of_levels,
            cpu: Rc::clone(cpu),
            measured: RefCell::default(),
        }
    }

    /// Of what is done to a working set; measured when it is first asked for, which takes 50 ms, or 0.3 s beyond the caches.
    pub(super) fn of(&self, set: WorkingSet) -> Bound {
        let measure = || {
            let bytes = usize::try_from(set.bytes).ok()?;
            self.cpu.measure_bytes_per_s(bytes, set.traffic)
        };
        let flops_per_s = self.cpu.measure_flops_per_s().max(self.flops_per_s.get());
        self.flops_per_s.set(flops_per_s);
        let mut measured = self.measured.borrow_mut();
        let bytes_per_s = *measured.entry(set).or_insert_with(measure);
        let what = match set.traffic {
            Traffic::Read => "reads",
            Traffic::Update => "updates in place",
        };
        let on = format!(
            "measured on this machine, {} threads ({})",
            self.cpu.threads(),
            self.cpu.simd()
        );
        let roof = Roof {
            flops_per_s: Some(flops_per_s),
            bytes_per_s,
            source: match bytes_per_s {
                Some(_) => {
                    format!(
                        "{on}; {what} of {} again and again",
                        with_prefix(set.bytes as f64, "B")
                    )
                }
                None => on,
            },
        };
        Bound {
            roof,
            origin: Origin::Measured,
            level: None,
        }
    }

    /// In one line: arithmetic, and reads from each level of memory.
    pub(super) fn describe(&self) -> String {
        let levels: Vec<String> = (self.of_levels.memory.iter())
            .map(|level| format!("{} {}", level.name, with_prefix(level.bytes_per_s, "B/s")))
            .collect();
        format!(
            "{}, reads from {} (measured, {} threads, {})",
            with_prefix(self.of_levels.flops_per_s, "FLOP/s"),
            levels.join(", "),
            self.cpu.threads(),
            self.cpu.simd()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roof_is_measured_once_for_a_working_set_and_says_what_it_is_of() {
        let cpu = Rc::new(Cpu::new(Some(1)).unwrap());
        let roofs = CpuRoofs::measure(&cpu);
        let set = WorkingSet {
            bytes: 100_000,
            traffic: Traffic::Update,
        };
        let roof = roofs.of(set).roof;
        assert!(roof.bytes_per_s.unwrap() > 1e7, "{roof:?}");
        assert!(
            roof.source
                .ends_with("updates in place of 100 kB again and again"),
            "{roof:?}"
        );
        let again = roofs.of(set).roof;
        assert_eq!(again.bytes_per_s, roof.bytes_per_s);
        assert!(again.flops_per_s >= roof.flops_per_s, "{again:?}");
        assert!(roofs.describe().contains("GFLOP/s, reads from L2 "));
    }
}
