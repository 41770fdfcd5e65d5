//! The result of a run, from what the coordinator and the servers measured.

use std::path::Path;

use spdz::channel::Channel;
use spdz::plan::Plan;
use spdz::role::report_tag;

use super::series::{Measured, Series};
use crate::config::{OfflineMode, PartyConfig};
use crate::error::{OutputError, RunError, at};
use crate::files;
use crate::net::{self, Link};
use crate::report::Report;
use crate::result::{Latency, LayerTime, RunResult};

/// What the two servers measured.
pub(super) fn reports(plan: &Plan, links: &mut [Link]) -> Result<[Report; 2], RunError> {
    let length = Report::bytes(plan);
    let [server0, server1] = net::servers(links).map(|server| {
        let bytes = server.recv(report_tag(), length).map_err(at("report of a server"))?;
        Ok::<_, RunError>(Report::from_bytes(&bytes))
    });
    Ok([server0?, server1?])
}

/// The result of a series, without an accuracy. `evaluations` are all of the session:
/// bytes and rounds are theirs.
pub(super) fn summarise(
    config: &PartyConfig,
    plan: &Plan,
    series: Series,
    measured: &Measured,
    reports: &[Report; 2],
    evaluations: u64,
) -> RunResult {
    let [report0, report1] = reports;
    let each = evaluations.max(1);
    let Measured { offline, online } = measured;
    let combined = match series.offline {
        OfflineMode::Inline => offline.iter().zip(online).map(|(x, y)| x + y).collect(),
        // The randomness is there already.
        OfflineMode::Ahead => online.clone(),
    };
    // To reveal the outputs of layers takes its time, and what is found there takes the room.
    let inspected = config.computation.inspect;
    let latency = if inspected { Latency::of } else { Latency::with_distribution };
    RunResult {
        network: plan.graph().name().into(),
        format: plan.format(),
        truncation: plan.truncation(),
        reveal: config.computation.reveal,
        batch_size: config.computation.batch(),
        repetitions: series.timed,
        offline_mode: series.offline,
        combined: latency(&combined),
        online: latency(online),
        offline: Latency::of(offline),
        online_bytes: report0.online_bytes.saturating_add(report1.online_bytes) / each,
        offline_bytes: report0.offline_bytes.saturating_add(report1.offline_bytes) / each,
        online_rounds: report0.online_rounds.max(report1.online_rounds) / each,
        layers: match inspected {
            true => Vec::new(),
            false => layer_times(plan, report0, each),
        },
        out_of_range: 0,
        accuracy: None,
        inspection: None,
    }
}

/// What a server needed for the layers, on average of so many evaluations.
fn layer_times(plan: &Plan, report: &Report, evaluations: u64) -> Vec<LayerTime> {
    let milliseconds = |sum: u64| sum as f64 / 1e6 / evaluations as f64;
    let layers = plan.evaluation_layers();
    let times = layers.iter().zip(&report.layers).enumerate().map(|(index, (layer, span))| {
        let (offline, online) = (milliseconds(span.offline), milliseconds(span.online));
        LayerTime::new(index, &layer.name, layer.kind, offline, online)
    });
    LayerTime::longest(times.collect())
}

/// Writes the result, if it has a place, so that a reader sees all of it or none.
pub(super) fn write_result(path: Option<&Path>, result: &RunResult) -> Result<(), RunError> {
    let Some(path) = path else { return Ok(()) };
    let refuse = |source: std::io::Error| OutputError::Write { path: path.into(), source };
    let json = serde_json::to_vec_pretty(result).map_err(|error| refuse(error.into()))?;
    Ok(files::write_whole(path, &json).map_err(refuse)?)
}
