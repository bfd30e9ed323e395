//! The gate of a SwiGLU feed-forward layer: `out = silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`.
//!
//! Shapes: rows of `gate_up` are `[gate, up]`, each `width` long; `out` is `[rows, width]`.
//!
//! ```text
//!   gate_up row   [ gate: width            | up: width              ]
//!                   |8 at a time             |8 at a time             a task has whole rows, some 8 Ki outputs;
//!   out row       [ silu(gate) * up: width ]                          with fewer rows than threads a row has up to 8 tasks
//! ```
//!
//! What bounds it: memory, on the CPU shared with the exponential, which takes some 12 instructions for 8 elements.

pub(crate) mod launch;

use crate::cpu::{self, Op, Shared, Simd, exp};
use crate::{Cost, DType, Kernel};

/// `out = silu(gate) * up`.
///
/// # Panics
/// When `gate_up` is not twice as long as `out`.
pub fn reference(gate_up: &[f32], width: usize, out: &mut [f32]) -> Kernel {
    assert_eq!(
        gate_up.len(),
        2 * out.len(),
        "silu_mul: gate_up is not twice as long as out"
    );
    let level = cpu::level();
    let rows = out.len() / width.max(1);
    // Short of rows, the row itself is cut, at whole vectors.
    let pieces = if rows < cpu::threads() {
        (width / 1024).clamp(1, 8)
    } else {
        1
    };
    let piece = width.div_ceil(pieces).next_multiple_of(8);
    let out = Shared::new(out);
    cpu::parallel_rows(rows * pieces, piece, |tasks| {
        for task in tasks {
            let (row, from) = (task / pieces, (task % pieces * piece).min(width));
            let to = width.min(from + piece);
            let (gate, up) = gate_up[row * 2 * width..][..2 * width].split_at(width);
            // SAFETY: each task has pieces of its own.
            let out = unsafe { out.slice(row * width + from..row * width + to) };
            level.run(Gate {
                gate: &gate[from..to],
                up: &up[from..to],
                out,
            });
        }
    });
    level.pick("silu_mul_avx2", "silu_mul_portable")
}

/// A function, not a closure: a closure is compiled without the instruction set of the function around it, and its vector
/// operations become calls (23 ms instead of 0.3 ms for 512 rows of 1536 on an AMD EPYC).
#[inline(always)]
fn silu_mul<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    let denominator = s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), gate)));
    s.mul(s.div(gate, denominator), up)
}

struct Gate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Op for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gates, gate_rest) = self.gate.as_chunks::<8>();
        let (ups, up_rest) = self.up.as_chunks::<8>();
        let (outs, out_rest) = self.out.as_chunks_mut::<8>();
        for ((gate, up), out) in gates.iter().zip(ups).zip(outs) {
            s.store_array(out, silu_mul(s, s.load_array(gate), s.load_array(up)));
        }
        if !out_rest.is_empty() {
            let (mut gate, mut up) = ([0.0; 8], [0.0; 8]);
            gate[..gate_rest.len()].copy_from_slice(gate_rest);
            up[..up_rest.len()].copy_from_slice(up_rest);
            let out = s.to_array(silu_mul(s, s.load_array(&gate), s.load_array(&up)));
            out_rest.copy_from_slice(&out[..out_rest.len()]);
        }
    }
}

/// The work of `rows` rows of `width` outputs: negation, exponential, addition, division and multiplication count one operation
/// each.
pub fn cost(rows: usize, width: usize, activation: DType) -> Cost {
    let elements = (rows * width) as u64;
    Cost {
        flops: 5 * elements,
        weight_bytes: 0,
        kv_bytes: 0,
        activation_bytes: 3 * elements * activation.size() as u64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, cpus, numbers, poisoned};

    /// In float64; 8 float32 roundings, of which the exponential takes 3.
    fn naive(gate_up: &[f32], width: usize) -> Vec<(f64, f64)> {
        gate_up
            .chunks_exact(2 * width)
            .flat_map(|row| {
                let (gate, up) = row.split_at(width);
                gate.iter().zip(up).map(|(&g, &u)| {
                    let y = f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u);
                    (y, y.abs() * 8.0 * 6e-8 + 1e-30)
                })
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_shape_is_right(
            rows in 1_usize..20,
            width in prop_oneof![1_usize..50, 1000_usize..5000],
            seed in any::<u32>(),
            reach in 1.0_f32..60.0,
        ) {
            let gate_up: Vec<f32> = numbers(u64::from(seed), rows * 2 * width).iter().map(|x| x * reach).collect();
            for cpu in cpus() {
                let mut out = poisoned(rows * width);
                let kernel = cpu.run(|| reference(&gate_up, width, &mut out[..rows * width]));
                assert_close(kernel, &out, &naive(&gate_up, width));
            }
        }
    }

    #[test]
    fn extremes() {
        for cpu in cpus() {
            let gates = [0.0, 1e30, -1e30, -100.0, f32::INFINITY, f32::NAN];
            let gate_up: Vec<f32> = gates.into_iter().chain([1.0; 6]).collect();
            let mut out = [0.0; 6];
            cpu.run(|| reference(&gate_up, 6, &mut out));
            assert_eq!((out[0], out[1], out[4]), (0.0, 1e30, f32::INFINITY));
            assert!(out[2].abs() < 1e-7 && out[3].abs() < 1e-35, "{out:?}");
            assert!(out[5].is_nan());
        }
    }

    #[test]
    fn costs() {
        let expected = Cost {
            flops: 30,
            weight_bytes: 0,
            kv_bytes: 0,
            activation_bytes: 36,
        };
        assert_eq!(cost(2, 3, DType::BF16), expected);
    }
}
