//! Any bytes as PTX, loaded into a small device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stepscope_emulator::{Device, DeviceOptions};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let device = Device::new(DeviceOptions {
        memory_bytes: 1 << 20,
        ..DeviceOptions::default()
    });
    if let Ok(module) = device.load_module(text) {
        let names: Vec<String> = module.kernel_names().map(str::to_owned).collect();
        for name in names {
            let kernel = module.kernel(&name).expect("the module names it");
            assert!(kernel.parameters().len() <= kernel.parameter_bytes() as usize);
        }
    }
});
