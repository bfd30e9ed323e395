//! Compiling with the real NVRTC, which needs neither a GPU nor a driver.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use stepscope_device::nvrtc::{Arch, Cache, Compiler, Options, Program};
use stepscope_device::{Kind, nvrtc};

/// NVRTC, or one line that says why the test is skipped.
fn compiler() -> Option<&'static Compiler> {
    static COMPILER: OnceLock<Result<Compiler, String>> = OnceLock::new();
    match COMPILER.get_or_init(|| Compiler::open().map_err(|error| error.to_string())) {
        Ok(compiler) => Some(compiler),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

const HOPPER: &str = "sm_90a";

fn arch(text: &str) -> Arch {
    text.parse().unwrap()
}

/// Reverses a block through shared memory.
const REVERSE: &str = r#"
#include "sizes.cuh"
template <int N, typename T> __global__ void reverse(T *x) {
    __shared__ T tile[N * TIMES];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[N - 1 - threadIdx.x];
}
"#;

fn reverse() -> Program {
    Program::new("kernels/cuda/reverse.cu", REVERSE)
        .header("sizes.cuh", "#define TIMES 1\n")
        .kernel("reverse<32, float>")
        .kernel("reverse<64, unsigned short>")
}

#[test]
fn templates_become_kernels_with_names_and_reports() {
    let Some(compiler) = compiler() else { return };
    let compiled = compiler.compile(&reverse(), arch(HOPPER)).unwrap();
    assert_eq!(&compiled.cubin[..4], b"\x7fELF");
    assert!(compiled.ptx.contains(".target sm_90a"), "{}", compiled.ptx);
    let name = compiled.lowered_name("reverse<32, float>");
    assert_eq!(name, "_Z7reverseILi32EfEvPT0_");
    assert!(compiled.ptx.contains(name));
    let shared = ["reverse<32, float>", "reverse<64, unsigned short>"].map(|expression| {
        let kernel = compiled.kernel(expression).unwrap();
        assert!(kernel.registers > 0 && kernel.barriers == 1 && !kernel.spills());
        kernel.shared_bytes
    });
    assert_eq!(shared, [128, 128]);
    assert_eq!(compiled.image(), compiled.cubin);
}

#[test]
fn options_reach_the_compiler() {
    let Some(compiler) = compiler() else { return };
    let program = |fast_math| {
        let source = r#"extern "C" __global__ void divide(float *x) { x[0] = x[1] / x[2]; }"#;
        Program::new("divide.cu", source).options(Options {
            fast_math,
            ..Options::default()
        })
    };
    let ptx = |fast_math| {
        compiler
            .compile(&program(fast_math), arch("sm_80"))
            .unwrap()
            .ptx
    };
    assert!(ptx(false).contains("div.rn.f32"));
    assert!(ptx(true).contains("div.approx.ftz.f32"));
    let limited = Options {
        max_registers: Some(16),
        line_info: true,
        ..Options::default()
    };
    let sum = r#"extern "C" __global__ void sum(float *x) {
        float v[64];
        for (int i = 0; i < 64; ++i) v[i] = x[i * 32];
        __syncthreads();
        for (int i = 0; i < 64; ++i) x[i * 32] = v[i] * v[(i * 7) % 64];
    }"#;
    let compiled = compiler
        .compile(&Program::new("sum.cu", sum).options(limited), arch("sm_80"))
        .unwrap();
    let kernel = compiled.kernel("sum").unwrap();
    assert!(kernel.registers <= 24, "{kernel:?}");
    assert!(kernel.spills(), "{kernel:?}");
    assert!(compiled.ptx.contains(".loc"), "no source lines");
}

#[test]
fn a_virtual_architecture_gives_ptx_alone() {
    let Some(compiler) = compiler() else { return };
    let compiled = compiler.compile(&reverse(), Arch::virtual_of(80)).unwrap();
    assert!(compiled.cubin.is_empty());
    assert!(compiled.ptx.contains(".target sm_80"));
    assert_eq!(compiled.image(), compiled.ptx.as_bytes());
}

#[test]
fn every_architecture_of_the_engine_is_supported() {
    let Some(compiler) = compiler() else { return };
    for number in [80, 86, 89, 90] {
        assert!(
            compiler.supported().contains(&number),
            "{:?}",
            compiler.supported()
        );
        let arch = compiler.arch_for(number / 10, number % 10).unwrap();
        assert!(arch.is_real());
    }
}

#[test]
fn mistakes_are_named_by_file_and_line() {
    let Some(compiler) = compiler() else { return };
    let check = |program: Program, expected: &str| {
        let error = compiler.compile(&program, arch(HOPPER)).unwrap_err();
        assert_eq!(error.kind(), Kind::Compile);
        assert_eq!(error.to_string(), expected);
        assert!(error.compiler_log().is_some_and(|log| !log.is_empty()));
    };
    check(
        Program::new(
            "kernels/cuda/bad.cu",
            "__global__ void f() {\n  int x = y;\n  z();\n}\n",
        ),
        "kernels/cuda/bad.cu does not compile for sm_90a: kernels/cuda/bad.cu(2): error: identifier \"y\" is undefined (and 1 more)",
    );
    check(
        Program::new("bad.cu", "#include \"h.cuh\"\n").header("h.cuh", "\n__device__ int x = ;\n"),
        "bad.cu does not compile for sm_90a: h.cuh(2): error: expected an expression",
    );
    check(
        Program::new(
            "bad.cu",
            "__global__ void f() { asm volatile(\"foo.bar;\"); }\n",
        ),
        "bad.cu does not compile for sm_90a: ptxas application ptx input, line 21; error   : Unknown modifier '.bar'",
    );
    check(
        Program::new("bad.cu", "").options(Options {
            others: vec!["--no-such-option".to_owned()],
            ..Options::default()
        }),
        "bad.cu does not compile for sm_90a: nvrtc: error: unrecognized option --no-such-option found",
    );
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    let Some(compiler) = compiler() else { return };
    let program = Program::new("k.cu", "__global__ void f() {}\n").kernel("g<3>");
    let error = compiler.compile(&program, arch(HOPPER)).unwrap_err();
    assert_eq!(error.kind(), Kind::Compile);
    assert!(error.to_string().contains("\"g\" is undefined"), "{error}");
}

#[test]
fn warnings_come_back_with_the_code() {
    let Some(compiler) = compiler() else { return };
    let source = "extern \"C\" __global__ void f() {\n  int unused;\n}\n";
    let compiled = compiler
        .compile(&Program::new("w.cu", source), arch("sm_80"))
        .unwrap();
    let warnings: Vec<String> = compiled
        .facts
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        warnings,
        ["w.cu(2): warning: #177-D: variable \"unused\" was declared but never referenced"]
    );
}

/// `wgmma` whose accumulator is read too early is made serial by ptxas, which says so.
#[test]
fn serial_wgmma_is_an_advisory() {
    let Some(compiler) = compiler() else { return };
    let source = r#"
extern "C" __global__ void mma(float *out, unsigned long long a, unsigned long long b) {
    float d[4] = {0, 0, 0, 0};
    for (int i = 0; i < 4; ++i) {
        asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
        d[i] += 1.0f;
    }
    out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
"#;
    let compiled = compiler
        .compile(&Program::new("mma.cu", source), arch(HOPPER))
        .unwrap();
    let advisories = &compiled.facts.report.advisories;
    assert!(
        advisories
            .iter()
            .any(|advisory| advisory.code.starts_with("C75") && advisory.text.contains("wgmma")),
        "{advisories:?}"
    );
}

#[test]
fn the_cache_gives_what_was_compiled_and_rebuilds_what_is_damaged() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::in_folder(folder.path());
    let compiled = compiler
        .compile_cached(&reverse(), arch(HOPPER), &cache)
        .unwrap();
    assert_eq!(cache.usage().files, 1);
    let again = compiler
        .compile_cached(&reverse(), arch(HOPPER), &cache)
        .unwrap();
    assert_eq!(again, compiled);
    let file = fs::read_dir(folder.path().join(HOPPER))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..100]).unwrap();
    let rebuilt = compiler
        .compile_cached(&reverse(), arch(HOPPER), &cache)
        .unwrap();
    assert_eq!(rebuilt.cubin, compiled.cubin);
    assert_eq!(fs::read(&file).unwrap().len(), whole.len());
    // Another architecture is another file.
    compiler
        .compile_cached(&reverse(), arch("sm_80"), &cache)
        .unwrap();
    assert_eq!(cache.usage().files, 2);
}

#[test]
fn prebuilt_programs_are_found_whatever_compiler_made_them() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::in_folder(folder.path());
    let compiled = compiler.compile(&reverse(), arch(HOPPER)).unwrap();
    assert_eq!(cache.prebuilt(&reverse(), arch(HOPPER)), None);
    cache.prebuild(&reverse(), arch(HOPPER), &compiled).unwrap();
    let found = cache.prebuilt(&reverse(), arch(HOPPER)).unwrap();
    assert_eq!(
        (&found.cubin, &found.facts),
        (&compiled.cubin, &compiled.facts)
    );
    assert_eq!(found.ptx, "");
    // Another architecture or another source is not there.
    assert_eq!(cache.prebuilt(&reverse(), arch("sm_80")), None);
    let other = reverse().kernel("reverse<128, float>");
    assert_eq!(cache.prebuilt(&other, arch(HOPPER)), None);
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_only() {
    let Some(compiler) = compiler() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let cache = Cache::in_folder(file.path().join("below a file"));
    assert!(
        compiler
            .compile_cached(&reverse(), arch("sm_80"), &cache)
            .is_ok()
    );
}

#[test]
fn threads_that_compile_the_same_program_agree() {
    let Some(compiler) = compiler() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::in_folder(folder.path());
    let cubins: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    compiler
                        .compile_cached(&reverse(), arch("sm_80"), &cache)
                        .unwrap()
                        .cubin
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(cubins.windows(2).all(|pair| pair[0] == pair[1]));
    let names: Vec<_> = fs::read_dir(folder.path().join("sm_80")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Names the folder of the cache to a process that the next test starts.
const CHILD: &str = "STEPSCOPE_TEST_CHILD_CACHE";

#[test]
fn processes_that_compile_the_same_program_agree() {
    let Some(compiler) = compiler() else { return };
    let compile = |folder: &Path| {
        let cache = Cache::in_folder(folder);
        compiler
            .compile_cached(&reverse(), arch("sm_80"), &cache)
            .unwrap()
    };
    if let Some(folder) = std::env::var_os(CHILD) {
        compile(Path::new(&folder));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes_that_compile_the_same_program_agree"])
                .env(CHILD, folder.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let names: Vec<_> = fs::read_dir(folder.path().join("sm_80")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(compile(folder.path()).ptx.contains(".target sm_80"));
}

#[test]
fn the_users_cache_has_a_place() {
    let folder = nvrtc::cache_folder();
    assert!(folder.is_none_or(|folder| folder.is_absolute()));
}
