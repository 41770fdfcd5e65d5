//! The text of a transcript. There is one way to write each: what is read and written again is
//! the same, byte for byte.

use std::fmt::{self, Write as _};

use spdz::channel::{Phase, Role, Tag};
use spdz::plan::Digest;
use spdz::prg::SessionId;

/// The largest transcript that is read, bytes: some two million messages.
pub const MAX_TRANSCRIPT_BYTES: u64 = 256 << 20;

const TITLE: &str = "secure-inference transcript 1";

/// What precedes a chain where it is signed.
const SIGNED: &[u8] = b"secure-inference transcript signature v1";

/// The chain over the lines of a transcript: each value is the digest of the one before and a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain(pub(super) [u8; 32]);

impl Chain {
    pub(super) fn new() -> Self {
        Self([0; 32])
    }

    pub(super) fn add(&mut self, line: &str) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(line.as_bytes());
        self.0 = *hasher.finalize().as_bytes();
    }

    /// What is signed.
    pub(super) fn signed(self) -> Vec<u8> {
        [SIGNED, &self.0].concat()
    }
}

/// Whether a message was sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Sent,
    Received,
}

/// A message of a transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) direction: Direction,
    pub(super) peer: Role,
    pub(super) tag: Tag,
    pub(super) length: u64,
    pub(super) digest: [u8; 32],
}

/// What a party says of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    pub(super) session: SessionId,
    pub(super) plan: Digest,
    pub(super) role: Role,
    /// DER.
    pub(super) certificate: Vec<u8>,
    /// Digests of the certificates that peers presented.
    pub(super) peers: Vec<(Role, [u8; 32])>,
    pub(super) messages: Vec<Entry>,
    pub(super) signature: Vec<u8>,
}

/// What is no transcript.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: expected {expected}")]
pub struct FormatError {
    line: usize,
    expected: &'static str,
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

fn unhex_exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    // A text of another length is not decoded.
    if text.len() == 2 * N { unhex(text)?.try_into().ok() } else { None }
}

/// The first lines: what is known when a session begins.
pub(super) fn head(
    session: SessionId,
    plan: Digest,
    role: Role,
    certificate: &[u8],
) -> [String; 5] {
    [
        TITLE.into(),
        format!("session {session}"),
        format!("plan {plan:x}"),
        format!("role {role}"),
        format!("certificate {}", Hex(certificate)),
    ]
}

/// The line of a peer, by the digest of its certificate.
pub(super) fn peer(role: Role, certificate: &[u8; 32]) -> String {
    format!("peer {role} {}", Hex(certificate))
}

/// The line of a message.
pub(super) fn message(entry: &Entry) -> String {
    let Entry { direction, peer, tag, length, digest } = entry;
    let direction = match direction {
        Direction::Sent => "sent",
        Direction::Received => "received",
    };
    let Tag { phase, inference, step } = tag;
    format!("{direction} {peer} {} {inference} {step} {length} {}", phase.name(), Hex(digest))
}

/// The last line.
pub(super) fn signature(signature: &[u8]) -> String {
    format!("signature {}", Hex(signature))
}

impl Transcript {
    /// Reads a transcript. Whether it is true is another matter ([`super::verify`]).
    ///
    /// # Errors
    /// If the text is none, with the line.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let body = text.strip_suffix('\n').ok_or(FormatError {
            line: text.lines().count(),
            expected: "a line's end at the end of the text",
        })?;
        let mut lines = (1..).zip(body.split('\n'));
        let mut line = |expected| lines.next().ok_or(FormatError { line: 0, expected });
        let (_, title) = line(TITLE)?;
        if title != TITLE {
            return Err(FormatError { line: 1, expected: TITLE });
        }
        let mut field = |key: &str, expected| {
            let (number, line) = line(expected)?;
            let value = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(' '));
            value.ok_or(FormatError { line: number, expected })
        };
        let wrong = |line, expected| FormatError { line, expected };
        let session = unhex_exactly(field("session", "`session` and 32 hexadecimal digits")?);
        let session = session.ok_or(wrong(2, "`session` and 32 hexadecimal digits"))?;
        let plan = unhex_exactly(field("plan", "`plan` and 64 hexadecimal digits")?);
        let plan = plan.ok_or(wrong(3, "`plan` and 64 hexadecimal digits"))?;
        let role = field("role", "`role` and a role")?.parse();
        let role = role.map_err(|_| wrong(4, "`role` and a role"))?;
        let certificate = unhex(field("certificate", "`certificate` in hexadecimal digits")?);
        let certificate = certificate.ok_or(wrong(5, "`certificate` in hexadecimal digits"))?;
        let mut found = Self {
            session: SessionId(session),
            plan: Digest(plan),
            role,
            certificate,
            peers: Vec::new(),
            messages: Vec::new(),
            signature: Vec::new(),
        };
        let mut ended = false;
        for (number, line) in lines {
            let refused = wrong(number, "a peer, a message or, at the end, the signature");
            if ended {
                return Err(refused);
            }
            let mut words = line.split(' ');
            match words.next() {
                Some("peer") if found.messages.is_empty() => {
                    found.peers.push(peer_of(words).ok_or(refused)?);
                }
                Some("sent") => found.messages.push(entry(Direction::Sent, words).ok_or(refused)?),
                Some("received") => {
                    found.messages.push(entry(Direction::Received, words).ok_or(refused)?);
                }
                Some("signature") => {
                    found.signature = words.next().and_then(unhex).ok_or(refused)?;
                    ended = true;
                }
                _ => return Err(refused),
            }
        }
        if !ended {
            return Err(wrong(
                text.lines().count(),
                "a signature: the party did not come to its end",
            ));
        }
        if found.to_string() != text {
            return Err(wrong(0, "numbers and digits as a party writes them"));
        }
        Ok(found)
    }

    /// The chain over all lines but the signature's.
    pub(super) fn chain(&self) -> Chain {
        let mut chain = Chain::new();
        self.lines().for_each(|line| chain.add(&line));
        chain
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let head = head(self.session, self.plan, self.role, &self.certificate);
        let peers = self.peers.iter().map(|(role, certificate)| peer(*role, certificate));
        head.into_iter().chain(peers).chain(self.messages.iter().map(message))
    }
}

/// As a party writes it.
impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            f.write_str(&line)?;
            f.write_char('\n')?;
        }
        writeln!(f, "{}", signature(&self.signature))
    }
}

fn peer_of<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(Role, [u8; 32])> {
    Some((words.next()?.parse().ok()?, unhex_exactly(words.next()?)?))
}

fn entry<'a>(direction: Direction, mut words: impl Iterator<Item = &'a str>) -> Option<Entry> {
    let peer = words.next()?.parse().ok()?;
    let phase = words.next()?;
    let phase = Phase::ALL.into_iter().find(|known| known.name() == phase)?;
    let (inference, step) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let length = words.next()?.parse().ok()?;
    let digest = unhex_exactly(words.next()?)?;
    Some(Entry { direction, peer, tag: Tag { phase, inference, step }, length, digest })
}
