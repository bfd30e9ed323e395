//! Branches, barriers, and what the lanes of a warp do together.

use super::data::positive;
use super::{
    Decoded, Modifiers, destination, destination_operand, operand, predicate_destination, source,
};
use crate::program::builder::Builder;
use crate::program::op::{BarrierKind, Op, Reduction, Redux, Shuffle, Vote, Width};
use crate::ptx::ast::Operand;

pub(super) fn simple(b: &mut Builder<'_>, op: Op) -> Decoded {
    b.emit(op, &[], &[]);
    Ok(())
}

fn label_name(o: &[Operand], index: usize) -> Result<&str, String> {
    match operand(o, index)? {
        Operand::Name(name) => Ok(name),
        _ => Err("a branch to what is not a label".into()),
    }
}

pub(super) fn bra(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["uni"])?;
    let name = label_name(o, 0)?;
    let target = b.label(name).ok_or_else(|| format!("no label `{name}`"))?;
    b.emit(Op::Branch { target }, &[], &[]);
    Ok(())
}

/// `brx.idx index, table`.
pub(super) fn brx(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["idx", "uni"])?;
    if !m.has("idx") {
        return Err("without .idx".into());
    }
    let index = source(b, o, 0, Width::B32)?;
    let name = label_name(o, 1)?;
    let targets = b
        .targets(name)
        .filter(|targets| !targets.is_empty())
        .ok_or_else(|| format!("no table `{name}`"))?;
    let table = b.table(targets);
    b.emit(Op::BranchTable { table }, &[], &[index]);
    Ok(())
}

pub(super) fn barrier(b: &mut Builder<'_>, base: &str, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    // `bar` is `barrier.aligned`.
    let aligned = m.has("aligned") || base == "bar";
    if m.has("cluster") {
        let op = if m.has("arrive") {
            Op::ClusterArrive {
                aligned,
                relaxed: m.has("relaxed"),
            }
        } else {
            Op::ClusterWait { aligned }
        };
        b.emit(op, &[], &[]);
        return Ok(());
    }
    m.only(&[
        "cta", "warp", "sync", "arrive", "red", "aligned", "popc", "and", "or",
    ])?;
    if ["sync", "arrive", "red"]
        .iter()
        .filter(|name| m.has(name))
        .count()
        != 1
    {
        return Err("none of .sync, .arrive and .red".into());
    }
    if m.has("warp") {
        if !m.has("sync") {
            return Err("without .sync".into());
        }
        let mask = source(b, o, 0, Width::B32)?;
        b.emit(Op::WarpSync, &[], &[mask]);
        return Ok(());
    }
    if m.has("red") {
        let (reduction, d) = if m.has("popc") {
            (Reduction::Count, destination(b, o, 0, Width::B32)?)
        } else {
            let reduction = if m.has("and") {
                Reduction::All
            } else if m.has("or") {
                Reduction::Any
            } else {
                return Err("this reduction".into());
            };
            (reduction, predicate_destination(b, operand(o, 0)?)?)
        };
        let mut s = vec![source(b, o, 1, Width::B32)?];
        let has_count = o.len() > 3;
        if has_count {
            s.push(source(b, o, 2, Width::B32)?);
        }
        s.push(positive(b, operand(o, o.len() - 1)?)?);
        b.emit(
            Op::Barrier {
                kind: BarrierKind::Reduce(reduction),
                aligned,
                has_count,
            },
            &[d],
            &s,
        );
        return Ok(());
    }
    let kind = if m.has("arrive") {
        BarrierKind::Arrive
    } else {
        BarrierKind::Sync
    };
    let mut s = vec![source(b, o, 0, Width::B32)?];
    let has_count = o.len() > 1;
    if has_count {
        s.push(source(b, o, 1, Width::B32)?);
    } else if kind == BarrierKind::Arrive {
        return Err("an arrival without a thread count".into());
    }
    b.emit(
        Op::Barrier {
            kind,
            aligned,
            has_count,
        },
        &[],
        &s,
    );
    Ok(())
}

pub(super) fn shfl(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["sync", "up", "down", "bfly", "idx"])?;
    if !m.has("sync") {
        return Err("without .sync".into());
    }
    let mode = if m.has("up") {
        Shuffle::Up
    } else if m.has("down") {
        Shuffle::Down
    } else if m.has("bfly") {
        Shuffle::Butterfly
    } else if m.has("idx") {
        Shuffle::Index
    } else {
        return Err("without a mode".into());
    };
    let mut d = Vec::new();
    match operand(o, 0)? {
        Operand::Pair(value, predicate) => {
            d.push(destination_operand(b, value, Width::B32)?);
            d.push(predicate_destination(b, predicate)?);
        }
        value => d.push(destination_operand(b, value, Width::B32)?),
    }
    let s = [
        source(b, o, 4, Width::B32)?,
        source(b, o, 1, Width::B32)?,
        source(b, o, 2, Width::B32)?,
        source(b, o, 3, Width::B32)?,
    ];
    b.emit(
        Op::Shuffle {
            mode,
            has_predicate: d.len() == 2,
        },
        &d,
        &s,
    );
    Ok(())
}

pub(super) fn vote(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["sync", "all", "any", "uni", "ballot"])?;
    if !m.has("sync") {
        return Err("without .sync".into());
    }
    let vote = if m.has("ballot") {
        Vote::Ballot
    } else if m.has("all") {
        Vote::All
    } else if m.has("any") {
        Vote::Any
    } else if m.has("uni") {
        Vote::Uni
    } else {
        return Err("without a mode".into());
    };
    let d = if vote == Vote::Ballot {
        destination(b, o, 0, Width::B32)?
    } else {
        predicate_destination(b, operand(o, 0)?)?
    };
    let s = [source(b, o, 2, Width::B32)?, positive(b, operand(o, 1)?)?];
    b.emit(Op::Vote(vote), &[d], &s);
    Ok(())
}

pub(super) fn match_(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["any", "all", "sync"])?;
    let width = match m.last_type()? {
        "b64" => Width::B64,
        "b32" => Width::B32,
        ty => return Err(format!("the type .{ty}")),
    };
    if !m.has("sync") || m.has("any") == m.has("all") {
        return Err("without .sync and one of .any and .all".into());
    }
    let mut d = Vec::new();
    match operand(o, 0)? {
        Operand::Pair(value, predicate) => {
            d.push(destination_operand(b, value, Width::B32)?);
            d.push(predicate_destination(b, predicate)?);
        }
        value => d.push(destination_operand(b, value, Width::B32)?),
    }
    let s = [source(b, o, 2, Width::B32)?, source(b, o, 1, width)?];
    b.emit(
        Op::Match {
            all: m.has("all"),
            width,
            has_predicate: d.len() == 2,
        },
        &d,
        &s,
    );
    Ok(())
}

pub(super) fn redux(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    let signed = m.last_type()? == "s32";
    m.only(&["sync", "add", "min", "max", "and", "or", "xor"])?;
    let op = match m.all.get(1) {
        Some(&"add") => Redux::Add,
        Some(&"min") if signed => Redux::MinS,
        Some(&"min") => Redux::MinU,
        Some(&"max") if signed => Redux::MaxS,
        Some(&"max") => Redux::MaxU,
        Some(&"and") => Redux::And,
        Some(&"or") => Redux::Or,
        Some(&"xor") => Redux::Xor,
        _ => return Err("this operation".into()),
    };
    if m.last_type()?.starts_with('f') {
        return Err("floating-point redux".into());
    }
    let d = destination(b, o, 0, Width::B32)?;
    let s = [source(b, o, 2, Width::B32)?, source(b, o, 1, Width::B32)?];
    b.emit(Op::Redux(op), &[d], &s);
    Ok(())
}

pub(super) fn activemask(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&[])?;
    let d = destination(b, o, 0, Width::B32)?;
    b.emit(Op::ActiveMask, &[d], &[]);
    Ok(())
}

pub(super) fn elect(b: &mut Builder<'_>, m: Modifiers<'_>, o: &[Operand]) -> Decoded {
    m.only(&["sync"])?;
    let Operand::Pair(lane, predicate) = operand(o, 0)? else {
        return Err("this form".into());
    };
    let d = [
        destination_operand(b, lane, Width::B32)?,
        predicate_destination(b, predicate)?,
    ];
    let s = [source(b, o, 1, Width::B32)?];
    b.emit(Op::Elect, &d, &s);
    Ok(())
}
