//! What bounds a benchmark on the device that runs it.

use stepscope_profiler::gpus;
use stepscope_profiler::microbench::Roof;
use stepscope_profiler::quantity::with_prefix;

use crate::Work;

/// The rates that bound a device's work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Roofs {
    flops_per_s: Option<f64>,
    /// Bytes up to which a level serves a working set, and its rate; the last serves all.
    levels: Vec<(&'static str, u64, f64)>,
    source: String,
}

/// By the data sheet of the GPU that the driver calls `name`; nothing if there is none here.
pub(super) fn of_gpu(name: &str) -> Roofs {
    let Ok(gpu) = gpus::find(name) else {
        return Roofs {
            source: format!("no data sheet of {name} is known"),
            ..Roofs::default()
        };
    };
    Roofs {
        flops_per_s: Some(gpu.flops_per_s),
        levels: vec![("DRAM", u64::MAX, gpu.bytes_per_s)],
        source: format!("data sheet of {}", gpu.title),
    }
}

impl Roofs {
    /// Of work whose data come from where a working set of so many bytes lies.
    pub(super) fn of(&self, work: Work) -> Option<Roof> {
        let level = self.levels.iter().find(|level| work.bytes <= level.1);
        let flops_per_s = self.flops_per_s?;
        Some(Roof {
            flops_per_s: Some(flops_per_s),
            bytes_per_s: level.map(|level| level.2),
            source: match level {
                Some((name, _, _)) => format!("{}; bytes from {name}", self.source),
                None => self.source.clone(),
            },
        })
    }

    /// In one line; nothing where nothing is known.
    pub(super) fn describe(&self) -> Option<String> {
        let flops = with_prefix(self.flops_per_s?, "FLOP/s");
        let levels: Vec<String> = self
            .levels
            .iter()
            .map(|(name, _, rate)| format!("{name} {}", with_prefix(*rate, "B/s")))
            .collect();
        Some(format!("{flops}, {} ({})", levels.join(", "), self.source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_from_the_smallest_level_that_holds_them() {
        let roofs = Roofs {
            flops_per_s: Some(1e11),
            levels: vec![("L2", 1 << 20, 3e11), ("DRAM", u64::MAX, 4e10)],
            source: "measured".to_owned(),
        };
        let of = |bytes| roofs.of(Work { flops: 1, bytes }).unwrap();
        assert_eq!(of(1 << 20).bytes_per_s, Some(3e11));
        assert_eq!(of((1 << 20) + 1).source, "measured; bytes from DRAM");
        assert_eq!(
            roofs.describe().unwrap(),
            "100 GFLOP/s, L2 300 GB/s, DRAM 40.0 GB/s (measured)"
        );
    }

    #[test]
    fn a_gpu_has_the_roofs_of_its_data_sheet_or_none() {
        let h100 = of_gpu("NVIDIA H100 80GB HBM3");
        assert!(h100.source.starts_with("data sheet of"), "{h100:?}");
        assert!(h100.of(Work { flops: 1, bytes: 1 }).is_some());
        let unknown = of_gpu("NVIDIA Q1");
        assert_eq!(unknown.of(Work { flops: 1, bytes: 1 }), None);
    }
}
