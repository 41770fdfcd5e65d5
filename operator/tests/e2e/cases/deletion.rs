//! What is left when a resource goes.

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::ResourceExt;
use kube::api::DeleteParams;
use operator::api::v1alpha1::SecureInference;

use crate::report::Figures;
use crate::room::{LASTING, Room, brief};

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
