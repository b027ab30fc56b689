//! The comparison as a picture: a group of bars a target, with what Meshgate is measured by at 1: another, or the target.

use std::fmt::Write as _;

use super::figure::{Results, Row, Scale, Target};
use super::peer::Kind;

/// All in px.
const NAMES: f64 = 300.0;
const BARS: f64 = 480.0;
const WIDTH: f64 = NAMES + BARS + 60.0;
const BAR: f64 = 14.0;
/// Between two groups.
const GAP: f64 = 22.0;
const HEAD: f64 = 60.0;
/// Where bars are cut; their number is written anyway.
const RATIO_MAX: f64 = 3.0;

pub(crate) fn svg(results: &Results) -> String {
    let rows = results.rows.iter();
    let groups: Vec<&Row> = rows
        .filter(|row| row.figure.target != Target::None)
        .collect();
    let bottom = HEAD + groups.iter().map(|row| height(row)).sum::<f64>() + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{bottom}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">What Meshgate and its peers need; less is better. The dashed line is the target.</text>\n"
    );
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let x = 10.0 + 100.0 * index as f64;
        let color = color(kind);
        line(
            &mut svg,
            format_args!(
                "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{color}\"/><text x=\"{}\" y=\"42\">{kind}</text>",
                x + 18.0
            ),
        );
    }
    let mut top = HEAD;
    for row in groups {
        group(&mut svg, top, row);
        top += height(row);
    }
    svg.push_str("</svg>\n");
    svg
}

fn kinds(row: &Row) -> impl Iterator<Item = Kind> {
    let kinds = Kind::ALL.into_iter();
    kinds.filter(|kind| row.figure.is_of(*kind))
}

fn bars(row: &Row) -> f64 {
    BAR * kinds(row).count() as f64
}

/// With the space below; two lines of text fit.
fn height(row: &Row) -> f64 {
    bars(row).max(2.0 * BAR) + GAP
}

fn group(svg: &mut String, top: f64, row: &Row) {
    let (scale, limit, one) = match row.figure.target {
        Target::None => return,
        Target::Part(limit, to) => (Scale::Of(to), limit, to.to_string()),
        Target::AtMost(limit) => (Scale::By(limit), 1.0, limit.to_string()),
    };
    let middle = top + height(row) / 2.0;
    let (name, unit) = (escaped(row.figure.name), escaped(row.figure.unit));
    let below = middle + 15.0;
    line(
        svg,
        format_args!("<text x=\"10\" y=\"{middle}\">{name}</text>"),
    );
    line(
        svg,
        format_args!("<text x=\"10\" y=\"{below}\" fill=\"#666\">{unit}, {one} = 1</text>"),
    );
    for (index, kind) in kinds(row).enumerate() {
        if let Some(ratio) = row.ratio(kind, scale) {
            bar(svg, top + BAR * index as f64, color(kind), ratio);
        }
    }
    let (x, bottom) = (place(limit), top + bars(row));
    line(
        svg,
        format_args!(
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#000\" stroke-dasharray=\"4 3\"/>"
        ),
    );
}

/// With the range of the rounds as a line over it.
fn bar(svg: &mut String, top: f64, color: &str, (ratio, least, most): (f64, f64, f64)) {
    let [width, from, until] = [ratio, least, most].map(|ratio| place(ratio) - NAMES);
    line(
        svg,
        format_args!(
            "<rect x=\"{NAMES}\" y=\"{top}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>",
            BAR - 2.0
        ),
    );
    let middle = top + BAR / 2.0 - 1.0;
    line(
        svg,
        format_args!(
            "<path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#000\"/><text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{ratio:.2}</text>",
            NAMES + from,
            NAMES + until,
            NAMES + until.max(width) + 4.0,
            middle + 4.0
        ),
    );
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(svg, "{text}");
}

/// From the left edge.
fn place(ratio: f64) -> f64 {
    NAMES + BARS * ratio.clamp(0.0, RATIO_MAX) / RATIO_MAX
}

fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Meshgate => "#1b6ac9",
        Kind::Nginx => "#2e9e5b",
        Kind::Haproxy => "#e08a1e",
        Kind::Hyper => "#9a9a9a",
        Kind::Pingora => "#b04ac0",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::figure::Figure;
    use super::*;

    static COST: Figure = Figure::of_all("HTTP/1 <1 KiB>", "µs", Target::Part(0.85, Kind::Nginx));

    #[test]
    fn bars_are_as_long_as_their_ratios() {
        let mut results = Results::default();
        for (kind, value) in [
            (Kind::Meshgate, 6.0),
            (Kind::Nginx, 8.0),
            (Kind::Hyper, 80.0),
        ] {
            results.push(&COST, kind, value);
        }
        let svg = svg(&results);
        for part in [
            "width=\"120.0\"",
            "width=\"160.0\"",
            "width=\"480.0\"",
            ">10.00<",
            "&lt;1 KiB>",
        ] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert!(!svg.contains("NaN"));
    }
}
