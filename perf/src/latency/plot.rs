//! A plot of latencies by percentile, as an SVG.
//!
//! Both axes are logarithmic: to the right the share of batches that take longer, from a half to one in ten thousand;
//! upwards the time.

use std::fmt::Write;
use std::time::Duration;

/// Latencies of one kind.
pub struct Curve {
    pub name: String,
    pub latencies: Vec<Duration>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 220.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 50.0;
/// The share of longer ones at the right end.
const LEAST: f64 = 1e-4;
/// Points of a curve.
const POINTS: usize = 120;
const COLOURS: [&str; 6] = ["#1b6ca8", "#8fbfe0", "#c0392b", "#e6a59e", "#2e7d32", "#a3cfa5"];

/// From values to the picture.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Where the percentile is beyond which this share lies.
    fn x(share: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (0.5 / share).ln() / (0.5 / LEAST).ln()
    }

    fn y(&self, us: f64) -> f64 {
        let part = (us / self.low).ln() / (self.high / self.low).ln();
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part.clamp(0.0, 1.0)
    }
}

/// Draws the curves, each in a colour of its own.
pub fn draw(title: &str, mut curves: Vec<Curve>) -> String {
    curves.iter_mut().for_each(|curve| curve.latencies.sort_unstable());
    let points: Vec<Vec<(f64, f64)>> = curves.iter().map(|curve| percentiles(&curve.latencies)).collect();
    let all = || points.iter().flatten().map(|point| point.1);
    let scale =
        Scale { low: all().fold(f64::MAX, f64::min).max(0.1) * 0.9, high: all().fold(0.2, f64::max) * 1.1 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{title}</text>\n"
    );
    axes(&mut svg, &scale);
    for (number, (curve, points)) in curves.iter().zip(&points).enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> =
            points.iter().map(|&(share, us)| format!("{:.1},{:.1}", Scale::x(share), scale.y(us))).collect();
        let (x, y) = (WIDTH - RIGHT + 15.0, TOP + 22.0 * number as f64);
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <rect x=\"{x}\" y=\"{y}\" width=\"18\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{}</text>",
            path.join(" "),
            x + 26.0,
            y + 7.0,
            curve.name,
        );
    }
    svg + "</svg>\n"
}

/// The latency in microseconds beyond which each share lies, of sorted latencies.
fn percentiles(sorted: &[Duration]) -> Vec<(f64, f64)> {
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    let point = |n: usize| {
        let share = 0.5 * (LEAST / 0.5).powf(n as f64 / POINTS as f64);
        let rank = (last as f64 * (1.0 - share)).round() as usize;
        (share, sorted[rank.min(last)].as_secs_f64() * 1e6)
    };
    (0..=POINTS).map(point).collect()
}

fn axes(svg: &mut String, scale: &Scale) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64| {
        let _ = writeln!(
            svg,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>"
        );
    };
    let shares = [("p50", 0.5), ("p90", 0.1), ("p99", 1e-2), ("p99.9", 1e-3), ("p99.99", 1e-4)];
    shares.iter().for_each(|&(_, share)| line(Scale::x(share), TOP, Scale::x(share), bottom));
    let times: Vec<f64> = (-1..7)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
        .filter(|us| (scale.low..scale.high).contains(us))
        .collect();
    times.iter().for_each(|&us| line(LEFT, scale.y(us), right, scale.y(us)));
    for (name, share) in shares {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>",
            Scale::x(share),
            bottom + 20.0
        );
    }
    for us in times {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{us} us</text>",
            LEFT - 8.0,
            scale.y(us) + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_from_the_median_to_the_tail() {
        let latencies = (1..=10_000).map(Duration::from_micros).collect();
        let svg = draw("title", vec![Curve { name: "one".to_owned(), latencies }]);
        assert!(
            svg.starts_with("<svg") && svg.contains("title") && svg.contains("one") && svg.contains("p99.9")
        );
        assert_eq!(svg.matches("<polyline").count(), 1);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(percentiles(&[]).is_empty());
        assert!(draw("", Vec::new()).ends_with("</svg>\n"));
    }
}
