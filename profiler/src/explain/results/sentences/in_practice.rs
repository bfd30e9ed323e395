//! What a limiter would have to be, beside what such things reach.

use super::{FAR, capitalised, seconds};
use crate::explain::ceilings::{Ceilings, Range, practice};
use crate::explain::limiters::{Limiter, Suspect};
use crate::gpus::LinkKind;
use crate::quantity::{self, significant};

/// Where what a suspect needs lies beside what is seen in practice.
pub(super) fn in_practice(suspect: &Suspect, devices: &[Ceilings]) -> String {
    if suspect.limiter == Limiter::AllReduceBandwidth {
        return links_in_practice(suspect.needed, devices);
    }
    let (Some(range), Some(distance)) = (suspect.plausible, suspect.distance) else {
        return "What it reaches in practice is not known.".to_owned();
    };
    let shown = |value: f64| match suspect.limiter.unit() {
        "s" => seconds(value),
        unit => quantity::with_prefix(value, unit),
    };
    let usual = format!("{} to {}", shown(range.from), shown(range.to));
    let is_below = suspect.needed < range.from;
    if distance <= 1.0 {
        format!("That is usual: {usual}.")
    } else {
        format!(
            "Usual is {usual}, {} {}.",
            times(distance),
            if is_below { "more" } else { "less" }
        )
    }
}

/// `1.2 times`, with two digits.
fn times(factor: f64) -> String {
    format!("{} times", significant(factor, 2))
}

/// Each kind of link that the devices have, and PCIe, which all fall back to: what it reaches, and whether that is what is needed.
fn links_in_practice(needed: f64, devices: &[Ceilings]) -> String {
    let mut kinds: Vec<(LinkKind, Range)> = Vec::new();
    let links = devices.iter().filter_map(|d| d.link);
    for link in links.chain([practice::PCIE]) {
        let range = practice::link_bytes_per_s(link);
        match kinds.iter_mut().find(|(kind, _)| *kind == link.kind) {
            Some((_, all)) => *all = all.union(range),
            None => kinds.push((link.kind, range)),
        }
    }
    kinds.sort_by(|(_, a), (_, b)| a.distance(needed).total_cmp(&b.distance(needed)));
    let told: Vec<String> = kinds
        .iter()
        .map(|(kind, range)| {
            let distance = range.distance(needed);
            let usual = format!(
                "{} to {}",
                quantity::with_prefix(range.from, "B/s"),
                quantity::with_prefix(range.to, "B/s")
            );
            let side = if needed < range.from {
                "below"
            } else {
                "above"
            };
            if distance <= 1.0 {
                format!("{} reaches {usual}", kind.title())
            } else {
                format!(
                    "it is {} {side} the least that {} reaches ({usual})",
                    times(distance),
                    kind.title()
                )
                .replace("above the least", "above the most")
            }
        })
        .collect();
    let text = told.join(", and ");
    let mut text = format!("{}.", capitalised(&text));
    if let [(nearest, range), (next, other), ..] = kinds.as_slice()
        && range.distance(needed) < FAR
        && other.distance(needed) > FAR
    {
        text += &format!(
            " That speaks for {} between the GPUs, without {}.",
            nearest.title(),
            next.title()
        );
    }
    text
}
