//! A decoder, and the guarantees that it is checked for.

use peak_alloc::PeakAlloc;

/// Counts the memory that decoders allocate.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// A decoder, by the name of its fuzz target and of its corpus.
pub struct Decoder {
    /// The name.
    pub name: &'static str,
    /// Memory that it may allocate for an input of any length, bytes.
    pub(crate) fixed: usize,
    /// Memory that it may allocate for each byte of the input, bytes.
    pub(crate) each: usize,
    /// Decodes, and asserts the properties of accepted inputs.
    pub(crate) decode: fn(&[u8]) -> Result<(), String>,
}

impl Decoder {
    /// Decodes any `bytes`. One call at a time, because the memory of other threads is counted
    /// too.
    ///
    /// # Errors
    /// The decoder's own, if it refuses the bytes.
    ///
    /// # Panics
    /// If the decoder panics, exceeds its memory bound, or refuses without a reason.
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

    /// The memory bound for an input of so many bytes, bytes.
    #[must_use]
    pub fn allowed(&self, bytes: usize) -> usize {
        self.fixed + self.each * bytes
    }
}
