//! Computation on plaintext, in 64-bit floating point: what a player does alone before
//! sharing and after receiving, and the whole graph as a reference.
//!
//! Nothing here knows of shares, masks or number formats.

use std::collections::BTreeMap;

use ndarray::{ArrayViewD, ErrorKind, ShapeError};

use super::Graph;
use super::infer::Place;
use super::kernels::compute;
use super::op::{Lifetime, Node, NodeId, Op};
use super::tensor::{Plaintext, Tensors};
use crate::channel::Name;

/// What a player has to bring under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// What the player calls it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How long it lasts.
    pub lifetime: Lifetime,
}

/// Why a graph cannot be evaluated on some inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// The graph has no such player.
    #[error("unknown player {found}; the players are {players:?}")]
    Player {
        /// The name that was given.
        found: Name,
        /// The graph's players.
        players: Vec<Name>,
    },
    /// An input that is needed and was not given.
    #[error(
        "{player} brings no input {name:?}; expected one of shape {expected:?}, found {found:?}"
    )]
    Missing {
        /// The player.
        player: Name,
        /// What the player calls the input.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The names of those that were given.
        found: Vec<String>,
    },
    /// An input of another shape.
    #[error("{player} brings the input {name:?} in shape {found:?}, expected {expected:?}")]
    Shape {
        /// The player.
        player: Name,
        /// What the player calls the input.
        name: String,
        /// The shape that the graph says.
        expected: Vec<usize>,
        /// The shape of what was given.
        found: Vec<usize>,
    },
    /// A revealed tensor that is missing, of another shape, or not the player's.
    #[error("node {}, revealed to {player}: expected {expected}, found {found}", .node.0)]
    Revealed {
        /// The player.
        player: Name,
        /// The node.
        node: NodeId,
        /// What the graph says.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An operation that does not go with its operands: a mistake of this library.
    #[error("{operation} ({place}): {reason}")]
    Node {
        /// What the node does.
        operation: &'static str,
        /// Its number and label.
        place: String,
        /// What the array library says.
        reason: String,
    },
}

/// The value of a node while others read it.
enum Value<'a> {
    /// An input or a constant, kept by somebody else.
    Given(ArrayViewD<'a, f64>),
    /// What was computed or revealed.
    Own(Plaintext),
}

impl Value<'_> {
    fn view(&self) -> ArrayViewD<'_, f64> {
        match self {
            Self::Given(view) => view.view(),
            Self::Own(own) => own.as_array().view(),
        }
    }
}

impl Graph {
    /// What `player` has to bring, in the order of the graph.
    #[must_use]
    pub fn inputs_of(&self, player: Name) -> Vec<InputSpec> {
        let spec = |op: &Op| match op {
            Op::Input { player: owner, name, shape, lifetime } if *owner == player => {
                Some(InputSpec { name: name.clone(), shape: shape.clone(), lifetime: *lifetime })
            }
            _ => None,
        };
        self.nodes.iter().filter_map(|node| spec(&node.operation)).collect()
    }

    /// The names and shapes of what `player` obtains, in the order of the graph.
    #[must_use]
    pub fn outputs_of(&self, player: Name) -> Vec<(String, Vec<usize>)> {
        self.output_nodes(player)
            .map(|(id, name)| (name.into(), self.facts[id.0].shape.clone()))
            .collect()
    }

    fn output_nodes(&self, player: Name) -> impl Iterator<Item = (NodeId, &str)> {
        self.nodes.iter().enumerate().filter_map(move |(index, node)| match &node.operation {
            Op::Output { name, .. } if self.is_local(NodeId(index), player) => {
                Some((NodeId(index), name.as_str()))
            }
            _ => None,
        })
    }

    fn is_local(&self, id: NodeId, player: Name) -> bool {
        matches!(self.facts[id.0].place, Place::Local { player: owner, .. } if owner == player)
    }

    /// What `player` computes before an evaluation, or with [`Lifetime::Session`]
    /// before the first: the values of the `Share` nodes of that lifetime that share
    /// the player's tensors, by node.
    ///
    /// Nothing else is computed. What is shared for an evaluation may depend on
    /// inputs of the session too, never the other way around.
    ///
    /// # Errors
    /// If the graph has no such player, or an input that is needed is missing or has
    /// another shape.
    pub fn before_sharing(
        &self,
        player: Name,
        lifetime: Lifetime,
        inputs: &Tensors,
    ) -> Result<BTreeMap<NodeId, Plaintext>, EvaluateError> {
        self.check_player(player)?;
        let shared = (0..self.nodes.len()).map(NodeId).filter(|id| {
            let Op::Share { input } = self.nodes[id.0].operation else { return false };
            self.is_local(input, player) && self.facts[id.0].lifetime == lifetime
        });
        self.values(shared.collect(), |_| Some(inputs), BTreeMap::new(), &mut |_, _| ())
    }

    /// What `player` computes after an evaluation: its outputs by name, given its
    /// inputs and the values of the `Reveal` nodes that reveal to the player.
    ///
    /// # Errors
    /// If the graph has no such player, an input that is needed is missing or has
    /// another shape, or `revealed` is not what the graph reveals to the player.
    pub fn after_receiving(
        &self,
        player: Name,
        inputs: &Tensors,
        revealed: BTreeMap<NodeId, Plaintext>,
    ) -> Result<Tensors, EvaluateError> {
        self.check_player(player)?;
        for id in (0..self.nodes.len()).map(NodeId).chain(revealed.keys().copied()) {
            let expected = match self.nodes.get(id.0).map(|node| &node.operation) {
                Some(Op::Reveal { player: receiver, .. }) if *receiver == player => {
                    Some(self.facts[id.0].shape.as_slice())
                }
                _ => None,
            };
            let found = revealed.get(&id).map(Plaintext::shape);
            if expected != found {
                let describe = |shape: Option<&[usize]>| match shape {
                    Some(shape) => format!("a tensor of shape {shape:?}"),
                    None => "none".into(),
                };
                let (expected, found) = (describe(expected), describe(found));
                return Err(EvaluateError::Revealed { player, node: id, expected, found });
            }
        }
        let outputs: Vec<(NodeId, &str)> = self.output_nodes(player).collect();
        let wanted = outputs.iter().map(|(id, _)| *id).collect();
        let mut values = self.values(wanted, |_| Some(inputs), revealed, &mut |_, _| ())?;
        let named = |(id, name): (NodeId, &str)| Some((name.into(), values.remove(&id)?));
        Ok(outputs.into_iter().filter_map(named).collect())
    }

    /// The outputs of every player, computed on plaintext in 64-bit floating point: what an
    /// evaluation of the protocol comes close to.
    ///
    /// # Errors
    /// If `inputs` names a player that the graph does not have, or an input is missing
    /// or has another shape.
    pub fn evaluate_plaintext(
        &self,
        inputs: &BTreeMap<Name, Tensors>,
    ) -> Result<BTreeMap<Name, Tensors>, EvaluateError> {
        self.evaluate_and_look(inputs, &mut |_, _| ())
    }

    /// The largest magnitude of each node's values, by the node's number: what a
    /// [`range`](Graph::range) has to be larger than. 0 for nodes that are not on shares. A sum that
    /// is multiplied by public numbers alone, as that of an average, counts as the product.
    ///
    /// # Errors
    /// As [`Graph::evaluate_plaintext`].
    pub fn largest_magnitudes(
        &self,
        inputs: &BTreeMap<Name, Tensors>,
    ) -> Result<Vec<f64>, EvaluateError> {
        let mut largest = vec![0.0; self.nodes.len()];
        self.evaluate_and_look(inputs, &mut |id, values| {
            if self.facts[id.0].place == Place::Private && !self.is_scaled_sum(id) {
                largest[id.0] = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
            }
        })?;
        Ok(largest)
    }

    /// Whether a node is a sum that nothing but products with public numbers reads.
    fn is_scaled_sum(&self, id: NodeId) -> bool {
        let is_sum = matches!(self.operation(id), Op::SumPool { .. } | Op::ReduceSum { .. });
        let public = |other: NodeId| self.facts[other.0].place == Place::Public;
        let scales = |node: &Node| match node.operation {
            Op::Mul { left, right } => public(if left == id { right } else { left }),
            _ => false,
        };
        let mut users = self.nodes.iter().filter(|node| node.operation.inputs().contains(&id));
        is_sum && users.all(scales)
    }

    /// [`Graph::evaluate_plaintext`], which shows the value of each node to `look`.
    fn evaluate_and_look(
        &self,
        inputs: &BTreeMap<Name, Tensors>,
        look: &mut dyn FnMut(NodeId, ArrayViewD<'_, f64>),
    ) -> Result<BTreeMap<Name, Tensors>, EvaluateError> {
        inputs.keys().try_for_each(|player| self.check_player(*player))?;
        let players = self.players.iter().copied();
        let wanted = players.clone().flat_map(|player| self.output_nodes(player)).map(|(id, _)| id);
        let mut values =
            self.values(wanted.collect(), |player| inputs.get(&player), BTreeMap::new(), look)?;
        let mut outputs = |player| {
            let named = |(id, name): (NodeId, &str)| Some((name.into(), values.remove(&id)?));
            self.output_nodes(player).filter_map(named).collect()
        };
        Ok(players.map(|player| (player, outputs(player))).collect())
    }

    /// The values of all public nodes: constants and what follows from constants alone.
    #[must_use]
    pub fn public_values(&self) -> BTreeMap<NodeId, Plaintext> {
        let ids = (0..self.nodes.len()).map(NodeId);
        let public = ids.filter(|id| self.facts[id.0].place == Place::Public).collect();
        // What is public depends on no input, and shapes were checked.
        self.values(public, |_| None, BTreeMap::new(), &mut |_, _| ()).unwrap_or_default()
    }

    fn check_player(&self, player: Name) -> Result<(), EvaluateError> {
        if self.players.contains(&player) {
            return Ok(());
        }
        Err(EvaluateError::Player { found: player, players: self.players.clone() })
    }

    /// The values of the `wanted` nodes, computed from `known` values and the inputs
    /// that each player brings. Only what they depend on is looked at, and each value
    /// is dropped when the last node that reads it is done. `look` is shown each that is computed.
    fn values<'a>(
        &'a self,
        wanted: Vec<NodeId>,
        inputs: impl Fn(Name) -> Option<&'a Tensors>,
        known: BTreeMap<NodeId, Plaintext>,
        look: &mut dyn FnMut(NodeId, ArrayViewD<'_, f64>),
    ) -> Result<BTreeMap<NodeId, Plaintext>, EvaluateError> {
        let mut values: Vec<Option<Value<'a>>> = self.nodes.iter().map(|_| None).collect();
        for (id, value) in known {
            values[id.0] = Some(Value::Own(value));
        }
        let mut readers = vec![0usize; self.nodes.len()];
        wanted.iter().for_each(|id| readers[id.0] += 1);
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if readers[index] > 0 && values[index].is_none() {
                node.operation.inputs().iter().for_each(|id| readers[id.0] += 1);
            }
        }

        for (index, (node, facts)) in self.nodes.iter().zip(&self.facts).enumerate() {
            if readers[index] == 0 || values[index].is_some() {
                continue;
            }
            let failed = |error: ShapeError| EvaluateError::Node {
                operation: node.operation.name(),
                place: format!("node {index} of {}", node.label),
                reason: error.to_string(),
            };
            let value = match &node.operation {
                Op::Input { player, name, .. } => {
                    let given = inputs(*player);
                    Value::Given(input(*player, name, &facts.shape, given)?.as_array().view())
                }
                Op::Constant { shape, values } => {
                    Value::Given(ArrayViewD::from_shape(shape.as_slice(), values).map_err(failed)?)
                }
                operation => {
                    let operands = operation.inputs();
                    let views: Option<Vec<_>> =
                        operands.iter().map(|id| values[id.0].as_ref().map(Value::view)).collect();
                    let value = views
                        .ok_or(ShapeError::from_kind(ErrorKind::Unsupported))
                        .and_then(|views| compute(operation, &facts.shape, &views))
                        .map_err(failed)?;
                    for id in operands {
                        readers[id.0] -= 1;
                        if readers[id.0] == 0 {
                            values[id.0] = None;
                        }
                    }
                    Value::Own(value)
                }
            };
            look(NodeId(index), value.view());
            debug_assert_eq!(value.view().shape(), facts.shape, "{}", node.operation.name());
            values[index] = Some(value);
        }

        let taken = |id: NodeId| match values[id.0].take()? {
            Value::Given(view) => Some((id, Plaintext::from(view.to_owned()))),
            Value::Own(own) => Some((id, own)),
        };
        Ok(wanted.into_iter().filter_map(taken).collect())
    }
}

/// The input that `player` calls `name`, which must have `shape`.
fn input<'a>(
    player: Name,
    name: &str,
    shape: &[usize],
    given: Option<&'a Tensors>,
) -> Result<&'a Plaintext, EvaluateError> {
    let Some(tensor) = given.and_then(|tensors| tensors.get(name)) else {
        return Err(EvaluateError::Missing {
            player,
            name: name.into(),
            expected: shape.to_vec(),
            found: given.into_iter().flat_map(BTreeMap::keys).cloned().collect(),
        });
    };
    if tensor.shape() != shape {
        return Err(EvaluateError::Shape {
            player,
            name: name.into(),
            expected: shape.to_vec(),
            found: tensor.shape().to_vec(),
        });
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, Axis, Slice};

    use super::*;
    use crate::geometry::{Padding, Stride, Window};
    use crate::graph::function::maximum;
    use crate::graph::{Function, GraphBuilder, Tensor};
    use crate::piecewise::{Activation, Piecewise};
    use crate::polynomial::Polynomial;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn plaintext(shape: impl Into<Vec<usize>>, values: impl Into<Vec<f64>>) -> Plaintext {
        Plaintext::new(shape, values.into()).unwrap()
    }

    fn tensors<const N: usize>(named: [(&str, Plaintext); N]) -> Tensors {
        named.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect()
    }

    /// 1, 2, 3 and so on.
    fn counted(shape: impl Into<Vec<usize>>) -> Plaintext {
        let shape = shape.into();
        let len: usize = shape.iter().product();
        plaintext(shape, (1..=len).map(|value| value as f64).collect::<Vec<_>>())
    }

    /// The result of an operation on received tensors. On public tensors, and if `shared`
    /// on private ones, it must be the same.
    fn apply_to(
        shared: bool,
        operands: &[&Plaintext],
        operation: impl Fn(&GraphBuilder, &[Tensor]) -> Tensor,
    ) -> Plaintext {
        let g = GraphBuilder::new(["alice"]);
        let names = ["x", "y", "z"].map(String::from).into_iter();
        let given: Tensors = names.zip(operands.iter().copied().cloned()).collect();
        let private: Vec<Tensor> = given
            .iter()
            .map(|(name, x)| g.share(g.local_input("alice", name, x.shape())))
            .collect();
        let public: Vec<Tensor> =
            given.values().map(|x| g.constant(x.shape(), x.as_slice())).collect();
        let received: Vec<Tensor> = private.iter().map(|x| g.reveal("alice", *x)).collect();
        let result = operation(&g, &received);
        g.output("local", result);
        if shared {
            g.output("private", g.reveal("alice", operation(&g, &private)));
        }
        g.output("difference", g.sub(operation(&g, &public), result));
        let graph = g.build().unwrap();

        let alice = name("alice");
        let results = graph.evaluate_plaintext(&BTreeMap::from([(alice, given)])).unwrap();
        let results = &results[&alice];
        for (name, shape) in graph.outputs_of(alice) {
            assert_eq!(results[&name].shape(), shape);
        }
        if shared {
            assert_eq!(results["private"], results["local"]);
        }
        let subtraction = graph.operation(NodeId(graph.nodes().len() - 2));
        let value = graph.public_values().remove(&subtraction.inputs()[0]).unwrap();
        assert_eq!(value, results["local"]);
        results["local"].clone()
    }

    fn apply(
        operands: &[&Plaintext],
        operation: impl Fn(&GraphBuilder, &[Tensor]) -> Tensor,
    ) -> Plaintext {
        apply_to(true, operands, operation)
    }

    fn apply_function(x: &Plaintext, function: Function) -> Plaintext {
        apply_to(false, &[x], |g, x| g.function(x[0], function))
    }

    #[test]
    fn sums_and_products_are_broadcast() {
        let x = plaintext([2, 1, 3], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let y = plaintext([2, 1], [10.0, 20.0]);
        assert_eq!(
            apply(&[&x, &y], |g, x| g.add(x[0], x[1])),
            plaintext([2, 2, 3], [11., 12., 13., 21., 22., 23., 14., 15., 16., 24., 25., 26.])
        );
        assert_eq!(
            apply(&[&y, &x], |g, x| g.sub(x[0], x[1])),
            plaintext([2, 2, 3], [9., 8., 7., 19., 18., 17., 6., 5., 4., 16., 15., 14.])
        );
        assert_eq!(
            apply(&[&x, &y], |g, x| g.mul(x[0], x[1])),
            plaintext([2, 2, 3], [10., 20., 30., 20., 40., 60., 40., 50., 60., 80., 100., 120.])
        );
        let single = plaintext([], [2.0]);
        let doubled = apply(&[&single, &x], |g, x| g.mul(x[0], x[1]));
        assert_eq!(doubled, plaintext([2, 1, 3], [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]));
        assert_eq!(apply(&[&single, &single], |g, x| g.add(x[0], x[1])), plaintext([], [4.0]));
    }

    #[test]
    fn elements_on_their_own() {
        let x = plaintext([3], [-1.5, 0.0, 2.0]);
        assert_eq!(apply(&[&x], |g, x| g.neg(x[0])), plaintext([3], [1.5, 0.0, -2.0]));
        assert_eq!(apply(&[&x], |g, x| g.square(x[0])), plaintext([3], [2.25, 0.0, 4.0]));
        assert_eq!(apply(&[&x], |g, x| g.abs(x[0])), plaintext([3], [1.5, 0.0, 2.0]));
        let y = plaintext([2, 1], [1.0, -1.0]);
        let larger = apply(&[&x, &y], |g, x| g.maximum(x[0], x[1]));
        assert_eq!(larger, plaintext([2, 3], [1.0, 1.0, 2.0, -1.0, 0.0, 2.0]));
        let smaller = apply(&[&x, &y], |g, x| g.minimum(x[0], x[1]));
        assert_eq!(smaller, plaintext([2, 3], [-1.5, 0.0, 1.0, -1.5, -1.0, -1.0]));
        let clipped = apply(&[&x], |g, x| g.clip(x[0], -1.0, 1.75));
        assert_eq!(clipped, plaintext([3], [-1.0, 0.0, 1.75]));
        assert_eq!(apply(&[&x], |g, x| g.clip(x[0], None, -0.1)).as_slice(), [-1.5, -0.1, -0.1]);
        assert_eq!(apply(&[&x], |g, x| g.relu6(g.scale(x[0], 9.0))).as_slice(), [0.0, 0.0, 6.0]);
        let leaky = apply(&[&x], |g, x| g.leaky_relu(x[0], 0.25));
        assert_eq!(leaky, plaintext([3], [-0.375, 0.0, 2.0]));
        let slopes = plaintext([1], [0.5]);
        let own = apply(&[&x, &slopes], |g, x| g.prelu(x[0], x[1]));
        assert_eq!(own, plaintext([3], [-0.75, 0.0, 2.0]));
        assert_eq!(apply(&[&x], |g, x| g.step(x[0], 0.0)), plaintext([3], [0.0, 1.0, 1.0]));
        let hat =
            Piecewise { points: vec![[-1.0, 0.0], [0.0, 3.0], [4.0, 1.0]], slopes: [0.0, 1.0] };
        let found = apply(&[&x], |g, x| g.piecewise(x[0], hat.clone()));
        assert_eq!(found, plaintext([3], [0.0, 3.0, 2.0]));
        let swish = apply(&[&x], |g, x| g.activation(x[0], Activation::HardSwish));
        assert_eq!(swish, plaintext([3], [-0.375, 0.0, 5.0 / 3.0]));
        let cubic = Polynomial { coefficients: vec![1.0, 0.0, -2.0, 4.0], range: 2.0 };
        let cubed = apply(&[&x], |g, x| g.polynomial(x[0], cubic.clone()));
        assert_eq!(cubed, plaintext([3], [-17.0, 1.0, 25.0]));
    }

    #[test]
    fn functions_of_elements() {
        let e = std::f64::consts::E;
        let cases = [
            (Function::Relu, vec![-2.0, 0.0, 3.0], vec![0.0, 0.0, 3.0]),
            (Function::Sigmoid, vec![-800.0, 0.0, 3f64.ln(), 800.0], vec![0.0, 0.5, 0.75, 1.0]),
            (Function::Tanh, vec![-800.0, 0.0, 3f64.ln()], vec![-1.0, 0.0, 0.8]),
            (Function::Exp, vec![0.0, 1.0, -1.0], vec![1.0, e, 1.0 / e]),
            (Function::Log, vec![1.0, e, e * e], vec![0.0, 1.0, 2.0]),
            (Function::Sqrt, vec![0.0, 2.25], vec![0.0, 1.5]),
            (Function::Reciprocal, vec![-4.0, 0.5], vec![-0.25, 2.0]),
        ];
        for (function, arguments, expected) in cases {
            let found = apply_function(&plaintext([1, arguments.len()], arguments), function);
            for (found, expected) in found.as_slice().iter().zip(expected) {
                assert!((found - expected).abs() < 1e-15, "{function:?}: {found}, {expected}");
            }
        }
        // What is no number stays none: sharing refuses it.
        assert!(Function::Relu.of_elements().unwrap()(f64::NAN).is_nan());
    }

    #[test]
    fn functions_along_the_last_axis() {
        let x = plaintext([2, 1, 4], [1.0, 7.0, 7.0, -3.0, -9.0, -9.0, -9.0, -8.5]);
        assert_eq!(apply_function(&x, Function::ArgMax), plaintext([2, 1], [1.0, 3.0]));
        assert_eq!(apply_function(&counted([5]), Function::ArgMax), plaintext([], [4.0]));

        let ln = f64::ln;
        let logits = [ln(1.0), ln(3.0), 1000.0, 1000.0 + ln(4.0), -1000.0, -1000.0 + ln(9.0)];
        let found = apply_function(&plaintext([3, 2], logits), Function::Softmax);
        assert_eq!(found.shape(), [3, 2]);
        for (found, expected) in found.as_slice().iter().zip([0.25, 0.75, 0.2, 0.8, 0.1, 0.9]) {
            assert!((found - expected).abs() < 1e-12, "{found}, expected {expected}");
        }
    }

    #[test]
    fn matrices() {
        let product = apply(&[&counted([2, 3]), &counted([3, 2])], |g, x| g.matmul(x[0], x[1]));
        assert_eq!(product, plaintext([2, 2], [22.0, 28.0, 49.0, 64.0]));
        // Of a transposed matrix.
        let product = apply(&[&counted([3, 2]), &counted([3, 1])], |g, x| {
            g.matmul(g.transpose(x[0], [1, 0]), x[1])
        });
        assert_eq!(product, plaintext([2, 1], [22.0, 28.0]));
    }

    #[test]
    fn axes_move_join_and_go() {
        let x = counted([2, 3]);
        let found = apply(&[&x], |g, x| g.reshape(x[0], [3, 1, 2]));
        assert_eq!(found, counted([3, 1, 2]));
        let found = apply(&[&x], |g, x| g.transpose(x[0], [1, 0]));
        assert_eq!(found, plaintext([3, 2], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        // Row-major after the axes have moved.
        let found = apply(&[&x], |g, x| g.reshape(g.transpose(x[0], [1, 0]), [6]));
        assert_eq!(found, plaintext([6], [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let found = apply(&[&counted([2, 2, 3])], |g, x| g.transpose(x[0], [2, 0, 1]));
        assert_eq!(
            found,
            plaintext([3, 2, 2], [1., 4., 7., 10., 2., 5., 8., 11., 3., 6., 9., 12.])
        );

        let y = plaintext([2, 1], [7.0, 8.0]);
        let found = apply(&[&x, &y], |g, x| g.concat(&[x[1], x[0], x[1]], 1));
        assert_eq!(found, plaintext([2, 5], [7.0, 1.0, 2.0, 3.0, 7.0, 8.0, 4.0, 5.0, 6.0, 8.0]));
        let found = apply(&[&x, &x], |g, x| g.stack(x, 1));
        assert_eq!(found, plaintext([2, 2, 3], [1., 2., 3., 1., 2., 3., 4., 5., 6., 4., 5., 6.]));
        let found = apply(&[&counted([3, 5])], |g, x| g.slice(x[0], [(1, 3, 1), (0, 5, 2)]));
        assert_eq!(found, plaintext([2, 3], [6.0, 8.0, 10.0, 11.0, 13.0, 15.0]));
        let found = apply(&[&x], |g, x| g.slice(x[0], [(0, 2, usize::MAX), (1, 3, 1 << 63)]));
        assert_eq!(found, plaintext([1, 1], [2.0]));
        let found = apply(&[&counted([2, 1])], |g, x| g.expand(x[0], [2, 2, 3]));
        assert_eq!(found, plaintext([2, 2, 3], [1., 1., 1., 2., 2., 2., 1., 1., 1., 2., 2., 2.]));

        let cube = counted([2, 3, 2]);
        let found = apply(&[&cube], |g, x| g.reduce_sum(x[0], [0, 2]));
        assert_eq!(found, plaintext([3], [18.0, 26.0, 34.0]));
        let found = apply(&[&cube], |g, x| g.reduce_sum(x[0], [0, 1, 2]));
        assert_eq!(found, plaintext([], [78.0]));
        let found = apply(&[&cube], |g, x| g.reduce_sum(x[0], []));
        assert_eq!(found, cube);
        let found = apply(&[&cube], |g, x| g.reduce_mean(x[0], [1]));
        for (found, expected) in found.as_slice().iter().zip([3.0, 4.0, 9.0, 10.0]) {
            assert!((found - expected).abs() < 1e-14);
        }
    }

    #[test]
    fn pools() {
        let found = apply(&[&counted([1, 2, 4, 2])], |g, x| g.sum_pool(x[0], 2));
        assert_eq!(found, plaintext([1, 1, 2, 2], [24.0, 28.0, 40.0, 44.0]));
        let found = apply(&[&counted([2, 2, 2, 1])], |g, x| g.avg_pool(x[0], 2));
        assert_eq!(found, plaintext([2, 1, 1, 1], [2.5, 6.5]));
        let x = counted([1, 2, 2, 3]);
        assert_eq!(apply(&[&x], |g, x| g.sum_pool(x[0], 1)), x);
    }

    #[test]
    fn pools_of_any_windows() {
        let x = counted([1, 3, 5, 1]);
        // Rows 1 to 5, 6 to 10 and 11 to 15; what no window fits into is left out.
        let found = apply(&[&x], |g, x| g.sum_pool(x[0], 2));
        assert_eq!(found, plaintext([1, 1, 2, 1], [16.0, 24.0]));
        let found = apply(&[&x], |g, x| g.sum_pool(x[0], [3, 1]));
        assert_eq!(found, plaintext([1, 1, 5, 1], [18.0, 21.0, 24.0, 27.0, 30.0]));
        let found = apply(&[&x], |g, x| g.sum_pool(x[0], Window::from([2, 3]).every(1)));
        assert_eq!(found, plaintext([1, 2, 3, 1], [27.0, 33.0, 39.0, 57.0, 63.0, 69.0]));
        let found = apply(&[&x], |g, x| g.sum_pool(x[0], Window::from([1, 2]).every([2, 3])));
        assert_eq!(found, plaintext([1, 2, 2, 1], [3.0, 9.0, 23.0, 29.0]));
        let found = apply(&[&x], |g, x| g.avg_pool(x[0], Window::from([2, 4]).every([1, 9])));
        assert_eq!(found, plaintext([1, 2, 1, 1], [5.0, 10.0]));
        // A stride is not needed where there is one window.
        let all = apply(&[&x], |g, x| g.sum_pool(x[0], Window::from([3, 5]).every(usize::MAX)));
        assert_eq!(all, plaintext([1, 1, 1, 1], [120.0]));
    }

    #[test]
    fn largest_values_of_windows() {
        let x = plaintext([1, 3, 3, 1], [1.0, -2.0, 3.0, 4.0, 5.0, 5.0, -7.0, -8.0, -9.0]);
        let found = apply(&[&x], |g, x| g.max_pool(x[0], 2, 1, 0));
        assert_eq!(found, plaintext([1, 2, 2, 1], [5.0, 5.0, 5.0, 5.0]));
        let found = apply(&[&x], |g, x| g.max_pool(x[0], [1, 3], 1, 0));
        assert_eq!(found, plaintext([1, 3, 1, 1], [3.0, 5.0, -7.0]));
        // Padding is no value, not even beside negative ones.
        let found = apply(&[&x], |g, x| g.max_pool(x[0], 2, 2, [0, 1, 1, 0]));
        assert_eq!(found, plaintext([1, 2, 2, 1], [4.0, 5.0, -7.0, -8.0]));
        let found = apply(&[&x], |g, x| g.max_pool(x[0], 3, 2, 1));
        assert_eq!(found, plaintext([1, 2, 2, 1], [5.0, 5.0, 5.0, 5.0]));
        assert_eq!(apply(&[&x], |g, x| g.max_pool(x[0], 1, 1, 0)), x);
        let found = apply(&[&counted([2, 2, 2, 2])], |g, x| g.max_pool(x[0], 2, 2, 0));
        assert_eq!(found, plaintext([2, 1, 1, 2], [7.0, 8.0, 15.0, 16.0]));
        let all = apply(&[&x], |g, x| g.max_pool(x[0], 3, usize::MAX, 0));
        assert_eq!(all, plaintext([1, 1, 1, 1], [5.0]));
        assert!(maximum(f64::NAN, 1.0).is_nan() && maximum(1.0, f64::NAN).is_nan());
    }

    #[test]
    fn a_convolution_by_hand() {
        // Pixels 1 to 9, filters of ones and of a single one at the lower right.
        let filter = plaintext([2, 2, 1, 2], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]);
        let found = apply(&[&counted([1, 3, 3, 1]), &filter], |g, x| g.conv2d(x[0], x[1], 1, 0));
        assert_eq!(found, plaintext([1, 2, 2, 2], [12.0, 5.0, 16.0, 6.0, 24.0, 8.0, 28.0, 9.0]));
        let found = apply(&[&counted([1, 3, 3, 1]), &filter], |g, x| g.conv2d(x[0], x[1], 2, 1));
        assert_eq!(found, plaintext([1, 2, 2, 2], [1.0, 1.0, 5.0, 3.0, 11.0, 7.0, 28.0, 9.0]));
    }

    /// The sum that defines a convolution.
    fn slow_conv2d(
        x: &Plaintext,
        filter: &Plaintext,
        stride: Stride,
        padding: Padding,
    ) -> Plaintext {
        let (&[batch, height, width, inputs], &[rows, columns, _, outputs]) =
            (x.shape(), filter.shape())
        else {
            panic!("shapes");
        };
        let Padding { top, bottom, left, right } = padding;
        let high = (top + height + bottom - rows) / stride.vertical + 1;
        let wide = (left + width + right - columns) / stride.horizontal + 1;
        let array = ArrayD::from_shape_fn([batch, high, wide, outputs].as_slice(), |at| {
            let mut sum = 0.0;
            for row in 0..rows {
                for column in 0..columns {
                    let y = (at[1] * stride.vertical + row).checked_sub(top);
                    let x_ = (at[2] * stride.horizontal + column).checked_sub(left);
                    let (y, x_) = (y.filter(|y| *y < height), x_.filter(|x| *x < width));
                    if let (Some(y), Some(x_)) = (y, x_) {
                        for input in 0..inputs {
                            sum += x.as_array()[[at[0], y, x_, input].as_slice()]
                                * filter.as_array()[[row, column, input, at[3]].as_slice()];
                        }
                    }
                }
            }
            sum
        });
        Plaintext::from(array)
    }

    #[test]
    fn convolutions_of_all_geometries() {
        // Small integers, whose sums are exact in any order.
        let numbers = |shape: [usize; 4], factor: usize| {
            let len: usize = shape.iter().product();
            plaintext(shape, (0..len).map(|i| (i * factor % 17) as f64 - 8.0).collect::<Vec<_>>())
        };
        let alike = |stride: usize, padding: usize| (Stride::from(stride), Padding::from(padding));
        let mut geometries = [(1, 0), (1, 1), (2, 0), (2, 2), (3, 1), (1, 5), (4, 3)]
            .map(|(s, p)| alike(s, p))
            .to_vec();
        geometries.extend([
            ([1, 2].into(), 0.into()),
            ([3, 1].into(), [0, 1, 0, 1].into()),
            ([2, 1].into(), [1, 0, 2, 0].into()),
            (1.into(), [0, 0, 3, 4].into()),
            ([1, usize::MAX].into(), [5, 0, 0, 1].into()),
        ]);
        let mut cases = vec![([1, 120, 120, 1], [9, 9, 1, 2], alike(1, 4))];
        for geometry in geometries {
            cases.push(([2, 5, 4, 3], [3, 2, 3, 4], geometry));
            cases.push(([1, 4, 7, 1], [1, 3, 1, 2], geometry));
        }
        cases.push(([3, 4, 4, 2], [4, 4, 2, 5], alike(1, 0)));
        cases.push(([1, 1, 1, 1], [3, 3, 1, 1], alike(1, 4)));
        for (x, filter, (stride, padding)) in cases {
            let same = Padding::same([x[1], x[2]], [filter[0], filter[1]], stride);
            let (x, filter) = (numbers(x, 5), numbers(filter, 7));
            for padding in [padding, same] {
                let expected = slow_conv2d(&x, &filter, stride, padding);
                let found = apply(&[&x, &filter], |g, x| g.conv2d(x[0], x[1], stride, padding));
                assert_eq!(found, expected, "stride {stride}, padding {padding}");
            }
        }
    }

    /// Two players: the owner prepares weights of the session, the client an image of
    /// each evaluation; a product of both is shared anew each time; the client computes
    /// on with what it receives, with its image and with an input that it never shares.
    fn two_players() -> Graph {
        let g = GraphBuilder::new(["owner", "client"]);
        let raw = g.local_variable("owner", "weights", [2, 2]);
        let scaled = g.scale(raw, 2.0);
        let weights = g.share(scaled);
        let tweak = g.local_input("owner", "tweak", [2]);
        let bias = g.share(g.add(g.reduce_sum(scaled, [0]), tweak));
        let image = g.local_input("client", "image", [1, 2]);
        let logits = g.add(g.matmul(g.share(g.neg(image)), weights), bias);
        let received = g.reveal("client", logits);
        g.output("class", g.argmax(received));
        g.output("shifted", g.add(received, g.local_input("client", "shift", [2])));
        g.output("residual", g.sub(received, g.square(image)));
        g.output("own", g.reveal("owner", bias));
        g.build().unwrap()
    }

    fn two_players_inputs() -> [(Name, Tensors); 2] {
        let owner = [("weights", counted([2, 2])), ("tweak", plaintext([2], [0.5, -0.5]))];
        let client =
            [("image", plaintext([1, 2], [3.0, -1.0])), ("shift", plaintext([2], [100.0, 200.0]))];
        [(name("owner"), tensors(owner)), (name("client"), tensors(client))]
    }

    #[test]
    fn players_know_what_to_bring_and_what_they_get() {
        let graph = two_players();
        let spec = |name: &str, shape: &[usize], lifetime| InputSpec {
            name: name.into(),
            shape: shape.into(),
            lifetime,
        };
        assert_eq!(
            graph.inputs_of(name("owner")),
            [
                spec("weights", &[2, 2], Lifetime::Session),
                spec("tweak", &[2], Lifetime::Evaluation)
            ]
        );
        assert_eq!(
            graph.inputs_of(name("client")),
            [
                spec("image", &[1, 2], Lifetime::Evaluation),
                spec("shift", &[2], Lifetime::Evaluation)
            ]
        );
        assert_eq!(graph.inputs_of(name("nobody")), []);
        assert_eq!(graph.outputs_of(name("owner")), [("own".into(), vec![2])]);
        assert_eq!(
            graph.outputs_of(name("client")),
            [
                ("class".into(), vec![1]),
                ("shifted".into(), vec![1, 2]),
                ("residual".into(), vec![1, 2])
            ]
        );
    }

    fn ids(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> Vec<NodeId> {
        let ids = (0..graph.nodes().len()).map(NodeId);
        ids.filter(|id| wanted(graph.operation(*id))).collect()
    }

    #[test]
    fn players_compute_what_is_theirs_before_sharing() {
        let graph = two_players();
        let [(owner, owners), (client, clients)] = two_players_inputs();
        let shares = ids(&graph, |op| matches!(op, Op::Share { .. }));
        let [weights, bias, image] = shares[..] else { panic!("{shares:?}") };

        // The inputs of each evaluation are not there yet.
        let session = tensors([("weights", owners["weights"].clone())]);
        let found = graph.before_sharing(owner, Lifetime::Session, &session).unwrap();
        let doubled = plaintext([2, 2], [2.0, 4.0, 6.0, 8.0]);
        assert_eq!(found, BTreeMap::from([(weights, doubled)]));
        // Those of the session are needed again.
        let found = graph.before_sharing(owner, Lifetime::Evaluation, &owners).unwrap();
        assert_eq!(found, BTreeMap::from([(bias, plaintext([2], [8.5, 11.5]))]));

        let found = graph.before_sharing(client, Lifetime::Session, &Tensors::new()).unwrap();
        assert_eq!(found, BTreeMap::new());
        // An input that is never shared is not needed.
        let shared = tensors([("image", clients["image"].clone())]);
        let found = graph.before_sharing(client, Lifetime::Evaluation, &shared).unwrap();
        assert_eq!(found, BTreeMap::from([(image, plaintext([1, 2], [-3.0, 1.0]))]));
    }

    #[test]
    fn players_compute_on_with_what_they_receive() {
        let graph = two_players();
        let [(owner, _), (client, clients)] = two_players_inputs();
        let reveals = ids(&graph, |op| matches!(op, Op::Reveal { .. }));
        let [logits, bias] = reveals[..] else { panic!("{reveals:?}") };

        let revealed = BTreeMap::from([(logits, plaintext([1, 2], [1.0, 4.0]))]);
        let found = graph.after_receiving(client, &clients, revealed).unwrap();
        let expected = [
            ("class", plaintext([1], [1.0])),
            ("shifted", plaintext([1, 2], [101.0, 204.0])),
            ("residual", plaintext([1, 2], [-8.0, 3.0])),
        ];
        assert_eq!(found, tensors(expected));
        // What the owner receives needs none of its inputs.
        let revealed = BTreeMap::from([(bias, plaintext([2], [7.0, 8.0]))]);
        let found = graph.after_receiving(owner, &Tensors::new(), revealed).unwrap();
        assert_eq!(found, tensors([("own", plaintext([2], [7.0, 8.0]))]));

        let whole = graph.evaluate_plaintext(&two_players_inputs().into()).unwrap();
        // -[3, -1] * [[2, 4], [6, 8]] + [8.5, 11.5]
        let expected = [
            ("class", plaintext([1], [0.0])),
            ("shifted", plaintext([1, 2], [108.5, 207.5])),
            ("residual", plaintext([1, 2], [-0.5, 6.5])),
        ];
        assert_eq!(whole[&client], tensors(expected));
        assert_eq!(whole[&owner], tensors([("own", plaintext([2], [8.5, 11.5]))]));
    }

    #[test]
    fn the_parts_of_a_player_make_up_the_whole() {
        let g = GraphBuilder::new(["alice", "bob"]);
        let x = g.local_input("alice", "x", [3]);
        let sum = g.add(g.share(x), g.private_variable("bob", "y", [3]));
        let received = g.reveal("alice", sum);
        g.output("alone", g.softmax(received));
        g.output("with-its-own", g.mul(received, g.function(x, Function::Exp)));
        let graph = g.build().unwrap();
        let (alice, bob) = (name("alice"), name("bob"));
        let alices = tensors([("x", plaintext([3], [0.5, -0.25, 2.0]))]);
        let bobs = tensors([("y", counted([3]))]);

        let x = graph.before_sharing(alice, Lifetime::Evaluation, &alices).unwrap();
        let y = graph.before_sharing(bob, Lifetime::Session, &bobs).unwrap();
        let sum = x.values().next().unwrap().as_array() + y.values().next().unwrap().as_array();
        let reveal = ids(&graph, |op| matches!(op, Op::Reveal { .. }))[0];
        let parts = graph.after_receiving(alice, &alices, [(reveal, sum.into())].into()).unwrap();
        let whole =
            graph.evaluate_plaintext(&BTreeMap::from([(alice, alices), (bob, bobs)])).unwrap();
        assert_eq!(parts, whole[&alice]);
        assert_eq!(whole[&bob], Tensors::new());
    }

    #[test]
    fn a_tensor_that_is_shared_and_output_twice_is_there_twice() {
        let g = GraphBuilder::new(["alice"]);
        let x = g.local_input("alice", "x", [1]);
        let product = g.reveal("alice", g.mul(g.share(x), g.share(x)));
        g.output("product", product);
        g.output("again", product);
        let graph = g.build().unwrap();
        let (alice, given) = (name("alice"), tensors([("x", plaintext([1], [3.0]))]));
        let shared = graph.before_sharing(alice, Lifetime::Evaluation, &given).unwrap();
        assert_eq!(shared.into_values().collect::<Vec<_>>(), vec![plaintext([1], [3.0]); 2]);
        let whole = graph.evaluate_plaintext(&BTreeMap::from([(alice, given.clone())])).unwrap();
        let expected = [("product", plaintext([1], [9.0])), ("again", plaintext([1], [9.0]))];
        assert_eq!(whole[&alice], tensors(expected));
    }

    #[test]
    fn only_public_nodes_have_public_values() {
        let g = GraphBuilder::new(["alice"]);
        let two = g.scalar(2.0);
        let root = g.function(g.expand(g.add(two, two), [3]), Function::Sqrt);
        let x = g.private_input("alice", [3]);
        g.private_output("alice", g.mul(root, x));
        let graph = g.build().unwrap();
        let values = graph.public_values();
        for (index, node) in graph.nodes().iter().enumerate() {
            let public = graph.facts(NodeId(index)).place == Place::Public;
            let found = values.contains_key(&NodeId(index));
            assert_eq!(found, public, "{}", node.operation.name());
        }
        let root = ids(&graph, |op| matches!(op, Op::Function { .. }))[0];
        assert_eq!(values[&root], plaintext([3], [2.0; 3]));
    }

    #[test]
    fn errors_name_the_input_and_both_shapes() {
        let graph = two_players();
        let [(owner, owners), (client, clients)] = two_players_inputs();
        let empty = Tensors::new;
        let [logits, bias] = ids(&graph, |op| matches!(op, Op::Reveal { .. }))[..] else {
            panic!("two revealed tensors");
        };
        let before = |player, inputs: &Tensors| {
            graph.before_sharing(player, Lifetime::Evaluation, inputs).unwrap_err().to_string()
        };
        let after = |player, inputs: &Tensors, revealed: Vec<(NodeId, Plaintext)>| {
            let revealed = revealed.into_iter().collect();
            graph.after_receiving(player, inputs, revealed).unwrap_err().to_string()
        };
        let transposed = tensors([("image", plaintext([2, 1], [1.0, 2.0]))]);
        let misspelt = tensors([("imag", plaintext([1, 2], [1.0, 2.0]))]);
        let row = || plaintext([1, 2], [0.0, 0.0]);
        let cases = [
            (
                before(client, &transposed),
                "client brings the input \"image\" in shape [2, 1], expected [1, 2]".to_owned(),
            ),
            (
                before(client, &misspelt),
                "client brings no input \"image\"; expected one of shape [1, 2], \
                 found [\"imag\"]"
                    .into(),
            ),
            (
                before(owner, &tensors([("tweak", owners["tweak"].clone())])),
                "owner brings no input \"weights\"; expected one of shape [2, 2], \
                 found [\"tweak\"]"
                    .into(),
            ),
            (
                before(name("nobody"), &empty()),
                "unknown player nobody; the players are [owner, client]".into(),
            ),
            (
                after(client, &empty(), vec![(logits, row())]),
                "client brings no input \"image\"; expected one of shape [1, 2], found []".into(),
            ),
            (
                after(client, &clients, vec![]),
                format!(
                    "node {}, revealed to client: expected a tensor of shape [1, 2], found none",
                    logits.0
                ),
            ),
            (
                after(client, &clients, vec![(logits, plaintext([2], [0.0, 0.0]))]),
                format!(
                    "node {}, revealed to client: expected a tensor of shape [1, 2], \
                     found a tensor of shape [2]",
                    logits.0
                ),
            ),
            (
                after(client, &clients, vec![(logits, row()), (bias, row())]),
                format!(
                    "node {}, revealed to client: expected none, found a tensor of shape [1, 2]",
                    bias.0
                ),
            ),
            (
                after(client, &clients, vec![(logits, row()), (NodeId(999), row())]),
                "node 999, revealed to client: expected none, found a tensor of shape [1, 2]"
                    .into(),
            ),
            (
                graph
                    .evaluate_plaintext(&[(name("nobody"), empty())].into())
                    .unwrap_err()
                    .to_string(),
                "unknown player nobody; the players are [owner, client]".into(),
            ),
            (
                graph.evaluate_plaintext(&[(client, clients)].into()).unwrap_err().to_string(),
                "owner brings no input \"weights\"; expected one of shape [2, 2], found []".into(),
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_clear_tensor_is_row_major_and_shows_its_shape_alone() {
        let x = counted([2, 3]);
        assert_eq!(format!("{x:?}"), "Plaintext([2, 3])");
        assert_eq!(x.as_slice(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let array = x.clone().into_array();
        assert_eq!(Plaintext::from(array.clone()), x);
        let turned = Plaintext::from(array.clone().reversed_axes());
        assert_eq!(
            (turned.shape(), turned.as_slice()),
            (&[3, 2][..], &[1., 4., 2., 5., 3., 6.][..])
        );
        let mut row = array.clone();
        row.slice_axis_inplace(Axis(0), Slice::from(1..));
        assert_eq!(Plaintext::from(row), plaintext([1, 3], [4.0, 5.0, 6.0]));
        let mut backwards = array;
        backwards.invert_axis(Axis(1));
        assert_eq!(Plaintext::from(backwards).as_slice(), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
        assert_eq!(Plaintext::from(ArrayD::zeros(vec![0, 3])).shape(), [0, 3]);

        let error = Plaintext::new([2, 3], vec![1.0]).unwrap_err().to_string();
        assert_eq!(error, "1 values do not fill the shape [2, 3]");
        assert!(Plaintext::new([usize::MAX, 2], vec![]).is_err());
        assert_eq!(Plaintext::new([], vec![1.0]).unwrap().as_slice(), [1.0]);
    }
}
