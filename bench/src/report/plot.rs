//! Plots as SVG within a page: pure functions from numbers to markup.
//!
//! They know nothing of benchmarks. Each is drawn twice, for a page's width and for a
//! phone's, and the style sheet shows one of the two, so that its text keeps its size.
//! Colours are classes of the page's style sheet, names and titles are escaped.

use maud::{Markup, Render, html};

use super::figures::figure;
use super::theme::Ink;

/// The widths that a plot is drawn in, pixels.
const WIDE: f64 = 880.0;
const NARROW: f64 = 358.0;

/// The size of text, and about how wide a letter of it is, pixels.
const TEXT: f64 = 13.0;
const LETTER: f64 = 7.1;

/// How much wider bold text is.
const BOLD: f64 = 1.25;

/// Most letters of a name within a plot; the table beside it has them all.
const MOST_LETTERS: usize = 30;

/// A coordinate, to a tenth of a pixel.
#[derive(Clone, Copy)]
struct Px(f64);

impl Render for Px {
    fn render_to(&self, buffer: &mut String) {
        let text = format!("{:.1}", self.0);
        buffer.push_str(text.strip_suffix(".0").unwrap_or(&text));
    }
}

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    /// Equal differences are equally long; it begins at 0.
    Linear,
    /// Equal ratios are equally long.
    Log,
}

/// From values to coordinates.
#[derive(Clone, Copy, Debug)]
struct Scale {
    spacing: Spacing,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// One that shows all of `values` between `start` and `end`; those that an axis cannot
    /// show are left out.
    fn new(spacing: Spacing, values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let shown = values.filter(|x| x.is_finite() && (spacing == Spacing::Linear || *x > 0.0));
        let (low, high) = shown
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        let (low, high) = match spacing {
            _ if low > high => (1.0, 10.0),
            Spacing::Linear if high <= 0.0 => (0.0, 1.0),
            Spacing::Linear => (0.0, high),
            // A single value gets room on both sides.
            Spacing::Log if high / low < 1.1 => (low / 1.1, high * 1.1),
            Spacing::Log => (low, high),
        };
        Self { spacing, low, high, start, end }
    }

    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = match self.spacing {
            Spacing::Linear => (value - self.low) / (self.high - self.low),
            Spacing::Log => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        self.start + part * (self.end - self.start)
    }

    /// Round values within it, at most `most` where that can be (and at least 2).
    fn ticks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        if self.spacing == Spacing::Log {
            let (low, high) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
            let round = |steps: &[f64], apart: i32| -> Vec<f64> {
                (low..=high)
                    .filter(|exponent| exponent.rem_euclid(apart) == 0)
                    .flat_map(|exponent| steps.iter().map(move |step| step * 10f64.powi(exponent)))
                    .filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick))
                    .collect()
            };
            let choices = [
                (&[1.0, 2.0, 5.0][..], 1, 2),
                (&[1.0], 1, 3),
                (&[1.0, 3.0], 1, 2),
                (&[1.0], 2, 2),
                (&[1.0], 3, 2),
            ];
            let fitting =
                choices.iter().map(|(steps, apart, least)| (round(steps, *apart), *least));
            let ticks = fitting
                .into_iter()
                .find(|(ticks, least)| (*least..=most).contains(&ticks.len()))
                .map_or_else(Vec::new, |(ticks, _)| ticks);
            if !ticks.is_empty() {
                return ticks;
            }
        }
        let span = self.high - self.low;
        let rough = 10f64.powf((span / most as f64).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0, 20.0]
            .map(|factor| factor * rough)
            .into_iter()
            .find(|step| span / step + 1.0 <= most as f64 + 0.5)
            .unwrap_or(span);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step * 1.000_001).floor() as i64;
        (first..=last).map(|k| k as f64 * step).collect()
    }
}

/// A tick's value as short as it goes.
fn tick_text(value: f64) -> String {
    if value.abs() >= 1e4 {
        let thousands = figure(value / 1e3);
        return format!("{}k", trimmed(&thousands));
    }
    trimmed(&format!("{value:.6}")).to_owned()
}

fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= MOST_LETTERS {
        return name.into();
    }
    name.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// How a point looks; what differs in colour differs in shape too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A filled circle.
    Circle,
    /// A filled square.
    Square,
    /// A square on its corner.
    Diamond,
    /// A triangle on its side.
    Triangle,
    /// A circle with nothing in it.
    Ring,
}

impl Shape {
    /// What it is in a line of text.
    pub(super) fn glyph(self) -> char {
        match self {
            Self::Circle => '●',
            Self::Square => '■',
            Self::Diamond => '◆',
            Self::Triangle => '▲',
            Self::Ring => '○',
        }
    }
}

fn point(shape: Shape, ink: Ink, x: f64, y: f64, title: &str) -> Markup {
    html! {
        g class=(ink.class()) {
            @match shape {
                Shape::Circle => circle .fill cx=(Px(x)) cy=(Px(y)) r="5" { title { (title) } },
                Shape::Ring => circle .ring cx=(Px(x)) cy=(Px(y)) r="4.5" { title { (title) } },
                Shape::Square => rect .fill x=(Px(x - 4.5)) y=(Px(y - 4.5)) width="9" height="9" {
                    title { (title) }
                },
                Shape::Diamond => polygon .fill
                    points=(Path(&[(x - 6.0, y), (x, y - 6.0), (x + 6.0, y), (x, y + 6.0)])) {
                    title { (title) }
                },
                Shape::Triangle => polygon .fill
                    points=(Path(&[(x - 5.5, y + 4.5), (x, y - 5.5), (x + 5.5, y + 4.5)])) {
                    title { (title) }
                },
            }
        }
    }
}

fn beside(x: f64, y: f64, side: Side, ink: Ink, text: &str) -> Markup {
    let (shift, anchor) = match side {
        Side::Left => (-10.0, "end"),
        Side::Right => (10.0, "start"),
    };
    html! {
        text class={ "label " (ink.class()) } text-anchor=(anchor)
            x=(Px(x + shift)) y=(Px(y + 4.5)) { (text) }
    }
}

/// Something at a value, or between two, in a row.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// A point, perhaps with a label at its outer side.
    Point { at: f64, ink: Ink, shape: Shape, label: Option<(Side, String)>, title: String },
    /// A thin line.
    Line { from: f64, to: f64, ink: Ink, title: String },
    /// A filled bar with a text in it if there is room, as high as `part` of the row's.
    Bar { from: f64, to: f64, ink: Ink, faint: bool, text: String, title: String },
    /// A stroke across the row.
    Tick { at: f64, ink: Ink, title: String },
}

/// Where a label is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Mark {
    fn values(&self) -> [f64; 2] {
        match self {
            Self::Point { at, .. } | Self::Tick { at, .. } => [*at, *at],
            Self::Line { from, to, .. } | Self::Bar { from, to, .. } => [*from, *to],
        }
    }

    fn label_width(&self, wanted: Side) -> f64 {
        match self {
            Self::Point { label: Some((side, text)), .. } if *side == wanted => {
                width_of(text) * BOLD + 12.0
            }
            // Half of a tick's text.
            _ => 14.0,
        }
    }

    fn draw(&self, scale: &Scale, y: f64) -> Markup {
        match self {
            Self::Point { at, ink, shape, label, title } => {
                let x = scale.at(*at);
                html! {
                    (point(*shape, *ink, x, y, title))
                    @if let Some((side, text)) = label { (beside(x, y, *side, *ink, text)) }
                }
            }
            Self::Line { from, to, ink, title } => html! {
                line class={ "stroke " (ink.class()) } x1=(Px(scale.at(*from))) x2=(Px(scale.at(*to)))
                    y1=(Px(y)) y2=(Px(y)) { title { (title) } }
            },
            Self::Bar { from, to, ink, faint, text, title } => {
                let (left, right) = (scale.at(*from), scale.at(*to));
                // A gap of a pixel tells neighbours apart without their colours.
                let width = (right - left - 1.0).max(0.5);
                html! {
                    g class=(ink.class()) {
                        rect class=(if *faint { "faint" } else { "fill" }) rx="1.5"
                            x=(Px(left)) y=(Px(y - 9.0)) width=(Px(width)) height="18" {
                            title { (title) }
                        }
                        @if !text.is_empty() && width_of(text) + 8.0 <= width {
                            text .inside text-anchor="middle" x=(Px(left + width / 2.0)) y=(Px(y + 4.5)) {
                                (text)
                            }
                        }
                    }
                }
            }
            Self::Tick { at, ink, title } => {
                let x = scale.at(*at);
                html! {
                    line class={ "tick " (ink.class()) } x1=(Px(x)) x2=(Px(x))
                        y1=(Px(y - 12.0)) y2=(Px(y + 12.0)) { title { (title) } }
                }
            }
        }
    }
}

/// A name, marks, and what they come to.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// What it is about.
    pub(super) name: String,
    /// What is drawn, from the back to the front.
    pub(super) marks: Vec<Mark>,
    /// What is read at its end.
    pub(super) note: String,
}

/// Rows over one axis.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// What a reader without eyes is told first.
    pub(super) title: String,
    /// And then.
    pub(super) description: String,
    pub(super) spacing: Spacing,
    /// What the axis counts, with its unit.
    pub(super) axis: String,
    /// A value that all rows are read against.
    pub(super) reference: Option<f64>,
    /// What the axis shows at least.
    pub(super) at_least: Option<[f64; 2]>,
    pub(super) rows: Vec<Row>,
}

impl Rows {
    /// Both drawings. `id` is unique in the page.
    pub(super) fn render(&self, id: &str) -> Markup {
        html! {
            (self.draw(&format!("{id}-w"), "wide", WIDE))
            (self.draw(&format!("{id}-n"), "narrow", NARROW))
        }
    }

    fn draw(&self, id: &str, class: &str, width: f64) -> Markup {
        let wide = width == WIDE;
        let longest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let names = longest(&mut self.rows.iter().map(|row| width_of(&shortened(&row.name))));
        let notes = longest(&mut self.rows.iter().map(|row| width_of(&row.note)));
        let marks = || self.rows.iter().flat_map(|row| &row.marks);
        let (left, right) = if wide {
            (names + 14.0, width - if notes > 0.0 { notes + 14.0 } else { 0.0 })
        } else {
            (0.0, width)
        };
        // Labels at the outer sides of the outermost points stay within the drawing.
        let margin = |side| longest(&mut marks().map(|mark| mark.label_width(side)));
        let start = left + margin(Side::Left);
        let end = right - margin(Side::Right);
        let values = marks().flat_map(Mark::values).chain(self.reference);
        let values = values.chain(self.at_least.into_iter().flatten());
        let scale = Scale::new(self.spacing, values, start, end);
        let (row_height, name_height) = if wide { (30.0, 0.0) } else { (50.0, 22.0) };
        let bottom = self.rows.len() as f64 * row_height + 4.0;
        let ticks = scale.ticks(((end - start) / 62.0) as usize);
        frame(
            id,
            class,
            width,
            bottom + 38.0,
            &self.title,
            &self.description,
            html! {
                @for tick in &ticks {
                    @let x = scale.at(*tick);
                    line .grid x1=(Px(x)) x2=(Px(x)) y1="0" y2=(Px(bottom)) {}
                    text .axis text-anchor="middle" x=(Px(x)) y=(Px(bottom + 16.0)) { (tick_text(*tick)) }
                }
                text .axis text-anchor="end" x=(Px(right)) y=(Px(bottom + 33.0)) { (self.axis) }
                @if let Some(reference) = self.reference {
                    @let x = scale.at(reference);
                    line .reference x1=(Px(x)) x2=(Px(x)) y1="0" y2=(Px(bottom)) {}
                }
                @for (index, row) in self.rows.iter().enumerate() {
                    @let top = index as f64 * row_height;
                    @let y = top + name_height + (row_height - name_height) / 2.0;
                    @let text = if wide { y + 4.5 } else { top + 16.0 };
                    text .name x="0" y=(Px(text)) { title { (row.name) } (shortened(&row.name)) }
                    text .note text-anchor="end" x=(Px(width)) y=(Px(text)) { (row.note) }
                    @for mark in &row.marks { (mark.draw(&scale, y)) }
                }
            },
        )
    }
}

/// A point of a line.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) x: f64,
    pub(super) y: f64,
    /// What it says when pointed at.
    pub(super) title: String,
}

/// Points that are joined.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Written beside its end.
    pub(super) name: String,
    pub(super) ink: Ink,
    pub(super) shape: Shape,
    /// In ascending `x`.
    pub(super) points: Vec<At>,
}

/// Lines over a common ground.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) name: String,
    pub(super) lines: Vec<Line>,
}

/// Panels side by side with the same two axes, both logarithmic.
#[derive(Clone, Debug)]
pub(super) struct Panels {
    pub(super) title: String,
    pub(super) description: String,
    /// What the axes count, with their units.
    pub(super) x_axis: String,
    pub(super) y_axis: String,
    pub(super) panels: Vec<Panel>,
}

/// Most panels beside each other.
const COLUMNS: usize = 3;

impl Panels {
    /// Both drawings. `id` is unique in the page.
    pub(super) fn render(&self, id: &str) -> Markup {
        html! {
            (self.draw(&format!("{id}-w"), "wide", WIDE, self.panels.len().clamp(1, COLUMNS)))
            (self.draw(&format!("{id}-n"), "narrow", NARROW, 1))
        }
    }

    fn draw(&self, id: &str, class: &str, width: f64, columns: usize) -> Markup {
        const GAP: f64 = 20.0;
        const HEIGHT: f64 = 250.0;
        let lines = || self.panels.iter().flat_map(|panel| &panel.lines);
        let points = || lines().flat_map(|line| &line.points);
        let names = lines().map(|line| width_of(&shortened(&line.name))).fold(0.0, f64::max);
        let each = (width - GAP * (columns as f64 - 1.0)) / columns as f64;
        let (left, right) = (40.0, each - names.min(each / 3.0) - 12.0);
        let (top, bottom) = (54.0, HEIGHT - 40.0);
        let x = Scale::new(Spacing::Log, points().map(|at| at.x), left + 8.0, right);
        let y = Scale::new(Spacing::Log, points().map(|at| at.y), bottom - 8.0, top);
        let mut x_ticks: Vec<f64> = points().map(|at| at.x).collect();
        x_ticks.sort_by(f64::total_cmp);
        x_ticks.dedup();
        let crowded = x_ticks.windows(2).any(|pair| x.at(pair[1]) - x.at(pair[0]) < 26.0);
        if crowded {
            x_ticks = x.ticks(((right - left) / 40.0) as usize);
        }
        let y_ticks = y.ticks(6);
        let rows = self.panels.len().div_ceil(columns) as f64;
        frame(
            id,
            class,
            width,
            rows * HEIGHT,
            &self.title,
            &self.description,
            html! {
                @for (index, panel) in self.panels.iter().enumerate() {
                    @let place = (
                        (index % columns) as f64 * (each + GAP),
                        (index / columns) as f64 * HEIGHT,
                    );
                    g transform={ "translate(" (Px(place.0)) " " (Px(place.1)) ")" } {
                        text .panel-name x="0" y="15" { title { (panel.name) } (shortened(&panel.name)) }
                        text .axis x="0" y="36" { (self.y_axis) }
                        @for tick in &y_ticks {
                            @let at = y.at(*tick);
                            line .grid x1=(Px(left)) x2=(Px(right)) y1=(Px(at)) y2=(Px(at)) {}
                            text .axis text-anchor="end" x=(Px(left - 6.0)) y=(Px(at + 4.0)) {
                                (tick_text(*tick))
                            }
                        }
                        @for tick in &x_ticks {
                            text .axis text-anchor="middle" x=(Px(x.at(*tick))) y=(Px(bottom + 16.0)) {
                                (tick_text(*tick))
                            }
                        }
                        text .axis text-anchor="end" x=(Px(right)) y=(Px(bottom + 33.0)) { (self.x_axis) }
                        @for line in &panel.lines {
                            @let path: Vec<_> =
                                line.points.iter().map(|at| (x.at(at.x), y.at(at.y))).collect();
                            polyline class={ "joined " (line.ink.class()) } points=(Path(&path)) {}
                            @for (at, place) in line.points.iter().zip(&path) {
                                (point(line.shape, line.ink, place.0, place.1, &at.title))
                            }
                        }
                        @for (line, at) in panel.lines.iter().zip(ends(&panel.lines, &x, &y)) {
                            text class={ "label " (line.ink.class()) } x=(Px(at.0 + 9.0)) y=(Px(at.1 + 4.5)) {
                                (shortened(&line.name))
                            }
                        }
                    }
                }
            },
        )
    }
}

/// The coordinates of a polyline.
struct Path<'a>(&'a [(f64, f64)]);

impl Render for Path<'_> {
    fn render_to(&self, buffer: &mut String) {
        for (index, (x, y)) in self.0.iter().enumerate() {
            if index > 0 {
                buffer.push(' ');
            }
            Px(*x).render_to(buffer);
            buffer.push(',');
            Px(*y).render_to(buffer);
        }
    }
}

/// Where the names of lines go: beside their last points, moved apart where they meet.
fn ends(lines: &[Line], x: &Scale, y: &Scale) -> Vec<(f64, f64)> {
    let mut places: Vec<(f64, f64)> = lines
        .iter()
        .map(|line| line.points.last().map_or((x.end, y.start), |at| (x.at(at.x), y.at(at.y))))
        .collect();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].1.total_cmp(&places[*b].1));
    for pair in order.windows(2) {
        let above = places[pair[0]].1;
        places[pair[1]].1 = places[pair[1]].1.max(above + TEXT + 1.0);
    }
    places
}

/// A drawing with a title and a description for those who do not see it.
fn frame(
    id: &str,
    class: &str,
    width: f64,
    height: f64,
    title: &str,
    description: &str,
    content: Markup,
) -> Markup {
    html! {
        svg class=(class) role="img" xmlns="http://www.w3.org/2000/svg"
            aria-labelledby={ (id) "-t " (id) "-d" }
            viewBox={ "0 0 " (Px(width)) " " (Px(height)) } {
            title id={ (id) "-t" } { (title) }
            desc id={ (id) "-d" } { (description) }
            (content)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(low: f64, high: f64) -> Scale {
        Scale::new(Spacing::Log, [low, high].into_iter(), 0.0, 100.0)
    }

    #[test]
    fn scales_are_linear_or_in_ratios() {
        let linear = Scale::new(Spacing::Linear, [3.0, 8.0].into_iter(), 10.0, 90.0);
        assert_eq!([0.0, 4.0, 8.0].map(|x| linear.at(x)), [10.0, 50.0, 90.0]);
        let log = log(1.0, 100.0);
        assert!((log.at(10.0) - 50.0).abs() < 1e-9);
        assert_eq!((log.at(0.0), log.at(1e9)), (0.0, 100.0), "what is outside stays at the edge");
        // Upside down, as pixels count.
        let down = Scale { start: 100.0, end: 0.0, ..log };
        assert_eq!((down.at(1.0), down.at(100.0)), (100.0, 0.0));
    }

    #[test]
    fn a_scale_of_nothing_or_of_one_value_is_one() {
        let nothing = Scale::new(Spacing::Log, [f64::NAN, 0.0, -1.0].into_iter(), 0.0, 100.0);
        assert!(nothing.at(5.0).is_finite());
        let one = log(7.0, 7.0);
        assert!((one.at(7.0) - 50.0).abs() < 1e-9);
        let zero = Scale::new(Spacing::Linear, [0.0].into_iter(), 0.0, 100.0);
        assert_eq!(zero.at(0.0), 0.0);
        for scale in [nothing, one, zero] {
            assert!(scale.ticks(6).len() >= 2, "{scale:?}");
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(log(0.4, 7.0).ticks(6), [0.5, 1.0, 2.0, 5.0]);
        assert_eq!(log(0.4, 600.0).ticks(6), [1.0, 10.0, 100.0]);
        assert_eq!(log(1.0, 1e9).ticks(6), [1.0, 1e2, 1e4, 1e6, 1e8]);
        let within = log(2.1, 2.9).ticks(6);
        assert!(within.len() >= 2 && within.iter().all(|x| (2.1..=2.9).contains(x)), "{within:?}");
        let linear = Scale::new(Spacing::Linear, [6.54].into_iter(), 0.0, 1.0);
        assert_eq!(linear.ticks(8), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(linear.ticks(4), [0.0, 2.0, 4.0, 6.0]);
        let texts = [0.5, 1.0, 0.25, 2000.0, 10_000.0, 1.5e6].map(tick_text);
        assert_eq!(texts, ["0.5", "1", "0.25", "2000", "10k", "1500k"]);
    }

    proptest::proptest! {
        #[test]
        fn ticks_lie_within(low in 1e-6..1e6, ratio in 1.0..1e6, most in 2usize..12, is_log: bool) {
            let spacing = if is_log { Spacing::Log } else { Spacing::Linear };
            let scale = Scale::new(spacing, [low, low * ratio].into_iter(), 0.0, 100.0);
            let ticks = scale.ticks(most);
            proptest::prop_assert!(!ticks.is_empty() && ticks.len() <= most + 1, "{:?}", ticks);
            proptest::prop_assert!(ticks.windows(2).all(|pair| pair[0] < pair[1]));
            proptest::prop_assert!(ticks.iter().all(|x| (scale.low * 0.99..=scale.high * 1.01).contains(x)));
        }
    }

    fn rows(name: &str) -> Rows {
        let point = |at, side| Mark::Point {
            at,
            ink: Ink::Blue,
            shape: Shape::Circle,
            label: Some((side, format!("{at} ms"))),
            title: "a & b".into(),
        };
        Rows {
            title: "t".into(),
            description: "d".into(),
            spacing: Spacing::Log,
            axis: "ms".into(),
            reference: Some(1.0),
            at_least: None,
            rows: vec![Row {
                name: name.into(),
                marks: vec![point(1.0, Side::Left), point(100.0, Side::Right)],
                note: "note".into(),
            }],
        }
    }

    #[test]
    fn names_are_escaped_and_cut_off() {
        let svg = rows(&format!("<script>&{}", "x".repeat(99))).render("p").into_string();
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;&amp;xxx"), "{svg}");
        assert!(svg.contains("x…</text>"), "cut off");
        assert!(svg.contains(&"x".repeat(99)), "whole in the title");
        assert!(svg.contains("<title>a &amp; b</title>"));
    }

    /// All values of an attribute.
    fn attribute(svg: &str, name: &str) -> Vec<f64> {
        let before = format!(" {name}=\"");
        let parts = svg.split(&before).skip(1);
        parts.filter_map(|part| part.split('"').next()?.parse().ok()).collect()
    }

    #[test]
    fn both_drawings_keep_within_their_frames() {
        let svg = rows("A").render("p").into_string();
        let (wide, narrow) = svg.split_once("</svg>").unwrap();
        for (svg, width) in [(wide, WIDE), (narrow, NARROW)] {
            let ends = ["x", "x1", "x2", "cx"].map(|name| attribute(svg, name)).concat();
            assert!(ends.iter().all(|x| (0.0..=width).contains(x)), "{ends:?}");
            // A label to the left of the leftmost point has room.
            let first = attribute(svg, "cx")[0];
            assert!(first >= width_of("1 ms") + 10.0, "{first}");
        }
    }

    #[test]
    fn names_of_lines_that_end_together_do_not_meet() {
        let line = |name: &str, y| Line {
            name: name.into(),
            ink: Ink::Blue,
            shape: Shape::Ring,
            points: vec![At { x: 1.0, y, title: String::new() }],
        };
        let lines = [line("a", 5.0), line("b", 5.0), line("c", 5.1)];
        let scale = log(1.0, 10.0);
        let y = Scale { start: 100.0, end: 0.0, ..scale };
        let mut at: Vec<f64> = ends(&lines, &scale, &y).iter().map(|place| place.1).collect();
        at.sort_by(f64::total_cmp);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= TEXT), "{at:?}");
        let panels = Panels {
            title: "t".into(),
            description: "d".into(),
            x_axis: "batch".into(),
            y_axis: "ms".into(),
            panels: vec![Panel { name: "<C>".into(), lines: lines.into() }],
        };
        let svg = panels.render("q").into_string();
        assert!(svg.contains("&lt;C&gt;") && !svg.contains("<C>"));
        assert_eq!(svg.matches("<circle").count(), 6, "three rings, drawn twice");
    }
}
