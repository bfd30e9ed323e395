//! Rows in the forms of other programs.
//!
//! A row is written only where the form means what the row measured; [`Exported::refused`] says why not. What a form has no field
//! for is lost, and what the row does not know is left out.

mod llama_bench;
mod sglang;
mod vllm;

use super::Entry;

/// A form to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON lines of sglang's `bench_one_batch`.
    Sglang,
    /// JSON of `vllm bench latency` for static batches, of `vllm bench serve` for what a client measured; one object per line.
    Vllm,
    /// llama-bench's Markdown table.
    LlamaBenchMarkdown,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// The file's content; empty if no row could be written.
    pub text: String,
    /// Rows that the form cannot express, with the reason.
    pub refused: Vec<(usize, String)>,
    /// What the form lets a reader take for something else, one sentence each.
    pub notes: Vec<String>,
}

/// Writes the rows in a form.
pub fn export(form: Form, entries: &[Entry<'_>]) -> Exported {
    match form {
        Form::Sglang => lines(entries, |entry| sglang::line(entry.row)),
        Form::Vllm => {
            let mut exported = lines(entries, |entry| vllm::line(entry.row));
            exported.notes = vllm::notes(entries, &exported.refused);
            exported
        }
        Form::LlamaBenchMarkdown => llama_bench::table(entries),
    }
}

fn lines(entries: &[Entry<'_>], line: impl Fn(&Entry<'_>) -> Result<String, String>) -> Exported {
    let mut exported = Exported::default();
    for entry in entries {
        match line(entry) {
            Ok(line) => {
                exported.text += &line;
                exported.text.push('\n');
            }
            Err(reason) => exported.refused.push((entry.number, reason)),
        }
    }
    exported
}
