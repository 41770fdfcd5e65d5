//! What the controller does around the plan, one request to the API server after another, any
//! of which may be refused, fail, be its last, or find that something has happened.

use std::collections::VecDeque;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use kube::ResourceExt;
use operator::admission_queue::{AdmissionQueue, Answer};
use operator::api::v1alpha1::{SecureInference, SecureInferenceStatus};
use operator::conditions;
use operator::job::Job;
use operator::plan::{self, Action, Admission, Observed, Plan, Pods, Refusal};
use operator::resources::network_policy::{self, Outside};
use operator::resources::{pod, service};
use party::config::Session;
use spdz::channel::Role;
use spdz::prg::SessionId;

use super::checks;
use super::cluster::{Cluster, Event, PartySecret, object, of_attempt, without_content};

/// Between two publications of details that decide nothing.
const DETAILS: SignedDuration = SignedDuration::from_secs(1);

/// The unique id of the resource.
pub(crate) const JOB: &str = "job";

/// That of another, which also wants to be admitted.
const RIVAL: &str = "rival";

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// It is answered.
    Answered,
    /// Something happens before it is answered.
    After(Event),
    /// It is refused, for now.
    Refused,
    /// It is refused, and would be again.
    Denied,
    /// The API server fails.
    Failed,
    /// The operator ends before it is sent.
    NeverSent,
    /// The operator ends before it is answered.
    NeverHeard,
}

/// What to do about a resource, which is validated if that is needed.
pub(crate) fn decide(resource: &SecureInference, observed: &Observed) -> Plan {
    match plan::is_settled(resource) {
        true => plan::clean_up(resource, observed),
        false => plan::plan(resource, &Job::of(resource).map(Arc::new), observed),
    }
}

/// Why a reconcile ended early.
enum Stop {
    Crash,
    Conflict,
    Refused(Refusal),
    Failed,
}

/// A refusal that passes.
fn refused(message: String) -> Stop {
    Stop::Refused(Refusal { message, permanent: false })
}

/// An operator: nothing in it survives its end.
#[derive(Default)]
pub(crate) struct Shell {
    queue: AdmissionQueue<String>,
    refusal: Option<Refusal>,
    published: Option<Timestamp>,
    failures: u32,
    /// When it looks again if nothing happens.
    again_at: Option<Timestamp>,
    /// The changes that it has been told of.
    seen: u64,
    /// The next requests, in the order in which they are made.
    requests: VecDeque<Request>,
    /// In which order requests are answered that are sent together.
    order: u8,
    sessions: u8,
}

impl Shell {
    /// Another operator takes over.
    pub(crate) fn crash(&mut self, rival_holds: bool) {
        let sessions = self.sessions;
        *self = Self { sessions, ..Self::default() };
        if rival_holds {
            self.queue.hold(RIVAL, RIVAL.into());
        }
    }

    /// Another run asks to be admitted, or leaves the queue.
    pub(crate) fn rival(&mut self, asks: bool) {
        if asks {
            self.wake([RIVAL.into()]);
        } else {
            let next = self.queue.release(RIVAL);
            self.wake(next);
        }
    }

    /// Has runs looked at: the other asks for its turn, and takes it if it is its own.
    fn wake(&mut self, runs: impl IntoIterator<Item = String>) {
        for run in runs {
            if run == JOB {
                self.seen = 0;
            } else if let Answer::Queued(wake) = self.queue.request(RIVAL, "other", 0, RIVAL.into())
                && wake.iter().any(|run| run == JOB)
            {
                self.seen = 0;
            }
        }
    }

    /// Whether it would look by itself.
    pub(crate) fn is_due(&self, cluster: &Cluster) -> bool {
        self.seen != cluster.changes || self.again_at.is_some_and(|at| at <= cluster.now)
    }

    pub(crate) fn holds_turn(&self) -> bool {
        self.queue.is_admitted(JOB)
    }

    pub(crate) fn again_at(&self) -> Option<Timestamp> {
        self.again_at
    }

    /// Looks, decides and acts.
    pub(crate) fn reconcile(&mut self, cluster: &mut Cluster, requests: &[Request], order: u8) {
        self.requests = requests.iter().cloned().collect();
        self.order = order;
        self.seen = cluster.changes;
        self.again_at = None;
        let soon = |milliseconds: i64| {
            cluster.now.checked_add(SignedDuration::from_millis(milliseconds)).unwrap()
        };
        let (conflict, failed) = (soon(100), soon(500 << self.failures.min(6)));
        match self.rounds(cluster) {
            Ok(()) => self.failures = 0,
            Err(Stop::Crash) => {
                let rival_holds = self.queue.is_admitted(RIVAL);
                self.crash(rival_holds);
            }
            Err(Stop::Conflict) => self.again_at = Some(conflict),
            Err(stop) => {
                self.failures += 1;
                self.again_at = Some(failed);
                self.refusal = match stop {
                    Stop::Refused(refusal) => Some(refusal),
                    _ => None,
                };
            }
        }
    }

    fn rounds(&mut self, cluster: &mut Cluster) -> Result<(), Stop> {
        for _ in 0..6 {
            let Some(resource) = cluster.resource.clone() else {
                let next = self.queue.forget(JOB);
                self.wake(next);
                return Ok(());
            };
            let settled = resource.status.as_ref().and_then(conditions::finished).is_some();
            let observed = self.observe(cluster, settled);
            let (observed, plan) = self.plan(&resource, observed);
            checks::planned(cluster, &resource, &observed, &plan);
            let withheld = self.publish(cluster, &resource, &observed, &plan.status)?;
            self.again_at = [plan.again_at, withheld].into_iter().flatten().min();
            let next = match plan.admission {
                Admission::Release => self.queue.release(JOB),
                Admission::GiveWay => self.queue.give_way(JOB, cluster.now.as_second()),
                Admission::Request | Admission::Hold => None,
            };
            self.wake(next);
            for action in &plan.actions {
                self.act(cluster, &resource, action)?;
            }
            if !plan.actions.is_empty() {
                self.refusal = None;
            }
            if !plan.actions.iter().any(|action| matches!(action, Action::ApplyServices(_))) {
                break;
            }
        }
        Ok(())
    }

    fn observe(&self, cluster: &Cluster, settled: bool) -> Observed {
        let mut services: Vec<_> = cluster.services.values().cloned().collect();
        if settled {
            services = services.iter().map(without_content).collect();
        }
        Observed {
            now: cluster.now.round(Unit::Microsecond).unwrap(),
            pods: cluster.pods.values().cloned().collect(),
            predecessors: cluster.predecessors.clone(),
            services,
            policies: cluster.policies.keys().cloned().collect(),
            admitted: self.queue.is_admitted(JOB),
            others_wait: self.queue.others_wait(JOB),
            refusal: self.refusal.clone(),
        }
    }

    fn plan(&mut self, resource: &SecureInference, mut observed: Observed) -> (Observed, Plan) {
        let mut plan = decide(resource, &observed);
        match plan.admission {
            Admission::Request => match self.queue.request(JOB, "lab", 1, JOB.into()) {
                Answer::Admitted => {
                    observed.admitted = true;
                    plan = decide(resource, &observed);
                }
                Answer::Queued(wake) => self.wake(wake),
            },
            Admission::Hold => self.queue.hold(JOB, JOB.into()),
            Admission::Release | Admission::GiveWay => {}
        }
        (observed, plan)
    }

    fn publish(
        &mut self,
        cluster: &mut Cluster,
        resource: &SecureInference,
        observed: &Observed,
        status: &SecureInferenceStatus,
    ) -> Result<Option<Timestamp>, Stop> {
        let before = resource.status.clone().unwrap_or_default();
        if before == *status {
            return Ok(None);
        }
        let details_only =
            SecureInferenceStatus { parties: before.parties.clone(), ..status.clone() } == before;
        let same_pods = before.parties.len() == status.parties.len()
            && before.parties.iter().zip(&status.parties).all(|(a, b)| a.uid == b.uid);
        if details_only && same_pods {
            let since = self.published.map(|at| cluster.now.duration_since(at));
            if let Some(left) = since.and_then(|since| DETAILS.checked_sub(since))
                && left.is_positive()
            {
                return Ok(cluster.now.checked_add(left).ok());
            }
        }
        let version = resource.resource_version();
        let mut outcome = Ok(());
        self.request(cluster, "publish the status", |cluster| match &mut cluster.resource {
            Some(current) if current.resource_version() == version => {
                current.status = Some(status.clone());
                cluster.new_version();
                checks::published(cluster, resource, &before, status, observed);
            }
            _ => outcome = Err(Stop::Conflict),
        })?;
        outcome?;
        self.published = Some(cluster.now);
        Ok(None)
    }

    fn request(
        &mut self,
        cluster: &mut Cluster,
        what: &str,
        effect: impl FnOnce(&mut Cluster),
    ) -> Result<(), Stop> {
        cluster.wait(3);
        match self.requests.pop_front().unwrap_or(Request::Answered) {
            Request::Answered => effect(cluster),
            Request::After(event) => {
                cluster.happen(&event);
                effect(cluster);
            }
            Request::Refused => return Err(refused(format!("cannot {what}: forbidden"))),
            Request::Denied => {
                let message = format!("cannot {what}: invalid");
                // What is not made is tried again.
                let permanent = what.starts_with("make ");
                return Err(Stop::Refused(Refusal { message, permanent }));
            }
            Request::Failed => return Err(Stop::Failed),
            Request::NeverSent => return Err(Stop::Crash),
            Request::NeverHeard => {
                effect(cluster);
                return Err(Stop::Crash);
            }
        }
        Ok(())
    }

    fn act(
        &mut self,
        cluster: &mut Cluster,
        resource: &SecureInference,
        action: &Action,
    ) -> Result<(), Stop> {
        match action {
            Action::ApplyPolicies => {
                for policy in
                    network_policy::build(&Job::of(resource).unwrap(), &Outside::default())
                {
                    self.request(cluster, "make the NetworkPolicies", |cluster| {
                        cluster.policies.entry(policy.name_any()).or_insert(policy);
                        cluster.changes += 1;
                    })?;
                }
            }
            Action::ApplyServices(attempt) => {
                let job = Job::of(resource).unwrap();
                for role in [Role::Server0, Role::Server1] {
                    let service = service::build(&job, *attempt, role);
                    self.request(cluster, "make the Services", |cluster| {
                        cluster.make_service(service);
                    })?;
                }
            }
            Action::StartParties { attempt, addresses } => {
                checks::addressed(cluster, *attempt, addresses);
                let job = Job::of(resource).unwrap();
                self.sessions += 1;
                let session = Session(SessionId([self.sessions; 16]));
                let secrets = self.shuffled(job.roles.clone());
                for role in secrets {
                    let secret = PartySecret { attempt: *attempt, session: session.into() };
                    let name = job.object_name(*attempt, role);
                    self.request(cluster, "make the Secrets", |cluster| {
                        cluster.secrets.insert(name, secret);
                    })?;
                }
                self.make_pods(cluster, &job, *attempt, &job.roles, session)?;
            }
            Action::CompleteParties { attempt, roles, session } => {
                let job = Job::of(resource).unwrap();
                self.make_pods(cluster, &job, *attempt, roles, *session)?;
            }
            Action::TearDown { attempt, pods } => {
                self.tear_down(cluster, *attempt, pods)?;
            }
            Action::ForgetPods(names) => {
                for name in names {
                    self.request(cluster, "forget the lost pods", |cluster| {
                        cluster.remove(name);
                    })?;
                }
            }
            Action::RemovePolicies => {
                self.request(cluster, "delete the NetworkPolicies", |cluster| {
                    cluster.policies.clear();
                    cluster.changes += 1;
                })?;
            }
            Action::DeleteResource => {
                self.request(cluster, "delete after its time", |cluster| {
                    cluster.resource = None;
                    cluster.changes += 1;
                })?;
            }
        }
        Ok(())
    }

    fn make_pods(
        &mut self,
        cluster: &mut Cluster,
        job: &Job,
        attempt: u32,
        roles: &[Role],
        session: Session,
    ) -> Result<(), Stop> {
        let mut outcome = Ok(());
        for role in self.shuffled(roles.to_vec()) {
            let pod = pod::build(job, attempt, role, session, &"party".into());
            let made = match cluster.quota {
                true => Err(refused("cannot make the pods: exceeded quota: pods".into())),
                false => self.request(cluster, "make the pods", |cluster| cluster.make_pod(pod)),
            };
            match made {
                Err(Stop::Crash) => return Err(Stop::Crash),
                // The others are made all the same.
                Err(stop) => outcome = outcome.and(Err(stop)),
                Ok(()) => {}
            }
        }
        outcome
    }

    fn tear_down(&mut self, cluster: &mut Cluster, attempt: u32, pods: &Pods) -> Result<(), Stop> {
        let what = "tear an attempt down";
        self.request(cluster, what, |cluster| {
            cluster.secrets.retain(|_, secret| secret.attempt != attempt);
        })?;
        match pods {
            Pods::All => self.request(cluster, what, |cluster| {
                let names = cluster.pods.iter().filter(|(_, p)| of_attempt(&p.metadata, attempt));
                let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
                names.iter().for_each(|name| cluster.delete_pod(name));
            })?,
            Pods::Named(names) => {
                for name in names {
                    self.request(cluster, what, |cluster| cluster.delete_pod(name))?;
                }
            }
        }
        for role in [Role::Server0, Role::Server1] {
            let name = object(attempt, role.name());
            self.request(cluster, what, |cluster| {
                if cluster.services.remove(&name).is_some() {
                    cluster.changes += 1;
                }
            })?;
        }
        Ok(())
    }

    /// Roles in some order.
    fn shuffled(&self, mut roles: Vec<Role>) -> Vec<Role> {
        let mut seed = usize::from(self.order);
        for place in (1..roles.len()).rev() {
            roles.swap(place, seed % (place + 1));
            seed = seed.wrapping_mul(31).wrapping_add(17);
        }
        roles
    }
}
