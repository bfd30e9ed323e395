//! cuBLASLt beside our products, in the same run and on the same inputs.

use stepscope_device::cublaslt::CublasLt;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::microbench::{Peer, Series};

use crate::peers::in_turn;

/// Which peers there are.
pub(super) struct Peers {
    /// Its version.
    cublaslt: Option<String>,
}

impl Peers {
    /// Says once why there is none on a GPU.
    pub(super) fn open(cuda: &Cuda) -> Peers {
        if cuda.context().device().is_emulated() {
            return Peers { cublaslt: None };
        }
        let cublaslt = match CublasLt::open() {
            Ok(library) => Some(library.version()),
            Err(error) => {
                println!("skipped: cublaslt beside gemm and gemv: {error}");
                None
            }
        };
        Peers { cublaslt }
    }

    pub(super) fn name(&self) -> &'static str {
        "cublaslt"
    }

    /// Whether there is one for this operation.
    pub(super) fn know(&self, operation: &str) -> bool {
        self.cublaslt.is_some() && matches!(operation, "gemm" | "gemv")
    }

    /// As it stands in the row of ours.
    pub(super) fn row(&self, ours: Option<&Series>, theirs: Series) -> Peer {
        in_turn("cuBLASLt", self.cublaslt.clone(), ours, theirs)
    }
}
