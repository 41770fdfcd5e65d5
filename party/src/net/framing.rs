//! Messages as frames: how long they are, how a message becomes chunks, and what a chunk has to
//! be to belong to the message that the plan expects.

use std::time::Instant;

use prost::Message as _;
use spdz::channel::{self, ChannelFault, PART_UNIT, Phase, Role, Tag};
use spdz::prg::SessionId;

use super::wire::Chunk;
use crate::config::MAX_CHUNK_BYTES;

/// Largest frame: a chunk of any size that a peer may be configured to send, and
/// room for its other fields; bytes.
pub(super) const MAX_FRAME: usize = MAX_CHUNK_BYTES + 1024;

/// Flow-control window of streams and connections, bytes: no sender waits for a
/// window update in the middle of an exchange of usual size.
pub(super) const WINDOW: u32 = 16 << 20;

/// Largest HTTP/2 frame, bytes.
pub(super) const HTTP2_FRAME: u32 = 1 << 20;

/// gRPC's prefix of a message, bytes.
const GRPC_PREFIX: usize = 5;

/// Most characters of a text from outside that are shown or passed on.
pub(super) const EXCERPT: usize = 400;

/// The beginning of a text from outside, fit for a log line: at most [`EXCERPT`] characters. What
/// is left out is left out from the end of a word on, and an ellipsis stands for it.
pub(super) fn excerpt(text: &str) -> String {
    let printable = || text.chars().filter(|c| !c.is_control());
    if printable().count() <= EXCERPT {
        return printable().collect();
    }
    let begun: String = printable().take(EXCERPT - 1).collect();
    // A text without words is cut where it is.
    let words = begun.rfind(' ').filter(|end| *end > begun.len() / 2);
    format!("{}…", begun[..words.unwrap_or(begun.len())].trim_end())
}

/// The bytes of the gRPC message that carries `chunk`.
pub(super) fn message_bytes(chunk: &Chunk) -> u64 {
    let length = chunk.encoded_len();
    (GRPC_PREFIX + prost::encoding::key_len(2) + prost::length_delimiter_len(length) + length)
        as u64
}

/// Keys and shares travel in chunks, so their data is not printed.
impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk(message {}, {} of {} bytes)", self.sequence, self.data.len(), self.length)
    }
}

/// A message that is sent while it is made.
pub(super) struct Making {
    /// Its chunks, without their data.
    pub(super) header: Chunk,
    /// Bytes that are still to be made.
    pub(super) left: usize,
    pub(super) ended: bool,
    /// When it must have been taken.
    pub(super) until: Instant,
}

/// A message that comes in chunks of any size, and is handed over in parts of whole units.
pub(super) struct Incoming {
    pub(super) length: usize,
    /// Bytes that have come.
    found: usize,
    pub(super) ended: bool,
    /// The beginning of a unit.
    unit: [u8; PART_UNIT],
    /// How much of it there is.
    begun: usize,
}

impl Incoming {
    pub(super) fn new(length: usize) -> Self {
        Self { length, found: 0, ended: false, unit: [0; PART_UNIT], begun: 0 }
    }

    /// The next chunk's data.
    pub(super) fn add(
        &mut self,
        peer: Role,
        mut data: &[u8],
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelFault> {
        self.found = self.found.saturating_add(data.len());
        // A chunk without data is a message without bytes: others would never end.
        if self.found > self.length || (data.is_empty() && self.length > 0) {
            return Err(ChannelFault::Length { peer, expected: self.length, found: self.found });
        }
        self.ended = self.found == self.length;
        if self.begun > 0 {
            let (more, rest) = data.split_at(data.len().min(PART_UNIT - self.begun));
            self.begin(more);
            data = rest;
            if self.begun == PART_UNIT || self.ended {
                take(&self.unit[..self.begun]);
                self.begun = 0;
            }
        }
        let whole = if self.ended { data.len() } else { data.len() / PART_UNIT * PART_UNIT };
        let (whole, rest) = data.split_at(whole);
        if !whole.is_empty() {
            take(whole);
        }
        self.begin(rest);
        Ok(())
    }

    fn begin(&mut self, bytes: &[u8]) {
        self.unit[self.begun..self.begun + bytes.len()].copy_from_slice(bytes);
        self.begun += bytes.len();
    }
}

pub(super) fn envelope(
    peer: Role,
    session: SessionId,
    sequence: u64,
    found: impl Into<String>,
) -> ChannelFault {
    let expected = format!("message {sequence} of session {session}");
    ChannelFault::Envelope { peer, expected, found: found.into() }
}

/// Whether a chunk from `peer` is part of message `sequence` of `session`, which
/// has `tag` and `length`; its phase if it is.
pub(super) fn admit(
    peer: Role,
    session: SessionId,
    sequence: u64,
    chunk: &Chunk,
    tag: Tag,
    length: usize,
) -> Result<Phase, ChannelFault> {
    let refuse = |found: String| Err(envelope(peer, session, sequence, found));
    if chunk.session != session.0[..] {
        return refuse("a message of another session".into());
    }
    if chunk.sequence != sequence {
        return refuse(format!("message {}", chunk.sequence));
    }
    let Some(&phase) = usize::try_from(chunk.phase).ok().and_then(|p| Phase::ALL.get(p)) else {
        return refuse(format!("a message of phase {}", chunk.phase));
    };
    let found = Tag::new(phase, chunk.inference, chunk.step);
    let found_length = usize::try_from(chunk.length).unwrap_or(usize::MAX);
    channel::check(peer, tag, length, found, found_length).map_err(|error| error.fault)?;
    Ok(phase)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::wire;
    use bytes::Bytes;

    const SESSION: SessionId = SessionId([7; 16]);

    #[test]
    fn a_long_text_is_cut_between_words_and_says_so() {
        assert_eq!(excerpt("its log\n says\twhy"), "its log sayswhy");
        let words = "größer ".repeat(EXCERPT);
        let cut = excerpt(&words);
        assert!(cut.ends_with("größer…") && cut.chars().count() <= EXCERPT, "{cut}");
        assert!(cut.chars().count() > EXCERPT - 8, "{cut}");
        let exact = "x".repeat(EXCERPT);
        assert_eq!(excerpt(&exact), exact);
        let cut = excerpt(&"x".repeat(EXCERPT + 1));
        assert_eq!(cut, format!("{}…", "x".repeat(EXCERPT - 1)), "one word of all");
        // What was cut is passed on, and cut again.
        let passed = excerpt(&format!("server0 gave up: {}", excerpt(&words)));
        assert!(passed.ends_with("größer…") && passed.chars().count() <= EXCERPT, "{passed}");
    }

    #[test]
    fn the_page_says_how_long_a_reason_may_be() {
        let page = include_str!("../../../docs/wire.md");
        assert!(page.contains(&format!("at most {EXCERPT} characters")));
    }

    fn chunk() -> Chunk {
        Chunk {
            session: Bytes::copy_from_slice(&SESSION.0),
            phase: wire::Phase::Online as i32,
            inference: 3,
            step: 5,
            sequence: 11,
            length: 80,
            data: Bytes::from_static(&[0; 80]),
        }
    }

    #[test]
    fn a_chunk_must_be_of_the_next_message() {
        let tag = Tag::new(Phase::Online, 3, 5);
        let admit = |chunk: &Chunk| admit(Role::Producer, SESSION, 11, chunk, tag, 80);
        assert_eq!(admit(&chunk()), Ok(Phase::Online));
        let mut other_session = SESSION.0.to_vec();
        other_session[15] ^= 1;
        let cases = [
            (Chunk { session: other_session.into(), ..chunk() }, "another session"),
            (Chunk { session: Bytes::new(), ..chunk() }, "another session"),
            (Chunk { sequence: 10, ..chunk() }, "message 10, expected message 11"),
            (Chunk { sequence: 12, ..chunk() }, "message 12, expected message 11"),
            (Chunk { phase: 9, ..chunk() }, "phase 9"),
            (Chunk { phase: -1, ..chunk() }, "phase -1"),
            (Chunk { phase: wire::Phase::Offline as i32, ..chunk() }, "offline step 5"),
            (Chunk { inference: 4, ..chunk() }, "online step 5 of inference 4"),
            (Chunk { step: 6, ..chunk() }, "online step 6 of inference 3"),
            (Chunk { length: 81, ..chunk() }, "sent 81 bytes, expected 80"),
            (Chunk { length: u64::MAX, ..chunk() }, "expected 80"),
        ];
        for (chunk, expected) in cases {
            let message = admit(&chunk).unwrap_err().to_string();
            assert!(
                message.starts_with("producer sent") && message.contains(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn chunks_of_any_size_become_parts_of_whole_units() {
        let message: Vec<u8> = (0..203u8).collect();
        for sizes in [&[1][..], &[7, 9], &[8], &[64, 3], &[3, 5, 1, 16], &[300]] {
            let mut incoming = Incoming::new(message.len());
            let (mut rest, mut found, mut parts) = (&message[..], Vec::new(), Vec::new());
            for size in sizes.iter().cycle() {
                let (chunk, later) = rest.split_at(rest.len().min(*size));
                let mut take = |part: &[u8]| {
                    parts.push(part.len());
                    found.extend_from_slice(part);
                };
                incoming.add(Role::Producer, chunk, &mut take).unwrap();
                rest = later;
                assert_eq!(incoming.ended, rest.is_empty());
                if incoming.ended {
                    break;
                }
            }
            assert_eq!(found, message, "{sizes:?}");
            parts.pop();
            assert!(parts.iter().all(|part| part % PART_UNIT == 0), "{sizes:?}: {parts:?}");
        }
    }

    #[test]
    fn a_message_has_the_agreed_length_and_no_empty_chunks() {
        let mut message = Incoming::new(10);
        let mut add = |data: &[u8]| message.add(Role::Producer, data, &mut |_| ());
        let length =
            |found| Err(ChannelFault::Length { peer: Role::Producer, expected: 10, found });
        assert_eq!(add(&[0; 4]), Ok(()));
        assert_eq!(add(&[]), length(4));
        assert_eq!(add(&[0; 7]), length(11));
        let mut nothing = Incoming::new(0);
        assert_eq!(nothing.add(Role::Producer, &[], &mut |_| ()), Ok(()));
        assert!(nothing.ended);
    }
}
