//! The floor of a cell, measured just before each of its trials: a machine that is slow for a
//! minute is slow to both.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use party::config::{OfflineMode, Transport};

use crate::cell::CellPlan;
use crate::environment::Environment;
use crate::floor::speeds::Beside;
use crate::floor::{Entry, Floors, Measurement, Report};

/// Measures the floor of a network's cell with the program `bench`; a graph may have products
/// that a floor does not know.
///
/// # Errors
/// As [`Measurement::run`].
pub(super) fn measure(
    cell: &CellPlan,
    bench: &Path,
    transport: Transport,
    interrupted: &AtomicBool,
) -> anyhow::Result<Option<Beside>> {
    if cell.graph.is_some() {
        return Ok(None);
    }
    let measurement = Measurement {
        computations: vec![cell.computation.clone()],
        program: bench.into(),
        transport,
    };
    let report = measurement.run(Environment::read(), &mut |_| {}, interrupted)?;
    let floor = report.entries.first().map(|entry| floor_ms(cell, entry, &report));
    Ok(floor.map(|floor_ms| Beside { floor_ms, speeds: report.speeds }))
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
