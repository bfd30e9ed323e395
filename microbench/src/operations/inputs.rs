//! Random inputs, the same for the same seed, distributed as a model's are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use stepscope_kernels::cuda::{round, widen};
use stepscope_kernels::{DType, philox};

/// How numbers are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Distribution {
    /// Activations behind a norm: N(0, 1).
    Normal,
    /// Weights of so many columns: even, with a deviation of 1 / sqrt(columns), so that a product is again N(0, 1).
    Weights(usize),
    /// Norm weights: 1 ± 0.5.
    NormWeights,
    /// Logits: N(0, 3), in which few tokens have most of the probability.
    Logits,
}

/// Which of a case's inputs, how many numbers, and how they are distributed.
type Key = (u64, usize, Distribution);

/// Inputs of one case. Those of several copies are made once.
#[derive(Debug)]
pub(super) struct Inputs {
    seed: u64,
    dtype: DType,
    made: RefCell<HashMap<Key, Rc<Vec<f32>>>>,
}

impl Inputs {
    pub(super) fn new(seed: u64, dtype: DType) -> Inputs {
        Inputs {
            seed,
            dtype,
            made: RefCell::default(),
        }
    }

    /// The seed of everything.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Activations, as the storage type has them; `which` tells the inputs of a case apart.
    pub(super) fn activations(&self, which: u64, len: usize) -> Rc<Vec<f32>> {
        self.numbers(which, len, Distribution::Normal)
    }

    /// A weight matrix, as the storage type has it.
    pub(super) fn weights(&self, which: u64, rows: usize, cols: usize) -> Rc<Vec<f32>> {
        self.numbers(which, rows * cols, Distribution::Weights(cols))
    }

    /// Norm weights, in float32 on the device and as a 16-bit checkpoint has them.
    pub(super) fn norm_weights(&self, which: u64, len: usize) -> Rc<Vec<f32>> {
        self.numbers(which, len, Distribution::NormWeights)
    }

    /// Logits, as the storage type has them.
    pub(super) fn logits(&self, which: u64, len: usize) -> Rc<Vec<f32>> {
        self.numbers(which, len, Distribution::Logits)
    }

    fn numbers(&self, which: u64, len: usize, distribution: Distribution) -> Rc<Vec<f32>> {
        let mut made = self.made.borrow_mut();
        let numbers = made
            .entry((which, len, distribution))
            .or_insert_with(|| Rc::new(self.make(which, len, distribution)));
        Rc::clone(numbers)
    }

    fn make(&self, which: u64, len: usize, distribution: Distribution) -> Vec<f32> {
        let seed = self.seed.wrapping_mul(1000).wrapping_add(which);
        let stored = |x: f32| widen(round(x, self.dtype), self.dtype);
        match distribution {
            Distribution::Normal => normal(seed, len).map(stored).collect(),
            Distribution::Logits => normal(seed, len).map(|x| stored(3.0 * x)).collect(),
            Distribution::Weights(cols) => {
                // Even numbers in [-1, 1) have a deviation of 1 / sqrt(3).
                let scale = (3.0 / cols as f64).sqrt() as f32;
                let numbers = philox::numbers(seed, len).into_iter();
                numbers.map(|x| stored(x * scale)).collect()
            }
            Distribution::NormWeights => {
                let numbers = philox::numbers(seed, len).into_iter();
                numbers.map(|x| stored(1.0 + 0.5 * x)).collect()
            }
        }
    }
}

/// Normal numbers, by Box and Muller's formula.
fn normal(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    let even = philox::numbers(seed, len.next_multiple_of(2));
    let pairs: Vec<[f32; 2]> = even
        .chunks_exact(2)
        .map(|pair| [pair[0], pair[1]])
        .collect();
    let both = pairs.into_iter().flat_map(|[a, b]| {
        // From (0, 1], of which there is a logarithm.
        let radius = (-2.0 * (0.5 - 0.5 * a).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::PI * b).sin_cos();
        [radius * cos, radius * sin]
    });
    both.take(len)
}

/// Slots of positions in a pool whose pages lie scattered.
#[derive(Debug)]
pub(super) struct Pages {
    /// Pages of the pool, twice as many as are used.
    pub(super) pages: usize,
    /// Entries of a request in the table; the last one is never used.
    pub(super) max_pages: usize,
    /// `[requests, max_pages]`; unused entries are out of every pool.
    pub(super) table: Vec<i32>,
    /// The slot of each position, request after request.
    pub(super) slots: Vec<i32>,
}

/// Pages for these many positions of each request.
pub(super) fn scattered_pages(lens: &[usize], page_size: usize) -> Pages {
    let pages_of = |len: usize| len.div_ceil(page_size);
    let used: usize = lens.iter().map(|&len| pages_of(len)).sum();
    let pages = (2 * used).next_power_of_two();
    let max_pages = lens.iter().map(|&len| pages_of(len)).max().unwrap_or(0) + 1;
    let mut table = vec![i32::MAX; lens.len() * max_pages];
    let mut slots = Vec::new();
    let mut first = 0;
    for (request, &len) in lens.iter().enumerate() {
        for position in 0..len {
            let page = position / page_size;
            // An odd factor permutes a power of two.
            let place = ((first + page) * 5 + 3) % pages;
            table[request * max_pages + page] = place as i32;
            slots.push((place * page_size + position % page_size) as i32);
        }
        first += pages_of(len);
    }
    Pages {
        pages,
        max_pages,
        table,
        slots,
    }
}

/// Frequencies of Llama's rotations.
pub(super) fn rope_frequencies(head_dim: usize) -> Vec<f64> {
    let pairs = head_dim / 2;
    (0..pairs)
        .map(|pair| 10_000f64.powf(-(pair as f64) / pairs as f64))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn activations_are_normal_and_weights_keep_products_so() {
        let inputs = Inputs::new(1, DType::BF16);
        let deviation = |values: &[f32]| {
            let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
            (squares / values.len() as f64).sqrt()
        };
        let x = inputs.activations(0, 100_000);
        assert!((deviation(&x) - 1.0).abs() < 0.02);
        let beyond_two = x.iter().filter(|x| x.abs() > 2.0).count();
        assert!((4000..5100).contains(&beyond_two), "{beyond_two}"); // 4.55 %
        assert!((deviation(&inputs.weights(1, 100, 400)) - 0.05).abs() < 0.002);
        assert_eq!(inputs.activations(0, 100_000), x);
        assert_ne!(inputs.activations(1, 100_000), x);
        assert!(x.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn no_two_positions_share_a_slot() {
        let pages = scattered_pages(&[1, 17, 40], 16);
        let slots: HashSet<i32> = pages.slots.iter().copied().collect();
        assert_eq!(slots.len(), 58);
        assert!(slots.iter().all(|&slot| (slot as usize) < pages.pages * 16));
        assert_eq!((pages.max_pages, pages.table.len()), (4, 12));
        assert_eq!(
            pages.table.iter().filter(|&&page| page == i32::MAX).count(),
            6
        );
        assert_ne!(pages.table[4] + 1, pages.table[5]); // scattered
    }
}
