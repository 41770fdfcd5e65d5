//! Resources and jobs that tests are made of.

use party::config::{PartyConfig, Session};
use serde_json::{Value, json};
use spdz::channel::Role;
use spdz::graph::GraphBuilder;
use spdz::prg::SessionId;

use super::error::Invalid;
use super::model::Job;
use super::render::Addresses;
use crate::api::v1alpha1::{
    GraphModel, Model, ModelVolume, Network, Player, SecureInference, SecureInferenceSpec,
    VolumeSource,
};

/// The smallest of the networks.
pub(crate) fn network() -> SecureInferenceSpec {
    let model = Model { builtin: Some(Network::A), ..Model::default() };
    SecureInferenceSpec { model, ..SecureInferenceSpec::default() }
}

/// A network whose weights are on a volume.
pub(crate) fn weights(path: &str, source: Value) -> SecureInferenceSpec {
    let source = volume(source);
    let (activation, pooling) = (None, None);
    let path = path.into();
    let weights = ModelVolume { network: Network::A, activation, pooling, path, source };
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

pub(crate) fn volume(source: Value) -> VolumeSource {
    VolumeSource(source.as_object().unwrap().clone())
}

pub(crate) fn named(name: &str, spec: SecureInferenceSpec) -> Result<Job, Invalid> {
    let mut resource = SecureInference::new(name, spec);
    resource.metadata.namespace = Some("lab".into());
    resource.metadata.uid = Some("one".into());
    Job::of(&resource)
}

pub(crate) fn job(spec: SecureInferenceSpec) -> Job {
    named("run", spec).unwrap()
}

/// Why a spec is refused.
pub(crate) fn refusal(spec: SecureInferenceSpec) -> String {
    named("run", spec).map(|_| ()).unwrap_err().to_string()
}

pub(crate) fn addresses(server0: &str, server1: &str) -> Addresses {
    Addresses { server0: server0.into(), server1: server1.into() }
}

pub(crate) fn config(job: &Job, role: Role) -> PartyConfig {
    job.config(role, Session(SessionId([7; 16])), &addresses("10.0.0.1", "10.0.0.2"))
}
