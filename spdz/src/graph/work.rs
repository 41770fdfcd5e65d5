//! How much work compiling a graph is, before any of it is done.
//!
//! Whoever compiles graphs that others wrote needs a bound first: a few hundred bytes can
//! describe public tensors of a billion terms. [`Graph::work`] counts from shapes and
//! operations alone, in time proportional to the size of the graph.

use std::collections::BTreeSet;

use super::Graph;
use super::infer::Place;
use super::op::{NodeId, Op};
use crate::polynomial::Polynomial;

/// Steps of a plan for a private node that is no polynomial, at most: itself, and its value
/// viewed, truncated, opened and unmasked, each once for itself and for a broadcast operand.
const STEPS_OF_A_NODE: usize = 8;

/// Steps for a power within a polynomial, at most: the product, its truncation, opening and
/// unmasking.
const STEPS_OF_A_POWER: usize = 6;

/// Steps of a gate, at most, besides the last: its operand's opening and comparison.
const STEPS_OF_A_GATE: usize = 2;

/// Steps of a level of a tree of comparisons, at most: those of two pairs of tensors.
const STEPS_OF_A_LEVEL: usize = 10;

/// Steps for one of the tensors that are concatenated, at most, besides its own.
const STEPS_OF_A_PART: usize = 2;

/// What compiling a graph takes, each number an upper bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Elements of public tensors, and of the copies that sums and products with private
    /// tensors make of them. They are held in memory, 16 to 48 bytes each.
    pub public_elements: usize,
    /// Terms of the sums and polynomials that public tensors are computed by.
    pub public_terms: usize,
    /// Powers that the polynomials of private tensors are computed from. For each, a way is
    /// searched to share the number format's bits.
    pub powers: usize,
    /// Steps of the plan.
    pub steps: usize,
    /// The longest chain of layout operations (`reshape`, `transpose`, `slice`, `expand`,
    /// `concat`) that follow each other, which are lowered together.
    pub layout_depth: usize,
}

/// A graph that takes more work than is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the graph has {found} {what}, at most {most} are accepted; {advice}")]
pub struct TooMuchWork {
    /// What there is too much of.
    pub what: &'static str,
    /// How much there is.
    pub found: usize,
    /// How much is accepted.
    pub most: usize,
    /// What to do about it.
    pub advice: &'static str,
}

impl Work {
    /// What is accepted of a graph whose author is not trusted: compiling it then takes less
    /// than about a second and 64 MiB.
    pub const OF_OTHERS: Self = Self {
        public_elements: 1 << 20,
        public_terms: 1 << 26,
        powers: 1 << 13,
        steps: 1 << 18,
        layout_depth: 1 << 8,
    };

    /// Whether it is within `most`.
    ///
    /// # Errors
    /// The first number that is not.
    pub fn check(&self, most: &Self) -> Result<(), TooMuchWork> {
        let bounds = [
            (
                "elements of public tensors and of their copies in sums and products",
                self.public_elements,
                most.public_elements,
                "let a player bring large tensors",
            ),
            (
                "terms in sums and polynomials of public tensors",
                self.public_terms,
                most.public_terms,
                "write their values as constants, or let a player bring them",
            ),
            (
                "powers in polynomials of private tensors",
                self.powers,
                most.powers,
                "apply a polynomial to a whole tensor at once, or lower its degree",
            ),
            (
                "steps as an upper bound",
                self.steps,
                most.steps,
                "compute on larger tensors instead of many small ones, or make it several graphs",
            ),
            (
                "layout operations in a row",
                self.layout_depth,
                most.layout_depth,
                "join reshapes, transposes, slices and expansions that follow each other",
            ),
        ];
        for (what, found, most, advice) in bounds {
            if found > most {
                return Err(TooMuchWork { what, found, most, advice });
            }
        }
        Ok(())
    }
}

impl Graph {
    /// What compiling this graph takes.
    #[must_use]
    pub fn work(&self) -> Work {
        let mut work = Work::default();
        let mut depths: Vec<usize> = Vec::with_capacity(self.nodes().len());
        for (index, node) in self.nodes().iter().enumerate() {
            let operation = &node.operation;
            let depth = match is_layout(operation) {
                true => {
                    let inputs = operation.inputs();
                    let deepest = inputs.iter().filter_map(|input| depths.get(input.0)).max();
                    1 + deepest.copied().unwrap_or(0)
                }
                false => 0,
            };
            depths.push(depth);
            match self.facts(NodeId(index)).place {
                Place::Public => self.add_public(&mut work, NodeId(index)),
                Place::Private => {
                    self.add_private(&mut work, NodeId(index));
                    work.layout_depth = work.layout_depth.max(depth);
                }
                // Players compute these, and nobody else.
                Place::Local { .. } => {}
            }
            if let Op::Reveal { .. } = operation {
                add(&mut work.steps, STEPS_OF_A_NODE);
            }
        }
        work
    }

    /// A public tensor is computed when the graph is compiled.
    fn add_public(&self, work: &mut Work, id: NodeId) {
        let len = self.facts(id).len();
        let leading = |id: &NodeId, axes: usize| -> usize {
            self.facts(*id).shape.iter().take(axes).product()
        };
        let operation = self.operation(id);
        let read = || operation.inputs().iter().map(|input| self.facts(*input).len()).sum();
        let terms = match operation {
            Op::Constant { .. } => 0,
            Op::MatMul { right, .. } => len.saturating_mul(leading(right, 1)),
            Op::Conv2d { filter, .. } => len.saturating_mul(leading(filter, 3)),
            Op::SumPool { window, .. } | Op::MaxPool { window, .. } => {
                len.saturating_mul(window.area())
            }
            Op::Polynomial { polynomial, .. } => len.saturating_mul(polynomial.coefficients.len()),
            _ => len.max(read()),
        };
        add(&mut work.public_elements, len);
        add(&mut work.public_terms, terms);
    }

    /// A private tensor becomes steps, and what it reads of public ones is encoded.
    fn add_private(&self, work: &mut Work, id: NodeId) {
        let operation = self.operation(id);
        let len = self.facts(id).len();
        let public = |input: &&NodeId| self.facts(**input).place == Place::Public;
        let inputs = operation.inputs();
        for input in inputs.iter().filter(public) {
            let copy = match operation {
                // A single number is not repeated.
                _ if self.facts(*input).len() == 1 => 1,
                Op::Add { .. }
                | Op::Sub { .. }
                | Op::Mul { .. }
                | Op::Maximum { .. }
                | Op::Minimum { .. }
                | Op::Prelu { .. } => len,
                _ => self.facts(*input).len(),
            };
            add(&mut work.public_elements, copy);
        }
        let more = match operation {
            Op::Polynomial { polynomial, .. } => {
                let powers = powers(polynomial);
                add(&mut work.powers, powers);
                powers.saturating_mul(STEPS_OF_A_POWER)
            }
            Op::Concat { inputs, .. } => inputs.len().saturating_mul(STEPS_OF_A_PART),
            Op::ReduceSum { axes, .. } => axes.len(),
            Op::Relu { .. } => STEPS_OF_A_GATE,
            Op::Clip { .. }
            | Op::LeakyRelu { .. }
            | Op::Step { .. }
            | Op::Piecewise { .. }
            | Op::Activation { .. } => 3 * STEPS_OF_A_GATE,
            Op::Maximum { .. } | Op::Minimum { .. } | Op::Abs { .. } | Op::Prelu { .. } => {
                2 * STEPS_OF_A_GATE + STEPS_OF_A_LEVEL
            }
            Op::ArgMax { input } | Op::OneHotArgMax { input } => {
                // Trees of values in powers of two, each with its levels.
                let levels = levels(self.facts(*input).shape.last().copied().unwrap_or(1)) + 1;
                2 * STEPS_OF_A_GATE + levels * levels * STEPS_OF_A_LEVEL
            }
            Op::MaxPool { window, .. } => {
                STEPS_OF_A_GATE.saturating_add(levels(window.area()) * STEPS_OF_A_LEVEL)
            }
            _ => 0,
        };
        add(&mut work.steps, more.saturating_add(STEPS_OF_A_NODE));
    }
}

/// Levels of a tree that ends with one of so many.
fn levels(leaves: usize) -> usize {
    leaves.next_power_of_two().ilog2() as usize
}

/// Whether an operation only selects elements and puts them in another order.
fn is_layout(operation: &Op) -> bool {
    matches!(
        operation,
        Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Expand { .. }
            | Op::Concat { .. }
    )
}

/// How many powers, from the square on, those with a coefficient are products of.
fn powers(polynomial: &Polynomial) -> usize {
    let written = polynomial.coefficients.iter().enumerate().skip(2);
    let mut pending: Vec<usize> =
        written.filter(|(_, factor)| **factor != 0.0).map(|(power, _)| power).collect();
    let mut needed = BTreeSet::new();
    while let Some(power) = pending.pop() {
        if power > 1 && needed.insert(power) {
            pending.extend([power / 2, power - power / 2]);
        }
    }
    needed.len()
}

fn add(total: &mut usize, more: usize) {
    *total = total.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphBuilder, Tensor};
    use crate::network::Network;
    use crate::plan::{NumberFormat, Plan, Truncation};

    /// What a graph of one private `[4, 8]` takes.
    fn work(write: impl Fn(&GraphBuilder, Tensor) -> Tensor) -> Work {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [4, 8]);
        g.private_output("alice", write(&g, x));
        let graph = g.build().unwrap();
        let work = graph.work();
        let formats = NumberFormat::with_polynomials();
        for (format, truncation) in formats
            .flat_map(|format| [Truncation::Local, Truncation::Interactive].map(|t| (format, t)))
        {
            let plan = Plan::compile(&graph, format, truncation).unwrap();
            let steps = plan.steps().len();
            assert!(steps <= work.steps, "{steps} steps of at most {}", work.steps);
        }
        work
    }

    #[test]
    fn each_number_is_counted_from_shapes() {
        let twice = |g: &GraphBuilder, x| g.add(x, x);
        let empty = work(twice);
        assert_eq!((empty.public_elements, empty.public_terms), (0, 0));
        assert_eq!((empty.powers, empty.layout_depth), (0, 0));

        // A row of 8 is held once, and once more in the shape of what it is added to.
        let row = |g: &GraphBuilder| g.constant([8], (0..8).map(f64::from).collect::<Vec<_>>());
        assert_eq!(work(|g, x| g.add(x, row(g))).public_elements, 8 + 32);
        assert_eq!(work(|g, x| g.scale(x, 0.3)).public_elements, 1 + 1);

        let product = work(|g, x| {
            let column = g.reshape(row(g), [8, 1]);
            g.matmul(x, g.matmul(column, g.reshape(row(g), [1, 8])))
        });
        assert_eq!(product.public_elements, 4 * 8 + 64 + 64);
        assert_eq!(product.public_terms, 2 * 8 + 64);

        let windows = work(|g, x| {
            let image = g.reshape(row(g), [1, 2, 4, 1]);
            let sums = g.sum_pool(image, crate::graph::Window { height: 2, width: 3 }.every(1));
            g.add(x, g.reduce_sum(sums, [0, 1, 2, 3]))
        });
        assert_eq!(windows.public_terms, 8 + 2 * 6 + 2);

        let powers = |coefficients: &[f64]| {
            let polynomial = Polynomial { coefficients: coefficients.to_vec(), range: 1.0 };
            work(|g, x| g.polynomial(x, polynomial.clone())).powers
        };
        assert_eq!((powers(&[1.0, 1.0]), powers(&[0.0, 0.0, 1.0])), (0, 1));
        // 5 is made of 2 and 3, and 3 of 1 and 2.
        assert_eq!(powers(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.1]), 3);

        let deep = work(|g, x| {
            let turned = g.transpose(g.reshape(x, [8, 4]), [1, 0]);
            g.add(g.concat(&[turned, x], 0), g.concat(&[x, x], 0))
        });
        assert_eq!(deep.layout_depth, 3);
    }

    #[test]
    fn the_papers_networks_are_accepted_in_any_batch() {
        for name in ["A", "B", "C"] {
            let network = Network::builtin(name).unwrap();
            for batch in [1, 100, 1024] {
                for graph in [network.graph(batch), network.inspected_graph(batch)] {
                    let work = graph.unwrap().work();
                    assert_eq!(work.check(&Work::OF_OTHERS), Ok(()), "{name} {batch}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_much_is_said_with_both_numbers_and_advice() {
        let of_others = Work::OF_OTHERS;
        type Raise = fn(&mut Work);
        let rows: [(Raise, &str); 5] = [
            (|work| work.public_elements += 1, "1048577 elements of public tensors and"),
            (|work| work.public_terms += 1, "67108865 terms in sums and polynomials of public"),
            (
                |work| work.powers += 1,
                "8193 powers in polynomials of private tensors, at most 8192",
            ),
            (|work| work.steps += 1, "262145 steps as an upper bound, at most 262144"),
            (|work| work.layout_depth += 1, "257 layout operations in a row, at most 256"),
        ];
        for (raise, expected) in rows {
            let mut work = of_others;
            raise(&mut work);
            let refused = work.check(&of_others).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert!(refused.contains(" are accepted; "), "{refused}");
        }
        assert_eq!(of_others.check(&of_others), Ok(()));
    }
}
