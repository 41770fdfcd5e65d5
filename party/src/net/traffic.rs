//! What goes over a connection, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use spdz::channel::Phase;

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
    /// Counts bytes that are sent; `phase` as in a frame.
    pub(super) fn sent(&self, phase: i32, bytes: u64) {
        let counter = usize::try_from(phase).ok().and_then(|phase| self.sent_bytes.get(phase));
        counter.into_iter().for_each(|counter| count(counter, bytes));
    }

    /// Counts bytes that were received.
    pub(super) fn received(&self, phase: Phase, bytes: u64) {
        count(&self.received_bytes[phase as usize], bytes);
    }

    /// Counts a message of which all has been received.
    pub(super) fn received_message(&self, phase: Phase) {
        count(&self.received_messages[phase as usize], 1);
    }

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
