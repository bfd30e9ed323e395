//! What of a step's time is fixed, and what grows with the batch: least squares over the rows of a result.
//!
//! A row is weighted by its time, so that each counts by its relative error; a cost below zero is no cost, so terms that would
//! become negative are left out. Terms that the rows cannot tell apart are reported as one, with all their names.

use serde::Serialize;

use super::observation::Observation;
use super::step_work::StepShape;
use crate::recorder::StepKind;

/// What a part of the time is proportional to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Nothing: every step has it.
    Step,
    /// Tokens that go through the layers.
    Token,
    /// Requests of the batch.
    Sequence,
    /// Pairs of a new token and a token in the cache that it looks at.
    ContextToken,
}

impl Per {
    /// How much of it a step has.
    pub fn amount(self, shape: &StepShape) -> f64 {
        let (batch, new) = (shape.batch_size as f64, shape.new_tokens as f64);
        match self {
            Per::Step => 1.0,
            Per::Token => batch * new,
            Per::Sequence => batch,
            // Query i of n sees context − n + i + 1 tokens.
            Per::ContextToken => batch * new * (shape.context as f64 - (new - 1.0) / 2.0),
        }
    }

    /// `per token`.
    pub fn title(self) -> &'static str {
        match self {
            Per::Step => "per step",
            Per::Token => "per token",
            Per::Sequence => "per sequence",
            Per::ContextToken => "per token of context",
        }
    }

    /// What may make up the time of a step of this kind, in the order in which it is believed.
    fn candidates(kind: StepKind) -> &'static [Per] {
        match kind {
            StepKind::Prefill => &[Per::Step, Per::Token, Per::ContextToken, Per::Sequence],
            // A decode step has one new token per sequence: the two are the same.
            StepKind::Decode => &[Per::Step, Per::Sequence, Per::ContextToken],
        }
    }
}

/// One part of the time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Term {
    /// What it is proportional to.
    pub per: Per,
    /// What else it may be proportional to: the rows cannot tell.
    pub or: Vec<Per>,
    /// Seconds for one of it.
    pub seconds: f64,
}

/// A step's time as a sum of terms.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// Its terms; those that came out as zero are left out.
    pub terms: Vec<Term>,
    /// Distinct shapes it rests on.
    pub rows: usize,
    /// The largest relative error over the rows; absent when there are no more rows than terms, since it is then zero by
    /// construction.
    pub worst_error: Option<f64>,
}

impl Fit {
    /// What the fit says of a shape, seconds.
    pub fn seconds(&self, shape: &StepShape) -> f64 {
        let parts = self.terms.iter().map(|t| t.seconds * t.per.amount(shape));
        parts.sum()
    }

    /// Seconds for one of `per`; zero when there is no such term.
    pub fn term(&self, per: Per) -> f64 {
        let term = self
            .terms
            .iter()
            .find(|t| t.per == per || t.or.contains(&per));
        term.map_or(0.0, |t| t.seconds)
    }
}

/// Fits the time of steps of one kind; nothing with fewer than two shapes.
pub fn fit(observations: &[&Observation]) -> Option<Fit> {
    let kind = observations.first()?.shape.kind;
    let rows = observations.len();
    if rows < 2 {
        return None;
    }
    let column = |per: Per| -> Vec<f64> {
        let scaled = |o: &&Observation| per.amount(&o.shape) / o.seconds;
        observations.iter().map(scaled).collect()
    };
    let mut chosen: Vec<(Per, Vec<Per>, Vec<f64>)> = Vec::new();
    for &per in Per::candidates(kind) {
        let column = column(per);
        let columns: Vec<&[f64]> = chosen.iter().map(|(_, _, c)| c.as_slice()).collect();
        if is_independent(&column, &columns) {
            if chosen.len() < rows {
                chosen.push((per, Vec::new(), column));
            }
        } else if let Some((_, or, _)) = chosen
            .iter_mut()
            .filter(|(other, _, _)| *other != Per::Step)
            .find(|(_, _, c)| !is_independent(&column, &[c.as_slice()]))
        {
            or.push(per);
        }
    }
    let columns: Vec<&[f64]> = chosen.iter().map(|(_, _, c)| c.as_slice()).collect();
    let coefficients = non_negative_least_squares(&columns, rows)?;
    let terms: Vec<Term> = chosen
        .iter()
        .zip(coefficients)
        .filter(|(_, seconds)| *seconds > 0.0)
        .map(|((per, or, _), seconds)| Term {
            per: *per,
            or: or.clone(),
            seconds,
        })
        .collect();
    let mut fit = Fit {
        terms,
        rows,
        worst_error: None,
    };
    if rows > chosen.len() || fit.terms.len() < chosen.len() {
        let error = |o: &&Observation| (fit.seconds(&o.shape) / o.seconds - 1.0).abs();
        fit.worst_error = Some(observations.iter().map(error).fold(0.0, f64::max));
    }
    Some(fit)
}

/// Whether `column` is no combination of `others`, by Gram and Schmidt.
fn is_independent(column: &[f64], others: &[&[f64]]) -> bool {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for other in others {
        let rest = orthogonal_part(other, &basis);
        if norm(&rest) > 1e-9 * norm(other) {
            let length = norm(&rest);
            basis.push(rest.iter().map(|x| x / length).collect());
        }
    }
    norm(&orthogonal_part(column, &basis)) > 1e-6 * norm(column)
}

fn orthogonal_part(vector: &[f64], basis: &[Vec<f64>]) -> Vec<f64> {
    let mut rest = vector.to_vec();
    for direction in basis {
        let along = dot(&rest, direction);
        for (x, d) in rest.iter_mut().zip(direction) {
            *x -= along * d;
        }
    }
    rest
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// The coefficients ≥ 0 that bring the sum of `columns` closest to ones (rows were divided by their time). There are at most four
/// columns, so every subset is tried.
fn non_negative_least_squares(columns: &[&[f64]], rows: usize) -> Option<Vec<f64>> {
    let mut best: Option<(f64, Vec<f64>)> = None;
    for subset in 1_u32..1 << columns.len() {
        let indices: Vec<usize> = (0..columns.len())
            .filter(|&i| subset >> i & 1 == 1)
            .collect();
        let used: Vec<&[f64]> = indices.iter().map(|&i| columns[i]).collect();
        let Some(solution) = least_squares(&used) else {
            continue;
        };
        if solution.iter().any(|&x| x < 0.0) {
            continue;
        }
        let error: f64 = (0..rows)
            .map(|row| {
                let parts = used.iter().zip(&solution).map(|(c, x)| c[row] * x);
                (parts.sum::<f64>() - 1.0).powi(2)
            })
            .sum();
        // A term more must buy something: exact fits differ by rounding alone.
        if best
            .as_ref()
            .is_none_or(|(least, _)| error < least * 0.999 - 1e-18)
        {
            let mut coefficients = vec![0.0; columns.len()];
            for (&index, &x) in indices.iter().zip(&solution) {
                coefficients[index] = x;
            }
            best = Some((error, coefficients));
        }
    }
    best.map(|(_, coefficients)| coefficients)
}

/// Solves the normal equations by elimination with pivots; columns are brought to length 1 first.
fn least_squares(columns: &[&[f64]]) -> Option<Vec<f64>> {
    let n = columns.len();
    let lengths: Vec<f64> = columns.iter().map(|c| norm(c)).collect();
    if lengths.iter().any(|l| !(l.is_finite() && *l > 0.0)) {
        return None;
    }
    let mut matrix: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row: Vec<f64> = (0..n)
                .map(|j| dot(columns[i], columns[j]) / (lengths[i] * lengths[j]))
                .collect();
            row.push(columns[i].iter().sum::<f64>() / lengths[i]);
            row
        })
        .collect();
    for pivot in 0..n {
        let largest = (pivot..n)
            .max_by(|&a, &b| matrix[a][pivot].abs().total_cmp(&matrix[b][pivot].abs()))?;
        matrix.swap(pivot, largest);
        if matrix[pivot][pivot].abs() < 1e-13 {
            return None;
        }
        let pivot_row = matrix[pivot].clone();
        for (index, row) in matrix.iter_mut().enumerate() {
            if index != pivot {
                let factor = row[pivot] / pivot_row[pivot];
                for (x, p) in row.iter_mut().zip(&pivot_row) {
                    *x -= factor * p;
                }
            }
        }
    }
    Some(
        (0..n)
            .map(|i| matrix[i][n] / matrix[i][i] / lengths[i])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::results::Basis;

    fn observation(kind: StepKind, batch_size: u64, tokens: u64, seconds: f64) -> Observation {
        let (new_tokens, context) = match kind {
            StepKind::Prefill => (tokens, tokens),
            StepKind::Decode => (1, tokens),
        };
        Observation {
            shape: StepShape {
                kind,
                batch_size,
                new_tokens,
                context,
            },
            seconds,
            basis: Basis::DecodeStep,
            caveat: None,
            row: 0,
        }
    }

    fn fit_of(observations: &[Observation]) -> Option<Fit> {
        fit(&observations.iter().collect::<Vec<_>>())
    }

    /// Qwen2.5-32B on eight ranks: 18.888 ms at batch 4 and 23.104 ms at batch 8 are (23.104 − 18.888) / 4 = 1.054 ms per sequence,
    /// and 18.888 − 4 × 1.054 = 14.672 ms whatever the batch.
    #[test]
    fn two_rows_are_split_exactly() {
        let rows = [
            observation(StepKind::Decode, 4, 1536, 18.888e-3),
            observation(StepKind::Decode, 8, 1536, 23.104e-3),
        ];
        let fit = fit_of(&rows).unwrap();
        assert!((fit.term(Per::Step) - 14.672e-3).abs() < 1e-9, "{fit:?}");
        assert!((fit.term(Per::Sequence) - 1.054e-3).abs() < 1e-9);
        assert_eq!(
            fit.terms[1].or,
            [Per::ContextToken],
            "the context never changed"
        );
        assert_eq!(fit.worst_error, None, "nothing is left to check it with");
    }

    #[test]
    fn one_row_is_no_fit() {
        assert_eq!(fit_of(&[observation(StepKind::Decode, 4, 9, 1.0)]), None);
        assert_eq!(fit_of(&[]), None);
    }

    #[test]
    fn a_cost_below_zero_is_none() {
        // More than twice as long for twice as much: a line through both would start below zero.
        let rows = [
            observation(StepKind::Prefill, 1, 1000, 1.0),
            observation(StepKind::Prefill, 2, 1000, 2.2),
        ];
        let fit = fit_of(&rows).unwrap();
        assert_eq!(fit.term(Per::Step), 0.0);
        assert!(fit.term(Per::Token) > 1e-3);
        let error = fit.worst_error.unwrap();
        assert!(error > 0.03 && error < 0.06, "{error}");
    }

    proptest! {
        /// What was put together from known costs is taken apart into them.
        #[test]
        fn known_costs_are_found(
            fixed in 1e-3_f64..1e-1,
            per_sequence in 1e-5_f64..1e-2,
            per_context in 1e-9_f64..1e-6,
        ) {
            let shapes = [(1, 500), (4, 500), (4, 4000), (16, 1000), (64, 2000)];
            let rows: Vec<Observation> = shapes
                .iter()
                .map(|&(batch, context)| {
                    let b = batch as f64;
                    let seconds = fixed + per_sequence * b + per_context * b * context as f64;
                    observation(StepKind::Decode, batch, context, seconds)
                })
                .collect();
            let fit = fit_of(&rows).unwrap();
            prop_assert!((fit.term(Per::Step) / fixed - 1.0).abs() < 1e-3, "{fit:?}");
            for row in &rows {
                prop_assert!((fit.seconds(&row.shape) / row.seconds - 1.0).abs() < 1e-3);
            }
        }
    }
}
