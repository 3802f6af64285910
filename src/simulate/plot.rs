//! Draws what came of some cases over time as SVG, readable on light and dark pages.

use std::fmt::Write as _;
use std::time::Duration;

use super::case::{Case, Window};
use super::sample::Sample;
use super::tally::{COLUMNS, Column, number};

const WIDTH: f64 = 760.0;
/// Where lines begin and end, with room for half of a tick's text beside them.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 732.0;
/// Of one panel, and from one to the next.
const HEIGHT: f64 = 110.0;
const STEP: f64 = 156.0;
const TOP: f64 = 34.0;
/// One row of the legend.
const ROW: f64 = 20.0;

const INK: &str = "#1f2328";
const GRID: &str = "#d0d7de";
const SHADE: &str = "#fff1d6";
/// Told apart by who sees no colours by their dashes too.
const LINES: [(&str, &str); 6] = [
    ("#1f6feb", ""),
    ("#bc4c00", "7 3"),
    ("#1a7f37", "2 3"),
    ("#8250df", "9 3 2 3"),
    ("#57606a", "4 4"),
    ("#cf222e", "1 4"),
];

/// What came of one case.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// What tells it from the others.
    pub name: String,
    /// Its time.
    pub columns: &'a [Column],
    /// How long that was.
    pub measured: Duration,
    /// What a count is multiplied with.
    pub factor: f64,
    /// When the issuer was bad.
    pub bad: Vec<Window>,
}

/// One panel: what it shows of a part of the time, of which the length is given.
struct Panel {
    title: &'static str,
    unit: &'static str,
    value: fn(&Column, f64) -> f64,
    /// The top of the scale at least.
    least: f64,
}

const PANELS: [Panel; 4] = [
    Panel {
        title: "Calls of the issuer in a second",
        unit: "/s",
        value: |column, seconds| number(column.calls()) / seconds,
        least: 1.0,
    },
    Panel {
        title: "Requests that waited for a mint",
        unit: "%",
        value: |column, _| percent(column.joined + column.minted, column),
        least: 1.0,
    },
    Panel { title: "The longest wait", unit: "s", value: |column, _| number(column.longest_ms) / 1000.0, least: 0.5 },
    Panel {
        title: "Requests that got no token",
        unit: "%",
        value: |column, _| percent(column.refused(), column),
        least: 1.0,
    },
];

// === impl Line ===

impl<'a> Line<'a> {
    /// What tells the case from the others is its name; the columns are those of this part of it.
    pub fn of(name: String, case: &Case, sample: &Sample, columns: &'a [Column]) -> Self {
        Self {
            name,
            columns,
            measured: case.measured,
            factor: sample.factor,
            bad: [case.issuer.outage, case.issuer.storm].into_iter().flatten().collect(),
        }
    }

    /// By what a count of one column is divided, so that it is the whole fleet's in a second.
    fn seconds(&self) -> f64 {
        self.measured.as_secs_f64() / number(COLUMNS as u64) / self.factor
    }

    /// Calls of the issuer in a second, as they are drawn.
    #[cfg(test)]
    pub(super) fn calls(&self) -> Vec<f64> {
        self.values(&PANELS[0])
    }

    fn values(&self, panel: &Panel) -> Vec<f64> {
        self.columns.iter().map(|column| (panel.value)(column, self.seconds())).collect()
    }
}

fn percent(count: u64, column: &Column) -> f64 {
    100.0 * number(count) / number(column.requests.max(1))
}

/// The whole picture.
pub fn plot(title: &str, lines: &[Line<'_>]) -> String {
    let legend = TOP + ROW * rows(lines.len());
    let height = legend + STEP * number(PANELS.len() as u64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n<title>{0}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"600\">{0}</text>\n",
        escaped(title)
    );
    for (index, line) in lines.iter().enumerate() {
        let (x, y) = (16.0 + f64::from(u8::from(index % 2 == 1)) * WIDTH / 2.0, TOP + ROW * rows(index + 1) - 4.0);
        write_line(&mut svg, &format!("M{x:.1} {:.1}h26", y - 4.0), index);
        text(&mut svg, x + 34.0, y, "", &line.name);
    }
    for (index, panel) in PANELS.iter().enumerate() {
        draw(&mut svg, panel, lines, legend + STEP * number(index as u64));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Rows of a legend with two columns.
fn rows(names: usize) -> f64 {
    number(names.div_ceil(2) as u64)
}

fn draw(svg: &mut String, panel: &Panel, lines: &[Line<'_>], top: f64) {
    text(svg, 16.0, top + 16.0, " font-weight=\"600\"", panel.title);
    let (above, below) = (top + 26.0, top + 26.0 + HEIGHT);
    let values: Vec<Vec<f64>> = lines.iter().map(|line| line.values(panel)).collect();
    let most = values.iter().flatten().copied().fold(panel.least, f64::max);
    let scale = round_up(most);
    let longest = lines.iter().map(|line| line.measured).max().unwrap_or_default().as_secs_f64().max(1.0);
    let across = |seconds: f64| LEFT + (RIGHT - LEFT) * (seconds / longest).min(1.0);
    if let Some(line) = lines.first() {
        for window in &line.bad {
            let (from, to) = (across(window.at.as_secs_f64()), across((window.at + window.length).as_secs_f64()));
            let wide = to - from;
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{above:.1}\" width=\"{wide:.1}\" height=\"{HEIGHT}\" fill=\"{SHADE}\"/>"
            );
        }
    }
    for (part, at) in [(0.0, below), (0.5, f64::midpoint(above, below)), (1.0, above)] {
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"{GRID}\"/>");
        let (y, shown) = (at + 4.0, short(scale * part));
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{shown} {}</text>",
            LEFT - 6.0,
            panel.unit
        );
    }
    for minutes in ticks(longest) {
        let (x, y) = (across(minutes * 60.0), below + 16.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{} min</text>", short(minutes));
    }
    for (index, (line, values)) in lines.iter().zip(&values).enumerate() {
        let step = line.measured.as_secs_f64() / number(COLUMNS as u64);
        let mut path = String::new();
        for (column, value) in values.iter().enumerate() {
            let x = across((number(column as u64) + 0.5) * step);
            let y = below - HEIGHT * (value / scale).min(1.0);
            let _ = write!(path, "{}{x:.1} {y:.1}", if column == 0 { "M" } else { "L" });
        }
        write_line(svg, &path, index);
    }
}

fn write_line(svg: &mut String, path: &str, index: usize) {
    let (colour, dashes) = LINES[index % LINES.len()];
    let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
    let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dashes}/>");
}

fn text(svg: &mut String, x: f64, y: f64, more: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{more}>{}</text>", escaped(text));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The next 1, 2 or 5 of a power of ten.
fn round_up(of: f64) -> f64 {
    let power = 10.0_f64.powf(of.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * power).find(|part| *part >= of).unwrap_or(of)
}

/// A number without zeros that say nothing.
fn short(of: f64) -> String {
    if of >= 10_000.0 {
        format!("{}k", short(of / 1000.0))
    } else {
        let text = format!("{of:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Where minutes are written, ten times at most.
fn ticks(seconds: f64) -> Vec<f64> {
    let minutes = seconds / 60.0;
    let step = round_up(minutes / 10.0);
    let mut ticks = vec![0.0];
    while let Some(last) = ticks.last().copied().filter(|last| last + step <= minutes + 1e-9) {
        ticks.push(last + step);
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.5, 1.0, 1.1, 34.0, 51.0].map(|of| short(round_up(of))), ["0.5", "1", "2", "50", "100"]);
        assert_eq!([0.0, 0.25, 50.0, 20_000.0].map(short), ["0", "0.25", "50", "20k"]);
        assert_eq!(ticks(600.0).into_iter().map(short).collect::<Vec<_>>().concat(), "012345678910");
    }

    #[test]
    fn a_plot_is_well_formed_and_has_a_line_for_each_case_in_each_panel() {
        let columns = vec![Column { requests: 10, hits: 9, minted: 1, calls_minted: 1, ..Column::default() }; COLUMNS];
        let bad = vec![Window { at: Duration::from_mins(1), length: Duration::from_secs(30) }];
        let line = |name: &str| Line {
            name: name.to_owned(),
            columns: &columns,
            measured: Duration::from_mins(5),
            factor: 1.0,
            bad: bad.clone(),
        };
        let svg = plot("a < b", &[line("one & only"), line("other")]);
        assert_eq!(svg.matches("fill=\"none\"").count(), 2 * (PANELS.len() + 1));
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; only"));
        for tag in ["svg", "text", "title"] {
            let opened = svg.matches(&format!("<{tag}")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
