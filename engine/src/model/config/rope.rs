//! Rotary position embedding: how fast each pair of elements turns.

use std::f64::consts::TAU;

/// How the angles are stretched to reach beyond the context a model was first trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths beyond the original context over this are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths within the original context over this are high frequencies.
        high_freq_factor: f64,
        /// The context of the first training, in tokens.
        original_max_position_embeddings: usize,
    },
    /// One divisor per frequency, as GGUF's `rope_freqs.weight` holds them.
    Factors(Vec<f64>),
}

/// Radians per position of each of the `head_dim / 2` pairs: `theta ^ (-2 i / head_dim)`, stretched by `scaling`.
///
/// The Llama 3 rule is that of `_compute_llama3_parameters` in transformers' `modeling_rope_utils.py`.
pub(crate) fn inverse_frequencies(theta: f64, head_dim: usize, scaling: &RopeScaling) -> Vec<f64> {
    let plain = (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64));
    match scaling {
        RopeScaling::None => plain.collect(),
        RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
        RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, by)| f / by).collect(),
        &RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let context = original_max_position_embeddings as f64;
            plain
                .map(|f| {
                    let wavelength = TAU / f;
                    if wavelength > context / low_freq_factor {
                        f / factor
                    } else if wavelength < context / high_freq_factor {
                        f
                    } else {
                        let kept = (context / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - kept) * f / factor + kept * f
                    }
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scaling: RopeScaling, at: &[(usize, f64)]) {
        let found = inverse_frequencies(500_000.0, 64, &scaling);
        assert_eq!(found.len(), 32);
        for &(i, expected) in at {
            assert!(
                (found[i] / expected - 1.0).abs() < 1e-6,
                "{i}: {} is not {expected}",
                found[i]
            );
        }
    }

    // Expected values: transformers' formula evaluated in Python with 53-bit floats.
    #[test]
    fn unstretched() {
        check(
            RopeScaling::None,
            &[
                (0, 1.0),
                (1, 0.663_601_237_696_088_5),
                (31, 3.013_858_152_139_172e-6),
            ],
        );
    }

    #[test]
    fn linear_divides_every_frequency() {
        check(
            RopeScaling::Linear { factor: 4.0 },
            &[(0, 0.25), (31, 7.534_645_380_347_93e-7)],
        );
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        check(
            RopeScaling::Llama3 {
                factor: 32.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            },
            &[
                (0, 1.0),
                (14, 3.211_445_994_752_591e-3),
                (16, 4.295_567_965_593_582e-4),
                (31, 3.013_858_152_139_172e-6 / 32.0),
            ],
        );
    }

    #[test]
    fn factors_divide_one_by_one() {
        let factors = (1..=32).map(f64::from).collect();
        check(
            RopeScaling::Factors(factors),
            &[
                (0, 1.0),
                (1, 0.663_601_237_696_088_5 / 2.0),
                (31, 3.013_858_152_139_172e-6 / 32.0),
            ],
        );
    }
}
