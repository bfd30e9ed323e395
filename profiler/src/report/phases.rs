//! The phases of single steps: the prefill, the median decode step, the first decode step.

use super::table::{self, Table};
use crate::breakdown::share;
use crate::quantity;
use crate::record::{Point, Step};
use crate::recorder::{Phase, StepKind};
use crate::stats;

/// The steps that a point's phase table shows.
pub(crate) struct ShownSteps<'a> {
    /// The prefill; of several repetitions the median one.
    pub(crate) prefill: Option<&'a Step>,
    /// The median of all decode steps.
    pub(crate) decode: Option<&'a Step>,
    /// The first decode step; of several repetitions the median one.
    pub(crate) first_decode: Option<&'a Step>,
}

impl ShownSteps<'_> {
    pub(crate) fn of(point: &Point) -> ShownSteps<'_> {
        let steps = || point.repetitions.iter().flat_map(|r| &r.steps);
        let decodes = || steps().filter(|s| s.kind == StepKind::Decode);
        ShownSteps {
            prefill: median_step(steps().filter(|s| s.kind == StepKind::Prefill)),
            decode: median_step(decodes()),
            first_decode: median_step(decodes().filter(|s| s.index == 0)),
        }
    }
}

/// The step whose wall time lies nearest to the median: a step that was, not a mixture.
fn median_step<'a>(steps: impl Iterator<Item = &'a Step>) -> Option<&'a Step> {
    let steps: Vec<&Step> = steps.collect();
    let walls: Vec<f64> = steps.iter().map(|s| s.wall_ns as f64).collect();
    let median = stats::median(&walls)?;
    let distance = |step: &Step| (step.wall_ns as f64 - median).abs();
    steps
        .into_iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// The phase table, unless the point has no steps.
pub(super) fn text(point: &Point) -> Option<String> {
    let shown = ShownSteps::of(point);
    let steps: Vec<(&str, &Step)> = [
        ("prefill", shown.prefill),
        ("decode", shown.decode),
        ("first decode", shown.first_decode),
    ]
    .into_iter()
    .filter_map(|(name, step)| Some((name, step?)))
    .collect();
    if steps.is_empty() {
        return None;
    }
    let columns: Vec<Columns> = steps
        .iter()
        .map(|(name, step)| Columns::new(name, step))
        .collect();

    let header = columns.iter().flat_map(|c| c.header.clone());
    let mut table = Table::new(
        "lrrrrrrrrr",
        std::iter::once("phase".to_owned()).chain(header),
    );
    for phase in Phase::ALL {
        if steps
            .iter()
            .any(|(_, step)| step.phases.iter().any(|p| p.name == phase))
        {
            let cells = columns.iter().flat_map(|c| c.phase(phase));
            table.row(std::iter::once(phase.name().to_owned()).chain(cells));
        }
    }
    if columns.iter().any(|c| c.unaccounted_ns() != 0.0) {
        let cells = columns
            .iter()
            .flat_map(|c| c.cells(Some(c.unaccounted_ns()), None));
        table.row(std::iter::once("(unaccounted)".to_owned()).chain(cells));
    }
    let totals = columns.iter().flat_map(Columns::total);
    table.total(std::iter::once("step, wall time".to_owned()).chain(totals));
    let title = match (shown.decode, point.repetitions.len()) {
        (None, 0 | 1) => "Phases of the prefill",
        (None, _) => "Phases of the median prefill, out of all repetitions",
        (Some(_), 0 | 1) => "Phases of the prefill, of the median decode step and of the first",
        (Some(_), _) => {
            "Phases of the prefill, of the median decode step and of the first, out of all repetitions"
        }
    };
    Some(format!("{title}\n\n{}", table.render()))
}

/// The columns of one step.
struct Columns<'a> {
    step: &'a Step,
    has_gpu: bool,
    header: Vec<String>,
}

impl Columns<'_> {
    fn new<'a>(name: &str, step: &'a Step) -> Columns<'a> {
        let has_gpu = step.phases.iter().any(|p| p.gpu_ns.is_some());
        let mut header = vec![format!("{name}\nhost time"), "\n% of step".to_owned()];
        if has_gpu {
            header.push("\nGPU time".to_owned());
        }
        Columns {
            step,
            has_gpu,
            header,
        }
    }

    fn phase(&self, phase: Phase) -> Vec<String> {
        let mut times = self
            .step
            .phases
            .iter()
            .filter(|p| p.name == phase)
            .peekable();
        if times.peek().is_none() {
            return self.cells(None, None);
        }
        let gpu_ns = times.peek().and_then(|p| p.gpu_ns).map(|ns| ns as f64);
        self.cells(Some(times.map(|p| p.host_ns as f64).sum()), gpu_ns)
    }

    fn total(&self) -> Vec<String> {
        let gpu_ns = self
            .step
            .phases
            .iter()
            .filter_map(|p| p.gpu_ns)
            .map(|ns| ns as f64);
        self.cells(Some(self.step.wall_ns as f64), Some(gpu_ns.sum()))
    }

    /// What the phases of a damaged record leave, or exceed the wall time by.
    fn unaccounted_ns(&self) -> f64 {
        self.step.wall_ns as f64
            - self
                .step
                .phases
                .iter()
                .map(|p| p.host_ns as f64)
                .sum::<f64>()
    }

    fn cells(&self, host_ns: Option<f64>, gpu_ns: Option<f64>) -> Vec<String> {
        let wall_ns = self.step.wall_ns as f64;
        let mut cells = vec![
            time(host_ns),
            table::percentage(host_ns.and_then(|ns| share(ns, wall_ns))),
        ];
        if self.has_gpu {
            cells.push(time(gpu_ns));
        }
        cells
    }
}

/// With its own unit: the phases of one step span six orders of magnitude.
fn time(ns: Option<f64>) -> String {
    ns.map_or_else(table::none, |ns| quantity::duration_with_digits(ns, 4))
}
