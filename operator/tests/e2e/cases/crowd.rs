//! More runs than there is room for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use operator::api::v1alpha1::{Parties, PodSettings, SecureInferenceSpec};
use operator::job::quantity;

use super::restarts::check_history;
use crate::report::Figures;
use crate::room::{ROLES, Room, brief, check_complete};

/// How many runs are asked for at once.
const RUNS: usize = 30;

/// How many of them there is room for.
const PLACES: u64 = 2;

/// Until all are complete.
const ALL: Duration = Duration::from_secs(300);

pub(super) async fn all_finish(room: &Room) -> anyhow::Result<Figures> {
    let request = request(room).await?;
    let cpu = Quantity(format!("{request}m"));
    let resources = ResourceRequirements {
        requests: Some([("cpu".to_owned(), cpu)].into()),
        ..ResourceRequirements::default()
    };
    let spec = SecureInferenceSpec {
        parties: Parties {
            pods: PodSettings { resources: Some(resources), ..PodSettings::default() },
            ..Parties::default()
        },
        ..brief(10)
    };
    let names: Vec<String> = (0..RUNS).map(|number| format!("run-{number}")).collect();
    let began = Instant::now();
    try_join_all(names.iter().map(|name| room.create(name, spec.clone()))).await?;
    let statuses = try_join_all(names.iter().map(|name| room.complete(name, ALL))).await?;
    let took = began.elapsed().as_secs_f64();
    for status in &statuses {
        check_complete(status)?;
        ensure!(
            status.failed_attempts.is_none(),
            "expected no attempt to fail: {:?}",
            status.failure
        );
    }
    check_history(room)?;
    let gave_way = statuses.iter().filter(|status| status.start_seconds_used.is_some()).count();
    Ok(vec![format!(
        "{RUNS} runs of {request}m each party, room for {PLACES}: {took:.0} s, {gave_way} gave way once"
    )])
}

/// The processor time, in thousandths of a core, with which two runs and a part of a third
/// have room on the nodes.
async fn request(room: &Room) -> anyhow::Result<u64> {
    let client = &room.cluster().client;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let mut free = BTreeMap::<String, u64>::new();
    for node in nodes {
        let taken = node.spec.as_ref().is_some_and(|spec| {
            spec.unschedulable == Some(true) || spec.taints.iter().flatten().next().is_some()
        });
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        let cpu = allocatable.and_then(|resources| resources.get("cpu"));
        if !taken {
            free.insert(node.name_any(), millicores(cpu.context("a node has no cpu")?)?);
        }
    }
    for pod in Api::<Pod>::all(client.clone()).list(&ListParams::default()).await? {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let spec = pod.spec.clone().unwrap_or_default();
        let node = spec.node_name.as_ref().and_then(|node| free.get_mut(node));
        let (Some(node), false) = (node, matches!(phase, Some("Succeeded" | "Failed"))) else {
            continue;
        };
        for container in spec.containers {
            let requests = container.resources.and_then(|resources| resources.requests);
            if let Some(cpu) = requests.as_ref().and_then(|requests| requests.get("cpu")) {
                *node = node.saturating_sub(millicores(cpu)?);
            }
        }
    }
    let most = free.values().copied().max().context("expected a node that pods may go to")?;
    let parties = ROLES.len() as u64;
    // Two more pods than two runs have: a third run gets a part of its pods onto nodes.
    let pods = |request: u64| free.values().map(|free| free / request).sum::<u64>();
    let fits = (1..=most).rev().find(|request| pods(*request) >= PLACES * parties + 2);
    let request = fits.context("expected room for two runs")?;
    let room = pods(request);
    ensure!(
        room < (PLACES + 1) * parties,
        "expected room for {PLACES} runs, there is room for {room} pods"
    );
    Ok(request)
}

/// A quantity of cores in thousandths: `2`, `1500m`, `0.5`.
fn millicores(cores: &Quantity) -> anyhow::Result<u64> {
    let found: f64 = quantity(&cores.0)
        .with_context(|| format!("expected a number of cores, found {}", cores.0))?;
    Ok((1000.0 * found).round() as u64)
}
