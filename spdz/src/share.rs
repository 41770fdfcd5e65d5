//! Private tensors: one party's additive share.

use std::fmt;

use crate::buffer::Buffer;
use crate::channel::{Channel, ChannelError, Tag};
use crate::prg::KeyStream;
use crate::ring::{Plane, Ring, combined, received, update, update_sampled};

/// One party's share `x_i` of a private tensor `x = x_0 + x_1` (the paper's
/// private tensor, section 2). Its shape is the plan's affair; the elements are
/// row-major, plane after plane. Wiped when dropped, never printed.
pub struct Share<R: Ring>(pub(crate) Buffer<R::Word>);

impl<R: Ring> fmt::Debug for Share<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share<{}>({} elements)", R::NAME, self.len())
    }
}

/// A second copy, where a plan uses a value twice.
impl<R: Ring> Clone for Share<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// From words, plane after plane.
impl<R: Ring> From<Buffer<R::Word>> for Share<R> {
    fn from(words: Buffer<R::Word>) -> Self {
        Self(words)
    }
}

impl<R: Ring> Share<R> {
    /// The next `len` elements of `stream`.
    #[must_use]
    pub fn sample(stream: &mut KeyStream, len: usize) -> Self {
        let mut values = Buffer::zeros(R::PLANES * len);
        R::sample(stream, &mut values);
        Self(values)
    }

    /// A share of zeros.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self(Buffer::zeros(R::PLANES * len))
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / R::PLANES
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words, plane after plane.
    #[must_use]
    pub fn into_words(self) -> Buffer<R::Word> {
        self.0
    }

    /// Adds public words, element by element.
    pub(crate) fn add_words(&mut self, words: &[R::Word]) {
        update::<R>(&mut self.0, words, R::Plane::add);
    }

    /// Adds the next elements of `stream`.
    pub(crate) fn add_sampled(&mut self, stream: &mut KeyStream) {
        update_sampled::<R>(&mut self.0, stream, R::Plane::add);
    }

    /// Subtracts the next elements of `stream`.
    pub(crate) fn sub_sampled(&mut self, stream: &mut KeyStream) {
        update_sampled::<R>(&mut self.0, stream, R::Plane::sub);
    }

    /// A tensor of `len` elements that `peer` sends.
    pub(crate) fn received<C: Channel + ?Sized>(
        peer: &mut C,
        tag: Tag,
        len: usize,
    ) -> Result<Self, ChannelError> {
        let mut share = Self::zeros(len);
        share.receive(peer, tag, |_, _, received| received)?;
        Ok(share)
    }

    /// Receives a tensor part by part: `word = f(word, received)` for each.
    pub(crate) fn receive<C: Channel + ?Sized>(
        &mut self,
        peer: &mut C,
        tag: Tag,
        f: impl Fn(R::Plane, R::Word, R::Word) -> R::Word + Copy,
    ) -> Result<(), ChannelError> {
        let mut first = 0;
        peer.recv_parts(tag, size_of_val(&self.0[..]), &mut |part| {
            received::<R>(part, &mut self.0, first, f);
            first += part.len() / size_of::<R::Word>();
        })
    }
}

/// Splits `values` into two uniformly random shares: the first is the next part
/// of `stream`, the second the difference.
#[must_use]
pub fn share<R: Ring>(values: &[R::Word], stream: &mut KeyStream) -> (Share<R>, Share<R>) {
    let first = Share::<R>::sample(stream, values.len() / R::PLANES);
    let second = Share(combined::<R>(values, &first.0, R::Plane::sub));
    (first, second)
}

/// The tensor that two shares stand for.
#[must_use]
pub fn reconstruct<R: Ring>(x0: &Share<R>, x1: &Share<R>) -> Vec<R::Word> {
    combined::<R>(&x0.0, &x1.0, R::Plane::add).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prg::Seed;
    use crate::ring::Int64;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up(values in proptest::collection::vec(any::<u64>(), 0..50), seed: [u8; 32]) {
            let mut stream = Seed::from_bytes(seed).into_stream();
            let (x0, x1) = share::<Int64>(&values, &mut stream);
            prop_assert_eq!(reconstruct(&x0, &x1), values);
        }
    }

    #[test]
    fn a_share_prints_its_size_only() {
        let share = Share::<Int64>::sample(&mut Seed::from_bytes([9; 32]).into_stream(), 3);
        assert_eq!(format!("{share:?}"), "Share<Int64>(3 elements)");
    }
}
