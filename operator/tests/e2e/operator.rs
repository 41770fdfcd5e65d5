//! The operator in the cluster: from its image, under its own permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::process::repository;

/// Where it runs, and its name, as manifests/operator has them.
const NAMESPACE: &str = "secure-inference-system";
const NAME: &str = "secure-inference-operator";
const SELECTOR: &str =
    "app.kubernetes.io/name=secure-inference,app.kubernetes.io/component=operator";

/// Marks an operator that these tests have installed, and may remove.
pub(crate) const MARK: &str = "secureinference.dev/end-to-end-tests";

/// Between two looks at what cannot be watched.
const GLANCE: Duration = Duration::from_millis(50);

/// How long a replica may take to tell its metrics.
const ANSWER: Duration = Duration::from_secs(5);

/// Verbs that change something.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// Requests to the API server by verb and resource.
pub(crate) type Requests = BTreeMap<(String, String), u64>;

/// The operator.
pub(crate) struct Operator {
    cluster: Arc<Cluster>,
    pods: Api<Pod>,
    deployments: Api<Deployment>,
    /// What each of its processes had asked for when it was last looked at, and what it had
    /// logged of requests that were forbidden.
    ledger: Mutex<BTreeMap<String, (Requests, BTreeSet<String>)>>,
    /// Lines about what was forbidden that are none of the operator's fault.
    pardoned: Mutex<BTreeSet<String>>,
}

/// A process of the operator: a container of one of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) pod: String,
    pub(crate) container: String,
}

impl Replica {
    fn of(pod: &Pod) -> Option<Self> {
        let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
        let container = containers.first()?;
        container.state.as_ref()?.running.as_ref()?;
        let container = container.container_id.clone()?;
        Some(Self { pod: pod.name_any(), container })
    }
}

/// What a replica's metrics said at one moment.
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of all series of a name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &str| series.split('{').next() == Some(name);
        self.0.iter().filter(|(series, _)| of_name(series)).map(|(_, value)| value).sum()
    }

    fn leads(&self) -> bool {
        self.sum("leader_election_master_status") > 0.5
    }

    /// What it had asked the API server for.
    pub(crate) fn requests(&self) -> Requests {
        let label = |series: &str, key: &str| {
            let (_, rest) = series.split_once(&format!("{key}=\""))?;
            Some(rest.split('"').next()?.to_owned())
        };
        self.0
            .iter()
            .filter(|(series, _)| series.starts_with("secure_inference_api_requests_total{"))
            .filter_map(|(series, count)| {
                Some(((label(series, "verb")?, label(series, "resource")?), *count as u64))
            })
            .collect()
    }

    /// How much it had written to the API server, the Lease that makes it the leader excepted.
    pub(crate) fn writes(&self) -> u64 {
        let requests = self.requests();
        let writes = requests.iter().filter(|((verb, resource), _)| {
            WRITES.contains(&verb.as_str()) && resource != "leases"
        });
        writes.map(|(_, count)| count).sum()
    }
}

impl Operator {
    /// The operator of a cluster, whether it is there or not.
    pub(crate) fn at(cluster: Arc<Cluster>) -> Self {
        Self {
            pods: Api::namespaced(cluster.client.clone(), NAMESPACE),
            deployments: Api::namespaced(cluster.client.clone(), NAMESPACE),
            ledger: Mutex::default(),
            pardoned: Mutex::default(),
            cluster,
        }
    }

    /// Refuses a cluster that has an operator which these tests have not installed.
    pub(crate) async fn check_absent(&self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.cluster.client.clone());
        let there = namespaces.get_opt(NAMESPACE).await?;
        ensure!(
            there.is_none_or(|namespace| namespace.labels().contains_key(MARK)),
            "the cluster has an operator in namespace {NAMESPACE}, and these tests would replace \
             it; remove it first: kubectl delete -k manifests/"
        );
        Ok(())
    }

    /// Installs it in place of one of earlier tests, and waits until it works.
    pub(crate) async fn install(&self) -> anyhow::Result<()> {
        self.install_with(&[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn install_with(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.remove().await?;
        // One case is about an image that no registry has.
        let arguments = [&["--allow-images=registry.invalid/"], arguments].concat();
        let overlay = self.overlay(&arguments)?;
        self.cluster.kubectl(&["apply", "-k", &overlay.to_string_lossy()]).await?;
        self.leader(Duration::from_secs(60)).await.map(drop)
    }

    /// The manifests with the image that is tested.
    fn overlay(&self, arguments: &[&str]) -> anyhow::Result<std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("overlay");
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let manifests = repository().join("manifests").canonicalize()?;
        let manifests = match self.cluster.since(1, 25) {
            true => manifests,
            false => manifests.join("before-1.25"),
        };
        // Kustomize takes relative paths alone.
        let up: String = folder.components().skip(1).map(|_| "../").collect();
        let base = up + manifests.strip_prefix("/")?.to_str().context("the path is not UTF-8")?;
        let image = &self.cluster.image;
        let (name, version) = match (image.split_once('@'), image.rsplit_once(':')) {
            (Some((name, digest)), _) => (name, json!({ "digest": digest })),
            (None, Some((name, tag))) if !tag.contains('/') => (name, json!({ "newTag": tag })),
            _ => (image.as_str(), json!({ "newTag": "latest" })),
        };
        let mut image = json!({ "name": "secure-inference", "newName": name });
        if let (Some(image), Some(version)) = (image.as_object_mut(), version.as_object()) {
            image.extend(version.clone());
        }
        let mark = json!([{ "op": "add", "path": format!("/metadata/labels/{}", MARK.replace('/', "~1")), "value": "true" }]);
        let container = "/spec/template/spec/containers/0";
        let more = arguments.iter().map(|argument| {
            json!({ "op": "add", "path": format!("{container}/args/-"), "value": argument })
        });
        let mut patches =
            vec![json!({ "target": { "kind": "Namespace" }, "patch": mark.to_string() })];
        if !arguments.is_empty() {
            let more = Value::Array(more.collect()).to_string();
            patches.push(json!({ "target": { "kind": "Deployment" }, "patch": more }));
        }
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [base],
            "images": [image],
            "patches": patches,
        });
        std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string())?;
        Ok(folder)
    }

    /// Removes it, all resources with it.
    pub(crate) async fn remove(&self) -> anyhow::Result<()> {
        let overlay = self.overlay(&[])?;
        let overlay = overlay.to_string_lossy();
        let arguments = ["delete", "-k", &overlay, "--ignore-not-found", "--timeout=180s"];
        self.cluster.kubectl(&arguments).await.map(drop)
    }

    /// Its pods.
    pub(crate) async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        Ok(self.pods.list(&ListParams::default().labels(SELECTOR)).await?.items)
    }

    /// How often processes of the pods that are there were started again.
    pub(crate) async fn restarts(&self) -> anyhow::Result<i32> {
        let pods = self.pods().await?;
        let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
        let containers = statuses.filter_map(|status| status.container_statuses.as_ref());
        Ok(containers.flatten().map(|container| container.restart_count).sum())
    }

    /// What one of its pods logged.
    pub(crate) async fn log(&self, pod: &str) -> anyhow::Result<String> {
        Ok(self.pods.logs(pod, &LogParams::default()).await?)
    }

    /// The replicas that run, and are not told to stop.
    pub(crate) async fn replicas(&self) -> anyhow::Result<Vec<Replica>> {
        let pods = self.pods().await?;
        let there = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(there.filter_map(Replica::of).collect())
    }

    /// What a replica's metrics say.
    pub(crate) async fn scrape(&self, replica: &Replica) -> anyhow::Result<Scrape> {
        let path =
            format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:8080/proxy/metrics", replica.pod);
        let request = http::Request::get(path).body(Vec::new())?;
        let answer = self.cluster.client.request_text(request);
        let answer = tokio::time::timeout(ANSWER, answer).await;
        Ok(Scrape::parse(&answer.context("the operator's metrics do not come")??))
    }

    /// The replica that leads, and its metrics.
    pub(crate) async fn leader(&self, within: Duration) -> anyhow::Result<(Replica, Scrape)> {
        self.leader_but(None, within).await
    }

    /// The replica that leads, if it is not `former`.
    pub(crate) async fn leader_but(
        &self,
        former: Option<&Replica>,
        within: Duration,
    ) -> anyhow::Result<(Replica, Scrape)> {
        let began = Instant::now();
        loop {
            // The API server may be away, and a replica just gone.
            for replica in self.replicas().await.unwrap_or_default() {
                if Some(&replica) == former {
                    continue;
                }
                if let Ok(scrape) = self.scrape(&replica).await
                    && scrape.leads()
                {
                    return Ok((replica, scrape));
                }
            }
            if began.elapsed() > within {
                bail!(
                    "expected a replica of the operator that leads within {within:?}\n{}",
                    self.diagnosis().await
                );
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// All replicas that say that they lead.
    pub(crate) async fn leaders(&self) -> anyhow::Result<Vec<Replica>> {
        let mut leaders = Vec::new();
        for replica in self.replicas().await? {
            if self.scrape(&replica).await?.leads() {
                leaders.push(replica);
            }
        }
        Ok(leaders)
    }

    /// Checks that no two replicas lead at one moment, those that are told to stop included; who
    /// leads, if anybody does.
    pub(crate) async fn at_most_one_leads(&self) -> anyhow::Result<Option<Replica>> {
        let running = self.pods().await?;
        let running: Vec<Replica> = running.iter().filter_map(Replica::of).collect();
        let leads = async |replica: &Replica| {
            // One that has just ended does not lead.
            self.scrape(replica).await.is_ok_and(|scrape| scrape.leads())
        };
        let mut leader: Option<&Replica> = None;
        for replica in &running {
            if !leads(replica).await {
                continue;
            }
            // Of two that say so one after the other, the first may have handed over meanwhile.
            if let Some(first) = leader
                && leads(first).await
            {
                bail!("expected one leader, found {first:?} and {replica:?}");
            }
            leader = Some(replica);
        }
        Ok(leader.cloned())
    }

    /// Replaces its pods by new ones, as an upgrade does, and waits until that is over.
    pub(crate) async fn roll(&self) -> anyhow::Result<()> {
        self.account().await?;
        let deployment = format!("deployment/{NAME}");
        let rollout = ["--namespace", NAMESPACE, "rollout"];
        let restart = [&rollout[..], &["restart", &deployment]].concat();
        self.cluster.kubectl(&restart).await?;
        let over = [&rollout[..], &["status", &deployment, "--timeout=90s"]].concat();
        self.cluster.kubectl(&over).await.map(drop)
    }

    /// Enters into the ledger what the replicas have asked for so far; to be called before
    /// one of them goes, and with it what it knows.
    pub(crate) async fn account(&self) -> anyhow::Result<()> {
        for replica in self.replicas().await? {
            let Ok(scrape) = self.scrape(&replica).await else { continue };
            let log = self.pods.logs(&replica.pod, &LogParams::default()).await.unwrap_or_default();
            // Nobody may make anything in a namespace that is going.
            let going = "because it is being terminated";
            let forbidden = log
                .lines()
                .filter(|line| line.to_lowercase().contains("forbidden") && !line.contains(going));
            let forbidden = forbidden.map(str::to_owned).collect();
            self.ledger().insert(replica.container, (scrape.requests(), forbidden));
        }
        Ok(())
    }

    /// All that was asked for in these tests, and what was forbidden, as it was logged.
    pub(crate) async fn accounts(&self) -> anyhow::Result<(Requests, BTreeSet<String>)> {
        self.account().await?;
        let mut sum = Requests::new();
        let mut forbidden = BTreeSet::new();
        let pardoned = self.pardoned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (requests, lines) in self.ledger().values() {
            for (key, count) in requests {
                *sum.entry(key.clone()).or_default() += count;
            }
            forbidden.extend(lines.difference(&pardoned).cloned());
        }
        Ok((sum, forbidden))
    }

    /// Forgets what was forbidden so far: an API server that has just started knows of no
    /// permissions yet.
    pub(crate) async fn pardon(&self) -> anyhow::Result<()> {
        let (_, forbidden) = self.accounts().await?;
        self.pardoned.lock().unwrap_or_else(PoisonError::into_inner).extend(forbidden);
        Ok(())
    }

    fn ledger(&self) -> MutexGuard<'_, BTreeMap<String, (Requests, BTreeSet<String>)>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the leader replaced as an upgrade would, and waits for the next.
    pub(crate) async fn restart(&self) -> anyhow::Result<(Replica, Scrape)> {
        let (leader, _) = self.leader(Duration::from_secs(30)).await?;
        self.delete(&leader, None).await?;
        self.leader_but(Some(&leader), Duration::from_secs(30)).await
    }

    /// Deletes a replica's pod; `grace` is how many seconds it gets.
    pub(crate) async fn delete(&self, replica: &Replica, grace: Option<u32>) -> anyhow::Result<()> {
        self.account().await?;
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pods.delete(&replica.pod, &params).await?;
        Ok(())
    }

    /// Sets how many replicas there are, and waits until so many are ready.
    pub(crate) async fn scale(&self, replicas: i32) -> anyhow::Result<()> {
        self.account().await?;
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.deployments.patch_scale(NAME, &PatchParams::default(), &patch).await?;
        self.ready(replicas).await
    }

    /// Waits until there are so many replicas, all of them ready.
    pub(crate) async fn ready(&self, replicas: i32) -> anyhow::Result<()> {
        let within = Duration::from_secs(60);
        let began = Instant::now();
        loop {
            let pods = self.pods.list(&ListParams::default().labels(SELECTOR)).await?.items;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            let wanted = usize::try_from(replicas)?;
            if pods.len() == wanted && ready == wanted {
                return Ok(());
            }
            if began.elapsed() > within {
                bail!(
                    "expected {replicas} ready replicas of the operator within {within:?}, found {ready}\n{}",
                    self.diagnosis().await
                );
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Its pods, and the last lines of what they logged.
    pub(crate) async fn diagnosis(&self) -> String {
        let mut text = String::new();
        let pods = match self.pods.list(&ListParams::default().labels(SELECTOR)).await {
            Ok(pods) => pods.items,
            Err(error) => return format!("the operator's pods cannot be listed: {error}"),
        };
        for pod in pods {
            let name = pod.name_any();
            let _ = writeln!(text, "operator {}", crate::room::one_line(&pod));
            for previous in [true, false] {
                let params = LogParams { tail_lines: Some(40), previous, ..LogParams::default() };
                if let Ok(log) = self.pods.logs(&name, &params).await {
                    let of = if previous { " (its process before)" } else { "" };
                    let _ = writeln!(text, "last lines of {name}{of}:\n{}", log.trim_end());
                }
            }
        }
        text
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}
