//! `stepscope kernel show`.

use std::fmt::Write as _;

use serde_json::json;
use stepscope_device::disassembly::{self, Function};
use stepscope_device::nvrtc::{Arch, Cache, Compiled, Compiler, KernelReport};
use stepscope_emulator::count::{Occupancy, occupancy};
use stepscope_kernels::Cost;
use stepscope_kernels::cuda::catalog::{self, Family, Plan, Shape, Target};
use stepscope_profiler::report::Table;

use super::{document, find, header, no_plan, pairs, work};
use crate::args::kernel::Show;
use crate::output::{Failure, print_stderr, write_stdout};

/// Machine instructions that a table has.
const MIX: usize = 16;

/// What is known of one instance.
struct Page {
    family: &'static Family,
    shape: Shape,
    plan: Plan,
    arch: Arch,
    compiled: Compiled,
    report: KernelReport,
    occupancy: Option<Occupancy>,
    function: Option<Function>,
}

pub(super) fn run(args: &Show) -> Result<(), Failure> {
    let (family, shape) = find(&args.which)?;
    let arch = architecture(&args.arch)?;
    let capability = [arch.number() / 10, arch.number() % 10];
    let plan = family
        .plan(&shape, Target::of_capability(capability))
        .map_err(|error| no_plan(&error))?;
    let compiler = Compiler::open().map_err(|error| Failure::input(error.to_string()))?;
    if !compiler.supported().contains(&arch.number()) {
        return Err(Failure::input(format!(
            "--arch {arch}: NVRTC {} does not compile for it; `stepscope doctor` says what it knows",
            compiler.version()
        )));
    }
    let compiled = compile(&compiler, family, &plan.expression, arch)?;
    let report = compiled
        .kernel(&plan.expression)
        .cloned()
        .unwrap_or_default();
    let function = match machine_code(&compiler, &compiled, &plan.expression) {
        Ok(function) => Some(function),
        Err(error) if args.sass => return Err(Failure::input(error.to_string())),
        Err(error) => {
            print_stderr(&format!("no machine instructions: {error}"));
            None
        }
    };
    let threads = plan.launch.block.iter().product();
    let shared = report.shared_bytes.saturating_add(plan.launch.shared_bytes);
    let occupancy = occupancy(capability.into(), threads, Some(report.registers), shared);
    let page = Page {
        family,
        shape,
        plan,
        arch,
        compiled,
        report,
        occupancy,
        function,
    };
    let text = if args.json {
        format!("{:#}\n", page.json(args))
    } else {
        page.text(args)
    };
    write_stdout(text.as_bytes())
}

fn architecture(text: &str) -> Result<Arch, Failure> {
    let arch: Result<Arch, _> = text.parse();
    match arch {
        Ok(arch) if arch.number() < 80 => Err(Failure::input(format!(
            "--arch {arch}: the kernels need sm_80 (Ampere) or newer"
        ))),
        Ok(arch) if arch.is_real() => Ok(arch),
        Ok(arch) => Err(Failure::input(format!(
            "--arch {arch} has no machine code; ask for sm_{}",
            arch.number()
        ))),
        Err(error) => Err(Failure::input(format!("--arch {error}"))),
    }
}

/// As the launcher compiles it, and from where the launcher keeps it.
fn compile(
    compiler: &Compiler,
    family: &Family,
    expression: &str,
    arch: Arch,
) -> Result<Compiled, Failure> {
    let program = family.program([expression.to_owned()]);
    let compiled = match Cache::for_this_user() {
        Some(cache) => compiler.compile_cached(&program, arch, &cache),
        None => compiler.compile(&program, arch),
    };
    compiled.map_err(|error| Failure::run(error.to_string()))
}

fn machine_code(
    compiler: &Compiler,
    compiled: &Compiled,
    expression: &str,
) -> Result<Function, stepscope_device::Error> {
    let nvdisasm = disassembly::find(compiler)?;
    let name = compiled.lowered_name(expression);
    let functions = disassembly::disassemble(&nvdisasm, &compiled.cubin)?;
    let found = functions.into_iter().find(|function| function.name == name);
    Ok(found.unwrap_or_else(|| Function {
        name: name.to_owned(),
        instructions: Vec::new(),
    }))
}

impl Page {
    fn text(&self, args: &Show) -> String {
        let about = format!("NVRTC {} for {}", self.compiled.facts.compiler, self.arch);
        let mut sections = vec![
            header(self.family, &self.shape, &self.plan, &about),
            self.shapes(),
            self.resources(),
            work(&self.plan),
        ];
        sections.extend(self.function.as_ref().map(mix));
        sections.push(self.arguments());
        if args.ptx {
            sections.push(self.compiled.ptx.trim_end().to_owned());
        }
        if let (true, Some(function)) = (args.sass, &self.function) {
            sections.push(listing(function));
        }
        sections.join("\n\n") + "\n"
    }

    /// What `--shape` takes.
    fn shapes(&self) -> String {
        let header = ["--shape", "", "meaning"];
        let mut table = Table::new("lrl", header.map(str::to_owned));
        for (dimension, (name, value)) in self.family.dimensions.iter().zip(self.shape.values()) {
            table.row([
                (*name).to_owned(),
                value.to_string(),
                dimension.meaning.to_owned(),
            ]);
        }
        let dtype = catalog::element(self.shape.dtype()).to_owned();
        table.row(["dtype".to_owned(), dtype, "bf16 or f16".to_owned()]);
        table.render()
    }

    fn resources(&self) -> String {
        let report = &self.report;
        let bytes = |bytes: u32| format!("{bytes} B");
        let mut rows = vec![
            ("registers of a thread", report.registers.to_string()),
            ("spilled, written", bytes(report.spill_store_bytes)),
            ("spilled, read", bytes(report.spill_load_bytes)),
            ("stack", bytes(report.stack_bytes)),
            ("static shared memory", bytes(report.shared_bytes)),
            (
                "dynamic shared memory",
                bytes(self.plan.launch.shared_bytes),
            ),
        ];
        match &self.occupancy {
            Some(o) => {
                let registers = o.limit_registers.unwrap_or(o.blocks);
                rows.extend([
                    ("blocks that registers allow", registers.to_string()),
                    (
                        "blocks that shared memory allows",
                        o.limit_shared.to_string(),
                    ),
                    ("blocks that warps allow", o.limit_threads.to_string()),
                    ("blocks of a multiprocessor", o.blocks.to_string()),
                    (
                        "occupancy, at best",
                        format!("{:.1} %", 100.0 * o.warps_fraction),
                    ),
                ]);
            }
            None => rows.push(("occupancy", format!("not known for {}", self.arch))),
        }
        pairs("Resources", rows)
    }

    fn arguments(&self) -> String {
        let mut table = Table::new("llr", ["Argument", "type", "bytes"].map(str::to_owned));
        for argument in self.family.arguments {
            table.row([
                argument.name.to_owned(),
                match argument.type_name {
                    "DevicePointer" => "pointer".to_owned(),
                    number => number.to_owned(),
                },
                argument.bytes.to_string(),
            ]);
        }
        table.render()
    }

    fn json(&self, args: &Show) -> serde_json::Value {
        let mut document = document(self.family, &self.shape, &self.plan);
        let report = &self.report;
        let Cost { flops, .. } = self.plan.cost;
        document.insert(
            "compiler".to_owned(),
            json!({
                "nvrtc": self.compiled.facts.compiler.to_string(),
                "arch": self.arch.to_string(),
                "symbol": report.name,
                "registers_per_thread": report.registers,
                "spill_store_bytes": report.spill_store_bytes,
                "spill_load_bytes": report.spill_load_bytes,
                "stack_bytes": report.stack_bytes,
                "static_shared_bytes": report.shared_bytes,
            }),
        );
        document.insert(
            "flops_per_byte".to_owned(),
            json!(flops as f64 / (self.plan.cost.bytes().max(1)) as f64),
        );
        document.insert(
            "occupancy".to_owned(),
            json!(self.occupancy.as_ref().map(|o| json!({
                "blocks": o.blocks,
                "warps_fraction": o.warps_fraction,
                "limit_blocks": o.limit_blocks,
                "limit_threads": o.limit_threads,
                "limit_registers": o.limit_registers,
                "limit_shared": o.limit_shared,
            }))),
        );
        let function = self.function.as_ref();
        document.insert(
            "instructions".to_owned(),
            json!(function.map(Function::mix)),
        );
        if args.sass {
            document.insert("sass".to_owned(), json!(function.map(lines)));
        }
        if args.ptx {
            document.insert("ptx".to_owned(), json!(self.compiled.ptx));
        }
        document.into()
    }
}

/// The commonest machine instructions.
fn mix(function: &Function) -> String {
    let mut mix: Vec<(&str, usize)> = function.mix().into_iter().collect();
    // Of equally common ones, by name.
    mix.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    let all = function.instructions.len();
    let share = |count: usize| format!("{:.1} %", 100.0 * count as f64 / all.max(1) as f64);
    let header = ["Machine instructions", "", "of all"];
    let mut table = Table::new("lrr", header.map(str::to_owned));
    for &(name, count) in mix.iter().take(MIX) {
        table.row([name.to_owned(), count.to_string(), share(count)]);
    }
    let others: usize = mix.iter().skip(MIX).map(|&(_, count)| count).sum();
    if others > 0 {
        table.row(["others".to_owned(), others.to_string(), share(others)]);
    }
    table.total(["all".to_owned(), all.to_string(), String::new()]);
    table.render()
}

fn lines(function: &Function) -> Vec<String> {
    let instructions = function.instructions.iter();
    instructions
        .map(|i| {
            format!("{} {} {}", i.predicate, i.opcode, i.operands)
                .trim()
                .to_owned()
        })
        .collect()
}

fn listing(function: &Function) -> String {
    let mut text = String::new();
    for i in &function.instructions {
        let line = format!("{:6} {:28} {}", i.predicate, i.opcode, i.operands);
        let _ = writeln!(text, "{}", line.trim_end()); // a String takes everything
    }
    text.trim_end().to_owned()
}
