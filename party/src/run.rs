//! A run, from the configuration to the result: one function for each role.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spdz::channel::{Channel, ChannelError, ChannelFault, Phase, Role};
use spdz::network::weights::{Weights, WeightsError};
use spdz::plan::{NumberFormat, Plan};
use spdz::prg::{NoRandomness, Seed};
use spdz::ring::{Int64, Ring, Side};
use spdz::role::{self, Client, Producer, Server, ServerLinks, provide_model, report_tag};
use zeroize::Zeroizing;

use crate::config::{ConfigError, PartyConfig, Workload};
use crate::files;
use crate::net::{self, ConnectError, Link};
use crate::result::{AccuracyCounter, Latency, RunResult};
use crate::workload::{self, DataError, Expected, Inputs};

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The weights file.
    #[error("weights {}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: WeightsError,
    },
    /// Another file.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The peers could not be connected.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The protocol.
    #[error(transparent)]
    Role(#[from] role::Error),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The result could not be written.
    #[error("cannot write the result {}: {source}", path.display())]
    Result {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

const INTERNAL: u8 = 1;
const INPUT: u8 = 2;
const DISAGREEMENT: u8 = 3;
const PEER_LOST: u8 = 4;

impl RunError {
    /// What the peers are told. Nothing about this party's own files and values.
    fn public_reason(&self) -> String {
        match self {
            Self::Role(error @ (role::Error::Channel { .. } | role::Error::Command { .. })) => {
                error.to_string()
            }
            Self::Role(_) => "its model, input or output does not fit; its own log says why".into(),
            _ => "a failure of its own; its own log says why".into(),
        }
    }

    /// The exit code of the process; `party --help` lists them.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let fault = |fault: &ChannelFault| match fault {
            ChannelFault::Lost { .. }
            | ChannelFault::Deadline { .. }
            | ChannelFault::Unread { .. }
            | ChannelFault::Aborted { disagreement: false, .. } => PEER_LOST,
            ChannelFault::Aborted { disagreement: true, .. }
            | ChannelFault::Tag { .. }
            | ChannelFault::Length { .. }
            | ChannelFault::Envelope { .. } => DISAGREEMENT,
        };
        match self {
            Self::Config(_) | Self::Weights { .. } | Self::Data(_) => INPUT,
            Self::Connect(error) => match error {
                ConnectError::Config(_)
                | ConnectError::Identity(_)
                | ConnectError::Listen { .. } => INPUT,
                ConnectError::Runtime(_) => INTERNAL,
                ConnectError::Absent { .. } => PEER_LOST,
                ConnectError::Refused { .. } | ConnectError::Mismatch { .. } => DISAGREEMENT,
                ConnectError::Handshake { fault: found, .. } => fault(found),
            },
            Self::Role(role::Error::Channel { error, .. }) => fault(&error.fault),
            Self::Role(role::Error::Command { .. }) => DISAGREEMENT,
            Self::Role(
                role::Error::Range { .. }
                | role::Error::OutputRange { .. }
                | role::Error::InputLength { .. }
                | role::Error::Weights(_),
            ) => INPUT,
            Self::NoRandomness(_) | Self::Result { .. } => INTERNAL,
        }
    }
}

/// Runs the party that `config` describes.
///
/// # Errors
/// Whatever keeps the run from completing; the peers are told.
pub fn run(config: &PartyConfig) -> Result<(), RunError> {
    let plan = Arc::new(config.computation.plan()?);
    // Files first: a party that cannot do its part should not keep others waiting.
    let part = match (&config.model, &config.workload) {
        (Some(model), _) => {
            let path = &model.weights;
            let file = Zeroizing::new(workload::read(path)?);
            let weights = Weights::from_safetensors(&file, plan.network())
                .map_err(|source| RunError::Weights { path: path.clone(), source })?;
            Part::ModelOwner(weights)
        }
        (_, Some(workload)) => {
            let inputs = Inputs::load(workload, &plan)?;
            let accuracy = workload.accuracy.as_ref();
            let expected = accuracy.map(|a| Expected::load(a, &inputs, &plan)).transpose()?;
            Part::Client(workload, inputs, expected)
        }
        _ => Part::Other,
    };
    tracing::info!(role = %config.role, session = %config.session.0, plan = %plan.digest(), "starting");
    let mut links = net::connect(config, &plan)?;
    tracing::info!(role = %config.role, "connected to all peers");
    let outcome = match plan.format() {
        NumberFormat::Int64 => play::<Int64>(config, &plan, part, &mut links),
    };
    match outcome {
        Ok(()) => {
            let closed = net::close(links, config.deadlines.message());
            // Only the model owner leaves while others still depend on what it sent.
            if config.role == Role::ModelOwner {
                closed.map_err(parting)?;
            }
            tracing::info!(role = %config.role, "done");
            Ok(())
        }
        Err(error) => {
            net::give_up(links, &error.public_reason(), error.exit_code() == DISAGREEMENT);
            Err(error)
        }
    }
}

/// A failure of a message that is this crate's affair, not the plan's.
fn at(place: &'static str) -> impl Fn(ChannelError) -> RunError {
    move |error| RunError::Role(role::Error::Channel { place: place.into(), error })
}

/// A failure after the last message.
fn parting(fault: ChannelFault) -> RunError {
    at("closing the connections")(ChannelError { tag: report_tag(0), fault })
}

/// What a party brings to the run besides its configuration.
enum Part<'config> {
    ModelOwner(Weights),
    Client(&'config Workload, Inputs, Option<Expected>),
    Other,
}

/// The link to `peer`, taken out of `links`.
fn take(links: &mut Vec<Link>, peer: Role) -> Link {
    let Some(index) = links.iter().position(|link| link.peer() == peer) else {
        unreachable!("connecting returns a link to every peer of the role");
    };
    links.swap_remove(index)
}

fn play<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    part: Part<'_>,
    links: &mut Vec<Link>,
) -> Result<(), RunError> {
    let session = config.session.0;
    match (config.role, part) {
        (Role::Server0, _) => serve::<R>(config, plan, Side::Zero, links),
        (Role::Server1, _) => serve::<R>(config, plan, Side::One, links),
        (Role::Producer, _) => {
            let root = Seed::fresh()?;
            let servers = servers(links);
            let mut producer = Producer::<R, _>::set_up(plan.clone(), session, &root, servers)?;
            let inferences = producer.serve()?;
            tracing::info!(inferences, "made all randomness");
            Ok(())
        }
        (Role::ModelOwner, Part::ModelOwner(weights)) => {
            provide_model::<R, _>(plan, &weights, &mut servers(links))?;
            tracing::info!("sent the masked model");
            Ok(())
        }
        (Role::Client, Part::Client(workload, inputs, expected)) => {
            let result = infer::<R>(plan, workload, &inputs, expected.as_ref(), links)?;
            write_result(&workload.result, &result)
        }
        (Role::ModelOwner | Role::Client, _) => {
            unreachable!("a configuration without its role's section is refused")
        }
    }
}

/// The links to the two servers, in their order.
fn servers(links: &mut [Link]) -> [&mut Link; 2] {
    links.sort_by_key(Link::peer);
    let [server0, server1] = links else {
        unreachable!("producer, model owner and client have the two servers as peers");
    };
    [server0, server1]
}

fn serve<R: Ring>(
    config: &PartyConfig,
    plan: &Arc<Plan>,
    side: Side,
    links: &mut Vec<Link>,
) -> Result<(), RunError> {
    let mut model_owner = take(links, Role::ModelOwner);
    links.sort_by_key(Link::peer);
    let [other, producer, client] = &mut links[..] else {
        unreachable!("a server has four peers");
    };
    let borrowed =
        ServerLinks { other: &mut *other, producer: &mut *producer, client: &mut *client };
    let mut server = match Server::<R, _>::set_up(
        plan.clone(),
        config.session.0,
        side,
        Seed::fresh()?,
        borrowed,
        &mut model_owner,
    ) {
        Ok(server) => server,
        Err(error) => {
            // The caller tells the others.
            let error = RunError::from(error);
            let disagreement = error.exit_code() == DISAGREEMENT;
            net::give_up(vec![model_owner], &error.public_reason(), disagreement);
            return Err(error);
        }
    };
    model_owner.close(config.deadlines.message()).map_err(parting)?;
    tracing::info!("holds the masked model");
    let inferences = server.serve()?;
    tracing::info!(inferences, "evaluated all inferences");
    let report = Report::of(other, producer, client);
    let tag = report_tag(inferences);
    client.send(tag, report.to_bytes()).map_err(at("report to the client"))
}

/// What a server measured over a session; sums over all inferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Report {
    /// In gRPC messages sent by this server, or to it by the client or the producer, bytes.
    online_bytes: u64,
    /// The same of the offline phase, bytes.
    offline_bytes: u64,
    /// Online messages from the other server.
    online_rounds: u64,
}

impl Report {
    const BYTES: usize = 24;

    fn of(other: &Link, producer: &Link, client: &Link) -> Self {
        let [other, producer, client] = [other, producer, client].map(Link::traffic);
        let bytes = |phase: Phase| {
            let phase = phase as usize;
            // What the other server sends is in its own report.
            other.sent_bytes[phase]
                + client.sent_bytes[phase]
                + client.received_bytes[phase]
                + producer.received_bytes[phase]
        };
        Self {
            online_bytes: bytes(Phase::Online),
            offline_bytes: bytes(Phase::Offline),
            online_rounds: other.received_messages[Phase::Online as usize],
        }
    }

    fn to_bytes(self) -> Bytes {
        let fields = [self.online_bytes, self.offline_bytes, self.online_rounds];
        fields.iter().flat_map(|field| field.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut fields = bytes.as_chunks::<8>().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next().unwrap_or_default();
        Self { online_bytes: next(), offline_bytes: next(), online_rounds: next() }
    }
}

/// How far the client is; a line of JSON on standard output each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// What it does.
    pub stage: Stage,
    /// Inferences done.
    pub done: u64,
    /// Of how many.
    pub of: u64,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Inferences that are not timed.
    Warmup,
    /// Timed inferences.
    Timed,
    /// Scoring the test set.
    Accuracy,
}

impl Progress {
    /// Tells whoever reads standard output, seldom enough not to disturb what is measured.
    fn tell(self, last: &mut Option<Instant>) {
        let now = Instant::now();
        let due = last.is_none_or(|last| now - last > Duration::from_millis(200));
        if due || self.done == self.of {
            *last = Some(now);
            if let Ok(line) = serde_json::to_string(&self) {
                // Nobody has to read it.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }
}

fn infer<R: Ring>(
    plan: &Arc<Plan>,
    workload: &Workload,
    inputs: &Inputs,
    expected: Option<&Expected>,
    links: &mut [Link],
) -> Result<RunResult, RunError> {
    let batch = plan.batch();
    let mut client = Client::<R, _>::new(plan.clone(), servers(links));
    let mut told = None;
    let mut offline = Vec::new();
    let mut online = Vec::new();
    let milliseconds = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    for (stage, count) in [(Stage::Warmup, workload.warmup), (Stage::Timed, workload.repetitions)] {
        for done in 0..count {
            let images = inputs.batch((done as usize).wrapping_mul(batch) % inputs.count(), batch);
            let start = Instant::now();
            let ready = client.prepare()?;
            let prepared = Instant::now();
            let outputs = client.infer(ready, &images);
            let end = Instant::now();
            tolerate(outputs)?;
            if stage == Stage::Timed {
                offline.push(milliseconds(start, prepared));
                online.push(milliseconds(prepared, end));
            }
            Progress { stage, done: done + 1, of: count }.tell(&mut told);
        }
    }

    let mut counter = AccuracyCounter::default();
    let samples = expected.map_or(0, |expected| expected.samples);
    let mut out_of_range = 0;
    for first in (0..samples).step_by(batch) {
        let ready = client.prepare()?;
        let outputs = tolerate(client.infer(ready, &inputs.batch(first, batch)))?;
        out_of_range += usize::from(outputs.is_none());
        let Some(expected) = expected else { break };
        let classes = expected.classes;
        for image in first..samples.min(first + batch) {
            let row = |at: usize| at * classes..(at + 1) * classes;
            let secure = outputs.as_ref().map(|outputs| &outputs[row(image - first)]);
            counter.add(expected.labels[image], &expected.logits[row(image)], secure);
        }
        let done = samples.min(first + batch) as u64;
        Progress { stage: Stage::Accuracy, done, of: samples as u64 }.tell(&mut told);
    }
    if out_of_range > 0 {
        tracing::warn!(out_of_range, "scored inferences out of range as wrong");
    }

    let inferences = client.finish()?;
    let mut sum = Report::default();
    for server in servers(links) {
        let bytes =
            server.recv(report_tag(inferences), Report::BYTES).map_err(at("report of a server"))?;
        let report = Report::from_bytes(&bytes);
        sum.online_bytes = sum.online_bytes.saturating_add(report.online_bytes);
        sum.offline_bytes = sum.offline_bytes.saturating_add(report.offline_bytes);
        sum.online_rounds = sum.online_rounds.max(report.online_rounds);
    }
    let each = inferences.max(1);
    let combined: Vec<f64> = offline.iter().zip(&online).map(|(x, y)| x + y).collect();
    Ok(RunResult {
        network: plan.network().name.clone(),
        format: plan.format(),
        truncation: plan.truncation(),
        batch_size: batch,
        repetitions: workload.repetitions,
        combined: Latency::of(&combined),
        online: Latency::of(&online),
        offline: Latency::of(&offline),
        online_bytes: sum.online_bytes / each,
        offline_bytes: sum.offline_bytes / each,
        online_rounds: sum.online_rounds / each,
        accuracy: expected.map(|_| counter.finish()),
    })
}

/// The outputs, or nothing if they are out of range: a local truncation may fail,
/// and the next inference is none the worse for it.
fn tolerate(outputs: Result<Vec<f64>, role::Error>) -> Result<Option<Vec<f64>>, RunError> {
    match outputs {
        Ok(outputs) => Ok(Some(outputs)),
        Err(error @ role::Error::OutputRange { .. }) => {
            tracing::warn!("{error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the result so that a reader sees all of it or none.
fn write_result(path: &Path, result: &RunResult) -> Result<(), RunError> {
    let refuse = |source: std::io::Error| RunError::Result { path: path.into(), source };
    let json = serde_json::to_vec_pretty(result).map_err(|error| refuse(error.into()))?;
    files::write_whole(path, &json).map_err(refuse)
}
