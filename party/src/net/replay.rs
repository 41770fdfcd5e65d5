//! A connection whose peer has said all that it will say: what a party makes of any bytes,
//! for tests. From the body of the gRPC stream on, everything is what a run uses.

use http_body_util::Full;
use spdz::channel::ChannelError;
use tonic::codec::Codec;

use super::*;

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
    let link = Link {
        peer,
        session: config.session.0,
        runtime: Rc::new(runtime),
        outgoing: Some(Outgoing::Request(sender)),
        incoming: Streaming::new_request(decoder, body, None, Some(MAX_FRAME)),
        sent: 0,
        received: 0,
        transport: config.transport,
        deadline: config.deadlines.message(),
        counters: Arc::default(),
        ended: false,
        stop: Stop::default(),
        _shaping: None,
    };
    let mut links = [link];
    introduce(&mut links, &Introduction::new(config, plan), Instant::now())?;
    let [mut link] = links;
    let messages = expected.iter().map(|&(tag, length)| link.recv(tag, length));
    Ok(messages.collect::<Result<_, _>>()?)
}
