//! A GEMM of a model: ours beside cuBLASLt's.

use std::cell::RefCell;
use std::sync::Arc;

use stepscope_device::cublaslt::Handle;
use stepscope_kernels::cuda::{Cuda, CudaBuffer, CudaMatrix};
use stepscope_kernels::{Backend, DType, Kernel};
use stepscope_microbench::peers::cublaslt::Product;
use stepscope_microbench::{Error, Subject, Work};

use super::inputs::{Difference, Pattern, output, read, spread};
use super::{Checked, Measured, Outcome, Wanted, timed};
use crate::output::Failure;

/// Rows of a result that are read back and compared.
const ROWS: usize = 8;
/// Columns whose sums are added up again in float64, for each of those rows.
const COLUMNS: usize = 16;

/// One copy of what a launch reads and writes.
#[derive(Debug)]
struct Set {
    x: CudaBuffer,
    weight: CudaMatrix,
    out: CudaBuffer,
}

/// `out[m, n] = x[m, k] · weight[n, k]ᵀ` in bfloat16.
#[derive(Debug)]
struct Gemm<'a> {
    cuda: &'a Cuda,
    pattern: &'a Pattern,
    m: usize,
    n: usize,
    k: usize,
}

/// Where the activations of a copy begin in the pattern.
fn start(copy: usize) -> usize {
    1_000_003 * copy
}

pub(super) fn gemm(
    wanted: &Wanted<'_>,
    [m, n, k]: [usize; 3],
    cublaslt: Option<&Arc<Handle>>,
) -> Result<Outcome, Failure> {
    let (cuda, pattern) = (wanted.cuda, wanted.pattern);
    let of = Gemm {
        cuda,
        pattern,
        m,
        n,
        k,
    };
    let sets = (0..wanted.copies)
        .map(|copy| of.set(copy))
        .collect::<Result<Vec<Set>, Error>>()?;
    // Both sides write to the same outputs, in the order of one stream.
    let sets = RefCell::new(sets);
    let mut ours = Ours {
        of: &of,
        sets: &sets,
        work: wanted.work,
        kernel: "",
        difference: Difference::default(),
    };
    // A peer that cannot do it costs ours nothing.
    let peer = cublaslt.map(|handle| of.peer(handle, &sets, wanted.work));
    let (mut peer, note) = match peer.transpose() {
        Ok(peer) => (peer, None),
        Err(error) => (None, Some(format!("cuBLASLt: {error}"))),
    };
    let measured = match &mut peer {
        None => timed(wanted.bench.measure(&mut ours, wanted.settings))?
            .map(|ours| Measured { ours, theirs: None }),
        Some(theirs) => {
            let pair = wanted
                .bench
                .measure_pair([&mut ours, theirs], wanted.settings);
            let pair = match pair {
                Ok([ours, theirs]) => [timed(Ok(ours))?, timed(Ok(theirs))?],
                Err(error) => [timed(Err(error))?, None],
            };
            let [ours, theirs] = pair;
            ours.map(|ours| Measured { ours, theirs })
        }
    };
    Ok(Outcome {
        checked: Checked {
            kernel: ours.kernel.to_owned(),
            difference: ours.difference,
            from_peer: peer.and_then(|peer| peer.difference),
        },
        measured,
        note,
    })
}

/// Our kernel on every copy.
struct Ours<'a> {
    of: &'a Gemm<'a>,
    sets: &'a RefCell<Vec<Set>>,
    work: Work,
    kernel: Kernel,
    difference: Difference,
}

impl Subject for Ours<'_> {
    fn copies(&self) -> usize {
        self.sets.borrow().len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        self.kernel = self.of.launch(&mut self.sets.borrow_mut()[copy])?;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        let (of, sets) = (self.of, self.sets.borrow());
        let against = |copy: usize| of.against_sums(&sets[copy].out, &sets[copy].weight, copy);
        self.difference = against(0)?;
        if sets.len() > 1 {
            self.difference = self.difference.and(against(sets.len() - 1)?);
        }
        self.difference.verdict()
    }

    fn work(&self) -> Work {
        self.work
    }
}

/// cuBLASLt's product of the same copies.
struct Theirs<'a> {
    of: &'a Gemm<'a>,
    sets: &'a RefCell<Vec<Set>>,
    product: Product,
    work: Work,
    /// Ours from theirs, once both were compared.
    difference: Option<Difference>,
}

impl Subject for Theirs<'_> {
    fn copies(&self) -> usize {
        self.sets.borrow().len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        let Set { x, weight, out } = &mut self.sets.borrow_mut()[copy];
        self.product.launch(self.of.cuda, x, weight, out)
    }

    /// Ours against theirs, of the first copy.
    fn check(&mut self) -> Result<(), Error> {
        let (of, cuda) = (self.of, self.of.cuda);
        let set = &mut self.sets.borrow_mut()[0];
        let mut theirs = output(cuda, of.m * of.n)?;
        self.product
            .launch(cuda, &set.x, &set.weight, &mut theirs)?;
        of.launch(set)?;
        cuda.synchronize()?;
        let difference = of.against(&set.out, &theirs)?;
        self.difference = Some(difference);
        difference.verdict()
    }

    fn work(&self) -> Work {
        self.work
    }
}

impl Gemm<'_> {
    fn set(&self, copy: usize) -> Result<Set, Error> {
        Ok(Set {
            x: self
                .pattern
                .buffer(self.cuda, self.m * self.k, start(copy))?,
            weight: self.cuda.dummy_matrix(DType::BF16, &[[self.n, self.k]])?,
            out: output(self.cuda, self.m * self.n)?,
        })
    }

    fn launch(&self, set: &mut Set) -> Result<Kernel, Error> {
        Ok(self
            .cuda
            .gemm(&set.x, self.m, &set.weight, None, &mut set.out)?)
    }

    /// cuBLASLt, when it has done its work once.
    fn peer<'a>(
        &'a self,
        handle: &Arc<Handle>,
        sets: &'a RefCell<Vec<Set>>,
        work: Work,
    ) -> Result<Theirs<'a>, Error> {
        let mut theirs = Theirs {
            of: self,
            sets,
            product: Product::new(self.cuda, handle, [self.m, self.n, self.k])?,
            work,
            difference: None,
        };
        theirs.launch(0)?;
        self.cuda.synchronize()?;
        Ok(theirs)
    }

    /// Ours against sums in float64, of some elements.
    fn against_sums(
        &self,
        out: &CudaBuffer,
        weight: &CudaMatrix,
        copy: usize,
    ) -> Result<Difference, Error> {
        let (n, k) = (self.n, self.k);
        let rows = spread(self.m, ROWS);
        let mut results = Vec::new();
        let mut expected = Vec::new();
        for column in spread(n, COLUMNS) {
            let weights = read(self.cuda, weight.values(), column * k, k)?;
            for &row in &rows {
                results.extend(read(self.cuda, out, row * n + column, 1)?);
                let terms = weights.iter().enumerate();
                let terms =
                    terms.map(|(i, weight)| weight * self.pattern.at(start(copy), row * k + i));
                expected.push(terms.sum::<f64>());
            }
        }
        Ok(Difference::of(&results, &expected, 1.0))
    }

    /// Ours against the peer's, in whole rows: sums may have been rounded on the way on either side.
    fn against(&self, ours: &CudaBuffer, theirs: &CudaBuffer) -> Result<Difference, Error> {
        let mut difference = Difference::default();
        for row in spread(self.m, ROWS) {
            let ours = read(self.cuda, ours, row * self.n, self.n)?;
            let theirs = read(self.cuda, theirs, row * self.n, self.n)?;
            difference = difference.and(Difference::of(&ours, &theirs, 2.0));
        }
        Ok(difference)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::emulated;
    use super::*;

    #[test]
    fn what_is_wrong_is_found() {
        let Some(cuda) = emulated() else { return };
        let pattern = Pattern::new(&cuda).unwrap();
        let of = Gemm {
            cuda: &cuda,
            pattern: &pattern,
            m: 3,
            n: 64,
            k: 96,
        };
        let mut set = of.set(5).unwrap();
        // Nothing was computed yet.
        let nothing = of.against_sums(&set.out, &set.weight, 5).unwrap();
        assert_eq!(nothing.worst, f64::INFINITY);
        of.launch(&mut set).unwrap();
        let right = of.against_sums(&set.out, &set.weight, 5).unwrap();
        assert!(right.is_right(), "{right:?}");
        assert_eq!(right.elements, 3 * COLUMNS);
        // The activations of another copy.
        let other = of.against_sums(&set.out, &set.weight, 4).unwrap();
        assert!(!other.is_right(), "{other:?}");
        // A peer that agrees, and one that does not in its last element.
        let mut theirs = output(&cuda, 3 * 64).unwrap();
        theirs
            .copy_from(cuda.stream(), 0, &set.out, 0..3 * 64)
            .unwrap();
        assert!(of.against(&set.out, &theirs).unwrap().is_right());
        theirs.write(cuda.stream(), 3 * 64 - 1, &[0x3f80]).unwrap();
        assert!(!of.against(&set.out, &theirs).unwrap().is_right());
    }
}
