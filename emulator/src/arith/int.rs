//! Integer and bit-field instructions whose rules are more than a host operator.

/// `bfe`: `length` bits from `start`; signed extraction repeats the field's top bit (or the value's, beyond the end).
pub(crate) fn bfe(value: u64, start: u32, length: u32, bits: u32, signed: bool) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    let mask = if bits == 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    };
    let value = value & mask;
    let field = if start >= bits { 0 } else { value >> start };
    let kept = if length >= 64 {
        field
    } else {
        field & ((1 << length) - 1)
    };
    if !signed || length == 0 {
        return kept;
    }
    let top = (start + length - 1).min(bits - 1);
    if (value >> top) & 1 == 0 {
        return kept;
    }
    // Bits of the result from the field's end (or the register's) upwards are copies of the sign.
    let filled = length.min(bits.saturating_sub(start));
    let fill = if filled >= 64 { 0 } else { u64::MAX << filled };
    (kept | fill) & mask
}

/// `bfi`: puts the low `length` bits of `field` into `base` at `start`.
pub(crate) fn bfi(field: u64, base: u64, start: u32, length: u32, bits: u32) -> u64 {
    let (start, length) = (start & 0xff, length & 0xff);
    if start >= bits || length == 0 {
        return base;
    }
    let ones = if length >= 64 {
        u64::MAX
    } else {
        (1 << length) - 1
    };
    let mask = ones << start;
    (base & !mask) | ((field << start) & mask)
}

/// `bfind`: position of the highest bit that differs from the sign (unsigned: that is set), or all ones.
pub(crate) fn bfind(value: u64, bits: u32, signed: bool, shift_amount: bool) -> u32 {
    let mask = if bits == 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    };
    let mut value = value & mask;
    if signed && (value >> (bits - 1)) & 1 == 1 {
        value = !value & mask;
    }
    if value == 0 {
        return u32::MAX;
    }
    let position = 63 - value.leading_zeros();
    if shift_amount {
        bits - 1 - position
    } else {
        position
    }
}

/// How `prmt` reads its selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permute {
    Index,
    Forward4,
    Backward4,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

/// `prmt`: picks four of the eight bytes of `b:a`.
pub(crate) fn prmt(a: u32, b: u32, selector: u32, mode: Permute) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let low = (selector & 3) as usize;
    let pick: [usize; 4] = match mode {
        Permute::Index => {
            let mut result = [0u8; 4];
            for (i, byte) in result.iter_mut().enumerate() {
                let nibble = (selector >> (4 * i)) & 0xf;
                *byte = bytes[(nibble & 7) as usize];
                if nibble & 8 != 0 {
                    *byte = if *byte & 0x80 != 0 { 0xff } else { 0 };
                }
            }
            return u32::from_le_bytes(result);
        }
        Permute::Forward4 => [low, low + 1, low + 2, low + 3],
        Permute::Backward4 => [low, (low + 7) & 7, (low + 6) & 7, (low + 5) & 7],
        Permute::Replicate8 => [low; 4],
        Permute::EdgeLeft => [low, low.max(1), low.max(2), 3],
        Permute::EdgeRight => [0, low.min(1), low.min(2), low],
        Permute::Replicate16 => {
            let half = (low & 1) * 2;
            [half, half + 1, half, half + 1]
        }
    };
    u32::from_le_bytes(pick.map(|index| bytes[index]))
}

/// `shf`: a 64-bit shift of `high:low`, of which one half is kept.
#[inline(always)]
pub(crate) fn shf(low: u32, high: u32, amount: u32, left: bool, wrap: bool) -> u32 {
    let amount = if wrap { amount & 31 } else { amount.min(32) };
    let value = u64::from(high) << 32 | u64::from(low);
    if left {
        ((value << amount) >> 32) as u32
    } else {
        (value >> amount) as u32
    }
}

/// `lop3`: the three-input function whose truth table is `table`.
#[inline(always)]
pub(crate) fn lop3(a: u32, b: u32, c: u32, table: u8) -> u32 {
    let mut result = 0;
    let mut row = 0;
    while row < 8 {
        if (table >> row) & 1 == 1 {
            let x = if row & 4 != 0 { a } else { !a };
            let y = if row & 2 != 0 { b } else { !b };
            let z = if row & 1 != 0 { c } else { !c };
            result |= x & y & z;
        }
        row += 1;
    }
    result
}

/// `dp4a`: the dot product of four bytes.
#[inline(always)]
pub(crate) fn dp4a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
    let mut sum = c;
    for i in 0..4 {
        let byte = |value: u32, signed: bool| {
            let byte = (value >> (8 * i)) as u8;
            if signed {
                i32::from(byte as i8)
            } else {
                i32::from(byte)
            }
        };
        sum = sum.wrapping_add((byte(a, a_signed) * byte(b, b_signed)) as u32);
    }
    sum
}

/// `dp2a`: two halves of `a` with two bytes of `b`, its low or its high ones.
pub(crate) fn dp2a(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool, high: bool) -> u32 {
    let b = if high { b >> 16 } else { b };
    let mut sum = c;
    for i in 0..2 {
        let half = (a >> (16 * i)) as u16;
        let byte = (b >> (8 * i)) as u8;
        let half = if a_signed {
            i32::from(half as i16)
        } else {
            i32::from(half)
        };
        let byte = if b_signed {
            i32::from(byte as i8)
        } else {
            i32::from(byte)
        };
        sum = sum.wrapping_add((half * byte) as u32);
    }
    sum
}

/// `bmsk`: ones from bit `start`, `length` of them.
pub(crate) fn bmsk(start: u32, length: u32, wrap: bool) -> u32 {
    let (start, length) = if wrap {
        (start & 31, length & 31)
    } else {
        (start.min(32), length.min(32))
    };
    // 64 bits hold any of these shifts; what goes beyond bit 31 is lost.
    (((1u64 << length) - 1) << start) as u32
}

/// `szext`: the low `length` bits, extended with zeros or their sign. None gives 0.
pub(crate) fn szext(value: u32, length: u32, signed: bool, wrap: bool) -> u32 {
    let length = if wrap { length & 31 } else { length.min(32) };
    if length == 0 {
        return 0;
    }
    let shift = 32 - length;
    if signed {
        ((value << shift) as i32 >> shift) as u32
    } else {
        value << shift >> shift
    }
}

/// `fns`: the position of the `offset`th set bit, from `base` upwards, or downwards for a negative offset; for 0, `base` itself
/// where it is set. All ones where there is no such bit.
pub(crate) fn fns(mask: u32, base: u32, offset: i32) -> u32 {
    // The manual leaves a base beyond 31 undefined.
    let base = base & 31;
    let mut left = match offset {
        0 => mask & 1 << base,
        1.. => mask & u32::MAX << base,
        _ => mask & u32::MAX >> (31 - base),
    };
    for _ in 1..offset.unsigned_abs().min(33) {
        // Drops the bit nearest to the base.
        let nearest = if offset > 0 {
            left.trailing_zeros()
        } else {
            31u32.wrapping_sub(left.leading_zeros())
        };
        left &= !1u32.checked_shl(nearest).unwrap_or(0);
    }
    if left == 0 {
        u32::MAX
    } else if offset < 0 {
        31 - left.leading_zeros()
    } else {
        left.trailing_zeros()
    }
}

/// `vabsdiff4` over all four bytes: the differences packed, or with `add` their sum and `c`.
pub(crate) fn vabsdiff4(a: u32, b: u32, c: u32, signed: bool, add: bool) -> u32 {
    let extend = |byte: u8| {
        if signed {
            i32::from(byte as i8)
        } else {
            i32::from(byte)
        }
    };
    let mut differences = [0u32; 4];
    for (i, difference) in differences.iter_mut().enumerate() {
        let [x, y] = [a, b].map(|value| extend(value.to_le_bytes()[i]));
        *difference = x.abs_diff(y);
    }
    if add {
        differences.iter().fold(c, |sum, &d| sum.wrapping_add(d))
    } else {
        u32::from_le_bytes(differences.map(|d| d as u8))
    }
}

#[cfg(test)]
mod tests;
