//! The driver layer on the emulated driver: what it calls, what its kernels do, what it says when a call fails.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use stepscope_device::Kind;
use stepscope_device::driver::{
    Context, DeviceBuffer, DevicePointer, Driver, Event, Graph, Kernel, Launch, Module,
    PinnedBuffer, Stream, Update,
};
use stepscope_device::nvrtc::{Compiler, Program};
use support::{ARGUMENTS, DEVICES, KERNELS, MEMORY, Scale, emulated, kernel, numbers, read, tile};

#[test]
fn devices_are_described() {
    let emulated = emulated();
    let driver = emulated.driver().unwrap();
    assert_eq!(driver.version().to_string(), "13.0");
    assert_eq!(driver.missing_functions(), Vec::<&str>::new());
    let devices = driver.devices().unwrap();
    assert_eq!(devices.len(), DEVICES);
    let device = &devices[1];
    assert_eq!(device.name, "Emulated sm_90 (functional, no timing)");
    assert!(device.is_emulated());
    assert_eq!(device.uuid, "GPU-73746570-7363-6f70-652d-656d756c9001");
    assert_eq!(device.memory_bytes, MEMORY);
    assert_eq!(device.compute_capability, [9, 0]);
    assert_eq!(device.limits.multiprocessors, 132);
    assert_eq!(device.limits.shared_bytes_per_block_opt_in, 232_448);
    assert_eq!(device.limits.clock_khz, 0, "there is no time on it");
    assert_eq!(driver.path().to_str(), Some(Driver::IN_PROGRAM));
}

#[test]
fn a_device_that_does_not_exist_is_named() {
    let emulated = emulated();
    let error = Context::new(&emulated.driver().unwrap(), 2).unwrap_err();
    assert_eq!(error.kind(), Kind::NoDevice);
    assert_eq!(
        error.to_string(),
        "device 2 does not exist: the driver has 2 devices, numbered from 0"
    );
}

#[test]
fn everything_is_destroyed_once() {
    let emulated = emulated();
    {
        let (context, stream) = emulated.context_and_stream();
        let kernel = kernel(&context, "scale");
        let buffer = DeviceBuffer::<f32>::new(&context, "x", 100).unwrap();
        let pooled = DeviceBuffer::<u8>::in_order_of(&stream, "y", 3).unwrap();
        let pinned = PinnedBuffer::<u32>::new(&context, "z", 4).unwrap();
        let event = Event::with_time(&context).unwrap();
        let graph = Graph::capture(&stream, || Ok(())).unwrap();
        let exec = graph.instantiate().unwrap();
        assert_eq!(emulated.live(), 10);
        drop((kernel, buffer, pooled, pinned, event, graph, exec, stream));
        assert_eq!(emulated.live(), 1, "the context");
    }
    assert_eq!(emulated.live(), 0);
}

#[test]
fn data_goes_to_the_device_and_back() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
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
    let waited = emulated.calls("cuEventSynchronize");
    assert_eq!(pinned.host().unwrap(), [8, 1, 2, 10]);
    assert_eq!(
        emulated.calls("cuEventSynchronize"),
        waited + 1,
        "the host waits for the copy"
    );
}

/// One event stands behind the copies of several streams, because each stream waits for the copies before it.
#[test]
fn pinned_copies_of_two_streams_are_ordered() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let other = Stream::new(&context).unwrap();
    let mut buffer = DeviceBuffer::<u8>::new(&context, "x", 4).unwrap();
    let pinned = PinnedBuffer::<u8>::new(&context, "x", 4).unwrap();
    buffer.upload(&stream, 0, &pinned, 4).unwrap();
    let waits = emulated.calls("cuStreamWaitEvent");
    buffer.upload(&other, 0, &pinned, 4).unwrap();
    assert_eq!(emulated.calls("cuStreamWaitEvent"), waits + 1);
}

#[test]
fn pinned_memory_that_the_host_reads_is_not_write_combined() {
    let emulated = emulated();
    let context = emulated.context();
    let _read = PinnedBuffer::<u8>::new(&context, "logits", 8).unwrap();
    assert_eq!(emulated.last_arguments("cuMemHostAlloc")[2], 0);
    let _written = PinnedBuffer::<u8>::write_combined(&context, "ids", 8).unwrap();
    assert_eq!(emulated.last_arguments("cuMemHostAlloc")[2], 4);
}

#[test]
fn ranges_beyond_a_buffer_are_refused_before_the_driver_is_asked() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
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
    assert_eq!(emulated.calls("cuMemcpyHtoDAsync_v2"), 0);
    // Nothing is no error, and no call.
    buffer.write(&stream, 4, &[]).unwrap();
    let empty = DeviceBuffer::<f32>::new(&context, "none", 0).unwrap();
    assert!(empty.is_empty());
    assert_eq!(emulated.calls("cuMemAlloc_v2"), 1);
}

#[test]
fn launches_carry_their_shape_attributes_and_arguments() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "describe");
    kernel.function().allow_shared_bytes(100_000).unwrap();
    let mut out = DeviceBuffer::<u32>::new(&context, "out", 9).unwrap();
    let mut check = |launch: Launch, expected: [u32; 7]| {
        out.fill(&stream, 0xFF).unwrap();
        let arguments = Scale {
            x: out.pointer(),
            by: 1.5,
            n: 7,
        };
        // SAFETY: the kernel writes nine numbers.
        unsafe { kernel.launch(&stream, &launch, &arguments) }.unwrap();
        let mut found = [0; 9];
        out.read(&stream, 0, &mut found).unwrap();
        assert_eq!(found[..7], expected);
        assert_eq!(found[7..], [1.5_f32.to_bits(), 7]);
    };
    check(Launch::of_blocks(3, 64), [3, 1, 64, 1, 1, 0, 1]);
    check(
        Launch::of_grid([4, 2, 1], [8, 8, 2]).with_shared_bytes(100_000),
        [4, 2, 8, 8, 2, 100_000, 1],
    );
    check(
        Launch::of_blocks(4, 128)
            .in_clusters([2, 1, 1])
            .overlapping_previous(),
        [4, 1, 128, 1, 1, 0, 2],
    );
    check(
        Launch::of_blocks(132, 256).cooperative(),
        [132, 1, 256, 1, 1, 0, 1],
    );
}

#[test]
fn kernels_run() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "scale");
    let x = numbers(&context, &stream, 100);
    let arguments = Scale {
        x: x.pointer(),
        by: 2.0,
        n: 99,
    };
    // SAFETY: there are 100 numbers.
    unsafe { kernel.launch(&stream, &Launch::of_blocks(4, 32), &arguments) }.unwrap();
    let found = read(&stream, &x);
    assert_eq!((found[0], found[98], found[99]), (2.0, 198.0, 100.0));
}

/// The same on the shared library, which the search would find like any other driver.
#[test]
fn kernels_run_on_the_shared_library() {
    let driver = Driver::open_file(&support::library()).unwrap();
    assert_eq!(driver.missing_functions(), Vec::<&str>::new());
    let context = Context::new(&driver, 0).unwrap();
    assert!(context.device().is_emulated());
    let stream = Stream::new(&context).unwrap();
    let kernel = kernel(&context, "scale");
    let x = numbers(&context, &stream, 3);
    let arguments = Scale {
        x: x.pointer(),
        by: 3.0,
        n: 3,
    };
    // SAFETY: there are 3 numbers.
    unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &arguments) }.unwrap();
    assert_eq!(read(&stream, &x), [3.0, 6.0, 9.0]);
}

/// NVRTC makes both; only one of them runs there.
#[test]
fn what_nvrtc_makes_is_loaded_as_ptx() {
    let compiler = match Compiler::open() {
        Ok(compiler) => compiler,
        Err(error) => {
            println!("skipped: {error}");
            return;
        }
    };
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let source = r#"extern "C" __global__ void scale(float *x, float by, unsigned n) {
        unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) x[i] *= by;
    }"#;
    let arch = compiler.arch_for(9, 0).unwrap();
    let compiled = compiler
        .compile(&Program::new("scale.cu", source), arch)
        .unwrap();
    assert!(!compiled.cubin.is_empty());
    let module = Module::from_compiled(&context, &compiled).unwrap();
    let kernel: Kernel<Scale> = module.function("scale").unwrap().with_arguments().unwrap();
    let x = numbers(&context, &stream, 40);
    let arguments = Scale {
        x: x.pointer(),
        by: 0.5,
        n: 40,
    };
    // SAFETY: there are 40 numbers.
    unsafe { kernel.launch(&stream, &Launch::of_blocks(2, 32), &arguments) }.unwrap();
    assert_eq!(read(&stream, &x)[39], 20.0);
}

#[test]
fn a_launch_makes_one_driver_call() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "scale");
    let before = emulated.calls("cuCtxSetCurrent");
    for _ in 0..10 {
        // SAFETY: without elements the kernel touches nothing.
        unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &ARGUMENTS) }.unwrap();
    }
    assert_eq!(emulated.calls("cuLaunchKernelEx"), 10);
    assert_eq!(emulated.calls("cuCtxSetCurrent"), before);
    assert_eq!(
        emulated.calls("cuEventRecord"),
        0,
        "nothing is ordered behind the caller's back"
    );
}

#[test]
fn refused_launches_say_why() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "scale");
    let check = |launch: Launch, expected: &str| {
        // SAFETY: without elements the kernel touches nothing.
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
    emulated.fail("cuLaunchKernelEx", 1, 700);
    check(
        Launch::of_blocks(1, 32),
        "launching scale: cuLaunchKernelEx failed: CUDA_ERROR_ILLEGAL_ADDRESS (700); a kernel accessed memory out of bounds, and \
         the context is lost: compute-sanitizer finds the place",
    );
}

#[test]
fn arguments_that_do_not_fit_the_kernel_are_refused() {
    let emulated = emulated();
    let context = emulated.context();
    let check = |parameters: &str, expected: &str| {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry scale({parameters}) {{ ret; }}"
        );
        let module = Module::load(&context, "scale.cu", text.as_bytes()).unwrap();
        let error = module
            .function("scale")
            .unwrap()
            .check_parameters::<Scale>()
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        ".param .u64 x, .param .f64 by, .param .u32 n",
        "parameter 1 of scale has 8 bytes, but `by: f32` has 4",
    );
    check(
        ".param .u64 x, .param .f32 by",
        "scale takes 2 parameters, but 3 are given",
    );
    check(
        ".param .u64 x, .param .f32 by, .param .u32 n, .param .u32 m",
        "scale takes 4 parameters, but 3 are given",
    );
}

#[test]
fn modules_name_what_they_lack_and_what_the_compiler_said() {
    let emulated = emulated();
    let context = emulated.context();
    let module = Module::load(&context, "scale.cu", KERNELS.as_bytes()).unwrap();
    assert_eq!(
        module.function("gemm").unwrap_err().to_string(),
        "scale.cu has no kernel `gemm`"
    );
    assert_eq!(
        module.global("bias").unwrap_err().to_string(),
        "scale.cu has no variable `bias`"
    );
    assert_eq!(module.global("table").unwrap().1, 64);
    let check = |text: &str, expected: &[&str]| {
        let error = Module::load(&context, "bad.ptx", text.as_bytes()).unwrap_err();
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{text}");
        }
    };
    check(
        &KERNELS.replace("mul.f32", "frobnicate.f32"),
        &[
            "loading bad.ptx (",
            "frobnicate",
            "): cuModuleLoadDataEx failed: CUDA_ERROR_INVALID_PTX (218)",
        ],
    );
    check(
        &KERNELS.replace("sm_90", "sm_100a"),
        &[
            "the PTX is for sm_100a, and the emulated device is sm_90",
            "(209)",
        ],
    );
    check("\x7fELF", &["machine code", "(209)"]);
}

#[test]
fn functions_tell_their_resources() {
    let emulated = emulated();
    let context = emulated.context();
    let (scale, describe) = (kernel(&context, "scale"), kernel(&context, "describe"));
    let function = scale.function();
    assert_eq!(function.registers().unwrap(), 128);
    assert_eq!(function.max_threads_per_block().unwrap(), 512);
    assert_eq!(describe.function().shared_bytes().unwrap(), 1024);
    assert_eq!(function.local_bytes().unwrap(), 0);
    assert_eq!(function.parameters().unwrap(), [(0, 8), (8, 4), (12, 4)]);
    // 128 registers: 16 warps of 4096 each.
    assert_eq!(function.blocks_per_multiprocessor(256, 0).unwrap(), 2);
    let launch = Launch::of_blocks(4, 512);
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
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "scale");
    let x = numbers(&context, &stream, 64);
    let capture = |blocks: u32, launches: usize| {
        let arguments = Scale {
            x: x.pointer(),
            by: 2.0,
            n: 64,
        };
        Graph::capture(&stream, || {
            for _ in 0..launches {
                // SAFETY: there are 64 numbers, which outlive the graph.
                unsafe { kernel.launch(&stream, &Launch::of_blocks(blocks, 32), &arguments) }?;
            }
            Ok(())
        })
        .unwrap()
    };
    let ends = || {
        let found = read(&stream, &x);
        (found[0], found[63])
    };
    let graph = capture(1, 2);
    assert_eq!(graph.node_count().unwrap(), 2);
    assert_eq!(ends(), (1.0, 64.0), "recorded, not run");
    let mut exec = graph.instantiate().unwrap();
    exec.upload(&stream).unwrap();
    // SAFETY: the numbers are still there, and nothing else uses them.
    unsafe { exec.launch(&stream) }.unwrap();
    assert_eq!(ends(), (4.0, 64.0));
    assert_eq!(exec.update(&capture(2, 2)).unwrap(), Update::Done);
    // SAFETY: as above.
    unsafe { exec.launch(&stream) }.unwrap();
    assert_eq!(ends(), (16.0, 256.0), "both blocks");
    assert_eq!(
        exec.update(&capture(1, 3)).unwrap(),
        Update::ShapeChanged(2)
    );
}

#[test]
fn a_capture_that_fails_leaves_the_stream_usable() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let live = emulated.live();
    let error = Graph::capture(&stream, || stream.synchronize()).unwrap_err();
    assert_eq!(error.code(), Some(900));
    assert!(!stream.is_capturing().unwrap());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Graph::capture(&stream, || panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert!(!stream.is_capturing().unwrap());
    emulated.fail("cuStreamEndCapture", 1, 901);
    assert!(
        Graph::capture(&stream, || Ok(()))
            .unwrap_err()
            .to_string()
            .starts_with("recording a graph: cuStreamEndCapture")
    );
    assert_eq!(emulated.live(), live);
    drop(context);
}

#[test]
fn pinned_copies_in_a_capture_record_no_event() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let mut buffer = DeviceBuffer::<u8>::new(&context, "x", 4).unwrap();
    let pinned = PinnedBuffer::<u8>::new(&context, "x", 4).unwrap();
    let graph = Graph::capture(&stream, || buffer.upload(&stream, 0, &pinned, 4)).unwrap();
    assert_eq!(graph.node_count().unwrap(), 1);
    assert_eq!(emulated.calls("cuEventRecord"), 0);
}

#[test]
fn events_measure_and_order() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let (start, end) = (
        Event::with_time(&context).unwrap(),
        Event::with_time(&context).unwrap(),
    );
    start.record(&stream).unwrap();
    end.record(&stream).unwrap();
    assert!((0.0..60_000.0).contains(&end.elapsed_ms(&start).unwrap()));
    let order = Event::without_time(&context).unwrap();
    order.record(&stream).unwrap();
    Stream::new(&context).unwrap().wait_for(&order).unwrap();
    assert_eq!(
        order.elapsed_ms(&start).unwrap_err().kind(),
        Kind::Arguments
    );
    emulated.fail("cuEventQuery", 1, 600);
    assert!(!end.has_passed().unwrap());
    assert!(end.has_passed().unwrap());
    emulated.fail("cuStreamQuery", 1, 600);
    assert!(!stream.is_done().unwrap());
    assert_eq!(Stream::priorities(&context).unwrap(), (0, -5));
}

#[test]
fn tensor_maps_are_checked_and_encoded() {
    let emulated = emulated();
    let context = emulated.context();
    let map = tile(DevicePointer(0x1000)).encode(&context).unwrap();
    // SAFETY: the map is 128 bytes without padding.
    let words: [u32; 32] = unsafe { std::mem::transmute_copy(&map) };
    assert!(words.contains(&0x1000), "the address: {words:?}");
    let error = tile(DevicePointer(0x1001)).encode(&context).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a tensor map with address 0x1001 is no multiple of 16"
    );
    assert_eq!(emulated.calls("cuTensorMapEncodeTiled"), 1);
}

#[test]
fn peers_reach_each_other() {
    let emulated = emulated();
    let driver = emulated.driver().unwrap();
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
    assert_eq!(emulated.calls("cuMemcpyPeerAsync"), 1);
    let mut back = [0; 2];
    on_first.read(&stream, 0, &mut back).unwrap();
    assert_eq!(back, [5, 6]);
}

#[test]
fn any_thread_can_use_a_context() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let kernel = kernel(&context, "scale");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                emulated.watch_this_thread();
                // SAFETY: without elements the kernel touches nothing.
                unsafe { kernel.launch(&stream, &Launch::of_blocks(1, 32), &ARGUMENTS) }.unwrap();
            });
        }
    });
    assert_eq!(emulated.calls("cuLaunchKernelEx"), 2);
    assert_eq!(emulated.calls("cuCtxSetCurrent"), 3, "once per thread");
}

#[test]
fn a_context_made_after_another_is_gone_is_made_current() {
    let emulated = emulated();
    drop(emulated.context_and_stream());
    let before = emulated.calls("cuCtxSetCurrent");
    drop(emulated.context_and_stream());
    assert_eq!(emulated.calls("cuCtxSetCurrent"), before + 1);
}
