//! Every decoder of bytes from outside, and what must hold whatever the bytes are: it ends,
//! takes no more memory than was agreed, and says what is wrong.
//!
//! The fuzz targets beside this crate and its own test give bytes to the same [`Decoder`]s.
//! What comes from outside: what a peer sends, what whoever starts a party configures, what
//! players bring, and what others hand over to be read.

mod decode;
pub mod seeds;

pub use decode::{CONFIGURATION, FRAMES, GRAPH, IDX, RESULTS, TERMINATION, TRACEPARENT, WEIGHTS};
use peak_alloc::PeakAlloc;

/// The folder with a corpus for each decoder, by its name.
pub const CORPORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../corpus");

/// Counts what decoders take.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// A decoder, by the name of its fuzz target and of its corpus.
pub struct Decoder {
    /// The name.
    pub name: &'static str,
    /// What it takes before it has seen how much there is, bytes.
    fixed: usize,
    /// What it may take for each byte that it is given, bytes.
    each: usize,
    /// Decodes, and asserts what must hold of what it accepts.
    decode: fn(&[u8]) -> Result<(), String>,
}

/// All decoders.
pub const ALL: [Decoder; 8] =
    [FRAMES, CONFIGURATION, WEIGHTS, GRAPH, IDX, RESULTS, TERMINATION, TRACEPARENT];

/// The decoder of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Decoder> {
    ALL.iter().find(|decoder| decoder.name == name)
}

impl Decoder {
    /// Decodes `bytes`, which may be anything. One call at a time: what other threads take is
    /// counted too.
    ///
    /// # Errors
    /// The decoder's own, if it refuses them.
    ///
    /// # Panics
    /// If the decoder does, takes more memory than it may, or refuses without a reason.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        HEAP.reset_peak_usage();
        let before = HEAP.current_usage();
        let outcome = (self.decode)(bytes);
        let taken = HEAP.peak_usage().saturating_sub(before);
        let allowed = self.allowed(bytes.len());
        assert!(
            taken <= allowed,
            "{} took {taken} bytes of memory for {} bytes, at most {allowed} were expected",
            self.name,
            bytes.len()
        );
        if let Err(reason) = &outcome {
            assert!(!reason.trim().is_empty(), "{} refused without a reason", self.name);
        }
        outcome
    }

    /// Most memory that so many bytes may make it take, bytes.
    #[must_use]
    pub fn allowed(&self, bytes: usize) -> usize {
        self.fixed + self.each * bytes
    }
}
