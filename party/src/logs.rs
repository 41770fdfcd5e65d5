//! Logs: for people on a terminal, JSON elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use tracing::Span;
use tracing_subscriber::EnvFilter;

use crate::console::{self, Verbosity};
use crate::trace::TraceId;

/// What the lines of a run are in, once it is traced.
static RUN: OnceLock<Span> = OnceLock::new();

/// Starts logging to standard error, at the level that the command line says, or else `RUST_LOG`
/// (`info` without it). Shares, masks and keys are not logged at any level.
pub(crate) fn start(verbosity: Verbosity) {
    let filter = match verbosity {
        Verbosity { quiet: true, .. } => EnvFilter::new("warn"),
        Verbosity { verbose: true, .. } => EnvFilter::new(console::VERBOSE_LOGS),
        _ => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // A second start, in a test, keeps the first.
    let _ = if stderr().is_terminal() {
        builder.with_target(false).with_ansi(console::colours()).try_init()
    } else {
        let builder = builder.json().flatten_event(true).with_span_list(false);
        builder.with_ansi(false).try_init()
    };
}

/// Lines within [`run`] have the id of `trace` from now on.
pub(crate) fn trace(trace: TraceId) {
    // At this level no filter for levels hides it. A process has one run.
    RUN.get_or_init(|| tracing::error_span!("run", trace_id = %trace));
}

/// What to enter, or to be in, for lines that belong to the run.
pub(crate) fn run() -> Span {
    RUN.get().cloned().unwrap_or_else(Span::none)
}
