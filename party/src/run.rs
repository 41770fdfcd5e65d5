//! A run, from the configuration to the result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use spdz::channel::{Channel, ChannelError, ChannelFault, Name, Phase, Role};
use spdz::ops::ProtocolRing;
use spdz::plan::Plan;
use spdz::prg::{NoRandomness, Seed, SessionId};
use spdz::ring::{Side, Threads, ThreadsError};
use spdz::role::{self, Outcome, Producer, Server, ServerLinks, report_tag};

use crate::background::Background;
use crate::config::{ConfigError, PartyConfig};
use crate::inspection::NOT_PRIVATE;
use crate::logs;
use crate::memory;
use crate::net::{self, ConnectError, Link};
use crate::player::{self, OutOfRange, Played, PlayerData};
use crate::result::RunResult;
use crate::store::{Bounded, Disk};
use crate::telemetry::{Readiness, Telemetry, Watcher, Witness, logs};
use crate::tensors::{OutputTooLarge, TensorError};
use crate::termination::{Failure, Reason};
use crate::trace::SettingsError;
use crate::workload::DataError;

pub use crate::player::{Progress, Stage};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A player's file.
    #[error("{}: {source}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A player's outputs.
    #[error(transparent)]
    OutputTooLarge(#[from] OutputTooLarge),
    /// Outputs that are no numbers of the format.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Another file.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The peers could not be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The protocol.
    #[error(transparent)]
    Role(#[from] role::Error),
    /// The folder of the preprocessing store.
    #[error("the preprocessing store cannot be in {} (`store.folder`): {source}", folder.display())]
    Store {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The session was run before.
    #[error(
        "session {session} was run before with the preprocessing store in {} (`store.folder`); give every run a session of its own, at all parties",
        folder.display()
    )]
    SessionUsed {
        /// The session.
        session: SessionId,
        /// The folder that has a note of it.
        folder: PathBuf,
    },
    /// The port for probes is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address in `telemetry.listen`")]
    Telemetry {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Traces cannot be sent as the environment says.
    #[error(transparent)]
    Traces(#[from] SettingsError),
    /// The metrics.
    #[error("cannot make the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The thread beside the protocol's.
    #[error("cannot start the thread that listens for signals: {0}")]
    Background(std::io::Error),
    /// Others may read this process's memory.
    #[error("cannot keep others from reading this process's memory: {0}; --debuggable lets them")]
    Memory(std::io::Error),
    /// The threads.
    #[error("{0}; lower `threads`")]
    Threads(#[from] ThreadsError),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The result or outputs could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl RunError {
    /// The reason that the peers receive. Nothing about this party's own files and values.
    fn public_reason(&self) -> String {
        match self {
            _ if self.kind().0 == Reason::Terminated => "terminated".into(),
            Self::Role(error @ (role::Error::Channel { .. } | role::Error::Command { .. })) => {
                error.to_string()
            }
            // Sizes that follow from the plan, settings, and names of files that say the session.
            Self::Role(error @ role::Error::Stock(_)) => error.to_string(),
            Self::Role(_) | Self::OutputTooLarge(_) => {
                "its input or output does not fit; its own log says why".into()
            }
            _ => "a failure of its own; its own log says why".into(),
        }
    }

    /// What kind of failure it is, and with [`Reason::PeerLost`] whose.
    fn kind(&self) -> (Reason, Option<Role>) {
        let fault = |fault: &ChannelFault| match fault {
            ChannelFault::Lost { peer, .. }
            | ChannelFault::Deadline { peer, .. }
            | ChannelFault::Unread { peer, .. }
            | ChannelFault::Aborted { disagreement: false, peer, .. } => {
                (Reason::PeerLost, Some(*peer))
            }
            ChannelFault::Aborted { disagreement: true, .. }
            | ChannelFault::Tag { .. }
            | ChannelFault::Length { .. }
            | ChannelFault::Envelope { .. } => (Reason::Disagreement, None),
            ChannelFault::Stopped => (Reason::Terminated, None),
        };
        let reason = match self {
            Self::Connect(ConnectError::Absent { peer, .. }) => {
                return (Reason::PeerLost, Some(*peer));
            }
            Self::Connect(ConnectError::Handshake { fault: found, .. }) => return fault(found),
            Self::Role(role::Error::Channel { error, .. }) => return fault(&error.fault),
            Self::Config(_)
            | Self::Tensors { .. }
            | Self::Data(_)
            | Self::OutputTooLarge(_)
            | Self::OutOfRange(_)
            | Self::Telemetry { .. }
            | Self::Traces(_)
            | Self::SessionUsed { .. }
            | Self::Store { .. } => Reason::BadInput,
            Self::Connect(
                ConnectError::Config(_) | ConnectError::Identity(_) | ConnectError::Listen { .. },
            ) => Reason::BadInput,
            Self::Connect(ConnectError::Runtime(_)) => Reason::Internal,
            Self::Connect(ConnectError::Stopped) => Reason::Terminated,
            Self::Connect(ConnectError::Refused { .. } | ConnectError::Mismatch { .. }) => {
                Reason::Disagreement
            }
            Self::Role(role::Error::Command { .. }) => Reason::Disagreement,
            Self::Role(
                role::Error::Range { .. }
                | role::Error::OutputRange { .. }
                | role::Error::Local(_)
                | role::Error::Stock(_),
            ) => Reason::BadInput,
            Self::Background(_)
            | Self::Memory(_)
            | Self::Metrics(_)
            | Self::Threads(_)
            | Self::NoRandomness(_)
            | Self::Write { .. } => Reason::Internal,
        };
        (reason, None)
    }

    fn is_disagreement(&self) -> bool {
        self.kind().0 == Reason::Disagreement
    }

    /// The failure as whoever started this party reads it.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let (reason, peer) = self.kind();
        Failure { reason, message: self.to_string(), peer }
    }
}

/// Runs the party that `config` describes; once in a process, since the threads are started
/// once. The coordinator returns what it measured. Ends soon once a signal tells it to.
///
/// # Errors
/// Whatever keeps the run from completing; the peers are told.
pub(crate) fn run(
    config: &PartyConfig,
    background: &Background,
) -> Result<Option<RunResult>, RunError> {
    let plan = Arc::new(config.computation.plan()?);
    let telemetry = Telemetry::start(config, &plan, background)?;
    let _lines = logs::run().entered();
    let outcome = meet_and_play(config, &plan, background, &telemetry);
    telemetry.end(outcome.as_ref().err().map(|error| error.kind().0), background);
    outcome
}

fn meet_and_play(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    background: &Background,
    telemetry: &Telemetry,
) -> Result<Option<RunResult>, RunError> {
    // Files first: a party that cannot do its part should not keep others waiting.
    let data = match config.role {
        Role::Player(name) => Some((name, PlayerData::load(config, plan, name)?)),
        _ => None,
    };
    let disk = match &config.store {
        Some(settings) => Disk::open(settings, config.session.0)?,
        None => None,
    };
    tracing::info!(role = %config.role, session = %config.session.0, plan = %plan.digest(), "starting");
    if config.computation.inspect {
        tracing::warn!("{NOT_PRIVATE}");
    }
    memory::page(Some(plan.bundle_bytes()));
    // Players multiply nothing that is large.
    let threads = match data {
        None => Threads::start(config.threads())?,
        Some(_) => Threads::default(),
    };
    telemetry.readiness(Readiness::Connecting);
    let mut links = net::connect(config, plan, background.stop())?;
    telemetry.connected(&links);
    tracing::info!(role = %config.role, "connected to all peers");
    let outcome = threads.scope(|| {
        spdz::with_ring!(
            plan.format(),
            R => play::<R>(config, plan, data, disk, telemetry, &mut links)
        )
    });
    match outcome {
        Ok(played) => {
            // Before any peer sees the end of this party: see `close`.
            telemetry.flush(background);
            let closed = close(config, plan, links);
            // Only a player that hands over its part and leaves does so while others
            // still depend on what it sent.
            if matches!(config.role, Role::Player(name) if !plan.takes_part(name)) {
                closed.map_err(parting)?;
            }
            tracing::info!(role = %config.role, "done");
            // Only now, as the others did all that they had to.
            played.out_of_range.map_or(Ok(played.result), |error| Err(error.into()))
        }
        Err(error) => {
            net::give_up(links, &error.public_reason(), error.is_disagreement());
            Err(error)
        }
    }
}

/// Closes all connections, a server that to the coordinator last: so that player
/// ends after all others have told what they did, and the traces are complete then.
fn close(config: &PartyConfig, plan: &Plan, links: Vec<Link>) -> Result<(), ChannelFault> {
    let coordinator =
        |link: &Link| config.role.is_server() && player(link) == Some(plan.coordinator());
    let (last, first): (Vec<Link>, Vec<Link>) = links.into_iter().partition(coordinator);
    let patience = config.deadlines.message();
    net::close(first, patience).and(net::close(last, patience))
}

/// A failure of a message that is this crate's affair, not the plan's.
pub(crate) fn at(place: &'static str) -> impl Fn(ChannelError) -> RunError {
    move |error| RunError::Role(role::Error::Channel { place: place.into(), error })
}

/// A failure after the last message.
fn parting(fault: ChannelFault) -> RunError {
    at("closing the connections")(ChannelError { tag: report_tag(), fault })
}

fn play<R: ProtocolRing>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    data: Option<(Name, PlayerData<'_>)>,
    disk: Option<Disk>,
    telemetry: &Telemetry,
    links: &mut Vec<Link>,
) -> Result<Played, RunError> {
    match (config.role, data) {
        (Role::Server0, _) => serve::<R>(config, plan, Side::Zero, disk, telemetry, links)?,
        (Role::Server1, _) => serve::<R>(config, plan, Side::One, disk, telemetry, links)?,
        (_, Some((name, data))) => {
            return player::play::<R>(config, plan, name, data, telemetry, links);
        }
        (_, None) => {
            let (root, session) = (Seed::fresh()?, config.session.0);
            let producer = Producer::<R, _>::set_up(plan.clone(), session, &root, servers(links))?;
            let mut producer = producer.observed_by(telemetry.observer());
            let evaluations = producer.serve()?;
            tracing::info!(evaluations, "made all randomness");
        }
    }
    Ok(Played::default())
}

/// The links to the two servers, in their order.
pub(crate) fn servers(links: &mut [Link]) -> [&mut Link; 2] {
    links.sort_by_key(Link::peer);
    let [server0, server1] = links else {
        unreachable!("the producer and the players have the two servers as peers");
    };
    [server0, server1]
}

/// The player at the other end.
fn player(link: &Link) -> Option<Name> {
    match link.peer() {
        Role::Player(name) => Some(name),
        _ => None,
    }
}

fn serve<R: ProtocolRing>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    side: Side,
    disk: Option<Disk>,
    telemetry: &Telemetry,
    links: &mut Vec<Link>,
) -> Result<(), RunError> {
    let leaves = |link: &mut Link| player(link).is_some_and(|name| !plan.takes_part(name));
    let mut departing: Vec<(Name, Link)> = links
        .extract_if(.., leaves)
        .filter_map(|link| player(&link).map(|name| (name, link)))
        .collect();
    links.sort_by_key(Link::peer);
    let [other, producer, players @ ..] = &mut links[..] else {
        unreachable!("a server has the other and the producer as peers");
    };
    let borrowed = ServerLinks {
        other: &mut *other,
        producer: &mut *producer,
        players: players
            .iter_mut()
            .filter_map(|link| player(link).map(|name| (name, link)))
            .collect(),
    };
    let mut clock = LayerClock::new(plan);
    let set_up = Server::<R, _>::set_up(
        plan.clone(),
        config.session.0,
        side,
        Seed::fresh()?,
        borrowed,
        &mut departing,
    );
    let departing = departing.into_iter().map(|(_, link)| link).collect();
    let mut server = match set_up {
        Ok(server) => server.observed_by(Watcher((&mut clock, telemetry.witness()))),
        Err(error) => {
            // The caller tells the others.
            let error = RunError::from(error);
            net::give_up(departing, &error.public_reason(), error.is_disagreement());
            return Err(error);
        }
    };
    net::close(departing, config.deadlines.message()).map_err(parting)?;
    tracing::info!("holds the masked inputs of the session");
    let settings = config.store.clone().unwrap_or_default();
    let available = telemetry.available().clone();
    let mut store = Bounded::new(settings, disk, plan.clone(), available);
    let evaluations = server.serve(&mut store)?;
    tracing::info!(evaluations, "made all evaluations");
    let report = Report::of(other, producer, players, clock.layers);
    let Some(coordinator) =
        players.iter_mut().find(|link| player(link) == Some(plan.coordinator()))
    else {
        unreachable!("the coordinator takes part");
    };
    coordinator.send(report_tag(), report.to_bytes()).map_err(at("report to the coordinator"))
}

/// What a server measured over a session; sums over all evaluations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// In gRPC messages sent by this server, or to it by a player or the producer, bytes.
    pub(crate) online_bytes: u64,
    /// The same of the offline phase, bytes.
    pub(crate) offline_bytes: u64,
    /// Online messages from the other server.
    pub(crate) online_rounds: u64,
    /// Time spent on each of the plan's layers.
    pub(crate) layers: Vec<LayerSpan>,
}

/// Time that a server spent on a layer, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LayerSpan {
    pub(crate) offline: u64,
    pub(crate) online: u64,
}

impl Report {
    /// The length of a server's message, bytes.
    pub(crate) fn bytes(plan: &Plan) -> usize {
        8 * (3 + 2 * plan.evaluation_layers().len())
    }

    fn of(other: &Link, producer: &Link, players: &[Link], layers: Vec<LayerSpan>) -> Self {
        let (other, producer) = (other.traffic(), producer.traffic());
        let bytes = |phase: Phase| {
            let phase = phase as usize;
            let players = players.iter().map(Link::traffic);
            let with_players: u64 =
                players.map(|link| link.sent_bytes[phase] + link.received_bytes[phase]).sum();
            // What the other server sends is in its own report.
            other.sent_bytes[phase] + producer.received_bytes[phase] + with_players
        };
        Self {
            online_bytes: bytes(Phase::Online),
            offline_bytes: bytes(Phase::Offline),
            online_rounds: other.received_messages[Phase::Online as usize],
            layers,
        }
    }

    fn to_bytes(&self) -> Bytes {
        let fields = [self.online_bytes, self.offline_bytes, self.online_rounds];
        let layers = self.layers.iter().flat_map(|layer| [layer.offline, layer.online]);
        fields.into_iter().chain(layers).flat_map(u64::to_le_bytes).collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = bytes.as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next().unwrap_or_default();
        let [online_bytes, offline_bytes, online_rounds] = [next(), next(), next()];
        let mut layers = Vec::new();
        while let Some(offline) = fields.next() {
            layers.push(LayerSpan { offline, online: fields.next().unwrap_or_default() });
        }
        Self { online_bytes, offline_bytes, online_rounds, layers }
    }
}

/// Adds up how long a server spends on each layer.
struct LayerClock {
    /// For each step of the plan its layer, with those of the set-up at the first.
    layer_of: Vec<usize>,
    layers: Vec<LayerSpan>,
    phase: Phase,
    last: Instant,
}

impl LayerClock {
    fn new(plan: &Plan) -> Self {
        let mut layer_of = vec![0; plan.steps().len()];
        let layers = plan.evaluation_layers();
        for (layer, steps) in layers.iter().enumerate() {
            steps.steps.iter().for_each(|step| layer_of[*step] = layer);
        }
        let spans = vec![LayerSpan::default(); layers.len()];
        Self { layer_of, layers: spans, phase: Phase::Setup, last: Instant::now() }
    }
}

impl Witness for LayerClock {
    fn begin(&mut self, phase: Phase, _: u64, at: Instant) {
        self.phase = phase;
        self.last = at;
    }

    fn step(&mut self, step: usize, at: Instant) {
        let took = u64::try_from((at - self.last).as_nanos()).unwrap_or(u64::MAX);
        self.last = at;
        let span = &mut self.layers[self.layer_of[step]];
        let sum = if self.phase == Phase::Offline { &mut span.offline } else { &mut span.online };
        *sum = sum.saturating_add(took);
    }

    fn end(&mut self, _: Outcome, _: Instant) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let span = |offline| LayerSpan { offline, online: u64::MAX };
        let report = Report {
            online_bytes: 1,
            offline_bytes: 2,
            online_rounds: 3,
            layers: vec![span(4), span(5)],
        };
        let bytes = report.to_bytes();
        assert_eq!(bytes.len(), 8 * 7);
        assert_eq!(Report::from_bytes(&bytes), report);
    }
}
