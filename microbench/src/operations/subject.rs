//! The kernel of this program, and a person's, as what is measured.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use stepscope_device::cublaslt::{CublasLt, Element, Handle, Matmul, Problem};
use stepscope_device::driver::{DeviceBuffer, Function, Launch};
use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::{Cuda, Launched};

use super::probe::{OnCuda, Value};
use super::{Case, Comparison};
use crate::Error;
use crate::measure::{Subject, Work};

/// Dynamic shared memory that needs no permission.
const FREE_SHARED_BYTES: u32 = 48 << 10;

/// Inputs and outputs of a case, several times.
struct Copies<'a> {
    cuda: &'a Cuda,
    case: Rc<Case>,
    problems: Vec<Box<dyn OnCuda>>,
    /// How often each was launched since it was what it is at first.
    launched: Vec<usize>,
}

impl<'a> Copies<'a> {
    fn new(case: Rc<Case>, cuda: &'a Cuda, copies: usize) -> Result<Copies<'a>, Error> {
        let asked = case.shape().dtype();
        if asked != cuda.dtype() {
            return Err(Error::Unusable(format!(
                "{}: the device stores {}, not {asked}",
                case.operation().name,
                cuda.dtype()
            )));
        }
        let copies = copies.max(1);
        let make = |_| (case.operation().on_cuda)(cuda, case.shape(), &case.inputs);
        let problems = (0..copies).map(make).collect::<Result<Vec<_>, _>>()?;
        Ok(Copies {
            cuda,
            case,
            problems,
            launched: vec![0; copies],
        })
    }

    /// Compares each copy with the reference: what came out of its one launch, or, where what it reads and writes went through
    /// several, of another one from the start.
    fn compare(
        &mut self,
        mut launch: impl FnMut(&mut dyn OnCuda, usize) -> Result<(), Error>,
    ) -> Result<Vec<Comparison>, Error> {
        let mut all = Vec::new();
        for (copy, problem) in self.problems.iter_mut().enumerate() {
            if self.launched[copy] != 1 {
                problem.reset(self.cuda)?;
                launch(problem.as_mut(), copy)?;
                self.launched[copy] = 1;
            }
            self.cuda.synchronize()?;
            all.extend(self.case.compare(&problem.outputs(self.cuda)?)?);
        }
        Ok(all)
    }

    fn restore(&mut self) -> Result<(), Error> {
        for problem in &mut self.problems {
            problem.restore(self.cuda)?;
        }
        Ok(())
    }

    fn wrong(&self, comparisons: &[Comparison]) -> Result<(), Error> {
        match comparisons.iter().find(|comparison| !comparison.is_right()) {
            None => Ok(()),
            Some(wrong) => Err(Error::Wrong(format!(
                "{} at {}: {wrong}",
                self.case.operation().name,
                self.case.shape()
            ))),
        }
    }
}

/// The kernel that this program has for a case.
pub struct Builtin<'a> {
    copies: Copies<'a>,
    kernel: &'static str,
}

impl<'a> Builtin<'a> {
    pub(super) fn new(case: Rc<Case>, cuda: &'a Cuda, copies: usize) -> Result<Self, Error> {
        Ok(Builtin {
            copies: Copies::new(case, cuda, copies)?,
            kernel: "",
        })
    }

    /// What ran last, as the operation names it; empty before the first launch.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// Launches it once on a copy, and says which kernels that were.
    ///
    /// # Errors
    /// The device refused.
    pub fn launch_watched(&mut self, copy: usize) -> Result<Vec<Launched>, Error> {
        let cuda = self.copies.cuda;
        let problem = &mut self.copies.problems[copy];
        let (kernel, launched) = cuda.watch(|| problem.launch(cuda))?;
        self.kernel = kernel;
        self.copies.launched[copy] += 1;
        Ok(launched)
    }

    /// The next comparison is of new launches.
    pub fn start_over(&mut self) {
        self.copies.launched.fill(0);
    }

    /// All outputs of all copies beside the reference.
    ///
    /// # Errors
    /// The device failed.
    pub fn compare(&mut self) -> Result<Vec<Comparison>, Error> {
        let cuda = self.copies.cuda;
        self.copies.compare(|problem, _| {
            problem.launch(cuda)?;
            Ok(())
        })
    }
}

impl Subject for Builtin<'_> {
    fn copies(&self) -> usize {
        self.copies.problems.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        self.kernel = self.copies.problems[copy].launch(self.copies.cuda)?;
        self.copies.launched[copy] += 1;
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Error> {
        self.copies.restore()
    }

    fn check(&mut self) -> Result<(), Error> {
        let comparisons = self.compare()?;
        self.copies.wrong(&comparisons)
    }

    fn work(&self) -> Work {
        self.copies.case.work()
    }
}

/// A kernel and how it is launched.
#[derive(Debug, Clone)]
pub struct ForeignLaunch {
    /// As it is loaded.
    pub function: Function,
    /// Blocks, threads and dynamic shared memory.
    pub launch: Launch,
}

/// A person's kernel for a case: one launch, or several in a row, that all get the arguments of the operation.
pub struct Foreign<'a> {
    copies: Copies<'a>,
    launches: Vec<ForeignLaunch>,
    /// The arguments of each copy.
    arguments: Vec<Vec<Vec<u8>>>,
    /// Memory that kernels of a row hand each other results in: the last argument, where there is any.
    _scratch: Option<DeviceBuffer<u8>>,
}

impl<'a> Foreign<'a> {
    pub(super) fn new(
        case: Rc<Case>,
        cuda: &'a Cuda,
        copies: usize,
        launches: Vec<ForeignLaunch>,
        scratch_bytes: usize,
    ) -> Result<Self, Error> {
        for ForeignLaunch { function, launch } in &launches {
            check_parameters(&case, function, scratch_bytes > 0)?;
            if launch.shared_bytes > FREE_SHARED_BYTES {
                function.allow_shared_bytes(launch.shared_bytes)?;
            }
        }
        let scratch = match scratch_bytes {
            0 => None,
            bytes => Some(DeviceBuffer::<u8>::new(
                cuda.context(),
                "the kernel's scratch memory",
                bytes,
            )?),
        };
        let copies = Copies::new(case, cuda, copies)?;
        let arguments = copies.problems.iter().map(|problem| {
            let values = problem.values()?;
            let scratch = scratch
                .as_ref()
                .map(|buffer| Value::Pointer(buffer.pointer()));
            Ok(values
                .into_iter()
                .chain(scratch)
                .map(Value::bytes)
                .collect())
        });
        let arguments = arguments.collect::<Result<_, Error>>()?;
        Ok(Foreign {
            copies,
            launches,
            arguments,
            _scratch: scratch,
        })
    }

    /// All outputs of all copies beside the reference.
    ///
    /// # Errors
    /// The device failed.
    pub fn compare(&mut self) -> Result<Vec<Comparison>, Error> {
        let (cuda, launches, arguments) = (self.copies.cuda, &self.launches, &self.arguments);
        self.copies
            .compare(|_, copy| run(cuda, launches, &arguments[copy]))
    }
}

/// Puts all launches into the stream.
fn run(cuda: &Cuda, launches: &[ForeignLaunch], arguments: &[Vec<u8>]) -> Result<(), Error> {
    for ForeignLaunch { function, launch } in launches {
        // SAFETY: the parameters are as many and as large as the operation says, and the memory behind them lives as long as this
        // subject does. What a person's kernel does with it nobody can promise: where it reaches beyond its buffers, the emulated
        // device says so, and a GPU fails the run; nothing on the host is in its reach.
        unsafe { function.launch_with_bytes(cuda.stream(), launch, arguments)? };
    }
    Ok(())
}

/// That a kernel takes the arguments of the operation, as far as the driver can tell.
fn check_parameters(case: &Case, function: &Function, has_scratch: bool) -> Result<(), Error> {
    let Ok(takes) = function.parameters() else {
        return Ok(()); // the driver is too old to tell; the launch fails if they are not
    };
    let operation = case.operation();
    let wanted = operation.arguments.iter().map(|argument| argument.bytes());
    let wanted: Vec<usize> = wanted.chain(has_scratch.then_some(8)).collect();
    let takes: Vec<usize> = takes.into_iter().map(|(_, bytes)| bytes).collect();
    if takes == wanted {
        return Ok(());
    }
    let element = stepscope_kernels::cuda::catalog::element(case.shape().dtype());
    let declared = operation.arguments.iter();
    let mut declared: Vec<String> = declared.map(|a| a.declaration(element)).collect();
    if has_scratch {
        declared.push("void *scratch".to_owned());
    }
    let place = takes.iter().zip(&wanted).position(|(a, b)| a != b);
    let what = match place {
        _ if takes.len() != wanted.len() => format!("takes {} parameters", takes.len()),
        Some(place) => format!("has a parameter {} of {} bytes", place + 1, takes[place]),
        None => "takes other parameters".to_owned(),
    };
    Err(Error::Unusable(format!(
        "{} {what}; a kernel for {} has {}: ({})",
        function.name(),
        operation.name,
        wanted.len(),
        declared.join(", ")
    )))
}

impl Subject for Foreign<'_> {
    fn copies(&self) -> usize {
        self.copies.problems.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        run(self.copies.cuda, &self.launches, &self.arguments[copy])?;
        self.copies.launched[copy] += 1;
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Error> {
        self.copies.restore()
    }

    fn check(&mut self) -> Result<(), Error> {
        let comparisons = self.compare()?;
        self.copies.wrong(&comparisons)
    }

    fn work(&self) -> Work {
        self.copies.case.work()
    }
}

/// cuBLASLt's product, as its heuristic chooses it, on the inputs of a `gemm` or `gemv`.
pub struct Blas<'a> {
    copies: Copies<'a>,
    plan: Matmul,
}

/// Scratch memory that cuBLASLt may use, as PyTorch grants it on Hopper.
const BLAS_WORKSPACE_BYTES: usize = 32 << 20;

impl<'a> Blas<'a> {
    pub(super) fn new(case: Rc<Case>, cuda: &'a Cuda, copies: usize) -> Result<Self, Error> {
        let shape = case.shape();
        let size = |name: &str| shape.values().iter().find(|(known, _)| *known == name);
        let size = |name: &str| size(name).map(|&(_, value)| value);
        let (Some(n), Some(k), Some(0)) = (size("N"), size("K"), size("bias")) else {
            return Err(Error::Unusable(format!(
                "{} at {shape}: cuBLASLt is asked for gemm and gemv without a bias",
                case.operation().name
            )));
        };
        let problem = Problem {
            m: size("M").unwrap_or(1),
            n,
            k,
            element: match shape.dtype() {
                stepscope_kernels::DType::F16 => Element::F16,
                _ => Element::Bf16,
            },
            bias: None,
        };
        let handle = Arc::new(Handle::new(&CublasLt::open()?, cuda.context())?);
        Ok(Blas {
            plan: Matmul::new(&handle, &problem, BLAS_WORKSPACE_BYTES)?,
            copies: Copies::new(case, cuda, copies)?,
        })
    }

    fn run(cuda: &Cuda, plan: &Matmul, problem: &dyn OnCuda) -> Result<(), Error> {
        let values = problem.values()?;
        let [
            Value::Pointer(x),
            Value::Pointer(weight),
            _,
            Value::Pointer(out),
            ..,
        ] = values[..]
        else {
            return Err(Error::Unusable(
                "these are no arguments of a gemm".to_owned(),
            ));
        };
        // SAFETY: the three are `[m, k]`, `[n, k]` and `[m, n]` elements that live as long as this subject, whose work is all in one
        // stream.
        unsafe { plan.run(cuda.stream(), x, weight, out)? };
        Ok(())
    }
}

impl Subject for Blas<'_> {
    fn copies(&self) -> usize {
        self.copies.problems.len()
    }

    fn launch(&mut self, copy: usize) -> Result<(), Error> {
        Blas::run(
            self.copies.cuda,
            &self.plan,
            self.copies.problems[copy].as_ref(),
        )?;
        self.copies.launched[copy] += 1;
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        let (cuda, plan) = (self.copies.cuda, &self.plan);
        let comparisons = self
            .copies
            .compare(|problem, _| Blas::run(cuda, plan, problem))?;
        self.copies.wrong(&comparisons)
    }

    fn work(&self) -> Work {
        self.copies.case.work()
    }
}

impl fmt::Debug for Blas<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blas")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Builtin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builtin")
            .field("case", &self.copies.case)
            .field("copies", &self.copies.problems.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign")
            .field("case", &self.copies.case)
            .field("launches", &self.launches)
            .field("copies", &self.copies.problems.len())
            .finish_non_exhaustive()
    }
}
