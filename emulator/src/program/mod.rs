//! A module ready to run: kernels decoded once to flat code.
//!
//! [`build`](module::build) inlines every call, resolves names and scopes, decodes each instruction to an [`Op`](op::Op) and
//! collects everything it does not know; [`allocate`](allocate::allocate) then gives registers whose lifetimes do not overlap
//! the same row of the register file.

mod allocate;
mod builder;
mod decode;
pub(crate) mod module;
pub(crate) mod op;
pub(crate) mod op_async;
mod op_packed;
pub(crate) mod quick;

use crate::ptx::ast::Loc;
use op::Inst;

/// The decoded instructions of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Code {
    pub(crate) instructions: Vec<Inst>,
    /// Registers of all instructions: rows of the register file, or of the predicate file.
    pub(crate) pool: Vec<u32>,
    /// Whether an instruction is the target of a branch, so that diverged threads may meet there.
    pub(crate) leaders: Vec<bool>,
    pub(crate) locations: Vec<Loc>,
    /// Targets of `brx.idx`.
    pub(crate) tables: Vec<Vec<u32>>,
    /// Text of `printf` formats is read from memory; the messages of assertions too.
    pub(crate) rows: u32,
    pub(crate) predicates: u32,
    /// First row, value, whether it takes two rows.
    pub(crate) constants: Vec<(u32, u64, bool)>,
    /// Predicate rows that are always true or false.
    pub(crate) constant_predicates: Vec<(u32, bool)>,
    /// Rows (and predicate rows) that a path reaches unwritten: their reads are checked.
    pub(crate) unwritten_rows: Vec<bool>,
    /// Of these, where a register of 64 bits begins.
    pub(crate) unwritten_wide: Vec<bool>,
    pub(crate) unwritten_predicates: Vec<bool>,
    pub(crate) local_bytes: u32,
    /// One per instruction.
    pub(crate) quick: Vec<quick::QuickInst>,
}

impl Code {
    /// The registers of an instruction, destinations first.
    #[inline(always)]
    pub(crate) fn registers(&self, inst: &Inst) -> &[u32] {
        let at = inst.at as usize;
        &self.pool[at..at + usize::from(inst.destinations) + usize::from(inst.sources)]
    }
}

/// A kernel's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Where it lies among the bytes of all parameters.
    pub offset: u32,
    /// Its size.
    pub bytes: u32,
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct KernelCode {
    pub(crate) name: String,
    pub(crate) code: Code,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) parameter_bytes: u32,
    pub(crate) static_shared: u32,
    /// Where dynamic shared memory begins.
    pub(crate) dynamic_shared_base: u32,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) required_cluster: Option<[u32; 3]>,
    pub(crate) max_registers: Option<u32>,
    pub(crate) min_blocks: Option<u32>,
    /// Names of source files by `.file` index.
    pub(crate) files: std::sync::Arc<Vec<(u32, String)>>,
    /// Whether a result could depend on the order in which blocks run.
    pub(crate) order_matters: bool,
    /// How often an operation's waits let time pass: the kernel spins or sleeps.
    pub(crate) may_spin: bool,
}

impl KernelCode {
    /// `file:line` of an instruction, or its line in the PTX where the compiler gave none.
    pub(crate) fn place(&self, pc: u32) -> (String, u32) {
        let Some(inst) = self.code.instructions.get(pc as usize) else {
            return ("PTX".to_owned(), 0);
        };
        let loc = self.code.locations[inst.location as usize];
        match self.files.iter().find(|(index, _)| *index == loc.file) {
            Some((_, path)) if loc.line > 0 => (path.clone(), loc.line),
            _ => ("PTX".to_owned(), inst.line),
        }
    }
}
