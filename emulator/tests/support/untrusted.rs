//! PTX that nobody vouches for: loaded and launched with small limits. Whatever it is, what comes of it is an error or a report.

use stepscope_emulator::check::Checks;
use stepscope_emulator::count::Counters;
use stepscope_emulator::{Device, DeviceOptions, Kernel, Launch, Limits, Report};

/// Bytes of the buffer that every pointer among the arguments points to.
const BUFFER: u64 = 16 << 10;

fn launch(device: &Device, kernel: &Kernel, buffer: u64, checks: Checks) -> Option<Report> {
    let mut arguments = vec![0; kernel.parameter_bytes() as usize];
    for parameter in kernel.parameters() {
        let place = arguments.get_mut(parameter.offset as usize..)?;
        match parameter.bytes {
            8 => place.get_mut(..8)?.copy_from_slice(&buffer.to_le_bytes()),
            4 => place.get_mut(..4)?.copy_from_slice(&16u32.to_le_bytes()),
            _ => {}
        }
    }
    let pattern: Vec<u8> = (0..BUFFER).map(|byte| (byte * 7 / 3) as u8).collect();
    device.write(buffer, &pattern).ok()?;
    let mut launch = Launch::new([2, 1, 1], [128, 1, 1]);
    launch.checks = checks;
    launch.dynamic_shared_bytes = 4096;
    launch.limits = Limits {
        warp_instructions: 1 << 14,
        seconds: 2.0,
        cores: 1,
    };
    device.launch(kernel, &launch, &arguments).ok()
}

/// What became of one kernel: its counters and what is in the buffer, where nothing is wrong with it.
type Outcome = Option<(Counters, Vec<u8>)>;

/// Loads a module into a device of its own and launches its kernels.
fn outcomes(text: &str, checks: Checks) -> Vec<(String, Outcome)> {
    let device = Device::new(DeviceOptions {
        memory_bytes: 1 << 20,
        ..DeviceOptions::default()
    });
    let (Ok(module), Ok(buffer)) = (device.load_module(text), device.allocate(BUFFER)) else {
        return Vec::new();
    };
    let names: Vec<String> = module.kernel_names().take(2).map(str::to_owned).collect();
    let of = |name: &str| -> Outcome {
        let kernel = module.kernel(name).ok()?;
        // What threads keep to themselves is taken from this machine, 256 times.
        if kernel.local_bytes() > 1 << 16 {
            return None;
        }
        let report = launch(&device, &kernel, buffer, checks)?;
        let mut memory = vec![0; BUFFER as usize];
        device.read(buffer, &mut memory).ok()?;
        let is_right = report.failure.is_none() && report.findings.is_empty();
        is_right.then_some((report.counters, memory))
    };
    let each = names.into_iter().map(|name| {
        let outcome = of(&name);
        (name, outcome)
    });
    each.collect()
}

/// Loads a module and launches its kernels, with every check and with none. Where neither has anything to say against a kernel,
/// both must have done the same.
///
/// # Panics
/// They did not.
pub(crate) fn execute(text: &str) {
    let checked = outcomes(text, Checks::ALL);
    if checked.is_empty() {
        return;
    }
    for ((name, checked), (_, plain)) in checked.into_iter().zip(outcomes(text, Checks::NONE)) {
        // Where one of two kernels is wrong, what it left behind may be read by the other.
        let (Some(checked), Some(plain)) = (checked, plain) else {
            return;
        };
        assert_eq!(checked.0, plain.0, "counters of {name}");
        assert!(checked.1 == plain.1, "results of {name}");
    }
}
