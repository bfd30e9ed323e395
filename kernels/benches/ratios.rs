//! How close the CPU's matrix products come to what this machine can do, measured side by side in one run.
//!
//! `cargo bench -p stepscope-kernels --bench ratios -- [--quick]`; other flags of criterion change nothing here.
//!
//! Three tables. The first streams the weights of all layers of a model, which no cache holds, and compares with the read
//! bandwidth of memory. The second compares prefill products with the `gemm` crate on the same threads, in float32. The third runs
//! whole steps and says which operation takes which share.
//!
//! What is compared runs in turns, so that a change of clock or a neighbour meets both; each turn counts with the best of its
//! runs, and the table shows the median turn.
#![allow(clippy::print_stdout)] // the table is what this program is for

use std::time::Instant;

use stepscope_kernels::sample::SamplingParams;
use stepscope_kernels::{
    AttentionBatch, Backend, Cpu, CpuMatrix, DType, Error, QkvLayout, dummy_weights,
};

struct Model {
    name: &'static str,
    layers: usize,
    /// `(name, rows, cols)` of a layer's matrices.
    matrices: [(&'static str, usize, usize); 4],
    /// Rows and columns of the output head.
    head: (usize, usize),
}

const MODELS: [Model; 2] = [
    Model {
        name: "SmolLM2-135M",
        layers: 30,
        matrices: [
            ("qkv", 960, 576),
            ("o", 576, 576),
            ("gate_up", 3072, 576),
            ("down", 576, 1536),
        ],
        head: (49152, 576),
    },
    Model {
        name: "Qwen2.5-0.5B",
        layers: 24,
        matrices: [
            ("qkv", 1152, 896),
            ("o", 896, 896),
            ("gate_up", 9728, 896),
            ("down", 896, 4864),
        ],
        head: (151_936, 896),
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` says `--bench`; `cargo test --all-targets`, which runs this too, does not.
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|a| a == name);
    if has("--list") {
        println!("ratios: benchmark");
        return Ok(());
    }
    let quick = has("--quick") || !has("--bench");
    let rounds = if quick { 3 } else { 15 };
    let cpu = Cpu::new(None)?;
    let roofs = cpu.measure_roofs();
    println!("{} threads, {}", cpu.threads(), cpu.simd());
    println!("  multiply-adds {:7.1} GFLOP/s", roofs.flops_per_s / 1e9);
    for level in &roofs.memory {
        println!(
            "  {:<4} reads    {:7.1} GB/s",
            level.name,
            level.bytes_per_s / 1e9
        );
    }
    let models = if quick { &MODELS[..1] } else { &MODELS[..] };
    for model in models {
        stream(&cpu, model, rounds)?;
    }
    for model in models {
        prefill(&cpu, model, rounds)?;
    }
    step(&cpu, "prefill", 512, 512, rounds)?;
    step(&cpu, "prefill", 1024, 1024, rounds)?;
    step(&cpu, "decode", 1, 16, rounds)?;
    step(&cpu, "decode", 1, 1024, rounds)?;
    Ok(())
}

/// Seconds of the shortest of `runs` runs.
fn best(runs: usize, mut run: impl FnMut()) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn filled(cpu: &Cpu, len: usize) -> Result<<Cpu as Backend>::Buffer, Box<dyn std::error::Error>> {
    let mut buffer = cpu.buffer(len)?;
    for (i, x) in buffer.iter_mut().enumerate() {
        *x = (i % 17) as f32 * 0.1 - 0.8;
    }
    Ok(buffer)
}

/// All products of a decode step, in the order of the step.
fn stream(cpu: &Cpu, model: &Model, rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut weights: Vec<CpuMatrix> = Vec::new();
    for _ in 0..model.layers {
        for (_, rows, cols) in model.matrices {
            weights.push(cpu.matrix(&[dummy_weights::uniform(
                cpu,
                DType::BF16,
                &[rows, cols],
            )?])?);
        }
    }
    let (rows, cols) = model.head;
    weights.push(cpu.matrix(&[dummy_weights::uniform(cpu, DType::BF16, &[rows, cols])?])?);
    let bytes: usize = weights.iter().map(|w| w.rows() * w.cols() * 2).sum();
    println!(
        "\n{}: one step over {} matrices, {:.0} MB of bfloat16 (medians of {rounds} turns)",
        model.name,
        weights.len(),
        bytes as f64 / 1e6
    );
    println!("   m   step ms   weights GB/s   memory GB/s   ratio   GFLOP/s   kernel");
    for m in [1, 2, 4, 8, 16] {
        let x = filled(cpu, m * 4864)?;
        let mut out = cpu.buffer(m * rows)?;
        let (mut ours, mut memory) = (Vec::new(), Vec::new());
        let mut kernel = "";
        for _ in 0..rounds {
            let roofs = cpu.measure_roofs();
            memory.extend(roofs.memory.last().map(|l| l.bytes_per_s / 1e9));
            ours.push(best(5, || {
                for weight in &weights {
                    kernel = cpu.gemm(&x, m, weight, None, &mut out).expect("shapes fit");
                }
            }));
        }
        let (step, memory) = (median(ours), median(memory));
        let rate = bytes as f64 / step / 1e9;
        println!(
            "{m:4} {:9.2} {rate:14.1} {memory:13.1} {:7.2} {:9.1}   {kernel}",
            step * 1e3,
            rate / memory,
            rate * m as f64,
        );
    }
    Ok(())
}

/// The products of a prefill, against the `gemm` crate.
fn prefill(cpu: &Cpu, model: &Model, rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "\n{}: prefill products, GFLOP/s (medians of {rounds} turns)",
        model.name
    );
    println!(
        "  matrix      m      n      k   bfloat16   float32   gemm crate   bfloat16 / gemm   float32 / gemm"
    );
    for m in [64, 512] {
        let mut totals = [0.0; 3];
        for (name, n, k) in model.matrices {
            let narrow = dummy_weights::uniform(cpu, DType::BF16, &[n, k])?;
            let wide = narrow.to_dtype(DType::F32)?;
            let theirs = wide.to_f32();
            let ours = [cpu.matrix(&[narrow])?, cpu.matrix(&[wide])?];
            let x = filled(cpu, m * k)?;
            let mut out = cpu.buffer(m * n)?;
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            let repeats = (512 / m).clamp(1, 8);
            for _ in 0..rounds {
                for (weight, times) in ours.iter().zip(&mut times) {
                    times.push(best(3, || {
                        for _ in 0..repeats {
                            cpu.gemm(&x, m, weight, None, &mut out).expect("shapes fit");
                        }
                    }));
                }
                times[2].push(best(3, || {
                    for _ in 0..repeats {
                        their_gemm(&x, m, &theirs, n, k, &mut out);
                    }
                }));
            }
            let flops = (2 * m * n * k * repeats) as f64;
            let rates = times.map(|t| {
                let t = median(t);
                (flops / t / 1e9, t / repeats as f64)
            });
            for (total, rate) in totals.iter_mut().zip(rates) {
                *total += rate.1;
            }
            line(name, m, n, k, rates.map(|r| r.0));
        }
        let flops: usize = model.matrices.iter().map(|(_, n, k)| 2 * m * n * k).sum();
        line("layer", m, 0, 0, totals.map(|t| flops as f64 / t / 1e9));
    }
    Ok(())
}

fn line(name: &str, m: usize, n: usize, k: usize, [bf16, f32, gemm]: [f64; 3]) {
    println!(
        "  {name:<8} {m:4} {n:6} {k:6} {bf16:10.1} {f32:9.1} {gemm:12.1} {:17.2} {:16.2}",
        bf16 / gemm,
        f32 / gemm
    );
}

/// `out = x @ weight^T` by the `gemm` crate, on all threads.
fn their_gemm(x: &[f32], m: usize, weight: &[f32], n: usize, k: usize, out: &mut [f32]) {
    assert!(x.len() >= m * k && weight.len() >= n * k && out.len() >= m * n);
    // SAFETY: the slices hold the shapes, as just checked, with these strides.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            weight.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

/// A whole step of SmolLM2-135M over one request, and the share of each operation.
fn step(
    cpu: &Cpu,
    kind: &str,
    queries: usize,
    positions: usize,
    rounds: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    const LAYOUT: QkvLayout = QkvLayout {
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
    };
    const NAMES: [&str; 11] = [
        "embedding",
        "norm",
        "qkv",
        "rope_kv",
        "attention",
        "o",
        "gate_up",
        "silu_mul",
        "down",
        "head",
        "sample",
    ];
    let model = &MODELS[0];
    let (vocab, width) = model.head;
    let dummy = |rows, cols| -> Result<CpuMatrix, Error> {
        cpu.matrix(&[dummy_weights::uniform(cpu, DType::BF16, &[rows, cols])?])
    };
    let head = dummy(vocab, width)?;
    let mut layers = Vec::new();
    for _ in 0..model.layers {
        let matrices: Result<Vec<CpuMatrix>, Error> =
            model.matrices.iter().map(|m| dummy(m.1, m.2)).collect();
        layers.push(matrices?);
    }
    let norm = vec![1.0; width];
    let frequencies: Vec<f64> = (0..32)
        .map(|i| 10_000_f64.powf(-f64::from(i) / 32.0))
        .collect();
    let rope = cpu.rope_table(&frequencies, positions)?;
    let mut kv = cpu.kv_pool(model.layers, positions, LAYOUT, DType::BF16)?;
    let slots: Vec<i32> = (0..positions as i32).collect();
    let own = slots[positions - queries..].to_vec();
    let (query_start, kv_len) = (vec![0, queries as i32], vec![positions as i32]);
    let batch = AttentionBatch {
        requests: 1,
        tokens: queries,
        max_query_len: queries,
        max_kv_len: positions,
        query_start: &query_start,
        kv_len: &kv_len,
        page_table: &slots,
        max_pages: positions,
        page_size: 1,
    };
    let ids = vec![7; queries];
    let intermediate = model.matrices[3].2;
    let mut hidden = cpu.buffer(queries * width)?;
    let (mut residual, mut normed) = (cpu.buffer(queries * width)?, cpu.buffer(queries * width)?);
    let mut qkv = cpu.buffer(queries * LAYOUT.width())?;
    let (mut gate_up, mut gated) = (
        cpu.buffer(queries * 2 * intermediate)?,
        cpu.buffer(queries * intermediate)?,
    );
    let (mut last, mut logits) = (cpu.buffer(width)?, cpu.buffer(vocab)?);
    let mut token = cpu.indices(1)?;
    let mut turns = Vec::new();
    for _ in 0..2 * rounds {
        let mut shares = [0.0; NAMES.len()];
        let mut clock = Instant::now();
        let start = clock;
        let mut lap = |name: &str| {
            let now = Instant::now();
            let place = NAMES
                .iter()
                .position(|n| *n == name)
                .expect("a name of the list");
            shares[place] += (now - clock).as_secs_f64();
            clock = now;
        };
        cpu.embedding(&ids, queries, &head, &mut hidden)?;
        residual.fill(0.0);
        lap("embedding");
        for (i, weights) in layers.iter().enumerate() {
            cpu.add_rms_norm(&hidden, &mut residual, queries, &norm, 1e-5, &mut normed)?;
            lap("norm");
            cpu.gemm(&normed, queries, &weights[0], None, &mut qkv)?;
            lap("qkv");
            cpu.rope_kv(&mut qkv, queries, LAYOUT, &own, &own, &rope, &mut kv, i)?;
            lap("rope_kv");
            if queries > 1 {
                cpu.attention_prefill(&qkv, LAYOUT, &batch, &kv, i, &mut normed)?;
            } else {
                cpu.attention_decode(&qkv, LAYOUT, &batch, &kv, i, &mut normed)?;
            }
            lap("attention");
            cpu.gemm(&normed, queries, &weights[1], None, &mut hidden)?;
            lap("o");
            cpu.add_rms_norm(&hidden, &mut residual, queries, &norm, 1e-5, &mut normed)?;
            lap("norm");
            cpu.gemm(&normed, queries, &weights[2], None, &mut gate_up)?;
            lap("gate_up");
            cpu.silu_mul(&gate_up, queries, intermediate, &mut gated)?;
            lap("silu_mul");
            cpu.gemm(&gated, queries, &weights[3], None, &mut hidden)?;
            lap("down");
        }
        cpu.add_rms_norm(&hidden, &mut residual, queries, &norm, 1e-5, &mut normed)?;
        lap("norm");
        cpu.gather_rows(&normed, &vec![queries as i32 - 1], 1, width, 0, &mut last)?;
        cpu.gemm(&last, 1, &head, None, &mut logits)?;
        lap("head");
        cpu.sample(&logits, 1, vocab, &SamplingParams::greedy(), 0, &mut token)?;
        lap("sample");
        turns.push((start.elapsed().as_secs_f64(), shares));
    }
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (seconds, shares) = turns[turns.len() / 2];
    println!(
        "\n{}: {kind} of {queries} at {positions} positions: {:.2} ms, {:.1} tokens/s (best {:.2} ms)",
        model.name,
        seconds * 1e3,
        queries as f64 / seconds,
        turns[0].0 * 1e3
    );
    for (name, share) in NAMES.iter().zip(shares) {
        println!(
            "  {name:<10} {:9.3} ms {:5.1} %",
            share * 1e3,
            share / seconds * 100.0
        );
    }
    Ok(())
}
