//! The tensors of a plan: their names, lengths and domains, and how long each is needed.
//!
//! Operations name what they read and write by these; they know nothing of the plan around
//! them.

use std::fmt;

use crate::channel::Name;
use crate::graph::{Lifetime, NodeId};
use crate::packed::ROW;
use crate::ring::NumberFormat;

/// Names a private tensor of a plan: `p0`, `p1`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrivateId(pub(crate) usize);

/// Names a masked tensor of a plan: `m0`, `m1`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaskedId(pub(crate) usize);

/// Names a public tensor of a plan: `c0`, `c1`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicId(pub(crate) usize);

/// Names a tensor on shares, in one of its two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorId {
    /// Each server has an additive share.
    Private(PrivateId),
    /// Both servers know the tensor less a mask, and have shares of the mask.
    Masked(MaskedId),
}

impl fmt::Display for PrivateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl fmt::Display for MaskedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}", self.0)
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for TensorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(id) => id.fmt(f),
            Self::Masked(id) => id.fmt(f),
        }
    }
}

impl From<PrivateId> for TensorId {
    fn from(id: PrivateId) -> Self {
        Self::Private(id)
    }
}

impl From<MaskedId> for TensorId {
    fn from(id: MaskedId) -> Self {
        Self::Masked(id)
    }
}

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// Elements of the number format's ring.
    Ring,
    /// Integers modulo `2^bits`, fewer bits than the ring's.
    Integers {
        /// Their width.
        bits: u32,
    },
    /// Bits, shared by exclusive or.
    Bits,
}

impl Domain {
    /// How its elements travel in a number format.
    #[must_use]
    pub fn encoding(self, format: NumberFormat) -> Encoding {
        match self {
            Self::Ring => Encoding { bits: 8 * format.wire_bytes(), row: 1 },
            Self::Integers { bits } => Encoding::packed(bits as usize),
            Self::Bits => Encoding::packed(1),
        }
    }
}

/// How the elements of a message are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    bits: usize,
    /// Elements are written in rows of so many, the last one filled up.
    row: usize,
}

impl Encoding {
    /// Of narrow values ([`crate::packed`]).
    #[must_use]
    pub fn packed(bits: usize) -> Self {
        Self { bits, row: ROW }
    }

    /// Bits of an element.
    #[must_use]
    pub fn bits(self) -> usize {
        self.bits
    }

    /// Bytes of so many elements.
    #[must_use]
    pub fn bytes(self, elements: usize) -> usize {
        (elements.next_multiple_of(self.row) * self.bits).div_ceil(8)
    }
}

/// The message of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Between whom.
    pub route: Route,
    /// Elements.
    pub elements: usize,
    /// How they are written.
    pub encoding: Encoding,
}

impl Message {
    /// Bytes, without those of the transport.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.encoding.bytes(self.elements)
    }
}

/// Between whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A player sends an input of the plan, by its number, to both servers.
    Input(usize),
    /// Each server sends one to the other. Those that do not depend on each other make one
    /// round.
    Exchange,
    /// Both servers send an output of the plan, by its number, to a player.
    Output(usize),
}

/// A tensor of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Elements.
    pub len: usize,
    /// What they are.
    pub domain: Domain,
    /// The step that writes it.
    pub written: usize,
    /// The last step that reads it.
    pub last_read: usize,
    /// The last step of the evaluation that keeps something of it from the set-up on.
    pub last_kept: Option<usize>,
}

impl TensorSpec {
    /// With so many elements, of which nothing else is known yet.
    pub(crate) fn of(len: usize, domain: Domain) -> Self {
        Self { len, domain, written: 0, last_read: 0, last_kept: None }
    }
}

/// A tensor that a player shares.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Whose input it is.
    pub player: Name,
    /// The graph's node that shares it.
    pub node: NodeId,
    /// What messages call it: the name of the player's input where it is shared as it
    /// is, else the layer.
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Fractional bits.
    pub fraction: i32,
    /// Once a session or in every evaluation.
    pub lifetime: Lifetime,
    /// The step at which it arrives.
    pub step: usize,
}

/// A tensor that a player is revealed.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputSpec {
    /// Who learns it.
    pub player: Name,
    /// The graph's node that reveals it.
    pub node: NodeId,
    /// The layer it comes from, for messages.
    pub layer: String,
    /// Elements.
    pub len: usize,
    /// Fractional bits.
    pub fraction: i32,
    /// Values are below two to the power of this in magnitude.
    pub integral: u32,
    /// The step at which it is sent.
    pub step: usize,
}

/// Numbers that everybody knows, as the plan uses them.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicTensor {
    /// The numbers times `2^fraction`, row-major.
    pub integers: Vec<i128>,
    /// Fractional bits.
    pub fraction: i32,
}

/// All tensors of a plan, by their numbers.
#[derive(Clone, Debug)]
pub struct Table {
    pub(crate) format: NumberFormat,
    pub(crate) low_bits: Option<u32>,
    pub(crate) private: Vec<TensorSpec>,
    pub(crate) masked: Vec<TensorSpec>,
    pub(crate) publics: Vec<PublicTensor>,
    pub(crate) inputs: Vec<InputSpec>,
    pub(crate) outputs: Vec<OutputSpec>,
}

impl Table {
    /// One without tensors.
    pub(crate) fn new(format: NumberFormat) -> Self {
        Self {
            format,
            low_bits: None,
            private: Vec::new(),
            masked: Vec::new(),
            publics: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    /// The number format.
    #[must_use]
    pub fn format(&self) -> NumberFormat {
        self.format
    }

    /// The low bits of the ring's elements that count, if not all do: numbers of an exact graph
    /// are right modulo `2^n`, with room for the largest of them. That many travel between the
    /// servers and from the producer.
    #[must_use]
    pub fn low_bits(&self) -> Option<u32> {
        self.low_bits
    }

    /// Bits of the ring that count.
    #[must_use]
    pub fn ring_bits(&self) -> u32 {
        self.low_bits.unwrap_or(8 * self.format.wire_bytes() as u32)
    }

    /// Bits of a tensor's elements that count.
    #[must_use]
    pub fn width(&self, id: impl Into<TensorId>) -> u32 {
        match self.spec(id.into()).domain {
            Domain::Ring => self.ring_bits(),
            Domain::Integers { bits } => bits,
            Domain::Bits => 1,
        }
    }

    /// How elements of the ring travel between the servers and from the producer.
    #[must_use]
    pub fn elements(&self) -> Encoding {
        match self.low_bits {
            Some(bits) => Encoding::packed(bits as usize),
            None => Domain::Ring.encoding(self.format),
        }
    }

    /// A tensor.
    #[must_use]
    pub fn spec(&self, id: TensorId) -> &TensorSpec {
        match id {
            TensorId::Private(id) => &self.private[id.0],
            TensorId::Masked(id) => &self.masked[id.0],
        }
    }

    pub(crate) fn spec_mut(&mut self, id: TensorId) -> &mut TensorSpec {
        match id {
            TensorId::Private(id) => &mut self.private[id.0],
            TensorId::Masked(id) => &mut self.masked[id.0],
        }
    }

    /// Elements of a tensor.
    #[must_use]
    pub fn len(&self, id: impl Into<TensorId>) -> usize {
        self.spec(id.into()).len
    }

    /// A message that carries a whole tensor.
    #[must_use]
    pub(crate) fn message(&self, route: Route, id: impl Into<TensorId>) -> Message {
        let spec = self.spec(id.into());
        let encoding = match (route, spec.domain) {
            (Route::Exchange, Domain::Ring) => self.elements(),
            (_, domain) => domain.encoding(self.format),
        };
        Message { route, elements: spec.len, encoding }
    }

    /// How a tensor's elements travel.
    #[must_use]
    pub fn encoding(&self, id: impl Into<TensorId>) -> Encoding {
        self.spec(id.into()).domain.encoding(self.format)
    }

    /// The tensors that players share, in the order of the graph.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The tensors that players are revealed, in the order of the graph.
    #[must_use]
    pub fn outputs(&self) -> &[OutputSpec] {
        &self.outputs
    }

    /// Public tensors.
    #[must_use]
    pub fn publics(&self) -> &[PublicTensor] {
        &self.publics
    }
}
