//! What a case works in: a namespace of its own, and everything that happens in it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use operator::api::v1alpha1::{
    Model, Network, PartyPhase, SecureInference, SecureInferenceSpec, SecureInferenceStatus,
    Workload,
};
use operator::conditions::{self, COMPLETE, FAILED, PARTIES_READY};
use operator::resources::{JOB_UID, MANAGED_BY, ROLE};
use party::config::Conditions;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::film::{Film, Filmed, Present};
use crate::operator::{MARK, Operator};

/// What all cases share.
pub(crate) struct World {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) operator: Operator,
    /// Whether none was left out.
    pub(crate) all_cases: bool,
}

/// How long parties may take to be ready, and a short run to be complete: also when other
/// cases run at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A case's namespace.
pub(crate) struct Room {
    pub(crate) world: Arc<World>,
    pub(crate) namespace: String,
    /// All that is seen of its resources.
    pub(crate) runs: Film<SecureInference>,
    /// All that is seen of their pods.
    pub(crate) pods: Film<Pod>,
}

impl Room {
    /// Makes a namespace.
    pub(crate) async fn open(world: Arc<World>, case: &str) -> anyhow::Result<Self> {
        let dashed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let case: String = case.chars().take(40).map(dashed).collect();
        let number: u32 = rand::random();
        let namespace = format!("e2e-{}-{:05x}", case.trim_matches('-'), number & 0xf_ffff);
        let labels = [(MARK, "true"), ("pod-security.kubernetes.io/enforce", "restricted")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let client = &world.cluster.client;
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        let runs = Film::start(Api::namespaced(client.clone(), &namespace), "").await?;
        let pods = Film::start(Api::namespaced(client.clone(), &namespace), &managed()).await?;
        Ok(Self { world, namespace, runs, pods })
    }

    /// Deletes the namespace; it goes in its own time.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.world.cluster.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::background()).await?;
        Ok(())
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.world.cluster
    }

    pub(crate) fn operator(&self) -> &Operator {
        &self.world.operator
    }

    /// The API of a kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.world.cluster.client.clone(), &self.namespace)
    }

    /// Records what the operator makes of a kind from now on.
    pub(crate) async fn film<K>(&self) -> anyhow::Result<Film<K>>
    where
        K: Filmed + Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Film::start(self.api(), &managed()).await
    }

    /// Asks for a run.
    pub(crate) async fn create(
        &self,
        name: &str,
        spec: SecureInferenceSpec,
    ) -> anyhow::Result<SecureInference> {
        let resource = SecureInference::new(name, spec);
        let created = self.api().create(&PostParams::default(), &resource).await;
        created.with_context(|| format!("cannot create {name}"))
    }

    /// Changes a run's spec.
    pub(crate) async fn change(&self, name: &str, spec: Value) -> anyhow::Result<SecureInference> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let changed = self.api().patch(name, &PatchParams::default(), &patch).await;
        changed.with_context(|| format!("cannot change {name}"))
    }

    /// Waits until a run's status is as `wanted`.
    pub(crate) async fn status<T>(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&SecureInferenceStatus) -> Option<T>,
    ) -> anyhow::Result<T> {
        let what = format!("{name} to be {what}");
        let status = |run: &SecureInference| run.status.clone();
        self.runs.until(&what, within, |runs| wanted(&runs.get(name).and_then(status)?)).await
    }

    /// Waits until all parties of an attempt are ready.
    pub(crate) async fn ready(&self, name: &str, attempt: u32) -> anyhow::Result<()> {
        let what = format!("{name} to be ready in attempt {attempt}");
        let look = |runs: &Present<SecureInference>| {
            let status = runs.get(name).and_then(|run| run.status.as_ref());
            let Some(status) = status else { return Ok(None) };
            let under_way = status.attempt.unwrap_or_default();
            ensure!(
                under_way <= attempt,
                "expected {what}, but attempt {under_way} is under way after {:?}",
                status.failure
            );
            let over = conditions::finished(status);
            ensure!(over.is_none(), "expected {what}, it was over before that was told: {over:?}");
            let ready = under_way == attempt && conditions::holds(status, PARTIES_READY);
            Ok(ready.then_some(()))
        };
        self.runs.until_some(&what, PATIENCE, look).await
    }

    /// Waits until a run is complete; one that has failed never will be.
    pub(crate) async fn complete(
        &self,
        name: &str,
        within: Duration,
    ) -> anyhow::Result<SecureInferenceStatus> {
        self.ends(name, COMPLETE, FAILED, within).await
    }

    /// Waits until a run has failed.
    pub(crate) async fn failed(
        &self,
        name: &str,
        within: Duration,
    ) -> anyhow::Result<SecureInferenceStatus> {
        self.ends(name, FAILED, COMPLETE, within).await
    }

    async fn ends(
        &self,
        name: &str,
        wanted: &str,
        other: &str,
        within: Duration,
    ) -> anyhow::Result<SecureInferenceStatus> {
        let what = format!("{name} to be {wanted}");
        self.runs
            .until_some(&what, within, |runs| {
                let Some(status) = runs.get(name).and_then(|run| run.status.clone()) else {
                    return Ok(None);
                };
                if let Some(found) = conditions::find(&status, other)
                    && found.status == "True"
                {
                    bail!("it is {other}: {}: {}", found.reason, found.message);
                }
                Ok(conditions::holds(&status, wanted).then_some(status))
            })
            .await
    }

    /// The pod of a role that is there now.
    pub(crate) fn pod(&self, role: &str) -> anyhow::Result<Pod> {
        let pods = self.pods.present();
        let of_role = |pod: &&Pod| pod.labels().get(ROLE).map(String::as_str) == Some(role);
        let pod = pods.values().find(of_role);
        pod.cloned().with_context(|| format!("expected a pod of {role}, found {:?}", pods.keys()))
    }

    /// Waits until nothing is left of a run but its events.
    pub(crate) async fn nothing_left(&self, uid: &str, within: Duration) -> anyhow::Result<()> {
        let none = async {
            self.gone::<Pod>(uid, within).await?;
            self.gone::<Service>(uid, within).await?;
            self.gone::<Secret>(uid, within).await?;
            self.gone::<NetworkPolicy>(uid, within).await
        };
        match tokio::time::timeout(within, none).await {
            Ok(gone) => gone,
            Err(_) => bail!("expected nothing of the run to be left after {within:?}"),
        }
    }

    /// Waits until no object of a kind is left of a run.
    pub(crate) async fn gone<K>(&self, uid: &str, within: Duration) -> anyhow::Result<()>
    where
        K: Filmed + Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let film: Film<K> = Film::start(self.api(), &format!("{JOB_UID}={uid}")).await?;
        let what = format!("no {} of the run to be left", K::plural(&()));
        film.until(&what, within, |present| present.is_empty().then_some(())).await
    }

    /// Everything about this namespace that helps to see why a case failed.
    pub(crate) async fn diagnose(&self) -> String {
        let mut text = String::new();
        for (name, run) in self.runs.present() {
            let status = serde_yaml::to_string(&run.status).unwrap_or_else(|e| e.to_string());
            let _ = writeln!(text, "status of {name}:\n{}", indented(&status));
        }
        let _ = writeln!(text, "pods:");
        for pod in self.pods.present().values() {
            let _ = writeln!(text, "  {}", one_line(pod));
        }
        let _ = writeln!(text, "events:");
        match self.api::<Event>().list(&ListParams::default()).await {
            Ok(mut events) => {
                events.items.sort_by_key(|event| event.metadata.creation_timestamp.clone());
                for event in events {
                    let time = event.metadata.creation_timestamp.map(|time| time.0.to_string());
                    let _ = writeln!(
                        text,
                        "  {} {} {}: {}",
                        time.unwrap_or_default(),
                        event.involved_object.name.unwrap_or_default(),
                        event.reason.unwrap_or_default(),
                        event.message.unwrap_or_default().trim_end(),
                    );
                }
            }
            Err(error) => {
                let _ = writeln!(text, "  cannot be listed: {error}");
            }
        }
        text.push_str(&self.operator().diagnosis().await);
        text
    }
}

fn managed() -> String {
    format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// A pod on a line.
pub(crate) fn one_line(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().next();
    let state = container.and_then(|container| serde_json::to_string(&container.state).ok());
    let deleted = pod.metadata.deletion_timestamp.is_some();
    format!(
        "{} {}{} restarts {} {}",
        pod.name_any(),
        status.phase.unwrap_or_default(),
        if deleted { ", being deleted" } else { "" },
        container.map_or(0, |container| container.restart_count),
        state.unwrap_or_default(),
    )
}

/// A run of network A that is over soon after it has begun: `repetitions` of half a
/// millisecond on an idle machine.
pub(crate) fn brief(repetitions: u32) -> SecureInferenceSpec {
    SecureInferenceSpec {
        model: Model { builtin: Some(Network::A), ..Model::default() },
        workload: Workload {
            warmup: 1,
            repetitions,
            accuracy_samples: Some(0),
            ..Workload::default()
        },
        ..SecureInferenceSpec::default()
    }
}

/// A run of network A that lasts so many seconds or longer, however fast the machine is. Its
/// messages are on their way for most of the time, so that it leaves the processors to the
/// nodes: busy ones tell that parties are ready seconds after they are.
pub(crate) fn lasting(seconds: u32) -> SecureInferenceSpec {
    let network = Conditions { rtt_ms: 10.0, jitter_ms: 0.0, bandwidth_mbps: None };
    let brief = brief(seconds * 1000 / INFERENCE_MS);
    SecureInferenceSpec { workload: Workload { network: Some(network), ..brief.workload }, ..brief }
}

/// What an inference of network A takes at least where a message takes 5 ms: twelve follow each
/// other.
const INFERENCE_MS: u32 = 60;

/// For a run that is still under way when something is done to it, and that is to be complete
/// after it; seconds.
pub(crate) const LASTING: u32 = 30;

/// For a run that nobody waits for: the most repetitions that it may have; seconds.
pub(crate) const ENDLESS: u32 = 6000;

/// The roles of a network's run.
pub(crate) const ROLES: [&str; 5] = ["server0", "server1", "producer", "model-owner", "client"];

/// Checks that a status is that of a run that went well.
pub(crate) fn check_complete(status: &SecureInferenceStatus) -> anyhow::Result<()> {
    let results = status.results.as_ref().context("expected results in the status")?;
    for (name, latency) in [
        ("combined", &results.combined),
        ("online", &results.online),
        ("offline", &results.offline),
    ] {
        let mean = latency.mean_ms;
        ensure!(mean > 0.0, "expected a {name} time above 0, found {mean} ms");
    }
    ensure!(results.online_bytes > 0, "expected bytes online, found none");
    ensure!(status.completion_time.is_some(), "expected a completionTime");
    ensure!(status.failure.is_none(), "expected no failure, found {:?}", status.failure);
    ensure!(!conditions::holds(status, FAILED), "it is Failed as well as Complete");
    let roles: BTreeSet<&str> = status.parties.iter().map(|party| party.role.as_str()).collect();
    ensure!(roles.len() == status.parties.len(), "a role is there twice: {:?}", status.parties);
    // A busy node may tell of the client's end before it tells that a server has started.
    for party in &status.parties {
        let (role, phase) = (&party.role, party.phase);
        ensure!(party.restarts == 0, "{role} was restarted");
        let failed = matches!(phase, PartyPhase::Failed | PartyPhase::Lost);
        ensure!(!failed, "expected {role} to have done its part, it is {phase:?}");
    }
    Ok(())
}

/// A condition that has to be there.
pub(crate) fn condition<'a>(
    status: &'a SecureInferenceStatus,
    kind: &str,
) -> anyhow::Result<&'a Condition> {
    conditions::find(status, kind).with_context(|| {
        let kinds: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
        format!("expected a condition {kind}, found {kinds:?}")
    })
}
