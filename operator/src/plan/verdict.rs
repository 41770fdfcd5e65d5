//! Whether an attempt is over, and how it ended: from the ends of its parties alone.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use party::result::RunResult;
use spdz::channel::Role;

use super::planner::Parties;
use crate::api::v1alpha1::Failure;
use crate::job::Job;
use crate::party_state::End;

/// After a failure that is another's consequence, how long to look for its cause. A busy node
/// tells seconds later that a process has ended; once all have, nothing is waited for.
const CAUSE: SignedDuration = SignedDuration::from_secs(15);

/// The state of an attempt.
pub(super) enum Verdict {
    /// It goes on.
    Going,
    /// It failed; the cause may still show up until then.
    Unclear(Timestamp),
    /// It failed; whether a further attempt would fail the same way.
    Failed { failure: Failure, non_retryable: bool },
    /// It is complete.
    Done(Box<RunResult>),
}

/// Whether the attempt is over at `now`. `lost_service` is a server whose Service is not there,
/// though its peers still look for it.
pub(super) fn verdict(
    job: &Job,
    attempt: u32,
    parties: &Parties,
    now: Timestamp,
    lost_service: Option<Role>,
) -> Verdict {
    let end_of = |role: &Role| parties.get(role)?.as_ref()?.end.as_ref();
    let done = end_of(&job.coordinator).filter(|end| end.succeeded());
    let result = done.and_then(|end| end.result.as_ref());
    if done.is_some() && result.is_none() {
        let failure = Failure {
            attempt,
            role: Some(job.coordinator.name().into()),
            reason: "NoResult".into(),
            exit_code: Some(0),
            message: "it ended well, but its termination message holds no result; is its \
                      image of another version?"
                .into(),
        };
        return Verdict::Failed { failure, non_retryable: true };
    }
    let measured = result.is_some();
    // Once the coordinator is done, only players' outputs may still be lacking.
    let matters = |role: &Role| !measured || matches!(role, Role::Player(_));
    let ends: Vec<(Role, &End)> = job
        .roles
        .iter()
        .filter(|role| matters(role))
        .filter_map(|role| end_of(role).map(|end| (*role, end)))
        .collect();
    let failed: Vec<(Role, &End)> =
        ends.iter().filter(|(_, end)| !end.succeeded()).copied().collect();
    if let Some((role, end)) =
        failed.iter().filter(|(_, end)| !end.consequence).min_by_key(|(_, end)| end.at)
    {
        return failed_because(attempt, *role, end);
    }
    if let Some((role, end)) = failed.iter().min_by_key(|(_, end)| end.at).copied() {
        let until = end.at.checked_add(CAUSE).unwrap_or(end.at);
        let all_over = ends.len() == job.roles.iter().filter(|role| matters(role)).count();
        // A node's clock that is further ahead than that is not waited for.
        let soon = now.checked_add(2 * CAUSE).unwrap_or(until);
        if !all_over && now < until && until <= soon {
            return Verdict::Unclear(until);
        }
        let Some((reporter, end, lost)) = lost_peer(role, end_of) else {
            return failed_because(attempt, role, end);
        };
        let mut verdict = failed_because(attempt, lost, end);
        if let Verdict::Failed { failure, .. } = &mut verdict {
            failure.exit_code = None;
            failure.message = format!("{reporter} says: {}", failure.message);
        }
        return verdict;
    }
    let players_done = job
        .roles
        .iter()
        .filter(|role| matches!(role, Role::Player(_)))
        .all(|role| end_of(role).is_some_and(End::succeeded));
    match result {
        Some(result) if players_done => Verdict::Done(Box::new(result.clone())),
        _ => service_lost(job, attempt, parties, lost_service),
    }
}

fn failed_because(attempt: u32, role: Role, end: &End) -> Verdict {
    Verdict::Failed {
        failure: Failure {
            attempt,
            role: Some(role.name().into()),
            reason: end.reason.clone(),
            exit_code: end.exit_code,
            message: end.message.clone(),
        },
        non_retryable: end.non_retryable,
    }
}

/// A Service that goes while parties still look for it takes its server's address along.
fn service_lost(job: &Job, attempt: u32, parties: &Parties, lost: Option<Role>) -> Verdict {
    match lost {
        Some(role) if parties.values().any(Option::is_some) => Verdict::Failed {
            failure: Failure {
                attempt,
                role: Some(role.name().into()),
                reason: "ServiceDeleted".into(),
                exit_code: None,
                message: format!(
                    "Service {} was deleted before all parties were connected",
                    job.object_name(attempt, role)
                ),
            },
            non_retryable: false,
        },
        _ => Verdict::Going,
    }
}

/// Where the losses that parties speak of lead to, from `first` on: the last party that speaks
/// of one, how it ended, and whom it lost, who has not ended.
fn lost_peer<'a>(
    first: Role,
    end_of: impl Fn(&Role) -> Option<&'a End>,
) -> Option<(Role, &'a End, Role)> {
    let mut seen = BTreeSet::new();
    let mut reporter = first;
    // Two that lost each other lead nowhere.
    while seen.insert(reporter) {
        let end = end_of(&reporter)?;
        let lost = end.blames?;
        if end_of(&lost).is_none() {
            return Some((reporter, end, lost));
        }
        reporter = lost;
    }
    None
}
