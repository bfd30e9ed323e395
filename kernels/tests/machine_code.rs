//! The machine code of every kernel, for every architecture: it is there, needs no local memory, has what makes it fast, and its use
//! of registers and shared memory is what it was when somebody last looked.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fmt::Write as _;
use std::sync::Mutex;
use std::thread;

use stepscope_device::disassembly::{self, Function};
use stepscope_device::nvrtc::{Cache, Compiled, Compiler};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::catalog::{self, Family};

const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"];

/// The NVRTC whose machine code the snapshots show: another one shares registers out in another way.
const SNAPSHOTS_OF: (u32, u32) = (13, 0);

/// A family compiled for an architecture.
struct Unit {
    arch: &'static str,
    dtype: DType,
    family: &'static Family,
    compiled: Compiled,
    /// Empty for families that need no instruction in particular.
    functions: Vec<Function>,
}

impl Unit {
    fn instances(&self) -> Vec<String> {
        self.family.instances(self.dtype)
    }
}

/// Compiles everything, two at a time.
fn compile_all() -> Option<Vec<Unit>> {
    let work: Vec<(&'static str, DType, &'static Family)> = catalog::families()
        .flat_map(|family| {
            let of = |dtype| ARCHITECTURES.map(|arch| (arch, dtype, family));
            of(DType::BF16).into_iter().chain(of(DType::F16))
        })
        .collect();
    let compilers = [Compiler::open(), Compiler::open()];
    if let Err(error) = &compilers[0] {
        println!("skipped: {error}");
        return None;
    }
    let next = Mutex::new(work.into_iter());
    let units = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for compiler in compilers.map(Result::unwrap) {
            let (next, units) = (&next, &units);
            scope.spawn(move || {
                loop {
                    let Some((arch, dtype, family)) = next.lock().unwrap().next() else {
                        return;
                    };
                    let unit = compile(&compiler, arch, dtype, family);
                    units.lock().unwrap().push(unit);
                }
            });
        }
    });
    let mut units = units.into_inner().unwrap();
    let place = |unit: &Unit| {
        let arch = ARCHITECTURES.iter().position(|arch| *arch == unit.arch);
        let family = catalog::families().position(|family| family.name == unit.family.name);
        (arch, unit.dtype == DType::F16, family)
    };
    units.sort_by_key(place);
    Some(units)
}

fn compile(compiler: &Compiler, arch: &'static str, dtype: DType, family: &'static Family) -> Unit {
    let program = family.all(dtype);
    let parsed = arch.parse().unwrap();
    let compiled = match Cache::for_this_user() {
        Some(cache) => compiler.compile_cached(&program, parsed, &cache),
        None => compiler.compile(&program, parsed),
    }
    .unwrap();
    let functions = match disassembly::find(compiler) {
        _ if family.instructions.is_empty() => Vec::new(),
        Ok(nvdisasm) => disassembly::disassemble(&nvdisasm, &compiled.cubin).unwrap(),
        Err(error) => {
            println!("skipped: {error}");
            Vec::new()
        }
    };
    Unit {
        arch,
        dtype,
        family,
        compiled,
        functions,
    }
}

/// What each instance of these takes.
fn rows<'a>(units: &[&'a Unit]) -> Vec<(String, &'a str, String)> {
    let mut rows = Vec::new();
    for unit in units {
        for instance in unit.instances() {
            let kernel = unit.compiled.kernel(&instance).unwrap();
            let numbers = format!(
                "{:9}  {:6}  {:5}  {:7}",
                kernel.registers,
                kernel.shared_bytes,
                kernel.stack_bytes,
                kernel.spill_store_bytes + kernel.spill_load_bytes,
            );
            rows.push((numbers, unit.family.name, instance));
        }
    }
    rows
}

/// One line for each instance of an architecture in bfloat16, and for each that takes something else in float16.
fn table(units: &[&Unit]) -> String {
    let (f16, bf16): (Vec<&Unit>, Vec<&Unit>) =
        units.iter().partition(|unit| unit.dtype == DType::F16);
    let (bf16, f16) = (rows(&bf16), rows(&f16));
    assert_eq!(bf16.len(), f16.len());
    let mut text = String::from("registers  shared  stack  spilled  instance\n");
    for (numbers, _, instance) in &bf16 {
        writeln!(text, "{numbers}  {instance}").unwrap();
    }
    let mut others = String::new();
    for ((bf16, family, _), (f16, other, instance)) in bf16.iter().zip(&f16) {
        assert_eq!(family, other);
        if bf16 != f16 {
            writeln!(others, "{f16}  {instance}").unwrap();
        }
    }
    match others.is_empty() {
        true => text + "float16 takes the same.\n",
        false => text + "float16 takes the same, but for these:\n" + &others,
    }
}

fn check_local_memory(unit: &Unit, wrong: &mut Vec<String>) {
    let facts = &unit.compiled.facts;
    // Of a source with several kernels, constants of the others are not used: #177-D.
    let warnings = facts.warnings.iter().map(ToString::to_string);
    wrong.extend(warnings.filter(|warning| !warning.contains("#177-D")));
    assert_eq!(
        facts.report.advisories,
        [],
        "{} on {}",
        unit.family.name,
        unit.arch
    );
    for instance in unit.instances() {
        let kernel = unit.compiled.kernel(&instance).unwrap();
        if kernel.spills() || kernel.stack_bytes > 0 {
            wrong.push(format!("{instance} on {}: {kernel:?}", unit.arch));
        }
    }
}

fn check_instructions(unit: &Unit, wrong: &mut Vec<String>) {
    if unit.functions.is_empty() {
        return;
    }
    for instance in unit.instances() {
        let name = unit.compiled.lowered_name(&instance);
        let function = unit.functions.iter().find(|f| f.name == name).unwrap();
        let mix = function.mix();
        for needed in unit.family.instructions {
            // Rows that begin anywhere are not copied 16 bytes at a time.
            let is_needed = *needed != "LDGSTS" || !instance.ends_with("false>");
            if mix.contains_key(needed) != is_needed {
                wrong.push(format!("{needed} of {instance} on {}: {mix:?}", unit.arch));
            }
        }
        for local in ["LDL", "STL"] {
            if mix.contains_key(local) {
                wrong.push(format!("{local} in {instance} on {}", unit.arch));
            }
        }
    }
}

/// One test for all of it, since compiling is what takes the time.
#[test]
fn machine_code_of_every_kernel() {
    let Some(units) = compile_all() else { return };
    let mut wrong = Vec::new();
    for unit in &units {
        check_local_memory(unit, &mut wrong);
        check_instructions(unit, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let version = units[0].compiled.facts.compiler;
    if (version.major, version.minor) != SNAPSHOTS_OF {
        return println!("skipped: the snapshots are of NVRTC 13.0, this is {version}");
    }
    for arch in ARCHITECTURES {
        let of_arch: Vec<&Unit> = units.iter().filter(|unit| unit.arch == arch).collect();
        insta::assert_snapshot!(arch, table(&of_arch));
    }
}
