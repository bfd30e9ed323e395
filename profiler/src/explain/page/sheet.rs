//! The page and the picture of a device sheet: bandwidth and latency by working set, and tables of everything else.

use super::html::{Page, Table};
use super::svg::{self, Anchor, Scale, Shape, Svg, WIDTH};
use crate::device_sheet::{
    Bound, DeviceSheet, Group, Row, Status, binary_bytes, curves, quantity_title,
};
use crate::quantity::significant;

const STYLE: &str = include_str!("style.css");

const LEFT: f64 = 74.0;
const RIGHT: f64 = WIDTH - 24.0;
const PLOT_HEIGHT: f64 = 230.0;
/// Height of a plot with its title, ticks and axis title.
const PANEL: f64 = PLOT_HEIGHT + 84.0;

/// The page of a sheet.
pub fn sheet_page(sheet: &DeviceSheet) -> String {
    let title = format!("What {} does", sheet.gpu.name);
    let mut subtitles = sheet.about();
    subtitles.push(sheet.summary.clone());
    let mut page = Page::new(&title, subtitles);
    let all: Vec<&Row> = sheet.rows.iter().collect();
    let plots: String = curves(&all)
        .iter()
        .filter_map(|curve| {
            let mut picture = Svg::new(PANEL);
            panel(&mut picture, 0.0, curve, sheet)?;
            Some(picture.finish(&label(curve)))
        })
        .collect();
    page.section("curves", "By working set", plots);
    for group in Group::ALL {
        let single: Vec<&Row> = all
            .iter()
            .copied()
            .filter(|row| row.group == group && row.at.is_none())
            .collect();
        if !single.is_empty() {
            page.section(group.name(), group.title(), table(&single));
        }
    }
    page.finish()
}

/// The plots of a sheet as one SVG file, with its device and date in the head.
pub fn sheet_svg(sheet: &DeviceSheet) -> String {
    const HEAD: f64 = 46.0;
    let all: Vec<&Row> = sheet.rows.iter().collect();
    let curves = curves(&all);
    let plotted = curves
        .iter()
        .filter(|curve| curve.iter().any(|row| row.value.is_some()))
        .count();
    let height = HEAD + PANEL * plotted.max(1) as f64;
    let mut picture = Svg::new(height);
    let title = format!("{}: bandwidth and latency by working set", sheet.gpu.name);
    picture.text("title", [12.0, 22.0], Anchor::Start, &title);
    let subtitle = format!(
        "{}, CUDA {}, stepscope {}",
        sheet.created, sheet.gpu.driver, sheet.program.version
    );
    picture.text("tick", [12.0, 40.0], Anchor::Start, &subtitle);
    let mut top = HEAD;
    for curve in &curves {
        if panel(&mut picture, top, curve, sheet).is_some() {
            top += PANEL;
        }
    }
    if plotted == 0 {
        let why = match sheet.device.as_str() {
            "emulated" => "an emulated device has no time, so there is nothing to plot",
            _ => "no curve was measured",
        };
        picture.text("tick", [12.0, HEAD + 30.0], Anchor::Start, why);
    }
    picture.file(&title, STYLE)
}

fn label(curve: &[&Row]) -> String {
    curve
        .first()
        .map_or_else(String::new, |row| row.title.clone())
}

/// A curve over working sets, from `top` on; nothing where none of its points has a value.
fn panel(svg: &mut Svg, top: f64, curve: &[&Row], sheet: &DeviceSheet) -> Option<()> {
    let points: Vec<(f64, f64, &Row)> = curve
        .iter()
        .filter_map(|row| Some((row.at?, row.value?, *row)))
        .collect();
    let first = points.first()?.2;
    let largest = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let (unit, divisor) = first.unit.prefixed(largest);
    let (plot_top, plot_bottom) = (top + 30.0, top + 30.0 + PLOT_HEIGHT);
    let x = Scale::log(points.iter().map(|point| point.0), 0.08, LEFT, RIGHT)?;
    let values = points.iter().map(|point| point.1 / divisor);
    let y = Scale::linear(values, plot_bottom, plot_top);
    let title = format!("{}, {unit}", first.title);
    svg.text("bar-title", [12.0, top + 16.0], Anchor::Start, &title);
    for tick in y.ticks(6) {
        let at = y.at(tick);
        svg.line("grid", [LEFT, at], [RIGHT, at]);
        let label = svg::tick_label(tick, "");
        svg.text("tick", [LEFT - 7.0, at + 4.0], Anchor::End, &label);
    }
    svg.line("axis", [LEFT, plot_bottom], [RIGHT, plot_bottom]);
    // Caches are sized in powers of two, and so are the ticks.
    let [from, to] = x.ends();
    let powers = (from.log2().ceil() as i32..=to.log2().floor() as i32).step_by(2);
    for power in powers {
        let bytes = 2_f64.powi(power);
        let at = x.at(bytes);
        svg.line("axis", [at, plot_bottom], [at, plot_bottom + 4.0]);
        svg.text(
            "tick",
            [at, plot_bottom + 18.0],
            Anchor::Middle,
            &binary_bytes(bytes),
        );
    }
    svg.text(
        "axis-title",
        [(LEFT + RIGHT) / 2.0, plot_bottom + 38.0],
        Anchor::Middle,
        "working set",
    );
    let l2 = sheet.gpu.l2_bytes as f64;
    if first.name.starts_with("set_") && l2 > from && l2 < to {
        let at = x.at(l2);
        svg.line("curve floor curve-3", [at, plot_top], [at, plot_bottom]);
        let label = format!("L2, {}", binary_bytes(l2));
        svg.text(
            "label",
            [at + 5.0, plot_bottom - 8.0],
            Anchor::Start,
            &label,
        );
    }
    let line: Vec<[f64; 2]> = points
        .iter()
        .map(|(at, value, _)| [x.at(*at), y.at(value / divisor)])
        .collect();
    svg.polyline("curve curve-0", &line);
    for ((at, value, row), place) in points.iter().zip(line) {
        let told = format!("{}: {}", binary_bytes(*at), row.unit.shown(*value));
        svg.mark("dot curve-0", Shape::Circle, place, 4.0, &told);
    }
    Some(())
}

fn table(rows: &[&Row]) -> String {
    if rows.iter().any(|row| row.status == Status::NoTime) {
        return counts_table(rows);
    }
    let mut table = Table::new(
        "lrrrrrll",
        &[
            "",
            "value",
            "quartiles",
            "SM clock\nMHz",
            "expected",
            "value /\nexpected %",
            "source",
            "what it claims",
        ],
    );
    for row in rows {
        let expected = row.expected.as_ref();
        let mark = if row.is_far() { " !" } else { "" };
        let quartiles = row.value.zip(row.quartiles).map(|(value, [low, high])| {
            let (_, divisor) = row.unit.prefixed(value);
            let shown = |x: f64| significant(x / divisor, 4);
            format!("{} to {}", shown(low), shown(high))
        });
        let note = row.note.clone().unwrap_or_default();
        table.row([
            row.title.clone(),
            match row.value {
                Some(value) => row.unit.shown(value),
                None => note,
            },
            quartiles.unwrap_or_default(),
            row.clock_mhz()
                .map_or_else(String::new, |mhz| format!("{mhz:.0}")),
            expected.map_or_else(String::new, |expected| {
                let sign = if expected.bound == Bound::AtMost {
                    "≤ "
                } else {
                    ""
                };
                sign.to_owned() + &row.unit.shown(expected.value)
            }),
            row.ratio
                .map_or_else(String::new, |ratio| format!("{:.0}{mark}", 100.0 * ratio)),
            expected.map_or_else(String::new, |expected| expected.source.clone()),
            row.claim.clone(),
        ]);
    }
    table.finish()
}

/// Of an emulated device: what was claimed and counted.
fn counts_table(rows: &[&Row]) -> String {
    let mut table = Table::new("llrl", &["", "claimed and counted", "", "what it claims"]);
    for row in rows {
        let outcome = match row.status {
            Status::NoTime => row.claim.clone(),
            _ => row.note.clone().unwrap_or_default(),
        };
        let first = row.claims.first();
        table.row([
            row.title.clone(),
            first
                .map_or("–", |claim| quantity_title(claim.quantity))
                .to_owned(),
            first.map_or_else(String::new, |claim| claim.claimed.to_string()),
            outcome,
        ]);
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_sheet::testing;

    /// Whether a reader of XML gets to its end.
    #[track_caller]
    fn check_well_formed(text: &str) {
        let mut reader = quick_xml::Reader::from_str(text);
        loop {
            match reader.read_event() {
                Ok(quick_xml::events::Event::Eof) => return,
                Ok(_) => {}
                Err(error) => panic!("{error} at {}: {text}", reader.error_position()),
            }
        }
    }

    #[test]
    fn a_page_has_every_row_and_both_curves() {
        let sheet = testing::whole();
        let page = sheet_page(&sheet);
        check_well_formed(page.trim_start_matches("<!DOCTYPE html>\n"));
        for part in [
            "What a card does",
            "dram_read",
            "a source &amp; its page",
            "97",
            "50 !",
            "≤ 900.0 TFLOP/s",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert_eq!(page.matches("<polyline").count(), 2);
        assert_eq!(page.matches("L2, 50 MiB").count(), 2);
        assert!(page.contains("a claim of &lt;a test&gt;"));
    }

    #[test]
    fn a_picture_stands_alone_even_without_a_curve() {
        let mut sheet = testing::whole();
        let picture = sheet_svg(&sheet);
        check_well_formed(&picture);
        assert!(picture.starts_with("<svg xmlns="));
        assert_eq!(picture.matches("<polyline").count(), 2);
        assert!(picture.contains("2026-11-24T12:00:00Z"));
        sheet.device = "emulated".to_owned();
        sheet.rows.clear();
        let picture = sheet_svg(&sheet);
        check_well_formed(&picture);
        assert!(picture.contains("nothing to plot"));
    }

    /// Whatever the numbers are, the page is one.
    #[test]
    fn strange_numbers_break_no_page() {
        for value in [0.0, f64::NAN, f64::INFINITY, -1.0, 1e308] {
            let mut sheet = testing::whole();
            for row in &mut sheet.rows {
                row.value = Some(value);
            }
            check_well_formed(sheet_page(&sheet).trim_start_matches("<!DOCTYPE html>\n"));
            check_well_formed(&sheet_svg(&sheet));
            assert!(!sheet.text().is_empty());
        }
    }
}
