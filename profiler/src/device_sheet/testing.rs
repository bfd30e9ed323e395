//! Sheets of a card that does not exist, for tests.

use super::{Bound, DeviceSheet, Expected, Group, Row, RowTimer, SCHEMA, Sample, Unit};
use crate::record::{Gpu, Program};

/// A sheet with these rows, by name and value.
pub(crate) fn sheet(values: &[(&str, f64)]) -> DeviceSheet {
    let rows = values.iter().map(|&(name, value)| row(name, value));
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
            name: "a card".to_owned(),
            uuid: "GPU-1".to_owned(),
            compute_capability: [9, 0],
            multiprocessors: 132,
            l2_bytes: 50 << 20,
            memory_bytes: 80 << 30,
            clocks_khz: [1_980_000, 2_619_000],
            driver: "13.0".to_owned(),
            nvrtc: "13.0".to_owned(),
        },
        watch: None,
        no_watch: None,
        quick: false,
        rows: rows.collect(),
    }
}

/// A row with three samples around a value.
pub(crate) fn row(name: &str, value: f64) -> Row {
    let samples = [0.99, 1.0, 1.01].map(|factor| Sample {
        value: value * factor,
        sm_clock_hz: Some(1.5e9),
    });
    let is_latency = name.ends_with("latency");
    Row {
        group: match name {
            _ if is_latency => Group::Latency,
            "dram_read" | "l2_read" | "set_read" => Group::Memory,
            _ => Group::Tensor,
        },
        unit: match name {
            _ if is_latency => Unit::Cycles,
            "dram_read" | "l2_read" | "set_read" => Unit::BytesPerSecond,
            _ => Unit::FlopPerSecond,
        },
        timer: RowTimer::Event,
        claim: "a claim of <a test>".to_owned(),
        ..Row::new(name, name)
    }
    .measured(samples.to_vec(), Vec::new())
}

/// All that a sheet can hold: rows as expected, far from it, without expectation, skipped, and a curve with a step.
pub(crate) fn whole() -> DeviceSheet {
    let mut sheet = sheet(&[("l2_latency", 300.0)]);
    let expected = |value, bound| Expected {
        value,
        bound,
        source: "a source & its page".to_owned(),
    };
    for (name, value, of) in [
        ("dram_read", 3e12, Some(expected(3.1e12, Bound::About))),
        ("mma_bf16", 4e14, Some(expected(8e14, Bound::About))),
        ("wgmma_f16", 8e14, Some(expected(9e14, Bound::AtMost))),
        ("l2_read", 6e12, None),
    ] {
        sheet.rows.push(row(name, value).held_against(of));
    }
    sheet.rows.push(Row {
        group: Group::Transfer,
        note: Some("the driver shows one device".to_owned()),
        ..Row::new("peer_copy", "from another device")
    });
    for power in 18..30 {
        let bytes = 2_f64.powi(power);
        // A made-up step at the size of L2.
        let value = if bytes < 50e6 { 6e12 } else { 3e12 };
        sheet.rows.push(Row {
            at: Some(bytes),
            ..row("set_read", value)
        });
        let value = if bytes < 50e6 { 280.0 } else { 600.0 };
        sheet.rows.push(Row {
            at: Some(bytes),
            ..row("set_latency", value)
        });
    }
    sheet.summary = DeviceSheet::summarised(&sheet.rows);
    sheet
}
