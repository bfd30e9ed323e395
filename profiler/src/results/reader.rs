//! From a file's pieces to rows: which form each piece is of, and what belongs together.

use serde_json::{Map, Value};

use super::checks;
use super::fields::Fields;
use super::pieces::{Piece, pieces};
use super::row::ResultRow;
use super::serving_stdout::{self, Block, Preface};
use super::sglang_stdout::{self, Line, Measurement};
use super::{Format, Rejected, llama_bench, lmdeploy, sglang, stepscope, trtllm, vllm};
use crate::record::Record;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Of the first row.
    pub(super) format: Option<Format>,
    pub(super) rows: Vec<ResultRow>,
    pub(super) warmup: Vec<ResultRow>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) remarks: Vec<String>,
}

/// Reads a whole file.
pub(super) fn read(text: &str) -> Found {
    let mut reader = Reader::default();
    for piece in pieces(text) {
        match piece {
            Piece::Object { line, object } => reader.object(line, &object),
            Piece::Line { line, text } => reader.line(line, text),
            Piece::Broken { line, reason } => reader.reject(line, reason),
        }
    }
    reader.finish()
}

/// A table whose header was read.
#[derive(Debug)]
enum Table {
    Csv(Format, Vec<String>),
    /// The header, and how many rows there were before it.
    Markdown(Vec<String>, usize),
    /// Within `CREATE TABLE … ( … );`.
    SqlColumns,
}

#[derive(Debug, Default)]
struct Reader {
    found: Found,
    forms: Vec<Format>,
    table: Option<Table>,
    /// Whether the lines of `bench_one_batch` that follow are its warm-up.
    warming_up: bool,
    /// What the program said of its KV pool.
    pool_tokens: Option<u64>,
    measurement: Option<Measurement>,
    /// What a benchmark of a server is printing, and what it printed before.
    block: Option<Block>,
    preface: Preface,
    skipped: usize,
    unknown_lines: usize,
    first_unknown_line: usize,
}

impl Reader {
    fn reject(&mut self, line: usize, reason: String) {
        self.found.rejected.push(Rejected { line, reason });
    }

    fn object(&mut self, line: usize, object: &Map<String, Value>) {
        self.table = None;
        self.end_block();
        match object_format(object) {
            Some(Format::Record) => self.record(line, object),
            Some(format) => self.fields(format, line, object),
            None => {
                let keys: Vec<&str> = object.keys().take(6).map(String::as_str).collect();
                let reason = if keys.is_empty() {
                    "it is an object without content".to_owned()
                } else {
                    format!(
                        "an object with {} is of no form that is known",
                        keys.join(", ")
                    )
                };
                self.reject(line, reason);
            }
        }
    }

    fn record(&mut self, line: usize, object: &Map<String, Value>) {
        let record = serde_json::from_value::<Record>(Value::Object(object.clone()));
        let rows = match record {
            Ok(record) if record.schema == crate::SCHEMA => stepscope::rows(&record),
            Ok(record) => Err(format!(
                "its schema is {:?}; this program reads {:?}",
                record.schema,
                crate::SCHEMA
            )),
            Err(error) => Err(format!("it is no record of this program: {error}")),
        };
        match rows {
            Ok(rows) => rows
                .into_iter()
                .for_each(|row| self.row(Format::Record, line, row)),
            Err(reason) => self.reject(line, reason),
        }
    }

    fn fields(&mut self, format: Format, line: usize, object: &Map<String, Value>) {
        let mut fields = Fields::new(format.name(), object);
        let row = match format {
            Format::SglangOneBatch => sglang::one_batch(&mut fields),
            Format::SglangOfflineThroughput | Format::SglangOfflineThroughputOutput => {
                sglang::offline_throughput(&mut fields)
            }
            Format::SglangOneBatchServer => sglang::one_batch_server(&mut fields),
            Format::SglangServing | Format::SglangServingOutput => sglang::serving(&mut fields),
            Format::VllmLatency => vllm::latency(&mut fields),
            Format::VllmThroughput => vllm::throughput(&mut fields),
            Format::VllmServe | Format::VllmServeOutput => vllm::serve(&mut fields),
            Format::TrtllmBench if fields.has("total_latency_ns") => {
                trtllm::statistics(&mut fields)
            }
            Format::TrtllmBench => trtllm::report(&mut fields),
            Format::LmdeployProfiler => lmdeploy::profiler(&mut fields),
            Format::LmdeployRestful => lmdeploy::restful(&mut fields),
            Format::LlamaBenchJson
            | Format::LlamaBenchCsv
            | Format::LlamaBenchMarkdown
            | Format::LlamaBenchSql => llama_bench::test(&mut fields),
            // Neither comes as an object's or a table's fields.
            Format::SglangOneBatchOutput | Format::Record => return,
        };
        match row {
            Ok(mut row) => {
                row.remarks.append(&mut fields.remarks);
                self.row(format, line, row);
            }
            Err(reason) => self.reject(line, reason),
        }
    }

    fn row(&mut self, format: Format, line: usize, mut row: ResultRow) {
        row.line = Some(line);
        checks::complete(&mut row);
        // Of printed lines the lengths were computed from the very figures that would be held against them.
        if format != Format::SglangOneBatchOutput {
            row.remarks.extend(checks::contradictions(&row));
        }
        self.found.format.get_or_insert(format);
        if !self.forms.contains(&format) {
            self.forms.push(format);
        }
        self.found.rows.push(row);
    }

    fn line(&mut self, line: usize, text: &str) {
        let is_known = self.block(line, text)
            || self.sql(line, text)
            || self.markdown(line, text)
            || self.output(line, text)
            || self.csv(line, text);
        if !is_known {
            self.unknown_lines += 1;
            if self.unknown_lines == 1 {
                self.first_unknown_line = line;
            }
        }
    }

    /// What benchmarks of servers print.
    fn block(&mut self, line: usize, text: &str) -> bool {
        if let Some(title) = serving_stdout::title(text) {
            self.end_block();
            self.block = Some(Block::new(line, title));
            return true;
        }
        match &mut self.block {
            Some(block) => {
                if !block.line(text) {
                    self.end_block();
                }
                true
            }
            None => self.preface.line(text),
        }
    }

    fn end_block(&mut self) {
        if let Some(block) = self.block.take() {
            let line = block.line;
            let (format, object) = block.fields(&self.preface);
            self.preface = Preface::default();
            self.fields(format, line, &object);
        }
    }

    fn sql(&mut self, line: usize, text: &str) -> bool {
        let text = text.trim();
        if text.starts_with("CREATE TABLE") {
            self.table = (!text.ends_with(");")).then_some(Table::SqlColumns);
            return true;
        }
        if text.starts_with("INSERT INTO") {
            match llama_bench::sql_fields(text) {
                Ok(object) => self.fields(Format::LlamaBenchSql, line, &object),
                Err(reason) => self.reject(line, reason),
            }
            return true;
        }
        if matches!(self.table, Some(Table::SqlColumns)) {
            if text.ends_with(");") {
                self.table = None;
            }
            return true;
        }
        false
    }

    fn markdown(&mut self, line: usize, text: &str) -> bool {
        if let Some(Table::Markdown(_, first)) = self.table
            && let Some(build) = text.trim().strip_prefix("build: ")
        {
            for row in &mut self.found.rows[first..] {
                row.version = Some(build.to_owned());
            }
            return true;
        }
        let Some(cells) = llama_bench::cells(text) else {
            // A row that was cut off.
            if text.starts_with('|') && matches!(self.table, Some(Table::Markdown(..))) {
                self.reject(
                    line,
                    "it is a row of a table without its last cell".to_owned(),
                );
                return true;
            }
            return false;
        };
        if cells.contains(&"test") && cells.contains(&"t/s") {
            let header = cells.into_iter().map(str::to_owned).collect();
            self.table = Some(Table::Markdown(header, self.found.rows.len()));
            return true;
        }
        let Some(Table::Markdown(header, _)) = &self.table else {
            return false;
        };
        let is_rule = cells
            .iter()
            .all(|cell| cell.chars().all(|c| matches!(c, '-' | ':')));
        if !is_rule {
            match llama_bench::markdown_fields(header, &cells) {
                Ok(object) => self.fields(Format::LlamaBenchMarkdown, line, &object),
                Err(reason) => self.reject(line, reason),
            }
        }
        true
    }

    /// What `bench_one_batch` prints.
    fn output(&mut self, line: usize, text: &str) -> bool {
        let Some(said) = sglang_stdout::line(text) else {
            return false;
        };
        if matches!(
            said,
            Line::Warmup | Line::Benchmark | Line::Prefill(_) | Line::Pool(_)
        ) {
            self.interrupted();
        }
        match said {
            Line::Warmup => self.warming_up = true,
            Line::Benchmark => self.warming_up = false,
            Line::Pool(tokens) => self.pool_tokens = Some(tokens),
            Line::Skipped => self.skipped += 1,
            Line::Prefill(figures) => self.measurement = Some(Measurement::new(line, figures)),
            Line::DecodeStep {
                batch_size,
                figures,
            } => {
                if let Some(measurement) = &mut self.measurement {
                    measurement.step(batch_size, figures);
                }
            }
            Line::DecodeMedian(figures) => {
                if let Some(measurement) = &mut self.measurement {
                    measurement.median(figures);
                }
            }
            Line::Total(figures) => self.total(figures),
        }
        true
    }

    fn total(&mut self, figures: sglang_stdout::Figures) {
        let Some(measurement) = self.measurement.take() else {
            return;
        };
        let line = measurement.line;
        match measurement.finish(figures) {
            Ok(mut row) if self.warming_up => {
                checks::complete(&mut row);
                self.found
                    .format
                    .get_or_insert(Format::SglangOneBatchOutput);
                self.found.warmup.push(row);
            }
            Ok(mut row) => {
                if let Some(tokens) = self.pool_tokens {
                    let key = "max_total_num_tokens".to_owned();
                    row.settings.insert(key, tokens.to_string());
                }
                self.row(Format::SglangOneBatchOutput, line, row);
            }
            Err(reason) => self.reject(line, reason),
        }
    }

    /// A measurement of which no `Total.` came.
    fn interrupted(&mut self) {
        if let Some(measurement) = self.measurement.take() {
            self.reject(
                measurement.line,
                "a measurement begins here that has no line of its total; was the run interrupted?"
                    .to_owned(),
            );
        }
    }

    fn csv(&mut self, line: usize, text: &str) -> bool {
        let text = text.trim();
        if !text.contains(',') {
            return false;
        }
        let cells = csv_cells(text);
        if let Some(format) = csv_format(&cells) {
            self.table = Some(Table::Csv(format, cells));
            return true;
        }
        let Some(Table::Csv(format, header)) = &self.table else {
            return false;
        };
        if header.len() != cells.len() {
            let reason = format!(
                "it has {} cells where the header has {}; was it cut off?",
                cells.len(),
                header.len()
            );
            self.reject(line, reason);
            return true;
        }
        let format = *format;
        let values = cells.into_iter().map(Value::String);
        let object = header.iter().cloned().zip(values).collect();
        self.fields(format, line, &object);
        true
    }

    fn finish(mut self) -> Found {
        self.end_block();
        self.interrupted();
        let remarks = &mut self.found.remarks;
        if let [first, _, ..] = self.forms.as_slice() {
            let others: Vec<&str> = self.forms[1..].iter().map(|form| form.name()).collect();
            remarks.push(format!(
                "The file holds results of several forms: {}, and {}.",
                first.name(),
                others.join(", ")
            ));
        }
        if self.skipped > 0 {
            remarks.push(format!(
                "{} of the sweep did not fit the token pool and were skipped.",
                if self.skipped == 1 {
                    "1 point".to_owned()
                } else {
                    format!("{} points", self.skipped)
                }
            ));
        }
        // Around such a block programs log what they do.
        let is_log = |form: &Format| {
            matches!(
                form,
                Format::SglangServingOutput
                    | Format::SglangOfflineThroughputOutput
                    | Format::VllmServeOutput
            )
        };
        let may_log = self.forms.iter().any(is_log);
        if self.unknown_lines > 0 && self.found.format.is_some() && !may_log {
            remarks.push(match self.unknown_lines {
                1 => format!(
                    "Line {} is of no form that is known.",
                    self.first_unknown_line
                ),
                n => format!(
                    "{n} lines are of no form that is known; the first is line {}.",
                    self.first_unknown_line
                ),
            });
        }
        self.found
    }
}

/// Which form an object is of, by fields that no other has.
fn object_format(object: &Map<String, Value>) -> Option<Format> {
    let has = |key: &str| object.contains_key(key);
    let all = |keys: &[&str]| keys.iter().all(|key| has(key));
    let is_record = object
        .get("schema")
        .and_then(Value::as_str)
        .is_some_and(|s| s.starts_with("stepscope.record"));
    Some(match () {
        () if is_record => Format::Record,
        () if has("prefill_latency") || has("median_decode_latency") => Format::SglangOneBatch,
        () if all(&["batch_size", "input_len", "total_latency"]) => Format::SglangOneBatch,
        () if all(&["batch_size", "latency"]) => Format::SglangOneBatchServer,
        () if has("successful_requests") => Format::SglangOfflineThroughput,
        () if has("avg_latency") => Format::VllmLatency,
        () if all(&["elapsed_time", "num_requests"]) => Format::VllmThroughput,
        () if all(&["elapsed_time", "tokens_per_second"]) => Format::VllmThroughput,
        () if has("performance") && (has("request_info") || has("engine")) => Format::TrtllmBench,
        () if all(&["total_latency_ns", "num_requests"]) => Format::TrtllmBench,
        () if has("avg_ts") || all(&["build_commit", "n_prompt"]) => Format::LlamaBenchJson,
        () if has("endpoint_type") || has("model_id") || has("tokenizer_id") => Format::VllmServe,
        () if has("mean_ttft_ms") && has("total_token_throughput") => Format::VllmServe,
        () if has("mean_ttft_ms") || all(&["dataset_name", "completed"]) => Format::SglangServing,
        () => return None,
    })
}

/// Which form a line of CSV is the header of.
fn csv_format(cells: &[String]) -> Option<Format> {
    let has = |name: &str| cells.iter().any(|cell| cell == name);
    Some(match () {
        () if has("avg_ts") && has("n_prompt") => Format::LlamaBenchCsv,
        () if has("mean_e2e_latency_ms") && has("bs") => Format::LmdeployProfiler,
        () if has("mean_e2e_latency_ms") && has("completed") => Format::LmdeployRestful,
        () => return None,
    })
}

/// The cells of a line of CSV: quotes go, doubled ones within become one.
fn csv_cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let cell = cells.len() - 1;
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cells[cell].push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells[cell].push(c),
        }
    }
    cells
}
