//! What reconciles share, and what is remembered between them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::ListParams;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use party::trace::{Exporter, Span};
use tokio::time::Instant;

use crate::admission_queue::AdmissionQueue;
use crate::api::v1alpha1::{SecureInference, SecureInferenceStatus};
use crate::conditions;
use crate::metrics::Metrics;
use crate::plan::Refusal;
use crate::resources::network_policy::Outside;
use crate::resources::pod::Defaults;
use crate::resources::{ATTEMPT, JOB_UID};
use crate::validator::Validator;

/// The field manager of objects, and the reporter of events.
pub(crate) const MANAGER: &str = "secure-inference-operator";

/// The field manager of statuses: servers of old lose the spec's owner if they are one.
pub(super) const STATUS_MANAGER: &str = "secure-inference-operator-status";

/// A resource as it is watched: one that cannot be read does not stop the others.
pub(super) type Guarded = DeserializeGuard<SecureInference>;

/// What reconciles share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) metrics: Metrics,
    /// What holds for pods of resources that say nothing else.
    pub(super) defaults: Defaults,
    /// Who beyond a run's parties may reach them.
    pub(super) outside: Outside,
    pub(super) exporter: Option<Exporter>,
    pub(super) queue: AdmissionQueue<ObjectRef<Guarded>>,
    pub(super) validator: Arc<Validator<ObjectRef<Guarded>>>,
    pub(super) wake: UnboundedSender<ObjectRef<Guarded>>,
    pub(super) resources: Store<Guarded>,
    pub(super) pods: Store<Pod>,
    pub(super) services: Store<PartialObjectMeta<Service>>,
    pub(super) policies: Store<PartialObjectMeta<NetworkPolicy>>,
    pub(super) memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a resource between reconciles; nothing that a restart may not lose.
#[derive(Default)]
pub(super) struct Memory {
    /// When its status was last published.
    pub(super) published: Option<Instant>,
    /// Reconciles that failed one after the other.
    pub(super) failures: u32,
    /// What the API server would not make.
    pub(super) refusal: Option<Refusal>,
    /// When its plan wants to look again at the latest.
    pub(super) again_at: Option<Timestamp>,
    /// The status of a finished run as it was published, JSON.
    ended: Option<Vec<u8>>,
}

impl Memory {
    /// Keeps a status that was published, if it is final.
    pub(super) fn keep(&mut self, status: &SecureInferenceStatus) {
        let ended = conditions::finished(status).is_some();
        self.ended = ended.then(|| serde_json::to_vec(status).ok()).flatten();
    }

    /// The status to write again, if somebody has cleared that of a finished run: the run would
    /// begin again, and its results would be lost.
    pub(super) fn cleared(
        &self,
        found: Option<&SecureInferenceStatus>,
    ) -> Option<SecureInferenceStatus> {
        let ended = self.ended.as_ref()?;
        let cleared = found.is_none_or(|found| found.phase.is_none());
        cleared.then(|| serde_json::from_slice(ended).ok()).flatten()
    }
}

impl Context {
    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        // A panic elsewhere leaves nothing half done here.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember<T>(&self, uid: &str, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(self.memory().entry(uid.into()).or_default())
    }

    pub(super) fn forget(&self, uid: &str) {
        self.memory().remove(uid);
        self.validator.forget(uid);
        self.wake(self.queue.forget(uid));
    }

    /// Has the run that may be admitted now reconciled.
    pub(super) fn wake(&self, next: Option<ObjectRef<Guarded>>) {
        if let Some(next) = next {
            // Nobody listens only after the controller has stopped.
            let _ = self.wake.unbounded_send(next);
        }
    }

    pub(super) fn send(&self, span: Span) {
        if let Some(exporter) = self.exporter.as_ref()
            && exporter.settings().samples(span.trace)
        {
            exporter.send(Box::new(span));
        }
    }
}

/// Everything of a job.
pub(super) fn of_job(uid: &str) -> ListParams {
    ListParams::default().labels(&format!("{JOB_UID}={uid}"))
}

/// Everything of an attempt of a resource.
pub(super) fn of_attempt(resource: &SecureInference, attempt: u32) -> ListParams {
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    ListParams::default().labels(&format!("{JOB_UID}={uid},{ATTEMPT}={attempt}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::conditions::{COMPLETE, PARTIES_READY};

    #[test]
    fn a_final_status_that_somebody_clears_is_known() {
        let status = |kind: &str| {
            let mut status = SecureInferenceStatus::default();
            conditions::set(&mut status, kind, true, "A", "a", Timestamp::UNIX_EPOCH, Some(1));
            conditions::summarise(&mut status, Timestamp::UNIX_EPOCH, Some(1));
            status
        };
        let (running, complete) = (status(PARTIES_READY), status(COMPLETE));
        // As the API server makes it.
        let empty = SecureInferenceStatus { observed_generation: Some(-1), ..Default::default() };
        let mut memory = Memory::default();
        for kept in [&running, &complete, &running] {
            memory.keep(kept);
            let expected = (kept == &complete).then(|| complete.clone());
            for found in [None, Some(&empty)] {
                assert_eq!(memory.cleared(found), expected);
            }
            for found in [&running, &complete] {
                assert_eq!(memory.cleared(Some(found)), None, "it is there");
            }
        }
    }
}
