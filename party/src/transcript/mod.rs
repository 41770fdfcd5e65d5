//! What a party sent and received in a session, signed with its certificate's key: for disputes
//! afterwards.
//!
//! A recorder writes a line for each message while the session runs, and at the end signs the
//! chain of all lines. [`verify()`] compares the transcripts of several parties. A message is in a
//! transcript by a keyed digest whose key the two ends of its connection have in common and
//! nobody else: a plain digest of a share would tell whoever has the other share whether a guess of the
//! output is right.

mod format;
mod record;
mod verify;

pub use format::{FormatError, MAX_TRANSCRIPT_BYTES, Transcript};
pub(crate) use record::{Recorder, Recording};
pub use verify::{Agreement, VerifyError, verify};

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text of a transcript, of bounded length.
///
/// # Errors
/// If it cannot be read, or is too long.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_TRANSCRIPT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TRANSCRIPT_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_TRANSCRIPT_BYTES} bytes")));
    }
    Ok(text)
}
