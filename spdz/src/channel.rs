//! What a role needs of a connection to a peer, and an in-memory one for tests.
//!
//! Messages are addressed by what they mean ([`Tag`]), not by the order in which
//! they happen to arrive: a message that carries another tag or another length
//! than the receiver's plan says is an error, never garbage.

use std::fmt;
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;

use crate::buffer::Buffer;
use serde::{Deserialize, Serialize};

/// Largest length of a [`Name`], bytes.
pub const MAX_NAME_BYTES: usize = 31;

/// The name of a player: lower-case letters, digits and inner hyphens, as in a DNS
/// label, a letter first, at most [`MAX_NAME_BYTES`] of them, and not the name of another role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name {
    /// Zeros after the name.
    bytes: [u8; MAX_NAME_BYTES],
    length: u8,
}

/// A text that is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no player's name; expected 1 to {MAX_NAME_BYTES} lower-case letters, digits and inner hyphens, a letter first, and not server0, server1 or producer"
)]
pub struct NameError(String);

impl Name {
    /// What the paper's networks call the player that knows the weights.
    pub const MODEL_OWNER: Self = Self::literal("model-owner");
    /// What the paper's networks call the player that knows the images and learns the logits.
    pub const CLIENT: Self = Self::literal("client");

    const fn literal(text: &str) -> Self {
        let mut bytes = [0; MAX_NAME_BYTES];
        let mut index = 0;
        while index < text.len() {
            bytes[index] = text.as_bytes()[index];
            index += 1;
        }
        Self { bytes, length: text.len() as u8 }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only made from ASCII text.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let valid = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.bytes().all(inner)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
            && !["server0", "server1", "producer"].contains(&text);
        if !valid {
            return Err(NameError(text.chars().take(2 * MAX_NAME_BYTES).collect()));
        }
        Ok(Self::literal(text))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The roles of a run: two servers, the producer, and any number of players.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Role {
    /// The first of the two servers that compute on shares.
    Server0,
    /// The second of the two servers that compute on shares.
    Server1,
    /// Makes the correlated randomness; sees shapes only.
    Producer,
    /// Brings inputs, learns outputs, or both.
    Player(Name),
}

impl Role {
    /// The player of the paper's networks that knows the weights.
    pub const MODEL_OWNER: Self = Self::Player(Name::MODEL_OWNER);
    /// The player of the paper's networks that knows the images and learns the logits.
    pub const CLIENT: Self = Self::Player(Name::CLIENT);

    /// The name in configuration, certificates and messages, for example `model-owner`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Server0 => "server0",
            Self::Server1 => "server1",
            Self::Producer => "producer",
            Self::Player(name) => name.as_str(),
        }
    }

    /// Whether it is one of the two servers.
    #[must_use]
    pub fn is_server(self) -> bool {
        matches!(self, Self::Server0 | Self::Server1)
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "server0" => Ok(Self::Server0),
            "server1" => Ok(Self::Server1),
            "producer" => Ok(Self::Producer),
            _ => text.parse().map(Self::Player),
        }
    }
}

impl TryFrom<String> for Role {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.name().into()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The part of a run that a message belongs to; traffic is counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Once a session: keys and the masked model.
    Setup = 0,
    /// What an inference needs before its input is there.
    Offline = 1,
    /// From the masked input to the output.
    Online = 2,
    /// What to do next, and the report at the end.
    Control = 3,
}

impl Phase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Setup, Self::Offline, Self::Online, Self::Control];

    /// The name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Control => "control",
        }
    }
}

/// Which message of a run: every message has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The part of the run.
    pub phase: Phase,
    /// Number of the inference, counted from 0; 0 in the set-up.
    pub inference: u64,
    /// Place in the plan (offline, online), or which of the phase's messages.
    pub step: u32,
}

impl Tag {
    /// The tag of message `step` of `phase` in an inference.
    #[must_use]
    pub fn new(phase: Phase, inference: u64, step: u32) -> Self {
        Self { phase, inference, step }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Setup => write!(f, "setup step {}", self.step),
            phase => {
                write!(f, "{} step {} of inference {}", phase.name(), self.step, self.inference)
            }
        }
    }
}

/// What went wrong on the way to or from a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelFault {
    /// The connection ended.
    #[error("{peer} is gone ({reason})")]
    Lost {
        /// The peer.
        peer: Role,
        /// What the transport says.
        reason: String,
    },
    /// Nothing came in time.
    #[error("{peer} sent nothing for {}", seconds(.waited))]
    Deadline {
        /// The peer.
        peer: Role,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Nothing that was sent was taken in time.
    #[error("{peer} took nothing for {}", seconds(.waited))]
    Unread {
        /// The peer.
        peer: Role,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The peer gave up and says why.
    #[error("{peer} gave up: {reason}")]
    Aborted {
        /// The peer.
        peer: Role,
        /// Whether it found that the parties do not agree, which no retry mends.
        disagreement: bool,
        /// Its reason.
        reason: String,
    },
    /// A message that is not the next one of the plan.
    #[error("{peer} sent the message of {found}, expected that of {expected}")]
    Tag {
        /// The peer.
        peer: Role,
        /// The message that the plan says.
        expected: Tag,
        /// The message that came.
        found: Tag,
    },
    /// A message of the wrong length.
    #[error("{peer} sent {found} bytes, expected {expected}")]
    Length {
        /// The peer.
        peer: Role,
        /// The length that the plan says, bytes.
        expected: usize,
        /// The length that came or was announced, bytes.
        found: usize,
    },
    /// A message whose padding is not zero.
    #[error("{peer} sent bits that belong to no value; its padding has to be zero")]
    Padding {
        /// The peer.
        peer: Role,
    },
    /// A message that belongs to another session, or out of its order.
    #[error("{peer} sent {found}, expected {expected}")]
    Envelope {
        /// The peer.
        peer: Role,
        /// What the session says.
        expected: String,
        /// What came.
        found: String,
    },
    /// Nothing is sent or awaited any more: this party was told to stop.
    #[error("told to stop")]
    Stopped,
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// A fault and the message that was being sent or awaited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tag}: {fault}")]
pub struct ChannelError {
    /// The message.
    pub tag: Tag,
    /// What went wrong.
    pub fault: ChannelFault,
}

/// A connection to one peer that delivers whole messages in order.
pub trait Channel {
    /// Hands `message` over for delivery. It may be under way when this returns,
    /// and is by the time the next `recv` waits.
    ///
    /// # Errors
    /// If the peer is gone.
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError>;

    /// Waits for the next message, which must carry `tag` and be `length` bytes long.
    ///
    /// # Errors
    /// If the peer is gone, silent beyond the deadline, or sends anything else.
    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError>;

    /// As [`Channel::recv`], but hands over the message's bytes part by part, in their order
    /// and while they are in cache. All parts but the last have whole [`PART_UNIT`]s.
    ///
    /// # Errors
    /// As those of [`Channel::recv`]; parts may have been handed over before.
    fn recv_parts(
        &mut self,
        tag: Tag,
        length: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelError> {
        take(&self.recv(tag, length)?);
        Ok(())
    }

    /// As [`Channel::send`], but has the `length` bytes of the message made part by part, in
    /// their order, and sends each while it is in cache. All parts but the last have whole
    /// [`PART_UNIT`]s.
    ///
    /// # Errors
    /// As those of [`Channel::send`].
    fn send_parts(
        &mut self,
        tag: Tag,
        length: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelError> {
        let mut message = Buffer::zeros(length);
        make(&mut message);
        self.send(tag, message.into_bytes())
    }

    /// Sends a message of `length` bytes and waits for the peer's, which must have the same
    /// tag and length. Both go part by part: one may arrive while the other is still made.
    ///
    /// # Errors
    /// As those of [`Channel::send`] and [`Channel::recv`].
    fn exchange(
        &mut self,
        tag: Tag,
        length: usize,
        parts: &mut dyn Parts,
    ) -> Result<(), ChannelError> {
        self.send_parts(tag, length, &mut |part| parts.make(part))?;
        self.recv_parts(tag, length, &mut |part| parts.take(part))
    }
}

/// Parts of messages have whole units of so many bytes, except the last: no word of a tensor
/// is in two parts.
pub const PART_UNIT: usize = 8;

/// The two messages of an exchange, part by part. Each is made, or taken, from its beginning
/// to its end; how far one is has nothing to do with how far the other is.
pub trait Parts {
    /// Writes the next bytes of the message to send.
    fn make(&mut self, part: &mut [u8]);
    /// Reads the next bytes of the message that comes.
    fn take(&mut self, part: &[u8]);
}

impl<C: Channel + ?Sized> Channel for &mut C {
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError> {
        (**self).send(tag, message)
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        (**self).recv(tag, length)
    }

    fn recv_parts(
        &mut self,
        tag: Tag,
        length: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelError> {
        (**self).recv_parts(tag, length, take)
    }

    fn send_parts(
        &mut self,
        tag: Tag,
        length: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelError> {
        (**self).send_parts(tag, length, make)
    }

    fn exchange(
        &mut self,
        tag: Tag,
        length: usize,
        parts: &mut dyn Parts,
    ) -> Result<(), ChannelError> {
        (**self).exchange(tag, length, parts)
    }
}

/// One end of an in-memory connection.
#[derive(Debug)]
pub struct MemoryChannel {
    peer: Role,
    deadline: Duration,
    outgoing: mpsc::Sender<(Tag, Bytes)>,
    incoming: mpsc::Receiver<(Tag, Bytes)>,
}

/// Two connected ends, the first for `x`, the second for `y`. A `recv` waits no
/// longer than `deadline`.
#[must_use]
pub fn memory_pair(x: Role, y: Role, deadline: Duration) -> (MemoryChannel, MemoryChannel) {
    let (to_y, from_x) = mpsc::channel();
    let (to_x, from_y) = mpsc::channel();
    let end = |peer, outgoing, incoming| MemoryChannel { peer, deadline, outgoing, incoming };
    (end(y, to_y, from_y), end(x, to_x, from_x))
}

impl Channel for MemoryChannel {
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError> {
        self.outgoing.send((tag, message)).map_err(|_| self.lost(tag))
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        let peer = self.peer;
        let (found, message) =
            self.incoming.recv_timeout(self.deadline).map_err(|error| match error {
                mpsc::RecvTimeoutError::Disconnected => self.lost(tag),
                mpsc::RecvTimeoutError::Timeout => ChannelError {
                    tag,
                    fault: ChannelFault::Deadline { peer, waited: self.deadline },
                },
            })?;
        check(peer, tag, length, found, message.len())?;
        Ok(message)
    }
}

impl MemoryChannel {
    fn lost(&self, tag: Tag) -> ChannelError {
        let reason = "the other end was dropped".into();
        ChannelError { tag, fault: ChannelFault::Lost { peer: self.peer, reason } }
    }
}

/// Checks that a message is the one that the plan says; for implementations of [`Channel`].
///
/// # Errors
/// If its tag or its length is another one.
pub fn check(
    peer: Role,
    tag: Tag,
    length: usize,
    found: Tag,
    found_length: usize,
) -> Result<(), ChannelError> {
    let fault = if found != tag {
        ChannelFault::Tag { peer, expected: tag, found }
    } else if found_length != length {
        ChannelFault::Length { peer, expected: length, found: found_length }
    } else {
        return Ok(());
    };
    Err(ChannelError { tag, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_the_expected_one_is_refused() {
        let step = |step| Tag::new(Phase::Online, 3, step);
        let (mut x, mut y) = memory_pair(Role::Server0, Role::Server1, Duration::from_millis(20));
        x.send(step(1), Bytes::from_static(b"four")).unwrap();
        let wrong_tag = y.recv(step(2), 4).unwrap_err().to_string();
        assert_eq!(
            wrong_tag,
            "online step 2 of inference 3: server0 sent the message of online step 1 of inference 3, \
             expected that of online step 2 of inference 3"
        );
        x.send(step(2), Bytes::from_static(b"four")).unwrap();
        let wrong_length = y.recv(step(2), 5).unwrap_err().to_string();
        assert!(wrong_length.contains("sent 4 bytes, expected 5"), "{wrong_length}");
        let silent = y.recv(step(3), 1).unwrap_err().to_string();
        assert!(silent.contains("server0 sent nothing for 0.02 s"), "{silent}");
        drop(x);
        let lost = y.recv(step(3), 1).unwrap_err().to_string();
        assert!(lost.contains("server0 is gone"), "{lost}");
    }
}
