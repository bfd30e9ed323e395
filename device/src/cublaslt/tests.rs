//! Against a cuBLASLt that notes what arrives, on an emulated device; and against the real one, where there is one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::path::PathBuf;

use super::api::Suggestion;
use super::matmul::{Description, Preferences};
use super::*;
use crate::driver::{DevicePointer, Driver, Stream};
use crate::library::Library;
use crate::{Error, Kind};

/// What the library was told, in this thread.
#[derive(Default)]
struct Fake {
    /// Handles that were made and not destroyed, with what they are.
    live: BTreeMap<usize, &'static str>,
    made: usize,
    /// Element type, rows, columns, leading dimension.
    layouts: BTreeMap<usize, [i64; 4]>,
    /// Compute type and scale type, then attributes in the order of their numbers.
    operation: [u32; 2],
    attributes: BTreeMap<u32, u64>,
    preferences: BTreeMap<u32, u64>,
    heuristic: Vec<usize>,
    multiplied: Vec<usize>,
    suggestions: Vec<(u32, usize)>,
    fails: Option<(&'static str, u32)>,
    lacks: Option<&'static str>,
}

thread_local! {
    static FAKE: RefCell<Fake> = RefCell::default();
}

fn enter(name: &'static str) -> Result<(), u32> {
    FAKE.with_borrow(|fake| match fake.fails {
        Some((function, status)) if function == name => Err(status),
        _ => Ok(()),
    })
}

fn make(what: &'static str, place: *mut usize) -> usize {
    FAKE.with_borrow_mut(|fake| {
        fake.made += 1;
        fake.live.insert(fake.made, what);
        // SAFETY: the caller has a place for a handle.
        unsafe { *place = fake.made };
        fake.made
    })
}

/// The number of `bytes` bytes at `value`.
unsafe fn number(value: *const c_void, bytes: usize) -> u64 {
    match bytes {
        // SAFETY: the caller says that there are as many bytes.
        4 => u64::from(unsafe { value.cast::<u32>().read_unaligned() }),
        // SAFETY: as above.
        8 => unsafe { value.cast::<u64>().read_unaligned() },
        _ => panic!("an attribute of {bytes} bytes"),
    }
}

macro_rules! fakes {
    ($($name:ident($($argument:ident: $type:ty),*) $body:block)*) => {
        $(
            #[allow(non_snake_case, reason = "the names are NVIDIA's")]
            #[allow(clippy::too_many_arguments, reason = "the signatures are NVIDIA's")]
            unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                match enter(stringify!($name)) {
                    Err(status) => status,
                    Ok(()) => { $body; 0 }
                }
            }
        )*
        fn find(name: &str) -> Option<*const c_void> {
            if FAKE.with_borrow(|fake| fake.lacks == Some(name)) {
                return None;
            }
            match name {
                $( stringify!($name) => Some($name as *const c_void), )*
                "cublasLtGetVersion" => Some(version as *const c_void),
                _ => None,
            }
        }
    };
}

extern "C" fn version() -> usize {
    130_103
}

fakes! {
    cublasLtCreate(place: *mut usize) { make("handle", place); }
    cublasLtDestroy(it: usize) { destroy("handle", it); }
    cublasLtMatmulDescCreate(place: *mut usize, compute: u32, scale: u32) {
        make("operation", place);
        FAKE.with_borrow_mut(|fake| fake.operation = [compute, scale]);
    }
    cublasLtMatmulDescSetAttribute(it: usize, attribute: u32, value: *const c_void, bytes: usize) {
        // SAFETY: the value has as many bytes.
        let value = unsafe { number(value, bytes) };
        FAKE.with_borrow_mut(|fake| {
            assert_eq!(fake.live[&it], "operation");
            fake.attributes.insert(attribute, value);
        });
    }
    cublasLtMatmulDescDestroy(it: usize) { destroy("operation", it); }
    cublasLtMatrixLayoutCreate(place: *mut usize, element: u32, rows: u64, columns: u64, leading: i64) {
        let it = make("layout", place);
        let layout = [i64::from(element), rows.cast_signed(), columns.cast_signed(), leading];
        FAKE.with_borrow_mut(|fake| fake.layouts.insert(it, layout));
    }
    cublasLtMatrixLayoutDestroy(it: usize) { destroy("layout", it); }
    cublasLtMatmulPreferenceCreate(place: *mut usize) { make("preferences", place); }
    cublasLtMatmulPreferenceSetAttribute(it: usize, attribute: u32, value: *const c_void, bytes: usize) {
        // SAFETY: the value has as many bytes.
        let value = unsafe { number(value, bytes) };
        FAKE.with_borrow_mut(|fake| {
            assert_eq!(fake.live[&it], "preferences");
            fake.preferences.insert(attribute, value);
        });
    }
    cublasLtMatmulPreferenceDestroy(it: usize) { destroy("preferences", it); }
    cublasLtMatmulAlgoGetHeuristic(
        handle: usize, operation: usize, a: usize, b: usize, c: usize, d: usize, preferences: usize,
        wanted: c_int, results: *mut Suggestion, given: *mut c_int
    ) {
        FAKE.with_borrow_mut(|fake| {
            fake.heuristic = vec![handle, operation, a, b, c, d, preferences];
            assert!(fake.suggestions.len() <= usize::try_from(wanted).unwrap());
            for (index, &(status, workspace_bytes)) in fake.suggestions.iter().enumerate() {
                let mut suggestion = Suggestion { workspace_bytes, status, waves: 0.5, ..Suggestion::EMPTY };
                suggestion.algorithm.data = [index as u64; 8];
                // SAFETY: there is room for as many as are wanted.
                unsafe { results.add(index).write(suggestion) };
            }
            // SAFETY: the caller has a place for the count.
            unsafe { *given = c_int::try_from(fake.suggestions.len()).unwrap() };
        });
    }
    cublasLtMatmul(
        handle: usize, operation: usize, alpha: *const f32, a: usize, a_layout: usize, b: usize, b_layout: usize,
        beta: *const f32, c: usize, c_layout: usize, d: usize, d_layout: usize, algorithm: *const u64,
        workspace: usize, workspace_bytes: usize, stream: usize
    ) {
        // SAFETY: the factors are f32, as the operation's scale type says, and an algorithm is eight words.
        let (alpha, beta, algorithm) = unsafe { (*alpha, *beta, *algorithm.add(7)) };
        assert_eq!((alpha, beta), (1.0, 0.0));
        assert_eq!((c, c_layout), (d, d_layout));
        assert_eq!(workspace == 0, workspace_bytes == 0);
        assert_ne!(stream, 0);
        FAKE.with_borrow_mut(|fake| {
            assert_eq!(fake.live[&handle], "handle");
            assert_eq!(fake.live[&operation], "operation");
            let algorithm = usize::try_from(algorithm).unwrap();
            fake.multiplied = vec![a, a_layout, b, b_layout, d, d_layout, algorithm, workspace_bytes];
        });
    }
}

fn destroy(what: &str, it: usize) {
    let was = FAKE.with_borrow_mut(|fake| fake.live.remove(&it));
    assert_eq!(was, Some(what));
}

fn library() -> Result<Arc<CublasLt>, Error> {
    // SAFETY: the functions are those above, with the signatures of cublasLt.h as integers and pointers of full width.
    unsafe { CublasLt::with_functions(PathBuf::from("fake"), Origin::Program, find) }
}

/// A handle on an emulated device, of a library that suggests these: status and bytes of workspace.
fn handle(suggestions: &[(u32, usize)]) -> (Arc<Handle>, Arc<Stream>) {
    FAKE.with_borrow_mut(|fake| fake.suggestions = suggestions.to_vec());
    let context = context();
    let stream = Stream::new(&context).unwrap();
    let handle = Handle::new(&library().unwrap(), &context).unwrap();
    (Arc::new(handle), stream)
}

fn context() -> Arc<Context> {
    // SAFETY: the functions are the emulator's.
    let driver = unsafe { Driver::emulated(stepscope_emulator::driver::symbol) }.unwrap();
    Context::new(&driver, 0).unwrap()
}

const PROBLEM: Problem = Problem {
    m: 3,
    n: 64,
    k: 128,
    element: Element::Bf16,
    bias: None,
};

/// The layouts of A, B and D for `problem`, and the numbers of the element type, rows, columns and leading dimension of each.
fn planned_layouts(problem: &Problem) -> [[i64; 4]; 3] {
    let (handle, _) = handle(&[(0, 0)]);
    let _matmul = Matmul::new(&handle, problem, 0).unwrap();
    FAKE.with_borrow(|fake| {
        let [_, _, a, b, c, d, _] = fake.heuristic[..] else {
            panic!("{:?}", fake.heuristic)
        };
        assert_eq!(c, d);
        [a, b, d].map(|it| fake.layouts[&it])
    })
}

#[test]
fn our_rows_are_its_columns() {
    const BF16: i64 = 14;
    const F16: i64 = 2;
    assert_eq!(
        planned_layouts(&PROBLEM),
        [[BF16, 128, 64, 128], [BF16, 128, 3, 128], [BF16, 64, 3, 64]]
    );
    let problem = Problem {
        m: 512,
        n: 7,
        k: 1,
        element: Element::F16,
        bias: None,
    };
    assert_eq!(
        planned_layouts(&problem),
        [[F16, 1, 7, 1], [F16, 1, 512, 1], [F16, 7, 512, 7]]
    );
}

#[test]
fn the_operation_is_a_transposed_times_b_summed_in_f32() {
    const TRANSPOSE_A: u32 = 3;
    const TRANSPOSE_B: u32 = 4;
    const EPILOGUE: u32 = 7;
    const BIAS_POINTER: u32 = 8;
    const MOST_WORKSPACE: u32 = 1;
    let (handle, _) = handle(&[(0, 0)]);
    let _matmul = Matmul::new(&handle, &PROBLEM, 1 << 20).unwrap();
    FAKE.with_borrow(|fake| {
        assert_eq!(fake.operation, [68, 0]);
        let expected = BTreeMap::from([(TRANSPOSE_A, 1), (TRANSPOSE_B, 0)]);
        assert_eq!(fake.attributes, expected);
        assert_eq!(
            fake.preferences,
            BTreeMap::from([(MOST_WORKSPACE, 1 << 20)])
        );
    });
    let with_bias = Problem {
        bias: Some(DevicePointer(0x4_0000)),
        ..PROBLEM
    };
    let _matmul = Matmul::new(&handle, &with_bias, 0).unwrap();
    FAKE.with_borrow(|fake| {
        assert_eq!(fake.attributes[&EPILOGUE], 4);
        assert_eq!(fake.attributes[&BIAS_POINTER], 0x4_0000);
    });
}

#[test]
fn a_run_takes_the_weight_first_and_the_chosen_algorithm() {
    // The second does not work, and the fourth wants more workspace than there may be.
    let (handle, stream) = handle(&[(0, 0), (15, 0), (0, 4096), (0, 8192)]);
    let mut matmul = Matmul::new(&handle, &PROBLEM, 4096).unwrap();
    let workspaces: Vec<usize> = matmul
        .algorithms()
        .iter()
        .map(|algorithm| algorithm.workspace_bytes)
        .collect();
    assert_eq!(workspaces, [0, 4096]);
    let [x, weight, out] = [0x1000, 0x2000, 0x3000].map(DevicePointer);
    matmul.choose(1).unwrap();
    // SAFETY: the library touches no memory.
    unsafe { matmul.run(&stream, x, weight, out).unwrap() };
    FAKE.with_borrow(|fake| {
        let [_, _, a, b, _, d, _] = fake.heuristic[..] else {
            panic!("{:?}", fake.heuristic)
        };
        assert_eq!(fake.multiplied, [0x2000, a, 0x1000, b, 0x3000, d, 2, 4096]);
    });
    matmul.choose(0).unwrap();
    // SAFETY: as above.
    let answer = unsafe { matmul.run(&stream, x, weight, DevicePointer(0x3002)) };
    assert_eq!(
        answer.unwrap_err().to_string(),
        "out lies at 0x3002, but cuBLASLt's algorithms are chosen for multiples of 256"
    );
    assert_eq!(
        matmul.choose(2).unwrap_err().to_string(),
        "algorithm 2 of 2, for [3, 128] · [64, 128]ᵀ in bf16"
    );
    assert_eq!(matmul.chosen(), 0);
    let elsewhere = Stream::new(&context()).unwrap();
    // SAFETY: as above.
    let answer = unsafe { matmul.run(&elsewhere, x, weight, out) };
    assert_eq!(answer.unwrap_err().kind(), Kind::Arguments);
}

#[test]
fn everything_is_destroyed_once() {
    let (handle, _) = handle(&[(0, 64)]);
    let matmul = Matmul::new(&handle, &PROBLEM, 64).unwrap();
    drop(handle);
    // The plan keeps the handle; the preferences are gone already.
    let live: Vec<&str> = FAKE.with_borrow(|fake| fake.live.values().copied().collect());
    assert_eq!(live, ["handle", "operation", "layout", "layout", "layout"]);
    drop(matmul);
    assert!(FAKE.with_borrow(|fake| fake.live.is_empty()));
}

#[test]
fn each_call_that_fails_is_named_and_leaves_nothing_behind() {
    let (handle, stream) = handle(&[(0, 0)]);
    for function in [
        "cublasLtMatmulDescCreate",
        "cublasLtMatmulDescSetAttribute",
        "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate",
        "cublasLtMatmulPreferenceSetAttribute",
        "cublasLtMatmulAlgoGetHeuristic",
    ] {
        FAKE.with_borrow_mut(|fake| fake.fails = Some((function, 7)));
        let error = Matmul::new(&handle, &PROBLEM, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "planning [3, 128] · [64, 128]ᵀ in bf16: {function} failed: CUBLAS_STATUS_INVALID_VALUE (7)"
            )
        );
        assert_eq!((error.kind(), error.code()), (Kind::Blas, Some(7)));
        assert_eq!(FAKE.with_borrow(|fake| fake.live.len()), 1, "{function}");
    }
    FAKE.with_borrow_mut(|fake| fake.fails = Some(("cublasLtMatmul", 99)));
    let matmul = Matmul::new(&handle, &PROBLEM, 0).unwrap();
    let pointer = DevicePointer(0x1000);
    // SAFETY: the library touches no memory.
    let error = unsafe { matmul.run(&stream, pointer, pointer, pointer) }.unwrap_err();
    assert_eq!(
        error.to_string(),
        "computing [3, 128] · [64, 128]ᵀ in bf16: cublasLtMatmul failed: an error that this version of stepscope does not know (99)"
    );
    FAKE.with_borrow_mut(|fake| fake.fails = Some(("cublasLtCreate", 1)));
    let error = Handle::new(&library().unwrap(), &context()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("making cuBLASLt ready on device 0 (Emulated ")
            && error
                .to_string()
                .ends_with("cublasLtCreate failed: CUBLAS_STATUS_NOT_INITIALIZED (1)"),
        "{error}"
    );
}

#[test]
fn what_it_has_no_algorithm_for_is_an_error() {
    for suggestions in [&[][..], &[(15, 0), (0, 100)]] {
        let (handle, _) = handle(suggestions);
        let error = Matmul::new(&handle, &PROBLEM, 99).unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::Blas, Some(15)));
    }
    let (handle, _) = handle(&[(0, 0)]);
    let empty = Problem { m: 0, ..PROBLEM };
    assert_eq!(
        Matmul::new(&handle, &empty, 0).unwrap_err().to_string(),
        "x has 0 rows of 128 elements; cuBLASLt takes 1 to 2147483647"
    );
}

#[test]
fn a_function_that_is_missing_is_an_error_of_its_call() {
    let (handle, _) = handle(&[(0, 0)]);
    assert_eq!(handle.library().version(), "13.1.3");
    FAKE.with_borrow_mut(|fake| fake.lacks = Some("cublasLtMatmulDescCreate"));
    let handle = Handle::new(&library().unwrap(), handle.context()).unwrap();
    let error = Matmul::new(&Arc::new(handle), &PROBLEM, 0).unwrap_err();
    assert_eq!(error.kind(), Kind::MissingFunction);
    assert!(
        error.to_string().starts_with(
            "fake has no cublasLtMatmulDescCreate, which came with CUDA 11.0; `pip install nvidia-cublas`"
        ),
        "{error}"
    );
    FAKE.with_borrow_mut(|fake| fake.lacks = Some("cublasLtGetVersion"));
    assert_eq!(library().unwrap_err().kind(), Kind::MissingFunction);
}

/// The library itself, where this machine has it: it opens, knows its version, takes our attributes, whose sizes it checks, and is
/// not let near a device that is none.
#[test]
fn the_real_library_opens_without_a_gpu() {
    let library = match CublasLt::open() {
        Ok(library) => library,
        Err(error) => {
            assert_eq!(error.kind(), Kind::MissingLibrary);
            let text = error.to_string();
            let way_out = Library::CublasLt.way_out();
            assert!(
                text.contains(way_out) || text.contains("STEPSCOPE_CUBLASLT="),
                "{text}"
            );
            println!("skipped: {text}");
            return;
        }
    };
    let major = library.version().split('.').next().unwrap().parse::<u32>();
    assert!((11..100).contains(&major.unwrap()), "{library:?}");
    for element in [Element::Bf16, Element::F16] {
        let bias = Some(DevicePointer(0x1000));
        let problem = Problem {
            element,
            bias,
            ..PROBLEM
        };
        Description::new(&library, &problem).unwrap();
    }
    Preferences::new(&library, 1 << 20).unwrap();
    let error = Handle::new(&library, &context()).unwrap_err();
    assert_eq!(error.kind(), Kind::NoDevice);
    assert!(
        error
            .to_string()
            .starts_with("cuBLASLt runs on NVIDIA's GPUs only, and device 0 is Emulated"),
        "{error}"
    );
}
