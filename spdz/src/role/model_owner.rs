//! The model owner: masks the weights once, sends them to the servers, and is done.

use super::producer::ModelMasks;
use super::{Error, MODEL_SEED, at, parameter, recv_seed};
use crate::channel::Channel;
use crate::network::weights::Weights;
use crate::plan::Plan;
use crate::ring::Ring;
use crate::share::Share;

/// Folds batch normalisation into the weights, encodes them, and sends both
/// servers `W - B_0 - B_1`, the masks' shares expanded from the seeds that the
/// servers give.
///
/// # Errors
/// If a weight is outside the format's range (the error names the tensor), the
/// weights are of another network, or a server is gone or silent.
pub fn provide_model<R: Ring, C: Channel>(
    plan: &Plan,
    weights: &Weights,
    servers: &mut [C; 2],
) -> Result<(), Error> {
    // Encoded before anything is sent: a model that does not fit never leaves.
    let precision = plan.format().precision();
    let mut encoded: Vec<Share<R>> = Vec::with_capacity(plan.parameters().len());
    let folded = weights.fold(plan.network())?;
    let tensors = folded.iter().flat_map(|layer| [&layer.weight, &layer.bias]);
    for (tensor, spec) in tensors.zip(plan.parameters()) {
        let mut values = Share::zeros(spec.len);
        for (index, (value, element)) in tensor.iter().zip(&mut values.0).enumerate() {
            *element =
                precision.encode::<R>(*value, spec.fraction).map_err(|source| Error::Range {
                    tensor: format!("{} (batch norm folded in)", spec.name),
                    index,
                    source,
                })?;
        }
        encoded.push(values);
    }

    let mut masks = Vec::with_capacity(2);
    for server in servers.iter_mut() {
        let seed = recv_seed(server, MODEL_SEED).map_err(at(plan))?;
        masks.push(ModelMasks::from_seed(seed));
    }
    for (index, mut values) in encoded.into_iter().enumerate() {
        for masks in &mut masks {
            let mask = masks.next::<R>(values.len());
            values.sub_assign(&mask);
        }
        let message = R::to_bytes(&values.0);
        for server in servers.iter_mut() {
            server.send(parameter(index), message.clone()).map_err(at(plan))?;
        }
    }
    Ok(())
}
