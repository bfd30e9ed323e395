//! The driver before it is initialised, and variables that it does not understand: a process of its own, since it is initialised once.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ffi::{c_int, c_uint};

use stepscope_emulator::driver::{Configuration, configure, symbol};

type Init = unsafe extern "C" fn(c_uint) -> u32;
type GetCount = unsafe extern "C" fn(*mut c_int) -> u32;
type Synchronize = unsafe extern "C" fn() -> u32;

const VARIABLE: &str = "STEPSCOPE_EMULATED_DEVICES";

#[test]
fn nothing_works_before_the_driver_is_initialised() {
    let of = |name: &str| symbol(name).unwrap();
    // SAFETY: these are the functions' signatures.
    let (init, count, synchronize) = unsafe {
        (
            std::mem::transmute::<*const std::ffi::c_void, Init>(of("cuInit")),
            std::mem::transmute::<*const std::ffi::c_void, GetCount>(of("cuDeviceGetCount")),
            std::mem::transmute::<*const std::ffi::c_void, Synchronize>(of("cuCtxSynchronize")),
        )
    };
    let mut devices = 0;
    // SAFETY: the place is an integer; the rest takes no pointers. Nothing else reads the environment meanwhile.
    unsafe {
        assert_eq!(count(&raw mut devices), 3);
        assert_eq!(synchronize(), 3);
        assert_eq!(init(1), 1, "flags that do not exist");
        std::env::set_var(VARIABLE, "many");
        assert_eq!(init(0), 1);
        assert_eq!(count(&raw mut devices), 3, "still not");
        std::env::set_var(VARIABLE, "3");
        assert_eq!(init(0), 0);
        assert_eq!(init(0), 0, "again is no error");
        assert_eq!(count(&raw mut devices), 0);
        assert_eq!(synchronize(), 201);
    }
    assert_eq!(devices, 3);
    assert!(configure(Configuration::default()).is_err(), "too late");
    assert_eq!(symbol("cuNothing"), None);
}
