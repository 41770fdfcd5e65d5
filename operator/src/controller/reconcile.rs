//! Watching, and reconciling what changed.

use std::collections::HashSet;
use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::channel::mpsc::unbounded;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Action as Next, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::watcher::{self, Config, watcher};
use kube::runtime::{PredicateConfig, WatchStreamExt};
use kube::{Client, Resource, ResourceExt};
use party::trace::Exporter;
use tokio::time::Instant;

use super::context::{Context, Guarded, MANAGER};
use super::error::{DEADLINE, Error, failed};
use super::publish::jobs;
use crate::admission_queue::{AdmissionQueue, Answer};
use crate::api::v1alpha1::SecureInference;
use crate::conditions;
use crate::metrics::Metrics;
use crate::plan::{self, Action, Admission, Observed, Plan};
use crate::policy::Policy;
use crate::resources::MANAGED_BY;
use crate::resources::network_policy::Outside;
use crate::resources::pod::Defaults;
use crate::validator::{Validated, Validator};

/// How often a reconcile looks, decides and acts before it lets others go on.
const ROUNDS: usize = 6;

/// Reconciles that fail one after the other, a minute in all, until a run is no longer admitted.
const LOST: u32 = 8;

/// Reconciles at once.
const CONCURRENCY: u16 = 16;

/// What the controller works with.
pub struct Settings {
    /// The namespace that is watched; all without it.
    pub namespace: Option<String>,
    /// What holds for pods of resources that say nothing else.
    pub defaults: Defaults,
    /// Who beyond a run's parties may reach them.
    pub outside: Outside,
    /// What resources may use.
    pub policy: Policy,
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
    let counted = resource_store.clone();
    metrics.count_with(move || jobs(&counted));
    let reporter = Reporter { controller: MANAGER.into(), instance: Some(settings.instance) };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        metrics,
        defaults: settings.defaults,
        outside: settings.outside,
        exporter: settings.exporter,
        queue: AdmissionQueue::default(),
        validator: Validator::new(settings.policy, {
            let wake = wake.clone();
            // Nobody listens only after the controller has stopped.
            move |resource| drop(wake.unbounded_send(resource))
        }),
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
        .predicate_filter(standing, PredicateConfig::default())
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

/// What has to change of a resource for it to be reconciled: its generation, or that somebody has
/// cleared its status. All else in that is the operator's own doing. What cannot be read may have lost
/// its status with any change.
fn standing(object: &Guarded) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    object.meta().generation.hash(&mut hasher);
    match &object.0 {
        Ok(resource) => {
            resource.status.as_ref().is_none_or(|status| status.phase.is_none()).hash(&mut hasher);
        }
        Err(_) => object.meta().resource_version.hash(&mut hasher),
    }
    Some(hasher.finish())
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
    if outcome.is_err() || object.0.is_err() {
        // Others do not wait until it can be read again.
        context.validator.leave(&uid);
        context.postpone(&uid);
    }
    let failures = context.remember(&uid, |memory| {
        match &outcome {
            Ok(_) => memory.failures = 0,
            Err(error) => {
                memory.failures = memory.failures.saturating_add(1);
                memory.refusal = error.refusal();
            }
        }
        memory.failures
    });
    if failures >= LOST {
        // Nor for one that is admitted and cannot be told to give way.
        context.wake(context.queue.release(&uid));
    }
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
    let again_at = context.remember(&object.uid().unwrap_or_default(), |memory| memory.again_at);
    Next::requeue(back_off(failures, Timestamp::now(), again_at))
}

/// How long to wait after so many failures: not beyond what the plan waits for, such as a deadline.
fn back_off(failures: u32, now: Timestamp, again_at: Option<Timestamp>) -> Duration {
    let wait = Duration::from_millis(500 << failures.min(6));
    let left = again_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    left.filter(|left| !left.is_zero()).map_or(wait, |left| wait.min(left))
}

impl Context {
    /// Lets others be admitted before a run that was called and cannot come.
    fn postpone(&self, uid: &str) {
        self.wake(self.queue.postpone(uid, Timestamp::now().as_second()));
    }

    /// Forgets what is deleted, which no reconcile sees any more.
    fn watch_deletions(&self, event: &watcher::Event<Guarded>) {
        if let watcher::Event::Delete(object) = event {
            self.forget(&object.uid().unwrap_or_default());
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
            let uid = current.uid().unwrap_or_default();
            let cleared = self.remember(&uid, |memory| memory.cleared(current.status.as_ref()));
            if let Some(status) = cleared {
                tracing::warn!(namespace, name, "its status was cleared; it is written again");
                self.write(current, &namespace, &status).await?;
                return Ok(Next::await_change());
            }
            let validated = match plan::is_settled(current) {
                true => {
                    self.validator.leave(&current.uid().unwrap_or_default());
                    None
                }
                false => {
                    let key = ObjectRef::from_obj(object);
                    let Some(validated) = self.validator.validate(current, key).await else {
                        // Others do not wait for it meanwhile.
                        self.postpone(&current.uid().unwrap_or_default());
                        return Ok(Next::await_change());
                    };
                    Some(validated)
                }
            };
            let job = validated.as_ref().and_then(|validated| validated.as_deref().ok());
            let began = Timestamp::now();
            let observed = self.observe(current, &namespace, settled).await?;
            let plan = match &validated {
                Some(validated) => self.plan(current, validated, observed, object),
                None => plan::clean_up(current, &observed),
            };
            let withheld = self.publish(current, &namespace, &plan.status).await?;
            again_at = [plan.again_at, withheld].into_iter().flatten().min();
            self.remember(&uid, |memory| memory.again_at = again_at);
            match plan.admission {
                Admission::Release => self.wake(self.queue.release(&uid)),
                Admission::GiveWay => {
                    self.wake(self.queue.give_way(&uid, Timestamp::now().as_second()));
                }
                Admission::Request | Admission::Hold => {}
            }
            if plan.actions.is_empty() {
                break;
            }
            tracing::debug!(namespace, name, actions = ?plan.actions, "acts");
            let acted = self.act_all(current, job, &namespace, &plan.actions).await;
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

    /// Plans, and asks to be admitted where that is needed.
    fn plan(
        &self,
        resource: &SecureInference,
        validated: &Validated,
        mut observed: Observed,
        object: &Guarded,
    ) -> Plan {
        let uid = resource.uid().unwrap_or_default();
        let plan = plan::plan(resource, validated, &observed);
        match plan.admission {
            Admission::Request => {
                let created = resource.metadata.creation_timestamp.as_ref();
                let created = created.map_or(0, |time| time.0.as_second());
                let there = self.resources.state();
                let there: HashSet<String> = there.iter().filter_map(|other| other.uid()).collect();
                self.queue.retain(&there);
                let namespace = resource.namespace().unwrap_or_default();
                let key = ObjectRef::from_obj(object);
                match self.queue.request(&uid, &namespace, created, key) {
                    Answer::Queued(wake) => {
                        wake.into_iter().for_each(|key| self.wake(Some(key)));
                        plan
                    }
                    Answer::Admitted => {
                        observed.admitted = true;
                        plan::plan(resource, validated, &observed)
                    }
                }
            }
            Admission::Hold => {
                self.queue.hold(&uid, ObjectRef::from_obj(object));
                plan
            }
            Admission::Release | Admission::GiveWay => plan,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::DeserializeGuard;
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::{Phase, SecureInferenceStatus};
    use crate::job::tests::network;

    #[test]
    fn a_resource_is_reconciled_when_it_has_changed_or_lost_its_status() {
        let object = |generation, phase: Option<Phase>| {
            let mut resource = SecureInference::new("run", network());
            resource.metadata.generation = Some(generation);
            let status = SecureInferenceStatus { phase, ..Default::default() };
            resource.status = phase.is_some().then_some(status);
            standing(&DeserializeGuard(Ok(resource)))
        };
        let complete = object(1, Some(Phase::Succeeded));
        assert_eq!(object(1, Some(Phase::Running)), complete, "the operator wrote it");
        assert_ne!(object(1, None), complete);
        assert_ne!(object(2, Some(Phase::Succeeded)), complete);
        let malformed = |version: &str| {
            let metadata = json!({"name": "run", "generation": 1, "resourceVersion": version});
            let object = json!({"metadata": metadata, "spec": 7});
            standing(&serde_json::from_value::<Guarded>(object).unwrap())
        };
        assert_ne!(malformed("1"), malformed("2"));
        assert_eq!(malformed("1"), malformed("1"));
    }

    #[test]
    fn the_wait_after_failures_grows_and_ends_at_the_deadline() {
        let now = Timestamp::from_second(1000).unwrap();
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        for (failures, again_at, milliseconds) in [
            (0, None, 500),
            (3, None, 4000),
            (6, None, 32_000),
            (60, None, 32_000),
            (6, at(1005), 5000),
            (1, at(1005), 1000),
            // It is over: there must be something else that is wrong.
            (6, at(990), 32_000),
        ] {
            let found = back_off(failures, now, again_at);
            assert_eq!(found, Duration::from_millis(milliseconds), "{failures}, {again_at:?}");
        }
    }
}
