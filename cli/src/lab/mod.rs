//! `stepscope lab`: a kernel that somebody is working on.

mod changes;
mod evaluate;
mod json;
mod sweep;
mod text;
mod time;
mod timeline;
mod watch;

use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use stepscope_kernels::cuda::Cuda;
use stepscope_microbench::Subject as _;
use stepscope_microbench::lab::{KernelFile, Loaded, start};
use stepscope_microbench::operations::{self, Builtin, Case, Foreign, copies_for_cold_cache};

use crate::args::lab::{Action, Check, Lab, New};
use crate::device::Gpu;
use crate::emulate::machine::Machine;
use crate::output::{Failure, print_stderr, write_stdout};
use evaluate::Side;
use time::Times;

pub(crate) fn run(args: &Lab) -> Result<ExitCode, Failure> {
    match &args.new {
        Some(Action::New(new)) => {
            write_start(new)?;
            Ok(ExitCode::SUCCESS)
        }
        None if args.check.watch => watch::run(&args.check),
        None => check(&args.check),
    }
}

fn write_start(args: &New) -> Result<(), Failure> {
    let operation = operations::find(&args.operation)?;
    let default = Path::new(operation.name).with_extension("cu");
    let path = args.out.as_deref().unwrap_or(&default);
    let refuse = |error: std::io::Error| {
        let why = match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                "it is there already; name another one by --out".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::input(format!("{} cannot be written: {why}", path.display()))
    };
    let mut file = std::fs::File::create_new(path).map_err(refuse)?;
    std::io::Write::write_all(&mut file, start::text(operation).as_bytes()).map_err(refuse)?;
    let path = path.display();
    print_stderr(&format!(
        "{path} is written; next: stepscope lab {} --kernel {path} --watch",
        operation.name
    ));
    Ok(())
}

/// A case on a device.
struct Session<'a> {
    args: &'a Check,
    gpu: &'a Gpu,
    cuda: &'a Cuda,
    case: Rc<Case>,
    copies: usize,
}

/// Who is held against whom.
enum Against {
    Builtin,
    CublasLt,
    File(KernelFile),
}

fn check(args: &Check) -> Result<ExitCode, Failure> {
    let operation = operations::find(args.operation.as_deref().unwrap_or_default())?;
    let shape = operation
        .shape(&args.shape)
        .map_err(|error| Failure::input(format!("--shape {}: {error}", args.shape)))?;
    // What a person wrote is understood before anything starts.
    let file = args
        .kernel
        .as_deref()
        .map(|path| KernelFile::read(path, operation));
    let file = file.transpose()?;
    let against = match args.against.as_str() {
        "builtin" => Against::Builtin,
        "cublaslt" => Against::CublasLt,
        path => Against::File(KernelFile::read(Path::new(path), operation)?),
    };
    let machine = Machine::named(&args.arch)?;
    let gpu = Gpu::for_kernels(args.device, machine.compute_capability)?;
    if matches!(against, Against::CublasLt) {
        if gpu.is_emulated() {
            return Err(Failure::input(
                "--against cublaslt: cuBLASLt runs on a GPU only; use builtin or a file",
            ));
        }
        if !["gemm", "gemv"].contains(&operation.name) {
            return Err(Failure::input(format!(
                "--against cublaslt: it has gemm and gemv, not {}",
                operation.name
            )));
        }
    }
    let cuda = gpu.cuda(shape.dtype())?;
    let case = Case::new(operation, &shape, args.seed)?;
    let copies = copies_for_cold_cache(&cuda, &case);
    let session = Session {
        args,
        gpu: &gpu,
        cuda: &cuda,
        case,
        copies,
    };
    match (&file, args.sweep, &args.timeline) {
        (Some(file), true, _) => sweep::run(&session, file),
        (file, _, Some(path)) => timeline::run(&session, file.as_ref(), path),
        _ => session.compare(file.as_ref(), &against),
    }
}

/// What a comparison found.
struct Findings {
    mine: Side,
    /// Nothing where the kernel of this program is looked at alone, or a library has no code to look at.
    incumbent: Option<Side>,
    times: Option<Times>,
}

impl Findings {
    fn is_right(&self) -> bool {
        self.mine.is_right()
    }
}

impl Session<'_> {
    fn compare(&self, file: Option<&KernelFile>, against: &Against) -> Result<ExitCode, Failure> {
        let findings = match file {
            None => {
                let (mine, _) = self.builtin()?;
                Findings {
                    mine,
                    incumbent: None,
                    times: None,
                }
            }
            Some(file) => self.compare_file(file, against)?,
        };
        if let Some(path) = &self.args.sass_diff {
            self.write_diff(path, &findings)?;
        }
        let document = json::document(self, &findings);
        if let Some(path) = &self.args.save {
            write_file(path, format!("{document:#}\n").as_bytes())?;
        }
        let text = match self.args.json {
            true => format!("{document:#}\n"),
            false => text::page(self, &findings),
        };
        write_stdout(text.as_bytes())?;
        Ok(match findings.is_right() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    fn compare_file(&self, file: &KernelFile, against: &Against) -> Result<Findings, Failure> {
        // The incumbent goes first: after a crash of the new kernel there is no device to run it on.
        let mut other: Option<(Side, Subject<'_>)> = match against {
            Against::Builtin => {
                let (side, subject) = self.builtin()?;
                Some((side, Subject::Builtin(subject)))
            }
            Against::File(other) => {
                let point = other.first_point();
                let (side, subject) = self.file(other, &point)?;
                let Some(subject) = subject else {
                    let why = side.comparisons.err().unwrap_or_default();
                    return Err(Failure::run(format!(
                        "--against {}: it does not run to its end: {why}",
                        other.path
                    )));
                };
                Some((side, Subject::Foreign(subject)))
            }
            Against::CublasLt => None,
        };
        let point = file
            .point(&self.args.param)
            .map_err(|error| Failure::input(format!("--param {}: {error}", self.args.param)))?;
        let (mine, mut subject) = self.file(file, &point)?;
        let mut times = None;
        if let (true, false, Some(subject)) =
            (mine.is_right(), self.gpu.is_emulated(), &mut subject)
        {
            times = Some(match (against, &mut other) {
                (Against::CublasLt, _) => {
                    let mut peer = self.case.cublaslt(self.cuda, self.copies)?;
                    time::pair(self.cuda, subject, &mut peer)?
                }
                (_, Some((_, Subject::Builtin(other)))) => time::pair(self.cuda, subject, other)?,
                (_, Some((_, Subject::Foreign(other)))) => time::pair(self.cuda, subject, other)?,
                (_, None) => return Err(Failure::run("the incumbent does not run")),
            });
        }
        Ok(Findings {
            mine,
            incumbent: other.map(|(side, _)| side),
            times,
        })
    }

    /// The kernel of this program, launched once on each copy.
    fn builtin(&self) -> Result<(Side, Builtin<'_>), Failure> {
        let mut builtin = self.case.builtin(self.cuda, self.copies)?;
        self.gpu.take_reports();
        let launched = builtin.launch_watched(0)?;
        let ran = stepscope_kernels::Backend::synchronize(self.cuda);
        let reports = self.gpu.take_reports();
        for copy in 1..self.copies {
            builtin.launch(copy)?;
        }
        let comparisons = match ran {
            Ok(()) => Ok(builtin.compare()?),
            Err(error) => Err(error.to_string()),
        };
        let kernels = evaluate::of_catalog(self.cuda, launched)?;
        let side = Side::new("builtin", self.gpu.device(), comparisons, kernels, reports);
        Ok((side, builtin))
    }

    /// A file's kernels, launched once on each copy. No subject where they crashed.
    fn file(
        &self,
        file: &KernelFile,
        point: &stepscope_microbench::lab::Point,
    ) -> Result<(Side, Option<Foreign<'_>>), Failure> {
        let loaded = file
            .load(self.cuda, point, self.case.shape(), false)
            .map_err(of_source)?;
        let kernels = evaluate::of_file(self.cuda, &loaded);
        let Loaded {
            launches,
            scratch_bytes,
            ..
        } = loaded;
        let mut foreign = self
            .case
            .foreign(self.cuda, self.copies, launches, scratch_bytes)?;
        self.gpu.take_reports();
        let ran = foreign
            .launch(0)
            .map_err(|error| error.to_string())
            .and_then(|()| {
                stepscope_kernels::Backend::synchronize(self.cuda)
                    .map_err(|error| error.to_string())
            });
        let reports = self.gpu.take_reports();
        let comparisons = ran.and_then(|()| {
            for copy in 1..self.copies {
                foreign.launch(copy).map_err(|error| error.to_string())?;
            }
            foreign.compare().map_err(|error| error.to_string())
        });
        let has_run = comparisons.is_ok();
        let side = Side::new(&file.path, self.gpu.device(), comparisons, kernels, reports);
        Ok((side, has_run.then_some(foreign)))
    }

    fn write_diff(&self, path: &Path, findings: &Findings) -> Result<(), Failure> {
        let Some(incumbent) = &findings.incumbent else {
            return Err(Failure::input(
                "--sass-diff compares two kernels; give one by --kernel",
            ));
        };
        match incumbent.functions().zip(findings.mine.functions()) {
            Some((base, head)) => {
                let base = (incumbent.name.as_str(), base.as_slice());
                let head = (findings.mine.name.as_str(), head.as_slice());
                let diff = stepscope_microbench::lab::sass::diff(base, head);
                write_file(path, diff.as_bytes())
            }
            None => Err(Failure::input(
                "--sass-diff: machine code cannot be read without nvdisasm; `stepscope doctor` says where it is looked for",
            )),
        }
    }
}

/// Who is timed beside the new kernel.
enum Subject<'a> {
    Builtin(Builtin<'a>),
    Foreign(Foreign<'a>),
}

/// A source that does not compile is a person's mistake.
fn of_source(error: stepscope_microbench::Error) -> Failure {
    match &error {
        stepscope_microbench::Error::Kernel(why) if why.is_compilation() => {
            Failure::input(error.to_string())
        }
        _ => error.into(),
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes)
        .map_err(|error| Failure::input(format!("{} cannot be written: {error}", path.display())))
}
