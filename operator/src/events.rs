//! What people read in `kubectl describe`: one event for each transition.
//!
//! Pure: from the status before and the status after.

use crate::api::v1alpha1::SecureInferenceStatus;
use crate::conditions::{
    self, ACCEPTED, COMPLETE, FAILED, NOT_PRIVATE, PARTIES_READY, REFUSED, SUSPENDED,
};

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
    let changed = |kind: &str, to: bool| {
        let before = conditions::find(before, kind).map(|condition| condition.status == "True");
        let after = conditions::find(after, kind)?;
        let now = after.status == "True";
        (now == to && before != Some(to)).then(|| after.message.clone())
    };
    let mut found = Vec::new();
    let mut add = |warning, reason, note| found.push(Transition { warning, reason, note });
    if let Some(message) = changed(ACCEPTED, false) {
        add(true, "Rejected", message);
    }
    let inspected = conditions::find(after, ACCEPTED).filter(|now| now.reason == NOT_PRIVATE);
    if let (Some(message), Some(_)) = (changed(ACCEPTED, true), inspected) {
        add(true, NOT_PRIVATE, message);
    }
    if let Some(message) = changed(SUSPENDED, true) {
        add(false, "Suspended", message);
    }
    if let (Some(message), true) =
        (changed(SUSPENDED, false), conditions::find(before, SUSPENDED).is_some())
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
    if let (true, Some(waits)) = (
        after.start_seconds_used > before.start_seconds_used,
        conditions::find(after, PARTIES_READY),
    ) {
        add(false, "GaveWay", waits.message.clone());
    }
    if let (true, Some(attempt)) = (after.attempt > before.attempt, after.attempt) {
        add(false, "AttemptStarted", format!("attempt {attempt}: starting the parties"));
    }
    let refused = |status| conditions::find(status, PARTIES_READY).filter(|c| c.reason == REFUSED);
    // If that is for ever, the failure says it.
    let ever = conditions::holds(after, FAILED);
    if let (None, Some(refused), false) = (refused(before), refused(after), ever) {
        add(true, REFUSED, refused.message.clone());
    }
    if let Some(message) = changed(PARTIES_READY, true) {
        add(false, "PartiesReady", message);
    }
    if let Some(message) = changed(COMPLETE, true) {
        let summary = after.summary.as_ref().map(|summary| {
            let accuracy = summary.accuracy.as_ref().map(|part| format!(", accuracy {part}"));
            let (combined, online) = (&summary.combined, &summary.online);
            format!(": {combined} combined, {online} online{}", accuracy.unwrap_or_default())
        });
        add(false, "Completed", format!("{message}{}", summary.unwrap_or_default()));
    }
    if let Some(message) = changed(FAILED, true) {
        add(true, "Failed", message);
    }
    found
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::v1alpha1::{Failure, Summary};

    fn status(conditions: &[(&str, bool, &str)]) -> SecureInferenceStatus {
        let mut status = SecureInferenceStatus::default();
        for (kind, holds, message) in conditions {
            conditions::set(&mut status, kind, *holds, "A", message, Timestamp::UNIX_EPOCH, None);
        }
        status
    }

    fn reported(before: &SecureInferenceStatus, after: &SecureInferenceStatus) -> Vec<String> {
        assert_eq!(transitions(after, after), [], "nothing has happened since");
        let line = |event: Transition| {
            let kind = if event.warning { "Warning" } else { "Normal" };
            format!("{kind} {}: {}", event.reason, event.note)
        };
        transitions(before, after).into_iter().map(line).collect()
    }

    #[test]
    fn a_run_that_is_not_private_is_warned_of() {
        let mut inspected = status(&[(ACCEPTED, true, "it reveals")]);
        inspected.conditions[0].reason = NOT_PRIVATE.into();
        let new = SecureInferenceStatus::default();
        assert_eq!(reported(&new, &inspected), ["Warning NotPrivate: it reveals"]);
    }

    #[test]
    fn each_transition_is_reported_once() {
        let new = SecureInferenceStatus::default();
        let starting = SecureInferenceStatus {
            attempt: Some(1),
            ..status(&[(ACCEPTED, true, "valid"), (PARTIES_READY, false, "0 of 5")])
        };
        assert_eq!(
            reported(&new, &starting),
            ["Normal AttemptStarted: attempt 1: starting the parties"]
        );
        let ready = SecureInferenceStatus {
            attempt: Some(1),
            ..status(&[(ACCEPTED, true, "valid"), (PARTIES_READY, true, "all connected")])
        };
        assert_eq!(reported(&starting, &ready), ["Normal PartiesReady: all connected"]);
        let mut complete = ready.clone();
        complete.conditions.extend(status(&[(COMPLETE, true, "complete in 9.0 s")]).conditions);
        assert_eq!(reported(&ready, &complete), ["Normal Completed: complete in 9.0 s"]);
        complete.summary = Some(Summary {
            combined: "2.50 ms".into(),
            online: "1.50 ms".into(),
            accuracy: Some("97.00 %".into()),
        });
        assert_eq!(
            reported(&ready, &complete),
            [
                "Normal Completed: complete in 9.0 s: 2.50 ms combined, 1.50 ms online, accuracy 97.00 %"
            ]
        );
    }

    #[test]
    fn a_failure_is_reported_with_its_cause() {
        let before =
            SecureInferenceStatus { attempt: Some(2), failed_attempts: Some(1), ..status(&[]) };
        let failure = Failure {
            attempt: 2,
            role: Some("client".into()),
            reason: "OOMKilled".into(),
            exit_code: Some(137),
            message: "ended by signal 9".into(),
        };
        let after = SecureInferenceStatus {
            attempt: Some(2),
            failed_attempts: Some(2),
            failure: Some(failure.clone()),
            ..status(&[(PARTIES_READY, false, "gone")])
        };
        let line = "Warning AttemptFailed: attempt 2: client: OOMKilled: ended by signal 9";
        assert_eq!(reported(&before, &after), [line]);
        let last = SecureInferenceStatus {
            failed_attempts: Some(2),
            failure: Some(failure),
            attempt: Some(2),
            ..status(&[(FAILED, true, "2 failed")])
        };
        assert_eq!(reported(&before, &last), [line, "Warning Failed: 2 failed"]);
    }

    #[test]
    fn a_refusal_is_reported_as_such_and_as_the_failure_that_it_is() {
        let after = status(&[(ACCEPTED, false, "no name"), (FAILED, true, "cannot be run")]);
        assert_eq!(
            reported(&SecureInferenceStatus::default(), &after),
            ["Warning Rejected: no name", "Warning Failed: cannot be run"]
        );
    }

    #[test]
    fn suspending_and_resuming_are_reported() {
        let new = SecureInferenceStatus::default();
        let suspended = status(&[(SUSPENDED, true, "spec.suspend is true")]);
        let resumed = status(&[(SUSPENDED, false, "spec.suspend is false")]);
        assert_eq!(reported(&new, &suspended), ["Normal Suspended: spec.suspend is true"]);
        assert_eq!(reported(&suspended, &resumed), ["Normal Resumed: spec.suspend is false"]);
        assert!(reported(&new, &resumed).is_empty(), "it never was suspended");
    }

    #[test]
    fn what_the_api_server_refuses_is_told_once() {
        let refused = |message: &str| {
            let mut status = status(&[(PARTIES_READY, false, message)]);
            status.conditions[0].reason = REFUSED.into();
            status
        };
        let before = status(&[(PARTIES_READY, false, "0 of 5")]);
        let after = refused("exceeded quota: pods");
        assert_eq!(reported(&before, &after), ["Warning Refused: exceeded quota: pods"]);
        assert!(reported(&after, &refused("exceeded quota: cpu")).is_empty(), "it still is");
        let mut failed = refused("invalid");
        failed.conditions.extend(status(&[(FAILED, true, "invalid")]).conditions);
        assert_eq!(reported(&before, &failed), ["Warning Failed: invalid"]);
    }

    #[test]
    fn giving_way_is_told() {
        let before = SecureInferenceStatus { start_seconds_used: Some(30), ..status(&[]) };
        let after = SecureInferenceStatus {
            start_seconds_used: Some(60),
            ..status(&[(PARTIES_READY, false, "other runs were waiting")])
        };
        assert_eq!(reported(&before, &after), ["Normal GaveWay: other runs were waiting"]);
        assert!(reported(&after, &status(&[])).is_empty(), "it is counted anew");
    }
}
