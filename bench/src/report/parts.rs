//! What the report is made of: sections of prose, plots and tables, the same for a page and for
//! Markdown.

use party::result::Latency;
use spdz::plan::NumberFormat;

use super::figures::figure;
use super::model::MeasuredCell;
use super::naming::Naming;
use super::plot::{Panels, Rows, Shape};
use super::theme::Ink;

/// A part of the report.
pub(super) struct Section {
    /// Its anchor in a page.
    pub(super) id: &'static str,
    /// Its heading.
    pub(super) title: &'static str,
    /// Something a reader has to know before the rest.
    pub(super) warning: bool,
    /// What it says before its plots.
    pub(super) prose: Vec<String>,
    pub(super) figures: Vec<Figure>,
    pub(super) tables: Vec<Table>,
}

/// A plot with what is written above it.
pub(super) struct Figure {
    pub(super) caption: String,
    pub(super) key: Vec<(Ink, String)>,
    pub(super) plot: Plot,
}

/// What is drawn.
pub(super) enum Plot {
    Rows(Rows),
    Panels(Panels),
}

/// A table; the columns whose heads begin with `>` hold numbers.
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A figure that opens the report.
pub(super) struct Headline {
    pub(super) value: String,
    pub(super) of: String,
}

pub(super) fn section(id: &'static str, title: &'static str) -> Section {
    Section { id, title, warning: false, prose: vec![], figures: vec![], tables: vec![] }
}

pub(super) fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).into()).collect()
}

/// Mean and deviation, both to the mean's last digit, of so many repetitions.
pub(super) fn with_deviation(latency: &Latency, repetitions: u64) -> String {
    let mean = figure(latency.mean_ms);
    let decimals = mean.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let deviation = latency.deviation_ms(repetitions);
    let deviation = deviation.map_or_else(absent, |deviation| format!("{deviation:.decimals$}"));
    format!("{mean} ({deviation})")
}

pub(super) fn absent() -> String {
    "–".into()
}

/// Cells that may share an axis, with what they share.
pub(super) fn groups<'a>(
    cells: &[&'a MeasuredCell],
    naming: &Naming,
) -> Vec<(String, Vec<&'a MeasuredCell>)> {
    let mut groups: Vec<(String, Vec<&MeasuredCell>)> = vec![];
    for cell in cells {
        let name = naming.group(&cell.key);
        match groups.iter_mut().find(|group| group.0 == name) {
            Some(group) => group.1.push(cell),
            None => groups.push((name, vec![cell])),
        }
    }
    groups
}

/// How number formats look in plots, in the order of [`NumberFormat::ALL`]. What differs in
/// colour differs in shape too; the first two and grey differ for every kind of colour vision.
const LOOKS: [(Ink, Shape); 4] = [
    (Ink::Blue, Shape::Circle),
    (Ink::Vermilion, Shape::Square),
    (Ink::Green, Shape::Diamond),
    (Ink::Purple, Shape::Triangle),
];

/// How a number format looks: the same in all plots.
pub(super) fn look(format: NumberFormat) -> (Ink, Shape) {
    let place = NumberFormat::ALL.iter().position(|other| *other == format);
    LOOKS[place.unwrap_or_default() % LOOKS.len()]
}

/// What tells the formats of these cells apart, each once.
pub(super) fn format_key<'a>(
    cells: impl IntoIterator<Item = &'a MeasuredCell>,
) -> Vec<(Ink, String)> {
    let found: Vec<NumberFormat> = cells.into_iter().map(|cell| cell.key.format).collect();
    let found = NumberFormat::ALL.into_iter().filter(|format| found.contains(format));
    let entry = |format| {
        let (ink, shape) = look(format);
        (ink, format!("{} {format}", shape.glyph()))
    };
    found.map(entry).collect()
}
