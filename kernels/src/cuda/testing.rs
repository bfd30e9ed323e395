//! The emulated device for tests: every check on, and nothing may be found.

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use proptest::prelude::TestCaseError;
use stepscope_device::driver::{DeviceBuffer, Driver};
use stepscope_emulator::check::Checks;
use stepscope_emulator::driver::{Configuration, LaunchReport, configure, symbol, take_reports};

use super::memory::{round, widen};
use super::{Cuda, CudaBuffer, CudaIndices, CudaKvPool};
use crate::{Backend, DType};

/// Tests that run at the same time have a device each.
const DEVICES: usize = 8;

/// Elements behind a buffer that no kernel may touch.
const GUARD: usize = 64;
const POISON: u16 = 0xffff;

struct Pool {
    driver: Arc<Driver>,
    free: Mutex<Vec<usize>>,
    returned: Condvar,
}

/// The driver within this program, or why there is none.
fn pool() -> Option<&'static Pool> {
    static POOL: OnceLock<Option<Pool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let configuration = Configuration {
            devices: DEVICES,
            compute_capability: (8, 0),
            memory_bytes: 1 << 30,
            checks: Checks::ALL,
            keep_reports: true,
            ..Configuration::default()
        };
        configure(configuration).unwrap();
        // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
        let driver = unsafe { Driver::emulated(symbol) }.unwrap();
        Some(Pool {
            driver,
            free: Mutex::new((0..DEVICES).collect()),
            returned: Condvar::new(),
        })
    });
    pool.as_ref()
}

/// A device of one test.
pub(crate) struct Emulated {
    cuda: Option<Cuda>,
    ordinal: usize,
}

impl Deref for Emulated {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        self.cuda.as_ref().unwrap()
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.cuda = None;
        let Some(pool) = pool() else { return };
        take_reports(self.ordinal);
        let mut free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.ordinal);
        pool.returned.notify_one();
    }
}

/// A device of compute capability 8.0 that looks for everything; `None` where NVRTC is missing, which is said.
pub(crate) fn emulated(dtype: DType) -> Option<Emulated> {
    let pool = pool()?;
    let ordinal = {
        let free = pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = pool
            .returned
            .wait_while(free, |free| free.is_empty())
            .unwrap();
        free.pop().unwrap()
    };
    let mut device = Emulated {
        cuda: None,
        ordinal,
    };
    match Cuda::new(&pool.driver, ordinal, dtype) {
        Ok(cuda) => {
            device.cuda = Some(cuda);
            Some(device)
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Numbers as the storage type has them.
pub(crate) fn rounded(values: &[f32], dtype: DType) -> Vec<u16> {
    values.iter().map(|&x| round(x, dtype)).collect()
}

/// A number after a way through the storage type.
pub(crate) fn widened(x: f32, dtype: DType) -> f32 {
    widen(round(x, dtype), dtype)
}

impl Emulated {
    /// A buffer with these values and a guard behind them.
    pub(crate) fn upload(&self, bits: &[u16]) -> CudaBuffer {
        let mut buffer = self.poisoned(bits.len());
        buffer.write(self.stream(), 0, bits).unwrap();
        buffer
    }

    /// A buffer of NaN, with a guard behind it.
    pub(crate) fn poisoned(&self, len: usize) -> CudaBuffer {
        let mut buffer = DeviceBuffer::new(self.context(), "a test's buffer", len + GUARD).unwrap();
        buffer
            .write(self.stream(), 0, &vec![POISON; len + GUARD])
            .unwrap();
        buffer
    }

    /// Indices.
    pub(crate) fn upload_indices(&self, values: &[i32]) -> CudaIndices {
        let mut indices = self.indices(values.len()).unwrap();
        self.write_indices(&mut indices, values).unwrap();
        indices
    }

    /// What a buffer holds, widened; its guard too.
    pub(crate) fn download(&self, buffer: &CudaBuffer) -> Vec<f32> {
        let mut bits = vec![0; buffer.len()];
        buffer.read(self.stream(), 0, &mut bits).unwrap();
        bits.into_iter()
            .map(|bits| widen(bits, self.dtype))
            .collect()
    }

    /// What a buffer holds, as it is stored; its guard too.
    pub(crate) fn download_bits(&self, buffer: &CudaBuffer) -> Vec<u16> {
        let mut bits = vec![0; buffer.len()];
        buffer.read(self.stream(), 0, &mut bits).unwrap();
        bits
    }

    /// Keys and values of a layer, as they are stored.
    pub(crate) fn download_layer(&self, pool: &CudaKvPool, layer: usize) -> [Vec<u16>; 2] {
        pool.read_layer(self, layer).unwrap()
    }

    /// A result is the truth within an absolute error and one rounding to the storage type.
    pub(crate) fn assert_near(
        &self,
        what: &str,
        got: f32,
        truth: f64,
        absolute: f64,
    ) -> Result<(), TestCaseError> {
        let relative = if truth == 0.0 {
            0.0
        } else {
            absolute / truth.abs()
        };
        if truth == 0.0 && f64::from(got).abs() <= absolute {
            return Ok(());
        }
        self.assert_rounded(what, got, truth, relative)
    }

    /// A result is the truth within a relative error of the arithmetic (in float32) and one rounding to the storage type.
    pub(crate) fn assert_rounded(
        &self,
        what: &str,
        got: f32,
        truth: f64,
        relative: f64,
    ) -> Result<(), TestCaseError> {
        let epsilon = if self.dtype == DType::F16 {
            2f64.powi(-11)
        } else {
            2f64.powi(-8)
        };
        // Half a unit in the last place of normal numbers, or of the smallest.
        let smallest = if self.dtype == DType::F16 {
            2f64.powi(-25)
        } else {
            2f64.powi(-134)
        };
        let tolerance = truth.abs() * (epsilon * 1.0001 + relative) + smallest;
        let error = (f64::from(got) - truth).abs();
        if error <= tolerance {
            Ok(())
        } else {
            Err(TestCaseError::fail(format!(
                "{what}: {got}, should be {truth} within {tolerance:e}"
            )))
        }
    }

    /// Nothing was found in any launch, and the guard behind `len` elements is whole. What the launches did.
    pub(crate) fn assert_clean(&self, buffer: &CudaBuffer, len: usize) -> Vec<LaunchReport> {
        let mut bits = vec![0; buffer.len()];
        buffer.read(self.stream(), 0, &mut bits).unwrap();
        assert!(
            bits[len..].iter().all(|&bits| bits == POISON),
            "a kernel wrote past the end"
        );
        self.reports()
    }

    /// What the launches so far did; nothing was found in any.
    pub(crate) fn reports(&self) -> Vec<LaunchReport> {
        self.stream().synchronize().unwrap();
        let reports = take_reports(self.ordinal);
        for report in &reports {
            let findings: Vec<String> = report
                .report
                .findings
                .iter()
                .map(ToString::to_string)
                .collect();
            assert!(
                findings.is_empty(),
                "{}: {}",
                report.kernel,
                findings.join("\n")
            );
        }
        reports
    }
}
