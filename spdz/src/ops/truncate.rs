//! Local truncation: division by a power of two without interaction (SecureML, Mohassel and
//! Zhang 2017, section 4.1).

use std::fmt;

use super::operation::{Correlation, Execute, Operation};
use super::values::Values;
use crate::ring::{Ring, Side};
use crate::share::Share;
use crate::tensors::{PrivateId, Table, TensorId};

/// Division by `2^bits` without interaction; fails with a small probability
/// ([`Ring::truncate`]).
#[derive(Clone, Debug)]
pub struct Truncate {
    /// The dividend.
    pub input: PrivateId,
    /// How many bits go.
    pub bits: u32,
    /// The quotient.
    pub output: PrivateId,
}

impl Operation for Truncate {
    fn name(&self) -> &'static str {
        "truncate"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn shift(&self) -> Option<u32> {
        Some(self.bits)
    }

    fn needs_all_bits(&self) -> bool {
        true
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} bits {} -> {}", self.input, self.bits, self.output)
    }
}

impl<R: Ring> Execute<R> for Truncate {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let mut share = values.take(self.input);
        truncate(&mut share, self.bits, values.side());
        values.put(self.output, share);
    }
}

/// Divides a shared tensor by `2^bits` in place ([`Ring::truncate`]).
pub fn truncate<R: Ring>(x: &mut Share<R>, bits: u32, side: Side) {
    R::truncate(&mut x.0, bits, side);
}
