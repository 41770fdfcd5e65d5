//! What the operator adds to traces: an attempt with the start-up of its parties, and the
//! reconciles that it took.
//!
//! Pure. Ids follow from the resource and the number of the attempt, so an operator that takes
//! over goes on with the same trace, and what is known of an attempt is told once, when it has
//! ended, from the times in the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use party::trace::{self, Context, KeyValue, Span, SpanIds, SpanKind, Times, conventions};

use crate::api::v1alpha1::{PartyStatus, SecureInference, SecureInferenceStatus};
use crate::conditions::{self, COMPLETE, FAILED};

/// Who makes the operator's spans.
const MAKER: &str = "operator";

/// Spans of one party's start-up: the whole and its parts.
const OF_PARTY: u64 = 4;

/// The span of an attempt to run the resource with the unique id `uid`; the start of each
/// party is part of it.
#[must_use]
pub fn attempt(uid: &str, number: u32) -> Context {
    let trace = trace::attempt(uid, number);
    Context { trace, span: SpanIds::of(trace, MAKER).get(0), sampled: true }
}

/// The spans of the attempt that ended between two statuses, if one did.
#[must_use]
pub fn ended(
    resource: &SecureInference,
    before: &SecureInferenceStatus,
    after: &SecureInferenceStatus,
    now: Timestamp,
) -> Vec<Span> {
    let (Some(uid), Some(number), Some(began)) =
        (resource.uid(), before.attempt, &before.attempt_start_time)
    else {
        return Vec::new();
    };
    let turned = |kind| conditions::holds(after, kind) && !conditions::holds(before, kind);
    let failed = after.failed_attempts > before.failed_attempts || turned(FAILED);
    let over = failed || turned(COMPLETE) || after.attempt_start_time.is_none();
    if !over {
        return Vec::new();
    }
    let root = attempt(&uid, number);
    let ids = SpanIds::of(root.trace, MAKER);
    let failure = after.failure.as_ref().filter(|failure| failed && failure.attempt == number);
    let mut attributes = vec![
        KeyValue::new("secure_inference.name", resource.name_any()),
        KeyValue::new("secure_inference.attempt", i64::from(number)),
        KeyValue::new(conventions::K8S_NAMESPACE_NAME, resource.namespace().unwrap_or_default()),
    ];
    attributes.extend(before.network.clone().map(|name| KeyValue::new("network", name)));
    let mut spans = vec![Span {
        trace: root.trace,
        id: root.span,
        parent: None,
        name: "attempt".into(),
        kind: SpanKind::Internal,
        times: Times { start: nanos(began.0), end: nanos(now).max(nanos(began.0)) },
        attributes,
        error: failure.map(|failure| {
            let role = failure.role.as_deref().unwrap_or("the run");
            format!("{role}: {}", failure.reason)
        }),
    }];
    // What the last look showed may be gone with the attempt.
    let parties = if after.parties.is_empty() { &before.parties } else { &after.parties };
    for (index, party) in parties.iter().enumerate() {
        let first = 1 + OF_PARTY * index as u64;
        spans.extend(start_up(party, &root, &ids, first));
    }
    spans
}

/// From the pod being made until the party is connected to its peers, and the parts of it.
fn start_up(party: &PartyStatus, root: &Context, ids: &SpanIds, first: u64) -> Vec<Span> {
    let at = |time: &Option<Time>| time.as_ref().map(|time| nanos(time.0));
    let marks = [
        at(&party.created_at),
        at(&party.scheduled_at),
        at(&party.started_at),
        at(&party.ready_at),
    ];
    let (Some(start), Some(end)) = (marks[0], marks.iter().flatten().copied().max()) else {
        return Vec::new();
    };
    let span = |number: u64, parent, name: String, start: u64, end: u64, attributes| Span {
        trace: root.trace,
        id: ids.get(number),
        parent: Some(parent),
        name,
        kind: SpanKind::Internal,
        // The API tells of some times in whole seconds.
        times: Times { start, end: end.max(start) },
        attributes,
        error: None,
    };
    let mut attributes = vec![
        KeyValue::new("role", party.role.clone()),
        KeyValue::new(conventions::K8S_POD_NAME, party.pod.clone()),
    ];
    attributes.extend(party.node.clone().map(|n| KeyValue::new(conventions::K8S_NODE_NAME, n)));
    let whole = ids.get(first);
    let mut spans =
        vec![span(first, root.span, format!("start {}", party.role), start, end, attributes)];
    for (part, name) in ["schedule", "start the container", "connect"].iter().enumerate() {
        if let (Some(from), Some(to)) = (marks[part], marks[part + 1]) {
            let number = first + 1 + part as u64;
            spans.push(span(number, whole, (*name).into(), from, to, Vec::new()));
        }
    }
    spans
}

/// A reconcile that did something, as part of the attempt that it served.
#[must_use]
pub fn reconcile(
    uid: &str,
    attempt_number: u32,
    times: Times,
    actions: usize,
    error: Option<String>,
) -> Span {
    let root = attempt(uid, attempt_number);
    Span {
        trace: root.trace,
        id: SpanIds::of(root.trace, "reconcile").get(times.start),
        parent: Some(root.span),
        name: "reconcile".into(),
        kind: SpanKind::Internal,
        times,
        attributes: vec![KeyValue::new("secure_inference.actions", actions as i64)],
        error,
    }
}

/// Nanoseconds since 1970, as spans have them.
#[must_use]
pub fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::api::v1alpha1::{Failure, PartyPhase, SecureInferenceSpec};

    fn resource() -> SecureInference {
        let mut resource = SecureInference::new("sum", SecureInferenceSpec::default());
        resource.metadata.namespace = Some("team".into());
        resource.metadata.uid = Some("u-1".into());
        resource
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn running() -> SecureInferenceStatus {
        let at = |seconds| Some(Time(time(seconds)));
        let party = |role: &str, ready| PartyStatus {
            role: role.into(),
            pod: format!("sum-2-{role}"),
            uid: role.into(),
            node: Some("node-1".into()),
            phase: PartyPhase::Started,
            reason: None,
            created_at: at(1),
            scheduled_at: at(1),
            started_at: at(3),
            ready_at: ready,
            finished_at: None,
            exit_code: None,
            restarts: 0,
        };
        SecureInferenceStatus {
            attempt: Some(2),
            attempt_start_time: Some(MicroTime(time(0))),
            parties: vec![party("server0", at(4)), party("client", None)],
            ..SecureInferenceStatus::default()
        }
    }

    #[test]
    fn an_attempt_that_has_ended_is_told_with_the_start_of_its_parties() {
        let before = running();
        assert_eq!(ended(&resource(), &before, &before, time(9)), [], "it goes on");
        let mut after = running();
        conditions::set(&mut after, COMPLETE, true, "Done", "it is", time(9), None);
        let spans = ended(&resource(), &before, &after, time(9));
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        let parts = ["schedule", "start the container", "connect"];
        let expected = [&["attempt", "start server0"], &parts[..], &["start client"], &parts[..2]];
        assert_eq!(names, expected.concat());
        let ids: BTreeSet<_> = spans.iter().map(|span| span.id.to_bytes()).collect();
        assert_eq!(ids.len(), spans.len(), "ids differ");
        let known = |span: &Span| spans.iter().any(|other| Some(other.id) == span.parent);
        assert!(spans[0].parent.is_none() && spans[1..].iter().all(known));
        assert!(spans.iter().all(|span| span.trace == trace::attempt("u-1", 2)));
        assert_eq!(spans[0].times, Times { start: nanos(time(0)), end: nanos(time(9)) });
        assert_eq!(spans[1].times, Times { start: nanos(time(1)), end: nanos(time(4)) });
        assert_eq!(spans[0].error, None);
    }

    #[test]
    fn a_failure_is_that_of_its_attempt() {
        let failure = Failure {
            attempt: 2,
            role: Some("server1".into()),
            reason: "OOMKilled".into(),
            exit_code: Some(137),
            message: "it says a lot".into(),
        };
        let after = SecureInferenceStatus {
            attempt_start_time: None,
            failed_attempts: Some(1),
            failure: Some(failure),
            parties: Vec::new(),
            ..running()
        };
        let spans = ended(&resource(), &running(), &after, time(9));
        assert_eq!(spans[0].error.as_deref(), Some("server1: OOMKilled"));
        assert_eq!(spans.len(), 8, "the parties that were known are told of");
    }

    #[test]
    fn a_reconcile_is_part_of_its_attempt() {
        let times = Times { start: 5, end: 7 };
        let span = reconcile("u-1", 2, times, 3, None);
        assert_eq!(
            (span.trace, span.parent),
            (attempt("u-1", 2).trace, Some(attempt("u-1", 2).span))
        );
        assert_ne!(span.id, reconcile("u-1", 2, Times { start: 6, end: 7 }, 3, None).id);
    }
}
