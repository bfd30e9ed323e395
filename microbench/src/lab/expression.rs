//! Numbers that a kernel's file computes from the dimensions: `ceil(M / BM) * ceil(N / BN)`.
//!
//! Division is exact: `7 / 2` is three and a half, and `ceil` or `floor` makes a whole number of it. What is left must be whole.

use std::fmt;

/// How deep parentheses and signs may lie within one another.
const MOST_DEPTH: usize = 64;

/// An expression, understood but not computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// A whole number.
    Number(i128),
    /// A dimension or a parameter.
    Name(String),
    /// Of two operands.
    Binary(Operator, Box<Expression>, Box<Expression>),
    /// The smallest whole number that is not less.
    Ceil(Box<Expression>),
    /// The largest whole number that is not more.
    Floor(Box<Expression>),
    /// The least of several.
    Min(Vec<Expression>),
    /// The greatest of several.
    Max(Vec<Expression>),
}

/// What is done with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Remainder => "%",
        })
    }
}

/// A fraction in lowest terms, its denominator positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fraction {
    top: i128,
    bottom: i128,
}

impl Fraction {
    fn new(top: i128, bottom: i128) -> Option<Fraction> {
        if bottom == 0 {
            return None;
        }
        let divisor = greatest_divisor(top, bottom)?;
        let (top, bottom) = (top / divisor, bottom / divisor);
        let sign = bottom.signum();
        Some(Fraction {
            top: top.checked_mul(sign)?,
            bottom: bottom.checked_mul(sign)?,
        })
    }

    fn whole(value: i128) -> Fraction {
        Fraction {
            top: value,
            bottom: 1,
        }
    }

    fn floor(self) -> i128 {
        self.top.div_euclid(self.bottom)
    }

    fn apply(self, operator: Operator, other: Fraction) -> Option<Fraction> {
        let cross = |a: Fraction, b: Fraction| a.top.checked_mul(b.bottom);
        let bottom = self.bottom.checked_mul(other.bottom)?;
        match operator {
            Operator::Add => Fraction::new(
                cross(self, other)?.checked_add(cross(other, self)?)?,
                bottom,
            ),
            Operator::Subtract => Fraction::new(
                cross(self, other)?.checked_sub(cross(other, self)?)?,
                bottom,
            ),
            Operator::Multiply => Fraction::new(self.top.checked_mul(other.top)?, bottom),
            Operator::Divide => {
                Fraction::new(cross(self, other)?, self.bottom.checked_mul(other.top)?)
            }
            Operator::Remainder => {
                let both_whole = self.bottom == 1 && other.bottom == 1 && other.top != 0;
                both_whole
                    .then(|| self.top.checked_rem_euclid(other.top))
                    .flatten()
                    .map(Fraction::whole)
            }
        }
    }

    /// Compares two; nothing where numbers are too large.
    fn is_less(self, other: Fraction) -> Option<bool> {
        Some(self.top.checked_mul(other.bottom)? < other.top.checked_mul(self.bottom)?)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bottom {
            1 => write!(f, "{}", self.top),
            bottom => write!(f, "{}/{bottom}", self.top),
        }
    }
}

fn greatest_divisor(a: i128, b: i128) -> Option<i128> {
    let (mut a, mut b) = (a.checked_abs()?, b.checked_abs()?);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Some(a.max(1))
}

impl Expression {
    /// Understands `text`.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub fn parse(text: &str) -> Result<Expression, String> {
        let mut parser = Parser {
            rest: text.trim(),
            depth: 0,
        };
        let expression = parser.sum()?;
        match parser.rest {
            "" => Ok(expression),
            rest => Err(format!("{rest:?} is left over")),
        }
    }

    /// The whole number, not negative, that it is where names mean what `value_of` says.
    ///
    /// # Errors
    /// A name means nothing, a division by zero, a fraction that is left, a number out of range.
    pub fn evaluate(&self, value_of: &dyn Fn(&str) -> Option<u64>) -> Result<u64, String> {
        let value = self.fraction(value_of)?;
        if value.bottom != 1 {
            return Err(format!(
                "it is {value}, which is not whole: write ceil(…) or floor(…)"
            ));
        }
        u64::try_from(value.top).map_err(|_| format!("it is {value}, out of range"))
    }

    fn fraction(&self, value_of: &dyn Fn(&str) -> Option<u64>) -> Result<Fraction, String> {
        let least = |all: &[Expression], wants_less: bool| {
            let mut best: Option<Fraction> = None;
            for each in all {
                let value = each.fraction(value_of)?;
                let is_better = match best {
                    None => true,
                    Some(best) => {
                        let (a, b) = if wants_less {
                            (value, best)
                        } else {
                            (best, value)
                        };
                        a.is_less(b).ok_or_else(too_large)?
                    }
                };
                if is_better {
                    best = Some(value);
                }
            }
            best.ok_or_else(|| "min() and max() need something".to_owned())
        };
        match self {
            Expression::Number(value) => Ok(Fraction::whole(*value)),
            Expression::Name(name) => value_of(name)
                .map(|value| Fraction::whole(value.into()))
                .ok_or_else(|| format!("{name} is neither a dimension nor a parameter")),
            Expression::Binary(operator, a, b) => {
                let (a, b) = (a.fraction(value_of)?, b.fraction(value_of)?);
                let divides = matches!(operator, Operator::Divide | Operator::Remainder);
                if divides && b.top == 0 {
                    return Err(format!("{a} {operator} 0"));
                }
                if *operator == Operator::Remainder && (a.bottom != 1 || b.bottom != 1) {
                    return Err(format!("{a} % {b}: both must be whole"));
                }
                a.apply(*operator, b).ok_or_else(too_large)
            }
            Expression::Ceil(inner) => {
                let value = inner.fraction(value_of)?;
                let whole = value.floor();
                let up = i128::from(value.bottom != 1);
                Ok(Fraction::whole(
                    whole.checked_add(up).ok_or_else(too_large)?,
                ))
            }
            Expression::Floor(inner) => Ok(Fraction::whole(inner.fraction(value_of)?.floor())),
            Expression::Min(all) => least(all, true),
            Expression::Max(all) => least(all, false),
        }
    }
}

fn too_large() -> String {
    "its numbers are too large".to_owned()
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Expression, String> {
        let mut left = self.product()?;
        loop {
            let operator = match self.rest.chars().next() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => return Ok(left),
            };
            self.skip(1);
            let right = self.product()?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut left = self.atom()?;
        loop {
            let operator = match self.rest.chars().next() {
                Some('*') => Operator::Multiply,
                Some('/') => Operator::Divide,
                Some('%') => Operator::Remainder,
                _ => return Ok(left),
            };
            self.skip(1);
            let right = self.atom()?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
    }

    fn atom(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(format!("more than {MOST_DEPTH} levels of parentheses"));
        }
        let atom = self.atom_within();
        self.depth -= 1;
        atom
    }

    fn atom_within(&mut self) -> Result<Expression, String> {
        match self.rest.chars().next() {
            None => Err("a number, a name or ( is missing at the end".to_owned()),
            Some('(') => {
                self.skip(1);
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() => {
                let digits = self.take(|c| c.is_ascii_digit());
                let number = digits.parse::<u64>();
                let number = number.map_err(|_| format!("{digits} is too large"))?;
                Ok(Expression::Number(number.into()))
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_');
                if !self.rest.starts_with('(') {
                    return Ok(Expression::Name(name));
                }
                self.skip(1);
                let mut arguments = vec![self.sum()?];
                while self.rest.starts_with(',') {
                    self.skip(1);
                    arguments.push(self.sum()?);
                }
                self.expect(')')?;
                function(&name, arguments)
            }
            Some(c) => Err(format!("{c:?} is no number, name or (")),
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.rest.starts_with(wanted) {
            self.skip(wanted.len_utf8());
            return Ok(());
        }
        match self.rest.chars().next() {
            Some(found) => Err(format!("{wanted} is missing before {found:?}")),
            None => Err(format!("{wanted} is missing at the end")),
        }
    }

    /// Takes as many characters as `belongs` says, at least the first, and the space behind them.
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let taken = self.rest[..end].to_owned();
        self.skip(end);
        taken
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }
}

fn function(name: &str, arguments: Vec<Expression>) -> Result<Expression, String> {
    let count = arguments.len();
    let one = |arguments: Vec<Expression>| match <[Expression; 1]>::try_from(arguments) {
        Ok([inner]) => Ok(Box::new(inner)),
        Err(_) => Err(format!("{name} takes one argument, not {count}")),
    };
    match name {
        "min" => Ok(Expression::Min(arguments)),
        "max" => Ok(Expression::Max(arguments)),
        "ceil" => Ok(Expression::Ceil(one(arguments)?)),
        "floor" => Ok(Expression::Floor(one(arguments)?)),
        _ => Err(format!(
            "{name}(…) is no function; there are ceil, floor, min and max"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> Result<u64, String> {
        let names = |name: &str| match name {
            "M" => Some(100),
            "BM" => Some(64),
            _ => None,
        };
        Expression::parse(text)?.evaluate(&names)
    }

    #[test]
    fn arithmetic_is_that_of_fractions() {
        let check = |text: &str, expected: u64| assert_eq!(value(text), Ok(expected), "{text}");
        check("256", 256);
        check(" ceil(M / BM) * 3 ", 6);
        check("ceil(M/BM)*ceil(M/7)", 30);
        check("floor(M / BM)", 1);
        check("M / 3 * 3", 100);
        check("1 + 2 * 3 - 4", 3);
        check("(1 + 2) * 3", 9);
        check("M % 30 + 100 % 7", 12);
        check("min(M, BM, 70) + max(1/2, 1/3, 2)", 66);
        check("ceil(3 - 7/2 + 1)", 1);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            assert_eq!(value(text), Err(expected.to_owned()), "{text}");
        };
        check(
            "M / BM",
            "it is 25/16, which is not whole: write ceil(…) or floor(…)",
        );
        check("N", "N is neither a dimension nor a parameter");
        check("1 - 2", "it is -1, out of range");
        check("M / (BM - 64)", "100 / 0");
        check("7 % (M / 3)", "7 % 100/3: both must be whole");
        check("", "a number, a name or ( is missing at the end");
        check("2 *", "a number, a name or ( is missing at the end");
        check("(2", ") is missing at the end");
        check("2)", "\")\" is left over");
        check("2 & 3", "\"& 3\" is left over");
        check("&", "'&' is no number, name or (");
        check(
            "round(2)",
            "round(…) is no function; there are ceil, floor, min and max",
        );
        check("ceil(2, 3)", "ceil takes one argument, not 2");
        check("99999999999999999999", "99999999999999999999 is too large");
        let large = format!("{}M", "18446744073709551615 * ".repeat(3));
        check(&large, "its numbers are too large");
        let deep = "(".repeat(1000);
        check(&deep, "more than 64 levels of parentheses");
    }

    /// An expression as text, and what it is in floating point, if it is nothing special.
    fn expressions() -> impl Strategy<Value = (String, f64)> {
        let leaf = prop_oneof![
            (1_u32..1000).prop_map(|n| (n.to_string(), f64::from(n))),
            Just(("M".to_owned(), 100.0)),
        ];
        leaf.prop_recursive(4, 24, 3, |inner| {
            let pair = (inner.clone(), inner.clone());
            prop_oneof![
                pair.clone()
                    .prop_map(|(a, b)| (format!("({} + {})", a.0, b.0), a.1 + b.1)),
                pair.clone()
                    .prop_map(|(a, b)| (format!("{} * {}", a.0, b.0), a.1 * b.1)),
                pair.clone()
                    .prop_map(|(a, b)| (format!("max({},{})", a.0, b.0), a.1.max(b.1))),
                pair.prop_map(|(a, b)| (format!("min( {} , {} )", a.0, b.0), a.1.min(b.1))),
                inner.prop_map(|a| (format!("ceil(({}) / 2) * 2", a.0), (a.1 / 2.0).ceil() * 2.0)),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_are_those_of_floating_point((text, expected) in expressions()) {
            // Below 2^53 floating point is exact.
            if expected < 9e15 {
                prop_assert_eq!(value(&text), Ok(expected as u64), "{}", text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+*/%(),. A-Zceilmnx0-9é]{0,60}") {
            let _ = value(&text);
        }
    }
}
