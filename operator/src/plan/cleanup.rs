//! What goes when an attempt or the run is over: Secrets, pods, Services, NetworkPolicies, and
//! the resource itself when its time has come.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::model::{Action, Pods};
use super::planner::{Planner, attempt_of, is_active};
use crate::api::v1alpha1::PartyPhase;
use crate::conditions::{self, COMPLETE, PARTIES_READY, SUSPENDED};
use crate::party_state::Party;

/// After the last attempt failed, how long its other parties get to end by themselves.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(5);

/// How much longer than its grace period a pod may take to go before its node is taken for lost.
pub(super) const LOST_NODE: SignedDuration = SignedDuration::from_secs(60);

impl Planner<'_> {
    /// The attempt that runs is over. Its Secrets are deleted whatever is still there of it.
    pub(super) fn end_attempt(&mut self, pods: Pods) {
        if let (Some(attempt), Some(_)) =
            (self.plan.status.attempt, self.status().attempt_start_time.take())
        {
            self.act(Action::TearDown { attempt, pods });
            for party in &mut self.status().parties {
                if matches!(
                    party.phase,
                    PartyPhase::Pending | PartyPhase::Started | PartyPhase::Ready
                ) {
                    party.phase = PartyPhase::Stopped;
                }
            }
        }
    }

    /// Takes into the status how parties ended that still ran when the attempt was over.
    fn take_last_words(&mut self) {
        let observed = self.observed;
        for party in &mut self.status().parties {
            let (PartyPhase::Stopped, Ok(role)) = (party.phase, party.role.parse()) else {
                continue;
            };
            let mut pods = observed.pods.iter();
            let known = Some(&party.uid);
            let Some(pod) = pods.find(|pod| pod.metadata.uid.as_ref() == known) else { continue };
            let seen = Party::of(role, pod);
            // That the operator ended one says nothing about it.
            let by_itself = pod.metadata.deletion_timestamp.is_none();
            if seen.end.is_some_and(|end| end.succeeded() || by_itself) {
                let ready_at = party.ready_at.take();
                *party = seen.status;
                party.ready_at = party.ready_at.take().or(ready_at);
            }
        }
    }

    /// Ends the attempt, if one runs, for spec.suspend.
    pub(super) fn suspend(&mut self) {
        self.end_attempt(Pods::All);
        let status = self.status();
        // What it waits for its resumption does not count.
        status.start_time = None;
        status.ready_time = None;
        status.start_seconds_used = None;
        status.parties.clear();
        self.set(SUSPENDED, true, "Suspended", "spec.suspend is true");
        self.set(PARTIES_READY, false, "Suspended", "nothing runs while spec.suspend is true");
        self.clear_leftovers(None);
    }

    /// Removes what a finished run no longer needs, and the resource when its time is over.
    pub(super) fn finished(&mut self) {
        let now = self.observed.now;
        let succeeded = conditions::holds(&self.plan.status, COMPLETE);
        let completed = match &self.plan.status.completion_time {
            Some(MicroTime(time)) => *time,
            // That of a resource that could not be read.
            None => conditions::finished(&self.plan.status)
                .map_or(now, |condition| condition.last_transition_time.0),
        };
        self.take_last_words();
        if succeeded {
            self.clear_leftovers(None);
        } else {
            self.clear_failed(completed);
        }
        // What runs stays closed to others until its end.
        if !self.observed.policies.is_empty() && !self.observed.pods.iter().any(is_active) {
            self.act(Action::RemovePolicies);
        }
        let ttl = self.resource.spec.ttl_after_finished.as_ref();
        let seconds = ttl.and_then(|ttl| if succeeded { ttl.succeeded } else { ttl.failed });
        if let Some(seconds) = seconds {
            let end = completed.checked_add(SignedDuration::from_secs(seconds.into()));
            match end {
                Ok(end) if now >= end => self.act(Action::DeleteResource),
                Ok(end) => self.look_again(end),
                Err(_) => {}
            }
        }
    }

    /// Removes what a failed run no longer needs: everything but the pods that have ended,
    /// which stay for their logs. Those that run get a moment to end by themselves.
    fn clear_failed(&mut self, completed: Timestamp) {
        let until = completed.checked_add(AFTERMATH).unwrap_or(completed);
        let waits = self.observed.now < until && self.observed.pods.iter().any(is_active);
        if waits {
            self.look_again(until);
        }
        for attempt in self.attempts() {
            let pods: Vec<String> = self
                .observed
                .pods
                .iter()
                .filter(|pod| attempt_of(pod.metadata.labels.as_ref()) == Some(attempt))
                .filter(|pod| !waits && is_active(pod))
                .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                .map(ResourceExt::name_any)
                .collect();
            let services = self
                .observed
                .services
                .iter()
                .any(|service| attempt_of(service.metadata.labels.as_ref()) == Some(attempt));
            if !pods.is_empty() || services {
                self.act(Action::TearDown { attempt, pods: Pods::Named(pods) });
            }
        }
        self.forget_lost();
    }

    /// The attempts of which something is left.
    fn attempts(&self) -> BTreeSet<u32> {
        let pods = self.observed.pods.iter().map(|pod| pod.metadata.labels.as_ref());
        let services = self.observed.services.iter().map(|s| s.metadata.labels.as_ref());
        pods.chain(services).filter_map(attempt_of).collect()
    }

    /// Removes all that is left of attempts other than `kept`; whether pods are still there.
    pub(super) fn clear_leftovers(&mut self, kept: Option<u32>) -> bool {
        for attempt in self.attempts() {
            if Some(attempt) == kept {
                continue;
            }
            let of_attempt =
                |labels: Option<&BTreeMap<String, String>>| attempt_of(labels) == Some(attempt);
            let pods = self.observed.pods.iter().any(|pod| {
                of_attempt(pod.metadata.labels.as_ref())
                    && pod.metadata.deletion_timestamp.is_none()
            });
            let services =
                self.observed.services.iter().any(|s| of_attempt(s.metadata.labels.as_ref()));
            if pods || services {
                self.act(Action::TearDown { attempt, pods: Pods::All });
            }
        }
        self.forget_lost();
        self.observed.pods.iter().any(|pod| attempt_of(pod.metadata.labels.as_ref()) != kept)
    }

    /// Gives up pods whose node does not say that they have gone.
    fn forget_lost(&mut self) {
        let mut lost = Vec::new();
        for pod in &self.observed.pods {
            let Some(deleted) = &pod.metadata.deletion_timestamp else { continue };
            let deadline = deleted.0.checked_add(LOST_NODE).unwrap_or(deleted.0);
            if self.observed.now >= deadline {
                lost.push(pod.name_any());
            } else {
                self.look_again(deadline);
            }
        }
        if !lost.is_empty() {
            self.act(Action::ForgetPods(lost));
        }
    }
}
