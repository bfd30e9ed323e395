//! What each limiter would have to be, beside what such things reach in practice: the picture that tells what a step waits for.
//!
//! Limiters have different units. On an axis of multiples of the best that is seen in practice they share one: a grey bar is the range
//! of practice, which ends at 1, and a dot is what the limiter would need to be the whole story. Left of the bar it would have to
//! be slower than such things are, so that the time goes elsewhere; right of it faster than any.

use super::svg::{self, Anchor, Scale, Shape, Svg, WIDTH};
use crate::explain::limiters::{Limiter, Suspect};
use crate::explain::results::StepsExplanation;
use crate::quantity::{self, significant};

const LEFT: f64 = 160.0;
const RIGHT: f64 = WIDTH - 304.0;
const ROW: f64 = 44.0;
const TOP: f64 = 40.0;
const BAR: f64 = 16.0;
/// What would have to be slower by more than this is no explanation, by whatever factor: it lies at the edge.
const SLOWEST: f64 = 1e-3;

/// A rate, or the time of an event, as people read it.
pub(super) fn shown(limiter: Limiter, value: f64) -> String {
    match limiter.unit() {
        "s" => quantity::duration(value * 1e9),
        unit => quantity::with_prefix(value, unit),
    }
}

/// Range and need as multiples of the best in practice, more is faster: from, to (which is 1), needed.
fn multiples(suspect: &Suspect) -> Option<[f64; 3]> {
    let range = suspect.plausible?;
    let multiples = if suspect.limiter.is_rate() {
        [range.from / range.to, 1.0, suspect.needed / range.to]
    } else {
        [range.from / range.to, 1.0, range.from / suspect.needed]
    };
    let are_usable = multiples.iter().all(|m| m.is_finite() && *m > 0.0);
    are_usable.then_some(multiples)
}

/// The chart of the largest step; nothing when no limiter can be judged.
pub(super) fn plot(steps: &StepsExplanation) -> Option<String> {
    let rows: Vec<(&Suspect, [f64; 3])> = steps
        .suspects
        .iter()
        .filter_map(|s| Some((s, multiples(s)?)))
        .collect();
    let places = rows.iter().flat_map(|(_, m)| *m).map(|m| m.max(SLOWEST));
    let scale = Scale::log(places, 0.3, LEFT, RIGHT)?;
    let bottom = TOP + rows.len() as f64 * ROW;
    let mut svg = Svg::new(bottom + 50.0);
    for tick in scale.ticks(9) {
        let at = scale.at(tick);
        svg.line("grid", [at, TOP - 6.0], [at, bottom]);
        let label = format!("{}×", svg::tick_label(tick, ""));
        svg.text("tick", [at, bottom + 17.0], Anchor::Middle, &label);
    }
    let best = scale.at(1.0);
    svg.line("axis", [best, TOP - 6.0], [best, bottom]);
    svg.line("axis", [LEFT, bottom], [RIGHT, bottom]);
    let above = TOP - 14.0;
    svg.text(
        "tick",
        [best - 8.0, above],
        Anchor::End,
        "← slower than the best",
    );
    if RIGHT - best > 90.0 {
        svg.text(
            "tick",
            [best + 8.0, above],
            Anchor::Start,
            "faster than any →",
        );
    }
    let middle = [(LEFT + RIGHT) / 2.0, bottom + 40.0];
    let title = "speed, multiples of the best in practice";
    svg.text("axis-title", middle, Anchor::Middle, title);
    for (index, (suspect, [from, to, needed])) in rows.iter().enumerate() {
        let middle = TOP + (index as f64 + 0.5) * ROW;
        let limiter = suspect.limiter;
        let is_within = suspect.distance.is_some_and(|d| d <= 1.0);
        let name_class = if is_within { "name within" } else { "name" };
        let name_at = [LEFT - 12.0, middle + 4.5];
        svg.text(name_class, name_at, Anchor::End, limiter.title());
        let range = suspect.plausible?;
        let practice = format!(
            "{} – {}",
            shown(limiter, range.from),
            shown(limiter, range.to)
        );
        let need = shown(limiter, suspect.needed);
        let told = format!("in practice {practice}; it would need {need}");
        let (start, end) = (scale.at(*from), scale.at(*to));
        let corner = [start, middle - BAR / 2.0];
        svg.rect("practice", corner, [(end - start).max(2.0), BAR], &told);
        let dot = [scale.at(*needed), middle];
        let class = if is_within { "need within" } else { "need" };
        svg.mark(class, Shape::Circle, dot, 6.5, &told);
        svg.text(
            name_class,
            [RIGHT + 16.0, middle - 3.0],
            Anchor::Start,
            &format!("needs {need}{}", off(suspect)),
        );
        svg.text(
            "tick",
            [RIGHT + 16.0, middle + 12.0],
            Anchor::Start,
            &format!("practice {practice}{}", grew(suspect)),
        );
    }
    let label = "What each limiter would need to explain the step alone, beside what is reached in practice";
    let mut legend = "<p class=\"legend\"><span class=\"key practice-key\">▬</span> what such things reach in practice · \
                      <span class=\"key\">●</span> what it would need to be the whole story, where that is possible · \
                      <span class=\"key\">○</span> where it is not"
        .to_owned();
    if let Some(growth) = steps.growth {
        legend += &format!(
            " · grew: from the smallest to the largest step, where the time grew {}×",
            significant(growth.seconds, 3)
        );
    }
    Some(svg.finish(label) + &legend + "</p>\n")
}

/// How far outside of practice it would have to be.
fn off(suspect: &Suspect) -> String {
    match suspect.distance {
        Some(d) if d <= 1.0 => ": within".to_owned(),
        Some(d) if d > 1.0 / SLOWEST => ": off by over 1000×".to_owned(),
        Some(d) => format!(": off by {}×", significant(d, 2)),
        None => String::new(),
    }
}

fn grew(suspect: &Suspect) -> String {
    suspect
        .growth
        .map_or_else(String::new, |g| format!("; grew {}×", significant(g, 3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Range;

    fn suspect(limiter: Limiter, needed: f64) -> Suspect {
        Suspect {
            limiter,
            amount: 1.0,
            needed,
            plausible: Some(Range { from: 2.0, to: 8.0 }),
            distance: None,
            growth: None,
            score: 0.0,
        }
    }

    #[test]
    fn more_is_always_faster() {
        assert_eq!(
            multiples(&suspect(Limiter::Compute, 4.0)),
            Some([0.25, 1.0, 0.5])
        );
        // An event in 4 s is half as fast as one in 2 s, the best.
        assert_eq!(
            multiples(&suspect(Limiter::Host, 4.0)),
            Some([0.25, 1.0, 0.5])
        );
        assert_eq!(multiples(&suspect(Limiter::Host, 0.0)), None);
    }
}
