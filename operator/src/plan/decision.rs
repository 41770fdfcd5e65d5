//! From a resource and what is observed of it to the plan.

use super::model::{Admission, Observed, Plan};
use super::planner::Planner;
use crate::api::v1alpha1::SecureInference;
use crate::conditions::{self, ACCEPTED, FAILED, NOT_PRIVATE, SPEC_CHANGED};
use crate::job;
use crate::validator::Validated;

/// Whether nothing further is decided about a resource than when what is left of it goes: it is
/// finished, or is being deleted.
#[must_use]
pub fn is_settled(resource: &SecureInference) -> bool {
    let finished = resource.status.as_ref().and_then(conditions::finished).is_some();
    finished || resource.metadata.deletion_timestamp.is_some()
}

/// What to do about a resource that [is settled](is_settled): how it was validated does not
/// matter any more.
#[must_use]
pub fn clean_up(resource: &SecureInference, observed: &Observed) -> Plan {
    planned(resource, observed, |planner| {
        planner.compare_with_results();
        planner.finished();
    })
}

/// What to do about `resource`.
#[must_use]
pub fn plan(resource: &SecureInference, validated: &Validated, observed: &Observed) -> Plan {
    if is_settled(resource) {
        return clean_up(resource, observed);
    }
    planned(resource, observed, |planner| planner.decide(validated))
}

fn planned(
    resource: &SecureInference,
    observed: &Observed,
    decide: impl FnOnce(&mut Planner<'_>),
) -> Plan {
    let status = resource.status.clone().unwrap_or_default();
    let mut planner = Planner {
        resource,
        observed,
        generation: resource.metadata.generation,
        plan: Plan { status, actions: Vec::new(), admission: Admission::Release, again_at: None },
    };
    if resource.metadata.deletion_timestamp.is_some() {
        // Its objects go with it.
        return planner.plan;
    }
    decide(&mut planner);
    let mut plan = planner.plan;
    plan.status.observed_generation = resource.metadata.generation;
    plan.status.phase = Some(conditions::phase(&plan.status));
    // What an operator without some conditions has finished stays as it is.
    if resource.status.as_ref().is_none_or(|status| conditions::finished(status).is_none()) {
        let generation = resource.metadata.generation;
        conditions::summarise(&mut plan.status, observed.now, generation);
    }
    if let Some(before) = &resource.status {
        conditions::keep_times(before, &mut plan.status);
    }
    plan
}

impl Planner<'_> {
    /// Says if the spec of a finished run is no longer the one that its results are of. Without CEL
    /// rules an API server lets anybody change it.
    fn compare_with_results(&mut self) {
        let Some(accepted) = self.plan.status.spec_digest.clone().filter(|_| self.has_changed())
        else {
            return;
        };
        let same = job::digest(self.resource) == accepted;
        let refused = conditions::find(&self.plan.status, ACCEPTED)
            .is_some_and(|condition| condition.reason == SPEC_CHANGED);
        let failed_for_it = conditions::find(&self.plan.status, FAILED)
            .is_some_and(|condition| condition.reason == SPEC_CHANGED);
        if !same && !refused {
            let message = format!(
                "spec was changed after the run had ended; the status is of the spec with the \
                 digest {accepted}: create a new resource"
            );
            self.set(ACCEPTED, false, SPEC_CHANGED, &message);
        } else if same && refused && !failed_for_it {
            self.accept();
        }
    }

    fn accept(&mut self) {
        match self.resource.spec.workload.inspect {
            None => self.set(ACCEPTED, true, "Valid", "the parties can be configured"),
            Some(_) => self.set(ACCEPTED, true, NOT_PRIVATE, party::inspection::NOT_PRIVATE),
        }
    }

    fn decide(&mut self, validated: &Validated) {
        let job = match validated {
            Ok(job) => job,
            Err(invalid) => {
                self.set(ACCEPTED, false, "InvalidSpec", &invalid.to_string());
                let message = format!("the resource cannot be run: {invalid}");
                return self.fail("InvalidSpec", &message);
            }
        };
        let digest = &job.digest;
        match &self.plan.status.spec_digest {
            // With the same generation only the operator has changed: a newer one may know
            // more fields.
            Some(accepted) if accepted != digest && self.has_changed() => {
                let message = "spec was changed after it was accepted; only suspend, \
                               backoffLimit and ttlAfterFinished may be: create a new resource";
                self.set(ACCEPTED, false, SPEC_CHANGED, message);
                return self.fail(SPEC_CHANGED, message);
            }
            _ => self.status().spec_digest = Some(digest.clone()),
        }
        self.status().network = Some(job.network.clone());
        self.accept();
        match (job.spec.suspend, self.plan.status.attempt_start_time.is_some()) {
            (true, _) => self.suspend(),
            (false, true) => self.go_on(job),
            (false, false) => {
                if self.begin(job) {
                    self.go_on(job);
                }
            }
        }
    }
}
