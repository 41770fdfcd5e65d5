//! The operator, or the API server, goes away in the middle of things.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail, ensure};
use futures::FutureExt;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use operator::api::v1alpha1::SecureInferenceStatus;
use operator::conditions::{self, COMPLETE};
use operator::resources::{ATTEMPT, JOB};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::operator::Replica;
use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, Room, brief, check_complete, lasting};

/// How many runs there are while the operator is killed again and again.
const RUNS: usize = 10;

/// How long it may live, milliseconds.
const LIFE: std::ops::Range<u64> = 100..6000;

/// How long the API server is away, seconds.
const AWAY: u32 = 30;

/// For one of several runs, and for one that ends soon after it is ready; seconds.
const SHORTER: u32 = LASTING / 2;

/// Until all runs are complete.
const ALL: Duration = Duration::from_secs(200);

/// Until an operator that was killed works again: without a word of farewell its successor
/// waits until the Lease is invalid, and nodes wait before they start a process again that
/// ends over and over.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

pub(super) async fn operator_killed(room: &Room) -> anyhow::Result<Figures> {
    let seed: u64 = rand::random();
    let names: Vec<String> = (0..RUNS).map(|number| format!("run-{number}")).collect();
    let began = Instant::now();
    try_join_all(names.iter().map(|name| room.create(name, lasting(SHORTER)))).await?;
    let all = try_join_all(names.iter().map(|name| room.complete(name, ALL))).fuse();
    tokio::pin!(all);
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    let statuses = loop {
        let life = Duration::from_millis(random.random_range(LIFE));
        let kill = async {
            let (leader, _) = room.operator().leader(AGAIN).await?;
            // The moment is the point.
            tokio::time::sleep(life).await;
            kill(room, &leader, kills).await
        };
        tokio::select! {
            statuses = &mut all => break statuses?,
            killed = kill => killed?,
        }
        kills += 1;
    };
    let took = began.elapsed().as_secs_f64();
    ensure!(kills > 2, "expected the operator to be killed in mid-run, it was {kills} times");
    // It works on before the next case begins.
    room.operator().leader(AGAIN).await?;
    for status in &statuses {
        check_complete(status)?;
        let attempt = status.attempt;
        ensure!(
            attempt == Some(1),
            "expected attempt 1 to be complete, found {attempt:?} (seed {seed})"
        );
    }
    check_history(room).with_context(|| format!("seed {seed}"))?;
    Ok(vec![format!("{kills} kills, all {RUNS} runs complete after {took:.0} s; seed {seed}")])
}

/// Kills the operator: its process, or its pod, by turns.
async fn kill(room: &Room, leader: &Replica, number: u32) -> anyhow::Result<()> {
    match &room.cluster().machine {
        Some(machine) if number.is_multiple_of(2) => {
            room.operator().account().await?;
            machine.signal(&leader.container, "KILL").await
        }
        _ => room.operator().delete(leader, Some(0)).await,
    }
}

/// Nothing was ever taken back: of each run, one result at one time, and never the pods of two
/// attempts at once.
pub(super) fn check_history(room: &Room) -> anyhow::Result<()> {
    let mut results = BTreeMap::<String, SecureInferenceStatus>::new();
    for frame in room.runs.frames().iter().filter(|frame| !frame.gone) {
        let name = frame.object.name_any();
        let status = frame.object.status.clone().unwrap_or_default();
        let Some(before) = results.get(&name) else {
            if conditions::holds(&status, COMPLETE) {
                results.insert(name, status);
            }
            continue;
        };
        if !conditions::holds(&status, COMPLETE) {
            bail!("{name} was Complete and is not any more: {:?}", status.conditions);
        }
        ensure!(
            before.results == status.results && before.completion_time == status.completion_time,
            "{name} was complete twice: {:?} at {:?}, and {:?} at {:?}",
            before.results,
            before.completion_time,
            status.results,
            status.completion_time
        );
    }
    let mut there = BTreeMap::<(String, String), BTreeSet<String>>::new();
    for frame in room.pods.frames() {
        let label = |pod: &Pod, key: &str| pod.labels().get(key).cloned().unwrap_or_default();
        let (job, attempt) = (label(&frame.object, JOB), label(&frame.object, ATTEMPT));
        let pods = there.entry((job.clone(), attempt)).or_default();
        match frame.gone {
            true => pods.remove(&frame.object.name_any()),
            false => pods.insert(frame.object.name_any()),
        };
        let alive: Vec<&BTreeSet<String>> = there
            .iter()
            .filter(|((of, _), pods)| *of == job && !pods.is_empty())
            .map(|(_, pods)| pods)
            .collect();
        ensure!(alive.len() <= 1, "expected pods of one attempt at a time, found {alive:?}");
    }
    Ok(())
}

pub(super) async fn apiserver_restarted(room: &Room) -> anyhow::Result<Figures> {
    room.create("run", lasting(LASTING)).await?;
    room.ready("run", 1).await?;
    let away = without_apiserver(room, 0).await?;
    first_attempt_completes(room, "run", 2 * PATIENCE).await?;
    works_again(room).await?;
    Ok(vec![format!("the API server was away for {:.1} s", away.took().as_secs_f64())])
}

/// One run ends while the API server is away, and one goes on.
pub(super) async fn apiserver_away(room: &Room) -> anyhow::Result<Figures> {
    for (name, seconds) in [("goes-on", 2 * LASTING), ("ends", SHORTER)] {
        room.create(name, lasting(seconds)).await?;
        room.ready(name, 1).await?;
    }
    let restarts = room.operator().restarts().await?;
    let away = without_apiserver(room, AWAY).await?;
    let client_ended = |status: &SecureInferenceStatus| -> anyhow::Result<SystemTime> {
        let client = status.parties.iter().find(|party| party.role == "client");
        let ended = client.and_then(|client| client.finished_at.clone());
        Ok(ended.context("expected the time of the client's end in the status")?.0.into())
    };
    let ends = first_attempt_completes(room, "ends", 2 * PATIENCE).await?;
    // By the operator's clock: the watch of this test waits, too, before it tries again.
    let noticed = ends.completion_time.as_ref().context("expected a completionTime")?;
    let noticed = SystemTime::from(noticed.0).duration_since(away.back).unwrap_or_default();
    let ended = client_ended(&ends)?;
    // Nodes count in seconds.
    ensure!(
        away.left <= ended + Duration::from_secs(1) && ended < away.back,
        "expected a run to end while the API server was away, {away:?}; it ended at {ended:?}"
    );
    let goes_on = first_attempt_completes(room, "goes-on", ALL).await?;
    let ended = client_ended(&goes_on)?;
    ensure!(
        ended >= away.back,
        "expected a run to go on when the API server was back, {away:?}; it ended at {ended:?}"
    );
    works_again(room).await?;
    // A leader that cannot renew its Lease starts anew, and then waits.
    let restarts = room.operator().restarts().await? - restarts;
    ensure!(restarts <= 1, "expected the operator to start anew once, it did {restarts} times");
    Ok(vec![
        format!("the API server was away for {:.1} s", away.took().as_secs_f64()),
        format!(
            "{:.1} s after its return the run that had ended meanwhile was Complete",
            noticed.as_secs_f64()
        ),
    ])
}

/// When the API server was away.
#[derive(Debug)]
struct Away {
    left: SystemTime,
    back: SystemTime,
}

impl Away {
    fn took(&self) -> Duration {
        self.back.duration_since(self.left).unwrap_or_default()
    }
}

/// Ends the API server, and starts it again after so many seconds.
async fn without_apiserver(room: &Room, seconds: u32) -> anyhow::Result<Away> {
    let machine = room.cluster().machine.as_ref().context("needs the API server's process")?;
    let (_, forbidden) = room.operator().accounts().await?;
    ensure!(forbidden.is_empty(), "expected nothing to be forbidden so far: {forbidden:#?}");
    let left = SystemTime::now();
    machine.restart_apiserver(seconds).await?;
    Ok(Away { left, back: SystemTime::now() })
}

/// Waits until a run is complete, in the attempt in which it began.
pub(super) async fn first_attempt_completes(
    room: &Room,
    name: &str,
    within: Duration,
) -> anyhow::Result<SecureInferenceStatus> {
    let status = room.complete(name, within).await?;
    check_complete(&status)?;
    check_history(room)?;
    let (attempt, failures) = (status.attempt, status.failed_attempts.unwrap_or(0));
    ensure!(
        attempt == Some(1) && failures == 0,
        "expected attempt 1 of {name} to be complete, found {attempt:?} after {failures} failures"
    );
    Ok(status)
}

/// Checks that the operator works after the API server has come back.
async fn works_again(room: &Room) -> anyhow::Result<()> {
    works(room, "next").await?;
    room.operator().leader(AGAIN).await?;
    room.operator().pardon().await
}

pub(super) async fn replicas(room: &Room) -> anyhow::Result<Figures> {
    room.operator().scale(2).await?;
    let outcome = hand_overs(room).await;
    room.operator().scale(1).await?;
    room.operator().leader(AGAIN).await?;
    outcome
}

/// Until another replica leads.
const HAND_OVER: Duration = Duration::from_secs(20);

async fn hand_overs(room: &Room) -> anyhow::Result<Figures> {
    let operator = room.operator();
    let mut figures = Figures::new();
    for (how, grace) in [("told", None), ("deleted", Some(0))] {
        let ended = hand_over(room, how, async |leader| operator.delete(leader, grace).await);
        figures.push(ended.await?);
        works(room, how).await?;
    }
    let Some(machine) = &room.cluster().machine else {
        figures.push("NOT TRIED: a leader that hangs; the node is not this machine".into());
        return Ok(figures);
    };
    let (hanging, _) = operator.leader(AGAIN).await?;
    let stop = async |leader: &Replica| machine.signal(&leader.container, "STOP").await;
    let hung = hand_over(room, "hung", stop).await;
    // While another works, and before its node ends it because it does not answer.
    machine.signal(&hanging.container, "CONT").await?;
    figures.push(hung?);
    works(room, "hung").await?;
    // It finds that it no longer leads, and starts anew.
    let began = Instant::now();
    while operator.replicas().await?.contains(&hanging) {
        ensure!(began.elapsed() < HAND_OVER, "expected the leader that hung to start anew");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    operator.ready(2).await?;
    one_leader(room).await?;
    check_history(room)?;
    Ok(figures)
}

async fn one_leader(room: &Room) -> anyhow::Result<Replica> {
    let mut leaders = room.operator().leaders().await?;
    ensure!(leaders.len() == 1, "expected one leader of two replicas, found {leaders:?}");
    leaders.pop().context("no leader")
}

/// Ends the leader with `end`; another has to lead soon.
async fn hand_over(
    room: &Room,
    how: &str,
    end: impl AsyncFnOnce(&Replica) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    room.operator().ready(2).await?;
    room.operator().leader(AGAIN).await?;
    let leader = one_leader(room).await?;
    let began = Instant::now();
    end(&leader).await?;
    room.operator().leader_but(Some(&leader), HAND_OVER).await?;
    let took = began.elapsed().as_secs_f64();
    Ok(format!("another led {took:.1} s after the leader was {how} (target {HAND_OVER:?})"))
}

pub(super) async fn works(room: &Room, name: &str) -> anyhow::Result<()> {
    room.create(name, brief(10)).await?;
    check_complete(&room.complete(name, PATIENCE).await?)
}
