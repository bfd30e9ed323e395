//! A ring of slots in device memory, linked in random order.

use stepscope_device::arguments;
use stepscope_device::driver::{DeviceBuffer, DevicePointer, Kernel, Launch};

use super::super::context::Context;
use super::super::kernels::{self, Module};
use crate::Error;

arguments! {
    struct LinkRing {
        base: u64,
        order: DevicePointer,
        slots: u32,
        stride: u64,
        skew: u64,
    }
}
arguments! {
    struct TouchRing {
        base: u64,
        slots: u32,
        stride: u64,
        skew: u64,
        sink: DevicePointer,
    }
}

/// Kernels that make rings.
pub(super) struct Kernels {
    link: Kernel<LinkRing>,
    touch: Kernel<TouchRing>,
}

impl Kernels {
    pub(super) fn new(module: &Module) -> Result<Kernels, Error> {
        Ok(Kernels {
            link: module.kernel("link_ring")?,
            touch: module.kernel("touch_ring")?,
        })
    }
}

/// Where slots lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) slots: u64,
    /// Bytes from one to the next.
    pub(super) stride: u64,
    /// Bytes that each lies farther within its stride than the one before.
    pub(super) skew: u64,
}

impl Shape {
    /// A slot each `stride` bytes of a working set.
    pub(super) fn dense(bytes: u64, stride: u64) -> Shape {
        Shape {
            slots: bytes / stride,
            stride,
            skew: 0,
        }
    }

    /// As `slot_at` of `latency.cu`.
    fn offset(self, slot: u64) -> u64 {
        slot * self.stride + slot * self.skew % self.stride
    }
}

/// The ring, all of whose slots were read once.
pub(super) struct Ring {
    memory: DeviceBuffer<u8>,
    order: Vec<u32>,
    shape: Shape,
}

impl Ring {
    pub(super) fn new(
        context: &Context<'_>,
        kernels: &Kernels,
        shape: Shape,
    ) -> Result<Ring, Error> {
        let cuda = context.cuda();
        let bytes = (shape.slots * shape.stride) as usize;
        let memory = DeviceBuffer::<u8>::new(cuda.context(), "a ring of pointers", bytes)?;
        let order = random_order(shape.slots as u32);
        let mut uploaded = DeviceBuffer::new(cuda.context(), "the order of a ring", order.len())?;
        uploaded.write(cuda.stream(), 0, &order)?;
        let sink = DeviceBuffer::<u32>::new(cuda.context(), "what nobody reads", 1)?;
        let (base, slots) = (memory.pointer().0, shape.slots as u32);
        let launch = Launch::of_blocks(slots.div_ceil(256).min(1024), 256);
        kernels::launch(
            cuda,
            &kernels.link,
            &launch,
            &LinkRing {
                base,
                order: uploaded.pointer(),
                slots,
                stride: shape.stride,
                skew: shape.skew,
            },
        )?;
        kernels::launch(
            cuda,
            &kernels.touch,
            &launch,
            &TouchRing {
                base,
                slots,
                stride: shape.stride,
                skew: shape.skew,
                sink: sink.pointer(),
            },
        )?;
        Ok(Ring {
            memory,
            order,
            shape,
        })
    }

    pub(super) fn slots(&self) -> usize {
        self.order.len()
    }

    /// Where the slot lies that a walk reaches after `steps` from the ring's first.
    pub(super) fn address(&self, steps: usize) -> u64 {
        let slot = self.order[steps % self.order.len()];
        self.memory.pointer().0 + self.shape.offset(u64::from(slot))
    }
}

/// The numbers below `count` in random order, the same each time.
fn random_order(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    // Fisher and Yates, with the generator SplitMix64 (Steele, Lea and Flood, 2014).
    for index in (1..order.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        order.swap(index, (z % (index as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_number_once_and_is_not_sorted() {
        let order = random_order(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        // Neighbours are rarely neighbours: nothing can be fetched ahead.
        let runs = order
            .windows(2)
            .filter(|pair| pair[1] == pair[0] + 1)
            .count();
        assert!(runs < 10, "{runs}");
        assert_eq!(random_order(1), [0]);
    }

    #[test]
    fn slots_of_large_strides_do_not_lie_in_line() {
        let shape = Shape {
            slots: 4,
            stride: 4096,
            skew: 128,
        };
        let offsets: Vec<u64> = (0..4).map(|slot| shape.offset(slot)).collect();
        assert_eq!(offsets, [0, 4096 + 128, 8192 + 256, 12288 + 384]);
        assert_eq!(shape.offset(32) % 4096, 0);
        assert_eq!(Shape::dense(4096, 128).offset(3), 384);
    }
}
