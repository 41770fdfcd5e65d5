//! The plan while it is made: the status as it will be, and what is to be done so far.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spdz::channel::Role;

use super::model::{Action, Observed, Plan};
use crate::api::v1alpha1::{Failure, PartyStatus, SecureInference, SecureInferenceStatus};
use crate::conditions;
use crate::party_state::Party;
use crate::resources::{ATTEMPT, ROLE};

/// The parties of an attempt, as far as they are known.
pub(super) type Parties = BTreeMap<Role, Option<Party>>;

/// A plan that is being made.
pub(super) struct Planner<'a> {
    pub(super) resource: &'a SecureInference,
    pub(super) observed: &'a Observed,
    pub(super) generation: Option<i64>,
    pub(super) plan: Plan,
}

impl Planner<'_> {
    pub(super) fn status(&mut self) -> &mut SecureInferenceStatus {
        &mut self.plan.status
    }

    pub(super) fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let (now, generation) = (self.observed.now, self.generation);
        conditions::set(&mut self.plan.status, kind, holds, reason, message, now, generation);
    }

    /// Whether the spec is another than the one that the status is about.
    pub(super) fn has_changed(&self) -> bool {
        self.plan.status.observed_generation != self.generation
    }

    pub(super) fn look_again(&mut self, at: Timestamp) {
        let earlier = self.plan.again_at.is_none_or(|planned| at < planned);
        if earlier {
            self.plan.again_at = Some(at);
        }
    }

    /// Something to do, unless that is already planned.
    pub(super) fn act(&mut self, action: Action) {
        if !self.plan.actions.contains(&action) {
            self.plan.actions.push(action);
        }
    }

    pub(super) fn recorded(&self, role: Role) -> Option<&PartyStatus> {
        self.plan.status.parties.iter().find(|party| party.role == role.name())
    }

    /// The cluster address of a server's Service.
    pub(super) fn address(&self, attempt: u32, role: Role) -> Option<String> {
        let mut services = self.observed.services.iter();
        let service = services.find(|s| is_of(s.metadata.labels.as_ref(), attempt, role))?;
        let address = service.spec.as_ref()?.cluster_ip.clone()?;
        (!address.is_empty() && address != "None").then_some(address)
    }
}

/// The attempt that an object's labels name.
pub(super) fn attempt_of(labels: Option<&BTreeMap<String, String>>) -> Option<u32> {
    labels?.get(ATTEMPT)?.parse().ok()
}

/// Whether an object's labels say that it is a role's in an attempt. Its name is not looked at:
/// another version of the operator may have named it.
pub(super) fn is_of(labels: Option<&BTreeMap<String, String>>, attempt: u32, role: Role) -> bool {
    let named = labels.and_then(|labels| labels.get(ROLE)).is_some_and(|name| name == role.name());
    named && attempt_of(labels) == Some(attempt)
}

/// Whether a pod may still run, or begin to.
pub(super) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

pub(super) fn after(time: &Option<MicroTime>, seconds: u32) -> Option<Timestamp> {
    let MicroTime(time) = time.as_ref()?;
    time.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

/// A failure in one sentence.
pub(super) fn said(failure: &Failure) -> String {
    let role = failure.role.as_deref().unwrap_or("the run");
    format!("{role}: {}: {}", failure.reason, failure.message)
}
