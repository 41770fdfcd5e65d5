//! The figures that open the report.

use crate::accuracy::{percents, wilson};
use crate::cell::computed;
use crate::paper;
use crate::report::figures::{figure, milliseconds, percent};
use crate::report::model::{MeasuredCell, Report};
use crate::report::parts::Headline;

/// The figures that open the report: of the largest of the paper's networks at its
/// smallest batch, in the fastest format.
pub(in crate::report) fn headlines(report: &Report<'_>) -> Vec<Headline> {
    let cells = &report.subject().cells;
    let smallest = cells.iter().map(|cell| cell.key.batch_size).min();
    let smallest = || cells.iter().filter(|cell| Some(cell.key.batch_size) == smallest);
    let rank = |cell: &&MeasuredCell| (cell.result.online_bytes, cell.key.network.clone());
    let largest = smallest().max_by_key(rank).map(|cell| &cell.key.network);
    let time = |cell: &MeasuredCell| cell.result.combined.mean_ms;
    let first = smallest()
        .filter(|cell| Some(&cell.key.network) == largest)
        .min_by(|a, b| time(a).total_cmp(&time(b)));
    let Some(first) = first else { return vec![] };
    let name = computed(&first.key.network, first.key.reveal);
    let name = format!("{name} {}", first.key.format);
    let mark = report.naming.mark(&first.key);
    let mut headlines = vec![Headline {
        value: milliseconds(first.result.combined.mean_ms),
        of: format!("one private inference of {name}, batch {}{mark}", first.key.batch_size),
    }];
    if let Some(paper) = paper::beside(&first.key) {
        headlines.push(Headline {
            value: format!("{} ms", paper.mean_ms),
            of: "the same in the paper, on other machines".into(),
        });
    }
    let best = cells.iter().max_by(|a, b| a.inputs_per_second.total_cmp(&b.inputs_per_second));
    if let Some(best) = best {
        headlines.push(Headline {
            value: format!("{} /s", figure(best.inputs_per_second)),
            of: format!("inputs at most: {}", report.naming.full(&best.key)),
        });
    }
    let agreement = cells.iter().filter_map(|cell| {
        let accuracy = cell.result.accuracy.as_ref()?;
        Some((accuracy.agreement?, accuracy.samples))
    });
    if let Some((worst, samples)) = agreement.min_by(|a, b| a.0.total_cmp(&b.0)) {
        let ends = wilson(worst, samples)
            .map_or(String::new(), |ends| format!(" ({} %, n = {samples})", percents(ends)));
        headlines.push(Headline {
            value: percent(worst),
            of: format!("of predictions at least are the plaintext network’s{ends}"),
        });
    }
    headlines
}
