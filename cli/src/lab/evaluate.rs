//! What is known of a kernel, in figures.

use stepscope_device::disassembly::{self, Function};
use stepscope_device::driver::{Device, Launch};
use stepscope_device::nvrtc::{Compiled, KernelReport};
use stepscope_emulator::check::Severity;
use stepscope_emulator::count::{Counters, Occupancy, occupancy};
use stepscope_emulator::driver::LaunchReport;
use stepscope_kernels::cuda::{Cuda, Launched};
use stepscope_microbench::lab::{Loaded, sass};
use stepscope_microbench::operations::Comparison;

use crate::emulate::{from_here, source_line};
use crate::output::Failure;

/// A kernel of this program, or of a file.
pub(super) struct Side {
    /// `builtin`, or the file.
    pub(super) name: String,
    /// Each output beside its reference; or why there is none.
    pub(super) comparisons: Result<Vec<Comparison>, String>,
    pub(super) kernels: Vec<Kernel>,
    pub(super) findings: Vec<String>,
    /// What the launches did on the emulated device, all together.
    pub(super) counters: Option<Counters>,
    pub(super) figures: Vec<Figure>,
}

/// One launch.
pub(super) struct Kernel {
    /// As C++ names it.
    pub(super) name: String,
    pub(super) launch: Launch,
    pub(super) report: KernelReport,
    pub(super) occupancy: Option<Occupancy>,
    /// Nothing without nvdisasm.
    pub(super) function: Option<Function>,
}

/// A number with a name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) decimals: usize,
}

/// Figures that stand in a table together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Results,
    Resources,
    Instructions,
    Opcodes,
    Counters,
}

impl Group {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Group::Results => "Results",
            Group::Resources => "Resources",
            Group::Instructions => "Machine instructions",
            Group::Opcodes => "By opcode",
            Group::Counters => "Counted on the emulated device",
        }
    }
}

impl Side {
    pub(super) fn new(
        name: &str,
        device: &Device,
        comparisons: Result<Vec<Comparison>, String>,
        mut kernels: Vec<Kernel>,
        reports: Vec<LaunchReport>,
    ) -> Side {
        let [major, minor] = device.compute_capability;
        for kernel in &mut kernels {
            let threads = kernel.launch.block.iter().product();
            let shared = kernel.report.shared_bytes + kernel.launch.shared_bytes;
            let registers = Some(kernel.report.registers);
            kernel.occupancy = occupancy((major, minor), threads, registers, shared);
        }
        let findings = reports.iter().flat_map(|report| findings(report, name));
        let findings = findings.collect();
        let counters = (!reports.is_empty()).then(|| {
            let all = reports.iter().map(|report| report.report.counters);
            all.fold(Counters::default(), |a, b| a + b)
        });
        let mut side = Side {
            name: name.to_owned(),
            comparisons,
            kernels,
            findings,
            counters,
            figures: Vec::new(),
        };
        side.figures = side.all_figures();
        side
    }

    /// Results are right, and nothing was found.
    pub(super) fn is_right(&self) -> bool {
        let right = self
            .comparisons
            .as_ref()
            .is_ok_and(|all| all.iter().all(Comparison::is_right));
        right && self.findings.is_empty()
    }

    /// The machine code of all its kernels.
    pub(super) fn functions(&self) -> Option<Vec<Function>> {
        self.kernels
            .iter()
            .map(|kernel| kernel.function.clone())
            .collect()
    }

    pub(super) fn figure(&self, group: Group, name: &str) -> Option<f64> {
        let found = self
            .figures
            .iter()
            .find(|f| f.group == group && f.name == name);
        found.map(|figure| figure.value)
    }

    fn all_figures(&self) -> Vec<Figure> {
        let mut figures = Figures(Vec::new());
        if let Ok(comparisons) = &self.comparisons {
            let wrong: usize = comparisons.iter().map(|c| c.wrong).sum();
            figures.add(Group::Results, "wrong elements", wrong as f64, 0);
            let worst = comparisons
                .iter()
                .filter_map(|c| Some(c.worst.as_ref()?.units));
            let worst = worst.fold(0.0, f64::max);
            figures.add(
                Group::Results,
                "worst error, of what is allowed (%)",
                100.0 * worst,
                1,
            );
        }
        figures.add(Group::Results, "findings", self.findings.len() as f64, 0);
        self.resources(&mut figures);
        if let Some(functions) = self.functions() {
            let by_class = sass::by_class(&functions);
            for (class, &count) in &by_class {
                figures.add(Group::Instructions, class.name(), count as f64, 0);
            }
            let all = by_class.values().sum::<usize>();
            figures.add(Group::Instructions, "all", all as f64, 0);
            for (name, count) in sass::by_mnemonic(&functions) {
                figures.add(Group::Opcodes, &name, count as f64, 0);
            }
        }
        if let Some(counters) = &self.counters {
            counted(counters, &mut figures);
        }
        figures.0
    }

    /// Of several kernels the most, and the least of occupancy.
    fn resources(&self, figures: &mut Figures) {
        let most = |of: fn(&Kernel) -> f64| self.kernels.iter().map(of).fold(0.0, f64::max);
        let mut add = |name, value, decimals| figures.add(Group::Resources, name, value, decimals);
        add(
            "registers of a thread",
            most(|k| k.report.registers.into()),
            0,
        );
        add(
            "spilled (B)",
            most(|k| (k.report.spill_store_bytes + k.report.spill_load_bytes).into()),
            0,
        );
        add(
            "shared memory of a block (B)",
            most(|k| (k.report.shared_bytes + k.launch.shared_bytes).into()),
            0,
        );
        add(
            "threads of a block",
            most(|k| k.launch.block.iter().product::<u32>().into()),
            0,
        );
        let blocks = |k: &Kernel| k.launch.grid.iter().map(|&axis| f64::from(axis)).product();
        add("blocks", most(blocks), 0);
        let occupancies = self.kernels.iter().filter_map(|k| k.occupancy.as_ref());
        let least = occupancies
            .map(|o| 100.0 * o.warps_fraction)
            .fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            add("occupancy, at best (%)", least, 1);
        }
    }
}

struct Figures(Vec<Figure>);

impl Figures {
    fn add(&mut self, group: Group, name: &str, value: f64, decimals: usize) {
        self.0.push(Figure {
            group,
            name: name.to_owned(),
            value,
            decimals,
        });
    }
}

fn counted(c: &Counters, figures: &mut Figures) {
    let mut add = |name, value: f64, decimals| figures.add(Group::Counters, name, value, decimals);
    let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    add("warp instructions", c.warp_instructions as f64, 0);
    add(
        "threads active in one, of 32",
        ratio(c.thread_instructions, c.warp_instructions),
        2,
    );
    add("bytes read, each once", c.compulsory_read_bytes as f64, 0);
    add(
        "bytes written, each once",
        c.compulsory_write_bytes as f64,
        0,
    );
    add("loads of a warp", c.global_load_requests as f64, 0);
    add(
        "sectors of a load",
        ratio(c.global_load_sectors, c.global_load_requests),
        2,
    );
    add("stores of a warp", c.global_store_requests as f64, 0);
    add(
        "sectors of a store",
        ratio(c.global_store_sectors, c.global_store_requests),
        2,
    );
    let sectors = c.global_load_sectors + c.global_store_sectors;
    add(
        "sectors beyond the fewest",
        sectors.saturating_sub(c.global_ideal_sectors) as f64,
        0,
    );
    add(
        "bytes of bulk copies",
        (c.bulk_load_bytes + c.bulk_store_bytes) as f64,
        0,
    );
    add(
        "shared memory accesses",
        (c.shared_load_requests + c.shared_store_requests) as f64,
        0,
    );
    add("shared memory wavefronts", c.shared_wavefronts as f64, 0);
    add(
        "bank conflicts",
        c.shared_wavefronts
            .saturating_sub(c.shared_ideal_wavefronts) as f64,
        0,
    );
    add("local memory accesses", c.local_requests as f64, 0);
    add("tensor instructions", c.tensor_instructions as f64, 0);
    add("tensor FLOPs", c.tensor_flops as f64, 0);
    add("float32 FLOPs", c.f32_flops as f64, 0);
    add("barriers, by warp", c.barriers as f64, 0);
    add("atomics", (c.global_atomics + c.shared_atomics) as f64, 0);
}

/// What is wrong with a launch, by source line; notes are not. Code out of the cache has the name that its file had where it was
/// compiled: in the folder of somebody's copy, perhaps.
fn findings(report: &LaunchReport, path: &str) -> Vec<String> {
    let within = format!("/{path}");
    let shown = |file: &str| match file.ends_with(&within) {
        true => path.to_owned(),
        false => from_here(file),
    };
    let findings = report.report.findings.iter();
    findings
        .filter(|finding| finding.severity < Severity::Note)
        .map(|finding| {
            let mut text = finding.to_string();
            let parties = std::iter::once(&finding.party).chain(&finding.other);
            for party in parties {
                text = text.replace(&party.file, &shown(&party.file));
            }
            match source_line(&shown(&finding.party.file), finding.party.line) {
                Some(line) => format!("{text}\n    {line}"),
                None => text,
            }
        })
        .collect()
}

/// The launches that the kernel of this program consists of.
pub(super) fn of_catalog(cuda: &Cuda, launched: Vec<Launched>) -> Result<Vec<Kernel>, Failure> {
    launched
        .into_iter()
        .map(|Launched { expression, launch }| {
            let compiled = cuda.compiled(&expression)?;
            Ok(kernel(cuda, &compiled, expression, launch))
        })
        .collect()
}

/// Those of a file.
pub(super) fn of_file(cuda: &Cuda, loaded: &Loaded) -> Vec<Kernel> {
    let kernels = loaded.kernels.iter().zip(&loaded.launches);
    kernels
        .map(|(name, launch)| kernel(cuda, &loaded.compiled, name.clone(), launch.launch))
        .collect()
}

fn kernel(cuda: &Cuda, compiled: &Compiled, name: String, launch: Launch) -> Kernel {
    let function = cuda.compiler().and_then(|compiler| {
        let nvdisasm = disassembly::find(compiler).ok()?;
        let functions = disassembly::disassemble(&nvdisasm, &compiled.cubin).ok()?;
        let lowered = compiled.lowered_name(&name);
        functions
            .into_iter()
            .find(|function| function.name == lowered)
    });
    Kernel {
        report: compiled.kernel(&name).cloned().unwrap_or_default(),
        occupancy: None,
        function,
        name,
        launch,
    }
}
