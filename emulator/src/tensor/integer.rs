//! Integer matrix products. Sums of products of bytes are small enough to be exact in `f32`.

use super::decode::Decoded;
use super::eight::Eight;
use super::fragment::Tile;

/// `d += a × b` over the first `words` words of K.
#[inline(always)]
pub(super) fn multiply<E: Eight, const H: usize>(
    words: usize,
    saturate: bool,
    a: &Decoded<H, 16>,
    b: &Decoded<H, 8>,
    d: &mut Tile,
) {
    for (row, d) in d.iter_mut().enumerate() {
        // At most 32 × 255 × 255, which is below 2^24.
        let mut sums = E::splat_float(0.0);
        for w in 0..words.min(8) {
            for h in 0..H {
                let value = E::splat_float(a.values[row][h][w]);
                let product = E::mul(value, E::load_floats(&b.values[w][h]));
                sums = E::add_float(sums, product);
            }
        }
        let sums: [i32; 8] = bytemuck::cast(E::cut(sums));
        for (d, sum) in d.iter_mut().zip(sums) {
            *d = if saturate {
                (*d as i32).saturating_add(sum)
            } else {
                (*d as i32).wrapping_add(sum)
            } as u32;
        }
    }
}
