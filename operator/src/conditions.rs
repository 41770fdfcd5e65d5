//! The conditions of a resource, and what follows from them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::v1alpha1::{Phase, SecureInferenceStatus};

/// The resource can be run.
pub const ACCEPTED: &str = "Accepted";

/// All parties of the attempt are, or were, connected to their peers.
pub const PARTIES_READY: &str = "PartiesReady";

/// The results are there.
pub const COMPLETE: &str = "Complete";

/// There will be no further attempt.
pub const FAILED: &str = "Failed";

/// It waits until `spec.suspend` is false.
pub const SUSPENDED: &str = "Suspended";

/// Sets a condition; its time of transition stays unless it turns.
pub fn set(
    status: &mut SecureInferenceStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
    generation: Option<i64>,
) {
    let truth = if holds { "True" } else { "False" };
    let condition = Condition {
        type_: kind.into(),
        status: truth.into(),
        reason: reason.into(),
        message: message.into(),
        // As the API keeps times.
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        observed_generation: generation,
    };
    match status.conditions.iter_mut().find(|known| known.type_ == kind) {
        Some(known) if known.status == truth => {
            let last_transition_time = known.last_transition_time.clone();
            *known = Condition { last_transition_time, ..condition };
        }
        Some(known) => *known = condition,
        None => status.conditions.push(condition),
    }
}

/// Whether a condition is true.
#[must_use]
pub fn holds(status: &SecureInferenceStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|condition| condition.status == "True")
}

/// A condition, if it was ever set.
#[must_use]
pub fn find<'a>(status: &'a SecureInferenceStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// `Complete` or `Failed`, if it is one of them.
#[must_use]
pub fn finished(status: &SecureInferenceStatus) -> Option<&Condition> {
    [COMPLETE, FAILED]
        .into_iter()
        .find(|kind| holds(status, kind))
        .and_then(|kind| find(status, kind))
}

/// The conditions in one word, for people.
#[must_use]
pub fn phase(status: &SecureInferenceStatus) -> Phase {
    if holds(status, COMPLETE) {
        Phase::Succeeded
    } else if holds(status, FAILED) {
        Phase::Failed
    } else if holds(status, SUSPENDED) {
        Phase::Suspended
    } else if status.attempt_start_time.is_none() {
        Phase::Pending
    } else if holds(status, PARTIES_READY) {
        Phase::Running
    } else {
        Phase::Starting
    }
}
