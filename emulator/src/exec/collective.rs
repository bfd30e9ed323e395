//! What the lanes of a warp do together.

use super::registers::Registers;
use crate::program::op::{Op, Redux, Shuffle, Vote, Width};

fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

pub(super) fn execute(registers: &mut Registers, op: &Op, r: &[u32], mask: u32) {
    match *op {
        Op::ActiveMask => registers.write32(r[0], &[mask; 32], mask),
        Op::Elect => {
            let leader = mask.trailing_zeros();
            registers.write32(r[0], &[leader; 32], mask);
            registers.write_predicate(r[1], 1 << leader, mask);
        }
        Op::Shuffle {
            mode,
            has_predicate,
        } => shuffle(registers, mode, has_predicate, r, mask),
        Op::Vote(vote) => {
            let yes = registers.predicates[r[2] as usize] & mask;
            let result = match vote {
                Vote::All => yes == mask,
                Vote::Any => yes != 0,
                Vote::Uni => yes == mask || yes == 0,
                Vote::Ballot => {
                    registers.write32(r[0], &[yes; 32], mask);
                    return;
                }
            };
            registers.write_predicate(r[0], if result { u32::MAX } else { 0 }, mask);
        }
        Op::Match {
            all,
            width,
            has_predicate,
        } => {
            let source = r[r.len() - 1];
            let values: [u64; 32] =
                std::array::from_fn(|lane| registers.lane(source, lane, width == Width::B64));
            let same = |lane: usize| {
                lanes(mask)
                    .filter(|&l| values[l] == values[lane])
                    .fold(0u32, |m, l| m | 1 << l)
            };
            let first = mask.trailing_zeros() as usize;
            let agree = same(first) == mask;
            let out: [u32; 32] = std::array::from_fn(|lane| {
                if !all {
                    same(lane)
                } else if agree {
                    mask
                } else {
                    0
                }
            });
            registers.write32(r[0], &out, mask);
            if has_predicate {
                registers.write_predicate(r[1], if agree { u32::MAX } else { 0 }, mask);
            }
        }
        Op::Redux(op) => {
            let values = *registers.r32(r[2]);
            let result = lanes(mask)
                .map(|lane| values[lane])
                .reduce(|a, b| match op {
                    Redux::Add => a.wrapping_add(b),
                    Redux::MinS => (a as i32).min(b as i32) as u32,
                    Redux::MinU => a.min(b),
                    Redux::MaxS => (a as i32).max(b as i32) as u32,
                    Redux::MaxU => a.max(b),
                    Redux::And => a & b,
                    Redux::Or => a | b,
                    Redux::Xor => a ^ b,
                });
            registers.write32(r[0], &[result.unwrap_or(0); 32], mask);
        }
        _ => {}
    }
}

/// The PTX manual's `shfl`: `c` holds the clamp in its low bits and the segment mask in bits 8 to 12.
fn shuffle(registers: &mut Registers, mode: Shuffle, has_predicate: bool, r: &[u32], mask: u32) {
    let s = &r[1 + usize::from(has_predicate)..];
    let (a, b, c) = (
        *registers.r32(s[1]),
        *registers.r32(s[2]),
        *registers.r32(s[3]),
    );
    let mut out = a;
    let mut inside = 0;
    for lane in lanes(mask) {
        let (offset, clamp, segment) = (b[lane] & 31, c[lane] & 31, c[lane] >> 8 & 31);
        let own = lane as u32;
        let max = (own & segment) | (clamp & !segment);
        let min = own & segment;
        let (from, valid) = match mode {
            Shuffle::Up => (
                own.wrapping_sub(offset),
                own as i32 - offset as i32 >= max as i32,
            ),
            Shuffle::Down => (own + offset, own + offset <= max),
            Shuffle::Butterfly => (own ^ offset, own ^ offset <= max),
            Shuffle::Index => {
                let from = min | (offset & !segment);
                (from, from <= max)
            }
        };
        if valid {
            out[lane] = a[(from & 31) as usize];
            inside |= 1 << lane;
        }
    }
    registers.write32(r[0], &out, mask);
    if has_predicate {
        registers.write_predicate(r[1], inside, mask);
    }
}
