//! Trials as `SecureInference` resources, which the operator runs as pods.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node as ClusterNode, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use operator::api::v1alpha1::{
    Model, Network, Parties, Phase, SecureInference, SecureInferenceSpec, Workload,
};
use operator::conditions::{ACCEPTED, FAILED};
use operator::job::Job;
use operator::party_state;
use party::result::RunResult;
use party::run::Progress;
use serde_json::Value;
use spdz::network::Builtin;
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout};

use super::{ClusterOptions, Launcher, MULTIPLYING, TrialError, threads};
use crate::cell::{CellId, CellPlan, Trial};
use crate::environment::{ClusterEnvironment, Node, unix_seconds};
use crate::settings::{PartySettings, Settings};

/// The label of a sweep's resources; its value is the sweep's id.
pub const SWEEP_LABEL: &str = "secureinference.dev/sweep";

/// How long the operator may take to look at a new resource.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(30);

/// For any one answer of the API server.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// Of a network.
const PARTIES: usize = 5;

/// Between two looks at whether the user has interrupted.
const POLL: Duration = Duration::from_millis(200);

/// Beyond the run's own deadlines, after which the operator ends it.
const GRACE: Duration = Duration::from_secs(60);

/// Has the operator of a cluster run the parties.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
    namespace: String,
    version: String,
    options: ClusterOptions,
    settings: Settings,
    parties: Parties,
    /// Of each server and the producer, if it is known what the nodes have.
    threads: Option<usize>,
    /// The sweep's, which is known when it begins.
    id: Mutex<String>,
    seen: Mutex<Seen>,
}

/// What was seen of the pods.
#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeSet<String>,
    image: Option<String>,
    digest: Option<String>,
}

impl Cluster {
    /// Connects to the cluster of the kubeconfig, or of the pod that this runs in.
    ///
    /// # Errors
    /// If no operator would take the settings of pods; if there is no cluster, it does not
    /// answer, or it lacks the definition or the namespace.
    pub fn connect(options: ClusterOptions, settings: &Settings) -> anyhow::Result<Self> {
        let parties = parties(&settings.parties)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the threads that talk to the cluster")?;
        let (client, namespace, version) = runtime.block_on(connect(&options))?;
        let threads = match settings.threads {
            Some(threads) => Some(threads),
            // Each then takes the cores that its container has.
            None if limits_cpu(&parties) => None,
            None => runtime.block_on(shared_cores(&client)),
        };
        Ok(Self {
            runtime,
            client,
            namespace,
            version,
            options,
            settings: settings.clone(),
            parties,
            threads,
            id: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    fn resources(&self) -> Api<SecureInference> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn resource(
        &self,
        cell: &CellPlan,
        round: u32,
        scored: bool,
    ) -> anyhow::Result<SecureInference> {
        let id = self.id.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let name = format!("{id}-c{}-r{round}", cell.position);
        let threads = self.threads.map(TryInto::try_into).transpose()?;
        let mut spec = spec(&cell.key, scored, &self.settings)?;
        spec.parties = Parties { threads, ..self.parties.clone() };
        spec.active_deadline_seconds = self.options.deadline_seconds;
        let mut resource = SecureInference::new(&name, spec);
        resource.labels_mut().insert(SWEEP_LABEL.into(), id);
        Ok(resource)
    }

    /// Has the operator run a resource, and waits for what it reports.
    async fn trial(
        &self,
        resource: &SecureInference,
        interrupted: &AtomicBool,
    ) -> Result<(RunResult, BTreeMap<String, String>), TrialError> {
        let name = resource.name_any();
        let ended = async {
            self.create(resource).await.map_err(TrialError::NonRetryable)?;
            let ended = self.follow(&name, interrupted).await?;
            self.collect(ended).await
        }
        .await;
        if !self.options.keep || matches!(ended, Err(TrialError::Interrupted)) {
            // What is left behind has the sweep's label, so that it can be found.
            let _ = answered(self.resources().delete(&name, &DeleteParams::background())).await;
        }
        ended
    }

    /// Makes the resource, in place of what an interrupted trial left under its name.
    async fn create(&self, resource: &SecureInference) -> anyhow::Result<()> {
        let (resources, name) = (self.resources(), resource.name_any());
        let deadline = Instant::now() + REQUEST_PATIENCE;
        loop {
            match answered(resources.create(&PostParams::default(), resource)).await? {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status))
                    if status.code == 409 && Instant::now() < deadline =>
                {
                    let parameters = DeleteParams::background();
                    answered(resources.delete(&name, &parameters))
                        .await?
                        .map(drop)
                        .or_else(absent_is_fine)?;
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => {
                    return Err(explain(error, &format!("create SecureInference {name}")));
                }
            }
        }
    }

    /// Waits until the run has ended.
    async fn follow(
        &self,
        name: &str,
        interrupted: &AtomicBool,
    ) -> Result<SecureInference, TrialError> {
        let mut changes = pin!(watch_object(self.resources(), name).default_backoff());
        let begun = Instant::now();
        let whole = u64::from(self.options.deadline_seconds);
        let whole = Duration::from_secs(whole) + OPERATOR_PATIENCE + GRACE;
        let (mut looked_at, mut seen, mut trouble) = (false, false, String::new());
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(TrialError::Interrupted);
            }
            match timeout(POLL, changes.next()).await {
                Ok(Some(Ok(Some(resource)))) => {
                    seen = true;
                    looked_at |= resource.status.as_ref().is_some_and(|s| s.phase.is_some());
                    if ended(&resource) {
                        return Ok(resource);
                    }
                }
                Ok(Some(Ok(None))) if seen => {
                    return Err(TrialError::Failed(anyhow!(
                        "SecureInference {name} was deleted before it was done"
                    )));
                }
                Ok(Some(Err(error))) => trouble = format!("; the last trouble: {error}"),
                _ => {}
            }
            if !looked_at && begun.elapsed() > OPERATOR_PATIENCE {
                return Err(TrialError::NonRetryable(anyhow!(
                    "the operator has not looked at SecureInference {name} within {} s{trouble}; is it \
                     running, and does it watch namespace {}? See: kubectl get pods --all-namespaces \
                     --selector app.kubernetes.io/name=secure-inference,app.kubernetes.io/component=operator",
                    OPERATOR_PATIENCE.as_secs(),
                    self.namespace
                )));
            }
            if begun.elapsed() > whole {
                return Err(TrialError::Failed(anyhow!(
                    "SecureInference {name} has not ended within {} s, which --deadline says{trouble}",
                    self.options.deadline_seconds
                )));
            }
        }
    }

    /// What a run that has ended reports, and the node of each role.
    async fn collect(
        &self,
        resource: SecureInference,
    ) -> Result<(RunResult, BTreeMap<String, String>), TrialError> {
        let why = failure(&resource);
        let status = resource.status.unwrap_or_default();
        let Some(result) = status.results else {
            return Err(TrialError::Failed(anyhow!(why)));
        };
        let nodes = status.parties.iter();
        let nodes = nodes.filter_map(|party| Some((party.role.clone(), party.node.clone()?)));
        let nodes: BTreeMap<String, String> = nodes.collect();
        if let Some(party) = status.parties.first() {
            self.see(&party.pod, &nodes).await;
        }
        Ok((result, nodes))
    }

    /// Remembers what parties ran on. Nothing depends on it, so this may lack permissions.
    async fn see(&self, pod: &str, nodes: &BTreeMap<String, String>) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = answered(pods.get(pod)).await.ok().and_then(Result::ok);
        let container = pod.as_ref().and_then(party_state::container);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.nodes.extend(nodes.values().cloned());
        if let Some(container) = container {
            seen.image = Some(container.image.clone());
            seen.digest = Some(container.image_id.clone()).filter(|digest| !digest.is_empty());
        }
    }

    async fn describe(&self) -> ClusterEnvironment {
        let (names, image, image_digest) = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (seen.nodes.clone(), seen.image.clone(), seen.digest.clone())
        };
        let api: Api<ClusterNode> = Api::all(self.client.clone());
        let mut nodes = Vec::new();
        for name in names {
            // Nodes belong to no namespace: not everybody may read them.
            if let Ok(Ok(node)) = answered(api.get(&name)).await {
                nodes.push(describe_node(name, node));
            }
        }
        ClusterEnvironment { kubernetes: self.version.clone(), image, image_digest, nodes }
    }
}

impl Launcher for Cluster {
    fn launch(
        &self,
        cell: &CellPlan,
        round: u32,
        scored: bool,
        _: &mut dyn FnMut(Progress),
        interrupted: &AtomicBool,
    ) -> Result<Trial, TrialError> {
        let started_unix_seconds = unix_seconds();
        let resource = self.resource(cell, round, scored).map_err(TrialError::NonRetryable)?;
        let (result, nodes) = self.runtime.block_on(self.trial(&resource, interrupted))?;
        Ok(Trial {
            round,
            started_unix_seconds,
            pace: None,
            floor: None,
            load: None,
            nodes,
            result,
        })
    }

    fn belongs_to(&self, sweep: &str) {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = sweep.into();
    }

    fn cluster(&self) -> Option<ClusterEnvironment> {
        Some(self.runtime.block_on(self.describe()))
    }
}

async fn connect(options: &ClusterOptions) -> anyhow::Result<(Client, String, String)> {
    let mut config = operator::cluster::config().await.map_err(|error| {
        anyhow!(
            "there is no cluster to talk to: {error}; name a kubeconfig in KUBECONFIG, or measure \
             on this machine with --on local"
        )
    })?;
    config.connect_timeout = Some(REQUEST_PATIENCE);
    let (url, default) = (config.cluster_url.to_string(), config.default_namespace.clone());
    let namespace = options.namespace.clone().unwrap_or(default);
    let client = Client::try_from(config).context("cannot make a client of the cluster")?;
    let version = answered(client.apiserver_version())
        .await?
        .map_err(|error| anyhow!("the cluster at {url} does not answer: {error}"))?;
    let spaces: Api<Namespace> = Api::all(client.clone());
    match answered(spaces.get(&namespace)).await? {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(anyhow!(
                "the cluster has no namespace {namespace}; make it, kubectl create namespace \
                 {namespace}, or name another with --namespace"
            ));
        }
        // Not everybody may read namespaces.
        _ => {}
    }
    let resources: Api<SecureInference> = Api::namespaced(client.clone(), &namespace);
    answered(resources.list(&ListParams::default().limit(1)))
        .await?
        .map_err(|error| explain(error, "list SecureInference resources"))?;
    Ok((client, namespace, version.git_version))
}

/// How many threads each party may have so that those on one node share its cores, as they
/// do on this machine. Not everybody may list nodes; parties then take all cores they see.
async fn shared_cores(client: &Client) -> Option<usize> {
    let nodes: Api<ClusterNode> = Api::all(client.clone());
    let nodes = answered(nodes.list(&ListParams::default())).await.ok()?.ok()?;
    let schedulable = nodes
        .into_iter()
        .filter(|node| node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true)));
    let cores = schedulable.map(|node| {
        let allocatable = node.status.and_then(|status| status.allocatable)?;
        whole_cores(&allocatable.get("cpu")?.0)
    });
    share(&cores.collect::<Option<Vec<_>>>()?)
}

/// The whole cores of a quantity such as `2` or `1930m`.
fn whole_cores(quantity: &str) -> Option<usize> {
    match quantity.strip_suffix('m') {
        Some(millis) => Some(millis.parse::<usize>().ok()? / 1000),
        None => quantity.parse().ok(),
    }
}

/// What each of the parties that multiply gets of the cores of its node, if all parties are
/// spread over all nodes and the smallest has its part; at least one.
fn share(cores: &[usize]) -> Option<usize> {
    let multiplying = PARTIES.div_ceil(cores.len().max(1)).min(MULTIPLYING);
    cores.iter().min().map(|least| threads(*least, multiplying))
}

/// An answer of the API server, which does not take for ever.
async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> anyhow::Result<Result<T, kube::Error>> {
    timeout(REQUEST_PATIENCE, request).await.map_err(|_| {
        anyhow!("the cluster has not answered within {} s", REQUEST_PATIENCE.as_secs())
    })
}

/// What went wrong, and what to do.
fn explain(error: kube::Error, what: &str) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 404 => anyhow!(
            "the cluster does not know SecureInference resources; install the definition and the \
             operator: kubectl apply -k manifests/, or the chart in charts/secure-inference"
        ),
        kube::Error::Api(status) if [401, 403].contains(&status.code) => anyhow!(
            "may not {what}: {}; ask for the right to create, watch and delete \
             secureinferences.secureinference.dev",
            status.message
        ),
        kube::Error::Api(status) => anyhow!("cannot {what}: {}", status.message),
        _ => anyhow!("cannot {what}: {error}"),
    }
}

fn absent_is_fine(error: kube::Error) -> anyhow::Result<()> {
    match &error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        _ => Err(error.into()),
    }
}

/// The run of a trial.
fn spec(key: &CellId, scored: bool, settings: &Settings) -> anyhow::Result<SecureInferenceSpec> {
    let model = Model::of(key.network.parse::<Builtin>()?).revealing(key.reveal);
    let samples = if scored { settings.accuracy_samples } else { 0 };
    Ok(SecureInferenceSpec {
        model,
        number_format: key.format,
        truncation: Some(key.truncation),
        workload: Workload {
            batch_size: key.batch_size.try_into()?,
            warmup: settings.warmup.try_into()?,
            warmup_seconds: settings.warmup_seconds().try_into()?,
            repetitions: settings.repetitions.try_into()?,
            offline: key.offline_mode,
            accuracy_samples: Some(samples.try_into()?),
            network: key.conditions,
            inspect: None,
        },
        ..SecureInferenceSpec::default()
    })
}

/// The settings of the parties' pods, if an operator would take them: one whose policy allows
/// everything.
fn parties(given: &PartySettings) -> anyhow::Result<Parties> {
    let given = Value::Object(given.clone());
    let wrong = "parties is not what spec.parties of a SecureInference may be";
    let parties: Parties = serde_json::from_value(given.clone()).context(wrong)?;
    if let Some(path) = dropped(&given, &serde_json::to_value(&parties)?) {
        return Err(anyhow!("{wrong}: there is no parties{path}"));
    }
    let spec = SecureInferenceSpec {
        model: Model { builtin: Some(Network::A), ..Model::default() },
        parties: parties.clone(),
        ..SecureInferenceSpec::default()
    };
    let mut resource = SecureInference::new("sweep", spec);
    // The API server's; what they are does not matter here.
    resource.metadata.namespace = Some("default".into());
    resource.metadata.uid = Some("none".into());
    Job::of(&resource).context(wrong)?;
    Ok(parties)
}

/// The path of something that was given and is not in what was understood.
fn dropped(given: &Value, kept: &Value) -> Option<String> {
    match given {
        Value::Object(fields) => {
            fields.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| match kept
                .get(key)
            {
                Some(kept) => dropped(value, kept).map(|rest| format!(".{key}{rest}")),
                None => Some(format!(".{key}")),
            })
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(place, item)| {
            dropped(item, kept.get(place)?).map(|rest| format!("[{place}]{rest}"))
        }),
        _ => None,
    }
}

/// Whether containers have fewer cores than their nodes.
fn limits_cpu(parties: &Parties) -> bool {
    let limits = parties.pods.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits.is_some_and(|limits| limits.contains_key("cpu"))
}

/// Whether there will be no further attempt.
fn ended(resource: &SecureInference) -> bool {
    let phase = resource.status.as_ref().and_then(|status| status.phase);
    matches!(phase, Some(Phase::Succeeded | Phase::Failed))
}

/// Why a run has no results, in its own words.
fn failure(resource: &SecureInference) -> String {
    let name = resource.name_any();
    let status = resource.status.clone().unwrap_or_default();
    let condition = |kind: &str, truth: &str| {
        let of = |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.type_ == kind && c.status == truth
        };
        status.conditions.iter().find(of).map(|c| format!("{}: {}", c.reason, c.message))
    };
    let why = condition(FAILED, "True").or_else(|| condition(ACCEPTED, "False"));
    let party = status.failure.map(|failure| {
        let who = failure.role.map_or(String::new(), |role| format!("{role}, "));
        format!("; attempt {}: {who}{}: {}", failure.attempt, failure.reason, failure.message)
    });
    format!(
        "SecureInference {name} has no results: {}{}",
        why.unwrap_or_else(|| "it does not say why".into()),
        party.unwrap_or_default()
    )
}

fn describe_node(name: String, node: ClusterNode) -> Node {
    let status = node.status.unwrap_or_default();
    let capacity = status.capacity.unwrap_or_default();
    let of = |what: &str| capacity.get(what).map_or("unknown".into(), |q| q.0.clone());
    let os = status.node_info.map_or("unknown".into(), |info| {
        format!("{}, Linux {}", info.os_image, info.kernel_version)
    });
    Node { name, cores: of("cpu"), memory: of("memory"), os }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_on_a_node_share_its_cores() {
        assert_eq!(share(&[]), None, "nobody knows");
        assert_eq!(share(&[2]), Some(1), "five on two cores");
        assert_eq!(share(&[64]), Some(21), "three of them multiply");
        assert_eq!(share(&[36, 36, 36]), Some(18), "two on a node");
        assert_eq!(share(&[0, 8, 8, 8, 8]), Some(1));
        assert_eq!(share(&[8; 9]), Some(8), "one on a node");
        assert_eq!(share(&[1000]), Some(256));
    }

    #[test]
    fn settings_of_pods_are_those_of_the_resource() {
        let read = |yaml: &str| parties(&serde_yaml::from_str::<PartySettings>(yaml).unwrap());
        let given = "{image: 'registry.example/party:1', imagePullSecrets: [{name: key}],
            resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: '2'}},
            nodeSelector: {disk: fast}, tolerations: [{key: gpu, operator: Exists}],
            priorityClassName: low, schedulerName: another, labels: {team: a},
            topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule}],
            server0: {runtimeClassName: kata, affinity: {nodeAffinity: {}}}}";
        let found = read(given).unwrap();
        assert!(limits_cpu(&found) && !limits_cpu(&read("{}").unwrap()));
        assert_eq!(found.image.as_deref(), Some("registry.example/party:1"));
        let secrets = found.image_pull_secrets.unwrap();
        assert_eq!(secrets.iter().map(|secret| &*secret.name).collect::<Vec<_>>(), ["key"]);
        let requests = found.pods.resources.unwrap().requests.unwrap();
        assert_eq!([&requests["cpu"].0, &requests["memory"].0], ["2", "1Gi"]);
        assert_eq!(found.pods.priority_class_name.as_deref(), Some("low"));
        assert_eq!(found.pods.topology_spread_constraints.map(|all| all.len()), Some(1));
        assert_eq!(found.server0.unwrap().runtime_class_name.as_deref(), Some("kata"));
        for (yaml, expected) in [
            ("{tolerations: {key: gpu}}", "may be: invalid type: map, expected a sequence"),
            ("{nodeselector: {a: b}}", "there is no parties.nodeselector"),
            ("{server0: {tolerations: [{kye: gpu}]}}", "no parties.server0.tolerations[0].kye"),
            ("{image: 'two words'}", "spec.parties.image is \"two words\""),
            (
                "{affinity: {nodeAffinityy: {}}}",
                "spec.parties.affinity is not the affinity of a pod",
            ),
        ] {
            let error = format!("{:#}", read(yaml).unwrap_err());
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }

    #[test]
    fn quantities_of_cores_are_rounded_down() {
        for (quantity, cores) in [("2", Some(2)), ("1930m", Some(1)), ("x", None), ("1.5", None)] {
            assert_eq!(whole_cores(quantity), cores, "{quantity}");
        }
    }
}
