//! What is refused: by the API server where it can, by the operator where it cannot.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, ObjectMeta, PostParams};
use kube::core::TypeMeta;
use kube::{Api, CustomResourceExt};
use operator::api::v1alpha1::{Phase, SecureInference, SecureInferenceStatus};
use operator::conditions::{self, ACCEPTED, COMPLETE, FAILED};
use serde_json::{Value, json};

use crate::film::Film;
use crate::report::Figures;
use crate::room::{ENDLESS, PATIENCE, Room, brief, check_complete, condition, lasting};

/// Who refuses a resource.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// Every API server.
    Server,
    /// API servers that know rules (1.25 and newer), and the operator elsewhere.
    Rules,
    /// The operator.
    Operator,
}

/// A name, a spec, who refuses it, and what the refusal says.
type Invalid = (String, Value, By, &'static str);

fn invalid() -> Vec<Invalid> {
    let network = |spec: Value| {
        let mut whole =
            json!({ "model": { "builtin": "A" }, "workload": { "accuracySamples": 0 } });
        merge(&mut whole, spec);
        whole
    };
    let claim = json!({ "persistentVolumeClaim": { "claimName": "weights" } });
    let volume = |path: &str, source: Value| json!({ "model": { "volume": { "network": "A", "path": path, "source": source } } });
    let graph = |players: Value| {
        let definition = "name: g\nplayers: [alice]\nnodes:\n\
            - {label: a, operation: {op: input, player: alice, name: x, shape: [1], lifetime: evaluation}}\n\
            - {label: a, operation: {op: share, input: 0}}\n\
            - {label: a, operation: {op: reveal, input: 1, player: alice}}\n\
            - {label: a, operation: {op: output, input: 2, name: y}}\n";
        json!({ "model": { "graph": { "definition": definition, "players": players } } })
    };
    let two = json!({ "model": { "builtin": "A", "volume": { "network": "A", "path": "w", "source": claim } } });
    let named = |name: &str, spec, by, says| (name.to_owned(), spec, by, says);
    vec![
        named("no-model", json!({}), By::Server, "model"),
        named("network", json!({ "model": { "builtin": "D" } }), By::Server, "builtin"),
        named("format", network(json!({ "numberFormat": "Int128" })), By::Server, "numberFormat"),
        named("batch", network(json!({ "workload": { "batchSize": 0 } })), By::Server, "batchSize"),
        named(
            "repetitions",
            network(json!({ "workload": { "repetitions": "many" } })),
            By::Server,
            "repetitions",
        ),
        named(
            "deadline",
            network(json!({ "startDeadlineSeconds": 0 })),
            By::Server,
            "startDeadlineSeconds",
        ),
        named(
            "ratio",
            network(
                json!({ "telemetry": { "otlpEndpoint": "http://t:4317", "samplingRatio": 1.5 } }),
            ),
            By::Server,
            "samplingRatio",
        ),
        named(
            "spread",
            network(json!({ "placement": { "spread": "Always" } })),
            By::Server,
            "spread",
        ),
        named("two-models", two, By::Rules, "exactly one of builtin, volume and graph"),
        ("n".repeat(49), network(json!({})), By::Rules, "metadata.name"),
        named("1st", network(json!({})), By::Rules, "metadata.name"),
        named(
            "path",
            volume("../w.safetensors", claim.clone()),
            By::Rules,
            "relative to the top of the volume",
        ),
        named(
            "source",
            volume("w.safetensors", json!({ "floppy": {} })),
            By::Rules,
            "spec.model.volume.source",
        ),
        // Its activations are polynomials.
        named("narrow", network(json!({ "numberFormat": "Int32" })), By::Operator, "Int32"),
        named(
            "player",
            graph(json!({ "mallory": {} })),
            By::Operator,
            "spec.model.graph.players.mallory",
        ),
        named(
            "players-path",
            graph(json!({ "alice": { "source": claim, "inputs": "/etc/x" } })),
            By::Rules,
            "relative to the top of the volume",
        ),
        named(
            "graph",
            json!({ "model": { "graph": { "definition": "nodes: 7" } } }),
            By::Operator,
            "spec.model.graph.definition",
        ),
    ]
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

pub(super) async fn specs(room: &Room) -> anyhow::Result<Figures> {
    let secrets: Film<Secret> = room.film().await?;
    let cases = invalid();
    let mut by_server = 0;
    for (name, spec, by, says) in &cases {
        let made = unchecked(room).create(&PostParams::default(), &object(name, spec)).await;
        let refuses = *by == By::Server || (*by == By::Rules && room.cluster().since(1, 25));
        match (made, refuses) {
            (Err(kube::Error::Api(refused)), true) => {
                ensure!(refused.code == 422, "expected code 422 for {name}, found {refused:?}");
                let message = &refused.message;
                ensure!(message.contains(says), "expected {says:?} for {name} in: {message}");
                by_server += 1;
            }
            (Ok(_), false) => {
                let what = "refused by the operator";
                let status = room.status(name, what, PATIENCE, |status| {
                    conditions::find(status, ACCEPTED).map(|_| status.clone())
                });
                check_refused(&status.await?, "InvalidSpec", says)
                    .with_context(|| format!("in {name}"))?;
            }
            (Ok(_), true) => bail!("expected the API server to refuse {name}: {spec}"),
            (Err(error), _) => return Err(error).with_context(|| format!("cannot create {name}")),
        }
    }
    let made: Vec<_> =
        room.pods.frames().into_iter().map(|frame| frame.object.metadata.name).collect();
    ensure!(made.is_empty(), "expected no pods of invalid resources, found {made:?}");
    ensure!(secrets.frames().is_empty(), "expected no Secrets of invalid resources");
    changed(room).await?;
    let by_operator = cases.len() - by_server;
    Ok(vec![format!("{by_server} refused by the API server, {by_operator} by the operator")])
}

/// The spec of a run that was accepted stays what it is.
async fn changed(room: &Room) -> anyhow::Result<()> {
    room.create("changed", lasting(ENDLESS)).await?;
    room.ready("changed", 1).await?;
    let change = json!({ "workload": { "repetitions": 7 } });
    let made = room.change("changed", change).await;
    if room.cluster().since(1, 25) {
        let error = made.err().context("expected the API server to refuse a change of the spec")?;
        let message = format!("{error:#}");
        ensure!(message.contains("spec.workload"), "expected spec.workload in: {message}");
        return Ok(());
    }
    made?;
    let status = room.failed("changed", PATIENCE).await?;
    check_refused(&status, "SpecChanged", "spec was changed")
}

fn check_refused(status: &SecureInferenceStatus, reason: &str, says: &str) -> anyhow::Result<()> {
    let accepted = condition(status, ACCEPTED)?;
    let found = (&accepted.status, &accepted.reason, &accepted.message);
    ensure!(
        accepted.status == "False" && accepted.reason == reason && accepted.message.contains(says),
        "expected it not to be Accepted because of {reason} with {says:?}, found {found:?}"
    );
    ensure!(conditions::holds(status, FAILED), "expected it to have Failed");
    ensure!(status.phase == Some(Phase::Failed), "expected phase Failed, found {:?}", status.phase);
    Ok(())
}

/// The resource's API without its type.
fn unchecked(room: &Room) -> Api<DynamicObject> {
    let kind = ApiResource::erase::<SecureInference>(&());
    Api::namespaced_with(room.cluster().client.clone(), &room.namespace, &kind)
}

fn object(name: &str, spec: &Value) -> DynamicObject {
    DynamicObject {
        types: Some(TypeMeta::resource::<SecureInference>()),
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: json!({ "spec": spec }),
    }
}

pub(super) async fn malformed(room: &Room) -> anyhow::Result<Figures> {
    // Elsewhere, as nobody who watches its namespace can read what is there.
    let other = Room::open(room.world.clone(), "malformed").await?;
    let permissive = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = set_schema(room, permissive).await?;
    let made = with_malformed(room, &other).await;
    // It has to come back whatever happened.
    set_schema(room, schema).await?;
    let outcome = match made {
        Ok(()) => still_malformed(room, &other).await,
        Err(error) => Err(error),
    };
    other.close().await?;
    outcome
}

async fn with_malformed(room: &Room, other: &Room) -> anyhow::Result<()> {
    let spec = json!({ "model": 7, "workload": "much", "suspend": [] });
    let malformed = object("malformed", &spec);
    // A server takes a moment to use another schema.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = unchecked(other).create(&PostParams::default(), &malformed).await {
        ensure!(Instant::now() < deadline, "expected a permissive schema: {error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    room.create("during", brief(10)).await?;
    check_complete(&room.complete("during", PATIENCE).await?)?;
    let found = unchecked(other).get("malformed").await?;
    let status: SecureInferenceStatus = serde_json::from_value(found.data["status"].clone())
        .context("expected a status of the malformed resource")?;
    check_refused(&status, "Malformed", "cannot be read")?;
    ensure!(!conditions::holds(&status, COMPLETE), "a malformed resource is Complete");
    Ok(())
}

/// It is also there when an operator starts, with a schema that it does not fit.
async fn still_malformed(room: &Room, other: &Room) -> anyhow::Result<Figures> {
    room.operator().restart().await?;
    room.create("after", brief(10)).await?;
    check_complete(&room.complete("after", PATIENCE).await?)?;
    let pods = other.pods.frames();
    ensure!(pods.is_empty(), "expected no pods of a malformed resource, found {}", pods.len());
    Ok(Figures::new())
}

/// Replaces the schema of the resource; what it was.
async fn set_schema(room: &Room, schema: Value) -> anyhow::Result<Value> {
    let kind = ApiResource::erase::<CustomResourceDefinition>(&());
    let definitions: Api<DynamicObject> = Api::all_with(room.cluster().client.clone(), &kind);
    let name = SecureInference::crd_name();
    let mut definition = definitions.get(name).await?;
    let versions = definition.data.pointer_mut("/spec/versions/0/schema/openAPIV3Schema");
    let before = std::mem::replace(versions.context("the definition has no schema")?, schema);
    definitions.replace(name, &PostParams::default(), &definition).await?;
    Ok(before)
}
