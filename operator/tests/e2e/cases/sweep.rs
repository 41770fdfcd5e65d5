//! Sweeps through the operator, as the chart schedules them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::DeleteParams;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::process::repository;
use crate::report::Figures;
use crate::room::Room;

/// How long the sweep may take.
const PATIENCE: Duration = Duration::from_secs(400);

/// Between two looks at it.
const GLANCE: Duration = Duration::from_millis(500);

/// What it leaves in its folder.
const LEFT: [&str; 5] = ["report.csv", "report.html", "report.json", "report.md", "results.json"];

/// The chart's CronJob runs a sweep and leaves its report on a volume.
pub(super) async fn scheduled(room: &Room) -> anyhow::Result<Figures> {
    let name = room.namespace.as_str();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    // Volumes of this kind keep their owner, whoever the pod is.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let outcome = sweep(room, &folder).await;
    let volumes: Api<PersistentVolume> = Api::all(room.cluster().client.clone());
    let deleted = volumes.delete(name, &DeleteParams::background()).await;
    let emptied = fs::remove_dir_all(&folder);
    let figures = outcome?;
    deleted?;
    emptied?;
    Ok(figures)
}

async fn sweep(room: &Room, folder: &Path) -> anyhow::Result<Figures> {
    let namespace = room.namespace.as_str();
    let size = json!({ "storage": "1Gi" });
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": namespace },
          "spec": { "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                    "hostPath": { "path": folder }, "persistentVolumeReclaimPolicy": "Retain" } },
        { "apiVersion": "v1", "kind": "PersistentVolumeClaim",
          "metadata": { "name": "measurements", "namespace": namespace },
          "spec": { "resources": { "requests": size }, "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "", "volumeName": namespace } },
    ]});
    apply(room, folder, "storage", &objects.to_string()).await?;
    let benchmark = rendered(room).await?;
    apply(room, folder, "benchmark", &benchmark).await?;
    apply(room, folder, "job", &job(&benchmark, namespace)?.to_string()).await?;
    let began = Instant::now();
    ended(room).await?;
    let took = began.elapsed().as_secs_f64();

    let left = reports(folder)?;
    let [report] = &left[..] else { bail!("expected one folder of results, found {left:?}") };
    for file in LEFT {
        let length = fs::metadata(report.join(file)).with_context(|| file.to_owned())?.len();
        ensure!(length > 100, "expected {file} to say something, it has {length} bytes");
    }
    let results: Value = serde_json::from_str(&fs::read_to_string(report.join("results.json"))?)?;
    check(&results)?;
    let resources = room.runs.present().len();
    ensure!(resources == 0, "expected the sweep to delete its resources, found {resources}");
    let sweep = &results["sweep"]["id"];
    let labelled = room.runs.frames().iter().all(|frame| {
        let label = frame.object.metadata.labels.as_ref();
        label.and_then(|labels| labels.get("secureinference.dev/sweep")).map(String::as_str)
            == sweep.as_str()
    });
    ensure!(labelled, "expected all resources to have the label of sweep {sweep}");
    let runs = results["runs"].as_array().context("expected runs")?;
    let mean = |run: &Value| {
        let merged = &run["merged"];
        format!(
            "{} {} batch {}: {:.2} ms combined",
            run["key"]["network"].as_str().unwrap_or_default(),
            run["key"]["format"].as_str().unwrap_or_default(),
            run["key"]["batchSize"],
            merged["combined"]["meanMs"].as_f64().unwrap_or_default(),
        )
    };
    let mut figures = vec![format!("{} cells of three trials in {took:.0} s", runs.len())];
    figures.extend(runs.iter().map(mean));
    Ok(figures)
}

/// What the chart makes of a sweep of two networks.
async fn rendered(room: &Room) -> anyhow::Result<String> {
    let chart = repository().join("charts/secure-inference");
    let chart = chart.to_str().context("the path is not UTF-8")?;
    let namespace = format!("--namespace={}", room.namespace);
    let image = room.cluster().image.as_str();
    let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let set = format!(
        "--set=benchmark.enabled=true,benchmark.networks={{A,B}},benchmark.batchSizes={{1,10}},\
         benchmark.storage.claim=measurements,image.repository={repository},image.tag={tag}"
    );
    let (major, minor) = room.cluster().version;
    let version = format!("--kube-version={major}.{minor}.0");
    let only = "--show-only=templates/benchmark.yaml";
    room.cluster().helm(&["template", "test", chart, &namespace, &set, &version, only]).await
}

/// What the CronJob makes when its time has come.
fn job(benchmark: &str, namespace: &str) -> anyhow::Result<Value> {
    let objects = serde_yaml::Deserializer::from_str(benchmark).map(Value::deserialize);
    let objects = objects.collect::<Result<Vec<_>, _>>()?;
    let found = objects.iter().find(|object| object["kind"] == "CronJob");
    let spec = &found.context("expected a CronJob")?["spec"]["jobTemplate"]["spec"];
    Ok(json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": spec,
               "metadata": { "name": "once", "namespace": namespace } }))
}

async fn apply(room: &Room, folder: &Path, name: &str, objects: &str) -> anyhow::Result<()> {
    let path = folder.with_extension(format!("{name}.yaml"));
    fs::write(&path, objects)?;
    let applied = room.cluster().kubectl(&["apply", "-f", &path.to_string_lossy()]).await;
    fs::remove_file(&path)?;
    applied.map(drop)
}

/// Waits until the Job is complete; one that has failed never will be.
async fn ended(room: &Room) -> anyhow::Result<()> {
    let jobs: Api<Job> = room.api();
    let began = Instant::now();
    loop {
        let status = jobs.get("once").await?.status.unwrap_or_default();
        if status.succeeded == Some(1) {
            return Ok(());
        }
        if status.failed.is_some() || began.elapsed() > PATIENCE {
            let namespace = format!("--namespace={}", room.namespace);
            let log = room.cluster().kubectl(&["logs", "job/once", &namespace]).await;
            let log = log.unwrap_or_else(|error| error.to_string());
            bail!("expected the sweep to succeed within {PATIENCE:?}, found {status:?}\n{log}");
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// The folders on the volume.
fn reports(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries: Result<Vec<_>, _> = fs::read_dir(folder)?.collect();
    Ok(entries?.into_iter().map(|entry| entry.path()).collect())
}

/// All cells were measured, by pods on a node.
fn check(results: &Value) -> anyhow::Result<()> {
    let runs = results["runs"].as_array().context("expected runs")?;
    ensure!(runs.len() == 4, "expected 4 cells, found {}", runs.len());
    for run in runs {
        let key = &run["key"];
        ensure!(run["failure"].is_null(), "{key} failed: {}", run["failure"]);
        ensure!(key["where"] == "cluster", "expected a cell of the cluster, found {key}");
        let trials = run["trials"].as_array().context("expected trials")?;
        ensure!(trials.len() >= 3, "expected 3 trials of {key}, found {}", trials.len());
        for trial in trials {
            let nodes = trial["nodes"].as_object().map_or(0, serde_json::Map::len);
            ensure!(nodes == 5, "expected the nodes of 5 parties, found {}", trial["nodes"]);
        }
    }
    let cluster = &results["environment"]["cluster"];
    ensure!(cluster["kubernetes"].is_string(), "expected the cluster's version, found {cluster}");
    Ok(())
}
