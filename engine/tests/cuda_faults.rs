//! What the engine asks of the driver in a step, and what it says and does when the device fails in the middle of a run: a
//! driver that counts calls, and refuses at a chosen one.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

mod support;

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stepscope_device::driver::Driver;
use stepscope_device::nvrtc::Compiler;
use stepscope_emulator::driver::{Configuration, configure, symbol};
use stepscope_engine::{Runner, RunnerOptions};
use stepscope_kernels::cuda::Cuda;
use support::{folders, load_from};

/// CUDA_ERROR_LAUNCH_FAILED: a kernel crashed.
const CRASHED: u32 = 719;

/// The launch, counted from now, that is refused; and the wait for a stream.
static LAUNCHES_LEFT: AtomicI64 = AtomicI64::new(i64::MAX);
static WAITS_LEFT: AtomicI64 = AtomicI64::new(i64::MAX);
/// Calls of the driver after a crash that would need the context.
static CALLS_AFTER: AtomicU32 = AtomicU32::new(0);
static CRASHES: AtomicU32 = AtomicU32::new(0);
/// Allocations, of the device's memory and of pinned memory; and waits for the stream.
static ALLOCATIONS: AtomicU32 = AtomicU32::new(0);
static WAITS: AtomicU32 = AtomicU32::new(0);

type LaunchEx =
    unsafe extern "C" fn(*const c_void, *mut c_void, *mut *mut c_void, *mut *mut c_void) -> u32;
type Allocate = unsafe extern "C" fn(*mut u64, usize) -> u32;
type AllocatePinned = unsafe extern "C" fn(*mut *mut c_void, usize, u32) -> u32;
type Synchronize = unsafe extern "C" fn(*mut c_void) -> u32;
type GetProcAddress =
    unsafe extern "C" fn(*const c_char, *mut *mut c_void, i32, u64, *mut i32) -> u32;

fn crashes(left: &AtomicI64) -> bool {
    if CRASHES.load(Ordering::SeqCst) > 0 {
        CALLS_AFTER.fetch_add(1, Ordering::SeqCst);
    }
    let crashes = left.fetch_sub(1, Ordering::SeqCst) == 1;
    CRASHES.fetch_add(crashes.into(), Ordering::SeqCst);
    crashes
}

unsafe extern "C" fn launch(
    config: *const c_void,
    function: *mut c_void,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> u32 {
    if crashes(&LAUNCHES_LEFT) {
        return CRASHED;
    }
    let real = symbol("cuLaunchKernelEx").unwrap();
    // SAFETY: the emulator's function has this signature; the arguments are the caller's.
    unsafe {
        std::mem::transmute::<*const c_void, LaunchEx>(real)(config, function, arguments, extra)
    }
}

unsafe extern "C" fn allocate(address: *mut u64, bytes: usize) -> u32 {
    ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    let real = symbol("cuMemAlloc_v2").unwrap();
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*const c_void, Allocate>(real)(address, bytes) }
}

unsafe extern "C" fn allocate_pinned(address: *mut *mut c_void, bytes: usize, flags: u32) -> u32 {
    ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    let real = symbol("cuMemHostAlloc").unwrap();
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*const c_void, AllocatePinned>(real)(address, bytes, flags) }
}

unsafe extern "C" fn synchronize(stream: *mut c_void) -> u32 {
    WAITS.fetch_add(1, Ordering::SeqCst);
    if crashes(&WAITS_LEFT) {
        return CRASHED;
    }
    let real = symbol("cuStreamSynchronize").unwrap();
    // SAFETY: as above.
    unsafe { std::mem::transmute::<*const c_void, Synchronize>(real)(stream) }
}

unsafe extern "C" fn get_proc_address(
    name: *const c_char,
    out: *mut *mut c_void,
    version: i32,
    flags: u64,
    status: *mut i32,
) -> u32 {
    // SAFETY: the caller gives a C string and a place for the answer.
    let found = unsafe { CStr::from_ptr(name) }.to_str().ok().and_then(ours);
    if let Some(found) = found {
        // SAFETY: as above.
        unsafe { *out = found.cast_mut() };
        return 0;
    }
    let real = symbol("cuGetProcAddress_v2").unwrap();
    // SAFETY: as for `launch`.
    unsafe {
        std::mem::transmute::<*const c_void, GetProcAddress>(real)(
            name, out, version, flags, status,
        )
    }
}

fn ours(name: &str) -> Option<*const c_void> {
    match name {
        "cuLaunchKernelEx" => Some(launch as *const c_void),
        "cuStreamSynchronize" => Some(synchronize as *const c_void),
        "cuMemAlloc_v2" => Some(allocate as *const c_void),
        "cuMemHostAlloc" => Some(allocate_pinned as *const c_void),
        "cuGetProcAddress_v2" => Some(get_proc_address as *const c_void),
        _ => None,
    }
}

fn find(name: &str) -> Option<*const c_void> {
    ours(name).or_else(|| symbol(name))
}

/// A runner of a small model; nothing where NVRTC is missing, which is said.
fn with_runner(cuda_graph: bool, test: impl FnOnce(Runner<Cuda>)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = Compiler::open() {
        return println!("skipped: {error}");
    }
    let _ = configure(Configuration {
        compute_capability: (8, 0),
        memory_bytes: 1 << 30,
        ..Configuration::default()
    }); // the second test finds it as the first left it
    LAUNCHES_LEFT.store(i64::MAX, Ordering::SeqCst);
    WAITS_LEFT.store(i64::MAX, Ordering::SeqCst);
    CRASHES.store(0, Ordering::SeqCst);
    CALLS_AFTER.store(0, Ordering::SeqCst);
    // SAFETY: the functions are the emulator's, or pass on to them.
    let driver: Arc<Driver> = unsafe { Driver::emulated(find) }.unwrap();
    let model = load_from(&folders()[0], None);
    let cuda = Cuda::new(&driver, 0, model.dtype).unwrap();
    let options = RunnerOptions {
        cuda_graph,
        ..RunnerOptions::small(1, 8)
    };
    test(Runner::new(cuda, &model, &options).unwrap());
}

/// After a crash every step fails with what happened first, and the driver is not asked any more.
fn assert_unusable(runner: &mut Runner<Cuda>, what_happened: &str) {
    for _ in 0..2 {
        let error = runner.prefill(&[&[1, 2]]).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the device is not used any more, since a kernel crashed: {what_happened}")
        );
    }
    assert_eq!(CALLS_AFTER.load(Ordering::SeqCst), 0);
}

#[test]
fn a_launch_that_fails_is_named_with_kernel_grid_and_block() {
    with_runner(false, |mut runner| {
        let (mut batch, _) = runner.prefill(&[&[1, 2, 3]]).unwrap();
        // The tables go on, embedding, the first norm.
        LAUNCHES_LEFT.store(3, Ordering::SeqCst);
        let error = runner.decode(&mut batch, None).unwrap_err().to_string();
        assert!(error.contains("rms_norm"), "{error}");
        assert!(error.contains("(grid [1, 1, 1], block ["), "{error}");
        assert!(
            error.contains(
                "CUDA_ERROR_LAUNCH_FAILED (719); a kernel crashed, and the context is lost"
            ),
            "{error}"
        );
        assert_unusable(&mut runner, &error);
    });
}

#[test]
fn a_crash_that_shows_later_says_how_to_find_the_kernel() {
    with_runner(false, |mut runner| {
        let (mut batch, _) = runner.prefill(&[&[1, 2, 3]]).unwrap();
        // The step begins with a wait, and ends with one.
        WAITS_LEFT.store(2, Ordering::SeqCst);
        let error = runner.decode(&mut batch, None).unwrap_err().to_string();
        assert!(error.starts_with("one of the "), "{error}");
        assert!(
            error.ends_with("run again with CUDA_LAUNCH_BLOCKING=1 in the environment and --disable-cuda-graph to have it named"),
            "{error}"
        );
        assert_unusable(&mut runner, &error);
    });
}

#[test]
fn a_step_allocates_nothing_and_waits_at_its_ends_only() {
    for cuda_graph in [false, true] {
        ALLOCATIONS.store(0, Ordering::SeqCst);
        with_runner(cuda_graph, |mut runner| {
            // The runner's own memory is counted, so that of a step would be.
            assert!(ALLOCATIONS.load(Ordering::SeqCst) > 20);
            let counted = |what: &str, step: &mut dyn FnMut()| {
                ALLOCATIONS.store(0, Ordering::SeqCst);
                WAITS.store(0, Ordering::SeqCst);
                step();
                assert_eq!(ALLOCATIONS.load(Ordering::SeqCst), 0, "{what}");
                assert_eq!(WAITS.load(Ordering::SeqCst), 2, "{what}");
            };
            let mut batch = None;
            counted("prefill", &mut || {
                batch = Some(runner.prefill(&[&[1, 2, 3]]).unwrap().0);
            });
            let mut batch = batch.unwrap();
            for step in 0..3 {
                let what = format!("decode {step}, CUDA graph {cuda_graph}");
                counted(&what, &mut || {
                    runner.decode(&mut batch, None).unwrap();
                });
            }
        });
    }
}
