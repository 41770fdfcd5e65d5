//! The definition's schema and rules, as an API server applies them, against what the operator
//! checks itself: where servers know rules, both must agree; where they do not, the operator
//! is alone.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use kube_cel::{ScopeContext, WarningKind};
use kube_cel::{Validator, analyze_rule, apply_defaults, compile_schema};
use operator::api::v1alpha1::SecureInference;
use operator::job::Job;
use operator::job::digest;
use regex::Regex;
use serde_json::{Value, json};
use spdz::graph::GraphBuilder;

fn schema(with_rules: bool) -> Value {
    let definition = SecureInference::definition(with_rules);
    serde_json::to_value(definition.spec.versions[0].schema.clone().unwrap()).unwrap()
        ["openAPIV3Schema"]
        .take()
}

/// What an API server finds wrong with a new resource, or with a change of an old one.
fn admit(schema: &Value, new: &Value, old: Option<&Value>) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    check(schema, &apply_defaults(schema, new), "", &mut problems);
    if let Err(errors) = Validator::new().validate(schema, new, old) {
        problems.extend(errors.iter().map(|error| error.message.clone()));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What a structural schema says without rules; unknown fields are dropped, not refused.
fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let mut refuse = |problem: &str| problems.push(format!("{path}: {problem}: {value}"));
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !is_of_type {
        return refuse("is of another type");
    }
    // As API servers do: a whole number is compared with the whole part of a bound.
    let limit = |name: &str| {
        let limit = schema[name].as_f64();
        limit.map(|limit| if value.is_f64() { limit } else { limit.trunc() })
    };
    let excluded = schema["exclusiveMinimum"] == true;
    if let Some(number) = value.as_f64()
        && (limit("minimum").is_some_and(|least| number < least || excluded && number == least)
            || limit("maximum").is_some_and(|most| number > most))
    {
        refuse("is out of range");
    }
    let (size, least, most) = match value {
        Value::String(text) => (text.chars().count(), "minLength", "maxLength"),
        Value::Array(items) => (items.len(), "minItems", "maxItems"),
        Value::Object(fields) => (fields.len(), "minProperties", "maxProperties"),
        _ => (0, "", ""),
    };
    if limit(least).is_some_and(|least| (size as f64) < least)
        || limit(most).is_some_and(|most| size as f64 > most)
    {
        refuse("is of another size");
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        refuse("does not match");
    }
    if schema["x-kubernetes-int-or-string"] == true && !value.is_string() && !value.is_i64() {
        refuse("is neither a number nor a string");
    }
    if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        refuse("is none of the values");
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            refuse(&format!("lacks {name}"));
        }
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let of_field = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
        check(of_field, field, &format!("{path}.{name}"), problems);
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, &format!("{path}[{place}]"), problems);
    }
}

fn resource(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "secureinference.dev/v1alpha1",
        "kind": "SecureInference",
        "metadata": {"name": name, "namespace": "lab", "uid": "one"},
        "spec": spec,
    })
}

fn builtin() -> Value {
    json!({"model": {"builtin": "A"}})
}

fn weights() -> Value {
    let source = json!({"persistentVolumeClaim": {"claimName": "weights"}});
    json!({"model": {"volume": {"network": "A", "path": "w.safetensors", "source": source}}})
}

fn graph() -> Value {
    let graph = GraphBuilder::named("sum", ["alice", "bob"]);
    let a = graph.share(graph.local_input("alice", "a", [1]));
    graph.output("sum", graph.reveal("bob", graph.add(a, a)));
    let definition = serde_json::to_string(&graph.build().unwrap()).unwrap();
    let alice = json!({"source": {"emptyDir": {}}, "inputs": "a.safetensors"});
    json!({"model": {"graph": {"definition": definition, "players": {"alice": alice}}}})
}

/// A spec with a field, named by its path, that has another value; null takes it away.
fn with(mut spec: Value, path: &str, value: Value) -> Value {
    let mut place = &mut spec;
    let (parents, field) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        place = place.as_object_mut().unwrap().entry(parent).or_insert(json!({}));
    }
    let fields = place.as_object_mut().unwrap();
    match value {
        Value::Null => drop(fields.remove(field)),
        value => drop(fields.insert(field.into(), value)),
    }
    spec
}

fn requests(requests: Value) -> Value {
    with(builtin(), "parties.resources.requests", requests)
}

fn tolerates(toleration: Value) -> Value {
    with(builtin(), "parties.tolerations", json!([toleration]))
}

/// What the operator makes of a resource that a server has let through.
fn checked(resource: &Value) -> Result<Job, String> {
    let resource: SecureInference =
        serde_json::from_value(resource.clone()).map_err(|error| error.to_string())?;
    Job::of(&resource).map_err(|error| error.to_string())
}

#[test]
fn rules_can_be_evaluated_and_cost_little() {
    let schema = schema(true);
    let compiled = compile_schema(&schema);
    assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
    let mut count = 0;
    let mut rules_of = |schema: &Value| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap();
            assert!(rule["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
            let warnings = analyze_rule(text, &compiled, ScopeContext::CrdValidation);
            let costly = warnings.iter().find(|warning| warning.kind == WarningKind::CostExceeded);
            assert!(costly.is_none(), "{costly:?}");
            count += 1;
        }
    };
    let mut open = vec![&schema];
    while let Some(schema) = open.pop() {
        rules_of(schema);
        open.extend(schema["properties"].as_object().into_iter().flat_map(|all| all.values()));
        open.extend([&schema["items"], &schema["additionalProperties"]]);
        open.retain(|schema| schema.is_object());
    }
    assert!(count >= 40, "{count} rules");
    let without = serde_json::to_string(&self::schema(false)).unwrap();
    assert!(!without.contains("x-kubernetes-validations"), "servers before 1.25 refuse them");
}

#[test]
fn server_and_operator_agree_on_what_may_be_made() {
    let long = "a".repeat(49);
    let telemetry =
        |ratio: f64| json!({"otlpEndpoint": "http://tempo:4317", "samplingRatio": ratio});
    let two_kinds = json!({"emptyDir": {}, "configMap": {"name": "a"}});
    let two = with(builtin(), "model.graph", graph()["model"]["graph"].clone());
    let three = with(two.clone(), "model.volume", weights()["model"]["volume"].clone());
    let form = |network: &str, activation: Value, pooling: Value| {
        let spec = with(builtin(), "model.builtin", json!(network));
        with(with(spec, "model.activation", activation), "model.pooling", pooling)
    };
    let none = || Value::Null;
    let rows = [
        // Whether, name, spec.
        (true, "a", builtin()),
        (true, &long[1..], builtin()),
        (true, "network-c-2", builtin()),
        (true, "a", weights()),
        (true, "a", graph()),
        (false, &long, builtin()),
        (false, "1a", builtin()),
        (false, "-a", builtin()),
        (false, "a-", builtin()),
        (false, "a.b", builtin()),
        (false, "a", json!({})),
        (false, "a", json!({"model": {}})),
        (false, "a", two),
        (false, "a", three),
        (false, "a", json!({"model": {"builtin": "D"}})),
        (true, "a", form("A", json!("Polynomial"), json!("Average"))),
        (true, "a", form("A", json!("Relu"), none())),
        (true, "a", form("B", json!("Relu"), json!("Average"))),
        (true, "a", form("B", json!("Relu"), json!("Max"))),
        (true, "a", with(form("B", json!("Relu"), json!("Max")), "numberFormat", json!("Int32"))),
        (true, "a", form("C", none(), json!("Average"))),
        (false, "a", form("A", json!("Relu"), json!("Max"))),
        (false, "a", form("B", none(), json!("Max"))),
        (false, "a", form("B", json!("Polynomial"), json!("Max"))),
        (false, "a", form("B", json!("relu"), none())),
        (false, "a", form("B", json!("Relu"), json!("Sum"))),
        (true, "a", with(builtin(), "model.reveal", json!("Logits"))),
        (true, "a", with(builtin(), "model.reveal", json!("Label"))),
        (true, "a", with(weights(), "model.reveal", json!("Label"))),
        (false, "a", with(builtin(), "model.reveal", json!("label"))),
        (false, "a", with(graph(), "model.reveal", json!("Label"))),
        (false, "a", with(graph(), "model.reveal", json!("Logits"))),
        (
            true,
            "a",
            with(with(builtin(), "model.reveal", json!("Logits")), "workload.inspect", json!(1)),
        ),
        (
            false,
            "a",
            with(with(builtin(), "model.reveal", json!("Label")), "workload.inspect", json!(1)),
        ),
        (false, "a", with(graph(), "model.activation", json!("Relu"))),
        (false, "a", with(weights(), "model.activation", json!("Relu"))),
        (false, "a", with(weights(), "model.pooling", json!("Average"))),
        (true, "a", with(weights(), "model.volume.activation", json!("Relu"))),
        (false, "a", with(weights(), "model.volume.pooling", json!("Max"))),
        (false, "a", with(builtin(), "numberFormat", json!("Int128"))),
        (true, "a", with(builtin(), "numberFormat", json!("Int100"))),
        (true, "a", with(builtin(), "truncation", json!("Interactive"))),
        (false, "a", with(builtin(), "truncation", json!("None"))),
        (false, "a", with(weights(), "model.volume.path", json!(""))),
        (false, "a", with(weights(), "model.volume.source", Value::Null)),
        (true, "a", with(builtin(), "workload.batchSize", json!(1))),
        (true, "a", with(builtin(), "workload.batchSize", json!(64))),
        (false, "a", with(builtin(), "workload.batchSize", json!(0))),
        (false, "a", with(builtin(), "workload.batchSize", json!(1025))),
        (false, "a", with(builtin(), "workload.batchSize", json!(-1))),
        (true, "a", with(builtin(), "workload.warmup", json!(0))),
        (false, "a", with(builtin(), "workload.warmup", json!(100_001))),
        (true, "a", with(builtin(), "workload.repetitions", json!(100_000))),
        (false, "a", with(builtin(), "workload.repetitions", json!(0))),
        (true, "a", with(builtin(), "workload.accuracySamples", json!(10_000))),
        (false, "a", with(builtin(), "workload.accuracySamples", json!(10_001))),
        (true, "a", with(builtin(), "workload.offline", json!("Ahead"))),
        (false, "a", with(builtin(), "workload.offline", json!("ahead"))),
        (true, "a", with(graph(), "workload.batchSize", json!(1))),
        (false, "a", with(graph(), "workload.batchSize", json!(2))),
        (true, "a", with(builtin(), "workload.inspect", json!(10))),
        (false, "a", with(builtin(), "workload.inspect", json!(0))),
        (false, "a", with(graph(), "workload.inspect", json!(10))),
        (true, "a", with(builtin(), "workload.network", json!({ "rttMs": 0.5 }))),
        (false, "a", with(builtin(), "workload.network", json!({ "rttMs": -1 }))),
        (false, "a", with(builtin(), "workload.network", json!({ "jitterMs": 1 }))),
        (true, "a", with(graph(), "workload.accuracySamples", json!(0))),
        (false, "a", with(graph(), "workload.accuracySamples", json!(1))),
        (true, "a", with(builtin(), "parties.threads", json!(256))),
        (false, "a", with(builtin(), "parties.threads", json!(0))),
        (false, "a", with(builtin(), "parties.imagePullPolicy", json!("Sometimes"))),
        (false, "a", with(builtin(), "placement.spread", json!("Maybe"))),
        (true, "a", with(builtin(), "telemetry", telemetry(0.5))),
        (false, "a", with(builtin(), "telemetry", telemetry(1.5))),
        (false, "a", with(builtin(), "telemetry", telemetry(-0.5))),
        (false, "a", with(builtin(), "telemetry", json!({"samplingRatio": 1.0}))),
        (true, "a", with(builtin(), "startDeadlineSeconds", json!(86_400))),
        (false, "a", with(builtin(), "startDeadlineSeconds", json!(0))),
        (false, "a", with(builtin(), "activeDeadlineSeconds", json!(604_801))),
        (true, "a", with(builtin(), "backoffLimit", json!(0))),
        (false, "a", with(builtin(), "backoffLimit", json!(101))),
        (true, "a", with(builtin(), "ttlAfterFinished.failed", json!(0))),
        (false, "a", with(builtin(), "ttlAfterFinished.succeeded", json!(31_536_001))),
        (true, "a", with(builtin(), "suspend", json!(true))),
        // Faults that an earlier definition let through.
        (true, "a", with(weights(), "model.volume.path", json!("./a/..b/w"))),
        (false, "a", with(weights(), "model.volume.path", json!("../w"))),
        (false, "a", with(weights(), "model.volume.path", json!("a/../w"))),
        (false, "a", with(weights(), "model.volume.path", json!("a/.."))),
        (false, "a", with(weights(), "model.volume.path", json!("/etc/passwd"))),
        (false, "a", with(weights(), "model.volume.source", json!({}))),
        (false, "a", with(weights(), "model.volume.source", two_kinds.clone())),
        (false, "a", with(weights(), "model.volume.source.name", json!("data"))),
        (false, "a", with(graph(), "model.graph.players.alice.inputs", json!("../a"))),
        (false, "a", with(graph(), "model.graph.players.bob", json!({"outputs": "/a"}))),
        (false, "a", with(graph(), "model.graph.players.alice.source", two_kinds)),
        (false, "a", with(graph(), "model.graph.players.alice.source", Value::Null)),
        (true, "a", with(graph(), "workload.warmupSeconds", json!(0))),
        (false, "a", with(graph(), "workload.warmupSeconds", json!(2))),
        (false, "a", with(builtin(), "workload.network", json!({"rttMs": 1, "bandwidthMbps": 0}))),
        (true, "a", with(builtin(), "workload.network", json!({"rttMs": 1, "bandwidthMbps": 0.1}))),
        (true, "a", with(builtin(), "workload.network", json!({"rttMs": 1, "bandwidthMbps": 1}))),
        (true, "a", with(builtin(), "parties.image", json!("registry:5000/a/b:1@sha256:00"))),
        (false, "a", with(builtin(), "parties.image", json!("My Image:latest"))),
        (false, "a", with(builtin(), "parties.image", json!("-a"))),
        (true, "a", with(builtin(), "telemetry.otlpEndpoint", json!("http://[fd00::1]:4317/v1"))),
        (false, "a", with(builtin(), "telemetry.otlpEndpoint", json!("collector:4317"))),
        (false, "a", with(builtin(), "telemetry.otlpEndpoint", json!("ftp://collector:4317"))),
        (false, "a", with(builtin(), "telemetry.otlpEndpoint", json!("https://collector:4317"))),
        (false, "a", with(builtin(), "telemetry.otlpEndpoint", json!("http://"))),
        (false, "a", with(weights(), "model.volume.source", json!({"configmap": {"name": "w"}}))),
        (false, "a", with(weights(), "model.volume.source", json!({"configMap": {}}))),
        (false, "a", with(weights(), "model.volume.source", json!({"configMap": {"name": ""}}))),
        (false, "a", with(weights(), "model.volume.source", json!({"configMap": {"nam": "w"}}))),
        (false, "a", with(weights(), "model.volume.source", json!({"persistentVolumeClaim": {}}))),
        (
            true,
            "a",
            with(weights(), "model.volume.source", json!({"emptyDir": {"medium": "Memory"}})),
        ),
        (false, "a", with(graph(), "model.graph.players.alice.inputs", Value::Null)),
        (false, "a", with(graph(), "model.graph.players.server0", json!({}))),
        (false, "a", with(graph(), "parties.client.nodeSelector", json!({"a": "b"}))),
        (true, "a", with(graph(), "parties.server0.nodeSelector", json!({"a": "b"}))),
        (true, "a", with(builtin(), "parties.client.nodeSelector", json!({"a.b/c": ""}))),
        (false, "a", with(builtin(), "parties.nodeSelector", json!({"a": "c d"}))),
        (false, "a", with(builtin(), "parties.labels", json!({"a": "-"}))),
        (true, "a", requests(json!({"cpu": 2, "memory": "1.5Gi"}))),
        (true, "a", requests(json!({"cpu": "1500m", "memory": "1e9"}))),
        (false, "a", requests(json!({"cpu": "much"}))),
        (false, "a", requests(json!({"cpu": "-1"}))),
        (false, "a", requests(json!({"cpu": -1}))),
        (false, "a", with(builtin(), "parties.resources.claims", json!([{"name": "gpu"}]))),
        (true, "a", tolerates(json!({"operator": "Exists"}))),
        (true, "a", tolerates(json!({"key": "a.b/c", "value": "d", "effect": "NoSchedule"}))),
        (true, "a", tolerates(json!({"key": "a", "effect": "NoExecute", "tolerationSeconds": 9}))),
        (false, "a", tolerates(json!({"key": "a", "operator": "Is"}))),
        (false, "a", tolerates(json!({"key": "a", "operator": "Exists", "effect": "NoSched"}))),
        (false, "a", tolerates(json!({"operator": "Equal", "value": "x"}))),
        (false, "a", tolerates(json!({"value": "x"}))),
        (false, "a", tolerates(json!({"key": "a b"}))),
        (false, "a", tolerates(json!({"key": "a", "operator": "Exists", "value": "x"}))),
        (false, "a", tolerates(json!({"key": "a", "tolerationSeconds": 9}))),
        (true, "a", with(builtin(), "placement.topologyKey", json!("topology.kubernetes.io/zone"))),
        (false, "a", with(builtin(), "placement.topologyKey", json!("a b"))),
        (false, "a", with(builtin(), "parties.priorityClassName", json!("High"))),
        (false, "a", with(builtin(), "parties.imagePullSecrets", json!([{}]))),
        (false, "a", with(builtin(), "parties.imagePullSecrets", json!([{"name": "a b"}]))),
    ];
    let schema = schema(true);
    for (allowed, name, spec) in rows {
        let resource = resource(name, spec);
        let admitted = admit(&schema, &resource, None);
        assert_eq!(admitted.is_ok(), allowed, "server: {resource}: {admitted:?}");
        let checked = checked(&resource);
        assert_eq!(checked.is_ok(), allowed, "operator: {resource}: {:?}", checked.err());
    }
}

#[test]
fn what_a_schema_cannot_say_the_operator_checks() {
    let schema = schema(true);
    for spec in [
        with(
            weights(),
            "model.volume.source",
            json!({"configMap": {"name": "a", "optinal": true}}),
        ),
        with(with(builtin(), "model.activation", json!("Relu")), "numberFormat", json!("Int100")),
        with(with(builtin(), "model.reveal", json!("Label")), "numberFormat", json!("Int100")),
        with(graph(), "model.graph.definition", json!("[")),
        with(graph(), "model.graph.definition", json!("name: g\nplayers: [a]\nnodes: []\n")),
        with(graph(), "model.graph.players.carol", json!({})),
        // What it brings nobody says.
        with(graph(), "model.graph.players.alice", json!({})),
        // Keys of maps have no pattern, and no rule may look at so many.
        with(builtin(), "parties.nodeSelector", json!({"a b": "c"})),
        requests(json!({"cpus": "1"})),
        with(builtin(), "workload.network", json!({"rttMs": 1, "bandwidthMbps": 0.05})),
        with(requests(json!({"cpu": "2"})), "parties.resources.limits", json!({"cpu": "1"})),
    ] {
        let resource = resource("a", spec);
        assert_eq!(admit(&schema, &resource, None), Ok(()));
        assert!(checked(&resource).is_err(), "{resource}");
    }
}

#[test]
fn server_and_operator_agree_on_what_may_be_changed() {
    let [schema, without_rules] = [true, false].map(schema);
    let full = || {
        let spec = with(weights(), "telemetry", json!({"otlpEndpoint": "http://tempo:4317"}));
        with(spec, "truncation", json!("Local"))
    };
    let pinned = json!({"nodeSelector": {"a": "b"}});
    let rows = [
        // Whether, from, field, to.
        (true, builtin(), "suspend", json!(true)),
        (true, with(builtin(), "suspend", json!(true)), "suspend", json!(false)),
        (true, with(builtin(), "suspend", json!(true)), "suspend", Value::Null),
        (true, builtin(), "backoffLimit", json!(0)),
        (true, builtin(), "ttlAfterFinished", json!({"succeeded": 60})),
        (
            true,
            with(builtin(), "ttlAfterFinished", json!({"failed": 1})),
            "ttlAfterFinished",
            Value::Null,
        ),
        (true, graph(), "suspend", json!(true)),
        (true, full(), "suspend", json!(true)),
        // What is left out has its default, so saying it changes nothing.
        (true, builtin(), "numberFormat", json!("Int64")),
        (true, builtin(), "workload", json!({"batchSize": 1})),
        (true, builtin(), "placement.spread", json!("Preferred")),
        (false, builtin(), "model.builtin", json!("B")),
        (false, builtin(), "model.activation", json!("Relu")),
        (false, builtin(), "model.pooling", json!("Average")),
        (false, builtin(), "model.reveal", json!("Label")),
        (false, weights(), "model", builtin()["model"].clone()),
        (false, weights(), "model.volume.path", json!("v.safetensors")),
        (false, weights(), "model.volume.source", json!({"emptyDir": {}})),
        (false, graph(), "model.graph.players.alice.inputs", json!("b.safetensors")),
        (false, builtin(), "numberFormat", json!("Int100")),
        (false, builtin(), "truncation", json!("Local")),
        (false, full(), "truncation", json!("Interactive")),
        (false, full(), "truncation", Value::Null),
        (false, builtin(), "workload.batchSize", json!(2)),
        (false, builtin(), "workload.accuracySamples", json!(10_000)),
        (false, builtin(), "parties.image", json!("another")),
        (false, builtin(), "parties.client", pinned.clone()),
        (false, builtin(), "parties.tolerations", json!([{"operator": "Exists"}])),
        (false, builtin(), "placement.topologyKey", json!("zone")),
        (false, builtin(), "telemetry", json!({"otlpEndpoint": "http://tempo:4317"})),
        (false, full(), "telemetry.otlpEndpoint", json!("http://other:4317")),
        (false, full(), "telemetry.samplingRatio", json!(0.5)),
        (false, full(), "telemetry", Value::Null),
        (false, builtin(), "networkPolicy", json!(false)),
        (false, builtin(), "startDeadlineSeconds", json!(10)),
        (false, builtin(), "activeDeadlineSeconds", json!(10)),
    ];
    let fields = schema["properties"]["spec"]["properties"].as_object().unwrap();
    for field in fields.keys() {
        let tried = rows.iter().any(|(_, _, path, _)| path.split('.').next() == Some(field));
        assert!(tried, "spec.{field} is not tried");
    }
    for (allowed, from, field, to) in rows {
        let old = resource("a", from.clone());
        let new = resource("a", with(from, field, to));
        assert_eq!(admit(&schema, &old, None), Ok(()));
        assert_eq!(
            admit(&without_rules, &new, Some(&old)),
            Ok(()),
            "{field}: it is a rule's doing"
        );
        let admitted = admit(&schema, &new, Some(&old));
        assert_eq!(admitted.is_ok(), allowed, "server: {field} of {old}: {admitted:?}");
        if let Err(problems) = admitted {
            let told = problems.iter().any(|problem| problem.contains("cannot be changed"));
            assert!(told, "{field}: {problems:?}");
        }
        let [old, new] = [old, new].map(|resource| -> SecureInference {
            serde_json::from_value(apply_defaults(&schema, &resource)).unwrap()
        });
        assert_eq!(digest(&old) == digest(&new), allowed, "operator: {field}");
    }
}
