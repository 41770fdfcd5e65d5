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

/// Counts the renewals of a connection's keys since data went over it: TLS libraries end a
/// connection when 32 came without any between them, in either direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unaccompanied {
    /// Since data was sent.
    sent: u8,
    /// Since data was received.
    received: u8,
}

/// So many renewals may follow each other without data. [`ALIVE`] sees to it that few do.
const MOST_UNACCOMPANIED: u8 = 24;

impl Unaccompanied {
    /// Whether the keys may be renewed once more, which is counted if so.
    pub(super) fn renew(&mut self) -> bool {
        let may = self.sent.max(self.received) < MOST_UNACCOMPANIED;
        if may {
            self.sent += 1;
            self.received += 1;
        }
        may
    }

    /// Data was sent.
    pub(super) fn sent(&mut self) {
        self.sent = 0;
    }

    /// Data was received.
    pub(super) fn received(&mut self) {
        self.received = 0;
    }
}

/// After so long without data from its peer a party sends a PING of HTTP/2, to which the peer
/// replies: many connections carry messages in one direction alone, and where keys are renewed
/// data has to go in both.
pub(super) const ALIVE: Duration = Duration::from_secs(5);

/// How long the reply may take: as long as it likes. A peer that computes serves no connection,
/// and one that is gone is noticed by the deadlines of messages.
pub(super) const REPLY: Duration = Duration::from_secs(24 * 60 * 60);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_renewed_as_long_as_data_goes_in_both_directions() {
        let mut count = Unaccompanied::default();
        for renewal in 0..1000 {
            assert!(count.renew(), "renewal {renewal}");
            if renewal % 8 == 0 {
                count.sent();
            }
            if renewal % 9 == 0 {
                count.received();
            }
        }
        // One direction without data is enough for the end of a connection.
        for only in [Unaccompanied::sent, Unaccompanied::received] {
            let mut count = Unaccompanied::default();
            let renewed = (0..1000).filter(|_| {
                only(&mut count);
                count.renew()
            });
            assert_eq!(renewed.count(), usize::from(MOST_UNACCOMPANIED));
            count.sent();
            count.received();
            assert!(count.renew());
        }
    }
}
