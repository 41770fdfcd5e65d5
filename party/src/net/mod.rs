//! Connections between parties: gRPC streams over mutual TLS 1.3, as [`Channel`](spdz::channel::Channel)s.
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

mod accept;
mod connect;
mod dial;
mod error;
mod framing;
mod handshake;
mod link;
mod links;
#[cfg(feature = "decoders")]
pub(crate) mod replay;
mod shape;
mod stream;
mod traffic;
/// The generated types of the wire format.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod wire;

pub use accept::Refusals;
pub use connect::{connect, connect_to};
pub use error::ConnectError;
pub use handshake::PROTOCOL_VERSION;
pub use link::Link;
pub(crate) use links::servers;
pub use links::{close, give_up};
pub(crate) use traffic::Counters;
pub use traffic::Traffic;
