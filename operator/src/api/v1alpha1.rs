//! `secureinference.dev/v1alpha1`: what users write and what they read back.
//!
//! The documentation of these types is what `kubectl explain` shows.

#![expect(unreachable_pub, reason = "the derived schema repeats types in a function")]

use std::collections::BTreeMap;

use clap::ValueEnum;
use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration, Volume};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use party::config::limits::{self, Limits};
use party::config::{Conditions, OfflineMode};
use party::result::RunResult;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spdz::network::{self, Builtin, UnknownNetwork, Variant};
use spdz::plan::{NumberFormat, Truncation};

/// Longest name of a resource, bytes: names of its Services have room for the attempt
/// and the role within the 63 of a DNS label.
pub const MAX_NAME_BYTES: usize = 48;

/// From the making of an attempt's pods until all are ready, seconds.
pub const START_DEADLINE_SECONDS: Limits<u64> =
    Limits { min: 1, max: limits::MAX_DEADLINE_SECONDS as u64 };

/// From the first attempt to the end of the run, seconds: to a week.
pub const ACTIVE_DEADLINE_SECONDS: Limits<u64> = Limits { min: 1, max: 604_800 };

/// Attempts after the first.
pub const BACKOFF_LIMIT: Limits<u64> = Limits { min: 0, max: 100 };

/// How long a finished resource is kept, seconds: to a year.
pub const TTL_SECONDS: Limits<u64> = Limits { min: 0, max: 31_536_000 };

/// Longest graph, bytes: a party's configuration fits into a Secret.
pub const MAX_GRAPH_BYTES: usize = 512 << 10;

/// One measured private inference: model, workload, number format, placement.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "secureinference.dev",
    version = "v1alpha1",
    kind = "SecureInference",
    plural = "secureinferences",
    shortname = "si",
    category = "all",
    namespaced,
    status = "SecureInferenceStatus",
    derive = "PartialEq",
    doc = "A private inference between parties that trust each other with nothing but their part in the protocol: two servers and a producer of correlated randomness compute on secret shares of a model owner's weights and a client's images. The operator runs each party as a pod and reports latency, accuracy, bytes and rounds.",
    validation = Rule::new("self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be at most 48 lower-case letters, digits and inner hyphens, and start with a letter: the parties' Services are named after it"),
    printcolumn(name = "Network", type_ = "string", json_path = ".status.network", description = "What is computed."),
    printcolumn(name = "Format", type_ = "string", json_path = ".spec.numberFormat", description = "The number format."),
    printcolumn(name = "Batch", type_ = "integer", json_path = ".spec.workload.batchSize", description = "Inputs of one inference."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "How far it is."),
    printcolumn(name = "Combined", type_ = "string", json_path = ".status.summary.combined", description = "Mean runtime of an inference; online alone with Ahead."),
    printcolumn(name = "Online", type_ = "string", json_path = ".status.summary.online", description = "Mean time of its online part."),
    printcolumn(name = "Accuracy", type_ = "string", json_path = ".status.summary.accuracy", description = "Part of the test set that the private inference gets right."),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt", priority = "1", description = "Which attempt runs, or ran last."),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.failure.reason", priority = "1", description = "Why the last failed attempt failed.")
)]
#[x_kube(
    validation = Rule::new("self.model == oldSelf.model").message("spec.model cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.numberFormat == oldSelf.numberFormat").message("spec.numberFormat cannot be changed; delete the resource and create it again"),
    validation = Rule::new("has(self.truncation) == has(oldSelf.truncation) && (!has(self.truncation) || self.truncation == oldSelf.truncation)").message("spec.truncation cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.workload == oldSelf.workload").message("spec.workload cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.parties == oldSelf.parties").message("spec.parties cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.placement == oldSelf.placement").message("spec.placement cannot be changed; delete the resource and create it again"),
    validation = Rule::new("has(self.telemetry) == has(oldSelf.telemetry) && (!has(self.telemetry) || self.telemetry == oldSelf.telemetry)").message("spec.telemetry cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.networkPolicy == oldSelf.networkPolicy").message("spec.networkPolicy cannot be changed; delete the resource and create it again"),
    validation = Rule::new("self.startDeadlineSeconds == oldSelf.startDeadlineSeconds && self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds").message("deadlines cannot be changed; delete the resource and create it again"),
    validation = Rule::new("!has(self.model.graph) || !has(self.workload.accuracySamples) || self.workload.accuracySamples == 0").message("spec.workload.accuracySamples is for networks; a graph of one's own has no test set"),
    validation = Rule::new("!has(self.workload.inspect) || has(self.model.builtin)").message("spec.workload.inspect reveals the weights; it is for benchmarks with the shipped ones, spec.model.builtin"),
    validation = Rule::new("!has(self.workload.inspect) || !has(self.model.reveal) || self.model.reveal != 'Label'").message("spec.workload.inspect reveals every layer, and so more than spec.model.reveal: Label; leave one of them out"),
    validation = Rule::new("!has(self.model.graph) || !has(self.workload.warmupSeconds) || self.workload.warmupSeconds == 0").message("spec.workload.warmupSeconds is for networks; the evaluations of a graph are counted, use warmup"),
    validation = Rule::new("!has(self.model.graph) || (!has(self.parties.modelOwner) && !has(self.parties.client))").message("spec.parties.modelOwner and client are of networks; a graph has spec.model.graph.players.NAME.pod"),
    validation = Rule::new("!has(self.parties.image) || self.parties.image.matches('^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$')").message("spec.parties.image is no name of an image"),
    validation = Rule::new("!has(self.model.graph) || self.workload.batchSize == 1").message("spec.workload.batchSize is for networks; the shapes of a graph are its own")
)]
pub struct SecureInferenceSpec {
    /// What is computed, and whose weights it uses.
    pub model: Model,
    /// The numbers that shares are made of: `Int64` (integers modulo 2^64, fast), `Int100` (the
    /// paper's ten residues, the more exact) or `Int32` (integers modulo 2^32: half the bytes, for
    /// networks with ReLU, without polynomials; values and sums must stay below 128).
    #[serde(default)]
    #[schemars(schema_with = "format_schema")]
    pub number_format: NumberFormat,
    /// How products are truncated to the format's precision: `Local` (without a message;
    /// wrong with a small probability) or `Interactive` (one round; never wrong). Without it
    /// what the paper does: `Local` for `Int64`, `Interactive` for `Int100`. `Local` for `Int32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TruncationSchema")]
    pub truncation: Option<Truncation>,
    /// How much is inferred and measured.
    #[serde(default)]
    pub workload: Workload,
    /// How the parties' pods are made.
    #[serde(default)]
    pub parties: Parties,
    /// How the parties are spread over nodes.
    #[serde(default)]
    pub placement: Placement,
    /// Where the parties send traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// Whether NetworkPolicies close everything but the protocol's own connections, metrics
    /// and traces.
    #[serde(default = "yes")]
    pub network_policy: bool,
    /// All parties must be ready this many seconds after their pods were made, or the run has
    /// failed. Time in the admission queue, while the pods of other runs are scheduled, does
    /// not count.
    #[serde(default = "default_start_deadline")]
    #[schemars(range(min = START_DEADLINE_SECONDS.min, max = START_DEADLINE_SECONDS.max))]
    pub start_deadline_seconds: u32,
    /// The run must be complete this many seconds after its first attempt began, all attempts
    /// together, or it has failed.
    #[serde(default = "default_active_deadline")]
    #[schemars(range(min = ACTIVE_DEADLINE_SECONDS.min, max = ACTIVE_DEADLINE_SECONDS.max))]
    pub active_deadline_seconds: u32,
    /// How many further attempts follow a failed one. An attempt is of all parties together:
    /// none is ever restarted alone, because a mask may be used only once.
    #[serde(default = "default_backoff_limit")]
    #[schemars(range(min = BACKOFF_LIMIT.min, max = BACKOFF_LIMIT.max))]
    pub backoff_limit: u32,
    /// How long the resource is kept once it is finished; without it, until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<TtlAfterFinished>,
    /// Ends the attempt that runs and begins no other; false again begins a new one.
    #[serde(default)]
    pub suspend: bool,
}

impl Default for SecureInferenceSpec {
    /// What is left out, with a model that is yet to be chosen.
    fn default() -> Self {
        Self {
            model: Model::default(),
            number_format: NumberFormat::default(),
            truncation: None,
            workload: Workload::default(),
            parties: Parties::default(),
            placement: Placement::default(),
            telemetry: None,
            network_policy: yes(),
            start_deadline_seconds: default_start_deadline(),
            active_deadline_seconds: default_active_deadline(),
            backoff_limit: default_backoff_limit(),
            ttl_after_finished: None,
            suspend: false,
        }
    }
}

/// A DNS subdomain, the form of most names in a cluster.
const SUBDOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// The key of a label, a taint or a resource.
const KEY: &str =
    "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";

/// The value of a label or a taint.
const VALUE: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";

/// A quantity that is not negative.
const QUANTITY: &str = "^([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$";

/// Secrets by name.
fn secrets_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "maxLength": 253, "pattern": SUBDOMAIN}},
        },
    })
}

/// Labels, of pods or of nodes; the operator checks their keys.
fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": VALUE},
    })
}

/// A container's resources without claims, of which a party's pod has none. The operator checks
/// their names.
fn resources_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let quantities = |description: &str| {
        serde_json::json!({
            "type": "object",
            "description": description,
            "maxProperties": 16,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true,
                "minimum": 0,
                "pattern": QUANTITY,
            },
        })
    };
    schemars::json_schema!({
        "type": "object",
        "properties": {
            "requests": quantities("What it asks for, such as `cpu: 500m` and `memory: 1Gi`."),
            "limits": quantities("What it may not exceed."),
            "claims": {
                "type": "array",
                "description": "Not for parties: their pods have no resource claims.",
                "maxItems": 0,
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        },
    })
}

/// Tolerations as pods have them.
fn tolerations_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "type": "object",
            "properties": {
                "key": {
                    "type": "string",
                    "description": "The taint's key; every taint without it.",
                    "maxLength": 317,
                    "pattern": KEY,
                },
                "operator": {
                    "type": "string",
                    "description": "How the taint's value must be; `Equal` without it.",
                    "enum": ["Equal", "Exists", "Lt", "Gt"],
                },
                "value": {
                    "type": "string",
                    "description": "The taint's value; with `Exists` none.",
                    "maxLength": 63,
                    "pattern": VALUE,
                },
                "effect": {
                    "type": "string",
                    "description": "The taint's effect; any without it.",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "format": "int64",
                    "description": "How long `NoExecute` is tolerated; for ever without it.",
                },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                    "message": "a toleration without a key needs the operator Exists",
                },
                {
                    "rule": "!has(self.value) || self.value == '' || !has(self.operator) || self.operator != 'Exists'",
                    "message": "a toleration with the operator Exists has no value",
                },
                {
                    "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                    "message": "tolerationSeconds is for the effect NoExecute",
                },
            ],
        },
    })
}

/// The names of the number formats.
fn format_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": NumberFormat::ALL.map(NumberFormat::name) })
}

/// The values of a truncation, for the schema.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
enum TruncationSchema {
    Local,
    Interactive,
}

fn default_start_deadline() -> u32 {
    300
}

fn default_active_deadline() -> u32 {
    1800
}

fn default_backoff_limit() -> u32 {
    2
}

fn yes() -> bool {
    true
}

/// What is computed: exactly one of `builtin`, `volume` and `graph`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.builtin), has(self.volume), has(self.graph)].exists_one(given, given)").message("spec.model needs exactly one of builtin, volume and graph"),
    validation = Rule::new("has(self.builtin) || (!has(self.activation) && !has(self.pooling))").message("spec.model.activation and pooling are of builtin; a volume has its own, and a graph its operations"),
    validation = Rule::new("!has(self.graph) || !has(self.reveal)").message("spec.model.reveal is of networks; a graph reveals what it says, give it an argMax"),
    validation = Rule::new("!has(self.pooling) || self.pooling != 'Max' || !has(self.builtin) || (self.builtin != 'A' && has(self.activation) && self.activation == 'Relu')").message("pooling: Max is for the networks B and C with activation: Relu")
)]
pub struct Model {
    /// A network of the paper, with the weights that come with the toolkit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Network>,
    /// The activations of `builtin`; without it `Polynomial`, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The pooling of `builtin`; without it `Average`, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// What the client of the network learns; without it `Logits`, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<Reveal>,
    /// A network of the paper, with the model owner's own weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<ModelVolume>,
    /// A computation of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<GraphModel>,
}

/// The paper's networks (its Figure 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Network {
    /// Three dense layers.
    A,
    /// Two convolutions and two dense layers; 34,070 parameters.
    B,
    /// The same with wider layers; 433,360 parameters.
    C,
}

impl Network {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// The network in one of its forms.
    fn form(
        self,
        activation: Option<Activation>,
        pooling: Option<Pooling>,
    ) -> Result<Builtin, UnknownNetwork> {
        let activation = match activation {
            None | Some(Activation::Polynomial) => network::Activation::Polynomial,
            Some(Activation::Relu) => network::Activation::Relu,
        };
        let pooling = match pooling {
            None | Some(Pooling::Average) => network::Pooling::Average,
            Some(Pooling::Max) => network::Pooling::Max,
        };
        Builtin::new(self.name(), Variant { activation, pooling })
    }
}

/// What follows each linear layer of the network but the last; without it `Polynomial`, as in the
/// paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// The paper's polynomial, a fit of ReLU.
    Polynomial,
    /// Exact ReLU; only in number formats that can compare, which `Int100` cannot.
    Relu,
}

/// How the output of the network's convolutions is made smaller; without it `Average`, as in the
/// paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Pooling {
    /// The average of each window.
    Average,
    /// The largest value of each window; of the networks B and C with `Relu`.
    Max,
}

/// What the client of the network learns; without it `Logits`, as in the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reveal {
    /// What the last layer puts out: a number for each class.
    Logits,
    /// The class alone, computed on shares, which tells less of the weights; only in number
    /// formats that can compare, which `Int100` cannot.
    Label,
}

impl Model {
    /// One of the paper's networks with the weights that come with the toolkit.
    #[must_use]
    pub fn of(builtin: Builtin) -> Self {
        let Variant { activation, pooling } = builtin.variant();
        Self {
            builtin: match builtin.architecture() {
                "A" => Some(Network::A),
                "B" => Some(Network::B),
                _ => Some(Network::C),
            },
            activation: match activation {
                network::Activation::Polynomial => None,
                network::Activation::Relu => Some(Activation::Relu),
            },
            pooling: match pooling {
                network::Pooling::Average => None,
                network::Pooling::Max => Some(Pooling::Max),
            },
            ..Self::default()
        }
    }

    /// The same with what its client learns.
    #[must_use]
    pub fn revealing(self, reveal: network::Reveal) -> Self {
        let reveal = match reveal {
            network::Reveal::Logits => None,
            network::Reveal::Label => Some(Reveal::Label),
        };
        Self { reveal, ..self }
    }

    /// What the client of the network learns.
    #[must_use]
    pub fn revealed(&self) -> network::Reveal {
        match self.reveal {
            None | Some(Reveal::Logits) => network::Reveal::Logits,
            Some(Reveal::Label) => network::Reveal::Label,
        }
    }

    /// The paper's network that is computed, with the weights of the toolkit or with others;
    /// none with a graph.
    ///
    /// # Errors
    /// If the network has no such form.
    pub fn network(&self) -> Result<Option<Builtin>, UnknownNetwork> {
        let form = match (self.builtin, &self.volume) {
            (Some(network), _) => network.form(self.activation, self.pooling),
            (None, Some(volume)) => volume.network.form(volume.activation, volume.pooling),
            (None, None) => return Ok(None),
        };
        form.map(Some)
    }
}

/// Weights on a volume that only the model owner's pod mounts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!self.path.matches('(^|/)[.][.](/|$)|^/')").message("path must be relative to the top of the volume, without `..`"),
    validation = Rule::new("!has(self.pooling) || self.pooling != 'Max' || (self.network != 'A' && has(self.activation) && self.activation == 'Relu')").message("pooling: Max is for the networks B and C with activation: Relu")
)]
pub struct ModelVolume {
    /// The network whose weights they are.
    pub network: Network,
    /// Its activations; without it `Polynomial`, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Its pooling; without it `Average`, as in the paper.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// The safetensors file on the volume, relative to its top.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// The volume, as in a pod; it is mounted read-only.
    pub source: VolumeSource,
}

/// A computation of named players.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.players) || !['server0', 'server1', 'producer'].exists(role, role in self.players)").message("players cannot be called server0, server1 or producer, which are other roles"))]
pub struct GraphModel {
    /// The graph in its serialised form, YAML or JSON; docs/graph.md explains it.
    #[schemars(length(min = 1, max = MAX_GRAPH_BYTES))]
    pub definition: String,
    /// The players' input and output files, by player name.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 64))]
    pub players: BTreeMap<String, Player>,
}

/// What a player of a graph brings, and where it keeps what it learns.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(!has(self.inputs) || !self.inputs.matches('(^|/)[.][.](/|$)|^/')) && (!has(self.outputs) || !self.outputs.matches('(^|/)[.][.](/|$)|^/'))").message("inputs and outputs must be relative to the top of the volume, without `..`"),
    validation = Rule::new("has(self.source) == (has(self.inputs) || has(self.outputs))").message("inputs and outputs need a source, the volume that they are on, and a source needs one of them")
)]
pub struct Player {
    /// A volume that only this player's pod mounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<VolumeSource>,
    /// The safetensors file on it with what the player brings, relative to its top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub inputs: Option<String>,
    /// The safetensors file to write on it with what the player learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub outputs: Option<String>,
    /// How this player's pod differs from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
}

/// How much is inferred and measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Inputs of one inference.
    #[schemars(range(min = limits::BATCH_SIZE.min, max = limits::BATCH_SIZE.max))]
    pub batch_size: u32,
    /// Inferences before the timed ones.
    #[schemars(range(min = limits::WARMUP.min, max = limits::WARMUP.max))]
    pub warmup: u32,
    /// How long a network's client runs uncounted inferences before `warmup`, seconds: nodes that
    /// have just started pods are busy. Not for graphs.
    #[schemars(range(min = limits::WARMUP_SECONDS.min, max = limits::WARMUP_SECONDS.max))]
    pub warmup_seconds: u32,
    /// Timed inferences.
    #[schemars(range(min = limits::REPETITIONS.min, max = limits::REPETITIONS.max))]
    pub repetitions: u32,
    /// When the producer generates correlated randomness: `Inline`, within each inference's
    /// time, or `Ahead`, for all timed inferences before the first.
    #[serde(with = "OfflineSchema")]
    #[schemars(with = "OfflineSchema")]
    pub offline: OfflineMode,
    /// Images of the test set that are scored after the timed inferences, from the first; 0
    /// for none. Without it, all 10000 for a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::INSPECTED.max))]
    pub accuracy_samples: Option<u32>,
    /// A slower network to imitate between all parties: what each sends is held back. Without
    /// it, the cluster's as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Conditions>,
    /// NOT PRIVATE: the client learns the output of every layer for this many images of the test
    /// set, and so the weights, and compares it with the plaintext computation. For benchmarks:
    /// only with the shipped weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::INSPECTED.min, max = limits::INSPECTED.max))]
    pub inspect: Option<u32>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            batch_size: 1,
            warmup: 5,
            warmup_seconds: 0,
            repetitions: 100,
            offline: OfflineMode::Inline,
            accuracy_samples: None,
            network: None,
            inspect: None,
        }
    }
}

/// The values of an offline mode, as Kubernetes spells them.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(remote = "OfflineMode")]
enum OfflineSchema {
    /// Within each inference's time.
    Inline,
    /// For all timed inferences before the first.
    Ahead,
}

/// How the parties' pods are made. What is set for one role replaces what is set for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Parties {
    /// The image of all parties; without it the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When nodes pull the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets in this namespace with the credentials for pulling it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "secrets_schema")]
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// How many threads each server and the producer divide large products among; without it
    /// as many as its container has cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = limits::THREADS.min, max = limits::THREADS.max))]
    pub threads: Option<u32>,
    /// Of all parties' pods; what is set for one role replaces it.
    #[serde(flatten)]
    pub pods: PodSettings,
    /// Server 0, one of the two servers that compute on shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server0: Option<PodSettings>,
    /// Server 1, one of the two servers that compute on shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server1: Option<PodSettings>,
    /// The producer of correlated randomness.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<PodSettings>,
    /// The owner of a network's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_owner: Option<PodSettings>,
    /// The client of a network: it has the images, measures, and learns the predictions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<PodSettings>,
}

/// Settings of a party's pod, or of all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// What a party's container asks of its node and may not exceed. Without it, as the operator was
    /// told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources_schema")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a party's node must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels_schema")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints of nodes that a party's pod tolerates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerations_schema")]
    pub tolerations: Option<Vec<Toleration>>,
    /// Labels of a party's pod besides the operator's own. Kueue's queue name is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations of a party's pod besides the operator's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Rules by which the scheduler places a party's pod, as in a pod. With a `podAntiAffinity` here
    /// `spec.placement.spread` has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<PodObject>,
    /// How the scheduler spreads parties' pods, as in a pod; without a `labelSelector`, among the
    /// pods of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Option<Vec<PodObject>>,
    /// The PriorityClass of a party's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = SUBDOMAIN))]
    pub priority_class_name: Option<String>,
    /// The RuntimeClass of a party's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("pattern" = SUBDOMAIN))]
    pub runtime_class_name: Option<String>,
    /// The scheduler of a party's pod; without it the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// Which user and groups a party runs as; without it as the operator was told, `Fixed` as a
    /// rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<UserIds>,
}

/// Which user and groups a pod runs as.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum,
)]
pub enum UserIds {
    /// User, group and the group of its volumes are 65532.
    #[default]
    Fixed,
    /// The pod names none: the platform chooses, as OpenShift does for each namespace.
    Platform,
}

/// When nodes pull an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl ImagePullPolicy {
    /// As a pod spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// How the parties are spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Whether no two parties of the run share a node: `None` does not care, `Preferred` tries,
    /// `Required` waits.
    pub spread: Spread,
    /// The node label whose value must differ: nodes, zones or regions.
    #[schemars(length(min = 1, max = 317), extend("pattern" = KEY))]
    pub topology_key: String,
}

impl Default for Placement {
    fn default() -> Self {
        Self { spread: Spread::Preferred, topology_key: "kubernetes.io/hostname".into() }
    }
}

/// Whether parties must be apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    /// Not at all.
    None,
    /// They are apart where that is possible.
    Preferred,
    /// They wait until they can be apart.
    Required,
}

/// Where traces go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.otlpEndpoint.matches('^http://[^/?# ][^/ ]*(/[^ ]*)?$')").message("otlpEndpoint must be http://host:port"))]
pub struct Telemetry {
    /// The collector of traces, OTLP over gRPC: `http://host:port`.
    #[schemars(length(min = 1, max = 1024))]
    pub otlp_endpoint: String,
    /// The part of inferences that is traced.
    #[serde(default = "all_of_it")]
    #[schemars(range(min = limits::SAMPLING_RATIO.min, max = limits::SAMPLING_RATIO.max))]
    pub sampling_ratio: f64,
}

fn all_of_it() -> f64 {
    1.0
}

/// How long a finished resource is kept, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TtlAfterFinished {
    /// After success; without it, until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = TTL_SECONDS.min, max = TTL_SECONDS.max))]
    pub succeeded: Option<u32>,
    /// After failure; without it, until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = TTL_SECONDS.min, max = TTL_SECONDS.max))]
    pub failed: Option<u32>,
}

/// The observed state; only the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecureInferenceStatus {
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// A summary of the conditions for people; programs read the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `Accepted`, `PartiesReady`, `Complete`, `Failed`, `Finished` (either of these), `Suspended`,
    /// and for tools that know no others `Reconciling` and `Stalled`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// What is computed: the network's name, or the graph's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// A digest of what may not change once the resource was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_digest: Option<String>,
    /// The number of the attempt that runs, or ran last; counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Attempts that failed; at most `spec.backoffLimit` are followed by another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_attempts: Option<u32>,
    /// When the first attempt began; after a suspension, the first since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// When the attempt that runs began; absent while none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_start_time: Option<MicroTime>,
    /// Seconds of `spec.startDeadlineSeconds` used by attempts that gave way to other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_seconds_used: Option<u32>,
    /// When all parties of the last attempt were ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_time: Option<MicroTime>,
    /// When the run was complete, or had failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<MicroTime>,
    /// The parties of the last attempt.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parties: Vec<PartyStatus>,
    /// Why the last failed attempt failed: the first party that did, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What the run measured, exactly as a run on one machine reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub results: Option<RunResult>,
    /// Some of the results as people read them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
}

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing runs yet.
    Pending,
    /// Pods of an attempt are being started.
    Starting,
    /// All parties are ready.
    Running,
    /// The results are there.
    Succeeded,
    /// There will be no further attempt.
    Failed,
    /// It waits until `spec.suspend` is false.
    Suspended,
}

impl Phase {
    /// All phases.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Starting,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Suspended,
    ];
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Suspended => "Suspended",
        })
    }
}

/// One party of the last attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartyStatus {
    /// Its role: `server0`, `server1`, `producer`, or a player's name.
    pub role: String,
    /// Its pod.
    pub pod: String,
    /// The pod's unique id.
    pub uid: String,
    /// The node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its phase.
    pub phase: PartyPhase,
    /// What it waits for, or how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its pod was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When its pod was scheduled to a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Time>,
    /// When its container began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was connected to all its peers; absent if it was done before the node looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
    /// When its container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The exit code of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How often its container was restarted: always 0, a party is never restarted alone.
    pub restarts: i32,
}

/// The phase of a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PartyPhase {
    /// Its container does not run yet.
    Pending,
    /// Its container runs, and is not connected to all peers.
    Started,
    /// It is connected to all its peers.
    Ready,
    /// It is done.
    Succeeded,
    /// It failed.
    Failed,
    /// Its pod is gone, or about to go.
    Lost,
    /// The attempt was over before it was; its pod is deleted.
    Stopped,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The attempt.
    pub attempt: u32,
    /// The party that failed first; absent if no party is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Why, in one word.
    pub reason: String,
    /// The exit code of its container, if that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The message of its error.
    pub message: String,
}

/// Some of the results as people read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Mean runtime of an inference; online alone with `Ahead`.
    pub combined: String,
    /// Mean time of its online part.
    pub online: String,
    /// Part of the test set that the private inference gets right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<String>,
}

/// Conditions are a list by type, so that several writers do not lose each other's.
fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), serde_json::json!(["type"]));
    schema
}

/// A volume as in a pod's `volumes`, without its name: any kind that the cluster knows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeSource(pub serde_json::Map<String, serde_json::Value>);

/// What volumes of a kind do not work without, where their type does not say so.
const NEEDED: [(&str, &str); 5] = [
    ("configMap", "name"),
    ("persistentVolumeClaim", "claimName"),
    ("secret", "secretName"),
    ("csi", "driver"),
    ("hostPath", "path"),
];

impl VolumeSource {
    /// The volume under a name.
    ///
    /// # Errors
    /// If it is not one kind of volume, or has fields that this kind does not have.
    pub fn named(&self, name: &str) -> Result<Volume, String> {
        let kinds: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let [kind] = &kinds[..] else {
            let kinds = if kinds.is_empty() { "none".into() } else { kinds.join(", ") };
            return Err(format!(
                "needs exactly one kind of volume, such as persistentVolumeClaim, found: {kinds}"
            ));
        };
        let lacks = |field: &str| {
            let found = self.0.get(*kind).and_then(|fields| fields.get(field));
            found.is_none_or(|found| found.as_str() == Some(""))
        };
        if let Some((_, field)) = NEEDED.iter().find(|(of, field)| of == kind && lacks(field)) {
            return Err(format!("is a volume of kind {kind} without {field}"));
        }
        let mut fields = self.0.clone();
        fields.insert("name".into(), name.into());
        let fields = serde_json::Value::Object(fields);
        let volume: Volume = serde_json::from_value(fields.clone())
            .map_err(|error| format!("is no volume of kind {kind}: {error}"))?;
        // What the type does not know it drops.
        if serde_json::to_value(&volume).is_ok_and(|kept| kept == fields) {
            return Ok(volume);
        }
        Err(format!(
            "is no volume of kind {kind}: it has an unknown or empty field, or the kind is unknown"
        ))
    }
}

impl JsonSchema for VolumeSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VolumeSource".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// The kinds by name, without their fields: those are many, and the API server's own affair.
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let volume = Volume::json_schema(generator);
        let all = volume.get("properties").and_then(serde_json::Value::as_object);
        let mut kinds = serde_json::Map::new();
        for kind in all.into_iter().flatten().map(|(kind, _)| kind).filter(|kind| *kind != "name") {
            let mut of_kind = serde_json::json!({
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": true,
            });
            for (_, field) in NEEDED.iter().filter(|(of, _)| of == kind) {
                of_kind["required"] = [*field].into();
                of_kind["properties"] =
                    serde_json::json!({ *field: {"type": "string", "minLength": 1} });
            }
            kinds.insert(kind.clone(), of_kind);
        }
        let given: Vec<String> = kinds.keys().map(|kind| format!("has(self.{kind})")).collect();
        schemars::json_schema!({
            "type": "object",
            "description": "A volume as in a pod's `volumes`, without its name: for example \
                            `persistentVolumeClaim: {claimName: weights}` or \
                            `configMap: {name: weights}`.",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": kinds,
            // Others are kept, and so refused instead of forgotten.
            "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-validations": [{
                "rule": given.join(" || "),
                "message": "a source is a volume of a kind that pods have, such as persistentVolumeClaim",
            }],
        })
    }
}

/// A part of a pod's specification whose schema is the API server's own: the operator checks it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodObject(pub serde_json::Map<String, serde_json::Value>);

impl PodObject {
    /// The object as the type that it is of.
    ///
    /// # Errors
    /// If it lacks a field of the type, or has one that the type does not have.
    pub fn typed<T: serde::de::DeserializeOwned + Serialize>(&self) -> Result<T, String> {
        let fields = serde_json::Value::Object(self.0.clone());
        let typed: T = serde_json::from_value(fields.clone()).map_err(|error| error.to_string())?;
        // What the type does not know it drops, and what it needs it makes up.
        match serde_json::to_value(&typed) {
            Ok(kept) if kept == fields => Ok(typed),
            _ => Err("a field is unknown, empty or missing".into()),
        }
    }
}

impl JsonSchema for PodObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodObject".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        })
    }
}

impl Parties {
    /// The settings of a role's pod: its own where it has some, else those of all.
    #[must_use]
    pub fn settings(&self, own: Option<&PodSettings>) -> PodSettings {
        let (own, all) = (own.cloned().unwrap_or_default(), self.pods.clone());
        PodSettings {
            resources: own.resources.or(all.resources),
            node_selector: own.node_selector.or(all.node_selector),
            tolerations: own.tolerations.or(all.tolerations),
            labels: own.labels.or(all.labels),
            annotations: own.annotations.or(all.annotations),
            affinity: own.affinity.or(all.affinity),
            topology_spread_constraints: own
                .topology_spread_constraints
                .or(all.topology_spread_constraints),
            priority_class_name: own.priority_class_name.or(all.priority_class_name),
            runtime_class_name: own.runtime_class_name.or(all.runtime_class_name),
            scheduler_name: own.scheduler_name.or(all.scheduler_name),
            user_ids: own.user_ids.or(all.user_ids),
        }
    }
}

impl SecureInferenceSpec {
    /// All settings of pods, with the places that they are at.
    #[must_use]
    pub fn pods(&self) -> Vec<(String, PodSettings)> {
        let parties = &self.parties;
        let roles = [
            ("server0", &parties.server0),
            ("server1", &parties.server1),
            ("producer", &parties.producer),
            ("modelOwner", &parties.model_owner),
            ("client", &parties.client),
        ];
        let roles = roles.into_iter().filter_map(|(role, pod)| {
            Some((format!("spec.parties.{role}"), pod.as_ref()?.clone()))
        });
        let players = self.model.graph.iter().flat_map(|graph| &graph.players);
        let players = players.filter_map(|(name, player)| {
            Some((format!("spec.model.graph.players.{name}.pod"), player.pod.as_ref()?.clone()))
        });
        let all = ("spec.parties".to_owned(), parties.pods.clone());
        std::iter::once(all).chain(roles).chain(players).collect()
    }
}

impl SecureInference {
    /// The CustomResourceDefinition, for servers that know CEL rules (1.25 and newer) or for
    /// those that do not.
    #[must_use]
    pub fn definition(with_rules: bool) -> CustomResourceDefinition {
        let mut definition = Self::crd();
        for version in &mut definition.spec.versions {
            if let Some(schema) =
                version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
            {
                adapt(schema, with_rules);
                // Until the operator has looked at it, a resource is not what it should be: without
                // this, tools take one without a status for one that is.
                let status = schema.properties.as_mut().and_then(|all| all.get_mut("status"));
                if let Some(status) = status {
                    status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
                }
            }
        }
        definition
    }
}

/// Makes a schema one that API servers take.
fn adapt(schema: &mut JSONSchemaProps, with_rules: bool) {
    if !with_rules {
        schema.x_kubernetes_validations = None;
    }
    // What may be left out need not be null; `kubectl explain` shows no type for what may.
    schema.nullable = None;
    // API servers know the signed formats only; the range says the rest.
    schema.format.take_if(|format| format.starts_with("uint"));
    // API servers compare whole numbers with the whole part of a bound.
    if let Some(least) = schema.minimum.filter(|least| least.fract() > 0.0) {
        schema.minimum = Some(least.floor());
        schema.exclusive_minimum = Some(true);
    }
    // An optional value is nullable already; API servers of old take no null among an enum's.
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    schema
        .properties
        .iter_mut()
        .flat_map(BTreeMap::values_mut)
        .for_each(|property| adapt(property, with_rules));
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => adapt(items, with_rules),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => {
            items.iter_mut().for_each(|item| adapt(item, with_rules));
        }
        None => {}
    }
    match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => adapt(values, with_rules),
        // What the results' own type refuses; a structural schema prunes instead.
        Some(JSONSchemaPropsOrBool::Bool(false)) => schema.additional_properties = None,
        _ => {}
    }
}
