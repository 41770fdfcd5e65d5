//! A connection to one peer, as the protocol's [`Channel`].

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use spdz::buffer::Buffer;
use spdz::channel::{Channel, ChannelError, ChannelFault, Name, PART_UNIT, Parts, Role, Tag};
use spdz::prg::SessionId;
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use super::accept::Serving;
use super::framing::{self, Incoming, Making, admit, excerpt, message_bytes};
use super::shape::Shaping;
use super::stream::{Arrival, Outgoing, Renewals, Unsent};
use super::traffic::{Counters, Traffic};
use super::wire::frame::Content;
use super::wire::{Abort, Chunk, Frame};
use crate::config::{PartyConfig, Transport};
use crate::identity::Proof;
use crate::stop::Stop;
use crate::transcript::Recording;

/// How long to listen for a peer's own account of a failure, after the deadline
/// for its message: whoever waits for the one to blame gives up at about the
/// same time.
const LINGER: Duration = Duration::from_millis(300);

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
    proof: Proof,
    /// If the party keeps a transcript.
    recording: Option<Recording>,
    /// If this side accepted the connection.
    renewals: Option<Renewals>,
    stop: Stop,
    /// Of a server, and shared by all its links.
    serving: Option<Rc<Serving>>,
    /// Below the runtime, with which the connections end: what they sent is still on its way.
    _shaping: Option<Arc<Shaping>>,
}

impl Link {
    /// The connection to a peer that has arrived, driven by `runtime`.
    pub(super) fn new(
        arrival: Arrival,
        config: &PartyConfig,
        runtime: Rc<Runtime>,
        stop: Stop,
        shaping: Option<Arc<Shaping>>,
    ) -> Self {
        let Arrival { peer, outgoing, incoming, proof, renewal } = arrival;
        Self {
            peer,
            session: config.session.0,
            runtime,
            outgoing: Some(outgoing),
            incoming,
            sent: 0,
            received: 0,
            transport: config.transport,
            deadline: config.deadlines.message(),
            counters: Arc::default(),
            ended: false,
            proof,
            recording: None,
            renewals: renewal.map(Renewals::new),
            stop,
            serving: None,
            _shaping: shaping,
        }
    }

    /// The same, of a server that serves its connections so.
    pub(super) fn served_by(self, serving: Option<Rc<Serving>>) -> Self {
        Self { serving, ..self }
    }

    /// What serves this connection, and what drives it.
    pub(super) fn serving(&self) -> Option<(Rc<Runtime>, Rc<Serving>)> {
        Some((self.runtime.clone(), self.serving.clone()?))
    }

    /// The peer at the other end.
    #[must_use]
    pub fn peer(&self) -> Role {
        self.peer
    }

    /// The player at the other end, if it is one.
    pub(crate) fn player(&self) -> Option<Name> {
        match self.peer {
            Role::Player(name) => Some(name),
            _ => None,
        }
    }

    /// What is known of it since the handshake.
    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Has the messages from now on recorded.
    pub(crate) fn record(&mut self, recording: Recording) {
        self.recording = Some(recording);
    }

    /// The digest of a message that is to be recorded.
    fn digest(&self) -> Option<blake3::Hasher> {
        self.recording.as_ref().map(Recording::digest)
    }

    fn record_sent(&self, tag: Tag, length: usize, digest: Option<&blake3::Hasher>) {
        if let (Some(recording), Some(digest)) = (&self.recording, digest) {
            recording.sent(tag, length, digest);
        }
    }

    fn record_received(&self, tag: Tag, length: usize, digest: Option<&blake3::Hasher>) {
        if let (Some(recording), Some(digest)) = (&self.recording, digest) {
            recording.received(tag, length, digest);
        }
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
        let abort = Abort { reason: excerpt(reason), disagreement };
        if let Some(outgoing) = &self.outgoing {
            let frame = Frame { content: Some(Content::Abort(abort)) };
            let until = Instant::now() + Duration::from_millis(100);
            // The peer may be gone; it will notice.
            let _ = self.runtime.block_on(outgoing.send(frame, until));
        }
    }

    /// Sends a frame that is no part of a message.
    pub(super) fn say(&mut self, frame: Frame) -> Result<(), ChannelFault> {
        let runtime = self.runtime.clone();
        let until = Instant::now() + self.deadline;
        runtime.block_on(self.enqueue(frame, until))
    }

    /// Waits for a frame as long as for any message, and at least until `least`.
    pub(super) fn hear(&mut self, least: Instant) -> Result<Content, ChannelFault> {
        let runtime = self.runtime.clone();
        let message = self.deadline;
        let now = Instant::now();
        let until = least.max(now + message);
        // What the error says if nothing comes, without digits that say nothing.
        let tenths = (until - now).as_millis().div_ceil(100);
        self.deadline = Duration::from_millis(100 * tenths as u64);
        let content = runtime.block_on(self.next(until));
        self.deadline = message;
        content
    }

    /// Ends this side of the connection, without waiting for the peer's.
    pub(super) fn end(&mut self) {
        self.outgoing = None;
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
    pub(super) fn drain(mut self, until: Instant) {
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

    pub(super) fn envelope(&self, found: impl Into<String>) -> ChannelFault {
        framing::envelope(self.peer, self.session, self.received, found)
    }

    /// The data of a chunk of the message with `tag`, checked.
    fn chunk(&self, content: Content, tag: Tag, length: usize) -> Result<Bytes, ChannelFault> {
        let Content::Chunk(chunk) = content else {
            return Err(self.envelope("a second introduction"));
        };
        let phase = admit(self.peer, self.session, self.received, &chunk, tag, length)?;
        self.counters.received(phase, message_bytes(&chunk));
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
        self.counters.received_message(tag.phase);
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

    /// A message with this tag is next, in either direction.
    fn begin(&mut self, tag: Tag) {
        if let Some(renewals) = &mut self.renewals {
            renewals.message(tag);
        }
    }

    /// The chunks of the next message to send, without their data.
    fn header(&mut self, tag: Tag, length: usize) -> Chunk {
        self.begin(tag);
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
        self.counters.sent(chunk.phase, message_bytes(&chunk));
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

/// Adds a part of a message to its digest, if one is made.
fn add(digest: &mut Option<blake3::Hasher>, part: &[u8]) {
    if let Some(digest) = digest {
        digest.update(part);
    }
}

/// The messages of an exchange, and their digests if they are recorded.
struct Digested<'a> {
    parts: &'a mut dyn Parts,
    made: Option<blake3::Hasher>,
    taken: Option<blake3::Hasher>,
}

impl Parts for Digested<'_> {
    fn make(&mut self, part: &mut [u8]) {
        self.parts.make(part);
        add(&mut self.made, part);
    }

    fn take(&mut self, part: &[u8]) {
        add(&mut self.taken, part);
        self.parts.take(part);
    }
}

impl Channel for Link {
    fn send(&mut self, tag: Tag, mut message: Bytes) -> Result<(), ChannelError> {
        let header = self.header(tag, message.len());
        let (mut digest, length) = (self.digest(), message.len());
        add(&mut digest, &message);
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
        runtime.block_on(sending).map_err(|fault| ChannelError { tag, fault })?;
        self.record_sent(tag, length, digest.as_ref());
        Ok(())
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
        self.begin(tag);
        let runtime = self.runtime.clone();
        let mut digest = self.digest();
        let mut take = |part: &[u8]| {
            add(&mut digest, part);
            take(part);
        };
        runtime
            .block_on(self.rest(Incoming::new(length), tag, &mut take))
            .map_err(|fault| ChannelError { tag, fault })?;
        self.record_received(tag, length, digest.as_ref());
        Ok(())
    }

    fn send_parts(
        &mut self,
        tag: Tag,
        length: usize,
        make: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ChannelError> {
        let runtime = self.runtime.clone();
        let mut message = self.making(tag, length);
        let mut digest = self.digest();
        let mut make = |part: &mut [u8]| {
            make(part);
            add(&mut digest, part);
        };
        let sending = async {
            while !message.ended {
                self.send_part(&mut message, &mut make).await?;
            }
            Ok(())
        };
        runtime.block_on(sending).map_err(|fault| ChannelError { tag, fault })?;
        self.record_sent(tag, length, digest.as_ref());
        Ok(())
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
        let mut parts = Digested { parts, made: self.digest(), taken: self.digest() };
        let exchanging = async {
            while !ours.ended {
                self.send_part(&mut ours, &mut |part| parts.make(part)).await?;
                self.arrivals(&mut theirs, tag, &mut |part| parts.take(part)).await?;
            }
            self.rest(theirs, tag, &mut |part| parts.take(part)).await
        };
        runtime.block_on(exchanging).map_err(|fault| ChannelError { tag, fault })?;
        self.record_sent(tag, length, parts.made.as_ref());
        self.record_received(tag, length, parts.taken.as_ref());
        Ok(())
    }
}
