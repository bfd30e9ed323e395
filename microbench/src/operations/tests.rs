use stepscope_device::driver::Launch;
use stepscope_device::nvrtc::Program;
use stepscope_emulator::driver::take_reports;
use stepscope_kernels::DType;
use stepscope_kernels::cuda::Cuda;

use super::*;
use crate::testing::{assert_nothing_found, emulated};
use crate::{Bench, Measured, Settings, Subject as _};

#[test]
fn the_kernels_of_this_program_are_right() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let bench = Bench::new(&cuda).unwrap();
    for operation in all() {
        let shape = operation.shape("").unwrap();
        let case = Case::new(operation, &shape, 1).unwrap();
        let mut builtin = case.builtin(&cuda, 2).unwrap();
        let measured = bench.measure(&mut builtin, &Settings::default()).unwrap();
        assert!(matches!(measured, Measured::Untimed(_)), "{measured:?}");
        assert!(!builtin.kernel().is_empty());
        // Twice on the same copy, where a residual would have been added twice.
        builtin.launch(0).unwrap();
        builtin.check().unwrap();
        assert_nothing_found();
        assert!(case.work().bytes > 0, "{}", operation.name);
    }
}

/// Every kernel of the catalogue is launched by an operation, but the one that reads the clock, which has no result to be right.
#[test]
fn every_kernel_belongs_to_an_operation() {
    use stepscope_kernels::cuda::catalog::{families, family_of};

    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let shapes = all().map(|operation| (operation, ""));
    // The examples take the tiles of tensor cores and whole sums; these take what is left.
    let others = [
        ("gemm", "M=3"),
        ("gemm", "M=64,N=64,K=4096"),
        ("attention_decode", "kv_len=2048,requests=1"),
    ]
    .map(|(name, shape)| (find(name).unwrap(), shape));
    let mut launched: Vec<&str> = Vec::new();
    for (operation, shape) in shapes.chain(others) {
        let shape = operation.shape(shape).unwrap();
        let case = Case::new(operation, &shape, 1).unwrap();
        for of in case.builtin(&cuda, 1).unwrap().launch_watched(0).unwrap() {
            launched.push(family_of(&of.expression, DType::BF16).unwrap().name);
        }
    }
    take_reports(0);
    let missing: Vec<&str> = families()
        .map(|family| family.name)
        .filter(|name| !launched.contains(name))
        .collect();
    assert_eq!(missing, ["sm_clock"]);
}

#[test]
fn a_watched_launch_names_its_kernels() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let gemm = find("gemm").unwrap();
    let case = Case::new(gemm, &gemm.shape("M=3,N=64,K=64").unwrap(), 1).unwrap();
    let launched = case.builtin(&cuda, 1).unwrap().launch_watched(0).unwrap();
    let names: Vec<&str> = launched.iter().map(|l| l.expression.as_str()).collect();
    assert_eq!(names, ["gemm_skinny<bf16, 1, 1, 8, true>"]);
    assert_eq!(launched[0].launch.grid, [4, 1, 1]);
    let compiled = cuda.compiled(names[0]).unwrap();
    assert!(compiled.kernel(names[0]).unwrap().registers > 0);
}

#[test]
fn values_are_those_that_the_arguments_say() {
    use super::probe::Value;

    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    for operation in all() {
        let shape = operation.shape("").unwrap();
        let inputs = Inputs::new(1, DType::BF16);
        let problem = (operation.on_cuda)(&cuda, &shape, &inputs).unwrap();
        let values = problem.values().unwrap();
        assert_eq!(
            values.len(),
            operation.arguments.len(),
            "{}",
            operation.name
        );
        for (argument, value) in operation.arguments.iter().zip(values) {
            let fits = match argument.kind {
                Kind::Storage | Kind::Floats | Kind::Integers => matches!(value, Value::Pointer(_)),
                Kind::Count => matches!(value, Value::Count(_)),
                Kind::Float => matches!(value, Value::Float(_)),
            };
            assert!(fits, "{} of {}", argument.name, operation.name);
            assert_eq!(value.bytes().len(), argument.bytes());
            if let Value::Count(count) = value {
                let known = shape
                    .values()
                    .iter()
                    .find(|(name, _)| *name == argument.name);
                if let Some(&(_, expected)) = known {
                    assert_eq!(count as usize, expected, "{}", argument.name);
                }
            }
        }
    }
}

/// A kernel of a person for `silu_mul`, whose body is `body`.
fn silu_mul(cuda: &Cuda, parameters: &str, body: &str) -> Result<Vec<Comparison>, Error> {
    let source = format!(
        "#include \"prelude.cuh\"\nextern \"C\" __global__ void mine({parameters}) {{ {body} }}\n"
    );
    let program = Program::new("mine.cu", source).header(
        "prelude.cuh",
        stepscope_kernels::cuda::catalog::PRELUDE_TEXT,
    );
    let (module, _) = cuda.load(&program)?;
    let launch = ForeignLaunch {
        function: module.function("mine")?,
        launch: Launch::of_blocks(4, 128),
    };
    let operation = find("silu_mul")?;
    let case = Case::new(operation, &operation.shape("rows=4,width=100")?, 5)?;
    let mut foreign = case.foreign(cuda, 1, vec![launch], 0)?;
    foreign.launch(0)?;
    foreign.compare()
}

const PARAMETERS: &str = "const bf16 *gate_up, bf16 *out, unsigned rows, unsigned width";
const BODY: &str = "for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
    float gate = to_float(gate_up[blockIdx.x * 2 * width + i]), up = to_float(gate_up[blockIdx.x * 2 * width + width + i]);
    out[blockIdx.x * width + i] = from_float<bf16>(gate / (1.0f + expf(-gate)) * up);
}";

#[test]
fn a_right_kernel_of_a_person_is_right() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let comparisons = silu_mul(&cuda, PARAMETERS, BODY).unwrap();
    assert!(
        comparisons.iter().all(Comparison::is_right),
        "{comparisons:?}"
    );
    assert_eq!(comparisons[0].elements, 400);
    assert_nothing_found();
}

#[test]
fn a_wrong_kernel_of_a_person_is_told_by_its_worst_element() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let wrong = BODY.replace("* up)", "* (blockIdx.x == 2 && i == 77 ? 2.0f * up : up))");
    let comparisons = silu_mul(&cuda, PARAMETERS, &wrong).unwrap();
    assert_eq!(comparisons[0].wrong, 1);
    assert_eq!(comparisons[0].worst.as_ref().unwrap().index, [2, 77]);
    let unwritten = BODY.replace("i < width", "i < width - 3");
    let comparisons = silu_mul(&cuda, PARAMETERS, &unwritten).unwrap();
    assert_eq!((comparisons[0].wrong, comparisons[0].unwritten), (12, 12));
    let beyond = BODY.replace("i < width", "i <= width");
    let comparisons = silu_mul(&cuda, PARAMETERS, &beyond).unwrap();
    assert!(!comparisons[0].is_guard_whole);
}

#[test]
fn other_parameters_are_refused_with_those_that_are_wanted() {
    let Some((cuda, _turn)) = emulated() else {
        return;
    };
    let check = |parameters: &str, expected: &str| {
        let error = silu_mul(&cuda, parameters, "").unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        "const bf16 *gate_up, bf16 *out, unsigned rows",
        "mine takes 3 parameters; a kernel for silu_mul has 4: (const bf16 *gate_up, bf16 *out, unsigned rows, unsigned width)",
    );
    check(
        "const bf16 *gate_up, bf16 *out, unsigned rows, u64 width",
        "mine has a parameter 4 of 8 bytes; a kernel for silu_mul has 4: (const bf16 *gate_up, bf16 *out, unsigned rows, unsigned width)",
    );
}

#[test]
fn shapes_are_refused_in_one_line() {
    let check = |name: &str, shape: &str, expected: &str| {
        let error = find(name)
            .and_then(|operation| operation.shape(shape))
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        "gem",
        "",
        "no operation is called gem; there are advance, embedding, rms_norm, add_rms_norm, qk_norm, gemm, gemv, rope_kv, attention_prefill, attention_decode, silu_mul, gather_rows, argmax, sample, dummy_weights",
    );
    check(
        "gemm",
        "Q=3",
        "gemm has no dimension \"Q\"; a shape of it has M, N, K, bias and dtype",
    );
    check(
        "gemm",
        "M=0",
        "M=0: it must be a whole number from 1 to 1073741824",
    );
    check(
        "rope_kv",
        "heads=3,kv_heads=2",
        "heads=3,kv_heads=2: heads must be a multiple of kv_heads",
    );
    check(
        "qk_norm",
        "head_dim=33",
        "head_dim=33: it must be an even number",
    );
    check(
        "attention_decode",
        "head_dim=48",
        "head_dim=48: the attention kernels have 64, 80, 96, 128 and 256",
    );
    check(
        "attention_prefill",
        "query_len=9,kv_len=5",
        "query_len=9,kv_len=5: a request's rows are the last of its positions",
    );
    check(
        "gather_rows",
        "requests=9,tokens=5",
        "requests=9,tokens=5: each request has a row of its own among the tokens",
    );
    check(
        "advance",
        "requests=1024,kv_len=65536",
        "requests=1024,kv_len=65536,page_size=16: their pool may have 268500992 slots, but at most 16777216 can be told apart",
    );
    check(
        "sample",
        "top_p_percent=101",
        "top_p_percent=101: it must be at most 100",
    );
}
