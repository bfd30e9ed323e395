//! Two kernels timed in turn, and the verdict.

use serde_json::{Value, json};
use stepscope_kernels::cuda::Cuda;
use stepscope_microbench::{Bench, Measured, Series, Settings, Subject};
use stepscope_profiler::gate::{Judgement, Observation, Samples, Thresholds, judge};
use stepscope_profiler::report::Table;

use crate::output::Failure;

/// Times of a pair.
pub(super) struct Times {
    pub(super) mine: Series,
    pub(super) incumbent: Series,
    /// The incumbent is the base, the new kernel the head.
    pub(super) judgement: Judgement,
    work: stepscope_microbench::Work,
}

pub(super) fn pair(
    cuda: &Cuda,
    mine: &mut dyn Subject,
    incumbent: &mut dyn Subject,
) -> Result<Times, Failure> {
    let work = mine.work();
    let bench = Bench::new(cuda)?;
    match bench.measure_pair([mine, incumbent], &Settings::default())? {
        [Measured::Timed(mine), Measured::Timed(incumbent)] => Ok(Times {
            judgement: judge(
                &samples(&incumbent),
                &samples(&mine),
                &Thresholds::default(),
            ),
            mine,
            incumbent,
            work,
        }),
        [Measured::Untimed(why), _] | [_, Measured::Untimed(why)] => Err(Failure::run(why)),
    }
}

fn samples(series: &Series) -> Samples {
    let clocks = series.samples.iter().map(|sample| sample.sm_clock_hz);
    Samples {
        times_ns: series.times_ns(),
        clocks_hz: clocks.collect(),
        timer: series.timer,
        observation: Observation::Step,
    }
}

pub(super) fn text(times: &Times) -> String {
    let header = [
        "Time, in turn",
        "median (µs)",
        "quartiles (µs)",
        "samples",
        "TFLOP/s",
        "GB/s",
    ];
    let mut table = Table::new("lrrrrr", header.map(str::to_owned));
    for (name, series) in [("new", &times.mine), ("incumbent", &times.incumbent)] {
        let us = |ns: f64| format!("{:.2}", ns / 1e3);
        let median = series.median_ns();
        let quartiles = series.quartiles_ns();
        let rate = |amount: u64, unit: f64| {
            median.map_or("–".to_owned(), |ns| {
                format!("{:.1}", amount as f64 / ns / unit)
            })
        };
        table.row([
            name.to_owned(),
            median.map_or("–".to_owned(), us),
            quartiles.map_or("–".to_owned(), |[a, b]| format!("{} – {}", us(a), us(b))),
            series.samples.len().to_string(),
            rate(times.work.flops, 1e3),
            rate(times.work.bytes, 1.0),
        ]);
    }
    let judgement = &times.judgement;
    let ratio = judgement.ratio.map_or(String::new(), |ratio| {
        format!(
            "; the new one takes {:.1} % of the incumbent's time",
            100.0 * ratio
        )
    });
    format!(
        "{}\n{}{ratio} ({})",
        table.render(),
        judgement.verdict.name(),
        judgement.reason.code()
    )
}

pub(super) fn json(times: &Times) -> Value {
    json!({
        "mine": times.mine,
        "incumbent": times.incumbent,
        "verdict": times.judgement.verdict.name(),
        "reason": times.judgement.reason.code(),
        "ratio": times.judgement.ratio,
    })
}
