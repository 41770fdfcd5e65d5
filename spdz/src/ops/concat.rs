//! Tensors after each other along an axis. Local, and the same for shares, masks and public
//! values.

use std::borrow::Cow;
use std::fmt;

use super::operation::{Correlation, Execute, Operation, Producer};
use super::values::Values;
use crate::buffer::Buffer;
use crate::masked::Masked;
use crate::ring::Ring;
use crate::share::Share;
use crate::tensors::{MaskedId, PrivateId, Table, TensorId};

/// Private tensors after each other along an axis.
#[derive(Clone, Debug)]
pub struct Concat {
    /// The tensors.
    pub inputs: Vec<PrivateId>,
    /// The product of the axes outside.
    pub outer: usize,
    /// The result.
    pub output: PrivateId,
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn reads(&self) -> Vec<TensorId> {
        self.inputs.iter().map(|id| TensorId::from(*id)).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        self.inputs.iter().try_for_each(|id| write!(f, " {id}"))?;
        write!(f, " -> {} outer {}", self.output, self.outer)
    }
}

impl<R: Ring> Execute<R> for Concat {
    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let words: Vec<&[R::Word]> = self.inputs.iter().map(|id| &values.get(*id).0[..]).collect();
        let share = Share(concat::<R>(&words, self.outer));
        values.put(self.output, share);
    }
}

/// Masked tensors after each other along an axis.
#[derive(Clone, Debug)]
pub struct ConcatMasked {
    /// The masked tensors.
    pub inputs: Vec<MaskedId>,
    /// The product of the axes outside.
    pub outer: usize,
    /// The result.
    pub output: MaskedId,
}

impl Operation for ConcatMasked {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn reads(&self) -> Vec<TensorId> {
        self.inputs.iter().map(|id| TensorId::from(*id)).collect()
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        self.inputs.iter().try_for_each(|id| write!(f, " {id}"))?;
        write!(f, " -> {} outer {}", self.output, self.outer)
    }
}

impl<R: Ring> Execute<R> for ConcatMasked {
    fn mask(&self, producer: &mut dyn Producer<R>) -> Share<R> {
        self.inputs.iter().for_each(|id| producer.make(*id));
        let words: Vec<&[R::Word]> =
            self.inputs.iter().map(|id| &producer.get(*id).0[..]).collect();
        Share(concat::<R>(&words, self.outer))
    }

    fn mask_share<'a>(
        &self,
        _: &'a Correlation<R>,
        shares: &dyn Fn(MaskedId) -> Cow<'a, Share<R>>,
    ) -> Cow<'a, Share<R>> {
        let masks: Vec<_> = self.inputs.iter().map(|id| shares(*id)).collect();
        let words: Vec<&[R::Word]> = masks.iter().map(|mask| &mask.0[..]).collect();
        Cow::Owned(Share(concat::<R>(&words, self.outer)))
    }

    fn compute(&self, values: &mut Values<'_, R>, _: Correlation<R>) {
        let masked: Vec<&Masked<R>> = self.inputs.iter().map(|id| values.masked(*id)).collect();
        let alphas: Vec<&[R::Word]> = masked.iter().map(|m| &m.alpha[..]).collect();
        let masks: Vec<&[R::Word]> = masked.iter().map(|m| &m.mask.0[..]).collect();
        let alpha = concat::<R>(&alphas, self.outer);
        let mask = Share(concat::<R>(&masks, self.outer));
        values.put_masked(self.output, Masked { alpha, mask });
    }
}

/// Tensors after each other along an axis: of each the next block for each of `outer`
/// outer indices.
#[must_use]
pub fn concat<R: Ring>(tensors: &[&[R::Word]], outer: usize) -> Buffer<R::Word> {
    let total = tensors.iter().map(|words| words.len()).sum();
    let mut out = Buffer::zeros(total);
    let mut place = 0;
    for plane in 0..R::PLANES {
        for index in 0..outer {
            for words in tensors {
                let len = words.len() / R::PLANES;
                let block = len / outer;
                let start = plane * len + index * block;
                out[place..place + block].copy_from_slice(&words[start..start + block]);
                place += block;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Int64;

    #[test]
    fn concatenation_interleaves_blocks() {
        let (x, y): (Vec<u64>, Vec<u64>) = ((0..4).collect(), (10..16).collect());
        assert_eq!(concat::<Int64>(&[&x, &y], 2)[..], [0, 1, 10, 11, 12, 2, 3, 13, 14, 15]);
    }
}
