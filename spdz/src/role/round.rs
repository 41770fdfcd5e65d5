//! A round between the servers: exchanges that do not depend on each other, in one message
//! each way.

use crate::channel::Parts;
use crate::masked::{Masked, Opening};
use crate::ring::Ring;

/// The exchanges of a round under way. Their messages follow each other in the order of their
/// steps.
pub(super) struct Round<'a, R: Ring> {
    openings: Vec<Box<dyn Opening<R> + 'a>>,
    made: Place,
    taken: Place,
}

/// How far a message is.
#[derive(Clone, Copy, Default)]
struct Place {
    /// Which of the exchanges.
    opening: usize,
    /// Bytes of it.
    bytes: usize,
}

impl Place {
    /// How many of the next `len` bytes belong to the current exchange, and which that is.
    /// `lens` are the exchanges' lengths, bytes.
    fn advance(&mut self, len: usize, lens: impl Fn(usize) -> usize) -> (usize, usize) {
        while self.bytes == lens(self.opening) {
            *self = Self { opening: self.opening + 1, bytes: 0 };
        }
        let count = len.min(lens(self.opening) - self.bytes);
        self.bytes += count;
        (self.opening, count)
    }
}

impl<'a, R: Ring> Round<'a, R> {
    /// One whose first exchange is `opening`.
    pub(super) fn begun_with(opening: Box<dyn Opening<R> + 'a>) -> Self {
        Self { openings: vec![opening], made: Place::default(), taken: Place::default() }
    }

    /// Adds an exchange to the end of the message.
    pub(super) fn join(&mut self, opening: Box<dyn Opening<R> + 'a>) {
        self.openings.push(opening);
    }

    /// Bytes of the message.
    pub(super) fn bytes(&self) -> usize {
        self.openings.iter().map(|opening| opening.bytes()).sum()
    }

    /// What the exchanges made, in their order.
    pub(super) fn finish(self) -> Vec<Masked<R>> {
        self.openings.into_iter().map(Opening::finish).collect()
    }
}

impl<R: Ring> Parts for Round<'_, R> {
    fn make(&mut self, mut part: &mut [u8]) {
        while !part.is_empty() {
            let (opening, count) =
                self.made.advance(part.len(), |opening| self.openings[opening].bytes());
            let (now, later) = part.split_at_mut(count);
            self.openings[opening].make(now);
            part = later;
        }
    }

    fn take(&mut self, mut part: &[u8]) {
        while !part.is_empty() {
            let (opening, count) =
                self.taken.advance(part.len(), |opening| self.openings[opening].bytes());
            let (now, later) = part.split_at(count);
            self.openings[opening].take(now);
            part = later;
        }
    }
}
