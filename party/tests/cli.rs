//! The party program from outside: its help, and how it refuses to start.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn party(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_party")).args(arguments).output().unwrap()
}

#[test]
fn the_help_lists_the_exit_codes() {
    let output = party(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("Exit codes:") && text.contains("--config <FILE>"), "{text}");
}

#[test]
fn a_configuration_with_an_unknown_key_ends_with_code_2_and_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("party.yaml");
    std::fs::write(&path, "role: client\ninsecure: true\n").unwrap();
    let output = party(&["--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("unknown field `insecure`"), "{log}");
    assert_eq!(party(&["--config", "no/such/file"]).status.code(), Some(2));
    assert_eq!(party(&[]).status.code(), Some(2));
}
