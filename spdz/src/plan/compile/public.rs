//! Public tensors: their numbers, repeated and encoded.

use super::compiler::Compiler;
use crate::geometry::View;
use crate::graph::{MAX_PUBLIC, NodeId};
use crate::plan::error::PlanError;

impl Compiler<'_> {
    /// A public tensor's numbers, repeated to `shape`.
    pub(super) fn public_values(&self, id: NodeId, shape: &[usize]) -> Result<Vec<f64>, PlanError> {
        let before: usize = self.table.publics.iter().map(|public| public.integers.len()).sum();
        let found = before + shape.iter().product::<usize>();
        if found > MAX_PUBLIC {
            return Err(PlanError::PublicSize { layer: self.place(), found });
        }
        let Some(values) = self.values.get(&id) else {
            unreachable!("the caller has seen that the node is public");
        };
        let mut out = vec![0.0; shape.iter().product()];
        expanded_view(self.shape(id), shape).read(values.as_slice(), &mut out);
        Ok(out)
    }

    /// The one number that a public tensor consists of, if all its elements are equal.
    pub(super) fn uniform(&mut self, id: NodeId) -> Option<f64> {
        let values = self.values.get(&id)?.as_slice();
        let look = || values.iter().all(|value| *value == values[0]).then_some(values[0]);
        // Once, however many use it.
        *self.uniform.entry(id).or_insert_with(look)
    }

    /// The fewest fractional bits that represent the numbers exactly, at most the format's.
    pub(super) fn exact_fraction(&self, values: &[f64]) -> i32 {
        let exact = |bits: i32| values.iter().all(|x| (x * f64::from(bits).exp2()).fract() == 0.0);
        (0..self.f()).find(|bits| exact(*bits)).unwrap_or(self.f())
    }

    pub(super) fn encode(&self, values: &[f64], fraction: i32) -> Result<Vec<i128>, PlanError> {
        let encoded = self.precision.encode_all(values, fraction);
        let source = |(_, source)| PlanError::Public { layer: self.place(), source };
        encoded.map(|integers| integers.to_vec()).map_err(source)
    }
}

/// How a row-major tensor of shape `from` is read as one of shape `to`.
pub(super) fn expanded_view(from: &[usize], to: &[usize]) -> View {
    let mut view = View::of(from);
    for (axis, side) in view.axes.iter_mut().zip(&to[to.len() - from.len()..]) {
        if axis.0 != *side {
            *axis = (*side, 0);
        }
    }
    let leading = to[..to.len() - from.len()].iter().map(|side| (*side, 0));
    view.axes = leading.chain(view.axes).collect();
    view
}
