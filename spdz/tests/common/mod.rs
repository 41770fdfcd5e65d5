//! A whole session in one process: every role on its thread, in-memory channels, everything recorded.

// Each test binary uses its own part of it.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use spdz::channel::{
    Channel, ChannelError, MemoryChannel, Name, PART_UNIT, Phase, Role, Tag, memory_pair,
};
use spdz::correlated::Bundle;
use spdz::graph::{Graph, Plaintext, Tensors};
use spdz::network::{IMAGES, LOGITS, Network};
use spdz::ops::ProtocolRing;
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::prg::{Seed, SessionId};
use spdz::ratchet::Ratchet;
use spdz::ring::{Int64, Ring, Side};
use spdz::role::{
    self, Error, Memory, Observer, Player, Producer, Server, ServerLinks, Store, StoreError,
};

/// A message and who sent it to whom.
pub type Message = (Role, Role, Tag, Bytes);

/// Records what is sent through it.
pub struct Recorder {
    from: Role,
    to: Role,
    inner: MemoryChannel,
    log: Arc<Mutex<Vec<Message>>>,
}

impl Channel for Recorder {
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError> {
        self.log.lock().unwrap().push((self.from, self.to, tag, message.clone()));
        self.inner.send(tag, message)
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        self.inner.recv(tag, length)
    }

    // In parts that end anywhere, as those of a network may.
    fn recv_parts(
        &mut self,
        tag: Tag,
        length: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelError> {
        self.recv(tag, length)?.chunks(77 * PART_UNIT).for_each(take);
        Ok(())
    }

    fn send_parts(
        &mut self,
        tag: Tag,
        length: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelError> {
        let mut message = vec![0; length];
        message.chunks_mut(1001 * PART_UNIT).for_each(make);
        self.send(tag, message.into())
    }
}

/// The randomness of a session, fixed by two numbers.
#[derive(Clone, Copy, Debug)]
pub struct Randomness {
    /// What the producer starts from.
    pub producer: u8,
    /// What the key shared by the servers starts from.
    pub servers: u8,
}

impl Randomness {
    /// Both from the same number.
    pub fn all(number: u8) -> Self {
        Self { producer: number, servers: number ^ 0x55 }
    }
}

/// What a player learns of one evaluation.
pub type PlayerOutputs = Result<Tensors, Error>;

/// What came of a session.
pub struct Outcome {
    /// For each evaluation what each player player_outputs; `None` if it takes no part.
    pub player_outputs: Vec<BTreeMap<Name, PlayerOutputs>>,
    /// Everything that was sent.
    pub messages: Vec<Message>,
    /// The calls of each role's observer.
    pub callbacks: BTreeMap<Role, Vec<Callback>>,
}

/// A call of an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    Begin(Phase, u64),
    Step(usize),
    End(role::Outcome),
}

/// Notes each call.
#[derive(Default)]
struct Notes(Vec<Callback>);

impl Observer for Notes {
    fn begin(&mut self, phase: Phase, inference: u64) {
        self.0.push(Callback::Begin(phase, inference));
    }

    fn step(&mut self, step: usize) {
        self.0.push(Callback::Step(step));
    }

    fn end(&mut self, outcome: role::Outcome) {
        self.0.push(Callback::End(outcome));
    }
}

impl Outcome {
    /// An output of an evaluation.
    pub fn output(&self, evaluation: usize, player: &str, name: &str) -> Vec<f64> {
        let player_outputs = &self.player_outputs[evaluation][&player.parse().unwrap()];
        player_outputs.as_ref().unwrap()[name].as_slice().to_vec()
    }
}

/// What players bring to each evaluation.
pub type PlayerInputs = BTreeMap<Name, Tensors>;

/// Tensors by player and name.
pub fn player_inputs<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a str, Vec<usize>, Vec<f64>)>,
) -> PlayerInputs {
    let mut player_inputs = PlayerInputs::new();
    for (player, name, shape, values) in tensors {
        let player = player_inputs.entry(player.parse().unwrap()).or_default();
        player.insert(name.into(), Plaintext::new(shape, values).unwrap());
    }
    player_inputs
}

/// A session's settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub format: NumberFormat,
    pub truncation: Truncation,
    pub randomness: Randomness,
    /// Whether everything is prepared before the first evaluation.
    pub ahead: bool,
}

impl Settings {
    pub fn new(format: NumberFormat, truncation: Truncation, randomness: u8) -> Self {
        Self { format, truncation, randomness: Randomness::all(randomness), ahead: false }
    }
}

/// A store that keeps nothing in memory but the keys.
struct Sealed<R: Ring> {
    plan: Arc<Plan>,
    key: [u8; 32],
    sealing: Ratchet,
    opening: Ratchet,
    kept: std::collections::VecDeque<(u64, Vec<u8>)>,
    ring: std::marker::PhantomData<R>,
}

impl<R: Ring> Sealed<R> {
    fn new(plan: Arc<Plan>, key: [u8; 32]) -> Self {
        let ratchet = || Ratchet::new(&Seed::from_bytes(key));
        let (sealing, opening) = (ratchet(), ratchet());
        Self { plan, key, sealing, opening, kept: Default::default(), ring: Default::default() }
    }

    /// The key of an inference, for an attempt that is refused.
    fn key(&self, inference: u64) -> Seed {
        Ratchet::new(&Seed::from_bytes(self.key)).key(inference).unwrap()
    }
}

impl<R: Ring> Store<R> for Sealed<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StoreError> {
        let (inference, bytes) = (bundle.inference(), bundle.bytes());
        assert_eq!(bytes, self.plan.bundle_bytes());
        let sealed = bundle.seal(self.sealing.key(inference).unwrap());
        assert_eq!(sealed.len(), bytes + 32);
        let open = |inference, sealed: &[u8], key| {
            Bundle::<R>::open(&self.plan, inference, sealed, key).map(drop)
        };
        for place in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            let refused = open(inference, &changed, self.key(inference));
            assert_eq!(refused.unwrap_err().inference, inference);
        }
        assert!(open(inference, &sealed[1..], self.key(inference)).is_err());
        assert!(open(inference + 1, &sealed, self.key(inference)).is_err());
        assert!(open(inference, &sealed, self.key(inference + 1)).is_err());
        self.kept.push_back((inference, sealed));
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StoreError> {
        let Some((inference, sealed)) = self.kept.pop_front() else { return Ok(None) };
        let key = self.opening.key(inference).unwrap();
        assert!(self.opening.key(inference).is_none());
        Ok(Some(Bundle::open(&self.plan, inference, &sealed, key).unwrap()))
    }
}

/// The formats that hold any graph without comparisons, with each truncation.
pub fn with_polynomials() -> impl Iterator<Item = (NumberFormat, Truncation)> {
    truncated(NumberFormat::with_polynomials())
}

/// The formats that compare numbers, with each truncation.
pub fn with_gates() -> impl Iterator<Item = (NumberFormat, Truncation)> {
    truncated(NumberFormat::with_gates())
}

fn truncated(
    formats: impl Iterator<Item = NumberFormat>,
) -> impl Iterator<Item = (NumberFormat, Truncation)> {
    formats.flat_map(|format| {
        [Truncation::Local, Truncation::Interactive].map(|truncation| (format, truncation))
    })
}

/// Runs an evaluation of `graph` for each of `evaluations`.
pub fn run(graph: &Graph, settings: Settings, evaluations: &[PlayerInputs]) -> Outcome {
    let plan = Plan::compile(graph, settings.format, settings.truncation).unwrap();
    run_compiled(plan, settings, evaluations)
}

/// The same for a plan that was compiled with the settings' format and truncation.
pub fn run_compiled(plan: Plan, settings: Settings, evaluations: &[PlayerInputs]) -> Outcome {
    spdz::with_ring!(settings.format, R => run_plan::<R>(plan, settings, evaluations))
}

fn run_plan<R: ProtocolRing>(
    plan: Plan,
    settings: Settings,
    evaluations: &[PlayerInputs],
) -> Outcome {
    let plan = Arc::new(plan);
    let session = SessionId([1; 16]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let pair = |x, y| {
        let (at_x, at_y) = memory_pair(x, y, Duration::from_secs(30));
        let record = |from, to, inner| Recorder { from, to, inner, log: log.clone() };
        (record(x, y, at_x), record(y, x, at_y))
    };
    use Role::{Producer as P, Server0, Server1};
    let (s0_s1, s1_s0) = pair(Server0, Server1);
    let (s0_p, p_s0) = pair(Server0, P);
    let (s1_p, p_s1) = pair(Server1, P);
    let mut staying = [Vec::new(), Vec::new()];
    let mut leaving = [Vec::new(), Vec::new()];
    let mut at_players = Vec::new();
    for &player in plan.graph().players() {
        let (s0, at0) = pair(Server0, Role::Player(player));
        let (s1, at1) = pair(Server1, Role::Player(player));
        let lists = if plan.takes_part(player) { &mut staying } else { &mut leaving };
        lists[0].push((player, s0));
        lists[1].push((player, s1));
        at_players.push((player, [at0, at1]));
    }
    let count = evaluations.len() as u64;
    let player_outputs: Mutex<Vec<BTreeMap<Name, PlayerOutputs>>> = Mutex::default();
    player_outputs.lock().unwrap().resize_with(evaluations.len(), BTreeMap::new);
    let keep = |evaluation: u64, player, outcome| {
        player_outputs.lock().unwrap()[evaluation as usize].insert(player, outcome);
    };
    let nothing = Tensors::new();
    let callbacks = Mutex::default();
    let note = |role, notes: Notes| {
        let callbacks: &Mutex<BTreeMap<Role, Vec<Callback>>> = &callbacks;
        callbacks.lock().unwrap().insert(role, notes.0);
    };

    std::thread::scope(|scope| {
        let [players0, players1] = staying;
        let [mut leaving0, mut leaving1] = leaving;
        let links0 = ServerLinks { other: s0_s1, producer: s0_p, players: players0 };
        let links1 = ServerLinks { other: s1_s0, producer: s1_p, players: players1 };
        let serve = |side, seed: u8, links, mut leaving: Vec<(Name, Recorder)>| {
            let (plan, stocked, note) = (plan.clone(), plan.clone(), &note);
            scope.spawn(move || {
                let fresh = Seed::from_bytes([seed; 32]);
                let set_up =
                    Server::<R, _>::set_up(plan, session, side, fresh, links, &mut leaving);
                let mut notes = Notes::default();
                let mut server = set_up.unwrap().observed_by(&mut notes);
                let served = if settings.ahead {
                    server.serve(&mut Sealed::<R>::new(stocked, [seed; 32]))
                } else {
                    server.serve(&mut Memory::default())
                };
                assert_eq!(served.unwrap(), count);
                note(if side == Side::Zero { Server0 } else { Server1 }, notes);
            });
        };
        serve(Side::Zero, settings.randomness.servers, links0, std::mem::take(&mut leaving0));
        serve(Side::One, 0, links1, std::mem::take(&mut leaving1));
        scope.spawn({
            let (plan, note) = (plan.clone(), &note);
            move || {
                let root = Seed::from_bytes([settings.randomness.producer; 32]);
                let servers = [p_s0, p_s1];
                let set_up = Producer::<R, _>::set_up(plan, session, root, servers);
                let mut notes = Notes::default();
                assert_eq!(set_up.unwrap().observed_by(&mut notes).serve().unwrap(), count);
                note(P, notes);
            }
        });
        for (player, links) in at_players {
            let (plan, keep, note, nothing) = (plan.clone(), &keep, &note, &nothing);
            let inputs = move |evaluation: u64| {
                evaluations.get(evaluation as usize).and_then(|b| b.get(&player)).unwrap_or(nothing)
            };
            scope.spawn(move || {
                let coordinator = plan.coordinator() == player;
                let takes_part = plan.takes_part(player);
                let set_up = Player::<R, _>::set_up(plan, player, inputs(0), links);
                let mut notes = Notes::default();
                let mut this = set_up.unwrap().observed_by(&mut notes);
                if !coordinator {
                    if takes_part {
                        this.follow::<Error>(
                            |evaluation| Ok(inputs(evaluation).clone()),
                            |evaluation, player_outputs| {
                                keep(evaluation, player, player_outputs);
                                Ok(())
                            },
                        )
                        .unwrap();
                    }
                    note(Role::Player(player), notes);
                    return;
                }
                let mut ready: Vec<_> = Vec::new();
                if settings.ahead {
                    ready.extend((0..count).map(|_| this.prepare().unwrap()));
                    ready.reverse();
                }
                for evaluation in 0..count {
                    let ready = ready.pop().unwrap_or_else(|| this.prepare().unwrap());
                    keep(evaluation, player, this.evaluate(ready, inputs(evaluation)));
                }
                assert_eq!(this.finish().unwrap(), count);
                note(Role::Player(player), notes);
            });
        }
    });
    let messages = std::mem::take(&mut *log.lock().unwrap());
    let (player_outputs, callbacks) =
        (player_outputs.into_inner().unwrap(), callbacks.into_inner().unwrap());
    Outcome { player_outputs, messages, callbacks }
}

/// Why a player refuses to share what it brings, before it says anything; `None` if it
/// does not.
pub fn refused_input(
    graph: &Graph,
    settings: Settings,
    player: Name,
    player_inputs: &PlayerInputs,
) -> Option<String> {
    let plan = Arc::new(Plan::compile(graph, settings.format, settings.truncation).unwrap());
    let tensors = player_inputs.get(&player).cloned().unwrap_or_default();
    let link = |server| memory_pair(Role::Player(player), server, Duration::from_millis(50));
    let (link0, mut server0) = link(Role::Server0);
    let (link1, mut server1) = link(Role::Server1);
    // What the servers would say to a player without inputs to the session.
    let ready = Tag::new(spdz::channel::Phase::Offline, 0, 0);
    for server in [&mut server0, &mut server1] {
        let seeds = plan.inputs().iter().filter(|input| input.player == player).count();
        server.send(ready, vec![1; 32 * seeds].into()).unwrap();
    }
    let refused = |error: Error| match error {
        Error::Range { .. } | Error::Local(_) => Some(error.to_string()),
        _ => None,
    };
    match Player::<Int64, _>::set_up(plan, player, &tensors, [link0, link1]) {
        Err(error) => refused(error),
        Ok(mut player) => {
            let ready = player.prepare().ok()?;
            player.evaluate(ready, &tensors).err().and_then(refused)
        }
    }
}

/// Values for a network's parameters from a function of the tensor's name, its index and
/// its shape.
pub fn weights(network: &Network, value: impl Fn(&str, usize, &[usize]) -> f32) -> Tensors {
    let parameters = network.parameters().unwrap().into_iter();
    let tensor = |parameter: spdz::network::Parameter| {
        let len: usize = parameter.shape.iter().product();
        let values = (0..len).map(|i| f64::from(value(&parameter.name, i, &parameter.shape)));
        let tensor = Plaintext::new(parameter.shape.clone(), values.collect()).unwrap();
        (parameter.name, tensor)
    };
    parameters.map(tensor).collect()
}

/// What the players of a network bring, for each batch of images.
pub fn batches(
    network: &Network,
    weights: &Tensors,
    batch: usize,
    images: &[Vec<f32>],
) -> Vec<PlayerInputs> {
    let shape: Vec<usize> = [batch].iter().chain(&network.input).copied().collect();
    images
        .iter()
        .map(|images| {
            let values = images.iter().map(|x| f64::from(*x)).collect();
            let images = Plaintext::new(shape.clone(), values).unwrap();
            let client = Tensors::from([(IMAGES.to_owned(), images)]);
            PlayerInputs::from([(Name::MODEL_OWNER, weights.clone()), (Name::CLIENT, client)])
        })
        .collect()
}

/// The logits that a network's client player_outputs.
pub fn logits(outcome: &Outcome) -> Vec<Result<Vec<f64>, String>> {
    let player_outputs =
        outcome.player_outputs.iter().map(|player_outputs| &player_outputs[&Name::CLIENT]);
    player_outputs
        .map(|player_outputs| match player_outputs {
            Ok(tensors) => Ok(tensors[LOGITS].as_slice().to_vec()),
            Err(error) => Err(error.to_string()),
        })
        .collect()
}

/// Numbers that look random and are the same on every run, from -1 to 1.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Where a message belongs: from, to, phase and step.
pub type Place = (Role, Role, Phase, u32);

/// All that servers receive in some sessions, by its place, without keys and commands. `session` is
/// given what makes the randomness of each another.
pub fn received(sessions: u8, session: impl Fn(u8) -> Outcome) -> HashMap<Place, Vec<u8>> {
    let mut bytes: HashMap<Place, Vec<u8>> = HashMap::new();
    for randomness in 0..sessions {
        for (from, to, tag, message) in session(randomness).messages {
            if to.is_server() && !is_key_or_command(from, to, tag) {
                let place = (from, to, tag.phase, tag.step);
                bytes.entry(place).or_default().extend_from_slice(&message);
            }
        }
    }
    bytes
}

/// Exclusive or of what both servers send in a round that begins with a step.
pub fn both_servers(bytes: &HashMap<Place, Vec<u8>>, step: usize) -> Vec<u8> {
    let of = |from, to| &bytes[&(from, to, Phase::Online, step as u32)];
    let both = of(Role::Server0, Role::Server1).iter().zip(of(Role::Server1, Role::Server0));
    both.map(|(x, y)| x ^ y).collect()
}

/// Checks that the servers' exchanges and the producer's messages of one evaluation are as long as
/// its plan says.
pub fn check_lengths(plan: &Plan, outcome: &Outcome) {
    let sent = |phase, from: Role, to: &dyn Fn(Role) -> bool| -> usize {
        let messages = outcome.messages.iter();
        let these = messages.filter(|m| m.0 == from && to(m.1) && m.2.phase == phase);
        these.map(|m| m.3.len()).sum()
    };
    let exchanged = sent(Phase::Online, Role::Server0, &|to| to.is_server());
    let planned: usize = (0..plan.rounds()).map(|round| plan.round_bytes(round)).sum();
    assert_eq!(exchanged, planned);
    assert_eq!(sent(Phase::Offline, Role::Producer, &|_| true), plan.offline_bytes());
}

/// Messages that carry a seed or a command instead of ring elements.
pub fn is_key_or_command(from: Role, to: Role, tag: Tag) -> bool {
    let server = |role| matches!(role, Role::Server0 | Role::Server1);
    match tag.phase {
        Phase::Control => true,
        Phase::Setup => tag.step < 3,
        Phase::Offline => server(from) && to == Role::CLIENT,
        Phase::Online => false,
    }
}

/// Bins of equal probability, six standard deviations by the normal approximation.
pub fn uniform_counts(place: &str, counts: &[f64]) {
    let expected = counts.iter().sum::<f64>() / counts.len() as f64;
    let chi_square: f64 = counts.iter().map(|n| (n - expected).powi(2) / expected).sum();
    let freedom = counts.len() as f64 - 1.0;
    let bound = freedom + 6.0 * (2.0 * freedom).sqrt();
    assert!(chi_square < bound, "{place}: {chi_square} of {bound}");
}

pub fn uniform_bytes(place: &str, bytes: &[u8]) {
    let mut counts = [0f64; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
    uniform_counts(place, &counts);
}
