//! The dashboards and the Prometheus rules use what there is, and say what they show.
//! That Prometheus finds data for all of it is tested with a real run, in `e2e`.

#![allow(clippy::unwrap_used, clippy::panic)]

mod queries;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use operator::api::v1alpha1::Phase;
use operator::metrics::Metrics;
use percent_encoding::percent_decode_str;
use queries::{DASHBOARDS, dashboard, folder, panels};
use serde_json::Value;

/// Labels that a scrape adds: the namespace, the pod and, as the chart's PodMonitor has it, the
/// pod's labels.
const OF_SCRAPES: [&str; 4] =
    ["namespace", "pod", "secureinference_dev_job", "secureinference_dev_attempt"];

/// What Grafana puts in by itself.
const OF_GRAFANA: [&str; 5] = ["__rate_interval", "__range", "__from", "__to", "__url_time_range"];

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/observability.md")).unwrap()
}

/// What the page says of a metric.
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

/// The metrics of all tables of the page, by name.
fn documented() -> BTreeMap<String, Documented> {
    let page = page();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, meaning] = cells[..] else { return None };
        if !["counter", "gauge", "histogram"].contains(&kind) {
            return None;
        }
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let documented = Documented { kind: kind.into(), labels, meaning: meaning.into() };
        Some((name.trim_matches('`').to_owned(), documented))
    });
    rows.collect()
}

/// The series of a documented metric with their labels.
fn series() -> BTreeMap<String, BTreeSet<String>> {
    let mut series = BTreeMap::new();
    for (name, Documented { kind, labels, .. }) in documented() {
        if kind == "histogram" {
            let with_bound = labels.iter().cloned().chain(["le".into()]).collect();
            series.insert(format!("{name}_bucket"), with_bound);
            series.insert(format!("{name}_sum"), labels.clone());
            series.insert(format!("{name}_count"), labels);
        } else {
            series.insert(name, labels);
        }
    }
    series
}

/// A metric in an expression, with the labels that it is chosen by.
type Selector = (String, BTreeSet<String>);

/// The selectors of an expression: names that no parenthesis follows, except within `by (...)`
/// and the like.
fn selectors(expression: &str) -> Vec<Selector> {
    const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found: Vec<Selector> = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' {
            let (name, after) = rest.split_at(rest.find(|c| !of_name(c)).unwrap_or(rest.len()));
            rest = after.trim_start();
            if LISTS.contains(&name) {
                rest = rest.split_once(')').unwrap().1;
            } else if !["(", "by ", "without "].iter().any(|next| rest.starts_with(next))
                && !WORDS.contains(&name)
            {
                found.push((name.to_owned(), BTreeSet::new()));
            }
        } else if first == '{' {
            // No label's value has a brace in it.
            let (matchers, after) = rest[1..].split_once('}').unwrap();
            let labels = matchers
                .split("\",")
                .map(|matcher| matcher.split(['=', '!']).next().unwrap().trim().to_owned());
            found.last_mut().unwrap().1.extend(labels);
            rest = after;
        } else if first == '[' {
            rest = rest.split_once(']').unwrap().1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

#[test]
fn selectors_are_found() {
    let found = selectors(
        r#"histogram_quantile(0.95, sum by (le, op) (rate(a_bucket{x="1",y=~"u|v"}[5m]))) / on () c:d > 2.5 and e"#,
    );
    let expected = [("a_bucket", vec!["x", "y"]), ("c:d", vec![]), ("e", vec![])];
    let expected = expected.map(|(name, labels)| {
        (name.to_owned(), labels.into_iter().map(str::to_owned).collect::<BTreeSet<_>>())
    });
    assert_eq!(found, expected);
}

#[test]
fn the_page_lists_the_operators_metrics() {
    let metrics = Metrics::new().unwrap();
    // What has no label sets before there is something.
    metrics.requested("list", "pods");
    metrics.count_with(|| vec![(Phase::Running, "C", "Int64")]);
    metrics.started(Duration::from_secs(1));
    let text = metrics.render().unwrap();
    let of = |word: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.split_once(' '));
        lines.map(|(name, said)| (name.to_owned(), said.to_owned())).collect()
    };
    let (kinds, meanings) = (of("# TYPE "), of("# HELP "));
    let page = documented();
    for (name, kind) in &kinds {
        let on_page = page.get(name).unwrap_or_else(|| panic!("{name} is not on the page"));
        assert_eq!((&on_page.kind, &on_page.meaning), (kind, &meanings[name]), "{name}");
        let mut labels = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with(name.as_str())) {
            let inner = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
            let pairs = inner.map_or("", |(inner, _)| inner).split(',');
            labels.extend(pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
        }
        labels.remove("le");
        assert_eq!(on_page.labels, labels, "{name}");
    }
    // Those of a party are compared with a party, in bench.
    let heading = "## Metrics of the operator";
    let page = self::page();
    let section = page.split(heading).nth(1).unwrap().split("\n## ").next().unwrap();
    for name in documented().keys().filter(|name| section.contains(&format!("| `{name}` |"))) {
        assert!(kinds.contains_key(name), "{name} is on the page, but the operator has none");
    }
}

#[test]
fn dashboards_are_written_as_they_are_compared() {
    for name in DASHBOARDS {
        let found = fs::read_to_string(folder().join(name).with_extension("json")).unwrap();
        let expected = serde_json::to_string_pretty(&dashboard(name).unwrap()).unwrap();
        assert!(
            found.trim_end() == expected,
            "dashboards/{name}.json is not sorted; write it again: jq --sort-keys . {name}.json"
        );
    }
    let mut files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    files.sort_unstable();
    let mut known: Vec<String> = DASHBOARDS.iter().map(|name| format!("{name}.json")).collect();
    known.extend(["rules.test.yaml".into(), "rules.yaml".into()]);
    assert_eq!(files, known);
}

#[test]
fn every_panel_says_what_it_shows() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name).unwrap();
        assert_eq!(dashboard["uid"], format!("secure-inference-{name}"));
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 38, "{name}: Grafana 10");
        // Of one Grafana, and not of another.
        for field in ["id", "version", "iteration", "__inputs", "__requires"] {
            assert!(dashboard.get(field).is_none(), "{name} has {field}");
        }
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: {} twice", panel["id"]);
        }
        for panel in panels(&dashboard) {
            let text = |pointer: &str| {
                let text = panel.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                assert!(!text.is_empty(), "{name}: a panel without {pointer}: {panel}");
                text
            };
            let title = text("/title");
            assert!(text("/description").ends_with('.'), "{name}: {title}");
            text("/fieldConfig/defaults/unit");
            assert_eq!(text("/datasource/uid"), "${datasource}", "{name}: {title}");
            for target in panel["targets"].as_array().unwrap() {
                assert!(target.get("datasource").is_none(), "{name}: {title}: the panel's is used");
            }
        }
    }
}

#[test]
fn panels_lie_side_by_side() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name).unwrap();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{name}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {} is on top of another", panel["title"]);
            }
        }
    }
}

#[test]
fn every_query_uses_metrics_that_there_are() {
    let documented = series();
    let recorded: BTreeSet<String> = queries::rules()
        .unwrap()
        .iter()
        .filter_map(|rule| Some(rule["record"].as_str()?.to_owned()))
        .collect();
    let mut used = BTreeSet::new();
    let of_panels = queries::of_panels().unwrap();
    let of_rules = ["record", "alert"].map(|kind| queries::of_rules(kind).unwrap());
    for query in of_panels.iter().chain(of_rules.iter().flatten()) {
        let found = selectors(&query.expression);
        assert!(!found.is_empty(), "{}: {}", query.place, query.expression);
        for (name, labels) in found {
            if recorded.contains(&name) {
                assert!(query.place.starts_with("rules"), "{} needs the rules", query.place);
                continue;
            }
            let known = documented.get(&name);
            let known = known.unwrap_or_else(|| panic!("{}: no metric {name}", query.place));
            for label in labels {
                assert!(
                    known.contains(&label) || OF_SCRAPES.contains(&&*label),
                    "{}: {name} has no label {label}",
                    query.place
                );
            }
            used.insert(name);
        }
    }
    let shown = |name: &String| {
        ["", "_bucket", "_sum", "_count"].iter().any(|end| used.contains(&format!("{name}{end}")))
    };
    let unused: Vec<String> = self::documented().into_keys().filter(|name| !shown(name)).collect();
    assert_eq!(unused, Vec::<String>::new(), "on no dashboard and in no rule");
    for query in &of_panels {
        for window in query.expression.split('[').skip(1) {
            let window = window.split(']').next().unwrap();
            assert!(
                ["$__rate_interval", "$__range"].contains(&window),
                "{}: {window}",
                query.place
            );
        }
    }
}

/// The variables that a text asks for, as `$name` or `${name}`.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()
    })
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

#[test]
fn variables_and_links_lead_somewhere() {
    let variables_of = |dashboard: &Value| -> BTreeSet<String> {
        let list = dashboard["templating"]["list"].as_array().unwrap();
        list.iter().map(|variable| variable["name"].as_str().unwrap().to_owned()).collect()
    };
    let by_uid: BTreeMap<String, BTreeSet<String>> = DASHBOARDS
        .iter()
        .map(|name| dashboard(name).unwrap())
        .map(|dashboard| (dashboard["uid"].as_str().unwrap().to_owned(), variables_of(&dashboard)))
        .collect();
    assert_eq!(by_uid.len(), DASHBOARDS.len());
    let mut linked = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = dashboard(name).unwrap();
        let own = &by_uid[dashboard["uid"].as_str().unwrap()];
        assert!(own.contains("datasource"));
        let mut texts = Vec::new();
        strings(&dashboard, &mut texts);
        for text in &texts {
            for variable in variables(text) {
                let of_grafana =
                    OF_GRAFANA.contains(&variable) || variable == "__data" || variable == "__all";
                assert!(
                    own.contains(variable) || of_grafana,
                    "{name}: no variable {variable} in {text}"
                );
            }
            let Some(to) = text.strip_prefix("/d/") else { continue };
            let (uid, options) = to.split_once('?').unwrap_or((to, ""));
            let theirs = by_uid.get(uid).unwrap_or_else(|| panic!("{name}: no dashboard {uid}"));
            linked.insert((name, uid.to_owned()));
            for option in options.split('&').filter_map(|option| option.strip_prefix("var-")) {
                let variable = option.split('=').next().unwrap();
                assert!(theirs.contains(variable), "{name}: {uid} has no variable {variable}");
            }
        }
        // Each leads to the others; those of runs lead to their traces.
        for uid in by_uid.keys().filter(|uid| **uid != dashboard["uid"]) {
            assert!(linked.contains(&(name, uid.clone())), "{name} does not lead to {uid}");
        }
        let searches: Vec<_> =
            texts.iter().filter_map(|text| text.strip_prefix("/explore?")).collect();
        assert_eq!(!searches.is_empty(), own.contains("traces"), "{name}");
        assert_eq!(!searches.is_empty(), name != "operator");
        searches.into_iter().for_each(|options| check_search(name, options));
    }
}

/// A link to traces looks for attributes that spans have.
fn check_search(dashboard: &str, options: &str) {
    let page = page();
    let rows = page.lines().skip_while(|line| *line != "| attribute | on | content |").skip(2);
    let attributes: BTreeSet<&str> = rows
        .map_while(|line| line.strip_prefix("| "))
        .flat_map(|row| row.split(" | ").next().unwrap().split('`').skip(1).step_by(2))
        .collect();
    assert!(attributes.contains("role"), "{attributes:?}");
    let panes = options.split('&').find_map(|option| option.strip_prefix("panes=")).unwrap();
    let panes = percent_decode_str(panes).decode_utf8().unwrap();
    let panes: BTreeMap<String, Value> = serde_json::from_str(&panes).unwrap();
    let queries: Vec<&Value> =
        panes.values().flat_map(|pane| pane["queries"].as_array().unwrap()).collect();
    assert!(!queries.is_empty(), "{dashboard}: {options}");
    for query in queries {
        assert_eq!(query["queryType"], "traceql", "{dashboard}");
        let query = query["query"].as_str().unwrap();
        let wanted: Vec<&str> = query
            .split("span.")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '.').next().unwrap())
            .collect();
        assert!(!wanted.is_empty(), "{dashboard}: {query}");
        for attribute in wanted {
            assert!(attributes.contains(attribute), "{dashboard}: no span has {attribute}");
        }
    }
}

#[test]
fn every_alert_says_what_to_do_and_is_tested() {
    let tests: Value =
        serde_yaml::from_str(&fs::read_to_string(folder().join("rules.test.yaml")).unwrap())
            .unwrap();
    let cases: Vec<&Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
        .collect();
    let page = page();
    let mut names = BTreeSet::new();
    for rule in queries::rules().unwrap() {
        let Some(name) = rule["alert"].as_str() else { continue };
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().unwrap()));
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(rule["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
        let anchor = format!("docs/observability.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], anchor, "{name}");
        assert!(page.contains(&format!("\n### {name}\n")), "the page has no section {name}");
        for fires in [true, false] {
            let such = |case: &&&Value| {
                case["alertname"] == name
                    && case["exp_alerts"].as_array().unwrap().is_empty() != fires
            };
            let count = cases.iter().filter(such).count();
            assert!(count > 0, "no case in rules.test.yaml in which {name} fires: {fires}");
        }
    }
    assert!(!names.is_empty());
}

/// Where there is no Prometheus and none can be fetched, it says so and nothing is tested.
#[test]
fn promtool_takes_the_rules() {
    let tools = Command::new(root().join("hack/prometheus.sh")).output().unwrap();
    let said = String::from_utf8_lossy(&tools.stderr);
    if tools.status.code() == Some(3) {
        println!("THE RULES ARE NOT CHECKED: {said}");
        return;
    }
    assert!(tools.status.success(), "{said}");
    let promtool = Path::new(String::from_utf8_lossy(&tools.stdout).trim()).join("promtool");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        let checked =
            Command::new(&promtool).args(arguments).current_dir(folder()).output().unwrap();
        assert!(
            checked.status.success(),
            "promtool {arguments:?}:\n{}{}",
            String::from_utf8_lossy(&checked.stdout),
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}
