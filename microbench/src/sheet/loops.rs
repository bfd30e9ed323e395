//! Two kernels that differ by the length of their loop alone: what rates are measured by.

use stepscope_device::driver::{Arguments, Kernel, Launch};
use stepscope_device::nvrtc::Program;

use super::context::{Context, Values, pairs};
use super::kernels::{self, Module, Timed};
use super::stamps::{Stamps, Took};
use crate::{Error, L2, Work};

/// The shorter one and the longer one, one block of either alone on a multiprocessor.
pub(super) struct Loops<A> {
    pub(super) kernels: [Kernel<A>; 2],
    pub(super) launch: Launch,
    pub(super) stamps: Stamps,
    /// How often each loop goes round.
    pub(super) iterations: u32,
    unroll: [u32; 2],
}

impl<A: Arguments> Loops<A> {
    /// The kernels that `expression` names of `unroll`, in a grid of one row of blocks.
    pub(super) fn new(
        context: &Context<'_>,
        program: &Program,
        expression: impl Fn(u32) -> String,
        unroll: [u32; 2],
        launch: Launch,
        iterations: u32,
    ) -> Result<Loops<A>, Error> {
        let cuda = context.cuda();
        let module = Module::load(cuda, program)?;
        let [short, long] = unroll.map(|unroll| module.kernel(&expression(unroll)));
        let kernels = [short?, long?];
        Ok(Loops {
            launch: kernels::alone(cuda, &kernels, launch)?,
            kernels,
            stamps: Stamps::new(cuda, launch.grid[0] as usize)?,
            unroll,
            iterations,
        })
    }

    /// Steps of each thread in a launch of the shorter one, 0, or the longer one, 1.
    pub(super) fn steps(&self, which: usize) -> u32 {
        self.unroll[which] * self.iterations
    }

    /// Steps that the longer one has more.
    pub(super) fn more_steps(&self) -> u32 {
        self.steps(1) - self.steps(0)
    }

    pub(super) fn blocks(&self) -> u64 {
        u64::from(self.launch.grid[0])
    }

    /// What both took, in turn; `check` is called behind the first launch of each.
    pub(super) fn pairs(
        &self,
        context: &Context<'_>,
        arguments: &A,
        check: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Vec<[Took; 2]>, Error> {
        let once = |_, which: usize| {
            kernels::launch(
                context.cuda(),
                &self.kernels[which],
                &self.launch,
                arguments,
            )
        };
        pairs(context, &self.stamps, once, check)
    }

    /// The longer one from outside: FLOPs (or other operations), or bytes, of the whole launch in a second.
    pub(super) fn whole(
        &self,
        context: &Context<'_>,
        arguments: A,
        work: Work,
        mut check: impl FnMut(usize) -> Result<(), Error>,
    ) -> Result<Values, Error> {
        let mut subject = Timed {
            cuda: context.cuda(),
            kernel: &self.kernels[1],
            launch: self.launch,
            arguments,
            work,
            check: Box::new(|| check(1)),
        };
        let amount = work.flops.max(work.bytes);
        context.rate(&mut subject, L2::Warm, amount as f64)
    }
}
