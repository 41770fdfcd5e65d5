//! The servers: compute on shares, and see masked values only.

use std::sync::Arc;

use super::producer::ModelMasks;
use super::{
    Command, Error, MODEL_SEED, PRODUCER_KEY, SERVER_KEY, at, parameter, recv_seed, send_seed,
};
use crate::channel::{Channel, ChannelError, Phase, Role, Tag};
use crate::correlated::{self, Bundle, StepRandomness};
use crate::masked::{Mask, Masked};
use crate::ops::{self, LinearLayer};
use crate::plan::{MaskedId, Operation, Plan, PrivateId};
use crate::prg::{Purpose, Seed, SessionId};
use crate::ring::{Ring, Side};
use crate::share::Share;

/// A server's connections that last for the whole session.
#[derive(Debug)]
pub struct ServerLinks<C> {
    /// To the other server.
    pub other: C,
    /// To the producer.
    pub producer: C,
    /// To the client.
    pub client: C,
}

/// A server's side of a session.
pub struct Server<R: Ring, C> {
    plan: Arc<Plan>,
    side: Side,
    links: ServerLinks<C>,
    producer_key: Seed,
    server_key: Seed,
    layers: Vec<LinearLayer<R>>,
}

impl<R: Ring, C: Channel> Server<R, C> {
    /// Agrees on keys and receives the masked model, after which the model owner
    /// has nothing more to do. `fresh` must be fresh from the operating system;
    /// server 0 makes it the key shared with server 1.
    ///
    /// # Errors
    /// If a peer is gone, silent or sends something else.
    pub fn set_up<O: Channel>(
        plan: Arc<Plan>,
        session: SessionId,
        side: Side,
        fresh: Seed,
        mut links: ServerLinks<C>,
        mut model_owner: O,
    ) -> Result<Self, Error> {
        let context = plan.digest().0;
        let server_key = match side {
            Side::Zero => {
                send_seed(&mut links.other, SERVER_KEY, &fresh).map_err(at(&plan))?;
                fresh
            }
            Side::One => recv_seed(&mut links.other, SERVER_KEY).map_err(at(&plan))?,
        };
        let producer_key = recv_seed(&mut links.producer, PRODUCER_KEY).map_err(at(&plan))?;
        let server_key = server_key.bind(session, &context);
        let producer_key = producer_key.bind(session, &context);

        let seed = ModelMasks::seed(&producer_key);
        send_seed(&mut model_owner, MODEL_SEED, &seed).map_err(at(&plan))?;
        let mut masks = ModelMasks::from_seed(seed);
        let mut masked = |index: usize| -> Result<Masked<R>, ChannelError> {
            let len = plan.parameters()[index].len;
            let alpha = model_owner.recv(parameter(index), len * R::WIRE_BYTES)?;
            Ok(Mask::from_share(masks.next(len)).received(&alpha))
        };
        let mut layers = Vec::new();
        for step in plan.steps() {
            if let Operation::Linear { linear, layer, .. } = &step.operation {
                let weight = masked(2 * layer).map_err(at(&plan))?;
                let bias = masked(2 * layer + 1).map_err(at(&plan))?;
                layers.push(LinearLayer::new(*linear, &weight, &bias, side));
            }
        }
        Ok(Self { plan, side, links, producer_key, server_key, layers })
    }

    /// Prepares and evaluates inferences at the client's command until it has
    /// finished. Returns their number.
    ///
    /// # Errors
    /// If a peer is gone, silent or sends something else.
    pub fn serve(&mut self) -> Result<u64, Error> {
        for inference in 0.. {
            let command =
                Command::recv(Role::Client, inference, &mut self.links.client, &self.plan)?;
            if self.side == Side::Zero {
                command.send(inference, &mut self.links.producer).map_err(at(&self.plan))?;
            }
            match command {
                Command::Finish => return Ok(inference),
                Command::Prepare => {
                    let bundle = self.prepare(inference)?;
                    self.evaluate(bundle)?;
                }
            }
        }
        Ok(u64::MAX)
    }

    /// The offline phase: makes the bundle, then tells the client by handing it
    /// the seed of this server's share of the input's mask.
    fn prepare(&mut self, inference: u64) -> Result<Bundle<R>, Error> {
        let plan = &self.plan;
        let key = &self.producer_key;
        let bundle = correlated::prepare(
            plan,
            self.side,
            inference,
            key,
            &self.layers,
            &mut self.links.producer,
        )
        .map_err(at(plan))?;
        let seed = correlated::mask_seed(key, plan, inference, 0);
        let tag = Tag::new(Phase::Offline, inference, 0);
        send_seed(&mut self.links.client, tag, &seed).map_err(at(plan))?;
        Ok(bundle)
    }

    /// The online phase, from the client's masked input to the shares of the output.
    fn evaluate(&mut self, bundle: Bundle<R>) -> Result<(), Error> {
        let plan = &*self.plan;
        let inference = bundle.inference;
        let mut values = Values::<R>::new(plan);
        for (index, (step, randomness)) in plan.steps().iter().zip(bundle.steps).enumerate() {
            let tag = Tag::new(Phase::Online, inference, index as u32);
            values.step = index;
            match (&step.operation, randomness) {
                (Operation::Input { output }, StepRandomness::Mask(mask)) => {
                    let length = plan.masked_len(*output) * R::WIRE_BYTES;
                    let alpha = self.links.client.recv(tag, length).map_err(at(plan))?;
                    values.put_masked(*output, mask.received(&alpha));
                }
                (Operation::Open { input, output }, StepRandomness::Mask(mask)) => {
                    let opened = mask.open(values.get(*input), &mut self.links.other, tag);
                    values.put_masked(*output, opened.map_err(at(plan))?);
                }
                (
                    Operation::Linear { input, layer, output, .. },
                    StepRandomness::Linear(triple),
                ) => {
                    let product = self.layers[*layer].apply(values.masked(*input), triple);
                    values.put(*output, product);
                }
                (Operation::Square { input, output }, StepRandomness::Square(triple)) => {
                    let product = triple.square(values.masked(*input), self.side);
                    values.put(*output, product);
                }
                (Operation::Mul { left, right, output }, StepRandomness::Mul(triple)) => {
                    let product =
                        triple.multiply(values.masked(*left), values.masked(*right), self.side);
                    values.put(*output, product);
                }
                (Operation::Unmask { input, output }, StepRandomness::Nothing) => {
                    let share = ops::unmask(values.masked(*input), self.side);
                    values.put(*output, share);
                }
                (Operation::Truncate { input, bits, output }, StepRandomness::Nothing) => {
                    let mut share = values.take(*input);
                    ops::truncate(&mut share, *bits, self.side);
                    values.put(*output, share);
                }
                (Operation::Combine { terms, constant, output }, StepRandomness::Nothing) => {
                    let len = plan.private_len(*output);
                    let terms: Vec<_> =
                        terms.iter().map(|(id, factor)| (values.get(*id), *factor)).collect();
                    let sum = ops::combine(&terms, *constant, len, self.side);
                    values.put(*output, sum);
                }
                (Operation::SumPool { input, pooling, output }, StepRandomness::Nothing) => {
                    let sums = ops::sum_pool(values.get(*input), *pooling);
                    values.put(*output, sums);
                }
                (Operation::Output { input }, StepRandomness::Nothing) => {
                    let share = self.rerandomised(values.take(*input), inference);
                    self.links.client.send(tag, R::to_bytes(&share.0)).map_err(at(plan))?;
                }
                _ => unreachable!("a bundle is made step by step from the same plan"),
            }
            values.drop_unneeded();
        }
        Ok(())
    }

    /// The share plus this server's part of a fresh sharing of zero, so that the
    /// client learns the output and nothing of the shares it came from.
    fn rerandomised(&self, mut share: Share<R>, inference: u64) -> Share<R> {
        let seed = self.server_key.derive(Purpose::OutputZero, inference, 0);
        let zero = Share::sample(&mut seed.into_stream(), share.len());
        match self.side {
            Side::Zero => share.add_assign(&zero),
            Side::One => share.sub_assign(&zero),
        }
        share
    }
}

/// The tensors of one inference, each kept until the last step that reads it.
struct Values<'plan, R: Ring> {
    plan: &'plan Plan,
    step: usize,
    private: Vec<Option<Share<R>>>,
    masked: Vec<Option<Masked<R>>>,
}

impl<'plan, R: Ring> Values<'plan, R> {
    fn new(plan: &'plan Plan) -> Self {
        let mut values = Self { plan, step: 0, private: Vec::new(), masked: Vec::new() };
        values.private.resize_with(plan.private_count(), || None);
        values.masked.resize_with(plan.masked_count(), || None);
        values
    }

    fn put(&mut self, id: PrivateId, share: Share<R>) {
        self.private[id.0] = Some(share);
    }

    fn put_masked(&mut self, id: MaskedId, masked: Masked<R>) {
        self.masked[id.0] = Some(masked);
    }

    fn get(&self, id: PrivateId) -> &Share<R> {
        let Some(share) = &self.private[id.0] else {
            unreachable!("a plan makes each tensor before it reads it");
        };
        share
    }

    fn masked(&self, id: MaskedId) -> &Masked<R> {
        let Some(masked) = &self.masked[id.0] else {
            unreachable!("a plan makes each masked tensor before it reads it");
        };
        masked
    }

    /// The tensor itself if this step is the last to read it, else a copy.
    fn take(&mut self, id: PrivateId) -> Share<R> {
        if self.plan.last_read(id) == self.step
            && let Some(share) = self.private[id.0].take()
        {
            return share;
        }
        self.get(id).duplicate()
    }

    /// Frees what the current step was the last to read.
    fn drop_unneeded(&mut self) {
        let operation = &self.plan.steps()[self.step].operation;
        for id in operation.reads() {
            if self.plan.last_read(id) == self.step {
                self.private[id.0] = None;
            }
        }
        for id in operation.reads_masked() {
            if self.plan.last_masked_read(id) == self.step {
                self.masked[id.0] = None;
            }
        }
    }
}
