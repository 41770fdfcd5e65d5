//! What is left when a resource goes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kube::ResourceExt;
use kube::api::DeleteParams;
use operator::api::v1alpha1::SecureInference;
use operator::conditions::{self, PARTIES_READY};
use operator::resources::JOB_UID;

use crate::report::Figures;
use crate::room::{ENDLESS, PATIENCE, ROLES, Room, lasting};

/// Until nothing is left: the garbage collector looks for new kinds of resources every 30 s, of which
/// this may be the first.
const GONE: Duration = Duration::from_secs(60);

pub(super) async fn leaves_nothing(room: &Room) -> anyhow::Result<Figures> {
    let run = room.create("deleted", lasting(ENDLESS)).await?;
    room.ready("deleted", 1).await?;
    let uid = run.uid().context("the resource has no uid")?;
    room.api::<SecureInference>().delete("deleted", &DeleteParams::background()).await?;
    let began = Instant::now();
    room.nothing_left(&uid, GONE).await?;
    let took = began.elapsed().as_secs_f64();
    Ok(vec![format!("nothing left after {took:.1} s (target {GONE:?})")])
}

/// What is deleted in the foreground is there until nothing of it is left. What is made again at once
/// begins when the pods of the last have ended.
pub(super) async fn and_again(room: &Room) -> anyhow::Result<Figures> {
    let resources = room.api::<SecureInference>();
    let first = room.create("run", lasting(ENDLESS)).await?.uid().context("no uid")?;
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

    let second = room.create("run", lasting(ENDLESS)).await?.uid().context("no uid")?;
    room.ready("run", 1).await?;
    resources.delete("run", &DeleteParams::background()).await?;
    let third = room.create("run", lasting(ENDLESS)).await?.uid().context("no uid")?;
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
    // A pod that has ended takes no room any more, though it may be there for a moment.
    let mut ended = BTreeMap::new();
    for frame in of(&second) {
        let phase = frame.object.status.as_ref().and_then(|status| status.phase.as_deref());
        if frame.gone || matches!(phase, Some("Succeeded" | "Failed")) {
            ended.entry(frame.object.name_any()).or_insert(frame.at);
        }
    }
    let begun = of(&third).iter().map(|frame| frame.at).min().context("no pod came")?;
    let last = ended.values().max().context("no pod went")?;
    ensure!(ended.len() == ROLES.len(), "expected {} pods to go, found {ended:?}", ROLES.len());
    ensure!(begun >= *last, "expected no pod before the last of the earlier run had ended");
    let waited = (begun - *last).as_secs_f64();
    Ok(vec![format!("made again, it began {waited:.1} s after the last pod had ended")])
}
