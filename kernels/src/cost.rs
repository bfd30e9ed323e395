use std::ops::{Add, AddAssign};

/// The work an operation cannot do without: floating-point operations (a multiply-add counts two), and bytes that must
/// cross between memory and the processor once, however good the kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of the KV cache read and written.
    pub kv_bytes: u64,
    /// Bytes of activations and indices read and written.
    pub activation_bytes: u64,
}

impl Cost {
    /// All bytes together.
    pub const fn bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.activation_bytes
    }
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost {
            flops: self.flops + other.flops,
            weight_bytes: self.weight_bytes + other.weight_bytes,
            kv_bytes: self.kv_bytes + other.kv_bytes,
            activation_bytes: self.activation_bytes + other.activation_bytes,
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}
