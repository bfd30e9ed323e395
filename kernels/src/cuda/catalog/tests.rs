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
    println!(
        "{what}: tensor {} of {}, float {} of {:?}, bytes {} of {}",
        counters.tensor_flops,
        counted.tensor_flops,
        counters.f32_flops,
        counted.float_flops,
        counters.compulsory_read_bytes + counters.compulsory_write_bytes,
        counted.bytes
    );
    assert_eq!(counters.tensor_flops, counted.tensor_flops, "{what}");
    if let Some(flops) = counted.float_flops {
        assert_eq!(counters.f32_flops, flops, "{what}");
    }
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
    // Rows of other lengths end within a sector.
    let is_example = shape.values() == Shape::of(family).values();
    if family.promises.coalesced && is_example {
        let sectors = counters.global_load_sectors + counters.global_store_sectors;
        assert_eq!(sectors, counters.global_ideal_sectors, "{what}");
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
        &["", "add=0", "rows=3,width=2056", "rows=2,width=9,add=0"],
    );
    check_shapes("qk_norm", &["", "tokens=3,heads=6,kv_heads=1,head_dim=64"]);
    check_shapes("rope_kv", &["", "tokens=3,heads=6,kv_heads=1,head_dim=80"]);
    check_shapes("dummy_weights", &["", "rows=3,cols=13"]);
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
        "M=64,N=128,K=1024,splits=4",
    ];
    check_shapes("gemm_mma", &shapes);
    let shapes = [
        "",
        "M=5,N=200,K=264,bias=1",
        "M=8,splits=2",
        "M=32,N=128",
        "M=24,N=128",
    ];
    check_shapes("gemm_skinny", &shapes);
    check_shapes("gemv", &["", "bias=1", "N=77,K=520", "N=512,K=2048"]);
    check_shapes("gemm_reduce", &["", "bias=1", "M=3,N=77,splits=3"]);
}

#[test]
fn every_attention_does_what_its_entry_says() {
    for head_dim in crate::attention_prefill::launch::HEAD_DIMS {
        let of = |shape: &str| format!("head_dim={head_dim},{shape}");
        let shapes = ["", "requests=3,query_len=70,kv_len=97,heads=2,kv_heads=1"].map(of);
        check_shapes("attention_prefill", &shapes.each_ref().map(String::as_str));
        let shapes = [
            "splits=1",
            "splits=3,kv_len=400",
            "requests=1,heads=20,kv_heads=1,kv_len=75",
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
