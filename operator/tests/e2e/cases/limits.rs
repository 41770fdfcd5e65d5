//! Runs that wait, stop and end when they are told to.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use operator::api::v1alpha1::{Parties, Phase, SecureInferenceSpec, TtlAfterFinished};
use operator::conditions::{self, FAILED, PARTIES_READY, SUSPENDED};
use serde_json::json;

use super::failures::tidy;
use crate::film::Film;
use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, ROLES, Room, brief, check_complete, condition, lasting};

/// No registry has this name: it is reserved.
const NO_IMAGE: &str = "registry.invalid/secure-inference:none";

/// Why a pod waits that gets no image.
const NOT_PULLED: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];

pub(super) async fn image(room: &Room) -> anyhow::Result<Figures> {
    let spec = SecureInferenceSpec {
        parties: Parties { image: Some(NO_IMAGE.into()), ..Parties::default() },
        start_deadline_seconds: 25,
        ..brief(1)
    };
    let run = room.create("run", spec).await?;
    let waits = room.status("run", "waiting for its image", PATIENCE, |status| {
        let ready = conditions::find(status, PARTIES_READY)?;
        let waits = ready.status == "False" && NOT_PULLED.contains(&ready.reason.as_str());
        (waits && !conditions::holds(status, FAILED)).then(|| ready.message.clone())
    });
    let waits = waits.await?;
    let status = room.failed("run", PATIENCE).await?;
    let failed = condition(&status, FAILED)?;
    ensure!(
        failed.reason == "StartDeadlineExceeded",
        "expected reason StartDeadlineExceeded, found {}: {}",
        failed.reason,
        failed.message
    );
    let failure = status.failure.as_ref().context("expected a failure in the status")?;
    let role = failure.role.as_deref().context("expected a role in the failure")?;
    ensure!(
        ROLES.contains(&role) && NOT_PULLED.contains(&failure.reason.as_str()),
        "expected a role whose image was not pulled, found {failure:?}"
    );
    ensure!(
        failed.message.contains(role) && failed.message.contains(&failure.reason),
        "expected {role} and {} in: {}",
        failure.reason,
        failed.message
    );
    ensure!(status.attempt == Some(1), "expected 1 attempt, found {:?}", status.attempt);
    // Its pods would wait for ever.
    room.nothing_left(&run.uid().context("no uid")?, PATIENCE).await?;
    Ok(vec![format!("while it waits: {waits}"), format!("then: {}", failed.message)])
}

pub(super) async fn suspended(room: &Room) -> anyhow::Result<Figures> {
    let run = room.create("run", lasting(LASTING)).await?;
    room.ready("run", 1).await?;
    let uid = run.uid().context("no uid")?;
    // Twice, as what happens again is reported differently.
    for attempt in [2, 3] {
        room.change("run", json!({ "suspend": true })).await?;
        let is_suspended = "suspended, with no attempt under way";
        room.status("run", is_suspended, PATIENCE, |status| {
            let suspended = conditions::holds(status, SUSPENDED)
                && !conditions::holds(status, PARTIES_READY)
                && status.phase == Some(Phase::Suspended);
            suspended.then_some(())
        })
        .await?;
        room.gone::<Pod>(&uid, PATIENCE).await?;
        tidy(room, &uid, false).await?;
        room.change("run", json!({ "suspend": false })).await?;
        room.ready("run", attempt).await?;
    }
    let status = room.complete("run", 2 * PATIENCE).await?;
    check_complete(&status)?;
    ensure!(status.attempt == Some(3), "expected attempt 3, found {:?}", status.attempt);
    let failures = status.failed_attempts.unwrap_or(0);
    ensure!(failures == 0, "expected a suspension to be no failure, found {failures} failures");
    ensure!(!conditions::holds(&status, SUSPENDED), "expected it not to be Suspended any more");
    Ok(Figures::new())
}

pub(super) async fn made_suspended(room: &Room) -> anyhow::Result<Figures> {
    let secrets: Film<Secret> = room.film().await?;
    room.create("run", SecureInferenceSpec { suspend: true, ..brief(10) }).await?;
    room.status("run", "suspended", PATIENCE, |status| {
        (status.phase == Some(Phase::Suspended)).then_some(())
    })
    .await?;
    // Whatever else the operator does about a new resource it has done before this one.
    room.create("other", brief(10)).await?;
    room.complete("other", PATIENCE).await?;
    let of_run = |name: &String| name.starts_with("run-");
    let pods = room.pods.frames().into_iter().map(|frame| frame.object.name_any());
    let made: Vec<String> = pods
        .chain(secrets.frames().into_iter().map(|frame| frame.object.name_any()))
        .filter(of_run)
        .collect();
    ensure!(made.is_empty(), "expected nothing of a suspended run, found {made:?}");
    room.change("run", json!({ "suspend": false })).await?;
    room.status("run", "begun", PATIENCE, |status| (status.attempt == Some(1)).then_some(()))
        .await?;
    // What is told a second time is counted in the event that is there.
    room.change("run", json!({ "suspend": true })).await?;
    room.status("run", "suspended again", PATIENCE, |status| {
        (status.phase == Some(Phase::Suspended)).then_some(())
    })
    .await?;
    room.change("run", json!({ "suspend": false })).await?;
    let status = room.complete("run", PATIENCE).await?;
    check_complete(&status)?;
    ensure!(status.attempt == Some(2), "expected attempt 2, found {:?}", status.attempt);
    Ok(Figures::new())
}

pub(super) async fn ttl(room: &Room) -> anyhow::Result<Figures> {
    let ttl = TtlAfterFinished { succeeded: Some(2), failed: None };
    let run = room
        .create("run", SecureInferenceSpec { ttl_after_finished: Some(ttl), ..brief(10) })
        .await?;
    room.complete("run", PATIENCE).await?;
    let complete = Instant::now();
    room.runs
        .until("run to be deleted", Duration::from_secs(30), |runs| {
            (!runs.contains_key("run")).then_some(())
        })
        .await?;
    let took = complete.elapsed();
    // The status counts exactly, the watch sees it a moment later.
    let range = Duration::from_millis(1500)..Duration::from_secs(7);
    ensure!(range.contains(&took), "expected it to go after 2 s, it went after {took:?}");
    room.nothing_left(&run.uid().context("no uid")?, PATIENCE).await?;
    Ok(vec![format!("gone {:.1} s after it was complete", took.as_secs_f64())])
}
