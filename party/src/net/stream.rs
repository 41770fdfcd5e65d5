//! The two halves of a gRPC stream between two parties.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spdz::channel::{Phase, Role, Tag};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::wire::Frame;
use crate::identity::Proof;

/// A peer that has connected and proved its role.
pub(super) struct Arrival {
    pub(super) peer: Role,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Streaming<Frame>,
    pub(super) proof: Proof,
    /// At the side that accepted the connection.
    pub(super) renewal: Option<Renewal>,
}

/// Asks the task of a connection to renew its TLS keys, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewal(Arc<AtomicBool>);

impl Renewal {
    pub(super) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for since the last time.
    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// Decides when a connection's keys are renewed: at the beginning of an evaluation, the first
/// time when the keys of the set-up have gone over it, and not again for [`KEYS_LAST`].
pub(super) struct Renewals {
    renewal: Renewal,
    evaluation: Option<(Phase, u64)>,
    last: Option<Instant>,
}

/// Keys of a connection are used so long at least: to renew them takes two records and some
/// microseconds, and what evaluations send in this time is what a seized party can still read.
pub(super) const KEYS_LAST: Duration = Duration::from_secs(1);

impl Renewals {
    pub(super) fn new(renewal: Renewal) -> Self {
        Self { renewal, evaluation: None, last: None }
    }

    /// A message with this tag is next.
    pub(super) fn message(&mut self, tag: Tag) {
        let evaluation = (tag.phase, tag.inference);
        let of_evaluation = matches!(tag.phase, Phase::Offline | Phase::Online);
        if !of_evaluation || self.evaluation == Some(evaluation) {
            return;
        }
        self.evaluation = Some(evaluation);
        if self.last.is_none_or(|last| last.elapsed() >= KEYS_LAST) {
            self.last = Some(Instant::now());
            self.renewal.ask();
        }
    }
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
