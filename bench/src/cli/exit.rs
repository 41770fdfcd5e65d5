//! How the program ends.

use std::sync::OnceLock;

use party::config::ConfigError;
use party::stop::Signal;
use spdz::network::UnknownNetwork;

use crate::settings::SettingsError;
use crate::usage::UsageError;

/// What `bench --help` says of exit codes.
pub(super) const HELP: &str = "\
Exit codes:
  0  done; with compare and sweep --against nothing is slower
  1  failed; with compare and sweep --against something is slower, or worse otherwise
  2  the command line or the sweep file is wrong; with compare and sweep --against there is no
     comparison
  129, 130, 143  SIGHUP, SIGINT (Ctrl-C) or SIGTERM ended it

Colours: NO_COLOR, CLICOLOR and CLICOLOR_FORCE say whether. Width: COLUMNS where there is no terminal.";

/// The command failed.
pub(super) const FAILURE: u8 = 1;

/// What was compared is slower, or worse otherwise.
pub(super) const WORSE: u8 = 1;

/// The command line is wrong: the code that its parser ends with, too.
pub(super) const USAGE: u8 = 2;

/// There is no comparison, as with `diff` and `grep`: another code than a worse build's.
pub(super) const NO_COMPARISON: u8 = 2;

/// The exit code of a command that failed, and does not compare.
pub(super) fn of(error: &anyhow::Error) -> u8 {
    let asks = error.chain().any(|cause| {
        cause.is::<UsageError>()
            || cause.is::<SettingsError>()
            || cause.is::<UnknownNetwork>()
            || cause.is::<ConfigError>()
    });
    if asks { USAGE } else { FAILURE }
}

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
