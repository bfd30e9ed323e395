//! Steps whose kernels are counted, apart from those that are timed.

use std::mem;

use stepscope_kernels::Backend;
use stepscope_profiler::{Clock, CountedStep, KernelCounters, Level, Recorder, Step};

use super::Runner;
use crate::Error;

impl<B: Backend> Runner<B> {
    /// Counts what the hardware does in a prefill of `prompts` and, where `decodes`, in the decode step behind it; nothing where
    /// nobody counts. Both run twice, without graphs: once as they are, which tells how many kernels there are and which tokens come
    /// out, and once counted. All batches are dropped.
    ///
    /// Why nothing was counted is a sentence; it is not tried again then.
    ///
    /// # Errors
    /// When a step fails.
    pub fn count(
        &mut self,
        prompts: &[&[u32]],
        decodes: bool,
    ) -> Result<Result<Vec<CountedStep>, String>, Error> {
        let Some(mut counters) = self.counters.take() else {
            return Ok(Ok(Vec::new()));
        };
        let level = self.recorder.level();
        // Kernels are not recorded and counted at once.
        self.record_at(Level::Phases)?;
        let launches = self.forward.backend.launches();
        let untimed = Recorder::new(Level::Operations)
            .with_clock(Clock::Untimed)
            .counting(launches);
        let recorder = mem::replace(&mut self.recorder, untimed);
        let graphs = self.graphs.take();
        let sm_clock = self.sm_clock.take();
        let outcome = self.count_steps(prompts, decodes, counters.as_mut());
        self.recorder = recorder;
        self.graphs = graphs;
        self.sm_clock = sm_clock;
        self.clear();
        self.record_at(level)?;
        if matches!(outcome, Ok(Ok(_))) {
            self.counters = Some(counters);
        }
        outcome
    }

    fn count_steps(
        &mut self,
        prompts: &[&[u32]],
        decodes: bool,
        counters: &mut dyn KernelCounters,
    ) -> Result<Result<Vec<CountedStep>, String>, Error> {
        // Kernels and tokens of each step.
        let mut plain: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut found = Vec::new();
        for is_counted in [false, true] {
            self.clear();
            let mut batch = None;
            for index in 0..=usize::from(decodes) {
                if is_counted && let Err(why) = counters.start(plain[index].0.max(1)) {
                    return Ok(Err(why));
                }
                let (running, step) = match batch.take() {
                    None => self.prefill(prompts)?,
                    Some(mut running) => {
                        let step = self.decode(&mut running, None)?;
                        (running, step)
                    }
                };
                let counted = is_counted.then(|| counters.finish());
                let tokens = self.sampled(&running)?;
                batch = Some(running);
                let Some(counted) = counted else {
                    plain.push((kernels_of(&step), tokens));
                    continue;
                };
                match counted.and_then(|counted| CountedStep::of(&step, &counted)) {
                    Ok(_) if tokens != plain[index].1 => {
                        return Ok(Err(format!(
                            "the {} step sampled other tokens while its kernels were counted than without: what was counted is not \
                             kept",
                            step.kind.name()
                        )));
                    }
                    Ok(counted) => found.push(counted),
                    Err(why) => return Ok(Err(why)),
                }
            }
        }
        Ok(Ok(found))
    }
}

fn kernels_of(step: &Step) -> usize {
    step.operations.iter().map(|o| o.launches as usize).sum()
}
