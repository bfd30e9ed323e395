//! The rates that a step is held against: what the card was measured to do, or what its data sheet promises.

use serde::Serialize;

use super::precision::{Arithmetic, Precision};
use crate::gpus::{Gpu, Link, LinkKind};
use crate::record::Roofs;

/// What a device can do at best.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceilings {
    /// The device.
    pub device: String,
    /// 16-bit tensor-core operations (or what else the device multiplies matrices with), FLOP/s.
    pub flops_per_s: f64,
    /// The same for operations that multiply with weights, which may be stored in fewer bits.
    pub weights_flops_per_s: f64,
    /// Device memory, bytes/s.
    pub bytes_per_s: f64,
    /// The last cache before it: activations that fit are found there. Bytes, and bytes/s.
    pub cache: Option<[f64; 2]>,
    /// Device memory, bytes, where known.
    pub memory_bytes: Option<f64>,
    /// The best link to other cards of its kind.
    pub link: Option<Link>,
    /// Where the rates come from.
    pub source: String,
}

impl Ceilings {
    /// By the data sheet. `clock_mhz` is the multiprocessor clock that the card held, where it was measured: arithmetic scales with
    /// it, memory does not.
    pub fn of_gpu(gpu: &Gpu, clock_mhz: Option<f64>) -> Ceilings {
        let roofs = gpu.roofs(clock_mhz);
        let scale = roofs.flops_per_s / gpu.flops_per_s;
        Ceilings {
            device: gpu.title.to_owned(),
            flops_per_s: roofs.flops_per_s,
            weights_flops_per_s: roofs.flops_per_s,
            bytes_per_s: gpu.bytes_per_s,
            cache: Some([gpu.l2_bytes, gpu.l2_bytes_per_s() * scale]),
            memory_bytes: Some(gpu.memory_bytes),
            link: Some(gpu.link),
            source: roofs.method,
        }
    }

    /// [`Ceilings::of_gpu`] for a model whose matrices are stored and multiplied in `precision`.
    pub fn of_gpu_for(gpu: &Gpu, clock_mhz: Option<f64>, precision: Precision) -> Ceilings {
        let mut ceilings = Ceilings::of_gpu(gpu, clock_mhz);
        let scale = ceilings.flops_per_s / gpu.flops_per_s;
        ceilings.weights_flops_per_s = precision.arithmetic.flops_per_s(gpu) * scale;
        if precision.arithmetic != Arithmetic::Half {
            let has_it = ceilings.weights_flops_per_s != ceilings.flops_per_s;
            let name = precision.arithmetic.title();
            ceilings.source += &match has_it {
                true => format!("; matrices are multiplied in {name}"),
                false => format!(
                    "; it has no {name} tensor cores, so that weights are unpacked to 16 bits"
                ),
            };
        }
        ceilings
    }

    /// The rate at which an operation's activations move.
    pub fn activation_bytes_per_s(&self, bytes: f64) -> f64 {
        match self.cache {
            Some([holds, bytes_per_s]) if bytes <= holds => bytes_per_s,
            _ => self.bytes_per_s,
        }
    }

    /// As measured in the run that a record holds. The slowest memory level counts: a model's weights fit no cache.
    pub fn measured(device: &str, roofs: &Roofs) -> Option<Ceilings> {
        let memory = roofs.bandwidth.last()?;
        Some(Ceilings {
            device: device.to_owned(),
            flops_per_s: roofs.flops_per_s,
            weights_flops_per_s: roofs.flops_per_s,
            bytes_per_s: memory.bytes_per_s,
            cache: roofs
                .bandwidth
                .iter()
                .rev()
                .nth(1)
                .and_then(|level| Some([level.up_to_bytes? as f64, level.bytes_per_s])),
            memory_bytes: None,
            link: None,
            source: format!("measured: {}", roofs.method),
        })
    }
}

/// From the least to the most that something reaches in practice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// Less than this would be unusual.
    pub from: f64,
    /// More than this has not been seen.
    pub to: f64,
}

impl Range {
    /// Where `value` lies, as a factor: 1 within the range, otherwise how many times it lies below or above, always over 1.
    pub fn distance(&self, value: f64) -> f64 {
        if value < self.from {
            self.from / value
        } else if value > self.to {
            value / self.to
        } else {
            1.0
        }
    }

    /// The range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
        }
    }
}

/// What kernels and links reach in practice, as published for other machines: ranges for judging what a limiter would have to do,
/// not limits.
pub mod practice {
    use super::{Ceilings, Link, LinkKind, Range};

    /// Share of the tensor-core peak that large matrix multiplications reach: from kernels without tuned tiles (30 %) to 85 %,
    /// which no public bfloat16 kernel on H100 passes (cuBLAS 77 %, DeepGEMM 84 %).
    pub const COMPUTE: Range = Range {
        from: 0.30,
        to: 0.85,
    };

    /// Share of the memory bandwidth that streaming kernels reach: a matrix of 30 MB read alone takes 50 %, one of 1.8 GB 93 %,
    /// a sum over a gigabyte 97 % (H100).
    pub const MEMORY: Range = Range {
        from: 0.50,
        to: 0.97,
    };

    /// Seconds per launch: 1.3 µs as a node of a CUDA graph, 2.1 µs into a stream (H100), up to 10 µs where a Python framework
    /// makes each launch.
    pub const LAUNCH_S: Range = Range {
        from: 1.3e-6,
        to: 10e-6,
    };

    /// Seconds per step that a framework's host side takes: an assumption, from a well-kept decode loop to a prefill whose batch
    /// is put together in Python.
    pub const HOST_S: Range = Range {
        from: 0.1e-3,
        to: 20e-3,
    };

    /// Bytes per second that a rank sends in a large all-reduce over the card's link. NVLink: 376 of 450 GB/s one way is the most,
    /// NCCL at 4 MB on six H100 a third of that. PCIe: from staging through host memory, some 10 % of the link (3.5 of 31.5 GB/s),
    /// over a ring that crosses sockets (9.7) to a direct one (20.8) and a single hop (26.3).
    pub fn link_bytes_per_s(link: Link) -> Range {
        let from = match link.kind {
            LinkKind::NvLink | LinkKind::InfinityFabric => 0.2,
            LinkKind::Pcie => 0.1,
        };
        Range {
            from: from * link.bytes_per_s,
            to: 0.85 * link.bytes_per_s,
        }
    }

    /// PCIe 4.0 with 16 lanes, the link that cards of a machine have when no other one is used.
    pub const PCIE: Link = Link {
        kind: LinkKind::Pcie,
        bytes_per_s: 31.5e9,
    };

    /// [`link_bytes_per_s`] of a device, which may also leave its fast link unused and fall back to PCIe.
    pub fn all_reduce_bytes_per_s(ceilings: &Ceilings) -> Option<Range> {
        let link = ceilings.link?;
        Some(link_bytes_per_s(link).union(link_bytes_per_s(PCIE)))
    }

    /// Seconds that a small all-reduce takes, which may fall back to PCIe likewise. NVLink: from 3.7 µs (one-shot kernel). PCIe: 7.6 µs (staged pushes, eight
    /// ranks) over 40 µs (NCCL, eight RTX 4090) to 344 µs (NCCL, 64 KB on eight RTX 6000D).
    pub fn all_reduce_s(ceilings: &Ceilings) -> Option<Range> {
        let from = match ceilings.link?.kind {
            LinkKind::NvLink | LinkKind::InfinityFabric => 3.7e-6,
            LinkKind::Pcie => 7.6e-6,
        };
        Some(Range { from, to: 344e-6 })
    }

    /// What a kernel costs besides its bytes, and the share of the bandwidth at which they then move: 1.85 µs and 2.77 of 3.35 TB/s,
    /// fitted to cold reads of 4 to 34 MB on H100 (flash-vla, `constants.yaml`); other cards are taken to be like it.
    pub const RAMP_S: f64 = 1.85e-6;
    /// See [`RAMP_S`].
    pub const RAMP_BANDWIDTH: f64 = 2.77 / 3.35;
    /// The share of the tensor-core peak that a chain of good kernels is granted: cuBLAS on H100, 8192³.
    pub const GOOD_GEMM: f64 = 0.77;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpus;

    #[test]
    fn arithmetic_scales_with_the_clock_and_memory_does_not() {
        let h100 = gpus::find("h100-sxm").unwrap();
        let rated = Ceilings::of_gpu(h100, None);
        let slow = Ceilings::of_gpu(h100, Some(915.0));
        assert!((slow.flops_per_s / rated.flops_per_s - 0.5).abs() < 1e-9);
        assert_eq!(slow.bytes_per_s, rated.bytes_per_s);
        assert!(slow.source.contains("915 MHz"));
        assert_eq!(Ceilings::of_gpu(h100, Some(0.0)), rated);
    }

    #[test]
    fn a_distance_says_how_far_outside() {
        let range = Range { from: 2.0, to: 8.0 };
        assert_eq!(range.distance(4.0), 1.0);
        assert_eq!(range.distance(1.0), 2.0);
        assert_eq!(range.distance(16.0), 2.0);
    }
}
