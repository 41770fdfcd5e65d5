//! The serialised form of a graph.

use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::limits::{MAX_LABEL_BYTES, MAX_NODES, MAX_POLYNOMIALS, too_many};
use super::op::{Node, Op};
use super::{Graph, GraphError};
use crate::channel::Name;

/// The serialised form of a graph.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GraphFile {
    name: String,
    players: Vec<Name>,
    #[serde(default)]
    range: Option<u32>,
    #[serde(deserialize_with = "nodes")]
    nodes: Vec<Node>,
}

/// The same, to write.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenGraph<'a> {
    name: &'a str,
    players: &'a [Name],
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<u32>,
    nodes: &'a [Node],
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, players, range, nodes, .. } = self;
        WrittenGraph { name, players, range: *range, nodes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        GraphFile::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

impl TryFrom<GraphFile> for Graph {
    type Error = GraphError;

    fn try_from(file: GraphFile) -> Result<Self, GraphError> {
        let mut graph = Self::empty(file.name, file.players)?;
        if let Some(range) = file.range {
            graph.declare(range)?;
        }
        for (index, node) in file.nodes.into_iter().enumerate() {
            let operation = node.operation.name();
            // What is wrong may be the label.
            let label: String = node.label.escape_default().take(MAX_LABEL_BYTES).collect();
            graph.append(node).map_err(|reason| GraphError::Node {
                operation,
                place: format!("node {index} of {label}"),
                reason,
            })?;
        }
        graph.check()?;
        Ok(graph)
    }
}

/// Reads the nodes of a graph, and stops where there are more than a graph may have: each
/// fit among them is computed at once.
fn nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
    struct Nodes;

    impl<'de> Visitor<'de> for Nodes {
        type Value = Vec<Node>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of nodes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Node>, A::Error> {
            let (mut nodes, mut polynomials) = (Vec::new(), 0);
            while let Some(node) = list.next_element::<Node>()? {
                polynomials += usize::from(matches!(node.operation, Op::Polynomial { .. }));
                nodes.push(node);
                if nodes.len() > MAX_NODES {
                    return Err(de::Error::custom(too_many("nodes", MAX_NODES)));
                }
                if polynomials > MAX_POLYNOMIALS {
                    return Err(de::Error::custom(too_many("polynomials", MAX_POLYNOMIALS)));
                }
            }
            Ok(nodes)
        }
    }

    deserializer.deserialize_seq(Nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::GraphBuilder;
    use crate::polynomial::Polynomial;

    #[test]
    fn a_graph_has_so_many_polynomials_and_no_more() {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [1]);
        let linear = |g: &GraphBuilder, x| {
            g.polynomial(x, Polynomial { coefficients: vec![0.0, 1.0], range: 1.0 })
        };
        let y = (0..MAX_POLYNOMIALS).fold(x, |x, _| linear(&g, x));
        g.private_output("alice", y);
        let text = serde_json::to_string(&g.build().unwrap()).unwrap();
        assert!(serde_json::from_str::<Graph>(&text).is_ok());

        let one = r#"{"label":"main","operation":{"op":"polynomial","input":0,"polynomial":{"coefficients":[1.0],"range":1.0}}}"#;
        let more = text.replacen(r#""nodes":["#, &format!(r#""nodes":[{one},"#), 1);
        let refused = serde_json::from_str::<Graph>(&more).unwrap_err().to_string();
        assert!(refused.contains("at most 2048 polynomials"), "{refused}");
    }
}
