//! Results held against a reference.

use std::fmt;

use super::probe::Output;
use stepscope_kernels::DType;

/// One output beside its reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The argument that it is.
    pub name: &'static str,
    /// Elements compared.
    pub elements: usize,
    /// Elements that are not right.
    pub wrong: usize,
    /// Elements that are NaN, whether nothing was written there or NaN was; -1 of integers.
    pub unwritten: usize,
    /// Whether nothing was written past the end.
    pub is_guard_whole: bool,
    /// The element that is farthest from its reference, in units of what is allowed.
    pub worst: Option<Worst>,
}

/// An element and what it should be.
#[derive(Debug, Clone, PartialEq)]
pub struct Worst {
    /// By axis, outermost first.
    pub index: Vec<usize>,
    /// What the kernel wrote.
    pub got: f32,
    /// What the reference has.
    pub expected: f32,
    /// What it may differ by.
    pub tolerance: f64,
    /// The difference over the tolerance: up to 1 is right. Infinite for NaN.
    pub units: f64,
}

impl Comparison {
    /// Whether all of it is as it must be.
    pub fn is_right(&self) -> bool {
        self.wrong == 0 && self.is_guard_whole
    }

    /// Holds `got` against `truth`. What is allowed are two roundings of a result to `dtype`, and `roundings` of a typical result,
    /// since what is rounded on the way is as large; without roundings, nothing.
    pub(super) fn of(
        got: &Output,
        truth: &Output,
        dtype: DType,
        roundings: Option<f64>,
    ) -> Comparison {
        let epsilon = match dtype {
            DType::F16 => 2f64.powi(-11),
            _ => 2f64.powi(-8),
        };
        let squares: f64 = truth.values.iter().map(|&x| f64::from(x).powi(2)).sum();
        let typical = (squares / truth.values.len().max(1) as f64).sqrt();
        let tolerance = |x: f32| match roundings {
            Some(roundings) => epsilon * (2.0 * f64::from(x.abs()) + roundings * typical),
            None => 0.5,
        };
        let mut comparison = Comparison {
            name: got.name,
            elements: 0,
            wrong: 0,
            unwritten: 0,
            is_guard_whole: got.is_guard_whole,
            worst: None,
        };
        let mut worst = (-1.0, 0);
        for (place, (&got, &expected)) in got.values.iter().zip(&truth.values).enumerate() {
            let is_unwritten = match roundings {
                Some(_) => got.is_nan(),
                None => got == -1.0,
            };
            let units = f64::from((got - expected).abs()) / tolerance(expected);
            let units = if units.is_nan() { f64::INFINITY } else { units };
            comparison.elements += 1;
            comparison.wrong += usize::from(units > 1.0);
            comparison.unwritten += usize::from(is_unwritten);
            if units > worst.0 {
                worst = (units, place);
            }
        }
        if comparison.elements > 0 {
            let (units, place) = worst;
            let expected = truth.values[place];
            comparison.worst = Some(Worst {
                index: index(place, &got.shape),
                got: got.values[place],
                expected,
                tolerance: tolerance(expected),
                units,
            });
        }
        comparison
    }
}

/// Where the element `place` of all lies, by axis.
fn index(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&axis| {
            let at = place % axis.max(1);
            place /= axis.max(1);
            at
        })
        .collect();
    index.reverse();
    index
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison {
            name,
            elements,
            wrong,
            unwritten,
            ..
        } = *self;
        if wrong == 0 {
            write!(f, "{name}: all {elements} elements are right")?;
        } else {
            write!(f, "{name}: {wrong} of {elements} elements are wrong")?;
        }
        if unwritten > 0 {
            write!(f, " ({unwritten} of them not written, or NaN)")?;
        }
        if let Some(worst) = &self.worst {
            let index: Vec<String> = worst.index.iter().map(ToString::to_string).collect();
            write!(
                f,
                "; the worst is {name}[{}] = {}, should be {} ± {:.2e}",
                index.join(", "),
                worst.got,
                worst.expected,
                worst.tolerance
            )?;
        }
        if !self.is_guard_whole {
            write!(f, "; something was written past the end of {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: &[f32]) -> Output {
        Output {
            name: "out",
            shape: vec![values.len() / 2, 2],
            values: values.to_vec(),
            is_guard_whole: true,
        }
    }

    #[test]
    fn the_worst_element_is_named_by_its_place() {
        let truth = output(&[1.0, 2.0, 3.0, 4.0]);
        let check = |got: &[f32], expected: &str| {
            let comparison = Comparison::of(&output(got), &truth, DType::BF16, Some(1.0));
            assert_eq!(comparison.to_string(), expected);
        };
        check(
            &[1.0, 2.0, 3.0, 4.0],
            "out: all 4 elements are right; the worst is out[0, 0] = 1, should be 1 ± 1.85e-2",
        );
        check(
            &[1.0, 2.0, 3.0, 4.5],
            "out: 1 of 4 elements are wrong; the worst is out[1, 1] = 4.5, should be 4 ± 4.19e-2",
        );
        check(
            &[1.0, 2.0, f32::NAN, 9.0],
            "out: 2 of 4 elements are wrong (1 of them not written, or NaN); the worst is out[1, 0] = NaN, should be 3 ± 3.41e-2",
        );
    }

    #[test]
    fn whole_numbers_must_be_equal() {
        let truth = output(&[5.0, 7.0]);
        let check = |got: &[f32]| Comparison::of(&output(got), &truth, DType::BF16, None);
        assert!(check(&[5.0, 7.0]).is_right());
        assert!(!check(&[5.0, 8.0]).is_right());
        assert_eq!(check(&[5.0, -1.0]).unwritten, 1);
    }

    #[test]
    fn a_broken_guard_is_wrong() {
        let truth = output(&[5.0, 7.0]);
        let got = Output {
            is_guard_whole: false,
            ..truth.clone()
        };
        assert!(!Comparison::of(&got, &truth, DType::F16, Some(1.0)).is_right());
    }
}
