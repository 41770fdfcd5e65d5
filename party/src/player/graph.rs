//! Any other player: a graph on tensors from a file.

use std::cell::RefCell;
use std::sync::Arc;

use spdz::channel::{Channel, Name};
use spdz::graph::Tensors;
use spdz::plan::Plan;
use spdz::ring::Ring;
use spdz::role::Player;

use super::series::{Measured, OutOfRangeOutputs, Series, measure};
use super::summary::{reports, summarise, write_result};
use crate::config::{PartyConfig, PlayerTask};
use crate::error::{OutputError, RunError};
use crate::net::{self, Link};
use crate::result::RunResult;
use crate::telemetry::{Clocked, Recorders, Telemetry};
use crate::tensors::{Inputs, Outputs};

/// What a player did.
#[derive(Default)]
pub(crate) struct Played {
    /// What the coordinator measured.
    pub(crate) result: Option<RunResult>,
    /// Set if some of the outputs that it keeps are out of range.
    pub(crate) out_of_range: Option<OutputError>,
}

/// Plays `name` to the end.
pub(crate) fn play<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    name: Name,
    task: &PlayerTask,
    inputs: &Inputs,
    telemetry: &Telemetry,
    links: &mut [Link],
) -> Result<Played, RunError> {
    let first = inputs.tensors(0);
    let player = Player::<R, _>::set_up(plan.clone(), name, &first, net::servers(links))?;
    drop(first);
    if !plan.takes_part(name) {
        telemetry.set_up();
        tracing::info!("handed over its inputs");
        return Ok(Played::default());
    }
    let mut out_of_range = OutOfRangeOutputs::default();
    let player = player.observed_by(telemetry.observer());
    let path = task.outputs.as_deref();
    let mut outputs = path.map(|path| Outputs::new(path, plan.graph(), name));
    let (result, evaluations) = if plan.coordinator() == name {
        let series = Series {
            warmup: task.warmup.unwrap_or(0),
            timed: task.evaluations.unwrap_or(1),
            offline: task.offline.unwrap_or_default(),
        };
        let (measured, evaluations) =
            coordinate(player, series, inputs, &mut outputs, &mut out_of_range)?;
        let reports = reports(plan, links)?;
        let result = RunResult {
            out_of_range: out_of_range.count(),
            ..summarise(config, plan, series, &measured, &reports, evaluations)
        };
        write_result(task.result.as_deref(), &result)?;
        (Some(result), evaluations)
    } else {
        let evaluations = follow(player, inputs, &mut outputs, &mut out_of_range)?;
        tracing::info!(evaluations, "took part in all evaluations");
        (None, evaluations)
    };
    if let Some(outputs) = outputs {
        let refuse = |source| OutputError::Write { path: outputs.path().into(), source };
        outputs.write().map_err(refuse)?;
    }
    Ok(Played { result, out_of_range: out_of_range.error(evaluations) })
}

/// Commands and measures a graph's evaluations.
fn coordinate<R: Ring, C: Channel>(
    mut player: Player<R, C, Clocked<Recorders>>,
    series: Series,
    inputs: &Inputs,
    outputs: &mut Option<Outputs>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<(Measured, u64), RunError> {
    let inputs = |number| inputs.tensors(number);
    let measured = measure(&mut player, series, &mut None, out_of_range, inputs, |tensors| {
        keep(outputs, tensors.as_ref())
    })?;
    Ok((measured, player.finish()?))
}

/// Takes part in evaluations that another player commands.
fn follow<R: Ring, C: Channel>(
    mut player: Player<R, C, Clocked<Recorders>>,
    inputs: &Inputs,
    outputs: &mut Option<Outputs>,
    out_of_range: &mut OutOfRangeOutputs,
) -> Result<u64, RunError> {
    // Made before they are asked for: everybody waits for them.
    let next = RefCell::new(inputs.tensors(0));
    player.follow(
        |_| Ok(next.take()),
        |number, found| {
            keep(outputs, out_of_range.admit(found)?.as_ref())?;
            next.replace(inputs.tensors(number + 1));
            Ok(())
        },
    )
}

fn keep(outputs: &mut Option<Outputs>, tensors: Option<&Tensors>) -> Result<(), RunError> {
    match outputs {
        Some(outputs) => Ok(outputs.keep(tensors).map_err(OutputError::from)?),
        None => Ok(()),
    }
}
