//! PTX with tokens and lines deleted, doubled, swapped and changed: loading it is an error or a module, never a panic, and never
//! takes long. The fuzz target `ptx_parse` does the same with coverage.

// clippy.toml allows these in test functions; what they share is no such function.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stepscope_emulator::{Device, DeviceOptions, ErrorKind};

const MODULES: [&str; 4] = [
    include_str!("kernels/arithmetic.ptx"),
    include_str!("kernels/broken.ptx"),
    include_str!("kernels/samples.ptx"),
    include_str!("kernels/tensor.ptx"),
];

/// What is put in the place of a token.
const WORDS: [&str; 36] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    ":",
    "|",
    "@",
    "!",
    "<",
    ">",
    "=",
    "-",
    "+",
    "_",
    "\"",
    "/*",
    "//",
    "0",
    "-1",
    "4294967296",
    "18446744073709551615",
    "0x",
    "0f7F800000",
    "1e999",
    ".reg",
    ".param",
    ".b64",
    ".pred",
    "%p1",
    "%rd1",
    "%tid.x",
    "ret",
];

fn device() -> Device {
    Device::new(DeviceOptions {
        memory_bytes: 1 << 20,
        ..DeviceOptions::default()
    })
}

/// Loads and says how long it took; only these kinds of error come from loading.
fn load(text: &str) -> Duration {
    let start = Instant::now();
    if let Err(error) = device().load_module(text) {
        let expected = [
            ErrorKind::InvalidPtx,
            ErrorKind::Unsupported,
            ErrorKind::OutOfMemory,
        ];
        assert!(expected.contains(&error.kind()), "{error}");
        assert!(
            error.to_string().contains("line") || error.kind() != ErrorKind::InvalidPtx,
            "{error}"
        );
    }
    start.elapsed()
}

/// One kernel of a module (mutating a small text hits more), with what stands before the first one.
fn pieces() -> Vec<String> {
    let mut pieces = Vec::new();
    for module in MODULES {
        let kernels: Vec<usize> = module
            .match_indices(".visible .entry")
            .map(|(at, _)| at)
            .collect();
        let head = &module[..kernels[0]];
        for (index, &start) in kernels.iter().enumerate() {
            let end = kernels.get(index + 1).copied().unwrap_or(module.len());
            pieces.push(format!("{head}{}", &module[start..end]));
        }
    }
    pieces
}

/// The text in pieces that put together give it again: names, numbers, single characters.
fn tokens(text: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_$%.".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match rest.find(|c| !is_word(c)) {
            Some(0) => first.len_utf8(),
            Some(length) => length,
            None => rest.len(),
        };
        tokens.push(&rest[..length]);
        rest = &rest[length..];
    }
    tokens
}

#[derive(Debug, Clone)]
enum Change {
    Delete,
    Double,
    SwapWith(prop::sample::Index),
    Replace(prop::sample::Index),
}

fn change() -> impl Strategy<Value = (prop::sample::Index, Change)> {
    let kind = prop_oneof![
        Just(Change::Delete),
        Just(Change::Double),
        any::<prop::sample::Index>().prop_map(Change::SwapWith),
        any::<prop::sample::Index>().prop_map(Change::Replace),
    ];
    (any::<prop::sample::Index>(), kind)
}

fn apply(parts: &mut Vec<&str>, changes: &[(prop::sample::Index, Change)]) {
    for (at, change) in changes {
        if parts.is_empty() {
            return;
        }
        let at = at.index(parts.len());
        match change {
            Change::Delete => {
                parts.remove(at);
            }
            Change::Double => parts.insert(at, parts[at]),
            Change::SwapWith(other) => {
                let other = other.index(parts.len());
                parts.swap(at, other);
            }
            Change::Replace(word) => parts[at] = WORDS[word.index(WORDS.len())],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400,
        failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_tokens_do_not_panic(piece: prop::sample::Index, changes in prop::collection::vec(change(), 1..6)) {
        let pieces = pieces();
        let text = &pieces[piece.index(pieces.len())];
        let mut parts = tokens(text);
        prop_assert_eq!(parts.concat(), text.as_str());
        apply(&mut parts, &changes);
        load(&parts.concat());
    }

    #[test]
    fn changed_lines_do_not_panic(piece: prop::sample::Index, changes in prop::collection::vec(change(), 1..6)) {
        let pieces = pieces();
        let text = &pieces[piece.index(pieces.len())];
        let mut parts: Vec<&str> = text.split_inclusive('\n').collect();
        apply(&mut parts, &changes);
        load(&parts.concat());
    }

    #[test]
    fn truncated_text_does_not_panic(piece: prop::sample::Index, end: prop::sample::Index) {
        let pieces = pieces();
        let text = &pieces[piece.index(pieces.len())];
        load(&text[..end.index(text.len())]);
    }

    #[test]
    fn tokens_in_any_order_do_not_panic(words in prop::collection::vec(0..WORDS.len(), 0..60)) {
        let words: Vec<&str> = words.into_iter().map(|word| WORDS[word]).collect();
        load(&format!(".version 9.0\n.target sm_80\n.entry k() {{ .reg .b64 %rd<3>; .reg .pred %p<3>;\n{}", words.join(" ")));
    }
}

#[test]
fn what_declares_much_takes_little() {
    let head = ".version 9.0\n.target sm_80\n.address_size 64\n";
    let kernel = |body: &str| format!("{head}.visible .entry k()\n{{\n{body}\nret;\n}}\n");
    let registers: String = (0..20_000)
        .map(|i| format!("mov.b32 %r{i}, 1;\n"))
        .collect();
    let keep: String = (0..20_000)
        .map(|i| format!("add.s32 %r0, %r0, %r{i};\n"))
        .collect();
    let labels: String = (0..30_000)
        .map(|i| format!("l{i}: @p bra l{};\n", (i * 7919) % 30_000))
        .collect();
    let functions: String = (0..20_000)
        .map(|i| format!(".func f{i}() {{ ret; }}\n"))
        .collect();
    let names: Vec<String> = (0..2_000).map(|i| format!("t{i}")).collect();
    let table = format!("$t: .branchtargets {};\n", names.join(", "));
    let tables = format!(
        "{table}{}{}",
        names.join(":\n") + ":\n",
        "brx.idx 1, $t;\n".repeat(1_000)
    );
    for (what, text) in [
        (
            "registers",
            kernel(".reg .b32 %r<4000000000>; mov.b32 %r3999999999, 1;"),
        ),
        ("shared", kernel(".shared .b8 a[99999999999];")),
        ("local", kernel(".local .b8 a[99999999999];")),
        (
            "dimensions",
            kernel(".shared .b8 a[99999999999][99999999999];"),
        ),
        ("global", format!("{head}.global .b8 a[99999999999];")),
        (
            "parameters",
            format!("{head}.entry k(.param .b8 a[99999999999]) {{ ret; }}"),
        ),
        ("braces", kernel(&"{".repeat(200_000))),
        (
            "vector",
            kernel(&format!("mov.b32 {{{}a}}, 1;", "a, ".repeat(200_000))),
        ),
        (
            "address",
            kernel(&format!(
                "x [{}a]{};",
                "a, [".repeat(50_000),
                "]".repeat(50_000)
            )),
        ),
        (
            "live",
            kernel(&format!(".reg .b32 %r<20000>;\n{registers}{keep}")),
        ),
        (
            "branches",
            kernel(&format!(".reg .pred p; setp.eq.u32 p, 1, 2;\n{labels}")),
        ),
        (
            "functions",
            format!("{head}{functions}.entry k() {{ ret; }}"),
        ),
        ("labels", kernel(&"l: ".repeat(200_000))),
        ("comment", kernel("/*")),
        ("tables", kernel(&tables)),
    ] {
        let taken = load(&text);
        println!("{what}: {taken:?}");
        assert!(taken < Duration::from_secs(20), "{what}: {taken:?}");
    }
}
