//! What an API server keeps, and what scheduler, kubelets, parties and people do to it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, Pod, PodCondition, PodStatus, Service, ServiceSpec,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use operator::api::v1alpha1::{
    GraphModel, Model, Player, SecureInference, SecureInferenceSpec, TtlAfterFinished, VolumeSource,
};
use operator::resources::pod::CONTAINER;
use operator::resources::{ATTEMPT, ROLE, SESSION};
use party::result::{Latency, RunResult};
use party::termination::{Failure, Reason, Termination};
use spdz::channel::Role;
use spdz::graph::GraphBuilder;
use spdz::plan::{NumberFormat, Truncation};

/// The player that commands.
pub(crate) const DRIVER: &str = "bob";

/// All roles, in the order of the status.
pub(crate) const ROLES: [&str; 5] = ["server0", "server1", "producer", "alice", DRIVER];

/// The grace period of parties' pods, seconds.
const GRACE: i64 = 5;

/// How long a node may be silent before its pods are deleted.
const TAINT: SignedDuration = SignedDuration::from_secs(300);

/// Something that happens to the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Time passes, milliseconds.
    Wait(u32),
    /// A pod goes on as it would: gets its node, runs, is ready, ends, goes.
    Advance(u8),
    /// All pods do.
    AdvanceAll,
    /// The scheduler finds no node for a pod.
    NoNode(u8),
    /// A node cannot pull the image.
    NoImage(u8),
    /// A node's look at a ready party takes too long, once.
    Flap(u8),
    /// A party ends.
    Fail(u8, Fault),
    /// A pod is disrupted.
    Lose(u8, Loss),
    /// Somebody deletes a Service.
    DeleteService(u8),
    /// Somebody deletes a NetworkPolicy.
    DeletePolicy(u8),
    /// Somebody deletes a Secret.
    DeleteSecret(u8),
    /// Whether a quota keeps pods from being made.
    Quota(bool),
    /// `spec.suspend` is set.
    Suspend(bool),
    /// `spec.backoffLimit` is set.
    BackoffLimit(u32),
    /// `spec.ttlAfterFinished` is set, for both ends.
    Ttl(Option<u32>),
    /// What may not change is changed.
    ChangeSpec,
    /// Somebody deletes the resource; what it owns first, or afterwards.
    DeleteResource {
        /// Whether what it owns goes first.
        foreground: bool,
    },
}

/// How a party ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// With the exit code of a reason, and the termination message unless it could not write it.
    Exit(Reason, bool),
    /// Killed for its memory.
    Memory,
    /// With 0, and without a word of what it measured; only the player that commands.
    Mute,
}

/// How a pod is disrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Deleted with its grace period.
    Deleted,
    /// Deleted without one.
    Forced,
    /// Evicted by its node.
    Evicted,
    /// Deleted by the scheduler, for a pod that is more important.
    Preempted,
    /// Its node answers no more.
    NodeLost,
}

/// What nobody in the cluster is told, to judge by.
#[derive(Default)]
pub(crate) struct Truth {
    /// What ended attempts by itself: the role, and when.
    pub(crate) causes: Vec<Cause>,
    /// Unique ids of pods that were ready at some time.
    pub(crate) ready: BTreeSet<String>,
    /// What the player that commands measured in an attempt.
    pub(crate) results: BTreeMap<u32, RunResult>,
    /// Parties that a published status named: attempt and role.
    pub(crate) recorded: BTreeSet<(u32, String)>,
    /// The sessions that pods of an attempt had.
    pub(crate) sessions: BTreeMap<u32, String>,
    /// Whether somebody deleted Services or NetworkPolicies.
    pub(crate) meddled: bool,
    /// Whether the spec was changed where it may not be.
    pub(crate) changed: bool,
}

/// A party that ended, or was lost, by no other's doing.
pub(crate) struct Cause {
    /// In which attempt.
    pub(crate) attempt: u32,
    /// The party.
    pub(crate) role: String,
    /// When, if the cluster can know it.
    pub(crate) at: Option<Timestamp>,
    /// Whether it had run: else nobody misses it who does not wait for it.
    pub(crate) ran: bool,
    /// Whether a published status had named its pod: else it may be made again.
    pub(crate) known: bool,
}

/// The Secret of a party: only what matters here.
#[derive(Clone)]
pub(crate) struct PartySecret {
    pub(crate) attempt: u32,
    pub(crate) session: String,
}

pub(crate) struct Cluster {
    pub(crate) now: Timestamp,
    pub(crate) resource: Option<SecureInference>,
    pub(crate) pods: BTreeMap<String, Pod>,
    /// Those of a resource of the same name that was deleted.
    pub(crate) predecessors: Vec<Pod>,
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) policies: BTreeMap<String, NetworkPolicy>,
    pub(crate) secrets: BTreeMap<String, PartySecret>,
    pub(crate) quota: bool,
    /// Of anything that the operator watches.
    pub(crate) changes: u64,
    pub(crate) truth: Truth,
    /// Pods whose nodes answer no more, and since when.
    lost: BTreeMap<String, Timestamp>,
    made: u64,
}

/// The name of an attempt's object for a role.
pub(crate) fn object(attempt: u32, role: &str) -> String {
    format!("{}-{attempt}-{role}", operator::job::stem("sum", "job"))
}

pub(crate) fn attempt_of(pod: &Pod) -> u32 {
    pod.labels()[ATTEMPT].parse().unwrap()
}

pub(crate) fn role_of(pod: &Pod) -> &str {
    &pod.labels()[ROLE]
}

pub(crate) fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.terminated.as_ref()
}

pub(crate) fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn runs(pod: &Pod) -> bool {
    let container = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    container.is_some_and(|all| all[0].state.as_ref().unwrap().running.is_some())
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    runs(pod) && pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].ready
}

fn has_node(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// A resource of which checking takes little time: two players add two numbers.
pub(crate) fn resource(spec: SecureInferenceSpec) -> SecureInference {
    let graph = GraphBuilder::named("sum", ["alice", DRIVER]);
    let a = graph.share(graph.local_input("alice", "a", [1]));
    let b = graph.share(graph.local_input(DRIVER, "b", [1]));
    graph.output("sum", graph.reveal(DRIVER, graph.add(a, b)));
    let definition = serde_json::to_string(&graph.build().unwrap()).unwrap();
    let source = serde_json::json!({"configMap": {"name": "numbers"}});
    let player = Player {
        source: Some(VolumeSource(source.as_object().unwrap().clone())),
        inputs: Some("numbers.safetensors".into()),
        ..Player::default()
    };
    let players = ["alice", DRIVER].map(|name| (name.to_owned(), player.clone()));
    let graph = GraphModel { definition, players: players.into() };
    let model = Model { graph: Some(graph), ..Model::default() };
    let mut resource = SecureInference::new("sum", SecureInferenceSpec { model, ..spec });
    resource.metadata.namespace = Some("lab".into());
    resource.metadata.uid = Some("job".into());
    resource.metadata.generation = Some(1);
    resource.metadata.resource_version = Some("1".into());
    resource
}

impl Cluster {
    pub(crate) fn new(spec: SecureInferenceSpec) -> Self {
        let now: Timestamp = "2026-03-01T12:00:00.25Z".parse().unwrap();
        let mut resource = resource(spec);
        resource.metadata.creation_timestamp = Some(Time(now));
        Self {
            now,
            resource: Some(resource),
            pods: BTreeMap::new(),
            predecessors: Vec::new(),
            services: BTreeMap::new(),
            policies: BTreeMap::new(),
            secrets: BTreeMap::new(),
            quota: false,
            changes: 1,
            truth: Truth::default(),
            lost: BTreeMap::new(),
            made: 0,
        }
    }

    pub(crate) fn wait(&mut self, milliseconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_millis(milliseconds)).unwrap();
    }

    pub(crate) fn happen(&mut self, event: &Event) {
        self.wait(7);
        match *event {
            Event::Wait(milliseconds) => self.wait(milliseconds.into()),
            Event::Advance(which) => {
                if let Some(name) = nth(&self.pods, which) {
                    self.advance(&name, which);
                }
            }
            Event::AdvanceAll => {
                for name in self.names() {
                    self.advance(&name, 0);
                }
            }
            Event::NoNode(which) => self.change(which, |pod, now| {
                if !has_node(pod) {
                    let message = "0/3 nodes are available: 3 Insufficient cpu.";
                    condition(pod, "PodScheduled", Some("Unschedulable"), message, now);
                }
            }),
            Event::NoImage(which) => self.change(which, |pod, _| {
                if has_node(pod) && !runs(pod) && !has_ended(pod) {
                    wait_for(pod, "ImagePullBackOff", "Back-off pulling image \"party\"");
                }
            }),
            Event::Flap(which) => self.change(which, |pod, now| {
                if is_ready(pod) {
                    set_ready(pod, false, now);
                }
            }),
            Event::Fail(which, fault) => {
                if let Some(name) = nth(&self.pods, which) {
                    self.fail(&name, fault);
                }
            }
            Event::Lose(which, loss) => {
                if let Some(name) = nth(&self.pods, which) {
                    self.lose(&name, loss);
                }
            }
            Event::DeleteService(which) => {
                if let Some(name) = nth(&self.services, which) {
                    self.services.remove(&name);
                    self.truth.meddled = true;
                }
            }
            Event::DeletePolicy(which) => {
                if let Some(name) = nth(&self.policies, which) {
                    self.policies.remove(&name);
                    self.truth.meddled = true;
                }
            }
            Event::DeleteSecret(which) => {
                if let Some(name) = nth(&self.secrets, which) {
                    self.secrets.remove(&name);
                }
            }
            Event::Quota(quota) => self.quota = quota,
            Event::Suspend(suspend) => self.edit(|spec| spec.suspend = suspend),
            Event::BackoffLimit(limit) => self.edit(|spec| spec.backoff_limit = limit),
            Event::Ttl(ttl) => self.edit(|spec| {
                spec.ttl_after_finished =
                    ttl.map(|ttl| TtlAfterFinished { succeeded: Some(ttl), failed: Some(ttl) });
            }),
            Event::ChangeSpec => {
                self.truth.changed |= self.resource.is_some();
                self.edit(|spec| spec.workload.repetitions += 1);
            }
            Event::DeleteResource { foreground: false } => self.resource = None,
            Event::DeleteResource { foreground: true } => {
                let now = self.now;
                if let Some(resource) = &mut self.resource {
                    resource.metadata.deletion_timestamp.get_or_insert(Time(now));
                }
            }
        }
        self.changes += 1;
    }

    fn edit(&mut self, change: impl FnOnce(&mut SecureInferenceSpec)) {
        let Some(resource) = &mut self.resource else { return };
        let before = resource.spec.clone();
        change(&mut resource.spec);
        if resource.spec != before {
            resource.metadata.generation = resource.metadata.generation.map(|old| old + 1);
            self.new_version();
        }
    }

    /// The resource has changed.
    pub(crate) fn new_version(&mut self) {
        self.made += 1;
        let version = self.made.to_string();
        if let Some(resource) = &mut self.resource {
            resource.metadata.resource_version = Some(version);
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.resource.as_ref().is_some_and(|resource| resource.spec.suspend)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    fn change(&mut self, which: u8, change: impl FnOnce(&mut Pod, Timestamp)) {
        let now = self.now;
        if let Some(name) = nth(&self.pods, which)
            && !self.lost.contains_key(&name)
            && let Some(pod) = self.pods.get_mut(&name)
        {
            change(pod, now);
        }
    }

    /// A pod's next step; whether there was one. `choice` picks whom it blames.
    pub(crate) fn advance(&mut self, name: &str, choice: u8) -> bool {
        let Some(pod) = self.pods.get(name) else { return false };
        if self.lost.contains_key(name) {
            return false;
        }
        let attempt = attempt_of(pod);
        let (now, role) = (self.now, role_of(pod).to_owned());
        let deleted = pod.metadata.deletion_timestamp.is_some();
        if has_ended(pod) || !runs(pod) {
            if deleted {
                self.remove(name);
            } else if has_ended(pod) {
                return false;
            } else if !has_node(pod) {
                let pod = self.pods.get_mut(name).unwrap();
                pod.spec.get_or_insert_default().node_name = Some("node-1".into());
                condition(pod, "PodScheduled", None, "", now);
                wait_for(pod, "ContainerCreating", "");
            } else if self.secrets.contains_key(name) {
                run(self.pods.get_mut(name).unwrap(), now);
            } else {
                return false;
            }
        } else if deleted {
            let failure =
                Failure { reason: Reason::Terminated, message: "told to stop".into(), peer: None };
            let words = choice.is_multiple_of(2).then(|| self.words(&role, Some(failure), None));
            end(self.pods.get_mut(name).unwrap(), 143, "Error", words, now);
        } else if let Some(peer) = self.to_blame(attempt, &role, choice) {
            self.end_of_consequence(name, Some(peer));
        } else if !is_ready(pod) {
            let others = self.pods.values().filter(|other| attempt_of(other) == attempt);
            if others.filter(|other| runs(other) || has_ended(other)).count() < ROLES.len() {
                return false;
            }
            let pod = self.pods.get_mut(name).unwrap();
            set_ready(pod, true, now);
            self.truth.ready.insert(pod.uid().unwrap());
        } else if role == DRIVER {
            if !self.were_all_ready(attempt) {
                return false;
            }
            let result = self.result();
            self.truth.results.insert(attempt, result.clone());
            let words = self.words(&role, None, Some(result));
            end(self.pods.get_mut(name).unwrap(), 0, "Completed", Some(words), now);
        } else if self.truth.results.contains_key(&attempt) {
            let words = self.words(&role, None, None);
            end(self.pods.get_mut(name).unwrap(), 0, "Completed", Some(words), now);
        } else {
            return false;
        }
        self.changes += 1;
        true
    }

    /// The next step of any pod, of what the deleted resource leaves, or of a lost node;
    /// whether there was one.
    pub(crate) fn go_on(&mut self) -> bool {
        self.wait(150);
        // Its objects do not keep it.
        if self.resource.as_ref().is_some_and(|job| job.metadata.deletion_timestamp.is_some()) {
            self.resource = None;
            self.changes += 1;
            return true;
        }
        if self.resource.is_none() {
            let pods = self.pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none());
            let pods: Vec<String> = pods.map(ResourceExt::name_any).collect();
            let some = !(pods.is_empty() && self.services.is_empty() && self.secrets.is_empty());
            pods.iter().for_each(|name| self.delete_pod(name));
            self.services.clear();
            self.policies.clear();
            self.secrets.clear();
            if some {
                self.changes += 1;
                return true;
            }
        }
        if self.names().iter().any(|name| self.advance(name, 0)) {
            return true;
        }
        let now = self.now;
        let due = |since: &Timestamp| now.duration_since(*since) >= TAINT;
        let tainted = self.lost.iter().filter(|(_, since)| due(since));
        let tainted: Vec<String> = tainted.map(|(name, _)| name.clone()).collect();
        for name in tainted {
            let pod = self.pods.get_mut(&name).unwrap();
            if pod.metadata.deletion_timestamp.is_none() && !has_ended(pod) {
                let message = "Taint manager: deleting due to NoExecute taint";
                disrupt(pod, "DeletionByTaintManager", message, now);
                self.delete_pod(&name);
                self.changes += 1;
                return true;
            }
        }
        // Nobody but an operator gets rid of the pods of a node that is silent for ever.
        if self.resource.is_none() && !self.lost.is_empty() {
            self.names().iter().for_each(|name| self.remove(name));
            return true;
        }
        false
    }

    /// When something will happen though nothing does now.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        let waits = |name: &str| {
            self.pods[name].metadata.deletion_timestamp.is_none() && !has_ended(&self.pods[name])
        };
        let lost = self.lost.iter().filter(|(name, _)| waits(name));
        lost.map(|(_, since)| since.checked_add(TAINT).unwrap()).min()
    }

    pub(crate) fn fail(&mut self, name: &str, fault: Fault) {
        let pod = &self.pods[name];
        if !runs(pod) || self.lost.contains_key(name) {
            return;
        }
        let (attempt, role, now) = (attempt_of(pod), role_of(pod).to_owned(), self.now);
        match fault {
            Fault::Exit(Reason::PeerLost, speaks) => {
                if let Some(peer) = self.to_blame(attempt, &role, 0) {
                    self.end_of_consequence(name, Some(peer).filter(|_| speaks));
                }
                return;
            }
            Fault::Exit(reason, speaks) => {
                let message = format!("{role} failed in the test");
                let failure = Failure { reason, message, peer: None };
                let words = speaks.then(|| self.words(&role, Some(failure), None));
                let pod = self.pods.get_mut(name).unwrap();
                end(pod, reason.exit_code().into(), "Error", words, now);
            }
            Fault::Memory => end(self.pods.get_mut(name).unwrap(), 137, "OOMKilled", None, now),
            Fault::Mute if role != DRIVER => return,
            Fault::Mute => end(self.pods.get_mut(name).unwrap(), 0, "Completed", None, now),
        }
        self.blame(attempt, role, Some(now), true);
    }

    pub(crate) fn lose(&mut self, name: &str, loss: Loss) {
        let pod = &self.pods[name];
        let (attempt, role, now) = (attempt_of(pod), role_of(pod).to_owned(), self.now);
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let ran = runs(pod) || has_ended(pod);
        let active = !has_ended(pod) && !deleted && !self.lost.contains_key(name);
        match loss {
            Loss::Forced => {
                self.remove(name);
                self.blame(attempt, role, None, ran);
            }
            Loss::Deleted if !deleted => {
                // What has ended goes at once.
                let at = (!has_ended(pod) && has_node(pod)).then_some(now);
                self.delete_pod(name);
                self.blame(attempt, role, at, ran);
            }
            Loss::Evicted if active && has_node(pod) => {
                let running = runs(pod);
                let pod = self.pods.get_mut(name).unwrap();
                if running {
                    end(pod, 143, "Error", None, now);
                }
                let status = pod.status.get_or_insert_default();
                status.phase = Some("Failed".into());
                status.reason = Some("Evicted".into());
                status.message = Some("The node was low on resource: memory.".into());
                // A pod without a container does not say when it ended.
                self.blame(attempt, role, running.then_some(now), ran);
            }
            Loss::Preempted if active => {
                let at = has_node(pod).then_some(now);
                let pod = self.pods.get_mut(name).unwrap();
                disrupt(pod, "PreemptionByScheduler", "preempting to accommodate a pod", now);
                self.delete_pod(name);
                self.blame(attempt, role, at, ran);
            }
            Loss::NodeLost if active && has_node(pod) => {
                self.lost.insert(name.into(), now);
                self.blame(attempt, role, None, ran);
            }
            _ => {}
        }
    }

    /// What an API server does when it is asked to delete a pod.
    pub(crate) fn delete_pod(&mut self, name: &str) {
        let now = self.now;
        let Some(pod) = self.pods.get_mut(name) else { return };
        if has_ended(pod) || !has_node(pod) {
            return self.remove(name);
        }
        if pod.metadata.deletion_timestamp.is_none() {
            let end = now.checked_add(SignedDuration::from_secs(GRACE)).unwrap();
            let end = Timestamp::from_second(end.as_second()).unwrap();
            pod.metadata.deletion_timestamp = Some(Time(end));
            pod.metadata.deletion_grace_period_seconds = Some(GRACE);
            self.changes += 1;
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.pods.remove(name);
        self.lost.remove(name);
        self.changes += 1;
    }

    /// What an API server does with a new pod, and what must hold whenever one is made.
    pub(crate) fn make_pod(&mut self, mut pod: Pod) {
        let (name, attempt, role) = (pod.name_any(), attempt_of(&pod), role_of(&pod).to_owned());
        let session = pod.annotations()[SESSION].clone();
        let others: Vec<&String> =
            self.pods.iter().filter(|(_, p)| attempt_of(p) != attempt).map(|(n, _)| n).collect();
        assert!(others.is_empty(), "{name} is made while there is {others:?}");
        assert!(!self.pods.contains_key(&name), "{name} is there and made again");
        let truth = &mut self.truth;
        assert!(!truth.recorded.contains(&(attempt, role)), "{name} was recorded, and made again");
        let known = truth.recorded.iter().any(|(recorded, _)| *recorded == attempt);
        let here = !self.pods.is_empty();
        match truth.sessions.insert(attempt, session.clone()) {
            Some(old) if old != session => {
                assert!(!known && !here, "attempt {attempt} has two sessions");
            }
            _ => {}
        }
        if let Some(secret) = self.secrets.get(&name) {
            assert_eq!(secret.session, session, "{name} has the Secret of another session");
        }
        self.made += 1;
        pod.metadata.uid = Some(format!("pod-{}", self.made));
        pod.metadata.creation_timestamp =
            Some(Time(Timestamp::from_second(self.now.as_second()).unwrap()));
        pod.status = Some(PodStatus { phase: Some("Pending".into()), ..PodStatus::default() });
        self.pods.insert(name, pod);
        self.changes += 1;
    }

    pub(crate) fn make_service(&mut self, mut service: Service) {
        self.made += 1;
        let spec = ServiceSpec {
            cluster_ip: Some(format!("10.0.{}.{}", self.made >> 8, self.made & 255)),
            ..service.spec.take().unwrap()
        };
        self.services.entry(service.name_any()).or_insert(Service { spec: Some(spec), ..service });
        self.changes += 1;
    }

    fn blame(&mut self, attempt: u32, role: String, at: Option<Timestamp>, ran: bool) {
        let known = self.truth.recorded.contains(&(attempt, role.clone()));
        self.truth.causes.push(Cause { attempt, role, at, ran, known });
    }

    /// Whom a party of an attempt has lost, if it has lost one: what began it, or a party that
    /// this took along.
    fn to_blame(&self, attempt: u32, own: &str, choice: u8) -> Option<Role> {
        if self.truth.results.contains_key(&attempt) {
            return None;
        }
        let causes = self.truth.causes.iter().filter(|cause| cause.attempt == attempt && cause.ran);
        let causes = causes.map(|cause| cause.role.as_str());
        let ended = self.pods.values().filter(|pod| {
            attempt_of(pod) == attempt
                && (terminated(pod).is_some_and(|end| end.exit_code != 0)
                    || (pod.metadata.deletion_timestamp.is_some() && runs(pod)))
        });
        let ended = ended.map(role_of);
        let mut peers: Vec<&str> = match choice % 3 {
            1 => ended.chain(causes).collect(),
            _ => causes.chain(ended).collect(),
        };
        peers.retain(|peer| *peer != own);
        peers.first()?.parse().ok()
    }

    fn end_of_consequence(&mut self, name: &str, peer: Option<Role>) {
        let role = role_of(&self.pods[name]).to_owned();
        let failure = peer.map(|peer| Failure {
            reason: Reason::PeerLost,
            message: format!("{peer} has left"),
            peer: Some(peer),
        });
        let words = failure.map(|failure| self.words(&role, Some(failure), None));
        end(self.pods.get_mut(name).unwrap(), 4, "Error", words, self.now);
    }

    fn were_all_ready(&self, attempt: u32) -> bool {
        let of_attempt = self.pods.values().filter(|pod| attempt_of(pod) == attempt);
        let ready = of_attempt.filter(|pod| self.truth.ready.contains(&pod.uid().unwrap()));
        ready.count() == ROLES.len()
    }

    fn words(&self, role: &str, failure: Option<Failure>, result: Option<RunResult>) -> String {
        let role = role.parse().unwrap();
        let words = match failure {
            Some(failure) => Termination::failure(Some(role), failure),
            None => Termination::success(role, result),
        };
        let finished_at_ms = self.now.as_millisecond().try_into().unwrap();
        Termination { finished_at_ms, ..words }.to_json().unwrap()
    }

    /// A result that no other run has.
    fn result(&mut self) -> RunResult {
        self.made += 1;
        RunResult {
            network: "sum".into(),
            format: NumberFormat::Int64,
            truncation: Truncation::Local,
            reveal: spdz::network::Reveal::default(),
            batch_size: 1,
            repetitions: 100,
            offline_mode: party::config::OfflineMode::Inline,
            combined: Latency { mean_ms: 2.5, ..Latency::default() },
            online: Latency { mean_ms: 1.5, ..Latency::default() },
            offline: Latency::default(),
            online_bytes: self.made,
            offline_bytes: 5,
            online_rounds: 6,
            out_of_range: 0,
            layers: Vec::new(),
            accuracy: None,
            inspection: None,
        }
    }
}

/// The name of one of some objects.
fn nth<T>(objects: &BTreeMap<String, T>, which: u8) -> Option<String> {
    let place = usize::from(which).checked_rem(objects.len())?;
    objects.keys().nth(place).cloned()
}

/// Sets a condition of a pod: `False` if there is a reason.
fn condition(pod: &mut Pod, kind: &str, reason: Option<&str>, message: &str, now: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(PodCondition {
        type_: kind.into(),
        status: if reason.is_some() { "False" } else { "True" }.into(),
        reason: reason.map(str::to_owned),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_transition_time: Some(Time(Timestamp::from_second(now.as_second()).unwrap())),
        ..PodCondition::default()
    });
}

/// Says what takes a pod away, as clusters since 1.26 do.
fn disrupt(pod: &mut Pod, reason: &str, message: &str, now: Timestamp) {
    condition(pod, "DisruptionTarget", None, message, now);
    let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions.last_mut().unwrap().reason = Some(reason.into());
}

fn set_state(pod: &mut Pod, state: ContainerState) {
    pod.status.get_or_insert_default().container_statuses = Some(vec![ContainerStatus {
        name: CONTAINER.into(),
        state: Some(state),
        ..ContainerStatus::default()
    }]);
}

fn wait_for(pod: &mut Pod, reason: &str, message: &str) {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.into()),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
    };
    set_state(pod, ContainerState { waiting: Some(waiting), ..ContainerState::default() });
}

fn run(pod: &mut Pod, now: Timestamp) {
    let running = ContainerStateRunning { started_at: Some(Time(now)) };
    set_state(pod, ContainerState { running: Some(running), ..ContainerState::default() });
    condition(pod, "Ready", Some("ContainersNotReady"), "", now);
    pod.status.as_mut().unwrap().phase = Some("Running".into());
}

fn set_ready(pod: &mut Pod, ready: bool, now: Timestamp) {
    condition(pod, "Ready", (!ready).then_some("ContainersNotReady"), "", now);
    let status = pod.status.as_mut().unwrap();
    status.container_statuses.as_mut().unwrap()[0].ready = ready;
}

fn end(pod: &mut Pod, code: i32, reason: &str, words: Option<String>, now: Timestamp) {
    let ended = ContainerStateTerminated {
        exit_code: code,
        reason: Some(reason.into()),
        message: words,
        finished_at: Some(Time(Timestamp::from_second(now.as_second()).unwrap())),
        ..ContainerStateTerminated::default()
    };
    set_state(pod, ContainerState { terminated: Some(ended), ..ContainerState::default() });
    condition(pod, "Ready", Some("PodFailed"), "", now);
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    pod.status.as_mut().unwrap().phase = Some(phase.into());
}

/// The metadata of what is watched without its content.
pub(crate) fn without_content(service: &Service) -> Service {
    Service { metadata: service.metadata.clone(), ..Service::default() }
}

/// Labels of an object select it.
pub(crate) fn of_attempt(metadata: &ObjectMeta, attempt: u32) -> bool {
    let labels = metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(ATTEMPT)) == Some(&attempt.to_string())
}
