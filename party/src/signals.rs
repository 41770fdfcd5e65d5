//! The signals that tell a process to stop.

use std::fs;
use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{self, SignalKind};

use crate::stop::Signal;

/// Those that this process listens to. The first process of a container has no others' help:
/// what it does not handle does nothing.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// Nothing if whoever started the process wants it to outlive a terminal, as `nohup` does.
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// Listens from now on. To be called in a runtime.
    ///
    /// # Errors
    /// If the operating system does not allow it.
    pub fn listen() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: (!is_ignored(hangup)).then(|| unix::signal(hangup)).transpose()?,
        })
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = hangup => Signal::HangUp,
        }
    }
}

/// Calls `then` at the first signal, on a thread of its own. Later ones do nothing.
///
/// # Errors
/// If the operating system does not allow it.
pub fn on_first(then: impl FnOnce(Signal) + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    let wait = move || {
        then(runtime.block_on(signals.next()));
        // Whoever was called cleans up: another Ctrl-C must not end the process meanwhile.
        runtime.block_on(std::future::pending::<()>());
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

/// Whether this process inherited that it ignores the signal.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, signal)
}

/// Whether `/proc/PID/status` says so.
fn ignored_in(status: &str, signal: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw_value() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_signal_is_read_from_the_status() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert!(ignored_in(status, SignalKind::hangup()));
        assert!(!ignored_in(status, SignalKind::interrupt()));
        assert!(!ignored_in("", SignalKind::hangup()));
    }
}
