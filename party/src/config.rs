//! What a party runs and where its peers are: the process's only input.
//!
//! The same type is written by whoever launches parties (on one machine, in a
//! cluster) and read here, so the two cannot drift.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spdz::channel::{Name, Role};
use spdz::graph::Graph;
use spdz::network::{Network, NetworkError};
use spdz::plan::{NumberFormat, Plan, PlanError, Truncation};
use spdz::prg::SessionId;

use crate::tensors::{self, MAX_OUTPUT_BYTES};
use crate::trace::{self, SettingsError};
use crate::yaml::{self, YamlError};

/// Largest configuration file, bytes: room for a graph with its public constants.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Most evaluations that a player asks for.
const MAX_EVALUATIONS: u64 = 1_000_000;

/// Longest warm-up, seconds.
const MAX_WARMUP_SECONDS: u64 = 600;

/// Largest part of a message, bytes.
pub const MAX_CHUNK_BYTES: usize = 4 << 20;

/// The configuration of one party.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartyConfig {
    /// Which role this process plays; its certificate must say the same.
    pub role: Role,
    /// 32 hexadecimal digits, the same at all parties, never used twice.
    pub session: Session,
    /// What is computed; must be the same at all parties.
    pub computation: Computation,
    /// This party's certificate and key.
    pub identity: Identity,
    /// Where to listen for peers; servers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// `host:port` of the servers that this party dials: both for the producer and
    /// the players, `server0` for `server1`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<Role, String>,
    /// How long to wait for what.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// How to wait and send.
    #[serde(default)]
    pub transport: Transport,
    /// The preprocessing store; servers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,
    /// How many threads large products are divided among, 1 to 256; without it as
    /// many as there are cores for this process. Servers and producer only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// What this player brings and what it does with what it learns; players only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<PlayerTask>,
    /// What to infer and measure; in place of `player` for the client of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// How to watch this party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
}

/// A session id in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Session(pub SessionId);

impl TryFrom<String> for Session {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("a session id is 32 hexadecimal digits, found {text:?}");
        if text.len() != 32 || !text.is_ascii() {
            return Err(refuse());
        }
        let mut bytes = [0; 16];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(SessionId(bytes)))
    }
}

impl From<Session> for String {
    fn from(session: Session) -> Self {
        session.0.to_string()
    }
}

/// What the parties compute together: a `network` or a `graph`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Computation {
    /// `A`, `B` or `C`, the networks of the paper's Figure 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Inputs of one inference, 1 to 1024; 1 without it. Networks only: the shapes of
    /// a graph are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Any other computation, in the serialised form of [`Graph`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// The number format.
    #[serde(default)]
    pub format: NumberFormat,
    /// The truncation; without it, the [usual one](NumberFormat::usual_truncation) of
    /// the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<Truncation>,
    /// Not private: the client of a network learns the outputs of every layer, and so the
    /// weights. For benchmarks, with `workload.inspect`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inspect: bool,
}

impl Computation {
    /// One of the paper's networks on a batch, with the usual truncation.
    #[must_use]
    pub fn of_network(name: &str, batch_size: usize, format: NumberFormat) -> Self {
        Self {
            network: Some(name.into()),
            batch_size: Some(batch_size),
            graph: None,
            format,
            truncation: None,
            inspect: false,
        }
    }

    /// A graph, with the usual truncation.
    #[must_use]
    pub fn of_graph(graph: Graph, format: NumberFormat) -> Self {
        Self {
            network: None,
            batch_size: None,
            graph: Some(graph),
            format,
            truncation: None,
            inspect: false,
        }
    }

    /// Inputs of one inference; 1 for a graph.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch_size.unwrap_or(1)
    }

    /// Compiles the plan.
    ///
    /// # Errors
    /// If it is not either a network or a graph, there is no such network, or it does
    /// not fit the format.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        let truncation = self.truncation.unwrap_or(self.format.usual_truncation());
        let compile = |graph: &Graph| Ok(Plan::compile(graph, self.format, truncation)?);
        match (&self.network, &self.graph) {
            (Some(name), None) => {
                let network = Network::builtin(name)
                    .ok_or_else(|| ConfigError::Network { found: name.clone() })?;
                match self.inspect {
                    true => compile(&network.inspected_graph(self.batch())?),
                    false => compile(&network.graph(self.batch())?),
                }
            }
            (None, Some(_)) if self.inspect => Err(ConfigError::Computation(
                "has `inspect` beside `graph`; it is for benchmarks of networks A, B and C, leave it out",
            )),
            (None, Some(_)) if self.batch_size.is_some() => Err(ConfigError::Computation(
                "has `batchSize` beside `graph`; the graph's shapes say it, leave it out",
            )),
            (None, Some(graph)) => compile(graph),
            (None, None) => Err(ConfigError::Computation(
                "needs `network` (A, B or C) or `graph`, found neither",
            )),
            (Some(_), Some(_)) => Err(ConfigError::Computation(
                "has both `network` and `graph`; leave one of them out",
            )),
        }
    }
}

/// Files with this party's identity, PEM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// This party's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate of the authority that every party's certificate comes from.
    pub authority: PathBuf,
}

/// How long to wait before giving up, seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Deadlines {
    /// For all peers to be connected and introduced, once this party has read its files.
    pub connect_seconds: f64,
    /// For any one message.
    pub message_seconds: f64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect_seconds: 60.0, message_seconds: 60.0 }
    }
}

impl Deadlines {
    /// For all peers to be connected.
    #[must_use]
    pub fn connect(&self) -> Duration {
        Duration::from_secs_f64(self.connect_seconds)
    }

    /// For any one message.
    #[must_use]
    pub fn message(&self) -> Duration {
        Duration::from_secs_f64(self.message_seconds)
    }
}

/// How to wait and how to send.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Transport {
    /// How long to look for a message again and again before sleeping until it
    /// comes, microseconds. Waking up costs more than most waits last.
    pub spin_micros: u64,
    /// Longer messages are sent in parts of this size, so that one side can
    /// decrypt while the other still encrypts; bytes.
    pub chunk_bytes: usize,
    /// A slower network to imitate on all links, in what this party sends; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Conditions>,
}

impl Default for Transport {
    fn default() -> Self {
        Self { spin_micros: 50, chunk_bytes: 128 << 10, network: None }
    }
}

/// What a network does to what is sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Conditions {
    /// From one party to another and back, milliseconds, 0 to 10000.
    #[schemars(range(min = 0, max = 10_000))]
    pub rtt_ms: f64,
    /// By how much what is sent may be later, uniformly and each way, milliseconds, 0 to
    /// 10000; nothing overtakes.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub jitter_ms: f64,
    /// Of each link and each way, millions of bits a second, 0.1 to 1000000; unlimited
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1_000_000))]
    pub bandwidth_mbps: Option<f64>,
}

impl Conditions {
    /// Parties in one data centre: 0.5 ms, 10 Gbit/s.
    pub const LAN: Self = Self { rtt_ms: 0.5, jitter_ms: 0.0, bandwidth_mbps: Some(10_000.0) };

    /// Parties far apart: 40 ms, 100 Mbit/s.
    pub const WAN: Self = Self { rtt_ms: 40.0, jitter_ms: 0.0, bandwidth_mbps: Some(100.0) };

    /// From one party to the other, when nothing else is sent.
    #[must_use]
    pub fn one_way(&self) -> Duration {
        Duration::from_secs_f64(self.rtt_ms / 2e3)
    }

    /// The longest delay beside [`one_way`](Self::one_way).
    #[must_use]
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter_ms / 1e3)
    }

    /// From the first of `bytes` that leaves to the last.
    #[must_use]
    pub fn transmission(&self, bytes: usize) -> Duration {
        let bits = 8.0 * bytes as f64;
        self.bandwidth_mbps
            .map_or(Duration::ZERO, |mbps| Duration::from_secs_f64(bits / (mbps * 1e6)))
    }

    /// Bytes that may be on their way at once, and `buffer` besides.
    pub(crate) fn under_way(&self, buffer: usize) -> usize {
        // Without a limit, that of a fast one.
        let mbps = self.bandwidth_mbps.unwrap_or(100_000.0);
        let seconds = (self.one_way() + self.jitter()).as_secs_f64();
        buffer.saturating_add((seconds * mbps * 1e6 / 8.0).min(256e6) as usize)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// If a number is out of its range.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let numbers = [
            ("rttMs", Some(self.rtt_ms), 0.0..=10_000.0),
            ("jitterMs", Some(self.jitter_ms), 0.0..=10_000.0),
            ("bandwidthMbps", self.bandwidth_mbps, 0.1..=1_000_000.0),
        ];
        for (setting, found, range) in numbers {
            if let Some(found) = found.filter(|found| !range.contains(found)) {
                return Err(OutOfRange { setting, found, range });
            }
        }
        Ok(())
    }
}

/// A number of [`Conditions`] that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{setting} is {found}, expected {} to {}", range.start(), range.end())]
pub struct OutOfRange {
    setting: &'static str,
    found: f64,
    range: std::ops::RangeInclusive<f64>,
}

/// The preprocessing store: how much prepared randomness may wait at a server, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Store {
    /// In memory, units of 2^20 bytes, 1 to 1048576. One evaluation's is always kept.
    pub memory_megabytes: u64,
    /// On disk, for what does not fit into memory, units of 2^20 bytes, 0 to 1048576.
    /// It is encrypted under a key that this process alone has.
    pub disk_megabytes: u64,
    /// The folder for what is on disk, which is there and this server's alone; needed
    /// with `diskMegabytes` and not without. What an earlier process left there is removed,
    /// but for empty files that tell which sessions were run: none is run twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl Default for Store {
    fn default() -> Self {
        Self { memory_megabytes: 1024, disk_megabytes: 0, folder: None }
    }
}

impl Store {
    /// A store in memory alone.
    #[must_use]
    pub fn in_memory(megabytes: u64) -> Self {
        Self { memory_megabytes: megabytes, ..Self::default() }
    }
}

/// When randomness is made.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum OfflineMode {
    /// Before each evaluation, and as part of its runtime.
    #[default]
    Inline,
    /// For all warm-up and timed evaluations before the first of them.
    Ahead,
}

impl std::fmt::Display for OfflineMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Inline => "inline",
            Self::Ahead => "ahead",
        })
    }
}

/// What a player brings and what it does with what it learns. What is there besides
/// `inputs` and `outputs` is for the coordinator ([`Plan::coordinator`]).
///
/// Evaluations are counted from 0, warm-up included, at all players alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlayerTask {
    /// A safetensors file with what the graph has the player bring, by name: F32 or
    /// F64, in the graph's shape. What it brings to each evaluation may have one more
    /// axis in front; evaluation k then takes row k, and the first again after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<PathBuf>,
    /// Where to write what the player learns, a safetensors file: by name, F64, one row
    /// an evaluation, NaN where a result was out of the format's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<PathBuf>,
    /// Evaluations before the timed ones; 0 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<u64>,
    /// Timed evaluations; 1 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u64>,
    /// When randomness is made; inline without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineMode>,
    /// Where to write what was measured, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<PathBuf>,
}

/// What the client infers and measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// Images in the idx format of MNIST, gzipped or not.
    pub images: PathBuf,
    /// Inferences before the timed ones.
    #[serde(default)]
    pub warmup: u64,
    /// For how long inferences are made before those, seconds, at most 600: their number
    /// depends on how long they take.
    #[serde(default)]
    pub warmup_seconds: u64,
    /// Timed inferences.
    #[serde(default)]
    pub repetitions: u64,
    /// When randomness is made; what is scored has it made inline.
    #[serde(default)]
    pub offline: OfflineMode,
    /// What to score afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyWorkload>,
    /// Not private: the outputs of every layer are compared with those of the plaintext
    /// computation. With `computation.inspect` at all parties, and not without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inspect: Option<InspectWorkload>,
    /// Where to write the result, JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<PathBuf>,
}

/// What the secure outputs are scored against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccuracyWorkload {
    /// How many images, from the first.
    pub samples: usize,
    /// Their labels in the idx format of MNIST, gzipped or not.
    pub labels: PathBuf,
    /// The plaintext network's logits: a safetensors file with `logits`, `[images, classes]`,
    /// F32. Without it, because nobody has the plaintext weights, say, outputs are scored
    /// against the labels alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What the layers are inspected with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InspectWorkload {
    /// How many images, from the first, 1 to 10000.
    pub samples: usize,
    /// The model owner's weights: in a benchmark the client knows them too.
    pub weights: PathBuf,
}

/// Most images that are inspected.
pub const MAX_INSPECTED: usize = 10_000;

/// How to watch a party.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where to answer HTTP requests for `/healthz`, `/readyz` and `/metrics`; nowhere
    /// without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// `http://host:port` of a collector that takes traces, OTLP over gRPC; without it, what
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// The part of the inferences that is traced, 0 to 1, the same at all parties; without
    /// it, what `OTEL_TRACES_SAMPLER` says, or 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_ratio: Option<f64>,
    /// The span that the start of this run belongs to, a W3C `traceparent`; without it the
    /// start is a trace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<trace::Context>,
}

impl Telemetry {
    fn check(&self) -> Result<(), ConfigError> {
        if let Some(endpoint) = &self.otlp_endpoint {
            trace::check_endpoint("telemetry.otlpEndpoint", endpoint)?;
        }
        match self.sampling_ratio {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => Err(ConfigError::Number {
                setting: "telemetry.samplingRatio",
                found: ratio.to_string(),
                expected: "0 to 1",
            }),
            _ => Ok(()),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too large to be a configuration.
    #[error("the configuration {} has {found} bytes, at most {MAX_CONFIG_BYTES} are accepted", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// The file is not a configuration.
    #[error("the configuration {} is not valid: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: YamlError,
    },
    /// A section is missing, or belongs to another role.
    #[error("the configuration of {role} {problem}")]
    Section {
        /// The role.
        role: Role,
        /// What is wrong.
        problem: String,
    },
    /// A number is not usable.
    #[error("{setting} is {found}, expected {expected}")]
    Number {
        /// The setting.
        setting: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Traces cannot be sent there.
    #[error(transparent)]
    Traces(#[from] SettingsError),
    /// So is one of the network to imitate.
    #[error("transport.network.{0}")]
    Conditions(#[from] OutOfRange),
    /// What to compute is not said once.
    #[error("the computation {0}")]
    Computation(&'static str),
    /// There is no such network.
    #[error("there is no network {found:?}; the networks are A, B and C")]
    Network {
        /// The name.
        found: String,
    },
    /// There is no such player.
    #[error("graph {graph} has no player {found}; its players are {players}")]
    Player {
        /// The graph.
        graph: String,
        /// The name.
        found: Name,
        /// The players, separated by commas.
        players: String,
    },
    /// The network cannot be made.
    #[error(transparent)]
    Layers(#[from] NetworkError),
    /// The graph cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl PartyConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, has unknown keys, or lacks what its role needs.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let found = std::fs::metadata(path).map_err(read)?.len();
        if found > MAX_CONFIG_BYTES {
            return Err(ConfigError::Size { path: path.into(), found });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text, path)
    }

    /// Reads and checks the text of a configuration; `path` is for messages.
    ///
    /// # Errors
    /// If it is no YAML, has unknown keys, or lacks what its role needs.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            yaml::parse(text).map_err(|source| ConfigError::Parse { path: path.into(), source })?;
        config.check()?;
        Ok(config)
    }

    /// How many threads large products are divided among.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.and_then(NonZeroUsize::new).unwrap_or_else(cores)
    }

    /// The roles that this one dials.
    #[must_use]
    pub fn dials(role: Role) -> &'static [Role] {
        match role {
            Role::Server0 => &[],
            Role::Server1 => &[Role::Server0],
            Role::Producer | Role::Player(_) => &[Role::Server0, Role::Server1],
        }
    }

    /// The roles of a run of `plan` that dial this one.
    #[must_use]
    pub fn accepts(role: Role, plan: &Plan) -> Vec<Role> {
        plan.roles().into_iter().filter(|peer| Self::dials(*peer).contains(&role)).collect()
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// If a section is missing or does not belong to the role, or a number is not usable.
    pub fn check(&self) -> Result<(), ConfigError> {
        let plan = self.computation.plan()?;
        let role = self.role;
        let roles = plan.roles();
        if !roles.contains(&role) {
            let roles: Vec<&str> = roles.iter().map(Role::name).collect();
            let (graph, roles) = (plan.graph().name(), roles.join(", "));
            let problem = format!("is of no role of graph {graph}; its roles are {roles}");
            return Err(ConfigError::Section { role, problem });
        }
        let section = |there: bool, needed: bool, name: &str| match (there, needed) {
            (false, true) => Err(ConfigError::Section { role, problem: format!("needs `{name}`") }),
            (true, false) => {
                let problem = format!("has `{name}`, which is another role's");
                Err(ConfigError::Section { role, problem })
            }
            _ => Ok(()),
        };
        section(self.listen.is_some(), role.is_server(), "listen")?;
        section(self.store.is_some(), self.store.is_some() && role.is_server(), "store")?;
        let multiplies = !matches!(role, Role::Player(_));
        section(self.threads.is_some(), self.threads.is_some() && multiplies, "threads")?;
        let infers = self.computation.network.is_some() && role == Role::CLIENT;
        section(self.workload.is_some(), infers, "workload")?;
        if let Some(workload) = &self.workload {
            let compares = workload.inspect.is_some();
            section(compares, self.computation.inspect, "workload.inspect")?;
            if workload.warmup_seconds > MAX_WARMUP_SECONDS {
                return Err(ConfigError::Number {
                    setting: "workload.warmupSeconds",
                    found: workload.warmup_seconds.to_string(),
                    expected: "at most 600",
                });
            }
        }
        if let Some(inspect) = self.workload.as_ref().and_then(|workload| workload.inspect.as_ref())
            && !(1..=MAX_INSPECTED).contains(&inspect.samples)
        {
            return Err(ConfigError::Number {
                setting: "workload.inspect.samples",
                found: inspect.samples.to_string(),
                expected: "1 to 10000",
            });
        }
        match role {
            Role::Player(name) if !infers => self.check_player(name, &plan)?,
            _ => section(self.player.is_some(), false, "player")?,
        }
        for peer in Self::dials(role).iter().chain(self.peers.keys()) {
            let needed = Self::dials(role).contains(peer);
            section(self.peers.contains_key(peer), needed, &format!("peers.{peer}"))?;
        }
        if let Some(store) = &self.store {
            self.check_store(store)?;
        }
        if let Some(threads) = self.threads
            && !(1..=256).contains(&threads)
        {
            return Err(ConfigError::Number {
                setting: "threads",
                found: threads.to_string(),
                expected: "1 to 256",
            });
        }
        let deadlines = [
            ("deadlines.connectSeconds", self.deadlines.connect_seconds),
            ("deadlines.messageSeconds", self.deadlines.message_seconds),
        ];
        for (setting, seconds) in deadlines {
            if !(seconds > 0.0 && seconds <= 86_400.0) {
                return Err(ConfigError::Number {
                    setting,
                    found: seconds.to_string(),
                    expected: "more than 0 and at most 86400 (a day)",
                });
            }
        }
        if !(1 << 10..=MAX_CHUNK_BYTES).contains(&self.transport.chunk_bytes) {
            return Err(ConfigError::Number {
                setting: "transport.chunkBytes",
                found: self.transport.chunk_bytes.to_string(),
                expected: "1024 to 4194304",
            });
        }
        if self.transport.spin_micros > 10_000 {
            return Err(ConfigError::Number {
                setting: "transport.spinMicros",
                found: self.transport.spin_micros.to_string(),
                expected: "at most 10000",
            });
        }
        if let Some(telemetry) = &self.telemetry {
            telemetry.check()?;
        }
        self.transport.network.map_or(Ok(()), |network| Ok(network.check()?))
    }

    fn check_store(&self, store: &Store) -> Result<(), ConfigError> {
        let Store { memory_megabytes: memory, disk_megabytes: disk, folder } = store;
        let number = |setting, found: &u64, expected| {
            Err(ConfigError::Number { setting, found: found.to_string(), expected })
        };
        if !(1..=1 << 20).contains(memory) {
            return number("store.memoryMegabytes", memory, "1 to 1048576");
        }
        if *disk > 1 << 20 {
            return number("store.diskMegabytes", disk, "0 to 1048576");
        }
        let problem = match (*disk > 0, folder.is_some()) {
            (true, false) => "needs `store.folder` for its `store.diskMegabytes`",
            (false, true) => "has `store.folder`, but no `store.diskMegabytes` to keep there",
            _ => return Ok(()),
        };
        Err(ConfigError::Section { role: self.role, problem: problem.into() })
    }

    /// Checks the section of a player that is not the client of a network.
    fn check_player(&self, name: Name, plan: &Plan) -> Result<(), ConfigError> {
        let refuse = |problem| Err(ConfigError::Section { role: self.role, problem });
        let task = self.player.as_ref();
        let brings = plan.graph().inputs_of(name);
        let inputs = task.is_some_and(|task| task.inputs.is_some());
        if !inputs && !brings.is_empty() {
            let brings = tensors::describe(&brings);
            return refuse(format!("needs `player.inputs`, a safetensors file with {brings}"));
        }
        let Some(task) = task else { return Ok(()) };
        if inputs && brings.is_empty() {
            return refuse("has `player.inputs`, but the graph has it bring nothing".into());
        }
        if task.outputs.is_some() && !plan.takes_part(name) {
            return refuse("has `player.outputs`, but the graph reveals nothing to it".into());
        }
        let coordinator = plan.coordinator();
        let commands = [
            (task.warmup.is_some(), "warmup"),
            (task.evaluations.is_some(), "evaluations"),
            (task.offline.is_some(), "offline"),
            (task.result.is_some(), "result"),
        ];
        let command = commands.iter().find(|(there, _)| *there && coordinator != name);
        if let Some((_, setting)) = command {
            return refuse(format!(
                "has `player.{setting}`, which is for {coordinator}, the coordinator"
            ));
        }
        let (warmup, evaluations) = (task.warmup.unwrap_or(0), task.evaluations.unwrap_or(1));
        for (setting, found) in [("player.warmup", warmup), ("player.evaluations", evaluations)] {
            if found > MAX_EVALUATIONS {
                let (found, expected) = (found.to_string(), "at most 1000000");
                return Err(ConfigError::Number { setting, found, expected });
            }
        }
        let each: usize = plan
            .graph()
            .outputs_of(name)
            .iter()
            .map(|(_, shape)| 8 * shape.iter().product::<usize>())
            .sum();
        let all = (warmup + evaluations).saturating_mul(each as u64);
        if task.outputs.is_some() && coordinator == name && all > MAX_OUTPUT_BYTES as u64 {
            return refuse(format!(
                "would write {all} bytes into `player.outputs`, at most {MAX_OUTPUT_BYTES} are; \
                 have fewer evaluations"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::graph::GraphBuilder;

    const SERVER1: &str = "
role: server1
session: 000102030405060708090a0b0c0d0e0f
computation: { network: C, batchSize: 10 }
identity: { certificate: tls.crt, key: tls.key, authority: ca.crt }
listen: 127.0.0.1:7001
peers: { server0: '127.0.0.1:7000' }
";

    fn load(text: &str) -> Result<PartyConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("party.yaml");
        std::fs::write(&path, text).unwrap();
        PartyConfig::load(&path)
    }

    /// `alice` commands, `bob` brings something for the session too, `carol` only learns,
    /// and `dave` only brings something for the session.
    fn three() -> Graph {
        let g = GraphBuilder::named("three", ["alice", "bob", "carol", "dave"]);
        let x = g.private_input("alice", [2, 3]);
        let w = g.private_variable("bob", "w", [3, 1]);
        let y = g.share(g.local_input("bob", "y", [2, 1]));
        let bias = g.private_variable("dave", "bias", [1]);
        let z = g.add(g.add(g.matmul(x, w), y), bias);
        g.output("mean", g.reveal("alice", g.reduce_mean(z, [0, 1])));
        g.output("z", g.reveal("carol", z));
        g.build().unwrap()
    }

    fn three_config(role: &str, sections: &str) -> String {
        let graph = serde_yaml::to_string(&three()).unwrap().replace('\n', "\n    ");
        format!(
            "role: {role}\nsession: 000102030405060708090a0b0c0d0e0f\n\
             computation:\n  format: Int64\n  graph:\n    {graph}\n\
             identity: {{ certificate: tls.crt, key: tls.key, authority: ca.crt }}\n\
             peers: {{ server0: 'x:1', server1: 'x:2' }}\n{sections}"
        )
    }

    #[test]
    fn a_configuration_survives_writing_and_reading() {
        let config = load(SERVER1).unwrap();
        assert_eq!(config.role, Role::Server1);
        assert_eq!(config.computation.format, NumberFormat::Int64);
        let alice = "player: { inputs: a.safetensors, evaluations: 3, offline: ahead }\n";
        let disk = SERVER1.to_owned() + "store: { diskMegabytes: 9, folder: x }\nthreads: 2\n";
        let watched = SERVER1.to_owned()
            + "telemetry: { listen: '[::]:9090', \
             otlpEndpoint: 'http://x:4317', samplingRatio: 0.5, \
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 }\n";
        for text in [SERVER1, &disk, &watched, &three_config("alice", alice)] {
            let text = serde_yaml::to_string(&load(text).unwrap()).unwrap();
            assert_eq!(serde_yaml::to_string(&load(&text).unwrap()).unwrap(), text);
        }
        // Everybody compiles the same plan from it.
        let plan = load(&three_config("carol", "")).unwrap().computation.plan().unwrap();
        let own = Plan::compile(&three(), NumberFormat::Int64, Truncation::Local).unwrap();
        assert_eq!(plan.digest(), own.digest());
    }

    #[test]
    fn a_format_has_its_usual_truncation_unless_another_is_said() {
        let truncation = |format: &str| {
            let text = SERVER1.replace("batchSize: 10", format);
            load(&text).unwrap().computation.plan().unwrap().truncation()
        };
        assert_eq!(truncation("format: Int64"), Truncation::Local);
        assert_eq!(truncation("format: Int100"), Truncation::Interactive);
        assert_eq!(truncation("format: Int64, truncation: Interactive"), Truncation::Interactive);
        assert_eq!(truncation("format: Int100, truncation: Local"), Truncation::Local);
    }

    #[test]
    fn every_player_dials_both_servers() {
        let plan = Computation::of_graph(three(), NumberFormat::Int64).plan().unwrap();
        let players = ["alice", "bob", "carol", "dave"].map(|name| name.parse().unwrap());
        let accepts = |role| PartyConfig::accepts(role, &plan);
        assert_eq!(accepts(Role::Server1)[1..], players);
        assert_eq!(accepts(Role::Server1)[0], Role::Producer);
        assert_eq!(accepts(Role::Server0)[..2], [Role::Server1, Role::Producer]);
        assert_eq!(accepts(Role::Server0)[2..], players);
        assert_eq!(accepts(players[0]), []);
    }

    #[test]
    fn a_player_has_what_the_graph_asks_of_it() {
        let inputs = "player: { inputs: x }\n";
        for (role, sections) in
            [("alice", inputs), ("bob", inputs), ("carol", ""), ("carol", "player: { outputs: y }")]
        {
            assert!(load(&three_config(role, sections)).is_ok(), "{role} {sections}");
        }
        let cases = [
            ("alice", "", "alice needs `player.inputs`, a safetensors file with input0 [2, 3]"),
            ("bob", "player: { outputs: y }", "with w [3, 1], y [2, 1]"),
            ("carol", inputs, "the graph has it bring nothing"),
            ("dave", "player: { inputs: x, outputs: y }", "the graph reveals nothing to it"),
            ("carol", "player: { evaluations: 2 }", "which is for alice, the coordinator"),
            ("bob", "player: { inputs: x, offline: ahead }", "has `player.offline`, which is for"),
            ("alice", "player: { inputs: x, evaluations: 1000001 }", "evaluations is 1000001"),
            ("alice", "player: { inputs: x, offline: never }", "unknown variant `never`"),
            ("alice", "player: { inputs: x }\nstore: {}", "has `store`, which is another role's"),
            ("erin", "", "its roles are server0, server1, producer, alice, bob, carol, dave"),
        ];
        for (role, sections, expected) in cases {
            let message = load(&three_config(role, sections)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n(expected {expected})");
        }
        let g = GraphBuilder::new(["alice"]);
        g.output("y", g.reveal("alice", g.private_input("alice", [1 << 12])));
        let mut config = load(&three_config("alice", inputs)).unwrap();
        config.computation = Computation::of_graph(g.build().unwrap(), NumberFormat::Int64);
        let task = config.player.as_mut().unwrap();
        (task.outputs, task.evaluations) = (Some("y".into()), Some(1 << 13));
        assert!(config.check().is_ok(), "just fits");
        config.player.as_mut().unwrap().warmup = Some(1);
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains("would write 268468224 bytes"), "{message}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (SERVER1.replace("batchSize", "batchsize"), "unknown field `batchsize`"),
            (SERVER1.replace("identity", "plaintext: true\nidentity"), "unknown field `plaintext`"),
            (SERVER1.replace("listen: 127.0.0.1:7001\n", ""), "server1 needs `listen`"),
            (SERVER1.replace("server0:", "client:"), "server1 needs `peers.server0`"),
            (SERVER1.replace("7000'", "7000', client: 'x:1'"), "has `peers.client`"),
            (SERVER1.to_owned() + "player: { inputs: c.safetensors }\n", "another role's"),
            (SERVER1.to_owned() + "workload: { images: x, result: y }\n", "another role's"),
            (SERVER1.replace("network: C", "network: D"), "the networks are A, B and C"),
            (SERVER1.replace("network: C, ", ""), "needs `network` (A, B or C) or `graph`"),
            (SERVER1.replace("batchSize: 10", "batchSize: 0"), "batch size 0"),
            (SERVER1.replace("0e0f", "0e0"), "32 hexadecimal digits"),
            (SERVER1.replace("0e0f", "0eag"), "32 hexadecimal digits"),
            (SERVER1.replace("role: server1", "role: server2"), "its roles are server0, server1"),
            (SERVER1.replace("role: server1", "role: Server 1"), "is no player's name"),
            (SERVER1.to_owned() + "deadlines: { messageSeconds: 0 }\n", "messageSeconds is 0"),
            (SERVER1.to_owned() + "deadlines: { messageSeconds: .nan }\n", "messageSeconds is NaN"),
            (SERVER1.to_owned() + "transport: { chunkBytes: 7 }\n", "chunkBytes is 7"),
            (
                SERVER1.to_owned() + "transport: { network: { rttMs: 10001 } }\n",
                "transport.network.rttMs is 10001, expected 0 to 10000",
            ),
            (
                SERVER1.to_owned() + "transport: { network: { rttMs: 1, bandwidthMbps: 0 } }\n",
                "bandwidthMbps is 0, expected 0.1 to 1000000",
            ),
            (SERVER1.to_owned() + "store: { memoryMegabytes: 0 }\n", "memoryMegabytes is 0"),
            (SERVER1.to_owned() + "store: { memory: 1 }\n", "unknown field `memory`"),
            (SERVER1.to_owned() + "store: { diskMegabytes: 1048577 }\n", "expected 0 to 1048576"),
            (SERVER1.to_owned() + "store: { diskMegabytes: 9 }\n", "needs `store.folder`"),
            (SERVER1.to_owned() + "store: { folder: x }\n", "no `store.diskMegabytes`"),
            (SERVER1.to_owned() + "telemetry: { port: 9 }\n", "unknown field `port`"),
            (
                SERVER1.to_owned() + "telemetry: { otlpEndpoint: 'x:4317' }\n",
                "telemetry.otlpEndpoint is \"x:4317\", expected http://host:port",
            ),
            (
                SERVER1.to_owned() + "telemetry: { samplingRatio: 1.5 }\n",
                "telemetry.samplingRatio is 1.5, expected 0 to 1",
            ),
            (SERVER1.to_owned() + "telemetry: { traceparent: 00-0-0-01 }\n", "is no traceparent"),
            (SERVER1.to_owned() + "threads: 0\n", "threads is 0, expected 1 to 256"),
            (SERVER1.to_owned() + "threads: 257\n", "threads is 257, expected 1 to 256"),
            (three_config("carol", "threads: 1\n"), "has `threads`, which is another role's"),
            (three_config("carol", "").replace("  graph:", "  network: A\n  graph:"), "has both"),
            (
                three_config("carol", "").replace("  graph:", "  batchSize: 1\n  graph:"),
                "leave it out",
            ),
        ];
        for (text, expected) in cases {
            let message = load(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n(expected {expected})");
        }
        let missing = PartyConfig::load(Path::new("no/such/file")).unwrap_err().to_string();
        assert!(missing.contains("no/such/file"), "{missing}");
    }
}
