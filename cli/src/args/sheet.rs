//! `stepscope device`.

use std::path::PathBuf;

use clap::Args;
use stepscope_profiler::device_sheet::Group;

use super::{Device, positive};

/// Measure what this GPU really does: bandwidths, latencies, arithmetic, launches, copies, power
///
/// Every probe checks its result first. Each value stands beside what is expected of the card and who says so, and is marked where it
/// is more than 15 % away. docs/device-sheet.md says what each probe claims. No setting of the card is changed.
///
/// `stepscope explain` takes the ceilings from it: from device.json beside a record or in the folder above, or from the last sheet of the same card.
///   stepscope device --json > runs/default/device.json
///   stepscope device --only memory latency --html sheet.html
///
/// On the emulated device, which has no time, the probes show that they compute and do what they claim.
///   stepscope device --device emulated
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Sheet {
    /// cuda, cuda:N, or emulated
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    pub(crate) device: Device,

    /// Print JSON ("stepscope.device/1") with every sample
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the JSON there, too
    #[arg(long, value_name = "FILE.json")]
    pub(crate) out: Option<PathBuf>,

    /// Write a self-contained page with plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,

    /// Write the plots as one picture
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) svg: Option<PathBuf>,

    /// These groups alone: memory, shared, latency, tensor, arithmetic, atomics, launch, timers, transfer, energy
    #[arg(long, num_args = 1.., value_delimiter = ',', value_name = "GROUP", value_parser = group)]
    pub(crate) only: Vec<Group>,

    /// Fewer samples and points, and no power: some seconds
    #[arg(long)]
    pub(crate) quick: bool,

    /// Take no longer than about so many seconds: in the last fifth no probe is begun, and those left out are named
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(crate) seconds: Option<usize>,
}

fn group(text: &str) -> Result<Group, String> {
    let found = Group::ALL.into_iter().find(|group| group.name() == text);
    found.ok_or_else(|| {
        let names = Group::ALL.map(Group::name).join(", ");
        format!("there is no group {text:?}; there are {names}")
    })
}
