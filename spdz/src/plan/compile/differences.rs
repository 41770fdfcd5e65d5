//! Which values of a graph are compared with each other.

use crate::graph::{Graph, Op};

/// Whether a ReLU is left to the pooling that alone reads it.
pub(super) fn is_left_to_a_pool(graph: &Graph, users: &[Vec<usize>], index: usize) -> bool {
    let operation = |index: usize| &graph.nodes()[index].operation;
    let is_pool = |user| matches!(operation(user), Op::MaxPool { window, .. } if window.area() > 1);
    matches!(operation(index), Op::Relu { .. })
        && matches!(users[index][..], [user] if is_pool(user))
}

/// Of each node, whether its values are compared with others, perhaps in another layout: they are
/// opened in a bit more than those that are compared with zero.
pub(super) fn have_differences(graph: &Graph, users: &[Vec<usize>]) -> Vec<bool> {
    let mut found = vec![false; users.len()];
    for index in (0..users.len()).rev() {
        found[index] = users[index].iter().any(|user| match graph.nodes()[*user].operation {
            Op::MaxPool { window, .. } => window.area() > 1 || found[*user],
            Op::Maximum { .. }
            | Op::Minimum { .. }
            | Op::Abs { .. }
            | Op::Clip { .. }
            | Op::LeakyRelu { .. }
            | Op::Step { .. }
            | Op::Piecewise { .. }
            | Op::Activation { .. }
            | Op::ArgMax { .. }
            | Op::OneHotArgMax { .. } => true,
            Op::Prelu { input, .. } => input.0 == index,
            Op::Relu { .. } => is_left_to_a_pool(graph, users, *user),
            Op::Reshape { .. }
            | Op::Transpose { .. }
            | Op::Slice { .. }
            | Op::Expand { .. }
            | Op::Concat { .. } => found[*user],
            _ => false,
        });
    }
    found
}
