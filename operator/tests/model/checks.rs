//! What must hold whenever the operator has decided, and whenever it has published.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use operator::api::v1alpha1::{Phase, SecureInference, SecureInferenceStatus};
use operator::conditions::{
    ACCEPTED, COMPLETE, FAILED, FINISHED, PARTIES_READY, RECONCILING, STALLED, SUSPENDED,
};
use operator::events::transitions;
use operator::job::{Addresses, digest};
use operator::plan::{Action, Admission, Observed, Plan};

use super::cluster::{
    Cluster, DRIVER, ROLES, attempt_of, has_ended, is_ready, object, role_of, terminated,
};
use super::shell::decide;

fn is(status: &SecureInferenceStatus, kind: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

fn pods_of(observed: &Observed, attempt: u32) -> Vec<&Pod> {
    observed.pods.iter().filter(|pod| attempt_of(pod) == attempt).collect()
}

/// What a decision must be, whatever it was made from.
pub(crate) fn planned(
    cluster: &Cluster,
    resource: &SecureInference,
    observed: &Observed,
    plan: &Plan,
) {
    let status = &plan.status;
    let runs = status.attempt_start_time.is_some();
    let over = is(status, COMPLETE) || is(status, FAILED) || is(status, SUSPENDED);
    if resource.metadata.deletion_timestamp.is_some() {
        assert!(plan.actions.is_empty() && plan.admission == Admission::Release);
        return;
    }
    // Admission.
    match plan.admission {
        Admission::Hold => {
            assert!(runs && !over && status.ready_time.is_none(), "it stays admitted for nothing");
            let attempt = status.attempt.unwrap();
            let homed = pods_of(observed, attempt)
                .into_iter()
                .filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some() || has_ended(pod));
            assert!(homed.count() < ROLES.len(), "all pods have nodes and it stays admitted");
        }
        Admission::Request => assert!(!runs && !over && !observed.admitted),
        Admission::GiveWay => assert!(!runs && !over && observed.others_wait),
        Admission::Release => {}
    }
    // What runs is not torn down, and nothing else is made.
    for action in &plan.actions {
        match action {
            Action::ApplyServices(attempt)
            | Action::StartParties { attempt, .. }
            | Action::CompleteParties { attempt, .. } => {
                assert!(runs && !over && status.attempt == Some(*attempt), "{action:?}");
            }
            Action::TearDown { attempt, .. } => {
                assert!(!runs || status.attempt != Some(*attempt), "{action:?}");
            }
            Action::DeleteResource => assert!(is(status, COMPLETE) || is(status, FAILED)),
            Action::RemovePolicies => {
                assert!(is(status, COMPLETE) || is(status, FAILED));
                let active = observed.pods.iter().find(|pod| !has_ended(pod));
                assert!(active.is_none(), "a pod is left without its policies");
            }
            Action::ApplyPolicies | Action::ForgetPods(_) => {}
        }
    }
    for (place, action) in plan.actions.iter().enumerate() {
        assert!(!plan.actions[..place].contains(action), "{action:?} is asked for twice");
    }
    // Looked at again, the same situation is decided the same way: nothing is written twice.
    let mut next = resource.clone();
    next.status = Some(status.clone());
    let again = decide(&next, observed);
    // It has to ask to be admitted then, or begins the next attempt.
    let goes_on = again.status.attempt > status.attempt || again.admission == Admission::Request;
    if !goes_on {
        assert_eq!(again.status, *status, "the same situation is written about again");
    }
    assert!(transitions(status, status).is_empty());
    // Nothing is waited for that has no end.
    assert!(
        plan.again_at.is_none_or(|at| at > observed.now),
        "it would look again at once: {:?} at {}",
        plan.again_at,
        cluster.now
    );
}

/// What a published status must be.
pub(crate) fn published(
    cluster: &mut Cluster,
    resource: &SecureInference,
    before: &SecureInferenceStatus,
    after: &SecureInferenceStatus,
    observed: &Observed,
) {
    let finished = |status| is(status, COMPLETE) || is(status, FAILED);
    let limit = resource.spec.backoff_limit;
    let failed_before = before.failed_attempts.unwrap_or(0);
    let failed = after.failed_attempts.unwrap_or(0);

    // What is final.
    assert!(!(is(after, COMPLETE) && is(after, FAILED)));
    // Whoever waits for the end, and not for one of the two, sees it, unless an older operator
    // wrote it.
    if !finished(before) {
        assert_eq!(is(after, FINISHED), finished(after));
    }
    if is(after, FINISHED) {
        let how = if is(after, COMPLETE) { "Succeeded" } else { "Failed" };
        assert_eq!(reason_of(after, FINISHED), how);
    }
    if finished(before) {
        let part = |status: &SecureInferenceStatus| {
            let conditions = status.conditions.iter().filter(|c| c.type_ != ACCEPTED);
            (
                [COMPLETE, FAILED].map(|kind| is(status, kind)),
                status.results.clone(),
                status.failure.clone(),
                status.completion_time.clone(),
                status.attempt,
                status.spec_digest.clone(),
                conditions.cloned().collect::<Vec<_>>(),
            )
        };
        assert_eq!(part(before), part(after), "it was final");
        if is(after, COMPLETE)
            && let Some(accepted) = &after.spec_digest
        {
            assert_eq!(is(after, ACCEPTED), *accepted == digest(resource), "whose results?");
        }
    }
    assert!(finished(before) || finished(after) == after.completion_time.is_some());
    assert!(!(finished(after) || is(after, SUSPENDED)) || after.attempt_start_time.is_none());

    // Attempts.
    let attempts = (before.attempt.unwrap_or(0), after.attempt.unwrap_or(0));
    assert!(attempts.1 == attempts.0 || attempts.1 == attempts.0 + 1);
    if attempts.1 > attempts.0 {
        assert!(failed <= limit, "an attempt begins though {failed} failed and {limit} may");
        assert!(!is(after, FAILED), "an attempt begins only to fail");
    }
    assert!(failed == failed_before || failed == failed_before + 1);
    if failed > limit && failed > failed_before {
        assert!(is(after, FAILED), "{failed} attempts failed, {limit} may");
    }
    assert!(failed <= attempts.1);

    // Results.
    assert_eq!(is(after, COMPLETE), after.results.is_some());
    assert_eq!(is(after, COMPLETE), after.summary.is_some());
    if is(after, COMPLETE) {
        assert_eq!(after.results.as_ref(), cluster.truth.results.get(&attempts.1));
        assert!(after.failure.is_none());
    }

    // Conditions.
    if !finished(before) {
        assert_eq!(is(after, STALLED), is(after, FAILED));
        let waits = matches!(after.phase, Some(Phase::Pending | Phase::Starting));
        assert_eq!(is(after, RECONCILING), waits);
    }
    for condition in &after.conditions {
        let kind = condition.type_.as_str();
        let kinds =
            [ACCEPTED, PARTIES_READY, COMPLETE, FAILED, FINISHED, SUSPENDED, RECONCILING, STALLED];
        assert!(kinds.contains(&kind));
        assert!(!condition.reason.is_empty() && !condition.message.is_empty(), "{condition:?}");
        let word = |c: char| c.is_ascii_alphanumeric();
        assert!(condition.reason.chars().all(word), "{condition:?}");
        let known = before.conditions.iter().find(|known| known.type_ == kind);
        let stays = known.filter(|known| known.status == condition.status);
        let now = Timestamp::from_second(observed.now.as_second()).unwrap();
        let expected = stays.map_or(now, |known| known.last_transition_time.0);
        assert_eq!(condition.last_transition_time.0, expected, "{kind}");
        if stays.is_none() {
            assert_eq!(condition.observed_generation, resource.metadata.generation, "{kind}");
        }
    }
    for known in &before.conditions {
        assert!(after.conditions.iter().any(|c| c.type_ == known.type_), "{} is gone", known.type_);
    }
    assert_eq!(after.observed_generation, resource.metadata.generation);
    let phase = match () {
        () if is(after, COMPLETE) => Phase::Succeeded,
        () if is(after, FAILED) => Phase::Failed,
        () if is(after, SUSPENDED) => Phase::Suspended,
        () if after.attempt_start_time.is_none() => Phase::Pending,
        () if is(after, PARTIES_READY) => Phase::Running,
        () => Phase::Starting,
    };
    assert_eq!(after.phase, Some(phase));
    if is(after, PARTIES_READY) && !is(before, PARTIES_READY) {
        let ready = pods_of(observed, attempts.1).into_iter().filter(|pod| {
            cluster.truth.ready.contains(&pod.uid().unwrap())
                || terminated(pod).is_some_and(|end| end.exit_code == 0)
        });
        let measured = cluster.truth.results.contains_key(&attempts.1);
        assert!(measured || ready.count() == ROLES.len(), "PartiesReady, and not all parties are");
    }

    // Events: one for each turn that people want to know of.
    let reasons: Vec<&str> = transitions(before, after).iter().map(|t| t.reason).collect();
    let turned = |kind| is(after, kind) && !is(before, kind);
    for (kind, reason) in [
        (COMPLETE, "Completed"),
        (FAILED, "Failed"),
        (SUSPENDED, "Suspended"),
        (PARTIES_READY, "PartiesReady"),
    ] {
        let told = reasons.iter().filter(|told| **told == reason).count();
        assert_eq!(told, usize::from(turned(kind)), "{reasons:?}");
    }
    for (happened, reason) in
        [(attempts.1 > attempts.0, "AttemptStarted"), (failed > failed_before, "AttemptFailed")]
    {
        assert_eq!(reasons.contains(&reason), happened, "{reasons:?}");
    }

    check_failure(cluster, before, after, observed);

    for party in &after.parties {
        assert_eq!(party.restarts, 0);
        cluster.truth.recorded.insert((attempts.1, party.role.clone()));
    }
}

/// A failure names what really failed, and what failed first.
fn check_failure(
    cluster: &Cluster,
    before: &SecureInferenceStatus,
    after: &SecureInferenceStatus,
    observed: &Observed,
) {
    if is(before, FAILED) {
        return;
    }
    let Some(failure) = after.failure.as_ref() else {
        let named = is(after, FAILED).then(|| reason_of(after, FAILED));
        let unnamed =
            ["InvalidSpec", "SpecChanged", "ActiveDeadlineExceeded", "BackoffLimitExceeded"];
        assert!(named.is_none_or(|reason| unnamed.contains(&reason)), "{named:?} names no failure");
        return;
    };
    assert!(!failure.reason.is_empty() && !failure.message.is_empty(), "{failure:?}");
    if before.failure == after.failure {
        return;
    }
    assert_eq!(Some(failure.attempt), after.attempt);
    let role = failure.role.as_deref();
    let pods = pods_of(observed, failure.attempt);
    let pod = |role: &str| pods.iter().find(|pod| role_of(pod) == role).copied();
    if after.failed_attempts == before.failed_attempts {
        // No attempt failed by itself: it took too long.
        assert!(is(after, FAILED));
        let reason = reason_of(after, FAILED);
        if reason == "Refused" {
            let refusal = observed.refusal.as_ref().expect("what was refused");
            return assert!(refusal.permanent && failure.message == refusal.message);
        }
        assert!(["StartDeadlineExceeded", "ActiveDeadlineExceeded"].contains(&reason), "{reason}");
        if after.ready_time.is_some() {
            assert_eq!((reason, role), ("ActiveDeadlineExceeded", Some(DRIVER)));
        } else {
            let role = role.expect("somebody is late");
            let late = after.parties.iter().find(|party| party.role == role);
            assert!(late.is_none_or(|late| late.ready_at.is_none()), "{failure:?} was ready");
            assert!(!pod(role).is_some_and(is_ready), "{failure:?} is ready");
        }
        return;
    }
    let role = role.expect("a party is named");
    match failure.reason.as_str() {
        "ServiceDeleted" => {
            let name = object(failure.attempt, role);
            return assert!(observed.services.iter().all(|service| service.name_any() != name));
        }
        "NoResult" => {
            let end = pod(role).and_then(terminated).expect("it has ended");
            return assert!(end.exit_code == 0 && end.message.is_none() && role == DRIVER);
        }
        _ => {}
    }
    let code = |pod: &Pod| terminated(pod).map(|end| end.exit_code);
    let causes: Vec<_> =
        cluster.truth.causes.iter().filter(|cause| cause.attempt == failure.attempt).collect();
    if failure.exit_code == Some(4) {
        // A consequence is blamed only if nothing else is to be seen.
        for pod in &pods {
            let seen = code(pod).unwrap_or(4);
            let gone = pod.metadata.deletion_timestamp.is_some() && !has_ended(pod);
            assert!((seen == 4 || seen == 0) && !gone, "{failure:?}, but {}", pod.name_any());
        }
        let silent = pods.iter().any(|pod| {
            code(pod) == Some(4) && terminated(pod).is_some_and(|end| end.message.is_none())
        });
        let named = causes.iter().any(|cause| cause.role == role || !cause.known);
        assert!(silent || named, "{failure:?}");
        return;
    }
    let named = causes.iter().filter(|cause| cause.role == role);
    let times: Vec<Option<Timestamp>> = named.map(|cause| cause.at).collect();
    assert!(!times.is_empty(), "{failure:?} did not begin it");
    // Without last words, ends are known to the second.
    let slack = SignedDuration::from_secs(1);
    if let Some(at) =
        times.into_iter().collect::<Option<Vec<_>>>().and_then(|t| t.into_iter().min())
    {
        for cause in causes {
            let seen = pod(&cause.role).is_some_and(|pod| {
                code(pod).is_some_and(|code| code != 4 && code != 0)
                    || pod.metadata.deletion_timestamp.is_some()
            });
            let earlier = cause.at.is_some_and(|other| other < at.checked_sub(slack).unwrap());
            assert!(!(seen && earlier), "{failure:?}, but {} failed before", cause.role);
        }
    }
}

fn reason_of<'a>(status: &'a SecureInferenceStatus, kind: &str) -> &'a str {
    &status.conditions.iter().find(|c| c.type_ == kind).unwrap().reason
}

/// Parties are given the addresses of their own attempt's servers.
pub(crate) fn addressed(cluster: &Cluster, attempt: u32, addresses: &Addresses) {
    for (role, address) in [("server0", &addresses.server0), ("server1", &addresses.server1)] {
        // Unless somebody has deleted it since.
        if let Some(service) = cluster.services.get(&object(attempt, role)) {
            let spec = service.spec.as_ref().unwrap();
            let known = spec.cluster_ip.as_ref();
            assert!(known == Some(address) || cluster.truth.meddled, "{role}");
        }
    }
}
