//! What a collector receives of a run in the cluster, and what nobody must.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use opentelemetry_proto::tonic::trace::v1::Span;
use operator::api::v1alpha1::{SecureInferenceSpec, Telemetry};
use party::config::Computation;
use party::trace;
use spdz::plan::NumberFormat;
use tokio::runtime::Handle;

use crate::collector::Collector;
use crate::film::Film;
use crate::report::Figures;
use crate::room::{ENDLESS, PATIENCE, ROLES, Room, brief, check_complete, lasting};

const REPETITIONS: u32 = 50;

/// Who takes part in an inference.
const EVALUATE: [&str; 4] = ["client", "producer", "server0", "server1"];

/// How long the operator may take to tell of an attempt that has ended.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// A span, with the service it comes from.
type Told = (String, Span);

/// An attempt is a trace with the start of its parties, and each inference one over all
/// parties, complete when the run is. No private key is in anything that people look at.
pub(super) async fn complete(room: &Room) -> anyhow::Result<Figures> {
    let collector = Collector::start("0.0.0.0:0".parse()?, &Handle::current())?;
    let endpoint = format!("http://{}:{}", node(room).await?, collector.address().port());
    room.operator().account().await?;
    room.operator().install_with(&["--otlp-endpoint", &endpoint]).await?;
    let checked = run(room, &collector, endpoint).await;
    // The cases that follow need one that tells nobody.
    room.operator().account().await?;
    room.operator().install().await?;
    checked
}

async fn run(room: &Room, collector: &Collector, endpoint: String) -> anyhow::Result<Figures> {
    let secrets: Film<Secret> = room.film().await?;
    let telemetry = Some(Telemetry { otlp_endpoint: endpoint, sampling_ratio: 1.0 });
    let spec = SecureInferenceSpec { telemetry, ..brief(REPETITIONS) };
    let resource = room.create("run", spec).await?;
    check_complete(&room.complete("run", 2 * PATIENCE).await?)?;
    let evaluations = by_trace(collector.spans());

    let uid = resource.metadata.uid.context("expected a uid")?;
    let attempt = trace::attempt(&uid, 1).to_bytes().to_vec();
    let began = tokio::time::Instant::now();
    let spans = loop {
        let spans = by_trace(collector.spans()).remove(&attempt).unwrap_or_default();
        if spans.iter().any(|(_, span)| span.name == "attempt") {
            break spans;
        }
        ensure!(
            began.elapsed() < AFTERWARDS,
            "expected a span of the attempt, found {:?}",
            names(&spans)
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let reconciles = check_attempt(&spans)?;
    let evaluations: BTreeMap<_, _> =
        evaluations.into_iter().filter(|(trace, _)| *trace != attempt).collect();
    let expected = REPETITIONS as usize + 1;
    ensure!(
        evaluations.len() == expected,
        "expected {expected} traces of inferences, found {}",
        evaluations.len()
    );
    let rounds = Computation::of_network("A", 1, NumberFormat::Int64).plan()?.rounds();
    for spans in evaluations.values() {
        check_inference(spans, rounds)?;
    }
    let most = evaluations.values().map(Vec::len).max().unwrap_or(0);
    let logs = logs(room).await?;
    let looked = check_nothing_secret(room, &keys(&secrets), logs, collector).await?;
    Ok(vec![
        format!(
            "{expected} inferences of at most {most} spans each, all there when the run is Complete"
        ),
        format!("the attempt has {} spans, {reconciles} of them reconciles", spans.len()),
        format!("no private key in {looked} bytes of spans, logs, events, statuses and ConfigMaps"),
    ])
}

/// An address of this machine that pods reach.
async fn node(room: &Room) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(room.cluster().client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let addresses = nodes.into_iter().filter_map(|node| node.status?.addresses).flatten();
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    Ok(internal.next().context("expected a node with an InternalIP")?.address)
}

fn by_trace(spans: Vec<Told>) -> BTreeMap<Vec<u8>, Vec<Told>> {
    let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (service, span) in spans {
        traces.entry(span.trace_id.clone()).or_default().push((service, span));
    }
    traces
}

fn names(spans: &[Told]) -> Vec<&str> {
    spans.iter().map(|(_, span)| span.name.as_str()).collect()
}

/// The only span without a parent, of a trace in which all other parents are.
fn root(spans: &[Told]) -> anyhow::Result<&Told> {
    let known: BTreeSet<&[u8]> = spans.iter().map(|(_, span)| &span.span_id[..]).collect();
    ensure!(known.len() == spans.len(), "two spans have the same id: {:?}", names(spans));
    let (roots, rest): (Vec<&Told>, Vec<&Told>) =
        spans.iter().partition(|(_, span)| span.parent_span_id.is_empty());
    for (service, span) in rest {
        let there = known.contains(&span.parent_span_id[..]);
        ensure!(there, "the parent of {service}'s {} is not in the trace", span.name);
    }
    let [root] = roots[..] else { bail!("expected one root, found {roots:?}") };
    Ok(root)
}

/// How many reconciles there are in the trace of an attempt.
fn check_attempt(spans: &[Told]) -> anyhow::Result<usize> {
    let (service, top) = root(spans)?;
    ensure!(top.name == "attempt", "expected the attempt on top, found {service}'s {}", top.name);
    let below = |parent: &Span, of: &str, name: &str| {
        let found = spans.iter().filter(|(service, span)| {
            span.parent_span_id == parent.span_id && service.ends_with(of) && span.name == name
        });
        found.map(|(_, span)| span.clone()).collect::<Vec<Span>>()
    };
    for role in ROLES {
        // What the API tells of the pod, and what the party tells of itself.
        let of_pod = below(top, "operator", &format!("start {role}"));
        ensure!(of_pod.len() == 1, "expected the start of {role}'s pod: {:?}", names(spans));
        let of_party = below(top, &format!("-{role}"), "start");
        let [start] = &of_party[..] else { bail!("expected one start of {role}: {of_party:?}") };
        for part in ["connect", "set-up"] {
            let found = below(start, &format!("-{role}"), part).len();
            ensure!(found == 1, "expected one {part} of {role}, found {found}");
        }
    }
    let reconciles = below(top, "operator", "reconcile").len();
    ensure!(reconciles > 0, "expected reconciles in the attempt");
    Ok(reconciles)
}

fn check_inference(spans: &[Told], rounds: usize) -> anyhow::Result<()> {
    let (service, top) = root(spans)?;
    ensure!(
        service.ends_with("client") && top.name == "inference",
        "expected the client's inference on top, found {service}'s {}",
        top.name
    );
    let services: BTreeSet<&str> =
        spans.iter().filter_map(|(service, _)| service.rsplit('-').next()).collect();
    ensure!(services.iter().eq(&EVALUATE), "expected {EVALUATE:?}, found {services:?}");
    for server in ["server0", "server1"] {
        let of = spans.iter().filter(|(service, span)| {
            service.ends_with(server)
                && ["open", "truncate_interactive"].contains(&span.name.as_str())
        });
        let found = of.count();
        ensure!(found == rounds, "expected {rounds} openings of {server}, found {found}");
    }
    ensure!(spans.len() < 200, "expected fewer than 200 spans, found {}", spans.len());
    Ok(())
}

/// The lines of the parties' private keys.
fn keys(secrets: &Film<Secret>) -> BTreeSet<String> {
    let frames = secrets.frames().into_iter();
    let keys = frames.filter_map(|frame| frame.object.data?.remove("tls.key"));
    keys.flat_map(|key| {
        let text = String::from_utf8_lossy(&key.0).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with('-')).map(str::to_owned);
        lines.collect::<Vec<_>>()
    })
    .collect()
}

/// What the parties of another run log, and what the API says of their pods while they are
/// there: those of a run that went well are gone at once.
async fn logs(room: &Room) -> anyhow::Result<Vec<(String, String)>> {
    room.create("lasting", lasting(ENDLESS)).await?;
    room.ready("lasting", 1).await?;
    let pods: Api<Pod> = room.api();
    let mut texts = Vec::new();
    for role in ROLES {
        let name = room.pod(role)?.name_any();
        let log = pods.logs(&name, &LogParams::default()).await?;
        ensure!(!log.is_empty(), "expected {role} to have logged something");
        texts.push((format!("the log of {name}"), log));
        let status = format!("{:?}", pods.get(&name).await?.status);
        texts.push((format!("the status of {name}"), status));
    }
    Ok(texts)
}

/// Looks for the parties' private keys in everything that people look at; returns how much
/// that is, bytes.
async fn check_nothing_secret(
    room: &Room,
    keys: &BTreeSet<String>,
    logs: Vec<(String, String)>,
    collector: &Collector,
) -> anyhow::Result<usize> {
    ensure!(keys.len() > 2 * ROLES.len(), "expected lines of {} keys", 2 * ROLES.len());
    let mut texts = logs;
    texts.push(("spans".into(), format!("{:?}", collector.spans())));
    for pod in room.operator().pods().await? {
        let name = pod.metadata.name.unwrap_or_default();
        texts.push((format!("the log of {name}"), room.operator().log(&name).await?));
    }
    let all = ListParams::default();
    texts.push(("events".into(), format!("{:?}", room.api::<Event>().list(&all).await?)));
    texts.push(("ConfigMaps".into(), format!("{:?}", room.api::<ConfigMap>().list(&all).await?)));
    texts.push(("the run".into(), serde_json::to_string(&room.runs.present())?));
    for (place, text) in &texts {
        let found = keys.iter().any(|line| text.contains(line.as_str()));
        ensure!(!found, "a line of a private key is in {place}");
    }
    Ok(texts.iter().map(|(_, text)| text.len()).sum())
}
