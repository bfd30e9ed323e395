//! Against the manual's own loops.

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

/// The manual's own loops.
fn fns_manual(mask: u32, base: u32, offset: i32) -> u32 {
    if offset == 0 {
        return if mask >> base & 1 == 1 {
            base
        } else {
            u32::MAX
        };
    }
    let (mut position, mut count) = (base as i32, offset.unsigned_abs() - 1);
    while (0..32).contains(&position) {
        if mask >> position & 1 == 1 {
            if count == 0 {
                return position as u32;
            }
            count -= 1;
        }
        position += offset.signum();
    }
    u32::MAX
}

fn bmsk_manual(a: u32, b: u32, wrap: bool) -> u32 {
    let (a1, b1) = (a & 31, b & 31);
    let mut low = u32::MAX << a1;
    let sum = a1 + b1;
    let mut high = u32::MAX.checked_shl(sum).unwrap_or(0);
    let position = !wrap && a >= 32;
    if position {
        low = 0;
    }
    if sum >= 32 || position || !wrap && b >= 32 {
        high = 0;
    } else if b1 == 0 {
        high = u32::MAX;
    }
    low & !high
}

proptest! {
    #[test]
    fn masks_and_extensions(a: u32, b in 0u32..70, c in 0u32..70, offset in -40i32..40) {
        for wrap in [false, true] {
            prop_assert_eq!(bmsk(b, c, wrap), bmsk_manual(b, c, wrap), "{} {} {}", b, c, wrap);
            let length = if wrap { b % 32 } else { b.min(32) };
            let mut expected = [0u32; 2];
            for bit in 0..32 {
                let sign = length > 0 && a >> (length.max(1) - 1) & 1 == 1;
                for (signed, expected) in expected.iter_mut().enumerate() {
                    let value = if bit < length { a >> bit & 1 == 1 } else { signed == 1 && sign };
                    *expected |= u32::from(value) << bit;
                }
            }
            prop_assert_eq!([false, true].map(|signed| szext(a, b, signed, wrap)), expected);
        }
        prop_assert_eq!(fns(a, b & 31, offset), fns_manual(a, b & 31, offset));
        prop_assert_eq!(fns(a & 0x8000_0001, b & 31, offset), fns_manual(a & 0x8000_0001, b & 31, offset));
        prop_assert_eq!(fns(a, 5, i32::MIN), u32::MAX);
    }

    #[test]
    fn every_permutation(a: u32, b: u32, selector: u32, amount in 0u32..80) {
        let wide = u64::from(b) << 32 | u64::from(a);
        let byte = |index: u32| (wide >> (8 * (index & 7)) & 0xff) as u32;
        let c = selector & 3;
        let pack = |pick: [u32; 4]| pick.iter().rev().fold(0, |sum, &index| sum << 8 | byte(index));
        prop_assert_eq!(prmt(a, b, selector, Permute::Forward4), pack([c, c + 1, c + 2, c + 3]));
        prop_assert_eq!(prmt(a, b, selector, Permute::Backward4), pack([c, c + 7, c + 6, c + 5]));
        prop_assert_eq!(prmt(a, b, selector, Permute::Replicate8), pack([c; 4]));
        prop_assert_eq!(prmt(a, b, selector, Permute::EdgeLeft), pack([0, 1, 2, 3].map(|i| i.max(c))));
        prop_assert_eq!(prmt(a, b, selector, Permute::EdgeRight), pack([0, 1, 2, 3].map(|i| i.min(c))));
        let half = (selector & 1) * 2;
        prop_assert_eq!(prmt(a, b, selector, Permute::Replicate16), pack([half, half + 1, half, half + 1]));
        let found = prmt(a, b, selector, Permute::Index).to_le_bytes();
        for (i, found) in (0..).zip(found) {
            let nibble = selector >> (4 * i) & 15;
            let picked = byte(nibble);
            let expected = if nibble < 8 { picked } else if picked >= 128 { 255 } else { 0 };
            prop_assert_eq!(u32::from(found), expected);
        }
        // Funnel shifts, bit by bit.
        for wrap in [false, true] {
            let n = if wrap { amount % 32 } else { amount.min(32) };
            let bit = |index: u32| (wide >> index & 1) as u32;
            let (mut left, mut right) = (0, 0);
            for i in 0..32 {
                left |= bit(i + 32 - n) << i;
                right |= if i + n < 64 { bit(i + n) << i } else { 0 };
            }
            prop_assert_eq!(shf(a, b, amount, true, wrap), left);
            prop_assert_eq!(shf(a, b, amount, false, wrap), right);
        }
    }

    #[test]
    fn sums_of_products(a: u32, b: u32, c: u32, table: u8) {
        let piece = |value: u32, at: u32, bits: u32, signed: bool| {
            let field = i64::from(value >> at) & ((1 << bits) - 1);
            if signed && field >> (bits - 1) == 1 { field - (1 << bits) } else { field }
        };
        for (s, t) in [(false, false), (false, true), (true, false), (true, true)] {
            let sum = (0..4).map(|i| piece(a, 8 * i, 8, s) * piece(b, 8 * i, 8, t)).sum::<i64>();
            prop_assert_eq!(dp4a(a, b, c, s, t), (i64::from(c) + sum) as u32);
            for high in [false, true] {
                let at = if high { 16 } else { 0 };
                let sum = (0..2).map(|i| piece(a, 16 * i, 16, s) * piece(b, at + 8 * i, 8, t)).sum::<i64>();
                prop_assert_eq!(dp2a(a, b, c, s, t, high), (i64::from(c) + sum) as u32);
            }
            let differences = [0, 1, 2, 3].map(|i| (piece(a, 8 * i, 8, s) - piece(b, 8 * i, 8, s)).abs());
            prop_assert_eq!(vabsdiff4(a, b, c, s, true), (i64::from(c) + differences.iter().sum::<i64>()) as u32);
            let packed = differences.iter().rev().fold(0, |sum, d| sum << 8 | *d as u32);
            prop_assert_eq!(vabsdiff4(a, b, c, s, false), packed);
        }
        for bit in 0..32 {
            let row = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | c >> bit & 1;
            prop_assert_eq!(lop3(a, b, c, table) >> bit & 1, u32::from(table >> row & 1));
        }
    }

    #[test]
    fn searches(a: u64, shift in 0u32..64) {
        let a = a >> shift;
        for bits in [32, 64] {
            for signed in [false, true] {
                for a in [a, !a] {
                    let sign = signed && a >> (bits - 1) & 1 == 1;
                    let found = (0..bits).rev().find(|&bit| (a >> bit & 1 == 1) != sign);
                    prop_assert_eq!(bfind(a, bits, signed, false), found.unwrap_or(u32::MAX));
                    prop_assert_eq!(bfind(a, bits, signed, true), found.map_or(u32::MAX, |bit| bits - 1 - bit));
                }
            }
        }
    }
}
