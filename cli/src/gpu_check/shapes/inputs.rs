//! Random inputs on the device that the host knows too, and what a result may differ by.

use half::bf16;
use stepscope_device::driver::DeviceBuffer;
use stepscope_kernels::cuda::{Cuda, CudaBuffer};
use stepscope_kernels::philox::{philox4x32_10, unit_f32};
use stepscope_microbench::Error;

/// Elements of the pattern: a prime, so that no two rows of a matrix begin at the same one.
const LEN: usize = 4_194_301;
const SEED: u64 = 20_261_124;

/// A fixed sequence of random numbers in [-1, 1), in bfloat16, which buffers are filled from: its copies cost the device a moment,
/// where random numbers from the host would cost seconds.
#[derive(Debug)]
pub(super) struct Pattern {
    host: Vec<u16>,
    device: DeviceBuffer<u16>,
}

impl Pattern {
    pub(super) fn new(cuda: &Cuda) -> Result<Pattern, Error> {
        let host: Vec<u16> = (0..LEN.div_ceil(4))
            .flat_map(|block| philox4x32_10([block as u32, 0, 0, 0], SEED))
            .take(LEN)
            .map(|word| bf16::from_f32(2.0 * unit_f32(word) - 1.0).to_bits())
            .collect();
        let mut device = DeviceBuffer::new(cuda.context(), "random numbers", LEN)?;
        device.write(cuda.stream(), 0, &host)?;
        Ok(Pattern { host, device })
    }

    /// Element `index` of a buffer that was filled from `start`.
    pub(super) fn at(&self, start: usize, index: usize) -> f64 {
        f64::from(bf16::from_bits(self.host[(start + index) % LEN]))
    }

    /// Fills all of `buffer`, beginning with the element `start` of the pattern.
    pub(super) fn fill(
        &self,
        cuda: &Cuda,
        buffer: &mut CudaBuffer,
        start: usize,
    ) -> Result<(), Error> {
        let mut at = 0;
        let mut from = start % LEN;
        while at < buffer.len() {
            let len = (LEN - from).min(buffer.len() - at);
            buffer.copy_from(cuda.stream(), at, &self.device, from..from + len)?;
            at += len;
            from = 0;
        }
        Ok(())
    }

    /// A buffer of `len` elements, filled from `start`.
    pub(super) fn buffer(
        &self,
        cuda: &Cuda,
        len: usize,
        start: usize,
    ) -> Result<CudaBuffer, Error> {
        let mut buffer = output(cuda, len)?;
        self.fill(cuda, &mut buffer, start)?;
        Ok(buffer)
    }
}

/// A buffer of NaN.
pub(super) fn output(cuda: &Cuda, len: usize) -> Result<CudaBuffer, Error> {
    let mut buffer = DeviceBuffer::new(cuda.context(), "the activations of a shape", len)?;
    poison(cuda, &mut buffer)?;
    Ok(buffer)
}

/// Makes all of a buffer NaN, so that what no kernel wrote is seen.
pub(super) fn poison(cuda: &Cuda, buffer: &mut CudaBuffer) -> Result<(), Error> {
    Ok(buffer.fill(cuda.stream(), 0xff)?)
}

/// `len` elements from `at` on.
pub(super) fn read(
    cuda: &Cuda,
    buffer: &CudaBuffer,
    at: usize,
    len: usize,
) -> Result<Vec<f64>, Error> {
    let mut bits = vec![0; len];
    buffer.read(cuda.stream(), at, &mut bits)?;
    Ok(bits
        .into_iter()
        .map(|bits| f64::from(bf16::from_bits(bits)))
        .collect())
}

/// Up to `count` numbers below `limit`, in ascending order, the first and the last of them included.
pub(super) fn spread(limit: usize, count: usize) -> Vec<usize> {
    let count = count.min(limit);
    let last = limit.saturating_sub(1);
    (0..count)
        .map(|i| (i * last).checked_div(count - 1).unwrap_or(0))
        .collect()
}

/// How far results are from what they are held against.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Difference {
    /// The largest difference, in units of what is allowed.
    pub(super) worst: f64,
    pub(super) elements: usize,
}

/// A rounding to bfloat16, as a part of the number.
const ROUNDING: f64 = 1.0 / 256.0;

impl Difference {
    pub(super) fn is_right(&self) -> bool {
        self.worst <= 1.0
    }

    /// An error where it is not right.
    pub(super) fn verdict(&self) -> Result<(), Error> {
        match self.is_right() {
            true => Ok(()),
            false => Err(Error::Wrong(format!(
                "results differ by {:.3} times what is allowed",
                self.worst
            ))),
        }
    }

    pub(super) fn and(self, other: Difference) -> Difference {
        Difference {
            worst: self.worst.max(other.worst),
            elements: self.elements + other.elements,
        }
    }

    /// Of results from what they are held against: two roundings of each are allowed, and `on_the_way` roundings of a typical
    /// result (the root of the mean square), for what was rounded before it was added up.
    pub(super) fn of(results: &[f64], expected: &[f64], on_the_way: f64) -> Difference {
        let squares: f64 = expected.iter().map(|x| x * x).sum();
        let typical = on_the_way * (squares / expected.len().max(1) as f64).sqrt();
        let worst = results.iter().zip(expected).map(|(result, expected)| {
            let units = (result - expected).abs() / (ROUNDING * (2.0 * expected.abs() + typical));
            match result == expected {
                true => 0.0,
                false if units.is_nan() => f64::INFINITY,
                false => units,
            }
        });
        Difference {
            worst: worst.fold(0.0, f64::max),
            elements: results.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread_from_the_first_to_the_last() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(1, 8), [0]);
        assert!(spread(0, 8).is_empty());
    }

    #[test]
    fn roundings_are_allowed_and_nothing_more() {
        let expected = [1.0, -1.0, 1.0, -1.0];
        assert_eq!(Difference::of(&expected, &expected, 1.0).worst, 0.0);
        let near = [1.0 + 1.0 / 128.0, -1.0, 1.0, -1.0];
        let near = Difference::of(&near, &expected, 1.0);
        assert!(near.is_right() && near.worst > 0.6, "{near:?}");
        let far = [1.0, -1.0, 1.0 + 1.0 / 64.0, -1.0];
        assert!(!Difference::of(&far, &expected, 1.0).is_right());
        // What no kernel wrote is NaN.
        let nan = [1.0, f64::NAN, 1.0, -1.0];
        assert_eq!(Difference::of(&nan, &expected, 1.0).worst, f64::INFINITY);
        // Nothing came out where something is expected, or the other way round.
        assert!(!Difference::of(&[0.0], &[1.0], 1.0).is_right());
        assert!(!Difference::of(&[1e-9], &[0.0], 1.0).is_right());
    }

    #[test]
    fn differences_add_up() {
        let (a, b) = (
            Difference {
                worst: 0.5,
                elements: 3,
            },
            Difference {
                worst: 2.0,
                elements: 4,
            },
        );
        let both = a.and(b);
        assert_eq!((both.worst, both.elements), (2.0, 7));
    }
}
