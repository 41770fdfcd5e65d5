//! How far a run is, for whoever reads standard output.

use std::io::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How far the coordinator is; a line of JSON on standard output each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// What it does.
    pub stage: Stage,
    /// Evaluations done.
    pub done: u64,
    /// Of how many.
    pub of: u64,
}

/// What the coordinator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Evaluations for a time; `done` and `of` are whole seconds.
    Settle,
    /// Having correlated randomness generated ahead.
    Prepare,
    /// Evaluations that are not timed.
    Warmup,
    /// Timed evaluations.
    Timed,
    /// Scoring the test set.
    Accuracy,
    /// Comparing the outputs of layers.
    Inspect,
}

impl Progress {
    /// Tells whoever reads standard output, seldom enough not to disturb what is measured.
    pub(crate) fn report(self, last: &mut Option<Instant>) {
        let now = Instant::now();
        let due = last.is_none_or(|last| now - last > Duration::from_millis(200));
        if due || self.done == self.of {
            *last = Some(now);
            if let Ok(line) = serde_json::to_string(&self) {
                // Nobody has to read it.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }
}
