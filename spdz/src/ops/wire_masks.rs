//! The mask of a wire, as the producer knows it.

use std::sync::Arc;

use crate::packed::Packed;
use crate::prg::KeyStream;

/// Both servers' shares of a wire's mask, as the producer knows them.
#[derive(Debug)]
pub enum WireMasks {
    /// Drawn from the servers' streams, which are at their beginning.
    Drawn {
        /// Of each server.
        streams: Box<[KeyStream; 2]>,
        /// Values.
        len: usize,
        /// Their width.
        bits: usize,
    },
    /// Made of other wires' masks.
    Made(Arc<[Packed; 2]>),
}

impl WireMasks {
    /// All of them.
    #[must_use]
    pub fn shares(self) -> Arc<[Packed; 2]> {
        match self {
            Self::Drawn { streams, len, bits } => {
                Arc::new(streams.map(|mut stream| Packed::sample(&mut stream, len, bits)))
            }
            Self::Made(shares) => shares,
        }
    }
}
