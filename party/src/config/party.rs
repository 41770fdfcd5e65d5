//! The configuration of one party, read and checked as a whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spdz::channel::Role;
use spdz::plan::Plan;
use spdz::protocol::{Protocol, Spdz};

use super::computation::Computation;
use super::deadlines::Deadlines;
use super::error::ConfigError;
use super::identity::Identity;
use super::limits::{self, MAX_CONFIG_BYTES};
use super::player::PlayerTask;
use super::session::Session;
use super::store::Store;
use super::telemetry::Telemetry;
use super::transport::Transport;
use super::workload::Workload;
use crate::yaml;

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
    /// This player's inputs, and what it does with its outputs; players only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub player: Option<PlayerTask>,
    /// What to infer and measure; in place of `player` for the client of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// How to watch this party.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
}

impl PartyConfig {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, has unknown keys, or lacks what its role needs.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(path)?, path)
    }

    /// The text of a configuration, for [`parse`](Self::parse).
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any.
    pub fn read(path: &Path) -> Result<String, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let found = std::fs::metadata(path).map_err(read)?.len();
        if found > MAX_CONFIG_BYTES {
            return Err(ConfigError::Size { path: path.into(), found });
        }
        std::fs::read_to_string(path).map_err(read)
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

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// If a section is missing or does not belong to the role, or a number is not usable.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_against(&self.computation.plan()?)
    }

    /// The same, where the [plan](crate::config::Computation::plan) of the computation is there already.
    ///
    /// # Errors
    /// As [`check`](Self::check), compiling excepted.
    pub fn check_against(&self, plan: &Plan) -> Result<(), ConfigError> {
        let role = self.role;
        let roles = Spdz::roles(plan.graph().players());
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
            workload.check()?;
        }
        match role {
            Role::Player(name) if !infers => {
                PlayerTask::check(self.player.as_ref(), name, plan)?;
            }
            _ => section(self.player.is_some(), false, "player")?,
        }
        for peer in Spdz::dials(role).iter().chain(self.peers.keys()) {
            let needed = Spdz::dials(role).contains(peer);
            section(self.peers.contains_key(peer), needed, &format!("peers.{peer}"))?;
        }
        if let Some(store) = &self.store {
            store.check(role)?;
        }
        if let Some(threads) = self.threads {
            limits::THREADS.check("threads", threads as u64)?;
        }
        self.deadlines.check()?;
        self.transport.check()?;
        if let Some(telemetry) = &self.telemetry {
            telemetry.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::graph::{Graph, GraphBuilder};
    use spdz::plan::{NumberFormat, Truncation};

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

    /// `alice` is the coordinator, `bob` has an input of the session too, `carol` only learns,
    /// and `dave` only has an input of the session.
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
        let accepts = |role| Spdz::accepts(role, plan.graph().players());
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
            ("carol", inputs, "the graph has no input of it"),
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
            (
                SERVER1.replace("network: C", "network: D"),
                "there is no network D; expected one of A, A-relu",
            ),
            (SERVER1.replace("network: C, ", ""), "needs `network` (A, B or C) or `graph`"),
            (SERVER1.replace("batchSize: 10", "batchSize: 0"), "batch size 0"),
            (
                SERVER1.replace("batchSize: 10", "reveal: class"),
                "unknown variant `class`, expected `logits` or `label`",
            ),
            (
                SERVER1.replace("batchSize: 10", "reveal: label, inspect: true"),
                "has `inspect` beside `reveal: label`",
            ),
            (
                SERVER1.replace("batchSize: 10", "reveal: label, format: Int100"),
                "(argmax): Int100 cannot compare numbers",
            ),
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
            (
                three_config("carol", "").replace("  graph:", "  reveal: label\n  graph:"),
                "give it an `argMax`",
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
