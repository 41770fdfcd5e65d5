//! Connections between parties: gRPC streams over mutual TLS 1.3, as [`Channel`]s.
//!
//! The protocol is blocking code on one thread, and that thread owns a
//! current-thread runtime, which it drives only while it sends or waits. So a
//! message wakes no other thread on its way, and a short wait never sleeps: the
//! two cost more than the rest of a small exchange together.
//!
//! Nothing drives the connections between calls. A message that was handed over
//! is written before `send` returns, as far as the socket takes it; what is left
//! goes out during the next wait. What may be left is bounded, so a peer that
//! asks and does not listen makes `send` wait, and then fail.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use spdz::buffer::Buffer;
use spdz::channel::{
    self, Channel, ChannelError, ChannelFault, Name, PART_UNIT, Parts, Phase, Role, Tag,
};
use spdz::plan::{Digest, Plan};
use spdz::prg::SessionId;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use crate::config::{ConfigError, MAX_CHUNK_BYTES, PartyConfig, Transport};
use crate::identity::{Credentials, IdentityError};
use crate::stop::Stop;

mod accept;
mod dial;
#[cfg(feature = "decoders")]
pub(crate) mod replay;
mod shape;

/// The generated types of the wire format.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire {
    tonic::include_proto!("secureinference.party.v1");
}

use shape::Shaping;
use wire::frame::Content;
use wire::{Abort, Chunk, Frame, Hello};

/// The version of the wire format and the protocol.
pub const PROTOCOL_VERSION: u32 = 3;

/// Largest frame: a chunk of any size that a peer may be configured to send, and
/// room for its other fields; bytes.
const MAX_FRAME: usize = MAX_CHUNK_BYTES + 1024;

/// Flow-control window of streams and connections, bytes: no sender waits for a
/// window update in the middle of an exchange of usual size.
const WINDOW: u32 = 16 << 20;

/// Largest HTTP/2 frame, bytes.
const HTTP2_FRAME: u32 = 1 << 20;

/// Why parties could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration does not say what is needed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This party's own identity is wrong.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The runtime could not start.
    #[error("cannot start the network runtime: {0}")]
    Runtime(std::io::Error),
    /// The port is taken or not ours.
    #[error("cannot listen on {address}: {source}; choose another address in `listen`")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A peer did not come, or could not be reached.
    #[error("{peer} did not connect within {} s: {detail}", .waited.as_secs_f64())]
    Absent {
        /// The peer.
        peer: Role,
        /// How long it was waited for.
        waited: Duration,
        /// What was seen of it.
        detail: String,
    },
    /// A peer refused this party, or is not who it should be.
    #[error("{peer} and this party do not accept each other: {reason}")]
    Refused {
        /// The peer.
        peer: Role,
        /// Why.
        reason: String,
    },
    /// The two do not agree on what to do.
    #[error(
        "{peer} has another {what}: {theirs}, here {ours}; give all parties the same configuration"
    )]
    Mismatch {
        /// The peer.
        peer: Role,
        /// What differs.
        what: &'static str,
        /// The peer's.
        theirs: String,
        /// This party's.
        ours: String,
    },
    /// The connection failed while the two were introducing themselves.
    #[error("while {peer} and this party introduced themselves: {fault}")]
    Handshake {
        /// The peer.
        peer: Role,
        /// What went wrong.
        fault: ChannelFault,
    },
    /// This party was told to stop before all peers were there.
    #[error("told to stop while connecting to the peers")]
    Stopped,
}

/// How long to listen for a peer's own account of a failure, after the deadline
/// for its message: whoever waits for the one to blame gives up at about the
/// same time.
const LINGER: Duration = Duration::from_millis(300);

/// gRPC's prefix of a message, bytes.
const GRPC_PREFIX: usize = 5;

/// Bytes and messages of one connection, by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of the gRPC messages sent, before HTTP/2 and TLS.
    pub sent_bytes: [u64; Phase::ALL.len()],
    /// Bytes of the gRPC messages received.
    pub received_bytes: [u64; Phase::ALL.len()],
    /// Whole messages received.
    pub received_messages: [u64; Phase::ALL.len()],
}

/// [`Traffic`] as it is counted: by the link's thread alone, while others look.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent_bytes: [AtomicU64; Phase::ALL.len()],
    received_bytes: [AtomicU64; Phase::ALL.len()],
    received_messages: [AtomicU64; Phase::ALL.len()],
}

impl Counters {
    pub(crate) fn read(&self) -> Traffic {
        let read = |counters: &[AtomicU64; Phase::ALL.len()]| {
            counters.each_ref().map(|counter| counter.load(Ordering::Relaxed))
        };
        Traffic {
            sent_bytes: read(&self.sent_bytes),
            received_bytes: read(&self.received_bytes),
            received_messages: read(&self.received_messages),
        }
    }
}

/// Counts what only this thread counts.
fn count(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// What this party says of itself and expects of its peers.
struct Introduction {
    session: SessionId,
    role: Role,
    plan: Digest,
    summary: String,
}

impl Introduction {
    fn new(config: &PartyConfig, plan: &Plan) -> Self {
        let (name, format, truncation) = (plan.graph().name(), plan.format(), plan.truncation());
        let what = match &config.computation.network {
            Some(_) => format!("network {name}, batch {}", config.computation.batch()),
            None => format!("graph {name}"),
        };
        let summary = format!("{what}, {format}, {truncation} truncation");
        Self { session: config.session.0, role: config.role, plan: plan.digest(), summary }
    }

    fn hello(&self) -> Frame {
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            session: Bytes::copy_from_slice(&self.session.0),
            role: self.role.name().into(),
            plan_digest: Bytes::copy_from_slice(&self.plan.0),
            plan_summary: self.summary.clone(),
        };
        Frame { content: Some(Content::Hello(hello)) }
    }

    /// Whether a peer that says `hello` may go on.
    fn check(&self, peer: Role, hello: &Hello) -> Result<(), ConnectError> {
        let hex = |bytes: &[u8]| -> String {
            bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
        };
        let mismatch = |what, theirs: String, ours: String| {
            Err(ConnectError::Mismatch { peer, what, theirs, ours })
        };
        if hello.protocol_version != PROTOCOL_VERSION {
            let theirs = hello.protocol_version.to_string();
            return mismatch("protocol version", theirs, PROTOCOL_VERSION.to_string());
        }
        if hello.role != peer.name() {
            let theirs = excerpt(&hello.role);
            return mismatch("role than its certificate", theirs, peer.name().into());
        }
        if hello.session != self.session.0[..] {
            return mismatch("session", hex(&hello.session), self.session.to_string());
        }
        if hello.plan_digest != self.plan.0[..] {
            let theirs = format!("{} ({})", excerpt(&hello.plan_summary), hex(&hello.plan_digest));
            let ours = format!("{} ({})", self.summary, hex(&self.plan.0));
            return mismatch("plan", theirs, ours);
        }
        Ok(())
    }
}

/// The beginning of a text from outside, fit for a log line.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The bytes of the gRPC message that carries `chunk`.
fn message_bytes(chunk: &Chunk) -> u64 {
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

/// Where frames to a peer go: a request's or a response's stream.
enum Outgoing {
    Request(mpsc::Sender<Frame>),
    Response(mpsc::Sender<Result<Frame, Status>>),
}

/// Why a frame was not taken.
enum Unsent {
    Closed,
    Late,
}

impl Outgoing {
    /// Queues a frame; waits for room until `until`.
    async fn send(&self, frame: Frame, until: Instant) -> Result<(), Unsent> {
        let sent = async {
            match self {
                Self::Request(sender) => sender.send(frame).await.is_ok(),
                Self::Response(sender) => sender.send(Ok(frame)).await.is_ok(),
            }
        };
        match tokio::time::timeout_at(until.into(), sent).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Unsent::Closed),
            Err(_) => Err(Unsent::Late),
        }
    }
}

/// A connection to one peer.
pub struct Link {
    peer: Role,
    session: SessionId,
    runtime: Rc<Runtime>,
    outgoing: Option<Outgoing>,
    incoming: Streaming<Frame>,
    sent: u64,
    received: u64,
    transport: Transport,
    deadline: Duration,
    counters: Arc<Counters>,
    /// The peer has ended its side in good order.
    ended: bool,
    stop: Stop,
    /// Below the runtime, with which the connections end: what they sent is still on its way.
    _shaping: Option<Arc<Shaping>>,
}

impl Link {
    /// The peer at the other end.
    #[must_use]
    pub fn peer(&self) -> Role {
        self.peer
    }

    /// What went over it so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.counters.read()
    }

    /// What goes over it, as it goes.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Tells the peer that this party gives up, and why; `reason` must be nothing private.
    pub fn abort(&mut self, reason: &str, disagreement: bool) {
        let abort = Abort { reason: reason.into(), disagreement };
        if let Some(outgoing) = &self.outgoing {
            let frame = Frame { content: Some(Content::Abort(abort)) };
            let until = Instant::now() + Duration::from_millis(100);
            // The peer may be gone; it will notice.
            let _ = self.runtime.block_on(outgoing.send(frame, until));
        }
    }

    /// Ends this side of the connection and waits until the peer has ended its
    /// own, so that everything that was sent has arrived; at most `patience`.
    ///
    /// # Errors
    /// If the peer did not, or ended otherwise than in good order.
    pub fn close(mut self, patience: Duration) -> Result<(), ChannelFault> {
        self.outgoing = None;
        let runtime = self.runtime.clone();
        self.deadline = patience;
        // The end is what a party does when it is told to stop.
        self.stop = Stop::default();
        match runtime.block_on(self.next(Instant::now() + patience)) {
            Err(ChannelFault::Lost { .. }) if self.ended => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => Err(self.envelope("another message")),
        }
    }

    /// Takes and forgets what is still on its way from the peer, until the peer has ended
    /// its side: to leave before would tear down the connection, and with it what this
    /// party sent last.
    fn drain(mut self, until: Instant) {
        let runtime = self.runtime.clone();
        self.stop = Stop::default();
        let more = |content| matches!(content, Ok(_) | Err(ChannelFault::Aborted { .. }));
        while Instant::now() < until && more(runtime.block_on(self.next(until))) {}
    }

    fn lost(&self, reason: impl Into<String>) -> ChannelFault {
        ChannelFault::Lost { peer: self.peer, reason: reason.into() }
    }

    /// The next frame's content, at the latest at `until`.
    async fn next(&mut self, until: Instant) -> Result<Content, ChannelFault> {
        let spin_until = Instant::now() + Duration::from_micros(self.transport.spin_micros);
        if self.stop.signal().is_some() {
            return Err(ChannelFault::Stopped);
        }
        let frame = loop {
            if let Poll::Ready(frame) = self.arrived().await {
                break frame;
            }
            if Instant::now() >= spin_until {
                let incoming = &mut self.incoming;
                let waiting =
                    std::future::poll_fn(|context| Pin::new(&mut *incoming).poll_next(context));
                tokio::select! {
                    biased;
                    frame = tokio::time::timeout_at(until.into(), waiting) => match frame {
                        Ok(frame) => break frame,
                        Err(_) => {
                            let waited = self.deadline;
                            return Err(ChannelFault::Deadline { peer: self.peer, waited });
                        }
                    },
                    () = self.stop.requested() => return Err(ChannelFault::Stopped),
                }
            }
            // Let other parties on this machine work, then look at the sockets again.
            std::thread::yield_now();
            tokio::task::yield_now().await;
        };
        self.content(frame)
    }

    /// The next frame, if it is there.
    async fn arrived(&mut self) -> Poll<Option<Result<Frame, Status>>> {
        let incoming = &mut self.incoming;
        std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *incoming).poll_next(context)))
            .await
    }

    /// What a frame holds, or what its absence means.
    fn content(&mut self, frame: Option<Result<Frame, Status>>) -> Result<Content, ChannelFault> {
        match frame {
            None => {
                self.ended = true;
                Err(self.lost("it ended the connection"))
            }
            // Too long, no protobuf, or compressed: tonic says so with these.
            Some(Err(status))
                if status.code() == Code::OutOfRange
                    || status.message().starts_with("failed to decode")
                    || status.message().starts_with("protocol error: received message") =>
            {
                Err(self.envelope(format!("what is no frame: {}", excerpt(status.message()))))
            }
            Some(Err(status)) => Err(self.lost(excerpt(status.message()))),
            Some(Ok(Frame { content: None })) => Err(self.envelope("a frame without content")),
            Some(Ok(Frame { content: Some(Content::Abort(abort)) })) => {
                let Abort { reason, disagreement } = abort;
                let reason = excerpt(&reason);
                Err(ChannelFault::Aborted { peer: self.peer, disagreement, reason })
            }
            Some(Ok(Frame { content: Some(content) })) => Ok(content),
        }
    }

    fn envelope(&self, found: impl Into<String>) -> ChannelFault {
        envelope(self.peer, self.session, self.received, found)
    }

    /// The data of a chunk of the message with `tag`, checked.
    fn chunk(&self, content: Content, tag: Tag, length: usize) -> Result<Bytes, ChannelFault> {
        let Content::Chunk(chunk) = content else {
            return Err(self.envelope("a second introduction"));
        };
        let phase = admit(self.peer, self.session, self.received, &chunk, tag, length)?;
        count(&self.counters.received_bytes[phase as usize], message_bytes(&chunk));
        Ok(chunk.data)
    }

    /// Waits for all that is missing of a message.
    async fn rest(
        &mut self,
        mut message: Incoming,
        tag: Tag,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelFault> {
        let until = Instant::now() + self.deadline;
        while !message.ended {
            let content = match self.next(until).await {
                // Perhaps the peer waits for another, and is about to say so.
                Err(fault @ ChannelFault::Deadline { .. }) => {
                    return Err(self.account().await.unwrap_or(fault));
                }
                content => content?,
            };
            let data = self.chunk(content, tag, message.length)?;
            message.add(self.peer, &data, take)?;
        }
        self.received += 1;
        count(&self.counters.received_messages[tag.phase as usize], 1);
        Ok(())
    }

    /// Takes what is there of a message, without waiting for more.
    async fn arrivals(
        &mut self,
        message: &mut Incoming,
        tag: Tag,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelFault> {
        while !message.ended
            && let Poll::Ready(frame) = self.arrived().await
        {
            let content = self.content(frame)?;
            let data = self.chunk(content, tag, message.length)?;
            message.add(self.peer, &data, take)?;
        }
        Ok(())
    }

    /// The chunks of the next message to send, without their data.
    fn header(&mut self, tag: Tag, length: usize) -> Chunk {
        let sequence = self.sent;
        self.sent += 1;
        Chunk {
            session: Bytes::copy_from_slice(&self.session.0),
            phase: tag.phase as i32,
            inference: tag.inference,
            step: tag.step,
            sequence,
            length: length as u64,
            data: Bytes::new(),
        }
    }

    /// A message of which nothing has been made yet.
    fn making(&mut self, tag: Tag, length: usize) -> Making {
        let until = Instant::now() + self.deadline;
        Making { header: self.header(tag, length), left: length, ended: false, until }
    }

    /// Makes the next part of a message and sends it.
    async fn send_part(
        &mut self,
        message: &mut Making,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelFault> {
        let largest = self.transport.chunk_bytes / PART_UNIT * PART_UNIT;
        let mut data = Buffer::zeros(largest.min(message.left));
        make(&mut data);
        message.left -= data.len();
        message.ended = message.left == 0;
        let chunk = Chunk { data: data.into_bytes(), ..message.header.clone() };
        self.send_chunk(chunk, message.until).await?;
        // The connection's task only runs when this thread lets it: now, while the part is
        // in cache.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Queues a chunk; waits for room until `until`.
    async fn send_chunk(&mut self, chunk: Chunk, until: Instant) -> Result<(), ChannelFault> {
        if let Some(counter) = self.counters.sent_bytes.get(chunk.phase as usize) {
            count(counter, message_bytes(&chunk));
        }
        self.enqueue(Frame { content: Some(Content::Chunk(chunk)) }, until).await
    }

    async fn enqueue(&mut self, frame: Frame, until: Instant) -> Result<(), ChannelFault> {
        let Some(outgoing) = &self.outgoing else {
            return Err(self.lost("the connection is closed"));
        };
        if self.stop.signal().is_some() {
            return Err(ChannelFault::Stopped);
        }
        let sent = tokio::select! {
            biased;
            sent = outgoing.send(frame, until) => sent,
            () = self.stop.requested() => return Err(ChannelFault::Stopped),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(Unsent::Late) => {
                let waited = self.deadline;
                Err(ChannelFault::Unread { peer: self.peer, waited })
            }
            // The stream's end says more than the failure to write to it.
            Err(Unsent::Closed) => {
                Err(self.account().await.unwrap_or_else(|| self.lost("the connection is closed")))
            }
        }
    }

    /// What the peer says of its end, if it says it soon.
    async fn account(&mut self) -> Option<ChannelFault> {
        match self.next(Instant::now() + LINGER).await {
            Err(ChannelFault::Deadline { .. }) | Ok(_) => None,
            Err(fault) => Some(fault),
        }
    }
}

/// A message that is sent while it is made.
struct Making {
    /// Its chunks, without their data.
    header: Chunk,
    /// Bytes that are still to be made.
    left: usize,
    ended: bool,
    /// When it must have been taken.
    until: Instant,
}

/// A message that comes in chunks of any size, and is handed over in parts of whole units.
struct Incoming {
    length: usize,
    /// Bytes that have come.
    found: usize,
    ended: bool,
    /// The beginning of a unit.
    unit: [u8; PART_UNIT],
    /// How much of it there is.
    begun: usize,
}

impl Incoming {
    fn new(length: usize) -> Self {
        Self { length, found: 0, ended: false, unit: [0; PART_UNIT], begun: 0 }
    }

    /// The next chunk's data.
    fn add(
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

impl Channel for Link {
    fn send(&mut self, tag: Tag, mut message: Bytes) -> Result<(), ChannelError> {
        let header = self.header(tag, message.len());
        let until = Instant::now() + self.deadline;
        let runtime = self.runtime.clone();
        let sending = async {
            loop {
                let data = message.split_to(message.len().min(self.transport.chunk_bytes));
                self.send_chunk(Chunk { data, ..header.clone() }, until).await?;
                if message.is_empty() {
                    break;
                }
            }
            // The connection's task only runs when this thread lets it.
            tokio::task::yield_now().await;
            Ok(())
        };
        runtime.block_on(sending).map_err(|fault| ChannelError { tag, fault })
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        // No more than the plan says is ever allocated, whatever the peer declares.
        let mut message = BytesMut::with_capacity(length);
        self.recv_parts(tag, length, &mut |part| message.extend_from_slice(part))?;
        Ok(message.freeze())
    }

    fn recv_parts(
        &mut self,
        tag: Tag,
        length: usize,
        take: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ChannelError> {
        let runtime = self.runtime.clone();
        runtime
            .block_on(self.rest(Incoming::new(length), tag, take))
            .map_err(|fault| ChannelError { tag, fault })
    }

    fn send_parts(
        &mut self,
        tag: Tag,
        length: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelError> {
        let runtime = self.runtime.clone();
        let mut message = self.making(tag, length);
        let sending = async {
            while !message.ended {
                self.send_part(&mut message, make).await?;
            }
            Ok(())
        };
        runtime.block_on(sending).map_err(|fault| ChannelError { tag, fault })
    }

    fn exchange(
        &mut self,
        tag: Tag,
        length: usize,
        parts: &mut dyn Parts,
    ) -> Result<(), ChannelError> {
        let runtime = self.runtime.clone();
        let mut ours = self.making(tag, length);
        let mut theirs = Incoming::new(length);
        let exchanging = async {
            while !ours.ended {
                self.send_part(&mut ours, &mut |part| parts.make(part)).await?;
                self.arrivals(&mut theirs, tag, &mut |part| parts.take(part)).await?;
            }
            self.rest(theirs, tag, &mut |part| parts.take(part)).await
        };
        runtime.block_on(exchanging).map_err(|fault| ChannelError { tag, fault })
    }
}

fn envelope(
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
fn admit(
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

/// Connects to all peers that the role has, and makes sure that all mean the same run.
///
/// # Errors
/// If a peer does not come in time, is not who it should be, or means another run; if `stop`
/// tells this party to, which then goes for the connections too.
pub fn connect(config: &PartyConfig, plan: &Plan, stop: &Stop) -> Result<Vec<Link>, ConnectError> {
    connect_where(config, plan, stop, |_| true)
}

/// Connects to `peer` alone, as [`connect`] does: for what concerns a pair of parties,
/// such as how fast they can talk.
///
/// # Errors
/// As [`connect`]; if the role and `peer` do not talk to each other.
pub fn connect_to(config: &PartyConfig, plan: &Plan, peer: Role) -> Result<Link, ConnectError> {
    let found = connect_where(config, plan, &Stop::default(), |role| role == peer)?.pop();
    found.ok_or_else(|| {
        let problem = format!("does not let it talk to {peer}");
        ConfigError::Section { role: config.role, problem }.into()
    })
}

fn connect_where(
    config: &PartyConfig,
    plan: &Plan,
    stop: &Stop,
    wanted: impl Fn(Role) -> bool,
) -> Result<Vec<Link>, ConnectError> {
    let credentials = Credentials::load(&config.identity, config.role, config.session.0)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ConnectError::Runtime)?;
    let until = Instant::now() + config.deadlines.connect();
    let introduction = Introduction::new(config, plan);
    let queue = queue_frames(plan, config.transport.chunk_bytes);
    let shaping = config.transport.network.map(|conditions| Arc::new(Shaping::new(conditions)));
    let mut expected = PartyConfig::accepts(config.role, plan);
    expected.retain(|peer| wanted(*peer));
    let connecting = async {
        let mut acceptor =
            accept::listen(config, expected, &credentials, queue, shaping.clone()).await?;
        let mut arrivals = Vec::new();
        for &peer in PartyConfig::dials(config.role).iter().filter(|peer| wanted(**peer)) {
            arrivals.push(
                dial::dial(config, &credentials, peer, queue, shaping.as_ref(), until).await?,
            );
        }
        if let Some(acceptor) = &mut acceptor {
            acceptor.wait(until, config.deadlines.connect(), &mut arrivals).await?;
        }
        Ok::<_, ConnectError>(arrivals)
    };
    let mut arrivals = runtime.block_on(async {
        tokio::select! {
            arrivals = connecting => arrivals,
            () = stop.requested() => Err(ConnectError::Stopped),
        }
    })?;
    let runtime = Rc::new(runtime);
    let mut links: Vec<Link> = arrivals
        .drain(..)
        .map(|Arrival { peer, outgoing, incoming }| Link {
            peer,
            session: config.session.0,
            runtime: runtime.clone(),
            outgoing: Some(outgoing),
            incoming,
            sent: 0,
            received: 0,
            transport: config.transport,
            deadline: config.deadlines.message(),
            counters: Arc::default(),
            ended: false,
            stop: stop.clone(),
            _shaping: shaping.clone(),
        })
        .collect();
    if let Err(error) = introduce(&mut links, &introduction, until) {
        give_up(links, &error.to_string(), matches!(error, ConnectError::Mismatch { .. }));
        return Err(error);
    }
    Ok(links)
}

/// Frames that may wait to be sent to one peer: two of the plan's largest
/// messages, since servers send to each other before they listen, and all that
/// goes between a server and a player in one direction, since players send all
/// inputs before they listen.
fn queue_frames(plan: &Plan, chunk_bytes: usize) -> usize {
    let frames = |len: usize| (len * plan.format().wire_bytes()).div_ceil(chunk_bytes);
    let of_player = |player: &Name| -> usize {
        let inputs = plan.inputs().iter().filter(|input| input.player == *player);
        let outputs = plan.outputs().iter().filter(|output| output.player == *player);
        let inputs: usize = inputs.map(|input| frames(input.len)).sum();
        inputs.max(outputs.map(|output| frames(output.len)).sum())
    };
    let players = plan.graph().players().iter().map(of_player).max().unwrap_or(0);
    64 + players.max(2 * plan.largest_message().div_ceil(chunk_bytes))
}

/// Introduces this party to all peers, then hears them. A server speaks when all its
/// peers have connected, so it is waited for until `connected`; but no peer less long than
/// for any other message.
fn introduce(
    links: &mut [Link],
    ours: &Introduction,
    connected: Instant,
) -> Result<(), ConnectError> {
    let failed = |peer| move |fault| ConnectError::Handshake { peer, fault };
    for link in links.iter_mut() {
        let runtime = link.runtime.clone();
        let until = Instant::now() + link.deadline;
        runtime.block_on(link.enqueue(ours.hello(), until)).map_err(failed(link.peer))?;
    }
    for link in links.iter_mut() {
        let runtime = link.runtime.clone();
        let message = link.deadline;
        let now = Instant::now();
        let until = connected.max(now + message);
        // What the error says if nothing comes, without digits that say nothing.
        let tenths = (until - now).as_millis().div_ceil(100);
        link.deadline = Duration::from_millis(100 * tenths as u64);
        let content = runtime.block_on(link.next(until));
        link.deadline = message;
        match content.map_err(failed(link.peer))? {
            Content::Hello(hello) => ours.check(link.peer, &hello)?,
            _ => {
                let fault = link.envelope("a message before its introduction");
                return Err(ConnectError::Handshake { peer: link.peer, fault });
            }
        }
    }
    Ok(())
}

/// Tells all peers why this party gives up, and closes the connections. The
/// reason must be nothing private.
pub fn give_up(mut links: Vec<Link>, reason: &str, disagreement: bool) {
    for link in &mut links {
        link.abort(reason, disagreement);
    }
    end(&mut links);
    let until = Instant::now() + Duration::from_millis(500);
    links.into_iter().for_each(|link| link.drain(until));
}

/// Closes all connections in good order; waits at most `patience` for the peers.
///
/// # Errors
/// The first peer's that did not close in good order.
pub fn close(mut links: Vec<Link>, patience: Duration) -> Result<(), ChannelFault> {
    end(&mut links);
    let until = Instant::now() + patience;
    links
        .into_iter()
        .map(|link| link.close(until.saturating_duration_since(Instant::now())))
        .fold(Ok(()), Result::and)
}

/// Ends this side of all connections, before the end of any peer's is waited for: a peer
/// may be waiting for another of us.
fn end(links: &mut [Link]) {
    for link in links {
        link.outgoing = None;
    }
}

/// A peer that has connected and proved its role.
struct Arrival {
    peer: Role,
    outgoing: Outgoing,
    incoming: Streaming<Frame>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

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

    #[test]
    fn an_introduction_that_differs_is_refused_by_name() {
        let ours = Introduction {
            session: SESSION,
            role: Role::Server0,
            plan: Digest([1; 32]),
            summary: "network C".into(),
        };
        let hello = || {
            let theirs = Introduction { role: Role::CLIENT, summary: "network B".into(), ..ours };
            match theirs.hello().content {
                Some(Content::Hello(hello)) => hello,
                _ => panic!("an introduction is a hello"),
            }
        };
        assert!(ours.check(Role::CLIENT, &hello()).is_ok());
        let cases = [
            (Hello { protocol_version: 1, ..hello() }, "another protocol version: 1, here 3"),
            (Hello { role: "producer".into(), ..hello() }, "another role than its certificate"),
            (Hello { session: Bytes::from_static(&[8; 16]), ..hello() }, "another session: 0808"),
            (
                Hello { plan_digest: Bytes::from_static(&[2; 32]), ..hello() },
                "another plan: network B",
            ),
            (Hello { plan_digest: Bytes::new(), ..hello() }, "another plan"),
        ];
        for (hello, expected) in cases {
            let message = ours.check(Role::CLIENT, &hello).unwrap_err().to_string();
            assert!(message.starts_with("client has") && message.contains(expected), "{message}");
        }
    }
}
