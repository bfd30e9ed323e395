//! The machine code of every probe: the instruction that it measures is there, as often as its loop says, and nothing is in local
//! memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use stepscope_device::disassembly::{self, Function};
use stepscope_device::nvrtc::{Cache, Compiled, Compiler, Program};
use stepscope_microbench::sheet;

const ARCHITECTURES: [&str; 6] = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120a"];

/// Of a kernel, how often an instruction is in its machine code: from, to. Its loop is the only place where that many are.
struct Expectation {
    instruction: &'static str,
    times: [usize; 2],
}

/// The last number of `arithmetic<Fma, 8, 128>`.
fn unroll(expression: &str) -> usize {
    let number = expression.trim_end_matches('>').rsplit([' ', '<']).next();
    number.unwrap().parse().unwrap()
}

fn expectations(expression: &str, arch: &str) -> Vec<Expectation> {
    let exactly = |instruction, times| Expectation {
        instruction,
        times: [times, times],
    };
    // Beside its loop a kernel computes addresses and reads its operands.
    let and_few_more = |instruction, times| Expectation {
        instruction,
        times: [times, times + 20],
    };
    let name = expression.split('<').next().unwrap();
    match name {
        "read_set" => vec![and_few_more("LDG.E.128", 8)],
        "write_set" => vec![and_few_more("STG.E.128", 1)],
        "copy_set" => vec![and_few_more("LDG.E.128", 9), and_few_more("STG.E.128", 9)],
        "shared_read" => vec![exactly("LDS.128", unroll(expression))],
        "chase" => vec![and_few_more("LDG.E.64", unroll(expression) + 1)],
        "chase_shared" => vec![and_few_more("LDS", unroll(expression))],
        "mma_sync" if expression.contains("S8") => vec![exactly("IMMA", unroll(expression))],
        "mma_sync" => vec![exactly("HMMA", unroll(expression))],
        "wgmma" if expression.contains("E4m3") => vec![exactly("QGMMA", unroll(expression))],
        "wgmma" => vec![exactly("HGMMA", unroll(expression))],
        "arithmetic" if expression.contains("Fma") => vec![exactly("FFMA", unroll(expression))],
        "arithmetic" if expression.contains("Ex2") => vec![exactly("MUFU.EX2", unroll(expression))],
        "arithmetic" if expression.contains("Rcp") => vec![exactly("MUFU.RCP", unroll(expression))],
        "arithmetic" if expression.contains("Sin") => vec![exactly("MUFU.SIN", unroll(expression))],
        "arithmetic" if expression.contains("Imad") => {
            vec![and_few_more("IMAD", unroll(expression))]
        }
        // One IADD3 of two additions, or one of each.
        "arithmetic" if arch.starts_with("sm_8") => {
            vec![and_few_more("IADD3", 2 * unroll(expression))]
        }
        "arithmetic" => vec![and_few_more("IADD3", unroll(expression))],
        "atomics" if expression.contains("true") => vec![exactly("ATOMG", 16)],
        "atomics" if arch.starts_with("sm_8") => vec![exactly("RED", 16)],
        "atomics" => vec![exactly("REDG", 16)],
        _ => Vec::new(),
    }
}

fn compile(compiler: &Compiler, program: &Program, arch: &str) -> Compiled {
    let parsed = arch.parse().unwrap();
    match Cache::for_this_user() {
        Some(cache) => compiler.compile_cached(program, parsed, &cache),
        None => compiler.compile(program, parsed),
    }
    .unwrap()
}

/// What is wrong with a kernel.
fn complaints(expression: &str, arch: &str, function: &Function) -> Vec<String> {
    let mut complaints = Vec::new();
    for Expectation { instruction, times } in expectations(expression, arch) {
        let count = function
            .instructions
            .iter()
            .filter(|i| i.opcode == instruction || i.opcode.starts_with(&format!("{instruction}.")))
            .count();
        if !(times[0]..=times[1]).contains(&count) {
            complaints.push(format!(
                "{count} times {instruction}, not {} to {}",
                times[0], times[1]
            ));
        }
    }
    let forbidden = ["LDL", "STL", "REDUX", "VOTE", "VOTEU"];
    for instruction in &function.instructions {
        // Additions of a warp that were made one are not what is measured.
        if forbidden.contains(&instruction.mnemonic()) {
            complaints.push(format!("it has {}", instruction.opcode));
        }
    }
    complaints
}

#[test]
fn every_probe_has_the_instruction_that_it_measures() {
    let compiler = match Compiler::open() {
        Ok(compiler) => compiler,
        Err(error) => return println!("skipped: {error}"),
    };
    let nvdisasm = match disassembly::find(&compiler) {
        Ok(nvdisasm) => nvdisasm,
        Err(error) => return println!("skipped: {error}"),
    };
    let mut wrong = Vec::new();
    let mut kernels = 0;
    for arch in ARCHITECTURES {
        for program in sheet::programs(arch.parse().unwrap()) {
            let compiled = compile(&compiler, &program, arch);
            let functions = disassembly::disassemble(&nvdisasm, &compiled.cubin).unwrap();
            for advisory in &compiled.facts.report.advisories {
                wrong.push(format!("{} on {arch}: {advisory:?}", program.name));
            }
            for expression in &program.expressions {
                let name = compiled.lowered_name(expression);
                let function = functions.iter().find(|f| f.name == name).unwrap();
                kernels += 1;
                let complaints = complaints(expression, arch, function);
                wrong.extend(
                    complaints
                        .iter()
                        .map(|c| format!("{expression} on {arch}: {c}")),
                );
                let report = compiled.kernel(expression).unwrap();
                if report.stack_bytes > 0 || report.spills() {
                    wrong.push(format!("{expression} on {arch}: {report:?}"));
                }
            }
        }
    }
    assert!(kernels > 200, "{kernels}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
