//! The servers: compute on shares, and see masked values only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::player::unprepared;
use super::{
    Command, Commands, Error, Observer, Outcome, PRODUCER_KEY, SERVER_KEY, SESSION_SEEDS, at,
    recv_seed, seeds_tag, send_seed, send_seeds, session_input,
};
use crate::buffer;
use crate::channel::{Channel, Name, Phase, Role, Tag};
use crate::correlated::{self, Bundle, StepRandomness};
use crate::graph::Lifetime;
use crate::masked::{Mask, Masked};
use crate::ops::{self, LinearLayer};
use crate::plan::{MaskedId, Operation, Plan, PrivateId, PublicId};
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
    /// To the players that take part in evaluations ([`Plan::takes_part`]).
    pub players: Vec<(Name, C)>,
}

/// Where prepared randomness waits for its evaluation: first in, first out.
pub trait Stock<R: Ring> {
    /// Keeps the randomness of one more evaluation.
    ///
    /// # Errors
    /// If there is no room.
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StockError>;

    /// The randomness that was put first, to be used now; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be had back.
    fn take(&mut self) -> Result<Option<Bundle<R>>, StockError>;
}

/// Why a stock cannot do what it should.
#[derive(Debug, thiserror::Error)]
#[error("stock of randomness: {0}")]
pub struct StockError(pub String);

/// A stock in memory, without a bound.
#[derive(Debug)]
pub struct Memory<R: Ring>(VecDeque<Bundle<R>>);

impl<R: Ring> Default for Memory<R> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<R: Ring> Stock<R> for Memory<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StockError> {
        self.0.push_back(bundle);
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StockError> {
        Ok(self.0.pop_front())
    }
}

/// A server's side of a session, watched by an [`Observer`].
pub struct Server<R: Ring, C, O = ()> {
    plan: Arc<Plan>,
    side: Side,
    links: ServerLinks<C>,
    producer_key: Seed,
    server_key: Seed,
    publics: Publics<R>,
    session: Tensors<R>,
    layers: Vec<LinearLayer<R>>,
    observer: O,
}

impl<R: Ring, C: Channel> Server<R, C> {
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
        let server_key = server_key.bind(session, &context);
        let producer_key = producer_key.bind(session, &context);

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
        let publics = Publics::new(&plan);
        let mut values = Values::<R>::new(&plan, None);
        for (index, step) in plan.steps()[..plan.setup_steps()].iter().enumerate() {
            values.step = index;
            let Operation::Input { input, output } = &step.operation else {
                local(&step.operation, &mut values, &publics, side);
                continue;
            };
            let spec = &plan.inputs()[*input];
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
            values.put_masked(*output, masked.map_err(at(&plan))?);
        }
        let mut layers = Vec::with_capacity(plan.layers());
        for (_, step) in plan.evaluation() {
            if let Operation::Linear { weight, bias, linear, .. } = &step.operation {
                let bias = bias.map(|id| values.get(id).clone());
                let weight = values.take_weight(*weight, layers.len());
                layers.push(LinearLayer::new(*linear, weight, bias, side));
                // What it was made from would be kept for a tensor of its size.
                buffer::release();
            }
        }
        let session = values.into_session();
        buffer::release();
        let observer = ();
        Ok(Self { plan, side, links, producer_key, server_key, publics, session, layers, observer })
    }

    /// The same, with an observer that is told of all steps of an evaluation in both phases.
    #[must_use]
    pub fn observed_by<O: Observer>(self, observer: O) -> Server<R, C, O> {
        let Self { plan, side, links, producer_key, server_key, .. } = self;
        let Self { publics, session, layers, .. } = self;
        Server { plan, side, links, producer_key, server_key, publics, session, layers, observer }
    }
}

impl<R: Ring, C: Channel, O: Observer> Server<R, C, O> {
    /// Prepares and runs evaluations at the coordinator's command until the session is over.
    /// Returns their number.
    ///
    /// # Errors
    /// If a peer is gone, silent or sends something else, or the stock is full.
    pub fn serve(&mut self, stock: &mut impl Stock<R>) -> Result<u64, Error> {
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
                    let bundle = self.prepare(prepared)?;
                    stock.put(bundle)?;
                    self.tell_ready(prepared)?;
                    self.observer.end(Outcome::Done);
                    prepared += 1;
                }
                Command::Evaluate => {
                    self.observer.begin(Phase::Online, done);
                    let bundle =
                        stock.take()?.ok_or_else(|| unprepared(Role::Player(coordinator)))?;
                    self.evaluate(bundle)?;
                    self.observer.end(Outcome::Done);
                    done += 1;
                }
            }
        }
    }

    /// The offline phase of one evaluation.
    fn prepare(&mut self, inference: u64) -> Result<Bundle<R>, Error> {
        correlated::prepare(
            &self.plan,
            self.side,
            inference,
            &self.producer_key,
            &self.session.masked,
            &self.layers,
            &mut self.links.producer,
            &mut self.observer,
        )
        .map_err(at(&self.plan))
    }

    /// Hands the players the seeds of this server's shares of their inputs' masks.
    fn tell_ready(&mut self, inference: u64) -> Result<(), Error> {
        let plan = &self.plan;
        for (name, link) in &mut self.links.players {
            let seeds = plan.inputs_of(*name, Lifetime::Evaluation).map(|(_, spec)| {
                correlated::mask_seed(&self.producer_key, plan, inference, spec.step)
            });
            send_seeds(link, seeds_tag(inference), seeds).map_err(at(plan))?;
        }
        Ok(())
    }

    /// The online phase, from the masked inputs to the shares of the outputs.
    fn evaluate(&mut self, bundle: Bundle<R>) -> Result<(), Error> {
        let plan = &*self.plan;
        let inference = bundle.inference;
        let mut values = Values::<R>::new(plan, Some(&self.session));
        let steps = plan.evaluation().zip(bundle.steps.into_iter().skip(plan.setup_steps()));
        for ((index, step), randomness) in steps {
            let tag = Tag::new(Phase::Online, inference, index as u32);
            values.step = index;
            match (&step.operation, randomness) {
                (Operation::Input { input, output }, StepRandomness::Mask(mask)) => {
                    let spec = &plan.inputs()[*input];
                    let Some(link) = find(&mut self.links.players, spec.player) else {
                        unreachable!("who brings inputs takes part");
                    };
                    values.put_masked(*output, mask.receive(link, tag).map_err(at(plan))?);
                }
                (Operation::Open { input, output }, StepRandomness::Mask(mask)) => {
                    let opened = mask.open(values.get(*input), &mut self.links.other, tag);
                    values.put_masked(*output, opened.map_err(at(plan))?);
                }
                (Operation::Divide { input, output, .. }, StepRandomness::Division(division)) => {
                    let other = &mut self.links.other;
                    let quotient = division.divide(values.get(*input), self.side, other, tag);
                    values.put_masked(*output, quotient.map_err(at(plan))?);
                }
                (
                    Operation::Linear { input, layer, output, .. },
                    StepRandomness::Linear(triple),
                ) => {
                    let product = self.layers[*layer].apply(values.masked(*input), triple);
                    values.put(*output, product);
                }
                (
                    Operation::Product { left, right, linear, output },
                    StepRandomness::Product(triple),
                ) => {
                    let (left, right) = (values.masked(*left), values.masked(*right));
                    let product = triple.multiply(linear, left, right, self.side);
                    values.put(*output, product);
                }
                (Operation::Square { input, output }, StepRandomness::Square(triple)) => {
                    let product = triple.square(values.masked(*input), self.side);
                    values.put(*output, product);
                }
                (Operation::Mul { left, right, output }, StepRandomness::Mul(triple)) => {
                    let (left, right) = (values.masked(*left), values.masked(*right));
                    let product = triple.multiply(left, right, self.side);
                    values.put(*output, product);
                }
                (Operation::Output { output, input }, StepRandomness::Nothing) => {
                    let share = values.take(*input);
                    let share = rerandomised(&self.server_key, self.side, share, inference, index);
                    let player = plan.outputs()[*output].player;
                    let Some(link) = find(&mut self.links.players, player) else {
                        unreachable!("who learns outputs takes part");
                    };
                    link.send(tag, R::to_bytes(share.0)).map_err(at(plan))?;
                }
                (operation, StepRandomness::Nothing) => {
                    local(operation, &mut values, &self.publics, self.side);
                }
                _ => unreachable!("a bundle is made step by step from the same plan"),
            }
            values.drop_unneeded();
            self.observer.step(index);
        }
        Ok(())
    }
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

/// Takes a step that needs nobody else.
fn local<R: Ring>(
    operation: &Operation,
    values: &mut Values<'_, R>,
    publics: &Publics<R>,
    side: Side,
) {
    match operation {
        Operation::Unmask { input, output } => {
            let share = ops::unmask(values.masked(*input), side);
            values.put(*output, share);
        }
        Operation::Truncate { input, bits, output } => {
            let mut share = values.take(*input);
            ops::truncate(&mut share, *bits, side);
            values.put(*output, share);
        }
        Operation::PublicRight { left, right, linear, output } => {
            let product =
                ops::multiply_public(linear, &values.get(*left).0, publics.packed(*right));
            values.put(*output, product);
        }
        Operation::PublicLeft { left, right, linear, output } => {
            let right = R::pack(&values.get(*right).0, linear);
            values.put(*output, ops::multiply_public(linear, publics.words(*left), &right));
        }
        Operation::Combine { terms, constant, output } => {
            let len = values.plan.private_len(*output);
            let terms: Vec<_> =
                terms.iter().map(|(id, factor)| (values.get(*id), *factor)).collect();
            let sum = ops::combine(&terms, *constant, len, side);
            values.put(*output, sum);
        }
        Operation::AddPublic { input, public, output } => {
            let mut share = values.take(*input);
            ops::add_public(&mut share, publics.words(*public), side);
            values.put(*output, share);
        }
        Operation::MulPublic { input, public, output } => {
            let mut share = values.take(*input);
            ops::mul_public(&mut share, publics.words(*public));
            values.put(*output, share);
        }
        Operation::View { input, view, output } => {
            let share = Share(ops::view::<R>(&values.get(*input).0, view));
            values.put(*output, share);
        }
        Operation::ViewMasked { input, view, output } => {
            let Masked { alpha, mask } = values.masked(*input);
            let alpha = ops::view::<R>(alpha, view);
            let mask = Share(ops::view::<R>(&mask.0, view));
            values.put_masked(*output, Masked { alpha, mask });
        }
        Operation::Concat { inputs, outer, output } => {
            let words: Vec<&[R::Word]> = inputs.iter().map(|id| &values.get(*id).0[..]).collect();
            let share = Share(ops::concat::<R>(&words, *outer));
            values.put(*output, share);
        }
        Operation::ConcatMasked { inputs, outer, output } => {
            let masked: Vec<&Masked<R>> = inputs.iter().map(|id| values.masked(*id)).collect();
            let alphas: Vec<&[R::Word]> = masked.iter().map(|m| &m.alpha[..]).collect();
            let masks: Vec<&[R::Word]> = masked.iter().map(|m| &m.mask.0[..]).collect();
            let alpha = ops::concat::<R>(&alphas, *outer);
            let mask = Share(ops::concat::<R>(&masks, *outer));
            values.put_masked(*output, Masked { alpha, mask });
        }
        Operation::Sum { input, axes, output } => {
            let sums = ops::sum(values.get(*input), *axes);
            values.put(*output, sums);
        }
        Operation::SumPool { input, pooling, output } => {
            let sums = ops::sum_pool(values.get(*input), *pooling);
            values.put(*output, sums);
        }
        Operation::Input { .. }
        | Operation::Open { .. }
        | Operation::Divide { .. }
        | Operation::Linear { .. }
        | Operation::Product { .. }
        | Operation::Square { .. }
        | Operation::Mul { .. }
        | Operation::Output { .. } => unreachable!("a step with randomness or a message"),
    }
}

/// The plan's public tensors as elements, packed where they are right operands.
struct Publics<R: Ring> {
    words: Vec<Vec<R::Word>>,
    packed: BTreeMap<usize, R::Packed>,
}

impl<R: Ring> Publics<R> {
    fn new(plan: &Plan) -> Self {
        let encode = |integers: &Vec<i128>| {
            let mut words = vec![R::Word::default(); R::PLANES * integers.len()];
            R::from_integers(integers, &mut words);
            words
        };
        let words: Vec<_> = plan.publics().iter().map(|public| encode(&public.integers)).collect();
        let mut packed = BTreeMap::new();
        for step in plan.steps() {
            if let Operation::PublicRight { right, linear, .. } = &step.operation {
                packed.insert(right.0, R::pack(&words[right.0], linear));
            }
        }
        Self { words, packed }
    }

    fn words(&self, id: PublicId) -> &[R::Word] {
        &self.words[id.0]
    }

    fn packed(&self, id: PublicId) -> &R::Packed {
        let Some(packed) = self.packed.get(&id.0) else {
            unreachable!("right operands are packed in the set-up");
        };
        packed
    }
}

/// Tensors by their number in the plan.
struct Tensors<R: Ring> {
    private: Vec<Option<Share<R>>>,
    masked: Vec<Option<Masked<R>>>,
}

/// The tensors of one evaluation, each kept until the last step that reads it, and
/// behind them those of the session.
struct Values<'a, R: Ring> {
    plan: &'a Plan,
    step: usize,
    own: Tensors<R>,
    session: Option<&'a Tensors<R>>,
}

impl<'a, R: Ring> Values<'a, R> {
    fn new(plan: &'a Plan, session: Option<&'a Tensors<R>>) -> Self {
        let mut own = Tensors { private: Vec::new(), masked: Vec::new() };
        own.private.resize_with(plan.private_count(), || None);
        own.masked.resize_with(plan.masked_count(), || None);
        Self { plan, step: 0, own, session }
    }

    fn put(&mut self, id: PrivateId, share: Share<R>) {
        self.own.private[id.0] = Some(share);
    }

    fn put_masked(&mut self, id: MaskedId, masked: Masked<R>) {
        self.own.masked[id.0] = Some(masked);
    }

    fn get(&self, id: PrivateId) -> &Share<R> {
        let session = || self.session.and_then(|session| session.private[id.0].as_ref());
        let Some(share) = self.own.private[id.0].as_ref().or_else(session) else {
            unreachable!("a plan makes each tensor before it reads it");
        };
        share
    }

    fn masked(&self, id: MaskedId) -> &Masked<R> {
        let session = || self.session.and_then(|session| session.masked[id.0].as_ref());
        let Some(masked) = self.own.masked[id.0].as_ref().or_else(session) else {
            unreachable!("a plan makes each masked tensor before it reads it");
        };
        masked
    }

    /// The tensor itself if this step is the last to read it, else a copy.
    fn take(&mut self, id: PrivateId) -> Share<R> {
        if self.plan.last_read(id) == self.step
            && let Some(share) = self.own.private[id.0].take()
        {
            return share;
        }
        self.get(id).clone()
    }

    /// The weight of a layer: itself if nothing but this layer needs it, else a copy.
    fn take_weight(&mut self, id: MaskedId, layer: usize) -> Masked<R> {
        let needed = |operation: &Operation| match operation {
            Operation::Linear { weight, layer: other, .. } => *weight == id && *other > layer,
            _ => false,
        };
        let mut later = self.plan.evaluation();
        let last = self.plan.last_masked_read(id) < self.plan.setup_steps()
            && !later.any(|(_, step)| needed(&step.operation));
        if last && let Some(weight) = self.own.masked[id.0].take() {
            return weight;
        }
        self.masked(id).clone()
    }

    /// Frees what the current step was the last to read.
    fn drop_unneeded(&mut self) {
        let operation = &self.plan.steps()[self.step].operation;
        for id in operation.reads() {
            if self.plan.last_read(id) == self.step {
                self.own.private[id.0] = None;
            }
        }
        for id in operation.reads_masked() {
            if self.plan.last_masked_read(id) == self.step {
                self.own.masked[id.0] = None;
            }
        }
    }

    /// What the evaluations will read.
    fn into_session(mut self) -> Tensors<R> {
        let setup = self.plan.setup_steps();
        for (index, share) in self.own.private.iter_mut().enumerate() {
            if self.plan.last_read(PrivateId(index)) < setup {
                *share = None;
            }
        }
        for (index, masked) in self.own.masked.iter_mut().enumerate() {
            if self.plan.last_masked_read(MaskedId(index)) < setup {
                *masked = None;
            }
        }
        self.own
    }
}
