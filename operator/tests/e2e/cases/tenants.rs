//! What one tenant writes, and what another notices of it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use operator::api::v1alpha1::SecureInferenceSpec;
use operator::conditions::{self, ACCEPTED};
use serde_json::json;

use super::frugality::peak;
use crate::hostile_resources::{Hostile, accepted, model, refused};
use crate::report::Figures;
use crate::room::{PATIENCE, Room, brief, check_complete};

/// How often each of the hostile resources is there.
const COPIES: usize = 3;

/// Until the second tenant's run is complete, though the first has sent all of its resources
/// before.
const SECOND: Duration = Duration::from_secs(60);

pub(super) async fn hostile(room: &Room) -> anyhow::Result<Figures> {
    let restarts = room.operator().restarts().await?;
    let second = Room::open(room.world.clone(), "second tenant").await?;
    let outcome = beside(room, &second).await;
    second.close().await?;
    let mut figures = outcome?;
    let again = room.operator().restarts().await? - restarts;
    ensure!(again == 0, "expected the operator to stay within its memory; restarted {again} times");
    let (leader, _) = room.operator().leader(PATIENCE).await?;
    if let Some(machine) = &room.cluster().machine {
        let most = peak(machine.process_of(&leader.container).await?)?;
        figures.push(format!("the operator took {} MB at most, of 128 MiB", most / 1000));
    }
    Ok(figures)
}

async fn beside(room: &Room, second: &Room) -> anyhow::Result<Figures> {
    let all: Vec<(String, Hostile)> = (0..COPIES)
        .flat_map(|copy| {
            let hostile = refused().into_iter().chain(accepted()).enumerate();
            hostile.map(move |(number, hostile)| (format!("h-{number}-{copy}"), hostile))
        })
        .collect();
    let began = Instant::now();
    try_join_all(all.iter().map(async |(name, hostile)| room.create(name, spec(hostile)?).await))
        .await?;
    let sent = Instant::now();
    second.create("second", brief(10)).await?;
    check_complete(&second.complete("second", SECOND).await?)?;
    let took = sent.elapsed();
    let verdicts = all.iter().map(|(name, hostile)| async move {
        let decided = room.status(name, "accepted or refused", PATIENCE, |status| {
            let accepted = conditions::find(status, ACCEPTED)?;
            Some((accepted.status == "True", accepted.message.clone()))
        });
        let (accepted, message) = decided.await?;
        let as_expected = match hostile.refusal {
            Some(says) => !accepted && message.contains(says),
            None => accepted,
        };
        ensure!(as_expected, "{}: expected {:?}, found {message:?}", hostile.name, hostile.refusal);
        anyhow::Ok(())
    });
    try_join_all(verdicts).await?;
    Ok(vec![format!(
        "{} hostile resources: another tenant's run took {:.1} s beside them, all decided on after {:.1} s",
        all.len(),
        took.as_secs_f64(),
        began.elapsed().as_secs_f64(),
    )])
}

/// Suspended, as it is the operator's work that is looked at, not that of its pods.
fn spec(hostile: &Hostile) -> anyhow::Result<SecureInferenceSpec> {
    let model = model(&hostile.players, &hostile.definition);
    let spec = json!({ "suspend": true, "model": model });
    serde_json::from_value(spec).context("cannot write a spec")
}
