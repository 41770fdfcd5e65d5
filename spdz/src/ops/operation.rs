//! What an operation of the protocol is.
//!
//! An operation declares what it reads and writes, its message, the correlated randomness
//! that it consumes and its line in the plan's listing ([`Operation`]), and does each
//! role's part in any ring ([`Execute`]). Whoever asks something of a plan (costs, checks,
//! generating, sealing, metrics, traces) folds over these declarations and knows no operation
//! by name.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;

use crate::channel::{Channel, ChannelError, Tag};
use crate::geometry::Linear;
use crate::masked::{Mask, Masked, Opening};
use crate::packed::Packed;
use crate::prg::{KeyStream, Purpose, Seed};
use crate::ring::{self, Ring, Side};
use crate::share::Share;
use crate::tensors::{Encoding, MaskedId, Message, PrivateId, PublicId, Table, TensorId};

use super::kept::Kept;
use super::values::Values;
use super::wire_masks::WireMasks;

/// The declaration of one operation.
pub trait Operation: Any + fmt::Debug + Send + Sync + InEveryRing {
    /// What metrics, traces and messages call it.
    fn name(&self) -> &'static str;

    /// The tensors that it reads when it is done.
    fn reads(&self) -> Vec<TensorId>;

    /// The tensors of the session of which it keeps something from the set-up on
    /// ([`Execute::keep`]).
    fn keeps(&self) -> Vec<TensorId> {
        Vec::new()
    }

    /// The tensor that it writes, if any.
    fn writes(&self) -> Option<TensorId>;

    /// The message that it needs, if any: whose, and how long.
    fn message(&self, table: &Table) -> Option<Message> {
        let _ = table;
        None
    }

    /// The correlated randomness that it consumes in each evaluation.
    fn randomness(&self, table: &Table) -> Randomness {
        let _ = table;
        Randomness::NONE
    }

    /// The product with a weight of the session that each server computes online, if any: what
    /// `bench floor` times.
    fn product(&self) -> Option<&Linear> {
        None
    }

    /// By how many bits it shifts values to the right, if it does.
    fn shift(&self) -> Option<u32> {
        None
    }

    /// Whether it needs all bits of the ring's elements, not the low ones alone.
    fn needs_all_bits(&self) -> bool {
        false
    }

    /// How far its messages, as a server sees them, are at most from messages that do not depend
    /// on any input: a statistical distance. Nothing where they are uniformly random.
    fn distance(&self, table: &Table) -> f64 {
        let _ = table;
        0.0
    }

    /// Writes its operands, dimensions and lengths after its name: whatever the parties
    /// must agree on.
    ///
    /// # Errors
    /// If `f` fails.
    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result;
}

/// How much correlated randomness an operation consumes: elements of the ring, or packed values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Randomness {
    /// The mask that a server and the producer expand from their common seed, and what that
    /// is for.
    pub mask: Option<(Purpose, usize)>,
    /// What the producer shares: one server expands its share from the seed, the other is
    /// sent the difference.
    pub generated: usize,
    /// What else a server holds that it derives from the mask alone.
    pub derived: usize,
    /// What belongs to narrow values. An operation that has the producer share some has it
    /// generate no elements.
    pub packed: PackedRandomness,
}

/// How much packed randomness an operation consumes, for each of its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PackedRandomness {
    /// Values.
    pub len: usize,
    /// Bits that a server and the producer expand from their common seed.
    pub drawn: usize,
    /// Bits that the producer shares: one server expands its share from the seed, the other
    /// is sent its own.
    pub shared: usize,
}

impl PackedRandomness {
    /// Bits of a value in each of the tensors that a server holds.
    fn parts(self) -> impl Iterator<Item = usize> {
        [self.drawn, self.shared].into_iter().filter(|bits| *bits > 0)
    }

    /// Bytes of a tensor with so many bits of each value.
    pub(crate) fn bytes(self, bits: usize) -> usize {
        Encoding::packed(bits).bytes(self.len)
    }
}

impl Randomness {
    /// None.
    pub const NONE: Self = Self {
        mask: None,
        generated: 0,
        derived: 0,
        packed: PackedRandomness { len: 0, drawn: 0, shared: 0 },
    };

    /// So many bits for each of `len` values.
    #[must_use]
    pub fn packed(len: usize, drawn: usize, shared: usize) -> Self {
        Self { packed: PackedRandomness { len, drawn, shared }, ..Self::NONE }
    }

    /// A mask of `len` elements.
    #[must_use]
    pub fn mask(purpose: Purpose, len: usize) -> Self {
        Self { mask: Some((purpose, len)), ..Self::NONE }
    }

    /// `len` elements that the producer shares.
    #[must_use]
    pub fn generated(len: usize) -> Self {
        Self { generated: len, ..Self::NONE }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Elements of each of the shares that a server holds ([`Correlation`]).
    pub(crate) fn parts(&self) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask.map(|(_, len)| len);
        mask.into_iter().chain([self.generated, self.derived].into_iter().filter(|len| *len > 0))
    }

    /// Bits of a value in each of the packed tensors that a server holds ([`Correlation`]).
    pub(crate) fn packed_parts(&self) -> impl Iterator<Item = usize> + use<> {
        self.packed.parts()
    }

    /// Bytes of a server's memory that hold its elements, without these.
    pub(crate) fn overhead(&self) -> usize {
        // The same in each ring: lists of shares, and each share's own.
        let shares = self.parts().count() * (size_of::<Share<ring::Int64>>() + ALLOCATION);
        let packed = self.packed_parts().count();
        let lists = if packed > 0 { ALLOCATION } else { 0 };
        match shares + lists + packed * (size_of::<Packed>() + ALLOCATION) {
            0 => 0,
            parts => OF_A_STEP + parts,
        }
    }
}

/// What the memory allocator needs for an allocation, bytes.
const ALLOCATION: usize = 16;

/// A step's number and its list.
const OF_A_STEP: usize = size_of::<(u32, Correlation<ring::Int64>)>() + ALLOCATION;

/// A server's shares of the correlated randomness of one step. The operation that it was
/// made for takes it: there is no copy.
///
/// ```
/// # use spdz::{ops::{Correlation, SquareTriple}, ring::Int64};
/// fn triple(correlation: Correlation<Int64>) -> SquareTriple<Int64> {
///     SquareTriple::new(correlation.into_generated())
/// }
/// ```
///
/// ```compile_fail,E0382
/// # use spdz::{ops::{Correlation, SquareTriple}, ring::Int64};
/// fn triples(correlation: Correlation<Int64>) -> [SquareTriple<Int64>; 2] {
///     [correlation.into_generated(), correlation.into_generated()].map(SquareTriple::new)
/// }
/// ```
#[derive(Debug)]
pub struct Correlation<R: Ring> {
    pub(crate) shares: Vec<Share<R>>,
    pub(crate) packed: Vec<Packed>,
}

impl<R: Ring> Correlation<R> {
    /// Of an operation that consumes none.
    #[must_use]
    pub fn none() -> Self {
        Self::of(Vec::new())
    }

    /// Of shares of elements.
    pub(crate) fn of(shares: Vec<Share<R>>) -> Self {
        Self { shares, packed: Vec::new() }
    }

    /// The packed tensors that the operation declares: what is drawn, then what is shared.
    pub fn into_packed<const N: usize>(self) -> [Packed; N] {
        let Ok(packed) = self.packed.try_into() else {
            unreachable!("a correlation is made as its operation declares it");
        };
        packed
    }

    /// The share of the mask of an operation that declares nothing else.
    #[must_use]
    pub fn into_mask(self) -> Mask<R> {
        let [mask] = self.into_parts();
        Mask::from_share(mask)
    }

    /// The share of what the producer generated for an operation that declares nothing else.
    #[must_use]
    pub fn into_generated(self) -> Share<R> {
        let [generated] = self.into_parts();
        generated
    }

    /// The shares that the operation declares, in the order of the fields of [`Randomness`].
    pub fn into_parts<const N: usize>(self) -> [Share<R>; N] {
        let Ok(parts) = self.shares.try_into() else {
            unreachable!("a correlation is made as its operation declares it");
        };
        parts
    }

    /// The share of the mask, of an operation that declares one.
    pub fn mask(&self) -> &Share<R> {
        &self.shares[0]
    }
}

/// Each role's part of an operation, in the ring `R`.
///
/// An operation implements those parts that it declares; the others are never called.
pub trait Execute<R: Ring> {
    /// Server, at the end of the set-up: makes what every evaluation uses.
    fn keep(&self, session: &mut dyn Session<R>) -> Option<Kept> {
        let _ = session;
        None
    }

    /// Producer, at the end of the set-up: makes what every evaluation uses, of the masks
    /// of the session's tensors.
    fn keep_mask(&self, producer: &mut dyn Producer<R>) -> Option<Kept> {
        let _ = producer;
        None
    }

    /// Producer: generates what it shares, as much as [`Randomness::generated`] says.
    ///
    /// # Errors
    /// If a server is gone.
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let _ = producer;
        undeclared("randomness that the producer generates")
    }

    /// Producer: the mask of the masked tensor that the operation writes.
    fn mask(&self, producer: &mut dyn Producer<R>) -> Share<R> {
        producer.drawn()
    }

    /// Producer: both servers' shares of the mask of the wire that the operation writes, if it
    /// follows from those of other wires ([`Producer::wire_masks`]).
    fn wire_masks(&self, producer: &mut dyn Producer<R>) -> [Packed; 2] {
        let _ = producer;
        undeclared("no mask of its wire")
    }

    /// Server, offline: its shares of the correlated randomness, and whatever it can compute
    /// before the inputs are there.
    ///
    /// # Errors
    /// If the producer is gone, silent or sends something else.
    fn prepare(&self, server: &mut dyn Preparation<R>) -> Result<Correlation<R>, ChannelError> {
        let Randomness { mask, generated, packed, .. } = server.randomness();
        let mut parts = Vec::with_capacity(2);
        if let Some((_, len)) = mask {
            parts.push(Share::sample(&mut server.seed().into_stream(), len));
        }
        if generated > 0 {
            parts.push(server.generated()?);
        }
        let mut rows = Vec::new();
        if packed.drawn > 0 {
            rows.push(server.packed_mask());
        }
        if packed.shared > 0 {
            rows.push(server.packed_share()?);
        }
        Ok(Correlation { shares: parts, packed: rows })
    }

    /// Server, offline: its share of the mask of the masked tensor that the operation writes.
    fn mask_share<'a>(
        &self,
        correlation: &'a Correlation<R>,
        shares: &dyn Fn(MaskedId) -> Cow<'a, Share<R>>,
    ) -> Cow<'a, Share<R>> {
        let _ = shares;
        Cow::Borrowed(correlation.mask())
    }

    /// Server, online: an operation without a message.
    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let _ = (values, correlation);
        undeclared("no message")
    }

    /// Server, online: an operation with a message of [`Route::Input`](crate::tensors::Route::Input), which comes from
    /// `player`.
    ///
    /// # Errors
    /// If the player is gone, silent or sends something else.
    fn receive(
        &self,
        correlation: Correlation<R>,
        player: &mut dyn Channel,
        tag: Tag,
    ) -> Result<Masked<R>, ChannelError> {
        let _ = (correlation, player, tag);
        undeclared("an input")
    }

    /// Server, online: an operation with a message of [`Route::Exchange`](crate::tensors::Route::Exchange). It is sent and
    /// received with others of its round. What the opening makes is what the operation writes.
    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let _ = (values, correlation);
        undeclared("an exchange")
    }

    /// Server, online: the share that an operation with a message of [`Route::Output`](crate::tensors::Route::Output)
    /// reveals.
    fn reveal(&self, values: &mut Values<'_, R>) -> Share<R> {
        let _ = values;
        undeclared("an output")
    }
}

/// A part that is only called for operations that declare it.
fn undeclared<T>(what: &str) -> T {
    unreachable!("an operation that declares {what} has a part for it")
}

/// What a server hands an operation at the end of the set-up.
pub trait Session<R: Ring> {
    /// Which server this is.
    fn side(&self) -> Side;
    /// A public tensor's elements.
    fn public(&self, id: PublicId) -> &[R::Word];
    /// A private tensor of the session.
    fn private(&self, id: PrivateId) -> &Share<R>;
    /// A masked tensor of the session: itself if nothing else needs it, else a copy.
    fn take_masked(&mut self, id: MaskedId) -> Masked<R>;
}

/// What the producer hands the operation of one step.
pub trait Producer<R: Ring> {
    /// The mask of a tensor, once it was [made](Producer::make).
    fn get(&self, id: MaskedId) -> &Share<R>;
    /// Makes the mask of a tensor, if it is not there.
    fn make(&mut self, id: MaskedId);
    /// The seeds of the servers' shares of the mask that this step declares.
    fn seeds(&self) -> [Seed; 2];
    /// The mask that is the sum of what the two seeds expand to.
    fn drawn(&mut self) -> Share<R>;
    /// The seeds of the mask of a tensor if it is drawn from them and has not been made,
    /// and this step is the last to need it.
    fn seeds_of(&self, id: MaskedId) -> Option<[Seed; 2]>;
    /// What the operation kept in the set-up ([`Execute::keep_mask`]).
    fn kept(&self) -> Option<&Kept>;
    /// Elements of the mask that this step declares.
    fn mask_len(&self) -> usize;
    /// Words of what this step generates.
    fn words(&self) -> usize;
    /// Shares a tensor among the servers.
    ///
    /// # Errors
    /// If a server is gone.
    fn share(&mut self, tensor: &Share<R>) -> Result<(), ChannelError>;
    /// Shares a tensor that is made part by part: `make` writes its words from that of a
    /// number on, [`Ring::PART`] of them or all that are left.
    ///
    /// # Errors
    /// If a server is gone.
    fn share_parts(
        &mut self,
        make: &mut dyn FnMut(usize, &mut [R::Word]),
    ) -> Result<(), ChannelError>;
    /// Elements of a tensor.
    fn len(&self, id: MaskedId) -> usize;
    /// Bits of a wire, a masked tensor of narrow values.
    fn width(&self, id: MaskedId) -> u32;
    /// Bits of the ring that count ([`Table::ring_bits`]).
    fn ring_bits(&self) -> u32;
    /// The streams of the servers' shares of the packed mask of the step that wrote a tensor,
    /// from their beginnings: rows of [`PackedRandomness::drawn`] words.
    fn packed_masks(&self, written: TensorId) -> [KeyStream; 2];
    /// Both servers' shares of a wire's mask: as they are drawn, or made of other wires'.
    fn wire_masks(&mut self, id: MaskedId) -> WireMasks;
    /// Shares packed values row by row. `make` is given the words of a row that one server
    /// expands and puts the other server's share in their place.
    ///
    /// # Errors
    /// If a server is gone.
    fn share_packed(&mut self, make: &mut dyn FnMut(&mut [u64])) -> Result<(), ChannelError>;
}

/// What a server hands the operation of one step offline.
pub trait Preparation<R: Ring> {
    /// What the operation declares.
    fn randomness(&self) -> Randomness;
    /// The seed of this server's share of the mask.
    fn seed(&self) -> Seed;
    /// This server's share of what the producer generated.
    ///
    /// # Errors
    /// If the producer is gone, silent or sends something else.
    fn generated(&mut self) -> Result<Share<R>, ChannelError>;
    /// The same as far as it is there already: this server's share if it expands it, else
    /// zeros. What comes from the producer joins last ([`Preparation::join`]): it may still
    /// be at work.
    fn expanded(&mut self) -> Share<R>;
    /// Adds what the producer sends, if this server is the one that receives.
    ///
    /// # Errors
    /// As those of [`Preparation::generated`].
    fn join(&mut self, share: &mut Share<R>) -> Result<(), ChannelError>;
    /// This server's packed mask.
    fn packed_mask(&mut self) -> Packed;
    /// This server's share of the packed values that the producer generated.
    ///
    /// # Errors
    /// If the producer is gone, silent or sends something else.
    fn packed_share(&mut self) -> Result<Packed, ChannelError>;
    /// This server's share of the mask of a tensor that an earlier step or the set-up wrote.
    fn mask_share(&self, id: MaskedId) -> Cow<'_, Share<R>>;
    /// What the operation kept in the set-up ([`Execute::keep`]).
    fn kept(&self) -> Option<&Kept>;
}

/// A ring in which every operation can be executed: one of the number formats'.
pub trait ProtocolRing: Ring {
    /// The parts of an operation in this ring.
    fn parts(operation: &dyn Operation) -> &dyn Execute<Self>;
}

/// An operation is executed in every number format's ring.
macro_rules! in_every_ring {
    ($($ring:ident),+) => {
        /// What has its parts in every number format's ring. Whatever has them in any ring
        /// has.
        pub trait InEveryRing: $(Execute<ring::$ring> +)+ {}

        impl<T: $(Execute<ring::$ring> +)+> InEveryRing for T {}

        $(impl ProtocolRing for ring::$ring {
            fn parts(operation: &dyn Operation) -> &dyn Execute<Self> {
                operation
            }
        })+
    };
}

ring::for_each_ring!(in_every_ring);
