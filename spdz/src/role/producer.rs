//! The producer: makes correlated randomness from seeds and shapes, and sees nothing else.

use std::sync::Arc;

use super::{Command, Error, PRODUCER_KEY, at, send_seed};
use crate::channel::{Channel, Role};
use crate::correlated;
use crate::geometry::MatMul;
use crate::plan::{Operation, Plan};
use crate::prg::{KeyStream, Purpose, Seed, SessionId};
use crate::ring::Ring;
use crate::share::Share;

/// The producer's side of a session.
pub struct Producer<R: Ring, C> {
    plan: Arc<Plan>,
    servers: [C; 2],
    keys: [Seed; 2],
    /// `B` of each linear layer, packed.
    weight_masks: Vec<R::Packed>,
}

impl<R: Ring, C: Channel> Producer<R, C> {
    /// Agrees on a key with each server. `root` must be fresh from the operating
    /// system; everything that the producer sends follows from it and the plan.
    ///
    /// # Errors
    /// If a server is gone.
    pub fn set_up(
        plan: Arc<Plan>,
        session: SessionId,
        root: &Seed,
        mut servers: [C; 2],
    ) -> Result<Self, Error> {
        let purposes = [Purpose::ProducerServer0, Purpose::ProducerServer1];
        let mut keys = purposes.map(|purpose| root.derive(purpose, 0, 0));
        for (key, server) in keys.iter_mut().zip(&mut servers) {
            send_seed(server, PRODUCER_KEY, key).map_err(at(&plan))?;
            *key = key.bind(session, &plan.digest().0);
        }
        let mut streams = [&keys[0], &keys[1]].map(ModelMasks::new);
        let mut weight_masks = Vec::new();
        for step in plan.steps() {
            if let Operation::Linear { linear, .. } = &step.operation {
                let MatMul { k, n, .. } = linear.as_matmul();
                let [mut weight, other] = streams.each_mut().map(|masks| masks.next::<R>(k * n));
                weight.add_assign(&other);
                weight_masks.push(R::pack(&weight.0, k, n));
                // The bias takes part in no product, but has its place in the streams.
                let _ = streams.each_mut().map(|masks| masks.next::<R>(n));
            }
        }
        Ok(Self { plan, servers, keys, weight_masks })
    }

    /// Makes randomness at server 0's command until the client has finished.
    /// Returns the number of inferences.
    ///
    /// # Errors
    /// If a server is gone, silent or sends something else.
    pub fn serve(&mut self) -> Result<u64, Error> {
        for inference in 0.. {
            let plan = &self.plan;
            match Command::recv(Role::Server0, inference, &mut self.servers[0], plan)? {
                Command::Finish => return Ok(inference),
                Command::Prepare => correlated::produce::<R, C>(
                    plan,
                    inference,
                    &self.keys,
                    &self.weight_masks,
                    &mut self.servers,
                )
                .map_err(at(plan))?,
            }
        }
        Ok(u64::MAX)
    }
}

/// A server's shares of the masks of a model's parameters, in the order of the plan.
pub(super) struct ModelMasks(KeyStream);

impl ModelMasks {
    /// From the key that the server has in common with the producer.
    pub(super) fn new(key: &Seed) -> Self {
        Self::from_seed(Self::seed(key))
    }

    /// What the server hands to the model owner, and expands itself.
    pub(super) fn seed(key: &Seed) -> Seed {
        key.derive(Purpose::ModelMask, 0, 0)
    }

    pub(super) fn from_seed(seed: Seed) -> Self {
        Self(seed.into_stream())
    }

    /// The share of the next parameter's mask.
    pub(super) fn next<R: Ring>(&mut self, len: usize) -> Share<R> {
        Share::sample(&mut self.0, len)
    }
}
