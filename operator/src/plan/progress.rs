//! How far the parties of an attempt are, and which of them keeps the others waiting.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use spdz::channel::Role;

use super::planner::{Parties, Planner, is_of};
use crate::api::v1alpha1::{Failure, PartyPhase, PartyStatus};
use crate::conditions::{PARTIES_READY, REFUSED};
use crate::job::Job;
use crate::party_state::{End, Party};

impl Planner<'_> {
    /// The parties of an attempt: those whose pods are there, and those whose pods were.
    pub(super) fn parties(&self, job: &Job, attempt: u32) -> Parties {
        job.roles
            .iter()
            .map(|role| {
                let recorded = self.recorded(*role);
                let pod = self.observed.pods.iter().find(|pod| {
                    is_of(pod.metadata.labels.as_ref(), attempt, *role)
                        && recorded.is_none_or(|known| pod.uid().as_ref() == Some(&known.uid))
                });
                let gone = || {
                    let mut status = recorded?.clone();
                    // What the coordinator measured is gone with its pod.
                    let done = status.phase == PartyPhase::Succeeded && *role != job.coordinator;
                    let end = match done {
                        true => End::done(self.observed.now),
                        false => End::gone(&status.pod, self.observed.now),
                    };
                    if !done {
                        status.phase = PartyPhase::Lost;
                    }
                    status.reason = Some(end.reason.clone());
                    Some(Party {
                        role: *role,
                        status,
                        unscheduled: false,
                        waits: None,
                        end: Some(end),
                    })
                };
                (*role, pod.map(|pod| Party::of(*role, pod)).or_else(gone))
            })
            .collect()
    }

    /// Takes the parties into the status; whether all of them are, or were, ready.
    pub(super) fn publish_parties(&mut self, job: &Job, parties: &Parties) -> bool {
        let seen: Vec<PartyStatus> = job
            .roles
            .iter()
            .filter_map(|role| {
                let party = parties.get(role)?.as_ref()?;
                let mut status = party.status.clone();
                // A party that is done is no longer ready, but it was.
                if let Some(known) = self.recorded(*role) {
                    status.ready_at = status.ready_at.or_else(|| known.ready_at.clone());
                    status.started_at = status.started_at.or_else(|| known.started_at.clone());
                }
                Some(status)
            })
            .collect();
        // A party that a probe missed once is connected all the same.
        let up =
            |party: &PartyStatus| party.ready_at.is_some() || party.phase == PartyPhase::Succeeded;
        let all_up = seen.len() == job.roles.len() && seen.iter().all(up);
        // Nothing can be measured without all of them.
        let coordinator = parties.get(&job.coordinator).and_then(Option::as_ref);
        let measured =
            coordinator.and_then(|coordinator| coordinator.end.as_ref()?.result.as_ref()).is_some();
        self.status().parties = seen;
        if self.plan.status.ready_time.is_none() && (all_up || measured) {
            self.status().ready_time = Some(MicroTime(self.observed.now));
        }
        let ready = self.plan.status.ready_time.is_some();
        if ready {
            self.set(PARTIES_READY, true, "AllReady", "all parties are connected to their peers");
        } else {
            let (reason, message) = self.what_is_missing(job, parties);
            self.set(PARTIES_READY, false, &reason, &message);
        }
        ready
    }

    /// Why not all parties are ready: reason and message.
    pub(super) fn what_is_missing(&self, job: &Job, parties: &Parties) -> (String, String) {
        if let Some(refusal) = &self.observed.refusal {
            return (REFUSED.into(), refusal.message.clone());
        }
        let late = late_party(job, parties).and_then(|role| parties.get(&role)?.as_ref());
        let waits = late.and_then(|party| Some((party.role, party.waits.as_ref()?)));
        match waits.filter(|(_, waits)| !waits.passes()) {
            Some((role, waits)) => (waits.reason.clone(), format!("{role}: {}", waits.message)),
            None => {
                let up = |party: &&Party| {
                    matches!(party.status.phase, PartyPhase::Ready | PartyPhase::Succeeded)
                };
                let ready = parties.values().flatten().filter(up).count();
                let total = job.roles.len();
                ("Starting".into(), format!("{ready} of {total} parties are ready"))
            }
        }
    }

    /// Which party keeps the others waiting, and why.
    pub(super) fn lateness(&self, job: &Job, attempt: u32, parties: &Parties) -> Failure {
        let late = late_party(job, parties);
        let party = late.and_then(|role| parties.get(&role)?.as_ref());
        let (reason, message) = match (&self.observed.refusal, party) {
            (Some(refusal), _) => (REFUSED, refusal.message.as_str()),
            (None, None) => ("NoPod", "its pod could not be made"),
            (None, Some(party)) => match &party.waits {
                Some(waits) => (waits.reason.as_str(), waits.message.as_str()),
                None if party.unscheduled => ("NoNode", "the scheduler has not looked at its pod"),
                None if party.status.phase == PartyPhase::Pending => {
                    ("Pending", "its node has not begun to start it")
                }
                None => ("NotConnected", "it runs, but is not connected to all its peers"),
            },
        };
        Failure {
            attempt,
            role: late.map(|role| role.name().into()),
            reason: reason.into(),
            exit_code: None,
            message: message.into(),
        }
    }
}

/// The first party that is not ready: one that cannot go on before one that does.
fn late_party(job: &Job, parties: &Parties) -> Option<Role> {
    let rank = |role: &Role| match parties.get(role).and_then(Option::as_ref) {
        Some(party) if party.waits.as_ref().is_some_and(|waits| !waits.passes()) => 0,
        None => 1,
        Some(party) => match party.status.phase {
            PartyPhase::Pending => 2,
            PartyPhase::Started => 3,
            _ => 4,
        },
    };
    job.roles.iter().copied().min_by_key(rank).filter(|role| rank(role) < 4)
}
