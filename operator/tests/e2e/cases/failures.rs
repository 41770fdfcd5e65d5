//! Runs that fail for good, and what is kept of them.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{DeleteParams, LogParams, ObjectMeta, PostParams};
use operator::api::v1alpha1::{
    Model, ModelVolume, Network, SecureInferenceSpec, SecureInferenceStatus, VolumeSource,
};
use operator::conditions::FAILED;
use serde_json::json;

use super::kills;
use crate::report::Figures;
use crate::room::{ENDLESS, PATIENCE, Room, condition, lasting};

/// Until what a failed run no longer needs is gone.
const TIDY: Duration = Duration::from_secs(30);

pub(super) async fn for_good(room: &Room) -> anyhow::Result<Figures> {
    let spec = SecureInferenceSpec { backoff_limit: 0, ..lasting(ENDLESS) };
    let run = room.create("run", spec).await?;
    room.ready("run", 1).await?;
    let pod = room.pod("producer")?;
    // A process that is killed leaves its pod; elsewhere a pod that is deleted must do.
    let reason = match &room.cluster().machine {
        Some(_) => {
            kills::kill(room, &pod).await?;
            "Killed"
        }
        None => {
            let now = DeleteParams::default().grace_period(0);
            room.api::<Pod>().delete(&pod.name_any(), &now).await?;
            "PodDeleted"
        }
    };
    let status = room.failed("run", PATIENCE).await?;
    check_failed(&status, "BackoffLimitExceeded", "producer", reason)?;
    ensure!(status.attempt == Some(1), "expected 1 attempt, found {:?}", status.attempt);

    let uid = run.uid().context("the resource has no uid")?;
    tidy(room, &uid, true).await?;
    let over = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    let pods = room.pods.until("only pods that have ended to be left", TIDY, |pods| {
        let all_over = !pods.is_empty() && pods.values().all(|pod| over(&pod));
        all_over.then(|| pods.clone())
    });
    let pods = pods.await?;
    for name in pods.keys() {
        let log = room.api::<Pod>().logs(name, &LogParams::default()).await?;
        ensure!(!log.trim().is_empty(), "expected a log of {name}");
    }
    Ok(vec![format!("{} pods are kept, with their logs", pods.len())])
}

/// Waits until nothing is left but pods, that only an attempt that runs needs, or, if it is for
/// good, that only a run that goes on needs.
pub(super) async fn tidy(room: &Room, uid: &str, for_good: bool) -> anyhow::Result<()> {
    room.gone::<Secret>(uid, TIDY).await?;
    room.gone::<Service>(uid, TIDY).await?;
    match for_good {
        true => room.gone::<NetworkPolicy>(uid, TIDY).await,
        false => Ok(()),
    }
}

pub(super) async fn non_retryable(room: &Room) -> anyhow::Result<Figures> {
    let weights = ConfigMap {
        metadata: ObjectMeta { name: Some("weights".into()), ..ObjectMeta::default() },
        binary_data: Some([("w.safetensors".to_owned(), ByteString(vec![7; 64]))].into()),
        ..ConfigMap::default()
    };
    room.api::<ConfigMap>().create(&PostParams::default(), &weights).await?;
    let source = json!({ "configMap": { "name": "weights" } });
    let volume = ModelVolume {
        network: Network::A,
        activation: None,
        pooling: None,
        path: "w.safetensors".into(),
        source: VolumeSource(source.as_object().cloned().unwrap_or_default()),
    };
    let model = Model { volume: Some(volume), ..Model::default() };
    room.create("run", SecureInferenceSpec { model, ..lasting(ENDLESS) }).await?;
    let status = room.failed("run", PATIENCE).await?;
    check_failed(&status, "BadInput", "model-owner", "BadInput")?;
    let message = &condition(&status, FAILED)?.message;
    ensure!(message.contains("w.safetensors"), "expected the file to be named, found: {message}");
    ensure!(status.attempt == Some(1), "expected 1 attempt, found {:?}", status.attempt);
    Ok(vec![message.clone()])
}

/// Checks why a run has failed, and because of whom.
pub(super) fn check_failed(
    status: &SecureInferenceStatus,
    reason: &str,
    role: &str,
    why: &str,
) -> anyhow::Result<()> {
    let failed = condition(status, FAILED)?;
    let found = (&failed.reason, &failed.message);
    ensure!(failed.reason == reason, "expected reason {reason}, found {found:?}");
    let failure = status.failure.as_ref().context("expected a failure in the status")?;
    ensure!(
        failure.role.as_deref() == Some(role) && failure.reason == why,
        "expected {role} to have failed with {why}, found {failure:?}"
    );
    ensure!(failed.message.contains(role), "expected {role} in: {}", failed.message);
    Ok(())
}
