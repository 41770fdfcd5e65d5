//! The servers: compute on shares, and see masked values only.

use std::sync::Arc;

use super::commands::{Command, Commands, unprepared};
use super::error::{Error, at};
use super::messages::{
    PRODUCER_KEY, SERVER_KEY, SESSION_SEEDS, recv_seed, seeds_tag, send_seed, send_seeds,
    session_input,
};
use super::round::Round;
use super::store::{Store, StoreError};
use crate::buffer;
use crate::channel::{Channel, ChannelError, ChannelFault, Name, Phase, Role, Tag};
use crate::correlated::{self, Bundle};
use crate::graph::Lifetime;
use crate::low;
use crate::masked::{Made, Mask, Masked, Padding};
use crate::observer::{Observer, Outcome};
use crate::ops::{Correlation, Kept, ProtocolRing, Session, Tensors, Values};
use crate::plan::{Plan, Step};
use crate::prg::{Purpose, Seed, SessionId};
use crate::ratchet::Ratchet;
use crate::ring::{Ring, Side};
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, PublicId, PublicTensor, Route, TensorId, TensorSpec};

/// A server's connections that last for the whole session.
#[derive(Debug)]
pub struct ServerLinks<C> {
    /// To the other server.
    pub other: C,
    /// To the producer.
    pub producer: C,
    /// To the players that take part in evaluations ([`Plan::takes_part`]).
    pub players: Vec<(Name, C)>,
}

/// A server's side of a session, reported to an [`Observer`].
pub struct Server<R: Ring, C, O = ()> {
    plan: Arc<Plan>,
    side: Side,
    links: ServerLinks<C>,
    /// What it has in common with the producer, for the evaluations that are not prepared yet.
    producer_keys: Ratchet,
    /// What it has in common with the other server, for the evaluations that are not run yet.
    server_keys: Ratchet,
    /// The plan's public tensors as elements of the ring.
    publics: Vec<Vec<R::Word>>,
    session: Tensors<R>,
    /// What operations kept in the set-up, by step.
    kept: Vec<Option<Kept>>,
    observer: O,
}

impl<R: ProtocolRing, C: Channel> Server<R, C> {
    /// Agrees on keys and receives the inputs that last for the session, after which
    /// the `departing` players have nothing more to do. `fresh` must be fresh from the
    /// operating system; server 0 makes it the key shared with server 1.
    ///
    /// # Errors
    /// If a peer is gone, silent or sends something else.
    pub fn set_up<O: Channel>(
        plan: Arc<Plan>,
        session: SessionId,
        side: Side,
        fresh: Seed,
        mut links: ServerLinks<C>,
        departing: &mut [(Name, O)],
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
        let server_keys = Ratchet::new(&server_key.bind(session, &context));
        drop(server_key);
        let (producer_key, producer_keys) = Ratchet::split(producer_key.bind(session, &context));

        // Seeds first: the players can then work at the same time.
        for name in plan.graph().players() {
            let inputs = plan.inputs_of(*name, Lifetime::Session);
            let steps: Vec<usize> = inputs.map(|(_, spec)| spec.step).collect();
            if steps.is_empty() {
                continue;
            }
            let seeds =
                steps.iter().map(|step| correlated::mask_seed(&producer_key, &plan, 0, *step));
            let sent = match find(&mut links.players, *name) {
                Some(link) => send_seeds(link, SESSION_SEEDS, seeds),
                None => match find(departing, *name) {
                    Some(link) => send_seeds(link, SESSION_SEEDS, seeds),
                    None => unreachable!("there is a connection to every player with a part"),
                },
            };
            sent.map_err(at(&plan))?;
        }
        let publics: Vec<_> = plan.publics().iter().map(encoded::<R>).collect();
        let mut kept = Vec::new();
        kept.resize_with(plan.steps().len(), || None);
        let mut values = Values::<R>::new(plan.table(), side, &publics, &kept, None);
        for (index, step) in plan.steps()[..plan.setup_steps()].iter().enumerate() {
            values.at(index);
            let parts = R::parts(&*step.operation);
            let Some(message) = step.operation.message(plan.table()) else {
                parts.compute(&mut values, Correlation::none());
                continue;
            };
            let (Route::Input(input), Some(TensorId::Masked(output))) =
                (message.route, step.operation.writes())
            else {
                unreachable!("nothing but inputs is sent in the set-up");
            };
            let spec = &plan.inputs()[input];
            let seed = correlated::mask_seed(&producer_key, &plan, 0, index);
            let mask = Mask::expand(seed, spec.len);
            let tag = session_input(index);
            let masked = match find(&mut links.players, spec.player) {
                Some(link) => mask.receive(link, tag),
                None => match find(departing, spec.player) {
                    Some(link) => mask.receive(link, tag),
                    None => unreachable!("there is a connection to every player with a part"),
                },
            };
            values.put_masked(output, masked.map_err(at(&plan))?);
        }
        let mut set_up =
            SetUp { plan: &plan, side, step: 0, tensors: values.into_tensors(), publics: &publics };
        let mut made = Vec::with_capacity(plan.steps().len());
        made.resize_with(plan.setup_steps(), || None);
        for (index, step) in plan.evaluation() {
            set_up.step = index;
            let kept = R::parts(&*step.operation).keep(&mut set_up);
            if kept.is_some() {
                // What it was made from would be kept for a tensor of its size.
                buffer::release();
            }
            made.push(kept);
        }
        let session = set_up.into_session();
        buffer::release();
        let (kept, observer) = (made, ());
        Ok(Self { plan, side, links, producer_keys, server_keys, publics, session, kept, observer })
    }

    /// The same, with an observer of all steps of an evaluation in both phases.
    #[must_use]
    pub fn observed_by<O: Observer>(self, observer: O) -> Server<R, C, O> {
        let Self { plan, side, links, producer_keys, server_keys, .. } = self;
        let Self { publics, session, kept, .. } = self;
        Server { plan, side, links, producer_keys, server_keys, publics, session, kept, observer }
    }
}

impl<R: ProtocolRing, C: Channel, O: Observer> Server<R, C, O> {
    /// Prepares and runs evaluations at the coordinator's command until the session is over.
    /// Returns their number.
    ///
    /// # Errors
    /// If a peer is gone, silent or sends something else, or the store is full.
    pub fn serve(&mut self, store: &mut impl Store<R>) -> Result<u64, Error> {
        let coordinator = self.plan.coordinator();
        let (mut commands, mut to_producer) = (Commands::default(), Commands::default());
        let mut to_players: Vec<Commands> = Vec::new();
        to_players.resize_with(self.links.players.len(), Commands::default);
        let (mut prepared, mut done) = (0, 0);
        loop {
            let Some(link) = find(&mut self.links.players, coordinator) else {
                unreachable!("the coordinator takes part");
            };
            let command = commands.recv(Role::Player(coordinator), link, &self.plan)?;
            if self.side == Side::Zero {
                if command != Command::Evaluate {
                    let sent = to_producer.send(command, &mut self.links.producer);
                    sent.map_err(at(&self.plan))?;
                }
                for ((name, link), commands) in self.links.players.iter_mut().zip(&mut to_players) {
                    if *name != coordinator {
                        commands.send(command, link).map_err(at(&self.plan))?;
                    }
                }
            }
            match command {
                Command::Finish => return Ok(done),
                Command::Prepare => {
                    self.observer.begin(Phase::Offline, prepared);
                    let Some(key) = self.producer_keys.key(prepared) else {
                        unreachable!("evaluations are prepared in their order");
                    };
                    let bundle = self.prepare(&key, prepared)?;
                    store.put(bundle)?;
                    self.tell_ready(&key, prepared)?;
                    drop(key);
                    self.observer.end(Outcome::Done);
                    prepared += 1;
                }
                Command::Evaluate => {
                    self.observer.begin(Phase::Online, done);
                    let bundle =
                        store.take()?.ok_or_else(|| unprepared(Role::Player(coordinator)))?;
                    self.evaluate(bundle)?;
                    self.observer.end(Outcome::Done);
                    done += 1;
                }
            }
        }
    }

    /// The offline phase of one evaluation.
    fn prepare(&mut self, key: &Seed, inference: u64) -> Result<Bundle<R>, Error> {
        let context = correlated::Context {
            plan: &self.plan,
            side: self.side,
            key,
            session: &self.session.masked,
            kept: &self.kept,
        };
        correlated::prepare(&context, inference, &mut self.links.producer, &mut self.observer)
            .map_err(at(&self.plan))
    }

    /// Hands the players the seeds of this server's shares of their inputs' masks.
    fn tell_ready(&mut self, key: &Seed, inference: u64) -> Result<(), Error> {
        let plan = &self.plan;
        for (name, link) in &mut self.links.players {
            let inputs = plan.inputs_of(*name, Lifetime::Evaluation);
            let seeds =
                inputs.map(|(_, spec)| correlated::mask_seed(key, plan, inference, spec.step));
            send_seeds(link, seeds_tag(inference), seeds).map_err(at(plan))?;
        }
        Ok(())
    }

    /// The online phase, from the masked inputs to the shares of the outputs.
    fn evaluate(&mut self, bundle: Bundle<R>) -> Result<(), Error> {
        let plan = &*self.plan;
        let table = plan.table();
        let inference = bundle.inference();
        let key = self.server_keys.key(inference).ok_or_else(|| {
            StoreError(format!("it gave the randomness of inference {inference} after a later one"))
        })?;
        let tag = |step: usize| Tag::new(Phase::Online, inference, step as u32);
        let (publics, kept, session) = (&self.publics, &self.kept, &self.session);
        let mut values = Values::<R>::new(table, self.side, publics, kept, Some(session));
        let mut rounds = plan.exchanges().iter();
        let mut correlation = bundle.into_correlations();
        let mut steps =
            plan.evaluation().map(|(index, step)| ((index, step), correlation(index))).peekable();
        while let Some(((index, step), correlation)) = steps.next() {
            values.at(index);
            let parts = R::parts(&*step.operation);
            match step.operation.message(table).map(|message| message.route) {
                None => parts.compute(&mut values, correlation),
                Some(Route::Input(input)) => {
                    let player = plan.inputs()[input].player;
                    let Some(link) = find(&mut self.links.players, player) else {
                        unreachable!("a player with inputs takes part");
                    };
                    let masked = parts.receive(correlation, link, tag(index));
                    put_written(&mut values, step, Made::Masked(masked.map_err(at(plan))?));
                }
                Some(Route::Output(output)) => {
                    let share = parts.reveal(&mut values);
                    let mut share = rerandomised(&key, self.side, share, inference, index);
                    if let Some(bits) = table.low_bits() {
                        // What is above them depends on masks and weights.
                        low::keep(&mut share, bits);
                    }
                    let player = plan.outputs()[output].player;
                    let Some(link) = find(&mut self.links.players, player) else {
                        unreachable!("who learns outputs takes part");
                    };
                    link.send(tag(index), R::to_bytes(share.0)).map_err(at(plan))?;
                }
                Some(Route::Exchange) => {
                    // All exchanges of the round go in one message each way.
                    let last = rounds.next().map_or(index, |round| round.end - 1);
                    let mut round = Round::begun_with(parts.open(&values, correlation));
                    while let Some(((_, step), correlation)) =
                        steps.next_if(|((index, _), _)| *index <= last)
                    {
                        round.join(R::parts(&*step.operation).open(&values, correlation));
                    }
                    let other = &mut self.links.other;
                    other.exchange(tag(index), round.bytes(), &mut round).map_err(at(plan))?;
                    let peer = match self.side {
                        Side::Zero => Role::Server1,
                        Side::One => Role::Server0,
                    };
                    let padding = |Padding| ChannelError {
                        tag: tag(index),
                        fault: ChannelFault::Padding { peer },
                    };
                    let made = round.finish().map_err(padding).map_err(at(plan))?;
                    for (index, made) in (index..).zip(made) {
                        values.at(index);
                        let step = &plan.steps()[index];
                        put_written(&mut values, step, made);
                        values.drop_unneeded(&step.operation.reads());
                        self.observer.step(index);
                    }
                    continue;
                }
            }
            values.drop_unneeded(&step.operation.reads());
            self.observer.step(index);
        }
        Ok(())
    }
}

/// Writes the tensor that a step's message made.
fn put_written<R: Ring>(values: &mut Values<'_, R>, step: &Step, made: Made<R>) {
    let Some(output) = step.operation.writes() else {
        unreachable!("an input or an exchange writes a tensor");
    };
    values.put_made(output, made);
}

/// The share plus this server's part of a fresh sharing of zero, so that a player
/// learns the output and nothing of the shares it came from.
fn rerandomised<R: Ring>(
    key: &Seed,
    side: Side,
    mut share: Share<R>,
    inference: u64,
    step: usize,
) -> Share<R> {
    let mut zero = key.derive(Purpose::OutputZero, inference, step as u32).into_stream();
    match side {
        Side::Zero => share.add_sampled(&mut zero),
        Side::One => share.sub_sampled(&mut zero),
    }
    share
}

fn find<C>(links: &mut [(Name, C)], player: Name) -> Option<&mut C> {
    links.iter_mut().find(|(name, _)| *name == player).map(|(_, link)| link)
}

/// A public tensor as elements of the ring.
fn encoded<R: Ring>(public: &PublicTensor) -> Vec<R::Word> {
    let mut words = vec![R::Word::default(); R::PLANES * public.integers.len()];
    R::from_integers(&public.integers, &mut words);
    words
}

/// The end of the set-up, when operations keep what every evaluation uses.
struct SetUp<'a, R: Ring> {
    plan: &'a Plan,
    side: Side,
    /// The step under way.
    step: usize,
    tensors: Tensors<R>,
    publics: &'a [Vec<R::Word>],
}

impl<R: Ring> SetUp<'_, R> {
    /// The tensors that evaluations read.
    fn into_session(mut self) -> Tensors<R> {
        let (table, setup) = (self.plan.table(), self.plan.setup_steps());
        let needed = |spec: &TensorSpec| spec.last_read >= setup;
        for (share, spec) in self.tensors.private.iter_mut().zip(&table.private) {
            share.take_if(|_| !needed(spec));
        }
        for (masked, spec) in self.tensors.masked.iter_mut().zip(&table.masked) {
            masked.take_if(|_| !needed(spec));
        }
        self.tensors
    }
}

impl<R: Ring> Session<R> for SetUp<'_, R> {
    fn side(&self) -> Side {
        self.side
    }

    fn public(&self, id: PublicId) -> &[R::Word] {
        &self.publics[id.0]
    }

    fn private(&self, id: PrivateId) -> &Share<R> {
        let Some(share) = &self.tensors.private[id.0] else {
            unreachable!("an operation keeps tensors of the session");
        };
        share
    }

    fn take_masked(&mut self, id: MaskedId) -> Masked<R> {
        let spec = self.plan.table().spec(id.into());
        let last = spec.last_read < self.plan.setup_steps() && spec.last_kept == Some(self.step);
        let slot = &mut self.tensors.masked[id.0];
        let taken = if last { slot.take() } else { slot.clone() };
        let Some(masked) = taken else {
            unreachable!("an operation keeps tensors of the session");
        };
        masked
    }
}
