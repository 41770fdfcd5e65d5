//! What a pod says about its party.
//!
//! Pure: reads a pod's status as the API server has it.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use party::result::RunResult;
use party::termination::{Reason, Termination};
use spdz::channel::Role;

use crate::api::v1alpha1::{PartyPhase, PartyStatus};

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
    /// Whether a new attempt would end alike.
    pub hopeless: bool,
}

impl End {
    /// Whether it did what it had to.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// The end of a party whose pod is gone.
    #[must_use]
    pub fn gone(pod: &str, at: Timestamp) -> Self {
        Self::outside("PodDeleted", format!("pod {pod} was deleted while the run needed it"), at)
    }

    /// An end that the party has no part in.
    fn outside(reason: &str, message: String, at: Timestamp) -> Self {
        Self {
            exit_code: None,
            reason: reason.into(),
            message: shorten(&message),
            at,
            result: None,
            blames: None,
            consequence: false,
            hopeless: false,
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
        let container = status.container_statuses.iter().flatten().next();
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

/// How the party of a pod ended, or that its pod is about to.
fn end(pod: &Pod, container: Option<&ContainerStatus>) -> Option<End> {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let pod_reason = status.and_then(|status| status.reason.clone());
    let pod_message = status.and_then(|status| status.message.clone()).unwrap_or_default();
    if let Some(terminated) = container.and_then(|c| c.state.as_ref()?.terminated.as_ref()) {
        let mut end = terminated_end(terminated);
        // The process of a pod that is evicted or deleted only sees a signal.
        let signalled = end.exit_code.is_some_and(|code| code > 128);
        if let Some(reason) = pod_reason.filter(|_| !end.succeeded()) {
            end = End { exit_code: end.exit_code, ..End::outside(&reason, pod_message, end.at) };
        } else if let Some(lost) = disruption(pod).filter(|_| signalled) {
            end = End { exit_code: end.exit_code, at: end.at, ..lost };
        }
        return Some(end);
    }
    if phase == "Failed" {
        let reason = pod_reason.unwrap_or_else(|| "PodFailed".into());
        let at = last_transition(pod).unwrap_or(Timestamp::UNIX_EPOCH);
        return Some(End::outside(&reason, pod_message, at));
    }
    disruption(pod)
}

/// What takes a pod away, if something does.
fn disruption(pod: &Pod) -> Option<End> {
    // The time of deletion is that of its end at the latest.
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let latest = pod.metadata.deletion_timestamp.as_ref()?.0;
    let at = latest.checked_sub(SignedDuration::from_secs(grace)).unwrap_or(latest);
    let condition =
        pod.status.as_ref().and_then(|status| {
            status.conditions.iter().flatten().find(|condition| {
                condition.type_ == "DisruptionTarget" && condition.status == "True"
            })
        });
    Some(match condition {
        Some(condition) => End::outside(
            condition.reason.as_deref().unwrap_or("Disrupted"),
            condition.message.clone().unwrap_or_default(),
            at,
        ),
        None => End::gone(pod.metadata.name.as_deref().unwrap_or_default(), at),
    })
}

fn last_transition(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let times = conditions.iter().filter_map(|c| c.last_transition_time.as_ref());
    times.map(|time| time.0).max()
}

/// How a container ended.
fn terminated_end(terminated: &ContainerStateTerminated) -> End {
    let code = terminated.exit_code;
    let said = terminated.message.clone().unwrap_or_default();
    let last_words = Termination::parse(&said).ok();
    let finished = terminated.finished_at.as_ref().map(|Time(at)| *at);
    // The container runtime counts in seconds, the party in milliseconds.
    let precise = last_words
        .as_ref()
        .and_then(|words| Timestamp::from_millisecond(words.finished_at_ms.try_into().ok()?).ok());
    let at = precise.or(finished).unwrap_or(Timestamp::UNIX_EPOCH);
    let failure = last_words.as_ref().and_then(|words| words.failure.clone());
    let kind = failure.as_ref().map(|failure| failure.reason).or(reason_of(code));
    let (reason, message) = match (code, &failure) {
        (0, _) => ("Completed".to_owned(), String::new()),
        (_, Some(failure)) => (format!("{:?}", failure.reason), failure.message.clone()),
        _ => {
            let runtime = terminated.reason.as_deref().filter(|reason| *reason != "Error");
            let reason = match (runtime, kind, code > 128) {
                (Some(runtime), _, _) => runtime.to_owned(),
                (None, Some(kind), _) => format!("{kind:?}"),
                (None, None, true) => "Killed".into(),
                (None, None, false) => "Error".into(),
            };
            let how = match code > 128 {
                true => format!("ended by signal {}", code - 128),
                false => format!("ended with exit code {code}"),
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
        hopeless: matches!(kind, Some(Reason::BadInput | Reason::Disagreement)),
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
    if let Some(waiting) = container.and_then(|c| c.state.as_ref()?.waiting.as_ref()) {
        let reason = waiting.reason.clone().unwrap_or_else(|| "Waiting".into());
        let message = waiting.message.as_deref().unwrap_or_default();
        return Some(Waits { reason, message: shorten(message) });
    }
    let status = pod.status.as_ref()?;
    let refused = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    Some(Waits {
        reason: refused.reason.clone().unwrap_or_else(|| "Unschedulable".into()),
        message: shorten(refused.message.as_deref().unwrap_or_default()),
    })
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
