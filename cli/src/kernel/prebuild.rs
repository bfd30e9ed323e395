//! `stepscope kernel prebuild`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stepscope_device::nvrtc::{Arch, Cache, Compiler, Program};
use stepscope_kernels::DType;
use stepscope_kernels::cuda::catalog;
use stepscope_microbench::sheet;

use crate::args::kernel::Prebuild;
use crate::output::{Failure, print_stderr};

/// A program and an architecture.
type Job = (Program, Arch);

pub(super) fn run(args: &Prebuild) -> Result<(), Failure> {
    let mut archs = Vec::new();
    for text in &args.arch {
        let arch: Arch = text
            .parse()
            .map_err(|e| Failure::input(format!("--arch {text}: {e}")))?;
        if !arch.is_real() {
            return Err(Failure::input(format!(
                "--arch {text}: a virtual architecture has no machine code; use one such as sm_90a"
            )));
        }
        archs.push(arch);
    }
    // Each kernel in each storage type, and what measuring needs.
    let jobs: Vec<Job> = archs
        .iter()
        .flat_map(|&arch| {
            let of = |dtype| catalog::families().map(move |family| family.all(dtype));
            let kernels = of(DType::BF16).chain(of(DType::F16));
            let probes = sheet::programs(arch);
            let measuring = stepscope_microbench::programs();
            kernels
                .chain(measuring)
                .chain(probes)
                .map(move |program| (program, arch))
        })
        .collect();
    let kept = Cache::in_folder(&args.out);
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), Failure> {
        // One compiler compiles one program at a time.
        let compiler = Compiler::open().map_err(|e| Failure::Run(e.into()))?;
        while let Some((program, arch)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = match Cache::for_this_user() {
                Some(cache) => compiler.compile_cached(program, *arch, &cache),
                None => compiler.compile(program, *arch),
            };
            let compiled = compiled.map_err(|e| Failure::Run(e.into()))?;
            kept.prebuild(program, *arch, &compiled)
                .map_err(|e| Failure::Run(e.into()))?;
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join());
        ended
            .map(|end| end.unwrap_or_else(|_| Err(Failure::run("a compiling thread panicked"))))
            .collect::<Result<Vec<()>, Failure>>()
    })?;
    let usage = kept.usage();
    print_stderr(&format!(
        "{}: {} programs for {}, {:.1} MB",
        args.out.display(),
        usage.files,
        args.arch.join(", "),
        usage.bytes as f64 / 1e6
    ));
    Ok(())
}
