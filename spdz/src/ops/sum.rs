//! Sums along an axis. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::ring::{Plane, Ring, planes, planes_mut};
use crate::share::Share;
use crate::tensors::{PrivateId, Table, TensorId};

/// Sums along the middle axis.
#[derive(Clone, Debug)]
pub struct Sum {
    /// The tensor.
    pub input: PrivateId,
    /// Its sides: outer, summed, inner.
    pub axes: [usize; 3],
    /// The sums.
    pub output: PrivateId,
}

impl Operation for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        let [outer, axis, inner] = self.axes;
        write!(f, " {} {outer}x{axis}x{inner} -> {}", self.input, self.output)
    }
}

impl<R: Ring> Execute<R> for Sum {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let sums = sum(values.get(self.input), self.axes);
        values.put(self.output, sums);
    }
}

/// Sums along the middle axis of `[outer, axis, inner]`: `[outer, inner]`. Local.
#[must_use]
pub fn sum<R: Ring>(x: &Share<R>, [outer, axis, inner]: [usize; 3]) -> Share<R> {
    let mut sums = Share::<R>::zeros(outer * inner);
    let pairs = planes::<R>(&x.0).zip(planes_mut::<R>(&mut sums.0));
    for (index, (words, sums)) in pairs.enumerate() {
        let plane = R::plane(index);
        for (block, sums) in words.chunks_exact(axis * inner).zip(sums.chunks_exact_mut(inner)) {
            for row in block.chunks_exact(inner) {
                for (sum, word) in sums.iter_mut().zip(row) {
                    *sum = plane.add(*sum, *word);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Int64;

    #[test]
    fn sums_run_along_the_middle_axis() {
        let x = Share::<Int64>((0..12).collect::<Vec<u64>>()[..].into());
        assert_eq!(sum(&x, [2, 3, 2]).0[..], [6, 9, 24, 27]);
        assert_eq!(sum(&x, [1, 12, 1]).0[..], [66]);
    }
}
