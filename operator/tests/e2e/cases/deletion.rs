//! What is left when a resource goes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::ResourceExt;
use kube::api::DeleteParams;
use operator::api::v1alpha1::SecureInference;
use operator::conditions::{self, PARTIES_READY};
use operator::resources::JOB_UID;

use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, Room, brief};

/// Until nothing is left.
const GONE: Duration = Duration::from_secs(30);

pub(super) async fn leaves_nothing(room: &Room) -> anyhow::Result<Figures> {
    let run = room.create("deleted", brief(LASTING)).await?;
    room.ready("deleted", 1).await?;
    let uid = run.uid().context("the resource has no uid")?;
    room.api::<SecureInference>().delete("deleted", &DeleteParams::background()).await?;
    let began = Instant::now();
    room.nothing_left(&uid, GONE).await?;
    let took = began.elapsed().as_secs_f64();
    Ok(vec![format!("nothing left after {took:.1} s (target {GONE:?})")])
}

/// What is deleted in the foreground is there until nothing of it is left. What is made again at once
/// begins when the pods of the last have gone.
pub(super) async fn and_again(room: &Room) -> anyhow::Result<Figures> {
    let resources = room.api::<SecureInference>();
    let first = room.create("run", brief(LASTING)).await?.uid().context("no uid")?;
    room.ready("run", 1).await?;
    resources.delete("run", &DeleteParams::foreground()).await?;
    room.runs.until("run to be gone", PATIENCE, |runs| runs.is_empty().then_some(())).await?;
    let of = |uid: &str| {
        let pods = room.pods.frames().into_iter();
        pods.filter(|frame| frame.object.labels().get(JOB_UID).map(String::as_str) == Some(uid))
            .collect::<Vec<_>>()
    };
    // Pods and resources are watched apart.
    room.nothing_left(&first, Duration::from_secs(5)).await.context("after the resource")?;

    let second = room.create("run", brief(LASTING)).await?.uid().context("no uid")?;
    room.ready("run", 1).await?;
    resources.delete("run", &DeleteParams::background()).await?;
    let third = room.create("run", brief(LASTING)).await?.uid().context("no uid")?;
    let is_third = |run: &SecureInference| run.uid().as_ref() == Some(&third);
    let ready = |run: &SecureInference| {
        let status = run.status.as_ref();
        is_third(run) && status.is_some_and(|status| conditions::holds(status, PARTIES_READY))
    };
    room.runs
        .until("the run that was made again to be ready", PATIENCE, |runs| {
            runs.values().any(ready).then_some(())
        })
        .await?;
    let told = room.runs.frames().iter().filter(|frame| is_third(&frame.object)).any(|frame| {
        let status = frame.object.status.as_ref();
        let waits = status.and_then(|status| conditions::find(status, PARTIES_READY));
        waits.is_some_and(|waits| waits.reason == "TearingDown")
    });
    ensure!(told, "expected the run that was made again to say that it waits");
    let gone = of(&second).iter().filter(|frame| frame.gone).map(|frame| frame.at).max();
    let begun = of(&third).iter().map(|frame| frame.at).min();
    let (gone, begun) = (gone.context("no pod went")?, begun.context("no pod came")?);
    ensure!(begun >= gone, "expected no pod before the last of the earlier run had gone");
    let waited = (begun - gone).as_secs_f64();
    Ok(vec![format!("made again, it began {waited:.1} s after the last pod had gone")])
}
