//! What GPUs can do by their data sheets: the ceilings of an explanation where nothing was measured on the card.
//!
//! Rates are dense (a data sheet's headline often assumes structured sparsity, which doubles it) and for bfloat16, or float16
//! where the card has no bfloat16, with float32 accumulation, which GeForce cards run at half the rate of float16 accumulation; beside
//! them those of 8-bit and 4-bit numbers, of the same data sheets, likewise dense.

use serde::Serialize;

use crate::record::{BandwidthRoof, Roofs};

/// A GPU as its maker specifies it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gpu {
    /// The name to give to `--gpu`.
    pub name: &'static str,
    /// As people and drivers call it.
    pub title: &'static str,
    /// Dense 16-bit tensor-core operations with float32 accumulation, FLOP/s.
    pub flops_per_s: f64,
    /// Dense fp8 tensor-core operations with float32 accumulation, FLOP/s; of cards since Ada and Hopper.
    pub fp8_flops_per_s: Option<f64>,
    /// Dense int8 tensor-core operations, per second; of cards since Turing.
    pub int8_ops_per_s: Option<f64>,
    /// Dense fp4 tensor-core operations, FLOP/s; of cards since Blackwell.
    pub fp4_flops_per_s: Option<f64>,
    /// Device memory bandwidth, bytes/s.
    pub bytes_per_s: f64,
    /// Device memory, bytes, as the data sheet counts it (80 GB = 80e9 for AMD, 80 × 2³⁰ for NVIDIA).
    pub memory_bytes: f64,
    /// Multiprocessors (compute units of AMD).
    pub multiprocessors: u32,
    /// L2 cache, bytes.
    pub l2_bytes: f64,
    /// The multiprocessor clock that `flops_per_s` is for.
    pub rated_clock_mhz: f64,
    /// How all cards of a machine reach each other at best; bridges that join pairs of PCIe cards are left out.
    pub link: Link,
    /// Where the figures stand.
    pub source: &'static str,
}

impl Gpu {
    /// The most that L2 can deliver: 64 bytes per clock to each multiprocessor (CUDA's and the architectures' documents), bytes/s.
    /// Measured rates are a half of that; as a ceiling it errs on the safe side.
    pub fn l2_bytes_per_s(&self) -> f64 {
        64.0 * f64::from(self.multiprocessors) * self.rated_clock_mhz * 1e6
    }

    /// The data sheet as roofs of a record; arithmetic and L2 scaled to a clock that was held, in MHz, where it is known.
    pub fn roofs(&self, clock_mhz: Option<f64>) -> Roofs {
        let held = clock_mhz.filter(|mhz| mhz.is_finite() && *mhz > 0.0);
        let scale = held.map_or(1.0, |mhz| mhz / self.rated_clock_mhz);
        let level = |name: &str, up_to_bytes, bytes_per_s| BandwidthRoof {
            name: name.to_owned(),
            up_to_bytes,
            bytes_per_s,
        };
        let mut method = format!("data sheet of {}: {}", self.title, self.source);
        if let Some(mhz) = held {
            method += &format!(
                "; arithmetic scaled to the {mhz:.0} MHz held, of {:.0} rated",
                self.rated_clock_mhz
            );
        }
        Roofs {
            flops_per_s: self.flops_per_s * scale,
            bandwidth: vec![
                level(
                    "L2",
                    Some(self.l2_bytes as u64),
                    self.l2_bytes_per_s() * scale,
                ),
                level("DRAM", None, self.bytes_per_s),
            ],
            method,
        }
    }
}

/// A way between GPUs of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Link {
    /// The kind.
    pub kind: LinkKind,
    /// Bytes per second of one card in one direction.
    pub bytes_per_s: f64,
}

/// Kinds of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// NVLink, through a switch where there is one.
    NvLink,
    /// PCI Express, 16 lanes.
    Pcie,
    /// AMD Infinity Fabric.
    InfinityFabric,
}

impl LinkKind {
    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            LinkKind::NvLink => "NVLink",
            LinkKind::Pcie => "PCIe",
            LinkKind::InfinityFabric => "Infinity Fabric",
        }
    }
}

const fn nvlink(gigabytes_per_s: f64) -> Link {
    Link {
        kind: LinkKind::NvLink,
        bytes_per_s: gigabytes_per_s * 1e9,
    }
}

const PCIE3: Link = pcie(15.75);
const PCIE4: Link = pcie(31.5);
const PCIE5: Link = pcie(63.0);

const fn pcie(gigabytes_per_s: f64) -> Link {
    Link {
        kind: LinkKind::Pcie,
        bytes_per_s: gigabytes_per_s * 1e9,
    }
}

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// `[TFLOP/s, GB/s, GiB, multiprocessors, L2 MiB, MHz]`, and `[fp8 TFLOP/s, int8 TOP/s, fp4 TFLOP/s]`, 0 where a card has none.
const fn gpu(
    name: &'static str,
    title: &'static str,
    rates: [f64; 6],
    small: [f64; 3],
    link: Link,
    source: &'static str,
) -> Gpu {
    let [
        tflops,
        gigabytes_per_s,
        gib,
        multiprocessors,
        l2_mib,
        rated_clock_mhz,
    ] = rates;
    Gpu {
        name,
        title,
        flops_per_s: tflops * 1e12,
        fp8_flops_per_s: tera(small[0]),
        int8_ops_per_s: tera(small[1]),
        fp4_flops_per_s: tera(small[2]),
        bytes_per_s: gigabytes_per_s * 1e9,
        memory_bytes: gib * GIB,
        multiprocessors: multiprocessors as u32,
        l2_bytes: l2_mib * MIB,
        rated_clock_mhz,
        link,
        source,
    }
}

const fn tera(rate: f64) -> Option<f64> {
    if rate > 0.0 { Some(rate * 1e12) } else { None }
}

const H100_SHEET: &str = "NVIDIA H100 Tensor Core GPU data sheet and architecture white paper";
const A100_SHEET: &str = "NVIDIA A100 Tensor Core GPU data sheet and architecture white paper";
const ADA_PAPER: &str = "NVIDIA Ada GPU architecture white paper, appendix";

/// All of them, by generation.
///
/// The clock is the one that the tensor rate follows from (multiprocessors × operations per clock × clock), not the highest that a
/// card may reach.
#[rustfmt::skip] // a table is read by its columns
pub static GPUS: [Gpu; 24] = [
    gpu("b200", "NVIDIA B200", [2250.0, 8000.0, 180.0, 148.0, 126.0, 1856.0], [4500.0, 4500.0, 9000.0], nvlink(900.0), "NVIDIA DGX B200 data sheet, an eighth of it"),
    gpu("h200", "NVIDIA H200", [989.4, 4800.0, 141.0, 132.0, 50.0, 1830.0], [1978.9, 1978.9, 0.0], nvlink(450.0), "NVIDIA H200 Tensor Core GPU data sheet"),
    gpu("h100-sxm", "NVIDIA H100 SXM", [989.4, 3350.0, 80.0, 132.0, 50.0, 1830.0], [1978.9, 1978.9, 0.0], nvlink(450.0), H100_SHEET),
    gpu("h100-pcie", "NVIDIA H100 PCIe", [756.0, 2000.0, 80.0, 114.0, 50.0, 1620.0], [1513.0, 1513.0, 0.0], PCIE5, H100_SHEET),
    gpu("h100-nvl", "NVIDIA H100 NVL", [835.5, 3938.0, 94.0, 132.0, 50.0, 1545.0], [1671.0, 1671.0, 0.0], PCIE5, "NVIDIA H100 NVL product brief"),
    gpu("h800", "NVIDIA H800 SXM", [989.4, 3350.0, 80.0, 132.0, 50.0, 1830.0], [1978.9, 1978.9, 0.0], nvlink(200.0), "NVIDIA H800 data sheet: an H100 with less NVLink"),
    gpu("h20", "NVIDIA H20", [148.0, 4000.0, 96.0, 78.0, 60.0, 1853.0], [296.0, 296.0, 0.0], nvlink(450.0), "NVIDIA H20 data sheet"),
    gpu("a100-80g-sxm", "NVIDIA A100 SXM 80GB", [312.0, 2039.0, 80.0, 108.0, 40.0, 1410.0], [0.0, 624.0, 0.0], nvlink(300.0), A100_SHEET),
    gpu("a100-80g-pcie", "NVIDIA A100 PCIe 80GB", [312.0, 1935.0, 80.0, 108.0, 40.0, 1410.0], [0.0, 624.0, 0.0], PCIE4, A100_SHEET),
    gpu("a100-40g-sxm", "NVIDIA A100 SXM 40GB", [312.0, 1555.0, 40.0, 108.0, 40.0, 1410.0], [0.0, 624.0, 0.0], nvlink(300.0), A100_SHEET),
    gpu("a100-40g-pcie", "NVIDIA A100 PCIe 40GB", [312.0, 1555.0, 40.0, 108.0, 40.0, 1410.0], [0.0, 624.0, 0.0], PCIE4, A100_SHEET),
    gpu("a10", "NVIDIA A10", [125.0, 600.0, 24.0, 72.0, 6.0, 1695.0], [0.0, 250.0, 0.0], PCIE4, "NVIDIA A10 data sheet"),
    gpu("a30", "NVIDIA A30", [165.0, 933.0, 24.0, 56.0, 24.0, 1440.0], [0.0, 330.0, 0.0], PCIE4, "NVIDIA A30 data sheet"),
    gpu("a40", "NVIDIA A40", [149.7, 696.0, 48.0, 84.0, 6.0, 1740.0], [0.0, 299.3, 0.0], PCIE4, "NVIDIA A40 data sheet"),
    gpu("l4", "NVIDIA L4", [121.0, 300.0, 24.0, 58.0, 48.0, 2040.0], [242.0, 242.0, 0.0], PCIE4, "NVIDIA L4 data sheet"),
    gpu("l20", "NVIDIA L20", [119.5, 864.0, 48.0, 92.0, 96.0, 2520.0], [239.0, 239.0, 0.0], PCIE4, "NVIDIA L20 data sheet"),
    gpu("l40s", "NVIDIA L40S", [362.05, 864.0, 48.0, 142.0, 96.0, 2520.0], [733.0, 733.0, 0.0], PCIE4, "NVIDIA L40S data sheet"),
    gpu("rtx3090", "NVIDIA GeForce RTX 3090", [71.0, 936.0, 24.0, 82.0, 6.0, 1695.0], [0.0, 284.0, 0.0], PCIE4, "NVIDIA GA102 GPU architecture white paper, appendix"),
    gpu("rtx4090", "NVIDIA GeForce RTX 4090", [165.2, 1008.0, 24.0, 128.0, 72.0, 2520.0], [330.3, 660.6, 0.0], PCIE4, ADA_PAPER),
    gpu("rtx5090", "NVIDIA GeForce RTX 5090", [209.5, 1792.0, 32.0, 170.0, 96.0, 2407.0], [419.0, 838.0, 1676.0], PCIE5, "NVIDIA RTX Blackwell GPU architecture white paper, appendix"),
    gpu("v100-16g", "NVIDIA V100 SXM2 16GB", [125.0, 900.0, 16.0, 80.0, 6.0, 1530.0], [0.0; 3], nvlink(150.0), "NVIDIA V100 data sheet"),
    gpu("v100", "NVIDIA V100 SXM2 32GB", [125.0, 900.0, 32.0, 80.0, 6.0, 1530.0], [0.0; 3], nvlink(150.0), "NVIDIA V100 data sheet"),
    gpu("t4", "NVIDIA T4", [65.0, 320.0, 16.0, 40.0, 4.0, 1590.0], [0.0, 130.0, 0.0], PCIE3, "NVIDIA T4 data sheet"),
    gpu("mi300x", "AMD Instinct MI300X", [1307.4, 5300.0, 192.0, 304.0, 4.0, 2100.0], [2614.9, 2614.9, 0.0], Link { kind: LinkKind::InfinityFabric, bytes_per_s: 448e9, }, "AMD Instinct MI300X data sheet"),
];

/// The GPU that a person names: the names of this table, also without `nvidia` and punctuation, or what a driver calls it
/// (`NVIDIA H100 80GB HBM3`).
///
/// # Errors
/// The nearest names.
pub fn find(name: &str) -> Result<&'static Gpu, Unknown> {
    let wanted = simplified(name);
    let exact = GPUS
        .iter()
        .find(|gpu| simplified(gpu.name) == wanted || simplified(gpu.title) == wanted);
    exact
        .or_else(|| by_driver_name(&wanted))
        .ok_or_else(|| Unknown::new(name, &wanted))
}

/// A name that the table does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The name.
    pub name: String,
    /// Names that look like it, the likeliest first.
    pub nearest: Vec<&'static str>,
}

impl Unknown {
    fn new(name: &str, wanted: &str) -> Unknown {
        let mut ranked: Vec<(f64, &'static str)> = GPUS
            .iter()
            .map(|gpu| {
                let simple = simplified(gpu.name);
                let contains = simple.contains(wanted);
                let bonus = if contains && !wanted.is_empty() {
                    1.0
                } else {
                    0.0
                };
                (bonus + strsim::jaro_winkler(wanted, &simple), gpu.name)
            })
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        Unknown {
            name: name.to_owned(),
            nearest: ranked.into_iter().take(3).map(|(_, name)| name).collect(),
        }
    }
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<_> = GPUS.iter().map(|gpu| gpu.name).collect();
        write!(
            f,
            "unknown GPU {:?}: did you mean {}? Known are {}",
            self.name,
            self.nearest.join(", "),
            all.join(", "),
        )
    }
}

impl std::error::Error for Unknown {}

/// Lower case, without vendor, punctuation and spaces.
fn simplified(name: &str) -> String {
    let lower = name.to_lowercase();
    let mut words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.retain(|word| !matches!(*word, "nvidia" | "amd" | "geforce" | "instinct" | "tesla"));
    words.concat()
}

/// What drivers write has the memory's size and kind in it. `simple` is [`simplified`].
fn by_driver_name(simple: &str) -> Option<&'static Gpu> {
    let has = |part: &str| simple.contains(part);
    let name = match simple {
        _ if has("h100") && has("pcie") => "h100-pcie",
        _ if has("h100") && has("nvl") => "h100-nvl",
        _ if has("h100") && (has("hbm3") || has("sxm")) => "h100-sxm",
        "h100" => "h100-sxm",
        _ if has("h200") => "h200",
        _ if has("h800") => "h800",
        _ if simple.starts_with("h20") => "h20",
        _ if has("a100") && has("pcie") && has("80g") => "a100-80g-pcie",
        _ if has("a100") && has("pcie") => "a100-40g-pcie",
        _ if has("a100") && has("sxm") && has("80g") => "a100-80g-sxm",
        _ if has("a100") && has("sxm") => "a100-40g-sxm",
        "b200" | "b200sxm" => "b200",
        _ if has("l40s") => "l40s",
        _ if has("rtx3090") => "rtx3090",
        _ if has("rtx4090") => "rtx4090",
        _ if has("rtx5090") => "rtx5090",
        _ if has("v100") && has("16g") => "v100-16g",
        _ if has("v100") => "v100",
        _ if has("mi300x") => "mi300x",
        _ => return None,
    };
    GPUS.iter().find(|gpu| gpu.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(find(name).map(|gpu| gpu.name), Ok(expected), "{name}");
    }

    #[test]
    fn people_and_drivers_write_names_in_many_ways() {
        check("h100-sxm", "h100-sxm");
        check("H100 SXM", "h100-sxm");
        check("h100", "h100-sxm");
        check("NVIDIA H100 80GB HBM3", "h100-sxm");
        check("NVIDIA H100 PCIe", "h100-pcie");
        check("NVIDIA A100-SXM4-80GB", "a100-80g-sxm");
        check("NVIDIA A100-PCIE-40GB", "a100-40g-pcie");
        check("Tesla T4", "t4");
        check("Tesla V100-SXM2-32GB", "v100");
        check("NVIDIA GeForce RTX 4090", "rtx4090");
        check("AMD Instinct MI300X", "mi300x");
        check("NVIDIA A10", "a10");
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        let unknown = find("a100").unwrap_err();
        assert!(
            unknown.nearest.iter().all(|name| name.starts_with("a100")),
            "{unknown}"
        );
        assert_eq!(find("rtx4080").unwrap_err().nearest[0], "rtx4090");
        assert!(find("").is_err());
    }

    /// Operations per clock and multiprocessor are powers of two, which a wrong clock, count or rate would not give. H20 is an
    /// H100 with its tensor cores held back; its clock was computed from the rate.
    #[test]
    fn rates_follow_from_multiprocessors_and_clock() {
        for gpu in &GPUS {
            let per_clock =
                gpu.flops_per_s / (f64::from(gpu.multiprocessors) * gpu.rated_clock_mhz * 1e6);
            let exponent = per_clock.log2().round();
            let off = per_clock / 2_f64.powf(exponent) - 1.0;
            assert!(off.abs() < 0.02, "{}: {per_clock} FLOP per clock", gpu.name);
        }
    }

    /// Numbers of half the size are multiplied twice as fast, or four times where 16-bit ones accumulate in float32 at half the rate.
    #[test]
    fn rates_of_small_numbers_are_multiples() {
        for gpu in &GPUS {
            let small = [gpu.fp8_flops_per_s, gpu.int8_ops_per_s];
            for rate in small.into_iter().flatten() {
                let times = rate / gpu.flops_per_s;
                let is_double = (times / 2.0 - 1.0).abs() < 0.02;
                let is_geforce = gpu.title.contains("GeForce") && (times / 4.0 - 1.0).abs() < 0.02;
                assert!(is_double || is_geforce, "{}: {times}", gpu.name);
            }
            if let Some(fp4) = gpu.fp4_flops_per_s {
                assert!(
                    gpu.fp8_flops_per_s.is_some_and(|fp8| fp4 >= 2.0 * fp8),
                    "{}",
                    gpu.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for (index, gpu) in GPUS.iter().enumerate() {
            assert!(GPUS[..index].iter().all(|other| other.name != gpu.name));
        }
    }
}
