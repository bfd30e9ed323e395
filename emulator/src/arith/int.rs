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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The PTX manual's own pseudo-code for `bfe`.
    fn bfe_manual(a: u64, pos: u32, len: u32, bits: u32, signed: bool) -> u64 {
        let msb = bits - 1;
        let (pos, len) = (pos & 0xff, len & 0xff);
        let sbit = if !signed || len == 0 {
            0
        } else {
            (a >> (pos + len - 1).min(msb)) & 1
        };
        let mut d = 0;
        for i in 0..=msb {
            let bit = if i < len && pos + i <= msb {
                (a >> (pos + i)) & 1
            } else {
                sbit
            };
            d |= bit << i;
        }
        d
    }

    fn bfi_manual(a: u64, b: u64, pos: u32, len: u32, bits: u32) -> u64 {
        let (pos, len) = (pos & 0xff, len & 0xff);
        let mut f = b;
        for i in 0..len {
            if pos + i < bits {
                f = f & !(1 << (pos + i)) | ((a >> i) & 1) << (pos + i);
            }
        }
        f
    }

    proptest! {
        #[test]
        fn fields_as_the_manual_says(a: u64, b: u64, pos in 0u32..300, len in 0u32..60) {
            for signed in [false, true] {
                prop_assert_eq!(bfe(a, pos, len, 64, signed), bfe_manual(a, pos, len, 64, signed));
                let a = a & 0xffff_ffff;
                prop_assert_eq!(bfe(a, pos, len, 32, signed), bfe_manual(a, pos, len, 32, signed));
            }
            prop_assert_eq!(bfi(a, b, pos, len, 64), bfi_manual(a, b, pos, len, 64));
            let low = 0xffff_ffff;
            prop_assert_eq!(bfi(a & low, b & low, pos, len, 32) & low, bfi_manual(a & low, b & low, pos, len, 32));
        }

        #[test]
        fn three_input_logic(a: u32, b: u32, c: u32) {
            prop_assert_eq!(lop3(a, b, c, 0x80), a & b & c);
            prop_assert_eq!(lop3(a, b, c, 0x96), a ^ b ^ c);
            prop_assert_eq!(lop3(a, b, c, 0xca), (a & b) | (!a & c));
        }
    }

    #[test]
    fn permutations() {
        let (a, b) = (0x8382_8180, 0x0706_0504);
        assert_eq!(prmt(a, b, 0x3210, Permute::Index), a);
        assert_eq!(prmt(a, b, 0x7654, Permute::Index), b);
        assert_eq!(prmt(a, b, 0x4cb8, Permute::Index), 0x0400_ffff);
        assert_eq!(prmt(a, b, 1, Permute::Forward4), 0x0483_8281);
        assert_eq!(prmt(a, b, 1, Permute::Backward4), 0x0607_8081);
        assert_eq!(prmt(a, b, 2, Permute::Replicate8), 0x8282_8282);
        assert_eq!(prmt(a, b, 2, Permute::EdgeLeft), 0x8382_8282);
        assert_eq!(prmt(a, b, 2, Permute::EdgeRight), 0x8282_8180);
        assert_eq!(prmt(a, b, 1, Permute::Replicate16), 0x8382_8382);
    }

    #[test]
    fn searches_and_shifts() {
        assert_eq!(bfind(0, 32, false, false), u32::MAX);
        assert_eq!(bfind(0xffff_ffff, 32, true, false), u32::MAX);
        assert_eq!(bfind(0x100, 32, false, false), 8);
        assert_eq!(bfind(0x100, 32, false, true), 23);
        assert_eq!(shf(1, 2, 32, true, false), 1);
        assert_eq!(shf(1, 2, 32, true, true), 2);
        assert_eq!(shf(0, 1, 1, false, true), 1 << 31);
        assert_eq!(
            dp4a(0xff01_0203, 0x0101_0101, 10, true, false),
            10 + 3 + 2 + 1 - 1
        );
        assert_eq!(
            dp2a(0xffff_0002, 0x0000_0302, 1, true, false, false),
            1 + 4 - 3
        );
    }
}
