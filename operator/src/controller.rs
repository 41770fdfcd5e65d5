//! The shell around [`plan`]: watches, reads, publishes and does what it says.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{Timestamp, Unit};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action as Next, Controller};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Config, watcher};
use kube::runtime::{PredicateConfig, WatchStreamExt, predicates};
use kube::{Client, Resource, ResourceExt};
use party::config::Session;
use party::identity::{self, IdentityError};
use party::trace::{Exporter, Span, Times};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use spdz::channel::Role;
use spdz::prg::{NoRandomness, SessionId};
use tokio::time::Instant;

use crate::api::v1alpha1::{Phase, SecureInference, SecureInferenceStatus};
use crate::conditions::{self, ACCEPTED, FAILED};
use crate::events::transitions;
use crate::job::{Addresses, Invalid, Job};
use crate::metrics::Metrics;
use crate::plan::{self, Action, Observed, Plan, Pods, Turn};
use crate::resources::secret::SecretError;
use crate::resources::{ATTEMPT, JOB_UID, MANAGED_BY, network_policy, pod, secret, service};
use crate::trace;
use crate::turns::Turns;

/// The field manager of objects, and the reporter of events.
pub(crate) const MANAGER: &str = "secure-inference-operator";

/// The field manager of statuses: servers of old lose the spec's owner if they are one.
const STATUS_MANAGER: &str = "secure-inference-operator-status";

/// Between two publications of details that decide nothing.
const DETAILS: Duration = Duration::from_secs(1);

/// How often a reconcile looks, decides and acts before it lets others have their turn.
const ROUNDS: usize = 6;

/// The longest that a reconcile may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Reconciles at once.
const CONCURRENCY: u16 = 16;

/// A resource as it is watched: one that cannot be read does not stop the others.
type Guarded = DeserializeGuard<SecureInference>;

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server.
    #[error("cannot {action} of {resource}: {}", brief(source))]
    Api {
        /// What was tried.
        action: &'static str,
        /// For which resource.
        resource: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// The certificates could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A Secret could not be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The resource changed under the plan.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// It took too long.
    #[error("the reconcile took more than {DEADLINE:?}")]
    Deadline,
}

impl Error {
    /// What the API server said, if it refused what was asked, rather than failed to answer.
    fn refusal(&self) -> Option<String> {
        let Self::Api { action, source, .. } = self else {
            return matches!(self, Self::Secret(_)).then(|| self.to_string());
        };
        match source.as_ref() {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => {
                Some(format!("cannot {action}: {}", status.message))
            }
            _ => None,
        }
    }
}

/// What an API server said, without the object that it said it with.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (status {})", status.message, status.code),
        other => other.to_string(),
    }
}

/// What reconciles share.
pub struct Context {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    /// The image of parties whose resource names none.
    image: String,
    exporter: Option<Exporter>,
    turns: Turns<ObjectRef<Guarded>>,
    wake: UnboundedSender<ObjectRef<Guarded>>,
    resources: Store<Guarded>,
    pods: Store<Pod>,
    services: Store<PartialObjectMeta<Service>>,
    policies: Store<PartialObjectMeta<NetworkPolicy>>,
    memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of a resource between reconciles; nothing that a restart may not lose.
#[derive(Default)]
struct Memory {
    /// When its status was last published.
    published: Option<Instant>,
    /// Reconciles that failed one after the other.
    failures: u32,
    /// What the API server would not make.
    refusal: Option<String>,
}

/// What the controller works with.
pub struct Settings {
    /// The namespace that is watched; all without it.
    pub namespace: Option<String>,
    /// The image of parties whose resource names none.
    pub image: String,
    /// The name of this replica, for events.
    pub instance: String,
    /// Where spans go, if anywhere.
    pub exporter: Option<Exporter>,
}

/// Watches and reconciles until `stop`, and then lets reconciles that are under way finish.
pub async fn run(
    client: Client,
    settings: Settings,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let (wake, woken) = unbounded();
    let namespace = settings.namespace.as_deref();
    let resources: Api<Guarded> = scoped(&client, namespace);
    let pods: Api<Pod> = scoped(&client, namespace);
    let services: Api<PartialObjectMeta<Service>> = scoped(&client, namespace);
    let policies: Api<PartialObjectMeta<NetworkPolicy>> = scoped(&client, namespace);
    let managed = Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));

    let (resource_store, resource_writer) = reflector::store();
    let (pod_store, pod_writer) = reflector::store();
    let (service_store, service_writer) = reflector::store();
    let (policy_store, policy_writer) = reflector::store();
    let reporter = kube::runtime::events::Reporter {
        controller: MANAGER.into(),
        instance: Some(settings.instance),
    };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        metrics,
        image: settings.image,
        exporter: settings.exporter,
        turns: Turns::default(),
        wake,
        resources: resource_store.clone(),
        pods: pod_store.clone(),
        services: service_store,
        policies: policy_store,
        memory: Mutex::default(),
    });

    // Each watch waits by itself before it tries again. An error that went on to the controller
    // would make it wait besides, each time longer, for all of them: minutes after the API
    // server was restarted.
    let deletions = context.clone();
    let resource_events = watcher(resources, Config::default())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().clear())
        .inspect_ok(move |event| deletions.watch_deletions(event))
        .reflect(resource_writer)
        .applied_objects()
        // Its status is the operator's own doing.
        .predicate_filter(predicates::generation, PredicateConfig::default())
        .filter(|event| ready(event.is_ok()));
    let pod_events = watcher(pods, managed.clone())
        .default_backoff()
        .modify(|pod| pod.managed_fields_mut().clear())
        .reflect(pod_writer)
        .touched_objects()
        .filter(|event| ready(event.is_ok()));
    let service_events = watcher(services, managed.clone())
        .default_backoff()
        .modify(|service| service.managed_fields_mut().clear())
        .reflect(service_writer)
        .touched_objects()
        .filter(|event| ready(event.is_ok()));
    let policy_events = watcher(policies, managed)
        .default_backoff()
        .modify(|policy| policy.managed_fields_mut().clear())
        .reflect(policy_writer)
        .touched_objects()
        .filter(|event| ready(event.is_ok()));

    let config = controller::Config::default()
        .concurrency(CONCURRENCY)
        // Five pods change at once.
        .debounce(Duration::from_millis(50));
    Controller::for_stream(resource_events, resource_store)
        .with_config(config)
        .owns_stream(pod_events)
        .owns_stream(service_events)
        .owns_stream(policy_events)
        .reconcile_on(woken)
        .graceful_shutdown_on(stop)
        .run(reconcile, error_policy, context)
        .for_each(|outcome| async {
            if let Err(error) = outcome {
                tracing::debug!("controller: {error}");
            }
        })
        .await;
}

/// What an event's reason was reported for. Events that differ in their note alone are taken for
/// one that repeats, which those of two attempts are not.
fn action(reason: &str, attempt: Option<u32>) -> String {
    match reason {
        "Suspended" | "Resumed" => "Suspend".into(),
        _ => format!("Attempt{}", attempt.unwrap_or(0)),
    }
}

/// The API of a kind in a namespace, or in all.
fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Next, Error> {
    let began = Instant::now();
    let uid = object.uid().unwrap_or_default();
    let outcome = match &object.0 {
        Ok(resource) => {
            let reconcile = context.reconcile(resource, &object);
            tokio::time::timeout(DEADLINE, reconcile).await.unwrap_or(Err(Error::Deadline))
        }
        Err(malformed) => context.refuse(&object, &malformed.error).await,
    };
    let result = match &outcome {
        Ok(next) if *next == Next::await_change() => "success",
        Ok(_) => "requeue_after",
        Err(_) => "error",
    };
    context.metrics.reconciled(result, began.elapsed());
    context.remember(&uid, |memory| match &outcome {
        Ok(_) => memory.failures = 0,
        Err(error) => {
            memory.failures = memory.failures.saturating_add(1);
            memory.refusal = error.refusal();
        }
    });
    outcome
}

/// Tries again, the longer after the more failures.
fn error_policy(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Next {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let failures = context.remember(&object.uid().unwrap_or_default(), |memory| memory.failures);
    // The status changed after it was read: the next reading is newer.
    if matches!(error, Error::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(status) if status.code == 409))
    {
        tracing::debug!(namespace, name, "{error}");
        return Next::requeue(Duration::from_millis(100));
    }
    tracing::warn!(namespace, name, failures, "{error}");
    Next::requeue(Duration::from_millis(500 << failures.min(6)))
}

impl Context {
    fn memory(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        // A panic elsewhere leaves nothing half done here.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember<T>(&self, uid: &str, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(self.memory().entry(uid.into()).or_default())
    }

    /// Forgets what is deleted, which no reconcile sees any more.
    fn watch_deletions(&self, event: &watcher::Event<Guarded>) {
        if let watcher::Event::Delete(object) = event {
            self.forget(&object.uid().unwrap_or_default());
        }
    }

    fn forget(&self, uid: &str) {
        self.memory().remove(uid);
        self.wake(self.turns.leave(uid));
    }

    /// Has the one whose turn it may be reconciled.
    fn wake(&self, next: Option<ObjectRef<Guarded>>) {
        if let Some(next) = next {
            // Nobody listens only after the controller has stopped.
            let _ = self.wake.unbounded_send(next);
        }
    }

    async fn reconcile(&self, resource: &SecureInference, object: &Guarded) -> Result<Next, Error> {
        let Some(namespace) = resource.namespace() else { return Ok(Next::await_change()) };
        let name = resource.name_any();
        let mut again_at = None;
        for _ in 0..ROUNDS {
            // What is finished needs no fresh look: whatever still happens to it is idempotent.
            let settled = resource.status.as_ref().and_then(conditions::finished).is_some();
            let current = match settled {
                true => None,
                false => {
                    let api: Api<Guarded> = Api::namespaced(self.client.clone(), &namespace);
                    let found = api.get_opt(&name).await;
                    let found = found.map_err(|e| failed("read the state", resource, e))?;
                    let found = found.and_then(|found| found.0.ok());
                    let Some(found) = found.filter(|found| found.uid() == resource.uid()) else {
                        self.forget(&resource.uid().unwrap_or_default());
                        return Ok(Next::await_change());
                    };
                    Some(found)
                }
            };
            let current = current.as_ref().unwrap_or(resource);
            let began = Timestamp::now();
            let observed = self.observe(current, &namespace, settled).await?;
            let plan = self.plan(current, observed, object);
            let withheld = self.publish(current, &namespace, &plan.status).await?;
            again_at = [plan.again_at, withheld].into_iter().flatten().min();
            if plan.turn == Turn::Leave {
                self.wake(self.turns.leave(&current.uid().unwrap_or_default()));
            }
            if plan.actions.is_empty() {
                break;
            }
            tracing::debug!(namespace, name, actions = ?plan.actions, "acts");
            let acted = self.act_all(current, &namespace, &plan.actions).await;
            self.trace(current, &plan, began, acted.is_err());
            acted?;
            self.remember(&current.uid().unwrap_or_default(), |memory| memory.refusal = None);
            // Only a Service's address is waited for here; all else is reported by a watch.
            if !plan.actions.iter().any(|action| matches!(action, Action::ApplyServices(_))) {
                break;
            }
        }
        Ok(match again_at {
            Some(at) => {
                let left = at.duration_since(Timestamp::now());
                let left = Duration::try_from(left).unwrap_or_default();
                Next::requeue(left.max(Duration::from_millis(20)))
            }
            None => Next::await_change(),
        })
    }

    /// One after the other; the rest is left when one fails.
    async fn act_all(
        &self,
        resource: &SecureInference,
        namespace: &str,
        actions: &[Action],
    ) -> Result<(), Error> {
        for action in actions {
            self.act(resource, namespace, action).await?;
        }
        Ok(())
    }

    /// Plans, and asks for the turn where that is needed.
    fn plan(&self, resource: &SecureInference, mut observed: Observed, object: &Guarded) -> Plan {
        let uid = resource.uid().unwrap_or_default();
        let plan = plan::plan(resource, &observed);
        match plan.turn {
            Turn::Want => {
                let created = resource.metadata.creation_timestamp.as_ref();
                let created = created.map_or(0, |time| time.0.as_second());
                let there = self.resources.state();
                let there: HashSet<String> = there.iter().filter_map(|other| other.uid()).collect();
                self.wake(
                    self.turns.keep(&there).filter(|next| *next != ObjectRef::from_obj(object)),
                );
                if !self.turns.ask(&uid, created, ObjectRef::from_obj(object)) {
                    return plan;
                }
                observed.turn = true;
                plan::plan(resource, &observed)
            }
            Turn::Hold => {
                self.turns.hold(&uid);
                plan
            }
            Turn::Leave => plan,
        }
    }

    async fn observe(
        &self,
        resource: &SecureInference,
        namespace: &str,
        settled: bool,
    ) -> Result<Observed, Error> {
        let uid = resource.uid().unwrap_or_default();
        let now = Timestamp::now();
        let refusal = self.remember(&uid, |memory| memory.refusal.clone());
        let mut observed = Observed {
            now: now.round(Unit::Microsecond).unwrap_or(now),
            pods: Vec::new(),
            services: Vec::new(),
            policies: Default::default(),
            turn: self.turns.has(&uid),
            others_wait: self.turns.others_wait(&uid),
            refusal,
        };
        if settled {
            let mine = |labels: &std::collections::BTreeMap<String, String>| {
                labels.get(JOB_UID) == Some(&uid)
            };
            let pods = self.pods.state();
            observed.pods =
                pods.iter().filter(|pod| mine(pod.labels())).map(|pod| (**pod).clone()).collect();
            let services = self.services.state();
            let services = services.iter().filter(|service| mine(service.labels()));
            observed.services = services
                .map(|service| Service { metadata: service.metadata.clone(), ..Service::default() })
                .collect();
            let policies = self.policies.state();
            let policies = policies.iter().filter(|policy| mine(policy.labels()));
            observed.policies = policies.map(|policy| policy.name_any()).collect();
        } else {
            let (pods, services, policies) = tokio::try_join!(
                self.list::<Pod>(resource, namespace, &uid),
                self.list::<Service>(resource, namespace, &uid),
                self.list::<PartialObjectMeta<NetworkPolicy>>(resource, namespace, &uid),
            )?;
            observed.pods = pods;
            observed.services = services;
            observed.policies = policies.iter().map(ResourceExt::name_any).collect();
        }
        observed.pods.retain(|pod| plan::owned_by(pod.owner_references(), &uid));
        Ok(observed)
    }

    async fn list<K>(
        &self,
        resource: &SecureInference,
        namespace: &str,
        uid: &str,
    ) -> Result<Vec<K>, Error>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.list(&of_job(uid)).await;
        Ok(found.map_err(|error| failed("list the objects", resource, error))?.items)
    }

    /// Publishes a status that differs from the one that was read; details that decide nothing
    /// not too often, and then when is returned.
    async fn publish(
        &self,
        resource: &SecureInference,
        namespace: &str,
        status: &SecureInferenceStatus,
    ) -> Result<Option<Timestamp>, Error> {
        let before = resource.status.clone().unwrap_or_default();
        if before == *status {
            return Ok(None);
        }
        let uid = resource.uid().unwrap_or_default();
        let details_only =
            SecureInferenceStatus { parties: before.parties.clone(), ..status.clone() } == before;
        // A pod that is known must be known to a successor too: a second in its place is a loss.
        let same_pods = before.parties.len() == status.parties.len()
            && before.parties.iter().zip(&status.parties).all(|(a, b)| a.uid == b.uid);
        if details_only && same_pods {
            let published = self.remember(&uid, |memory| memory.published);
            let left = published.and_then(|at| DETAILS.checked_sub(at.elapsed()));
            if let Some(left) = left {
                return Ok(Timestamp::now().checked_add(left).ok());
            }
        }
        let body = json!({
            "apiVersion": SecureInference::api_version(&()),
            "kind": SecureInference::kind(&()),
            // Of two that decide at once, one must decide again.
            "metadata": {"resourceVersion": resource.resource_version()},
            "status": status,
        });
        let api: Api<Guarded> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(STATUS_MANAGER).force();
        api.patch_status(&resource.name_any(), &params, &Patch::Apply(&body))
            .await
            .map_err(|error| failed("publish the status", resource, error))?;
        self.remember(&uid, |memory| memory.published = Some(Instant::now()));
        self.report(resource, &before, status).await;
        Ok(None)
    }

    fn send(&self, span: Span) {
        if let Some(exporter) = self.exporter.as_ref()
            && exporter.settings().samples(span.trace)
        {
            exporter.send(Box::new(span));
        }
    }

    /// Tells of a reconcile that took actions for an attempt.
    fn trace(&self, resource: &SecureInference, plan: &Plan, began: Timestamp, failed: bool) {
        let (Some(uid), Some(attempt)) = (resource.uid(), plan.status.attempt) else { return };
        let times = Times { start: trace::nanos(began), end: trace::nanos(Timestamp::now()) };
        let error = failed.then(|| "an action failed".to_owned());
        self.send(trace::reconcile(&uid, attempt, times, plan.actions.len(), error));
    }

    /// Tells of what happened: events, logs and metrics alike.
    async fn report(
        &self,
        resource: &SecureInference,
        before: &SecureInferenceStatus,
        after: &SecureInferenceStatus,
    ) {
        let (namespace, name) = (resource.namespace().unwrap_or_default(), resource.name_any());
        for span in trace::ended(resource, before, after, Timestamp::now()) {
            self.send(span);
        }
        for transition in transitions(before, after) {
            let (reason, note) = (transition.reason, transition.note);
            tracing::info!(namespace, name, reason, "{note}");
            let event = Event {
                type_: if transition.warning { EventType::Warning } else { EventType::Normal },
                reason: reason.into(),
                // The API takes 1 kB.
                note: Some(note.chars().take(1000).collect()),
                action: action(reason, after.attempt),
                secondary: None,
            };
            // An event that is lost changes nothing.
            if let Err(error) = self.recorder.publish(&event, &resource.object_ref(&())).await {
                tracing::warn!(namespace, name, "cannot publish event {reason}: {error}");
            }
        }
        let since = |from: &Option<MicroTime>, to: &Option<MicroTime>| {
            let (MicroTime(from), MicroTime(to)) = (from.as_ref()?, to.as_ref()?);
            Duration::try_from(to.duration_since(*from)).ok()
        };
        if before.ready_time.is_none()
            && let Some(took) = since(&after.attempt_start_time, &after.ready_time)
                .or_else(|| since(&before.attempt_start_time, &after.ready_time))
        {
            self.metrics.started(took);
        }
        let phase_is = |phase| after.phase == Some(phase) && before.phase != Some(phase);
        if phase_is(Phase::Succeeded) {
            self.metrics.attempt_ended("succeeded");
            if let Some(took) = since(&after.ready_time, &after.completion_time) {
                self.metrics.executed(took);
            }
        } else if before.attempt_start_time.is_some() && after.attempt_start_time.is_none() {
            self.metrics.attempt_ended(match after.phase {
                Some(Phase::Suspended) => "suspended",
                _ if after.start_seconds_used > before.start_seconds_used => "gave_way",
                _ => "failed",
            });
        }
        let jobs = self.resources.state();
        let jobs = jobs.iter().filter_map(|object| object.0.as_ref().ok()).map(|job| {
            let status = job.status.as_ref();
            let status = if job.uid() == resource.uid() { Some(after) } else { status };
            let phase = status.and_then(|status| status.phase).unwrap_or(Phase::Pending);
            (phase, network_label(job), job.spec.number_format)
        });
        let jobs: Vec<_> = jobs.collect();
        self.metrics.set_jobs(
            jobs.iter().map(|(phase, network, format)| (*phase, *network, format.name())),
        );
    }

    async fn act(
        &self,
        resource: &SecureInference,
        namespace: &str,
        action: &Action,
    ) -> Result<(), Error> {
        let client = &self.client;
        match action {
            Action::ApplyPolicies => {
                let policies = network_policy::build(&Job::of(resource)?);
                self.apply_all(resource, namespace, "make the NetworkPolicies", &policies).await?;
            }
            Action::ApplyServices(attempt) => {
                let job = Job::of(resource)?;
                let services =
                    [Role::Server0, Role::Server1].map(|role| service::build(&job, *attempt, role));
                self.apply_all(resource, namespace, "make the Services", &services).await?;
            }
            Action::StartParties { attempt, addresses } => {
                self.start(resource, namespace, *attempt, addresses).await?;
            }
            Action::CompleteParties { attempt, roles, session } => {
                let job = Job::of(resource)?;
                self.make_pods(resource, namespace, &job, *attempt, roles, *session).await?;
            }
            Action::TearDown { attempt, pods } => {
                self.tear_down(resource, namespace, *attempt, pods).await?;
            }
            Action::ForgetPods(names) => {
                let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
                for name in names {
                    let params = DeleteParams::default().grace_period(0);
                    gone(api.delete(name, &params).await)
                        .map_err(|error| failed("forget the lost pods", resource, error))?;
                }
            }
            Action::RemovePolicies => {
                let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
                let uid = resource.uid().unwrap_or_default();
                api.delete_collection(&DeleteParams::background(), &of_job(&uid))
                    .await
                    .map_err(|error| failed("delete the NetworkPolicies", resource, error))?;
            }
            Action::DeleteResource => {
                let api: Api<Guarded> = Api::namespaced(client.clone(), namespace);
                let this_one = Preconditions { uid: resource.uid(), resource_version: None };
                let params = DeleteParams::background().preconditions(this_one);
                gone(api.delete(&resource.name_any(), &params).await)
                    .map_err(|error| failed("delete after its time", resource, error))?;
            }
        }
        Ok(())
    }

    /// Makes a session: identities for all roles, their Secrets, and then the pods.
    async fn start(
        &self,
        resource: &SecureInference,
        namespace: &str,
        attempt: u32,
        addresses: &Addresses,
    ) -> Result<(), Error> {
        let job = Job::of(resource)?;
        let session = SessionId::fresh()?;
        // The authority's key is gone when this returns.
        let issued = identity::issue(session, &job.roles)?;
        let session = Session(session);
        let secrets = issued
            .parties
            .iter()
            .map(|(role, party)| {
                let config = job.config_in(attempt, *role, session, addresses);
                secret::build(&job, attempt, &config, &issued.authority, party)
            })
            .collect::<Result<Vec<Secret>, SecretError>>()?;
        self.apply_all(resource, namespace, "make the Secrets", &secrets).await?;
        self.make_pods(resource, namespace, &job, attempt, &job.roles, session).await
    }

    async fn make_pods(
        &self,
        resource: &SecureInference,
        namespace: &str,
        job: &Job,
        attempt: u32,
        roles: &[Role],
        session: Session,
    ) -> Result<(), Error> {
        let pods: Vec<Pod> = roles
            .iter()
            .map(|role| pod::build(job, attempt, *role, session, &self.image))
            .collect();
        self.apply_all(resource, namespace, "make the pods", &pods).await
    }

    async fn apply_all<K>(
        &self,
        resource: &SecureInference,
        namespace: &str,
        action: &'static str,
        objects: &[K],
    ) -> Result<(), Error>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(MANAGER).force();
        // Nothing of what the server answers is needed, least of all Secrets.
        let apply = objects.iter().map(async |object| {
            let patch = Patch::Apply(object);
            api.patch_metadata(&object.name_any(), &params, &patch).await.map(drop)
        });
        futures::future::try_join_all(apply)
            .await
            .map_err(|error| failed(action, resource, error))
            .map(drop)
    }

    /// Secrets first: no pod can start any more. Services last: they tell that there was
    /// something to tear down.
    async fn tear_down(
        &self,
        resource: &SecureInference,
        namespace: &str,
        attempt: u32,
        pods: &Pods,
    ) -> Result<(), Error> {
        let uid = resource.uid().unwrap_or_default();
        let selected =
            ListParams::default().labels(&format!("{JOB_UID}={uid},{ATTEMPT}={attempt}"));
        let refuse = |error| failed("tear an attempt down", resource, error);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        secrets.delete_collection(&DeleteParams::background(), &selected).await.map_err(refuse)?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match pods {
            Pods::All => {
                api.delete_collection(&DeleteParams::background(), &selected)
                    .await
                    .map_err(refuse)?;
            }
            Pods::Named(names) => {
                for name in names {
                    gone(api.delete(name, &DeleteParams::background()).await).map_err(refuse)?;
                }
            }
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        for role in [Role::Server0, Role::Server1] {
            let name = format!("{}-{attempt}-{role}", resource.name_any());
            gone(services.delete(&name, &DeleteParams::background()).await).map_err(refuse)?;
        }
        Ok(())
    }

    /// Says of a resource that cannot be read why.
    async fn refuse(&self, object: &Guarded, problem: &str) -> Result<Next, Error> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let message = format!("the resource cannot be read: {problem}");
        let kind = kube::core::ApiResource::erase::<SecureInference>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &kind);
        let found = api.get_opt(&name).await.map_err(|e| failed_for("read the state", &name, e))?;
        let Some(found) = found else { return Ok(Next::await_change()) };
        let known = found.data["status"]["conditions"][0]["message"].as_str() == Some(&message);
        if known {
            return Ok(Next::await_change());
        }
        let mut status = SecureInferenceStatus::default();
        let (now, generation) = (Timestamp::now(), object.meta().generation);
        for (condition, holds) in [(ACCEPTED, false), (FAILED, true)] {
            conditions::set(&mut status, condition, holds, "Malformed", &message, now, generation);
        }
        status.phase = Some(Phase::Failed);
        tracing::warn!(namespace, name, "{message}");
        let body = json!({
            "apiVersion": SecureInference::api_version(&()),
            "kind": SecureInference::kind(&()),
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        api.patch_status(&name, &params, &Patch::Apply(&body))
            .await
            .map_err(|error| failed_for("publish the status", &name, error))?;
        Ok(Next::await_change())
    }
}

/// Everything of a job.
fn of_job(uid: &str) -> ListParams {
    ListParams::default().labels(&format!("{JOB_UID}={uid}"))
}

/// Deleting what is not there has succeeded.
fn gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

fn failed(action: &'static str, resource: &SecureInference, source: kube::Error) -> Error {
    failed_for(action, &resource.name_any(), source)
}

fn failed_for(action: &'static str, name: &str, source: kube::Error) -> Error {
    Error::Api { action, resource: name.into(), source: Box::new(source) }
}

/// What a resource computes, of a bounded set.
fn network_label(resource: &SecureInference) -> &'static str {
    let model = &resource.spec.model;
    let network = model.builtin.or(model.volume.as_ref().map(|volume| volume.network));
    network.map_or("graph", crate::api::v1alpha1::Network::name)
}
