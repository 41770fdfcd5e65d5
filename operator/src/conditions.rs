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

/// It has ended, either way: with the reason `Succeeded` or `Failed`.
pub const FINISHED: &str = "Finished";

/// It waits until `spec.suspend` is false.
pub const SUSPENDED: &str = "Suspended";

/// What whoever deploys it waits for is under way; for tools that know no other conditions.
pub const RECONCILING: &str = "Reconciling";

/// It has failed; for tools that know no other conditions.
pub const STALLED: &str = "Stalled";

/// The reason for which a resource is accepted whose run is not private.
pub const NOT_PRIVATE: &str = "NotPrivate";

/// Why a run waits, or has failed, of which the API server would not make an object.
pub const REFUSED: &str = "Refused";

/// Why a resource is not accepted any more that was changed after it was.
pub const SPEC_CHANGED: &str = "SpecChanged";

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

/// A condition that turned and turned back has not turned.
pub fn keep_times(before: &SecureInferenceStatus, after: &mut SecureInferenceStatus) {
    for condition in &mut after.conditions {
        if let Some(known) = find(before, &condition.type_)
            && known.status == condition.status
        {
            condition.last_transition_time = known.last_transition_time.clone();
        }
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

/// A condition that follows from others: kind, whether it holds, reason and message.
pub type Derived = (&'static str, bool, String, String);

/// The two conditions by which Helm, Flux and other users of kstatus tell how any resource is. A run
/// is to them what a Job is: in progress until its parties work, current while they do and once
/// they are done or suspended, and failed.
#[must_use]
pub fn progress(status: &SecureInferenceStatus) -> [Derived; 2] {
    let phase = phase(status);
    let said = |kind: &str, otherwise: &str| match find(status, kind) {
        Some(condition) => (condition.reason.clone(), condition.message.clone()),
        None => (phase.to_string(), otherwise.to_owned()),
    };
    let word = |message: &str| (phase.to_string(), message.to_owned());
    let (reconciling, stalled, (reason, message)) = match phase {
        Phase::Pending | Phase::Starting => (true, false, said(PARTIES_READY, "nothing runs yet")),
        Phase::Running => (false, false, word("the parties are at work")),
        Phase::Succeeded => (false, false, word("the results are there")),
        Phase::Failed => (false, true, said(FAILED, "it has failed")),
        Phase::Suspended => (false, false, word("it waits until spec.suspend is false")),
    };
    [
        (RECONCILING, reconciling, reason.clone(), message.clone()),
        (STALLED, stalled, reason, message),
    ]
}

/// Sets what follows from the other conditions: the phase for people, and the two for tools.
pub fn summarise(status: &mut SecureInferenceStatus, now: Timestamp, generation: Option<i64>) {
    status.phase = Some(phase(status));
    for (kind, holds, reason, message) in progress(status) {
        set(status, kind, holds, &reason, &message, now, generation);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_millisecond(1000 * second + 250).unwrap()
    }

    fn since(status: &SecureInferenceStatus, kind: &str) -> i64 {
        find(status, kind).unwrap().last_transition_time.0.as_millisecond()
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_last_turn_in_whole_seconds() {
        let mut status = SecureInferenceStatus::default();
        set(&mut status, PARTIES_READY, false, "Starting", "0 of 5", time(1), Some(1));
        set(&mut status, PARTIES_READY, false, "Starting", "3 of 5", time(2), Some(2));
        let condition = find(&status, PARTIES_READY).unwrap();
        assert_eq!((&*condition.message, condition.observed_generation), ("3 of 5", Some(2)));
        assert_eq!(since(&status, PARTIES_READY), 1000);
        set(&mut status, PARTIES_READY, true, "AllReady", "all", time(3), Some(2));
        assert_eq!(since(&status, PARTIES_READY), 3000);
        assert_eq!(status.conditions.len(), 1);
    }

    #[test]
    fn a_condition_that_turned_and_turned_back_has_the_time_it_had() {
        let mut before = SecureInferenceStatus::default();
        for kind in [ACCEPTED, PARTIES_READY] {
            set(&mut before, kind, false, "A", "a", time(1), None);
        }
        let mut after = before.clone();
        set(&mut after, ACCEPTED, true, "B", "b", time(2), None);
        set(&mut after, PARTIES_READY, true, "B", "b", time(2), None);
        set(&mut after, PARTIES_READY, false, "C", "c", time(2), None);
        set(&mut after, FAILED, true, "C", "c", time(2), None);
        keep_times(&before, &mut after);
        let found = [ACCEPTED, PARTIES_READY, FAILED].map(|kind| since(&after, kind));
        assert_eq!(found, [2000, 1000, 2000]);
    }

    #[test]
    fn tools_are_told_why_it_is_not_there_yet_and_why_it_failed() {
        let mut status = SecureInferenceStatus::default();
        let told = |status: &SecureInferenceStatus| {
            progress(status).map(|(kind, holds, reason, message)| {
                format!("{kind} {holds}: {reason}: {message}")
            })
        };
        assert_eq!(
            told(&status),
            [
                "Reconciling true: Pending: nothing runs yet",
                "Stalled false: Pending: nothing runs yet"
            ]
        );
        set(&mut status, PARTIES_READY, false, "Queued", "it waits", time(1), None);
        assert_eq!(told(&status)[0], "Reconciling true: Queued: it waits");
        set(&mut status, FAILED, true, "Refused", "exceeded quota", time(2), None);
        assert_eq!(
            told(&status),
            ["Reconciling false: Refused: exceeded quota", "Stalled true: Refused: exceeded quota"]
        );
    }

    #[test]
    fn the_phase_follows_from_the_conditions() {
        for (kinds, runs, expected) in [
            (&[][..], false, Phase::Pending),
            (&[ACCEPTED], false, Phase::Pending),
            (&[ACCEPTED], true, Phase::Starting),
            (&[ACCEPTED, PARTIES_READY], true, Phase::Running),
            (&[ACCEPTED, SUSPENDED], false, Phase::Suspended),
            (&[ACCEPTED, PARTIES_READY, COMPLETE], false, Phase::Succeeded),
            (&[ACCEPTED, SUSPENDED, FAILED], false, Phase::Failed),
        ] {
            let mut status = SecureInferenceStatus {
                attempt_start_time: runs.then(|| MicroTime(time(1))),
                ..SecureInferenceStatus::default()
            };
            for kind in kinds {
                set(&mut status, kind, true, "A", "a", time(1), None);
            }
            assert_eq!(phase(&status), expected, "{kinds:?}");
            summarise(&mut status, time(2), Some(7));
            // As kstatus reads them: the first that is true decides.
            let read = match [RECONCILING, STALLED].map(|kind| holds(&status, kind)) {
                [true, _] => "InProgress",
                [_, true] => "Failed",
                _ => "Current",
            };
            let as_a_job = match expected {
                Phase::Pending | Phase::Starting => "InProgress",
                Phase::Running | Phase::Succeeded | Phase::Suspended => "Current",
                Phase::Failed => "Failed",
            };
            assert_eq!(read, as_a_job, "{kinds:?}");
            assert_eq!(find(&status, STALLED).unwrap().observed_generation, Some(7));
            let over = matches!(expected, Phase::Succeeded | Phase::Failed);
            assert_eq!(finished(&status).is_some(), over);
        }
    }
}
