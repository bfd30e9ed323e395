//! Launches, and kernels that fail.

use super::*;
use crate::driver::types::{LaunchAttribute, LaunchConfig};
use crate::driver::{copy, launch, memory, stream, take_reports};

/// Launches with up to two parameters.
pub(super) fn launch_in(
    stream: Handle<Stream>,
    function: Handle<Function>,
    grid: u32,
    block: u32,
    address: u64,
    count: u32,
) -> u32 {
    let places = [
        std::ptr::from_ref(&address).expose_provenance(),
        std::ptr::from_ref(&count).expose_provenance(),
    ];
    let parameters = In::all(&places).cast();
    call!(
        launch::cuLaunchKernel,
        function,
        grid,
        1,
        1,
        block,
        1,
        1,
        0,
        stream,
        parameters,
        In::of(0)
    )
}

fn launch_as(
    function: Handle<Function>,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    attributes: &[LaunchAttribute],
) -> u32 {
    let config = LaunchConfig {
        grid,
        block,
        shared_bytes,
        stream: Handle::NULL,
        attributes: In::of(attributes.as_ptr().expose_provenance()),
        attribute_count: attributes.len() as u32,
    };
    call!(
        launch::cuLaunchKernelEx,
        In::from(&config),
        function,
        In::of(0),
        In::of(0)
    )
}

fn cluster(x: u32) -> LaunchAttribute {
    LaunchAttribute {
        id: 4,
        pad: [0; 4],
        value: [u64::from(x) | 1 << 32, 1, 0, 0, 0, 0, 0, 0],
    }
}

fn numbers(address: u64, count: usize) -> Vec<u32> {
    let mut data = vec![0; count];
    let place = data.as_mut_ptr().expose_provenance();
    assert_eq!(call!(copy::cuMemcpyDtoH_v2, place, address, count * 4), 0);
    data
}

fn zeros(count: usize) -> u64 {
    let mut address = 0;
    assert_eq!(
        call!(memory::cuMemAlloc_v2, Out::to(&mut address), count * 4),
        0
    );
    assert_eq!(
        call!(crate::driver::fill::cuMemsetD32_v2, address, 0, count),
        0
    );
    address
}

#[test]
fn kernels_run_in_the_order_of_their_calls() {
    context();
    let (kernel, x) = (kernel("add_one"), zeros(100));
    let stream = new_stream();
    assert_eq!(launch_in(stream, kernel, 2, 64, x, 100), 0);
    assert_eq!(launch_in(stream, kernel, 1, 64, x, 10), 0);
    let found = numbers(x, 100);
    assert_eq!(found[..11], [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    assert_eq!(found[99], 1);
    assert!(
        take_reports(0)
            .iter()
            .any(|launch| launch.kernel == "add_one" && launch.grid == [2, 1, 1])
    );
    assert!(take_reports(7).is_empty());
}

#[test]
fn arguments_may_come_in_a_buffer() {
    context();
    let (kernel, x) = (kernel("add_one"), zeros(4));
    let mut buffer = [0_u8; 12];
    buffer[..8].copy_from_slice(&x.to_le_bytes());
    buffer[8..].copy_from_slice(&4_u32.to_le_bytes());
    let run = |bytes: usize| {
        let places = (
            buffer.as_ptr().expose_provenance(),
            std::ptr::from_ref(&bytes).expose_provenance(),
        );
        let extra = [1, places.0, 2, places.1, 0];
        let (none, extra) = (In::of(0), In::all(&extra));
        call!(
            launch::cuLaunchKernel,
            kernel,
            1,
            1,
            1,
            32,
            1,
            1,
            0,
            Handle::NULL,
            none,
            extra
        )
    };
    assert_eq!(run(11), 1, "too short");
    assert_eq!(run(12), 0);
    assert_eq!(numbers(x, 4), [1; 4]);
    let (none, nothing) = (In::of(0), In::of(0));
    let code = call!(
        launch::cuLaunchKernel,
        kernel,
        1,
        1,
        1,
        32,
        1,
        1,
        0,
        Handle::NULL,
        none,
        nothing
    );
    assert_eq!(code, 1, "no arguments at all");
}

#[test]
fn refused_launches_have_the_codes_of_hardware() {
    context();
    let small = kernel("small");
    let one = [1, 1, 1];
    let cooperative = LaunchAttribute {
        id: 2,
        pad: [0; 4],
        value: [1, 0, 0, 0, 0, 0, 0, 0],
    };
    let check = |grid, block, shared, attributes: &[LaunchAttribute], expected| {
        assert_eq!(
            launch_as(small, grid, block, shared, attributes),
            expected,
            "{grid:?} {block:?}"
        );
    };
    check(one, one, 0, &[], 0);
    check([0, 1, 1], one, 0, &[], 1);
    check(one, [1025, 1, 1], 0, &[], 1);
    check(one, [1, 1, 65], 0, &[], 1);
    check([1, 65_536, 1], one, 0, &[], 1);
    check(one, [65, 1, 1], 0, &[], 701);
    check(one, one, 49_153, &[], 1);
    check([6, 1, 1], one, 0, &[cluster(2)], 0);
    check([5, 1, 1], one, 0, &[cluster(2)], 912);
    check([16, 1, 1], one, 0, &[cluster(16)], 912);
    check([132 * 32, 1, 1], one, 0, &[cooperative], 0);
    check([132 * 32 + 1, 1, 1], one, 0, &[cooperative], 720);
    let all_at_once = |blocks: u32| {
        call!(
            launch::cuLaunchCooperativeKernel,
            small,
            blocks,
            1,
            1,
            1,
            1,
            1,
            0,
            Handle::NULL,
            In::of(0)
        )
    };
    assert_eq!((all_at_once(132 * 32), all_at_once(132 * 32 + 1)), (0, 720));
    assert_eq!(launch_as(Handle::of(5), one, one, 0, &[]), 400);
    context();
    assert_eq!(
        launch_as(small, one, one, 0, &[]),
        400,
        "of another context"
    );
}

#[test]
fn a_kernel_that_fails_takes_its_context_down() {
    let broken = context();
    let (fail, add, x) = (kernel("fail"), kernel("add_one"), zeros(1));
    let stream = new_stream();
    assert_eq!(
        launch_as(fail, [1, 1, 1], [1, 1, 1], 0, &[]),
        0,
        "the launch itself went well"
    );
    assert_eq!(launch_in(stream, add, 1, 1, x, 1), 0, "not known yet");
    assert_eq!(call!(stream::cuStreamSynchronize, stream), 719);
    assert_eq!(call!(context::cuCtxSynchronize), 719, "and again");
    assert_eq!(launch_in(stream, add, 1, 1, x, 1), 719);
    assert_eq!(call!(memory::cuMemAlloc_v2, Out::to(&mut 0), 4), 719);
    // Another context does not care.
    context();
    assert_eq!(call!(context::cuCtxSynchronize), 0);
    assert_eq!(call!(context::cuCtxDestroy_v2, broken), 0);
}

#[test]
fn an_illegal_address_is_told_when_somebody_waits() {
    context();
    let add = kernel("add_one");
    assert_eq!(launch_in(Handle::NULL, add, 1, 1, 0x1234_5678_0000, 1), 0);
    assert_eq!(call!(context::cuCtxSynchronize), 700);
}
