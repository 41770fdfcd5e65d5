//! What the dashboards and the Prometheus rules in `dashboards/` ask Prometheus for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The dashboards' files, without their ending.
pub(crate) const DASHBOARDS: [&str; 3] = ["inference", "jobs", "operator"];

/// Where the dashboards and the rules are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// A dashboard by its file's name.
pub(crate) fn dashboard(name: &str) -> anyhow::Result<Value> {
    let path = folder().join(name).with_extension("json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {name}.json"))?;
    serde_json::from_str(&text).with_context(|| format!("{name}.json is not JSON"))
}

/// The panels of a dashboard that show something: all but the headings.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    panels.filter(|panel| panel["type"] != "row")
}

/// The rules, group by group.
pub(crate) fn rules() -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(folder().join("rules.yaml")).context("cannot read rules.yaml")?;
    let file: Value = serde_yaml::from_str(&text).context("rules.yaml is not YAML")?;
    let groups = file["groups"].as_array().context("rules.yaml has no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    Ok(rules.cloned().collect())
}

/// An expression, and where it stands.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expression: String,
}

/// The expressions of all panels, with their variables.
pub(crate) fn of_panels() -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for name in DASHBOARDS {
        for panel in panels(&dashboard(name)?) {
            let targets = panel["targets"].as_array();
            ensure!(
                targets.is_some_and(|targets| !targets.is_empty()),
                "{name}.json: a panel without a query: {panel}"
            );
            for target in targets.into_iter().flatten() {
                let title = panel["title"].as_str().unwrap_or_default();
                let query = target["refId"].as_str().unwrap_or_default();
                let expression = target["expr"].as_str();
                queries.push(Query {
                    place: format!("{name}.json, panel «{title}», query {query}"),
                    expression: expression.context("a query without expr")?.to_owned(),
                });
            }
        }
    }
    Ok(queries)
}

/// The expressions of all rules of a kind, `record` or `alert`.
pub(crate) fn of_rules(kind: &str) -> anyhow::Result<Vec<Query>> {
    let rules = rules()?;
    let queries = rules.iter().filter_map(|rule| {
        let name = rule[kind].as_str()?;
        let expression = rule["expr"].as_str().context("a rule without expr");
        Some(expression.map(|expression| Query {
            place: format!("rules.yaml, {name}"),
            expression: expression.trim().to_owned(),
        }))
    });
    queries.collect()
}
