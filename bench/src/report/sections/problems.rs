//! What a reader has to know first.

use crate::load::Load;
use crate::report::figures::figure;
use crate::report::model::Report;
use crate::report::parts::{self, Section, Table};

pub(super) fn section(report: &Report<'_>) -> Option<Section> {
    let mut rows = vec![];
    for run in report.runs {
        for failure in &run.failures {
            rows.push(vec![
                run.name.clone(),
                failure.key.to_string(),
                if failure.measured { "a trial failed" } else { "failed" }.into(),
                failure.why.clone(),
            ]);
        }
        for cell in &run.cells {
            let Some(load) = cell.load.filter(Load::is_busy) else { continue };
            rows.push(vec![
                run.name.clone(),
                cell.key.to_string(),
                "busy".into(),
                load.to_string(),
            ]);
        }
        for cell in run.cells.iter().filter(|cell| cell.suspicious) {
            let trials: Vec<_> = cell.trial_means_ms.iter().map(|x| figure(*x)).collect();
            rows.push(vec![
                run.name.clone(),
                cell.key.to_string(),
                "suspicious".into(),
                format!("its trials differ more than they should: {} ms", trials.join(", ")),
            ]);
        }
    }
    if rows.is_empty() {
        return None;
    }
    let mut section = parts::section("problems", "Read this first");
    section.warning = true;
    section.prose.push(
        "Not every cell of the sweep is as it should be. Failed cells are missing below; \
         suspicious and busy ones are there, but something else ran on the machine while they did. \
         Measure them again before you quote them."
            .into(),
    );
    let head = parts::head(&["Run", "Cell", "What", "Why"]);
    section.tables.push(Table {
        caption: "Failures, and suspicious and busy cells".into(),
        head,
        rows,
    });
    Some(section)
}
