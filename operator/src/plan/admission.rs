//! Gang scheduling: whether a run may begin an attempt, and for how long it keeps others from
//! theirs. One run's pods are scheduled at a time.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::cleanup::LOST_NODE;
use super::model::{Admission, Pods};
use super::planner::{Parties, Planner, is_active};
use crate::conditions::{self, PARTIES_READY, SUSPENDED};
use crate::job::Job;
use crate::party_state::Party;

/// How long a run stays admitted while others wait and its pods are refused or get no nodes.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The same while no scheduler says anything of its pods: it may be busy, and there may be none
/// of that name.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);

/// How long the pods of an earlier resource of the same name may take until they are deleted
/// after it: whoever collects them is busy, or not there.
const COLLECTION: SignedDuration = SignedDuration::from_secs(60);

impl Planner<'_> {
    /// Begins the next attempt, once nothing of earlier ones is left and the run is admitted;
    /// whether it began.
    pub(super) fn begin(&mut self, job: &Job) -> bool {
        if conditions::holds(&self.plan.status, SUSPENDED) {
            self.set(SUSPENDED, false, "Resumed", "spec.suspend is false");
        }
        if self.was_the_last(job) {
            return false;
        }
        if self.clear_leftovers(None) {
            let ready = conditions::find(&self.plan.status, PARTIES_READY);
            // Why the last attempt ended says more.
            if ready.is_none_or(|ready| !matches!(&*ready.reason, "AttemptFailed" | "GaveWay")) {
                let message = "the pods of the last attempt are going";
                self.set(PARTIES_READY, false, "TearingDown", message);
            }
            return false;
        }
        if let Some(until) = self.predecessors_go() {
            self.look_again(until);
            let message = "the pods of an earlier resource of this name are going";
            self.set(PARTIES_READY, false, "TearingDown", message);
            return false;
        }
        if !self.observed.admitted {
            self.plan.admission = Admission::Request;
            let message = "it is queued: the pods of another run are being scheduled";
            self.set(PARTIES_READY, false, "Queued", message);
            return false;
        }
        self.plan.admission = Admission::Hold;
        let now = MicroTime(self.observed.now);
        let status = self.status();
        status.attempt = Some(status.attempt.unwrap_or(0) + 1);
        status.attempt_start_time = Some(now.clone());
        status.start_time.get_or_insert(now);
        status.ready_time = None;
        status.parties.clear();
        true
    }

    /// Until when pods of an earlier resource of this name are waited for, if any may still run:
    /// they have nodes, quota and volumes that this run needs.
    fn predecessors_go(&self) -> Option<Timestamp> {
        let created = self.resource.metadata.creation_timestamp.as_ref()?.0;
        let until = self.observed.predecessors.iter().filter(|pod| is_active(pod)).map(|pod| {
            let (from, patience) = match &pod.metadata.deletion_timestamp {
                Some(deleted) => (deleted.0, LOST_NODE),
                None => (created, COLLECTION),
            };
            from.checked_add(patience).unwrap_or(from)
        });
        until.filter(|until| self.observed.now < *until).max()
    }

    /// Stays admitted while pods have no node, and gives way where that does not help.
    pub(super) fn hold_admission(&mut self, job: &Job, parties: &Parties, ready: bool) {
        let unscheduled =
            |party: &Option<Party>| party.as_ref().is_none_or(|party| party.unscheduled);
        if ready || !parties.values().any(unscheduled) {
            return;
        }
        self.plan.admission = Admission::Hold;
        let started = self.plan.status.attempt_start_time.clone();
        let Some(MicroTime(started)) = started else { return };
        let held = self.observed.now.duration_since(started);
        let refused = self.observed.refusal.is_some()
            || parties.values().flatten().any(|party| party.unscheduled && party.waits.is_some());
        if !self.observed.others_wait {
            return;
        }
        let patience = if refused { PATIENCE } else { SILENCE };
        if held < patience {
            return self.look_again(started.checked_add(patience).unwrap_or(started));
        }
        let used = self.plan.status.start_seconds_used.unwrap_or(0);
        let used = used.saturating_add(u32::try_from(held.as_secs()).unwrap_or(u32::MAX));
        if used >= job.spec.start_deadline_seconds {
            // The deadline is about to say so.
            return;
        }
        self.plan.admission = Admission::GiveWay;
        self.plan.actions.clear();
        let (reason, missing) = self.what_is_missing(job, parties);
        let message = format!("other runs were waiting: {reason}: {missing}");
        self.set(PARTIES_READY, false, "GaveWay", &message);
        self.end_attempt(Pods::All);
        let status = self.status();
        status.start_seconds_used = Some(used);
        status.parties.clear();
        self.clear_leftovers(None);
    }
}
