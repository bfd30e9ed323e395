//! What a kernel does wrong: findings, and the happens-before clocks that find races.

pub(crate) mod clock;
pub(crate) mod finding;
pub(crate) mod race;
pub(crate) mod times;

pub use finding::{Finding, FindingKind, Party, Severity};

/// Which checks a launch makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// Out of bounds, misaligned, use after free, writes to constants. Off, such an access ends the launch with an error.
    pub memory: bool,
    /// Reads of global, shared and local memory and of registers that nothing has written.
    pub init: bool,
    /// Divergent aligned instructions, barriers that not every thread reaches.
    pub sync: bool,
    /// Races in shared and global memory, and missing waits for asynchronous copies.
    pub race: bool,
}

impl Checks {
    /// Every check.
    pub const ALL: Self = Self {
        memory: true,
        init: true,
        sync: true,
        race: true,
    };
    /// No check.
    pub const NONE: Self = Self {
        memory: false,
        init: false,
        sync: false,
        race: false,
    };
}

impl Default for Checks {
    fn default() -> Self {
        Self::ALL
    }
}
