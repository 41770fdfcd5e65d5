//! What a tensor of the graph is lowered to.

use crate::geometry::View;
use crate::tensors::{MaskedId, PrivateId};

/// A private tensor whose elements stand for their value times `2^fraction`.
#[derive(Clone, Copy)]
pub(super) struct Scaled {
    pub(super) id: PrivateId,
    pub(super) fraction: i32,
    /// Values are below `2^integral` in magnitude.
    pub(super) integral: i32,
}

/// A masked tensor whose elements stand for their value times `2^fraction`.
#[derive(Clone, Copy)]
pub(super) struct ScaledMask {
    pub(super) id: MaskedId,
    pub(super) fraction: i32,
}

/// A wire whose values stand for theirs times `2^fraction`.
#[derive(Clone, Copy)]
pub(super) struct ScaledWire {
    pub(super) id: MaskedId,
    pub(super) fraction: i32,
}

/// Where the elements of a tensor that was not computed come from.
#[derive(Clone)]
pub(super) enum Layout {
    /// The same elements.
    Alias(usize),
    /// Selected from a tensor that is masked as a whole.
    Whole(usize, View),
    /// Selected from a tensor that is masked only if it already is.
    Part(usize, View),
    /// From several tensors.
    Concat(Vec<usize>, usize),
}

/// The forms that a tensor of the graph, or a power within a polynomial, has so far.
#[derive(Clone, Default)]
pub(super) struct LoweredValue {
    pub(super) len: usize,
    /// As computed.
    pub(super) raw: Option<Scaled>,
    /// With at most the format's fractional bits.
    pub(super) reduced: Option<Scaled>,
    /// Masked, with at most the format's fractional bits.
    pub(super) masked: Option<ScaledMask>,
    /// Masked, with a few more: a matrix product of an exact graph has room for them.
    pub(super) fine: Option<ScaledMask>,
    /// Opened in as many bits as it has, and ready to be compared.
    pub(super) wire: Option<ScaledWire>,
    pub(super) layout: Option<Layout>,
}
