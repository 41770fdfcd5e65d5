//! Whether a resource can be run, decided before anything is made for it.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use party::config::limits::{self, Limits};
use party::config::{Computation, Session};
use spdz::channel::Role;
use spdz::graph::Graph;
use spdz::network::{Builtin, Reveal};
use spdz::prg::SessionId;
use spdz::protocol::{Protocol, Spdz};

use super::error::{Invalid, invalid};
use super::model::{Job, PartyVolume, VOLUME};
use super::render::Addresses;
use super::{definition, pods};
use crate::api::v1alpha1::{
    ACTIVE_DEADLINE_SECONDS, BACKOFF_LIMIT, MAX_NAME_BYTES, START_DEADLINE_SECONDS,
    SecureInference, SecureInferenceSpec, TTL_SECONDS,
};

impl Job {
    /// Checks a resource.
    ///
    /// # Errors
    /// What is wrong with it, for its user.
    pub fn of(resource: &SecureInference) -> Result<Self, Invalid> {
        let (name, spec) = (resource.name_any(), &resource.spec);
        check_name(&name)?;
        check_numbers(spec)?;
        spec.parties.image.as_deref().map_or(Ok(()), check_image)?;
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
                // For `kubectl delete --cascade=foreground`, which else waits for nothing.
                block_owner_deletion: Some(true),
            },
            name,
            namespace,
            uid,
            network: plan.graph().name().to_owned(),
            builtin: spec.model.network().unwrap_or_default(),
            roles: Spdz::roles(plan.graph().players()),
            coordinator: Role::Player(plan.coordinator()),
            digest: digest(resource),
            computation,
            spec: spec.clone(),
            volumes: BTreeMap::new(),
        };
        job.check_players()?;
        pods::check(&job.spec)?;
        job.read_volumes()?;
        // The parties' own checks, so that what they would refuse is refused here.
        let addresses = Addresses { server0: "127.0.0.1".into(), server1: "127.0.0.1".into() };
        for role in &job.roles {
            let config = job.config(*role, Session(SessionId([0; 16])), &addresses);
            config.check_against(&plan).map_err(|error| Invalid(error.to_string()))?;
        }
        Ok(job)
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
                let claim = volume.persistent_volume_claim.as_ref();
                if writable && claim.is_some_and(|claim| claim.read_only == Some(true)) {
                    return invalid(format!(
                        "{place}.source is readOnly, but outputs are to be written there"
                    ));
                }
                Ok((role, PartyVolume { volume, writable }))
            })
            .collect::<Result<_, Invalid>>()?;
        Ok(())
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
            if player.source.is_some() && player.inputs.is_none() && player.outputs.is_none() {
                return invalid(format!(
                    "{place} has a source, but neither inputs nor outputs: say which file on it is one"
                ));
            }
        }
        let parties = &self.spec.parties;
        if parties.model_owner.is_some() || parties.client.is_some() {
            return invalid(
                "spec.parties.modelOwner and client are of networks; a graph has \
                 spec.model.graph.players.NAME.pod",
            );
        }
        Ok(())
    }
}

fn computation(spec: &SecureInferenceSpec) -> Result<Computation, Invalid> {
    let model = &spec.model;
    let form = model.activation.is_some() || model.pooling.is_some();
    if form && model.builtin.is_none() {
        return invalid(
            "spec.model.activation and pooling are of builtin; a volume has its own, and a graph its \
             operations",
        );
    }
    if model.graph.is_some() && model.reveal.is_some() {
        return invalid(
            "spec.model.reveal is of networks; a graph reveals what it says, give it an argMax",
        );
    }
    let network = model.network().map_err(|error| Invalid(format!("spec.model: {error}")))?;
    let mut computation = match (network, &model.volume, &model.graph) {
        (Some(network), None, None) => network_of(network, spec),
        (Some(network), Some(volume), None) if model.builtin.is_none() => {
            check_path("spec.model.volume.path", &volume.path)?;
            network_of(network, spec)
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

fn network_of(network: Builtin, spec: &SecureInferenceSpec) -> Computation {
    let batch = spec.workload.batch_size as usize;
    Computation {
        reveal: spec.model.revealed(),
        ..Computation::of_network(network.name(), batch, spec.number_format)
    }
}

fn read_graph(definition: &str, spec: &SecureInferenceSpec) -> Result<Graph, Invalid> {
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
    definition::read(definition)
        .map_err(|problem| Invalid(format!("spec.model.graph.definition{problem}")))
}

/// A digest of what may not change once a resource was accepted.
#[must_use]
pub fn digest(resource: &SecureInference) -> String {
    let mut spec = resource.spec.clone();
    spec.suspend = false;
    spec.backoff_limit = 0;
    spec.ttl_after_finished = None;
    let json = serde_json::to_vec(&spec).unwrap_or_default();
    blake3::hash(&json).to_hex()[..32].to_owned()
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

/// An image's name is one as far as its characters say; the node says the rest.
fn check_image(image: &str) -> Result<(), Invalid> {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:/@".contains(&byte);
    if image.starts_with(|first: char| first.is_ascii_alphanumeric()) && image.bytes().all(inner) {
        return Ok(());
    }
    invalid(format!("spec.parties.image is {image:?}, which is no name of an image"))
}

/// The schema's ranges again: an API server may be older than the schema in use.
fn check_numbers(spec: &SecureInferenceSpec) -> Result<(), Invalid> {
    let workload = &spec.workload;
    let ttl = spec.ttl_after_finished.as_ref();
    let numbers = [
        ("workload.batchSize", Some(workload.batch_size), limits::BATCH_SIZE),
        ("workload.warmup", Some(workload.warmup), limits::WARMUP),
        ("workload.warmupSeconds", Some(workload.warmup_seconds), limits::WARMUP_SECONDS),
        ("workload.repetitions", Some(workload.repetitions), limits::REPETITIONS),
        (
            "workload.accuracySamples",
            workload.accuracy_samples,
            Limits { min: 0, ..limits::INSPECTED },
        ),
        ("workload.inspect", workload.inspect, limits::INSPECTED),
        ("parties.threads", spec.parties.threads, limits::THREADS),
        ("startDeadlineSeconds", Some(spec.start_deadline_seconds), START_DEADLINE_SECONDS),
        ("activeDeadlineSeconds", Some(spec.active_deadline_seconds), ACTIVE_DEADLINE_SECONDS),
        ("backoffLimit", Some(spec.backoff_limit), BACKOFF_LIMIT),
        ("ttlAfterFinished.succeeded", ttl.and_then(|ttl| ttl.succeeded), TTL_SECONDS),
        ("ttlAfterFinished.failed", ttl.and_then(|ttl| ttl.failed), TTL_SECONDS),
    ];
    for (setting, found, limits) in numbers {
        if let Some(found) = found {
            limits
                .check(setting, found.into())
                .map_err(|problem| Invalid(format!("spec.{problem}")))?;
        }
    }
    if workload.inspect.is_some() && spec.model.builtin.is_none() {
        return invalid(
            "spec.workload.inspect reveals the weights; it is for benchmarks with the shipped \
             ones, spec.model.builtin",
        );
    }
    if workload.inspect.is_some() && spec.model.revealed() == Reveal::Label {
        return invalid(
            "spec.workload.inspect reveals every layer, and so more than spec.model.reveal: Label; \
             leave one of them out",
        );
    }
    if let Some(network) = &workload.network {
        network.check().map_err(|problem| Invalid(format!("spec.workload.network.{problem}")))?;
    }
    match &spec.telemetry {
        Some(telemetry) => limits::SAMPLING_RATIO
            .check("telemetry.samplingRatio", telemetry.sampling_ratio)
            .map_err(|problem| Invalid(format!("spec.{problem}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::v1alpha1::Network;
    use crate::api::v1alpha1::{GraphModel, MAX_GRAPH_BYTES, Model, Player, TtlAfterFinished};
    use crate::job::tests::{named, network, refusal, sum, volume, weights};

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
                "is a volume of kind configMap without name".into(),
            ),
            (
                json!({"configMap": {"name": "a", "nam": "b"}}),
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
        let rows: [(Change, &str); 13] = [
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
                |spec| player(spec, "carol").outputs = None,
                "spec.model.graph.players.carol has a source, but neither inputs nor outputs",
            ),
            (
                |spec| {
                    let claim =
                        json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": true}});
                    player(spec, "carol").source = Some(volume(claim));
                },
                "spec.model.graph.players.carol.source is readOnly, but outputs are to be written there",
            ),
            (
                |spec| spec.parties.client = Some(Default::default()),
                "spec.parties.modelOwner and client are of networks",
            ),
            (
                |spec| player(spec, "carol").inputs = Some("in".into()),
                "the configuration of carol has `player.inputs`, but the graph has no input \
                 of it",
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
        let carol = player(&mut spec, "carol");
        (carol.outputs, carol.source) = (None, None);
        assert!(named("run", spec).unwrap().volume("carol".parse().unwrap()).is_none());
    }

    #[test]
    fn parts_of_pods_are_those_that_kubernetes_has() {
        let parties = |settings: Value| -> SecureInferenceSpec {
            let parties = serde_json::from_value(settings).unwrap();
            SecureInferenceSpec { parties, ..network() }
        };
        let zone =
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        let term = json!({"matchExpressions": [{"key": "a", "operator": "Exists"}]});
        let nodes = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }});
        for settings in [
            json!({"affinity": nodes, "topologySpreadConstraints": [zone]}),
            json!({"client": {"affinity": nodes, "userIds": "Platform"}}),
            json!({"labels": {"team": "a"}, "annotations": {"prometheus.io/scrape": "false"}}),
        ] {
            named("run", parties(settings)).unwrap();
        }
        for (settings, problem) in [
            (
                json!({"affinity": {"nodeAfinity": {}}}),
                "spec.parties.affinity is not the affinity of a pod: a field is unknown",
            ),
            (
                json!({"server1": {"affinity": {"podAffinity": 1}}}),
                "spec.parties.server1.affinity is not the affinity of a pod: invalid type",
            ),
            (
                json!({"topologySpreadConstraints": [zone, {"topologyKey": "zone"}]}),
                "spec.parties.topologySpreadConstraints[1] is not a topology spread constraint of a \
                 pod: a field is unknown, empty or missing",
            ),
            (
                json!({"modelOwner": {"labels": {"secureinference.dev/role": "client"}}}),
                "spec.parties.modelOwner.labels has secureinference.dev/role, which the operator sets \
                 itself",
            ),
            (
                json!({"annotations": {"secureinference.dev/session": "7"}}),
                "spec.parties.annotations has secureinference.dev/session, which",
            ),
        ] {
            let found = refusal(parties(settings));
            assert!(found.contains(problem), "{found}\nexpected: {problem}");
        }
    }

    #[test]
    fn what_is_not_from_an_api_server_is_refused() {
        let message = Job::of(&SecureInference::new("run", network())).unwrap_err().to_string();
        assert_eq!(
            message,
            "the resource has no namespace or no uid: it is not from an API server"
        );
    }
}
