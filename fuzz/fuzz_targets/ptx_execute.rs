//! Any bytes as PTX, loaded into a small device and launched there.
#![no_main]

#[path = "../../emulator/tests/support/untrusted.rs"]
mod untrusted;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        untrusted::execute(text);
    }
});
