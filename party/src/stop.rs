//! Being told to stop, by a signal.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// A signal that tells a process to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`: a person at a terminal.
    Interrupt,
    /// `SIGTERM`: whoever runs the process.
    Terminate,
}

impl Signal {
    /// The exit code of a process that it stops, as shells report it.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
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
        })
    }
}

/// Whether this process was told to stop. Clones share the answer; without anybody who
/// tells it is no.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<State>);

#[derive(Debug, Default)]
struct State {
    signal: OnceLock<Signal>,
    told: Notify,
}

impl Stop {
    /// The signal, once there was one.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        self.0.signal.get().copied()
    }

    /// Tells everybody who waits or asks. Only the first signal counts.
    pub(crate) fn tell(&self, signal: Signal) {
        let _ = self.0.signal.set(signal);
        self.0.told.notify_waiters();
    }

    /// Waits until somebody tells.
    pub(crate) async fn told(&self) {
        let told = self.0.told.notified();
        // A notification counts from its making, so none is missed in between.
        if self.signal().is_none() {
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_who_comes_later_too() {
        let stop = Stop::default();
        assert_eq!(stop.signal(), None);
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.told().await }
        });
        tokio::task::yield_now().await;
        stop.tell(Signal::Interrupt);
        stop.tell(Signal::Terminate);
        waiting.await.unwrap();
        stop.told().await;
        assert_eq!(stop.signal(), Some(Signal::Interrupt));
    }
}
