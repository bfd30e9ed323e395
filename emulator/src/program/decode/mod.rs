//! One instruction of the syntax tree to operations. What is not known is refused here, at load.

mod control;
mod data;
mod float;
mod hopper;
mod integer;
mod memory;
mod tensor;
mod video;

use super::builder::{Builder, Constant, Reg, RegKind};
use super::op::{Space, Special, Width};
use crate::ptx::ast::{Address, Instruction, Operand};

/// `Err` says what about the instruction is not supported.
pub(super) type Decoded = Result<(), String>;

pub(super) fn decode(b: &mut Builder<'_>, instruction: &Instruction) -> Decoded {
    let mut parts = instruction.opcode.split('.');
    let base = parts.next().unwrap_or_default();
    let modifiers: Vec<&str> = parts.collect();
    let m = Modifiers { all: &modifiers };
    let o = instruction.operands.as_slice();
    match base {
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "min" | "max" | "neg" | "abs" | "sqrt"
        | "rcp" | "copysign" | "addc" | "subc" | "madc" => {
            if m.types().next_back().is_some_and(|ty| ty.contains('f')) {
                float::decode(b, base, m, o)
            } else {
                integer::decode(b, base, m, o)
            }
        }
        "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rsqrt" => float::approximation(b, base, m, o),
        "rem" | "shl" | "shr" | "popc" | "clz" | "brev" | "sad" | "bfind" | "bfe" | "bfi"
        | "cnot" | "mul24" | "mad24" | "lop3" | "prmt" | "shf" | "dp4a" | "dp2a" | "bmsk"
        | "szext" | "fns" => integer::decode(b, base, m, o),
        "and" | "or" | "xor" | "not" => {
            if m.has("pred") {
                m.only(&[])?;
                data::logic(b, base, o)
            } else {
                integer::decode(b, base, m, o)
            }
        }
        "mov" => data::mov(b, m, o),
        "cvt" if m.has("pack") => video::pack(b, m, o),
        "cvt" => data::cvt(b, m, o),
        "setp" => data::setp(b, m, o),
        "set" => data::set(b, m, o),
        "selp" => data::selp(b, m, o),
        "slct" => data::slct(b, m, o),
        "testp" => data::testp(b, m, o),
        "cvta" => memory::cvta(b, m, o),
        "isspacep" => memory::isspacep(b, m, o),
        "ld" | "ldu" => memory::load(b, m, o),
        "st" => memory::store(b, m, o),
        "atom" | "red" => memory::atom(b, base == "atom", m, o),
        "createpolicy" => video::create_policy(b, o),
        "prefetch" | "prefetchu" | "discard" | "applypriority" => memory::prefetch(b),
        "membar" | "fence" => memory::fence(b, m),
        "cp" if m.has("bulk") => hopper::bulk(b, m, o),
        "cp" if m.has("mbarrier") => hopper::copies_arrive(b, m, o),
        "cp" => memory::copy_async(b, m, o),
        "mbarrier" => hopper::mbarrier(b, m, o),
        "wgmma" => hopper::wgmma(b, m, o),
        "setmaxnreg" => hopper::setmaxnreg(b, m, o),
        "mapa" | "getctarank" => hopper::mapa(b, base, m, o),
        "bra" => control::bra(b, m, o),
        "brx" => control::brx(b, m, o),
        "ret" => {
            b.ret();
            Ok(())
        }
        "exit" => control::simple(b, super::op::Op::Exit),
        "trap" | "brkpt" => control::simple(b, super::op::Op::Trap),
        "nanosleep" => control::simple(b, super::op::Op::Sleep),
        "pmevent" => Ok(()),
        "bar" | "barrier" => control::barrier(b, base, m, o),
        "shfl" => control::shfl(b, m, o),
        "vote" => control::vote(b, m, o),
        "match" => control::match_(b, m, o),
        "redux" => control::redux(b, m, o),
        "activemask" => control::activemask(b, m, o),
        "elect" => control::elect(b, m, o),
        "mma" => tensor::mma(b, m, o),
        "ldmatrix" => tensor::ldmatrix(b, m, o),
        "stmatrix" => tensor::stmatrix(b, m, o),
        "movmatrix" => tensor::movmatrix(b, m, o),
        // Without dependent launches there is nothing to wait for, and registers are not a resource here.
        "griddepcontrol" => Ok(()),
        _ if video::is_video(base) => video::decode(b, base, m, o),
        _ => Err("unknown instruction".into()),
    }
}

/// What follows the first dot of an opcode.
#[derive(Debug, Clone, Copy)]
struct Modifiers<'a> {
    all: &'a [&'a str],
}

impl<'a> Modifiers<'a> {
    fn has(self, name: &str) -> bool {
        self.all.contains(&name)
    }

    /// Those that name a type, in order.
    fn types(self) -> impl DoubleEndedIterator<Item = &'a str> {
        self.all.iter().copied().filter(|name| is_type(name))
    }

    fn last_type(self) -> Result<&'a str, String> {
        self.types().next_back().ok_or_else(|| "no type".into())
    }

    /// Refuses modifiers beyond `allowed` and types.
    fn only(self, allowed: &[&str]) -> Decoded {
        match self
            .all
            .iter()
            .find(|name| !allowed.contains(name) && !is_type(name))
        {
            Some(name) => Err(format!("the modifier .{name}")),
            None => Ok(()),
        }
    }
}

fn is_type(name: &str) -> bool {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    matches!(
        &name[..name.len() - digits.len()],
        "u" | "s" | "b" | "f" | "bf" | "tf"
    ) && matches!(digits, "8" | "16" | "32" | "64" | "128" | "16x2")
        || matches!(
            name,
            "pred" | "e4m3" | "e5m2" | "e4m3x2" | "e5m2x2" | "f16x2" | "bf16x2"
        )
}

/// Width and signedness of an integer or untyped-bits type.
fn integer_type(name: &str) -> Option<(Width, bool)> {
    Some(match name {
        "u16" | "b16" | "f16" | "bf16" => (Width::B16, false),
        "s16" => (Width::B16, true),
        "u32" | "b32" | "f32" | "f16x2" | "bf16x2" | "tf32" => (Width::B32, false),
        "s32" => (Width::B32, true),
        "u64" | "b64" | "f64" => (Width::B64, false),
        "s64" => (Width::B64, true),
        _ => return None,
    })
}

fn operand(operands: &[Operand], index: usize) -> Result<&Operand, String> {
    operands.get(index).ok_or_else(|| "too few operands".into())
}

/// Refuses another number of operands.
fn exactly(operands: &[Operand], count: usize) -> Decoded {
    if operands.len() == count {
        Ok(())
    } else {
        Err(format!("{} operands instead of {count}", operands.len()))
    }
}

/// A source of this width: a register, an immediate, a special register or a variable's address.
fn source(
    b: &mut Builder<'_>,
    operands: &[Operand],
    index: usize,
    width: Width,
) -> Result<Reg, String> {
    source_operand(b, operand(operands, index)?, width)
}

fn source_operand(b: &mut Builder<'_>, operand: &Operand, width: Width) -> Result<Reg, String> {
    match operand {
        Operand::Name(name) => {
            if let Some(reg) = b.register(name) {
                return match (reg.kind(), width) {
                    (RegKind::Wide, Width::B64) | (RegKind::Narrow, Width::B16 | Width::B32) => {
                        Ok(reg)
                    }
                    _ => Err(format!("`{name}` has another width")),
                };
            }
            if let Some(register) = special(name) {
                return Ok(b.special(register, width));
            }
            match b.address_of(name, 0, width == Width::B64) {
                Some((_, reg)) => Ok(reg),
                None => Err(format!("`{name}` is not declared")),
            }
        }
        Operand::Address(address) => {
            let Address {
                base: Some(name),
                offset,
                ..
            } = address.as_ref()
            else {
                return Err("an address as an operand".into());
            };
            b.address_of(name, *offset, width == Width::B64)
                .map(|(_, reg)| reg)
                .ok_or(format!("`{name}` is not declared"))
        }
        Operand::Int(value) => Ok(b.bits(*value, width)),
        Operand::F32(bits) if width == Width::B64 => {
            Ok(b.bits(f64::from(f32::from_bits(*bits)).to_bits(), width))
        }
        Operand::F32(bits) => Ok(b.bits(u64::from(*bits), width)),
        Operand::F64(bits) if width == Width::B64 => Ok(b.bits(*bits, width)),
        Operand::F64(bits) => {
            Ok(b.bits(u64::from((f64::from_bits(*bits) as f32).to_bits()), width))
        }
        _ => Err("this form of an operand".into()),
    }
}

/// A destination register of this width. A sink gets a register that nothing reads.
fn destination(
    b: &mut Builder<'_>,
    operands: &[Operand],
    index: usize,
    width: Width,
) -> Result<Reg, String> {
    destination_operand(b, operand(operands, index)?, width)
}

fn destination_operand(
    b: &mut Builder<'_>,
    operand: &Operand,
    width: Width,
) -> Result<Reg, String> {
    let kind = if width == Width::B64 {
        RegKind::Wide
    } else {
        RegKind::Narrow
    };
    match operand {
        Operand::Name(name) => match b.register(name) {
            Some(reg) if reg.kind() == kind => Ok(reg),
            Some(_) => Err(format!("`{name}` has another width")),
            None => Err(format!("`{name}` is not a register")),
        },
        Operand::Sink => Ok(b.fresh(kind)),
        _ => Err("this form of a destination".into()),
    }
}

fn predicate_destination(b: &mut Builder<'_>, operand: &Operand) -> Result<Reg, String> {
    match operand {
        Operand::Name(name) => match b.register(name) {
            Some(reg) if reg.kind() == RegKind::Predicate => Ok(reg),
            _ => Err(format!("`{name}` is not a predicate")),
        },
        Operand::Sink => Ok(b.fresh(RegKind::Predicate)),
        _ => Err("this form of a predicate".into()),
    }
}

/// A predicate source and whether it is negated.
fn predicate_source(b: &mut Builder<'_>, operand: &Operand) -> Result<(Reg, bool), String> {
    match operand {
        Operand::Name(name) | Operand::Not(name) => match b.register(name) {
            Some(reg) if reg.kind() == RegKind::Predicate => {
                Ok((reg, matches!(operand, Operand::Not(_))))
            }
            _ => Err(format!("`{name}` is not a predicate")),
        },
        Operand::Int(value) => Ok((b.constant(Constant::Bool(*value != 0), false), false)),
        _ => Err("this form of a predicate".into()),
    }
}

/// A memory operand: the space it is in (`space`, unless a variable says otherwise), base register, offset, width of the base.
fn address(
    b: &mut Builder<'_>,
    operands: &[Operand],
    index: usize,
    space: Space,
) -> Result<(Space, Reg, i64, bool), String> {
    let Operand::Address(address) = operand(operands, index)? else {
        return Err("an operand that is not an address".into());
    };
    let Some(name) = &address.base else {
        return Ok((space, b.bits(address.offset as u64, Width::B64), 0, true));
    };
    if let Some(reg) = b.register(name) {
        return match reg.kind() {
            RegKind::Wide => Ok((space, reg, address.offset, true)),
            RegKind::Narrow => Ok((space, reg, address.offset, false)),
            RegKind::Predicate => Err(format!("`{name}` is a predicate")),
        };
    }
    match b.address_of(name, address.offset, true) {
        // The arguments of an inlined call are in the caller's local memory.
        Some((Space::Local, reg)) if matches!(space, Space::Param | Space::Local) => {
            Ok((Space::Local, reg, 0, true))
        }
        Some((found, reg))
            if found == space || space == Space::Generic || space == Space::Const =>
        {
            Ok((found, reg, 0, true))
        }
        Some((found, reg)) if found == Space::Shared && space == Space::Cluster => {
            Ok((found, reg, 0, true))
        }
        Some(_) => Err(format!("`{name}` is in another state space")),
        None => Err(format!("`{name}` is not declared")),
    }
}

/// The elements of a vector operand; a single operand is a vector of one.
fn elements(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(elements) => elements,
        other => std::slice::from_ref(other),
    }
}

/// The width of a register that is named, whatever the instruction's type says.
fn register_width(b: &mut Builder<'_>, operand: &Operand) -> Option<Width> {
    match operand {
        Operand::Name(name) => match b.register(name)?.kind() {
            RegKind::Wide => Some(Width::B64),
            RegKind::Narrow => Some(Width::B32),
            RegKind::Predicate => None,
        },
        _ => None,
    }
}

/// `%envreg0` to `%envreg31`, which a driver may use.
fn is_envreg(name: &str) -> bool {
    let number = name.strip_prefix("%envreg").and_then(|n| n.parse().ok());
    number.is_some_and(|number: u32| number < 32)
}

fn special(name: &str) -> Option<Special> {
    let (base, axis) = match name.split_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        Some(_) => return None,
        None => (name, 3),
    };
    let plain = axis == 3;
    Some(match base {
        "%tid" if !plain => Special::Tid(axis),
        "%ntid" if !plain => Special::Ntid(axis),
        "%ctaid" if !plain => Special::Ctaid(axis),
        "%nctaid" if !plain => Special::Nctaid(axis),
        "%clusterid" if !plain => Special::ClusterId(axis),
        "%nclusterid" if !plain => Special::NclusterId(axis),
        "%cluster_ctaid" if !plain => Special::ClusterCtaid(axis),
        "%cluster_nctaid" if !plain => Special::ClusterNctaid(axis),
        "%cluster_ctarank" => Special::ClusterCtarank,
        "%cluster_nctarank" => Special::ClusterNctarank,
        "%is_explicit_cluster" => Special::IsExplicitCluster,
        "%laneid" => Special::Lane,
        "%warpid" => Special::Warp,
        "%nwarpid" => Special::Nwarp,
        "%smid" => Special::Sm,
        "%nsmid" => Special::Nsm,
        "%gridid" => Special::Grid,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%clock" => Special::Clock,
        "%clock_hi" => Special::ClockHi,
        "%clock64" => Special::Clock64,
        "%globaltimer" => Special::GlobalTimer,
        "%globaltimer_lo" => Special::GlobalTimer,
        "%globaltimer_hi" => Special::GlobalTimerHi,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" => Special::TotalShared,
        _ if is_envreg(base) => Special::Zero,
        _ => return None,
    })
}
