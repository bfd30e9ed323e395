//! `stepscope conformance`: whether a driver's device computes what the emulated one does.

use std::sync::Arc;

use serde_json::{Value, json};
use stepscope_device::driver::{
    Context, DeviceBuffer, Driver, ElementType, Launch, Module, Stream, Swizzle, Tile,
};
use stepscope_emulator::conformance::{Argument, Case, MODULES, Matrix, cases};
use stepscope_emulator::{
    Device, DeviceOptions, Launch as EmulatedLaunch, TensorMapOptions, check, encode_tensor_map,
};

use crate::args;
use crate::device::emulated_driver;
use crate::output::{Failure, print_stderr, write_stdout};

/// What became of a case.
#[derive(Debug)]
enum Outcome {
    Same,
    /// Output, words that differ, and the first of them: place, the emulated device's, the driver's.
    Differs {
        output: usize,
        words: usize,
        first: usize,
        emulated: u32,
        driver: u32,
    },
    NotRun(String),
    Failed(String),
}

pub(crate) fn run(args: &args::Conformance) -> Result<(), Failure> {
    let driver = match args.device {
        args::Device::Cpu => {
            return Err(Failure::input(
                "the CPU device has no driver; use --device cuda or emulated",
            ));
        }
        args::Device::Emulated => emulated_driver().map_err(device)?,
        args::Device::Auto | args::Device::Cuda { .. } => Driver::open().map_err(device)?,
    };
    let ordinal = match args.device {
        args::Device::Cuda { ordinal } => ordinal,
        _ => 0,
    };
    let context = Context::new(&driver, ordinal).map_err(device)?;
    let [major, minor] = context.device().compute_capability;
    let name = context.device().name.clone();
    // Newer tensor cores have the arithmetic of Hopper's `mma`, as far as is known.
    let model = match (major, minor) {
        (8, 0 | 6 | 9) => (major, minor),
        (8, _) => (8, 6),
        _ => (9, 0),
    };
    let mut results = Vec::new();
    for case in cases() {
        let outcome = outcome(&context, model, &case);
        if !args.json {
            print_stderr(&format!("{:40} {}", case.name, tell(&outcome)));
        }
        results.push((case, outcome));
    }
    let count = |wanted: fn(&Outcome) -> bool| results.iter().filter(|(_, o)| wanted(o)).count();
    let same = count(|o| matches!(o, Outcome::Same));
    let not_run = count(|o| matches!(o, Outcome::NotRun(_)));
    let wrong = results.len() - same - not_run;
    let verdict = format!(
        "{name} (compute capability {major}.{minor}, CUDA {}): {same} of {} cases as emulated, {wrong} not, {not_run} not run",
        driver.version(),
        results.len(),
    );
    let text = if args.json {
        let cases: Vec<Value> = results
            .iter()
            .map(|(case, outcome)| as_json(case, outcome))
            .collect();
        let document = json!({
            "schema": "stepscope.conformance/1",
            "device": name,
            "compute_capability": [major, minor],
            "emulated_as": [model.0, model.1],
            "driver": driver.version().to_string(),
            "same": same,
            "different": wrong,
            "not_run": not_run,
            "cases": cases,
        });
        format!("{document:#}\n")
    } else {
        format!("{verdict}\n")
    };
    write_stdout(text.as_bytes())?;
    if wrong > 0 {
        Err(Failure::run(verdict))
    } else {
        Ok(())
    }
}

fn device(error: stepscope_device::Error) -> Failure {
    Failure::Run(error.into())
}

fn tell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Same => "same".to_owned(),
        Outcome::Differs {
            output,
            words,
            first,
            emulated,
            driver,
        } => format!(
            "differs: output {output}, {words} words, the first at {first}: emulated {emulated:08x}, driver {driver:08x}"
        ),
        Outcome::NotRun(why) => format!("not run: {why}"),
        Outcome::Failed(why) => format!("failed: {why}"),
    }
}

fn as_json(case: &Case, outcome: &Outcome) -> Value {
    let mut value = json!({ "name": case.name, "module": case.module, "kernel": case.kernel });
    let (status, detail) = match outcome {
        Outcome::Same => ("same", Value::Null),
        Outcome::Differs {
            output,
            words,
            first,
            emulated,
            driver,
        } => (
            "different",
            json!({ "output": output, "words": words, "first": first,
                    "emulated": format!("{emulated:08x}"), "driver": format!("{driver:08x}") }),
        ),
        Outcome::NotRun(why) => ("not run", json!(why)),
        Outcome::Failed(why) => ("failed", json!(why)),
    };
    value["outcome"] = json!(status);
    value["detail"] = detail;
    value
}

fn outcome(context: &Arc<Context>, model: (u32, u32), case: &Case) -> Outcome {
    let Some(module) = MODULES.iter().find(|module| module.name == case.module) else {
        return Outcome::Failed(format!("no module {}", case.module));
    };
    let [major, minor] = context.device().compute_capability;
    let (needs, has) = (module.compute_capability, (major, minor));
    if has < needs || module.only_that && has != needs {
        return Outcome::NotRun(format!("needs compute capability {}.{}", needs.0, needs.1));
    }
    let emulated = match on_emulator(model, module.ptx, case) {
        Ok(outputs) => outputs,
        Err(error) => return Outcome::Failed(format!("emulated: {error}")),
    };
    let real = match on_driver(context, module.ptx, case) {
        Ok(outputs) => outputs,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    for (output, (ours, theirs)) in emulated.iter().zip(&real).enumerate() {
        if let Err((words, first, emulated, driver)) = case.compare(ours, theirs) {
            return Outcome::Differs {
                output,
                words,
                first,
                emulated,
                driver,
            };
        }
    }
    Outcome::Same
}

/// The outputs of a case on the emulated device, without a driver between.
fn on_emulator(
    compute_capability: (u32, u32),
    ptx: &str,
    case: &Case,
) -> Result<Vec<Vec<u8>>, stepscope_emulator::Error> {
    let device = Device::new(DeviceOptions {
        compute_capability,
        ..DeviceOptions::default()
    });
    let kernel = device.load_module(ptx)?.kernel(case.kernel)?;
    let mut buffers = Vec::new();
    let mut bytes = vec![0; kernel.parameter_bytes() as usize];
    for (argument, parameter) in case.arguments.iter().zip(kernel.parameters()) {
        let mut buffer = |data: &[u8], is_output: bool| {
            let address = device.allocate(data.len() as u64)?;
            device.write(address, data)?;
            if is_output {
                buffers.push((address, data.len()));
            }
            Ok::<u64, stepscope_emulator::Error>(address)
        };
        let value = match argument {
            Argument::Word(word) => word.to_le_bytes().to_vec(),
            Argument::Input(data) => buffer(data, false)?.to_le_bytes().to_vec(),
            Argument::InOut(data) => buffer(data, true)?.to_le_bytes().to_vec(),
            Argument::Output(bytes) => buffer(&vec![0; *bytes], true)?.to_le_bytes().to_vec(),
            Argument::Matrix(matrix) => {
                let address = buffer(&matrix.data, matrix.is_output)?;
                let options = TensorMapOptions {
                    data_type: if matrix.element_bytes == 2 { 9 } else { 7 },
                    address,
                    extents: &[matrix.size[1], matrix.size[0]],
                    strides: &[matrix.size[1] * matrix.element_bytes],
                    tile: &[matrix.tile[1], matrix.tile[0]],
                    element_strides: &[1, 1],
                    interleave: 0,
                    swizzle: if matrix.swizzled { 3 } else { 0 },
                    promotion: 0,
                    fill: 0,
                };
                let map = encode_tensor_map(&options)?;
                map.iter().flat_map(|word| word.to_le_bytes()).collect()
            }
        };
        let start = parameter.offset as usize;
        bytes[start..start + value.len()].copy_from_slice(&value);
    }
    let mut launch = EmulatedLaunch::new(case.grid, case.block);
    launch.cluster = case.cluster;
    launch.cooperative = case.cooperative;
    launch.dynamic_shared_bytes = case.shared_bytes;
    launch.checks = check::Checks::NONE;
    let report = device.launch(&kernel, &launch, &bytes)?;
    if let Some(failure) = report.failure {
        return Err(failure);
    }
    buffers
        .into_iter()
        .map(|(address, bytes)| {
            let mut data = vec![0; bytes];
            device.read(address, &mut data)?;
            Ok(data)
        })
        .collect()
}

/// The outputs of a case on the device of a driver.
fn on_driver(
    context: &Arc<Context>,
    ptx: &str,
    case: &Case,
) -> Result<Vec<Vec<u8>>, stepscope_device::Error> {
    let stream = Stream::new(context)?;
    let function = Module::load(context, case.module, ptx.as_bytes())?.function(case.kernel)?;
    let mut buffers: Vec<(DeviceBuffer<u8>, bool)> = Vec::new();
    let mut arguments = Vec::new();
    for argument in &case.arguments {
        let mut buffer = |data: &[u8], is_output: bool| {
            let mut buffer = DeviceBuffer::new(context, case.name, data.len())?;
            buffer.write(&stream, 0, data)?;
            let pointer = buffer.pointer();
            buffers.push((buffer, is_output));
            Ok::<_, stepscope_device::Error>(pointer)
        };
        arguments.push(match argument {
            Argument::Word(word) => word.to_le_bytes().to_vec(),
            Argument::Input(data) => buffer(data, false)?.0.to_le_bytes().to_vec(),
            Argument::InOut(data) => buffer(data, true)?.0.to_le_bytes().to_vec(),
            Argument::Output(bytes) => buffer(&vec![0; *bytes], true)?.0.to_le_bytes().to_vec(),
            Argument::Matrix(matrix) => {
                let address = buffer(&matrix.data, matrix.is_output)?;
                tile(matrix, address).encode(context)?.to_bytes()
            }
        });
    }
    let mut launch = Launch::of_grid(case.grid, case.block).with_shared_bytes(case.shared_bytes);
    if let Some(cluster) = case.cluster {
        launch = launch.in_clusters(cluster);
    }
    if case.cooperative {
        launch = launch.cooperative();
    }
    // SAFETY: the arguments are those the kernel was written for; its buffers live until the stream is done.
    unsafe { function.launch_with_bytes(&stream, &launch, &arguments)? };
    stream.synchronize()?;
    buffers
        .iter()
        .filter(|(_, is_output)| *is_output)
        .map(|(buffer, _)| {
            let mut data = vec![0; buffer.len()];
            buffer.read(&stream, 0, &mut data)?;
            Ok(data)
        })
        .collect()
}

fn tile(matrix: &Matrix, address: stepscope_device::driver::DevicePointer) -> Tile {
    Tile {
        element: if matrix.element_bytes == 2 {
            ElementType::BF16
        } else {
            ElementType::F32
        },
        address,
        extents: vec![matrix.size[1], matrix.size[0]],
        strides_bytes: vec![matrix.size[1] * matrix.element_bytes],
        tile: vec![matrix.tile[1], matrix.tile[0]],
        swizzle: if matrix.swizzled {
            Swizzle::Bytes128
        } else {
            Swizzle::None
        },
    }
}
