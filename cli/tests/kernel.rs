//! `stepscope kernel`, as a person uses it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod support;

use serde_json::Value;
use stepscope_device::nvrtc::Compiler;
use support::{Ran, Stepscope};

/// `None`, with a line that says why, where there is no compiler.
fn with_compiler() -> Option<Stepscope> {
    if let Err(error) = Compiler::open() {
        println!("skipped: {error}");
        return None;
    }
    Some(Stepscope::new())
}

/// The sections of a page whose first line begins with one of `titles`.
fn sections(ran: &Ran, titles: &[&str]) -> String {
    let sections = ran.stdout.split("\n\n");
    let wanted = sections.filter(|section| titles.iter().any(|title| section.starts_with(title)));
    wanted.collect::<Vec<_>>().join("\n\n")
}

fn document(ran: Ran) -> Value {
    serde_json::from_str(&ran.success().stdout).unwrap()
}

#[test]
fn all_kernels_are_listed() {
    let stepscope = Stepscope::new();
    let ran = stepscope.run(&["kernel", "list"]).success();
    insta::assert_snapshot!(ran.stdout);
    let list = document(stepscope.run(&["kernel", "list", "--json"]));
    assert_eq!(list["schema"], "stepscope.kernels/1");
    let kernels = list["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), ran.stdout.lines().count() - 2);
    let gemv = kernels
        .iter()
        .find(|kernel| kernel["name"] == "gemv")
        .unwrap();
    assert_eq!(gemv["instances"][0], "gemv<bf16, 1, true>");
    assert_eq!(gemv["arguments"][5]["name"], "k");
    assert_eq!(gemv["shape"][0]["name"], "N");
}

#[test]
fn a_kernel_is_shown_for_a_shape() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let args = [
        "kernel",
        "show",
        "gemm_mma",
        "--shape",
        "M=4096,n=4096,K=4096",
    ];
    let ran = stepscope.run(&args).success();
    // Registers and instructions are the compiler's; the tests of the kernels watch them.
    insta::assert_snapshot!(sections(&ran, &["--shape", "Work", "Argument"]));
    for part in [
        "gemm_mma<bf16, 128, 256, 32, 2, 4, 3, true>: product with a weight",
        "grid 512 × 1 × 1, block 256 × 1 × 1, 73728 bytes of dynamic shared memory",
        " for sm_90a\n",
        "registers of a thread",
        "occupancy, at best",
    ] {
        assert!(ran.stdout.contains(part), "no {part:?} in\n{}", ran.stdout);
    }

    let mut args = args.to_vec();
    args.extend(["--json", "--ptx", "--arch", "sm_80"]);
    let page = document(stepscope.run(&args));
    assert_eq!(page["schema"], "stepscope.kernel/1");
    assert_eq!(
        page["instance"],
        "gemm_mma<bf16, 128, 256, 32, 2, 4, 3, true>"
    );
    assert_eq!(page["cost"]["flops"], 2_u64 * 4096 * 4096 * 4096);
    assert_eq!(page["compiler"]["spill_store_bytes"], 0);
    assert!(page["ptx"].as_str().unwrap().contains("mma.sync"));
    assert!(page["occupancy"]["blocks"].as_u64().unwrap() > 0);
    assert!(page.get("sass").is_none());
}

#[test]
fn machine_code_is_shown_or_the_way_to_it() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let ran = stepscope.run(&[
        "kernel",
        "show",
        "argmax_rows",
        "--sass",
        "--arch",
        "sm_120a",
    ]);
    if ran.code != 0 {
        // Only a missing disassembler is an excuse.
        ran.error(
            2,
            &["nvdisasm was not found", "pip install nvidia-cuda-nvdisasm"],
        );
        println!("skipped: nvdisasm is not there");
        return;
    }
    assert!(
        ran.stdout.contains("not known for sm_120a"),
        "{}",
        ran.stdout
    );
    let listing = ran.stdout.split("\n\n").last().unwrap();
    assert!(
        listing
            .lines()
            .any(|line| line.trim_start().starts_with("EXIT")),
        "{listing}"
    );

    let missing = |args: &[&str]| -> Ran {
        let mut command = stepscope.command(args);
        command
            .env("STEPSCOPE_NVDISASM", "/nowhere")
            .output()
            .unwrap()
            .into()
    };
    let named = "STEPSCOPE_NVDISASM=/nowhere cannot be used";
    missing(&["kernel", "show", "argmax_rows", "--sass"]).error(2, &[named]);
    // Without machine code the rest of the page stands.
    let page = missing(&["kernel", "show", "argmax_rows"]).success();
    assert!(page.stderr.contains(named), "{}", page.stderr);
    assert!(!page.stdout.contains("Machine instructions"));
}

#[test]
fn a_kernel_is_counted_beside_its_cost() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let shape = "M=8,N=256,K=512,bias=1,splits=1";
    let args = [
        "kernel",
        "count",
        "gemm_skinny",
        "--arch",
        "sm_80",
        "--shape",
        shape,
    ];
    let ran = stepscope.run(&args).success();
    insta::assert_snapshot!(sections(
        &ran,
        &["gemm_skinny", "Work", "Counted", "Shared", "every"]
    ));

    let mut args = args.to_vec();
    args.push("--json");
    let page = document(stepscope.run(&args));
    assert_eq!(page["counted"][0]["counted"], 2 * 8 * 256 * 512);
    assert_eq!(page["counters"]["tensor_flops"], 2 * 8 * 256 * 512);
    assert_eq!(page["findings"], Value::Array(Vec::new()));
    assert_eq!(page["device"]["compute_capability"], "8.0");
}

/// An instance of another storage type, whose launch is one of two.
#[test]
fn an_instance_is_counted_by_its_name() {
    let Some(stepscope) = with_compiler() else {
        return;
    };
    let args = [
        "kernel",
        "count",
        "gemm_reduce<f16,4>",
        "--json",
        "--shape",
        "M=4,N=64",
    ];
    let page = document(stepscope.run(&args));
    assert_eq!(page["instance"], "gemm_reduce<f16, 4>");
    assert_eq!(page["dtype"], "float16");
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    let stepscope = Stepscope::new();
    let check = |args: &str, parts: &[&str]| {
        let args: Vec<&str> = args.split(' ').collect();
        stepscope.run(&args).error(2, parts);
    };
    check(
        "kernel show gem_mma",
        &["no kernel is called gem_mma", "is gemm_mma meant?"],
    );
    check(
        "kernel count xyzzy",
        &["no kernel is called xyzzy", "stepscope kernel list"],
    );
    check(
        "kernel show gemv<bf16>",
        &["no instance gemv<bf16>", "list --json"],
    );
    check(
        "kernel show gemv --shape Q=1",
        &["--shape Q=1", "N, K, bias and dtype"],
    );
    check(
        "kernel count gemm_skinny --shape M=40",
        &["M=40", "32 rows at most"],
    );
    check("kernel show gemv --arch sm_75", &["sm_75", "sm_80"]);
    check("kernel show gemv --arch compute_90", &["ask for sm_90"]);
    check("kernel show gemv --arch hopper", &["hopper", "sm_90a"]);
    check(
        "kernel count gemv --arch sm_100a",
        &["sm_100a cannot be emulated"],
    );

    let mut command = stepscope.command(&["kernel", "show", "gemv"]);
    let ran: Ran = command
        .env("STEPSCOPE_NVRTC", "/nowhere")
        .output()
        .unwrap()
        .into();
    ran.error(2, &["STEPSCOPE_NVRTC=/nowhere cannot be used"]);
    let mut command = stepscope.command(&["kernel", "count", "gemv"]);
    let ran: Ran = command
        .env("STEPSCOPE_NVRTC", "/nowhere")
        .output()
        .unwrap()
        .into();
    ran.error(2, &["STEPSCOPE_NVRTC=/nowhere cannot be used"]);
}
