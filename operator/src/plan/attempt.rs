//! The attempt that runs: what is missing of it, its end, and its deadlines.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use spdz::channel::Role;

use super::model::Action;
use super::outcome::{OVERTIME, overtime};
use super::planner::{Parties, Planner, after, attempt_of, said};
use super::verdict::{Verdict, verdict};
use crate::api::v1alpha1::Failure;
use crate::conditions::REFUSED;
use crate::job::{Addresses, Job};
use crate::resources::{SESSION, network_policy};

impl Planner<'_> {
    /// Follows the attempt that runs.
    pub(super) fn go_on(&mut self, job: &Job) {
        let Some(attempt) = self.plan.status.attempt else { return };
        let others = self.clear_leftovers(Some(attempt));
        let parties = self.parties(job, attempt);
        let ready = self.publish_parties(job, &parties);
        let lost = self.lost_service(attempt);
        match verdict(job, attempt, &parties, self.observed.now, lost) {
            Verdict::Done(result) => self.complete(attempt, *result),
            Verdict::Failed { failure, non_retryable } => {
                self.attempt_failed(job, failure, non_retryable)
            }
            Verdict::Unclear(until) => self.look_again(until),
            Verdict::Going => {
                if self.observed.refusal.as_ref().is_some_and(|refusal| refusal.permanent) {
                    let late = self.lateness(job, attempt, &parties);
                    let message = format!("a new attempt would fail the same way: {}", said(&late));
                    return self.give_up(late, REFUSED, &message);
                }
                if !others {
                    self.start(job, attempt, &parties);
                }
                self.hold_admission(job, &parties, ready);
                self.deadlines(job, attempt, &parties, ready);
            }
        }
    }

    /// The server whose Service is not there while parties still look for it.
    fn lost_service(&self, attempt: u32) -> Option<Role> {
        let connecting = self.plan.status.ready_time.is_none();
        [Role::Server0, Role::Server1]
            .into_iter()
            .filter(|_| connecting)
            .find(|role| self.address(attempt, *role).is_none())
    }

    /// Makes what is missing of an attempt.
    fn start(&mut self, job: &Job, attempt: u32, parties: &Parties) {
        let policies = network_policy::names(job);
        if policies.iter().any(|policy| !self.observed.policies.contains(policy)) {
            self.plan.actions.push(Action::ApplyPolicies);
        }
        let missing: Vec<Role> =
            parties.iter().filter(|(_, party)| party.is_none()).map(|(role, _)| *role).collect();
        if missing.is_empty() {
            return;
        }
        if missing.len() == parties.len() {
            let server0 = self.address(attempt, Role::Server0);
            let server1 = self.address(attempt, Role::Server1);
            self.plan.actions.push(match (server0, server1) {
                (Some(server0), Some(server1)) => {
                    Action::StartParties { attempt, addresses: Addresses { server0, server1 } }
                }
                _ => Action::ApplyServices(attempt),
            });
            return;
        }
        // Their Secrets were all made before the first pod.
        let session = self
            .observed
            .pods
            .iter()
            .filter(|pod| attempt_of(pod.metadata.labels.as_ref()) == Some(attempt))
            .find_map(|pod| pod.annotations().get(SESSION)?.clone().try_into().ok());
        if let Some(session) = session {
            self.plan.actions.push(Action::CompleteParties { attempt, roles: missing, session });
        }
    }

    fn deadlines(&mut self, job: &Job, attempt: u32, parties: &Parties, ready: bool) {
        let status = &self.plan.status;
        let used = status.start_seconds_used.unwrap_or(0);
        let to_start = job.spec.start_deadline_seconds.saturating_sub(used);
        let start = after(&status.attempt_start_time, to_start).filter(|_| !ready);
        let active = self.active_deadline(job);
        let over = |deadline: &Timestamp| self.observed.now >= *deadline;
        if !ready {
            let late = self.lateness(job, attempt, parties);
            if start.as_ref().is_some_and(over) {
                let seconds = job.spec.start_deadline_seconds;
                let message =
                    format!("not all parties were ready within {seconds} s: {}", said(&late));
                return self.give_up(late, "StartDeadlineExceeded", &message);
            }
            if active.as_ref().is_some_and(over) {
                let message = overtime(job, &said(&late));
                return self.give_up(late, OVERTIME, &message);
            }
        } else if active.as_ref().is_some_and(over) {
            let message = overtime(job, "it still runs");
            let failure = Failure {
                attempt,
                role: Some(job.coordinator.name().into()),
                reason: OVERTIME.into(),
                exit_code: None,
                message: message.clone(),
            };
            return self.give_up(failure, OVERTIME, &message);
        }
        start.into_iter().chain(active).for_each(|deadline| self.look_again(deadline));
    }
}
