//! The files of `manifests/` that follow from the types: the definition and the samples.
//!
//! A sample that would not be accepted cannot be written.

use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use serde_json::{Value, json};
use spdz::graph::Graph;
use spdz::plan::NumberFormat;

use crate::api::v1alpha1::{
    Activation, GraphModel, Model, ModelVolume, Network, Player, PodSettings, Pooling, Reveal,
    SecureInference, SecureInferenceSpec, Spread, Telemetry, VolumeSource, Workload,
};
use crate::job::Job;

/// The definition as YAML.
///
/// # Errors
/// If it cannot be written as YAML.
pub fn definition(with_rules: bool) -> anyhow::Result<String> {
    let rules = if with_rules { "" } else { " --without-rules" };
    let yaml = serde_yaml::to_string(&SecureInference::definition(with_rules))
        .context("cannot write the definition as YAML")?;
    Ok(format!("# Generated from the types: operator crd{rules}\n{yaml}"))
}

/// A sample file.
pub struct Sample {
    /// Its name.
    pub file: String,
    /// What it shows, and what it needs.
    text: &'static str,
    /// Other objects that come with it.
    with: Vec<Value>,
    /// The resources.
    pub resources: Vec<SecureInference>,
}

impl Sample {
    /// The file's content.
    ///
    /// # Errors
    /// If it cannot be written as YAML.
    pub fn yaml(&self) -> anyhow::Result<String> {
        let mut text: String = self.text.lines().map(|line| format!("# {line}\n")).collect();
        let resources = self.resources.iter().map(compact).collect::<anyhow::Result<Vec<_>>>()?;
        for (index, object) in self.with.iter().chain(&resources).enumerate() {
            if index > 0 {
                text.push_str("---\n");
            }
            text.push_str(&serde_yaml::to_string(object).context("cannot write a sample")?);
        }
        Ok(text)
    }
}

/// Writes the definition and the samples into `folder`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    for (path, content) in files()? {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, content))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// All generated files: path in `manifests/` and content.
///
/// # Errors
/// If a sample is not valid.
pub fn files() -> anyhow::Result<Vec<(String, String)>> {
    let mut files = vec![
        ("crd.yaml".to_owned(), definition(true)?),
        ("before-1.25/crd.yaml".to_owned(), definition(false)?),
    ];
    for sample in samples()? {
        files.push((format!("samples/{}", sample.file), sample.yaml()?));
    }
    Ok(files)
}

/// A resource as a person would write it: without what is the default anyway.
fn compact(resource: &SecureInference) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(resource)?;
    let default = SecureInferenceSpec::default();
    if let (Some(spec), Value::Object(default)) =
        (value["spec"].as_object_mut(), serde_json::to_value(default)?)
    {
        without_defaults(spec, &default);
    }
    Ok(value)
}

fn without_defaults(
    value: &mut serde_json::Map<String, Value>,
    default: &serde_json::Map<String, Value>,
) {
    value.retain(|key, field| default.get(key) != Some(field));
    for (key, field) in value {
        if let (Value::Object(field), Some(Value::Object(default))) = (field, default.get(key)) {
            without_defaults(field, default);
        }
    }
}

/// All samples.
///
/// # Errors
/// If one is not valid.
pub fn samples() -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let networks = [Network::A, Network::B, Network::C];
    for (network, format) in networks
        .into_iter()
        .flat_map(|network| NumberFormat::with_polynomials().map(move |format| (network, format)))
    {
        let name = format!("network-{}-{format}", network.name()).to_lowercase();
        samples.push(Sample {
            file: format!("{name}.yaml"),
            text: "One of the paper's networks with the weights that come with the toolkit: 100 timed\n\
                   inferences, and the accuracy on the whole test set.",
            with: Vec::new(),
            resources: vec![resource(
                &name,
                SecureInferenceSpec { number_format: format, ..builtin(network) },
            )],
        });
    }
    samples.extend([
        exact_relu(),
        label_only(),
        batch_sweep(),
        own_weights(),
        own_graph()?,
        pinned_nodes(),
        telemetry(),
    ]);
    for resource in samples.iter().flat_map(|sample| &sample.resources) {
        let mut accepted = resource.clone();
        accepted.metadata.namespace = Some("default".into());
        accepted.metadata.uid = Some("sample".into());
        if let Err(invalid) = Job::of(&accepted) {
            let name = resource.metadata.name.as_deref().unwrap_or_default();
            bail!("the sample {name} is not valid: {invalid}");
        }
    }
    Ok(samples)
}

fn resource(name: &str, spec: SecureInferenceSpec) -> SecureInference {
    SecureInference::new(name, spec)
}

fn spec(model: Model) -> SecureInferenceSpec {
    SecureInferenceSpec { model, ..SecureInferenceSpec::default() }
}

fn builtin(network: Network) -> SecureInferenceSpec {
    spec(Model { builtin: Some(network), ..Model::default() })
}

fn volume(source: Value) -> VolumeSource {
    match source {
        Value::Object(source) => VolumeSource(source),
        _ => VolumeSource::default(),
    }
}

fn exact_relu() -> Sample {
    let model = Model {
        builtin: Some(Network::B),
        activation: Some(Activation::Relu),
        pooling: Some(Pooling::Max),
        ..Model::default()
    };
    Sample {
        file: "exact-relu.yaml".into(),
        text: "Network B with exact ReLU and max pooling in place of the paper's polynomial and average\n\
               pooling, and weights that were trained for them.",
        with: Vec::new(),
        resources: vec![resource("exact-relu", spec(model))],
    }
}

fn label_only() -> Sample {
    let model = Model {
        builtin: Some(Network::B),
        activation: Some(Activation::Relu),
        reveal: Some(Reveal::Label),
        ..Model::default()
    };
    Sample {
        file: "label-only.yaml".into(),
        text: "Network B with exact ReLU, of which the client learns the class of each image alone:\n\
               the largest of the logits is found on shares. Its accuracy and its agreement with the\n\
               plaintext network are scored as usual; a class has no KL divergence.",
        with: Vec::new(),
        resources: vec![resource(
            "label-only",
            SecureInferenceSpec { number_format: NumberFormat::Int32, ..spec(model) },
        )],
    }
}

fn batch_sweep() -> Sample {
    let resources = [1, 10, 100].map(|batch_size| {
        let workload = Workload {
            batch_size,
            repetitions: 20,
            accuracy_samples: Some(1000),
            ..Workload::default()
        };
        let spec = SecureInferenceSpec { workload, ..builtin(Network::C) };
        resource(&format!("batch-{batch_size}"), spec)
    });
    Sample {
        file: "batch-sweep.yaml".into(),
        text: "Network C with 1, 10 and 100 images in an inference. Compare COMBINED of\n\
               kubectl get secureinferences.",
        with: Vec::new(),
        resources: resources.into(),
    }
}

fn telemetry() -> Sample {
    let traces =
        Telemetry { otlp_endpoint: "http://collector.example:4317".into(), sampling_ratio: 0.5 };
    let spec = SecureInferenceSpec { telemetry: Some(traces), ..builtin(Network::A) };
    Sample {
        file: "telemetry.yaml".into(),
        text: "Every second inference is a trace over all parties, in the collector that takes OTLP over\n\
               gRPC at this address. A run does not depend on it: spans that nobody takes are\n\
               counted and dropped. Metrics are there without asking, at port 9400 of each party.",
        with: Vec::new(),
        resources: vec![resource("telemetry", spec)],
    }
}

fn own_weights() -> Sample {
    let model = ModelVolume {
        network: Network::A,
        activation: None,
        pooling: None,
        path: "weights.safetensors".into(),
        source: volume(json!({ "configMap": { "name": "own-weights" } })),
    };
    Sample {
        file: "own-weights.yaml".into(),
        text: "A network of the paper with weights of one's own, from a volume that the model\n\
               owner's pod alone mounts. Their plaintext outputs are not known here, so the\n\
               accuracy is that of the private inference alone.\n\
               Any volume will do; here the weights are small enough for a ConfigMap:\n  \
               kubectl create configmap own-weights --from-file=weights.safetensors=bench/models/a.safetensors",
        with: Vec::new(),
        resources: vec![resource(
            "own-weights",
            spec(Model { volume: Some(model), ..Model::default() }),
        )],
    }
}

fn own_graph() -> anyhow::Result<Sample> {
    serde_yaml::from_str::<Graph>(SCORE).context("the sample's graph")?;
    let player = |name: &str, outputs: Option<&str>| Player {
        source: Some(volume(json!({ "configMap": { "name": name } }))),
        inputs: Some("inputs.safetensors".into()),
        outputs: outputs.map(str::to_owned),
        pod: None,
    };
    let results = Player {
        source: Some(volume(
            json!({ "persistentVolumeClaim": { "claimName": "own-graph-score" } }),
        )),
        inputs: None,
        outputs: Some("score.safetensors".into()),
        pod: None,
    };
    let players = [
        ("alice".to_owned(), player("own-graph-alice", None)),
        ("bob".to_owned(), player("own-graph-bob", None)),
        ("carol".to_owned(), results),
    ];
    let graph = GraphModel { definition: SCORE.into(), players: players.into() };
    let workload = Workload { repetitions: 20, ..Workload::default() };
    let spec =
        SecureInferenceSpec { workload, ..spec(Model { graph: Some(graph), ..Model::default() }) };
    Ok(Sample {
        file: "own-graph.yaml".into(),
        text: "A computation of one's own: bob's score of alice's features, which only carol learns.\n\
               Each player mounts its own volume; carol's keeps what it learns. docs/graph.md\n\
               explains graphs, and bench run runs this one on one machine.",
        with: vec![
            inputs("own-graph-alice", "features", &[1, 3], &[0.5, -1.25, 2.0])?,
            inputs("own-graph-bob", "weights", &[3, 1], &[1.0, 0.75, -0.5])?,
            claim("own-graph-score")?,
        ],
        resources: vec![resource("own-graph", spec)],
    })
}

/// The graph of a sample, as people write one.
const SCORE: &str = "\
name: score
players: [alice, bob, carol]
nodes:
  - { label: main, operation: { op: input, player: alice, name: features, shape: [1, 3] } }
  - { label: main, operation: { op: share, input: 0 } }
  - { label: main, operation: { op: input, player: bob, name: weights, shape: [3, 1] } }
  - { label: main, operation: { op: share, input: 2 } }
  - { label: main, operation: { op: matmul, left: 1, right: 3 } }
  - label: main
    operation:
      op: polynomial
      input: 4
      polynomial: { fit: { function: sigmoid, bound: 8, degree: 9 } }
  - { label: main, operation: { op: reveal, input: 5, player: carol } }
  - { label: main, operation: { op: output, input: 6, name: score } }
";

/// A ConfigMap with one tensor, as a player brings it.
fn inputs(name: &str, tensor: &str, shape: &[usize], values: &[f64]) -> anyhow::Result<Value> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F64, shape.into(), &bytes)?;
    let file = safetensors::serialize([(tensor, view)], None)?;
    let map = ConfigMap {
        metadata: named(name),
        binary_data: Some([("inputs.safetensors".to_owned(), ByteString(file))].into()),
        ..ConfigMap::default()
    };
    Ok(serde_json::to_value(map)?)
}

fn claim(name: &str) -> anyhow::Result<Value> {
    let claim: PersistentVolumeClaim = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": "1Mi" } },
        },
    }))?;
    Ok(serde_json::to_value(claim)?)
}

fn named(name: &str) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(name.into()),
        ..Default::default()
    }
}

fn pinned_nodes() -> Sample {
    let on = |key: &str| {
        let label = (format!("example.org/{key}"), "true".to_owned());
        Some(PodSettings { node_selector: Some([label].into()), ..PodSettings::default() })
    };
    let mut spec = builtin(Network::C);
    spec.parties.server0 = on("server0");
    spec.parties.server1 = on("server1");
    spec.parties.producer = on("producer");
    spec.placement.spread = Spread::None;
    Sample {
        file: "pinned-nodes.yaml".into(),
        text: "Each server and the producer on nodes of its own choice, as where different people run\n\
               them. Give the labels to the nodes first:\n  \
               kubectl label node NODE example.org/server0=true",
        with: Vec::new(),
        resources: vec![resource("pinned-nodes", spec)],
    }
}
