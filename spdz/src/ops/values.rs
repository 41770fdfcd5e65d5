//! What a server holds while it evaluates: the tensors of one evaluation, and behind them
//! what lasts for the session.

use crate::masked::{Made, Masked, Wire};
use crate::packed::Packed;
use crate::ring::{Ring, Side};
use crate::share::Share;
use crate::tensors::{Domain, MaskedId, PrivateId, PublicId, Table, TensorId};

use super::kept::Kept;

/// Tensors by their number in the plan.
pub(crate) struct Tensors<R: Ring> {
    pub(crate) private: Vec<Option<Share<R>>>,
    pub(crate) masked: Vec<Option<Masked<R>>>,
    /// Private tensors of bits and of narrow integers.
    bits: Vec<Option<Packed>>,
    /// Masked tensors of narrow values.
    wires: Vec<Option<Wire>>,
}

impl<R: Ring> Tensors<R> {
    /// Room for those of a plan.
    pub(crate) fn of(table: &Table) -> Self {
        let mut tensors =
            Self { private: Vec::new(), masked: Vec::new(), bits: Vec::new(), wires: Vec::new() };
        tensors.private.resize_with(table.private.len(), || None);
        tensors.masked.resize_with(table.masked.len(), || None);
        tensors.bits.resize_with(table.private.len(), || None);
        tensors.wires.resize_with(table.masked.len(), || None);
        tensors
    }

    /// Frees a tensor.
    pub(crate) fn remove(&mut self, id: TensorId) {
        match id {
            TensorId::Private(id) => {
                self.private[id.0] = None;
                self.bits[id.0] = None;
            }
            TensorId::Masked(id) => {
                self.masked[id.0] = None;
                self.wires[id.0] = None;
            }
        }
    }
}

/// The tensors of one evaluation, each kept until the last step that reads it.
pub struct Values<'a, R: Ring> {
    table: &'a Table,
    side: Side,
    /// The step under way.
    step: usize,
    own: Tensors<R>,
    session: Option<&'a Tensors<R>>,
    publics: &'a [Vec<R::Word>],
    kept: &'a [Option<Kept>],
}

impl<'a, R: Ring> Values<'a, R> {
    /// Those of the set-up, where there is no `session` yet, or of an evaluation.
    pub(crate) fn new(
        table: &'a Table,
        side: Side,
        publics: &'a [Vec<R::Word>],
        kept: &'a [Option<Kept>],
        session: Option<&'a Tensors<R>>,
    ) -> Self {
        Self { table, side, step: 0, own: Tensors::of(table), session, publics, kept }
    }

    /// Begins with a step.
    pub(crate) fn at(&mut self, step: usize) {
        self.step = step;
    }

    /// Which server this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// Elements of a tensor.
    #[must_use]
    pub fn len(&self, id: impl Into<TensorId>) -> usize {
        self.table.len(id)
    }

    /// The low bits of the ring's elements that count, if not all do.
    #[must_use]
    pub fn low_bits(&self) -> Option<u32> {
        self.table.low_bits()
    }

    /// Bits of the ring that count ([`Table::ring_bits`]).
    #[must_use]
    pub fn ring_bits(&self) -> u32 {
        self.table.ring_bits()
    }

    /// What the elements of a tensor are.
    #[must_use]
    pub fn domain(&self, id: impl Into<TensorId>) -> Domain {
        self.table.spec(id.into()).domain
    }

    /// A public tensor's elements.
    #[must_use]
    pub fn public(&self, id: PublicId) -> &'a [R::Word] {
        &self.publics[id.0]
    }

    /// What the operation of this step kept in the set-up.
    #[must_use]
    pub fn kept(&self) -> Option<&'a Kept> {
        self.kept[self.step].as_ref()
    }

    /// Writes a private tensor.
    pub fn put(&mut self, id: PrivateId, share: Share<R>) {
        self.own.private[id.0] = Some(share);
    }

    /// Writes a masked tensor.
    pub fn put_masked(&mut self, id: MaskedId, masked: Masked<R>) {
        self.own.masked[id.0] = Some(masked);
    }

    /// Writes a masked tensor of narrow values.
    pub fn put_wire(&mut self, id: MaskedId, wire: Wire) {
        self.own.wires[id.0] = Some(wire);
    }

    /// Writes what an exchange made.
    pub(crate) fn put_made(&mut self, id: TensorId, made: Made<R>) {
        match (id, made) {
            (TensorId::Masked(id), Made::Masked(masked)) => self.put_masked(id, masked),
            (TensorId::Private(id), Made::Private(share)) => self.put(id, share),
            (TensorId::Masked(id), Made::Wire(wire)) => self.put_wire(id, wire),
            (TensorId::Private(id), Made::Bits(bits) | Made::Integers(bits)) => {
                self.own.bits[id.0] = Some(bits);
            }
            _ => unreachable!("an exchange makes the tensor that its operation writes"),
        }
    }

    /// A private tensor of bits: this server's share.
    #[must_use]
    pub fn bits(&self, id: PrivateId) -> &Packed {
        let Some(bits) = &self.own.bits[id.0] else {
            unreachable!("a plan writes each tensor of narrow values before it reads it");
        };
        bits
    }

    /// A private tensor of narrow integers: this server's share.
    #[must_use]
    pub fn integers(&self, id: PrivateId) -> &Packed {
        self.bits(id)
    }

    /// A masked tensor of narrow values.
    #[must_use]
    pub fn wire(&self, id: MaskedId) -> &Wire {
        let Some(wire) = &self.own.wires[id.0] else {
            unreachable!("a plan writes each wire before it reads it");
        };
        wire
    }

    /// A private tensor.
    #[must_use]
    pub fn get(&self, id: PrivateId) -> &Share<R> {
        let session = || self.session.and_then(|session| session.private[id.0].as_ref());
        let Some(share) = self.own.private[id.0].as_ref().or_else(session) else {
            unreachable!("a plan writes each tensor before it reads it");
        };
        share
    }

    /// A masked tensor.
    #[must_use]
    pub fn masked(&self, id: MaskedId) -> &Masked<R> {
        let session = || self.session.and_then(|session| session.masked[id.0].as_ref());
        let Some(masked) = self.own.masked[id.0].as_ref().or_else(session) else {
            unreachable!("a plan writes each masked tensor before it reads it");
        };
        masked
    }

    /// A private tensor itself if this step is the last that needs it, else a copy.
    #[must_use]
    pub fn take(&mut self, id: PrivateId) -> Share<R> {
        let spec = self.table.spec(id.into());
        if spec.last_read == self.step
            && spec.last_kept.is_none()
            && let Some(share) = self.own.private[id.0].take()
        {
            return share;
        }
        self.get(id).clone()
    }

    /// Frees those of the tensors that this step was the last to read.
    pub(crate) fn drop_unneeded(&mut self, reads: &[TensorId]) {
        for id in reads {
            if self.table.spec(*id).last_read == self.step {
                self.own.remove(*id);
            }
        }
    }

    /// The tensors that the step itself wrote and those of before.
    pub(crate) fn into_tensors(self) -> Tensors<R> {
        self.own
    }
}
