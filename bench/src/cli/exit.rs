//! How the program ends.

use std::sync::OnceLock;

use party::stop::Signal;

/// The command failed.
pub(super) const FAILURE: u8 = 1;

/// What was compared is slower, or worse otherwise.
pub(super) const WORSE: u8 = 1;

/// There is no comparison, as with `diff` and `grep`: another code than a worse build's.
pub(super) const NO_COMPARISON: u8 = 2;

/// The signal that ended the command.
static SIGNAL: OnceLock<Signal> = OnceLock::new();

/// Keeps in mind which signal ends the command, for [`interrupted`].
pub(super) fn stopped_by(signal: Signal) {
    let _ = SIGNAL.set(signal);
}

/// As shells report a program that a signal ended.
pub(super) fn interrupted() -> u8 {
    SIGNAL.get().copied().unwrap_or(Signal::Interrupt).exit_code()
}
