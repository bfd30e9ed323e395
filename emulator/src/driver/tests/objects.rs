//! Contexts, streams, events, devices and names.

use std::ffi::CStr;
use std::time::Duration;

use super::*;
use crate::driver::argument::Text;
use crate::driver::{event, query, symbol};

#[test]
fn contexts_are_a_stack_of_the_thread() {
    let first = context();
    let second = context();
    let mut current = Handle::NULL;
    let mut now = || {
        assert_eq!(call!(context::cuCtxGetCurrent, Out::to(&mut current)), 0);
        current
    };
    assert_eq!(now(), second);
    assert_eq!(call!(context::cuCtxPopCurrent_v2, Out::of(0)), 0);
    assert_eq!(now(), first);
    assert_eq!(call!(context::cuCtxSetCurrent, second), 0);
    assert_eq!(now(), second);
    assert_eq!(call!(context::cuCtxDestroy_v2, first), 0);
    assert_eq!(call!(context::cuCtxSetCurrent, first), 201);
    assert_eq!(call!(context::cuCtxSetCurrent, Handle::NULL), 0);
    assert_eq!(now(), Handle::NULL);
    assert_eq!(call!(context::cuCtxSynchronize), 201, "no context");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(call!(context::cuCtxSynchronize), 201, "a new thread"));
        scope.spawn(|| {
            assert_eq!(call!(context::cuCtxPushCurrent_v2, second), 0);
            assert_eq!(call!(context::cuCtxSynchronize), 0);
            assert_eq!(call!(context::cuCtxDestroy_v2, second), 0);
            assert_eq!(call!(context::cuCtxSynchronize), 201, "popped");
        });
    });
    assert_eq!(call!(context::cuCtxPushCurrent_v2, second), 201);
}

#[test]
fn the_primary_context_is_one_and_goes_with_the_last_release() {
    context();
    let (mut first, mut second, mut active) = (Handle::NULL, Handle::NULL, 0);
    let device = 1; // which no other test retains
    assert_eq!(
        call!(
            context::cuDevicePrimaryCtxRetain,
            Out::to(&mut first),
            device
        ),
        0
    );
    assert_eq!(
        call!(
            context::cuDevicePrimaryCtxRetain,
            Out::to(&mut second),
            device
        ),
        0
    );
    assert_eq!(first, second);
    assert_eq!(
        call!(context::cuCtxDestroy_v2, first),
        201,
        "it is not the program's to destroy"
    );
    assert_eq!(call!(context::cuDevicePrimaryCtxRelease_v2, device), 0);
    assert_eq!(
        call!(
            context::cuDevicePrimaryCtxGetState,
            device,
            Out::of(0),
            Out::to(&mut active)
        ),
        0
    );
    assert_eq!(active, 1);
    assert_eq!(call!(context::cuCtxSetCurrent, first), 0);
    assert_eq!(call!(context::cuDevicePrimaryCtxRelease_v2, device), 0);
    assert_eq!(
        call!(context::cuCtxSynchronize),
        709,
        "destroyed while current"
    );
    assert_eq!(call!(context::cuDevicePrimaryCtxRelease_v2, device), 201);
    assert_eq!(
        call!(context::cuDevicePrimaryCtxRetain, Out::to(&mut second), 2),
        101
    );
}

#[test]
fn stale_and_foreign_handles_are_refused() {
    context();
    let stream = new_stream();
    assert_eq!(call!(stream::cuStreamDestroy_v2, stream), 0);
    assert_eq!(call!(stream::cuStreamDestroy_v2, stream), 400);
    assert_eq!(call!(stream::cuStreamSynchronize, stream), 400);
    assert_eq!(
        call!(stream::cuStreamSynchronize, Handle::of(0xdead_beef)),
        400
    );
    assert_eq!(
        call!(event::cuEventQuery, new_stream().cast()),
        400,
        "of another kind"
    );
    assert_eq!(call!(module::cuModuleUnload, Handle::NULL), 400);
    for default in [0, 1, 2] {
        assert_eq!(call!(stream::cuStreamSynchronize, Handle::of(default)), 0);
    }
    assert_eq!(
        call!(stream::cuStreamCreate, Out::of(0), 1),
        1,
        "no place for the result"
    );
    assert_eq!(
        call!(stream::cuStreamCreate, Out::to(&mut Handle::of(0)), 6),
        1
    );
}

#[test]
fn events_measure_the_hosts_time() {
    context();
    let new = |flags| {
        let mut event = Handle::NULL;
        assert_eq!(call!(event::cuEventCreate, Out::to(&mut event), flags), 0);
        event
    };
    let (start, end, order) = (new(0), new(0), new(2));
    let mut ms = 0.0_f32;
    let mut elapsed = |from, to| call!(event::cuEventElapsedTime_v2, Out::to(&mut ms), from, to);
    assert_eq!(elapsed(start, end), 400, "not recorded");
    let stream = new_stream();
    assert_eq!(call!(event::cuEventRecord, start, stream), 0);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(call!(event::cuEventRecord, end, stream), 0);
    assert_eq!(elapsed(start, order), 400, "without time");
    assert_eq!(elapsed(start, end), 0);
    assert!((2.0..2000.0).contains(&ms), "{ms}");
    assert_eq!(
        call!(event::cuEventQuery, order),
        0,
        "one that was never recorded has passed"
    );
}

#[test]
fn devices_describe_themselves() {
    context();
    let mut name = [0; 64];
    assert_eq!(
        call!(gpu::cuDeviceGetName, Out::to_all(&mut name), 64, 1),
        0
    );
    let name: Vec<u8> = name
        .iter()
        .map(|c| *c as u8)
        .take_while(|c| *c != 0)
        .collect();
    assert_eq!(name, b"Emulated sm_90 (functional, no timing)");
    let attribute = |number| {
        let mut value = -1;
        match call!(gpu::cuDeviceGetAttribute, Out::to(&mut value), number, 0) {
            0 => Ok(value),
            code => Err(code),
        }
    };
    for (number, expected) in [
        (75, 9),
        (76, 0),
        (97, 232_448),
        (16, 132),
        (13, 0),
        (120, 1),
        (115, 1),
        (41, 1),
    ] {
        assert_eq!(attribute(number), Ok(expected), "attribute {number}");
    }
    assert_eq!(attribute(1000), Err(1));
    let mut can = 0;
    assert_eq!(
        call!(gpu::cuDeviceCanAccessPeer, Out::to(&mut can), 0, 1),
        0
    );
    assert_eq!(can, 1);
}

#[test]
fn errors_have_names() {
    let name = |code| {
        let mut text = std::ptr::null();
        match call!(query::cuGetErrorName, code, Out::to(&mut text)) {
            // SAFETY: the texts are constants that end in a zero.
            0 => Ok(unsafe { CStr::from_ptr(text) }.to_str().unwrap()),
            code => Err(code),
        }
    };
    assert_eq!(name(0), Ok("CUDA_SUCCESS"));
    assert_eq!(name(700), Ok("CUDA_ERROR_ILLEGAL_ADDRESS"));
    assert_eq!(name(912), Ok("CUDA_ERROR_INVALID_CLUSTER_SIZE"));
    assert_eq!(name(12345), Err(1));
}

#[test]
fn functions_are_found_by_the_names_that_programs_ask_for() {
    let address = |name: &CStr, version| {
        let (mut function, mut status) = (std::ptr::null(), 9);
        let (place, state) = (Out::to(&mut function), Out::to(&mut status));
        assert_eq!(
            call!(
                query::cuGetProcAddress_v2,
                Text::from(name),
                place,
                version,
                0,
                state
            ),
            0
        );
        (function, status)
    };
    let check = |name: &CStr, version, meant: &str| {
        assert_eq!(
            address(name, version),
            (symbol(meant).unwrap(), 0),
            "{name:?}"
        );
    };
    check(c"cuMemAlloc", 12_000, "cuMemAlloc_v2");
    check(c"cuInit", 12_000, "cuInit");
    check(c"cuCtxCreate", 12_000, "cuCtxCreate_v3");
    check(c"cuCtxCreate", 13_000, "cuCtxCreate_v4");
    check(c"cuEventElapsedTime", 12_000, "cuEventElapsedTime");
    check(c"cuEventElapsedTime", 13_000, "cuEventElapsedTime_v2");
    check(
        c"cuStreamGetCaptureInfo",
        13_000,
        "cuStreamGetCaptureInfo_v3",
    );
    assert_eq!(address(c"cuNothing", 13_000), (std::ptr::null(), 1));
}

#[test]
fn every_name_is_there_once() {
    let mut names: Vec<_> = crate::driver::TABLES
        .iter()
        .flat_map(|table| table.0.iter().map(|(name, _)| *name))
        .collect();
    let all = names.len();
    assert!(all > 500, "{all}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    // One that is not written is there all the same.
    let create = symbol("cuArrayCreate_v2").unwrap();
    // SAFETY: it looks at no argument.
    let create: extern "C" fn() -> u32 = unsafe { std::mem::transmute(create) };
    assert_eq!(create(), 801);
}
