//! Every decoder of bytes from outside, and what it guarantees for any bytes: it ends,
//! allocates no more memory than its bound, and its errors say what is wrong.
//!
//! The fuzz targets beside this crate and its own test use the same [`Decoder`]s. Bytes from
//! outside are a peer's frames, configurations, players' inputs, and files of other programs.

mod decode;
mod decoder;
pub mod seeds;

pub use decode::{
    CONFIGURATION, FRAMES, GRAPH, IDX, RESULTS, TERMINATION, TRACEPARENT, TRANSCRIPT, WEIGHTS,
};
pub use decoder::Decoder;

/// The folder with a corpus for each decoder, by its name.
pub const CORPORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus");

/// All decoders.
pub const ALL: [Decoder; 9] =
    [FRAMES, CONFIGURATION, WEIGHTS, GRAPH, IDX, RESULTS, TERMINATION, TRACEPARENT, TRANSCRIPT];

/// The decoder of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Decoder> {
    ALL.iter().find(|decoder| decoder.name == name)
}
