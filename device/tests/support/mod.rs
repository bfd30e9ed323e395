//! The emulated driver, with its calls counted, and made to fail where a test asks for it.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};

use stepscope_device::driver::{
    Context, DeviceBuffer, DevicePointer, Driver, ElementType, Kernel, Module, Stream, Swizzle,
    Tile,
};
use stepscope_device::{Error, arguments};
use stepscope_emulator::driver as emulator;

/// The kernels that the tests launch.
pub(crate) const KERNELS: &str = include_str!("kernels.ptx");

/// The devices that the emulated driver has in these tests.
pub(crate) const DEVICES: usize = 2;
pub(crate) const MEMORY: u64 = 4 << 30;

arguments! {
    /// `scale(float *x, float by, unsigned n)`
    pub(crate) struct Scale {
        pub(crate) x: DevicePointer,
        pub(crate) by: f32,
        pub(crate) n: u32,
    }
}

pub(crate) fn kernel(context: &Arc<Context>, name: &str) -> Kernel<Scale> {
    let module = Module::load(context, "scale.cu", KERNELS.as_bytes()).unwrap();
    module.function(name).unwrap().with_arguments().unwrap()
}

/// For kernels that touch nothing.
pub(crate) const ARGUMENTS: Scale = Scale {
    x: DevicePointer(0x1000),
    by: 1.0,
    n: 0,
};

/// 1.0, 2.0, …
pub(crate) fn numbers(
    context: &Arc<Context>,
    stream: &Arc<Stream>,
    count: usize,
) -> DeviceBuffer<f32> {
    let data: Vec<f32> = (1..=count).map(|number| number as f32).collect();
    let mut buffer = DeviceBuffer::new(context, "x", count).unwrap();
    buffer.write(stream, 0, &data).unwrap();
    buffer
}

pub(crate) fn read(stream: &Stream, buffer: &DeviceBuffer<f32>) -> Vec<f32> {
    let mut data = vec![0.0; buffer.len()];
    buffer.read(stream, 0, &mut data).unwrap();
    data
}

pub(crate) fn tile(address: DevicePointer) -> Tile {
    Tile {
        element: ElementType::BF16,
        address,
        extents: vec![4096, 128],
        strides_bytes: vec![8192],
        tile: vec![64, 128],
        swizzle: Swizzle::Bytes128,
    }
}

/// The emulated driver as one test sees it.
pub(crate) struct Emulated {
    watch: Arc<Mutex<Watch>>,
}

/// What was called, and what shall fail.
#[derive(Default)]
struct Watch {
    calls: HashMap<String, u32>,
    last_arguments: HashMap<String, Vec<usize>>,
    /// In how many calls from now on, and with what.
    failures: HashMap<String, (u32, u32)>,
    missing: Vec<String>,
    version: Option<i32>,
    live: i32,
}

thread_local! {
    static WATCH: RefCell<Arc<Mutex<Watch>>> = RefCell::default();
}

fn watch() -> Arc<Mutex<Watch>> {
    WATCH.with_borrow(Arc::clone)
}

pub(crate) fn emulated() -> Emulated {
    static CONFIGURED: Once = Once::new();
    CONFIGURED.call_once(|| {
        let configuration = emulator::Configuration {
            devices: DEVICES,
            memory_bytes: MEMORY,
            ..emulator::Configuration::default()
        };
        emulator::configure(configuration).unwrap();
    });
    let emulated = Emulated {
        watch: Arc::default(),
    };
    emulated.watch_this_thread();
    emulated
}

impl Emulated {
    pub(crate) fn driver(&self) -> Result<Arc<Driver>, Error> {
        // SAFETY: the functions are the emulator's, or pass on to them.
        unsafe { Driver::emulated(find) }
    }

    pub(crate) fn context(&self) -> Arc<Context> {
        Context::new(&self.driver().unwrap(), 0).unwrap()
    }

    pub(crate) fn context_and_stream(&self) -> (Arc<Context>, Arc<Stream>) {
        let context = self.context();
        let stream = Stream::new(&context).unwrap();
        (context, stream)
    }

    /// Counts the calls of this thread too.
    pub(crate) fn watch_this_thread(&self) {
        WATCH.set(Arc::clone(&self.watch));
    }

    /// The `n`-th call of `function` from now on answers `code`.
    pub(crate) fn fail(&self, function: &str, n: u32, code: u32) {
        let mut watch = self.watch.lock().unwrap();
        watch.failures.insert(function.to_owned(), (n, code));
    }

    /// The driver is of this version of CUDA, and lacks these functions.
    pub(crate) fn be_older(&self, version: i32, without: &[&str]) {
        let mut watch = self.watch.lock().unwrap();
        watch.version = Some(version);
        watch.missing = without.iter().map(|name| (*name).to_owned()).collect();
    }

    pub(crate) fn calls(&self, function: &str) -> u32 {
        let watch = self.watch.lock().unwrap();
        watch.calls.get(function).copied().unwrap_or(0)
    }

    /// The last call's arguments, as integers.
    pub(crate) fn last_arguments(&self, function: &str) -> Vec<usize> {
        self.watch.lock().unwrap().last_arguments[function].clone()
    }

    /// Handles and allocations that were made and are not destroyed.
    pub(crate) fn live(&self) -> i32 {
        self.watch.lock().unwrap().live
    }
}

/// Notes a call; the answer is the error that the test asked for.
fn enter(name: &str, arguments: &[usize]) -> Option<u32> {
    let watch = watch();
    let mut watch = watch.lock().unwrap();
    *watch.calls.entry(name.to_owned()).or_default() += 1;
    watch
        .last_arguments
        .insert(name.to_owned(), arguments.to_vec());
    let (rest, code) = watch.failures.get_mut(name)?;
    *rest -= 1;
    let code = *code;
    (*rest == 0)
        .then(|| watch.failures.remove(name))
        .flatten()?;
    Some(code)
}

/// Keeps count of what there is.
fn leave(name: &str, status: u32) -> u32 {
    const MAKERS: [&str; 9] = [
        "cuDevicePrimaryCtxRetain",
        "cuMemAlloc_v2",
        "cuMemAllocAsync",
        "cuMemHostAlloc",
        "cuStreamCreateWithPriority",
        "cuEventCreate",
        "cuModuleLoadDataEx",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
    ];
    const DESTROYERS: [&str; 9] = [
        "cuDevicePrimaryCtxRelease_v2",
        "cuMemFree_v2",
        "cuMemFreeAsync",
        "cuMemFreeHost",
        "cuStreamDestroy_v2",
        "cuEventDestroy_v2",
        "cuModuleUnload",
        "cuGraphDestroy",
        "cuGraphExecDestroy",
    ];
    if status == 0 {
        let change = i32::from(MAKERS.contains(&name)) - i32::from(DESTROYERS.contains(&name));
        watch().lock().unwrap().live += change;
    }
    status
}

/// Functions that are watched. Their arguments are integers and pointers, all passed as integers of full width.
macro_rules! watched {
    ($($name:ident($($argument:ident),*);)*) => {
        /// The function of this name: a watched one, or the emulator's own.
        fn find(name: &str) -> Option<*const c_void> {
            if watch().lock().unwrap().missing.iter().any(|missing| missing == name) {
                return None;
            }
            $({
                #[allow(clippy::too_many_arguments, reason = "the signatures are NVIDIA's")]
                unsafe extern "C" fn watched($($argument: usize),*) -> u32 {
                    if let Some(code) = enter(stringify!($name), &[$($argument),*]) {
                        return code;
                    }
                    type Own = unsafe extern "C" fn($(watched!(@usize $argument)),*) -> u32;
                    let own = emulator::symbol(stringify!($name)).unwrap();
                    // SAFETY: the function takes as many integers or pointers.
                    let own = unsafe { std::mem::transmute::<*const c_void, Own>(own) };
                    // SAFETY: the caller keeps the function's contract.
                    leave(stringify!($name), unsafe { own($($argument),*) })
                }
                if name == stringify!($name) {
                    return Some(watched as *const c_void);
                }
            })*
            if name == "cuDriverGetVersion" {
                return Some(version as *const c_void);
            }
            emulator::symbol(name)
        }
    };
    (@usize $argument:ident) => { usize };
}

watched! {
    cuInit(a);
    cuDevicePrimaryCtxRetain(a, b);
    cuDevicePrimaryCtxRelease_v2(a);
    cuCtxSetCurrent(a);
    cuMemAlloc_v2(a, b);
    cuMemFree_v2(a);
    cuMemAllocAsync(a, b, c);
    cuMemFreeAsync(a, b);
    cuMemHostAlloc(a, b, c);
    cuMemFreeHost(a);
    cuMemcpyHtoDAsync_v2(a, b, c, d);
    cuMemcpyPeerAsync(a, b, c, d, e, f);
    cuStreamCreateWithPriority(a, b, c);
    cuStreamDestroy_v2(a);
    cuStreamQuery(a);
    cuStreamWaitEvent(a, b, c);
    cuStreamEndCapture(a, b);
    cuEventCreate(a, b);
    cuEventDestroy_v2(a);
    cuEventRecord(a, b);
    cuEventQuery(a);
    cuEventSynchronize(a);
    cuModuleLoadDataEx(a, b, c, d, e);
    cuModuleUnload(a);
    cuLaunchKernelEx(a, b, c, d);
    cuGraphInstantiateWithFlags(a, b, c);
    cuGraphDestroy(a);
    cuGraphExecDestroy(a);
    cuTensorMapEncodeTiled(a, b, c, d, e, f, g, h, i, j, k, l);
}

unsafe extern "C" fn version(place: *mut i32) -> u32 {
    let version = watch().lock().unwrap().version.unwrap_or(13_000);
    // SAFETY: the caller has a place for the version.
    unsafe { *place = version };
    0
}

/// The emulated driver as a shared library, which cargo builds beside the tests.
pub(crate) fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!(
        "{}stepscope_emulator{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let path = test.parent().unwrap().join(name);
    assert!(path.is_file(), "{} is not there", path.display());
    path
}
