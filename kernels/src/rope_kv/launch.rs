//! The CUDA kernel's launcher.

use stepscope_device::arguments;
use stepscope_device::driver::{DevicePointer, Launch};

use crate::cuda::{Cuda, CudaBuffer, CudaIndices, CudaKvPool, CudaRopeTable, Source};
use crate::{Error, Kernel, QkvLayout};

static SOURCE: Source = Source {
    name: "rope_kv.cu",
    text: include_str!("rope_kv.cu"),
};

arguments! {
    struct RopeKv {
        qkv: DevicePointer,
        positions: DevicePointer,
        slots: DevicePointer,
        table: DevicePointer,
        keys: DevicePointer,
        values: DevicePointer,
        heads: u32,
        kv_heads: u32,
        head_dim: u32,
        pairs: u32,
    }
}

/// Rotates queries and keys of `qkv` in place by their `positions`, and writes keys and values to their `slots` of layer `layer`.
#[allow(clippy::too_many_arguments)] // one launch: the fused kernel takes all of them
pub(crate) fn rope_kv(
    cuda: &Cuda,
    qkv: &mut CudaBuffer,
    tokens: usize,
    layout: QkvLayout,
    positions: &CudaIndices,
    slots: &CudaIndices,
    rope: &CudaRopeTable,
    kv: &mut CudaKvPool,
    layer: usize,
) -> Result<Kernel, Error> {
    if tokens == 0 {
        return Ok("rope_kv");
    }
    let QkvLayout {
        heads,
        kv_heads,
        head_dim,
    } = layout;
    if 2 * rope.pairs > head_dim {
        let pairs = rope.pairs;
        return Err(Error::shape(format!(
            "a rotation of {pairs} pairs needs more than heads of {head_dim}"
        )));
    }
    let vector = vector(head_dim, rope.pairs);
    let element = cuda.element();
    let kernel = cuda.kernel::<RopeKv>(&SOURCE, [vector as u32, 0, 0, 0], || {
        expression(element, vector)
    })?;
    let [keys, values] = kv.layer(layer)?;
    let arguments = RopeKv {
        qkv: qkv.pointer(),
        positions: positions.pointer(),
        slots: slots.pointer(),
        table: rope.values.pointer(),
        keys,
        values,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        head_dim: head_dim as u32,
        pairs: rope.pairs as u32,
    };
    let launch = geometry(tokens);
    // SAFETY: the buffers hold as many elements as the shapes say, positions are in the table and slots in the pool, which is
    // the contract of `Backend`.
    unsafe { cuda.launch(&kernel, &launch, &arguments)? };
    Ok("rope_kv")
}

/// Pairs of a thread.
fn vector(head_dim: usize, pairs: usize) -> usize {
    let is_whole = head_dim.is_multiple_of(8) && pairs.is_multiple_of(8);
    if is_whole { 8 } else { 1 }
}

fn expression(element: &str, vector: usize) -> String {
    format!("rope_kv<{element}, {vector}>")
}

fn geometry(tokens: usize) -> Launch {
    Launch::of_blocks(tokens as u32, 128)
}

pub(crate) mod catalog;
#[cfg(test)]
mod tests {
    use crate::cuda::testing::{emulated, rounded, widened};
    use crate::testing::numbers;
    use crate::{Backend, DType, QkvLayout};

    #[test]
    fn turns_and_writes() {
        for (dtype, head_dim, pairs) in [
            (DType::BF16, 64, 32),
            (DType::F16, 80, 40),
            (DType::BF16, 96, 16),
            (DType::BF16, 20, 9),
        ] {
            let Some(cuda) = emulated(dtype) else { return };
            let layout = QkvLayout {
                heads: 4,
                kv_heads: 2,
                head_dim,
            };
            let (tokens, slots) = (5, 11);
            let x = numbers(7, tokens * layout.width());
            let positions = [0, 3, 17, 100, 255];
            let slot_of = [10, 0, 4, 5, 2];
            let frequencies: Vec<f64> = (0..pairs)
                .map(|i| 10_000_f64.powf(-(i as f64) / pairs as f64))
                .collect();
            let rope = cuda.rope_table(&frequencies, 256).unwrap();
            let mut pool = cuda.kv_pool(2, slots, layout, dtype).unwrap();
            let mut qkv = cuda.upload(&rounded(&x, dtype));
            let (p, s) = (
                cuda.upload_indices(&positions),
                cuda.upload_indices(&slot_of),
            );
            cuda.rope_kv(&mut qkv, tokens, layout, &p, &s, &rope, &mut pool, 1)
                .unwrap();
            let got = cuda.download(&qkv);
            let bits = cuda.download_bits(&qkv);
            for (token, &position) in positions.iter().enumerate() {
                let at = token * layout.width();
                let value = |i: usize| f64::from(widened(x[at + i], dtype));
                for head in 0..6 {
                    for i in 0..head_dim {
                        let start = head * head_dim;
                        let angle = |i: usize| f64::from(position) * frequencies[i];
                        // The table has float32; the two products may cancel.
                        let (truth, size) = if i < pairs {
                            let (a, b, t) = (value(start + i), value(start + i + pairs), angle(i));
                            (a * t.cos() - b * t.sin(), a.abs() + b.abs())
                        } else if i < 2 * pairs {
                            let (a, b, t) =
                                (value(start + i - pairs), value(start + i), angle(i - pairs));
                            (b * t.cos() + a * t.sin(), a.abs() + b.abs())
                        } else {
                            (value(start + i), 0.0)
                        };
                        let got = got[at + start + i];
                        cuda.assert_near("rope_kv", got, truth, size * 2e-7)
                            .unwrap();
                    }
                }
            }
            let [keys, values] = cuda.download_layer(&pool, 1);
            let kv_width = layout.kv_width();
            for (token, &slot) in slot_of.iter().enumerate() {
                let row = &bits[token * layout.width()..][..layout.width()];
                let at = slot as usize * kv_width;
                assert_eq!(keys[at..at + kv_width], row[4 * head_dim..6 * head_dim]);
                assert_eq!(values[at..at + kv_width], row[6 * head_dim..]);
            }
            cuda.assert_clean(&qkv, tokens * layout.width());
        }
    }
}
