//! What each party of a job is configured with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use party::config::{
    AccuracyWorkload, Deadlines, Identity, InspectWorkload, PartyConfig, PlayerTask, Session,
    Telemetry, Transport, Workload,
};
use spdz::channel::Role;
use spdz::network::Builtin;
use spdz::protocol::{Protocol, Spdz};

use super::model::{IDENTITY_FOLDER, Job, METRICS_PORT, PARTY_PORT, VOLUME_FOLDER};
use crate::trace;

/// Where the image keeps models, test set and references.
const SHARE_FOLDER: &str = "/usr/share/secure-inference";

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
    fn everywhere(&self) -> IpAddr {
        match self.server0.contains(':') {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

impl Job {
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
            peers: Spdz::dials(role)
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
        let inputs = if model.builtin.is_some() {
            (role == Role::MODEL_OWNER).then(|| self.builtin.map(model_path)).flatten()
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
                offline: coordinates.then_some(workload.offline),
                result: None,
            });
        };
        inputs.map(|inputs| PlayerTask { inputs: Some(inputs), ..PlayerTask::default() })
    }

    /// What the client of a network infers.
    fn workload(&self, role: Role) -> Option<Workload> {
        let network = self.builtin.filter(|_| role == Role::CLIENT)?;
        let workload = &self.spec.workload;
        let samples = self.accuracy_samples();
        let mnist = Path::new(SHARE_FOLDER).join("mnist");
        Some(Workload {
            images: mnist.join("t10k-images-idx3-ubyte.gz"),
            warmup: workload.warmup.into(),
            warmup_seconds: workload.warmup_seconds.into(),
            repetitions: workload.repetitions.into(),
            offline: workload.offline,
            accuracy: (samples > 0).then(|| AccuracyWorkload {
                samples: samples as usize,
                labels: mnist.join("t10k-labels-idx1-ubyte.gz"),
                // The plaintext outputs of other weights are not known here.
                reference: self.spec.model.builtin.is_some().then(|| reference_path(network)),
            }),
            inspect: workload.inspect.map(|samples| InspectWorkload {
                samples: samples as usize,
                weights: model_path(network),
            }),
            result: None,
        })
    }
}

fn model_path(network: Builtin) -> PathBuf {
    shipped("models", network)
}

fn reference_path(network: Builtin) -> PathBuf {
    shipped("references", network)
}

fn shipped(folder: &str, network: Builtin) -> PathBuf {
    let file = format!("{}.safetensors", network.file_stem());
    Path::new(SHARE_FOLDER).join(folder).join(file)
}

#[cfg(test)]
mod tests {
    use party::config::OfflineMode;
    use serde_json::{Value, json};
    use spdz::plan::NumberFormat;
    use spdz::prg::SessionId;

    use super::*;
    use crate::api::v1alpha1::{Activation, Model, Reveal, SecureInferenceSpec};
    use crate::job::tests::{addresses, config, job, network, refusal, sum, weights};

    #[test]
    fn a_networks_parties_are_told_what_they_need() {
        let mut spec = network();
        spec.start_deadline_seconds = 42;
        spec.parties.threads = Some(3);
        let job = job(spec);
        let roles = [Role::Server0, Role::Server1, Role::Producer, Role::MODEL_OWNER, Role::CLIENT];
        assert_eq!((job.roles.as_slice(), job.coordinator), (&roles[..], Role::CLIENT));
        let client = format!("{}-2-client", job.stem());
        assert_eq!((&*job.network, job.object_name(2, Role::CLIENT)), ("A", client));
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
        spec.workload.offline = OfflineMode::Ahead;
        let found = workload(spec);
        assert!(found.accuracy.is_none() && found.offline == OfflineMode::Ahead);

        let own = weights("my/w.safetensors", json!({"emptyDir": {}}));
        let accuracy = workload(own.clone()).accuracy.unwrap();
        assert_eq!(accuracy.reference, None, "what the weights say is known to nobody here");
        let owner = config(&job(own), Role::MODEL_OWNER).player.unwrap();
        assert_eq!(owner.inputs.as_deref(), Some(Path::new("/data/my/w.safetensors")));
    }

    #[test]
    fn a_form_of_a_network_has_files_of_its_own() {
        let mut spec = network();
        spec.model = Model::of("B-relu-max".parse().unwrap());
        spec.workload.inspect = Some(10);
        let job = job(spec);
        assert_eq!(job.network, "B-relu-max");
        let owner = config(&job, Role::MODEL_OWNER);
        assert_eq!(owner.computation.network.as_deref(), Some("B-relu-max"));
        let shipped = "/usr/share/secure-inference/models/b-relu-max.safetensors";
        assert_eq!(owner.player.unwrap().inputs.as_deref(), Some(Path::new(shipped)));
        let workload = config(&job, Role::CLIENT).workload.unwrap();
        let reference = "/usr/share/secure-inference/references/b-relu-max.safetensors";
        assert_eq!(workload.accuracy.unwrap().reference.as_deref(), Some(Path::new(reference)));
        assert_eq!(workload.inspect.unwrap().weights, Path::new(shipped));

        // A label is of every party's computation, with the toolkit's weights or others.
        for (mut spec, name) in [(network(), "A"), (weights("w", json!({"emptyDir": {}})), "A")] {
            spec.model.reveal = Some(Reveal::Label);
            let job = crate::job::tests::job(spec);
            assert_eq!(job.network, name);
            for role in job.roles.clone() {
                assert_eq!(config(&job, role).computation.reveal.name(), "label");
            }
        }

        // Whose form it is stays with the network on a volume.
        let mut own = weights("w", json!({"emptyDir": {}}));
        own.model.volume.as_mut().unwrap().activation = Some(Activation::Relu);
        let job = crate::job::tests::job(own);
        assert_eq!(job.network, "A-relu");
        let owner = config(&job, Role::MODEL_OWNER).player.unwrap();
        assert_eq!(owner.inputs.as_deref(), Some(Path::new("/data/w")));
    }

    #[test]
    fn a_form_that_there_is_not_is_refused() {
        let with = |model: Value, format| {
            let model = serde_json::from_value(model).unwrap();
            refusal(SecureInferenceSpec { model, number_format: format, ..network() })
        };
        for (model, format, expected) in [
            (
                json!({"builtin": "A", "activation": "Relu"}),
                NumberFormat::Int100,
                "spec.model: act1, node ",
            ),
            (
                json!({"builtin": "A", "reveal": "Label"}),
                NumberFormat::Int100,
                "spec.model: label, node ",
            ),
            (
                json!({"builtin": "A", "activation": "Relu", "pooling": "Max"}),
                NumberFormat::Int64,
                "spec.model: network A has no pooling",
            ),
            (
                json!({"builtin": "C", "pooling": "Max"}),
                NumberFormat::Int64,
                "spec.model: network C has max pooling with the activation relu alone",
            ),
        ] {
            let message = with(model, format);
            assert!(message.starts_with(expected), "{message}");
        }
        let message = with(json!({"builtin": "A", "activation": "Relu"}), NumberFormat::Int100);
        assert!(message.contains("Int100 cannot compare numbers"), "{message}");
        let model = Model { reveal: Some(Reveal::Logits), ..sum().model };
        let message = refusal(SecureInferenceSpec { model, ..network() });
        assert!(message.contains("a graph reveals what it says"), "{message}");
        let mut inspected = network();
        inspected.model.reveal = Some(Reveal::Label);
        inspected.workload.inspect = Some(1);
        let message = refusal(inspected);
        assert!(message.contains("spec.workload.inspect reveals every layer"), "{message}");
        let model = Model { activation: Some(Activation::Relu), ..sum().model };
        let message = refusal(SecureInferenceSpec { model, ..network() });
        assert!(message.contains("spec.model.activation and pooling are of builtin"), "{message}");
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
}
