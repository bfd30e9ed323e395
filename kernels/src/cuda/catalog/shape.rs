//! The shape that a kernel is asked about.

use std::fmt;

use super::{Family, element};
use crate::{DType, Error};

/// A number that a shape has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimension {
    /// As it is written: `M`, `head_dim`.
    pub name: &'static str,
    /// What it is when it is not given.
    pub default: usize,
    /// The least that it may be.
    pub least: usize,
    /// What it means.
    pub meaning: &'static str,
}

/// A dimension of at least 1.
pub const fn dimension(name: &'static str, default: usize, meaning: &'static str) -> Dimension {
    Dimension {
        name,
        default,
        least: 1,
        meaning,
    }
}

/// A dimension that may be 0, which means something of its own.
pub const fn option(name: &'static str, default: usize, meaning: &'static str) -> Dimension {
    Dimension {
        name,
        default,
        least: 0,
        meaning,
    }
}

/// The largest number in a shape: the kernels count in 32 bits.
const MOST: usize = 1 << 30;

/// The numbers of a family's shape, a storage type, and perhaps the instance that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    values: Vec<(&'static str, usize)>,
    dtype: DType,
    instance: Option<String>,
}

impl Shape {
    /// The family's own example, in bfloat16.
    pub fn of(family: &Family) -> Shape {
        Shape::example(family.dimensions)
    }

    /// What these dimensions are when nothing else is said, in bfloat16.
    pub fn example(dimensions: &[Dimension]) -> Shape {
        Shape {
            values: dimensions.iter().map(|d| (d.name, d.default)).collect(),
            dtype: DType::BF16,
            instance: None,
        }
    }

    /// The example with what `text` says: `M=4096,N=1024`. `dtype=f16` or `dtype=bf16` goes with every kernel; upper and lower
    /// case are the same.
    ///
    /// # Errors
    /// The text has another form, names what the family does not have, or a number is out of range.
    pub fn parse(family: &Family, text: &str) -> Result<Shape, Error> {
        Shape::parse_dimensions(family.name, family.dimensions, text)
    }

    /// The same for dimensions of `owner`, which errors name.
    ///
    /// # Errors
    /// As [`Shape::parse`].
    pub fn parse_dimensions(
        owner: &str,
        dimensions: &[Dimension],
        text: &str,
    ) -> Result<Shape, Error> {
        let mut shape = Shape::example(dimensions);
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                Error::shape(format!("{part:?} in a shape has not the form NAME=NUMBER"))
            })?;
            shape.set(owner, dimensions, name.trim(), value.trim())?;
        }
        Ok(shape)
    }

    fn set(
        &mut self,
        owner: &str,
        dimensions: &[Dimension],
        name: &str,
        value: &str,
    ) -> Result<(), Error> {
        if name.eq_ignore_ascii_case("dtype") {
            self.dtype = match value {
                "bf16" | "bfloat16" => DType::BF16,
                "f16" | "float16" => DType::F16,
                _ => {
                    return Err(Error::shape(format!(
                        "dtype={value}: the kernels have bf16 and f16"
                    )));
                }
            };
            return Ok(());
        }
        let dimension = dimensions
            .iter()
            .find(|d| d.name.eq_ignore_ascii_case(name));
        let dimension = dimension.ok_or_else(|| {
            let names: Vec<&str> = dimensions.iter().map(|d| d.name).collect();
            Error::shape(format!(
                "{owner} has no dimension {name:?}; a shape of it has {} and dtype",
                names.join(", ")
            ))
        })?;
        let least = dimension.least;
        let number = value.parse().ok();
        let number = number
            .filter(|n| (least..=MOST).contains(n))
            .ok_or_else(|| {
                Error::shape(format!(
                    "{}={value}: it must be a whole number from {least} to {MOST}",
                    dimension.name
                ))
            })?;
        for (name, value) in &mut self.values {
            if *name == dimension.name {
                *value = number;
            }
        }
        Ok(())
    }

    /// The same, for this instance and no other.
    #[must_use]
    pub fn with_instance(self, expression: &str) -> Shape {
        Shape {
            instance: Some(expression.to_owned()),
            ..self
        }
    }

    /// The same in another storage type.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Shape {
        Shape { dtype, ..self }
    }

    /// A number of the shape; 0 for a name that its family does not have.
    pub fn get(&self, name: &str) -> usize {
        let found = self.values.iter().find(|(known, _)| *known == name);
        debug_assert!(found.is_some(), "{name} in {self}");
        found.map_or(0, |&(_, value)| value)
    }

    /// The numbers, in the family's order.
    pub fn values(&self) -> &[(&'static str, usize)] {
        &self.values
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The storage type's name in the sources.
    pub(crate) fn element(&self) -> &'static str {
        element(self.dtype)
    }

    /// The instance that is wanted.
    pub fn instance(&self) -> Option<&str> {
        self.instance.as_deref()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.values {
            write!(f, "{name}={value},")?;
        }
        write!(f, "dtype={}", self.element())
    }
}
