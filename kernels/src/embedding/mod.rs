//! Embedding: row `ids[t]` of `table` becomes row `t` of `out`.
//!
//! Shapes: `ids` `[tokens]`, `table` `[vocab, width]`, `out` `[tokens, width]`.
//!
//! ```text
//!   ids     [ 7 | 2 | 7 ]          tasks are tokens that lie together, some 8 Ki elements of them
//!   table   row 7 ------> out row 0, row 2        8 elements at a time, widened to float32
//!           row 2 ------> out row 1
//! ```
//!
//! What bounds it: memory. It computes nothing.

pub(crate) mod launch;

use half::{bf16, f16};

use crate::cpu::{self, Element, Op, Shared, Simd, widen};
use crate::{Cost, CpuMatrix, DType, Error, Kernel, Values};

/// Row `ids[t]` of `table`, widened to float32, into row `t` of `out`.
///
/// # Errors
/// When an id is not a row of the table.
///
/// # Panics
/// When `out` is shorter than its shape.
pub fn reference(ids: &[i32], table: &CpuMatrix, out: &mut [f32]) -> Result<Kernel, Error> {
    let (vocab, width) = (table.rows(), table.cols());
    let inside = |id: &i32| usize::try_from(*id).is_ok_and(|id| id < vocab);
    if let Some(t) = ids.iter().position(|id| !inside(id)) {
        let id = ids[t];
        return Err(Error::shape(format!(
            "token {t} has id {id}, but the vocabulary has {vocab} ids"
        )));
    }
    let level = cpu::level();
    let out = Shared::new(&mut out[..ids.len() * width]);
    cpu::parallel_rows(ids.len(), width, |tokens| {
        for t in tokens {
            // SAFETY: each task has tokens of its own.
            let out = unsafe { out.slice(t * width..(t + 1) * width) };
            match row(table, ids[t] as usize) {
                Values::F32(from) => level.run(Widen { from, to: out }),
                Values::F16(from) => level.run(Widen::<f16> { from, to: out }),
                Values::BF16(from) => level.run(Widen::<bf16> { from, to: out }),
            }
        }
    });
    Ok(level.pick("embedding_avx2", "embedding_portable"))
}

/// Row `row` of all blocks together.
fn row(table: &CpuMatrix, row: usize) -> Values<'_> {
    let width = table.cols();
    let mut within = row;
    for block in table.blocks() {
        let rows = block.shape()[0];
        if within < rows {
            let at = within * width..(within + 1) * width;
            return match block.values() {
                Values::F32(v) => Values::F32(&v[at]),
                Values::F16(v) => Values::F16(&v[at]),
                Values::BF16(v) => Values::BF16(&v[at]),
            };
        }
        within -= rows;
    }
    Values::F32(&[])
}

struct Widen<'a, T> {
    from: &'a [T],
    to: &'a mut [f32],
}

impl<T: Element> Op for Widen<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        widen(s, self.from, self.to);
    }
}

/// The work of `tokens` rows of `width`: each is read from the table, however often an id comes, and written.
pub fn cost(tokens: usize, width: usize, weight: DType, activation: DType) -> Cost {
    let elements = (tokens * width) as u64;
    Cost {
        flops: 0,
        weight_bytes: elements * weight.size() as u64,
        kv_bytes: 0,
        activation_bytes: elements * activation.size() as u64 + tokens as u64 * 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::HostTensor;
    use crate::testing::{assert_close, cpus, dtypes, narrowed, numbers, poisoned};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_shape_is_right(
            width in 1_usize..100,
            rows in prop::collection::vec(1_usize..9, 1..4),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..300),
            dtype in dtypes(),
        ) {
            let vocab: usize = rows.iter().sum();
            let values = narrowed(dtype, &numbers(1, vocab * width));
            let mut from = 0;
            let blocks: Vec<HostTensor> = rows
                .iter()
                .map(|&r| {
                    let part = values[from * width..(from + r) * width].to_vec();
                    from += r;
                    HostTensor::from_f32_as(dtype, &[r, width], part).unwrap()
                })
                .collect();
            let table = CpuMatrix::new(&blocks).unwrap();
            let ids: Vec<i32> = picks.iter().map(|p| p.index(vocab) as i32).collect();
            let rows = ids.iter().flat_map(|&id| &values[id as usize * width..(id as usize + 1) * width]);
            let truth: Vec<(f64, f64)> = rows.map(|&x| (f64::from(x), 0.0)).collect();
            for cpu in cpus() {
                let mut out = poisoned(truth.len());
                let kernel = cpu.run(|| reference(&ids, &table, &mut out)).unwrap();
                assert_close(kernel, &out, &truth);
            }
        }
    }

    #[test]
    fn an_id_outside_the_vocabulary_is_named() {
        let table = HostTensor::from_f32(&[3, 1], vec![0.0; 3]).unwrap();
        let table = CpuMatrix::new(&[table]).unwrap();
        for id in [3, -1] {
            let error = reference(&[0, id], &table, &mut [0.0; 2]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("token 1 has id {id}, but the vocabulary has 3 ids")
            );
        }
    }

    #[test]
    fn costs() {
        let expected = Cost {
            flops: 0,
            weight_bytes: 20,
            kv_bytes: 0,
            activation_bytes: 40 + 8,
        };
        assert_eq!(cost(2, 5, DType::BF16, DType::F32), expected);
    }
}
