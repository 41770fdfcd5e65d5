//! One number format against the others.

use spdz::plan::NumberFormat;

use crate::report::figures::{figure, milliseconds, scientific};
use crate::report::model::{InFormats, MeasuredCell, Report};
use crate::report::parts::{self, Figure, Plot, Section, Table, absent, format_key, look};
use crate::report::plot::{Mark, Row, Rows, Side, Spacing};
use crate::report::theme::Ink;

pub(super) fn section(report: &Report<'_>) -> Section {
    let mut section = parts::section("formats", "Number formats");
    let groups = &report.formats;
    let cells = || groups.iter().flat_map(|group| group.cells.iter().copied());
    let found: Vec<NumberFormat> = cells().map(|cell| cell.key.format).collect();
    let found: Vec<NumberFormat> =
        NumberFormat::ALL.into_iter().filter(|format| found.contains(format)).collect();
    let Some((first, others)) = found.split_first() else {
        section.prose.push("No computation was measured in several number formats.".into());
        return section;
    };
    let widths: Vec<String> = found.iter().map(|format| width(*format)).collect();
    section.prose.push(format!(
        "A wider format sends more bytes and multiplies more slowly, and its results are closer \
         to those of the plaintext network. {}. Each is measured with its usual truncation.",
        widths.join("; ")
    ));
    section.figures.push(Figure {
        caption: format!(
            "Runtime in each format, ms, and how many times that of {first} it is in {}",
            others.last().unwrap_or(first)
        ),
        key: format_key(cells()),
        plot: Plot::Rows(Rows {
            title: "Runtime in each format".into(),
            description: "A row for each computation with a point for each format on a \
                          logarithmic axis of milliseconds. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "ms, logarithmic".into(),
            reference: None,
            at_least: None,
            rows: groups.iter().map(|group| row(report, group)).collect(),
        }),
    });
    let columns = |names: &[NumberFormat], unit: &str| {
        names.iter().map(|format| format!(">{unit}{format}")).collect::<Vec<_>>()
    };
    let mut head = vec![String::from("Computation")];
    head.extend(found.iter().map(|format| format!(">{format}, ms")));
    head.extend(columns(others, "Time, "));
    head.extend(columns(others, "Bytes, "));
    head.extend(columns(&found, "KL, "));
    section.tables.push(Table {
        caption: format!("Each format; times and bytes as multiples of those in {first}"),
        head,
        rows: groups.iter().map(|group| table_row(report, group, &found)).collect(),
    });
    section
}

/// What a format is, and what it costs: bytes and precision.
fn width(format: NumberFormat) -> String {
    let (bytes, fraction) = (format.wire_bytes(), format.precision().fraction);
    format!(
        "{format} ({}) has {bytes} bytes an element and {fraction} fractional bits",
        format.summary()
    )
}

fn mean_ms(cell: &MeasuredCell) -> f64 {
    cell.result.combined.mean_ms
}

fn bytes(cell: &MeasuredCell) -> f64 {
    cell.result.online_bytes.saturating_add(cell.result.offline_bytes) as f64
}

/// A point for each format, the outermost with their numbers.
fn row(report: &Report<'_>, group: &InFormats<'_>) -> Row {
    let means = || group.cells.iter().map(|cell| mean_ms(cell));
    let (least, most) = (means().fold(f64::INFINITY, f64::min), means().fold(0.0, f64::max));
    let point = |cell: &&MeasuredCell| {
        let (ink, shape) = look(cell.key.format);
        let mean = mean_ms(cell);
        let side = match mean {
            _ if mean == least => Some(Side::Left),
            _ if mean == most => Some(Side::Right),
            _ => None,
        };
        Mark::Point {
            at: mean,
            ink,
            shape,
            label: side.map(|side| (side, figure(mean))),
            title: format!("{}: {}", cell.key.format, milliseconds(mean)),
        }
    };
    let range = Mark::Line {
        from: least,
        to: most,
        ink: Ink::Grey,
        title: format!("from {} to {}", figure(least), milliseconds(most)),
    };
    Row {
        name: report.naming.pair(&group.cells[0].key),
        marks: [range].into_iter().chain(group.cells.iter().map(point)).collect(),
        note: format!("{}×", figure(group.ratio())),
    }
}

/// The runtime in each format, time and bytes of each but the first over the first's, and the
/// divergence in each.
fn table_row(report: &Report<'_>, group: &InFormats<'_>, found: &[NumberFormat]) -> Vec<String> {
    let of = |format: &NumberFormat| group.cells.iter().find(|cell| cell.key.format == *format);
    let each = |formats: &[NumberFormat], value: &dyn Fn(&MeasuredCell) -> Option<String>| {
        let value = |format| of(format).and_then(|cell| value(cell)).unwrap_or_else(absent);
        formats.iter().map(value).collect::<Vec<_>>()
    };
    let (first, others) = (of(&found[0]), &found[1..]);
    let times = |value: fn(&MeasuredCell) -> f64| {
        move |cell: &MeasuredCell| Some(format!("{}×", figure(value(cell) / value(first?))))
    };
    let divergence = |cell: &MeasuredCell| {
        cell.result.accuracy.and_then(|accuracy| accuracy.mean_kl_divergence).map(scientific)
    };
    let mut row = vec![report.naming.pair(&group.cells[0].key)];
    row.extend(each(found, &|cell| Some(figure(mean_ms(cell)))));
    row.extend(each(others, &times(mean_ms)));
    row.extend(each(others, &times(bytes)));
    row.extend(each(found, &divergence));
    row
}
