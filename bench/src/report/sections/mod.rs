//! What the report says, a file a section. Pure: from results to words and numbers.

use super::model::{MeasuredCell, Report};
use super::parts::Section;

mod batches;
mod comparison;
mod distributions;
mod environment;
mod formats;
pub(super) mod headlines;
mod layers;
mod phases;
mod problems;
mod table1;
mod traffic;

/// All sections, in their order.
pub(super) fn sections(report: &Report<'_>) -> Vec<Section> {
    let naming = &report.naming;
    let cells: Vec<&MeasuredCell> = report.subject().cells.iter().collect();
    let mut sections = vec![];
    sections.extend(problems::section(report));
    sections.extend([
        table1::section(report),
        batches::section(report),
        phases::section(&cells, naming),
        layers::section(&cells, naming),
        distributions::section(&cells, naming),
        formats::section(report),
        traffic::section(&cells, naming),
        comparison::section(report),
        environment::section(report),
    ]);
    sections
}
