//! Whether values stay in range: in a benchmark, in which the weights are no secret, the client
//! learns the outputs of every layer and compares them with those of the plaintext computation.
//!
//! The outputs of layers reveal the weights, so a run that is inspected is not private.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use spdz::channel::Name;
use spdz::graph::Tensors;
use spdz::plan::Plan;
use zeroize::Zeroizing;

use crate::config::InspectWorkload;
use crate::data::{self, DataError};
use crate::error::RunError;
use crate::result::{Inspection, LayerRange};
use crate::tensors::Inputs;

/// The warning for everybody who looks at such a run.
pub const NOT_PRIVATE: &str =
    "NOT PRIVATE: the client learns the outputs of every layer, and so the weights; for benchmarks";

/// Compares the outputs of layers.
pub(crate) struct Inspector {
    plan: Arc<Plan>,
    weights: Inputs,
    samples: usize,
    /// Of what is revealed to the client, by its name.
    layers: BTreeMap<String, LayerRange>,
    inspected: usize,
    out_of_range: usize,
}

impl Inspector {
    /// Reads the weights.
    ///
    /// # Errors
    /// If they cannot be read or are not the network's.
    pub(crate) fn load(settings: &InspectWorkload, plan: &Arc<Plan>) -> Result<Self, DataError> {
        let path: &PathBuf = &settings.weights;
        let file = Zeroizing::new(data::read(path)?);
        let weights = Inputs::read(&file, plan.graph().inputs_of(Name::MODEL_OWNER), true)
            .map_err(|source| DataError::Tensors { path: path.clone(), source })?;
        let outputs = plan.graph().outputs_of(Name::CLIENT).into_iter();
        Ok(Self {
            plan: plan.clone(),
            weights,
            samples: settings.samples,
            layers: outputs.map(|(name, _)| (name.clone(), LayerRange::new(&name))).collect(),
            inspected: 0,
            out_of_range: 0,
        })
    }

    /// How many images to inspect.
    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Takes in what was revealed of an inference of `images` on a whole batch, of which the
    /// first `counted` images count; nothing was where a value was out of range.
    ///
    /// # Errors
    /// If the plaintext computation fails, which is a mistake of this library.
    pub(crate) fn compare(
        &mut self,
        images: Tensors,
        counted: usize,
        revealed: Option<&Tensors>,
    ) -> Result<(), RunError> {
        self.inspected += counted;
        let Some(revealed) = revealed else {
            self.out_of_range += counted;
            return Ok(());
        };
        let near = self.limit() / 2.0;
        let inputs = [(Name::CLIENT, images), (Name::MODEL_OWNER, self.weights.tensors(0))];
        let plaintext = self
            .plan
            .graph()
            .evaluate_plaintext(&inputs.into())
            .map_err(spdz::role::Error::from)?;
        let Some(plaintext) = plaintext.get(&Name::CLIENT) else { return Ok(()) };
        for (name, range) in &mut self.layers {
            let (Some(found), Some(expected)) = (revealed.get(name), plaintext.get(name)) else {
                continue;
            };
            let batch = found.shape().first().copied().unwrap_or(1).max(1);
            let values = found.as_slice().len() / batch * counted;
            let pairs = found.as_slice().iter().zip(expected.as_slice()).take(values);
            pairs.for_each(|(found, expected)| range.add(*found, *expected, near));
        }
        Ok(())
    }

    fn limit(&self) -> f64 {
        self.plan.precision().limit()
    }

    /// What was found so far, layers in the order of the computation.
    pub(crate) fn finish(&self) -> Inspection {
        let outputs = self.plan.graph().outputs_of(Name::CLIENT);
        let layers = outputs.iter().filter_map(|(name, _)| self.layers.get(name));
        Inspection {
            not_private: true,
            samples: self.inspected,
            out_of_range: self.out_of_range,
            limit: self.limit(),
            layers: layers.map(LayerRange::rounded).collect(),
        }
    }
}
