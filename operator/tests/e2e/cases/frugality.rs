//! What the operator costs the API server and its node.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use operator::api::v1alpha1::SecureInference;
use serde_json::json;

use crate::operator::{Replica, Scrape};
use crate::report::Figures;
use crate::room::{PATIENCE, Room, brief, check_complete};

/// How often a run may write to the API server.
const WRITES: u64 = 40;

/// How many finished resources there are.
const FINISHED: usize = 500;

/// From the start of the operator until it has looked at them all.
const SETTLED: Duration = Duration::from_secs(10);

/// Resident memory, kB.
const MEMORY: u64 = 60_000;

/// Processor time while nothing happens, part of a core.
const IDLE: f64 = 0.01;

/// Over how long that is measured.
const REST: Duration = Duration::from_secs(10);

/// Requests in flight while resources are made.
const AT_ONCE: usize = 16;

pub(super) async fn writes(room: &Room) -> anyhow::Result<Figures> {
    let (leader, before) = room.operator().leader(PATIENCE).await?;
    let run = room.create("run", brief(100)).await?;
    check_complete(&room.complete("run", PATIENCE).await?)?;
    let uid = run.metadata.uid.context("no uid")?;
    room.nothing_left(&uid, PATIENCE).await?;
    let after = room.operator().scrape(&leader).await?;
    let written = after.writes() - before.writes();
    let by_kind: Vec<String> = after
        .requests()
        .into_iter()
        .filter_map(|((verb, resource), count)| {
            let key = (verb, resource);
            let count = count - before.requests().get(&key).copied().unwrap_or(0);
            let (verb, resource) = key;
            (count > 0
                && !matches!(verb.as_str(), "get" | "list" | "watch")
                && resource != "leases")
                .then(|| format!("{verb} {resource} {count}"))
        })
        .collect();
    let figure = format!("{written} writes (target {WRITES}): {}", by_kind.join(", "));
    ensure!(written <= WRITES, "expected at most {WRITES} writes for a run, found {figure}");

    let (leader, scrape) = room.operator().restart().await?;
    let (scrape, _) = settled(room, &leader, scrape, 1).await?;
    let written = scrape.writes();
    let requests = scrape.requests();
    ensure!(written == 0, "expected no writes for a finished run, found {written}: {requests:?}");
    Ok(vec![figure, "no writes for it when the operator starts again".into()])
}

/// Waits until the leader has reconciled so often; its metrics then, and when that was.
async fn settled(
    room: &Room,
    leader: &Replica,
    mut scrape: Scrape,
    reconciles: usize,
) -> anyhow::Result<(Scrape, Instant)> {
    let deadline = Instant::now() + PATIENCE;
    while scrape.sum("controller_runtime_reconcile_total") < reconciles as f64 {
        ensure!(Instant::now() < deadline, "expected {reconciles} reconciles within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        scrape = room.operator().scrape(leader).await?;
    }
    Ok((scrape, Instant::now()))
}

pub(super) async fn finished(room: &Room) -> anyhow::Result<Figures> {
    let run = room.create("finished", brief(10)).await?;
    check_complete(&room.complete("finished", PATIENCE).await?)?;
    room.nothing_left(run.metadata.uid.as_ref().context("no uid")?, PATIENCE).await?;
    // While there is no operator to mistake them for new ones.
    room.operator().scale(0).await?;
    let made = copies(room).await;
    let began = Instant::now();
    room.operator().scale(1).await?;
    made?;
    let (leader, scrape) = room.operator().leader(PATIENCE).await?;
    let (scrape, at) = settled(room, &leader, scrape, FINISHED).await?;
    let started = at - began;
    let written = scrape.writes();
    ensure!(written == 0, "expected no writes for what is finished, found {:?}", scrape.requests());
    let mut figures = vec![format!(
        "{FINISHED} finished resources looked at {:.1} s after the operator was started (target {SETTLED:?}), no writes",
        started.as_secs_f64()
    )];
    let (memory, idle) = match &room.cluster().machine {
        None => {
            figures.push(
                "MEMORY AND PROCESSOR TIME NOT MEASURED: the node is not this machine".into(),
            );
            (0, 0.0)
        }
        Some(machine) => {
            let pid = machine.process_of(&leader.container).await?;
            let before = ticks(pid)?;
            tokio::time::sleep(REST).await;
            // Linux counts in hundredths of a second.
            let idle = (ticks(pid)? - before) as f64 / 100.0 / REST.as_secs_f64();
            let memory = resident(pid)?;
            figures.push(format!(
                "{:.1} MB resident (target {} MB), {:.2} % of a core when idle (target {} %)",
                memory as f64 / 1000.0,
                MEMORY / 1000,
                100.0 * idle,
                100.0 * IDLE
            ));
            (memory, idle)
        }
    };
    // So many take the namespace long to delete.
    let all = room.api::<SecureInference>();
    all.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
    let all = figures.join("\n");
    ensure!(started < SETTLED, "expected to start within {SETTLED:?}:\n{all}");
    ensure!(memory < MEMORY, "expected less than {MEMORY} kB resident:\n{all}");
    ensure!(idle < IDLE, "expected to be idle:\n{all}");
    Ok(figures)
}

/// Makes many resources with the status of the one that is there.
async fn copies(room: &Room) -> anyhow::Result<()> {
    let kind = ApiResource::erase::<SecureInference>(&());
    let client = room.cluster().client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &room.namespace, &kind);
    let first = api.get("finished").await?;
    let (api, first) = (&api, &first);
    let copies = (1..FINISHED).map(|number| async move {
        let name = format!("finished-{number}");
        let mut copy = DynamicObject::new(&name, &ApiResource::erase::<SecureInference>(&()));
        copy.data = json!({ "spec": first.data["spec"] });
        api.create(&PostParams::default(), &copy).await?;
        let patch = Patch::Merge(json!({ "status": first.data["status"] }));
        api.patch_status(&name, &PatchParams::default(), &patch).await
    });
    let copies: Vec<_> = copies.collect();
    futures::stream::iter(copies).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    Ok(())
}

/// Resident memory of a process, kB.
fn resident(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that a process has had resident, kB.
pub(super) fn peak(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, key: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("expected {key} of process {pid}, found:\n{status}"))
}

/// Processor time of a process so far, in clock ticks.
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which may hold blanks: state is field 3, user and system time 14 and 15.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let mut times = fields.into_iter().flatten().skip(11).take(2).map(str::parse::<u64>);
    match (times.next(), times.next()) {
        (Some(Ok(user)), Some(Ok(system))) => Ok(user + system),
        _ => anyhow::bail!("expected times of process {pid}, found {stat}"),
    }
}
