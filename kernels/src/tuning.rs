//! Variants of kernels that were measured to be the fastest for some shapes, in place of what the choosers would take.
//!
//! An entry names an operation, its sizes and a variant; all of it is held against what this program has, so that a table of another
//! version changes nothing that it does not understand.

use std::collections::HashMap;

use crate::{Error, QkvLayout, attention_decode, gemm};

/// One shape and its variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tuned {
    /// A product `[m, k] @ [n, k]^T`, by the name that [`Tuning::gemm_variants`] has for the variant.
    Gemm {
        /// m, n and k.
        size: [usize; 3],
        /// As in [`Tuning::gemm_variants`].
        variant: String,
    },
    /// Attention of one row of each request.
    AttentionDecode {
        /// Heads.
        layout: QkvLayout,
        /// Requests of the batch.
        requests: usize,
        /// Positions of the longest request: the entry goes for half as many up to these.
        kv_len: usize,
        /// Ranges that the positions are cut into.
        splits: usize,
    },
}

/// Heads, key and value heads, elements of a head; and requests.
type Batch = ([usize; 3], usize);

/// A table of them, understood.
#[derive(Debug, Default)]
pub struct Tuning {
    gemm: HashMap<[usize; 3], gemm::GpuPlan>,
    /// Positions and ranges, ascending by positions.
    decode: HashMap<Batch, Vec<(usize, usize)>>,
    entries: usize,
    source: Option<TuningSource>,
}

/// The file that a table came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TuningSource {
    /// As it was opened.
    pub file: String,
    /// The hash of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Shapes that it has.
    pub shapes: usize,
}

impl Tuning {
    /// Understands the entries.
    ///
    /// # Errors
    /// The first entry that names what this program does not have.
    pub fn new(entries: &[Tuned]) -> Result<Tuning, Error> {
        let mut tuning = Tuning {
            entries: entries.len(),
            ..Tuning::default()
        };
        for entry in entries {
            match entry {
                Tuned::Gemm {
                    size: size @ [m, n, k],
                    variant,
                } => {
                    let known = gemm::gpu_variants(*m, *n, *k);
                    let found = known.into_iter().find(|known| known.name() == *variant);
                    let found = found.ok_or_else(|| {
                        Error::shape(format!("gemm M={m},N={n},K={k} has no variant {variant:?}"))
                    })?;
                    tuning.gemm.insert(*size, found);
                }
                &Tuned::AttentionDecode {
                    layout,
                    requests,
                    kv_len,
                    splits,
                } => {
                    let known = Tuning::decode_variants(layout, requests, kv_len);
                    if !known.contains(&splits) {
                        return Err(Error::shape(format!(
                            "attention_decode requests={requests},heads={},head_dim={},kv_len={kv_len} is not cut into {splits} ranges",
                            layout.heads, layout.head_dim
                        )));
                    }
                    let lens = tuning.decode.entry((key(layout), requests)).or_default();
                    lens.push((kv_len, splits));
                    lens.sort_unstable();
                }
            }
        }
        Ok(tuning)
    }

    /// The same, known to come from a file.
    #[must_use]
    pub fn of(self, source: TuningSource) -> Tuning {
        Tuning {
            source: Some(source),
            ..self
        }
    }

    /// The file it came from.
    pub fn source(&self) -> Option<&TuningSource> {
        self.source.as_ref()
    }

    /// Shapes that it has.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The names of all ways to compute `[m, k] @ [n, k]^T`.
    pub fn gemm_variants([m, n, k]: [usize; 3]) -> Vec<String> {
        let variants = gemm::gpu_variants(m, n, k).into_iter();
        variants.map(gemm::GpuPlan::name).collect()
    }

    /// All numbers of ranges for attention of a decode step, 1 first.
    pub fn decode_variants(layout: QkvLayout, requests: usize, kv_len: usize) -> Vec<usize> {
        attention_decode::variants(layout, requests, kv_len)
    }

    pub(crate) fn gemm(&self, size: [usize; 3]) -> Option<gemm::GpuPlan> {
        self.gemm.get(&size).copied()
    }

    /// The ranges of the least entry that has as many positions, unless it has twice as many.
    pub(crate) fn decode_splits(
        &self,
        layout: QkvLayout,
        requests: usize,
        kv_len: usize,
    ) -> Option<usize> {
        let lens = self.decode.get(&(key(layout), requests))?;
        let &(most, splits) = lens.iter().find(|&&(most, _)| most >= kv_len)?;
        (2 * kv_len > most).then_some(splits)
    }
}

fn key(layout: QkvLayout) -> [usize; 3] {
    [layout.heads, layout.kv_heads, layout.head_dim]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::testing::emulated;
    use crate::{Backend as _, DType, HostTensor};

    const LAYOUT: QkvLayout = QkvLayout {
        heads: 8,
        kv_heads: 2,
        head_dim: 64,
    };

    fn gemm(size: [usize; 3], variant: &str) -> Tuned {
        Tuned::Gemm {
            size,
            variant: variant.to_owned(),
        }
    }

    #[test]
    fn a_table_takes_the_choosers_place_for_its_shapes() {
        let Some(cuda) = emulated(DType::BF16) else {
            return;
        };
        let (m, n, k) = (2, 64, 512);
        let x = cuda.buffer(m * k).unwrap();
        let zeros = HostTensor::from_f32(&[n, k], vec![0.0; n * k]).unwrap();
        let weight = cuda.matrix(&[zeros]).unwrap();
        let mut out = cuda.buffer(m * n).unwrap();
        let mut kernel = || cuda.gemm(&x, m, &weight, None, &mut out).unwrap();
        let chosen = kernel();
        assert!(chosen.starts_with("gemm_skinny"), "{chosen}");
        let tuning = Tuning::new(&[gemm([m, n, k], "gemm_mma_64x64 / 2")]).unwrap();
        assert_eq!(tuning.len(), 1);
        cuda.set_tuning(Some(tuning));
        assert_eq!(kernel(), "gemm_mma_64x64_split_k");
        cuda.set_tuning(Some(
            Tuning::new(&[gemm([3, n, k], "gemm_mma_64x64")]).unwrap(),
        ));
        assert_eq!(kernel(), chosen); // another shape
        cuda.set_tuning(None);
        assert_eq!(kernel(), chosen);
    }

    #[test]
    fn an_entry_goes_for_half_as_many_positions_up_to_its_own() {
        let entry = |kv_len, splits| Tuned::AttentionDecode {
            layout: LAYOUT,
            requests: 4,
            kv_len,
            splits,
        };
        let tuning = Tuning::new(&[entry(4096, 16), entry(1024, 2)]).unwrap();
        let splits = |requests, kv_len| tuning.decode_splits(LAYOUT, requests, kv_len);
        assert_eq!(splits(4, 1024), Some(2));
        assert_eq!(splits(4, 513), Some(2));
        assert_eq!(splits(4, 512), None);
        assert_eq!(splits(4, 2049), Some(16));
        assert_eq!(splits(4, 1025), None);
        assert_eq!(splits(4, 4097), None);
        assert_eq!(splits(5, 1024), None);
    }

    #[test]
    fn what_this_program_does_not_have_is_refused() {
        let check = |entry: Tuned, expected: &str| {
            assert_eq!(Tuning::new(&[entry]).unwrap_err().to_string(), expected);
        };
        check(
            gemm([64, 128, 256], "gemm_wgmma"),
            "gemm M=64,N=128,K=256 has no variant \"gemm_wgmma\"",
        );
        check(
            gemm([64, 128, 256], "gemm_skinny 8"),
            "gemm M=64,N=128,K=256 has no variant \"gemm_skinny 8\"",
        );
        let entry = Tuned::AttentionDecode {
            layout: LAYOUT,
            requests: 1,
            kv_len: 256,
            splits: 9,
        };
        check(
            entry,
            "attention_decode requests=1,heads=8,head_dim=64,kv_len=256 is not cut into 9 ranges",
        );
    }
}
