//! What a player of a graph, or the model owner of a network, has to do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spdz::channel::{Name, Role};
use spdz::plan::Plan;

use super::error::ConfigError;
use super::limits;
use super::offline::OfflineMode;
use crate::tensors::{self, MAX_OUTPUT_BYTES};

/// The inputs of a player, and what it does with its outputs. What is there besides
/// `inputs` and `outputs` is for the coordinator ([`Plan::coordinator`]).
///
/// Evaluations are counted from 0, warm-up included, at all players alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlayerTask {
    /// A safetensors file with the graph's inputs of the player, by name: F32 or F64, in the
    /// graph's shape. An input of evaluations may have one more axis in front; evaluation k then takes row k, and the first again after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<PathBuf>,
    /// Where to write the outputs that the player learns, a safetensors file: by name, F64,
    /// one row an evaluation, NaN where a result was out of the format's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<PathBuf>,
    /// Evaluations before the timed ones; 0 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// Timed evaluations; 1 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u64>,
    /// When randomness is made; inline without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineMode>,
    /// Where to write what was measured, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<PathBuf>,
}

impl PlayerTask {
    /// Checks the section of `player`, who is not the client of a network; `None` if there is no
    /// section.
    pub(super) fn check(task: Option<&Self>, player: Name, plan: &Plan) -> Result<(), ConfigError> {
        let role = Role::Player(player);
        let refuse = |problem| Err(ConfigError::Section { role, problem });
        let specs = plan.graph().inputs_of(player);
        let inputs = task.is_some_and(|task| task.inputs.is_some());
        if !inputs && !specs.is_empty() {
            let specs = tensors::describe(&specs);
            return refuse(format!("needs `player.inputs`, a safetensors file with {specs}"));
        }
        let Some(task) = task else { return Ok(()) };
        if inputs && specs.is_empty() {
            return refuse("has `player.inputs`, but the graph has no input of it".into());
        }
        if task.outputs.is_some() && !plan.takes_part(player) {
            return refuse("has `player.outputs`, but the graph reveals nothing to it".into());
        }
        let coordinator = plan.coordinator();
        if let Some(setting) = task.of_coordinator().filter(|_| coordinator != player) {
            return refuse(format!(
                "has `player.{setting}`, which is for {coordinator}, the coordinator"
            ));
        }
        let (warmup, evaluations) = (task.warmup.unwrap_or(0), task.evaluations.unwrap_or(1));
        limits::EVALUATIONS.check("player.warmup", warmup)?;
        limits::EVALUATIONS.check("player.evaluations", evaluations)?;
        let outputs = plan.graph().outputs_of(player);
        let each: usize =
            outputs.iter().map(|(_, shape)| 8 * shape.iter().product::<usize>()).sum();
        let all = (warmup + evaluations).saturating_mul(each as u64);
        if task.outputs.is_some() && coordinator == player && all > MAX_OUTPUT_BYTES as u64 {
            return refuse(format!(
                "would write {all} bytes into `player.outputs`, at most {MAX_OUTPUT_BYTES} are; \
                 have fewer evaluations"
            ));
        }
        Ok(())
    }

    /// The first setting, if there is one, that only the coordinator may have.
    fn of_coordinator(&self) -> Option<&'static str> {
        let settings = [
            (self.warmup.is_some(), "warmup"),
            (self.evaluations.is_some(), "evaluations"),
            (self.offline.is_some(), "offline"),
            (self.result.is_some(), "result"),
        ];
        settings.into_iter().find(|(there, _)| *there).map(|(_, setting)| setting)
    }
}
