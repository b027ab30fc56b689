//! The comparison as a picture: a group of bars a target, the one that Meshgate is measured by at 1.

use std::fmt::Write as _;

use super::figure::{Results, Row, Target};
use super::peer::Kind;

/// All in px.
const NAMES: f64 = 300.0;
const BARS: f64 = 480.0;
const WIDTH: f64 = NAMES + BARS + 60.0;
const BAR: f64 = 14.0;
const GROUP: f64 = BAR * Kind::ALL.len() as f64 + 22.0;
const HEAD: f64 = 60.0;
/// Where bars are cut; their number is written anyway.
const RATIO_MAX: f64 = 3.0;

pub(crate) fn svg(results: &Results) -> String {
    let groups: Vec<(&Row, f64, Kind)> = results
        .rows
        .iter()
        .filter_map(|row| match row.figure.target {
            Target::Part(limit, to) => Some((row, limit, to)),
            _ => None,
        })
        .collect();
    let height = HEAD + GROUP * groups.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
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
    for (index, (row, limit, to)) in groups.into_iter().enumerate() {
        group(&mut svg, HEAD + GROUP * index as f64, row, limit, to);
    }
    svg.push_str("</svg>\n");
    svg
}

fn group(svg: &mut String, top: f64, row: &Row, limit: f64, to: Kind) {
    let middle = top + GROUP / 2.0;
    let (name, unit) = (escaped(row.figure.name), escaped(row.figure.unit));
    line(
        svg,
        format_args!("<text x=\"10\" y=\"{middle}\">{name}</text>"),
    );
    line(
        svg,
        format_args!(
            "<text x=\"10\" y=\"{}\" fill=\"#666\">{unit}, {to} = 1</text>",
            middle + 15.0
        ),
    );
    for (index, kind) in Kind::ALL.into_iter().enumerate() {
        let Some((ratio, least, most)) = row.ratio(kind, to) else {
            continue;
        };
        let (y, color) = (top + BAR * index as f64, color(kind));
        let [width, from, until] = [ratio, least, most].map(|ratio| place(ratio) - NAMES);
        line(
            svg,
            format_args!(
                "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>",
                BAR - 2.0
            ),
        );
        let y = y + BAR / 2.0 - 1.0;
        line(
            svg,
            format_args!(
                "<path d=\"M{:.1} {y}H{:.1}\" stroke=\"#000\"/><text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{ratio:.2}</text>",
                NAMES + from,
                NAMES + until,
                NAMES + until.max(width) + 4.0,
                y + 4.0
            ),
        );
    }
    let (x, bottom) = (place(limit), top + BAR * Kind::ALL.len() as f64);
    line(
        svg,
        format_args!(
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#000\" stroke-dasharray=\"4 3\"/>"
        ),
    );
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(svg, "{text}");
}

/// From the left edge.
fn place(ratio: f64) -> f64 {
    NAMES + BARS * ratio.min(RATIO_MAX) / RATIO_MAX
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

    static COST: Figure = Figure {
        name: "HTTP/1 <1 KiB>",
        unit: "µs",
        target: Target::Part(0.85, Kind::Nginx),
    };

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
