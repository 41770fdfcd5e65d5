//! What the operator says of a resource: its status, events, logs, metrics and traces.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use party::trace::Times;
use serde_json::json;
use spdz::network::{Builtin, UnknownNetwork};
use tokio::time::Instant;

use super::context::{Context, Guarded, STATUS_MANAGER};
use super::error::{Error, failed, failed_for};
use crate::api::v1alpha1::{Phase, SecureInference, SecureInferenceStatus};
use crate::conditions::{self, ACCEPTED, FAILED, FINISHED};
use crate::events::transitions;
use crate::metrics::Job;
use crate::plan::Plan;
use crate::trace;

/// Between two publications of details that decide nothing.
const DETAILS: Duration = Duration::from_secs(1);

impl Context {
    /// Publishes a status that differs from the one that was read; details that decide nothing
    /// not too often, and then when is returned.
    pub(super) async fn publish(
        &self,
        resource: &SecureInference,
        namespace: &str,
        status: &SecureInferenceStatus,
    ) -> Result<Option<Timestamp>, Error> {
        let before = resource.status.clone().unwrap_or_default();
        if before == *status {
            return Ok(None);
        }
        let uid = resource.uid().unwrap_or_default();
        let details_only =
            SecureInferenceStatus { parties: before.parties.clone(), ..status.clone() } == before;
        // A pod that is known must be known to a successor too: a second in its place is a loss.
        let same_pods = before.parties.len() == status.parties.len()
            && before.parties.iter().zip(&status.parties).all(|(a, b)| a.uid == b.uid);
        if details_only && same_pods {
            let published = self.remember(&uid, |memory| memory.published);
            let left = published.and_then(|at| DETAILS.checked_sub(at.elapsed()));
            if let Some(left) = left {
                return Ok(Timestamp::now().checked_add(left).ok());
            }
        }
        self.write(resource, namespace, status).await?;
        self.remember(&uid, |memory| {
            memory.published = Some(Instant::now());
            memory.keep(status);
        });
        self.report(resource, &before, status).await;
        Ok(None)
    }

    /// Writes a status, if the resource is still the one that was read.
    pub(super) async fn write(
        &self,
        resource: &SecureInference,
        namespace: &str,
        status: &SecureInferenceStatus,
    ) -> Result<(), Error> {
        let body = json!({
            "apiVersion": SecureInference::api_version(&()),
            "kind": SecureInference::kind(&()),
            // Of two that decide at once, one must decide again.
            "metadata": {"resourceVersion": resource.resource_version()},
            "status": status,
        });
        let api: Api<Guarded> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(STATUS_MANAGER).force();
        api.patch_status(&resource.name_any(), &params, &Patch::Apply(&body))
            .await
            .map(drop)
            .map_err(|error| failed("publish the status", resource, error))
    }

    /// Reports a reconcile that took actions for an attempt.
    pub(super) fn trace(
        &self,
        resource: &SecureInference,
        plan: &Plan,
        began: Timestamp,
        failed: bool,
    ) {
        let (Some(uid), Some(attempt)) = (resource.uid(), plan.status.attempt) else { return };
        let times = Times { start: trace::nanos(began), end: trace::nanos(Timestamp::now()) };
        let error = failed.then(|| "an action failed".to_owned());
        self.send(trace::reconcile(&uid, attempt, times, plan.actions.len(), error));
    }

    /// Reports what happened: events, logs and metrics.
    async fn report(
        &self,
        resource: &SecureInference,
        before: &SecureInferenceStatus,
        after: &SecureInferenceStatus,
    ) {
        let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
        for span in trace::ended(resource, before, after, Timestamp::now()) {
            self.send(span);
        }
        for transition in transitions(before, after) {
            let (reason, note) = (transition.reason, transition.note);
            tracing::info!(namespace, name, reason, "{note}");
            let event = Event {
                type_: if transition.warning { EventType::Warning } else { EventType::Normal },
                reason: reason.into(),
                // The API takes 1 kB.
                note: Some(note.chars().take(1000).collect()),
                action: action(reason, after.attempt),
                secondary: None,
            };
            // An event that is lost changes nothing.
            if let Err(error) = self.recorder.publish(&event, &resource.object_ref(&())).await {
                tracing::warn!(namespace, name, "cannot publish event {reason}: {error}");
            }
        }
        let since = |from: &Option<MicroTime>, to: &Option<MicroTime>| {
            let (MicroTime(from), MicroTime(to)) = (from.as_ref()?, to.as_ref()?);
            Duration::try_from(to.duration_since(*from)).ok()
        };
        if before.ready_time.is_none()
            && let Some(took) = since(&after.attempt_start_time, &after.ready_time)
                .or_else(|| since(&before.attempt_start_time, &after.ready_time))
        {
            self.metrics.started(took);
        }
        let phase_is = |phase| after.phase == Some(phase) && before.phase != Some(phase);
        if phase_is(Phase::Succeeded) {
            self.metrics.attempt_ended("succeeded");
            if let Some(took) = since(&after.ready_time, &after.completion_time) {
                self.metrics.executed(took);
            }
        } else if before.attempt_start_time.is_some() && after.attempt_start_time.is_none() {
            self.metrics.attempt_ended(match after.phase {
                Some(Phase::Suspended) => "suspended",
                _ if after.start_seconds_used > before.start_seconds_used => "gave_way",
                _ => "failed",
            });
        }
    }

    /// Says of a resource that cannot be read why.
    pub(super) async fn refuse(&self, object: &Guarded, problem: &str) -> Result<Next, Error> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let message = format!("the resource cannot be read: {problem}");
        let kind = kube::core::ApiResource::erase::<SecureInference>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &kind);
        let found = api.get_opt(&name).await.map_err(|e| failed_for("read the state", &name, e))?;
        let Some(found) = found else { return Ok(Next::await_change()) };
        let (now, generation) = (Timestamp::now(), found.metadata.generation);
        let known = &found.data["status"];
        // Another change of it may be as malformed as the last.
        if known["conditions"][0]["message"].as_str() == Some(&message)
            && known["observedGeneration"].as_i64() == generation
        {
            return Ok(Next::await_change());
        }
        let mut status = SecureInferenceStatus::default();
        for (condition, holds) in [(ACCEPTED, false), (FAILED, true)] {
            conditions::set(&mut status, condition, holds, "Malformed", &message, now, generation);
        }
        let ended = format!("Malformed: {message}");
        conditions::set(&mut status, FINISHED, true, "Failed", &ended, now, generation);
        status.observed_generation = generation;
        conditions::summarise(&mut status, now, generation);
        tracing::warn!(namespace, name, "{message}");
        let body = json!({
            "apiVersion": SecureInference::api_version(&()),
            "kind": SecureInference::kind(&()),
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        api.patch_status(&name, &params, &Patch::Apply(&body))
            .await
            .map_err(|error| failed_for("publish the status", &name, error))?;
        Ok(Next::await_change())
    }
}

/// What an event's reason was reported for. Events that differ in their note alone are taken for
/// one that repeats, which those of two attempts are not.
fn action(reason: &str, attempt: Option<u32>) -> String {
    match reason {
        "Suspended" | "Resumed" => "Suspend".into(),
        _ => format!("Attempt{}", attempt.unwrap_or(0)),
    }
}

/// The resources that there are, as they are watched.
pub(super) fn jobs(resources: &Store<Guarded>) -> Vec<Job> {
    let resources = resources.state();
    let readable = resources.iter().filter_map(|object| object.0.as_ref().ok());
    let jobs = readable.map(|resource| {
        let phase = resource.status.as_ref().and_then(|status| status.phase);
        let format = resource.spec.number_format.name();
        (phase.unwrap_or(Phase::Pending), network_label(resource), format)
    });
    jobs.collect()
}

/// What a resource computes, of a bounded set.
fn network_label(resource: &SecureInference) -> &'static str {
    match resource.spec.model.network() {
        Ok(network) => network.map_or("graph", Builtin::name),
        // It was refused; what it is a form of is known.
        Err(
            UnknownNetwork::Unpooled { architecture } | UnknownNetwork::Polynomial { architecture },
        ) => architecture,
        Err(UnknownNetwork::Name { .. }) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use kube::runtime::reflector;
    use kube::runtime::watcher;
    use spdz::plan::NumberFormat;

    use super::*;
    use crate::job::tests::network;

    #[test]
    fn resources_are_counted_as_they_are_watched() {
        let object = |name: &str, phase: Option<Phase>| {
            let mut resource = SecureInference::new(name, network());
            resource.metadata.namespace = Some("lab".into());
            resource.status = Some(SecureInferenceStatus { phase, ..Default::default() });
            DeserializeGuard(Ok(resource))
        };
        let (store, mut writer) = reflector::store::<Guarded>();
        // A restart: nothing happens to what is finished.
        writer.apply_watcher_event(&watcher::Event::Init);
        for (name, phase) in
            [("a", Some(Phase::Succeeded)), ("b", Some(Phase::Failed)), ("c", None)]
        {
            writer.apply_watcher_event(&watcher::Event::InitApply(object(name, phase)));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let phases = |store: &Store<Guarded>| {
            let mut phases: Vec<String> =
                jobs(store).into_iter().map(|(phase, _, _)| phase.to_string()).collect();
            phases.sort();
            phases
        };
        assert_eq!(phases(&store), ["Failed", "Pending", "Succeeded"]);
        writer.apply_watcher_event(&watcher::Event::Delete(object("a", None)));
        assert_eq!(phases(&store), ["Failed", "Pending"]);
        let format = NumberFormat::default().name();
        assert!(jobs(&store).iter().all(|job| (job.1, job.2) == ("A", format)));
    }
}
