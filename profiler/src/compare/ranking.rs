//! Rows of the same work in order, by one figure at a time.

use serde::Serialize;

use super::Entry;
use super::alike::list;
use crate::results::{Basis, Latency, Percentiles, ResultRow};

/// Which figure of a distribution is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The median.
    Median,
    /// The mean.
    Mean,
    /// A rate has but one figure.
    Rate,
}

impl Statistic {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Statistic::Median => "median",
            Statistic::Mean => "mean",
            Statistic::Rate => "rate",
        }
    }
}

/// A row's place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Place {
    /// The row's number.
    pub row: usize,
    /// Seconds or per second.
    pub value: f64,
    /// How many times the best row's time, or the best row's rate over this one's: at least 1.
    pub times_best: f64,
}

/// Rows in order, best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranking {
    /// `TTFT`, `TPOT`, `ITL`, `E2E`, `decode`, `output`, `total`.
    pub metric: &'static str,
    /// Which figure.
    pub statistic: Statistic,
    /// What it was measured over.
    pub basis: Option<Basis>,
    /// `s`, or `token/s`.
    pub unit: &'static str,
    /// Best first.
    pub places: Vec<Place>,
}

/// The rankings among rows of the same work, and a sentence for what is not ranked.
pub(super) fn rankings(members: &[Entry<'_>]) -> (Vec<Ranking>, Vec<String>) {
    let mut rankings = Vec::new();
    let mut notes = Vec::new();
    type LatencyOf = fn(&ResultRow) -> &Option<Latency>;
    type RateOf = fn(&ResultRow) -> Option<f64>;
    let latencies: [(&str, LatencyOf); 4] = [
        ("TTFT", |row| &row.ttft),
        ("TPOT", |row| &row.tpot),
        ("ITL", |row| &row.itl),
        ("E2E", |row| &row.e2e),
    ];
    for (metric, of) in latencies {
        let known: Vec<(usize, &Latency)> = members
            .iter()
            .filter_map(|entry| Some((entry.number, of(entry.row).as_ref()?)))
            .collect();
        let bases = by_basis(&known);
        for (basis, of_basis) in &bases {
            if let Some(ranking) = latency_ranking(metric, *basis, of_basis) {
                if ranking.statistic == Statistic::Median {
                    notes.extend(other_percentiles(metric, of_basis));
                }
                rankings.push(ranking);
            }
        }
        if let [_, _, ..] = bases.as_slice() {
            let parts: Vec<String> = bases
                .iter()
                .map(|(basis, rows)| {
                    let numbers: Vec<usize> = rows.iter().map(|(number, _)| *number).collect();
                    format!("{} ({})", basis.name(), list(&numbers))
                })
                .collect();
            notes.push(format!(
                "{metric} is not ranked across what it was measured over: {}.",
                parts.join(" · ")
            ));
        }
    }
    let rates: [(&'static str, RateOf); 2] = [
        ("output", |row| row.rates.output_tokens_per_s),
        ("total", |row| row.rates.total_tokens_per_s),
    ];
    let mut ranked_output = 0;
    for (metric, of) in rates {
        // A static batch's rates are its end-to-end latency again, but for who measured what.
        let known: Vec<(usize, f64)> = members
            .iter()
            .filter(|entry| {
                entry
                    .row
                    .e2e
                    .as_ref()
                    .is_none_or(|e2e| e2e.basis == Basis::Request)
            })
            .filter_map(|entry| Some((entry.number, of(entry.row)?)))
            .collect();
        if known.len() >= 2 && known.len() > ranked_output {
            ranked_output = known.len();
            rankings.push(ranking(metric, Statistic::Rate, None, known));
        }
    }
    // Of all decode rates the only one that is not the inverse of a latency.
    let after_first_token: Vec<(usize, f64)> = members
        .iter()
        .filter(|entry| entry.row.rates.decode_basis == Some(Basis::AfterFirstToken))
        .filter_map(|entry| Some((entry.number, entry.row.rates.decode_tokens_per_s?)))
        .collect();
    if after_first_token.len() >= 2 {
        let basis = Some(Basis::AfterFirstToken);
        rankings.push(ranking("decode", Statistic::Rate, basis, after_first_token));
    }
    if rankings.is_empty() {
        let numbers: Vec<usize> = members.iter().map(|entry| entry.number).collect();
        let note = format!(
            "{} measured the same work, but have no figure in common.",
            list(&numbers)
        );
        notes.insert(0, note);
    }
    (rankings, notes)
}

/// Medians that were taken in different ways are ranked, and told of.
fn other_percentiles(metric: &str, rows: &[(usize, &Latency)]) -> Option<String> {
    let of = |method: Percentiles| -> Vec<usize> {
        let with_median = rows
            .iter()
            .filter(|(_, latency)| latency.median_s.is_some());
        let rows = with_median.filter(|(_, latency)| latency.percentiles == Some(method));
        rows.map(|(number, _)| *number).collect()
    };
    let (nearest, linear) = (of(Percentiles::NearestRank), of(Percentiles::Linear));
    (!nearest.is_empty() && !linear.is_empty()).then(|| {
        format!(
            "The median {metric} of {} is the nearest rank, that of {} is interpolated; with few requests they differ.",
            list(&nearest),
            list(&linear)
        )
    })
}

type ByBasis<'a> = Vec<(Basis, Vec<(usize, &'a Latency)>)>;

fn by_basis<'a>(known: &[(usize, &'a Latency)]) -> ByBasis<'a> {
    let mut bases: ByBasis<'a> = Vec::new();
    for &(number, latency) in known {
        match bases.iter_mut().find(|(basis, _)| *basis == latency.basis) {
            Some((_, rows)) => rows.push((number, latency)),
            None => bases.push((latency.basis, vec![(number, latency)])),
        }
    }
    bases
}

/// By the median if as many rows have one as have a mean, else by the mean.
fn latency_ranking(
    metric: &'static str,
    basis: Basis,
    rows: &[(usize, &Latency)],
) -> Option<Ranking> {
    let with = |of: fn(&Latency) -> Option<f64>| -> Vec<(usize, f64)> {
        rows.iter()
            .filter_map(|(number, latency)| Some((*number, of(latency)?)))
            .collect()
    };
    let medians = with(|latency| latency.median_s);
    let means = with(|latency| latency.mean_s);
    let (statistic, known) = if medians.len() >= means.len() {
        (Statistic::Median, medians)
    } else {
        (Statistic::Mean, means)
    };
    (known.len() >= 2).then(|| ranking(metric, statistic, Some(basis), known))
}

fn ranking(
    metric: &'static str,
    statistic: Statistic,
    basis: Option<Basis>,
    mut known: Vec<(usize, f64)>,
) -> Ranking {
    let is_rate = statistic == Statistic::Rate;
    known.sort_by(|(_, a), (_, b)| {
        if is_rate {
            b.total_cmp(a)
        } else {
            a.total_cmp(b)
        }
    });
    let best = known.first().map_or(1.0, |(_, value)| *value);
    let places = known
        .into_iter()
        .map(|(row, value)| Place {
            row,
            value,
            times_best: if is_rate { best / value } else { value / best },
        })
        .collect();
    Ranking {
        metric,
        statistic,
        basis,
        unit: if is_rate { "token/s" } else { "s" },
        places,
    }
}
