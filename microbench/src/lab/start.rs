//! A first kernel for each operation: simple, right, and with all that there is to know of the operation above it.

use std::fmt::Write as _;

use crate::operations::{Operation, Role};

/// The body of an operation's file, and what it says of its launch.
struct Start {
    body: &'static str,
    directives: &'static [&'static str],
}

fn start_of(operation: &Operation) -> Start {
    macro_rules! start {
        ($name:literal, $($line:literal),+) => {
            Start { body: include_str!(concat!("starts/", $name, ".cu")), directives: &[$($line),+] }
        };
    }
    match operation.name {
        "advance" => start!(
            "advance",
            "kernel = my_advance, grid = ceil(requests / 128), block = 128"
        ),
        "dummy_weights" => start!(
            "dummy_weights",
            "kernel = my_dummy_weights, grid = ceil(elements / 4 / 256), block = 256"
        ),
        "embedding" => start!(
            "embedding",
            "kernel = my_embedding, grid = tokens, block = 128"
        ),
        "gather_rows" => start!(
            "gather_rows",
            "kernel = my_gather_rows, grid = requests, block = 128"
        ),
        "rms_norm" => start!("rms_norm", "kernel = my_rms_norm, grid = rows, block = 256"),
        "add_rms_norm" => start!(
            "add_rms_norm",
            "kernel = my_add_rms_norm, grid = rows, block = 256"
        ),
        "qk_norm" => start!(
            "qk_norm",
            "kernel = my_qk_norm, grid = (heads + kv_heads, tokens), block = 32"
        ),
        "gemm" => start!(
            "gemm",
            "param TILE = 16, 32",
            "kernel = my_gemm, grid = (ceil(N / TILE), ceil(M / TILE)), block = TILE * TILE"
        ),
        "gemv" => start!(
            "gemv",
            "param WARPS = 4, 8",
            "kernel = my_gemv, grid = ceil(N / WARPS), block = 32 * WARPS"
        ),
        "rope_kv" => start!("rope_kv", "kernel = my_rope_kv, grid = tokens, block = 128"),
        "attention_prefill" => start!(
            "attention_prefill",
            "kernel = my_attention_prefill, grid = (heads, query_len, requests), block = 32"
        ),
        "attention_decode" => start!(
            "attention_decode",
            "kernel = my_attention_decode, grid = (heads, requests), block = 32"
        ),
        "silu_mul" => start!(
            "silu_mul",
            "kernel = my_silu_mul, grid = ceil(rows * width / 256), block = 256"
        ),
        "argmax" => start!(
            "argmax",
            "param THREADS = 256",
            "kernel = my_argmax, grid = requests, block = THREADS"
        ),
        // `sample`: the test of all operations sees to it that there is no other.
        _ => start!(
            "sample",
            "param THREADS = 256",
            "kernel = my_sample, grid = requests, block = THREADS"
        ),
    }
}

/// The starting file of an operation.
pub fn text(operation: &Operation) -> String {
    let start = start_of(operation);
    let mut text = String::new();
    let mut line = |what: &str| {
        let _ = writeln!(text, "{}", format!("// {what}").trim_end()); // a String takes everything
    };
    line(&format!("{}: {}.", operation.name, operation.summary));
    line("");
    for part in wrapped(operation.formula) {
        line(&part);
    }
    line("");
    line(
        "What a kernel gets, in this order. STORAGE is bf16 or f16, as --shape dtype=… says; arithmetic is in float.",
    );
    let declared = |a: &crate::operations::Argument| a.declaration("STORAGE");
    let width = operation
        .arguments
        .iter()
        .map(|a| declared(a).len())
        .max()
        .unwrap_or(0);
    let extent = operation
        .arguments
        .iter()
        .map(|a| a.shape.len())
        .max()
        .unwrap_or(0);
    for argument in operation.arguments {
        let role = match argument.role {
            Role::In => "",
            Role::Out => "written: ",
            Role::InOut => "read and written: ",
        };
        line(&format!(
            "  {:width$}  {:extent$}  {role}{}",
            declared(argument),
            argument.shape,
            argument.meaning
        ));
    }
    line("");
    line(
        "How it is launched, in the dimensions of --shape; `param` are macros that --sweep tries out:",
    );
    for directive in start.directives {
        line(&format!("stepscope: {directive}"));
    }
    line("");
    line(&format!(
        "stepscope lab {} --kernel THIS_FILE --watch",
        operation.name
    ));
    text.push_str("#include \"prelude.cuh\"\n\n");
    text.push_str(start.body);
    text
}

/// Lines of up to 120 characters.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + word.len() + 1 > 120 {
            lines.push(word.to_owned());
        } else {
            let space = if lines[last].is_empty() { "" } else { " " };
            lines[last] += &format!("{space}{word}");
        }
    }
    lines
}
