//! Any bytes as an .npy file: what is read is written and read again.
#![no_main]
#![allow(dead_code, reason = "the modules of the binary, of which this uses a part")]

#[path = "../../cli/src/emulate/element.rs"]
mod element;
#[path = "../../cli/src/emulate/npy.rs"]
mod npy;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(array) = npy::read(bytes)
        && array.shape.len() <= 32
    {
        let again = npy::write(array.element, &array.shape, &array.data);
        assert_eq!(npy::read(&again).as_ref(), Ok(&array));
    }
});
