//! The terminal that results are printed to, and how much is said beside them.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::Context;
use party::console::{Verbosity, can_redraw};

/// What the command line says; a process has one.
static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

/// Says how much is said from now on.
pub(crate) fn start(verbosity: Verbosity) {
    let _ = VERBOSITY.set(verbosity);
}

/// Whether nothing but warnings and errors is said.
pub(crate) fn is_quiet() -> bool {
    VERBOSITY.get().is_some_and(|verbosity| verbosity.quiet)
}

/// Whether what parties log is shown.
pub(crate) fn is_verbose() -> bool {
    VERBOSITY.get().is_some_and(|verbosity| verbosity.verbose)
}

/// Whether progress is a bar: lines of logs would tear it.
pub(crate) fn has_bar() -> bool {
    can_redraw() && !is_quiet() && !is_verbose()
}

/// Prints what a command was asked for.
///
/// # Errors
/// If it cannot be written, as to a full disk or a reader that has gone.
pub(crate) fn print(text: impl fmt::Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = write!(stdout, "{text}").and_then(|()| stdout.flush());
    written.context("cannot write to standard output")
}

/// Columns of standard output; `None` where it is no terminal, and lines may be as long as they
/// are. `COLUMNS` in the environment says otherwise.
pub(crate) fn width() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let found = || {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let (width, _) = terminal_size::terminal_size_of(stdout)?;
        Some(usize::from(width.0))
    };
    said.or_else(found).filter(|width| *width > 0)
}
