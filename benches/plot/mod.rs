//! Plots of a benchmark's figures, as SVG files in the directory that `BENCH_PLOTS` names. Without it nothing is drawn.

use std::ops::Range;
use std::path::PathBuf;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Points of one curve.
pub struct Curve {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// The label and the range of an axis.
pub struct Axis<'a> {
    pub label: &'a str,
    pub range: Range<f64>,
}

/// One pair of axes with its curves.
pub struct Chart<'a> {
    pub title: &'a str,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
    /// Whether the horizontal axis is logarithmic.
    pub x_log: bool,
    pub curves: Vec<Curve>,
}

impl Curve {
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect() }
    }

    /// A curve of points one step apart.
    pub fn even(name: impl Into<String>, step: f64, values: &[f64]) -> Self {
        Self::new(name, values.iter().enumerate().map(|(at, value)| ((at + 1) as f64 * step, *value)))
    }
}

impl<'a> Axis<'a> {
    /// From zero to the largest of the values, with some room above.
    pub fn from_zero(label: &'a str, values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().fold(0.0_f64, f64::max);
        Self { label, range: 0.0..if most > 0.0 { most * 1.1 } else { 1.0 } }
    }
}

/// Writes the charts into one file, one below the other.
pub fn draw(name: &str, charts: &[Chart<'_>]) {
    let Some(directory) = std::env::var_os("BENCH_PLOTS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join(format!("{name}.svg"));
    let height = HEIGHT * u32::try_from(charts.len()).unwrap();
    let root = SVGBackend::new(&file, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    for (area, chart) in root.split_evenly((charts.len(), 1)).iter().zip(charts) {
        let mut builder = ChartBuilder::on(area);
        builder.caption(chart.title, ("sans-serif", 16)).margin(12);
        builder.set_label_area_size(LabelAreaPosition::Left, 64).set_label_area_size(LabelAreaPosition::Bottom, 40);
        let (x, y) = (chart.x.range.clone(), chart.y.range.clone());
        if chart.x_log {
            curves(builder.build_cartesian_2d(x.log_scale(), y).unwrap(), chart);
        } else {
            curves(builder.build_cartesian_2d(x, y).unwrap(), chart);
        }
    }
    root.present().unwrap();
    eprintln!("plot: {}", file.display());
}

fn curves<'a, X>(mut axes: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>, chart: &Chart<'_>)
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    axes.configure_mesh()
        .x_desc(chart.x.label)
        .y_desc(chart.y.label)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .draw()
        .unwrap();
    for (curve, color) in chart.curves.iter().zip(COLORS.iter().cycle()) {
        let drawn = axes.draw_series(LineSeries::new(curve.points.iter().copied(), color.stroke_width(2))).unwrap();
        drawn.label(&curve.name).legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    axes.configure_series_labels()
        // A corner that these curves leave free.
        .position(if chart.x_log { SeriesLabelPosition::LowerRight } else { SeriesLabelPosition::UpperRight })
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .unwrap();
}

/// Formats a number as people write it.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{:.1}M", value / 1e6),
        large if large >= 1e4 => format!("{:.0}k", value / 1e3),
        small if small < 10.0 && small.fract() != 0.0 => {
            format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.0}"),
    }
}

const WIDTH: u32 = 760;
const HEIGHT: u32 = 320;
/// Blue, orange, green and grey, which nearly everyone can distinguish.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(120, 120, 120)];
