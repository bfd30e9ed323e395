//! `stepscope emulate`, on kernels that are right and on kernels that are not.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};
use stepscope_device::nvrtc::Compiler;
use support::{Ran, Stepscope};

/// A folder with the kernels; `None`, with a line that says why, where there is no compiler.
fn with_compiler() -> Option<Stepscope> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| Compiler::open().err().map(|error| error.to_string()));
    if let Some(reason) = missing {
        println!("skipped: {reason}");
        return None;
    }
    let stepscope = Stepscope::new();
    for name in ["transpose.cu", "block_sum.cu", "faults.cu"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
        std::fs::copy(folder.join(name), stepscope.path(name)).unwrap();
    }
    Some(stepscope)
}

/// `emulate`, with the options in one string; blanks within quotes are none.
fn emulate(stepscope: &Stepscope, options: &str) -> Ran {
    let mut quoted = false;
    let options = options.replace(
        |c| {
            quoted ^= c == '\'';
            c == ' ' && !quoted
        },
        "\n",
    );
    let options = options.replace('\'', "");
    let mut args = vec!["emulate"];
    args.extend(options.split('\n').filter(|option| !option.is_empty()));
    let mut command = stepscope.command(&args);
    // What is compiled for a test is of no use to anybody else.
    command.env("STEPSCOPE_CACHE", stepscope.path("cache"));
    command.output().unwrap().into()
}

/// The line of `faults.cu` that holds this text.
fn line_of(text: &str) -> usize {
    let source = include_str!("kernels/faults.cu");
    source.lines().position(|line| line.contains(text)).unwrap() + 1
}

/// The launch was made, something is wrong with it, and standard output has each of `parts`.
#[track_caller]
fn check_found(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.code, 1, "{}\n{}", ran.stdout, ran.stderr);
    for part in parts {
        assert!(ran.stdout.contains(part), "no {part:?} in\n{}", ran.stdout);
    }
}

/// An .npy file, as numpy.save writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
    header.push(b'\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The elements of an .npy file whose header has 128 bytes.
fn read_floats(stepscope: &Stepscope, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(stepscope.path(name)).unwrap();
    let elements = bytes[128..].chunks_exact(4);
    elements
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn a_transpose_is_counted_and_its_result_written() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let values: Vec<f32> = (0..4096).map(|i| i as f32).collect();
    stepscope.write("a.npy", npy("<f4", "(64, 64)", &floats(values.clone())));
    let launch = "--grid 2,2 --block 32,8 --arg in:a.npy --arg out:b.npy:f32:64x64 --arg i32:64";
    let naive = emulate(
        &stepscope,
        &format!("transpose.cu --kernel transpose_naive {launch} --lines"),
    )
    .success();
    // Registers and instructions are the compiler's; the shape of the output is ours.
    let memory: Vec<&str> = naive
        .stdout
        .split("\n\n")
        .filter(|section| section.contains("memory") && section.contains('─'))
        .collect();
    insta::assert_snapshot!(memory[..2].join("\n\n"));
    assert!(
        naive.stdout.contains(
            "transpose.cu:12   out[(y + i) * n + x] = tile[threadIdx.x][threadIdx.y + i];"
        ),
        "{}",
        naive.stdout
    );
    assert!(naive.stdout.ends_with("\n\nno findings\n"));
    let transposed: Vec<f32> = (0..4096).map(|i| values[i % 64 * 64 + i / 64]).collect();
    assert_eq!(read_floats(&stepscope, "b.npy"), transposed);

    let swizzled = emulate(
        &stepscope,
        &format!("transpose.cu --kernel transpose_swizzled {launch} --json"),
    )
    .success();
    let json: Value = serde_json::from_str(&swizzled.stdout).unwrap();
    let counters = &json["counters"];
    assert_eq!(
        counters["shared_wavefronts"],
        counters["shared_ideal_wavefronts"]
    );
    assert_eq!(read_floats(&stepscope, "b.npy"), transposed);
}

#[test]
fn a_race_names_both_parties_and_the_exit_code_says_so() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let ran = emulate(
        &stepscope,
        "block_sum.cu --grid 2 --block 256 --arg random:f32:512 --arg out:s.npy:f32:2",
    );
    check_found(&ran, &[]);
    assert_eq!(ran.stderr, "");
    let findings: Vec<&str> = ran.stdout.split("\n\n").collect();
    insta::assert_snapshot!(findings[findings.len() - 3..].join("\n\n"));
    // What was computed is written all the same.
    assert_eq!(read_floats(&stepscope, "s.npy").len(), 2);
}

#[test]
fn accesses_out_of_bounds_name_the_argument_they_belong_to() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let shift = emulate(
        &stepscope,
        "faults.cu --kernel shift --grid 2 --block 32 --arg fill:f32:64:3 --arg out:c.npy:f32:8x8",
    );
    check_found(
        &shift,
        &[
            &format!(
                "faults.cu:{} | out[i + 1] = 2.0f * in[i];",
                line_of("i + 1")
            ),
            "block (1, 0, 0) thread (31, 0, 0)",
            "argument 1, out:c.npy:f32:8x8, byte 256 of 256 (element 64 of 64), past its end",
            "\n1 finding\n",
        ],
    );
    assert_eq!(read_floats(&stepscope, "c.npy")[1..], [6.0; 63]);
    let before = emulate(
        &stepscope,
        "faults.cu --kernel before --grid 1 --block 32 --arg zeros:f32:32",
    );
    check_found(
        &before,
        &["argument 0, zeros:f32:32, 16 bytes before its start"],
    );
    let null = emulate(
        &stepscope,
        "faults.cu --kernel null_pointer --grid 1 --block 32 --arg null --arg zeros:f32:32",
    );
    check_found(&null, &["0x0: a null pointer"]);
    let variable = emulate(
        &stepscope,
        "faults.cu --kernel variable --grid 1 --block 5 --arg i32:1",
    );
    check_found(
        &variable,
        &["variable counter, byte 16 of 16, past its end"],
    );
    // Off, the check leaves the launch to fail as it would on a GPU.
    let unchecked = emulate(
        &stepscope,
        "faults.cu --kernel shift --grid 2 --block 32 --arg fill:f32:64:3 --arg out:c.npy:f32:64 --check race",
    );
    check_found(&unchecked, &["stopped before its end: ", "out of bounds"]);
    unchecked.error(1, &["shift stopped before its end: illegal address"]);
}

#[test]
fn launches_that_cannot_end_tell_why() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let run = |options: &str| emulate(&stepscope, &format!("faults.cu --kernel {options}"));
    let deadlock = run("deadlock --grid 1 --block 64 --arg zeros:i32:64");
    check_found(
        &deadlock,
        &[
            &format!(
                "  faults.cu:{}: block (0, 0, 0) warp 0",
                line_of("bar.sync 1")
            ),
            "stopped before its end; no findings",
        ],
    );
    deadlock.error(1, &["deadlock stopped before its end: deadlock"]);
    let trap = run("trap --grid 1 --block 64 --arg out:t.npy:i32:64");
    check_found(&trap, &[&format!("faults.cu:{}: trap", line_of("__trap"))]);
    trap.error(1, &["stopped before its end: trap"]);
    assert!(stepscope.path("t.npy").is_file());
    run("endless --grid 1 --block 32 --limit-instructions 1000")
        .error(1, &["endless stopped before its end: limit reached"]);
    run("endless --grid 1 --block 32 --limit-seconds 0.05").error(1, &["limit reached"]);
}

#[test]
fn printf_notes_and_reads_of_nothing() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let run = |options: &str| emulate(&stepscope, &format!("faults.cu --kernel {options}"));
    let hello = run("hello --grid 1 --block 32 --arg i32:9").success();
    assert!(
        hello
            .stdout
            .contains("\n\nthread 0 of 9\nthread 1 of 9\n\nInstructions"),
        "{}",
        hello.stdout
    );
    // Unordered writes of one value are worth a note, and no failure.
    let note = run("same_value --grid 1 --block 64 --arg zeros:i32:1").success();
    assert!(note.stdout.contains("note: race: write after write (WAW)"));
    assert!(note.stdout.ends_with("\n1 note\n"));
    let uninit = "copy --grid 1 --block 32 --arg uninit:f32:32 --arg zeros:f32:32";
    check_found(
        &run(uninit),
        &["read of memory that nothing has written, 32 times"],
    );
    run(&format!("{uninit} --check memory,race,sync")).success();
}

#[test]
fn kernels_are_named_as_c_plus_plus_names_them() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    stepscope.write("a.npy", npy("<f4", "(128,)", &floats([1.5; 128])));
    let launch = "--grid 1 --block 32 --arg inout:a.npy --arg f32:2";
    let template = emulate(
        &stepscope,
        &format!("faults.cu --kernel 'scale<4, float>' {launch}"),
    )
    .success();
    assert!(
        template
            .stdout
            .starts_with("scale<4, float>: grid 1 × 1 × 1")
    );
    assert_eq!(read_floats(&stepscope, "a.npy"), [3.0; 128]);
    let launch = "--grid 1 --block 4 --arg i32:1";
    for name in ["variable", "_Z8variablei"] {
        emulate(&stepscope, &format!("faults.cu --kernel {name} {launch}")).success();
    }
    let launch = "--grid 1 --block 1 --arg bytes:01000000_00000040_0300000000000000";
    emulate(
        &stepscope,
        &format!("faults.cu --kernel by_value {launch} --arg out:d.npy:f64:1"),
    )
    .success();
    let bytes = std::fs::read(stepscope.path("d.npy")).unwrap();
    assert_eq!(bytes[128..], 6.0_f64.to_le_bytes());
}

#[test]
fn json_holds_everything_under_stable_names() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let ran = emulate(
        &stepscope,
        "faults.cu --kernel shift --grid 2 --block 32 --arg fill:f32:64:3 --arg out:c.npy:f32:64 --json",
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let mut json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(json["compiler"]["registers_per_thread"].is_u64());
    // These depend on the compiler's version.
    json["compiler"] = json!("…");
    json["occupancy"] = json!("…");
    for counter in [
        "warp_instructions",
        "thread_instructions",
        "integer_instructions",
        "float_instructions",
        "data_instructions",
    ] {
        assert!(json["counters"][counter].is_u64());
        json["counters"][counter] = json!("…");
    }
    json["metrics"].as_array_mut().unwrap().truncate(1);
    json["metrics"][0]["value"] = json!("…");
    let lines = json["lines"].as_array_mut().unwrap();
    lines.retain(|line| line["findings"] == 1);
    lines[0]["counters"] = json!("…");
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
}

#[test]
fn mistakes_in_a_source_are_told_with_file_and_line() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    stepscope.write(
        "bad.cu",
        "// one\nextern \"C\" __global__ void k(float *out) {\n    out[0] = missing;\n}\n",
    );
    let ran = emulate(
        &stepscope,
        "bad.cu --kernel k --grid 1 --block 1 --arg null",
    );
    assert!(
        ran.stderr.contains("    out[0] = missing;"),
        "{}",
        ran.stderr
    );
    ran.error(
        2,
        &[r#"bad.cu(3): error: identifier "missing" is undefined"#],
    );
    std::fs::create_dir(stepscope.path("include")).unwrap();
    stepscope.write("include/two.cuh", "#define TWO (ONE + 1)\n");
    stepscope.write(
        "uses.cu",
        "#include \"two.cuh\"\n__global__ void k(int *out) { *out = TWO; }\n",
    );
    let launch = "uses.cu --grid 1 --block 1 --arg out:two.npy:i32:1";
    emulate(&stepscope, launch).error(2, &["uses.cu(1)", "two.cuh"]);
    emulate(
        &stepscope,
        &format!("{launch} -I include -D ONE=1 --nvrtc-option=--use_fast_math"),
    )
    .success();
    let bytes = std::fs::read(stepscope.path("two.npy")).unwrap();
    assert_eq!(bytes[128..], 2_i32.to_le_bytes());
}

#[test]
fn wrong_kernels_arguments_and_launches_are_one_line() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    stepscope.write("short.npy", npy("<f4", "(4,)", &[0; 12]));
    stepscope.write("big.npy", npy(">f4", "(4,)", &[0; 16]));
    let check = |options: &str, parts: &[&str]| {
        println!("{options}");
        emulate(&stepscope, &format!("faults.cu {options}")).error(2, parts);
    };
    check(
        "--grid 1 --block 32",
        &[
            "several kernels",
            "--kernel",
            "shift; before",
            "variable(int)",
        ],
    );
    check(
        "--kernel nope --grid 1 --block 32",
        &["no kernel nope", "it has: shift", "gemm<64, float>"],
    );
    let shift = "--kernel shift --grid 1 --block 32";
    check(
        &format!("{shift} --arg null"),
        &["shift takes 2 parameters, of 8 and 8 bytes, but 1 --arg was given"],
    );
    check(
        &format!("{shift} --arg null --arg u32:1"),
        &["--arg u32:1 has 4 bytes, but parameter 1 of shift (counted from 0) takes 8"],
    );
    check(
        "--kernel hello --grid 1 --block 32 --arg zeros:i32:1",
        &["is a pointer", "parameter 0 of hello", "takes 4"],
    );
    check(
        &format!("{shift} --arg null --arg zeros:f32:100000000000"),
        &["zeros:f32:100000000000", "400000000000 bytes"],
    );
    check(
        &format!("{shift} --arg in:missing.npy --arg null"),
        &["in:missing.npy", "cannot read"],
    );
    check(
        &format!("{shift} --arg in:faults.cu --arg null"),
        &["faults.cu cannot be used", "numpy.save"],
    );
    check(
        &format!("{shift} --arg in:short.npy --arg null"),
        &["short.npy", "takes 16 bytes, but 12 follow"],
    );
    check(
        &format!("{shift} --arg in:big.npy --arg null"),
        &["big.npy", "big-endian", "astype"],
    );
    check(
        &format!("{shift} --arg null --arg out:no/where.npy:f32:1"),
        &["there is no folder no"],
    );
    check(
        &format!("{shift} --arg out:x.npy:f32:1 --arg out:x.npy:f32:1"),
        &["argument 0 writes x.npy too"],
    );
    check(
        "--kernel hello --grid 1 --block 2048 --arg i32:1",
        &["a block of 2048 x 1 x 1 threads"],
    );
    check(
        "--kernel hello --grid 9000 --block 1024 --cooperative --arg i32:1",
        &["cooperative", "9000 blocks", "264"],
    );
    check(
        "--kernel hello --grid 2 --block 32 --cluster 2 --arch sm_80 --arg i32:1",
        &["clusters need compute capability 9.0"],
    );
}

/// PTX needs no compiler.
#[test]
fn ptx_runs_without_a_compiler() {
    let stepscope = Stepscope::new();
    stepscope.write(
        "broken.ptx",
        include_str!("../../emulator/tests/kernels/broken.ptx"),
    );
    let ran = emulate(
        &stepscope,
        "broken.ptx --kernel out_of_bounds --grid 1 --block 32 --arg zeros:i32:32",
    );
    check_found(
        &ran,
        &[
            "PTX as it is",
            "argument 0, zeros:i32:32, byte 128 of 128 (element 32 of 32)",
        ],
    );
    emulate(
        &stepscope,
        "broken.ptx --kernel nope --grid 1 --block 32 --arg zeros:i32:32",
    )
    .error(2, &["no kernel nope in broken.ptx", "out_of_bounds; "]);
    emulate(
        &stepscope,
        "broken.ptx --kernel read --grid 1 --block 32 -D A=1",
    )
    .error(2, &["--define is for CUDA C++"]);
}

#[test]
fn instructions_that_are_not_supported_are_listed_with_their_lines() {
    let stepscope = Stepscope::new();
    stepscope.write(
        "odd.ptx",
        "\
.version 8.0
.target sm_90a
.address_size 64
.visible .entry odd(.param .u64 odd_0) {
    .reg .b32 %r<4>;
    foo.bar %r1, %r2;
    baz.u32 %r1, %r2;
    ret;
}
",
    );
    let ran = emulate(&stepscope, "odd.ptx --grid 1 --block 32 --arg null");
    assert!(
        ran.stderr.starts_with(
            "  line 6: foo.bar: unknown instruction\n  line 7: baz.u32: unknown instruction\n"
        ),
        "{}",
        ran.stderr
    );
    ran.error(2, &["odd.ptx", "not supported", "2 instructions"]);
}

#[test]
fn wrong_usage_is_one_line_that_names_it() {
    let stepscope = Stepscope::new();
    stepscope.write("k.cu", "");
    stepscope.write("bad.ptx", "garbage");
    let launch = "--grid 1 --block 32";
    for (options, parts) in [
        (
            format!("missing.cu {launch}"),
            &["cannot read missing.cu"][..],
        ),
        (
            format!("k.txt {launch}"),
            &["k.txt is neither .cu nor .ptx"],
        ),
        (format!("bad.ptx {launch}"), &["bad.ptx: PTX line 1"]),
        (
            format!("k.cu {launch} --arch sm_100"),
            &["--arch sm_100", "sm_80, sm_86, sm_89, sm_90 and sm_90a"],
        ),
        (
            format!("k.cu {launch} --arg f99:1"),
            &["f99:1", "none of TYPE:VALUE"],
        ),
        (
            format!("k.cu {launch} --arg i8:300"),
            &["300 does not fit in i8"],
        ),
        (format!("k.cu {launch} --check speed"), &["speed", "memory"]),
        (
            "k.cu --grid 1,2,3,4 --block 1".to_owned(),
            &["one to three whole numbers"],
        ),
        (
            "k.cu --grid 0 --block 1".to_owned(),
            &["each must be at least 1"],
        ),
        ("k.cu --grid 1".to_owned(), &["--block"]),
    ] {
        println!("{options}");
        emulate(&stepscope, &options).error(2, parts);
    }
}

#[test]
fn without_nvrtc_the_way_out_is_told() {
    let stepscope = Stepscope::new();
    stepscope.write("k.cu", "extern \"C\" __global__ void k() {}\n");
    let args = ["emulate", "k.cu", "--grid", "1", "--block", "32"];
    let mut command = stepscope.command(&args);
    let output = command.env("STEPSCOPE_NVRTC", "/nowhere").output().unwrap();
    Ran::from(output).error(
        2,
        &[
            "STEPSCOPE_NVRTC=/nowhere cannot be used",
            ".ptx files can be emulated",
        ],
    );
}
