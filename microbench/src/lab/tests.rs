use stepscope_emulator::driver::take_reports;
use stepscope_kernels::DType;

use super::timeline::Events;
use super::*;
use crate::operations::{self, Case, Comparison};
use crate::testing::{assert_nothing_found, emulated};
use crate::{Error, Subject as _};

fn file(operation: &str, text: &str) -> Result<KernelFile, Error> {
    KernelFile::parse("mine.cu", text.to_owned(), operations::find(operation)?)
}

#[test]
fn every_starting_file_is_right() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    for operation in operations::all() {
        let file = file(operation.name, &start::text(operation)).unwrap();
        let shape = operation.shape("").unwrap();
        let case = Case::new(operation, &shape, 1).unwrap();
        for point in file.points() {
            let loaded = file.load(&cuda, &point, &shape, false).unwrap();
            let (launches, scratch) = (loaded.launches, loaded.scratch_bytes);
            let mut foreign = case.foreign(&cuda, 1, launches, scratch).unwrap();
            foreign.launch(0).unwrap();
            for comparison in foreign.compare().unwrap() {
                assert!(
                    comparison.is_right(),
                    "{} {point}: {comparison}",
                    operation.name
                );
            }
            assert_nothing_found();
        }
    }
}

/// What is launched several times is put back before it is compared, and stays where the kernel's arguments say.
#[test]
fn a_kernel_that_ran_before_is_compared_from_the_start() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    for name in ["advance", "add_rms_norm", "argmax", "sample"] {
        let operation = operations::find(name).unwrap();
        let file = file(name, &start::text(operation)).unwrap();
        let shape = operation.shape("").unwrap();
        let case = Case::new(operation, &shape, 1).unwrap();
        let loaded = file
            .load(&cuda, &file.first_point(), &shape, false)
            .unwrap();
        let mut foreign = case.foreign(&cuda, 1, loaded.launches, 0).unwrap();
        for _ in 0..3 {
            foreign.launch(0).unwrap();
        }
        for comparison in foreign.compare().unwrap() {
            assert!(comparison.is_right(), "{name}: {comparison}");
        }
        assert_nothing_found();
    }
}

#[test]
fn starting_files_say_what_a_kernel_gets() {
    let text = start::text(operations::find("gemm").unwrap());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "// gemm: product with a weight.");
    assert!(
        lines.contains(&"//   const STORAGE *x       [M, K]  activations"),
        "{text}"
    );
    assert!(
        lines.contains(&"//   STORAGE *out           [M, N]  written: x @ weight^T + bias"),
        "{text}"
    );
    assert!(lines.iter().all(|line| line.len() <= 240));
}

#[test]
fn a_second_kernel_finds_what_the_first_left_in_scratch() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let text = "#include \"prelude.cuh\"
// stepscope: scratch = rows * width * 4
// stepscope: kernel = gate<STORAGE>, grid = rows, block = 64
template <typename T> __global__ void gate(const T *gate_up, T *out, unsigned rows, unsigned width, float *scratch) {
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        float x = to_float(gate_up[blockIdx.x * 2 * width + i]);
        scratch[blockIdx.x * width + i] = x / (1.0f + expf(-x));
    }
}
// stepscope: kernel = multiply, grid = ceil(rows * width / BLOCK), block = BLOCK
// stepscope: param BLOCK = 32, 64
__global__ void multiply(const STORAGE *gate_up, STORAGE *out, unsigned rows, unsigned width, float *scratch) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < rows * width) out[i] = from_float<STORAGE>(scratch[i] * to_float(gate_up[i / width * 2 * width + width + i % width]));
}
";
    let file = file("silu_mul", text).unwrap();
    let operation = operations::find("silu_mul").unwrap();
    let shape = operation.shape("rows=3,width=50").unwrap();
    let point = file.point("BLOCK=64").unwrap();
    assert_eq!(file.points().len(), 2);
    let loaded = file.load(&cuda, &point, &shape, false).unwrap();
    assert_eq!(loaded.kernels, ["gate<bf16>", "multiply"]);
    assert_eq!(loaded.launches[1].launch.grid, [3, 1, 1]);
    assert_eq!(loaded.scratch_bytes, 600);
    assert!(loaded.compiled.kernel("multiply").unwrap().registers > 0);
    let case = Case::new(operation, &shape, 1).unwrap();
    let mut foreign = case
        .foreign(&cuda, 1, loaded.launches, loaded.scratch_bytes)
        .unwrap();
    foreign.launch(0).unwrap();
    let comparisons = foreign.compare().unwrap();
    assert!(
        comparisons.iter().all(Comparison::is_right),
        "{comparisons:?}"
    );
    assert_nothing_found();
}

#[test]
fn mistakes_are_told_with_file_and_line() {
    let check = |text: &str, shape: &str, expected: &str| {
        let operation = operations::find("gemm").unwrap();
        let file = KernelFile::parse("dir/mine.cu", text.to_owned(), operation);
        let error =
            file.and_then(|file| file.geometry(&file.first_point(), &operation.shape(shape)?, 132));
        assert_eq!(error.unwrap_err().to_string(), expected);
    };
    check(
        "\n// stepscope: kernel = k, grid = M / 3, block = 1\n",
        "",
        "dir/mine.cu:2: grid at M=64,N=128,K=256,bias=0,dtype=bf16: it is 64/3, which is not whole: write ceil(…) or floor(…)",
    );
    check(
        "// stepscope: kernel = k, grid = M - 64, block = 1\n",
        "",
        "dir/mine.cu:1: grid at M=64,N=128,K=256,bias=0,dtype=bf16: it is 0, but must be from 1 to 4294967295",
    );
    check(
        "// stepscope: kernel = k, grid = M, block = B\n",
        "M=3",
        "dir/mine.cu:1: block at M=3,N=128,K=256,bias=0,dtype=bf16: B is neither a dimension nor a parameter",
    );
    check(
        "\n\n// stepscope: param K = 3\n// stepscope: kernel = k, grid = M, block = 1",
        "",
        "dir/mine.cu:3: param K is called like something that gemm has; choose another name",
    );
    check(
        "void f();",
        "",
        "dir/mine.cu: no line says which kernel to launch: add `// stepscope: kernel = NAME, grid = …, block = …`",
    );
}

#[test]
fn the_compiler_names_the_line() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let text = "// stepscope: kernel = k, grid = 1, block = 1\nextern \"C\" __global__ void k() {\n    int x = y;\n}\n";
    let file = file("silu_mul", text).unwrap();
    let shape = operations::find("silu_mul").unwrap().shape("").unwrap();
    let error = file
        .load(&cuda, &file.first_point(), &shape, false)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("mine.cu(3): error: identifier \"y\" is undefined"),
        "{error}"
    );
}

#[test]
fn a_kernel_writes_events_where_it_is_asked_to() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let text = "#include \"prelude.cuh\"
#include \"timeline.cuh\"
// stepscope: kernel = k, grid = rows, block = 64
// stepscope: role 0 = load
// stepscope: role 1 = store
extern \"C\" __global__ void k(const STORAGE *gate_up, STORAGE *out, unsigned rows, unsigned width) {
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
        timeline_begin(0);
        float gate = to_float(gate_up[blockIdx.x * 2 * width + i]), up = to_float(gate_up[blockIdx.x * 2 * width + width + i]);
        timeline_end(0);
        timeline_begin(1);
        out[blockIdx.x * width + i] = from_float<STORAGE>(gate / (1.0f + expf(-gate)) * up);
        timeline_end(1);
    }
}
";
    let operation = operations::find("silu_mul").unwrap();
    let file = file("silu_mul", text).unwrap();
    let run = |shape: &str, has_timeline: bool| {
        let shape = operation.shape(shape).unwrap();
        let case = Case::new(operation, &shape, 1).unwrap();
        let loaded = file
            .load(&cuda, &file.first_point(), &shape, has_timeline)
            .unwrap();
        if has_timeline {
            Events::clear(&loaded.module, cuda.stream()).unwrap();
        }
        let mut foreign = case.foreign(&cuda, 1, loaded.launches, 0).unwrap();
        foreign.launch(0).unwrap();
        assert!(foreign.compare().unwrap().iter().all(Comparison::is_right));
        Events::read(&loaded.module, cuda.stream())
    };
    let events = run("rows=3,width=128", true).unwrap();
    // Three blocks of two warps go round twice, with four events each time.
    assert_eq!((events.events.len(), events.lost), (48, 0));
    let spans = events.spans();
    assert_eq!((spans.spans.len(), spans.unpaired), (24, 0));
    assert_eq!(spans.spans.iter().filter(|s| s.begin.role == 1).count(), 12);
    assert!(
        spans
            .spans
            .iter()
            .all(|s| s.begin.block < 3 && s.begin.warp < 2)
    );
    // More than there is room for: 40 blocks, 2 warps, 256 rounds, 4 events.
    let events = run("rows=40,width=16384", true).unwrap();
    assert_eq!(
        (events.events.len(), events.lost),
        (65_536, 40 * 2 * 256 * 4 - 65_536)
    );
    let error = run("rows=3,width=128", false).unwrap_err().to_string();
    assert!(
        error.starts_with("the kernel writes no events: #include"),
        "{error}"
    );
    take_reports(0);
    assert_eq!(DType::BF16, cuda.dtype());
}
