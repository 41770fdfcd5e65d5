//! What a graph may have at most: every party reads it before it has heard of any other.

/// Largest number of elements of one tensor.
pub const MAX_TENSOR: usize = 1 << 28;

/// Largest number of nodes of a graph.
pub const MAX_NODES: usize = 1 << 14;

/// Largest number of elements of all tensors that are part of the graph, or follow from those
/// alone: every party computes them before it has heard of any other.
pub const MAX_PUBLIC: usize = 1 << 21;

/// Most terms of the sums that products and pooling among them are, for the same reason.
pub const MAX_PUBLIC_TERMS: usize = 1 << 30;

/// Largest number of polynomials among them: each may be written as a fit, which whoever reads
/// the graph computes.
pub const MAX_POLYNOMIALS: usize = 1 << 11;

/// Largest degree of a polynomial: far beyond what a number format has the precision for.
pub const MAX_DEGREE: usize = 64;

/// Most values in a row of which the place of the largest one is asked for.
pub const MAX_CHOICES: usize = 1 << 16;

/// Longest label of a node, and longest name of an input or output, bytes.
///
/// They and the graph's name are visible ASCII characters, without white space: people
/// review a plan by its listing, in which any other could pass for a column, a line or
/// another label.
pub const MAX_LABEL_BYTES: usize = 255;

/// Longest name of a graph, bytes.
pub(super) const MAX_NAME_BYTES: usize = 63;

/// Largest number of axes of a tensor.
pub(super) const MAX_AXES: usize = 8;

/// The largest range that a graph may declare.
pub const MAX_RANGE: u32 = 1 << 10;

/// Largest number of players.
pub const MAX_PLAYERS: usize = 64;

/// A graph has more of them than it may.
pub(super) fn too_many(what: &str, most: usize) -> String {
    format!("a graph has at most {most} {what}")
}
