//! Attention of a model, over keys and values in scattered pages.

use stepscope_kernels::cuda::{Cuda, CudaBuffer, CudaIndices, CudaKvPool};
use stepscope_kernels::{AttentionBatch, Backend, DType, Kernel, QkvLayout};
use stepscope_microbench::{Error, Subject, Work};

use super::inputs::{Difference, Pattern, output, read, spread};
use super::list::Phase;
use super::{Checked, Measured, Outcome, Wanted, timed};
use crate::output::Failure;

/// Slots of a page: what `one-batch` takes unless it is told otherwise.
const PAGE: usize = 16;
/// Where the queries begin in the pattern, and where the keys and values of a request do.
const QUERIES: usize = 2_000_003;
const REQUEST: usize = 300_007;
/// Query rows that are computed again in float64; of each, some heads.
const ROWS: usize = 12;
const HEADS: usize = 4;

/// A batch of requests of the same length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests {
    pub(super) phase: Phase,
    pub(super) count: usize,
    pub(super) queries: usize,
    pub(super) positions: usize,
    pub(super) layout: QkvLayout,
}

impl Requests {
    fn pages_each(&self) -> usize {
        self.positions.div_ceil(PAGE)
    }

    /// Pages of the pool: a power of two, so that [`Requests::page`] meets each once.
    fn pages(&self) -> usize {
        (self.count * self.pages_each()).next_power_of_two()
    }

    /// The page in which page `index` of all requests together lies.
    fn page(&self, index: usize) -> usize {
        (5 * index + 3) % self.pages()
    }

    /// The slot of a position.
    fn slot(&self, request: usize, position: usize) -> usize {
        self.page(request * self.pages_each() + position / PAGE) * PAGE + position % PAGE
    }

    fn page_table(&self) -> Vec<i32> {
        let all = self.count * self.pages_each();
        (0..all).map(|index| self.page(index) as i32).collect()
    }
}

/// What all launches share, and a copy of the rest for each: as layers of the pool, queries and outputs.
#[derive(Debug)]
struct Attention<'a> {
    cuda: &'a Cuda,
    pattern: &'a Pattern,
    requests: Requests,
    pool: CudaKvPool,
    query_start: CudaIndices,
    kv_len: CudaIndices,
    page_table: CudaIndices,
}

pub(super) fn attention(wanted: &Wanted<'_>, requests: Requests) -> Result<Outcome, Failure> {
    let (cuda, pattern) = (wanted.cuda, wanted.pattern);
    let layout = requests.layout;
    let tokens = requests.count * requests.queries;
    let of = Attention {
        cuda,
        pattern,
        requests,
        pool: filled_pool(cuda, pattern, requests, wanted.copies)?,
        query_start: indices(
            cuda,
            (0..=requests.count).map(|request| request * requests.queries),
        )?,
        kv_len: indices(cuda, (0..requests.count).map(|_| requests.positions))?,
        page_table: indices(
            cuda,
            requests.page_table().into_iter().map(|page| page as usize),
        )?,
    };
    let sets = (0..wanted.copies)
        .map(|_| {
            let qkv = pattern.buffer(cuda, tokens * layout.width(), QUERIES)?;
            Ok((qkv, output(cuda, tokens * layout.q_width())?))
        })
        .collect::<Result<Vec<Set>, Error>>()?;
    let mut ours = Ours {
        of: &of,
        sets,
        work: wanted.work,
        kernel: "",
        difference: Difference::default(),
    };
    let measured = wanted.bench.measure(&mut ours, wanted.settings);
    Ok(Outcome {
        measured: timed(measured)?.map(|series| Measured {
            ours: series,
            theirs: None,
        }),
        checked: Checked {
            kernel: ours.kernel.to_owned(),
            difference: ours.difference,
            from_peer: None,
        },
        note: None,
    })
}

/// Our kernels on every copy.
struct Ours<'a> {
    of: &'a Attention<'a>,
    sets: Vec<Set>,
    work: Work,
    kernel: Kernel,
    difference: Difference,
}

impl Subject for Ours<'_> {
    fn copies(&self) -> usize {
        self.sets.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        let (qkv, out) = &mut self.sets[copy];
        self.kernel = self.of.launch(qkv, copy, out)?;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        self.difference = self.of.against_sums(&self.sets[0].1)?;
        if let [_, .., (_, last)] = self.sets.as_slice() {
            self.difference = self.difference.and(self.of.against_sums(last)?);
        }
        self.difference.verdict()
    }

    fn work(&self) -> Work {
        self.work
    }
}

/// Queries (with keys and values beside them that nobody reads), and outputs.
type Set = (CudaBuffer, CudaBuffer);

fn indices(cuda: &Cuda, values: impl Iterator<Item = usize>) -> Result<CudaIndices, Error> {
    let values: Vec<i32> = values.map(|value| value as i32).collect();
    let mut indices = cuda.indices(values.len())?;
    cuda.write_indices(&mut indices, &values)?;
    Ok(indices)
}

/// A pool with as many layers as copies, each with the keys and values of all requests, written as a step writes them. All stand
/// at position 0, whose rotation changes nothing: the host knows them by the pattern.
fn filled_pool(
    cuda: &Cuda,
    pattern: &Pattern,
    requests: Requests,
    layers: usize,
) -> Result<CudaKvPool, Error> {
    let Requests {
        count,
        positions,
        layout,
        ..
    } = requests;
    let mut pool = cuda.kv_pool(layers, requests.pages() * PAGE, layout, DType::BF16)?;
    let rope = cuda.rope_table(&vec![0.0; layout.head_dim / 2], 1)?;
    let zeros = indices(cuda, (0..positions).map(|_| 0))?;
    let mut qkv = output(cuda, positions * layout.width())?;
    for request in 0..count {
        let slots = (0..positions).map(|position| requests.slot(request, position));
        let slots = indices(cuda, slots)?;
        pattern.fill(cuda, &mut qkv, REQUEST * request)?;
        for layer in 0..layers {
            cuda.rope_kv(
                &mut qkv, positions, layout, &zeros, &slots, &rope, &mut pool, layer,
            )?;
        }
        // The slots are copied from pinned memory that goes with them.
        cuda.synchronize()?;
    }
    Ok(pool)
}

impl Attention<'_> {
    fn launch(
        &self,
        qkv: &CudaBuffer,
        layer: usize,
        out: &mut CudaBuffer,
    ) -> Result<Kernel, Error> {
        let Requests {
            phase,
            count,
            queries,
            positions,
            layout,
        } = self.requests;
        let batch = AttentionBatch {
            requests: count,
            tokens: count * queries,
            max_query_len: queries,
            max_kv_len: positions,
            query_start: &self.query_start,
            kv_len: &self.kv_len,
            page_table: &self.page_table,
            max_pages: self.requests.pages_each(),
            page_size: PAGE,
        };
        let (cuda, pool) = (self.cuda, &self.pool);
        let launched = match phase {
            Phase::Prefill => cuda.attention_prefill(qkv, layout, &batch, pool, layer, out),
            Phase::Decode => cuda.attention_decode(qkv, layout, &batch, pool, layer, out),
        };
        Ok(launched?)
    }

    /// Ours against softmax and sums in float64, of some rows and heads.
    fn against_sums(&self, out: &CudaBuffer) -> Result<Difference, Error> {
        let Requests {
            count,
            queries,
            layout,
            ..
        } = self.requests;
        let mut difference = Difference::default();
        for row in spread(count * queries, ROWS) {
            for head in spread(layout.heads, HEADS) {
                let at = row * layout.q_width() + head * layout.head_dim;
                let results = read(self.cuda, out, at, layout.head_dim)?;
                // Queries, keys and weights are rounded before they are used. The more positions a row sees, the smaller is what
                // comes out: a typical result is one of the same row.
                let of_row = Difference::of(&results, &self.expected(row, head), 3.0);
                difference = difference.and(of_row);
            }
        }
        Ok(difference)
    }

    /// The output of a query row and head.
    fn expected(&self, row: usize, head: usize) -> Vec<f64> {
        let Requests {
            queries,
            positions,
            layout,
            ..
        } = self.requests;
        let (request, query) = (row / queries, row % queries);
        let seen = positions - queries + query + 1;
        let dim = layout.head_dim;
        let kv_head = head / (layout.heads / layout.kv_heads);
        let key_at = layout.q_width() + kv_head * dim;
        let value_at = key_at + layout.kv_width();
        let kept = |position: usize, at: usize| {
            let index = position * layout.width() + at;
            self.pattern.at(REQUEST * request, index)
        };
        let query: Vec<f64> = (0..dim)
            .map(|i| {
                self.pattern
                    .at(QUERIES, row * layout.width() + head * dim + i)
            })
            .collect();
        let scores: Vec<f64> = (0..seen)
            .map(|position| {
                let terms = query.iter().enumerate();
                let product: f64 = terms.map(|(i, q)| q * kept(position, key_at + i)).sum();
                product / (dim as f64).sqrt()
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        (0..dim)
            .map(|i| {
                let values = weights.iter().enumerate();
                let values = values.map(|(position, weight)| weight * kept(position, value_at + i));
                values.sum::<f64>() / sum
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_positions_share_a_slot() {
        let requests = Requests {
            phase: Phase::Decode,
            count: 3,
            queries: 1,
            positions: 100,
            layout: QkvLayout {
                heads: 2,
                kv_heads: 1,
                head_dim: 64,
            },
        };
        let mut slots: Vec<usize> = (0..3)
            .flat_map(|request| (0..100).map(move |position| requests.slot(request, position)))
            .collect();
        assert_eq!(requests.page_table().len(), 21);
        let slot_of = requests.page_table()[7 + 2] as usize * PAGE + 5;
        assert_eq!(requests.slot(1, 2 * PAGE + 5), slot_of);
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 300);
        assert!(slots.last() < Some(&(requests.pages() * PAGE)));
    }
}
