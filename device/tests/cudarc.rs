//! The shared library under the name that programs look for: cudarc, as anybody uses it, finds it and works on it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg as _, sys};
use cudarc::nvrtc::Ptx;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// One test, since the driver is one for the whole process.
#[test]
fn cudarc_works_on_the_emulated_device() {
    let path = support::library();
    // SAFETY: the library is ours, and has no initialisers. It stays loaded.
    let opened = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
    std::mem::forget(opened.unwrap_or_else(|error| panic!("{}: {error}", path.display())));

    // cudarc asks the loader for `libcuda.so.1`, which is loaded already under that name.
    let context = CudaContext::new(0).unwrap();
    assert_eq!(
        context.name().unwrap(),
        "Emulated sm_90 (functional, no timing)"
    );
    assert_eq!(context.compute_capability().unwrap(), (9, 0));
    let module = context
        .load_module(Ptx::from_src(support::KERNELS))
        .unwrap();
    let scale = module.load_function("scale").unwrap();

    let stream = context.new_stream().unwrap();
    let mut x = stream.clone_htod(&[1.0_f32, 2.0, 3.0, 4.0]).unwrap();
    let config = LaunchConfig {
        grid_dim: (1, 1, 1),
        block_dim: (32, 1, 1),
        shared_mem_bytes: 0,
    };
    let launch = |x: &mut cudarc::driver::CudaSlice<f32>, n: u32| {
        let mut builder = stream.launch_builder(&scale);
        builder.arg(x).arg(&2.0_f32).arg(&n);
        // SAFETY: the kernel takes a pointer, a factor and a count, which is at most the length of `x`.
        unsafe { builder.launch(config) }.unwrap();
    };
    launch(&mut x, 3);
    assert_eq!(stream.clone_dtoh(&x).unwrap(), [2.0, 4.0, 6.0, 4.0]);

    // Event tracking puts events that are no part of the capture into it; users turn it off.
    // SAFETY: everything here is in one stream.
    unsafe { context.disable_event_tracking() };
    let mut y = stream.clone_htod(&[1.0_f32; 4]).unwrap();
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    stream.begin_capture(mode).unwrap();
    launch(&mut y, 4);
    launch(&mut y, 4);
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(
        stream.clone_dtoh(&y).unwrap(),
        [1.0; 4],
        "recorded, not done"
    );
    graph.launch().unwrap();
    graph.launch().unwrap();
    assert_eq!(stream.clone_dtoh(&y).unwrap(), [16.0; 4]);
}
