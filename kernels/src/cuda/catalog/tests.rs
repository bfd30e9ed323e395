//! What the emulated device counts of each kernel is what its entry says.

use stepscope_emulator::driver::LaunchReport;

use super::*;
use crate::cuda::testing::{Emulated, emulated};

/// The report of the launch of `plan`, of those that a run made.
fn launched(cuda: &Emulated, family: &Family, shape: &Shape, plan: &Plan) -> LaunchReport {
    cuda.reports();
    family.run(cuda, shape).unwrap();
    let reports = cuda.reports();
    let is_it = |report: &&LaunchReport| {
        // `_Z8gemm_mmaI…`: the length tells a name from a longer one that begins with it.
        report
            .kernel
            .starts_with(&format!("_Z{}{}", family.name.len(), family.name))
            && report.grid == plan.launch.grid
    };
    let mut found = reports.iter().filter(is_it);
    let report = found.next().unwrap_or_else(|| {
        panic!(
            "{}: not launched as {:?}: {reports:?}",
            family.name, plan.launch
        )
    });
    assert!(found.next().is_none(), "{}: launched twice", family.name);
    report.clone()
}

/// Everything that an entry says, for one shape.
fn check(cuda: &Emulated, family: &Family, shape: &Shape) {
    let plan = family.plan(shape, cuda.target()).unwrap();
    let report = launched(cuda, family, shape, &plan);
    let what = format!("{} {shape} ({})", family.name, plan.expression);
    assert_eq!(
        (report.grid, report.block, report.dynamic_shared_bytes),
        (
            plan.launch.grid,
            plan.launch.block,
            plan.launch.shared_bytes
        ),
        "{what}"
    );
    let counters = &report.report.counters;
    let counted = plan.counted;
    let flops = [
        counters.tensor_flops,
        counters.f32_flops,
        counters.f64_flops,
        counters.half_flops,
    ];
    assert_eq!(
        flops,
        [counted.tensor_flops, counted.float_flops, 0, 0],
        "FLOPs of {what}"
    );
    // What of them is not padding or repeated is the cost, no more and no less.
    assert_eq!(counted.cost_flops(), plan.cost.flops, "FLOPs of {what}");
    assert_eq!(
        counters.compulsory_read_bytes + counters.compulsory_write_bytes,
        counted.bytes,
        "{what}"
    );
    assert_eq!(counters.local_requests, 0, "{what}");
    if family.promises.conflict_free {
        assert_eq!(
            counters.shared_wavefronts, counters.shared_ideal_wavefronts,
            "{what}"
        );
    }
    let is_example = shape.values() == Shape::of(family).values();
    assert!(counted.scattered_sectors.is_some() || !is_example, "{what}");
    if let Some(scattered) = counted.scattered_sectors {
        let sectors = counters.global_load_sectors + counters.global_store_sectors;
        let beyond = sectors - counters.global_ideal_sectors;
        assert_eq!(beyond, scattered, "sectors of {what}");
        assert!(
            scattered == 0 || !family.promises.coalesced || !is_example,
            "{what}"
        );
    }
    if is_example {
        assert_eq!(
            counted.bytes,
            plan.cost.bytes() + counted.left_out,
            "{what}"
        );
    }
}

fn check_shapes(name: &str, shapes: &[&str]) {
    let family = family(name).unwrap();
    for dtype in [DType::BF16, DType::F16] {
        let Some(cuda) = emulated(dtype) else { return };
        for text in shapes {
            let shape = Shape::parse(family, text).unwrap().with_dtype(dtype);
            check(&cuda, family, &shape);
        }
    }
}

/// Without a cost that is left to the caches, and with whole tiles, the work that is counted is the cost.
#[test]
fn every_kernel_does_what_its_entry_says() {
    check_shapes(
        "gather_rows",
        &["", "tokens=3,width=40", "tokens=2,width=77"],
    );
    check_shapes("silu_mul", &["", "rows=3,width=56", "rows=3,width=7"]);
    check_shapes(
        "rms_norm",
        &[
            "",
            "add=0",
            "rows=2,width=2064",
            "rows=3,width=2056",
            "rows=2,width=9,add=0",
            "rows=1,width=16400",
        ],
    );
    check_shapes(
        "qk_norm",
        &[
            "",
            "tokens=3,heads=6,kv_heads=1,head_dim=64",
            "tokens=2,heads=3,kv_heads=3,head_dim=80",
        ],
    );
    // Of the last, each warp that ends a token has one head.
    check_shapes(
        "rope_kv",
        &[
            "",
            "tokens=3,heads=6,kv_heads=1,head_dim=80",
            "tokens=3,heads=6,kv_heads=1,head_dim=64",
            "tokens=3,heads=3,kv_heads=2,head_dim=128",
        ],
    );
    check_shapes("dummy_weights", &["", "rows=3,cols=13"]);
    check_shapes("sm_clock", &["", "blocks=1", "blocks=7"]);
    check_shapes(
        "advance",
        &["", "requests=300,page_size=1", "requests=3,kv_len=5"],
    );
    check_shapes("argmax_parts", &["", "requests=3,vocab=5000"]);
    check_shapes("argmax_rows", &["", "requests=3,vocab=5000"]);
    check_shapes("sample_filtered", &["", "requests=3,vocab=5000"]);
}

#[test]
fn every_product_does_what_its_entry_says() {
    let shapes = [
        "",
        "bias=1",
        "M=130,N=200,K=264",
        "M=130,N=224,K=272",
        "M=64,N=128,K=1024,splits=4",
    ];
    check_shapes("gemm_mma", &shapes);
    let shapes = [
        "",
        "M=5,N=200,K=264,bias=1",
        "M=8,splits=2",
        "M=8,N=512,bias=1",
        "M=16,N=208,bias=1,splits=1",
        "M=24,N=128",
        "M=32,N=128",
        "M=32,N=528,bias=1,splits=1",
    ];
    check_shapes("gemm_skinny", &shapes);
    let shapes = [
        "",
        "bias=1",
        "N=77,K=520",
        "N=80,K=528,bias=1",
        "N=512,K=2048",
    ];
    check_shapes("gemv", &shapes);
    check_shapes("gemm_reduce", &["", "bias=1", "M=3,N=77,splits=3"]);
}

#[test]
fn every_attention_does_what_its_entry_says() {
    for head_dim in crate::attention_prefill::launch::HEAD_DIMS {
        let of = |shape: &str| format!("head_dim={head_dim},{shape}");
        let shapes = [
            "",
            "requests=3,query_len=70,kv_len=97,heads=2,kv_heads=1",
            "requests=3,query_len=33,kv_len=99,page_size=1",
        ]
        .map(of);
        check_shapes("attention_prefill", &shapes.each_ref().map(String::as_str));
        // Of one slot to a page, three to a page: entries of a table end anywhere.
        let shapes = [
            "splits=1",
            "splits=3,kv_len=400",
            "requests=1,heads=20,kv_heads=1,kv_len=75",
            "requests=3,kv_len=77,page_size=1,splits=1",
            "requests=3,kv_len=333,page_size=3,splits=4",
        ];
        let shapes = shapes.map(of);
        let shapes = shapes.each_ref().map(String::as_str);
        check_shapes("attention_decode", &shapes);
        check_shapes("attention_decode_merge", &shapes);
    }
}

/// Every instance in the list is one that some shape takes, and its own plan gives it back.
#[test]
fn instances_of_tiles_can_be_asked_for() {
    for name in ["gemm_mma", "attention_prefill"] {
        let family = family(name).unwrap();
        for expression in family.instances(DType::BF16) {
            let parameters: Vec<&str> = expression.split([',', '<', '>']).map(str::trim).collect();
            let text = match name {
                "gemm_mma" if parameters.contains(&"false") => "K=1023".to_owned(),
                "gemm_mma" => "K=1024".to_owned(),
                _ => format!("head_dim={}", parameters[2]),
            };
            let shape = Shape::parse(family, &text)
                .unwrap()
                .with_instance(&expression);
            let plan = family.plan(&shape, Target::of_capability([9, 0])).unwrap();
            assert_eq!(plan.expression, expression);
        }
    }
}

/// Each tile of tensor cores, on the example.
#[test]
fn every_tile_does_what_its_entry_says() {
    let Some(cuda) = emulated(DType::BF16) else {
        return;
    };
    let gemm = family("gemm_mma").unwrap();
    for tile in gemm
        .instances(DType::BF16)
        .iter()
        .filter(|tile| tile.ends_with("true>"))
    {
        check(&cuda, gemm, &Shape::of(gemm).with_instance(tile));
    }
    let attention = family("attention_prefill").unwrap();
    for tile in attention.instances(DType::BF16) {
        let head_dim = tile.split(", ").nth(1).unwrap();
        let shape = Shape::parse(attention, &format!("head_dim={head_dim}")).unwrap();
        check(&cuda, attention, &shape.with_instance(&tile));
    }
}

#[test]
fn names_and_sources_are_told_apart() {
    let mut names: Vec<&str> = families().map(|family| family.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for family in families() {
        let defined = format!(" {}(", family.name);
        assert!(family.source.text.contains(&defined), "{}", family.name);
        assert!(!family.arguments.is_empty());
        // The example can be launched everywhere.
        for capability in [[8, 0], [8, 6], [8, 9], [9, 0], [10, 0], [12, 0]] {
            let plan = family
                .plan(&Shape::of(family), Target::of_capability(capability))
                .unwrap();
            assert!(family.instances(DType::BF16).contains(&plan.expression));
        }
    }
}

#[test]
fn a_shape_that_cannot_be_says_why() {
    let check = |name: &str, text: &str, expected: &str| {
        let family = family(name).unwrap();
        let error = Shape::parse(family, text)
            .and_then(|shape| family.plan(&shape, Target::of_capability([9, 0])))
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        "gemv",
        "M=2",
        r#"gemv has no dimension "M"; a shape of it has N, K, bias and dtype"#,
    );
    check(
        "gemm_mma",
        "M",
        r#""M" in a shape has not the form NAME=NUMBER"#,
    );
    check(
        "gemm_mma",
        "M=0",
        "M=0: it must be a whole number from 1 to 1073741824",
    );
    check(
        "gemm_mma",
        "M=-3",
        "M=-3: it must be a whole number from 1 to 1073741824",
    );
    check(
        "gemm_mma",
        "dtype=f32",
        "dtype=f32: the kernels have bf16 and f16",
    );
    check(
        "gemm_mma",
        "K=64,splits=9",
        "splits=9: 64 columns in steps of 64 cannot be cut into as many pieces",
    );
    check(
        "gemm_skinny",
        "m=33",
        "gemm_skinny: M=33, but it takes 32 rows at most; gemm_mma takes more",
    );
    check(
        "attention_decode",
        "head_dim=72",
        "head_dim=72: the attention kernels have [64, 80, 96, 128, 256]",
    );
    check(
        "attention_prefill",
        "heads=3",
        "heads=3 is no multiple of kv_heads=2",
    );
    check(
        "attention_prefill",
        "query_len=600",
        "query_len=600 is more than kv_len=512",
    );
}
