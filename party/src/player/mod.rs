//! The players' sides of a run: the inputs of each, and what it does with its outputs.
//!
//! One player, the coordinator, commands and measures; for the client of a network that is an
//! inference of images and a score, for any other a graph on tensors from a file.

mod data;
mod graph;
mod inference;
mod series;
mod summary;

use std::sync::Arc;

use spdz::channel::Name;
use spdz::plan::Plan;
use spdz::ring::Ring;

use crate::config::PartyConfig;
use crate::error::RunError;
use crate::net::Link;
use crate::telemetry::Telemetry;

pub(crate) use data::PlayerData;
pub(crate) use graph::Played;
use inference::infer;

/// Plays `name` to the end.
pub(crate) fn play<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    name: Name,
    data: PlayerData<'_>,
    telemetry: &Telemetry,
    links: &mut [Link],
) -> Result<Played, RunError> {
    match data {
        PlayerData::Inference(workload, data) => {
            infer::<R>(config, plan, workload, *data, telemetry, links)
        }
        PlayerData::Graph(task, inputs) => {
            graph::play::<R>(config, plan, name, &task, &inputs, telemetry, links)
        }
    }
}
