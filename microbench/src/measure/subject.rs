//! What is measured.

use crate::Error;

/// The work that a launch cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes that cross between memory and the processor.
    pub bytes: u64,
}

/// Something that can be launched again and again: a kernel of ours, of a peer, of a person.
///
/// It owns its inputs and outputs, in one or more copies, and they stay where they are as long as it lives: launches are recorded into
/// graphs.
pub trait Subject {
    /// How often its inputs and outputs are there; at least once.
    fn copies(&self) -> usize {
        1
    }

    /// Puts it into the device's stream once, on this copy, and does not wait.
    ///
    /// # Errors
    /// The device refused.
    fn launch(&mut self, copy: usize) -> Result<(), Error>;

    /// Puts back what launches move on and cannot move on without end, where there is such a thing: lengths that grow by one. It is
    /// called before each sample, and before a graph is recorded; between two calls lie at most two graphs of 1024 launches.
    ///
    /// # Errors
    /// The device refused.
    fn restore(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Holds the results of all copies against a reference. It is called once, before anything is timed, when every copy was
    /// launched and waited for.
    ///
    /// # Errors
    /// [`Error::Wrong`] says by what and where.
    fn check(&mut self) -> Result<(), Error>;

    /// What a launch does.
    fn work(&self) -> Work;
}
