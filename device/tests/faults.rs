//! The driver layer on a driver that is old, that refuses, or that sees nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use stepscope_device::Kind;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Event, PinnedBuffer};
use support::{MEMORY, emulated, kernel, tile};

#[test]
fn a_machine_without_devices_says_so() {
    let emulated = emulated();
    emulated.fail("cuInit", 1, 100);
    let error = emulated.driver().unwrap_err();
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
    let emulated = emulated();
    emulated.be_older(11_080, &[]);
    let error = emulated.driver().unwrap_err();
    assert_eq!(error.kind(), Kind::DriverTooOld);
    assert_eq!(
        error.to_string(),
        "stepscope needs a driver for CUDA 12.0 (R525 or newer), but this one is for CUDA 11.8; update the NVIDIA driver"
    );
}

#[test]
fn a_driver_that_does_not_work_is_named_with_its_error() {
    let emulated = emulated();
    emulated.fail("cuInit", 1, 803);
    let error = emulated.driver().unwrap_err();
    assert_eq!((error.kind(), error.code()), (Kind::Driver, Some(803)));
    assert!(
        error
            .to_string()
            .contains("reboot after an update of the driver"),
        "{error}"
    );
}

#[test]
fn memory_that_runs_out_names_what_asked_for_how_much() {
    let emulated = emulated();
    let (context, stream) = emulated.context_and_stream();
    let error = DeviceBuffer::<u8>::new(&context, "the KV pool", 100 << 30).unwrap_err();
    assert_eq!(error.kind(), Kind::OutOfMemory);
    let text = error.to_string();
    let start =
        "the KV pool needs 107374182400 bytes of device memory, which the driver did not grant (";
    assert!(text.starts_with(start), "{text}");
    assert!(
        text.ends_with(&format!(" of {MEMORY} bytes are free)")),
        "{text}"
    );
    emulated.fail("cuMemAllocAsync", 2, 2);
    let first = DeviceBuffer::<u8>::in_order_of(&stream, "scratch", 10);
    let second = DeviceBuffer::<u8>::in_order_of(&stream, "scratch", 10);
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err().kind(), Kind::OutOfMemory);
    emulated.fail("cuMemHostAlloc", 1, 2);
    let error = PinnedBuffer::<f32>::new(&context, "logits", 10).unwrap_err();
    assert_eq!(
        error.to_string(),
        "logits needs 40 bytes of pinned host memory, which the driver did not grant"
    );
    emulated.fail("cuMemAlloc_v2", 1, 700);
    let error = DeviceBuffer::<u8>::new(&context, "x", 5).unwrap_err();
    assert_eq!(error.kind(), Kind::Driver);
    assert!(error.to_string().starts_with("allocating x (5 bytes of device memory): cuMemAlloc_v2 failed: CUDA_ERROR_ILLEGAL_ADDRESS (700); a kernel accessed"), "{error}");
}

#[test]
fn an_older_driver_lacks_single_functions_only() {
    let emulated = emulated();
    emulated.be_older(
        12_020,
        &[
            "cuEventElapsedTime_v2",
            "cuFuncGetParamInfo",
            "cuTensorMapEncodeTiled",
        ],
    );
    let (context, stream) = emulated.context_and_stream();
    let missing = context.driver().missing_functions();
    assert!(
        missing.contains(&"cuFuncGetParamInfo") && missing.contains(&"cuTensorMapEncodeTiled"),
        "{missing:?}"
    );
    // Arguments cannot be checked, and time is measured by the function that came before.
    let kernel = kernel(&context, "scale");
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
        "emulated has no cuFuncGetParamInfo, which came with CUDA 12.4; update the NVIDIA driver"
    );
    let map = tile(DevicePointer(0x1000)).encode(&context).unwrap_err();
    assert_eq!(map.kind(), Kind::MissingFunction);
}
