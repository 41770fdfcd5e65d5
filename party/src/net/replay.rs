//! A connection whose peer has said all that it will say: what a party makes of any bytes,
//! for tests. From the body of the gRPC stream on, everything is what a run uses.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use spdz::channel::{Channel, ChannelError, Role, Tag};
use spdz::plan::Plan;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::codec::Codec;

use super::error::ConnectError;
use super::framing::MAX_FRAME;
use super::handshake::{Introduction, introduce};
use super::link::Link;
use super::stream::{Arrival, Outgoing};
use super::wire::Frame;
use crate::config::PartyConfig;
use crate::identity::Proof;
use crate::stop::Stop;

/// Why a party went no further.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The introduction.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// Most that a peer's bytes make a party take at once beside the messages that its plan
/// expects: a frame, bytes.
pub const FRAME_BYTES: usize = MAX_FRAME;

/// Takes `stream` for all that `peer` sends to the party of `config`: its introduction, and
/// then messages of these tags and lengths, which are returned.
///
/// # Errors
/// If the bytes are anything else.
pub fn replay(
    config: &PartyConfig,
    plan: &Plan,
    peer: Role,
    stream: Bytes,
    expected: &[(Tag, usize)],
) -> Result<Vec<Bytes>, ReplayError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(ConnectError::Runtime)?;
    // Nobody takes what this party says; there is room for it.
    let (sender, _receiver) = mpsc::channel(1);
    let decoder = tonic_prost::ProstCodec::<Frame, Frame>::default().decoder();
    let body = Full::<Bytes>::new(stream);
    let incoming = Streaming::new_request(decoder, body, None, Some(MAX_FRAME));
    let arrival = Arrival {
        peer,
        outgoing: Outgoing::Request(sender),
        incoming,
        proof: Proof::default(),
        renewal: None,
    };
    let link = Link::new(arrival, config, Rc::new(runtime), Stop::default(), None);
    let mut links = [link];
    introduce(&mut links, &Introduction::new(config, plan), Instant::now())?;
    let [mut link] = links;
    let messages = expected.iter().map(|&(tag, length)| link.recv(tag, length));
    Ok(messages.collect::<Result<_, _>>()?)
}
