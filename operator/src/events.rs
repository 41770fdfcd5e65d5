//! What people read in `kubectl describe`: one event for each transition.
//!
//! Pure: from the status before and the status after.

use crate::api::v1alpha1::SecureInferenceStatus;
use crate::conditions::{self, ACCEPTED, COMPLETE, FAILED, PARTIES_READY, SUSPENDED};

/// Something that happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whether somebody should look at it.
    pub warning: bool,
    /// What happened, in one word.
    pub reason: &'static str,
    /// What happened, in a sentence.
    pub note: String,
}

/// What happened between two statuses of a resource.
#[must_use]
pub fn transitions(
    before: &SecureInferenceStatus,
    after: &SecureInferenceStatus,
) -> Vec<Transition> {
    let turned = |kind: &str, to: bool| {
        let before = conditions::find(before, kind).map(|condition| condition.status == "True");
        let after = conditions::find(after, kind)?;
        let now = after.status == "True";
        (now == to && before != Some(to)).then(|| after.message.clone())
    };
    let mut found = Vec::new();
    let mut add = |warning, reason, note| found.push(Transition { warning, reason, note });
    if let Some(message) = turned(ACCEPTED, false) {
        add(true, "Rejected", message);
    }
    if let Some(message) = turned(SUSPENDED, true) {
        add(false, "Suspended", message);
    }
    if let (Some(message), true) =
        (turned(SUSPENDED, false), conditions::find(before, SUSPENDED).is_some())
    {
        add(false, "Resumed", message);
    }
    if let (true, Some(failure)) =
        (after.failed_attempts.unwrap_or(0) > before.failed_attempts.unwrap_or(0), &after.failure)
    {
        let role = failure.role.as_deref().unwrap_or("the run");
        let (attempt, reason, message) = (failure.attempt, &failure.reason, &failure.message);
        add(true, "AttemptFailed", format!("attempt {attempt}: {role}: {reason}: {message}"));
    }
    if let (true, Some(attempt)) = (after.attempt > before.attempt, after.attempt) {
        add(false, "AttemptStarted", format!("attempt {attempt}: starting the parties"));
    }
    if let Some(message) = turned(PARTIES_READY, true) {
        add(false, "PartiesReady", message);
    }
    if let Some(message) = turned(COMPLETE, true) {
        let summary = after.summary.as_ref().map(|summary| {
            let accuracy = summary.accuracy.as_ref().map(|part| format!(", accuracy {part}"));
            let (combined, online) = (&summary.combined, &summary.online);
            format!(": {combined} combined, {online} online{}", accuracy.unwrap_or_default())
        });
        add(false, "Completed", format!("{message}{}", summary.unwrap_or_default()));
    }
    if let Some(message) = turned(FAILED, true) {
        add(true, "Failed", message);
    }
    found
}
