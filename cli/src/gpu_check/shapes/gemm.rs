//! A GEMM of a model: ours beside cuBLASLt's.

use std::sync::Arc;

use stepscope_device::cublaslt::{Element, Handle, Matmul, Problem};
use stepscope_kernels::cuda::{Cuda, CudaBuffer, CudaMatrix};
use stepscope_kernels::{Backend, DType, Error, Kernel};

use super::inputs::{Difference, Pattern, output, poison, read, run, spread};
use super::timing::{Launches, Measured, measure};
use super::{Checked, Outcome, Wanted};
use crate::output::Failure;

/// Scratch memory that cuBLASLt may use: what NVIDIA's documentation of `cublasSetWorkspace` recommends for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;
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
    let mut sets = (0..wanted.copies)
        .map(|copy| of.set(copy))
        .collect::<Result<Vec<Set>, Failure>>()?;
    let graph = of.record(&mut sets, wanted.copies)?;
    graph.replay(cuda)?;
    cuda.synchronize()?;
    let mut difference = of.against_sums(&sets[0].out, &sets[0].weight, 0)?;
    let last = wanted.copies - 1;
    if last > 0 {
        let set = &sets[last];
        difference = difference.and(of.against_sums(&set.out, &set.weight, last)?);
    }
    drop(graph);
    let kernel = of.launch(&mut sets[0])?;
    cuda.synchronize()?;
    // A peer that cannot do it costs ours nothing.
    let peer = cublaslt.map(|handle| {
        let plan = of.plan(handle).map_err(run)?;
        let difference = of.against_peer(&plan, &sets[0])?;
        Ok::<_, Failure>((plan, difference))
    });
    let (peer, note) = match peer.transpose() {
        Ok(peer) => (peer, None),
        Err(failure) => (None, Some(format!("cuBLASLt: {}", failure.into_message()))),
    };
    let (plan, from_peer) = peer.unzip();
    let checked = Checked {
        kernel: kernel.to_owned(),
        difference,
        from_peer,
    };
    let measured = match wanted.is_timed && checked.is_right() {
        true => Some(of.measure(&mut sets, plan.as_ref())?),
        false => None,
    };
    Ok(Outcome {
        checked,
        measured,
        note,
    })
}

impl Gemm<'_> {
    fn set(&self, copy: usize) -> Result<Set, Failure> {
        Ok(Set {
            x: self
                .pattern
                .buffer(self.cuda, self.m * self.k, start(copy))?,
            weight: self.cuda.dummy_matrix(DType::BF16, &[[self.n, self.k]])?,
            out: output(self.cuda, self.m * self.n)?,
        })
    }

    fn launch(&self, set: &mut Set) -> Result<Kernel, Error> {
        self.cuda
            .gemm(&set.x, self.m, &set.weight, None, &mut set.out)
    }

    /// A graph of launches over the sets in turn.
    fn record(&self, sets: &mut [Set], launches: usize) -> Result<Launches, Failure> {
        let graph = self.cuda.record(&mut || {
            for launch in 0..launches {
                let set = launch % sets.len();
                self.launch(&mut sets[set])?;
            }
            Ok(())
        })?;
        Ok(Launches::Ours(graph))
    }

    fn plan(&self, handle: &Arc<Handle>) -> Result<Matmul, stepscope_device::Error> {
        let problem = Problem {
            m: self.m,
            n: self.n,
            k: self.k,
            element: Element::Bf16,
            bias: None,
        };
        Matmul::new(handle, &problem, WORKSPACE_BYTES)
    }

    /// Puts cuBLASLt's product of a set's matrices into the stream.
    ///
    /// # Safety
    /// As [`Matmul::run`]; the plan is of this shape.
    unsafe fn multiply(
        &self,
        plan: &Matmul,
        set: &Set,
        out: &CudaBuffer,
    ) -> Result<(), stepscope_device::Error> {
        let (x, weight) = (set.x.pointer(), set.weight.values().pointer());
        // SAFETY: the caller's promise.
        unsafe { plan.run(self.cuda.stream(), x, weight, out.pointer()) }
    }

    /// Ours against the peer's, launched by itself and from a graph.
    fn against_peer(&self, plan: &Matmul, set: &Set) -> Result<Difference, Failure> {
        let cuda = self.cuda;
        let mut theirs = output(cuda, self.m * self.n)?;
        // SAFETY: the buffers hold as many elements as the plan's problem, and are waited for below.
        unsafe { self.multiply(plan, set, &theirs) }.map_err(run)?;
        cuda.synchronize()?;
        let difference = self.against(&set.out, &theirs)?;
        poison(cuda, &mut theirs)?;
        // SAFETY: as above; the graph is replayed once, and waited for before the buffers go.
        let graph = unsafe { Launches::of_peer(cuda, || self.multiply(plan, set, &theirs)) }?;
        graph.replay(cuda)?;
        cuda.synchronize()?;
        Ok(difference.and(self.against(&set.out, &theirs)?))
    }

    fn measure(&self, sets: &mut [Set], plan: Option<&Matmul>) -> Result<Measured, Failure> {
        let copies = sets.len();
        // Both sides write to the same outputs, in the order of one stream.
        let sets = std::cell::RefCell::new(sets);
        let mut ours = |launches| self.record(&mut sets.borrow_mut(), launches);
        let Some(plan) = plan else {
            return measure(self.cuda, copies, &mut ours, None);
        };
        let mut theirs = |launches| {
            let sets = sets.borrow();
            let work = || {
                for launch in 0..launches {
                    let set = &sets[launch % copies];
                    // SAFETY: the buffers hold as many elements as the plan's problem, and stay until `gemm` returns; all runs
                    // of the plan are in one stream.
                    unsafe { self.multiply(plan, set, &set.out)? };
                }
                Ok(())
            };
            // SAFETY: `measure` waits for all replays before it returns, and sets and plan outlive it.
            unsafe { Launches::of_peer(self.cuda, work) }
        };
        measure(self.cuda, copies, &mut ours, Some(&mut theirs))
    }

    /// Ours against sums in float64, of some elements.
    fn against_sums(
        &self,
        out: &CudaBuffer,
        weight: &CudaMatrix,
        copy: usize,
    ) -> Result<Difference, Failure> {
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
    fn against(&self, ours: &CudaBuffer, theirs: &CudaBuffer) -> Result<Difference, Failure> {
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
