//! An exchange of packed values.

use crate::channel::{PART_UNIT, Parts};
use crate::masked::{Made, Opening, Padding};
use crate::packed::{Order, Packed, is_padded};
use crate::ring::Ring;

/// An exchange in which each server sends packed values and makes something of both messages.
pub(crate) struct PackedOpening<F> {
    order: Order,
    ours: Packed,
    theirs: Packed,
    /// Words that this server has sent.
    made: usize,
    /// Bytes that have come from the other.
    taken: usize,
    finish: F,
}

impl<F> PackedOpening<F> {
    /// `ours` is what this server sends; its padding is zero. `finish` is given that and what
    /// has come.
    pub(crate) fn new<R: Ring>(order: Order, ours: Packed, finish: F) -> Self
    where
        F: FnOnce(Packed, Packed) -> Made<R>,
    {
        debug_assert!(is_padded(order, &ours));
        let theirs = Packed::zeros(ours.len(), ours.bits());
        Self { order, ours, theirs, made: 0, taken: 0, finish }
    }
}

impl<R: Ring, F: FnOnce(Packed, Packed) -> Made<R>> Opening<R> for PackedOpening<F> {
    fn bytes(&self) -> usize {
        size_of_val(self.ours.words())
    }

    fn finish(self: Box<Self>) -> Result<Made<R>, Padding> {
        let Self { order, ours, mut theirs, finish, .. } = *self;
        theirs.words_mut().iter_mut().for_each(|word| *word = u64::from_le(*word));
        if !is_padded(order, &theirs) {
            return Err(Padding);
        }
        Ok(finish(ours, theirs))
    }
}

impl<F> Parts for PackedOpening<F> {
    fn make(&mut self, part: &mut [u8]) {
        // Parts have whole words.
        let places = part.as_chunks_mut::<PART_UNIT>().0;
        for (place, word) in places.iter_mut().zip(&self.ours.words()[self.made..]) {
            *place = word.to_le_bytes();
        }
        self.made += places.len();
    }

    fn take(&mut self, part: &[u8]) {
        let words: &mut [u8] = bytemuck::cast_slice_mut(self.theirs.words_mut());
        words[self.taken..self.taken + part.len()].copy_from_slice(part);
        self.taken += part.len();
    }
}
