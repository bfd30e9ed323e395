//! Counters, for a person: one table for each story, every figure with its exactness and Nsight Compute's name.

use std::collections::BTreeMap;

use stepscope_emulator::count::{Counters, Exactness, LineCounters};
use stepscope_profiler::report::Table;

use super::Run;

/// What ran, on one line.
pub(super) fn header(run: &Run<'_>) -> String {
    let axes = |[x, y, z]: [u32; 3]| format!("{x} × {y} × {z}");
    let launch = &run.launch;
    let mut text = format!(
        "{}: grid {}, block {}",
        run.loaded.name,
        axes(launch.grid),
        axes(launch.block)
    );
    if let Some(cluster) = launch.cluster.or(run.loaded.kernel.required_cluster()) {
        text += &format!(", cluster {}", axes(cluster));
    }
    if launch.cooperative {
        text += ", cooperative";
    }
    let (major, minor) = run.machine.compute_capability;
    text += &format!(
        ", {} bytes of shared memory; emulated device of compute capability {major}.{minor}",
        run.shared_bytes()
    );
    match &run.loaded.compiler {
        Some(compiler) => {
            text += &format!("; NVRTC {} for {}", compiler.version, run.machine.arch);
        }
        None => text += "; PTX as it is",
    }
    text
}

/// A figure of a table.
#[derive(Debug, Clone)]
struct Figure {
    name: String,
    value: String,
    exactness: &'static str,
    metric: &'static str,
}

/// One table per story; those without a figure share a line.
pub(super) fn counters(run: &Run<'_>) -> Vec<String> {
    let mut stories = of_counters(&run.report.counters).to_vec();
    stories.push(("Occupancy at best", occupancy(run)));
    render(stories)
}

/// The same of counters alone.
pub(crate) fn stories(counters: &Counters) -> Vec<String> {
    render(of_counters(counters))
}

fn of_counters(counters: &Counters) -> [(&'static str, Vec<Figure>); 4] {
    [
        ("Instructions", instructions(counters)),
        ("Global memory", global(counters)),
        ("Shared memory", shared(counters)),
        ("Arithmetic", arithmetic(counters)),
    ]
}

fn render(stories: impl IntoIterator<Item = (&'static str, Vec<Figure>)>) -> Vec<String> {
    let mut sections = Vec::new();
    let mut without = Vec::new();
    for (title, figures) in stories {
        if figures.is_empty() {
            without.push(format!("{title}: none"));
            continue;
        }
        let header = [title, "", "exactness", "Nsight Compute"];
        let mut table = Table::new("lrll", header.map(str::to_owned));
        for figure in figures {
            table.row([
                figure.name,
                figure.value,
                figure.exactness.to_owned(),
                figure.metric.to_owned(),
            ]);
        }
        sections.push(table.render());
    }
    if !without.is_empty() {
        sections.push(without.join("; "));
    }
    sections
}

pub(super) fn exactness(exactness: Exactness) -> &'static str {
    match exactness {
        Exactness::Exact => "exact",
        Exactness::LowerBound => "lower bound",
        Exactness::Approximate => "approximate",
    }
}

/// Figures under construction; those that are zero are left out.
struct Story {
    metrics: BTreeMap<&'static str, (f64, &'static str)>,
    figures: Vec<Figure>,
}

impl Story {
    fn of(counters: &Counters) -> Story {
        let metrics = counters.metrics();
        Story {
            metrics: metrics
                .into_iter()
                .map(|m| (m.name, (m.value, exactness(m.exactness))))
                .collect(),
            figures: Vec::new(),
        }
    }

    /// A counter that has a name in Nsight Compute.
    fn metric(&mut self, name: &str, metric: &'static str) {
        if let Some(&(value, exactness)) = self.metrics.get(metric)
            && value != 0.0
        {
            let is_ratio = metric.ends_with(".ratio");
            self.figures.push(Figure {
                name: name.to_owned(),
                value: if is_ratio {
                    format!("{value:.2}")
                } else {
                    format!("{value:.0}")
                },
                exactness,
                metric,
            });
        }
    }

    /// One that has none.
    fn counter(&mut self, name: &str, value: u64, exactness: &'static str) {
        if value != 0 {
            self.figures.push(Figure {
                name: name.to_owned(),
                value: value.to_string(),
                exactness,
                metric: "–",
            });
        }
    }

    fn share(&mut self, name: &str, part: u64, whole: u64) {
        if whole > 0 {
            self.figures.push(Figure {
                name: name.to_owned(),
                value: format!("{:.1} %", part as f64 / whole as f64 * 100.0),
                exactness: "exact",
                metric: "–",
            });
        }
    }
}

fn instructions(c: &Counters) -> Vec<Figure> {
    let mut story = Story::of(c);
    story.metric("warp instructions", "smsp__inst_executed.sum");
    story.metric(
        "threads per instruction, of 32",
        "smsp__thread_inst_executed_per_inst_executed.ratio",
    );
    story.metric("branches", "smsp__sass_branch_targets.sum");
    story.metric(
        "branches where a warp parts",
        "smsp__sass_branch_targets_threads_divergent.sum",
    );
    story.counter("integer, by thread", c.integer_instructions, "approximate");
    story.counter(
        "floating point, by thread",
        c.float_instructions,
        "approximate",
    );
    story.counter(
        "moves and comparisons, by thread",
        c.data_instructions,
        "approximate",
    );
    story.counter("barriers, by warp", c.barriers, "exact");
    story.figures
}

fn global(c: &Counters) -> Vec<Figure> {
    let mut story = Story::of(c);
    for (name, metric) in [
        (
            "loads, by warp",
            "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
        ),
        (
            "sectors loaded",
            "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
        ),
        (
            "sectors per load",
            "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio",
        ),
        (
            "stores, by warp",
            "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
        ),
        (
            "sectors stored",
            "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
        ),
        (
            "sectors per store",
            "l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_st.ratio",
        ),
        (
            "sectors, loads and stores",
            "memory_l2_theoretical_sectors_global",
        ),
        (
            "sectors at best",
            "memory_l2_theoretical_sectors_global_ideal",
        ),
    ] {
        story.metric(name, metric);
    }
    let sectors = c.global_load_sectors + c.global_store_sectors;
    story.share("share of sectors needed", c.global_ideal_sectors, sectors);
    story.counter("atomics, by thread", c.global_atomics, "exact");
    story.counter(
        "bytes of bulk copies to shared memory",
        c.bulk_load_bytes,
        "exact",
    );
    story.counter(
        "bytes of bulk copies from shared memory",
        c.bulk_store_bytes,
        "exact",
    );
    story.metric("bytes read, each sector once", "dram__bytes_read.sum");
    story.metric("bytes written, each sector once", "dram__bytes_write.sum");
    story.counter(
        "local memory accesses, by warp",
        c.local_requests,
        "approximate",
    );
    story.figures
}

fn shared(c: &Counters) -> Vec<Figure> {
    let mut story = Story::of(c);
    story.counter("loads, by warp", c.shared_load_requests, "exact");
    story.counter("stores, by warp", c.shared_store_requests, "exact");
    story.metric("wavefronts", "memory_l1_wavefronts_shared");
    story.metric("wavefronts at best", "memory_l1_wavefronts_shared_ideal");
    story.metric(
        "bank conflicts",
        "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    );
    story.counter("atomics, by thread", c.shared_atomics, "exact");
    story.figures
}

fn arithmetic(c: &Counters) -> Vec<Figure> {
    let mut story = Story::of(c);
    story.metric(
        "tensor core instructions, by warp",
        "smsp__inst_executed_pipe_tensor.sum",
    );
    story.counter("tensor core FLOPs", c.tensor_flops, "exact");
    story.counter(
        "tensor core integer operations",
        c.tensor_integer_operations,
        "exact",
    );
    story.counter("f32 FLOPs, an fma is two", c.f32_flops, "approximate");
    story.counter("f64 FLOPs", c.f64_flops, "approximate");
    story.counter("f16 and bf16 FLOPs", c.half_flops, "approximate");
    story.figures
}

fn occupancy(run: &Run<'_>) -> Vec<Figure> {
    let o = &run.occupancy;
    let figure = |name: &str, value: String, exactness, metric| Figure {
        name: name.to_owned(),
        value,
        exactness,
        metric,
    };
    let registers = run.loaded.compiler.as_ref().and_then(|c| c.registers);
    let mut figures = Vec::new();
    if let (Some(registers), Some(blocks)) = (registers, o.limit_registers) {
        figures.push(figure(
            "registers per thread",
            registers.to_string(),
            "exact",
            "launch__registers_per_thread",
        ));
        figures.push(figure(
            "blocks that registers allow",
            blocks.to_string(),
            "exact",
            "launch__occupancy_limit_registers",
        ));
    }
    for (name, blocks, metric) in [
        (
            "blocks that shared memory allows",
            o.limit_shared,
            "launch__occupancy_limit_shared_mem",
        ),
        (
            "blocks that warps allow",
            o.limit_threads,
            "launch__occupancy_limit_warps",
        ),
        (
            "blocks at most",
            o.limit_blocks,
            "launch__occupancy_limit_blocks",
        ),
    ] {
        figures.push(figure(name, blocks.to_string(), "exact", metric));
    }
    let is_known = o.limit_registers.is_some();
    figures.push(figure(
        &format!("occupancy, of {} warps", run.machine.capacity.threads / 32),
        format!("{:.1} %", o.warps_fraction * 100.0),
        if is_known { "exact" } else { "upper bound" },
        "sm__maximum_warps_per_active_cycle_pct",
    ));
    figures
}

/// The most of a source line that a table shows.
const WIDTH: usize = 64;

/// By source line, in order of file and line.
pub(super) fn lines(run: &Run<'_>) -> String {
    let header = [
        "line",
        "source",
        "warp\ninstructions",
        "global sectors\nper access",
        "shared wavefronts\n/ at best",
        "findings",
    ];
    let mut table = Table::new("llrrrr", header.map(str::to_owned));
    for line in &run.report.lines {
        let c = &line.counters;
        let requests = c.global_load_requests + c.global_store_requests;
        let sectors = c.global_load_sectors + c.global_store_sectors;
        let source = run.sources.line(&line.file, line.line).unwrap_or("–");
        table.row([
            run.sources.place(&line.file, line.line),
            shortened(source),
            c.warp_instructions.to_string(),
            if requests == 0 {
                String::new()
            } else {
                format!("{:.2}", sectors as f64 / requests as f64)
            },
            if c.shared_wavefronts == 0 {
                String::new()
            } else {
                format!("{} / {}", c.shared_wavefronts, c.shared_ideal_wavefronts)
            },
            match findings_of(run, line) {
                0 => String::new(),
                count => count.to_string(),
            },
        ]);
    }
    table.render()
}

fn shortened(text: &str) -> String {
    let text = text.replace('\t', " ");
    if text.chars().count() <= WIDTH {
        return text;
    }
    let start: String = text.chars().take(WIDTH - 1).collect();
    format!("{}…", start.trim_end())
}

/// Findings that happened at a line.
pub(super) fn findings_of(run: &Run<'_>, line: &LineCounters) -> usize {
    run.findings
        .iter()
        .filter(|f| f.party.line == line.line && f.party.file == line.file)
        .count()
}
