//! A resource that has been checked: what its parties compute and how they are made.
//!
//! Pure: knows the resource and what a party reads, and nothing of the cluster.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use party::config::{
    AccuracyWorkload, Computation, Deadlines, Identity, InspectWorkload, OfflineMode, PartyConfig,
    PlayerTask, Session, Telemetry, Transport, Workload,
};
use spdz::channel::Role;
use spdz::graph::Graph;
use spdz::prg::SessionId;

use crate::api::v1alpha1::{
    MAX_GRAPH_BYTES, MAX_NAME_BYTES, Network, Offline, PodSettings, SecureInference,
    SecureInferenceSpec,
};
use crate::trace;

/// The port on which servers listen for their peers.
pub const PARTY_PORT: u16 = 7000;

/// The port of health and metrics.
pub const METRICS_PORT: u16 = 9400;

/// Where a party's own Secret is mounted.
pub const IDENTITY_FOLDER: &str = "/etc/secure-inference";

/// The configuration in that Secret.
pub const CONFIG_FILE: &str = "party.yaml";

/// Where a player's volume is mounted.
pub const VOLUME_FOLDER: &str = "/data";

/// The name of a player's volume in its pod.
pub const VOLUME: &str = "data";

/// Where the image keeps models, test set and references.
const SHARE_FOLDER: &str = "/usr/share/secure-inference";

/// Images in the test set.
const TEST_IMAGES: u32 = 10_000;

/// Why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

/// A checked resource.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its unique id.
    pub uid: String,
    /// What every object of it refers to.
    pub owner: OwnerReference,
    /// What it asks for.
    pub spec: SecureInferenceSpec,
    /// What the parties compute.
    pub computation: Computation,
    /// The name of what they compute.
    pub network: String,
    /// All parties, servers and producer first.
    pub roles: Vec<Role>,
    /// The player that commands and measures.
    pub coordinator: Role,
    volumes: BTreeMap<Role, PartyVolume>,
}

/// What a party mounts besides its Secret.
#[derive(Clone, Debug)]
pub struct PartyVolume {
    /// The volume, named [`VOLUME`].
    pub volume: Volume,
    /// Whether the party may write on it.
    pub writable: bool,
}

impl Job {
    /// Checks a resource.
    ///
    /// # Errors
    /// What is wrong with it, for its user.
    pub fn of(resource: &SecureInference) -> Result<Self, Invalid> {
        let (name, spec) = (resource.name_any(), &resource.spec);
        check_name(&name)?;
        check_numbers(spec)?;
        let computation = computation(spec)?;
        let plan = computation.plan().map_err(|error| Invalid(format!("spec.model: {error}")))?;
        let (Some(namespace), Some(uid)) = (resource.namespace(), resource.uid()) else {
            return invalid(
                "the resource has no namespace or no uid: it is not from an API server",
            );
        };
        let mut job = Self {
            owner: OwnerReference {
                api_version: SecureInference::api_version(&()).into(),
                kind: SecureInference::kind(&()).into(),
                name: name.clone(),
                uid: uid.clone(),
                controller: Some(true),
                block_owner_deletion: None,
            },
            name,
            namespace,
            uid,
            network: plan.graph().name().to_owned(),
            roles: plan.roles(),
            coordinator: Role::Player(plan.coordinator()),
            computation,
            spec: spec.clone(),
            volumes: BTreeMap::new(),
        };
        job.check_players()?;
        job.read_volumes()?;
        // The parties' own checks, so that what they would refuse is refused here.
        let addresses = Addresses { server0: "127.0.0.1".into(), server1: "127.0.0.1".into() };
        for role in &job.roles {
            let config = job.config(*role, Session(SessionId([0; 16])), &addresses);
            config.check().map_err(|error| Invalid(error.to_string()))?;
        }
        Ok(job)
    }

    /// The name of an attempt's object for a role.
    #[must_use]
    pub fn object_name(&self, attempt: u32, role: Role) -> String {
        format!("{}-{attempt}-{role}", self.name)
    }

    /// The settings of a role's pod.
    #[must_use]
    pub fn pod_settings(&self, role: Role) -> PodSettings {
        let parties = &self.spec.parties;
        let own = match role {
            Role::Server0 => parties.server0.as_ref(),
            Role::Server1 => parties.server1.as_ref(),
            Role::Producer => parties.producer.as_ref(),
            Role::MODEL_OWNER => parties.model_owner.as_ref(),
            Role::CLIENT => parties.client.as_ref(),
            Role::Player(_) => None,
        };
        let player = self.player(role).and_then(|player| player.pod.as_ref());
        parties.settings(player.or(own))
    }

    /// What a role mounts besides its Secret.
    #[must_use]
    pub fn volume(&self, role: Role) -> Option<&PartyVolume> {
        self.volumes.get(&role)
    }

    fn read_volumes(&mut self) -> Result<(), Invalid> {
        let model = &self.spec.model;
        let owners = model.volume.iter().map(|volume| {
            ("spec.model.volume".to_owned(), Role::MODEL_OWNER, &volume.source, false)
        });
        let players = self.roles.iter().filter_map(|role| {
            let player = self.player(*role)?;
            let place = format!("spec.model.graph.players.{role}");
            Some((place, *role, player.source.as_ref()?, player.outputs.is_some()))
        });
        self.volumes = owners
            .chain(players)
            .map(|(place, role, source, writable)| {
                let volume = source
                    .named(VOLUME)
                    .map_err(|problem| Invalid(format!("{place}.source {problem}")))?;
                Ok((role, PartyVolume { volume, writable }))
            })
            .collect::<Result<_, Invalid>>()?;
        Ok(())
    }

    fn player(&self, role: Role) -> Option<&crate::api::v1alpha1::Player> {
        self.spec.model.graph.as_ref()?.players.get(role.name())
    }

    /// Images of the test set that are scored.
    #[must_use]
    pub fn accuracy_samples(&self) -> u32 {
        match (self.spec.workload.accuracy_samples, &self.spec.model.graph) {
            (Some(samples), _) => samples,
            (None, None) => TEST_IMAGES,
            (None, Some(_)) => 0,
        }
    }

    /// The configuration of a party.
    #[must_use]
    pub fn config(&self, role: Role, session: Session, addresses: &Addresses) -> PartyConfig {
        let file = |name: &str| Path::new(IDENTITY_FOLDER).join(name);
        let spec = &self.spec;
        let everywhere = addresses.everywhere();
        PartyConfig {
            role,
            session,
            computation: self.computation.clone(),
            identity: Identity {
                certificate: file("tls.crt"),
                key: file("tls.key"),
                authority: file("ca.crt"),
            },
            listen: role.is_server().then(|| (everywhere, PARTY_PORT).into()),
            peers: PartyConfig::dials(role)
                .iter()
                .map(|peer| (*peer, addresses.of_server(*peer)))
                .collect(),
            deadlines: Deadlines {
                // The first party may wait for the last as long as the operator does.
                connect_seconds: f64::from(spec.start_deadline_seconds),
                ..Deadlines::default()
            },
            transport: Transport { network: spec.workload.network, ..Transport::default() },
            store: None,
            threads: match role {
                Role::Player(_) => None,
                _ => spec.parties.threads.and_then(|threads| usize::try_from(threads).ok()),
            },
            player: self.task(role),
            workload: self.workload(role),
            telemetry: Some(Telemetry {
                listen: Some((everywhere, METRICS_PORT).into()),
                otlp_endpoint: spec.telemetry.as_ref().map(|traces| traces.otlp_endpoint.clone()),
                sampling_ratio: spec.telemetry.as_ref().map(|traces| traces.sampling_ratio),
                traceparent: None,
            }),
        }
    }

    /// The configuration of a party in an attempt, whose trace the start of the party is part of.
    #[must_use]
    pub fn config_in(
        &self,
        attempt: u32,
        role: Role,
        session: Session,
        addresses: &Addresses,
    ) -> PartyConfig {
        let mut config = self.config(role, session, addresses);
        if let (Some(telemetry), Some(_)) = (&mut config.telemetry, &self.spec.telemetry) {
            telemetry.traceparent = Some(trace::attempt(&self.uid, attempt));
        }
        config
    }

    /// What a player brings and does, the client of a network excepted.
    fn task(&self, role: Role) -> Option<PlayerTask> {
        let Role::Player(_) = role else { return None };
        let model = &self.spec.model;
        let inputs = if let Some(network) = model.builtin {
            (role == Role::MODEL_OWNER).then(|| model_path(network))
        } else if let Some(volume) = &model.volume {
            (role == Role::MODEL_OWNER).then(|| Path::new(VOLUME_FOLDER).join(&volume.path))
        } else {
            let on_volume = |path: &String| Path::new(VOLUME_FOLDER).join(path);
            let player = self.player(role);
            let workload = &self.spec.workload;
            let coordinates = role == self.coordinator;
            return Some(PlayerTask {
                inputs: player.and_then(|player| player.inputs.as_ref()).map(on_volume),
                outputs: player.and_then(|player| player.outputs.as_ref()).map(on_volume),
                warmup: coordinates.then_some(workload.warmup.into()),
                evaluations: coordinates.then_some(workload.repetitions.into()),
                offline: coordinates.then(|| offline(workload.offline)),
                result: None,
            });
        };
        inputs.map(|inputs| PlayerTask { inputs: Some(inputs), ..PlayerTask::default() })
    }

    /// What the client of a network infers.
    fn workload(&self, role: Role) -> Option<Workload> {
        let network =
            self.spec.model.builtin.or(self.spec.model.volume.as_ref().map(|v| v.network));
        let network = network.filter(|_| role == Role::CLIENT)?;
        let workload = &self.spec.workload;
        let samples = self.accuracy_samples();
        let mnist = Path::new(SHARE_FOLDER).join("mnist");
        Some(Workload {
            images: mnist.join("t10k-images-idx3-ubyte.gz"),
            warmup: workload.warmup.into(),
            warmup_seconds: workload.warmup_seconds.into(),
            repetitions: workload.repetitions.into(),
            offline: offline(workload.offline),
            accuracy: (samples > 0).then(|| AccuracyWorkload {
                samples: samples as usize,
                labels: mnist.join("t10k-labels-idx1-ubyte.gz"),
                // What weights of one's own say in the clear is known to nobody here.
                reference: self.spec.model.builtin.is_some().then(|| reference_path(network)),
            }),
            inspect: workload.inspect.map(|samples| InspectWorkload {
                samples: samples as usize,
                weights: model_path(network),
            }),
            result: None,
        })
    }

    /// Checks what is said about players against the players that there are.
    fn check_players(&self) -> Result<(), Invalid> {
        let Some(graph) = &self.spec.model.graph else { return Ok(()) };
        let names: BTreeMap<&str, Role> = self
            .roles
            .iter()
            .filter(|role| matches!(role, Role::Player(_)))
            .map(|role| (role.name(), *role))
            .collect();
        for (name, player) in &graph.players {
            let place = format!("spec.model.graph.players.{name}");
            if !names.contains_key(name.as_str()) {
                let known: Vec<&str> = names.keys().copied().collect();
                let known = known.join(", ");
                return invalid(format!(
                    "{place}: graph {} has no player {name}; its players are {known}",
                    self.network
                ));
            }
            for (key, path) in [("inputs", &player.inputs), ("outputs", &player.outputs)] {
                let Some(path) = path else { continue };
                check_path(&format!("{place}.{key}"), path)?;
                if player.source.is_none() {
                    return invalid(format!(
                        "{place} has {key}, but no source: name the volume that {path} is on"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Where the servers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The cluster address of the Service of `server0`.
    pub server0: String,
    /// The cluster address of the Service of `server1`.
    pub server1: String,
}

impl Addresses {
    /// The `host:port` of a server.
    fn of_server(&self, role: Role) -> String {
        let host = if role == Role::Server1 { &self.server1 } else { &self.server0 };
        match host.contains(':') {
            true => format!("[{host}]:{PARTY_PORT}"),
            false => format!("{host}:{PARTY_PORT}"),
        }
    }

    /// The address that stands for all of a pod's own, in the servers' family.
    fn everywhere(&self) -> std::net::IpAddr {
        match self.server0.contains(':') {
            true => std::net::Ipv6Addr::UNSPECIFIED.into(),
            false => std::net::Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

fn offline(offline: Offline) -> OfflineMode {
    match offline {
        Offline::Inline => OfflineMode::Inline,
        Offline::Ahead => OfflineMode::Ahead,
    }
}

fn model_path(network: Network) -> PathBuf {
    shipped("models", network)
}

fn reference_path(network: Network) -> PathBuf {
    shipped("references", network)
}

fn shipped(folder: &str, network: Network) -> PathBuf {
    let file = format!("{}.safetensors", network.name().to_lowercase());
    Path::new(SHARE_FOLDER).join(folder).join(file)
}

fn computation(spec: &SecureInferenceSpec) -> Result<Computation, Invalid> {
    let model = &spec.model;
    let mut computation = match (model.builtin, &model.volume, &model.graph) {
        (Some(network), None, None) => network_of(network, spec),
        (None, Some(volume), None) => {
            check_path("spec.model.volume.path", &volume.path)?;
            network_of(volume.network, spec)
        }
        (None, None, Some(graph)) => {
            Computation::of_graph(read_graph(&graph.definition, spec)?, spec.number_format)
        }
        _ => return invalid("spec.model needs exactly one of builtin, volume and graph"),
    };
    computation.truncation = spec.truncation;
    computation.inspect = spec.workload.inspect.is_some();
    Ok(computation)
}

fn network_of(network: Network, spec: &SecureInferenceSpec) -> Computation {
    Computation::of_network(network.name(), spec.workload.batch_size as usize, spec.number_format)
}

fn read_graph(definition: &str, spec: &SecureInferenceSpec) -> Result<Graph, Invalid> {
    if definition.len() > MAX_GRAPH_BYTES {
        let found = definition.len();
        return invalid(format!(
            "spec.model.graph.definition has {found} bytes, at most {MAX_GRAPH_BYTES} are accepted; let a player bring large tensors instead of making them constants"
        ));
    }
    if spec.workload.batch_size != 1 {
        return invalid(
            "spec.workload.batchSize is for networks; the shapes of a graph are its own, leave it out",
        );
    }
    if spec.workload.warmup_seconds != 0 {
        return invalid(
            "spec.workload.warmupSeconds is for networks; the evaluations of a graph are counted, use warmup",
        );
    }
    if spec.workload.accuracy_samples.unwrap_or(0) != 0 {
        return invalid(
            "spec.workload.accuracySamples is for networks; a graph of one's own has no test set, leave it out",
        );
    }
    party::yaml::parse(definition)
        .map_err(|error| Invalid(format!("spec.model.graph.definition is no graph: {error}")))
}

fn check_name(name: &str) -> Result<(), Invalid> {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let fits = name.len() <= MAX_NAME_BYTES
        && name.bytes().all(inner)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    invalid(format!(
        "metadata.name is {name:?}; it must be at most {MAX_NAME_BYTES} lower-case letters, digits and inner \
         hyphens, and start with a letter: the parties' Services are named after it"
    ))
}

/// A path on a volume does not lead out of it.
fn check_path(place: &str, path: &str) -> Result<(), Invalid> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !path.is_empty() && Path::new(path).components().all(inside) {
        return Ok(());
    }
    invalid(format!(
        "{place} is {path:?}; it must be relative to the top of the volume, without `..`"
    ))
}

/// The schema's ranges again: an API server may be older than the schema in use.
fn check_numbers(spec: &SecureInferenceSpec) -> Result<(), Invalid> {
    let workload = &spec.workload;
    let ttl = spec.ttl_after_finished.as_ref();
    let numbers = [
        ("workload.batchSize", Some(workload.batch_size), 1..=1024),
        ("workload.warmup", Some(workload.warmup), 0..=100_000),
        ("workload.warmupSeconds", Some(workload.warmup_seconds), 0..=600),
        ("workload.repetitions", Some(workload.repetitions), 1..=100_000),
        ("workload.accuracySamples", workload.accuracy_samples, 0..=TEST_IMAGES),
        ("workload.inspect", workload.inspect, 1..=TEST_IMAGES),
        ("parties.threads", spec.parties.threads, 1..=256),
        ("startDeadlineSeconds", Some(spec.start_deadline_seconds), 1..=86_400),
        ("activeDeadlineSeconds", Some(spec.active_deadline_seconds), 1..=604_800),
        ("backoffLimit", Some(spec.backoff_limit), 0..=100),
        ("ttlAfterFinished.succeeded", ttl.and_then(|ttl| ttl.succeeded), 0..=31_536_000),
        ("ttlAfterFinished.failed", ttl.and_then(|ttl| ttl.failed), 0..=31_536_000),
    ];
    for (setting, found, range) in numbers {
        if let Some(found) = found.filter(|found| !range.contains(found)) {
            let (least, most) = (range.start(), range.end());
            return invalid(format!("spec.{setting} is {found}, expected {least} to {most}"));
        }
    }
    if workload.inspect.is_some() && spec.model.builtin.is_none() {
        return invalid(
            "spec.workload.inspect reveals the weights; it is for benchmarks with the shipped \
             ones, spec.model.builtin",
        );
    }
    if let Some(network) = &workload.network {
        network.check().map_err(|problem| Invalid(format!("spec.workload.network.{problem}")))?;
    }
    match &spec.telemetry {
        Some(telemetry) if !(0.0..=1.0).contains(&telemetry.sampling_ratio) => invalid(format!(
            "spec.telemetry.samplingRatio is {}, expected 0 to 1",
            telemetry.sampling_ratio
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};
    use spdz::graph::GraphBuilder;
    use spdz::plan::NumberFormat;

    use super::*;
    use crate::api::v1alpha1::{
        GraphModel, Model, ModelVolume, Parties, Player, TtlAfterFinished, VolumeSource,
    };

    /// The smallest of the networks.
    pub(crate) fn network() -> SecureInferenceSpec {
        let model = Model { builtin: Some(Network::A), ..Model::default() };
        SecureInferenceSpec { model, ..SecureInferenceSpec::default() }
    }

    /// A network whose weights are on a volume.
    pub(crate) fn weights(path: &str, source: Value) -> SecureInferenceSpec {
        let source = volume(source);
        let weights = ModelVolume { network: Network::A, path: path.into(), source };
        let model = Model { volume: Some(weights), ..Model::default() };
        SecureInferenceSpec { model, ..SecureInferenceSpec::default() }
    }

    /// A graph: alice and bob add their numbers, and carol learns the sum.
    pub(crate) fn sum() -> SecureInferenceSpec {
        let graph = GraphBuilder::named("sum", ["alice", "bob", "carol"]);
        let a = graph.share(graph.local_input("alice", "a", [2]));
        let b = graph.share(graph.local_input("bob", "b", [2]));
        graph.output("sum", graph.reveal("carol", graph.add(a, b)));
        let definition = serde_yaml::to_string(&graph.build().unwrap()).unwrap();
        let player = |name: &str, inputs: Option<&str>, outputs: Option<&str>| {
            let source = Some(volume(json!({"persistentVolumeClaim": {"claimName": name}})));
            let [inputs, outputs] = [inputs, outputs].map(|path| path.map(str::to_owned));
            (name.to_owned(), Player { source, inputs, outputs, pod: None })
        };
        let players = [
            player("alice", Some("in/a.safetensors"), None),
            player("bob", Some("b.safetensors"), None),
            player("carol", None, Some("sum.safetensors")),
        ];
        let graph = GraphModel { definition, players: players.into() };
        let model = Model { graph: Some(graph), ..Model::default() };
        SecureInferenceSpec { model, ..SecureInferenceSpec::default() }
    }

    fn volume(source: Value) -> VolumeSource {
        VolumeSource(source.as_object().unwrap().clone())
    }

    fn named(name: &str, spec: SecureInferenceSpec) -> Result<Job, Invalid> {
        let mut resource = SecureInference::new(name, spec);
        resource.metadata.namespace = Some("lab".into());
        resource.metadata.uid = Some("one".into());
        Job::of(&resource)
    }

    pub(crate) fn job(spec: SecureInferenceSpec) -> Job {
        named("run", spec).unwrap()
    }

    /// Why a spec is refused.
    fn refusal(spec: SecureInferenceSpec) -> String {
        named("run", spec).map(|_| ()).unwrap_err().to_string()
    }

    fn addresses(server0: &str, server1: &str) -> Addresses {
        Addresses { server0: server0.into(), server1: server1.into() }
    }

    fn config(job: &Job, role: Role) -> PartyConfig {
        job.config(role, Session(SessionId([7; 16])), &addresses("10.0.0.1", "10.0.0.2"))
    }

    #[test]
    fn names_leave_room_for_attempt_and_role() {
        let long = "a".repeat(MAX_NAME_BYTES);
        for name in ["a", "network-c", "a1", &long] {
            let job = named(name, network()).unwrap();
            let service = job.object_name(999_999, Role::Server0);
            assert!(service.len() <= 63, "{service} is no DNS label");
        }
        let longer = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", "A", "1a", "-a", "a-", "a.b", "a_b", "é", &longer] {
            let message = named(name, network()).unwrap_err().to_string();
            assert_eq!(
                message,
                format!(
                    "metadata.name is {name:?}; it must be at most 48 lower-case letters, digits and inner \
                     hyphens, and start with a letter: the parties' Services are named after it"
                )
            );
        }
    }

    #[test]
    fn numbers_are_in_their_ranges() {
        type Set = fn(&mut SecureInferenceSpec, u32);
        let ttl = |succeeded, failed| Some(TtlAfterFinished { succeeded, failed });
        let rows: [(&str, Set, u32, u32); 10] = [
            ("workload.batchSize", |spec, n| spec.workload.batch_size = n, 1, 1024),
            ("workload.warmup", |spec, n| spec.workload.warmup = n, 0, 100_000),
            ("workload.warmupSeconds", |spec, n| spec.workload.warmup_seconds = n, 0, 600),
            ("workload.repetitions", |spec, n| spec.workload.repetitions = n, 1, 100_000),
            (
                "workload.accuracySamples",
                |spec, n| spec.workload.accuracy_samples = Some(n),
                0,
                10_000,
            ),
            ("workload.inspect", |spec, n| spec.workload.inspect = Some(n), 1, 10_000),
            ("parties.threads", |spec, n| spec.parties.threads = Some(n), 1, 256),
            ("startDeadlineSeconds", |spec, n| spec.start_deadline_seconds = n, 1, 86_400),
            ("activeDeadlineSeconds", |spec, n| spec.active_deadline_seconds = n, 1, 604_800),
            ("backoffLimit", |spec, n| spec.backoff_limit = n, 0, 100),
        ];
        let with = |set: &dyn Fn(&mut SecureInferenceSpec)| {
            let mut spec = network();
            set(&mut spec);
            spec
        };
        for (setting, set, least, most) in rows {
            for number in [least, most] {
                // Checked as the party does, a batch of 1024 takes its time.
                assert_eq!(check_numbers(&with(&|spec| set(spec, number))), Ok(()), "{setting}");
            }
            let below = least.checked_sub(1);
            for number in below.into_iter().chain([most + 1, u32::MAX]) {
                let message = refusal(with(&|spec| set(spec, number)));
                assert_eq!(
                    message,
                    format!("spec.{setting} is {number}, expected {least} to {most}")
                );
            }
        }
        for (ttl, setting) in
            [(ttl(Some(31_536_001), None), "succeeded"), (ttl(None, Some(31_536_001)), "failed")]
        {
            let message = refusal(with(&|spec| spec.ttl_after_finished = ttl));
            assert_eq!(
                message,
                format!("spec.ttlAfterFinished.{setting} is 31536001, expected 0 to 31536000")
            );
        }
        for (ratio, valid) in
            [(0.0, true), (1.0, true), (-0.1, false), (1.1, false), (f64::NAN, false)]
        {
            let telemetry = crate::api::v1alpha1::Telemetry {
                otlp_endpoint: "http://tempo:4317".into(),
                sampling_ratio: ratio,
            };
            let found = check_numbers(&with(&|spec| spec.telemetry = Some(telemetry.clone())));
            let refused = format!("spec.telemetry.samplingRatio is {ratio}, expected 0 to 1");
            assert_eq!(found, if valid { Ok(()) } else { Err(Invalid(refused)) });
        }
    }

    #[test]
    fn exactly_one_model_is_given() {
        let both = Model { builtin: Some(Network::B), ..sum().model };
        for model in [Model::default(), both] {
            let message = refusal(SecureInferenceSpec { model, ..network() });
            assert_eq!(message, "spec.model needs exactly one of builtin, volume and graph");
        }
        for spec in [network(), weights("w", json!({"emptyDir": {}})), sum()] {
            named("run", spec).unwrap();
        }
    }

    #[test]
    fn paths_stay_on_their_volume() {
        let at = |path: &str| weights(path, json!({"emptyDir": {}}));
        for path in ["w.safetensors", "./w", "a/b/w", "a/./w", "..w", "a..b/w"] {
            named("run", at(path)).unwrap();
        }
        for path in ["", "/etc/shadow", "..", "../w", "a/../w", "a/..", "./../w"] {
            let problem =
                format!("is {path:?}; it must be relative to the top of the volume, without `..`");
            assert_eq!(refusal(at(path)), format!("spec.model.volume.path {problem}"));
            let mut spec = sum();
            let players = &mut spec.model.graph.as_mut().unwrap().players;
            players.get_mut("alice").unwrap().inputs = Some(path.into());
            assert_eq!(refusal(spec), format!("spec.model.graph.players.alice.inputs {problem}"));
            let mut spec = sum();
            let players = &mut spec.model.graph.as_mut().unwrap().players;
            players.get_mut("carol").unwrap().outputs = Some(path.into());
            assert_eq!(refusal(spec), format!("spec.model.graph.players.carol.outputs {problem}"));
        }
    }

    #[test]
    fn a_volume_is_of_one_kind_that_kubernetes_has() {
        for source in [
            json!({"emptyDir": {}}),
            json!({"configMap": {"name": "weights", "items": [{"key": "a", "path": "b"}]}}),
            json!({"persistentVolumeClaim": {"claimName": "weights", "readOnly": true}}),
            json!({"nfs": {"server": "files", "path": "/weights"}}),
            json!({"csi": {"driver": "a.b", "volumeAttributes": {"c": "d"}}}),
        ] {
            let job = named("run", weights("w", source.clone())).unwrap();
            let mounted = job.volume(Role::MODEL_OWNER).unwrap();
            let mut expected = source;
            expected["name"] = json!("data");
            assert_eq!(serde_json::to_value(&mounted.volume).unwrap(), expected);
            assert!(!mounted.writable);
            assert!(job.volume(Role::CLIENT).is_none() && job.volume(Role::Server0).is_none());
        }
        let one = "needs exactly one kind of volume, such as persistentVolumeClaim, found:";
        let unknown = "it has an unknown or empty field, or the kind is unknown";
        for (source, problem) in [
            (json!({}), format!("{one} none")),
            (
                json!({"emptyDir": {}, "configMap": {"name": "a"}}),
                format!("{one} configMap, emptyDir"),
            ),
            (json!({"emptyDir": {}, "name": "a"}), format!("{one} emptyDir, name")),
            (json!({"floppy": {}}), format!("is no volume of kind floppy: {unknown}")),
            (json!({"emptyDir": null}), format!("is no volume of kind emptyDir: {unknown}")),
            (
                json!({"configMap": {"nam": "a"}}),
                format!("is no volume of kind configMap: {unknown}"),
            ),
        ] {
            let found = refusal(weights("w", source));
            assert_eq!(found, format!("spec.model.volume.source {problem}"));
        }
        let found = refusal(weights("w", json!({"configMap": {"name": 7}})));
        let start =
            "spec.model.volume.source is no volume of kind configMap: invalid type: integer";
        assert!(found.starts_with(start), "{found}");
    }

    #[test]
    fn a_graph_is_one_that_its_players_can_run() {
        type Change = fn(&mut SecureInferenceSpec);
        fn graph(spec: &mut SecureInferenceSpec) -> &mut GraphModel {
            spec.model.graph.as_mut().unwrap()
        }
        fn player<'a>(spec: &'a mut SecureInferenceSpec, name: &str) -> &'a mut Player {
            graph(spec).players.get_mut(name).unwrap()
        }
        let rows: [(Change, &str); 10] = [
            (
                |spec| graph(spec).definition = "[".into(),
                "spec.model.graph.definition is no graph: ",
            ),
            (
                |spec| graph(spec).definition = "name: sum".into(),
                "spec.model.graph.definition is no graph: missing field",
            ),
            (
                |spec| graph(spec).definition.push_str(&" ".repeat(MAX_GRAPH_BYTES)),
                "at most 524288 are accepted; let a player bring large tensors instead of making \
                 them constants",
            ),
            (
                |spec| spec.workload.batch_size = 2,
                "spec.workload.batchSize is for networks; the shapes of a graph are its own, \
                 leave it out",
            ),
            (
                |spec| spec.workload.warmup_seconds = 1,
                "spec.workload.warmupSeconds is for networks; the evaluations of a graph are \
                 counted, use warmup",
            ),
            (
                |spec| spec.workload.accuracy_samples = Some(1),
                "spec.workload.accuracySamples is for networks; a graph of one's own has no test \
                 set, leave it out",
            ),
            (
                |spec| drop(graph(spec).players.insert("dave".into(), Player::default())),
                "spec.model.graph.players.dave: graph sum has no player dave; its players are \
                 alice, bob, carol",
            ),
            (
                |spec| player(spec, "alice").source = None,
                "spec.model.graph.players.alice has inputs, but no source: name the volume that \
                 in/a.safetensors is on",
            ),
            (
                |spec| drop(graph(spec).players.remove("alice")),
                "the configuration of alice needs `player.inputs`, a safetensors file with",
            ),
            (
                |spec| player(spec, "carol").inputs = Some("in".into()),
                "the configuration of carol has `player.inputs`, but the graph has it bring \
                 nothing",
            ),
        ];
        for (change, problem) in rows {
            let mut spec = sum();
            change(&mut spec);
            let found = refusal(spec);
            assert!(found.contains(problem), "{found}\nexpected: {problem}");
        }
        // What is not asked for is fine.
        let mut spec = sum();
        spec.workload.accuracy_samples = Some(0);
        player(&mut spec, "carol").outputs = None;
        assert!(!named("run", spec).unwrap().volume("carol".parse().unwrap()).unwrap().writable);
    }

    #[test]
    fn what_is_not_from_an_api_server_is_refused() {
        let message = Job::of(&SecureInference::new("run", network())).unwrap_err().to_string();
        assert_eq!(
            message,
            "the resource has no namespace or no uid: it is not from an API server"
        );
    }

    #[test]
    fn a_networks_parties_are_told_what_they_need() {
        let mut spec = network();
        spec.start_deadline_seconds = 42;
        spec.parties.threads = Some(3);
        let job = job(spec);
        let roles = [Role::Server0, Role::Server1, Role::Producer, Role::MODEL_OWNER, Role::CLIENT];
        assert_eq!((job.roles.as_slice(), job.coordinator), (&roles[..], Role::CLIENT));
        assert_eq!((&*job.network, job.object_name(2, Role::CLIENT)), ("A", "run-2-client".into()));
        for role in roles {
            let config = config(&job, role);
            config.check().unwrap();
            assert_eq!(config.role, role);
            let folder = Path::new("/etc/secure-inference");
            assert_eq!(config.identity.certificate, folder.join("tls.crt"));
            assert_eq!(config.identity.key, folder.join("tls.key"));
            assert_eq!(config.identity.authority, folder.join("ca.crt"));
            assert_eq!(config.deadlines.connect_seconds, 42.0);
            let listens = config.listen.map(|address| address.to_string());
            assert_eq!(listens.as_deref(), role.is_server().then_some("0.0.0.0:7000"));
            let peers: Vec<(Role, &str)> =
                config.peers.iter().map(|(peer, address)| (*peer, address.as_str())).collect();
            let server0 = (Role::Server0, "10.0.0.1:7000");
            let server1 = (Role::Server1, "10.0.0.2:7000");
            assert_eq!(
                peers,
                match role {
                    Role::Server0 => vec![],
                    Role::Server1 => vec![server0],
                    _ => vec![server0, server1],
                }
            );
            let multiplies = !matches!(role, Role::Player(_));
            assert_eq!(config.threads, multiplies.then_some(3));
            let watched = config.telemetry.and_then(|telemetry| telemetry.listen);
            assert_eq!(watched.unwrap().to_string(), "0.0.0.0:9400");
            assert_eq!(config.workload.is_some(), role == Role::CLIENT);
            let inputs = config.player.and_then(|player| player.inputs);
            let model = Path::new("/usr/share/secure-inference/models/a.safetensors");
            assert_eq!(inputs.as_deref(), (role == Role::MODEL_OWNER).then_some(model));
        }
    }

    #[test]
    fn the_client_of_a_network_measures_what_was_asked_for() {
        let workload = |spec| config(&job(spec), Role::CLIENT).workload.unwrap();
        let found = workload(network());
        assert_eq!((found.warmup, found.repetitions, found.offline), (5, 100, OfflineMode::Inline));
        let accuracy = found.accuracy.unwrap();
        assert_eq!(accuracy.samples, 10_000);
        let reference = "/usr/share/secure-inference/references/a.safetensors";
        assert_eq!(accuracy.reference.as_deref(), Some(Path::new(reference)));

        let mut spec = network();
        spec.workload.accuracy_samples = Some(0);
        spec.workload.offline = Offline::Ahead;
        let found = workload(spec);
        assert!(found.accuracy.is_none() && found.offline == OfflineMode::Ahead);

        let own = weights("my/w.safetensors", json!({"emptyDir": {}}));
        let accuracy = workload(own.clone()).accuracy.unwrap();
        assert_eq!(accuracy.reference, None, "what the weights say is known to nobody here");
        let owner = config(&job(own), Role::MODEL_OWNER).player.unwrap();
        assert_eq!(owner.inputs.as_deref(), Some(Path::new("/data/my/w.safetensors")));
    }

    #[test]
    fn the_players_of_a_graph_do_what_it_has_them_do() {
        let mut spec = sum();
        spec.workload.warmup = 2;
        spec.workload.repetitions = 9;
        spec.number_format = NumberFormat::Int100;
        let job = job(spec);
        let [alice, carol] = ["alice", "carol"].map(|name| name.parse::<Role>().unwrap());
        assert_eq!((job.network.as_str(), job.roles.len(), job.coordinator), ("sum", 6, carol));
        assert_eq!(job.accuracy_samples(), 0);
        let path = |path: &str| Some(PathBuf::from(path));
        let task = config(&job, alice).player.unwrap();
        assert_eq!((task.inputs, task.outputs), (path("/data/in/a.safetensors"), None));
        assert_eq!((task.warmup, task.evaluations, task.offline), (None, None, None));
        let task = config(&job, carol).player.unwrap();
        assert_eq!((task.inputs, task.outputs), (None, path("/data/sum.safetensors")));
        assert_eq!((task.warmup, task.evaluations), (Some(2), Some(9)));
        assert_eq!(task.offline, Some(OfflineMode::Inline));
        assert!(job.volume(carol).unwrap().writable && !job.volume(alice).unwrap().writable);
    }

    #[test]
    fn addresses_are_of_the_clusters_family() {
        let job = job(network());
        let session = Session(SessionId([7; 16]));
        let config = job.config(Role::Server1, session, &addresses("fd00::1", "fd00::2"));
        assert_eq!(config.peers[&Role::Server0], "[fd00::1]:7000");
        assert_eq!(config.listen.unwrap().to_string(), "[::]:7000");
        let watched = config.telemetry.and_then(|telemetry| telemetry.listen);
        assert_eq!(watched.unwrap().to_string(), "[::]:9400");
    }

    #[test]
    fn what_is_set_for_a_role_replaces_what_is_set_for_all() {
        let on = |node: &str| Some([("node".to_owned(), node.to_owned())].into());
        let settings =
            |node: &str| PodSettings { node_selector: on(node), ..PodSettings::default() };
        let parties = Parties {
            node_selector: on("any"),
            tolerations: Some(vec![Default::default()]),
            server1: Some(settings("one")),
            client: Some(settings("two")),
            ..Parties::default()
        };
        let networks = job(SecureInferenceSpec { parties: parties.clone(), ..network() });
        let found = networks.pod_settings(Role::Server1);
        assert_eq!(
            (found.node_selector, found.tolerations.map(|all| all.len())),
            (on("one"), Some(1))
        );
        assert_eq!(networks.pod_settings(Role::Server0).node_selector, on("any"));
        assert_eq!(networks.pod_settings(Role::CLIENT).node_selector, on("two"));

        let mut spec = SecureInferenceSpec { parties, ..sum() };
        let players = &mut spec.model.graph.as_mut().unwrap().players;
        players.get_mut("bob").unwrap().pod = Some(settings("three"));
        let graphs = job(spec);
        assert_eq!(graphs.pod_settings("bob".parse().unwrap()).node_selector, on("three"));
        assert_eq!(graphs.pod_settings("alice".parse().unwrap()).node_selector, on("any"));
    }
}
