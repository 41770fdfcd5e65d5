//! Everything in `manifests/samples` does what it says.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use safetensors::SafeTensors;
use serde_json::json;

use super::network;
use crate::process::repository;
use crate::report::Figures;
use crate::room::{PATIENCE, Room, check_complete};

/// How many files' runs are under way at the same time.
const AT_ONCE: usize = 2;

/// The labels that pinned-nodes.yaml asks nodes for.
const PINS: [&str; 3] = ["example.org/server0", "example.org/server1", "example.org/producer"];

/// Carol's claim in own-graph.yaml, and what she learns there.
const CLAIM: &str = "own-graph-score";
const FILE: &str = "score.safetensors";

pub(super) async fn complete(room: &Room) -> anyhow::Result<Figures> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(repository().join("manifests/samples"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.sort();
    ensure!(files.len() > 1, "expected samples, found {files:?}");
    // The first case has run it.
    files.retain(|file| !file.ends_with(network::SAMPLE));
    let weights = repository().join("bench/models/a.safetensors");
    let weights = format!("--from-file=weights.safetensors={}", weights.display());
    let namespace = &room.namespace;
    let create = ["create", "configmap", "own-weights", "-n", namespace, &weights];
    room.cluster().kubectl(&create).await?;
    pin(room, true).await?;
    let samples: Vec<_> = files.iter().map(|file| sample(room, file)).collect();
    let outcomes = futures::stream::iter(samples).buffered(AT_ONCE);
    let outcomes = outcomes.try_collect::<Vec<Figures>>().await;
    pin(room, false).await?;
    let mut figures = outcomes?.concat();
    figures.extend(score(room).await?);
    Ok(figures)
}

async fn sample(room: &Room, file: &Path) -> anyhow::Result<Figures> {
    let path = file.to_str().context("the path is not UTF-8")?;
    let apply = ["apply", "--validate=strict", "-n", &room.namespace, "-f", path];
    let applied = room.cluster().kubectl(&apply).await?;
    // secureinference.secureinference.dev/own-graph created
    let names: Vec<&str> = applied
        .lines()
        .filter_map(|line| {
            line.strip_prefix("secureinference.secureinference.dev/")?.split(' ').next()
        })
        .collect();
    ensure!(!names.is_empty(), "expected a resource in {path}, kubectl said:\n{applied}");
    let mut figures = Figures::new();
    for name in names {
        let status = room.complete(name, 6 * PATIENCE).await?;
        check_complete(&status).with_context(|| format!("in {name}"))?;
        if let Some(summary) = status.summary {
            let accuracy = summary.accuracy.unwrap_or_default();
            figures.push(format!(
                "{name}: {}, online {} {accuracy}",
                summary.combined, summary.online
            ));
        }
    }
    Ok(figures)
}

/// Gives a node the labels that pinned-nodes.yaml asks for, or takes them away.
async fn pin(room: &Room, on: bool) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(room.cluster().client.clone());
    let node = nodes
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .find(|node| !node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false));
    let node = node.context("expected a node that pods may go to")?;
    let value = if on { json!("true") } else { json!(null) };
    let labels: serde_json::Map<_, _> =
        PINS.iter().map(|pin| ((*pin).to_owned(), value.clone())).collect();
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    nodes.patch(&node.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Carol has learnt the sigmoid of alice's features times bob's weights.
async fn score(room: &Room) -> anyhow::Result<Figures> {
    if room.cluster().machine.is_none() {
        return Ok(vec![format!("{FILE} is not read: the volume is not on this machine")]);
    }
    let claim = room.api::<PersistentVolumeClaim>().get(CLAIM).await?;
    let volume = claim.spec.and_then(|spec| spec.volume_name).context("the claim has no volume")?;
    let volumes: Api<PersistentVolume> = Api::all(room.cluster().client.clone());
    let folder = volumes.get(&volume).await?.spec.and_then(|spec| spec.host_path);
    let Some(folder) = folder else { bail!("expected volume {volume} on this machine") };
    let path = Path::new(&folder.path).join(FILE);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let tensor = tensors.tensor("score").context("expected a tensor `score`")?;
    let evaluations = 25;
    ensure!(
        tensor.shape() == [evaluations, 1, 1],
        "expected shape [{evaluations}, 1, 1], found {:?}",
        tensor.shape()
    );
    let values: Vec<f64> =
        tensor.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let expected = 1.0 / (1.0 + (-(0.5 * 1.0 - 1.25 * 0.75 - 2.0 * 0.5_f64)).exp());
    ensure!(
        values.iter().all(|value| (value - expected).abs() < 1e-2),
        "expected scores of {expected:.4}, found {values:?}"
    );
    Ok(vec![format!(
        "own-graph: {evaluations} scores of {:.4}, {expected:.4} in plaintext",
        values[0]
    )])
}
