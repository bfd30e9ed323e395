//! What recording costs a decode step, measured by the program itself.
//!
//! Steps with and without recording alternate, forwards and backwards, so that a request that grows longer and a clock that drifts
//! fall on all of them alike. The medians are compared.

use stepscope_kernels::Backend;
use stepscope_profiler::{Level, RecordingCost};

use crate::{Error, Runner};

/// Steps of each level.
const STEPS: usize = 48;

/// What is recorded at each level. The first is what the others are held against.
const LEVELS: [Level; 3] = [Level::Steps, Level::Phases, Level::Operations];

/// Measures decode steps of a batch of `prompts`, up to `output_len` tokens of each, then as many batches more as it takes. The
/// runner records operations afterwards, as before.
///
/// # Errors
/// The device has no time, there is no decode step, or a step fails.
pub(super) fn measure<B: Backend>(
    runner: &mut Runner<B>,
    prompts: &[Vec<u32>],
    output_len: usize,
) -> Result<Vec<RecordingCost>, Error> {
    if !runner.is_timed() {
        return Err(Error::input(
            "--overhead compares times of steps, and an emulated device has none; use --device cpu or cuda",
        ));
    }
    if output_len < 3 {
        return Err(Error::input(format!(
            "--overhead compares decode steps, but --output-len {output_len} has too few; use 3 or more"
        )));
    }
    let measured = alternate(runner, prompts, output_len);
    runner.record_at(Level::Operations)?;
    Ok(costs(
        &measured?,
        runner.timing().is_some_and(|t| t.cupti.is_some()),
    ))
}

/// The times of [`STEPS`] steps of each of [`LEVELS`].
fn alternate<B: Backend>(
    runner: &mut Runner<B>,
    prompts: &[Vec<u32>],
    output_len: usize,
) -> Result<[Vec<u64>; 3], Error> {
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let mut times = [const { Vec::new() }; 3];
    let order = [0, 1, 2, 2, 1, 0];
    let mut next = 0;
    while next < STEPS * LEVELS.len() {
        runner.clear();
        runner.record_at(LEVELS[0])?;
        let (mut batch, _) = runner.prefill(&prompts)?;
        // The first decode step after a prefill finds other things in the caches than those that follow.
        runner.decode(&mut batch, None)?;
        for _ in 2..output_len {
            let level = order[next % order.len()];
            runner.record_at(LEVELS[level])?;
            let step = runner.decode(&mut batch, None)?;
            times[level].push(step.wall_ns);
            next += 1;
            if next == STEPS * LEVELS.len() {
                break;
            }
        }
        runner.check_logits(&batch)?;
        runner.release(batch);
    }
    Ok(times)
}

fn costs(times: &[Vec<u64>; 3], by_cupti: bool) -> Vec<RecordingCost> {
    let median = |times: &[u64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    };
    let operations = match by_cupti {
        true => "phases, operations and every kernel",
        false => "phases and operations",
    };
    ["phases", operations]
        .into_iter()
        .zip(&times[1..])
        .map(|(what, with)| RecordingCost {
            what: what.to_owned(),
            with_ns: median(with),
            without_ns: median(&times[0]),
            steps: with.len(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_the_same_number_of_steps_are_compared() {
        let costs = costs(
            &[vec![100, 90, 500], vec![101, 99, 103], vec![120, 110, 130]],
            true,
        );
        let found: Vec<_> = costs
            .iter()
            .map(|c| (c.what.as_str(), c.with_ns, c.without_ns, c.steps))
            .collect();
        assert_eq!(
            found,
            [
                ("phases", 101, 100, 3),
                ("phases, operations and every kernel", 120, 100, 3)
            ]
        );
    }
}
