//! What bounds a benchmark on a GPU: what `stepscope device` measured of the card, or its data sheet.

use std::path::Path;

use stepscope_device::driver::Device;
use stepscope_profiler::device_sheet::{DeviceSheet, Kept};
use stepscope_profiler::gpus;
use stepscope_profiler::microbench::Roof;
use stepscope_profiler::quantity::with_prefix;

use crate::Work;

/// Names a sheet of `stepscope device` whose ceilings are the roofs of the GPU, instead of the one that is kept of this card.
pub(super) const SHEET: &str = "STEPSCOPE_BENCH_SHEET";

/// The rates that bound a device's work.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Roofs {
    flops_per_s: Option<f64>,
    levels: Vec<Level>,
    origin: Origin,
    source: String,
}

/// A level of the memory hierarchy.
#[derive(Debug, Clone, PartialEq)]
struct Level {
    name: String,
    /// Bytes up to which it serves a working set; the last serves all.
    up_to_bytes: u64,
    bytes_per_s: f64,
}

/// Where rates come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Origin {
    #[default]
    Measured,
    DataSheet,
}

/// What bounds one benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    pub(super) roof: Roof,
    pub(super) origin: Origin,
    /// The level that its bytes come from.
    pub(super) level: Option<String>,
}

impl Bound {
    /// The roof of its arithmetic, in words: `measured roof`.
    pub(super) fn of_flops(&self) -> String {
        format!("{} roof", self.origin.word())
    }

    /// The roof of its bytes, in words: `data-sheet DRAM roof`.
    pub(super) fn of_bytes(&self) -> String {
        match &self.level {
            Some(level) => format!("{} {level} roof", self.origin.word()),
            None => self.of_flops(),
        }
    }
}

impl Origin {
    fn word(self) -> &'static str {
        match self {
            Origin::Measured => "measured",
            Origin::DataSheet => "data-sheet",
        }
    }
}

/// By the sheet `named`, or the one of this very card in `kept`; else by the card's data sheet, or nothing if there is none here. With
/// it, why a sheet that is there is not used.
pub(super) fn of_gpu(
    device: &Device,
    named: Option<&Path>,
    kept: Option<&Kept>,
) -> (Roofs, Option<String>) {
    let sheet = match (named, kept) {
        (Some(path), _) => named_sheet(path, device).map(Some),
        (None, Some(kept)) => kept.find(&device.uuid).map_err(|error| error.to_string()),
        (None, None) => Ok(None),
    };
    let measured = sheet.and_then(|sheet| match sheet {
        Some(sheet) => measured(&sheet, device).map(Some),
        None => Ok(None),
    });
    match measured {
        Ok(Some(roofs)) => (roofs, None),
        Ok(None) => (by_data_sheet(&device.name), None),
        Err(why) => (
            by_data_sheet(&device.name),
            Some(format!("{why}; it is not used for roofs")),
        ),
    }
}

fn named_sheet(path: &Path, device: &Device) -> Result<DeviceSheet, String> {
    let sheet = DeviceSheet::read(path).map_err(|error| format!("{SHEET}: {error}"))?;
    if sheet.gpu.name != device.name {
        return Err(format!(
            "{SHEET}: {} is of {}, and this is {}",
            path.display(),
            sheet.gpu.name,
            device.name
        ));
    }
    Ok(sheet)
}

/// The ceilings of a sheet of this card, or of one of the same name.
fn measured(sheet: &DeviceSheet, device: &Device) -> Result<Roofs, String> {
    let Some(roofs) = sheet.roofs() else {
        return Err(format!(
            "the sheet of {} has no ceilings: they need its groups memory and tensor, measured on a GPU",
            sheet.gpu.name
        ));
    };
    let levels = roofs.bandwidth.into_iter().map(|level| Level {
        name: level.name,
        up_to_bytes: level.up_to_bytes.unwrap_or(u64::MAX),
        bytes_per_s: level.bytes_per_s,
    });
    let which = match sheet.gpu.uuid == device.uuid {
        true => "this card",
        false => "another card of the same name",
    };
    let day = sheet.created.split('T').next().unwrap_or_default();
    Ok(Roofs {
        flops_per_s: Some(roofs.flops_per_s),
        levels: levels.collect(),
        origin: Origin::Measured,
        source: format!("measured by `stepscope device` on {which}, {day}"),
    })
}

fn by_data_sheet(name: &str) -> Roofs {
    let Ok(gpu) = gpus::find(name) else {
        return Roofs {
            origin: Origin::DataSheet,
            source: format!("no data sheet of {name} is known"),
            ..Roofs::default()
        };
    };
    Roofs {
        flops_per_s: Some(gpu.flops_per_s),
        levels: vec![Level {
            name: "DRAM".to_owned(),
            up_to_bytes: u64::MAX,
            bytes_per_s: gpu.bytes_per_s,
        }],
        origin: Origin::DataSheet,
        source: format!("data sheet of {}", gpu.title),
    }
}

impl Roofs {
    /// Of work whose data come from where a working set of so many bytes lies.
    pub(super) fn of(&self, work: Work) -> Option<Bound> {
        let level = self
            .levels
            .iter()
            .find(|level| work.bytes <= level.up_to_bytes);
        self.bound(level)
    }

    /// Of work that finds nothing in any cache.
    pub(super) fn of_cold(&self) -> Option<Bound> {
        self.bound(self.levels.last())
    }

    fn bound(&self, level: Option<&Level>) -> Option<Bound> {
        let flops_per_s = self.flops_per_s?;
        Some(Bound {
            roof: Roof {
                flops_per_s: Some(flops_per_s),
                bytes_per_s: level.map(|level| level.bytes_per_s),
                source: match level {
                    Some(level) => format!("{}; bytes from {}", self.source, level.name),
                    None => self.source.clone(),
                },
            },
            origin: self.origin,
            level: level.map(|level| level.name.clone()),
        })
    }

    /// In one line, with how to get better ones.
    pub(super) fn describe(&self) -> String {
        let advice = match self.origin {
            Origin::Measured => "",
            Origin::DataSheet => {
                "; `stepscope device --only memory tensor` measures this card's own"
            }
        };
        let Some(flops) = self.flops_per_s else {
            return format!("unknown, and shares are left out ({}{advice})", self.source);
        };
        let levels: Vec<String> = self
            .levels
            .iter()
            .map(|level| format!("{} {}", level.name, with_prefix(level.bytes_per_s, "B/s")))
            .collect();
        format!(
            "{}, {} ({}{advice})",
            with_prefix(flops, "FLOP/s"),
            levels.join(", "),
            self.source
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use stepscope_profiler::device_sheet::{Row, SCHEMA, Sample};
    use stepscope_profiler::{Gpu, Program};

    use super::*;

    const H100: &str = "NVIDIA H100 80GB HBM3";
    const MIB: u64 = 1 << 20;

    fn card(name: &str, uuid: &str) -> Device {
        Device {
            ordinal: 0,
            name: name.to_owned(),
            uuid: uuid.to_owned(),
            compute_capability: [9, 0],
            memory_bytes: 80 << 30,
            limits: Default::default(),
        }
    }

    /// The roofs of an H100's data sheet.
    pub(in super::super) fn of_h100() -> Roofs {
        by_data_sheet(H100)
    }

    /// A sheet of a card, made up, with these values.
    fn sheet(name: &str, uuid: &str, values: &[(&str, f64)]) -> DeviceSheet {
        let row = |&(name, value): &(&str, f64)| {
            let sample = Sample {
                value,
                sm_clock_hz: None,
            };
            Row::new(name, name).measured(vec![sample], Vec::new())
        };
        DeviceSheet {
            schema: SCHEMA.to_owned(),
            summary: String::new(),
            program: Program {
                name: "stepscope".to_owned(),
                version: "0".to_owned(),
                commit: None,
                command: Vec::new(),
            },
            created: "2026-11-24T12:00:00Z".to_owned(),
            device: "cuda".to_owned(),
            gpu: Gpu {
                name: name.to_owned(),
                uuid: uuid.to_owned(),
                compute_capability: [9, 0],
                multiprocessors: 132,
                l2_bytes: 50 * MIB,
                memory_bytes: 80 << 30,
                clocks_khz: [1_980_000, 2_619_000],
                driver: "13.0".to_owned(),
                nvrtc: "13.0".to_owned(),
            },
            watch: None,
            no_watch: None,
            quick: false,
            rows: values.iter().map(row).collect(),
        }
    }

    const VALUES: [(&str, f64); 3] = [("mma_bf16", 6e14), ("dram_read", 3e12), ("l2_read", 6e12)];

    fn work(bytes: u64) -> Work {
        Work { flops: 1, bytes }
    }

    #[test]
    fn bytes_come_from_the_smallest_level_that_holds_them() {
        let level = |name: &str, up_to_bytes, bytes_per_s| Level {
            name: name.to_owned(),
            up_to_bytes,
            bytes_per_s,
        };
        let roofs = Roofs {
            flops_per_s: Some(1e11),
            levels: vec![level("L2", MIB, 3e11), level("DRAM", u64::MAX, 4e10)],
            origin: Origin::Measured,
            source: "measured".to_owned(),
        };
        let of = |bytes| roofs.of(work(bytes)).unwrap();
        assert_eq!(of(MIB).roof.bytes_per_s, Some(3e11));
        assert_eq!(of(MIB).of_bytes(), "measured L2 roof");
        assert_eq!(of(MIB + 1).roof.source, "measured; bytes from DRAM");
        assert_eq!(
            roofs.of_cold().unwrap().roof.bytes_per_s,
            Some(4e10),
            "what is in no cache comes from memory however small it is"
        );
        assert_eq!(
            roofs.describe(),
            "100 GFLOP/s, L2 300 GB/s, DRAM 40.0 GB/s (measured)"
        );
    }

    #[test]
    fn a_gpu_without_a_sheet_has_the_roofs_of_its_data_sheet_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(folder.path());
        let (h100, note) = of_gpu(&card(H100, "GPU-1"), None, Some(&kept));
        assert_eq!(note, None);
        assert_eq!(h100, of_h100());
        let bound = h100.of(work(1)).unwrap();
        assert_eq!(bound.of_flops(), "data-sheet roof");
        assert_eq!(bound.of_bytes(), "data-sheet DRAM roof");
        let told = h100.describe();
        assert!(told.contains("(data sheet of "), "{told}");
        assert!(
            told.contains("`stepscope device --only memory tensor`"),
            "{told}"
        );
        let (unknown, _) = of_gpu(&card("NVIDIA Q1", "GPU-1"), None, None);
        assert_eq!(unknown.of(work(1)), None);
        let told = unknown.describe();
        assert!(
            told.starts_with("unknown, and shares are left out"),
            "{told}"
        );
    }

    #[test]
    fn a_kept_sheet_of_this_card_gives_its_roofs() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(folder.path());
        kept.keep(&sheet(H100, "GPU-1", &VALUES)).unwrap().unwrap();
        let (roofs, note) = of_gpu(&card(H100, "GPU-1"), None, Some(&kept));
        assert_eq!(note, None);
        assert_eq!(
            roofs.describe(),
            "600 TFLOP/s, L2 6.00 TB/s, DRAM 3.00 TB/s \
             (measured by `stepscope device` on this card, 2026-11-24)"
        );
        let warm = roofs.of(work(50 * MIB)).unwrap();
        assert_eq!(warm.roof.flops_per_s, Some(6e14));
        assert_eq!(warm.roof.bytes_per_s, Some(6e12));
        assert_eq!(
            warm.roof.source,
            "measured by `stepscope device` on this card, 2026-11-24; bytes from L2"
        );
        assert_eq!(roofs.of_cold().unwrap().of_bytes(), "measured DRAM roof");
        let (other, _) = of_gpu(&card(H100, "GPU-2"), None, Some(&kept));
        assert_eq!(other, of_h100(), "of another card nothing is kept");
    }

    #[test]
    fn a_sheet_that_cannot_be_used_is_one_note_and_the_data_sheet_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::in_folder(folder.path());
        let path = kept.path_of("GPU-1").unwrap();
        let check = |text: &str, named: Option<&Path>, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let (roofs, note) = of_gpu(&card(H100, "GPU-1"), named, Some(&kept));
            assert_eq!(roofs, of_h100());
            let note = note.unwrap();
            assert!(note.contains(expected), "{note}");
            assert!(note.ends_with("; it is not used for roofs"), "{note}");
            assert!(!note.contains('\n'), "{note}");
        };
        let json = |sheet: &DeviceSheet| serde_json::to_string(sheet).unwrap();
        check("{", None, "GPU-1.json is no device sheet");
        let foreign = json(&sheet(H100, "GPU-2", &VALUES));
        check(&foreign, None, "GPU-2, not of GPU-1");
        let other = json(&sheet("NVIDIA L4", "GPU-3", &VALUES));
        check(
            &other,
            Some(&path),
            "GPU-1.json is of NVIDIA L4, and this is NVIDIA H100 80GB HBM3",
        );
        let empty = json(&sheet(H100, "GPU-1", &VALUES[..1]));
        check(&empty, None, "has no ceilings");
        let absent = folder.path().join("absent.json");
        check(&empty, Some(&absent), "STEPSCOPE_BENCH_SHEET: ");
    }

    #[test]
    fn a_named_sheet_of_the_same_kind_of_card_says_that_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.json");
        let text = serde_json::to_string(&sheet(H100, "GPU-2", &VALUES)).unwrap();
        std::fs::write(&path, text).unwrap();
        let (roofs, note) = of_gpu(&card(H100, "GPU-1"), Some(&path), None);
        assert_eq!(note, None);
        assert!(
            roofs.describe().ends_with(
                "(measured by `stepscope device` on another card of the same name, 2026-11-24)"
            ),
            "{}",
            roofs.describe()
        );
    }
}
