//! What a pod says about its party.
//!
//! Pure: reads a pod's status as the API server has it.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use party::result::RunResult;
use party::termination::{Reason, Termination, ended_by_signal, signal_of};
use spdz::channel::Role;

use crate::api::v1alpha1::{PartyPhase, PartyStatus};
use crate::resources::pod::CONTAINER;

/// Longest text that is taken over into a status, bytes.
const MAX_TEXT_BYTES: usize = 1024;

/// A party as its pod shows it.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its role.
    pub role: Role,
    /// What the status says of it.
    pub status: PartyStatus,
    /// Whether the scheduler has not yet given it a node.
    pub unscheduled: bool,
    /// Why its container does not run, if it does not.
    pub waits: Option<Waits>,
    /// How it ended, if it did, or that it is about to be deleted.
    pub end: Option<End>,
}

/// Why a container does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

impl Waits {
    /// Whether it is a step on the way, that every container takes.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(&*self.reason, "ContainerCreating" | "PodInitializing")
    }
}

/// How a party ended.
#[derive(Clone, Debug)]
pub struct End {
    /// Its exit code, if its process ended by itself or by a signal.
    pub exit_code: Option<i32>,
    /// Why, in one word; `Completed` without a failure.
    pub reason: String,
    /// What it said.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// What it measured.
    pub result: Option<RunResult>,
    /// The peer whose loss ended it: then its own end is a consequence.
    pub blames: Option<Role>,
    /// Whether its end is a consequence of another's.
    pub consequence: bool,
    /// Whether a new attempt would end the same way.
    pub non_retryable: bool,
}

impl End {
    /// Whether it did what it had to.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// The end of a party that had done what it had to before its pod was gone.
    #[must_use]
    pub fn done(at: Timestamp) -> Self {
        Self { exit_code: Some(0), ..Self::outside("Completed", "", at) }
    }

    /// The end of a party whose pod is gone.
    #[must_use]
    pub fn gone(pod: &str, at: Timestamp) -> Self {
        Self::outside("PodDeleted", &format!("pod {pod} was deleted while the run needed it"), at)
    }

    /// An end that the party has no part in.
    fn outside(reason: &str, message: &str, at: Timestamp) -> Self {
        Self {
            exit_code: None,
            reason: reason.into(),
            message: shorten(message),
            at,
            result: None,
            blames: None,
            consequence: false,
            non_retryable: false,
        }
    }
}

impl Party {
    /// Reads the pod of `role`.
    #[must_use]
    pub fn of(role: Role, pod: &Pod) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let condition = |kind: &str| {
            status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
        };
        let since = |kind: &str| {
            condition(kind)
                .filter(|condition| condition.status == "True")
                .and_then(|condition| condition.last_transition_time.clone())
        };
        let container = container(pod);
        let node = spec.and_then(|spec| spec.node_name.clone());
        let ended = end(pod, container);
        let ready = since("Ready").filter(|_| container.is_some_and(|c| c.ready));
        let running = container.and_then(|c| c.state.as_ref()?.running.as_ref());
        let terminated = container.and_then(|c| c.state.as_ref()?.terminated.as_ref());
        let waits = waits(pod, container);
        let phase = match &ended {
            Some(end) if end.succeeded() => PartyPhase::Succeeded,
            Some(end) if end.exit_code.is_none() && pod.metadata.deletion_timestamp.is_some() => {
                PartyPhase::Lost
            }
            Some(_) => PartyPhase::Failed,
            None if ready.is_some() => PartyPhase::Ready,
            None if running.is_some() => PartyPhase::Started,
            None => PartyPhase::Pending,
        };
        let started = running
            .and_then(|running| running.started_at.clone())
            .or_else(|| terminated.and_then(|terminated| terminated.started_at.clone()));
        let reason = match &ended {
            Some(end) => Some(end.reason.clone()),
            None => waits.as_ref().map(|waits| waits.reason.clone()),
        };
        Self {
            role,
            unscheduled: node.is_none() && ended.is_none(),
            status: PartyStatus {
                role: role.name().into(),
                pod: pod.metadata.name.clone().unwrap_or_default(),
                uid: pod.metadata.uid.clone().unwrap_or_default(),
                node,
                phase,
                reason,
                created_at: pod.metadata.creation_timestamp.clone(),
                scheduled_at: since("PodScheduled"),
                started_at: started,
                ready_at: ready,
                finished_at: terminated.and_then(|terminated| terminated.finished_at.clone()),
                exit_code: ended.as_ref().and_then(|end| end.exit_code),
                restarts: container.map_or(0, |container| container.restart_count),
            },
            waits,
            end: ended,
        }
    }
}

/// The state of a party's container, by its name: others may have been added to its pod, and
/// nodes list them in no particular order.
#[must_use]
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    let mut containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.find(|container| container.name == CONTAINER)
}

/// How the party of a pod ended, or that its pod is about to.
fn end(pod: &Pod, container: Option<&ContainerStatus>) -> Option<End> {
    let status = pod.status.as_ref();
    if let Some(terminated) = container.and_then(|c| c.state.as_ref()?.terminated.as_ref()) {
        let mut end = terminated_end(terminated, last_change(pod));
        // The process of a pod that is evicted or deleted only sees a signal.
        let signalled = end.exit_code.and_then(signal_of).is_some();
        let evicted = status.is_some_and(|status| status.reason.is_some());
        let deleted = signalled && pod.metadata.deletion_timestamp.is_some();
        if !end.succeeded() && (evicted || deleted) {
            end = End { exit_code: end.exit_code, ..disruption(pod, end.at) };
        }
        return Some(end);
    }
    if status.and_then(|status| status.phase.as_deref()) == Some("Failed") {
        return Some(disruption(pod, last_change(pod)));
    }
    // The time of deletion is that of its end at the latest.
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let latest = pod.metadata.deletion_timestamp.as_ref()?.0;
    let at = latest.checked_sub(SignedDuration::from_secs(grace)).unwrap_or(latest);
    Some(disruption(pod, at))
}

/// The disruption that ended a pod, or is about to: what its node or the cluster says, or else
/// that it was deleted.
fn disruption(pod: &Pod, at: Timestamp) -> End {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref();
    let target = status.and_then(|status| status.conditions.as_ref()).and_then(|conditions| {
        conditions
            .iter()
            .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
    });
    let (reason, message) = match (status, target) {
        (Some(status), _) if status.reason.is_some() => (&status.reason, &status.message),
        (_, Some(target)) => (&target.reason, &target.message),
        _ if pod.metadata.deletion_timestamp.is_some() => return End::gone(name, at),
        _ => (&None, &None),
    };
    let reason = reason.as_deref().unwrap_or("PodFailed");
    match message.as_deref() {
        Some(message) if !message.is_empty() => End::outside(reason, message, at),
        _ => End::outside(reason, &format!("pod {name} was disrupted"), at),
    }
}

/// When a pod last changed, as far as it says.
fn last_change(pod: &Pod) -> Timestamp {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let changes = conditions.into_iter().flatten().filter_map(|c| c.last_transition_time.as_ref());
    let times = changes.chain(pod.metadata.creation_timestamp.as_ref());
    times.map(|time| time.0).max().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How a container ended; `otherwise` if it does not say when.
fn terminated_end(terminated: &ContainerStateTerminated, otherwise: Timestamp) -> End {
    let code = terminated.exit_code;
    let said = terminated.message.clone().unwrap_or_default();
    let last_words = Termination::parse(&said).ok();
    let finished = terminated.finished_at.as_ref().map(|Time(at)| *at);
    // The container runtime counts in seconds, the party in milliseconds.
    let precise = last_words
        .as_ref()
        .and_then(|words| Timestamp::from_millisecond(words.finished_at_ms.try_into().ok()?).ok());
    let at = precise.or(finished).unwrap_or(otherwise);
    let failure = last_words.as_ref().and_then(|words| words.failure.clone());
    let kind = failure.as_ref().map(|failure| failure.reason).or(reason_of(code));
    let (reason, message) = match (code, &failure) {
        (0, _) => ("Completed".to_owned(), String::new()),
        (_, Some(failure)) => (format!("{:?}", failure.reason), failure.message.clone()),
        _ => {
            let runtime = terminated.reason.as_deref().filter(|reason| *reason != "Error");
            let signal = signal_of(code);
            let reason = match (runtime, kind, signal.is_some()) {
                (Some(runtime), _, _) => runtime.to_owned(),
                (None, Some(kind), _) => format!("{kind:?}"),
                (None, None, true) => "Killed".into(),
                (None, None, false) => "Error".into(),
            };
            let how = match signal {
                Some(signal) => ended_by_signal(signal),
                None => format!("ended with exit code {code}"),
            };
            let said = said.trim();
            (reason, if said.is_empty() { how } else { format!("{how}: {said}") })
        }
    };
    End {
        exit_code: Some(code),
        reason,
        message: shorten(&message),
        at,
        result: last_words.and_then(|words| words.result),
        blames: failure.and_then(|failure| failure.peer),
        consequence: kind == Some(Reason::PeerLost),
        non_retryable: matches!(kind, Some(Reason::BadInput | Reason::Disagreement)),
    }
}

/// What an exit code stands for when the party said nothing.
fn reason_of(code: i32) -> Option<Reason> {
    [Reason::Internal, Reason::BadInput, Reason::Disagreement, Reason::PeerLost, Reason::Terminated]
        .into_iter()
        .find(|reason| i32::from(reason.exit_code()) == code)
}

/// Why a pod's container does not run.
fn waits(pod: &Pod, container: Option<&ContainerStatus>) -> Option<Waits> {
    let why = |reason: &Option<String>, message: &Option<String>, otherwise: (&str, &str)| {
        let message = message.as_deref().filter(|message| !message.is_empty());
        Waits {
            reason: reason.clone().unwrap_or_else(|| otherwise.0.into()),
            message: shorten(message.unwrap_or(otherwise.1)),
        }
    };
    if let Some(waiting) = container.and_then(|c| c.state.as_ref()?.waiting.as_ref()) {
        let otherwise = ("Waiting", "its container does not run yet");
        return Some(why(&waiting.reason, &waiting.message, otherwise));
    }
    let refused = pod
        .status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(why(&refused.reason, &refused.message, ("Unschedulable", "no node takes its pod")))
}

/// Cuts a text to what a status has room for.
fn shorten(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.into();
    }
    let mut end = MAX_TEXT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use party::termination::Failure;
    use serde_json::{Value, json};

    use super::*;

    /// The pod of `server1`, with what a case says about its status and its deletion.
    fn pod(status: Value, metadata: Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "c-1-server1",
                "uid": "7",
                "creationTimestamp": "2026-03-01T12:00:00Z",
            },
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": status,
        });
        for (key, value) in metadata.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn party(pod: &Pod) -> Party {
        Party::of(Role::Server1, pod)
    }

    fn only(state: Value) -> Value {
        json!([{
            "name": "party", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": state,
        }])
    }

    /// A container that ended at 12:01:07.
    fn ended(phase: &str, code: i32, reason: &str, message: &str) -> Value {
        let terminated = json!({
            "exitCode": code, "reason": reason, "message": message,
            "finishedAt": "2026-03-01T12:01:07Z",
        });
        json!({"phase": phase, "containerStatuses": only(json!({"terminated": terminated}))})
    }

    /// Last words of 12:01:06.5.
    fn words(reason: Reason, message: &str, peer: Option<Role>) -> String {
        let failure = Failure { reason, message: message.into(), peer };
        let words = Termination::failure(Some(Role::Server1), failure);
        Termination { finished_at_ms: 1_772_366_466_500, ..words }.to_json().unwrap()
    }

    fn with(mut status: Value, more: Value) -> Value {
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        status
    }

    fn disruption(reason: &str, message: &str) -> Value {
        json!([{
            "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": "2026-03-01T12:01:02Z",
        }])
    }

    /// Deleted at 12:01:01.
    fn deleted() -> Value {
        json!({"deletionTimestamp": "2026-03-01T12:01:06Z", "deletionGracePeriodSeconds": 5})
    }

    #[test]
    fn how_a_party_ended_is_what_it_said_or_else_what_its_node_saw() {
        use Reason::{BadInput, Disagreement, Internal, PeerLost, Terminated};
        let [none, server0] = [None, Some(Role::Server0)];
        let failed = |code, words: String| ended("Failed", code, "Error", &words);
        let mute = |code| ended("Failed", code, "Error", "");
        // Exit code, reason and message; consequence of another's end; non_retryable.
        type Row<'a> = (Value, i32, &'a str, &'a str, bool, bool);
        let rows: [Row<'_>; 18] = [
            (
                failed(1, words(Internal, "no threads", none)),
                1,
                "Internal",
                "no threads",
                false,
                false,
            ),
            (failed(2, words(BadInput, "no file", none)), 2, "BadInput", "no file", false, true),
            (
                failed(3, words(Disagreement, "other plan", none)),
                3,
                "Disagreement",
                "other plan",
                false,
                true,
            ),
            (
                failed(4, words(PeerLost, "server0 left", server0)),
                4,
                "PeerLost",
                "server0 left",
                true,
                false,
            ),
            (
                failed(143, words(Terminated, "told to", none)),
                143,
                "Terminated",
                "told to",
                false,
                false,
            ),
            (mute(1), 1, "Internal", "ended with exit code 1", false, false),
            (mute(2), 2, "BadInput", "ended with exit code 2", false, true),
            (mute(3), 3, "Disagreement", "ended with exit code 3", false, true),
            (mute(4), 4, "PeerLost", "ended with exit code 4", true, false),
            (
                mute(143),
                143,
                "Terminated",
                "ended by signal 15 (SIGTERM, a request to stop)",
                false,
                false,
            ),
            (mute(5), 5, "Error", "ended with exit code 5", false, false),
            (
                mute(137),
                137,
                "Killed",
                "ended by signal 9 (SIGKILL, as when memory runs out)",
                false,
                false,
            ),
            (mute(139), 139, "Killed", "ended by signal 11 (SIGSEGV, a bug)", false, false),
            (
                ended("Failed", 137, "OOMKilled", ""),
                137,
                "OOMKilled",
                "ended by signal 9 (SIGKILL, as when memory runs out)",
                false,
                false,
            ),
            // There are 64 signals: 255 is what a runtime says of a program it cannot start.
            (
                ended("Failed", 255, "Error", "exec /usr/bin/party: exec format error\n"),
                255,
                "Error",
                "ended with exit code 255: exec /usr/bin/party: exec format error",
                false,
                false,
            ),
            // Without last words the end of its log.
            (
                ended("Failed", 101, "Error", "panicked\n"),
                101,
                "Error",
                "ended with exit code 101: panicked",
                false,
                false,
            ),
            (
                ended("Failed", 128, "StartError", "exec: /usr/bin/party: not found"),
                128,
                "StartError",
                "ended with exit code 128: exec: /usr/bin/party: not found",
                false,
                false,
            ),
            (
                ended("Failed", 137, "ContainerStatusUnknown", "could not be located"),
                137,
                "ContainerStatusUnknown",
                "ended by signal 9 (SIGKILL, as when memory runs out): could not be located",
                false,
                false,
            ),
        ];
        for (status, code, reason, message, consequence, non_retryable) in rows {
            let party = party(&pod(status.clone(), json!({})));
            let end = party.end.expect("it ended");
            let found =
                (end.exit_code, &*end.reason, &*end.message, end.consequence, end.non_retryable);
            assert_eq!(
                found,
                (Some(code), reason, message, consequence, non_retryable),
                "{status}"
            );
            assert_eq!(party.status.phase, PartyPhase::Failed);
            assert_eq!(party.status.reason.as_deref(), Some(reason));
            assert_eq!(party.status.exit_code, Some(code));
            assert!(!end.succeeded() && party.waits.is_none() && !party.unscheduled);
        }
        let blaming = party(&pod(failed(4, words(PeerLost, "left", server0)), json!({})));
        assert_eq!(blaming.end.unwrap().blames, server0);
    }

    #[test]
    fn a_party_that_is_done_is_done_even_if_its_pod_is_being_deleted() {
        for metadata in [json!({}), deleted()] {
            let party = party(&pod(ended("Succeeded", 0, "Completed", ""), metadata));
            let end = party.end.expect("it ended");
            assert!(end.succeeded());
            assert_eq!((&*end.reason, party.status.phase), ("Completed", PartyPhase::Succeeded));
        }
    }

    #[test]
    fn what_is_taken_away_is_not_the_partys_failure() {
        let running = || {
            let running = json!({"running": {"startedAt": "2026-03-01T12:00:05Z"}});
            json!({"phase": "Running", "containerStatuses": only(running)})
        };
        let killed = |code| ended("Failed", code, "Error", "");
        let told = || ended("Failed", 143, "Error", &words(Reason::Terminated, "told to", None));
        let evicted = json!({"reason": "Evicted", "message": "low on memory"});
        let drained = json!({"conditions": disruption("EvictionByEvictionAPI", "API-initiated")});
        let preempted = json!({"conditions": disruption("PreemptionByScheduler", "a greater one")});
        let tainted = json!({"conditions": disruption("DeletionByTaintManager", "not ready")});
        let collected = json!({"conditions": disruption("DeletionByPodGC", "no such node")});
        let silent = json!({"reason": "NodeLost", "message": "node-1 is unresponsive"});
        let gone = "pod c-1-server1 was deleted while the run needed it";
        let outside = "pod c-1-server1 was disrupted";
        let lost = PartyPhase::Lost;
        let failed = PartyPhase::Failed;
        type Row<'a> = (&'a str, Value, Value, Option<i32>, &'a str, &'a str, PartyPhase);
        let rows: [Row<'_>; 18] = [
            (
                "evicted",
                with(killed(137), evicted.clone()),
                json!({}),
                Some(137),
                "Evicted",
                "low on memory",
                failed,
            ),
            (
                "evicted before it ran",
                with(json!({"phase": "Failed"}), evicted),
                json!({}),
                None,
                "Evicted",
                "low on memory",
                failed,
            ),
            (
                "refused by its node",
                json!({"phase": "Failed", "reason": "OutOfcpu"}),
                json!({}),
                None,
                "OutOfcpu",
                outside,
                failed,
            ),
            (
                "failed, says nobody why",
                json!({"phase": "Failed"}),
                json!({}),
                None,
                "PodFailed",
                outside,
                failed,
            ),
            (
                "its node is shut down",
                with(told(), json!({"reason": "Terminated", "message": "shutdown"})),
                json!({}),
                Some(143),
                "Terminated",
                "shutdown",
                failed,
            ),
            (
                "its node is drained",
                with(running(), drained),
                deleted(),
                None,
                "EvictionByEvictionAPI",
                "API-initiated",
                lost,
            ),
            (
                "is being preempted",
                with(running(), preempted.clone()),
                deleted(),
                None,
                "PreemptionByScheduler",
                "a greater one",
                lost,
            ),
            (
                "was preempted",
                with(told(), preempted),
                deleted(),
                Some(143),
                "PreemptionByScheduler",
                "a greater one",
                failed,
            ),
            (
                "its node is tainted",
                with(running(), tainted.clone()),
                deleted(),
                None,
                "DeletionByTaintManager",
                "not ready",
                lost,
            ),
            (
                "its node kills it",
                with(killed(137), tainted),
                deleted(),
                Some(137),
                "DeletionByTaintManager",
                "not ready",
                failed,
            ),
            (
                "its node is silent, to an old cluster",
                with(running(), silent),
                deleted(),
                None,
                "NodeLost",
                "node-1 is unresponsive",
                lost,
            ),
            (
                "its node is gone",
                with(with(running(), collected), json!({"phase": "Failed"})),
                json!({}),
                None,
                "DeletionByPodGC",
                "no such node",
                failed,
            ),
            ("is being deleted", running(), deleted(), None, "PodDeleted", gone, lost),
            (
                "was never started and is being deleted",
                json!({"phase": "Pending"}),
                deleted(),
                None,
                "PodDeleted",
                gone,
                lost,
            ),
            (
                "was deleted and told to stop",
                told(),
                deleted(),
                Some(143),
                "PodDeleted",
                gone,
                failed,
            ),
            (
                "was deleted and killed",
                killed(137),
                deleted(),
                Some(137),
                "PodDeleted",
                gone,
                failed,
            ),
            (
                "was deleted when it had failed",
                ended("Failed", 2, "Error", &words(Reason::BadInput, "no file", None)),
                deleted(),
                Some(2),
                "BadInput",
                "no file",
                failed,
            ),
            (
                "was deleted when it had lost a peer",
                killed(4),
                deleted(),
                Some(4),
                "PeerLost",
                "ended with exit code 4",
                failed,
            ),
        ];
        for (case, status, metadata, code, reason, message, phase) in rows {
            let party = party(&pod(status, metadata));
            let end = party.end.expect(case);
            let found = (end.exit_code, &*end.reason, &*end.message, party.status.phase);
            assert_eq!(found, (code, reason, message, phase), "{case}");
            assert_eq!(end.non_retryable, reason == "BadInput", "{case}");
            assert_eq!(end.consequence, reason == "PeerLost", "{case}");
        }
    }

    #[test]
    fn other_containers_of_a_pod_say_nothing_about_its_party() {
        let aside = |name: &str, state: Value| {
            json!({
                "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 3,
                "state": state,
            })
        };
        let running = json!({"running": {"startedAt": "2026-03-01T12:00:05Z"}});
        let words = words(Reason::BadInput, "no file", None);
        let party_ended = ended("Failed", 2, "Error", &words);
        let party_runs = json!({"phase": "Running", "containerStatuses": only(running.clone())});
        let party_waits = json!({
            "phase": "Pending",
            "containerStatuses": only(json!({"waiting": {"reason": "ErrImagePull"}})),
        });
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        for status in [party_ended, party_runs, party_waits] {
            let alone = party(&pod(status.clone(), json!({})));
            for state in [&running, &killed] {
                // Before it, and after it.
                for (name, place) in [("istio-proxy", 0), ("vault-agent", 1)] {
                    let mut status = status.clone();
                    let containers = status["containerStatuses"].as_array_mut().unwrap();
                    containers.insert(place, aside(name, state.clone()));
                    let found = party(&pod(status, json!({})));
                    assert_eq!(found.status, alone.status, "{name}");
                    let end = |party: &Party| party.end.as_ref().map(|end| end.message.clone());
                    assert_eq!((end(&found), &found.waits), (end(&alone), &alone.waits));
                }
            }
        }
    }

    #[test]
    fn an_end_has_the_most_precise_time_that_is_known() {
        let at = |status: Value, metadata: Value| {
            party(&pod(status, metadata)).end.expect("it ended").at.to_string()
        };
        let speaking = ended("Failed", 1, "Error", &words(Reason::Internal, "", None));
        assert_eq!(at(speaking, json!({})), "2026-03-01T12:01:06.5Z");
        let mute = ended("Failed", 137, "OOMKilled", "");
        assert_eq!(at(mute.clone(), json!({})), "2026-03-01T12:01:07Z");
        // Its node found no trace of it, and says since when it is not ready.
        let mut lost = with(mute, json!({"conditions": disruption("A", "b")}));
        lost["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = Value::Null;
        assert_eq!(at(lost, json!({})), "2026-03-01T12:01:02Z");
        // It never ran: not before it was made.
        assert_eq!(at(json!({"phase": "Failed"}), json!({})), "2026-03-01T12:00:00Z");
        // The time of deletion is that of the end of its grace.
        assert_eq!(at(json!({"phase": "Pending"}), deleted()), "2026-03-01T12:01:01Z");
    }

    #[test]
    fn why_a_container_does_not_run_is_what_its_node_or_the_scheduler_says() {
        let waiting = |reason: &str, message: &str| {
            let waiting = json!({"waiting": {"reason": reason, "message": message}});
            json!({"phase": "Pending", "containerStatuses": only(waiting)})
        };
        let refused = |reason: &str, message: &str| {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            });
            json!({"phase": "Pending", "conditions": [condition]})
        };
        let creating = "its container does not run yet";
        for (status, reason, message, passes) in [
            (waiting("ContainerCreating", ""), "ContainerCreating", creating, true),
            (waiting("PodInitializing", ""), "PodInitializing", creating, true),
            (waiting("ErrImagePull", "not found"), "ErrImagePull", "not found", false),
            (waiting("ImagePullBackOff", "Back-off"), "ImagePullBackOff", "Back-off", false),
            (waiting("InvalidImageName", "no name"), "InvalidImageName", "no name", false),
            (
                waiting("CreateContainerConfigError", "no key"),
                "CreateContainerConfigError",
                "no key",
                false,
            ),
            (refused("Unschedulable", "0/3 nodes"), "Unschedulable", "0/3 nodes", false),
            (refused("SchedulingGated", ""), "SchedulingGated", "no node takes its pod", false),
        ] {
            let party = party(&pod(status, json!({})));
            let waits = party.waits.expect(reason);
            assert_eq!((&*waits.reason, &*waits.message), (reason, message));
            assert_eq!(waits.passes(), passes, "{reason}");
            assert_eq!(party.status.phase, PartyPhase::Pending);
            assert_eq!(party.status.reason.as_deref(), Some(reason));
            assert!(party.end.is_none());
        }
        assert_eq!(party(&pod(json!({"phase": "Pending"}), json!({}))).waits, None);
    }

    #[test]
    fn a_party_is_pending_started_ready_in_turn() {
        let mut new = pod(json!({"phase": "Pending"}), json!({}));
        new.spec.as_mut().unwrap().node_name = None;
        let party_of_new = party(&new);
        assert!(party_of_new.unscheduled && party_of_new.status.node.is_none());
        assert_eq!(party_of_new.status.phase, PartyPhase::Pending);

        let conditions = |ready: &str| {
            json!([
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T12:00:01Z"},
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-03-01T12:00:09Z"},
            ])
        };
        let running = json!({"running": {"startedAt": "2026-03-01T12:00:05Z"}});
        let status = |ready: &str, container_ready: bool| {
            let mut containers = only(running.clone());
            containers[0]["ready"] = container_ready.into();
            json!({
                "phase": "Running", "conditions": conditions(ready), "containerStatuses": containers,
            })
        };
        let started = party(&pod(status("False", false), json!({})));
        assert_eq!(started.status.phase, PartyPhase::Started);
        assert_eq!((&started.status.ready_at, started.unscheduled), (&None, false));
        // The pod's condition may be older than its container.
        let stale = party(&pod(status("True", false), json!({})));
        assert_eq!(stale.status.phase, PartyPhase::Started);

        let PartyStatus { role, pod, uid, node, phase, reason, restarts, exit_code, .. } =
            party(&pod(status("True", true), json!({}))).status;
        assert_eq!((&*role, &*pod, &*uid), ("server1", "c-1-server1", "7"));
        assert_eq!((node.as_deref(), phase, reason), (Some("node-1"), PartyPhase::Ready, None));
        assert_eq!((restarts, exit_code), (0, None));
    }

    #[test]
    fn the_times_of_a_party_are_those_of_its_pod() {
        let mut status = with(
            ended("Succeeded", 0, "Completed", ""),
            json!({"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T12:00:01Z"},
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-03-01T12:01:07Z"},
            ]}),
        );
        let terminated = &mut status["containerStatuses"][0]["state"]["terminated"];
        terminated["startedAt"] = json!("2026-03-01T12:00:05Z");
        let party = party(&pod(status, json!({}))).status;
        let text = |time: Option<Time>| time.map(|Time(time)| time.to_string());
        assert_eq!(text(party.created_at).as_deref(), Some("2026-03-01T12:00:00Z"));
        assert_eq!(text(party.scheduled_at).as_deref(), Some("2026-03-01T12:00:01Z"));
        assert_eq!(text(party.started_at).as_deref(), Some("2026-03-01T12:00:05Z"));
        assert_eq!(text(party.finished_at).as_deref(), Some("2026-03-01T12:01:07Z"));
        assert_eq!(party.ready_at, None, "it no longer is");
    }

    #[test]
    fn long_texts_are_cut_where_a_character_ends() {
        let status = ended("Failed", 1, "Error", &"é".repeat(2000));
        let message = party(&pod(status, json!({}))).end.unwrap().message;
        assert!(message.len() <= MAX_TEXT_BYTES + "...".len() && message.ends_with("é..."));
    }
}
