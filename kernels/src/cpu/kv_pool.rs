use half::{bf16, f16};

use crate::cpu::Element;
use crate::cpu::memory::CpuBuffer;
use crate::{DType, Error, QkvLayout};

/// The keys and values of all layers, each `[slots, kv_heads, head_dim]` in one of the storage types.
#[derive(Debug)]
pub struct CpuKvPool {
    layers: Vec<Layer>,
    slots: usize,
    layout: QkvLayout,
    dtype: DType,
}

#[derive(Debug)]
enum Layer {
    F32(Pair<f32>),
    F16(Pair<f16>),
    BF16(Pair<bf16>),
}

#[derive(Debug)]
struct Pair<T: bytemuck::Pod> {
    keys: CpuBuffer<T>,
    values: CpuBuffer<T>,
}

/// Keys and values of one layer, to read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KvLayer<'a> {
    F32(&'a [f32], &'a [f32]),
    F16(&'a [f16], &'a [f16]),
    BF16(&'a [bf16], &'a [bf16]),
}

/// Keys and values of one layer, to write.
#[derive(Debug)]
pub(crate) enum KvLayerMut<'a> {
    F32(&'a mut [f32], &'a mut [f32]),
    F16(&'a mut [f16], &'a mut [f16]),
    BF16(&'a mut [bf16], &'a mut [bf16]),
}

/// A type that a pool stores.
pub(crate) trait KvElement: Element {
    /// Keys and values, empty if the layer has another type.
    fn of(layer: KvLayer<'_>) -> (&[Self], &[Self]);
}

impl KvElement for f32 {
    fn of(layer: KvLayer<'_>) -> (&[f32], &[f32]) {
        match layer {
            KvLayer::F32(keys, values) => (keys, values),
            _ => (&[], &[]),
        }
    }
}

impl KvElement for f16 {
    fn of(layer: KvLayer<'_>) -> (&[f16], &[f16]) {
        match layer {
            KvLayer::F16(keys, values) => (keys, values),
            _ => (&[], &[]),
        }
    }
}

impl KvElement for bf16 {
    fn of(layer: KvLayer<'_>) -> (&[bf16], &[bf16]) {
        match layer {
            KvLayer::BF16(keys, values) => (keys, values),
            _ => (&[], &[]),
        }
    }
}

impl CpuKvPool {
    pub(crate) fn new(
        layers: usize,
        slots: usize,
        layout: QkvLayout,
        dtype: DType,
    ) -> Result<CpuKvPool, Error> {
        let elements = slots as u128 * layout.kv_width() as u128;
        let bytes = elements
            .saturating_mul(2 * layers as u128)
            .saturating_mul(dtype.size() as u128);
        let refused = || {
            Error::out_of_memory(
                format!("the KV pool of {slots} slots in {layers} layers"),
                bytes,
            )
        };
        let elements = usize::try_from(elements).map_err(|_| refused())?;
        if bytes > isize::MAX as u128 {
            return Err(refused());
        }
        fn pair<T: bytemuck::Pod>(len: usize) -> Result<Pair<T>, Error> {
            Ok(Pair {
                keys: CpuBuffer::zeroed("the KV pool", len)?,
                values: CpuBuffer::zeroed("the KV pool", len)?,
            })
        }
        let layers = (0..layers)
            .map(|_| {
                Ok(match dtype {
                    DType::F32 => Layer::F32(pair(elements)?),
                    DType::F16 => Layer::F16(pair(elements)?),
                    DType::BF16 => Layer::BF16(pair(elements)?),
                })
            })
            .collect::<Result<Vec<_>, Error>>()
            .map_err(|_| refused())?;
        Ok(CpuKvPool {
            layers,
            slots,
            layout,
            dtype,
        })
    }

    /// Slots of each layer.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// How keys and values are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The heads that the pool was made for.
    pub fn layout(&self) -> QkvLayout {
        self.layout
    }

    /// Fills every slot of every layer with NaN, so that a test sees any read of a slot that was never written.
    pub fn poison(&mut self) {
        for layer in 0..self.layers.len() {
            match self.layer_mut(layer) {
                KvLayerMut::F32(k, v) => {
                    k.fill(f32::NAN);
                    v.fill(f32::NAN);
                }
                KvLayerMut::F16(k, v) => {
                    k.fill(f16::NAN);
                    v.fill(f16::NAN);
                }
                KvLayerMut::BF16(k, v) => {
                    k.fill(bf16::NAN);
                    v.fill(bf16::NAN);
                }
            }
        }
    }

    pub(crate) fn layer(&self, layer: usize) -> KvLayer<'_> {
        match &self.layers[layer] {
            Layer::F32(p) => KvLayer::F32(&p.keys, &p.values),
            Layer::F16(p) => KvLayer::F16(&p.keys, &p.values),
            Layer::BF16(p) => KvLayer::BF16(&p.keys, &p.values),
        }
    }

    /// Keys and values of `layer` as elements of type `T`, which must be the storage type.
    pub(crate) fn typed<T: KvElement>(&self, layer: usize) -> (&[T], &[T]) {
        T::of(self.layer(layer))
    }

    pub(crate) fn layer_mut(&mut self, layer: usize) -> KvLayerMut<'_> {
        match &mut self.layers[layer] {
            Layer::F32(p) => KvLayerMut::F32(&mut p.keys, &mut p.values),
            Layer::F16(p) => KvLayerMut::F16(&mut p.keys, &mut p.values),
            Layer::BF16(p) => KvLayerMut::BF16(&mut p.keys, &mut p.values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: QkvLayout = QkvLayout {
        heads: 4,
        kv_heads: 2,
        head_dim: 3,
    };

    #[test]
    fn a_pool_starts_with_zeroes_and_can_be_poisoned() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let mut pool = CpuKvPool::new(2, 5, LAYOUT, dtype).unwrap();
            let sum = |pool: &CpuKvPool| -> (usize, f32) {
                match pool.layer(1) {
                    KvLayer::F32(k, v) => (k.len(), k.iter().chain(v).sum()),
                    KvLayer::F16(k, v) => (k.len(), k.iter().chain(v).map(|x| x.to_f32()).sum()),
                    KvLayer::BF16(k, v) => (k.len(), k.iter().chain(v).map(|x| x.to_f32()).sum()),
                }
            };
            assert_eq!(sum(&pool), (5 * 2 * 3, 0.0));
            pool.poison();
            assert!(sum(&pool).1.is_nan());
        }
    }

    #[test]
    fn a_pool_that_no_machine_holds_is_an_error() {
        for slots in [usize::MAX, 1 << 58] {
            let error = CpuKvPool::new(30, slots, LAYOUT, DType::BF16).unwrap_err();
            assert!(error.is_out_of_memory(), "{error}");
        }
    }
}
