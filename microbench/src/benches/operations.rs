//! The operations on a GPU, at the shapes of real models: every launch timed by itself, nothing of its inputs in the second-level
//! cache, the results checked first. In test mode at small shapes on the emulated device.

use std::rc::Rc;

use stepscope_engine::model::{ModelConfig, find_config};
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::Timer;
use stepscope_profiler::microbench::Row;

use super::arguments::Mode;
use super::gpu::{Taken, settings};
use super::peer::Peers;
use super::roofs::Roofs;
use super::stopwatch::Stopwatch;
use super::suite::{Case, Device, Rate, Suite};
use crate::Error;
use crate::measure::{Bench, Subject};
use crate::operations::{self, copies_for_cold_cache};

/// The models whose shapes are measured.
const MODELS: [&str; 2] = ["qwen2.5-7b", "llama-3.1-8b"];
/// The random inputs.
const SEED: u64 = 1;

/// An operation at a shape.
struct Planned {
    group: &'static str,
    operation: &'static str,
    /// What of the model it is, and its numbers, for people.
    name: String,
    /// As [`operations::Operation::shape`] takes it.
    shape: String,
}

/// Of each group the example of each operation: what the emulated device does in a second.
fn small() -> Vec<Planned> {
    [
        ("gemm", "gemm"),
        ("gemv", "gemv"),
        ("attention", "attention_prefill"),
        ("attention", "attention_decode"),
        ("norm", "rms_norm"),
        ("norm", "add_rms_norm"),
        ("norm", "qk_norm"),
        ("norm", "silu_mul"),
        ("rope_kv", "rope_kv"),
        ("sampling", "argmax"),
        ("sampling", "sample"),
    ]
    .into_iter()
    .map(|(group, operation)| Planned {
        group,
        operation,
        name: format!("example of {operation}"),
        shape: String::new(),
    })
    .collect()
}

fn of_models() -> Result<Vec<Planned>, Error> {
    let mut all = Vec::new();
    for model in MODELS {
        let (_, config) = find_config(model).map_err(|error| Error::Unusable(error.to_string()))?;
        of_model(model, &config, &mut all);
    }
    Ok(all)
}

fn of_model(model: &str, config: &ModelConfig, all: &mut Vec<Planned>) {
    let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
    let (hidden, intermediate) = (config.hidden_size, config.intermediate_size);
    let qkv = (heads + 2 * kv_heads) * head_dim;
    let matrices = [
        ("qkv", qkv, hidden),
        ("o", hidden, heads * head_dim),
        ("gate_up", 2 * intermediate, hidden),
        ("down", hidden, intermediate),
        ("lm_head", config.vocab_size, hidden),
    ];
    let mut add = |group, operation, name: String, shape: String| {
        all.push(Planned {
            group,
            operation,
            name: format!("{model} {name}"),
            shape,
        });
    };
    for (name, n, k) in matrices {
        // More rows than that would take the CPU, which computes the reference, longer than the GPU is measured.
        for m in [1, 8, 64, 1024] {
            // A prefill computes the logits of last tokens only.
            if m > 64 && name == "lm_head" {
                continue;
            }
            let (group, operation, shape) = match m {
                1 => ("gemv", "gemv", format!("N={n},K={k}")),
                // Few rows are bound by the weight, as one is.
                2..=8 => ("gemv", "gemm", format!("M={m},N={n},K={k}")),
                _ => ("gemm", "gemm", format!("M={m},N={n},K={k}")),
            };
            add(group, operation, format!("{name} {m}x{n}x{k}"), shape);
        }
    }
    let of_heads = format!("heads={heads},kv_heads={kv_heads},head_dim={head_dim}");
    for (requests, queries) in [(1, 1024), (8, 1024), (1, 4096)] {
        add(
            "attention",
            "attention_prefill",
            format!("prefill {requests}x{queries}"),
            format!("requests={requests},query_len={queries},kv_len={queries},{of_heads}"),
        );
    }
    for (requests, positions) in [(1, 1024), (8, 1024), (64, 1024), (1, 16384)] {
        add(
            "attention",
            "attention_decode",
            format!("decode {requests} of {positions}"),
            format!("requests={requests},kv_len={positions},{of_heads}"),
        );
    }
    for tokens in [1, 64, 8192] {
        for (operation, width) in [("add_rms_norm", hidden), ("silu_mul", intermediate)] {
            add(
                "norm",
                operation,
                format!("{operation} {tokens}x{width}"),
                format!("rows={tokens},width={width}"),
            );
        }
        add(
            "rope_kv",
            "rope_kv",
            format!("{tokens} tokens"),
            format!("tokens={tokens},{of_heads}"),
        );
    }
    for requests in [1, 64] {
        for operation in ["argmax", "sample"] {
            let vocab = config.vocab_size;
            add(
                "sampling",
                operation,
                format!("{operation} {requests}x{vocab}"),
                format!("requests={requests},vocab={vocab}"),
            );
        }
    }
}

impl Planned {
    fn case(&self, function: &str, roofs: &Roofs) -> Result<Case, Error> {
        let operation = operations::find(self.operation)?;
        let work = operation.work(&operation.shape(&self.shape)?);
        Ok(Case {
            group: self.group,
            function: function.to_owned(),
            shape: self.name.clone(),
            operation: self.operation,
            dtype: "bf16",
            rate: Rate::Work(work),
            bound: roofs.of_cold(),
        })
    }
}

pub(super) fn run(suite: &mut Suite) -> Result<(), Error> {
    let planned = match suite.is_test() {
        true => small(),
        false => of_models()?,
    };
    let names = planned
        .iter()
        .map(|planned| planned.case("cuda", &Roofs::default()));
    let all = names.collect::<Result<Vec<_>, _>>()?;
    if suite.mode() == Mode::List {
        for case in &all {
            suite.on_device(case, &mut |_, _| Ok(0.0));
        }
        return Ok(());
    }
    for group in ["gemm", "gemv", "attention", "norm", "rope_kv", "sampling"] {
        let of_group: Vec<Case> = all
            .iter()
            .filter(|case| case.group == group)
            .cloned()
            .collect();
        suite.skip_without_device(group, &of_group);
    }
    if !suite.wants_any(&all) {
        return Ok(());
    }
    let (Device::Gpu(cuda) | Device::Emulated(cuda)) = suite.device().clone() else {
        return Ok(());
    };
    let roofs = suite.gpu_roofs(&cuda);
    if suite.is_test() {
        println!("kernels run on {}", cuda.context().device().name);
    }
    let peers = Peers::open(&cuda);
    for planned in &planned {
        operation(suite, &cuda, planned, &roofs, &peers)?;
    }
    Ok(())
}

fn operation(
    suite: &mut Suite,
    cuda: &Rc<Cuda>,
    planned: &Planned,
    roofs: &Roofs,
    peers: &Peers,
) -> Result<(), Error> {
    let ours = planned.case("cuda", roofs)?;
    let theirs = Case {
        function: peers.name().to_owned(),
        ..ours.clone()
    };
    let work = ours.work();
    let has_peer = peers.know(planned.operation);
    let bench = Bench::new(cuda)?;
    let (mut taken, mut of_peer) = (Taken::default(), Taken::default());
    let mut kernel = "";
    let mut bound = None;
    {
        let mut subjects = None;
        let make = || -> Result<_, Error> {
            let operation = operations::find(planned.operation)?;
            let case = operations::Case::new(operation, &operation.shape(&planned.shape)?, SEED)?;
            let copies = copies_for_cold_cache(cuda, &case);
            let peer = match has_peer {
                true => Some(case.cublaslt(cuda, copies)?),
                false => None,
            };
            Ok((case.builtin(cuda, copies)?, peer))
        };
        let mut draw = |watch: &Stopwatch, n: u64, is_ours: bool| -> Result<f64, Error> {
            if subjects.is_none() {
                subjects = Some(make()?);
            }
            let Some((ours, peer)) = &mut subjects else {
                return Err(Error::Unusable("nothing was made".to_owned()));
            };
            if watch.timer() == Timer::Cupti {
                let subject: &mut dyn Subject = match (is_ours, peer) {
                    (false, Some(peer)) => peer,
                    _ => ours,
                };
                let time = by_kernels(&bench, watch, subject, n)?;
                let l2_bytes = cuda.context().device().limits.l2_bytes;
                let together = work.bytes.saturating_mul(subject.copies() as u64);
                bound = (together <= l2_bytes).then(|| roofs.of(work)).flatten();
                watch.bound_by(bound.as_ref());
                return Ok(time);
            }
            loop {
                let wanted = if is_ours { &mut taken } else { &mut of_peer };
                if let Some(time) = wanted.next(n) {
                    bound = wanted.bound(roofs, work);
                    watch.bound_by(bound.as_ref());
                    return Ok(time);
                }
                let settings = settings(n);
                let is_timed = match peer {
                    Some(peer) => {
                        let pair: [&mut dyn Subject; 2] = [ours, peer];
                        let [a, b] = bench.measure_pair(pair, &settings)?;
                        let is_timed = a.series().is_some();
                        taken.add(a);
                        of_peer.add(b);
                        is_timed
                    }
                    None => {
                        let measured = bench.measure(ours, &settings)?;
                        let is_timed = measured.series().is_some();
                        taken.add(measured);
                        is_timed
                    }
                };
                kernel = ours.kernel();
                if !is_timed {
                    return Ok(0.0);
                }
            }
        };
        suite.on_device(&ours, &mut |watch, n| draw(watch, n, true));
        if has_peer {
            suite.on_device(&theirs, &mut |watch, n| draw(watch, n, false));
        }
    }
    if let Some(bound) = bound {
        for case in [&theirs, &ours] {
            suite.amend(case, |row| row.roof = Some(bound.roof.clone()));
        }
    }
    amend(suite, &ours, &theirs, kernel, taken, of_peer, peers);
    Ok(())
}

/// Every sample, and the peer's, instead of the sums that criterion got.
fn amend(
    suite: &mut Suite,
    ours: &Case,
    theirs: &Case,
    kernel: &str,
    taken: Taken,
    of_peer: Taken,
    peers: &Peers,
) {
    let peer = of_peer.all.clone();
    let peer = peer.map(|theirs| peers.row(taken.all.as_ref(), theirs));
    suite.amend(theirs, |row| {
        if let Some(series) = of_peer.all {
            row.series = Some(series);
        }
    });
    suite.amend(ours, |row: &mut Row| {
        if taken.all.is_some() {
            row.series = taken.all;
        }
        if !kernel.is_empty() {
            row.reason = Some(format!("the kernel is {kernel}"));
        }
        row.peers.extend(peer);
    });
}

/// The times of kernels alone, by CUPTI: what lies between launches is not in them.
fn by_kernels(
    bench: &Bench<'_>,
    watch: &Stopwatch,
    subject: &mut dyn Subject,
    n: u64,
) -> Result<f64, Error> {
    let copies = subject.copies();
    for copy in 0..copies {
        subject.launch(copy)?;
    }
    bench.cuda().stream().synchronize()?;
    subject.check()?;
    watch.time(|| {
        for index in 0..n as usize {
            subject.launch(index % copies)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::roofs::tests::of_h100;
    use super::*;

    #[test]
    fn every_planned_shape_is_one_of_its_operation() {
        for planned in small().into_iter().chain(of_models().unwrap()) {
            let case = planned.case("cuda", &of_h100());
            let case = case.unwrap_or_else(|error| panic!("{}: {error}", planned.name));
            assert!(case.bound.is_some());
        }
    }

    #[test]
    fn names_tell_all_benchmarks_apart() {
        let mut names: Vec<String> = of_models()
            .unwrap()
            .iter()
            .map(|planned| planned.case("cuda", &Roofs::default()).unwrap().id())
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
