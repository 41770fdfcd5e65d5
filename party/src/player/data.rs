//! The files of a player, read before it connects to anybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spdz::channel::Name;
use spdz::plan::Plan;
use zeroize::Zeroizing;

use crate::config::{Identity, PartyConfig, PlayerTask, Workload};
use crate::data::{self, DataError, check_place};
use crate::inspection::Inspector;
use crate::tensors::Inputs;
use crate::workload::{Expected, ImageSet};

/// The data of a player, besides its configuration.
pub(crate) enum PlayerData<'config> {
    /// Of the client of a network.
    Inference(&'config Workload, Box<InferenceData>),
    /// Of any other player.
    Graph(PlayerTask, Inputs),
}

/// What the client of a network infers, and what its outputs are scored against.
pub(crate) struct InferenceData {
    pub(super) images: ImageSet,
    pub(super) expected: Option<Expected>,
    pub(super) inspector: Option<Inspector>,
}

impl<'config> PlayerData<'config> {
    /// Reads the files of `player`, and makes sure that it can write where it has to.
    pub(crate) fn load(
        config: &'config PartyConfig,
        plan: &Arc<Plan>,
        player: Name,
    ) -> Result<Self, DataError> {
        // Whoever can write them can have this party be another, or none.
        let Identity { certificate, key, authority } = &config.identity;
        let identity = [certificate, key, authority].map(PathBuf::as_path);
        if let Some(workload) = &config.workload {
            let images = ImageSet::load(workload, plan)?;
            let accuracy = workload.accuracy.as_ref();
            let expected = accuracy.map(|a| Expected::load(a, &images, plan)).transpose()?;
            let inspect = workload.inspect.as_ref();
            let inspector = inspect.map(|settings| Inspector::load(settings, plan)).transpose()?;
            let result = workload.result.as_deref();
            result.map_or(Ok(()), |path| check_place(path, &identity))?;
            let data = InferenceData { images, expected, inspector };
            return Ok(Self::Inference(workload, Box::new(data)));
        }
        let task = config.player.clone().unwrap_or_default();
        let inputs = match &task.inputs {
            Some(path) => {
                let file = Zeroizing::new(data::read(path)?);
                let specs = plan.graph().inputs_of(player);
                // In any other graph the name means nothing.
                let variances = config.computation.network.is_some();
                let inputs = Inputs::read(&file, specs, variances)
                    .map_err(|source| DataError::Tensors { path: path.clone(), source })?;
                let evaluations = task.evaluations.map(|timed| timed + task.warmup.unwrap_or(0));
                inputs
                    .check(plan, player, evaluations)
                    .map_err(|source| DataError::Unshareable { path: path.clone(), source })?;
                inputs
            }
            None => Inputs::none(),
        };
        let read: Vec<&Path> = identity.into_iter().chain(task.inputs.as_deref()).collect();
        [&task.outputs, &task.result]
            .into_iter()
            .flatten()
            .try_for_each(|path| check_place(path, &read))?;
        Ok(Self::Graph(task, inputs))
    }
}
