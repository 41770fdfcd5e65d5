//! Sums and products with public tensors, element by element. Local.

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::ring::{Plane, Ring, Side, update};
use crate::share::Share;
use crate::tensors::{PrivateId, PublicId, Table, TensorId};

/// `x + public`, element by element.
#[derive(Clone, Debug)]
pub struct AddPublic {
    /// The private term.
    pub input: PrivateId,
    /// The public term.
    pub public: PublicId,
    /// The result.
    pub output: PrivateId,
}

impl Operation for AddPublic {
    fn name(&self) -> &'static str {
        "add"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.input, self.public, self.output)
    }
}

impl<R: Ring> Execute<R> for AddPublic {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let mut share = values.take(self.input);
        add_public(&mut share, values.public(self.public), values.side());
        values.put(self.output, share);
    }
}

/// `x * public`, element by element.
#[derive(Clone, Debug)]
pub struct MulPublic {
    /// The private factor.
    pub input: PrivateId,
    /// The public factor.
    pub public: PublicId,
    /// The result.
    pub output: PrivateId,
}

impl Operation for MulPublic {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.input, self.public, self.output)
    }
}

impl<R: Ring> Execute<R> for MulPublic {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let mut share = values.take(self.input);
        mul_public(&mut share, values.public(self.public));
        values.put(self.output, share);
    }
}

/// `x + public`, element by element. Local; server 0 alone adds.
pub fn add_public<R: Ring>(x: &mut Share<R>, public: &[R::Word], side: Side) {
    if side == Side::Zero {
        update::<R>(&mut x.0, public, R::Plane::add);
    }
}

/// `x * public`, element by element. Local.
pub fn mul_public<R: Ring>(x: &mut Share<R>, public: &[R::Word]) {
    update::<R>(&mut x.0, public, R::Plane::mul);
}
