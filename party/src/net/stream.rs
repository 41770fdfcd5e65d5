//! The two halves of a gRPC stream between two parties.

use std::time::Instant;

use spdz::channel::Role;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::wire::Frame;

/// A peer that has connected and proved its role.
pub(super) struct Arrival {
    pub(super) peer: Role,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Streaming<Frame>,
}

/// Where frames to a peer go: a request's or a response's stream.
pub(super) enum Outgoing {
    Request(mpsc::Sender<Frame>),
    Response(mpsc::Sender<Result<Frame, Status>>),
}

/// Why a frame was not taken.
pub(super) enum Unsent {
    Closed,
    Late,
}

impl Outgoing {
    /// Queues a frame; waits for room until `until`.
    pub(super) async fn send(&self, frame: Frame, until: Instant) -> Result<(), Unsent> {
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
