//! The blocking kernel: the device waits until the host has put everything of a sample into the stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, HostWords, Kernel, Launch, Module};
use stepscope_kernels::cuda::Cuda;

use crate::Error;

/// After so long a held stream goes on by itself. Queueing a sample is half a dozen calls of the driver; a host that is stopped for
/// longer costs that sample, and a launch that waits for the device costs no more than this.
const TIMEOUT: Duration = Duration::from_secs(1);

arguments! {
    /// `hold_stream(volatile u32 *words, u32 ticket, u64 timeout_ns)`
    struct HoldArguments {
        words: DevicePointer,
        ticket: u32,
        timeout_ns: u64,
    }
}

/// The kernel, and the words through which the host talks to it.
#[derive(Debug)]
pub(super) struct Hold {
    kernel: Kernel<HoldArguments>,
    words: HostWords,
    ticket: u32,
    timeout: Duration,
    /// The device does its work within the call that asks for it, so nothing can be queued behind a held stream.
    is_at_once: bool,
}

impl Hold {
    pub(super) fn new(cuda: &Cuda, module: &Arc<Module>) -> Result<Hold, Error> {
        // With CUDA_LAUNCH_BLOCKING=1 every launch waits for its end, on a GPU too.
        let is_blocking = std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value != "0");
        Ok(Hold {
            kernel: module.function("hold_stream")?.with_arguments()?,
            words: HostWords::new(cuda.context(), "the words of the blocking kernel", 2)?,
            ticket: 0,
            timeout: TIMEOUT,
            is_at_once: is_blocking || cuda.context().device().is_emulated(),
        })
    }

    /// Whether it can hold anything.
    pub(super) fn holds(&self) -> bool {
        !self.is_at_once
    }

    #[cfg(test)]
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Holds the stream until what comes back is dropped. Where work is done at once it lets go beforehand.
    pub(super) fn hold(&mut self, cuda: &Cuda) -> Result<Held<'_>, Error> {
        self.ticket = self.ticket.wrapping_add(1);
        if self.is_at_once {
            self.let_go();
        }
        let held = self.launch(cuda);
        let guard = Held { hold: self };
        held.map(|()| guard)
    }

    fn launch(&self, cuda: &Cuda) -> Result<(), Error> {
        let arguments = HoldArguments {
            words: self.words.pointer(),
            ticket: self.ticket,
            timeout_ns: self.timeout.as_nanos() as u64,
        };
        // SAFETY: the words are two, as the kernel takes them, and outlive it: whoever owns `self` waits for the stream first.
        unsafe { cuda.launch(&self.kernel, &Launch::of_blocks(1, 1), &arguments)? };
        Ok(())
    }

    fn let_go(&self) {
        self.words.words()[0].store(self.ticket, Ordering::Release);
    }

    /// Whether the last hold ended by itself. Asked when the stream was waited for.
    pub(super) fn timed_out(&self) -> bool {
        self.words.words()[1].load(Ordering::Acquire) == self.ticket && self.ticket != 0
    }

    /// A hold that nobody ends.
    #[cfg(test)]
    pub(super) fn hold_alone(&mut self, cuda: &Cuda) -> Result<(), Error> {
        self.ticket = self.ticket.wrapping_add(1);
        self.launch(cuda)
    }
}

/// A stream that is held. Whatever happens to the launches behind it, dropping this lets go.
pub(super) struct Held<'a> {
    hold: &'a Hold,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.hold.let_go();
    }
}
