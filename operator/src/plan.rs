//! What to do about a resource: from what it says and what is observed to the actions to
//! take and the status to publish.
//!
//! Pure: no clock, no randomness, no API. It may be called at any moment, with any part of
//! what it asked for done or undone, and asks for what is missing. The status that it returns
//! is published before its actions are taken, so that what was decided is known to whoever
//! continues.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use party::config::Session;
use party::result::RunResult;
use spdz::channel::Role;

use crate::api::v1alpha1::{
    Failure, PartyPhase, PartyStatus, SecureInference, SecureInferenceStatus, Summary,
};
use crate::conditions::{self, ACCEPTED, COMPLETE, FAILED, NOT_PRIVATE, PARTIES_READY, SUSPENDED};
use crate::job::{Addresses, Job};
use crate::party_state::{End, Party};
use crate::resources::{ATTEMPT, SESSION, network_policy};

/// After a failure that is another's consequence, how long to look for its cause. A busy node
/// tells seconds later that a process has ended; once all have, nothing is waited for.
const CAUSE: SignedDuration = SignedDuration::from_secs(15);

/// After the last attempt failed, how long its other parties get to end by themselves.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(5);

/// How long a run may hold the turn while others wait and its pods get no node.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How much longer than its grace period a pod may take to go before its node is taken for lost.
const LOST_NODE: SignedDuration = SignedDuration::from_secs(60);

/// Why a run fails that takes longer than it may.
const OVERTIME: &str = "ActiveDeadlineExceeded";

/// What is known about a resource's objects.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The time.
    pub now: Timestamp,
    /// Its pods, of all attempts.
    pub pods: Vec<Pod>,
    /// Its Services, of all attempts.
    pub services: Vec<Service>,
    /// The names of its NetworkPolicies.
    pub policies: BTreeSet<String>,
    /// Whether it may put pods on nodes now.
    pub turn: bool,
    /// Whether other resources wait for their turn.
    pub others_wait: bool,
    /// What the API server refused to make when that was last tried.
    pub refusal: Option<String>,
}

/// Something to do, in the order of the list.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the NetworkPolicies.
    ApplyPolicies,
    /// Make the Services of the servers of an attempt.
    ApplyServices(u32),
    /// Make a session and identities, a Secret for each role, and then all pods.
    StartParties {
        /// The attempt.
        attempt: u32,
        /// Where the servers will be.
        addresses: Addresses,
    },
    /// Make pods that are missing after an interrupted start.
    CompleteParties {
        /// The attempt.
        attempt: u32,
        /// The missing.
        roles: Vec<Role>,
        /// The session of those that are there.
        session: Session,
    },
    /// Delete the Secrets of an attempt, then pods, then its Services.
    TearDown {
        /// The attempt.
        attempt: u32,
        /// Which pods go.
        pods: Pods,
    },
    /// Delete pods without waiting for their node, which does not answer.
    ForgetPods(Vec<String>),
    /// Delete the NetworkPolicies.
    RemovePolicies,
    /// Delete the resource.
    DeleteResource,
}

/// Which pods of an attempt are deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pods {
    /// All of them.
    All,
    /// These; others have ended and are kept for their logs.
    Named(Vec<String>),
}

/// The turn to put pods on nodes: one run at a time, so that no two wait for each other with
/// half of their pods on nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Has no use for it.
    Leave,
    /// Would start if it had it.
    Want,
    /// Has pods without a node.
    Hold,
}

/// What to do about a resource.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The status to publish first.
    pub status: SecureInferenceStatus,
    /// What to do then.
    pub actions: Vec<Action>,
    /// Whether it needs the turn.
    pub turn: Turn,
    /// When to look again, if nothing happens before.
    pub again_at: Option<Timestamp>,
}

/// What to do about `resource`.
#[must_use]
pub fn plan(resource: &SecureInference, observed: &Observed) -> Plan {
    let status = resource.status.clone().unwrap_or_default();
    if resource.metadata.deletion_timestamp.is_some() {
        // Its objects go with it.
        return Plan { status, actions: Vec::new(), turn: Turn::Leave, again_at: None };
    }
    let mut planner = Planner {
        resource,
        observed,
        generation: resource.metadata.generation,
        plan: Plan { status, actions: Vec::new(), turn: Turn::Leave, again_at: None },
    };
    planner.decide();
    let mut plan = planner.plan;
    plan.status.observed_generation = resource.metadata.generation;
    plan.status.phase = Some(conditions::phase(&plan.status));
    if let Some(before) = &resource.status {
        conditions::keep_times(before, &mut plan.status);
    }
    plan
}

struct Planner<'a> {
    resource: &'a SecureInference,
    observed: &'a Observed,
    generation: Option<i64>,
    plan: Plan,
}

/// What became of an attempt.
enum Verdict {
    /// It goes on.
    Going,
    /// It failed; the cause may still show up until then.
    Unclear(Timestamp),
    /// It failed.
    Failed { failure: Failure, hopeless: bool },
    /// It is complete.
    Done(Box<RunResult>),
}

impl Planner<'_> {
    fn status(&mut self) -> &mut SecureInferenceStatus {
        &mut self.plan.status
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let (now, generation) = (self.observed.now, self.generation);
        conditions::set(&mut self.plan.status, kind, holds, reason, message, now, generation);
    }

    /// Whether the spec is another than the one that the status is about.
    fn has_changed(&self) -> bool {
        self.plan.status.observed_generation != self.generation
    }

    fn look_again(&mut self, at: Timestamp) {
        let earlier = self.plan.again_at.is_none_or(|planned| at < planned);
        if earlier {
            self.plan.again_at = Some(at);
        }
    }

    fn decide(&mut self) {
        if conditions::finished(&self.plan.status).is_some() {
            return self.finished();
        }
        let job = match Job::of(self.resource) {
            Ok(job) => job,
            Err(invalid) => {
                self.set(ACCEPTED, false, "InvalidSpec", &invalid.to_string());
                let message = format!("the resource cannot be run: {invalid}");
                return self.fail("InvalidSpec", &message);
            }
        };
        let digest = digest(self.resource);
        match &self.plan.status.spec_digest {
            // With the same generation only the operator has changed: a newer one may know
            // more fields.
            Some(accepted) if *accepted != digest && self.has_changed() => {
                let message = "spec was changed after it was accepted; only suspend, \
                               backoffLimit and ttlAfterFinished may be: create a new resource";
                self.set(ACCEPTED, false, "SpecChanged", message);
                return self.fail("SpecChanged", message);
            }
            _ => self.status().spec_digest = Some(digest),
        }
        self.status().network = Some(job.network.clone());
        match job.spec.workload.inspect {
            None => self.set(ACCEPTED, true, "Valid", "the parties can be configured"),
            Some(_) => self.set(ACCEPTED, true, NOT_PRIVATE, party::inspection::NOT_PRIVATE),
        }
        match (job.spec.suspend, self.plan.status.attempt_start_time.is_some()) {
            (true, _) => self.suspend(),
            (false, true) => self.go_on(&job),
            (false, false) => self.begin(&job),
        }
    }

    /// Ends the attempt, if one runs, for spec.suspend.
    fn suspend(&mut self) {
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

    /// Begins the next attempt, once nothing of earlier ones is left.
    fn begin(&mut self, job: &Job) {
        if conditions::holds(&self.plan.status, SUSPENDED) {
            self.set(SUSPENDED, false, "Resumed", "spec.suspend is false");
        }
        if self.was_the_last(job) {
            return;
        }
        if self.clear_leftovers(None) {
            let ready = conditions::find(&self.plan.status, PARTIES_READY);
            // Why the last attempt ended says more.
            if ready.is_none_or(|ready| !matches!(&*ready.reason, "AttemptFailed" | "GaveWay")) {
                let message = "the pods of the last attempt are going";
                self.set(PARTIES_READY, false, "TearingDown", message);
            }
            return;
        }
        if !self.observed.turn {
            self.plan.turn = Turn::Want;
            let message =
                "another run's pods are getting their nodes; this one is next in its turn";
            return self.set(PARTIES_READY, false, "Queued", message);
        }
        self.plan.turn = Turn::Hold;
        let now = MicroTime(self.observed.now);
        let status = self.status();
        status.attempt = Some(status.attempt.unwrap_or(0) + 1);
        status.attempt_start_time = Some(now.clone());
        status.start_time.get_or_insert(now);
        status.ready_time = None;
        status.parties.clear();
        self.go_on(job);
    }

    /// Whether no further attempt may begin, so that the run has failed: the limit may have been
    /// lowered since the last one failed, and time goes on while its pods go.
    fn was_the_last(&mut self, job: &Job) -> bool {
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

    /// Follows the attempt that runs.
    fn go_on(&mut self, job: &Job) {
        let Some(attempt) = self.plan.status.attempt else { return };
        let others = self.clear_leftovers(Some(attempt));
        let parties = self.parties(job, attempt);
        let ready = self.publish_parties(job, &parties);
        match self.verdict(job, attempt, &parties) {
            Verdict::Done(result) => self.complete(attempt, *result),
            Verdict::Failed { failure, hopeless } => self.attempt_failed(job, failure, hopeless),
            Verdict::Unclear(until) => self.look_again(until),
            Verdict::Going => {
                if !others {
                    self.start(job, attempt, &parties);
                }
                self.hold_turn(job, &parties, ready);
                self.deadlines(job, attempt, &parties, ready);
            }
        }
    }

    /// The parties of an attempt: those whose pods are there, and those whose pods were.
    fn parties(&self, job: &Job, attempt: u32) -> BTreeMap<Role, Option<Party>> {
        job.roles
            .iter()
            .map(|role| {
                let name = job.object_name(attempt, *role);
                let recorded = self.recorded(*role);
                let pod = self.observed.pods.iter().find(|pod| {
                    pod.metadata.name.as_ref() == Some(&name)
                        && recorded.is_none_or(|known| pod.uid().as_ref() == Some(&known.uid))
                });
                let gone = || {
                    let mut status = recorded?.clone();
                    // What the player that commands measured is gone with its pod.
                    let done = status.phase == PartyPhase::Succeeded && *role != job.coordinator;
                    let end = match done {
                        true => End::done(self.observed.now),
                        false => End::gone(&name, self.observed.now),
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

    fn recorded(&self, role: Role) -> Option<&PartyStatus> {
        self.plan.status.parties.iter().find(|party| party.role == role.name())
    }

    /// Takes the parties into the status; whether all of them are, or were, ready.
    fn publish_parties(&mut self, job: &Job, parties: &BTreeMap<Role, Option<Party>>) -> bool {
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
    fn what_is_missing(
        &self,
        job: &Job,
        parties: &BTreeMap<Role, Option<Party>>,
    ) -> (String, String) {
        if let Some(refusal) = &self.observed.refusal {
            return ("Refused".into(), refusal.clone());
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
    fn lateness(
        &self,
        job: &Job,
        attempt: u32,
        parties: &BTreeMap<Role, Option<Party>>,
    ) -> Failure {
        let late = late_party(job, parties);
        let party = late.and_then(|role| parties.get(&role)?.as_ref());
        let (reason, message) = match (&self.observed.refusal, party) {
            (Some(refusal), _) => ("Refused", refusal.as_str()),
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

    /// Whether the attempt is over.
    fn verdict(&self, job: &Job, attempt: u32, parties: &BTreeMap<Role, Option<Party>>) -> Verdict {
        let end_of = |role: &Role| parties.get(role)?.as_ref()?.end.as_ref();
        let done = end_of(&job.coordinator).filter(|end| end.succeeded());
        let result = done.and_then(|end| end.result.as_ref());
        if done.is_some() && result.is_none() {
            let failure = Failure {
                attempt,
                role: Some(job.coordinator.name().into()),
                reason: "NoResult".into(),
                exit_code: Some(0),
                message: "it ended well, but its termination message holds no result; is its \
                          image of another version?"
                    .into(),
            };
            return Verdict::Failed { failure, hopeless: true };
        }
        let driven = result.is_some();
        // Once the player that commands is done, only players' outputs may still be lacking.
        let matters = |role: &Role| !driven || matches!(role, Role::Player(_));
        let ends: Vec<(Role, &End)> = job
            .roles
            .iter()
            .filter(|role| matters(role))
            .filter_map(|role| end_of(role).map(|end| (*role, end)))
            .collect();
        let failed: Vec<(Role, &End)> =
            ends.iter().filter(|(_, end)| !end.succeeded()).copied().collect();
        if let Some((role, end)) =
            failed.iter().filter(|(_, end)| !end.consequence).min_by_key(|(_, end)| end.at)
        {
            return self.failed(attempt, *role, end);
        }
        if let Some((role, end)) = failed.iter().min_by_key(|(_, end)| end.at).copied() {
            let until = end.at.checked_add(CAUSE).unwrap_or(end.at);
            let all_over = ends.len() == job.roles.iter().filter(|role| matters(role)).count();
            // A node's clock that is further ahead than that is not waited for.
            let soon = self.observed.now.checked_add(2 * CAUSE).unwrap_or(until);
            if !all_over && self.observed.now < until && until <= soon {
                return Verdict::Unclear(until);
            }
            let Some((witness, end, lost)) = lost_peer(role, end_of) else {
                return self.failed(attempt, role, end);
            };
            let mut verdict = self.failed(attempt, lost, end);
            if let Verdict::Failed { failure, .. } = &mut verdict {
                failure.exit_code = None;
                failure.message = format!("{witness} says: {}", failure.message);
            }
            return verdict;
        }
        let players_done = job
            .roles
            .iter()
            .filter(|role| matches!(role, Role::Player(_)))
            .all(|role| end_of(role).is_some_and(End::succeeded));
        match result {
            Some(result) if players_done => Verdict::Done(Box::new(result.clone())),
            _ => self.lost_service(job, attempt, parties),
        }
    }

    fn failed(&self, attempt: u32, role: Role, end: &End) -> Verdict {
        Verdict::Failed {
            failure: Failure {
                attempt,
                role: Some(role.name().into()),
                reason: end.reason.clone(),
                exit_code: end.exit_code,
                message: end.message.clone(),
            },
            hopeless: end.hopeless,
        }
    }

    /// A Service that goes while parties still look for it takes its server's address along.
    fn lost_service(
        &self,
        job: &Job,
        attempt: u32,
        parties: &BTreeMap<Role, Option<Party>>,
    ) -> Verdict {
        let started = parties.values().any(Option::is_some);
        let missing = [Role::Server0, Role::Server1]
            .into_iter()
            .find(|role| self.address(job, attempt, *role).is_none());
        match missing {
            Some(role) if started && self.plan.status.ready_time.is_none() => Verdict::Failed {
                failure: Failure {
                    attempt,
                    role: Some(role.name().into()),
                    reason: "ServiceDeleted".into(),
                    exit_code: None,
                    message: format!(
                        "Service {} was deleted before all parties were connected",
                        job.object_name(attempt, role)
                    ),
                },
                hopeless: false,
            },
            _ => Verdict::Going,
        }
    }

    /// The cluster address of a server's Service.
    fn address(&self, job: &Job, attempt: u32, role: Role) -> Option<String> {
        let name = job.object_name(attempt, role);
        let service =
            self.observed.services.iter().find(|s| s.metadata.name.as_ref() == Some(&name))?;
        let address = service.spec.as_ref()?.cluster_ip.clone()?;
        (!address.is_empty() && address != "None").then_some(address)
    }

    /// Makes what is missing of an attempt.
    fn start(&mut self, job: &Job, attempt: u32, parties: &BTreeMap<Role, Option<Party>>) {
        let policies = network_policy::build(job);
        if policies.iter().any(|policy| !self.observed.policies.contains(&policy.name_any())) {
            self.plan.actions.push(Action::ApplyPolicies);
        }
        let missing: Vec<Role> =
            parties.iter().filter(|(_, party)| party.is_none()).map(|(role, _)| *role).collect();
        if missing.is_empty() {
            return;
        }
        if missing.len() == parties.len() {
            let server0 = self.address(job, attempt, Role::Server0);
            let server1 = self.address(job, attempt, Role::Server1);
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

    /// Keeps the turn while pods have no node, and gives way where that does not help.
    fn hold_turn(&mut self, job: &Job, parties: &BTreeMap<Role, Option<Party>>, ready: bool) {
        let homeless = |party: &Option<Party>| party.as_ref().is_none_or(|party| party.unscheduled);
        if ready || !parties.values().any(homeless) {
            return;
        }
        self.plan.turn = Turn::Hold;
        let started = self.plan.status.attempt_start_time.clone();
        let Some(MicroTime(started)) = started else { return };
        let held = self.observed.now.duration_since(started);
        let refused = self.observed.refusal.is_some()
            || parties.values().flatten().any(|party| party.unscheduled && party.waits.is_some());
        if !refused || !self.observed.others_wait {
            return;
        }
        if held < PATIENCE {
            return self.look_again(started.checked_add(PATIENCE).unwrap_or(started));
        }
        let used = self.plan.status.start_seconds_used.unwrap_or(0);
        let used = used.saturating_add(u32::try_from(held.as_secs()).unwrap_or(u32::MAX));
        if used >= job.spec.start_deadline_seconds {
            // The deadline is about to say so.
            return;
        }
        self.plan.turn = Turn::Leave;
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

    fn deadlines(
        &mut self,
        job: &Job,
        attempt: u32,
        parties: &BTreeMap<Role, Option<Party>>,
        ready: bool,
    ) {
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

    /// When the run must be complete, if its first attempt has begun.
    fn active_deadline(&self, job: &Job) -> Option<Timestamp> {
        after(&self.plan.status.start_time, job.spec.active_deadline_seconds)
    }

    /// The attempt that runs is over. Its Secrets are deleted whatever is still there of it.
    fn end_attempt(&mut self, pods: Pods) {
        if let (Some(attempt), Some(_)) =
            (self.plan.status.attempt, self.status().attempt_start_time.take())
        {
            self.act(Action::TearDown { attempt, pods });
        }
    }

    /// Something to do, unless that is already planned.
    fn act(&mut self, action: Action) {
        if !self.plan.actions.contains(&action) {
            self.plan.actions.push(action);
        }
    }

    fn attempt_failed(&mut self, job: &Job, failure: Failure, hopeless: bool) {
        let (reason, said) = (failure.reason.clone(), said(&failure));
        let status = self.status();
        status.failed_attempts = Some(status.failed_attempts.unwrap_or(0) + 1);
        status.failure = Some(failure);
        if hopeless {
            return self.fail(&reason, &format!("a new attempt would fail alike: {said}"));
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

    fn complete(&mut self, attempt: u32, result: RunResult) {
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
        self.finished();
    }

    /// The run has failed because of `failure`.
    fn give_up(&mut self, failure: Failure, reason: &str, message: &str) {
        self.status().failure = Some(failure);
        self.fail(reason, message);
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.plan.actions.clear();
        self.plan.turn = Turn::Leave;
        // Its pods get a moment to end by themselves.
        self.end_attempt(Pods::Named(Vec::new()));
        self.status().completion_time = Some(MicroTime(self.observed.now));
        self.set(PARTIES_READY, false, reason, message);
        self.set(FAILED, true, reason, message);
        self.finished();
    }

    /// Removes what a finished run no longer needs, and the resource when its time is over.
    fn finished(&mut self) {
        let now = self.observed.now;
        let succeeded = conditions::holds(&self.plan.status, COMPLETE);
        let completed = match &self.plan.status.completion_time {
            Some(MicroTime(time)) => *time,
            // That of a resource that could not be read.
            None => conditions::finished(&self.plan.status)
                .map_or(now, |condition| condition.last_transition_time.0),
        };
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
    fn clear_leftovers(&mut self, kept: Option<u32>) -> bool {
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

/// The attempt that an object's labels name.
fn attempt_of(labels: Option<&BTreeMap<String, String>>) -> Option<u32> {
    labels?.get(ATTEMPT)?.parse().ok()
}

/// Whether a pod may still run, or begin to.
fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The first party that is not ready: one that cannot go on before one that does.
fn late_party(job: &Job, parties: &BTreeMap<Role, Option<Party>>) -> Option<Role> {
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

/// Where the losses that parties speak of lead to, from `first` on: the last party that speaks
/// of one, how it ended, and whom it lost, who has not ended.
fn lost_peer<'a>(
    first: Role,
    end_of: impl Fn(&Role) -> Option<&'a End>,
) -> Option<(Role, &'a End, Role)> {
    let mut seen = BTreeSet::new();
    let mut witness = first;
    // Two that lost each other lead nowhere.
    while seen.insert(witness) {
        let end = end_of(&witness)?;
        let lost = end.blames?;
        if end_of(&lost).is_none() {
            return Some((witness, end, lost));
        }
        witness = lost;
    }
    None
}

/// A failure in one sentence.
fn said(failure: &Failure) -> String {
    let role = failure.role.as_deref().unwrap_or("the run");
    format!("{role}: {}: {}", failure.reason, failure.message)
}

fn overtime(job: &Job, why: &str) -> String {
    let seconds = job.spec.active_deadline_seconds;
    format!("not complete after {seconds} s (spec.activeDeadlineSeconds): {why}")
}

fn after(time: &Option<MicroTime>, seconds: u32) -> Option<Timestamp> {
    let MicroTime(time) = time.as_ref()?;
    time.checked_add(SignedDuration::from_secs(seconds.into())).ok()
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

/// A digest of what may not change once a resource was accepted.
#[must_use]
pub fn digest(resource: &SecureInference) -> String {
    let mut spec = resource.spec.clone();
    spec.suspend = false;
    spec.backoff_limit = 0;
    spec.ttl_after_finished = None;
    let json = serde_json::to_vec(&spec).unwrap_or_default();
    blake3::hash(&json).to_hex()[..32].to_owned()
}

/// Whether an object belongs to a resource: its controller is it, and not another of its name.
#[must_use]
pub fn owned_by(owners: &[OwnerReference], uid: &str) -> bool {
    owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == uid)
}
