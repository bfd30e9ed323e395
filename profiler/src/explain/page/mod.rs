//! An explanation as one self-contained HTML page: plots, sentences and tables, without a request to anywhere.
//!
//! [`page`] is of a record, [`results_page`] of another program's result, [`trace_page`] of a profiler's trace. Plots are SVG in the page, light or dark as the reader's
//! system is, and readable in grey: what differs in colour differs in lightness, shape or name too.
//!
//! **Invariant:** text of a record reaches the page escaped, and no number breaks it: any record gives a well-formed page.

mod bars;
mod curves;
mod html;
mod limiters;
mod roofline;
mod sheet;
mod steps;
mod svg;
mod tables;
mod timeline;
mod trace;
mod trace_timeline;

pub use sheet::{sheet_page, sheet_svg};

use super::record::{Explanation, StepExplanation};
use super::results;
use crate::quantity;
use crate::record::{Record, Roofs};
use html::{Page, flame_graph, folded, statements};
use roofline::Lines;

pub use trace::trace_page;

/// What a page shows besides its explanation.
#[derive(Debug, Clone, Default)]
pub struct PageOptions<'a> {
    /// Titles and SVG files.
    pub flame_graphs: Vec<(String, String)>,
    /// What the device's data sheet promises, to be drawn beside what was measured.
    pub datasheet: Option<&'a Roofs>,
}

/// The page of an explained record. `explanation` must be of `record`.
pub fn page(record: &Record, explanation: &Explanation, options: &PageOptions<'_>) -> String {
    let mut page = Page::new(&title(record), subtitles(record, explanation));
    let steps = &explanation.steps;
    page.section("glance", "At a glance", tables::glance(record, steps));
    let points = by_point(explanation);
    page.section(
        "explanation",
        "Explanation",
        sentences(explanation, &points),
    );
    let lines = lines(record, explanation, options);
    page.section(
        "roofline",
        "Roofline",
        per_point(&points, |steps| roofline::plot(steps, &lines)),
    );
    let intro = "<p class=\"note\">Blue is what the work needs at the ceilings of the device; the rest is time above that.</p>\n";
    let parts = bars::parts(steps).map(|plot| intro.to_owned() + &plot);
    page.section("parts", "Where the time goes", parts.unwrap_or_default());
    let phases = bars::phases(record, steps).unwrap_or_default();
    page.section("phases", "Phases", phases);
    let shades = timeline::shades(steps);
    page.section(
        "timeline",
        "Timeline",
        per_point(&points, |steps| timelines(record, steps, &shades)),
    );
    let graphs = options.flame_graphs.iter();
    let graphs: String = graphs.map(|(title, svg)| flame_graph(title, svg)).collect();
    page.section("flame-graphs", "Flame graphs", graphs);
    page.section(
        "curves",
        "Over batch size and length",
        curves(record, steps),
    );
    page.section("operations", "Operations", operations(steps));
    page.finish()
}

/// The page of an explained result of another program. `title` and `subtitle` say what it is: model, device, where it was read.
pub fn results_page(explanation: &results::Explanation, title: &str, subtitle: &str) -> String {
    let mut page = Page::new(title, vec![subtitle.to_owned()]);
    page.section(
        "summary",
        "What it comes to",
        html::trust(&explanation.trust) + &statements(&explanation.summary),
    );
    let kinds = [
        ("prefill", "Prefill", &explanation.prefill),
        ("decode", "Decode", &explanation.decode),
    ];
    for (id, heading, steps) in kinds {
        if let Some(steps) = steps {
            page.section(id, heading, results_section(steps));
        }
    }
    page.section("jobs", "Whole jobs", jobs(explanation));
    page.section(
        "candidates",
        "Which GPU it may be",
        tables::candidates(&explanation.candidates),
    );
    page.section("remarks", "Remarks", statements(&explanation.remarks));
    page.finish()
}

fn jobs(explanation: &results::Explanation) -> String {
    let jobs = explanation.jobs.iter();
    jobs.map(|job| {
        let title = results::job_title(job, explanation.jobs.len());
        let content = statements(&job.statements) + &tables::job(job);
        match explanation.jobs.len() {
            1 => content,
            _ => folded(&title, &content, job.job.row == 0),
        }
    })
    .collect()
}

fn results_section(steps: &results::StepsExplanation) -> String {
    let mut content = String::new();
    if let (Some(plot), Some(last)) = (limiters::plot(steps), steps.steps.last()) {
        content += &format!(
            "<h3>What could be the whole story of the largest step: {}, {}</h3>\n{plot}",
            svg::escape(&last.observation.shape.label()),
            quantity::duration(last.observation.seconds * 1e9),
        );
    }
    content += &statements(&steps.statements);
    if let Some(plot) = steps::fit(steps) {
        content += &format!("<h3>Time of a step</h3>\n{plot}");
    }
    if let Some(plot) = steps::floors(steps) {
        content += &format!("<h3>Measured beside floors</h3>\n{plot}");
    }
    content += &format!("<h3>Steps</h3>\n{}", tables::steps(steps));
    if !steps.suspects.is_empty() {
        content += &format!("<h3>Limiters</h3>\n{}", tables::suspects(steps));
    }
    content
}

fn title(record: &Record) -> String {
    let model = record.run.model.name.trim_end_matches('/');
    let model = model.rsplit('/').next().unwrap_or(model);
    format!("{model} in {} steps, explained", record.run.dtype)
}

fn subtitles(record: &Record, explanation: &Explanation) -> Vec<String> {
    let run = &record.run;
    let on = match run.device.as_str() {
        "cpu" => format!("{}, {} threads", explanation.device.trim(), run.threads),
        device => format!("{} ({device})", explanation.device.trim()),
    };
    let mut facts = vec![
        on,
        record.started.chars().take("2026-02-03".len()).collect(),
        format!("weights {}, KV cache {}", run.dtype, run.kv_cache_dtype),
    ];
    if run.tp > 1 {
        facts.push(format!("tp {}", run.tp));
    }
    match run.cuda_graph {
        Some(true) => facts.push("decode steps replay CUDA graphs".to_owned()),
        Some(false) => facts.push("no CUDA graphs".to_owned()),
        None => {}
    }
    facts.push(format!(
        "{} {}",
        record.program.name, record.program.version
    ));
    let command: Vec<&str> = record
        .program
        .command
        .iter()
        .enumerate()
        .map(
            |(index, word)| match (index, word.rsplit(['/', '\\']).next()) {
                (0, Some(name)) => name, // where the program lies matters to nobody else
                _ => word,
            },
        )
        .collect();
    vec![facts.join(" · "), command.join(" ")]
}

/// The sentences on each step, those of further points folded, and what weakens them.
fn sentences(explanation: &Explanation, points: &[Vec<&StepExplanation>]) -> String {
    let mut content = per_point(points, |steps| {
        let of_step = |step: &&StepExplanation| {
            let heading = format!("{}, {}", step.kind.title(), step.label);
            let heading = svg::escape(&heading);
            let trust = html::trust(&step.trust);
            format!(
                "<h3>{heading}</h3>\n{trust}{}",
                statements(&step.statements)
            )
        };
        Some(steps.iter().map(of_step).collect())
    });
    if !explanation.remarks.is_empty() {
        content += &format!("<h3>Remarks</h3>\n{}", statements(&explanation.remarks));
    }
    content
}

/// The measured roofs, and a data sheet's where they are known.
fn lines<'a>(
    record: &'a Record,
    explanation: &'a Explanation,
    options: &PageOptions<'a>,
) -> Lines<'a> {
    let measured = record.environment.roofs.as_ref();
    let taken = explanation.ceilings.as_ref();
    Lines {
        measured,
        // Ceilings that were not measured here are another card's, or the table's.
        datasheet: options.datasheet.or(taken.filter(|c| Some(*c) != measured)),
    }
}

/// The steps of each point, in order.
fn by_point(explanation: &Explanation) -> Vec<Vec<&StepExplanation>> {
    let mut points: Vec<Vec<&StepExplanation>> = Vec::new();
    for step in &explanation.steps {
        match points.last_mut() {
            Some(steps) if steps.first().is_some_and(|s| s.point == step.point) => steps.push(step),
            _ => points.push(vec![step]),
        }
    }
    points
}

/// A plot per point; with several points the first is open and the others can be opened.
fn per_point(
    points: &[Vec<&StepExplanation>],
    plot: impl Fn(&[&StepExplanation]) -> Option<String>,
) -> String {
    let plots: Vec<(&str, String)> = points
        .iter()
        .filter_map(|steps| Some((steps.first()?.label.as_str(), plot(steps)?)))
        .collect();
    match plots.as_slice() {
        [(_, only)] => only.clone(),
        several => several
            .iter()
            .enumerate()
            .map(|(index, (label, plot))| folded(label, plot, index == 0))
            .collect(),
    }
}

fn timelines(record: &Record, steps: &[&StepExplanation], shades: &[String]) -> Option<String> {
    let plots: Vec<String> = steps
        .iter()
        .filter_map(|step| {
            let plot = timeline::plot(record, step, shades)?;
            let heading = format!(
                "Median {} step, {}",
                step.kind.name(),
                quantity::duration(step.wall_ns)
            );
            Some(format!("<h3>{}</h3>\n{plot}", svg::escape(&heading)))
        })
        .collect();
    (!plots.is_empty()).then(|| plots.join(""))
}

fn curves(record: &Record, steps: &[StepExplanation]) -> String {
    let plots = curves::plots(record, steps);
    if plots.is_empty() {
        return plots;
    }
    let note = "<p class=\"legend\">Marks: median steps. Dashed: what their work needs at the ceilings of the device. Both axes are \
                logarithmic.</p>\n";
    plots + note
}

fn operations(steps: &[StepExplanation]) -> String {
    let is_single = steps.len() <= 2;
    steps
        .iter()
        .filter(|step| !step.operations.is_empty())
        .map(|step| {
            let heading = format!(
                "{}, {}: {}",
                step.kind.title(),
                step.label,
                quantity::duration(step.wall_ns)
            );
            let tables = tables::operations(step) + &tables::parts(step);
            folded(&heading, &tables, is_single || step.point == 0)
        })
        .collect()
}
