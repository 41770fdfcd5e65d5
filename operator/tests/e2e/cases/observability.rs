//! What people look at while runs go on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;

use crate::process::repository;
use crate::prometheus::{Prometheus, Target};
use crate::queries::{self, Query};
use crate::report::Figures;
use crate::room::{LASTING, PATIENCE, ROLES, Room, check_complete, lasting};

/// The window of rates: Grafana takes four scrapes and more.
const WINDOW: &str = "15s";

/// The time that is shown.
const RANGE: &str = "5m";

/// How long Prometheus gets to read the operator before the run, and after it.
const READINGS: Duration = Duration::from_secs(4);

/// Every panel and every rule finds data in a Prometheus that has read a run.
pub(super) async fn dashboards(room: &Room) -> anyhow::Result<Figures> {
    let prometheus = Prometheus::start().await?;
    let monitor = pod_monitor(room).await?;
    let mut targets = Vec::new();
    for pod in room.operator().pods().await? {
        targets.extend(target(&pod, &[])?);
    }
    ensure!(!targets.is_empty(), "expected pods of the operator with an address");
    prometheus.read(&targets)?;
    tokio::time::sleep(READINGS).await;

    room.create("run", lasting(LASTING)).await?;
    let pods = room.pods.until("all parties to have an address", PATIENCE, |pods| {
        let addressed = |pod: &&Pod| pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some());
        (pods.values().filter(addressed).count() == ROLES.len()).then(|| pods.clone())
    });
    for pod in pods.await?.values() {
        targets.extend(monitored(pod, &monitor)?);
    }
    prometheus.read(&targets)?;
    check_complete(&room.complete("run", 2 * PATIENCE).await?)?;
    tokio::time::sleep(READINGS).await;

    let panels: Vec<Query> = queries::of_panels()?
        .into_iter()
        .map(|query| Query { expression: filled(&query.expression, &room.namespace), ..query })
        .collect();
    let alerts = queries::of_rules("alert")?
        .into_iter()
        .map(|query| Query { expression: told(&query.expression), ..query });
    let rules: Vec<Query> = queries::of_rules("record")?.into_iter().chain(alerts).collect();
    let mut lacking = Vec::new();
    let mut series = 0;
    for query in panels.iter().chain(&rules) {
        let found = prometheus.ask(&query.expression).await;
        let found = found.with_context(|| query.place.clone())?;
        series += found.len();
        if !found.iter().any(|series| !series.values.is_empty()) {
            lacking.push(format!("{}: {}", query.place, query.expression));
        }
    }
    ensure!(lacking.is_empty(), "expected data, found none for:\n{}", lacking.join("\n"));
    let records = records(&prometheus).await?;
    Ok(vec![format!(
        "{} queries of panels and {} of rules find data, {series} series; {records} recording rules, no alert",
        panels.len(),
        rules.len()
    )])
}

/// Prometheus itself has recorded what it should, and a run that goes well alarms nobody.
async fn records(prometheus: &Prometheus) -> anyhow::Result<usize> {
    let mut count = 0;
    for rule in queries::rules()? {
        let Some(name) = rule["record"].as_str() else { continue };
        let found = prometheus.ask(name).await?;
        ensure!(
            found.iter().any(|series| !series.values.is_empty()),
            "expected Prometheus to have recorded {name}"
        );
        count += 1;
    }
    // Operators that other cases have ended are missed, and runs that fail there are counted.
    let of_runs = prometheus.ask(r#"ALERTS{alertname="SecureInferenceOutOfRange"}"#).await?;
    let labels: Vec<_> = of_runs.iter().map(|series| &series.labels).collect();
    ensure!(labels.is_empty(), "expected no alert, found {labels:?}");
    Ok(count)
}

/// A panel's query as Grafana asks it of this run.
fn filled(expression: &str, namespace: &str) -> String {
    [
        ("$__rate_interval", WINDOW),
        ("$__range", RANGE),
        ("$namespace", namespace),
        ("$job", "run"),
        ("$role", ".*"),
        ("$operator", ".*"),
    ]
    .iter()
    .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

/// An alert's query that tells whether its comparisons hold, instead of leaving out what they
/// do not hold for.
fn told(expression: &str) -> String {
    [" > ", " == ", " < "].iter().fold(expression.to_owned(), |text, comparison| {
        text.replace(comparison, &format!("{comparison}bool "))
    })
}

/// The chart's PodMonitor, as Helm renders it.
async fn pod_monitor(room: &Room) -> anyhow::Result<Value> {
    let chart = repository().join("charts/secure-inference");
    let chart = chart.to_str().context("the path is not UTF-8")?;
    let set = "--set=metrics.force=true,metrics.podMonitor.enabled=true";
    let only = "--show-only=templates/podmonitor.yaml";
    let rendered = room.cluster().helm(&["template", "test", chart, set, only]).await?;
    Ok(serde_yaml::from_str(&rendered)?)
}

/// The target that the Prometheus operator makes of a pod because of a PodMonitor.
fn monitored(pod: &Pod, monitor: &Value) -> anyhow::Result<Option<Target>> {
    let spec = &monitor["spec"];
    let wanted = spec["selector"]["matchLabels"].as_object().context("expected matchLabels")?;
    for (key, value) in wanted {
        let found = pod.labels().get(key);
        ensure!(
            found.map(String::as_str) == value.as_str(),
            "the PodMonitor wants {key}={value}, {} has {found:?}",
            pod.name_any()
        );
    }
    let port = &spec["podMetricsEndpoints"][0]["port"];
    ensure!(*port == "metrics", "expected the PodMonitor to read port metrics, found {port}");
    let labels = spec["podTargetLabels"].as_array().context("expected podTargetLabels")?;
    let labels: Vec<&str> = labels.iter().filter_map(Value::as_str).collect();
    target(pod, &labels)
}

/// A pod's port `metrics`, with the labels that scrapes by pod add; `None` without an address.
fn target(pod: &Pod, labels: &[&str]) -> anyhow::Result<Option<Target>> {
    let name = pod.name_any();
    let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.clone()) else {
        return Ok(None);
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let port = containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some("metrics"));
    let port = port.with_context(|| format!("{name} has no port metrics"))?.container_port;
    let mut added = BTreeMap::from([
        ("namespace".to_owned(), pod.namespace().unwrap_or_default()),
        ("pod".to_owned(), name),
    ]);
    for label in labels {
        let value = pod.labels().get(*label).cloned().unwrap_or_default();
        added.insert(label.replace(|c: char| !c.is_ascii_alphanumeric(), "_"), value);
    }
    Ok(Some(Target { address: format!("{address}:{port}"), labels: added }))
}
