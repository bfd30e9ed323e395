//! The driver layer on a pretend driver: what it calls, what it passes, what it says when a call fails.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::sync::Arc;

use stepscope_device::driver::{
    Context, DeviceBuffer, DevicePointer, ElementType, Event, Graph, Launch, Module, PinnedBuffer,
    Stream, Swizzle, Tile, Update,
};
use stepscope_device::{Kind, arguments};
use support::{Pretend, pretend};

arguments! {
    /// `scale(float *x, float by, unsigned n)`
    struct Scale {
        x: DevicePointer,
        by: f32,
        n: u32,
    }
}

const SCALE: &[u8] = b"scale:8,4,4";

fn scale(context: &Arc<Context>) -> stepscope_device::driver::Kernel<Scale> {
    let module = Module::load(context, "scale.cu", SCALE).unwrap();
    module.function("scale").unwrap().with_arguments().unwrap()
}

const ARGUMENTS: Scale = Scale {
    x: DevicePointer(0x1000),
    by: 1.0,
    n: 7,
};

#[test]
fn devices_are_described() {
    let Some(pretend) = pretend(&[]) else { return };
    let driver = pretend.driver().unwrap();
    assert_eq!(driver.version().to_string(), "13.0");
    assert_eq!(driver.missing_functions(), Vec::<&str>::new());
    let devices = driver.devices().unwrap();
    assert_eq!(devices.len(), 2);
    let device = &devices[1];
    assert_eq!(device.name, "Pretend GPU 1");
    assert_eq!(device.uuid, "GPU-01112131-4151-6171-8191-a1b1c1d1e1f1");
    assert_eq!(device.compute_capability, [9, 0]);
    assert_eq!(device.limits.multiprocessors, 132);
    assert_eq!(device.limits.shared_bytes_per_block_opt_in, 232_448);
}

#[test]
fn a_machine_without_devices_says_so() {
    let Some(pretend) = pretend(&["-DDEVICES=0"]) else {
        return;
    };
    let error = pretend.driver().unwrap_err();
    assert_eq!(error.kind(), Kind::NoDevice);
    assert!(
        error
            .to_string()
            .contains("sees no device; look at nvidia-smi"),
        "{error}"
    );
}

#[test]
fn an_old_driver_is_told_which_one_is_needed() {
    let Some(pretend) = pretend(&["-DVERSION=11080"]) else {
        return;
    };
    let error = pretend.driver().unwrap_err();
    assert_eq!(error.kind(), Kind::DriverTooOld);
    assert_eq!(
        error.to_string(),
        "stepscope needs a driver for CUDA 12.0 (R525 or newer), but this one is for CUDA 11.8; update the NVIDIA driver"
    );
}

#[test]
fn a_driver_that_does_not_work_is_named_with_its_error() {
    let Some(pretend) = pretend(&[]) else { return };
    pretend.fail("cuInit", 1, 803);
    let error = pretend.driver().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Driver, Some(803)));
    assert!(
        error
            .to_string()
            .contains("reboot after an update of the driver"),
        "{error}"
    );
}

#[test]
fn a_device_that_does_not_exist_is_named() {
    let Some(pretend) = pretend(&[]) else { return };
    let error = Context::new(&pretend.driver().unwrap(), 2).unwrap_err();
    assert_eq!(error.kind(), Kind::NoDevice);
    assert_eq!(
        error.to_string(),
        "device 2 does not exist: the driver has 2 devices, numbered from 0"
    );
}

#[test]
fn everything_is_destroyed_once() {
    let Some(pretend) = pretend(&[]) else { return };
    {
        let (context, stream) = pretend.context_and_stream();
        let kernel = scale(&context);
        let buffer = DeviceBuffer::<f32>::new(&context, "x", 100).unwrap();
        let pooled = DeviceBuffer::<u8>::in_order_of(&stream, "y", 3).unwrap();
        let pinned = PinnedBuffer::<u32>::new(&context, "z", 4).unwrap();
        let event = Event::with_time(&context).unwrap();
        let graph = Graph::capture(&stream, || Ok(())).unwrap();
        let exec = graph.instantiate().unwrap();
        assert_eq!(pretend.live(), 10);
        drop((kernel, buffer, pooled, pinned, event, graph, exec, stream));
        assert_eq!(pretend.live(), 1, "the context");
    }
    assert_eq!(pretend.live(), 0);
}

#[test]
fn data_goes_to_the_device_and_back() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let mut buffer = DeviceBuffer::<u32>::new(&context, "ids", 6).unwrap();
    buffer.fill(&stream, 0xFF).unwrap();
    buffer.write(&stream, 2, &[1, 2, 3]).unwrap();
    let mut back = [0; 6];
    buffer.read(&stream, 0, &mut back).unwrap();
    assert_eq!(back, [u32::MAX, u32::MAX, 1, 2, 3, u32::MAX]);

    let mut pinned = PinnedBuffer::<u32>::new(&context, "ids", 4).unwrap();
    assert_eq!(pinned.host().unwrap(), [0; 4], "zeroed");
    pinned.host_mut().unwrap().copy_from_slice(&[7, 8, 9, 10]);
    buffer.upload(&stream, 0, &pinned, 2).unwrap();
    let mut target = DeviceBuffer::<u32>::new(&context, "copy", 3).unwrap();
    target.copy_from(&stream, 0, &buffer, 1..4).unwrap();
    target.download(&stream, 0, &mut pinned, 3).unwrap();
    let waited = pretend.calls("cuEventSynchronize");
    assert_eq!(pinned.host().unwrap(), [8, 1, 2, 10]);
    assert_eq!(
        pretend.calls("cuEventSynchronize"),
        waited + 1,
        "the host waits for the copy"
    );
}

/// One event stands behind the copies of several streams, because each stream waits for the copies before it.
#[test]
fn pinned_copies_of_two_streams_are_ordered() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let other = Stream::new(&context).unwrap();
    let mut buffer = DeviceBuffer::<u8>::new(&context, "x", 4).unwrap();
    let pinned = PinnedBuffer::<u8>::new(&context, "x", 4).unwrap();
    buffer.upload(&stream, 0, &pinned, 4).unwrap();
    let waits = pretend.calls("cuStreamWaitEvent");
    buffer.upload(&other, 0, &pinned, 4).unwrap();
    assert_eq!(pretend.calls("cuStreamWaitEvent"), waits + 1);
}

#[test]
fn pinned_memory_that_the_host_reads_is_not_write_combined() {
    let Some(pretend) = pretend(&[]) else { return };
    let context = pretend.context();
    let _read = PinnedBuffer::<u8>::new(&context, "logits", 8).unwrap();
    assert_eq!(pretend.host_flags(), 0);
    let _written = PinnedBuffer::<u8>::write_combined(&context, "ids", 8).unwrap();
    assert_eq!(pretend.host_flags(), 4);
}

#[test]
fn ranges_beyond_a_buffer_are_refused_before_the_driver_is_asked() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let mut buffer = DeviceBuffer::<u16>::new(&context, "x", 4).unwrap();
    let mut pinned = PinnedBuffer::<u16>::new(&context, "x", 2).unwrap();
    let errors = [
        buffer.write(&stream, 3, &[1, 2]).unwrap_err(),
        buffer.read(&stream, usize::MAX, &mut [0]).unwrap_err(),
        buffer.download(&stream, 0, &mut pinned, 3).unwrap_err(),
        buffer.pointer_to(5).unwrap_err(),
        DeviceBuffer::<u64>::new(&context, "x", usize::MAX).unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind(), Kind::Arguments, "{error}");
    }
    assert_eq!(
        errors[0].to_string(),
        "elements 3..5 of a device buffer of 4"
    );
    assert_eq!(pretend.calls("cuMemcpyHtoDAsync_v2"), 0);
    // Nothing is no error, and no call.
    buffer.write(&stream, 4, &[]).unwrap();
    let empty = DeviceBuffer::<f32>::new(&context, "none", 0).unwrap();
    assert!(empty.is_empty());
    assert_eq!(pretend.calls("cuMemAlloc_v2"), 1);
}

#[test]
fn memory_that_runs_out_names_what_asked_for_how_much() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let error = DeviceBuffer::<u8>::new(&context, "the KV pool", 100 << 30).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "the KV pool needs 107374182400 bytes of device memory, which the driver did not grant (85899345920 of 85899345920 bytes are free)"
    );
    pretend.fail("cuMemAllocAsync", 2, 2);
    let first = DeviceBuffer::<u8>::in_order_of(&stream, "scratch", 10);
    let second = DeviceBuffer::<u8>::in_order_of(&stream, "scratch", 10);
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err().kind(), Kind::OutOfMemory);
    pretend.fail("cuMemHostAlloc", 1, 2);
    let error = PinnedBuffer::<f32>::new(&context, "logits", 10).unwrap_err();
    assert_eq!(
        error.to_string(),
        "logits needs 40 bytes of pinned host memory, which the driver did not grant"
    );
    pretend.fail("cuMemAlloc_v2", 1, 700);
    let error = DeviceBuffer::<u8>::new(&context, "x", 5).unwrap_err();
    assert_eq!(error.kind(), Kind::Driver);
    assert!(error.to_string().starts_with("allocating x (5 bytes of device memory): cuMemAlloc_v2 failed: CUDA_ERROR_ILLEGAL_ADDRESS (700); a kernel accessed"), "{error}");
}

#[test]
fn launches_carry_their_shape_attributes_and_arguments() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let kernel = scale(&context);
    kernel.function().allow_shared_bytes(100_000).unwrap();
    let launches = [
        Launch::of_blocks(3, 64),
        Launch::of_grid([4, 2, 1], [8, 8, 2]).with_shared_bytes(100_000),
        Launch::of_blocks(4, 128)
            .in_clusters([2, 1, 1])
            .overlapping_previous(),
        Launch::of_blocks(132, 256).cooperative(),
    ];
    for launch in &launches {
        // SAFETY: the pretend driver runs nothing.
        unsafe { kernel.launch(&stream, launch, &ARGUMENTS) }.unwrap();
    }
    let parameters = "0010000000000000 0000803f 07000000";
    assert_eq!(
        pretend.launches(),
        [
            format!("scale grid 3 1 1 block 64 1 1 shared 0 {parameters}"),
            format!("scale grid 4 2 1 block 8 8 2 shared 100000 {parameters}"),
            format!("scale grid 4 1 1 block 128 1 1 shared 0 cluster 2 1 1 overlap 1 {parameters}"),
            format!("scale grid 132 1 1 block 256 1 1 shared 0 cooperative 1 {parameters}"),
        ]
    );
}

#[test]
fn a_launch_makes_one_driver_call() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let kernel = scale(&context);
    let before = pretend.calls("cuCtxSetCurrent");
    for _ in 0..10 {
        // SAFETY: the pretend driver runs nothing.
        unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &ARGUMENTS) }.unwrap();
    }
    assert_eq!(pretend.calls("cuLaunchKernelEx"), 10);
    assert_eq!(pretend.calls("cuCtxSetCurrent"), before);
    assert_eq!(
        pretend.calls("cuEventRecord"),
        0,
        "nothing is ordered behind the caller's back"
    );
}

#[test]
fn refused_launches_say_why() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let kernel = scale(&context);
    let check = |launch: Launch, expected: &str| {
        // SAFETY: the pretend driver runs nothing.
        let error = unsafe { kernel.launch(&stream, &launch, &ARGUMENTS) }.unwrap_err();
        assert_eq!(error.kind(), Kind::Driver);
        assert_eq!(error.to_string(), expected);
    };
    check(
        Launch::of_blocks(1, 1024),
        "launching scale (a block of 1024 threads, but with 128 registers each this kernel allows 512): cuLaunchKernelEx failed: \
         CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES (701); the launch asks for more registers or shared memory than the device has",
    );
    check(
        Launch::of_blocks(1, 32).with_shared_bytes(50_000),
        "launching scale (50000 bytes of dynamic shared memory per block, but 49152 are allowed so far: \
         Function::allow_shared_bytes): cuLaunchKernelEx failed: CUDA_ERROR_INVALID_VALUE (1)",
    );
    check(
        Launch::of_blocks(0, 32),
        "launching scale (grid [0, 1, 1] of blocks [32, 1, 1] is empty): cuLaunchKernelEx failed: CUDA_ERROR_INVALID_VALUE (1)",
    );
    pretend.fail("cuLaunchKernelEx", 1, 700);
    check(
        Launch::of_blocks(1, 32),
        "launching scale: cuLaunchKernelEx failed: CUDA_ERROR_ILLEGAL_ADDRESS (700); a kernel accessed memory out of bounds, and \
         the context is lost: compute-sanitizer finds the place",
    );
}

#[test]
fn arguments_that_do_not_fit_the_kernel_are_refused() {
    let Some(pretend) = pretend(&[]) else { return };
    let context = pretend.context();
    let check = |image: &[u8], expected: &str| {
        let module = Module::load(&context, "scale.cu", image).unwrap();
        let error = module
            .function("scale")
            .unwrap()
            .check_parameters::<Scale>()
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        b"scale:8,8,4",
        "parameter 1 of scale has 8 bytes, but `by: f32` has 4",
    );
    check(b"scale:8,4", "scale takes 2 parameters, but 3 are given");
    check(
        b"scale:8,4,4,4",
        "scale takes 4 parameters, but 3 are given",
    );
}

#[test]
fn modules_name_what_they_lack_and_what_the_compiler_said() {
    let Some(pretend) = pretend(&[]) else { return };
    let context = pretend.context();
    let module = Module::load(&context, "scale.cu", SCALE).unwrap();
    assert_eq!(
        module.function("gemm").unwrap_err().to_string(),
        "scale.cu has no kernel `gemm`"
    );
    assert_eq!(
        module.global("bias").unwrap_err().to_string(),
        "scale.cu has no variable `bias`"
    );
    assert_eq!(module.global("table").unwrap(), (DevicePointer(0x5000), 64));
    let error = Module::load(&context, "bad.ptx", b"bad")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "loading bad.ptx (ptxas application ptx input, line 3; fatal: no): cuModuleLoadDataEx failed: CUDA_ERROR_INVALID_PTX (218)"
    );
}

#[test]
fn functions_tell_their_resources() {
    let Some(pretend) = pretend(&[]) else { return };
    let context = pretend.context();
    let kernel = scale(&context);
    let function = kernel.function();
    assert_eq!(function.registers().unwrap(), 128);
    assert_eq!(function.shared_bytes().unwrap(), 1024);
    assert_eq!(function.local_bytes().unwrap(), 0);
    assert_eq!(function.parameters().unwrap(), [(0, 8), (8, 4), (16, 4)]);
    assert_eq!(function.blocks_per_multiprocessor(256, 0).unwrap(), 8);
    let launch = Launch::of_blocks(4, 128);
    assert_eq!(
        function
            .clusters_per_device(&launch.in_clusters([4, 1, 1]))
            .unwrap(),
        33
    );
    assert!(function.clusters_per_device(&launch).is_err());
    let error = function
        .allow_shared_bytes(300_000)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "allowing scale 300000 bytes of dynamic shared memory (232448 per block is the most"
        ),
        "{error}"
    );
}

#[test]
fn graphs_record_and_replay() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let kernel = scale(&context);
    let capture = |blocks: u32, launches: usize| {
        Graph::capture(&stream, || {
            for _ in 0..launches {
                // SAFETY: the pretend driver runs nothing.
                unsafe { kernel.launch(&stream, &Launch::of_blocks(blocks, 32), &ARGUMENTS) }?;
            }
            Ok(())
        })
        .unwrap()
    };
    let graph = capture(1, 2);
    assert_eq!(graph.node_count().unwrap(), 2);
    assert_eq!(pretend.launches().len(), 0, "recorded, not run");
    let mut exec = graph.instantiate().unwrap();
    exec.upload(&stream).unwrap();
    // SAFETY: the pretend driver runs nothing.
    unsafe { exec.launch(&stream) }.unwrap();
    assert_eq!(pretend.launches().len(), 2);
    assert_eq!(exec.update(&capture(5, 2)).unwrap(), Update::Done);
    // SAFETY: as above.
    unsafe { exec.launch(&stream) }.unwrap();
    assert!(pretend.launches()[3].starts_with("scale grid 5 1 1"));
    assert_eq!(
        exec.update(&capture(1, 3)).unwrap(),
        Update::ShapeChanged(2)
    );
}

#[test]
fn a_capture_that_fails_leaves_the_stream_usable() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let live = pretend.live();
    let error = Graph::capture(&stream, || stream.synchronize()).unwrap_err();
    assert_eq!(error.code(), Some(900));
    assert!(!stream.is_capturing().unwrap());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Graph::capture(&stream, || panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert!(!stream.is_capturing().unwrap());
    pretend.fail("cuStreamEndCapture", 1, 901);
    assert!(
        Graph::capture(&stream, || Ok(()))
            .unwrap_err()
            .to_string()
            .starts_with("recording a graph: cuStreamEndCapture")
    );
    assert_eq!(pretend.live(), live);
    drop(context);
}

#[test]
fn pinned_copies_in_a_capture_record_no_event() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let mut buffer = DeviceBuffer::<u8>::new(&context, "x", 4).unwrap();
    let pinned = PinnedBuffer::<u8>::new(&context, "x", 4).unwrap();
    let graph = Graph::capture(&stream, || buffer.upload(&stream, 0, &pinned, 4)).unwrap();
    assert_eq!(graph.node_count().unwrap(), 1);
    assert_eq!(pretend.calls("cuEventRecord"), 0);
}

#[test]
fn events_measure_and_order() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let (start, end) = (
        Event::with_time(&context).unwrap(),
        Event::with_time(&context).unwrap(),
    );
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    assert!((end.elapsed_ms(&start).unwrap() - 1.0).abs() < 1e-9);
    let order = Event::without_time(&context).unwrap();
    order.record(&stream).unwrap();
    Stream::new(&context).unwrap().wait_for(&order).unwrap();
    assert_eq!(
        order.elapsed_ms(&start).unwrap_err().kind(),
        Kind::Arguments
    );
    pretend.fail("cuEventQuery", 1, 600);
    assert!(!end.has_passed().unwrap());
    assert!(end.has_passed().unwrap());
    pretend.fail("cuStreamQuery", 1, 600);
    assert!(!stream.is_done().unwrap());
    assert_eq!(Stream::priorities(&context).unwrap(), (0, -5));
}

#[test]
fn an_older_driver_lacks_single_functions_only() {
    let Some(pretend) = pretend(&["-DVERSION=12020", "-DWITHOUT_LATER"]) else {
        return;
    };
    let (context, stream) = pretend.context_and_stream();
    let missing = context.driver().missing_functions();
    assert!(
        missing.contains(&"cuFuncGetParamInfo") && missing.contains(&"cuTensorMapEncodeTiled"),
        "{missing:?}"
    );
    // Arguments cannot be checked, and time is measured by the function that came before.
    let kernel = scale(&context);
    let (start, end) = (
        Event::with_time(&context).unwrap(),
        Event::with_time(&context).unwrap(),
    );
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    assert!(end.elapsed_ms(&start).is_ok());
    let error = kernel.function().parameters().unwrap_err();
    assert_eq!(error.kind(), Kind::MissingFunction);
    assert_eq!(
        error.to_string(),
        format!(
            "{} has no cuFuncGetParamInfo, which came with CUDA 12.4; update the NVIDIA driver",
            pretend.path.display()
        )
    );
    let map = tile(DevicePointer(0x1000)).encode(&context).unwrap_err();
    assert_eq!(map.kind(), Kind::MissingFunction);
}

fn tile(address: DevicePointer) -> Tile {
    Tile {
        element: ElementType::BF16,
        address,
        extents: vec![4096, 128],
        strides_bytes: vec![8192],
        tile: vec![64, 128],
        swizzle: Swizzle::Bytes128,
    }
}

#[test]
fn tensor_maps_are_checked_and_encoded() {
    let Some(pretend) = pretend(&[]) else { return };
    let context = pretend.context();
    let map = tile(DevicePointer(0x1000)).encode(&context).unwrap();
    // SAFETY: the map is 128 bytes without padding.
    let words: [u32; 32] = unsafe { std::mem::transmute_copy(&map) };
    assert_eq!(words[..6], [9, 2, 0x1000, 4096, 64, 3]);
    let error = tile(DevicePointer(0x1001)).encode(&context).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a tensor map with address 0x1001 is no multiple of 16"
    );
    assert_eq!(pretend.calls("cuTensorMapEncodeTiled"), 1);
}

#[test]
fn peers_reach_each_other() {
    let Some(pretend) = pretend(&[]) else { return };
    let driver = pretend.driver().unwrap();
    let (first, second) = (
        Context::new(&driver, 0).unwrap(),
        Context::new(&driver, 1).unwrap(),
    );
    assert!(first.can_access(&second).unwrap());
    first.enable_access_to(&second).unwrap();
    first.enable_access_to(&second).unwrap(); // enabled already
    let stream = Stream::new(&first).unwrap();
    let mut on_first = DeviceBuffer::<u32>::new(&first, "a", 2).unwrap();
    let mut on_second = DeviceBuffer::<u32>::new(&second, "b", 2).unwrap();
    on_second
        .write(&Stream::new(&second).unwrap(), 0, &[5, 6])
        .unwrap();
    on_first.copy_from(&stream, 0, &on_second, 0..2).unwrap();
    assert_eq!(pretend.calls("cuMemcpyPeerAsync"), 1);
    let mut back = [0; 2];
    on_first.read(&stream, 0, &mut back).unwrap();
    assert_eq!(back, [5, 6]);
}

#[test]
fn any_thread_can_use_a_context() {
    let Some(pretend) = pretend(&[]) else { return };
    let (context, stream) = pretend.context_and_stream();
    let kernel = scale(&context);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // SAFETY: the pretend driver runs nothing.
                unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &ARGUMENTS) }.unwrap();
            });
        }
    });
    check_threads(&pretend);
}

fn check_threads(pretend: &Pretend) {
    assert_eq!(pretend.calls("cuLaunchKernelEx"), 2);
    assert_eq!(pretend.calls("cuCtxSetCurrent"), 3, "once per thread");
}

#[test]
fn a_context_made_after_another_is_gone_is_made_current() {
    let Some(pretend) = pretend(&[]) else { return };
    drop(pretend.context_and_stream());
    let before = pretend.calls("cuCtxSetCurrent");
    drop(pretend.context_and_stream());
    assert_eq!(pretend.calls("cuCtxSetCurrent"), before + 1);
}
