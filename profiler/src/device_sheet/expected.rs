//! What is expected of a GPU, and who says so.
//!
//! What somebody measured on such a card counts first, then what its architecture's documents or its data sheet promise. A row that
//! nobody has a figure for has no expectation. Nothing here was measured by this program.

use serde::{Deserialize, Serialize};

use crate::gpus::{self, LinkKind};
use crate::record::Gpu;

/// What a value should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// In the row's unit.
    pub value: f64,
    /// How it is meant.
    pub bound: Bound,
    /// Who says so.
    pub source: String,
}

/// How an expectation is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// About this.
    About,
    /// This or less.
    AtMost,
}

const HOPPER_PAPER: &str = "arXiv 2402.13499, table IV (A100, H800 PCIe, RTX 4090; average L2 hit)";
const HOPPER_MMA: &str = "arXiv 2402.13499 (A100 and H800 PCIe)";
const AMPERE_PAPER: &str = "arXiv 2208.11174 (A100)";
const FLASH_VLA: &str =
    "flash-vla, measured H100 SXM constants (commit 1acdde0; clocks not pinned, noise 6 %)";
const CUDA_STUDY: &str = "cuda_study, H100 SXM5 at 1.98 GHz, CUDA 12.8";
const HAZY: &str = "Hazy Research, \"Look Ma, No Bubbles!\", H100";
const GUIDE: &str =
    "CUDA C++ Programming Guide, throughput of native arithmetic instructions per clock";

const A100: &[&str] = &[
    "a100-80g-sxm",
    "a100-80g-pcie",
    "a100-40g-sxm",
    "a100-40g-pcie",
];
/// The chip of the H100, whatever its clocks and its memory.
const GH100: &[&str] = &["h100-sxm", "h100-pcie", "h100-nvl", "h200", "h800"];
const SXM: &[&str] = &["h100-sxm", "h200", "h800"];
const RTX_4090: &[&str] = &["rtx4090"];
const RTX_5090: &[&str] = &["rtx5090"];

/// What somebody measured: cards, row, value in the row's unit, source.
#[rustfmt::skip] // a table is read by its columns
static MEASURED: &[(&[&str], &str, f64, &str)] = &[
    (&["h100-sxm"], "dram_read", 3.24e12, "fast.cu's sum over a gigabyte, H100 SXM"),
    (GH100, "l2_read", 3942.0 * 1.755e9, "arXiv 2402.13499 and 2501.12084: 3942 B/clk of the whole device at 1.755 GHz (H800 PCIe, 16-byte loads)"),

    (A100, "shared_latency", 29.0, HOPPER_PAPER),
    (GH100, "shared_latency", 29.0, HOPPER_PAPER),
    (RTX_4090, "shared_latency", 30.1, HOPPER_PAPER),
    (A100, "l1_latency", 37.9, HOPPER_PAPER),
    (GH100, "l1_latency", 40.7, HOPPER_PAPER),
    (RTX_4090, "l1_latency", 43.4, HOPPER_PAPER),
    (A100, "l2_latency", 261.5, HOPPER_PAPER),
    (GH100, "l2_latency", 263.0, HOPPER_PAPER),
    (RTX_4090, "l2_latency", 273.0, HOPPER_PAPER),
    (A100, "dram_latency", 466.3, HOPPER_PAPER),
    (&["h100-sxm"], "dram_latency", 570.5, CUDA_STUDY),
    (GH100, "dram_latency", 478.8, HOPPER_PAPER),
    (RTX_4090, "dram_latency", 541.5, HOPPER_PAPER),
    (A100, "fma_latency", 4.0, AMPERE_PAPER),

    (A100, "mma_latency", 24.6, HOPPER_MMA),
    (GH100, "mma_latency", 24.1, HOPPER_MMA),
    // 6.26 cycles per m16n8k16 and tensor core.
    (GH100, "mma_bf16_clk", 4.0 * 4096.0 / 6.26, FLASH_VLA),
    (GH100, "mma_f16_clk", 4.0 * 4096.0 / 6.26, FLASH_VLA),
    (SXM, "wgmma_bf16_clk", 0.945 * 4096.0, "flash-vla: 94 to 95 % of the peak per cycle, H100 SXM"),
    (SXM, "wgmma_f16_clk", 0.945 * 4096.0, "flash-vla: 94 to 95 % of the peak per cycle, H100 SXM"),
    (SXM, "wgmma_bf16", 850e12, "flash-vla, sustained at the clocks that an H100 SXM holds"),
    (SXM, "wgmma_f16", 850e12, "flash-vla, sustained at the clocks that an H100 SXM holds"),

    (&["h100-sxm"], "atom_one", 1.36e9, FLASH_VLA),
    (&["h100-sxm"], "red_one", 1.30 * 1.36e9, FLASH_VLA),

    (&["h100-sxm", "h200"], "launch_stream", 2100.0, HAZY),
    (&["h100-sxm", "h200"], "launch_graph_node", 1300.0, HAZY),
    (RTX_5090, "launch_stream", 2050.0, "a measured RTX 5090: 2.05 µs in a stream, 0.45 in a graph"),
    (RTX_5090, "launch_graph_node", 450.0, "a measured RTX 5090: 2.05 µs in a stream, 0.45 in a graph"),
];

/// Thermal design power, watts, by the data sheets.
#[rustfmt::skip]
static POWER: &[(&[&str], f64)] = &[
    (&["h100-sxm", "h200", "h800"], 700.0),
    (&["h100-pcie"], 350.0),
    (&["a100-80g-sxm", "a100-40g-sxm"], 400.0),
    (&["a100-80g-pcie"], 300.0),
    (&["a100-40g-pcie"], 250.0),
    (&["l4"], 72.0),
    (&["l40s"], 350.0),
    (RTX_4090, 450.0),
];

/// Operations per clock of one multiprocessor, by the programming guide: compute capabilities 8.0, 8.6, 8.9 and 9.0.
#[rustfmt::skip]
static PER_CLOCK: &[(&str, [f64; 4])] = &[
    ("fma_f32_clk", [128.0, 256.0, 256.0, 256.0]), // FLOPs, of which a multiply-add is two
    ("ex2_clk", [16.0, 16.0, 16.0, 16.0]),
    ("rcp_clk", [16.0, 16.0, 16.0, 16.0]),
    ("sin_clk", [16.0, 16.0, 16.0, 16.0]),
    ("imad_clk", [64.0, 64.0, 64.0, 64.0]),
    ("iadd3_clk", [64.0, 64.0, 64.0, 128.0]), // additions: for 9.0 the compiler makes one IADD3 of two
];

/// The share of a PCIe link that packets of 256 bytes leave beside 28 bytes of headers and framing each.
const PCIE_PAYLOAD: f64 = 256.0 / 284.0;

/// What the row `name` of this GPU should be, as far as anybody says.
pub fn expected(gpu: &Gpu, name: &str) -> Option<Expected> {
    let sheet = gpus::find(&gpu.name).ok();
    let about = |value: f64, source: &str| Expected {
        value,
        bound: Bound::About,
        source: source.to_owned(),
    };
    let is_card = |cards: &[&str]| sheet.is_some_and(|gpu| cards.contains(&gpu.name));
    let measured = MEASURED
        .iter()
        .find(|(cards, row, ..)| *row == name && is_card(cards));
    if let Some((_, _, value, source)) = measured {
        return Some(about(*value, source));
    }
    let column = match gpu.compute_capability {
        [8, 0] => Some(0),
        [8, 6] => Some(1),
        [8, 9] => Some(2),
        [9, 0] => Some(3),
        _ => None,
    };
    let per_clock = PER_CLOCK.iter().find(|(row, _)| *row == name);
    if let Some(((_, values), column)) = per_clock.zip(column) {
        return Some(about(values[column], GUIDE));
    }
    match name {
        "shared_read_clk" => {
            return column.map(|_| {
                about(
                    128.0,
                    "arXiv 2402.13499: 128 B/clk/SM (32 banks of 4 bytes)",
                )
            });
        }
        "event_gap" => {
            return Some(Expected {
                value: 500.0,
                bound: Bound::AtMost,
                source: "CUDA Driver API, cuEventElapsedTime: a resolution of around 0.5 µs"
                    .to_owned(),
            });
        }
        _ => {}
    }
    of_data_sheet(sheet?, gpu, name)
}

/// What follows from the data sheet.
fn of_data_sheet(sheet: &gpus::Gpu, gpu: &Gpu, name: &str) -> Option<Expected> {
    let about = |value: f64, source: String| Expected {
        value,
        bound: Bound::About,
        source,
    };
    let source = || format!("{} (data sheet)", sheet.source);
    // 16-bit operations per clock and multiprocessor.
    let per_clock =
        sheet.flops_per_s / (f64::from(sheet.multiprocessors) * sheet.rated_clock_mhz * 1e6);
    // Before Hopper, `mma.sync` reaches what the data sheet has.
    let is_mma_whole = gpu.compute_capability[0] == 8;
    let is_a100 = gpu.compute_capability == [8, 0];
    Some(match name {
        "dram_read" | "dram_write" | "dram_copy" => about(sheet.bytes_per_s, source()),
        "mma_bf16" | "mma_f16" if is_mma_whole => about(sheet.flops_per_s, source()),
        "mma_bf16_clk" | "mma_f16_clk" if is_mma_whole => about(per_clock, source()),
        "mma_tf32" if is_a100 => about(0.5 * sheet.flops_per_s, source()),
        "mma_tf32_clk" if is_a100 => about(0.5 * per_clock, source()),
        "mma_s8" if is_a100 => about(2.0 * sheet.flops_per_s, source()),
        "mma_s8_clk" if is_a100 => about(2.0 * per_clock, source()),
        "wgmma_bf16" | "wgmma_f16" => about(sheet.flops_per_s, source()),
        "wgmma_bf16_clk" | "wgmma_f16_clk" => about(per_clock, source()),
        "wgmma_e4m3" => about(2.0 * sheet.flops_per_s, source()),
        "wgmma_e4m3_clk" => about(2.0 * per_clock, source()),
        "h2d_pinned" | "d2h_pinned" => {
            let (generation, link) = host_link(sheet, gpu)?;
            about(
                PCIE_PAYLOAD * link,
                format!(
                    "PCIe {generation} with 16 lanes, less 28 bytes of headers for each 256 [arithmetic]"
                ),
            )
        }
        "peer_copy" if sheet.link.kind == LinkKind::NvLink => about(
            0.835 * sheet.link.bytes_per_s,
            "376 of 450 GB/s one way, the most seen of NVLink 4, for this card's link".to_owned(),
        ),
        "tensor_power" | "dram_power" => {
            let (_, watts) = POWER
                .iter()
                .find(|(cards, _)| cards.contains(&sheet.name))?;
            Expected {
                value: *watts,
                bound: Bound::AtMost,
                source: source(),
            }
        }
        _ => return None,
    })
}

/// The PCIe generation of a card and one way of its 16 lanes, bytes/s. A card whose best link is NVLink has PCIe to the host.
fn host_link(sheet: &gpus::Gpu, gpu: &Gpu) -> Option<(&'static str, f64)> {
    if sheet.link.kind == LinkKind::Pcie {
        let generation = match sheet.link.bytes_per_s {
            rate if rate > 60e9 => "5.0",
            rate if rate > 30e9 => "4.0",
            _ => "3.0",
        };
        return Some((generation, sheet.link.bytes_per_s));
    }
    match gpu.compute_capability {
        [8, 0] => Some(("4.0", 31.5e9)),
        [9, 0] => Some(("5.0", 63.0e9)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str, compute_capability: [u32; 2]) -> Gpu {
        Gpu {
            name: name.to_owned(),
            uuid: String::new(),
            compute_capability,
            multiprocessors: 1,
            l2_bytes: 0,
            memory_bytes: 0,
            clocks_khz: [0, 0],
            driver: String::new(),
            nvrtc: String::new(),
        }
    }

    #[track_caller]
    fn check(name: &str, capability: [u32; 2], row: &str, value: Option<f64>) {
        let found = expected(&gpu(name, capability), row);
        match (found, value) {
            (Some(found), Some(value)) => {
                assert!(
                    (found.value / value - 1.0).abs() < 2e-3,
                    "{found:?}, not {value}"
                );
                assert!(!found.source.is_empty());
            }
            (found, value) => assert_eq!(found.map(|e| e.value), value, "{name} {row}"),
        }
    }

    const H100: &str = "NVIDIA H100 80GB HBM3";
    const H200: &str = "NVIDIA H200";
    const A100: &str = "NVIDIA A100-SXM4-80GB";

    #[test]
    fn what_was_measured_counts_before_the_data_sheet() {
        check(H100, [9, 0], "dram_read", Some(3.24e12));
        check(H200, [9, 0], "dram_read", Some(4.8e12));
        check(H100, [9, 0], "dram_write", Some(3.35e12));
        check(H100, [9, 0], "dram_latency", Some(570.5));
        check("NVIDIA H100 PCIe", [9, 0], "dram_latency", Some(478.8));
    }

    /// On Hopper `mma.sync` does not reach the data sheet; before, it does.
    #[test]
    fn tensor_rates_are_by_instruction() {
        check(H100, [9, 0], "mma_bf16_clk", Some(2617.3));
        check(A100, [8, 0], "mma_bf16_clk", Some(2048.0));
        check(A100, [8, 0], "mma_tf32", Some(156e12));
        check(A100, [8, 0], "mma_s8", Some(624e12));
        check(H100, [9, 0], "mma_s8", None);
        check(H100, [9, 0], "wgmma_e4m3", Some(1979e12));
        check(
            "NVIDIA GeForce RTX 4090",
            [8, 9],
            "mma_bf16",
            Some(165.2e12),
        );
    }

    #[test]
    fn rates_per_clock_are_by_compute_capability() {
        check(A100, [8, 0], "fma_f32_clk", Some(128.0));
        check("a card nobody knows", [8, 6], "fma_f32_clk", Some(256.0));
        check("a card nobody knows", [12, 0], "fma_f32_clk", None);
        check("a card nobody knows", [9, 0], "dram_read", None);
        check(H100, [9, 0], "tlb_latency", None);
    }

    #[test]
    fn the_host_is_behind_pcie_even_where_peers_are_behind_nvlink() {
        check(H100, [9, 0], "h2d_pinned", Some(56.8e9));
        check(A100, [8, 0], "h2d_pinned", Some(28.4e9));
        check("NVIDIA L4", [8, 9], "d2h_pinned", Some(28.4e9));
        check(H100, [9, 0], "peer_copy", Some(375.8e9));
        check("NVIDIA L4", [8, 9], "peer_copy", None);
    }

    #[test]
    fn the_table_has_no_row_twice_for_a_card_but_in_order_of_preference() {
        for (cards, row, value, source) in MEASURED {
            assert!(
                !cards.is_empty() && *value > 0.0 && !source.is_empty(),
                "{row}"
            );
            for card in *cards {
                assert!(gpus::GPUS.iter().any(|gpu| gpu.name == *card), "{card}");
            }
        }
    }
}
