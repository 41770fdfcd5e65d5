//! What the documentation quotes was measured, and what it has one type does what it says.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use bench::card::{Measured, ModelCard};
use bench::results::{Results, SCHEMA_VERSION};
use bench::table1;
use common::{party_program, read_tensor, write_tensors};
use party::config::MAX_CONFIG_BYTES;
use safetensors::Dtype;
use serde::Deserialize;
use spdz::graph::Graph;
use spdz::network::Builtin;

#[test]
fn the_readme_shows_the_table_of_the_quoted_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let json = std::fs::read(root.join("docs/results.json")).unwrap();
    let results: Results = serde_json::from_slice(&json).unwrap();
    assert_eq!(results.schema_version, SCHEMA_VERSION);
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let table = table1::render(&results, None);
    assert!(readme.contains(table.trim_end()), "the README's table should read:\n{table}");
}

/// A file of the repository.
fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn the_graph_of_the_page_runs_as_the_page_says_and_is_that_of_the_sample() {
    let page = file("docs/graph.md");
    let block = |language: &str| {
        let (_, block) = page.split_once(&format!("```{language}\n")).unwrap();
        block.split_once("```").unwrap().0
    };
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("score.yaml"), block("yaml")).unwrap();
    let features = ("features", Dtype::F64, vec![1, 3], &[0.5, -1.25, 2.0][..]);
    write_tensors(&place("alice.safetensors"), &[features]);
    let weights = ("weights", Dtype::F64, vec![3, 1], &[1.0, 0.75, -0.5][..]);
    write_tensors(&place("bob.safetensors"), &[weights]);

    let mut command = block("text").split_whitespace();
    assert_eq!(command.next(), Some("bench"));
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(command).arg("--party").arg(party_program()).current_dir(&folder);
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (shape, values) = read_tensor(&place("score.safetensors"), "score");
    assert_eq!(shape, [1, 1, 1]);
    assert_eq!(format!("{:.1}", values[0]), "0.2");
    let clear = 1.0 / (1.0 + 1.4375f64.exp());
    assert_eq!(format!("{clear:.2}"), "0.19");
    assert!(page.contains("0.2 here, and 0.19 without the fit"));

    let graph: Graph = serde_yaml::from_str(block("yaml")).unwrap();
    let sample = file("manifests/samples/own-graph.yaml");
    let documents = serde_yaml::Deserializer::from_str(&sample);
    let definition =
        documents.map(|document| serde_yaml::Value::deserialize(document).unwrap()).find_map(
            |document| Some(document["spec"]["model"]["graph"]["definition"].as_str()?.to_owned()),
        );
    let own: Graph = serde_yaml::from_str(&definition.unwrap()).unwrap();
    assert_eq!(own, graph);
    for (what, bytes) in [
        ("bytes of a file, or of a party's configuration with it", MAX_CONFIG_BYTES),
        ("bytes of a definition on Kubernetes", operator::api::v1alpha1::MAX_GRAPH_BYTES as u64),
    ] {
        assert!(page.contains(&format!("| {what} | {bytes} |")), "{what}: {bytes}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_bench")).args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("docs/graph.md"));
}

#[test]
fn the_networks_page_has_the_numbers_of_the_model_cards() {
    let page = file("docs/networks.md");
    let row = |what: &str| {
        let start = format!("| {what} | ");
        let row = page.lines().find_map(|line| line.strip_prefix(start.as_str()));
        row.unwrap_or_else(|| panic!("no row {what}")).trim_end_matches(" |")
    };
    let cards = Builtin::ALL.map(|network| {
        let text = file(&format!("bench/models/{}.json", network.file_stem()));
        (network, serde_json::from_str::<ModelCard>(&text).unwrap())
    });
    // All were trained in one way, and not for equally long.
    for (network, card) in &cards {
        let Measured { plaintext_accuracy, largest_pre_activation, largest_logit } = card.measured;
        let results = format!(
            "{} | {:.2} % | {largest_pre_activation:.2} | {largest_logit:.2}",
            card.training.epochs,
            100.0 * plaintext_accuracy,
        );
        assert_eq!(row(&format!("{network}")), results);
        let serde_json::Value::Object(training) = serde_json::to_value(&card.training).unwrap()
        else {
            panic!("{card:?}");
        };
        for (key, value) in training {
            if key == "epochs" {
                continue;
            }
            let Some(inner) = value.as_object() else {
                assert_eq!(row(&format!("`{key}`")), number(&value), "{key}");
                continue;
            };
            for (name, value) in inner {
                assert_eq!(row(&format!("`{key}.{name}`")), number(value), "{key}.{name}");
            }
        }
    }
}

/// A number of a model card as it was given: an `f32` has fewer digits than its `f64`.
fn number(value: &serde_json::Value) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() => format!("{:?}", float as f32),
        _ => value.to_string(),
    }
}

/// The pages of the repository: Markdown files at its top, in `docs/`, and beside what they
/// describe.
const PAGES: [&str; 4] = ["", "docs", "hack", "charts/secure-inference"];

/// The text of a page without its code blocks.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// What headings are called in addresses: lower case, hyphens for spaces, no other punctuation.
fn anchors(page: &str) -> BTreeSet<String> {
    let text = prose(page);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let named = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(named).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut followed = 0;
    for folder in PAGES.map(|folder| root.join(folder)) {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let page = std::fs::read_to_string(&path).unwrap();
            let links = prose(&page);
            for link in links.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
                if link.starts_with("https://") || link.starts_with("http://") {
                    continue;
                }
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { folder.join(file) };
                assert!(target.exists(), "{}: nothing is at {link}", path.display());
                if !anchor.is_empty() {
                    let known = anchors(&std::fs::read_to_string(&target).unwrap());
                    assert!(known.contains(anchor), "{}: no heading {link}", path.display());
                }
                followed += 1;
            }
        }
    }
    assert!(followed > 100, "{followed} links");
}

#[test]
fn files_that_pages_name_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folders = ["bench/", "charts/", "dashboards/", "docs/", "fuzz/", "hack/"];
    let folders = [&folders[..], &["manifests/", "operator/", "party/", "spdz/"]].concat();
    let mut named = 0;
    for page in PAGES.map(|folder| root.join(folder)) {
        let pages = std::fs::read_dir(&page).unwrap().map(|entry| entry.unwrap().path());
        for path in pages.filter(|path| path.extension().is_some_and(|end| end == "md")) {
            let text = prose(&std::fs::read_to_string(&path).unwrap());
            for name in text.split('`').skip(1).step_by(2) {
                // Patterns and commands are no files.
                let plain = !name.contains(['*', '{', ' ', '<']);
                // A test is in a file: `promises.rs` looks for it there.
                let name = name.split("::").next().unwrap();
                if plain && folders.iter().any(|folder| name.starts_with(folder)) {
                    assert!(root.join(name).exists(), "{}: there is no {name}", path.display());
                    named += 1;
                }
            }
        }
    }
    assert!(named > 30, "{named} files");
}

/// What the program says with these arguments and variables: exit code, standard output, standard
/// error.
fn bench(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    let output = command.args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_exit_codes_are_those_of_the_help() {
    let (code, help, _) = bench(&["--help"], &[]);
    let page = file("docs/benchmarking.md");
    let (_, codes) = page.split_once("## Exit codes\n").unwrap();
    let (_, codes) = codes.split_once("```text\n").unwrap();
    let (codes, _) = codes.split_once("```").unwrap();
    assert!(help.contains(codes), "{help}\nand the page:\n{codes}");
    assert_eq!(code, Some(0));
    // And those that programs end with.
    assert_eq!(bench(&["compare", "no", "such"], &[]).0, Some(2), "no comparison");
    assert_eq!(bench(&["report", "no/such"], &[]).0, Some(1), "failed");
    assert_eq!(bench(&["sweep", "--trials", "none"], &[]).0, Some(2), "the command line is wrong");
    assert_eq!(bench(&["sweep", "no/such.yaml"], &[]).0, Some(2), "the sweep file is wrong");
    for wrong in [
        &["table1", "--networks=A", "--formats=Int100", "--reveal=label"][..],
        &["inspect", "--networks=A", "--activation=polynomial", "--pooling=max"],
        &["inspect", "--networks=A", "--formats=Int32"],
        &["run", "bench/examples/none.yaml", "--player=alice=a", "--player=alice=b"],
    ] {
        let (code, _, error) = bench(wrong, &[]);
        assert_eq!(code, Some(2), "{wrong:?}: {error}");
    }
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.json");
    let results = results.to_str().unwrap();
    let (code, json, _) = bench(&["compare", results, results, "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["cells"].as_array().unwrap().len()), (Some(0), 6));
}

#[test]
fn a_full_disk_behind_standard_output_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("report")
        .arg(results)
        .arg("--out")
        .arg(folder.path())
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: cannot write to standard output: No space left"), "{error}");
}

#[test]
fn a_folder_that_another_process_measures_into_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let lock = bench::sweep::lock::Lock::of(&out).unwrap();
    for command in ["sweep", "table1"] {
        let out = format!("--out={}", out.display());
        let (code, _, error) = bench(&[command, "--networks=A", &out], &[]);
        assert_eq!(code, Some(1), "{error}");
        let holder = format!("error: process {} measures into ", std::process::id());
        assert!(error.contains(&holder) && error.contains("another folder"), "{error}");
    }
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing but the lock: {left:?}");
    drop(lock);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn errors_have_colours_where_they_are_asked_for_alone() {
    let error = |variables: &[(&str, &str)]| bench(&["report", "no/such"], variables).2;
    let plain = error(&[]);
    assert!(plain.starts_with("error: no report of no/such"), "{plain}");
    let coloured = error(&[("CLICOLOR_FORCE", "1")]);
    assert!(coloured.starts_with("\x1b[") && coloured.contains("error:"), "{coloured:?}");
    assert_eq!(error(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), plain);
    // As the errors of the command line itself.
    let usage = bench(&["report"], &[("CLICOLOR_FORCE", "1")]).2;
    assert_eq!(usage.split("error:").next(), coloured.split("error:").next());
}

#[test]
fn shells_and_manual_pages_know_the_commands() {
    let (code, text, _) = bench(&["completions", "bash"], &[]);
    assert!(code == Some(0) && text.contains("_bench()") && text.contains("--batch-sizes"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    let (code, _, error) = bench(&["manual", pages.to_str().unwrap()], &[]);
    assert_eq!(code, Some(0), "{error}");
    let page = std::fs::read_to_string(pages.join("bench-sweep.1")).unwrap();
    assert!(page.contains("batchSizes: [1, 10, 100]"), "{page}");
    // What a build cannot do it does not offer, and says how to build one that can.
    let (_, help, _) = bench(&["help"], &[]);
    assert_eq!(help.contains("  train "), cfg!(feature = "train"), "{help}");
    assert_eq!(pages.join("bench-train.1").exists(), cfg!(feature = "train"));
    if cfg!(not(feature = "train")) {
        assert!(bench(&["train"], &[]).2.contains("--features train"));
    }
}

#[test]
fn a_graph_takes_csv_and_shows_what_comes_out() {
    let page = file("docs/graph.md");
    let (_, graph) = page.split_once("```yaml\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(place("score.yaml"), graph.split_once("```").unwrap().0).unwrap();
    std::fs::write(place("a.csv"), "age,weight,height\n0.5,-1.25,2\n").unwrap();
    std::fs::write(place("b.csv"), "1\n0.75\n-0.5\n").unwrap();
    let [alice, bob] = [("alice", "a.csv"), ("bob", "b.csv")]
        .map(|(name, file)| format!("--player={name}={}", place(file)));
    let party = format!("--party={}", party_program().display());
    let run = |alice: &str| bench(&["run", &place("score.yaml"), alice, &bob, &party], &[]);
    let (code, table, error) = run(&alice);
    assert_eq!(code, Some(0), "{error}");
    assert!(table.contains("outputs of carol: not kept"), "{table}");
    let (_, score) = table.split_once("\n  score [1, 1] = ").unwrap();
    let score: f64 = score.lines().next().unwrap().parse().unwrap();
    assert_eq!(format!("{score:.1}"), "0.2");
    // A single evaluation has no deviation.
    assert!(
        table.lines().any(|line| line.starts_with("runtime") && line.contains(" - ")),
        "{table}"
    );
    std::fs::write(place("a.csv"), "0.5,many,2\n").unwrap();
    let (code, _, error) = run(&alice);
    assert_eq!(code, Some(1));
    assert!(error.contains("a.csv: row 1, column 2"), "{error}");
}
