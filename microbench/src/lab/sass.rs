//! In what two pieces of machine code differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stepscope_device::disassembly::{Function, Instruction};

/// What sort of work an instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Multiplications of tensor cores.
    Tensor,
    /// Float32 arithmetic.
    Float,
    /// Arithmetic of 16-bit and 64-bit floats.
    OtherFloat,
    /// Exponentials, reciprocals, roots.
    Special,
    /// Conversions between types.
    Conversion,
    /// Integer arithmetic, addresses and predicates among it.
    Integer,
    /// Moves, selections, permutations, shuffles.
    Move,
    /// Global memory, with copies from it to shared memory.
    Global,
    /// Shared memory.
    Shared,
    /// Local memory: spilled registers, and arrays.
    Local,
    /// Constants.
    Constant,
    /// Barriers and waiting.
    Barrier,
    /// Branches, calls, ends.
    Branch,
    /// Anything else.
    Other,
}

impl Class {
    /// As tables have it.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Tensor => "tensor cores",
            Class::Float => "float32",
            Class::OtherFloat => "float16, float64",
            Class::Special => "special functions",
            Class::Conversion => "conversions",
            Class::Integer => "integers, addresses",
            Class::Move => "moves, shuffles",
            Class::Global => "global memory",
            Class::Shared => "shared memory",
            Class::Local => "local memory (spills)",
            Class::Constant => "constants",
            Class::Barrier => "barriers, waits",
            Class::Branch => "branches, ends",
            Class::Other => "other",
        }
    }

    /// That of a mnemonic, as NVIDIA's CUDA Binary Utilities list them (instruction sets of Ampere, Ada and Hopper).
    pub fn of(mnemonic: &str) -> Class {
        // Uniform instructions do for a warp what the ones without U do for each thread.
        let plain = match mnemonic.strip_prefix('U') {
            Some(rest) if !rest.starts_with("TMA") && !rest.starts_with("BLK") => rest,
            _ => mnemonic,
        };
        match plain {
            "HMMA" | "IMMA" | "DMMA" | "BMMA" | "QMMA" | "OMMA" | "HGMMA" | "IGMMA" | "QGMMA"
            | "BGMMA" | "QTCMMA" | "WARPGROUP" | "TCHMMA" | "TCQMMA" => Class::Tensor,
            "FADD" | "FFMA" | "FMUL" | "FMNMX" | "FSEL" | "FSET" | "FSETP" | "FSWZADD" | "FCHK"
            | "FADD32I" | "FFMA32I" | "FMUL32I" | "FADD2" | "FFMA2" | "FMUL2" | "RRO" | "FRND"
            | "FMNMX3" => Class::Float,
            "HADD2" | "HFMA2" | "HMUL2" | "HMNMX2" | "HSET2" | "HSETP2" | "HADD2_32I"
            | "HFMA2_32I" | "HMUL2_32I" | "DADD" | "DFMA" | "DMUL" | "DSETP" => Class::OtherFloat,
            "MUFU" => Class::Special,
            "F2F" | "F2I" | "I2F" | "I2I" | "F2FP" | "I2FP" | "I2IP" | "F2IP" => Class::Conversion,
            "MOV" | "MOV32I" | "SEL" | "PRMT" | "SHFL" | "MOVM" | "R2UR" | "UR2R" | "S2R"
            | "S2UR" | "CS2R" | "R2P" | "P2R" | "MATCH" | "VOTE" | "VOTEU" | "REDUX" | "R2B"
            | "B2R" => Class::Move,
            "LDG" | "STG" | "LD" | "ST" | "LDGSTS" | "ATOM" | "ATOMG" | "RED" | "REDG" | "CCTL"
            | "LDGDEPBAR" | "UTMALDG" | "UTMASTG" | "UTMAPF" | "UTMAREDG" | "UBLKCP" | "UBLKPF"
            | "UBLKRED" | "UTMACCTL" => Class::Global,
            "LDS" | "STS" | "LDSM" | "STSM" | "ATOMS" | "STAS" | "LDS_LDU" => Class::Shared,
            "LDL" | "STL" | "CCTLL" => Class::Local,
            "LDC" | "LDCU" => Class::Constant,
            "BAR" | "DEPBAR" | "WARPSYNC" | "SYNCS" | "MEMBAR" | "ERRBAR" | "FENCE" | "B2UR"
            | "ARRIVES" | "UTMACMDFLUSH" | "NANOSLEEP" | "YIELD" | "ELECT" | "CGAERRBAR"
            | "ACQBULK" | "PREEXIT" | "USETMAXREG" | "SETMAXREG" => Class::Barrier,
            "BRA" | "BRX" | "JMP" | "JMX" | "CALL" | "RET" | "EXIT" | "BSSY" | "BSYNC"
            | "BREAK" | "BMOV" | "KILL" | "BPT" | "RPCMOV" | "NOP" | "BRXU" | "JMXU" => {
                Class::Branch
            }
            _ if plain.starts_with('I')
                || plain.starts_with("VI")
                || plain.starts_with("LOP")
                || plain.starts_with("SH")
                || plain.starts_with("LEA")
                || [
                    "BMSK", "BREV", "FLO", "POPC", "SGXT", "PLOP3", "PSETP", "VABSDIFF",
                ]
                .contains(&plain) =>
            {
                Class::Integer
            }
            _ => Class::Other,
        }
    }
}

/// Instructions of some kernels, by class.
pub fn by_class(functions: &[Function]) -> BTreeMap<Class, usize> {
    let mut counts = BTreeMap::new();
    for instruction in functions.iter().flat_map(|function| &function.instructions) {
        *counts.entry(Class::of(instruction.mnemonic())).or_default() += 1;
    }
    counts
}

/// Instructions of some kernels, by mnemonic.
pub fn by_mnemonic(functions: &[Function]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for instruction in functions.iter().flat_map(|function| &function.instructions) {
        *counts.entry(instruction.mnemonic().to_owned()).or_default() += 1;
    }
    counts
}

/// An instruction as a listing has it.
pub fn line(instruction: &Instruction) -> String {
    let Instruction {
        predicate,
        opcode,
        operands,
    } = instruction;
    format!("{predicate:6} {opcode:28} {operands}")
        .trim_end()
        .to_owned()
}

/// The instructions of some kernels, one a line.
pub fn listing(functions: &[Function]) -> String {
    let mut text = String::new();
    for function in functions {
        let _ = writeln!(text, "{}:", function.name); // a String takes everything
        for instruction in &function.instructions {
            let _ = writeln!(text, "{}", line(instruction));
        }
    }
    text
}

/// What has to be done to the instructions of `base` to get those of `head`, as a unified diff.
pub fn diff(base: (&str, &[Function]), head: (&str, &[Function])) -> String {
    let (old, new) = (listing(base.1), listing(head.1));
    similar::TextDiff::from_lines(&old, &new)
        .unified_diff()
        .header(base.0, head.0)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(text: &str) -> Function {
        let instructions = text.lines().map(|line| {
            let (opcode, operands) = line.split_once(' ').unwrap_or((line, ""));
            Instruction {
                predicate: String::new(),
                opcode: opcode.to_owned(),
                operands: operands.to_owned(),
            }
        });
        Function {
            name: "k".to_owned(),
            instructions: instructions.collect(),
        }
    }

    #[test]
    fn instructions_are_sorted_by_what_they_do() {
        let check = |mnemonic, class| assert_eq!(Class::of(mnemonic), class, "{mnemonic}");
        check("HMMA", Class::Tensor);
        check("FFMA", Class::Float);
        check("HFMA2", Class::OtherFloat);
        check("MUFU", Class::Special);
        check("IMAD", Class::Integer);
        check("UIADD3", Class::Integer);
        check("VIADD", Class::Integer);
        check("ULDC", Class::Constant);
        check("UMOV", Class::Move);
        check("LDG", Class::Global);
        check("LDGSTS", Class::Global);
        check("UTMALDG", Class::Global);
        check("LDSM", Class::Shared);
        check("STL", Class::Local);
        check("BAR", Class::Barrier);
        check("EXIT", Class::Branch);
        check("I2FP", Class::Conversion);
        check("XYZZY", Class::Other);
    }

    #[test]
    fn a_difference_is_a_diff() {
        let base = function("LDG.E R0, [R2]\nFADD R0, R0, R1\nEXIT");
        let head = function("LDG.E.128 R0, [R2]\nFADD R0, R0, R1\nEXIT");
        let diff = diff(("base", std::slice::from_ref(&base)), ("head", &[head]));
        assert!(diff.starts_with("--- base\n+++ head\n"), "{diff}");
        let changed: Vec<&str> = diff
            .lines()
            .skip(2)
            .filter(|l| l.starts_with(['+', '-']))
            .collect();
        let words: Vec<String> = changed
            .iter()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        // A listing indents, so that + and - stand alone.
        assert_eq!(words, ["- LDG.E R0, [R2]", "+ LDG.E.128 R0, [R2]"]);
        assert_eq!(by_class(&[base])[&Class::Float], 1);
    }
}
