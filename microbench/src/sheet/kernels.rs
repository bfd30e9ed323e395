//! Kernels of the probes: compiled or taken as they lie, and launched.

use stepscope_device::driver::{Arguments, Kernel, Launch};
use stepscope_device::nvrtc::{Compiled, Options, Program};
use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::Cuda;

use crate::{Error, Subject, Work};

const PRELUDE: &str = include_str!("prelude.cuh");

/// The source `name` with these kernels.
pub(super) fn program(name: &str, text: &str, expressions: &[String]) -> Program {
    let program = Program::new(format!("sheet/{name}"), text)
        .header("prelude.cuh", PRELUDE)
        .options(Options {
            line_info: true,
            ..Options::default()
        });
    expressions.iter().cloned().fold(program, Program::kernel)
}

/// A program on the device.
pub(super) struct Module {
    module: std::sync::Arc<stepscope_device::driver::Module>,
    compiled: Compiled,
}

impl Module {
    pub(super) fn load(cuda: &Cuda, program: &Program) -> Result<Module, Error> {
        let (module, compiled) = cuda.load(program)?;
        Ok(Module { module, compiled })
    }

    /// A kernel of it. One that does not keep everything in registers measures something else.
    pub(super) fn kernel<A: Arguments>(&self, expression: &str) -> Result<Kernel<A>, Error> {
        let name = self.compiled.lowered_name(expression);
        let kernel = self.module.function(name)?.with_arguments::<A>()?;
        match kernel.function().local_bytes()? {
            0 => Ok(kernel),
            bytes => Err(Error::Unusable(format!(
                "{expression} keeps {bytes} bytes of each thread in local memory"
            ))),
        }
    }
}

/// What holds a probe's results against what they should be.
pub(super) type Check<'a> = dyn FnMut() -> Result<(), Error> + 'a;

/// A kernel to be timed from outside. Its buffers belong to whoever made it, and outlive it.
pub(super) struct Timed<'a, A> {
    pub(super) cuda: &'a Cuda,
    pub(super) kernel: &'a Kernel<A>,
    pub(super) launch: Launch,
    pub(super) arguments: A,
    pub(super) work: Work,
    pub(super) check: Box<Check<'a>>,
}

impl<A: Arguments> Subject for Timed<'_, A> {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        // SAFETY: each probe gives addresses of its own buffers, which hold what its kernel reads and writes for its grid.
        unsafe {
            self.cuda
                .launch(self.kernel, &self.launch, &self.arguments)?
        };
        Ok(())
    }

    fn check(&mut self) -> Result<(), Error> {
        (self.check)()
    }

    fn work(&self) -> Work {
        self.work
    }
}

/// `launch` with so much shared memory that no two of its blocks fit on a multiprocessor: each has one to itself.
pub(super) fn alone<A: Arguments>(
    cuda: &Cuda,
    kernels: &[Kernel<A>],
    launch: Launch,
) -> Result<Launch, Error> {
    let limits = &cuda.context().device().limits;
    let mut bytes = limits.shared_bytes_per_multiprocessor / 2 + 1024;
    for kernel in kernels {
        let own = kernel.function().shared_bytes()?;
        bytes = bytes.min(limits.shared_bytes_per_block_opt_in.saturating_sub(own));
    }
    for kernel in kernels {
        kernel.function().allow_shared_bytes(bytes)?;
    }
    Ok(launch.with_shared_bytes(bytes))
}

/// Launches a kernel and waits for it.
pub(super) fn launch<A: Arguments>(
    cuda: &Cuda,
    kernel: &Kernel<A>,
    launch: &Launch,
    arguments: &A,
) -> Result<(), Error> {
    // SAFETY: as for `Timed`.
    unsafe { cuda.launch(kernel, launch, arguments)? };
    cuda.synchronize()?;
    Ok(())
}
