//! The floor of each cell, measured before the first trial.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use party::config::OfflineMode;

use crate::cell::CellPlan;
use crate::environment::Environment;
use crate::floor::{Entry, Floors, Measurement, Report, Speeds};
use crate::progress::Reporter;
use crate::settings::Settings;

/// What the floors of cells come from, and they, milliseconds, in the order of the cells.
pub(super) struct Found {
    pub(super) environment: Environment,
    pub(super) speeds: Speeds,
    pub(super) floors_ms: Vec<Option<f64>>,
}

/// Measures the floors of networks with the program `bench`; a graph may have products that a floor does not know.
///
/// # Errors
/// As [`Measurement::run`].
pub(super) fn measure(
    settings: &Settings,
    bench: &Path,
    cells: &[CellPlan],
    environment: Environment,
    reporter: &mut Reporter,
    interrupted: &AtomicBool,
) -> anyhow::Result<Found> {
    let networks = cells.iter().filter(|cell| cell.graph.is_none());
    let measurement = Measurement {
        computations: networks.map(|cell| cell.computation.clone()).collect(),
        program: bench.into(),
        transport: settings.transport(),
    };
    let report = measurement.run(environment, reporter, interrupted)?;
    let mut entries = report.entries.iter();
    // In the order of the cells.
    let floor = |cell: &CellPlan| {
        let entry = if cell.graph.is_some() { None } else { entries.next() }?;
        Some(floor_ms(cell, entry, &report))
    };
    let floors_ms = cells.iter().map(floor).collect();
    Ok(Found { environment: report.environment, speeds: report.speeds, floors_ms })
}

/// The floor of a cell's runtime, milliseconds: under its network conditions, and online alone
/// where randomness is made ahead.
fn floor_ms(cell: &CellPlan, entry: &Entry, report: &Report) -> f64 {
    let floors = match cell.key.conditions {
        None => entry.floors,
        Some(conditions) => {
            let speeds = report.speeds.over(&conditions);
            Floors::of(&entry.work, &speeds, entry.products_ms, report.environment.cores)
        }
    };
    match cell.key.offline_mode {
        OfflineMode::Inline => floors.combined().total_ms(),
        OfflineMode::Ahead => floors.online.total_ms(),
    }
}
