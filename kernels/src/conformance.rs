//! Every operation on a device, held against the CPU device.
//!
//! A [`Case`] is an operation and a shape. It runs once on the CPU device, in float32, and twice on the device under test, on the
//! same numbers (rounded to the device's storage type first). Outputs are NaN before, and have a guard of NaN behind them; slots
//! of the KV pool that no request owns are NaN too. What must hold: each result lies within a rounding of the storage type, or
//! two where an operation rounds what it computes with; no guard is touched; both runs give the same bits.

use std::fmt;

use crate::cuda::{Cuda, CudaBuffer, CudaKvPool, round, widen};
use crate::philox;
use crate::sample::SamplingParams;
use crate::{
    AttentionBatch, Backend, Cpu, CpuBuffer, CpuKvPool, DType, Error, HostTensor, QkvLayout,
};

/// Elements behind an output that no kernel may touch.
const GUARD: usize = 64;

const EPS: f32 = 1e-5;

/// An operation and a shape.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the fields are those of the operations
pub enum Case {
    Embedding {
        tokens: usize,
        width: usize,
    },
    RmsNorm {
        rows: usize,
        width: usize,
        adds: bool,
    },
    QkNorm {
        tokens: usize,
        layout: QkvLayout,
    },
    Gemm {
        m: usize,
        n: usize,
        k: usize,
        has_bias: bool,
    },
    RopeKv {
        tokens: usize,
        layout: QkvLayout,
    },
    /// `(query rows, positions)` of each request, all of one query row where it is decode's.
    Attention {
        layout: QkvLayout,
        requests: Vec<(usize, usize)>,
        page_size: usize,
        decode: bool,
    },
    SiluMul {
        rows: usize,
        width: usize,
    },
    GatherRows {
        rows: usize,
        width: usize,
    },
    Argmax {
        requests: usize,
        vocab: usize,
    },
    Draw {
        requests: usize,
        vocab: usize,
        params: SamplingParams,
    },
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The kernel that ran, as the operation names it.
    pub kernel: String,
    /// Outputs compared.
    pub elements: usize,
    /// The largest difference, in units of what is allowed: up to 1 is right.
    pub worst: f64,
    /// Outputs that are not right.
    pub wrong: usize,
    /// No guard was touched.
    pub guards_whole: bool,
    /// Both runs gave the same bits.
    pub repeats: bool,
}

impl Outcome {
    /// Whether all is as it must be.
    pub fn is_right(&self) -> bool {
        self.wrong == 0 && self.guards_whole && self.repeats
    }
}

const fn layout(heads: usize, kv_heads: usize, head_dim: usize) -> QkvLayout {
    QkvLayout {
        heads,
        kv_heads,
        head_dim,
    }
}

/// The cases: shapes of models, and shapes with tails. `small` ones take an emulated device seconds.
pub fn cases(small: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |case| cases.push(case);
    for (tokens, width) in [(1, 896), (7, 100), (33, 3584)] {
        add(Case::Embedding { tokens, width });
        add(Case::GatherRows {
            rows: tokens,
            width,
        });
    }
    for (rows, width) in [(1, 4096), (5, 576), (3, 100), (17, 3584)] {
        for adds in [false, true] {
            add(Case::RmsNorm { rows, width, adds });
        }
        add(Case::SiluMul { rows, width });
    }
    for of in [layout(4, 2, 64), layout(6, 2, 128)] {
        add(Case::QkNorm {
            tokens: 5,
            layout: of,
        });
    }
    let mut gemms = vec![
        (1, 96, 128),
        (1, 200, 77),
        (2, 128, 256),
        (8, 64, 192),
        (17, 96, 130),
        (32, 256, 256),
        (40, 72, 64),
        (130, 200, 136),
    ];
    if !small {
        gemms.extend([
            (1, 4864, 896),
            (1, 37_888, 3584),
            (8, 3584, 18_944),
            (64, 4608, 3584),
            (64, 151_936, 896),
            (1000, 1152, 896),
            (1024, 28_672, 4096),
            (4096, 4096, 4096),
        ]);
    }
    for (index, (m, n, k)) in gemms.into_iter().enumerate() {
        add(Case::Gemm {
            m,
            n,
            k,
            has_bias: index % 2 == 1,
        });
    }
    let mut layouts = vec![
        layout(2, 1, 64),
        layout(3, 3, 80),
        layout(4, 2, 96),
        layout(7, 1, 128),
        layout(2, 1, 256),
    ];
    if !small {
        layouts.extend([
            layout(14, 2, 64),
            layout(28, 4, 128),
            layout(32, 8, 128),
            layout(64, 1, 64),
        ]);
    }
    for of in layouts {
        add(Case::RopeKv {
            tokens: 9,
            layout: of,
        });
        let prefills = match small {
            true => vec![(20, 20), (3, 40), (1, 1)],
            false => vec![(500, 500), (130, 1000), (1, 1), (64, 64), (65, 700)],
        };
        add(Case::Attention {
            layout: of,
            requests: prefills,
            page_size: 16,
            decode: false,
        });
        let decodes: &[&[usize]] = match small {
            true => &[&[1, 17, 70], &[300]],
            false => &[&[1, 17, 700, 1024], &[5000], &[1024; 64]],
        };
        for lens in decodes {
            let requests = lens.iter().map(|&len| (1, len)).collect();
            add(Case::Attention {
                layout: of,
                requests,
                page_size: 16,
                decode: true,
            });
        }
    }
    for (requests, vocab) in [(1, 1000), (5, 4097), (3, 151_936)] {
        if small && vocab > 5000 {
            continue;
        }
        add(Case::Argmax { requests, vocab });
        let params = SamplingParams {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            seed: 7,
        };
        add(Case::Draw {
            requests,
            vocab,
            params,
        });
    }
    cases
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |layout: &QkvLayout| {
            format!(
                "{} heads, {} kv, dim {}",
                layout.heads, layout.kv_heads, layout.head_dim
            )
        };
        match self {
            Case::Embedding { tokens, width } => write!(f, "embedding [{tokens}, {width}]"),
            Case::RmsNorm {
                rows,
                width,
                adds: false,
            } => write!(f, "rms_norm [{rows}, {width}]"),
            Case::RmsNorm {
                rows,
                width,
                adds: true,
            } => write!(f, "add_rms_norm [{rows}, {width}]"),
            Case::QkNorm { tokens, layout } => write!(f, "qk_norm {tokens} tokens, {}", of(layout)),
            Case::Gemm { m, n, k, has_bias } => {
                write!(
                    f,
                    "gemm {m} x {n} x {k}{}",
                    if *has_bias { ", bias" } else { "" }
                )
            }
            Case::RopeKv { tokens, layout } => write!(f, "rope_kv {tokens} tokens, {}", of(layout)),
            Case::Attention {
                layout,
                requests,
                decode,
                ..
            } => {
                let longest = requests.iter().map(|r| r.1).max().unwrap_or(0);
                let kind = if *decode { "decode" } else { "prefill" };
                write!(
                    f,
                    "attention_{kind} {} requests of up to {longest}, {}",
                    requests.len(),
                    of(layout)
                )
            }
            Case::SiluMul { rows, width } => write!(f, "silu_mul [{rows}, {width}]"),
            Case::GatherRows { rows, width } => write!(f, "gather_rows [{rows}, {width}]"),
            Case::Argmax { requests, vocab } => write!(f, "sample greedy [{requests}, {vocab}]"),
            Case::Draw {
                requests, vocab, ..
            } => write!(f, "sample top-k top-p [{requests}, {vocab}]"),
        }
    }
}

/// What a device must offer beside its operations.
trait Probe: Backend {
    /// A buffer with these values, and NaN behind them.
    fn filled(&self, values: &[f32]) -> Result<Self::Buffer, Error>;
    /// All values of a buffer, the guard's too.
    fn contents(&self, buffer: &Self::Buffer) -> Result<Vec<f32>, Error>;
    /// Makes all of a pool NaN.
    fn poison(&self, pool: &mut Self::KvPool) -> Result<(), Error>;

    /// A buffer of NaN, with a guard of NaN.
    fn poisoned(&self, len: usize) -> Result<Self::Buffer, Error> {
        self.filled(&vec![f32::NAN; len])
    }

    fn loaded(&self, values: &[i32]) -> Result<Self::Indices, Error> {
        let mut indices = self.indices(values.len())?;
        self.write_indices(&mut indices, values)?;
        Ok(indices)
    }
}

impl Probe for Cpu {
    fn filled(&self, values: &[f32]) -> Result<CpuBuffer<f32>, Error> {
        let mut buffer = self.buffer(values.len() + GUARD)?;
        buffer[..values.len()].copy_from_slice(values);
        buffer[values.len()..].fill(f32::NAN);
        Ok(buffer)
    }

    fn contents(&self, buffer: &CpuBuffer<f32>) -> Result<Vec<f32>, Error> {
        Ok(buffer.to_vec())
    }

    fn poison(&self, pool: &mut CpuKvPool) -> Result<(), Error> {
        pool.poison();
        Ok(())
    }
}

impl Probe for Cuda {
    fn filled(&self, values: &[f32]) -> Result<CudaBuffer, Error> {
        self.buffer_of(values, GUARD)
    }

    fn contents(&self, buffer: &CudaBuffer) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; buffer.len()];
        self.read_buffer(buffer, &mut values)?;
        Ok(values)
    }

    fn poison(&self, pool: &mut CudaKvPool) -> Result<(), Error> {
        pool.poison(self)
    }
}

/// Numbers in [-1, 1) as the storage type has them, the same for the same seed.
fn numbers(seed: u64, len: usize, dtype: DType) -> Vec<f32> {
    let values = philox::numbers(seed, len).into_iter();
    values.map(|x| stored(x, dtype)).collect()
}

/// A number after a way through the storage type, which is a 16-bit one.
fn stored(x: f32, dtype: DType) -> f32 {
    widen(round(x, dtype), dtype)
}

/// A matrix of random weights, each about `1 / sqrt(cols)`.
fn matrix<B: Backend>(
    b: &B,
    seed: u64,
    rows: usize,
    cols: usize,
    dtype: DType,
) -> Result<B::Matrix, Error> {
    let scale = 1.0 / (cols as f32).sqrt();
    let values = philox::numbers(seed, rows * cols);
    let values = values.into_iter().map(|x| x * scale).collect();
    b.matrix(&[HostTensor::from_f32_as(dtype, &[rows, cols], values)?])
}

fn vector<B: Backend>(b: &B, seed: u64, len: usize, dtype: DType) -> Result<B::Vector, Error> {
    let values = numbers(seed, len, dtype);
    b.vector(&[HostTensor::from_f32_as(dtype, &[len], values)?])
}

/// Rotations of 1024 positions, wavelengths as Llama's.
fn rope_table<B: Backend>(b: &B, head_dim: usize, positions: usize) -> Result<B::RopeTable, Error> {
    let pairs = head_dim / 2;
    let frequency = |pair: usize| 10_000f64.powf(-(pair as f64) / pairs as f64);
    b.rope_table(&(0..pairs).map(frequency).collect::<Vec<_>>(), positions)
}

/// Outputs of a run, each with how many elements belong to it; what follows is its guard.
struct Ran {
    kernel: &'static str,
    outputs: Vec<(Vec<f32>, usize)>,
}

impl Case {
    /// Runs it on `cuda`, twice, and on `cpu`.
    ///
    /// # Errors
    /// The device refused, or memory ran out.
    pub fn check(&self, cuda: &Cuda, cpu: &Cpu) -> Result<Outcome, Error> {
        let dtype = cuda.activation_dtype();
        let first = self.run(cuda, dtype)?;
        let second = self.run(cuda, dtype)?;
        let truth = self.run(cpu, dtype)?;
        let mut outcome = Outcome {
            kernel: first.kernel.to_owned(),
            elements: 0,
            worst: 0.0,
            wrong: 0,
            guards_whole: true,
            repeats: true,
        };
        for ((got, len), ((again, _), (truth, _))) in first
            .outputs
            .iter()
            .zip(second.outputs.iter().zip(&truth.outputs))
        {
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            outcome.repeats &= bits(&got[..*len]) == bits(&again[..*len]);
            outcome.guards_whole &= got[*len..].iter().all(|x| x.is_nan());
            let tolerance = self.tolerance(&truth[..*len], dtype);
            for (&got, &truth) in got[..*len].iter().zip(truth) {
                let units = f64::from((got - truth).abs()) / tolerance(truth);
                outcome.elements += 1;
                let units = if units.is_nan() { f64::INFINITY } else { units };
                outcome.wrong += usize::from(units > 1.0);
                outcome.worst = outcome.worst.max(units);
            }
        }
        Ok(outcome)
    }

    /// What a result may differ by: two roundings of it, and one of a typical result, since what is rounded on the way is as
    /// large; three in attention, which rounds queries, keys and weights. Tokens must be equal.
    fn tolerance(&self, truth: &[f32], dtype: DType) -> impl Fn(f32) -> f64 + use<> {
        let epsilon = match dtype {
            DType::F16 => 2f64.powi(-11),
            _ => 2f64.powi(-8),
        };
        let is_token = matches!(self, Case::Argmax { .. } | Case::Draw { .. });
        let on_the_way = match self {
            Case::Attention { .. } => 3.0,
            _ => 1.0,
        };
        let squares: f64 = truth.iter().map(|&x| f64::from(x).powi(2)).sum();
        let typical = on_the_way * (squares / truth.len().max(1) as f64).sqrt();
        move |x: f32| match is_token {
            true => 0.5,
            false => epsilon * (2.0 * f64::from(x.abs()) + typical),
        }
    }

    fn run<P: Probe>(&self, p: &P, dtype: DType) -> Result<Ran, Error> {
        let one = |kernel: &'static str, buffer: &P::Buffer, len: usize| -> Result<Ran, Error> {
            Ok(Ran {
                kernel,
                outputs: vec![(p.contents(buffer)?, len)],
            })
        };
        let random = |seed, len| numbers(seed, len, dtype);
        match self {
            &Case::Embedding { tokens, width } => {
                let table = matrix(p, 1, 50, width, dtype)?;
                let ids: Vec<i32> = (0..tokens).map(|t| (t * 7 % 50) as i32).collect();
                let mut out = p.poisoned(tokens * width)?;
                let kernel = p.embedding(&p.loaded(&ids)?, tokens, &table, &mut out)?;
                one(kernel, &out, tokens * width)
            }
            &Case::RmsNorm { rows, width, adds } => {
                let len = rows * width;
                let x = p.filled(&random(1, len))?;
                let weight = vector(p, 2, width, dtype)?;
                let mut out = p.poisoned(len)?;
                if !adds {
                    let kernel = p.rms_norm(&x, rows, &weight, EPS, &mut out)?;
                    return one(kernel, &out, len);
                }
                let mut residual = p.filled(&random(3, len))?;
                let kernel = p.add_rms_norm(&x, &mut residual, rows, &weight, EPS, &mut out)?;
                let outputs = vec![(p.contents(&out)?, len), (p.contents(&residual)?, len)];
                Ok(Ran { kernel, outputs })
            }
            &Case::QkNorm { tokens, layout } => {
                let len = tokens * layout.width();
                let mut qkv = p.filled(&random(1, len))?;
                let q = vector(p, 2, layout.head_dim, dtype)?;
                let k = vector(p, 3, layout.head_dim, dtype)?;
                let kernel = p.qk_norm(&mut qkv, tokens, layout, &q, &k, EPS)?;
                one(kernel, &qkv, len)
            }
            &Case::Gemm { m, n, k, has_bias } => {
                let x = p.filled(&random(1, m * k))?;
                let weight = matrix(p, 2, n, k, dtype)?;
                let bias = has_bias.then(|| vector(p, 3, n, dtype)).transpose()?;
                let mut out = p.poisoned(m * n)?;
                let kernel = p.gemm(&x, m, &weight, bias.as_ref(), &mut out)?;
                one(kernel, &out, m * n)
            }
            &Case::RopeKv { tokens, layout } => {
                let len = tokens * layout.width();
                let mut qkv = p.filled(&random(1, len))?;
                let positions: Vec<i32> = (0..tokens).map(|t| (t * 97 % 1000) as i32).collect();
                let slots: Vec<i32> = (0..tokens).map(|t| (t * 5 % 64) as i32).collect();
                let mut pool = p.kv_pool(1, 64, layout, dtype)?;
                p.poison(&mut pool)?;
                let kernel = p.rope_kv(
                    &mut qkv,
                    tokens,
                    layout,
                    &p.loaded(&positions)?,
                    &p.loaded(&slots)?,
                    &rope_table(p, layout.head_dim, 1024)?,
                    &mut pool,
                    0,
                )?;
                one(kernel, &qkv, len)
            }
            Case::Attention {
                layout,
                requests,
                page_size,
                decode,
            } => self.attention(p, dtype, *layout, requests, *page_size, *decode),
            &Case::SiluMul { rows, width } => {
                let gate_up = p.filled(&random(1, 2 * rows * width))?;
                let mut out = p.poisoned(rows * width)?;
                let kernel = p.silu_mul(&gate_up, rows, width, &mut out)?;
                one(kernel, &out, rows * width)
            }
            &Case::GatherRows { rows, width } => {
                let x = p.filled(&random(1, 40 * width))?;
                let which: Vec<i32> = (0..rows).map(|r| (r * 11 % 40) as i32).collect();
                let mut out = p.poisoned(rows * width)?;
                let kernel = p.gather_rows(&x, &p.loaded(&which)?, rows, width, 0, &mut out)?;
                one(kernel, &out, rows * width)
            }
            &Case::Argmax { requests, vocab } => {
                self.sample(p, dtype, requests, vocab, &SamplingParams::greedy())
            }
            Case::Draw {
                requests,
                vocab,
                params,
            } => self.sample(p, dtype, *requests, *vocab, params),
        }
    }

    fn sample<P: Probe>(
        &self,
        p: &P,
        dtype: DType,
        requests: usize,
        vocab: usize,
        params: &SamplingParams,
    ) -> Result<Ran, Error> {
        let logits = numbers(1, requests * vocab, dtype);
        let logits: Vec<f32> = logits.iter().map(|x| stored(x * 8.0, dtype)).collect();
        let logits = p.filled(&logits)?;
        let mut out = p.loaded(&vec![-1; requests])?;
        let kernel = p.sample(&logits, requests, vocab, params, 3, &mut out)?;
        let mut tokens = vec![0; requests];
        p.read_indices(&out, &mut tokens)?;
        let tokens = tokens.into_iter().map(|token| token as f32).collect();
        Ok(Ran {
            kernel,
            outputs: vec![(tokens, requests)],
        })
    }

    /// Writes keys and values of all positions to scattered pages of a pool that is NaN everywhere else, and attends.
    fn attention<P: Probe>(
        &self,
        p: &P,
        dtype: DType,
        layout: QkvLayout,
        requests: &[(usize, usize)],
        page_size: usize,
        decode: bool,
    ) -> Result<Ran, Error> {
        let pages_of = |len: usize| len.div_ceil(page_size);
        let used: usize = requests.iter().map(|r| pages_of(r.1)).sum();
        let pages = (2 * used).next_power_of_two();
        let max_pages = requests.iter().map(|r| pages_of(r.1)).max().unwrap_or(0) + 1;
        let mut page_table = vec![i32::MAX; requests.len() * max_pages];
        let (mut positions, mut slots) = (Vec::new(), Vec::new());
        let (mut query_start, mut kv_len) = (vec![0], Vec::new());
        let mut page = 0;
        for (r, &(queries, len)) in requests.iter().enumerate() {
            query_start.push(query_start[r] + queries as i32);
            kv_len.push(len as i32);
            for position in 0..len {
                let place = ((page + position / page_size) * 5 + 3) % pages;
                page_table[r * max_pages + position / page_size] = place as i32;
                positions.push(position as i32);
                slots.push((place * page_size + position % page_size) as i32);
            }
            page += pages_of(len);
        }
        let mut pool = p.kv_pool(1, pages * page_size, layout, dtype)?;
        p.poison(&mut pool)?;
        let all = positions.len();
        let rope = rope_table(p, layout.head_dim, 8192)?;
        let mut everything = p.filled(&numbers(1, all * layout.width(), dtype))?;
        p.rope_kv(
            &mut everything,
            all,
            layout,
            &p.loaded(&positions)?,
            &p.loaded(&slots)?,
            &rope,
            &mut pool,
            0,
        )?;
        let tokens: usize = requests.iter().map(|r| r.0).sum();
        // Queries of their own, keys and values NaN: those are read from the pool, never from the fused buffer.
        let mut qkv = numbers(2, tokens * layout.width(), dtype);
        for row in qkv.chunks_exact_mut(layout.width()) {
            row[layout.q_width()..].fill(f32::NAN);
        }
        let qkv = p.filled(&qkv)?;
        let (query_start, kv_len) = (p.loaded(&query_start)?, p.loaded(&kv_len)?);
        let page_table = p.loaded(&page_table)?;
        let batch = AttentionBatch {
            requests: requests.len(),
            tokens,
            max_query_len: requests.iter().map(|r| r.0).max().unwrap_or(0),
            max_kv_len: requests.iter().map(|r| r.1).max().unwrap_or(0),
            query_start: &query_start,
            kv_len: &kv_len,
            page_table: &page_table,
            max_pages,
            page_size,
        };
        let len = tokens * layout.q_width();
        let mut out = p.poisoned(len)?;
        let kernel = match decode {
            true => p.attention_decode(&qkv, layout, &batch, &pool, 0, &mut out)?,
            false => p.attention_prefill(&qkv, layout, &batch, &pool, 0, &mut out)?,
        };
        Ok(Ran {
            kernel,
            outputs: vec![(p.contents(&out)?, len)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::testing::emulated;

    #[test]
    fn the_emulated_device_conforms() {
        for dtype in [DType::BF16, DType::F16] {
            let Some(cuda) = emulated(dtype) else { return };
            let cpu = Cpu::new(Some(2)).unwrap();
            for case in cases(true) {
                let outcome = case.check(&cuda, &cpu).unwrap();
                assert!(outcome.is_right(), "{case} in {dtype}: {outcome:?}");
                assert!(outcome.elements > 0);
                cuda.reports(); // no finding
            }
        }
    }
}
