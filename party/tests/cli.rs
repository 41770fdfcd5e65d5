//! The party program from outside: its help, and how it refuses to start.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use party::config::Session;
use party::identity;
use party::termination::{Reason, Termination};
use spdz::channel::Role;
use spdz::prg::SessionId;

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
fn shells_and_manual_pages_know_the_commands() {
    let said = |arguments: &[&str]| String::from_utf8(party(arguments).stdout).unwrap();
    assert!(said(&["help"]).contains("Exit codes:"));
    assert!(said(&["help", "plan"]).contains("--player"));
    assert!(said(&["completions", "zsh"]).contains("#compdef party"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    let output = party(&["manual", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(pages.join("party.1")).unwrap().contains("Exit codes:"));
    assert!(pages.join("party-issue.1").exists());
}

#[test]
fn what_is_typed_is_answered_as_the_command_lines_own_errors_are() {
    let error = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
        for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        let command = command.args(["plan", "--config", "no/such"]);
        let output = command.envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let plain = error(&[]);
    assert!(plain.starts_with("error: ") && plain.contains("no/such"), "{plain}");
    assert!(error(&[("CLICOLOR_FORCE", "1")]).starts_with("\x1b["));
    assert_eq!(error(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), plain);
}

#[test]
fn an_unknown_instruction_set_is_refused_with_those_that_there_are() {
    let output = party(&["--instruction-set", "sse", "--config", "x"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("expected Avx512Vnni, Avx512, Avx2 or Portable"), "{text}");
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
    for line in ["plan version 3", "graph A", "coordinator client", "rounds 6"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let digest = text.lines().find_map(|line| line.strip_prefix("digest ")).unwrap();
    assert!(digest.len() == 64 && !text.contains("messages of"), "{text}");
    let (code, json, _) = plan(&["--config", path, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["digest"].as_str()), (Some(0), Some(digest)));
    assert_eq!(
        (&json["outputs"][0]["name"], &json["graph"]["name"]),
        (&"logits".into(), &"A".into())
    );
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

#[test]
fn certificates_are_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let issue = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
        let output = command.arg("issue").args(arguments).current_dir(&folder).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let session = "000102030405060708090a0b0c0d0e0f";
    let asked = ["--players", "alice", "--session", session, "--out", "x", "--days", "1"];
    let (code, printed, log) = issue(&asked);
    assert_eq!((code, printed.trim_end()), (Some(0), session), "{log}");
    let key = || fs::read_to_string(folder.path().join("x/server1/tls.key")).unwrap();
    let before = key();
    let (code, _, log) = issue(&asked);
    assert_eq!(code, Some(2));
    assert!(log.contains("x is there already") && key() == before, "{log}");

    let fresh = |out| issue(&["--players", "alice", "--out", out]).1;
    assert_ne!(fresh("y"), fresh("z"), "sessions differ");
    for (arguments, expected) in [
        (["--players", "alice,alice", "--out", "n"], "player alice is named twice"),
        (["--players", "producer", "--out", "n"], "is no player's name"),
        (["--players", "alice", "--out", "no/such"], "cannot make no/such"),
    ] {
        let (code, _, log) = issue(&arguments);
        assert_eq!(code, Some(2));
        assert!(log.contains(expected), "{log}");
        assert!(!folder.path().join("n").exists());
    }
    let (code, _, log) = issue(&["--players", "alice", "--out", "n", "--session", "12"]);
    assert!(code == Some(2) && log.contains("32 hexadecimal digits"), "{log}");
}

/// How the run ended, from the file that the party left.
fn termination(path: &Path) -> Termination {
    Termination::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_configuration_that_cannot_be_read_is_in_the_termination_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("termination-log");
    let left = path.to_str().unwrap();
    let by_argument =
        || party(&["--config", "no/such/file", "--termination-message", left]).status.code();
    let by_environment = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
        let command = command.args(["--config", "no/such/file"]);
        command.env("PARTY_TERMINATION_MESSAGE", left).output().unwrap().status.code()
    };
    let ways: [&dyn Fn() -> Option<i32>; 2] = [&by_argument, &by_environment];
    for run in ways {
        assert_eq!(run(), Some(2));
        let ended = termination(&path);
        assert_eq!((ended.role, ended.exit_code, ended.result), (None, 2, None));
        let failure = ended.failure.unwrap();
        assert_eq!((failure.reason, failure.peer), (Reason::BadInput, None));
        assert!(failure.message.contains("no/such/file"), "{failure:?}");
        std::fs::remove_file(&path).unwrap();
    }
    // A message that cannot be left changes nothing else.
    let nowhere = party(&["--config", "no/such/file", "--termination-message", "no/such/folder"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("cannot write the termination"));
}

/// Starts a party, tells it to stop when it waits, and says how it ended.
fn stop(config: &Path, wait: Duration) -> Termination {
    let left = config.with_extension("end");
    let mut command = Command::new(env!("CARGO_BIN_EXE_party"));
    let command = command.arg("--config").arg(config).arg("--termination-message").arg(&left);
    let mut process = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    let told = Instant::now();
    let id = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(process.wait().unwrap().code(), Some(143));
    assert!(told.elapsed() < Duration::from_millis(900), "{:?}", told.elapsed());
    termination(&left)
}

#[test]
fn a_party_that_waits_for_its_peers_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let session = SessionId([7; 16]);
    let issued = identity::issue(session, &[Role::Producer]).unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (_, party) = &issued.parties[0];
    std::fs::write(place("ca.crt"), issued.authority.as_bytes()).unwrap();
    std::fs::write(place("tls.crt"), party.certificate.as_bytes()).unwrap();
    std::fs::write(place("tls.key"), party.key.as_bytes()).unwrap();
    let text = format!(
        "role: producer\nsession: {}\ncomputation: {{ network: A }}\n\
         identity: {{ certificate: {}, key: {}, authority: {} }}\n\
         peers: {{ server0: 'localhost:1', server1: 'localhost:1' }}\n",
        String::from(Session(session)),
        place("tls.crt"),
        place("tls.key"),
        place("ca.crt"),
    );
    std::fs::write(place("party.yaml"), text).unwrap();
    let ended = stop(place("party.yaml").as_ref(), Duration::from_millis(500));
    assert_eq!((ended.role, ended.exit_code), (Some(Role::Producer), 143));
    let failure = ended.failure.unwrap();
    assert_eq!(failure.reason, Reason::Terminated);
    assert_eq!(failure.message, "told to stop by SIGTERM");
}

#[test]
fn a_party_that_is_stuck_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody ever writes to it, so whoever opens it waits for ever.
    let pipe = folder.path().join("party.yaml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let ended = stop(&pipe, Duration::from_millis(300));
    assert_eq!((ended.role, ended.exit_code), (None, 143));
    assert_eq!(ended.failure.unwrap().reason, Reason::Terminated);
}

/// A user without rights, for tests that root runs.
const NOBODY: u32 = 65534;

#[test]
fn other_processes_of_the_user_cannot_read_a_partys_memory_unless_told_so() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let (program, pipe) = (folder.path().join("party"), folder.path().join("party.yaml"));
    // Where others may run it too.
    fs::copy(env!("CARGO_BIN_EXE_party"), &program).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let root = fs::metadata(&program).unwrap().uid() == 0;
    for debuggable in [false, true] {
        let mut command = Command::new(&program);
        command.arg("--config").arg(&pipe).args(debuggable.then_some("--debuggable"));
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut party = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        // It has begun to read its configuration, and waits for the rest.
        let until = Instant::now() + Duration::from_secs(20);
        let writer = loop {
            let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            match File::options().write(true).custom_flags(nonblocking).open(&pipe) {
                Ok(writer) => break writer,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let place = |name: &str| format!("/proc/{}/{name}", party.id());
        let limits = fs::read_to_string(place("limits")).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        let core: Vec<&str> = core.unwrap().split_whitespace().take(2).collect();
        let owner = fs::metadata(place("environ")).unwrap().uid();
        let readable = File::open(place("environ")).is_ok();
        if debuggable {
            assert_ne!(owner, 0);
            assert!(readable);
        } else {
            // The system's, though the process is not: nobody else's may attach to it or read
            // its memory. Root still may.
            assert_eq!((owner, readable), (0, root));
            assert_eq!(core, ["0", "0"]);
        }
        party.kill().unwrap();
        party.wait().unwrap();
        drop(writer);
    }
}
