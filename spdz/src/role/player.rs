//! The players: mask their inputs, learn their outputs, and compute on both alone.

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::commands::{Command, Commands, unprepared};
use super::error::{Error, at};
use super::messages::{SESSION_SEEDS, recv_seeds, seeds_tag, session_input};
use crate::channel::{Channel, Name, Phase, Role, Tag};
use crate::fixed::{Precision, RangeError};
use crate::graph::{Lifetime, Plaintext, Tensors};
use crate::low;
use crate::masked;
use crate::observer::{Observer, Outcome};
use crate::plan::{InputSpec, OutputSpec, Plan};
use crate::prg::Seed;
use crate::ring::{Plane, Ring};
use crate::share::Share;

/// A player's side of a session, reported to an [`Observer`].
#[derive(Debug)]
pub struct Player<R, C, O = ()> {
    plan: Arc<Plan>,
    name: Name,
    servers: [C; 2],
    commands: Commands,
    prepared: u64,
    ring: PhantomData<R>,
    observer: O,
}

/// Both servers are ready for one evaluation. Consumed by it, so that no mask
/// hides two inputs.
#[derive(Debug)]
pub struct Ready {
    inference: u64,
    seeds: [Vec<Seed>; 2],
}

impl<R: Ring, C: Channel> Player<R, C> {
    /// Shares the player's inputs that last for the session, taken from `inputs` by
    /// name. A player that has no part in evaluations is done then.
    ///
    /// # Errors
    /// If an input is missing or has another shape, a number is outside the format's
    /// range, or a server is gone or silent. Nothing is sent unless all inputs are in
    /// order.
    pub fn set_up(
        plan: Arc<Plan>,
        name: Name,
        inputs: &Tensors,
        mut servers: [C; 2],
    ) -> Result<Self, Error> {
        let encoded = encode::<R>(&plan, name, Lifetime::Session, inputs)?;
        if !encoded.is_empty() {
            let mut seeds = Vec::with_capacity(2);
            for server in &mut servers {
                let received = recv_seeds(server, SESSION_SEEDS, encoded.len());
                seeds.push(received.map_err(at(&plan))?.into_iter());
            }
            let [seeds0, seeds1] = &mut seeds[..] else {
                unreachable!("one list for each server");
            };
            for ((spec, values), seeds) in encoded.into_iter().zip(seeds0.zip(seeds1)) {
                let message = masked::mask_input(values, seeds.into());
                let tag = session_input(spec.step);
                for server in &mut servers {
                    server.send(tag, message.clone()).map_err(at(&plan))?;
                }
            }
        }
        Ok(Self {
            plan,
            name,
            servers,
            commands: Commands::default(),
            prepared: 0,
            ring: PhantomData,
            observer: (),
        })
    }

    /// The same, with an observer of the steps in which the player has inputs or outputs.
    #[must_use]
    pub fn observed_by<O: Observer>(self, observer: O) -> Player<R, C, O> {
        let Self { plan, name, servers, commands, prepared, ring, observer: () } = self;
        Player { plan, name, servers, commands, prepared, ring, observer }
    }
}

impl<R: Ring, C: Channel, O: Observer> Player<R, C, O> {
    /// Has the randomness of one more evaluation made, and waits until both servers
    /// hold it: the offline phase. The coordinator's privilege; what is prepared first is
    /// evaluated first.
    ///
    /// # Errors
    /// If a server is gone, silent or sends something else.
    pub fn prepare(&mut self) -> Result<Ready, Error> {
        self.observer.begin(Phase::Offline, self.prepared);
        self.command(Command::Prepare)?;
        self.receive_seeds()
    }

    fn receive_seeds(&mut self) -> Result<Ready, Error> {
        let plan = &self.plan;
        let inference = self.prepared;
        self.prepared += 1;
        let count = plan.inputs_of(self.name, Lifetime::Evaluation).count();
        let tag = seeds_tag(inference);
        let [server0, server1] = &mut self.servers;
        let seeds = [
            recv_seeds(server0, tag, count).map_err(at(plan))?,
            recv_seeds(server1, tag, count).map_err(at(plan))?,
        ];
        self.observer.end(Outcome::Done);
        Ok(Ready { inference, seeds })
    }

    /// Runs one evaluation on the player's `inputs`, those that last for the session
    /// included where the player computes on them: the online phase. The coordinator's
    /// privilege. Returns the player's outputs.
    ///
    /// # Errors
    /// If an input is missing or has another shape, an input or an output is outside the
    /// format's range, or a server is gone, silent or sends something else. After
    /// [`Error::OutputRange`] the session is in order and may go on.
    pub fn evaluate(&mut self, ready: Ready, inputs: &Tensors) -> Result<Tensors, Error> {
        let plan = self.plan.clone();
        self.observer.begin(Phase::Online, ready.inference);
        let encoded = encode::<R>(&plan, self.name, Lifetime::Evaluation, inputs)?;
        self.command(Command::Evaluate)?;
        self.exchange(&plan, ready, encoded, inputs)
    }

    fn command(&mut self, command: Command) -> Result<(), Error> {
        let tag = self.commands.next();
        for server in &mut self.servers {
            let message = bytes::Bytes::copy_from_slice(&[command as u8]);
            server.send(tag, message).map_err(at(&self.plan))?;
        }
        Ok(())
    }

    /// The player's messages of one evaluation, and what it computes from what it learns.
    fn exchange(
        &mut self,
        plan: &Plan,
        ready: Ready,
        encoded: Vec<(&InputSpec, Share<R>)>,
        inputs: &Tensors,
    ) -> Result<Tensors, Error> {
        let tag = |step: usize| Tag::new(Phase::Online, ready.inference, step as u32);
        let [seeds0, seeds1] = ready.seeds;
        for ((spec, values), seeds) in encoded.into_iter().zip(seeds0.into_iter().zip(seeds1)) {
            let message = masked::mask_input(values, seeds.into());
            for server in &mut self.servers {
                server.send(tag(spec.step), message.clone()).map_err(at(plan))?;
            }
            self.observer.step(spec.step);
        }
        // All of them arrive, whatever is wrong with one: the session may go on.
        let mut received = Vec::new();
        for spec in plan.outputs().iter().filter(|spec| spec.player == self.name) {
            let mut sum = Share::<R>::zeros(spec.len);
            for server in &mut self.servers {
                sum.receive(server, tag(spec.step), R::Plane::add).map_err(at(plan))?;
            }
            received.push((spec, sum));
            self.observer.step(spec.step);
        }
        let outputs = self.learn(plan, received, inputs);
        self.observer.end(match &outputs {
            Err(Error::OutputRange { .. }) => Outcome::OutOfRange,
            _ => Outcome::Done,
        });
        outputs
    }

    /// What the player computes from its revealed tensors.
    fn learn(
        &self,
        plan: &Plan,
        received: Vec<(&OutputSpec, Share<R>)>,
        inputs: &Tensors,
    ) -> Result<Tensors, Error> {
        let mut revealed = BTreeMap::new();
        for (spec, sum) in received {
            revealed.insert(spec.node, decode::<R>(plan, spec, &sum)?);
        }
        Ok(plan.graph().after_receiving(self.name, inputs, revealed)?)
    }

    /// Brings `inputs(k)` to evaluation `k` and hands its outputs to `outputs(k, ..)`, at
    /// the coordinator's command, until the session is over. Returns the number of
    /// evaluations.
    ///
    /// # Errors
    /// As [`Player::evaluate`]; whatever `inputs` and `outputs` refuse.
    pub fn follow<E: From<Error>>(
        &mut self,
        mut inputs: impl FnMut(u64) -> Result<Tensors, E>,
        mut outputs: impl FnMut(u64, Result<Tensors, Error>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut ready = VecDeque::new();
        let mut done = 0;
        loop {
            let [server0, _] = &mut self.servers;
            match self.commands.recv(Role::Server0, server0, &self.plan)? {
                Command::Finish => return Ok(done),
                Command::Prepare => {
                    self.observer.begin(Phase::Offline, self.prepared);
                    ready.push_back(self.receive_seeds()?);
                }
                Command::Evaluate => {
                    let Some(ready) = ready.pop_front() else {
                        return Err(unprepared(Role::Server0).into());
                    };
                    self.observer.begin(Phase::Online, ready.inference);
                    let own = inputs(done)?;
                    let plan = self.plan.clone();
                    let encoded = encode::<R>(&plan, self.name, Lifetime::Evaluation, &own)?;
                    outputs(done, self.exchange(&plan, ready, encoded, &own))?;
                    done += 1;
                }
            }
        }
    }

    /// Ends the session for all parties. The coordinator's privilege. Returns the number of
    /// evaluations that were prepared.
    ///
    /// # Errors
    /// If a server is gone.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.command(Command::Finish)?;
        Ok(self.prepared)
    }
}

/// A player's inputs of a lifetime as elements: computed, and encoded with the
/// fractional bits that the plan gives them.
fn encode<'plan, R: Ring>(
    plan: &'plan Plan,
    player: Name,
    lifetime: Lifetime,
    inputs: &Tensors,
) -> Result<Vec<(&'plan InputSpec, Share<R>)>, Error> {
    let encode = |(spec, integers): Encoded<'plan>| {
        let mut values = Share::<R>::zeros(spec.len);
        R::from_integers(&integers, &mut values.0);
        (spec, values)
    };
    Ok(integers(plan, player, lifetime, inputs)?.into_iter().map(encode).collect())
}

/// An input, and the integers that it is encoded as.
type Encoded<'plan> = (&'plan InputSpec, Zeroizing<Vec<i128>>);

/// A player's inputs of a lifetime, encoded.
fn integers<'plan>(
    plan: &'plan Plan,
    player: Name,
    lifetime: Lifetime,
    inputs: &Tensors,
) -> Result<Vec<Encoded<'plan>>, Error> {
    let precision = plan.precision();
    let shared = plan.graph().before_sharing(player, lifetime, inputs)?;
    let mut encoded = Vec::with_capacity(shared.len());
    for (_, spec) in plan.inputs_of(player, lifetime) {
        let Some(tensor) = shared.get(&spec.node) else {
            unreachable!("a plan's inputs are its graph's");
        };
        let integers = precision.encode_all(tensor.as_slice(), spec.fraction).map_err(
            |(index, RangeError { limit, .. })| {
                let tensor = spec.name.clone();
                Error::Range { tensor, index, limit }
            },
        )?;
        encoded.push((spec, integers));
    }
    Ok(encoded)
}

/// Makes sure, before a session begins, that a player's inputs of a lifetime can be shared.
///
/// # Errors
/// [`Error::Range`] if the number format cannot hold one of them, or what the player computes of
/// them before sharing; [`Error::Local`] if they do not fit the graph.
pub fn check_inputs(
    plan: &Plan,
    player: Name,
    lifetime: Lifetime,
    inputs: &Tensors,
) -> Result<(), Error> {
    integers(plan, player, lifetime, inputs).map(drop)
}

/// The numbers that a revealed tensor stands for.
fn decode<R: Ring>(plan: &Plan, spec: &OutputSpec, sum: &Share<R>) -> Result<Plaintext, Error> {
    let precision = Precision { integral: spec.integral, ..plan.precision() };
    let mut integers = R::to_integers(&sum.0);
    if let Some(bits) = plan.table().low_bits() {
        integers.iter_mut().for_each(|integer| *integer = low::signed(*integer, bits));
    }
    let numbers = integers
        .iter()
        .enumerate()
        .map(|(index, integer)| {
            precision.decode(*integer, spec.fraction).map_err(|RangeError { limit, .. }| {
                let layer = spec.layer.clone();
                Error::OutputRange { layer, index, limit }
            })
        })
        .collect::<Result<Vec<f64>, Error>>();
    integers.zeroize();
    let shape = plan.graph().facts(spec.node).shape.clone();
    let Ok(plaintext) = Plaintext::new(shape, numbers?) else {
        unreachable!("a plan's outputs have their nodes' shapes");
    };
    Ok(plaintext)
}
