//! What tests of kernels share.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use stepscope_device::driver::Driver;
use stepscope_emulator::check::Checks;
use stepscope_emulator::driver::{Configuration, configure, symbol, take_reports};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::Cuda;

/// An emulated device with all checks on, for one test at a time, since a process has one driver; nothing where NVRTC is missing, which is said.
pub(crate) fn emulated() -> Option<(Cuda, MutexGuard<'static, ()>)> {
    static DRIVER: OnceLock<Arc<Driver>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let driver = DRIVER.get_or_init(|| {
        let configuration = Configuration {
            compute_capability: (9, 0),
            memory_bytes: 2 << 30,
            checks: Checks::ALL,
            keep_reports: true,
            ..Configuration::default()
        };
        configure(configuration).unwrap();
        // SAFETY: the emulator's functions have the signatures and the meaning of cuda.h.
        unsafe { Driver::emulated(symbol) }.unwrap()
    });
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    take_reports(0);
    match Cuda::new(driver, 0, DType::BF16) {
        Ok(cuda) => Some((cuda, turn)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Fails if the device found something in a kernel of this test, or if none ran.
pub(crate) fn assert_nothing_found() {
    let reports = take_reports(0);
    assert!(!reports.is_empty());
    for report in reports {
        let findings: Vec<String> = report
            .report
            .findings
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(findings.is_empty(), "{}: {findings:?}", report.kernel);
    }
}
