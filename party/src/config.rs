//! What a party runs and where its peers are: the process's only input.
//!
//! The same type is written by whoever launches parties (on one machine, in a
//! cluster) and read here, so the two cannot drift.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spdz::channel::Role;
use spdz::network::Network;
use spdz::plan::{NumberFormat, Plan, PlanError, Truncation};
use spdz::prg::SessionId;

/// Largest configuration file, bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

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
    /// `host:port` of the servers that this party dials: both for the producer,
    /// the model owner and the client, `server0` for `server1`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<Role, String>,
    /// How long to wait for what.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// How to wait and send.
    #[serde(default)]
    pub transport: Transport,
    /// The weights; model owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
    /// What to infer and measure; client only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
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

/// What the parties compute together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Computation {
    /// `A`, `B` or `C`, the networks of the paper's Figure 3.
    pub network: String,
    /// The number format.
    #[serde(default = "Computation::default_format")]
    pub format: NumberFormat,
    /// The truncation.
    #[serde(default = "Computation::default_truncation")]
    pub truncation: Truncation,
    /// Inputs of one inference, 1 to 1024.
    #[serde(default = "Computation::default_batch_size")]
    pub batch_size: usize,
}

impl Computation {
    fn default_format() -> NumberFormat {
        NumberFormat::Int64
    }

    fn default_truncation() -> Truncation {
        Truncation::Local
    }

    fn default_batch_size() -> usize {
        1
    }

    /// Compiles the plan.
    ///
    /// # Errors
    /// If there is no such network or it does not fit the format.
    pub fn plan(&self) -> Result<Plan, ConfigError> {
        let network = Network::builtin(&self.network)
            .ok_or_else(|| ConfigError::Network { found: self.network.clone() })?;
        Ok(Plan::compile(&network, self.batch_size, self.format, self.truncation)?)
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
    /// For all peers to be connected, once this party has read its files.
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
}

impl Default for Transport {
    fn default() -> Self {
        Self { spin_micros: 50, chunk_bytes: 128 << 10 }
    }
}

/// Where the weights are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// A safetensors file with the network's parameters.
    pub weights: PathBuf,
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
    /// Timed inferences.
    #[serde(default)]
    pub repetitions: u64,
    /// What to score afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyWorkload>,
    /// Where to write the result, JSON.
    pub result: PathBuf,
}

/// What the secure outputs are scored against.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccuracyWorkload {
    /// How many images, from the first.
    pub samples: usize,
    /// Their labels in the idx format of MNIST, gzipped or not.
    pub labels: PathBuf,
    /// What the network says in the clear: a safetensors file with `logits`, `[images, classes]`, F32.
    pub reference: PathBuf,
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
        source: serde_yaml::Error,
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
    /// There is no such network.
    #[error("there is no network {found:?}; the networks are A, B and C")]
    Network {
        /// The name.
        found: String,
    },
    /// The network cannot be planned.
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
        let config: Self = serde_yaml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source })?;
        config.check()?;
        Ok(config)
    }

    /// The roles that this one dials.
    #[must_use]
    pub fn dials(role: Role) -> &'static [Role] {
        match role {
            Role::Server0 => &[],
            Role::Server1 => &[Role::Server0],
            Role::Producer | Role::ModelOwner | Role::Client => &[Role::Server0, Role::Server1],
        }
    }

    /// The roles that dial this one.
    #[must_use]
    pub fn accepts(role: Role) -> Vec<Role> {
        Role::ALL.into_iter().filter(|peer| Self::dials(*peer).contains(&role)).collect()
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// If a section is missing or does not belong to the role, or a number is not usable.
    pub fn check(&self) -> Result<(), ConfigError> {
        let role = self.role;
        let section = |there: bool, needed: bool, name: &str| match (there, needed) {
            (false, true) => Err(ConfigError::Section { role, problem: format!("needs `{name}`") }),
            (true, false) => {
                let problem = format!("has `{name}`, which is another role's");
                Err(ConfigError::Section { role, problem })
            }
            _ => Ok(()),
        };
        let is_server = matches!(role, Role::Server0 | Role::Server1);
        section(self.listen.is_some(), is_server, "listen")?;
        section(self.model.is_some(), role == Role::ModelOwner, "model")?;
        section(self.workload.is_some(), role == Role::Client, "workload")?;
        for peer in Role::ALL {
            let needed = Self::dials(role).contains(&peer);
            section(self.peers.contains_key(&peer), needed, &format!("peers.{peer}"))?;
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
        self.computation.plan().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_configuration_survives_writing_and_reading() {
        let config = load(SERVER1).unwrap();
        assert_eq!(config.role, Role::Server1);
        assert_eq!(config.computation.format, NumberFormat::Int64);
        let text = serde_yaml::to_string(&config).unwrap();
        assert_eq!(serde_yaml::to_string(&load(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (SERVER1.replace("batchSize", "batchsize"), "unknown field `batchsize`"),
            (SERVER1.replace("identity", "plaintext: true\nidentity"), "unknown field `plaintext`"),
            (SERVER1.replace("listen: 127.0.0.1:7001\n", ""), "server1 needs `listen`"),
            (SERVER1.replace("server0:", "client:"), "server1 needs `peers.server0`"),
            (SERVER1.to_owned() + "model: { weights: c.safetensors }\n", "another role's"),
            (SERVER1.replace("network: C", "network: D"), "the networks are A, B and C"),
            (SERVER1.replace("batchSize: 10", "batchSize: 0"), "batch size 0"),
            (SERVER1.replace("0e0f", "0e0"), "32 hexadecimal digits"),
            (SERVER1.replace("0e0f", "0eag"), "32 hexadecimal digits"),
            (SERVER1.replace("role: server1", "role: server2"), "unknown variant `server2`"),
            (SERVER1.to_owned() + "deadlines: { messageSeconds: 0 }\n", "messageSeconds is 0"),
            (SERVER1.to_owned() + "deadlines: { messageSeconds: .nan }\n", "messageSeconds is NaN"),
            (SERVER1.to_owned() + "transport: { chunkBytes: 7 }\n", "chunkBytes is 7"),
        ];
        for (text, expected) in cases {
            let message = load(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n(expected {expected})");
        }
        let missing = PartyConfig::load(Path::new("no/such/file")).unwrap_err().to_string();
        assert!(missing.contains("no/such/file"), "{missing}");
    }
}
