//! The chart says what the code says.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Values that Helm gives to a chart that another depends on.
const OF_HELM: [&str; 2] = ["global", "enabled"];

fn text(file: &str) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/secure-inference");
    fs::read_to_string(chart.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml(file: &str) -> Value {
    serde_yaml::from_str(&text(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn schema() -> Value {
    serde_json::from_str(&text("values.schema.json")).unwrap()
}

#[test]
fn definitions_are_the_generated_ones() {
    for (file, with_rules, option) in
        [("files/crd.yaml", true, ""), ("files/before-1.25/crd.yaml", false, " --without-rules")]
    {
        assert!(
            text(file) == operator::manifests::definition(with_rules).unwrap(),
            "charts/secure-inference/{file} is not what the types say; write it again: \
             operator crd{option} >charts/secure-inference/{file}"
        );
    }
}

#[test]
fn dashboards_and_rules_are_copies() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/secure-inference/files");
    for (original, copy) in [
        ("inference.json", "dashboards/inference.json"),
        ("jobs.json", "dashboards/jobs.json"),
        ("operator.json", "dashboards/operator.json"),
        ("rules.yaml", "rules.yaml"),
    ] {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards").join(original);
        assert!(
            fs::read(&original).unwrap() == fs::read(chart.join(copy)).unwrap(),
            "charts/secure-inference/files/{copy} is not as it is in dashboards/; copy it again"
        );
    }
    assert_eq!(fs::read_dir(chart.join("dashboards")).unwrap().count(), 3, "one is of no use");
}

#[test]
fn it_installs_this_version() {
    assert_eq!(yaml("Chart.yaml")["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// The other direction is Helm's: it refuses defaults that the schema does not know.
#[test]
fn every_value_of_the_schema_has_a_default() {
    let schema = schema();
    let mut lacking = Vec::new();
    defaults(&schema, &schema, &yaml("values.yaml"), "", &mut lacking);
    lacking.retain(|path| !OF_HELM.contains(&path.as_str()));
    assert_eq!(lacking, Vec::<String>::new(), "without a default in values.yaml");
}

fn defaults(root: &Value, schema: &Value, values: &Value, path: &str, lacking: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match values.get(name) {
            None => lacking.push(path),
            // Without a default it is an object of Kubernetes' own.
            Some(Value::Object(object)) if object.is_empty() => {}
            Some(values) => defaults(root, property, values, &path, lacking),
        }
    }
}

#[test]
fn the_schema_is_closed() {
    closed(&schema(), "");
}

fn closed(schema: &Value, path: &str) {
    match schema {
        Value::Object(fields) => {
            if schema["properties"].is_object() {
                assert_eq!(schema["additionalProperties"], false, "{path} takes anything");
            }
            fields.iter().for_each(|(name, value)| closed(value, &format!("{path}/{name}")));
        }
        Value::Array(items) => items.iter().for_each(|item| closed(item, path)),
        _ => {}
    }
}
