//! A round between the servers: exchanges that do not depend on each other, in one message
//! each way.

use crate::channel::Parts;
use crate::masked::{Made, Opening, Padding};
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
    ///
    /// # Errors
    /// If a part of the message that came is not what the protocol has.
    pub(super) fn finish(self) -> Result<Vec<Made<R>>, Padding> {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::{Channel, ChannelFault, Phase, Role, Tag, memory_pair};
    use crate::packed::{Order, Packed};
    use crate::packed_opening::PackedOpening;
    use crate::ring::Int64;

    #[test]
    fn packed_openings_take_what_the_plan_says_and_nothing_else() {
        const LEN: usize = 70;
        let tag = Tag::new(Phase::Online, 0, 1);
        let outcome = |order, bits: u32, message: Vec<u64>, bytes: usize| {
            let (mut server, mut other) =
                memory_pair(Role::Server0, Role::Server1, Duration::from_secs(5));
            let bytes = bytemuck::cast_slice(&message)[..bytes].to_vec();
            other.send(tag, bytes.into()).unwrap();
            let finish = |_: Packed, theirs: Packed| Made::<Int64>::Bits(theirs);
            let ours = || Packed::zeros(LEN, bits as usize);
            // Two in one message.
            let mut round = Round::begun_with(Box::new(PackedOpening::new(order, ours(), finish)));
            round.join(Box::new(PackedOpening::new(order, ours(), finish)));
            let length = round.bytes();
            let exchanged = server.exchange(tag, length, &mut round).map_err(|error| error.fault);
            exchanged.map(|()| round.finish().map(|made| made.len()))
        };
        for (order, bits) in [(Order::Values, 23), (Order::Planes, 8)] {
            // Two rows, the second one of 6 values; and the same again.
            let values = Packed::of(&[(1 << bits) - 1; LEN], bits);
            let fine = match order {
                Order::Values => [values.words(), values.words()].concat(),
                Order::Planes => {
                    let row = [vec![u64::MAX; 8], vec![0b11_1111; 8]].concat();
                    [row.clone(), row].concat()
                }
            };
            let all = 8 * fine.len();
            assert_eq!(outcome(order, bits, fine.clone(), all), Ok(Ok(2)));
            for word in [fine.len() / 2 - 1, fine.len() - 1] {
                let mut wrong = fine.clone();
                wrong[word] |= 1 << 63;
                assert_eq!(outcome(order, bits, wrong, all), Ok(Err(Padding)));
            }
            let long = [fine.clone(), vec![0]].concat();
            for (message, bytes) in [(fine, all - 8), (long.clone(), all + 8), (long, all + 1)] {
                let refused = outcome(order, bits, message, bytes);
                let length =
                    ChannelFault::Length { peer: Role::Server1, expected: all, found: bytes };
                assert_eq!(refused, Err(length));
            }
        }
    }
}
