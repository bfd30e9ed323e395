//! What a GPU was measured to do: the document of `stepscope device`.
//!
//! A [`DeviceSheet`] has a [`Row`] for each thing that was measured, with every sample, beside what is expected of the GPU and who
//! says so ([`expected()`]). [`DeviceSheet::roofs`] makes the ceilings of an explanation from it, [`DeviceSheet::text`] what a person
//! reads, and [`explain::page::sheet_page`](crate::explain::page::sheet_page) a page with plots. [`Kept`] knows where the last one of each
//! card lies.
//!
//! **Invariant:** a row of an emulated device has no value. It has counts: what the probe claims to do, and what it was counted to do.

mod expected;
mod kept;
mod row;
#[cfg(test)]
pub(crate) mod testing;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gpu_watch::GpuWatch;
use crate::record::{BandwidthRoof, Gpu, Program, Roofs};
use crate::{Error, quantity};

pub use expected::{Bound, Expected, expected};
pub use kept::Kept;
pub(crate) use text::{binary_bytes, curves, quantity_title};

pub use row::{Claim, Group, Quantity, Row, RowTimer, Sample, Status, Unit};

/// The schema of the document.
pub const SCHEMA: &str = "stepscope.device/1";

/// A ratio of value and expectation beyond this is worth a look.
pub const TOLERANCE: f64 = 0.15;

/// What one GPU was measured to do, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceSheet {
    /// [`SCHEMA`].
    pub schema: String,
    /// A line about all of it.
    pub summary: String,
    /// What made it.
    pub program: Program,
    /// When, UTC, as RFC 3339 writes it.
    pub created: String,
    /// `cuda` or `emulated`.
    pub device: String,
    /// Which GPU.
    pub gpu: Gpu,
    /// Its clocks, temperature and power meanwhile.
    pub watch: Option<GpuWatch>,
    /// Why there is no `watch`.
    pub no_watch: Option<String>,
    /// Whether it was measured with few samples and points.
    pub quick: bool,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl DeviceSheet {
    /// Reads a document.
    ///
    /// # Errors
    /// The file cannot be read, or is none.
    pub fn read(path: &Path) -> Result<DeviceSheet, Error> {
        let unreadable =
            |why: &str| Error::content(format!("{} is no device sheet: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(&e.to_string()))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| unreadable(&format!("it is no JSON: {e}")))?;
        let schema = value["schema"].as_str().unwrap_or("none");
        if schema != SCHEMA {
            return Err(unreadable(&format!(
                "its schema is {schema}, not {SCHEMA}: `stepscope device --json` writes one"
            )));
        }
        serde_json::from_value(value).map_err(|e| unreadable(&e.to_string()))
    }

    /// The row with this name that is no point of a curve.
    pub fn row(&self, name: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.name == name && row.at.is_none())
    }

    /// The value of a row that was measured.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.row(name)?.value
    }

    /// The line about all of it.
    pub fn summarised(rows: &[Row]) -> String {
        let count = |wanted: Status| rows.iter().filter(|row| row.status == wanted).count();
        let (measured, checked) = (count(Status::Measured), count(Status::NoTime));
        let mut parts = Vec::new();
        if measured > 0 {
            let far = rows.iter().filter(|row| row.is_far()).count();
            parts.push(format!(
                "{measured} rows measured, {far} more than {:.0} % from what is expected",
                100.0 * TOLERANCE
            ));
        }
        if checked > 0 {
            parts.push(format!("{checked} rows right, without times"));
        }
        for (status, words) in [
            (Status::Skipped, "skipped"),
            (Status::Wrong, "WRONG"),
            (Status::Failed, "FAILED"),
        ] {
            if count(status) > 0 {
                parts.push(format!("{} {words}", count(status)));
            }
        }
        parts.join(", ")
    }

    /// Ceilings for an explanation: the best dense rate of 16-bit matrix instructions, and what reads from L2 and from device memory
    /// reach. Nothing unless both were measured.
    pub fn roofs(&self) -> Option<Roofs> {
        const MATRIX: [&str; 4] = ["wgmma_bf16", "wgmma_f16", "mma_bf16", "mma_f16"];
        let rates = MATRIX.iter().filter_map(|name| self.row(name));
        let best = rates
            .filter(|row| row.value.is_some())
            .max_by(|a, b| a.value.unwrap_or(0.0).total_cmp(&b.value.unwrap_or(0.0)))?;
        let (flops_per_s, memory) = (best.value?, self.value("dram_read")?);
        let level = |name: &str, up_to_bytes, bytes_per_s| BandwidthRoof {
            name: name.to_owned(),
            up_to_bytes,
            bytes_per_s,
        };
        let l2 = self.value("l2_read");
        let mut told = vec![
            format!(
                "{} ({})",
                quantity::with_prefix(flops_per_s, "FLOP/s"),
                best.title
            ),
            format!("{} from DRAM", quantity::with_prefix(memory, "B/s")),
        ];
        told.extend(l2.map(|rate| format!("{} from L2", quantity::with_prefix(rate, "B/s"))));
        let clock = match best.clock_mhz() {
            Some(mhz) => format!(" at {mhz:.0} MHz"),
            None => String::new(),
        };
        Some(Roofs {
            flops_per_s,
            bandwidth: l2
                .map(|rate| level("L2", Some(self.gpu.l2_bytes), rate))
                .into_iter()
                .chain([level("DRAM", None, memory)])
                .collect(),
            method: format!(
                "measured on {} by `stepscope device` on {}{clock}, times by events: {}",
                self.gpu.name,
                self.created,
                told.join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::testing::sheet;
    use super::*;

    #[test]
    fn ceilings_are_the_best_matrix_rate_and_reads() {
        let all = sheet(&[
            ("mma_bf16", 6e14),
            ("wgmma_f16", 8e14),
            ("dram_read", 3e12),
            ("l2_read", 6e12),
        ]);
        let roofs = all.roofs().unwrap();
        assert_eq!(roofs.flops_per_s, 8e14);
        let levels: Vec<_> = roofs
            .bandwidth
            .iter()
            .map(|level| (level.name.as_str(), level.up_to_bytes, level.bytes_per_s))
            .collect();
        assert_eq!(levels, [("L2", Some(50 << 20), 6e12), ("DRAM", None, 3e12)]);
        assert_eq!(
            roofs.method,
            "measured on a card by `stepscope device` on 2026-11-24T12:00:00Z at 1500 MHz, times by events: 800 TFLOP/s \
             (wgmma_f16), 3.00 TB/s from DRAM, 6.00 TB/s from L2"
        );
        assert_eq!(sheet(&[("mma_bf16", 6e14)]).roofs(), None);
        assert_eq!(sheet(&[("dram_read", 3e12)]).roofs(), None);
    }

    #[test]
    fn a_document_is_read_as_it_was_written_and_others_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.json");
        let written = sheet(&[("dram_read", 3.25e12)]);
        std::fs::write(&path, serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(DeviceSheet::read(&path).unwrap(), written);
        std::fs::write(&path, r#"{"schema": "stepscope.record/1"}"#).unwrap();
        let error = DeviceSheet::read(&path).unwrap_err().to_string();
        assert!(error.contains("stepscope.record/1"), "{error}");
        assert!(error.contains("device.json"), "{error}");
    }
}
