//! Matrix products and convolutions of a private with a public tensor. Local.

use std::fmt;

use super::kept::{Kept, kept};
use super::operation::{Correlation, Execute, Operation, Session};
use super::product::{list_linear, multiply_public, name_of};
use super::values::Values;
use crate::geometry::Linear;
use crate::ring::Ring;
use crate::tensors::{PrivateId, PublicId, Table, TensorId};

/// A matrix product or convolution with a public right operand.
#[derive(Clone, Debug)]
pub struct PublicRight {
    /// The private left operand.
    pub left: PrivateId,
    /// The public right operand.
    pub right: PublicId,
    /// The dimensions.
    pub linear: Linear,
    /// The result.
    pub output: PrivateId,
}

impl Operation for PublicRight {
    fn name(&self) -> &'static str {
        name_of(&self.linear)
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.left.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.left, self.right, self.output)?;
        list_linear(f, &self.linear)
    }
}

impl<R: Ring> Execute<R> for PublicRight {
    fn keep(&self, session: &mut dyn Session<R>) -> Option<Kept> {
        Some(Kept::new(R::pack(session.public(self.right), &self.linear)))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        // In the set-up nothing is kept yet, and the operand is used once.
        let product = match values.kept() {
            Some(packed) => {
                let packed: &R::Packed = kept(Some(packed));
                multiply_public(&self.linear, &values.get(self.left).0, packed)
            }
            None => {
                let packed = R::pack(values.public(self.right), &self.linear);
                multiply_public(&self.linear, &values.get(self.left).0, &packed)
            }
        };
        values.put(self.output, product);
    }
}

/// A matrix product or convolution with a public left operand.
#[derive(Clone, Debug)]
pub struct PublicLeft {
    /// The public left operand.
    pub left: PublicId,
    /// The private right operand.
    pub right: PrivateId,
    /// The dimensions.
    pub linear: Linear,
    /// The result.
    pub output: PrivateId,
}

impl Operation for PublicLeft {
    fn name(&self) -> &'static str {
        name_of(&self.linear)
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.right.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.left, self.right, self.output)?;
        list_linear(f, &self.linear)
    }
}

impl<R: Ring> Execute<R> for PublicLeft {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let right = R::pack(&values.get(self.right).0, &self.linear);
        let product = multiply_public(&self.linear, values.public(self.left), &right);
        values.put(self.output, product);
    }
}
