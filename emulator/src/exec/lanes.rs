//! Applies a function to every lane of registers.

use super::registers::Registers;
use super::vectorise::each;

/// A lane's value as an instruction sees it.
pub(crate) trait Lane: Copy + Default {
    fn load(registers: &Registers, row: u32) -> [Self; 32];
    fn store(registers: &mut Registers, row: u32, values: &[Self; 32], mask: u32);
}

impl Lane for u32 {
    #[inline(always)]
    fn load(registers: &Registers, row: u32) -> [Self; 32] {
        *registers.r32(row)
    }

    #[inline(always)]
    fn store(registers: &mut Registers, row: u32, values: &[Self; 32], mask: u32) {
        registers.write32(row, values, mask);
    }
}

impl Lane for u64 {
    #[inline(always)]
    fn load(registers: &Registers, row: u32) -> [Self; 32] {
        *registers.r64(row)
    }

    #[inline(always)]
    fn store(registers: &mut Registers, row: u32, values: &[Self; 32], mask: u32) {
        registers.write64(row, values, mask);
    }
}

impl Lane for u16 {
    #[inline(always)]
    fn load(registers: &Registers, row: u32) -> [Self; 32] {
        let values = registers.r32(row);
        each(|lane| values[lane] as u16)
    }

    #[inline(always)]
    fn store(registers: &mut Registers, row: u32, values: &[Self; 32], mask: u32) {
        registers.write32(row, &each(|lane| u32::from(values[lane])), mask);
    }
}

macro_rules! through_bits {
    ($float:ty, $bits:ty) => {
        impl Lane for $float {
            #[inline(always)]
            fn load(registers: &Registers, row: u32) -> [Self; 32] {
                bytemuck::cast(<$bits as Lane>::load(registers, row))
            }

            #[inline(always)]
            fn store(registers: &mut Registers, row: u32, values: &[Self; 32], mask: u32) {
                <$bits as Lane>::store(registers, row, bytemuck::cast_ref(values), mask);
            }
        }
    };
}
through_bits!(f32, u32);
through_bits!(f64, u64);

#[inline(always)]
pub(crate) fn map1<A: Lane, D: Lane>(
    registers: &mut Registers,
    r: &[u32],
    mask: u32,
    f: impl Fn(A) -> D,
) {
    let a = A::load(registers, r[1]);
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane]);
    }
    D::store(registers, r[0], &out, mask);
}

#[inline(always)]
pub(crate) fn map2<A: Lane, B: Lane, D: Lane>(
    registers: &mut Registers,
    r: &[u32],
    mask: u32,
    f: impl Fn(A, B) -> D,
) {
    let (a, b) = (A::load(registers, r[1]), B::load(registers, r[2]));
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane]);
    }
    D::store(registers, r[0], &out, mask);
}

#[inline(always)]
pub(crate) fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(
    registers: &mut Registers,
    r: &[u32],
    mask: u32,
    f: impl Fn(A, B, C) -> D,
) {
    let (a, b, c) = (
        A::load(registers, r[1]),
        B::load(registers, r[2]),
        C::load(registers, r[3]),
    );
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane], c[lane]);
    }
    D::store(registers, r[0], &out, mask);
}

#[inline(always)]
pub(crate) fn map4<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane>(
    registers: &mut Registers,
    r: &[u32],
    mask: u32,
    f: impl Fn(A, B, C, E) -> D,
) {
    let (a, b) = (A::load(registers, r[1]), B::load(registers, r[2]));
    let (c, e) = (C::load(registers, r[3]), E::load(registers, r[4]));
    let mut out = [D::default(); 32];
    for lane in 0..32 {
        out[lane] = f(a[lane], b[lane], c[lane], e[lane]);
    }
    D::store(registers, r[0], &out, mask);
}
