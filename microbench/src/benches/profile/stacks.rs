//! Where the host's threads were, sampled while a benchmark runs.

use std::collections::BTreeMap;

use pprof::{ProfilerGuard, ProfilerGuardBuilder, Report, Symbol};

use crate::Error;

/// Samples per second of processor time that are asked for; Linux gives as many as its timer ticks, often 250. A prime, so that no
/// loop keeps step with it.
const FREQUENCY_HZ: i32 = 997;

/// Takes samples as long as it lives: one for each interval of processor time that the process used, on any thread.
pub(super) struct Sampler(ProfilerGuard<'static>);

impl Sampler {
    pub(super) fn start() -> Result<Sampler, Error> {
        // The unwinder takes locks that these libraries may hold when the signal comes.
        let guard = ProfilerGuardBuilder::default()
            .frequency(FREQUENCY_HZ)
            .blocklist(&["libc", "libgcc", "pthread", "vdso"])
            .build();
        guard
            .map(Sampler)
            .map_err(|error| Error::Unusable(format!("no stacks can be sampled: {error}")))
    }

    /// The stacks, `frame;frame samples` each, and how many samples they are.
    pub(super) fn stop(self) -> Result<(Vec<String>, usize), Error> {
        let report = self.0.report().build();
        let report =
            report.map_err(|error| Error::Unusable(format!("the stacks are lost: {error}")))?;
        Ok(folded(&report))
    }
}

fn folded(report: &Report) -> (Vec<String>, usize) {
    let mut stacks: BTreeMap<String, usize> = BTreeMap::new();
    let mut all = 0;
    for (frames, &count) in &report.data {
        // Inlined functions of a frame stand in front of the one that they are in.
        let names = frames.frames.iter().flatten().map(Symbol::name);
        let mut names: Vec<String> = names.collect();
        names.reverse();
        let count = usize::try_from(count).unwrap_or(0);
        *stacks.entry(stack(&names)).or_default() += count;
        all += count;
    }
    let lines = stacks
        .iter()
        .map(|(stack, count)| format!("{stack} {count}"));
    (lines.collect(), all)
}

/// A stack from the outermost frame on that is of the benchmark: what criterion and the runtime do around it is left out.
fn stack(names: &[String]) -> String {
    let is_around = |name: &String| {
        [
            "criterion::",
            "std::",
            "core::",
            "rayon_core::",
            "<alloc::boxed::Box",
            "__rust",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix) || name.starts_with(&format!("<{prefix}")))
    };
    // The last that runs a thread, or criterion.
    let outer = names.iter().rposition(|name| {
        name.contains("criterion::") || name.contains("__rust_begin_short_backtrace")
    });
    let inner = &names[outer.map_or(0, |at| at + 1)..];
    let first = inner.iter().position(|name| !is_around(name)).unwrap_or(0);
    let cleaned: Vec<String> = inner[first..].iter().map(|name| frame(name)).collect();
    match cleaned.is_empty() {
        true => "(criterion)".to_owned(),
        false => cleaned.join(";"),
    }
}

/// A name without what separates frames and lines, and without the hash of its version.
fn frame(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => name,
    };
    let plain = |c: char| if c == ';' || c.is_control() { ',' } else { c };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stack_begins_where_the_benchmark_does() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            stack(&names)
        };
        let criterion = "criterion::bencher::Bencher<M>::iter_custom::h0123456789abcdef";
        assert_eq!(
            of(&[
                "main",
                criterion,
                "core::ops::FnMut",
                "stepscope::gemm::h0123456789abcdef",
                "dot;8"
            ]),
            "stepscope::gemm;dot,8"
        );
        let thread = "std::sys::backtrace::__rust_begin_short_backtrace";
        assert_eq!(
            of(&["clone3", thread, "std::panic::catch_unwind", "worker"]),
            "worker"
        );
        assert_eq!(of(&["main", criterion]), "(criterion)");
        assert_eq!(frame("a::hot"), "a::hot");
    }

    #[inline(never)]
    fn spins_for_the_sampler(until: Instant) -> u64 {
        let mut sum = 0_u64;
        while Instant::now() < until {
            for i in 0..10_000 {
                sum = black_box(sum ^ i);
            }
        }
        sum
    }

    #[test]
    fn what_the_process_does_is_sampled() {
        let sampler = Sampler::start().unwrap();
        black_box(spins_for_the_sampler(
            Instant::now() + Duration::from_millis(400),
        ));
        let (stacks, samples) = sampler.stop().unwrap();
        assert!(samples > 0, "{stacks:?}");
        let is_ours = |line: &String| line.contains("spins_for_the_sampler");
        assert!(stacks.iter().any(is_ours), "{stacks:?}");
    }
}
