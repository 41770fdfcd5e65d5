//! The terminal that results are printed to.

use std::io::{self, IsTerminal};

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
