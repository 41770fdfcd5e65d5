//! How an attempt and the run end.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use party::result::RunResult;

use super::model::{Admission, Pods};
use super::planner::{Planner, after, said};
use crate::api::v1alpha1::{Failure, Summary};
use crate::conditions::{self, COMPLETE, FAILED, FINISHED, PARTIES_READY};
use crate::job::Job;

/// Why a run fails that takes longer than it may.
pub(super) const OVERTIME: &str = "ActiveDeadlineExceeded";

impl Planner<'_> {
    pub(super) fn complete(&mut self, attempt: u32, result: RunResult) {
        let now = self.observed.now;
        self.end_attempt(Pods::All);
        let status = self.status();
        status.summary = Some(summary(&result));
        status.results = Some(result);
        status.failure = None;
        status.completion_time = Some(MicroTime(now));
        let started = status.start_time.as_ref().map_or(now, |MicroTime(start)| *start);
        let seconds = now.duration_since(started).as_secs_f64();
        let message = format!("complete in {seconds:.1} s, in attempt {attempt}");
        self.set(COMPLETE, true, "Completed", &message);
        self.set(FINISHED, true, "Succeeded", &message);
        self.finished();
    }

    pub(super) fn attempt_failed(&mut self, job: &Job, failure: Failure, non_retryable: bool) {
        let (reason, said) = (failure.reason.clone(), said(&failure));
        let status = self.status();
        status.failed_attempts = Some(status.failed_attempts.unwrap_or(0) + 1);
        status.failure = Some(failure);
        if non_retryable {
            return self.fail(&reason, &format!("a new attempt would fail the same way: {said}"));
        }
        self.set(PARTIES_READY, false, "AttemptFailed", &said);
        if self.was_the_last(job) {
            return;
        }
        self.end_attempt(Pods::All);
        let status = self.status();
        status.ready_time = None;
        status.start_seconds_used = None;
        self.clear_leftovers(None);
    }

    /// Whether no further attempt may begin, so that the run has failed: the limit may have been
    /// lowered since the last one failed, and time goes on while its pods go.
    pub(super) fn was_the_last(&mut self, job: &Job) -> bool {
        let status = &self.plan.status;
        let (failed, limit) = (status.failed_attempts.unwrap_or(0), job.spec.backoff_limit);
        if failed > limit {
            let last = status.failure.as_ref().map(said).unwrap_or_default();
            let message = format!("{failed} failed, spec.backoffLimit is {limit}: {last}");
            self.fail("BackoffLimitExceeded", &message);
            return true;
        }
        let Some(deadline) = self.active_deadline(job) else { return false };
        if self.observed.now < deadline {
            self.look_again(deadline);
            return false;
        }
        let waits = conditions::find(&self.plan.status, PARTIES_READY);
        let waits = waits.map(|waits| waits.message.clone()).unwrap_or_default();
        self.fail(OVERTIME, &overtime(job, &waits));
        true
    }

    /// The run has failed because of `failure`.
    pub(super) fn give_up(&mut self, failure: Failure, reason: &str, message: &str) {
        self.status().failure = Some(failure);
        self.fail(reason, message);
    }

    pub(super) fn fail(&mut self, reason: &str, message: &str) {
        self.plan.actions.clear();
        self.plan.admission = Admission::Release;
        // Its pods get a moment to end by themselves.
        self.end_attempt(Pods::Named(Vec::new()));
        self.status().completion_time = Some(MicroTime(self.observed.now));
        self.set(PARTIES_READY, false, reason, message);
        self.set(FAILED, true, reason, message);
        self.set(FINISHED, true, "Failed", &format!("{reason}: {message}"));
        self.finished();
    }

    /// When the run must be complete, if its first attempt has begun.
    pub(super) fn active_deadline(&self, job: &Job) -> Option<Timestamp> {
        after(&self.plan.status.start_time, job.spec.active_deadline_seconds)
    }
}

pub(super) fn overtime(job: &Job, why: &str) -> String {
    let seconds = job.spec.active_deadline_seconds;
    format!("not complete after {seconds} s (spec.activeDeadlineSeconds): {why}")
}

/// Some of the results for people.
fn summary(result: &RunResult) -> Summary {
    let milliseconds = |mean: f64| format!("{mean:.2} ms");
    Summary {
        combined: milliseconds(result.combined.mean_ms),
        online: milliseconds(result.online.mean_ms),
        accuracy: result
            .accuracy
            .as_ref()
            .map(|accuracy| format!("{:.2} %", 100.0 * accuracy.secure)),
    }
}
