//! Hardware counters through CUPTI.

use std::sync::Arc;

use stepscope_device::cupti::{Counted, Cupti, RangeProfiler};
use stepscope_device::driver::Context;

use crate::measured::KernelCounters;

/// Counts metrics of the kernels in one context.
#[derive(Debug)]
pub struct CuptiCounters {
    cupti: Arc<Cupti>,
    context: Arc<Context>,
    metrics: Vec<String>,
    passes: usize,
    running: Option<RangeProfiler>,
}

impl CuptiCounters {
    /// Counters of `metrics` for the device of `context`.
    ///
    /// # Errors
    /// The device is an emulated one, CUPTI is too old, or the chip does not have one of the metrics. Whether counting is allowed
    /// shows when it begins.
    pub fn new(
        cupti: &Arc<Cupti>,
        context: &Arc<Context>,
        metrics: &[String],
    ) -> Result<CuptiCounters, stepscope_device::Error> {
        let names: Vec<&str> = metrics.iter().map(String::as_str).collect();
        let (_, passes) = RangeProfiler::plan(cupti, context, &names)?;
        Ok(CuptiCounters {
            passes,
            cupti: Arc::clone(cupti),
            context: Arc::clone(context),
            metrics: metrics.to_vec(),
            running: None,
        })
    }

    /// How often each kernel runs.
    pub fn passes(&self) -> usize {
        self.passes
    }
}

impl KernelCounters for CuptiCounters {
    fn start(&mut self, most_kernels: usize) -> Result<(), String> {
        self.running = None; // of a step that failed
        let names: Vec<&str> = self.metrics.iter().map(String::as_str).collect();
        let started = RangeProfiler::start(&self.cupti, &self.context, &names, most_kernels);
        self.running = Some(started.map_err(|error| error.to_string())?);
        Ok(())
    }

    fn finish(&mut self) -> Result<Counted, String> {
        let running = self.running.take().ok_or("nothing is counted")?;
        running.finish().map_err(|error| error.to_string())
    }
}
