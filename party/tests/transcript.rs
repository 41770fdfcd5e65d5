//! Transcripts of a session of four processes: they agree, and a change is found and named.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{SQUARES, issue};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use spdz::channel::Role;
use spdz::prg::SessionId;

const SESSION: SessionId = SessionId([6; 16]);

fn roles() -> [Role; 4] {
    [Role::Server0, Role::Server1, Role::Producer, "alice".parse().unwrap()]
}

/// A session of squares, every party in a process of its own with a transcript in `folder`.
fn run(folder: &Path) {
    issue(folder, SESSION, &roles());
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let numbers: Vec<u8> = [0.5f64, 1.5, -2.0, 0.25].iter().flat_map(|x| x.to_le_bytes()).collect();
    let inputs = TensorView::new(Dtype::F64, vec![4], &numbers).unwrap();
    serialize_to_file([("x", inputs)], None, &folder.join("inputs.safetensors")).unwrap();
    let ports = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    });
    let [server0, server1] = ports;
    let both = format!("peers: {{ server0: '{server0}', server1: '{server1}' }}");
    let mut children: Vec<(Role, Child)> = Vec::new();
    for role in roles() {
        let places = match role {
            Role::Server0 => format!("listen: '{server0}'"),
            Role::Server1 => format!("listen: '{server1}'\npeers: {{ server0: '{server0}' }}"),
            Role::Producer => both.clone(),
            Role::Player(_) => format!("{both}\n{PLAYER}"),
        };
        let text = format!(
            "
role: {role}
session: {SESSION}
{SQUARES}
identity: {{ certificate: {role}.crt, key: {role}.key, authority: ca.crt }}
deadlines: {{ connectSeconds: 20, messageSeconds: 10 }}
{places}
"
        );
        write(&format!("{role}.yaml"), &text);
        let child = Command::new(env!("CARGO_BIN_EXE_party"))
            .args(["--config", &format!("{role}.yaml"), "--transcript", "."])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join(format!("{role}.log"))).unwrap())
            .spawn()
            .unwrap();
        children.push((role, child));
    }
    for (role, mut child) in children {
        let status = child.wait().unwrap();
        let log = fs::read_to_string(folder.join(format!("{role}.log"))).unwrap();
        assert!(status.success(), "{role}: {log}");
    }
}

/// What alice brings, and how often.
const PLAYER: &str = "player: { inputs: inputs.safetensors, evaluations: 3, offline: ahead }";

fn transcript(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}-{SESSION}.transcript"))
}

fn verify(folder: &Path, roles: &[Role]) -> Output {
    let files = roles.iter().map(|role| transcript(folder, *role));
    let mut party = Command::new(env!("CARGO_BIN_EXE_party"));
    party.args(["transcript", "verify", "--authority"]).arg(folder.join("ca.crt")).args(files);
    party.output().unwrap()
}

#[test]
fn the_parties_of_a_session_agree_on_every_message_and_a_change_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder);
    let text = |role| fs::read_to_string(transcript(folder, role)).unwrap();
    for role in roles() {
        let mode = fs::metadata(transcript(folder, role)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{role}");
    }

    // All, in any order, and any two.
    let output = verify(folder, &roles());
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let sent: usize = roles()
        .map(|role| text(role).lines().filter(|line| line.starts_with("sent ")).count())
        .iter()
        .sum();
    assert!(sent > 30, "{sent} messages");
    let expected = format!(
        "transcripts 4, all signatures genuine; connections 5, messages {sent}, all the same at \
         sender and receiver\n"
    );
    assert_eq!(said, expected);
    assert!(verify(folder, &[Role::Server1, Role::Producer]).status.success());

    // A digest is the connection's own: the masked input is the same at both servers.
    let alice = text(roles()[3]);
    let input = |server: &str| {
        let line = alice.lines().find(|line| line.starts_with(&format!("sent {server} online")));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    assert_ne!(input("server0"), input("server1"));

    // Nobody changes what was signed.
    let original = text(Role::Server1);
    let last = original.lines().rev().nth(1).unwrap();
    fs::write(transcript(folder, Role::Server1), original.replace(last, &changed(last))).unwrap();
    let output = verify(folder, &roles());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the transcript of server1 does not have the signature"), "{said}");

    // Of a party that did not come to its end there is no signature.
    let cut = original.rsplit_once("signature").unwrap().0;
    fs::write(transcript(folder, Role::Server1), cut).unwrap();
    let output = verify(folder, &roles());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("expected a signature"), "{said}");
}

/// The line with another digest.
fn changed(line: &str) -> String {
    let (rest, _) = line.rsplit_once(' ').unwrap();
    format!("{rest} {}", "0".repeat(64))
}
