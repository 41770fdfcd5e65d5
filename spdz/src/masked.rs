//! Masked tensors: what a private tensor becomes once it has been opened under a mask.
//!
//! A mask hides one value once. It is consumed by the opening that uses it; the
//! masked tensor that results may feed any number of products (the paper,
//! section 2: "every tensor only needs to be masked once").

use std::fmt;

use bytes::Bytes;

use crate::buffer::Buffer;
use crate::channel::{Channel, ChannelError, Parts, Tag};
use crate::packed::Packed;
use crate::prg::Seed;
use crate::ring::kernels::vectorized;
use crate::ring::{Plane, Ring, pieces, received};
use crate::share::Share;

/// A server's share `a_i` of a mask that has not been used yet.
///
/// It has no copy, and the opening that uses it takes it:
///
/// ```
/// # use spdz::{channel::*, masked::Mask, ring::Int64, share::Share};
/// fn open(a: Mask<Int64>, x: &Share<Int64>, other: &mut dyn Channel, tag: Tag) {
///     let _ = a.open(x, other, tag);
/// }
/// ```
///
/// A program that opens two tensors under one mask is refused by the compiler:
///
/// ```compile_fail,E0382
/// # use spdz::{channel::*, masked::Mask, ring::Int64, share::Share};
/// fn open(a: Mask<Int64>, x: &Share<Int64>, y: &Share<Int64>, other: &mut dyn Channel, tag: Tag) {
///     let _ = a.open(x, other, tag);
///     let _ = a.open(y, other, tag);
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use spdz::{masked::Mask, ring::Int64};
/// fn copy(a: Mask<Int64>) -> [Mask<Int64>; 2] {
///     [a.clone(), a]
/// }
/// ```
#[derive(Debug)]
pub struct Mask<R: Ring>(Share<R>);

/// A server's part of a masked tensor: the public `alpha = x - a` and its share
/// `a_i` of the mask.
pub struct Masked<R: Ring> {
    /// `x - a`, known to both servers.
    pub alpha: Buffer<R::Word>,
    /// `a_i`.
    pub mask: Share<R>,
}

impl<R: Ring> fmt::Debug for Masked<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masked<{}>({} elements)", R::NAME, self.mask.len())
    }
}

impl<R: Ring> Mask<R> {
    /// Expands the share of a mask of `len` elements. The producer expands the
    /// same seed to know the mask.
    #[must_use]
    pub fn expand(seed: Seed, len: usize) -> Self {
        Self(Share::sample(&mut seed.into_stream(), len))
    }

    /// From the share as [`Mask::share`] gave it.
    pub(crate) fn from_share(share: Share<R>) -> Self {
        Self(share)
    }

    /// The share, for the opening that it is used up by.
    pub(crate) fn into_share(self) -> Share<R> {
        self.0
    }

    /// Opens `x` under this mask in one round with the other server: each sends
    /// `x_i - a_i`, both learn `alpha = x - a`.
    ///
    /// # Errors
    /// If the other server is gone, silent or sends something else.
    pub fn open<C: Channel + ?Sized>(
        self,
        x: &Share<R>,
        other: &mut C,
        tag: Tag,
    ) -> Result<Masked<R>, ChannelError> {
        exchange(self.opening(x), other, tag)
    }

    /// The exchange in which `x` is opened under this mask.
    #[must_use]
    pub fn opening<'a>(self, x: &'a Share<R>) -> Box<dyn Opening<R> + 'a> {
        let less = |plane: R::Plane| move |x, a| plane.sub(x, a);
        Box::new(SumOpening::new(&x.0, self.0, less, |alpha, mask| Masked { alpha, mask }))
    }

    /// The masked tensor whose `owner`, knowing the whole mask, computes `alpha`
    /// and sends it to both servers.
    ///
    /// # Errors
    /// If the owner is gone, silent or sends something else.
    pub fn receive<C: Channel + ?Sized>(
        self,
        owner: &mut C,
        tag: Tag,
    ) -> Result<Masked<R>, ChannelError> {
        let alpha = Share::<R>::received(owner, tag, self.0.len())?;
        Ok(Masked { alpha: alpha.0, mask: self.0 })
    }
}

/// A second copy, where a plan uses a masked tensor twice.
impl<R: Ring> Clone for Masked<R> {
    fn clone(&self) -> Self {
        Self { alpha: self.alpha.clone(), mask: self.mask.clone() }
    }
}

/// A server's part of narrow values that were opened under a mask: the public `x + rho` modulo
/// `2^bits` and its share of the mask `rho`, each less than `2^bits`.
#[derive(Clone, Debug)]
pub struct Wire {
    /// `x + rho`, known to both servers.
    pub opened: Packed,
    /// `rho_i`.
    pub mask: Packed,
}

/// What an exchange makes.
#[derive(Debug)]
pub enum Made<R: Ring> {
    /// A masked tensor of the ring.
    Masked(Masked<R>),
    /// A private tensor of the ring.
    Private(Share<R>),
    /// Narrow values under a mask.
    Wire(Wire),
    /// This server's share of bits.
    Bits(Packed),
    /// This server's share of narrow integers.
    Integers(Packed),
}

/// The message that came has bits that belong to no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding;

/// An exchange with the other server that has begun: both messages, which are equally long, and
/// what they make.
pub trait Opening<R: Ring>: Parts {
    /// Bytes of each of the two messages.
    fn bytes(&self) -> usize;
    /// The tensor, once both messages are complete.
    ///
    /// # Errors
    /// If the other server's message is none of those that the protocol has.
    fn finish(self: Box<Self>) -> Result<Made<R>, Padding>;
}

/// One round with the other server for one opening alone.
///
/// # Errors
/// If the other server is gone, silent or sends something else.
pub(crate) fn exchange<'a, R: Ring, C: Channel + ?Sized>(
    mut opening: Box<dyn Opening<R> + 'a>,
    other: &mut C,
    tag: Tag,
) -> Result<Masked<R>, ChannelError> {
    other.exchange(tag, opening.bytes(), &mut *opening)?;
    let Ok(Made::Masked(masked)) = opening.finish() else {
        unreachable!("elements of a ring have no padding, and are masked again");
    };
    Ok(masked)
}

/// One round with the other server: each sends `f(x, y)` of its words, both learn the sum.
/// `finish` makes the masked tensor of the sum and `y`.
pub(crate) struct SumOpening<'a, R: Ring, F, M> {
    x: &'a [R::Word],
    y: Share<R>,
    f: F,
    finish: M,
    /// Both servers' parts are added to it, each as it is made or comes.
    sum: Buffer<R::Word>,
    /// Words that this server has sent.
    made: usize,
    /// Words that have come from the other.
    taken: usize,
}

impl<'a, R: Ring, F, M> SumOpening<'a, R, F, M> {
    pub(crate) fn new(x: &'a [R::Word], y: Share<R>, f: F, finish: M) -> Self {
        Self { x, y, f, finish, sum: Buffer::zeros(x.len()), made: 0, taken: 0 }
    }
}

impl<R, F, G, M> Opening<R> for SumOpening<'_, R, F, M>
where
    R: Ring,
    F: Fn(R::Plane) -> G,
    G: Fn(R::Word, R::Word) -> R::Word,
    M: FnOnce(Buffer<R::Word>, Share<R>) -> Masked<R>,
{
    fn bytes(&self) -> usize {
        size_of_val(self.x)
    }

    fn finish(self: Box<Self>) -> Result<Made<R>, Padding> {
        let Self { y, finish, sum, .. } = *self;
        Ok(Made::Masked(finish(sum, y)))
    }
}

impl<R, F, G, M> Parts for SumOpening<'_, R, F, M>
where
    R: Ring,
    F: Fn(R::Plane) -> G,
    G: Fn(R::Word, R::Word) -> R::Word,
    M: FnOnce(Buffer<R::Word>, Share<R>) -> Masked<R>,
{
    fn make(&mut self, part: &mut [u8]) {
        let size = size_of::<R::Word>();
        let first = self.made;
        self.made += part.len() / size;
        for (plane, piece) in pieces::<R>(self.x.len(), first..self.made) {
            let ours = (self.f)(plane);
            let part = &mut part[size * (piece.start - first)..size * (piece.end - first)];
            let (x, y) = (&self.x[piece.clone()], &self.y.0[piece.clone()]);
            let sum = &mut self.sum[piece];
            vectorized(
                #[inline(always)]
                move || {
                    let operands = sum.iter_mut().zip(x).zip(y);
                    for (bytes, ((sum, &x), &y)) in part.chunks_exact_mut(size).zip(operands) {
                        let ours = ours(x, y);
                        bytes.copy_from_slice(bytemuck::bytes_of(&plane.sent(ours)));
                        *sum = plane.add(*sum, ours);
                    }
                },
            );
        }
    }

    fn take(&mut self, part: &[u8]) {
        received::<R>(part, &mut self.sum, self.taken, R::Plane::add);
        self.taken += part.len() / size_of::<R::Word>();
    }
}

/// What an input's owner sends to both servers: `x - a_0 - a_1`, with the shares
/// of the mask expanded from the seeds that the servers gave.
#[must_use]
pub fn mask_input<R: Ring>(mut values: Share<R>, seeds: [Seed; 2]) -> Bytes {
    for seed in seeds {
        values.sub_sampled(&mut seed.into_stream());
    }
    R::to_bytes(values.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Phase, Role, memory_pair};
    use crate::ring::Int64;
    use crate::share::{reconstruct, share};
    use std::time::Duration;

    #[test]
    fn opening_gives_both_servers_the_value_less_the_mask() {
        let x: Vec<u64> = vec![0, 1, u64::MAX, 1 << 63, 42];
        let (x0, x1) = share::<Int64>(&x, &mut Seed::from_bytes([1; 32]).into_stream());
        let seeds = || [Seed::from_bytes([2; 32]), Seed::from_bytes([3; 32])];
        let [a0, a1] = seeds().map(|seed| Mask::<Int64>::expand(seed, x.len()));
        let a = reconstruct(&a0.0, &a1.0);
        let (mut c0, mut c1) = memory_pair(Role::Server0, Role::Server1, Duration::from_secs(5));
        let tag = Tag::new(Phase::Online, 0, 1);
        let (m0, m1) = std::thread::scope(|scope| {
            let other = scope.spawn(move || a1.open(&x1, &mut c1, tag).unwrap());
            (a0.open(&x0, &mut c0, tag).unwrap(), other.join().unwrap())
        });
        let expected: Vec<u64> = x.iter().zip(&a).map(|(x, a)| x.wrapping_sub(*a)).collect();
        assert_eq!(m0.alpha[..], expected);
        assert_eq!(m1.alpha[..], expected);

        let sent = mask_input(Share::<Int64>(x[..].into()), seeds());
        let [b0, _] = seeds().map(|seed| Mask::<Int64>::expand(seed, 5));
        let (mut owner, mut server) =
            memory_pair(Role::CLIENT, Role::Server0, Duration::from_secs(5));
        owner.send(tag, sent).unwrap();
        assert_eq!(b0.receive(&mut server, tag).unwrap().alpha[..], expected);
    }
}
