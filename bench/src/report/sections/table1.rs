//! The paper's Table 1 beside ours.

use crate::accuracy::{interval, percents};
use crate::paper::COMPARABLE;
use crate::report::figures::{figure, milliseconds, scientific};
use crate::report::model::Report;
use crate::report::parts::{
    self, Figure, Plot, Section, Table, absent, format_key, head, look, with_deviation,
};
use crate::report::plot::{Mark, Row, Rows, Shape, Side, Spacing};
use crate::report::theme::Ink;

pub(super) fn section(report: &Report<'_>) -> Section {
    let naming = &report.naming;
    let mut section = parts::section("table1", "The paper’s Table 1, beside ours");
    if report.table1.is_empty() {
        section.prose.push(format!(
            "Nothing here compares. {COMPARABLE} Cells of Table 1 are in every sweep unless it is \
                 told otherwise."
        ));
        return section;
    }
    section.prose.push(
        "Private inference on MNIST: mean runtime, offline and online together, of one image. \
         The paper’s parties had 36 virtual cores each, in one region of a public cloud; the \
         machine of this report is described at its end. Our networks were trained for longer, \
         so accuracies do not compare across: what counts is how close the secure accuracy is to \
         the plaintext one, and how small the divergence is."
            .into(),
    );
    let mut rows = vec![];
    for row in &report.table1 {
        let (ink, shape) = look(row.key.format);
        let (ours, theirs) = (row.cell.result.combined.mean_ms, row.paper.mean_ms);
        let (left, right) =
            if ours <= theirs { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
        let mut marks = vec![Mark::Line {
            from: ours.min(theirs),
            to: ours.max(theirs),
            ink: Ink::Grey,
            title: format!("the paper’s runtime is {}× this", figure(row.ratio)),
        }];
        marks.push(Mark::Point {
            at: theirs,
            ink: Ink::Grey,
            shape: Shape::Ring,
            label: Some((right, figure(theirs))),
            title: format!("paper: {theirs} ms"),
        });
        marks.push(Mark::Point {
            at: ours,
            ink,
            shape,
            label: Some((left, figure(ours))),
            title: format!("here: {}", milliseconds(ours)),
        });
        rows.push(Row {
            name: naming.table1(row.key),
            marks,
            note: format!("{}×", figure(row.ratio)),
        });
    }
    let mut key = format_key(report.table1.iter().map(|row| row.cell));
    key.push((Ink::Grey, format!("{} paper", Shape::Ring.glyph())));
    section.figures.push(Figure {
        caption: "Runtime of one inference here and in the paper, ms, and how many times as long \
                  the paper’s is"
            .into(),
        key,
        plot: Plot::Rows(Rows {
            title: "Runtime here and in the paper".into(),
            description: "A row for each network and format with two points on a logarithmic \
                          axis of milliseconds. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "ms, logarithmic".into(),
            reference: None,
            at_least: None,
            rows,
        }),
    });
    let rows = report.table1.iter().map(|row| {
        let (paper, result) = (row.paper, &row.cell.result);
        let part = |part: f64| format!("{:.2}", part * 100.0);
        let secure = |plaintext: Option<f64>, secure| {
            format!("{} / {}", plaintext.map_or_else(absent, part), part(secure))
        };
        vec![
            naming.table1(row.key),
            row.key.truncation.to_string(),
            format!("{} ({})", paper.mean_ms, paper.stddev_ms),
            with_deviation(&result.combined, result.repetitions),
            figure(result.online.mean_ms),
            secure(Some(paper.plaintext), paper.secure),
            result.accuracy.map_or_else(absent, |a| secure(a.plaintext, a.secure)),
            result.accuracy.as_ref().and_then(interval).map_or_else(absent, percents),
            result.accuracy.map_or_else(absent, |a| a.samples.to_string()),
            format!("{:.4}", paper.kl_divergence),
            result.accuracy.and_then(|a| a.mean_kl_divergence).map_or_else(absent, scientific),
        ]
    });
    section.tables.push(Table {
        caption: "Table 1: runtime in ms (standard deviation), accuracy plaintext / secure, \
                  mean KL divergence"
            .into(),
        head: head(&[
            "Cell",
            "Truncation",
            ">Paper, ms",
            ">Here, ms",
            ">Online, ms",
            ">Accuracy, paper, %",
            ">Accuracy, here, %",
            ">95 % interval of the secure one",
            ">n",
            ">KL, paper",
            ">KL, here",
        ]),
        rows: rows.collect(),
    });
    section
}
