//! A model of a cluster and of the controller, for the plan to decide in.

pub(crate) mod checks;
pub(crate) mod cluster;
pub(crate) mod shell;

use operator::api::v1alpha1::{PartyPhase, SecureInferenceSpec, SecureInferenceStatus};
use operator::conditions::{self, COMPLETE, FAILED, SUSPENDED};

use cluster::{Cluster, Event, Fault, Loss, has_ended, role_of};
use shell::{Request, Shell};

/// Something that happens to cluster and operator.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// In the cluster.
    Happens(Event),
    /// The operator looks, called or not; what becomes of its requests, and in which order
    /// those are answered that are sent together.
    Reconcile(Vec<Request>, u8),
    /// The operator looks if it has a reason to.
    Woken,
    /// Another run asks to be admitted, or leaves the queue.
    Rival(bool),
    /// Another operator takes over; whether it finds that another run has the turn.
    Crash(bool),
}

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) operator: Shell,
}

impl World {
    pub(crate) fn new(spec: SecureInferenceSpec) -> Self {
        Self { cluster: Cluster::new(spec), operator: Shell::default() }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Happens(event) => self.cluster.happen(event),
            Step::Reconcile(requests, order) => {
                self.operator.reconcile(&mut self.cluster, requests, *order);
            }
            Step::Woken => {
                if self.operator.is_due(&self.cluster) {
                    self.reconcile();
                }
            }
            Step::Rival(asks) => self.operator.rival(*asks),
            Step::Crash(rival_holds) => self.operator.crash(*rival_holds),
        }
    }

    pub(crate) fn reconcile(&mut self) {
        self.operator.reconcile(&mut self.cluster, &[], 0);
    }

    pub(crate) fn happen(&mut self, event: Event) {
        self.cluster.happen(&event);
    }

    /// The name of a party's pod.
    fn pod(&self, role: &str) -> String {
        let pods = &mut self.cluster.pods.iter();
        pods.find(|(_, pod)| role_of(pod) == role).expect("it has a pod").0.clone()
    }

    pub(crate) fn advance(&mut self, role: &str, choice: u8) {
        self.cluster.wait(7);
        let name = self.pod(role);
        assert!(self.cluster.advance(&name, choice), "{role} cannot go on");
    }

    pub(crate) fn fail(&mut self, role: &str, fault: Fault) {
        self.cluster.wait(7);
        self.cluster.fail(&self.pod(role), fault);
    }

    pub(crate) fn lose(&mut self, role: &str, loss: Loss) {
        self.cluster.wait(7);
        self.cluster.lose(&self.pod(role), loss);
    }

    /// A role's place among the pods.
    fn place(&self, role: &str) -> u8 {
        let place = self.cluster.pods.values().position(|pod| role_of(pod) == role);
        u8::try_from(place.expect("it has a pod")).unwrap()
    }

    pub(crate) fn no_image(&mut self, role: &str) {
        self.happen(Event::NoImage(self.place(role)));
    }

    pub(crate) fn unready(&mut self, role: &str) {
        self.happen(Event::Flap(self.place(role)));
    }

    pub(crate) fn holds_turn(&self) -> bool {
        self.operator.holds_turn()
    }

    /// What a condition says: reason and message.
    pub(crate) fn condition(&self, kind: &str) -> (&str, &str) {
        let resource = self.cluster.resource.as_ref().expect("it is there");
        let status = resource.status.as_ref().expect("it was looked at");
        let condition = conditions::find(status, kind).expect("it was set");
        (&condition.reason, &condition.message)
    }

    pub(crate) fn status(&self) -> SecureInferenceStatus {
        let resource = self.cluster.resource.as_ref();
        resource.and_then(|resource| resource.status.clone()).unwrap_or_default()
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.status().conditions.iter().any(|c| c.type_ == kind && c.status == "True")
    }

    /// Lets all go its way, the operator looking only when something has changed or when it
    /// wanted to look again, until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        self.cluster.happen(&Event::Quota(false));
        self.operator.rival(false);
        for _ in 0..1000 {
            if self.operator.is_due(&self.cluster) {
                self.reconcile();
                self.cluster.wait(5);
                continue;
            }
            if self.cluster.go_on() {
                continue;
            }
            let next = [self.operator.again_at(), self.cluster.next()];
            match next.into_iter().flatten().min() {
                Some(at) => self.cluster.now = at.max(self.cluster.now),
                None => return self.check_end(),
            }
        }
        panic!("no end: {:#?}", self.status());
    }

    /// What must hold when nothing happens any more.
    fn check_end(&mut self) {
        let names = self.cluster.names();
        if self.cluster.resource.is_none() {
            assert!(names.is_empty(), "{names:?} are left of a deleted resource");
            return;
        }
        let status = self.status();
        let suspended = self.is(SUSPENDED) && self.cluster.is_suspended();
        assert!(
            self.is(COMPLETE) || self.is(FAILED) || suspended,
            "it has come to rest unfinished: {status:#?}"
        );
        for party in &status.parties {
            let open = [PartyPhase::Pending, PartyPhase::Started, PartyPhase::Ready];
            assert!(!open.contains(&party.phase), "{} is {:?}", party.role, party.phase);
        }
        // Those that have ended stay for their logs.
        let kept = self.is(FAILED);
        let left = self.cluster.pods.values().filter(|pod| !(kept && has_ended(pod))).count();
        assert_eq!(left, 0, "{names:?} are left");
        assert!(self.cluster.services.is_empty(), "Services are left");
        if !suspended {
            assert!(self.cluster.policies.is_empty(), "NetworkPolicies are left");
        }
        if !self.cluster.truth.meddled {
            assert!(self.cluster.secrets.is_empty(), "Secrets are left");
        }
        let version = |world: &Self| {
            let resource = world.cluster.resource.as_ref();
            resource.and_then(|resource| resource.metadata.resource_version.clone())
        };
        let (changes, before) = (self.cluster.changes, version(self));
        self.reconcile();
        assert_eq!(self.cluster.changes, changes, "it acted though nothing had happened");
        assert_eq!(version(self), before, "it wrote though nothing had happened");
    }
}
