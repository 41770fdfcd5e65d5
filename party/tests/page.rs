//! docs/party.md is followed: its files and commands make a session of five processes, and its
//! tables are the code's.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use party::config::{
    AccuracyWorkload, Computation, Conditions, Deadlines, Identity, InspectWorkload, OfflineMode,
    PartyConfig, PlayerTask, Session, Store, Telemetry, Transport, Workload,
};
use party::result::RunResult;
use party::termination::Termination;
use serde_yaml::{Mapping, Value};
use spdz::channel::Role;
use spdz::graph::GraphBuilder;
use spdz::network::Reveal;
use spdz::plan::{NumberFormat, Truncation};
use spdz::prg::SessionId;

const PAGE: &str = include_str!("../../docs/party.md");

const PROGRAM: &str = env!("CARGO_BIN_EXE_party");

/// The page's code blocks: what stands behind the three ticks, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let block = |text: &'static str| text.split_once('\n').unwrap();
    PAGE.split("```").skip(1).step_by(2).map(block).collect()
}

/// The cells of a row of one of the page's tables.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// The rows of the tables of settings, by key: whose, default, values, meaning.
fn settings() -> BTreeMap<&'static str, [&'static str; 4]> {
    let (_, tables) = PAGE.split_once("## Every setting").unwrap();
    let mut rows = BTreeMap::new();
    for line in tables.lines().filter(|line| line.starts_with("| `")) {
        let [key, whose, default, values, meaning] = cells(line)[..] else { panic!("{line}") };
        let before = rows.insert(key.trim_matches('`'), [whose, default, values, meaning]);
        assert!(before.is_none(), "{key} is there twice");
    }
    rows
}

/// The text with free ports in place of the page's, which something else may have.
fn with_free_ports(text: &str) -> String {
    let listen = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    // Both are held at once, so that they differ.
    let listeners = [0, 1].map(listen);
    let [first, second] = listeners.each_ref().map(|l| l.local_addr().unwrap().to_string());
    text.replace("127.0.0.1:7000", &first).replace("127.0.0.1:7001", &second)
}

#[test]
fn the_pages_session_runs_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let read = |name: &str| fs::read_to_string(place(name)).unwrap();
    // All at once, so that a port is the same in all.
    let files = blocks().into_iter().filter(|(info, _)| *info == "yaml").map(|(_, text)| text);
    let separator = "\u{0}";
    let texts = with_free_ports(&files.collect::<Vec<_>>().join(separator));
    for text in texts.split(separator) {
        let name = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        fs::write(place(name), text).unwrap();
    }
    let commands = blocks().into_iter().filter(|(info, _)| *info == "sh");
    let script: String = commands.map(|(_, text)| text).collect();
    let programs = Path::new(PROGRAM).parent().unwrap().display();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &script]).current_dir(&folder).env("PATH", path);
    let output = shell.env_remove("PARTY_CONFIG").env_remove("RUST_LOG").output().unwrap();
    let (printed, complaints) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{printed}{complaints}{}", read("alice.log"));

    let roles = ["server0", "server1", "producer", "alice", "bob"];
    for role in roles {
        let ended = Termination::parse(&read(&format!("{role}.end.json"))).unwrap();
        assert_eq!(ended.exit_code, 0, "{ended:?}");
    }
    assert!(printed.contains("\nmessages of alice\n"), "{printed}");
    assert!(printed.contains("{\"stage\":\"timed\",\"done\":100,\"of\":100}\n"), "{printed}");
    let last: f64 = printed.lines().last().unwrap().trim().parse().unwrap();
    assert!((last - 1.75).abs() <= 0.001, "{last}");
    let result: RunResult = serde_json::from_str(&read("result.json")).unwrap();
    assert_eq!((result.network.as_str(), result.repetitions), ("inner-product", 100));

    // The log has the page's messages, in its order, and no others.
    let (_, table) = PAGE.split_once("| message | who | when |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let known: Vec<&str> = rows.map(|row| cells(row)[0].trim_matches('`')).collect();
    let mut said = BTreeSet::new();
    for role in roles {
        let log = read(&format!("{role}.log"));
        let message = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let message = line["message"].as_str().unwrap().to_owned();
            let at = known.iter().position(|known| *known == message);
            at.unwrap_or_else(|| panic!("{role} says {message:?}, which the page does not have"))
        };
        let order: Vec<usize> = log.lines().map(message).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{log}");
        said.extend(order);
    }
    let other = known.iter().position(|known| known.starts_with("took part")).unwrap();
    assert_eq!(said.len(), known.len() - 1, "{said:?}");
    assert!(!said.contains(&other), "there is no other player in it");

    for role in roles {
        let folder = place("certificates").join(role);
        let names: BTreeSet<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["ca.crt", "tls.crt", "tls.key"].map(Into::into).into());
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.clone()), mode(folder.join("tls.key"))), (0o700, 0o600));
    }
}

#[test]
fn the_players_of_a_network_are_configured_as_the_page_says() {
    let all = "session: 000102030405060708090a0b0c0d0e0f\ncomputation: { network: A }\n";
    for player in ["model-owner", "client"] {
        let start = format!("# {player}.yaml\n");
        let (_, own) = blocks().into_iter().find(|(_, text)| text.starts_with(&start)).unwrap();
        let config = PartyConfig::parse(&format!("{all}{own}"), Path::new("page")).unwrap();
        assert_eq!(config.role.name(), player);
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = config.player.and_then(|task| task.inputs).into_iter().chain(
            config.workload.into_iter().flat_map(|w| [w.images, w.accuracy.unwrap().labels]),
        );
        files.for_each(|file| assert!(data.join(&file).is_file(), "{}", file.display()));
    }
}

/// A configuration in which everything is set, whatever role has it. A new setting does not
/// compile until it is here, and then has to be on the page.
fn everything() -> PartyConfig {
    let g = GraphBuilder::new(["alice"]);
    g.private_output("alice", g.private_input("alice", [1]));
    let file = || Some(PathBuf::from("x"));
    PartyConfig {
        role: Role::Server0,
        session: Session(SessionId([0; 16])),
        computation: Computation {
            network: Some("A".into()),
            batch_size: Some(1),
            graph: Some(g.build().unwrap()),
            reveal: Reveal::Label,
            format: NumberFormat::Int64,
            truncation: Some(Truncation::Local),
            inspect: true,
        },
        identity: Identity { certificate: "x".into(), key: "x".into(), authority: "x".into() },
        listen: "[::]:1".parse().ok(),
        peers: [(Role::Server0, "x:1".into()), (Role::Server1, "x:2".into())].into(),
        deadlines: Deadlines { connect_seconds: 1.0, message_seconds: 1.0 },
        transport: Transport {
            spin_micros: 1,
            chunk_bytes: 1,
            network: Some(Conditions { rtt_ms: 1.0, jitter_ms: 1.0, bandwidth_mbps: Some(1.0) }),
        },
        store: Some(Store { memory_megabytes: 1, disk_megabytes: 1, folder: file() }),
        threads: Some(1),
        player: Some(PlayerTask {
            inputs: file(),
            outputs: file(),
            warmup: Some(1),
            evaluations: Some(1),
            offline: Some(OfflineMode::Ahead),
            result: file(),
        }),
        workload: Some(Workload {
            images: "x".into(),
            warmup: 1,
            warmup_seconds: 1,
            repetitions: 1,
            offline: OfflineMode::Ahead,
            accuracy: Some(AccuracyWorkload { samples: 1, labels: "x".into(), reference: file() }),
            inspect: Some(InspectWorkload { samples: 1, weights: "x".into() }),
            result: file(),
        }),
        telemetry: Some(Telemetry {
            listen: "[::]:1".parse().ok(),
            otlp_endpoint: Some("http://x:1".into()),
            sampling_ratio: Some(1.0),
            traceparent: Some(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap(),
            ),
        }),
    }
}

/// The keys of a mapping that hold no other, each with its value.
fn leaves(mapping: &Mapping, prefix: &str, found: &mut BTreeMap<String, Value>) {
    for (key, value) in mapping {
        let key = format!("{prefix}{}", key.as_str().unwrap());
        match value {
            // It has a page of its own.
            Value::Mapping(inner) if key != "computation.graph" => {
                leaves(inner, &format!("{key}."), found);
            }
            _ => drop(found.insert(key, value.clone())),
        }
    }
}

fn keys(value: impl serde::Serialize, prefix: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let value = serde_yaml::to_value(value).unwrap();
    leaves(value.as_mapping().unwrap(), prefix, &mut found);
    found
}

#[test]
fn every_setting_is_on_the_page_and_no_other() {
    let found: Vec<String> = keys(everything(), "").into_keys().collect();
    assert_eq!(found, settings().into_keys().collect::<Vec<_>>());
}

#[test]
fn the_defaults_are_the_codes() {
    let workload: Workload = serde_yaml::from_str("images: x").unwrap();
    let computation: Computation = serde_yaml::from_str("network: A").unwrap();
    let conditions: Conditions = serde_yaml::from_str("rttMs: 1").unwrap();
    let defaults = [
        keys(Deadlines::default(), "deadlines."),
        keys(Transport::default(), "transport."),
        keys(conditions, "transport.network."),
        keys(Store::default(), "store."),
        keys(workload, "workload."),
        keys(computation, "computation."),
    ];
    let page = settings();
    let given = ["workload.images", "computation.network", "transport.network.rttMs"];
    for (key, value) in defaults.into_iter().flatten() {
        let default = page[key.as_str()][1].trim_matches('`');
        let expected = serde_yaml::to_string(&value).unwrap();
        match given.contains(&key.as_str()) {
            true => assert_eq!(default, "", "{key}"),
            false => assert_eq!(default, expected.trim_end(), "{key}"),
        }
    }
}

#[test]
fn the_bounds_are_the_codes() {
    let server = "role: server0\nlisten: '[::]:1'\ncomputation: { network: A }\n";
    let owner = "role: model-owner\ncomputation: { network: A }\n\
                 peers: { server0: 'x:1', server1: 'x:2' }\n";
    let client = &owner.replace("model-owner", "client");
    let inspected = &client.replace("network: A", "network: A, inspect: true");
    let g = GraphBuilder::new(["alice"]);
    g.private_output("alice", g.private_input("alice", [1]));
    let graph = serde_json::to_string(&g.build().unwrap()).unwrap();
    let alice = &owner.replace("network: A", &format!("graph: {graph}"));
    let alice = &alice.replace("model-owner", "alice");
    let cases = [
        ("computation.batchSize", server.replace(": A", ": A, batchSize: 1025")),
        ("deadlines.connectSeconds", format!("{server}deadlines: {{ connectSeconds: 0 }}")),
        ("deadlines.messageSeconds", format!("{server}deadlines: {{ messageSeconds: 86401 }}")),
        ("transport.spinMicros", format!("{server}transport: {{ spinMicros: 10001 }}")),
        ("transport.chunkBytes", format!("{server}transport: {{ chunkBytes: 1023 }}")),
        (
            "transport.network.rttMs",
            format!("{server}transport: {{ network: {{ rttMs: 10001 }} }}"),
        ),
        (
            "transport.network.jitterMs",
            format!("{server}transport: {{ network: {{ rttMs: 1, jitterMs: -1 }} }}"),
        ),
        (
            "transport.network.bandwidthMbps",
            format!("{server}transport: {{ network: {{ rttMs: 1, bandwidthMbps: 0 }} }}"),
        ),
        ("threads", format!("{server}threads: 0")),
        ("store.memoryMegabytes", format!("{server}store: {{ memoryMegabytes: 0 }}")),
        ("store.diskMegabytes", format!("{server}store: {{ diskMegabytes: 1048577 }}")),
        ("player.warmup", format!("{alice}player: {{ inputs: x, warmup: 1000001 }}")),
        ("player.evaluations", format!("{alice}player: {{ inputs: x, evaluations: 1000001 }}")),
        (
            "workload.warmupSeconds",
            format!("{client}workload: {{ images: x, warmupSeconds: 601 }}"),
        ),
        (
            "workload.inspect.samples",
            format!("{inspected}workload: {{ images: x, inspect: {{ samples: 0, weights: x }} }}"),
        ),
        ("telemetry.samplingRatio", format!("{server}telemetry: {{ samplingRatio: 1.5 }}")),
    ];
    let page = settings();
    for (key, text) in &cases {
        let text = format!(
            "{text}\nsession: 000102030405060708090a0b0c0d0e0f\n\
             identity: {{ certificate: x, key: x, authority: x }}\n"
        );
        let refused = PartyConfig::parse(&text, Path::new("x")).unwrap_err().to_string();
        let setting = key.rsplit('.').next().unwrap();
        let named = refused.contains(setting) || refused.starts_with("batch size");
        let bounds = page[key][2];
        let agrees = refused.ends_with(&format!("expected {bounds}"))
            || refused.ends_with(&format!("is outside {bounds}"));
        assert!(named && agrees, "{key}: {refused:?}, the page says {bounds}");
    }
    // Every row whose values are a range has a case.
    let range =
        |values: &str| values.starts_with(|c: char| c.is_ascii_digit()) && values.contains(" to ");
    let ranges = page.iter().filter(|(_, [_, _, values, _])| {
        range(values) || values.contains("at most") || values.contains("more than")
    });
    let tested: BTreeSet<&str> = cases.iter().map(|(key, _)| *key).collect();
    assert_eq!(ranges.map(|(key, _)| *key).collect::<BTreeSet<_>>(), tested);
}

#[test]
fn the_exit_codes_are_those_of_the_help_and_the_help_names_the_page() {
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, codes) = blocks().into_iter().find(|(info, _)| *info == "text exit-codes").unwrap();
    assert!(help.contains(codes), "{help}\nand the page:\n{codes}");
    assert!(help.contains("docs/party.md"), "{help}");
}
