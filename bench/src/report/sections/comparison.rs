//! These results against earlier ones.

use crate::compare::{Compared, Comparison, THRESHOLD};
use crate::report::figures::{change, figure, time};
use crate::report::model::{Against, Report};
use crate::report::naming::Naming;
use crate::report::parts::{self, Figure, Plot, Section, Table, absent, head};
use crate::report::plot::{Mark, Row, Rows, Shape, Spacing};
use crate::report::theme::Ink;
use crate::stats::{Ratio, Verdict};

/// What a comparison comes to, in a sentence.
fn verdict(against: &Against<'_>) -> String {
    let Against { run, comparison, unmatched } = against;
    let Some(comparison) = comparison else {
        return format!("{run}: no cell is in both, so there is nothing to compare.");
    };
    let count = |verdict| comparison.cells.iter().filter(|c| c.verdict == verdict).count();
    let (slower, faster) = (count(Verdict::Slower), count(Verdict::Faster));
    let all = comparison.cells.len();
    let cells = |count: usize| match count {
        1 => String::from("1 cell is"),
        _ => format!("{count} cells are"),
    };
    let mut text = match (slower, faster) {
        (0, 0) => format!("no significant change in any of {all} cells"),
        (_, 0) => format!("{} slower, of {all}", cells(slower)),
        (0, _) => format!("{} faster, of {all}", cells(faster)),
        _ => format!("{} slower and {} faster, of {all}", cells(slower), cells(faster)),
    };
    let together = match comparison.verdict {
        Verdict::NoSignificantChange => "no significant change of all together".into(),
        Verdict::NotJudged => "all of them are suspicious".into(),
        verdict => format!("all together are {verdict}"),
    };
    text.push_str(&format!(
        "; {together}: {} ({})",
        change(comparison.all.ratio),
        interval(&comparison.all)
    ));
    if *unmatched > 0 {
        text.push_str(&format!("; {unmatched} more in one of the two only"));
    }
    format!("{run}: {text}.")
}

/// How many times as long the work took that no build changes.
fn pace(cell: &Compared) -> String {
    match cell.pace_micros {
        [Some(before), Some(now)] => format!("{:.2}×", now / before),
        _ => absent(),
    }
}

fn interval(ratio: &Ratio) -> String {
    format!("{} to {}", change(ratio.low), change(ratio.high))
}

pub(super) fn section(report: &Report<'_>) -> Section {
    let mut section = parts::section("comparison", "Against earlier results");
    let baseline = &report.runs[0];
    if report.comparisons.is_empty() {
        section.prose.push(
            "There is nothing to compare with: bench report OLD NEW sets the results in NEW \
             against those in OLD."
                .into(),
        );
        return section;
    }
    section.prose.push(format!(
        "The baseline is “{}”, measured {}, commit {}. A ratio is that of typical moments, each \
         trial divided by how fast the machine was around it, and so not exactly that of the \
         means. The intervals of all cells hold at once, with a probability of 95 %. Where one \
         holds 1, or the ratio is within {} %, nothing has changed significantly. Cells that are \
         suspicious in one of the two are shown and not judged. The pace is how many times as long a \
         piece of work took that no build changes.",
        baseline.name,
        time(baseline.environment.started_unix_seconds),
        baseline.environment.commit,
        THRESHOLD * 100.0,
    ));
    for against in &report.comparisons {
        section.prose.push(verdict(against));
        let Some(comparison) = &against.comparison else { continue };
        let sentence = |note: &String| format!("{}: {note}.", against.run);
        section.prose.extend(comparison.notes.iter().map(sentence));
        section.figures.push(ratios(against.run, comparison, &report.naming));
        let rows = comparison.cells.iter().map(|cell| {
            let [before, now] = cell.mean_ms;
            let changes: Vec<String> = cell.changes.iter().map(ToString::to_string).collect();
            vec![
                report.naming.full(&cell.key),
                figure(before),
                figure(now),
                pace(cell),
                change(cell.time.ratio),
                interval(&cell.time),
                cell.verdict.to_string(),
                if changes.is_empty() { "nothing".into() } else { changes.join("; ") },
            ]
        });
        section.tables.push(Table {
            caption: format!("{} against {}", against.run, baseline.name),
            head: head(&[
                "Cell",
                ">Before, ms",
                ">Now, ms",
                ">Pace",
                ">Change",
                ">Interval",
                "Verdict",
                "Other changes",
            ]),
            rows: rows.collect(),
        });
    }
    section
}

/// A row for each cell with its ratio and interval.
fn ratios(run: &str, comparison: &Comparison, naming: &Naming) -> Figure {
    let rows = comparison.cells.iter().map(|cell| {
        let ink = match cell.verdict {
            Verdict::Slower => Ink::Vermilion,
            Verdict::Faster => Ink::Blue,
            Verdict::NoSignificantChange | Verdict::NotJudged => Ink::Grey,
        };
        let Ratio { ratio, low, high } = cell.time;
        let marks = vec![
            Mark::Line { from: low, to: high, ink, title: interval(&cell.time) },
            Mark::Point { at: ratio, ink, shape: Shape::Square, label: None, title: change(ratio) },
        ];
        let note = match cell.verdict {
            Verdict::NoSignificantChange | Verdict::NotJudged => cell.verdict.to_string(),
            _ => format!("{} {}", cell.verdict, change(ratio)),
        };
        Row { name: naming.full(&cell.key), marks, note }
    });
    Figure {
        caption: format!("{run}: runtime as a multiple of the baseline’s, and its interval"),
        key: vec![],
        plot: Plot::Rows(Rows {
            title: format!("Runtime of {run} against the baseline’s"),
            description: "A row for each cell with the ratio of its runtimes and the interval on \
                          a logarithmic axis; left of 1 is faster. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "times the baseline’s runtime, logarithmic".into(),
            reference: Some(1.0),
            // Small changes shall look small.
            at_least: Some([0.85, 1.0 / 0.85]),
            rows: rows.collect(),
        }),
    }
}
