//! The operations on the CPU device: groups `memory`, `gemm`, `gemv`, `attention`, `norm`, `rope_kv` and `sampling`.
//!
//! Shapes are those of SmolLM2-135M. A product that repeats finds its weights in the last-level cache where that is large enough, and
//! is held against what that gives; whole steps, whose weights come from memory, are measured in `decode`.

use std::hint::black_box;
use std::rc::Rc;

use stepscope_kernels::sample::SamplingParams;
use stepscope_kernels::{
    AttentionBatch, Backend, Cost, Cpu, CpuBuffer, CpuMatrix, DType, QkvLayout, Traffic,
    attention_decode, attention_prefill, dummy_weights, gemm, rms_norm, rope_kv, sample, silu_mul,
};

use super::cpu_roofs::{CpuRoofs, WorkingSet};
use super::suite::{Case, Rate, Suite, wall};
use crate::{Error, Work};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCAB: usize = 49152;
const LAYOUT: QkvLayout = QkvLayout {
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
};
/// Rows and columns.
const MATRICES: [(&str, usize, usize); 5] = [
    ("qkv", 960, HIDDEN),
    ("o", HIDDEN, HIDDEN),
    ("gate_up", 2 * INTERMEDIATE, HIDDEN),
    ("down", HIDDEN, INTERMEDIATE),
    ("lm_head", VOCAB, HIDDEN),
];

struct Context {
    cpu: Rc<Cpu>,
    /// Where times are measured.
    roofs: Option<Rc<CpuRoofs>>,
    is_test: bool,
}

impl Context {
    /// A benchmark that goes over `set` again and again.
    fn case(
        &self,
        suite: &Suite,
        group: &'static str,
        operation: &'static str,
        shape: String,
        cost: Cost,
        set: WorkingSet,
    ) -> Case {
        let mut case = Case {
            group,
            function: "cpu".to_owned(),
            shape,
            operation,
            // Of what is stored; the CPU device's activations are f32.
            dtype: match operation {
                "gemm" | "attention_decode" | "attention_prefill" | "rope_kv" => "bf16",
                _ => "f32",
            },
            rate: Rate::Work(Work {
                flops: cost.flops,
                bytes: cost.bytes(),
            }),
            bound: None,
        };
        if let Some(roofs) = &self.roofs
            && suite.wants(&case.id())
        {
            case.bound = Some(roofs.of(set));
        }
        case
    }

    fn filled(&self, len: usize) -> Result<CpuBuffer<f32>, Error> {
        let mut buffer = self.cpu.buffer(len)?;
        for (i, x) in buffer.iter_mut().enumerate() {
            *x = (i % 17) as f32 * 0.1 - 0.8;
        }
        Ok(buffer)
    }
}

/// Of an operation that reads far more than it writes, each byte once.
fn read(cost: &Cost) -> WorkingSet {
    WorkingSet {
        bytes: cost.bytes(),
        traffic: Traffic::Read,
    }
}

/// Of an operation that writes about as much as it reads, on so many bytes.
fn updated(bytes: usize) -> WorkingSet {
    WorkingSet {
        bytes: bytes as u64,
        traffic: Traffic::Update,
    }
}

/// The inputs of a benchmark, made when it first runs.
fn ready<T>(
    known: &mut Option<T>,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<&mut T, Error> {
    if known.is_none() {
        *known = Some(make()?);
    }
    known
        .as_mut()
        .ok_or_else(|| Error::Unusable("nothing was made".to_owned()))
}

/// That a result is numbers.
fn finite(out: &[f32]) -> Result<(), Error> {
    match out.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Wrong(format!(
            "element {at} of the result is {}",
            out[at]
        ))),
    }
}

pub(super) fn run(suite: &mut Suite) -> Result<(), Error> {
    // A filter may mean none of these, and roofs take a second to measure: first the names alone.
    let names = Context {
        cpu: Rc::new(Cpu::new(Some(1))?),
        roofs: None,
        is_test: suite.is_test(),
    };
    let is_ours = suite.only_names(|suite| all(suite, &names));
    if !is_ours {
        return Ok(());
    }
    let (cpu, roofs) = suite.cpu()?;
    all(
        suite,
        &Context {
            cpu,
            roofs,
            ..names
        },
    );
    Ok(())
}

fn all(suite: &mut Suite, context: &Context) {
    memory(suite, context);
    products(suite, context, "gemm", &[16, 64, 512]);
    products(suite, context, "gemv", &[1, 4]);
    attention(suite, context);
    norm(suite, context);
    rotation(suite, context);
    sampling(suite, context);
}

/// One thread's copies and sums: what code outside of the kernels gets.
fn memory(suite: &mut Suite, context: &Context) {
    let sizes: [(&str, usize); 4] = [
        ("32 KiB", 32 << 10),
        ("1 MiB", 1 << 20),
        ("16 MiB", 16 << 20),
        ("256 MiB", 256 << 20),
    ];
    for (name, bytes) in sizes {
        if context.is_test && bytes > 1 << 20 {
            continue;
        }
        let of = |what: &str, moved: u64| Case {
            group: "memory",
            function: format!("cpu {what}"),
            shape: name.to_owned(),
            operation: "memory",
            dtype: "f32",
            rate: Rate::Bytes(moved),
            bound: None,
        };
        let len = bytes / 4;
        let mut data = None;
        suite.host(&of("read, one thread", bytes as u64), &mut |n| {
            let data = ready(&mut data, || Ok(vec![1_f32; len]))?;
            wall(n, || {
                // Enough sums for no addition to wait for another.
                let (chunks, _) = black_box(&*data).as_chunks::<64>();
                let mut sums = [0_f32; 64];
                for chunk in chunks {
                    for (sum, x) in sums.iter_mut().zip(chunk) {
                        *sum += x;
                    }
                }
                black_box(sums);
                Ok(())
            })
        });
        let mut data = None;
        suite.host(&of("copy, one thread", 2 * bytes as u64), &mut |n| {
            let (from, to) = ready(&mut data, || Ok((vec![1_f32; len], vec![0_f32; len])))?;
            wall(n, || {
                to.copy_from_slice(black_box(from));
                black_box(&mut *to);
                Ok(())
            })
        });
    }
}

fn products(suite: &mut Suite, context: &Context, group: &'static str, rows: &[usize]) {
    let cpu = &context.cpu;
    for (name, n, k) in MATRICES {
        for &m in rows {
            // A prefill computes the logits of last tokens only.
            let is_never_run = m > 16 && n == VOCAB;
            if is_never_run || (context.is_test && (m > 16 || n > 1000)) {
                continue;
            }
            let cost = gemm::cost(m, n, k, false, DType::BF16, DType::F32);
            let shape = format!("smollm2-135m {name} {m}x{n}x{k}");
            let mut inputs: Option<(CpuMatrix, CpuBuffer<f32>, CpuBuffer<f32>)> = None;
            suite.host(
                &context.case(suite, group, "gemm", shape, cost, read(&cost)),
                &mut |count| {
                    let (weight, x, out) = ready(&mut inputs, || {
                        let weight = dummy_weights::uniform(cpu, DType::BF16, &[n, k])?;
                        Ok((
                            cpu.matrix(&[weight])?,
                            context.filled(m * k)?,
                            cpu.buffer(m * n)?,
                        ))
                    })?;
                    let time = wall(count, || {
                        cpu.gemm(black_box(x), m, weight, None, out)?;
                        Ok(())
                    })?;
                    finite(out)?;
                    Ok(time)
                },
            );
        }
    }
}

fn attention(suite: &mut Suite, context: &Context) {
    let cpu = &context.cpu;
    for (queries, positions) in [(512, 512), (1024, 1024), (1, 512), (1, 4096)] {
        if context.is_test && queries * positions > 512 {
            continue;
        }
        let is_decode = queries == 1;
        let (operation, cost) = match is_decode {
            true => (
                "attention_decode",
                attention_decode::cost(&[positions], LAYOUT, DType::F32, DType::BF16),
            ),
            false => (
                "attention_prefill",
                attention_prefill::cost(&[(queries, positions)], LAYOUT, DType::F32, DType::BF16),
            ),
        };
        let kind = if is_decode { "decode" } else { "prefill" };
        let shape = format!("smollm2-135m {kind} {queries} of {positions}");
        let mut inputs = None;
        suite.host(
            &context.case(suite, "attention", operation, shape, cost, read(&cost)),
            &mut |count| {
                let (qkv, kv, out) = ready(&mut inputs, || {
                    Ok((
                        context.filled(queries * LAYOUT.width())?,
                        cpu.kv_pool(1, positions, LAYOUT, DType::BF16)?,
                        context.filled(queries * LAYOUT.q_width())?,
                    ))
                })?;
                let pages: Vec<i32> = (0..positions as i32).collect();
                let (query_start, kv_len) = (vec![0, queries as i32], vec![positions as i32]);
                let batch = AttentionBatch {
                    requests: 1,
                    tokens: queries,
                    max_query_len: queries,
                    max_kv_len: positions,
                    query_start: &query_start,
                    kv_len: &kv_len,
                    page_table: &pages,
                    max_pages: positions,
                    page_size: 1,
                };
                let time = wall(count, || {
                    match is_decode {
                        true => cpu.attention_decode(qkv, LAYOUT, &batch, kv, 0, out)?,
                        false => cpu.attention_prefill(qkv, LAYOUT, &batch, kv, 0, out)?,
                    };
                    Ok(())
                })?;
                finite(out)?;
                Ok(time)
            },
        );
    }
}

fn norm(suite: &mut Suite, context: &Context) {
    let cpu = &context.cpu;
    for rows in [1, 512] {
        let shape = format!("smollm2-135m add_rms_norm {rows}x{HIDDEN}");
        let cost = rms_norm::add_cost(rows, HIDDEN, DType::F32);
        let mut inputs = None;
        suite.host(
            &context.case(
                suite,
                "norm",
                "add_rms_norm",
                shape,
                cost,
                updated(3 * 4 * rows * HIDDEN),
            ),
            &mut |count| {
                let (x, residual, weight, out) = ready(&mut inputs, || {
                    let len = rows * HIDDEN;
                    Ok((
                        context.filled(len)?,
                        context.filled(len)?,
                        vec![1.0; HIDDEN],
                        cpu.buffer(len)?,
                    ))
                })?;
                // The residual grows with every run: it starts anew with every sample.
                residual.fill(0.5);
                let time = wall(count, || {
                    cpu.add_rms_norm(x, residual, rows, weight, 1e-5, out)?;
                    Ok(())
                })?;
                finite(out)?;
                Ok(time)
            },
        );
        let shape = format!("smollm2-135m silu_mul {rows}x{INTERMEDIATE}");
        let cost = silu_mul::cost(rows, INTERMEDIATE, DType::F32);
        let mut inputs = None;
        suite.host(
            &context.case(
                suite,
                "norm",
                "silu_mul",
                shape,
                cost,
                updated(3 * 4 * rows * INTERMEDIATE),
            ),
            &mut |count| {
                let (gate_up, out) = ready(&mut inputs, || {
                    Ok((
                        context.filled(2 * rows * INTERMEDIATE)?,
                        cpu.buffer(rows * INTERMEDIATE)?,
                    ))
                })?;
                let time = wall(count, || {
                    cpu.silu_mul(gate_up, rows, INTERMEDIATE, out)?;
                    Ok(())
                })?;
                finite(out)?;
                Ok(time)
            },
        );
    }
}

fn rotation(suite: &mut Suite, context: &Context) {
    let cpu = &context.cpu;
    for tokens in [1, 512] {
        if context.is_test && tokens > 1 {
            continue;
        }
        let shape = format!("smollm2-135m {tokens} tokens");
        let cost = rope_kv::cost(tokens, LAYOUT, DType::F32, DType::BF16);
        let bytes = 4 * tokens * LAYOUT.width() + cost.kv_bytes as usize;
        let mut inputs = None;
        suite.host(
            &context.case(suite, "rope_kv", "rope_kv", shape, cost, updated(bytes)),
            &mut |count| {
                let (qkv, places, rope, kv) = ready(&mut inputs, || {
                    let frequencies: Vec<f64> = (0..32)
                        .map(|i| 10_000_f64.powf(-f64::from(i) / 32.0))
                        .collect();
                    let places: Vec<i32> = (0..tokens as i32).collect();
                    Ok((
                        context.filled(tokens * LAYOUT.width())?,
                        places,
                        cpu.rope_table(&frequencies, tokens)?,
                        cpu.kv_pool(1, tokens, LAYOUT, DType::BF16)?,
                    ))
                })?;
                let time = wall(count, || {
                    cpu.rope_kv(qkv, tokens, LAYOUT, places, places, rope, kv, 0)?;
                    Ok(())
                })?;
                finite(qkv)?;
                Ok(time)
            },
        );
    }
}

fn sampling(suite: &mut Suite, context: &Context) {
    let cpu = &context.cpu;
    let warm = SamplingParams {
        temperature: 0.8,
        ..SamplingParams::greedy()
    };
    let ways = [
        ("greedy", SamplingParams::greedy()),
        ("temperature 0.8", warm),
        ("top_k 50", SamplingParams { top_k: 50, ..warm }),
        ("top_p 0.9", SamplingParams { top_p: 0.9, ..warm }),
    ];
    for (name, params) in ways {
        for requests in [1, 8] {
            let shape = format!("smollm2-135m {name} {requests}x{VOCAB}");
            let cost = sample::cost(requests, VOCAB, DType::F32);
            let mut inputs = None;
            suite.host(
                &context.case(suite, "sampling", "sample", shape, cost, read(&cost)),
                &mut |count| {
                    let (logits, ids) = ready(&mut inputs, || {
                        Ok((context.filled(requests * VOCAB)?, vec![-1; requests]))
                    })?;
                    let mut step = 0;
                    let time = wall(count, || {
                        step += 1;
                        cpu.sample(logits, requests, VOCAB, &params, step, ids)?;
                        Ok(())
                    })?;
                    match ids.iter().find(|id| !(0..VOCAB as i32).contains(id)) {
                        None => Ok(time),
                        Some(id) => Err(Error::Wrong(format!("{id} is no token of {VOCAB}"))),
                    }
                },
            );
        }
    }
}
