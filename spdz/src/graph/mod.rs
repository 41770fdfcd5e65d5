//! Computations between named players, written like the paper's Figure 1.
//!
//! A [`GraphBuilder`] takes operations on [`Tensor`]s and checks each as it comes;
//! the [`Graph`] it builds is public, complete and has a serialised form, and
//! [`crate::plan::Plan::compile`] turns it into the steps of the protocol.
//!
//! A tensor is in one of three places. *Private* tensors are shared between the
//! servers. *Public* ones are part of the graph. *Local* ones are plaintext at
//! one player, who computes on them alone before sharing and after receiving.
//!
//! ```
//! use spdz::graph::GraphBuilder;
//!
//! let g = GraphBuilder::new(["model-owner", "prediction-client"]);
//! let w = g.private_input("model-owner", [784, 10]);
//! let x = g.private_input("prediction-client", [32, 784]);
//! let y = g.sigmoid(g.matmul(x, w));
//! g.private_output("prediction-client", y);
//! let graph = g.build()?;
//! assert_eq!(graph.players().len(), 2);
//! # Ok::<(), spdz::graph::GraphError>(())
//! ```

use crate::channel::Name;

mod builder;
mod evaluate;
mod file;
mod function;
mod infer;
mod kernels;
mod limits;
mod op;
mod tensor;
mod work;

pub use crate::geometry::{Padding, Stride, Window, Windows};
pub use builder::{BatchNorm, GraphBuilder, Tensor};
pub use evaluate::{EvaluateError, InputSpec};
pub use function::Function;
pub use infer::{Facts, Place};
use infer::{Known, check_visible};
use limits::MAX_NAME_BYTES;
pub use limits::{
    MAX_CHOICES, MAX_DEGREE, MAX_LABEL_BYTES, MAX_NODES, MAX_PLAYERS, MAX_POLYNOMIALS, MAX_PUBLIC,
    MAX_PUBLIC_TERMS, MAX_RANGE, MAX_TENSOR,
};
pub use op::{Lifetime, Node, NodeId, Op};
pub use tensor::{FillError, Plaintext, Tensors};
pub use work::{TooMuchWork, Work};

/// A computation between players.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    name: String,
    players: Vec<Name>,
    range: Option<u32>,
    nodes: Vec<Node>,
    facts: Vec<Facts>,
}

/// What is wrong with a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A node does not fit the others.
    #[error("{operation} ({place}): {reason}")]
    Node {
        /// What the node does.
        operation: &'static str,
        /// Its number and label, or where in the program it was made.
        place: String,
        /// What is wrong, with shapes and names.
        reason: String,
    },
    /// The players.
    #[error("players: {0}")]
    Players(String),
    /// The graph as a whole.
    #[error("{0}")]
    Whole(String),
}

impl Graph {
    fn empty(name: String, players: Vec<Name>) -> Result<Self, GraphError> {
        check_visible("a graph's name", &name, MAX_NAME_BYTES).map_err(GraphError::Whole)?;
        if players.is_empty() || players.len() > MAX_PLAYERS {
            let found = players.len();
            return Err(GraphError::Players(format!("expected 1 to {MAX_PLAYERS}, found {found}")));
        }
        for (index, player) in players.iter().enumerate() {
            if players[..index].contains(player) {
                return Err(GraphError::Players(format!("{player} is named twice")));
            }
        }
        Ok(Self { name, players, range: None, nodes: Vec::new(), facts: Vec::new() })
    }

    /// Declares that all numbers are below `range` in magnitude, or says why it cannot be.
    fn declare(&mut self, range: u32) -> Result<(), GraphError> {
        if !range.is_power_of_two() || range > MAX_RANGE {
            return Err(GraphError::Whole(format!(
                "a graph's range is a power of two from 1 to {MAX_RANGE}, found {range}"
            )));
        }
        self.range = Some(range);
        Ok(())
    }

    /// Appends a node that reads earlier ones, or says why it cannot be.
    fn append(&mut self, node: Node) -> Result<NodeId, String> {
        check_visible("a label", &node.label, MAX_LABEL_BYTES)?;
        let facts = self.infer(&node.operation)?;
        self.nodes.push(node);
        self.facts.push(facts);
        Ok(NodeId(self.nodes.len() - 1))
    }

    fn infer(&self, op: &Op) -> Result<Facts, String> {
        let Self { players, nodes, facts, .. } = self;
        Known { players, nodes, facts }.infer(op)
    }

    /// What a product or pooling of public tensors takes, in terms of its sums; nothing if
    /// the node is neither.
    fn public_terms(&self, id: NodeId) -> usize {
        let leading = |id: &NodeId, axes| self.facts(*id).shape[..axes].iter().product();
        let inner: usize = match self.operation(id) {
            Op::MatMul { right, .. } => leading(right, 1),
            Op::Conv2d { filter, .. } => leading(filter, 3),
            Op::SumPool { window, .. } => window.area(),
            _ => return 0,
        };
        match self.facts(id).place {
            Place::Public => self.facts(id).len().saturating_mul(inner),
            _ => 0,
        }
    }

    /// What can only be said of the whole: somebody receives every result, and every
    /// player has a part.
    fn check(&self) -> Result<(), GraphError> {
        if !self.nodes.iter().any(|node| matches!(node.operation, Op::Reveal { .. })) {
            return Err(GraphError::Whole(
                "nobody receives an output; reveal a private tensor to a player".into(),
            ));
        }
        let public = self.facts.iter().filter(|facts| facts.place == Place::Public);
        let public: usize = public.map(Facts::len).sum();
        if public > MAX_PUBLIC {
            return Err(GraphError::Whole(format!(
                "public tensors have {public} elements, at most {MAX_PUBLIC} are accepted; let a player bring them"
            )));
        }
        let terms = (0..self.nodes.len()).map(|index| self.public_terms(NodeId(index)));
        if terms.fold(0, usize::saturating_add) > MAX_PUBLIC_TERMS {
            return Err(GraphError::Whole(format!(
                "products and pooling of public tensors have sums of more than {MAX_PUBLIC_TERMS} terms in all; make them constants, or let a player bring them"
            )));
        }
        let mut used = vec![false; self.nodes.len()];
        for node in &self.nodes {
            node.operation.inputs().iter().for_each(|id| used[id.0] = true);
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let idle = !used[index] && self.facts[index].place != Place::Public;
            if idle && !matches!(node.operation, Op::Output { .. }) {
                return Err(GraphError::Node {
                    operation: node.operation.name(),
                    place: format!("node {index} of {}", node.label),
                    reason: "nobody receives its result; make it part of an output or leave it out"
                        .into(),
                });
            }
        }
        // Everybody would wait for the connections of one who has nothing to do.
        let idle = self.players.iter().find(|player| {
            !self.nodes.iter().any(|node| match &node.operation {
                Op::Input { player: own, .. } | Op::Reveal { player: own, .. } => own == *player,
                _ => false,
            })
        });
        match idle {
            Some(player) => Err(GraphError::Players(format!(
                "{player} has no part, it neither brings nor learns anything; leave it out"
            ))),
            None => Ok(()),
        }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The players.
    #[must_use]
    pub fn players(&self) -> &[Name] {
        &self.players
    }

    /// The same graph, which declares another range, or none.
    ///
    /// # Errors
    /// If it is no power of two up to [`MAX_RANGE`].
    pub fn with_range(mut self, range: Option<u32>) -> Result<Self, GraphError> {
        self.range = None;
        range.map_or(Ok(()), |range| self.declare(range))?;
        Ok(self)
    }

    /// What all numbers on shares are below in magnitude, if the graph's author says that they are
    /// smaller than the number format allows: a power of two, at most [`MAX_RANGE`]. Numbers with
    /// fewer bits cost less, and in `Int32` they are more precise.
    #[must_use]
    pub fn range(&self) -> Option<u32> {
        self.range
    }

    /// The nodes, each after those that it reads.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is known of a node.
    #[must_use]
    pub fn facts(&self, id: NodeId) -> &Facts {
        &self.facts[id.0]
    }

    /// A node's operation.
    #[must_use]
    pub fn operation(&self, id: NodeId) -> &Op {
        &self.nodes[id.0].operation
    }
}
