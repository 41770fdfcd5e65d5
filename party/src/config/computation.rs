//! What the parties compute.

use serde::{Deserialize, Serialize};
use spdz::graph::Graph;
use spdz::network::{Builtin, Reveal};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::protocol::{Protocol, Spdz};

use super::error::ConfigError;

/// What the parties compute together: a `network` or a `graph`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Computation {
    /// The name of one of the paper's networks in one of its forms ([`Builtin`]): `A`, `B-relu`,
    /// `C-relu-max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Inputs of one inference, 1 to 1024; 1 without it. Networks only: the shapes of
    /// a graph are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Any other computation, in the serialised form of [`Graph`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// What the client of a network learns; its logits without it. Networks only: a graph
    /// reveals what it says.
    #[serde(default, skip_serializing_if = "Reveal::is_default")]
    pub reveal: Reveal,
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
    /// One of the paper's networks on a batch, with the usual truncation; it reveals logits.
    #[must_use]
    pub fn of_network(name: &str, batch_size: usize, format: NumberFormat) -> Self {
        Self {
            network: Some(name.into()),
            batch_size: Some(batch_size),
            graph: None,
            reveal: Reveal::default(),
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
            reveal: Reveal::default(),
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
        let compile = |graph: &Graph| Ok(Spdz::compile(graph, self.format, truncation)?);
        match (&self.network, &self.graph) {
            (Some(name), None) => {
                let network = name.parse::<Builtin>()?.network();
                match (self.inspect, self.reveal) {
                    (false, reveal) => compile(&network.revealing_graph(self.batch(), reveal)?),
                    (true, Reveal::Logits) => compile(&network.inspected_graph(self.batch())?),
                    (true, Reveal::Label) => Err(ConfigError::Computation(
                        "has `inspect` beside `reveal: label`; what is inspected reveals every layer, leave one of them out",
                    )),
                }
            }
            (None, Some(_)) if self.reveal == Reveal::Label => Err(ConfigError::Computation(
                "has `reveal` beside `graph`; a graph reveals what it says, give it an `argMax` and leave this out",
            )),
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
