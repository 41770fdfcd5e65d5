//! What administrators do to a cluster in mid-run: they drain the node, and upgrade the operator.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use operator::api::v1alpha1::{Failure, SecureInference, SecureInferenceStatus};
use operator::conditions::{self, PARTIES_READY};
use operator::resources::{ATTEMPT, JOB, MANAGED_BY};

use super::kills::{self, check_attempts_share_nothing};
use super::restarts::{AGAIN, check_history, first_attempt_completes, works};
use crate::cluster::Cordon;
use crate::film::Film;
use crate::operator::Replica;
use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, ROLES, Room, check_complete, lasting};

/// How long `kubectl drain` waits for pods to go.
const DRAIN: &str = "--timeout=60s";

/// How long a node is watched that nothing may start on.
const IDLE: Duration = Duration::from_secs(3);

/// Between two looks at who leads.
const GLANCE: Duration = Duration::from_millis(50);

/// The parties are drained first, the operator while the next attempt waits for a node.
pub(super) async fn drained(room: &Room) -> anyhow::Result<Figures> {
    let (run, secrets) = under_way(room).await?;
    let node = node(room)?;
    let cordon = room.cluster().cordon(&node).await?;
    let parties = format!("--pod-selector={}={}", MANAGED_BY.0, MANAGED_BY.1);
    let evicted = drain(room, &node, &[&parties]).await?;
    ensure!(evicted > 0, "expected parties to be evicted, found none");
    let failure =
        room.status("run", "failed once", PATIENCE, |status| status.failure.clone()).await?;
    let reason = kills::eviction(room);
    ensure!(
        failure.attempt == 1 && failure.reason == reason,
        "expected {reason} in attempt 1, found {failure:?}"
    );
    check_role(&failure)?;
    kills::told(room, &failure).await?;
    let waits = room.status("run", "waiting for a node in attempt 2", PATIENCE, |status| {
        let ready = conditions::find(status, PARTIES_READY)?;
        let all = status.parties.len() == ROLES.len();
        let waits = ready.status == "False" && ready.reason == "Unschedulable";
        (status.attempt == Some(2) && all && waits).then(|| ready.message.clone())
    });
    let waits = waits.await?;

    drain(room, &node, &[]).await?;
    let left = room.operator().replicas().await?;
    ensure!(left.is_empty(), "expected no operator on a drained node, found {left:?}");
    let waiting = pods(room);
    ensure!(
        waiting.len() == ROLES.len(),
        "expected {} pods that wait for a node, found {waiting:?}",
        ROLES.len()
    );
    nothing_starts(room).await?;
    let figures = vec![
        format!("{}: {}", failure.role.unwrap_or_default(), failure.message),
        format!("while it waits: {waits}"),
        lifted(room, cordon, &run, &secrets).await?,
    ];
    let label = |pod: &Pod, key: &str| pod.labels().get(key).cloned();
    let of_next: BTreeSet<_> = room
        .pods
        .frames()
        .into_iter()
        .map(|frame| frame.object)
        .filter(|pod| label(pod, JOB).as_deref() == Some("run"))
        .filter(|pod| label(pod, ATTEMPT).as_deref() == Some("2"))
        .map(|pod| (pod.name_any(), pod.uid()))
        .collect();
    ensure!(
        of_next == waiting,
        "expected the pods that waited to be those of attempt 2, {of_next:?}, found {waiting:?}"
    );
    Ok(figures)
}

/// Everything is drained at once: the operator may go before it can say anything.
pub(super) async fn all_drained(room: &Room) -> anyhow::Result<Figures> {
    let (run, secrets) = under_way(room).await?;
    let node = node(room)?;
    let cordon = room.cluster().cordon(&node).await?;
    let evicted = drain(room, &node, &[]).await?;
    ensure!(evicted > 1, "expected parties and the operator to be evicted, found {evicted} pods");
    let left = room.operator().replicas().await?;
    ensure!(left.is_empty(), "expected no operator on a drained node, found {left:?}");
    nothing_starts(room).await?;
    let said = lifted(room, cordon, &run, &secrets).await?;
    // The operator itself, or its successor, which finds that the pods are gone.
    let frames = room.runs.frames();
    let mut seen = frames.iter().filter_map(|frame| frame.object.status.as_ref()?.failure.as_ref());
    let failure = seen.next().context("expected a failure in the status before it was complete")?;
    ensure!(
        failure.attempt == 1 && [kills::eviction(room), "PodDeleted"].contains(&&*failure.reason),
        "expected attempt 1 to have been drained, found {failure:?}"
    );
    check_role(failure)?;
    kills::told(room, failure).await?;
    Ok(vec![format!("{evicted} pods evicted; {}: {}", failure.reason, failure.message), said])
}

/// A run whose parties are ready, and all Secrets that are made for it.
async fn under_way(room: &Room) -> anyhow::Result<(SecureInference, Film<Secret>)> {
    let secrets: Film<Secret> = room.film().await?;
    let run = room.create("run", lasting(LASTING)).await?;
    room.ready("run", 1).await?;
    Ok((run, secrets))
}

/// The node of the parties, the only one of the cluster.
fn node(room: &Room) -> anyhow::Result<String> {
    let node = room.pod("client")?.spec.and_then(|spec| spec.node_name);
    node.context("expected the client to have a node")
}

/// Evicts the pods of a node, and waits until they are gone; how many they were.
async fn drain(room: &Room, node: &str, more: &[&str]) -> anyhow::Result<usize> {
    room.operator().account().await?;
    // Parties and the operator need neither --force nor --delete-emptydir-data.
    let drain = ["drain", node, "--ignore-daemonsets", DRAIN];
    let said = room.cluster().kubectl(&[&drain[..], more].concat()).await?;
    let gone = |line: &&str| line.starts_with("pod/");
    let evicted = said.lines().filter(gone).filter(|line| line.ends_with(" evicted")).count();
    let all = said.lines().filter(gone).count();
    ensure!(evicted == all, "expected pods to be evicted, not deleted; kubectl said:\n{said}");
    Ok(evicted)
}

/// Checks that nothing runs on the drained node, and nothing starts.
async fn nothing_starts(room: &Room) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < IDLE {
        let on_a_node = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let present = room.pods.present();
        if let Some(pod) = present.values().find(on_a_node) {
            // The watch may tell later than the API server that it is gone.
            let there = room.api::<Pod>().get_opt(&pod.name_any()).await?;
            ensure!(there.is_none(), "expected nothing on a drained node, found {there:?}");
        }
        let running = room.operator().replicas().await?;
        ensure!(running.is_empty(), "expected no operator on a drained node, found {running:?}");
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

/// Gives the node back: the operator returns, and finishes what was begun.
async fn lifted(
    room: &Room,
    cordon: Cordon,
    run: &SecureInference,
    secrets: &Film<Secret>,
) -> anyhow::Result<String> {
    let status = room.runs.present().get("run").and_then(|run| run.status.clone());
    let over = status.as_ref().and_then(conditions::finished);
    ensure!(over.is_none(), "expected the run to wait for the node, found {over:?}");
    let began = Instant::now();
    cordon.lift().await?;
    room.operator().leader(AGAIN).await?;
    let leads = began.elapsed().as_secs_f64();
    room.ready("run", 2).await?;
    let ready = began.elapsed().as_secs_f64();
    let status = room.complete("run", 2 * PATIENCE).await?;
    check_complete(&status)?;
    check_history(room)?;
    check_attempts(&status)?;
    check_attempts_share_nothing(secrets)?;
    room.nothing_left(&run.uid().context("no uid")?, PATIENCE).await?;
    works(room, "next").await?;
    Ok(format!(
        "after uncordon the operator led in {leads:.1} s, all parties were ready in {ready:.1} s"
    ))
}

fn check_attempts(status: &SecureInferenceStatus) -> anyhow::Result<()> {
    let (attempt, failures) = (status.attempt, status.failed_attempts);
    ensure!(
        attempt == Some(2) && failures == Some(1),
        "expected attempt 2 to be complete after 1 failure, found {attempt:?} after {failures:?}"
    );
    Ok(())
}

fn check_role(failure: &Failure) -> anyhow::Result<()> {
    let role = failure.role.as_deref().context("expected a role in the failure")?;
    ensure!(ROLES.contains(&role), "expected one of {ROLES:?}, found {role}");
    Ok(())
}

/// Names and identities of the parties' pods.
fn pods(room: &Room) -> BTreeSet<(String, Option<String>)> {
    room.pods.present().into_iter().map(|(name, pod)| (name, pod.uid())).collect()
}

/// All replicas are replaced by new ones while parties work.
pub(super) async fn upgraded(room: &Room) -> anyhow::Result<Figures> {
    room.operator().scale(2).await?;
    let outcome = rolled(room).await;
    room.operator().scale(1).await?;
    room.operator().leader(AGAIN).await?;
    outcome
}

async fn rolled(room: &Room) -> anyhow::Result<Figures> {
    let operator = room.operator();
    operator.leader(AGAIN).await?;
    let before = operator.replicas().await?;
    room.create("run", lasting(2 * LASTING)).await?;
    room.ready("run", 1).await?;
    let began = pods(room);
    let mut leaders: Vec<Replica> = Vec::new();
    let mut looks = 0;
    let watch = async {
        loop {
            if let Some(leader) = operator.at_most_one_leads().await?
                && leaders.last() != Some(&leader)
            {
                leaders.push(leader);
            }
            looks += 1;
            tokio::time::sleep(GLANCE).await;
        }
    };
    let started = Instant::now();
    let roll = async {
        operator.roll().await?;
        let (leader, _) = operator.leader(AGAIN).await?;
        Ok::<_, anyhow::Error>(leader)
    };
    let leader = tokio::select! {
        leader = roll => leader?,
        broken = watch => return broken,
    };
    let took = started.elapsed().as_secs_f64();
    if leaders.last() != Some(&leader) {
        leaders.push(leader.clone());
    }
    ensure!(!before.contains(&leader), "expected a new replica to lead, found {leader:?}");
    ensure!(leaders.len() > 1, "expected the leader to be replaced, found {leaders:?}");
    ensure!(looks > 5, "expected to see who leads meanwhile, looked {looks} times");
    let status = room.runs.present().get("run").and_then(|run| run.status.clone());
    ensure!(
        status.as_ref().and_then(conditions::finished).is_none(),
        "expected the run to go on until the upgrade was over"
    );
    ensure!(pods(room) == began, "expected the same pods, found {:?} and {began:?}", pods(room));
    first_attempt_completes(room, "run", 2 * PATIENCE).await?;
    works(room, "next").await?;
    Ok(vec![format!(
        "both replicas replaced in {took:.1} s, {} leaders one after the other in {looks} looks",
        leaders.len()
    )])
}
