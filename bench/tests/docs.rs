//! What the documentation quotes is what was measured.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use bench::results::{Results, SCHEMA_VERSION};
use bench::table1;

#[test]
fn the_readme_shows_the_table_of_the_quoted_results() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let json = std::fs::read(root.join("docs/results.json")).unwrap();
    let results: Results = serde_json::from_slice(&json).unwrap();
    assert_eq!(results.schema_version, SCHEMA_VERSION);
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let table = table1::render(&results);
    assert!(readme.contains(table.trim_end()), "the README's table should read:\n{table}");
}
