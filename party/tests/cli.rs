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
fn the_plan_is_printed_with_a_players_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("party.yaml");
    let text = "
role: server0
session: 000102030405060708090a0b0c0d0e0f
computation: { network: A }
identity: { certificate: tls.crt, key: tls.key, authority: ca.crt }
listen: 127.0.0.1:7000
";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let plan = |options: &[&str]| {
        let output = party(&[&["plan"], options].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = plan(&["--config", path]);
    assert_eq!(code, Some(0));
    for line in ["plan version 2", "graph A", "driver client", "rounds 6"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let digest = text.lines().find_map(|line| line.strip_prefix("digest ")).unwrap();
    assert!(digest.len() == 64 && !text.contains("messages of"), "{text}");
    let (_, text, _) = plan(&["--config", path, "--player", "client"]);
    assert!(text.contains("\nmessages of client\nclient -> both "), "{text}");
    let (code, _, log) = plan(&["--config", path, "--player", "dave"]);
    assert_eq!(code, Some(2));
    assert!(log.contains("has no player dave; its players are model-owner, client"), "{log}");
    assert_eq!(plan(&[]).0, Some(2));
    // The environment says what it says on the command line, with a command and without.
    let output =
        Command::new(env!("CARGO_BIN_EXE_party")).arg("plan").env("PARTY_CONFIG", path).output();
    assert!(output.unwrap().status.success());
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
