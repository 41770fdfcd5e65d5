//! The request to stop, by a signal.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// A signal that requests a process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`: a person at a terminal.
    Interrupt,
    /// `SIGTERM`: whoever runs the process.
    Terminate,
    /// `SIGHUP`: the terminal is gone.
    HangUp,
}

impl Signal {
    /// The exit code of a process that it stops, as shells report it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::HangUp => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::HangUp => "SIGHUP",
        })
    }
}

/// Whether this process was told to stop. Clones share the answer; it is no until the
/// request.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    signal: OnceLock<Signal>,
    requested: Notify,
}

impl Stop {
    /// The signal, once there was one.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        self.0.signal.get().copied()
    }

    /// Requests everybody who waits or asks to stop. Only the first signal counts.
    pub(crate) fn request(&self, signal: Signal) {
        let _ = self.0.signal.set(signal);
        self.0.requested.notify_waiters();
    }

    /// Waits for the request.
    pub(crate) async fn requested(&self) {
        let requested = self.0.requested.notified();
        // A notification counts from its making, so none is missed in between.
        if self.signal().is_none() {
            requested.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_reaches_who_waits_and_who_comes_later() {
        let stop = Stop::default();
        assert_eq!(stop.signal(), None);
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        tokio::task::yield_now().await;
        stop.request(Signal::Interrupt);
        stop.request(Signal::Terminate);
        waiting.await.unwrap();
        stop.requested().await;
        assert_eq!(stop.signal(), Some(Signal::Interrupt));
    }
}
