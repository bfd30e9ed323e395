//! The syntax tree of a PTX module. Names are kept as written; scopes are resolved when a kernel is built.

/// A whole module.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    /// `.file` index and path.
    pub(crate) files: Vec<(u32, String)>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) functions: Vec<Function>,
    /// Other names of functions, with the names they stand for.
    pub(crate) aliases: Vec<(String, String)>,
}

/// A `.entry` or a `.func`.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) is_entry: bool,
    pub(crate) returns: Vec<Variable>,
    pub(crate) params: Vec<Variable>,
    pub(crate) max_threads: Option<[u32; 3]>,
    pub(crate) required_threads: Option<[u32; 3]>,
    pub(crate) min_blocks: Option<u32>,
    pub(crate) max_registers: Option<u32>,
    pub(crate) required_cluster: Option<[u32; 3]>,
    /// `None` for a declaration.
    pub(crate) body: Option<Vec<Statement>>,
    pub(crate) line: u32,
}

/// The state space a variable is declared in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A declared variable or parameter.
#[derive(Debug, Clone)]
pub(crate) struct Variable {
    pub(crate) space: Space,
    pub(crate) name: String,
    pub(crate) align: u32,
    /// Bytes of one element.
    pub(crate) element: u32,
    /// Elements; `None` for `name[]`.
    pub(crate) count: Option<u64>,
    pub(crate) init: Vec<Init>,
    pub(crate) is_extern: bool,
    pub(crate) line: u32,
}

/// One value of an initialiser.
#[derive(Debug, Clone)]
pub(crate) enum Init {
    Bits(u64),
    /// The address of another variable, plus an offset.
    Address(String, i64),
}

/// Where an instruction comes from in the source that was compiled to PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Loc {
    pub(crate) file: u32,
    pub(crate) line: u32,
}

#[derive(Debug)]
pub(crate) enum Statement {
    Block(Vec<Statement>),
    /// `.reg .b32 %r<5>;` or `.reg .pred p, q;`
    Register {
        ty: String,
        name: String,
        count: Option<u32>,
    },
    Variable(Variable),
    Label(String),
    /// `ts: .branchtargets a, b, c;`
    Targets(String, Vec<String>),
    Instruction(Instruction),
}

#[derive(Debug)]
pub(crate) struct Instruction {
    /// Predicate name and whether it is negated.
    pub(crate) guard: Option<(String, bool)>,
    /// `add.s32`, as written.
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
    /// Line in the PTX.
    pub(crate) line: u32,
    pub(crate) loc: Loc,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// A register, a special register, a variable, a label or a function.
    Name(String),
    /// `!p`
    Not(String),
    /// An integer, as 64 bits two's complement.
    Int(u64),
    F32(u32),
    F64(u64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `a|b`
    Pair(Box<Operand>, Box<Operand>),
    /// `[base + offset, extra…]`
    Address(Box<Address>),
    /// `_`
    Sink,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Address {
    /// `None` for an absolute address.
    pub(crate) base: Option<String>,
    pub(crate) offset: i64,
    /// Tensor coordinates: what follows the comma in `[map, {x, y}]`.
    pub(crate) extra: Vec<Operand>,
}
