//! Allocations, copies, fills, and what is known about addresses.

use super::*;
use crate::driver::types::{Copy2D, Location, PoolProperties, Side2D};
use crate::driver::{copy, fill, memory, pointer, pool};

fn allocate(bytes: usize) -> Result<u64, u32> {
    let mut address = 0;
    match call!(memory::cuMemAlloc_v2, Out::to(&mut address), bytes) {
        0 => Ok(address),
        code => Err(code),
    }
}

fn host(data: &[u8]) -> usize {
    data.as_ptr().expose_provenance()
}

fn read(address: u64, bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    let place = data.as_mut_ptr().expose_provenance();
    assert_eq!(call!(copy::cuMemcpyDtoH_v2, place, address, bytes), 0);
    data
}

#[test]
fn memory_is_given_out_and_taken_back() {
    context();
    assert_eq!(allocate(0), Err(1));
    assert_eq!(allocate(2 << 30), Err(2), "more than there is");
    let address = allocate(100).unwrap();
    assert_eq!(address % 256, 0);
    assert_eq!(
        call!(copy::cuMemcpyHtoD_v2, address + 90, host(&[1; 11]), 11),
        1,
        "beyond its end"
    );
    assert_eq!(
        call!(copy::cuMemcpyHtoD_v2, 0x1234, host(&[1; 4]), 4),
        1,
        "nowhere"
    );
    assert_eq!(call!(memory::cuMemFree_v2, address + 1), 1);
    assert_eq!(call!(memory::cuMemFree_v2, address), 0);
    assert_eq!(call!(memory::cuMemFree_v2, address), 1);
    assert_eq!(call!(memory::cuMemFree_v2, 0), 0);
}

#[test]
fn copies_and_fills_of_every_shape() {
    context();
    let (a, b) = (allocate(64).unwrap(), allocate(64).unwrap());
    assert_eq!(call!(fill::cuMemsetD32_v2, a, 0x0403_0201, 16), 0);
    assert_eq!(read(a, 5), [1, 2, 3, 4, 1]);
    assert_eq!(call!(fill::cuMemsetD16_v2, a + 1, 7, 1), 1, "not aligned");
    assert_eq!(call!(fill::cuMemsetD2D8_v2, a, 8, 9, 2, 3), 0);
    assert_eq!(read(a, 10), [9, 9, 3, 4, 1, 2, 3, 4, 9, 9]);
    assert_eq!(call!(copy::cuMemcpyDtoD_v2, b, a, 64), 0);
    assert_eq!(read(b, 10), read(a, 10));
    // Host to host, by addresses alone.
    let mut to = [0_u8; 3];
    let place = to.as_mut_ptr().expose_provenance() as u64;
    assert_eq!(call!(copy::cuMemcpy, place, host(&[4, 5, 6]) as u64, 3), 0);
    assert_eq!(to, [4, 5, 6]);
    // Two rows of two bytes, from a host image with rows of four to rows of eight.
    let image = [0, 10, 11, 0, 0, 20, 21, 0];
    let side = Side2D {
        x_bytes: 0,
        y: 0,
        memory_type: 0,
        host: 0,
        device: 0,
        array: 0,
        pitch: 0,
    };
    let shape = Copy2D {
        from: Side2D {
            x_bytes: 1,
            memory_type: 1,
            host: host(&image),
            pitch: 4,
            ..side
        },
        to: Side2D {
            y: 1,
            memory_type: 2,
            device: b,
            pitch: 8,
            ..side
        },
        width: 2,
        height: 2,
    };
    assert_eq!(call!(copy::cuMemcpy2D_v2, In::from(&shape)), 0);
    assert_eq!(read(b + 8, 10), [10, 11, 3, 4, 1, 2, 3, 4, 20, 21]);
    let narrow = Copy2D {
        to: Side2D {
            pitch: 1,
            ..shape.to
        },
        ..shape
    };
    assert_eq!(
        call!(copy::cuMemcpy2D_v2, In::from(&narrow)),
        1,
        "rows that overlap"
    );
}

#[test]
fn host_memory_is_one_with_the_devices() {
    context();
    let mut memory = 0;
    // Larger than what allocators keep in their heap, so that it comes from a mapping of its own.
    let bytes = 1 << 20;
    assert_eq!(
        call!(memory::cuMemHostAlloc, Out::to(&mut memory), bytes, 0),
        0
    );
    assert_eq!(memory % 4096, 0);
    let mut device = 0;
    assert_eq!(
        call!(
            memory::cuMemHostGetDevicePointer_v2,
            Out::to(&mut device),
            memory,
            0
        ),
        0
    );
    assert_eq!(device, memory as u64);
    assert_eq!(call!(fill::cuMemsetD8_v2, device, 5, bytes), 0);
    // SAFETY: the memory is `bytes` long and still there.
    let data = unsafe {
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(memory), bytes)
    };
    assert!(data.iter().all(|byte| *byte == 5));
    assert_eq!(call!(memory::cuMemFreeHost, memory), 0);
    assert_eq!(call!(memory::cuMemFreeHost, memory), 1);

    let own = [1_u8; 100];
    let odd = own.as_ptr().expose_provenance() + 3;
    assert_eq!(call!(memory::cuMemHostRegister_v2, odd, 50, 0), 0);
    assert_eq!(call!(memory::cuMemHostRegister_v2, odd + 10, 50, 0), 712);
    assert_eq!(call!(memory::cuMemHostUnregister, odd), 0);
    assert_eq!(call!(memory::cuMemHostUnregister, odd), 713);
}

#[test]
fn addresses_say_what_they_are() {
    let own = context();
    let address = allocate(1000).unwrap();
    let (mut base, mut bytes) = (0, 0);
    assert_eq!(
        call!(
            memory::cuMemGetAddressRange_v2,
            Out::to(&mut base),
            Out::to(&mut bytes),
            address + 5
        ),
        0
    );
    assert_eq!((base, bytes), (address, 1000));
    let mut kind = 0_u32;
    assert_eq!(
        call!(
            pointer::cuPointerGetAttribute,
            Out::to(&mut kind).cast(),
            2,
            address + 5
        ),
        0
    );
    assert_eq!(kind, 2);
    let mut of = Handle::NULL;
    assert_eq!(
        call!(
            pointer::cuPointerGetAttribute,
            Out::to(&mut of).cast(),
            1,
            address
        ),
        0
    );
    assert_eq!(of, own);
    assert_eq!(
        call!(
            pointer::cuPointerGetAttribute,
            Out::to(&mut kind).cast(),
            2,
            0x1000
        ),
        1
    );
    // The list has zeros for what is no address of the driver's, and succeeds.
    let (mut start, numbers) = (7_u64, [2_u32, 11]);
    let places = [Out::to(&mut kind).cast(), Out::to(&mut start).cast()];
    let given = In::all(&numbers);
    assert_eq!(
        call!(
            pointer::cuPointerGetAttributes,
            2,
            given,
            In::all(&places),
            0x1000
        ),
        0
    );
    assert_eq!((kind, start), (0, 0));
}

#[test]
fn pools_count_what_is_taken_from_them() {
    context();
    let properties = PoolProperties {
        allocation_type: 1,
        handle_types: 0,
        location: Location { kind: 1, id: 0 },
        security: 0,
        rest: [0; 8],
    };
    let mut own = Handle::NULL;
    assert_eq!(
        call!(
            pool::cuMemPoolCreate,
            Out::to(&mut own),
            In::from(&properties)
        ),
        0
    );
    let stream = new_stream();
    let mut address = 0;
    assert_eq!(
        call!(
            pool::cuMemAllocFromPoolAsync,
            Out::to(&mut address),
            500,
            own,
            stream
        ),
        0
    );
    let used = |number| {
        let mut value = 0;
        assert_eq!(
            call!(
                pool::cuMemPoolGetAttribute,
                own,
                number,
                Out::to(&mut value)
            ),
            0
        );
        value
    };
    assert_eq!((used(7), used(8)), (500, 500));
    assert_eq!(call!(pool::cuMemFreeAsync, address, stream), 0);
    assert_eq!(call!(pool::cuMemFreeAsync, address, stream), 1);
    assert_eq!((used(7), used(8)), (0, 500));
    assert_eq!(call!(pool::cuMemPoolDestroy, own), 0);
    assert_eq!(call!(pool::cuMemPoolDestroy, own), 400);
}

#[test]
fn a_context_takes_its_memory_along() {
    let own = context();
    allocate(1 << 20).unwrap();
    let address = allocate(1 << 20).unwrap();
    assert_eq!(call!(context::cuCtxDestroy_v2, own), 0);
    context();
    assert_eq!(call!(memory::cuMemFree_v2, address), 1, "gone");
}
