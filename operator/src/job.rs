//! A resource that has been checked: what its parties compute and how they are made.
//!
//! Pure: knows the resource and what a party reads, and nothing of the cluster.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use party::config::{
    AccuracyWorkload, Computation, Deadlines, Identity, OfflineMode, PartyConfig, PlayerTask,
    Session, Telemetry, Transport, Workload,
};
use spdz::channel::Role;
use spdz::graph::Graph;
use spdz::prg::SessionId;

use crate::api::v1alpha1::{
    MAX_GRAPH_BYTES, MAX_NAME_BYTES, Network, Offline, PodSettings, SecureInference,
    SecureInferenceSpec,
};

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
    pub driver: Role,
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
            driver: Role::Player(plan.driver()),
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
            transport: Transport::default(),
            stock: None,
            threads: match role {
                Role::Player(_) => None,
                _ => spec.parties.threads.and_then(|threads| usize::try_from(threads).ok()),
            },
            player: self.task(role),
            workload: self.workload(role),
            telemetry: Some(Telemetry { listen: Some((everywhere, METRICS_PORT).into()) }),
        }
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
            let drives = role == self.driver;
            return Some(PlayerTask {
                inputs: player.and_then(|player| player.inputs.as_ref()).map(on_volume),
                outputs: player.and_then(|player| player.outputs.as_ref()).map(on_volume),
                warmup: drives.then_some(workload.warmup.into()),
                evaluations: drives.then_some(workload.repetitions.into()),
                offline: drives.then(|| offline(workload.offline)),
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
            repetitions: workload.repetitions.into(),
            offline: offline(workload.offline),
            accuracy: (samples > 0).then(|| AccuracyWorkload {
                samples: samples as usize,
                labels: mnist.join("t10k-labels-idx1-ubyte.gz"),
                // What weights of one's own say in the clear is known to nobody here.
                reference: self.spec.model.builtin.is_some().then(|| reference_path(network)),
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
    if spec.workload.accuracy_samples.unwrap_or(0) != 0 {
        return invalid(
            "spec.workload.accuracySamples is for networks; a graph of one's own has no test set, leave it out",
        );
    }
    serde_yaml::from_str(definition)
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
        ("workload.repetitions", Some(workload.repetitions), 1..=100_000),
        ("workload.accuracySamples", workload.accuracy_samples, 0..=TEST_IMAGES),
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
    match &spec.telemetry {
        Some(telemetry) if !(0.0..=1.0).contains(&telemetry.sampling_ratio) => invalid(format!(
            "spec.telemetry.samplingRatio is {}, expected 0 to 1",
            telemetry.sampling_ratio
        )),
        _ => Ok(()),
    }
}
