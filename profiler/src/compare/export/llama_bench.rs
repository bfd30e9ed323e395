//! llama-bench's Markdown table.

use super::super::Entry;
use super::Exported;
use crate::results::llama_bench::{GIB, MIB, test_name};
use crate::results::{Basis, Load, ResultRow};

/// Widths of llama-bench's columns; a negative one is of text.
const MODEL: usize = 30;
const SIZE: usize = 10;
const BACKEND: usize = 10;
const TEST: usize = 15;
const RATE: usize = 20;

struct Line {
    model: String,
    size: String,
    params: String,
    backend: String,
    gpu_layers: Option<String>,
    threads: Option<String>,
    test: String,
    rate: String,
}

/// The table of all rows that it can hold.
pub(super) fn table(entries: &[Entry<'_>]) -> Exported {
    let mut exported = Exported::default();
    let mut lines = Vec::new();
    for entry in entries {
        match line(entry.row) {
            Ok(line) => lines.push(line),
            Err(reason) => exported.refused.push((entry.number, reason)),
        }
    }
    if lines.is_empty() {
        return exported;
    }
    let has_layers = lines.iter().any(|line| line.gpu_layers.is_some());
    let has_threads = !has_layers && lines.iter().any(|line| line.threads.is_some());
    let header = Line::header();
    let mut rows = vec![header.cells(has_layers, has_threads)];
    rows.extend(lines.iter().map(|line| line.cells(has_layers, has_threads)));
    let text = |cells: &[Cell<'_>]| {
        let padded = cells.iter().map(|cell| match cell.is_number {
            true => format!(" {:>1$} |", cell.text, cell.width),
            false => format!(" {:<1$} |", cell.text, cell.width),
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let rule: String = rows[0]
        .iter()
        .map(|cell| {
            format!(
                " {}{} |",
                "-".repeat(cell.width - 1),
                if cell.is_number { ':' } else { '-' }
            )
        })
        .collect();
    exported.text = text(&rows[0]) + "|" + &rule + "\n";
    rows[1..].iter().for_each(|row| exported.text += &text(row));
    // llama-bench has one build per table.
    let mut builds: Vec<&str> = entries
        .iter()
        .filter(|entry| {
            !exported
                .refused
                .iter()
                .any(|(number, _)| *number == entry.number)
        })
        .filter_map(|entry| entry.row.version.as_deref())
        .collect();
    builds.dedup();
    if let [build] = builds.as_slice() {
        exported.text += &format!("\nbuild: {build}\n");
    }
    exported
}

struct Cell<'a> {
    text: &'a str,
    width: usize,
    is_number: bool,
}

impl Line {
    fn header() -> Line {
        Line {
            model: "model".to_owned(),
            size: "size".to_owned(),
            params: "params".to_owned(),
            backend: "backend".to_owned(),
            gpu_layers: Some("ngl".to_owned()),
            threads: Some("threads".to_owned()),
            test: "test".to_owned(),
            rate: "t/s".to_owned(),
        }
    }

    fn cells(&self, has_layers: bool, has_threads: bool) -> Vec<Cell<'_>> {
        let cell = |text, width, is_number| Cell {
            text,
            width,
            is_number,
        };
        let mut cells = vec![
            cell(self.model.as_str(), MODEL, false),
            cell(&self.size, SIZE, true),
            cell(&self.params, SIZE, true),
            cell(&self.backend, BACKEND, false),
        ];
        if has_layers {
            cells.push(cell(self.gpu_layers.as_deref().unwrap_or(""), 3, true));
        }
        if has_threads {
            cells.push(cell(self.threads.as_deref().unwrap_or(""), 7, true));
        }
        cells.push(cell(&self.test, TEST, true));
        cells.push(cell(&self.rate, RATE, true));
        cells
    }
}

fn line(row: &ResultRow) -> Result<Line, String> {
    if row.load != Load::StaticBatch(1) {
        return Err("llama-bench measures one sequence alone, and this is not one".to_owned());
    }
    let basis = [&row.ttft, &row.tpot, &row.e2e]
        .into_iter()
        .find_map(|latency| latency.as_ref().map(|l| l.basis));
    let rate = match basis {
        Some(Basis::PromptWithoutSampling) => row.rates.prefill_tokens_per_s,
        Some(Basis::GenerationWithoutSampling) => row.rates.decode_tokens_per_s,
        Some(Basis::PromptAndGenerationWithoutSampling) => row.rates.total_tokens_per_s,
        _ => return Err("its steps include sampling, and llama-bench's do not".to_owned()),
    };
    let rate = rate.ok_or("it has no rate")?;
    let setting = |name: &str| row.settings.get(name).cloned();
    let model = setting("model_type")
        .or_else(|| row.model.clone())
        .ok_or("it names no model")?;
    let bytes = row
        .model_bytes
        .ok_or("it does not say how large the model's file is")?;
    let parameters = row
        .model_parameters
        .ok_or("it does not say how many weights the model has")?;
    Ok(Line {
        model,
        size: if bytes < GIB {
            format!("{:.2} MiB", bytes / MIB)
        } else {
            format!("{:.2} GiB", bytes / GIB)
        },
        params: if parameters < 1e9 {
            format!("{:.2} M", parameters / 1e6)
        } else {
            format!("{:.2} B", parameters / 1e9)
        },
        backend: row.backend.clone().unwrap_or_default(),
        gpu_layers: setting("n_gpu_layers"),
        threads: setting("n_threads"),
        test: test_name(row.input_len, row.output_len, row.kv_depth),
        rate: format!(
            "{rate:.2} ± {:.2}",
            row.rates.std_tokens_per_s.unwrap_or(0.0)
        ),
    })
}
