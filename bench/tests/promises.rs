//! What docs/security.md promises is held by tests, and these are there.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

/// The table of promises stands below this heading.
const HEADING: &str = "## Which test holds what";

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// The tests that a text names, `folder/file.rs::name`: the file without its ending, and the test.
fn tests_in(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|quoted| quoted.split_once(".rs::")).collect()
}

/// Whether a source has a test of that name: with an attribute that makes it one, or in a
/// program that runs its cases itself.
fn has_test(source: &str, name: &str) -> bool {
    let function = format!("fn {name}(");
    let Some((before, _)) = source.split_once(&function) else { return false };
    let belongs = |line: &&str| {
        line.is_empty() || *line == "async" || line.starts_with('#') || line.starts_with("//")
    };
    let mut attributes = before.lines().rev().map(str::trim).take_while(belongs);
    let is_test =
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
    is_test || !source.contains("#[test]")
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = page();
    let named = tests_in(&page);
    assert!(named.len() > 40, "{} tests are named", named.len());
    let mut sources: BTreeMap<&str, String> = BTreeMap::new();
    let missing: Vec<String> = named
        .into_iter()
        .filter(|(file, name)| {
            let source = sources.entry(file).or_insert_with(|| {
                std::fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default()
            });
            !has_test(source, name)
        })
        .map(|(file, name)| format!("{file}.rs::{name}"))
        .collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
}

#[test]
fn every_promise_names_a_test() {
    let page = page();
    let (_, section) = page.split_once(HEADING).unwrap_or_else(|| panic!("no {HEADING}"));
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{} promises", rows.len());
    for row in rows {
        assert!(!tests_in(row).is_empty(), "no test holds this promise: {row}");
    }
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    let source = "#[test]\nfn holds() {}\n\nfn helper() {}\n";
    assert!(has_test(source, "holds") && !has_test(source, "hold"));
    assert!(!has_test(source, "absent") && !has_test(source, "helper"));
    assert!(has_test("#[tokio::test]\nasync fn waits() {}", "waits"));
    // A program that runs its cases itself.
    assert!(has_test("fn case() {}", "case"));
    assert_eq!(tests_in("see `a/b.rs::c`, `d.rs` and e.rs::f"), [("a/b", "c")]);
}
