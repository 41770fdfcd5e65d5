//! Processes on real images and on graphs of one's own, and everything that can go wrong
//! between them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bench::floor::transport;
use bench::graph_file::GraphFile;
use bench::inspect::Inspect;
use bench::launch::here::{Files, Here};
use bench::launch::local::{self, Failure, Job, LaunchError};
use bench::results::Results;
use bench::run::{Report, Run};
use bench::settings::{Link, Settings, Truncate};
use bench::sweep;
use bench::tensor_files::Source;
use bytes::Bytes;
use common::{
    Series, Strangers, get, network_job, own_folder, party_program, read_tensor, scrape, signal,
    wait_for, watch, wave, write_tensors,
};
use party::config::{
    AccuracyWorkload, Computation, Conditions, Deadlines, InspectWorkload, OfflineMode,
    PartyConfig, Store, Transport,
};
use party::net::{self, Refusals};
use party::result::LayerRange;
use party::run::Stage;
use party::stop::Stop;
use party::termination::{Reason, Termination};
use rustix::process::Signal;
use safetensors::Dtype;
use spdz::channel::{Channel, Name, Phase, Role, Tag};
use spdz::graph::{Graph, GraphBuilder, Plaintext, Tensors};
use spdz::network::{Builtin, Reveal, Variant};
use spdz::plan::{NumberFormat, Truncation};
use tempfile::TempDir;

/// Parties wait this long for each other in tests of failures, seconds.
const DEADLINE: f64 = 2.0;

/// A run of network A with so many inferences that it does not end by itself.
struct Scenario {
    folder: TempDir,
    configs: Vec<PartyConfig>,
}

impl Scenario {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deadlines = Deadlines { connect_seconds: DEADLINE, message_seconds: DEADLINE };
        let job = network_job("A", NumberFormat::Int64, 1_000_000, folder.path());
        let job = Job { deadlines, ..job };
        let configs = local::configure(&job, folder.path()).unwrap();
        Self { folder, configs }
    }

    fn config(&mut self, role: Role) -> &mut PartyConfig {
        self.configs.iter_mut().find(|config| config.role == role).unwrap()
    }

    fn remove(&mut self, role: Role) -> PartyConfig {
        let index = self.configs.iter().position(|config| config.role == role).unwrap();
        self.configs.remove(index)
    }

    fn start(&self) -> local::Running {
        local::start(&self.configs, self.folder.path(), &party_program()).unwrap()
    }
}

/// Waits for parties that must fail, and says how each did.
fn failures(running: &mut local::Running) -> BTreeMap<Role, Failure> {
    match running.wait(&AtomicBool::new(false), |_| {}) {
        Err(LaunchError::Failed { failures }) => {
            failures.into_iter().map(|failure| (failure.role, failure)).collect()
        }
        other => panic!("expected failures, found {other:?}"),
    }
}

/// One trial of a network in `Int64`, as `bench table1` measures it.
fn table1(network: &str, batch_size: usize, repetitions: u64) -> Settings {
    let network: Builtin = network.parse().unwrap();
    let Variant { activation, pooling } = network.variant();
    Settings {
        networks: vec![network.architecture().into()],
        activations: vec![activation],
        poolings: vec![pooling],
        formats: vec![NumberFormat::Int64],
        batch_sizes: vec![batch_size],
        trials: 1,
        repetitions,
        warmup: 0,
        ..Settings::default()
    }
}

/// Runs a sweep as `bench table1` does.
fn measure(settings: &Settings) -> anyhow::Result<Results> {
    let options = sweep::Options {
        journal: None,
        parallel: 1,
        stop_at_failure: true,
        in_order: true,
        bench: env!("CARGO_BIN_EXE_bench").into(),
        table: None,
    };
    let here = Here::new(files(), settings)?;
    let finished = sweep::run(settings, &options, &[&here], &AtomicBool::new(false))?;
    Ok(finished.results.into_iter().next().unwrap())
}

/// As `bench` has it without `--party`: it is the parties itself.
fn files() -> Files {
    let party = env!("CARGO_BIN_EXE_bench").into();
    Files { data: own_folder("data"), models: own_folder("models"), party }
}

#[test]
fn five_processes_classify_real_images() {
    use NumberFormat::{Int64, Int100};
    use OfflineMode::{Ahead, Inline};
    use Truncation::{Interactive, Local};
    for (network, format, batch_size, rounds, truncation, offline, threads) in [
        ("A", Int64, 1, Some(6), None, Inline, None),
        ("A-relu", Int64, 1, None, None, Inline, None),
        ("B-relu-max", Int64, 2, None, None, Inline, Some(1)),
        ("A", Int100, 2, None, None, Inline, Some(2)),
        ("A", Int100, 1, Some(6), Some(Local), Inline, None),
        ("B", Int64, 3, None, Some(Interactive), Inline, Some(1)),
        // Batches whose products are large enough to be divided.
        ("C", Int64, 16, Some(9), Some(Local), Ahead, Some(2)),
    ] {
        let computation = Computation::of_network(network, batch_size, format);
        let plan = Computation { truncation, ..computation }.plan().unwrap();
        let rounds = rounds.unwrap_or(plan.rounds() as u64);
        let settings = Settings {
            formats: vec![format],
            truncations: vec![match truncation {
                None => Truncate::Usual,
                Some(Local) => Truncate::Local,
                Some(Interactive) => Truncate::Interactive,
            }],
            offline: vec![offline],
            threads,
            warmup: 1,
            // No multiple of the batches: the last is padded.
            accuracy_samples: 530,
            ..table1(network, batch_size, 3)
        };
        let results = measure(&settings).unwrap();
        let run = results.runs[0].merged.as_ref().unwrap();
        let accuracy = run.accuracy.unwrap();
        assert_eq!((run.batch_size, run.repetitions, run.online_rounds), (batch_size, 3, rounds));
        assert_eq!((run.format, run.truncation), (format, plan.truncation()));
        assert_eq!(accuracy.samples, 530);
        assert!(accuracy.secure >= 0.99 && accuracy.plaintext >= Some(0.99), "{accuracy:?}");
        assert!(accuracy.agreement >= Some(0.999), "{accuracy:?}");
        let divergence = accuracy.mean_kl_divergence.unwrap();
        assert!((0.0..=1e-6).contains(&divergence), "{accuracy:?}");
        assert!(run.online.mean_ms > 0.0 && run.offline.mean_ms > 0.0);
        assert_eq!(run.offline_mode, offline);
        let inline = if offline == Inline { run.offline.mean_ms } else { 0.0 };
        assert!((run.combined.mean_ms - run.online.mean_ms - inline).abs() < 1e-9);
        assert!(run.online_bytes > 0 && run.offline_bytes > 0);
        let table = bench::table1::render(&results, None);
        assert!(table.contains(&format!("correlated randomness generated {offline}")), "{table}");
        let times = results.runs[0].times_floor().unwrap();
        assert!(times.is_finite() && times > 0.0, "{times}");
        let floor = results.runs[0].floor_ms.unwrap();
        assert!(table.contains(&format!("{floor:.3}  {times:>5.1}")), "{table}");
    }
}

#[test]
fn a_client_of_five_processes_learns_labels_and_scores_them() {
    use NumberFormat::{Int32, Int64};
    for (network, format, batch_size) in
        [("A", Int64, 3), ("A-relu", Int64, 1), ("B-relu", Int32, 2)]
    {
        let settings = Settings {
            formats: vec![format],
            reveals: vec![Reveal::Label],
            accuracy_samples: 530,
            ..table1(network, batch_size, 2)
        };
        let results = measure(&settings).unwrap();
        let cell = &results.runs[0];
        assert_eq!(
            cell.key.to_string(),
            format!("{network} (label) {format} Local, batch {batch_size}")
        );
        let run = cell.merged.as_ref().unwrap();
        assert_eq!((run.reveal, run.format, run.out_of_range), (Reveal::Label, format, 0));
        let computation = Computation::of_network(network, batch_size, format);
        let [logits, label] =
            Reveal::ALL.map(|reveal| Computation { reveal, ..computation.clone() }.plan().unwrap());
        assert_eq!(run.online_rounds, label.rounds() as u64);
        assert_eq!(label.rounds(), logits.rounds() + 5, "{network} {format}");
        let accuracy = run.accuracy.unwrap();
        assert_eq!((accuracy.samples, accuracy.mean_kl_divergence), (530, None));
        assert!(accuracy.secure >= 0.99 && accuracy.plaintext >= Some(0.99), "{accuracy:?}");
        assert!(accuracy.agreement >= Some(0.998), "{accuracy:?}");
        assert!(cell.floor_ms.is_some_and(|floor| floor > 0.0));
        let json = serde_json::to_string(&results).unwrap();
        assert!(
            json.contains(r#""reveal":"label""#) && !json.contains("meanKlDivergence"),
            "{json}"
        );
        let table = bench::table1::render(&results, None);
        assert!(table.contains(&format!("{network} (label) {format} Local")), "{table}");
    }
}

#[test]
fn the_floor_command_prints_what_each_network_needs_at_least() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["floor", "--networks=A", "--batch-size=1,3"])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (table, error) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}");
    let speeds = table.lines().filter(|line| line.contains(" us") || line.contains("B/s"));
    assert_eq!(speeds.clone().count(), 2, "{table}");
    let speed = |line: &str| line.rsplit("  ").next()?.split(' ').next()?.parse::<f64>().ok();
    for line in speeds {
        assert!(speed(line).is_some_and(|speed| speed > 0.0), "{line}");
    }
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("A ")) {
        rows += 1;
        let fields: Vec<&str> = line.split_whitespace().collect();
        let numbers: Vec<f64> = fields[3..].iter().map(|x| x.parse().unwrap()).collect();
        let [batch, crossings, _, macs, _, rounds, bytes, products, sum, online] = numbers[..]
        else {
            panic!("{line}")
        };
        assert!(numbers.iter().all(|number| number.is_finite() && *number > 0.0), "{line}");
        // Three dense layers for each image.
        assert!((macs - batch * 0.118_016).abs() < 0.01, "{line}");
        // Two openings an activation and one of each next layer's input, unless the
        // truncations leave it masked.
        assert!(crossings >= 4.0 + 2.0 + 4.0, "{line}");
        assert!((rounds + bytes + products - sum).abs() < 0.003 && online < sum, "{line}");
    }
    assert_eq!(rows, 4, "two formats, two batches: {table}");
}

#[test]
fn the_parties_and_the_results_keep_to_the_instructions_that_were_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (party, seen) = (folder.path().join("party.sh"), folder.path().join("seen"));
    let script = format!(
        "#!/bin/bash\necho $PARTY_INSTRUCTION_SET >> {}\nexec -a party {} \"$@\"\n",
        seen.display(),
        env!("CARGO_BIN_EXE_bench"),
    );
    fs::write(&party, script).unwrap();
    fs::set_permissions(&party, Permissions::from_mode(0o700)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["table1", "--networks=A", "--activation=polynomial", "--formats=Int64"])
        .arg("--instruction-set=Portable")
        .args(["--repetitions=2", "--accuracy-samples=100"])
        .arg("--party")
        .arg(&party)
        .arg("--out")
        .arg(folder.path())
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8(output.stderr).unwrap());
    // Before, it was asked for its version and whether it knows the setting; then there are five
    // parties for the timed inferences and five to score.
    let seen = fs::read_to_string(seen).unwrap();
    assert_eq!(seen, format!("\n\n{}", "Portable\n".repeat(10)));
    let results = Results::read(&folder.path().join("results.json")).unwrap();
    assert_eq!(results.environment.kernels, "Portable");
    let accuracy = results.runs[0].merged.as_ref().unwrap().accuracy.as_ref().unwrap();
    assert_eq!(accuracy.agreement, Some(1.0));
}

#[test]
fn an_inspected_run_says_what_layers_put_out_and_that_it_is_not_private() {
    for (network, format, layers) in [
        ("A", NumberFormat::Int64, &["bn1", "act1", "bn2", "act2", "logits"][..]),
        (
            "B",
            NumberFormat::Int100,
            &["bn1", "act1", "pool1", "bn2", "act2", "pool2", "bn3", "act3", "logits"],
        ),
    ] {
        let inspect = Inspect {
            networks: vec![network.parse().unwrap()],
            formats: vec![format],
            truncation: None,
            batch_size: 4,
            samples: 10,
            files: files(),
        };
        let report = inspect.run(&AtomicBool::new(false)).unwrap();
        let inspection = report.results().next().unwrap().inspection.clone().unwrap();
        assert!(inspection.not_private && inspection.samples == 10);
        assert_eq!((inspection.out_of_range, inspection.limit), (0, 1024.0));
        let names: Vec<&str> = inspection.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, layers);
        for layer in &inspection.layers {
            let LayerRange { name, min, max, largest_error, near_limit, values } = layer;
            assert!(*min < 0.0 || name.starts_with("act") || name.starts_with("pool"), "{layer:?}");
            assert!(*max > 0.0 && *max < 100.0 && *near_limit == 0, "{layer:?}");
            // Never exact, and close to it.
            assert!(*largest_error > 0.0 && *largest_error < 0.02, "{layer:?}");
            assert_eq!(values % 10, 0, "{layer:?}");
        }
        let text = report.render(None);
        assert!(text.contains("NOT PRIVATE") && text.contains("logits"), "{text}");
    }
}

#[test]
fn the_layers_of_an_inspected_run_are_metrics_and_everybody_is_warned() {
    let mut scenario = Scenario::new();
    let weights = own_folder("models/a.safetensors");
    for config in &mut scenario.configs {
        config.computation.inspect = true;
        if let Some(workload) = &mut config.workload {
            workload.repetitions = 0;
            workload.inspect = Some(InspectWorkload { samples: 10_000, weights: weights.clone() });
        }
    }
    let addresses = watch(&mut scenario.configs);
    let mut running = scenario.start();
    let largest = "secure_inference_layer_value{bound=\"max\",layer=\"logits\"}";
    wait_for("an inspected inference", || {
        let (series, _) = scrape(addresses[&Role::CLIENT])?;
        let error = series.get("secure_inference_layer_largest_error{layer=\"act1\"}")?;
        (series[largest] > 0.0 && *error > 0.0).then_some(())
    });
    for config in &scenario.configs {
        let log = scenario.folder.path().join(format!("{}.log", config.role));
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("NOT PRIVATE"), "{}: {log}", config.role);
    }
    drop(running);
    // One party that does not know of it is enough to stop it.
    let mut scenario = Scenario::new();
    scenario.config(Role::Server1).computation.inspect = true;
    running = scenario.start();
    let failures = failures(&mut running);
    assert!(
        failures.values().any(|failure| failure.message.contains("has another plan")),
        "{failures:?}"
    );
}

#[test]
fn an_interrupted_measurement_of_the_connection_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (program, interrupted) = (env!("CARGO_BIN_EXE_bench"), AtomicBool::new(true));
    let error =
        transport::measure(program.as_ref(), Transport::default(), folder.path(), &interrupted);
    let error = error.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(LaunchError::Interrupted)), "{error:#}");
    let place = folder.path().to_str().unwrap();
    for process in std::fs::read_dir("/proc").unwrap() {
        // Some end while this looks at them.
        let command = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(place), "a process is left");
    }
}

#[test]
fn a_network_that_is_imitated_is_as_slow_as_arithmetic_says() {
    let folder = tempfile::tempdir().unwrap();
    let network = Conditions { rtt_ms: 1.0, jitter_ms: 0.0, bandwidth_mbps: Some(400.0) };
    let transport = Transport { network: Some(network), ..Transport::default() };
    let program = env!("CARGO_BIN_EXE_bench").as_ref();
    let uninterrupted = AtomicBool::new(false);
    // Both send at once, so an exchange is over after half a round trip.
    let way = network.rtt_ms / 2e3;
    let sent = transport::LARGE as f64 / (network.bandwidth_mbps.unwrap() * 1e6 / 8.0);
    // What the machine adds depends on what else it does: it may be busy, but not for ever.
    let undisturbed = (0..8).any(|_| {
        let measured = transport::measure(program, transport, folder.path(), &uninterrupted);
        let measured = measured.unwrap();
        let exchange = measured.exchange_micros / 1e6;
        assert!(exchange >= way, "{exchange} s, expected {way} s");
        let large = transport::LARGE as f64 / measured.gigabytes_per_second / 1e9;
        assert!(large >= way + sent, "{large} s, expected {way} + {sent} s");
        exchange < 2.0 * way && large < 1.3 * (way + sent)
    });
    assert!(undisturbed, "much slower than {way} s and {way} + {sent} s, again and again");

    // A whole inference: the client's masked input, the openings, the shares of the output.
    let network = Conditions::WAN;
    let settings = Settings { conditions: vec![Link::Wan], ..table1("A", 1, 3) };
    let run = measure(&settings).unwrap().runs.remove(0).merged.unwrap();
    let online = run.online.p50_ms;
    let rounds = (run.online_rounds + 2) as f64 * network.rtt_ms / 2.0;
    assert!((rounds..1.3 * rounds).contains(&online), "{online} ms, expected {rounds} ms");
}

#[test]
fn online_bytes_are_what_the_plan_says() {
    let run = measure(&table1("C", 1, 5)).unwrap().runs.remove(0).merged.unwrap();
    // Two openings of each activation's input and one of each next layer's, both
    // ways; the masked input to both servers; the shares of ten logits from both.
    let elements = 2 * (2 * 15_220 + 4_180) + 2 * 784 + 2 * 10;
    let (payload, measured) = (8 * elements as u64, run.online_bytes);
    assert!(measured > payload && measured < payload + payload / 50, "{measured} {payload}");
    // A share of every product of masks, to one of the servers, and two seeds.
    let payload = 8 * (15_230 + 2 * 15_220) + 2 * 32;
    let measured = run.offline_bytes;
    assert!(measured > payload && measured < payload + payload / 50, "{measured} {payload}");
}

#[test]
fn a_peer_that_never_comes_is_named_within_the_deadline() {
    let mut scenario = Scenario::new();
    scenario.remove(Role::Producer);
    let start = Instant::now();
    let failures = failures(&mut scenario.start());
    assert!(start.elapsed() < Duration::from_secs_f64(3.0 * DEADLINE + 3.0));
    for role in [Role::Server0, Role::Server1] {
        assert_eq!(failures[&role].code, Some(4));
        let message = &failures[&role].message;
        assert!(message.contains("producer did not connect within 2 s"), "{message}");
    }
    assert_eq!(failures.len(), 4, "nobody is left waiting: {failures:?}");
}

#[test]
fn a_peer_that_comes_later_than_a_message_may_is_waited_for() {
    let mut scenario = Scenario::new();
    for config in &mut scenario.configs {
        config.deadlines = Deadlines { connect_seconds: 30.0, message_seconds: DEADLINE };
    }
    scenario.config(Role::CLIENT).workload.as_mut().unwrap().repetitions = 1;
    let producer = scenario.remove(Role::Producer);
    let mut running = scenario.start();
    // The servers say who they are when the producer is there too.
    std::thread::sleep(Duration::from_secs_f64(1.5 * DEADLINE));
    let mut producer = local::start(&[producer], scenario.folder.path(), &party_program()).unwrap();
    for parties in [&mut running, &mut producer] {
        let outcome = parties.wait(&AtomicBool::new(false), |_| {});
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

#[test]
fn a_party_that_dies_mid_run_is_named_by_those_who_talk_to_it() {
    // The model owner is not among them: once it is done, nobody needs it.
    for victim in [Role::Server0, Role::Server1, Role::Producer, Role::CLIENT] {
        let scenario = Scenario::new();
        let mut running = scenario.start();
        let interrupted = AtomicBool::new(false);
        let mut killed = None;
        // The client reports progress only once inferences are under way.
        let until_progress = running.wait_for_progress(&interrupted);
        assert!(until_progress.is_ok(), "{until_progress:?}");
        if let Some(process) = running.process(victim) {
            process.kill().unwrap();
            killed = Some(Instant::now());
        }
        let failures = failures(&mut running);
        let took = killed.unwrap().elapsed();
        assert!(took < Duration::from_secs_f64(DEADLINE + 3.0), "{victim}: {took:?}");
        assert_eq!(failures[&victim].code, None, "a signal ended it");
        let survivors: Vec<_> = failures.values().filter(|f| f.role != victim).collect();
        assert!(survivors.len() >= 3, "{victim}: {failures:?}");
        assert!(survivors.iter().all(|f| f.code == Some(4)), "{victim}: {failures:?}");
        let naming = survivors.iter().filter(|f| f.message.contains(&format!("{victim} is gone")));
        assert!(naming.count() >= 1, "{victim}: {failures:?}");
    }
}

/// How a party's run ended.
fn termination(scenario: &Scenario, role: Role) -> Termination {
    let path = local::termination_path(scenario.folder.path(), role);
    Termination::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn probes_are_answered_before_there_are_peers_and_say_when_they_are_there() {
    let mut scenario = Scenario::new();
    for config in &mut scenario.configs {
        config.deadlines.connect_seconds = 30.0;
    }
    let addresses = watch(&mut scenario.configs);
    let producer = scenario.remove(Role::Producer);
    let running = scenario.start();
    let waiting = Some((503, "waiting for its peers to connect\n".to_owned()));
    for server in [Role::Server0, Role::Server1] {
        wait_for("a server", || (get(addresses[&server], "/readyz") == waiting).then_some(()));
        assert_eq!(get(addresses[&server], "/healthz").unwrap().0, 200);
    }
    assert_eq!(get(addresses[&Role::Producer], "/healthz"), None);
    let late = local::start(&[producer], scenario.folder.path(), &party_program()).unwrap();
    // The model owner is soon done and gone.
    for role in [Role::Server0, Role::Server1, Role::Producer, Role::CLIENT] {
        let ready = Some((200, "ready\n".to_owned()));
        wait_for(role.name(), || (get(addresses[&role], "/readyz") == ready).then_some(()));
    }
    drop((running, late));
}

#[test]
fn strangers_keep_neither_probes_nor_parties_waiting() {
    let mut scenario = Scenario::new();
    for config in &mut scenario.configs {
        config.deadlines.connect_seconds = 20.0;
    }
    let probes = watch(&mut scenario.configs);
    let producer = scenario.remove(Role::Producer);
    let listen = |role| scenario.configs.iter().find(|c| c.role == role).unwrap().listen.unwrap();
    let ports = [listen(Role::Server0), listen(Role::Server1)];
    let _running = scenario.start();
    let probe = probes[&Role::Server0];
    wait_for("server 0", || get(probe, "/healthz"));
    let strangers = Strangers::begin([&ports[..], &[probe]].concat(), 200);
    // Long enough for places that are not taken back to run out.
    let mut slowest = Duration::ZERO;
    for _ in 0..40 {
        let start = Instant::now();
        assert_eq!(get(probe, "/healthz").unwrap().0, 200);
        slowest = slowest.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    // A party that comes now gets in.
    let _late = local::start(&[producer], scenario.folder.path(), &party_program()).unwrap();
    let ready = Some((200, "ready\n".to_owned()));
    wait_for("all parties", || (get(probe, "/readyz") == ready).then_some(()));
    let made = strangers.end();
    assert!(made.iter().all(|made| *made > 200), "{made:?}");
    let page = get(probe, "/metrics").unwrap().1;
    let refused = page.lines().find_map(|line| {
        line.strip_prefix("secure_inference_refused_connections_total{role=\"server0\"} ")
    });
    assert!(refused.unwrap().parse::<u64>().unwrap() > 0, "{page}");
}

/// The labels of a series.
fn labels(series: &str) -> BTreeMap<&str, &str> {
    let Some((_, labels)) = series.split_once('{') else { return BTreeMap::new() };
    let labels = labels.trim_end_matches('}').split("\",").map(|label| {
        let (name, value) = label.split_once("=\"").unwrap();
        (name, value.trim_end_matches('"'))
    });
    labels.collect()
}

/// What a page says in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A row of a table on the page, from what is in its first column; its cells.
fn row<'page>(page: &'page str, first: &str) -> Vec<&'page str> {
    let start = format!("| `{first}` |");
    let row = page.lines().find(|line| line.starts_with(&start));
    let row = row.unwrap_or_else(|| panic!("{first} is not on the page"));
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

#[test]
fn the_metrics_are_those_on_the_page_and_count_what_happened() {
    let mut scenario = Scenario::new();
    for config in &mut scenario.configs {
        config.deadlines = Deadlines { connect_seconds: 30.0, message_seconds: 30.0 };
    }
    let addresses = watch(&mut scenario.configs);
    let producer = scenario.remove(Role::Producer);
    let mut running = scenario.start();
    let mut families = BTreeMap::new();
    let mut first: BTreeMap<Role, Series> = BTreeMap::new();
    for (role, address) in addresses.iter().filter(|(role, _)| **role != Role::Producer) {
        let (series, found) = wait_for(role.name(), || scrape(*address));
        // What can ever be counted is there before anything is.
        let zero = |(name, value): (&String, &f64)| *value == 0.0 || name.contains("build_info");
        assert!(series.iter().all(zero), "{series:?}");
        families.extend(found);
        first.insert(*role, series);
    }

    let late = local::start(&[producer], scenario.folder.path(), &party_program()).unwrap();
    let inferences = "secure_inference_inferences_total{outcome=\"completed\",role=";
    let client = |running: &mut local::Running, told: Signal| {
        signal(running.process(Role::CLIENT).unwrap(), told);
    };
    // With the client stopped nothing moves. If it was stopped in the middle of an inference,
    // whose randomness is taken already, another moment is looked for.
    let still = wait_for("a moment of rest", || {
        let at_work = |address| {
            let (series, _) = scrape(address)?;
            (series.get(&format!("{inferences}\"server0\"}}"))? >= &20.0).then_some(())
        };
        wait_for("inferences", || at_work(addresses[&Role::Server0]));
        client(&mut running, Signal::STOP);
        std::thread::sleep(Duration::from_millis(200));
        let roles = [Role::Server0, Role::Server1, Role::Producer];
        let still = roles.map(|role| scrape(addresses[&role]).unwrap());
        let count = |index: usize, name: &str| {
            let (series, _): &(Series, _) = &still[index];
            series[&name.replace("ROLE", roles[index].name())]
        };
        let completed = format!("{inferences}\"ROLE\"}}");
        let offline = "secure_inference_inference_duration_seconds_count\
                       {phase=\"offline\",role=\"ROLE\"}";
        let available = "secure_inference_randomness_available{role=\"ROLE\"}";
        let rest = count(0, &completed) == count(1, &completed)
            && [1, 2].iter().all(|other| count(0, offline) == count(*other, offline))
            && [0, 1].iter().all(|server| {
                count(*server, available) == count(2, offline) - count(*server, &completed)
            });
        client(&mut running, Signal::CONT);
        rest.then_some(still)
    });
    let (last_of_client, _) = scrape(addresses[&Role::CLIENT]).unwrap();

    // Each party has the label sets that it had at the start.
    let keys = |series: &Series| series.keys().cloned().collect::<Vec<_>>();
    let [(server0, _), (server1, _), (producer, of_producer)] = &still;
    families.extend(of_producer.clone());
    for (role, series) in
        [(Role::Server0, server0), (Role::Server1, server1), (Role::CLIENT, &last_of_client)]
    {
        assert_eq!(keys(&first[&role]), keys(series), "{role}");
    }

    // The page has the same families, and their labels' values.
    let page = fs::read_to_string(own_folder("../docs/observability.md")).unwrap();
    let page = page.split("## Metrics of the operator").next().unwrap();
    let on_page = page.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `secure_inference_")?.split_once('`')?;
        Some(format!("secure_inference_{name}"))
    });
    assert_eq!(on_page.collect::<BTreeSet<_>>(), families.keys().cloned().collect());
    let all = first.values().chain([server0, server1, producer, &last_of_client]);
    for series in all.flat_map(|series| series.keys()) {
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let family = family.filter(|family| families.contains_key(*family)).unwrap_or(name);
        let (kind, help) = &families[family];
        let [_, on_page, names, meaning] = row(page, family)[..] else { panic!("{family}") };
        assert_eq!((on_page, meaning), (kind.as_str(), help.as_str()));
        let mut found = labels(series);
        found.remove("le");
        let mut names = quoted(names);
        names.sort_unstable();
        assert!(found.keys().eq(names.iter()), "{series}");
        for (label, value) in found {
            let free = ["version", "commit", "role", "peer"].contains(&label);
            assert!(free || quoted(row(page, label)[1]).contains(&value), "{series}");
        }
    }

    // And they count what happened.
    let n = server0[&format!("{inferences}\"server0\"}}")];
    let value = |series: &Series, name: &str, labels: &str| {
        let name = format!("secure_inference_{name}{{{labels}}}");
        *series.get(&name).unwrap_or_else(|| panic!("{name} is not in {series:?}"))
    };
    for (series, role, other) in [(server0, "server0", "server1"), (server1, "server1", "server0")]
    {
        let of = |name, labels: &str| value(series, name, &labels.replace("ROLE", role));
        for phase in ["online", "combined"] {
            let labels = format!(r#"phase="{phase}",role="ROLE""#);
            assert_eq!(of("inference_duration_seconds_count", &labels), n);
            assert!(of("inference_duration_seconds_sum", &labels) > 0.0);
        }
        assert_eq!(of("rounds_total", r#"phase="online",role="ROLE""#), 6.0 * n);
        assert_eq!(of("rounds_total", r#"phase="offline",role="ROLE""#), 0.0);
        for (op, each) in [("open", 6.0), ("matmul", 3.0), ("share", 1.0), ("reveal", 1.0)] {
            let labels = format!(r#"op="{op}",role="ROLE""#);
            assert_eq!(of("op_duration_seconds_count", &labels), each * n, "{op}");
        }
        let failed = of("inferences_total", r#"outcome="failed",role="ROLE""#);
        assert_eq!(failed, 0.0);
        for phase in ["setup", "offline", "online", "control"] {
            let sent =
                of("sent_bytes_total", &format!(r#"peer="{other}",phase="{phase}",role="ROLE""#));
            let at_other = if role == "server0" { server1 } else { server0 };
            let labels = format!(r#"peer="{role}",phase="{phase}",role="{other}""#);
            assert_eq!(sent, value(at_other, "received_bytes_total", &labels), "{role} {phase}");
            assert_eq!(sent > 0.0, phase == "online" || (phase, role) == ("setup", "server0"));
            let generated = value(
                producer,
                "sent_bytes_total",
                &format!(r#"peer="{role}",phase="{phase}",role="producer""#),
            );
            assert_eq!(
                generated,
                of(
                    "received_bytes_total",
                    &format!(r#"peer="producer",phase="{phase}",role="ROLE""#)
                )
            );
            assert_eq!(generated > 0.0, ["setup", "offline"].contains(&phase), "{phase}");
        }
    }
    let online = r#"phase="online",role="client""#;
    assert!(value(&last_of_client, "inference_duration_seconds_count", online) >= n - 1.0);
    assert!(!keys(producer).iter().any(|name| name.contains("inferences_total")));
    drop((running, late));
}

#[test]
fn a_port_for_probes_that_is_in_use_is_named() {
    let mut scenario = Scenario::new();
    let address = watch(&mut scenario.configs)[&Role::Producer];
    let _taken = TcpListener::bind(address).unwrap();
    let failures = failures(&mut scenario.start());
    let failure = &failures[&Role::Producer];
    assert_eq!(failure.code, Some(2));
    let expected = format!("cannot listen on {address}");
    assert!(failure.message.contains(&expected), "{failure}");
    assert!(failure.message.contains("telemetry.listen"), "{failure}");
}

#[test]
fn without_files_the_client_leaves_its_result_where_it_says_how_it_ended() {
    let mut scenario = Scenario::new();
    let workload = scenario.config(Role::CLIENT).workload.as_mut().unwrap();
    workload.repetitions = 3;
    workload.result = None;
    // Nobody else knows the weights, so nobody can say what is right but the labels.
    workload.accuracy = Some(AccuracyWorkload {
        samples: 50,
        labels: own_folder("data/t10k-labels-idx1-ubyte.gz"),
        reference: None,
    });
    let outcome = scenario.start().wait(&AtomicBool::new(false), |_| {});
    assert!(outcome.is_ok(), "{outcome:?}");
    for config in &scenario.configs {
        let ended = termination(&scenario, config.role);
        assert_eq!((ended.role, ended.exit_code), (Some(config.role), 0));
        assert_eq!((ended.failure, ended.result.is_some()), (None, config.role == Role::CLIENT));
    }
    let result = termination(&scenario, Role::CLIENT).result.unwrap();
    assert_eq!((result.network.as_str(), result.repetitions, result.online_rounds), ("A", 3, 6));
    let accuracy = result.accuracy.unwrap();
    assert_eq!((accuracy.samples, accuracy.plaintext, accuracy.agreement), (50, None, None));
    assert!(accuracy.secure >= 0.98, "{accuracy:?}");
}

#[test]
fn inferences_are_made_for_a_time_before_those_that_count() {
    let mut scenario = Scenario::new();
    let workload = scenario.config(Role::CLIENT).workload.as_mut().unwrap();
    (workload.warmup_seconds, workload.repetitions, workload.result) = (1, 3, None);
    workload.offline = OfflineMode::Ahead;
    let (mut stages, start) = (Vec::new(), Instant::now());
    let outcome = scenario.start().wait(&AtomicBool::new(false), |told| stages.push(told.stage));
    assert!(outcome.is_ok(), "{outcome:?}");
    assert!(start.elapsed() >= Duration::from_secs(1));
    stages.dedup();
    assert_eq!(stages, [Stage::Settle, Stage::Prepare, Stage::Timed]);
    let result = termination(&scenario, Role::CLIENT).result.unwrap();
    assert_eq!((result.repetitions, result.online_rounds), (3, 6));

    // One that would never end is refused before anybody is waited for.
    scenario.config(Role::CLIENT).workload.as_mut().unwrap().warmup_seconds = 601;
    let failure = &failures(&mut scenario.start())[&Role::CLIENT];
    let expected = "workload.warmupSeconds is 601, expected 0 to 600";
    assert!(failure.message.contains(expected), "{failure}");
}

#[test]
fn a_party_that_is_told_to_stop_says_so_and_is_named_by_the_others() {
    let (terminate, interrupt) = ((Signal::TERM, "SIGTERM", 143), (Signal::INT, "SIGINT", 130));
    for (victim, (told_with, name, code)) in [
        (Role::Server0, terminate),
        (Role::Server1, interrupt),
        (Role::Producer, terminate),
        (Role::CLIENT, interrupt),
    ] {
        let scenario = Scenario::new();
        let mut running = scenario.start();
        assert!(running.wait_for_progress(&AtomicBool::new(false)).is_ok());
        let process = running.process(victim).unwrap();
        let told = Instant::now();
        signal(process, told_with);
        assert_eq!(process.wait().unwrap().code(), Some(code), "{victim}");
        let took = told.elapsed();
        assert!(took < Duration::from_millis(700), "{victim}: {took:?}");

        let failures = failures(&mut running);
        let own = termination(&scenario, victim);
        assert_eq!((own.role, i32::from(own.exit_code)), (Some(victim), code));
        let own = own.failure.unwrap();
        assert_eq!((own.reason, own.peer), (Reason::Terminated, None));
        assert_eq!(own.message, format!("told to stop by {name}"));
        let mut naming = 0;
        for role in failures.keys().filter(|role| **role != victim) {
            let failure = termination(&scenario, *role).failure.unwrap();
            assert_eq!(failure.reason, Reason::PeerLost, "{role}: {failure:?}");
            // Not everybody talks to everybody: who has it from another names that one.
            let peer = failure.peer.unwrap();
            assert!(failure.message.contains(&format!("{peer} gave up: ")), "{failure:?}");
            naming += usize::from(peer == victim);
            assert!(failure.message.ends_with("terminated"), "{failure:?}");
        }
        assert!(naming >= 1, "{failures:?}");
    }
}

#[test]
fn two_plans_are_refused_before_any_share_moves() {
    let mut scenario = Scenario::new();
    scenario.config(Role::CLIENT).computation.batch_size = Some(2);
    let failures = failures(&mut scenario.start());
    let message = &failures[&Role::CLIENT].message;
    assert_eq!(failures[&Role::CLIENT].code, Some(3));
    assert!(message.contains("has another plan") && message.contains("batch 1"), "{message}");
    // Nobody takes it for something that another attempt could mend.
    assert!(failures.values().all(|f| f.code == Some(3)), "{failures:?}");
    // The set-up, in which shares and keys would move, was never reached.
    for role in ["server0", "server1", "producer", "model-owner"] {
        let log = fs::read_to_string(scenario.folder.path().join(format!("{role}.log")));
        assert!(!log.unwrap().contains("masked inputs"), "{role}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let mut scenario = Scenario::new();
    let address = scenario.config(Role::Server1).listen.unwrap();
    let _taken = std::net::TcpListener::bind(address).unwrap();
    let failures = failures(&mut scenario.start());
    assert_eq!(failures[&Role::Server1].code, Some(2));
    let message = &failures[&Role::Server1].message;
    assert!(message.contains(&format!("cannot listen on {address}")), "{message}");
}

#[test]
fn bad_weights_end_the_run_with_the_tensors_name() {
    let mut scenario = Scenario::new();
    let path = scenario.folder.path().join("truncated.safetensors");
    let whole = std::fs::read(own_folder("models/a.safetensors")).unwrap();
    let wrong_network = own_folder("models/b.safetensors");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for (weights, expected) in [(path, "truncated"), (wrong_network, "fc1.weight")] {
        scenario.config(Role::MODEL_OWNER).player.as_mut().unwrap().inputs = Some(weights);
        let failures = failures(&mut scenario.start());
        assert_eq!(failures[&Role::MODEL_OWNER].code, Some(2));
        let message = &failures[&Role::MODEL_OWNER].message;
        assert!(message.contains(expected), "{message}");
    }
}

/// Weights of network A that are all the same in each parameter.
fn write_weights(path: &Path, value: impl Fn(&str) -> f32) {
    let parameters = spdz::network::Network::a().parameters().unwrap().into_iter();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = parameters
        .map(|parameter| {
            let len: usize = parameter.shape.iter().product();
            let bytes = value(&parameter.name).to_le_bytes().repeat(len);
            (parameter.name, parameter.shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), data);
        (name, view.unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_client_whose_outputs_are_all_out_of_range_fails_and_says_what_to_look_at() {
    let mut scenario = Scenario::new();
    let path = scenario.folder.path().join("large.safetensors");
    // As if they were made for other images: each can be shared, and what comes out cannot be held.
    write_weights(&path, |_| 30.0);
    scenario.config(Role::MODEL_OWNER).player.as_mut().unwrap().inputs = Some(path);
    let workload = scenario.config(Role::CLIENT).workload.as_mut().unwrap();
    workload.repetitions = 2;
    let failures = failures(&mut scenario.start());
    let failed: Vec<(Role, Option<i32>)> =
        failures.values().map(|failure| (failure.role, failure.code)).collect();
    assert_eq!(failed, [(Role::CLIENT, Some(2))], "{failures:?}");
    let message = &failures[&Role::CLIENT].message;
    for expected in ["evaluations are out of range", "element ", "0 to 255"] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_weight_out_of_range_is_named_and_its_value_told_to_nobody() {
    let mut scenario = Scenario::new();
    let path = scenario.folder.path().join("huge.safetensors");
    write_weights(&path, |name| if name == "fc2.bias" { 54_321.5 } else { 1.0 });
    scenario.config(Role::MODEL_OWNER).player.as_mut().unwrap().inputs = Some(path);
    let failures = failures(&mut scenario.start());
    let own = &failures[&Role::MODEL_OWNER];
    assert!(own.message.contains("huge.safetensors: fc2.bias, element 0: not a number"), "{own}");
    // Its owner's log neither: that, too, is collected, and the failure becomes a pod's status.
    for role in [Role::MODEL_OWNER, Role::Server0, Role::Server1, Role::Producer, Role::CLIENT] {
        let code = if role == Role::MODEL_OWNER { 2 } else { 4 };
        assert_eq!(failures[&role].code, Some(code), "{failures:?}");
        let log = fs::read_to_string(scenario.folder.path().join(format!("{role}.log")));
        assert!(!log.unwrap().contains("54321"), "{role} learned the weight");
    }
}

#[test]
fn another_roles_or_another_sessions_certificate_opens_nothing() {
    // Another session's: the right role, but from another authority.
    let mut scenario = Scenario::new();
    let stranger = Scenario::new();
    let identity = stranger.configs.iter().find(|c| c.role == Role::CLIENT).unwrap();
    let (identity, session) = (identity.identity.clone(), identity.session);
    let client = scenario.config(Role::CLIENT);
    client.identity = identity;
    client.session = session;
    let found = failures(&mut scenario.start());
    assert_eq!(found[&Role::CLIENT].code, Some(3), "{found:?}");
    let refused = &found[&Role::Server0].message;
    assert!(refused.contains("client did not connect") && refused.contains("refused"), "{refused}");

    // Another role's: server0's certificate is genuine, but server0 does not dial server1.
    let mut scenario = Scenario::new();
    let server0 = scenario.config(Role::Server0).identity.clone();
    scenario.config(Role::CLIENT).identity = server0;
    let found = failures(&mut scenario.start());
    assert_eq!(found[&Role::CLIENT].code, Some(2));
    let message = &found[&Role::CLIENT].message;
    assert!(message.contains("not the certificate of client"), "{message}");
}

/// A producer in this process, connected to real servers; what it does next is the test's.
fn with_rogue_producer(act: impl FnOnce(&mut [net::Link])) -> BTreeMap<Role, Failure> {
    let mut scenario = Scenario::new();
    let config = scenario.remove(Role::Producer);
    let mut running = scenario.start();
    let plan = config.computation.plan().unwrap();
    let mut links = net::connect(&config, &plan, &Stop::default(), &Refusals::default()).unwrap();
    act(&mut links);
    let failures = failures(&mut running);
    drop(links);
    failures
}

#[test]
fn messages_that_do_not_belong_end_the_run_with_their_step() {
    let plan = Computation::of_network("A", 1, NumberFormat::Int64).plan().unwrap();
    let product = |step: &spdz::plan::Step| step.operation.product().is_some();
    let first = plan.steps().iter().position(product).unwrap();
    let place = format!("offline step {first} (matmul of fc1), inference 0");
    let key = Bytes::from_static(&[9; 32]);
    let setup = |step| Tag::new(Phase::Setup, 0, step);
    type Act = Box<dyn FnOnce(&mut [net::Link])>;
    let cases: [(Act, &str); 3] = [
        (
            Box::new({
                let key = key.clone();
                move |links| links.iter_mut().for_each(|l| l.send(setup(1), key.clone()).unwrap())
            }),
            "setup step 0: producer sent the message of setup step 1",
        ),
        (
            Box::new({
                let key = key.slice(..31);
                move |links| links.iter_mut().for_each(|l| l.send(setup(0), key.clone()).unwrap())
            }),
            "setup step 0: producer sent 31 bytes, expected 32",
        ),
        (
            Box::new(move |links| {
                for link in links.iter_mut() {
                    link.send(setup(0), key.clone()).unwrap();
                    // Far more than the plan allows for the first product.
                    let tag = Tag::new(Phase::Offline, 0, first as u32);
                    link.send(tag, Bytes::from(vec![0; 1 << 20])).unwrap();
                }
            }),
            &format!("{place}: producer sent 1048576 bytes"),
        ),
    ];
    for (act, expected) in cases {
        let failures = with_rogue_producer(act);
        let messages: Vec<_> = failures.values().map(|f| (f.code, f.message.as_str())).collect();
        let named =
            |(code, message): &(Option<i32>, &str)| *code == Some(3) && message.contains(expected);
        assert!(messages.iter().any(named), "{expected}: {messages:?}");
    }
}

#[test]
fn a_peer_that_falls_silent_is_named_within_the_deadline() {
    let start = Instant::now();
    let failures = with_rogue_producer(|_| {});
    assert!(start.elapsed() < Duration::from_secs_f64(3.0 * DEADLINE + 3.0));
    for role in [Role::Server0, Role::Server1] {
        assert_eq!(failures[&role].code, Some(4), "{failures:?}");
    }
    let silent = |f: &Failure| f.message.contains("setup step 0: producer sent nothing for 2 s");
    assert!(failures.values().any(silent), "{failures:?}");
}

#[test]
fn a_peer_that_asks_and_does_not_listen_costs_no_more_than_the_agreed_memory() {
    // Server 0, in this process, asks the producer for one inference after the
    // other and never takes what it makes.
    let mut scenario = Scenario::new();
    scenario.configs.iter_mut().for_each(|config| config.computation.batch_size = Some(64));
    let config = scenario.remove(Role::Server0);
    let mut running = scenario.start();
    let plan = config.computation.plan().unwrap();
    let mut links = net::connect(&config, &plan, &Stop::default(), &Refusals::default()).unwrap();
    let producer = links.iter_mut().find(|link| link.peer() == Role::Producer).unwrap();
    producer.recv(Tag::new(Phase::Setup, 0, 0), 32).unwrap();
    let prepare = Bytes::from_static(&[0]);
    // Ten times what the windows and the queue hold.
    for inference in 0..1000 {
        producer.send(Tag::new(Phase::Control, inference, 0), prepare.clone()).unwrap();
    }
    let failures = failures(&mut running);
    let producer = &failures[&Role::Producer];
    assert_eq!(producer.code, Some(4), "{failures:?}");
    assert!(producer.message.contains("took nothing for 2 s"), "{failures:?}");
}

/// The processes that this one started and that are still there.
fn children(parent: &Child) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // After the name, which is in brackets: state, parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let found = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()?;
        (found == parent.id()).then_some(pid)
    });
    entries.collect()
}

#[test]
fn however_a_run_is_ended_its_parties_end_and_no_key_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.json");
    fs::write(&graph, serde_json::to_string(&between_three(false)).unwrap()).unwrap();
    let players = PlayerInputs::new().write(folder.path());
    for (signal_sent, code, left) in [
        (Signal::INT, Some(130), 0),
        (Signal::TERM, Some(143), 0),
        (Signal::HUP, Some(129), 0),
        (Signal::KILL, None, 1),
    ] {
        let temporary = tempfile::tempdir_in(folder.path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.arg("run").arg(&graph).args(["--evaluations", "1000000"]);
        for (player, file) in &players {
            command.arg("--player").arg(format!("{player}={}", file.display()));
        }
        command.env("TMPDIR", temporary.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut run = command.spawn().unwrap();
        let inside = |ending: &str| {
            let folders = fs::read_dir(temporary.path()).unwrap();
            let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
            files
                .filter(|file| file.as_ref().unwrap().path().to_string_lossy().ends_with(ending))
                .count()
        };
        // Six parties, who are computing once their keys are gone.
        wait_for("six parties", || (children(&run).len() == 6).then_some(()));
        wait_for("the end of the keys", || {
            (inside(".yaml") == 6 && inside(".key") == 0).then_some(())
        });
        let parties = children(&run);
        signal(&run, signal_sent);
        assert_eq!(run.wait().unwrap().code(), code, "{signal_sent:?}");
        let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}/exe")).exists();
        let start = Instant::now();
        wait_for("the parties' end", || parties.iter().all(gone).then_some(()));
        assert!(start.elapsed() < Duration::from_secs(2), "{signal_sent:?}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), left, "{signal_sent:?}");
        assert_eq!(inside(".key"), 0, "{signal_sent:?}");
    }
}

#[test]
fn an_interrupted_run_leaves_no_process_behind() {
    let scenario = Scenario::new();
    let mut running = scenario.start();
    assert!(running.wait_for_progress(&AtomicBool::new(false)).is_ok());
    let roles: Vec<Role> = scenario.configs.iter().map(|config| config.role).collect();
    let ids: Vec<u32> =
        roles.iter().filter_map(|role| running.process(*role).map(|p| p.id())).collect();
    assert_eq!(ids.len(), 5);
    assert!(matches!(running.wait(&AtomicBool::new(true), |_| {}), Err(LaunchError::Interrupted)));
    drop(running);
    for id in ids {
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is left");
    }
}

#[test]
fn randomness_that_does_not_fit_ends_the_run_with_the_numbers() {
    let mut scenario = Scenario::new();
    let client = scenario.config(Role::CLIENT);
    client.workload.as_mut().unwrap().offline = OfflineMode::Ahead;
    for server in [Role::Server0, Role::Server1] {
        scenario.config(server).store = Some(Store::in_memory(1));
    }
    let failures = failures(&mut scenario.start());
    let by_code = |code| failures.values().filter(move |f| f.code == Some(code));
    // One of the servers may hear of it from the other.
    let full = "more than the 1 MB of `store.memoryMegabytes`";
    assert!(by_code(2).count() >= 1, "{failures:?}");
    assert!(by_code(2).all(|f| f.role.is_server() && f.message.contains(full)), "{failures:?}");
    let client = &failures[&Role::CLIENT];
    assert!(client.code == Some(4) && client.message.contains(full), "{failures:?}");
}

#[test]
fn randomness_that_does_not_fit_into_memory_waits_on_disk() {
    let on = |disk_megabytes| {
        measure(&Settings {
            offline: vec![OfflineMode::Ahead],
            store_megabytes: 1,
            store_disk_megabytes: disk_megabytes,
            warmup: 1,
            accuracy_samples: 40,
            ..table1("C", 2, 5)
        })
    };
    let error = format!("{:#}", on(0).unwrap_err());
    assert!(error.contains("more than the 1 MB of `store.memoryMegabytes`"), "{error}");
    let error = format!("{:#}", on(2).unwrap_err());
    assert!(error.contains("and the 2 MB of `store.diskMegabytes`"), "{error}");
    let run = on(64).unwrap().runs.remove(0).merged.unwrap();
    assert_eq!((run.repetitions, run.offline_mode), (5, OfflineMode::Ahead));
    assert!(run.accuracy.unwrap().agreement >= Some(0.97), "{:?}", run.accuracy);
}

/// `square(x w + y)`, of alice's `x` and bob's `w` and `y`, for carol; with `alice_learns`, alice
/// learns the mean.
fn between_three(alice_learns: bool) -> Graph {
    let g = GraphBuilder::named("between-three", ["alice", "bob", "carol"]);
    let x = g.share(g.local_input("alice", "x", [2, 3]));
    let w = g.private_variable("bob", "w", [3, 2]);
    let y = g.share(g.local_input("bob", "y", [2, 2]));
    let z = g.square(g.add(g.matmul(x, w), y));
    if alice_learns {
        g.output("mean", g.reveal("alice", g.reduce_mean(z, [0, 1])));
    }
    let z = g.reveal("carol", z);
    g.output("z", z);
    g.output("class", g.argmax(z));
    g.build().unwrap()
}

/// The inputs of alice and bob to four evaluations: alice three inputs in turn, bob always
/// the same.
struct PlayerInputs {
    x: Vec<f64>,
    w: Vec<f64>,
    y: Vec<f64>,
}

impl PlayerInputs {
    const EVALUATIONS: usize = 4;

    fn new() -> Self {
        Self { x: wave(3 * 6, 0.7), w: wave(6, 1.1), y: wave(4, 0.3) }
    }

    fn write(&self, folder: &Path) -> BTreeMap<Name, PathBuf> {
        let file = |player: &str| folder.join(format!("{player}.safetensors"));
        write_tensors(&file("alice"), &[("x", Dtype::F64, vec![3, 2, 3], &self.x)]);
        let w = ("w", Dtype::F32, vec![3, 2], &self.w[..]);
        write_tensors(&file("bob"), &[w, ("y", Dtype::F64, vec![2, 2], &self.y)]);
        ["alice", "bob"].map(|player| (player.parse().unwrap(), file(player))).into()
    }

    fn plaintext_outputs(&self, graph: &Graph, evaluation: usize) -> BTreeMap<Name, Tensors> {
        let tensors = |tensors: &[(&str, [usize; 2], &[f64])]| -> Tensors {
            let tensor = |(name, shape, values): &(&str, [usize; 2], &[f64])| {
                ((*name).to_owned(), Plaintext::new(*shape, values.to_vec()).unwrap())
            };
            tensors.iter().map(tensor).collect()
        };
        let x = &self.x[evaluation % 3 * 6..][..6];
        let bob = tensors(&[("w", [3, 2], &self.w), ("y", [2, 2], &self.y)]);
        let inputs = [("alice", tensors(&[("x", [2, 3], x)])), ("bob", bob)];
        let inputs = inputs.map(|(player, tensors)| (player.parse().unwrap(), tensors));
        graph.evaluate_plaintext(&inputs.into()).unwrap()
    }

    /// Checks the files that players wrote.
    fn check(&self, graph: &Graph, outputs: &BTreeMap<Name, PathBuf>) {
        for (player, path) in outputs {
            for (name, shape) in graph.outputs_of(*player) {
                let (found_shape, found) = read_tensor(path, &name);
                assert_eq!(found_shape, [&[Self::EVALUATIONS][..], &shape].concat());
                let expected = (0..Self::EVALUATIONS).flat_map(|k| {
                    self.plaintext_outputs(graph, k)[player][&name].as_slice().to_vec()
                });
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() < 5e-3, "{player} {name} {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn a_sweep_scores_its_networks_and_runs_its_graphs_once() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph.json");
    fs::write(&graph, serde_json::to_string(&between_three(false)).unwrap()).unwrap();
    let players = PlayerInputs::new().write(folder.path());
    let settings = Settings {
        graphs: vec![GraphFile { file: graph, players }],
        accuracy_samples: 200,
        ..table1("A", 1, 3)
    };
    let results = measure(&settings).unwrap();
    let accuracy = |name: &str| {
        let run = results.runs.iter().find(|run| run.key.network == name).unwrap();
        let merged = run.merged.as_ref().unwrap();
        (merged.repetitions, merged.accuracy.as_ref().map(|accuracy| accuracy.samples))
    };
    assert_eq!(accuracy("A"), (3, Some(200)));
    assert_eq!(accuracy("between-three"), (3, None));
}

#[test]
fn six_processes_compute_a_graph_between_three_players() {
    for (alice_learns, truncation, offline) in [
        // Carol, who only receives, commands.
        (false, Truncation::Local, OfflineMode::Inline),
        // Alice commands, and carol follows.
        (true, Truncation::Interactive, OfflineMode::Ahead),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let graph = between_three(alice_learns);
        let path = folder.path().join("graph.json");
        fs::write(&path, serde_json::to_string(&graph).unwrap()).unwrap();
        let inputs = PlayerInputs::new();
        let learners = if alice_learns { vec!["alice", "carol"] } else { vec!["carol"] };
        let output = |player: &str| {
            // The same name but for the ending: they are written at the same time.
            (player.parse().unwrap(), folder.path().join(format!("output.{player}")))
        };
        let outputs: BTreeMap<Name, PathBuf> = learners.iter().map(|p| output(p)).collect();
        let run = Run {
            graph: path,
            inputs: inputs
                .write(folder.path())
                .into_iter()
                .map(|(player, path)| (player, vec![Source { tensor: None, path }]))
                .collect(),
            outputs: outputs.clone(),
            format: NumberFormat::Int64,
            truncation: Some(truncation),
            evaluations: PlayerInputs::EVALUATIONS as u64,
            offline,
            store: Store::default(),
            threads: None,
            party: party_program(),
            transport: Transport::default(),
        };
        let report: Report = run.run(&AtomicBool::new(false)).unwrap();
        inputs.check(&graph, &outputs);
        assert_eq!(report.processes, 6);
        let result = &report.result;
        assert_eq!((result.network.as_str(), result.batch_size), ("between-three", 1));
        assert_eq!((result.repetitions, result.offline_mode), (4, offline));
        assert!(result.online.mean_ms > 0.0 && result.offline.mean_ms > 0.0);
        assert_eq!(result.accuracy, None);
    }
}

#[test]
fn the_run_command_says_what_it_needs_and_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let graph = between_three(true);
    fs::write(place("graph.yaml"), serde_yaml::to_string(&graph).unwrap()).unwrap();
    let bench = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        let graph = place("graph.yaml");
        let output = command.args(["run", &graph, "--evaluations=4"]).args(options).output();
        let output = output.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, _, error) = bench(&[]);
    assert_eq!(code, Some(2), "the command line is wrong");
    assert!(error.contains("--player bob=FILE, safetensors with w [3, 2], y [2, 2]"), "{error}");

    let inputs = PlayerInputs::new();
    let files = inputs.write(folder.path());
    let player =
        |name: &str| format!("--player={name}={}", files[&name.parse().unwrap()].display());
    let carol = place("carol.safetensors");
    let (alice, bob, output) = (player("alice"), player("bob"), format!("--output=carol={carol}"));
    let (code, table, error) = bench(&[&alice, &bob, &output]);
    assert_eq!(code, Some(0), "{error}");
    inputs.check(&graph, &BTreeMap::from([("carol".parse().unwrap(), carol.clone().into())]));
    for expected in ["Int64, Local truncation, 6 processes, evaluations: 4", "online", &carol] {
        assert!(table.contains(expected), "{table}");
    }
    assert!(table.contains("of evaluations fail by local truncation"), "{table}");
    assert!(table.contains("outputs of alice: not kept, --output alice=FILE"), "{table}");
    assert!(table.contains("\n  mean [] = "), "small outputs are shown: {table}");

    // For programs the same numbers, of each of the four evaluations.
    let (code, json, error) = bench(&[&alice, &bob, &output, "--json", "--quiet"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let obtained = json["outputs"].as_array().unwrap();
    let mean = obtained.iter().find(|obtained| obtained["player"] == "alice").unwrap();
    assert_eq!(mean["outputs"][0]["values"].as_array().unwrap().len(), 4, "{json}");

    // A party's refusal is the command's.
    write_tensors(&files[&"bob".parse().unwrap()], &[("w", Dtype::F64, vec![2, 3], &inputs.w)]);
    let (code, _, error) = bench(&[&alice, &bob, &output]);
    assert_eq!(code, Some(1));
    assert!(error.contains("bob (exit code 2)") && error.contains("w has shape [2, 3]"), "{error}");

    // An input out of range is found in its file, before anybody is connected.
    let (mut x, files) = (inputs.x.clone(), inputs.write(folder.path()));
    x[0] = 2000.0;
    let shape = vec![3, 2, 3];
    write_tensors(&files[&"alice".parse().unwrap()], &[("x", Dtype::F64, shape, &x)]);
    let (code, _, error) = bench(&[&alice, &bob, &output]);
    assert_eq!(code, Some(1));
    assert!(error.contains("alice.safetensors: row 0 of x, element 0: not a number"), "{error}");
}

#[test]
fn what_a_killed_command_leaves_the_next_one_removes() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let scratch = place("tmp");
    fs::create_dir(&scratch).unwrap();
    let g = GraphBuilder::named("twice", ["alice"]);
    let x = g.private_input("alice", [2]);
    g.private_output("alice", g.add(x, x));
    let graph = serde_json::to_string(&g.build().unwrap()).unwrap();
    fs::write(place("graph.json"), graph).unwrap();
    fs::write(place("x.csv"), "0.5,1.5\n").unwrap();
    let command = |evaluations: u64| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
        command.arg("run").arg(place("graph.json")).env("TMPDIR", &scratch);
        command.arg(format!("--evaluations={evaluations}"));
        command.arg(format!("--player=alice={}", place("x.csv").display()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    // Its own, and not those of its parties, which end when it does.
    let left = || {
        let folders = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path());
        folders.filter(|path| path.join("alice-x.csv.safetensors").exists()).count()
    };
    let mut running = command(1_000_000).spawn().unwrap();
    let start = Instant::now();
    while left() == 0 {
        assert!(start.elapsed() < Duration::from_secs(60) && running.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Another command leaves what is in use.
    assert!(command(1).status().unwrap().success());
    assert_eq!(left(), 1);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(left(), 1, "nobody is there to remove it");
    assert!(command(1).status().unwrap().success());
    assert_eq!(left(), 0);
}

#[test]
fn outputs_out_of_range_fail_the_command_and_are_told_by_whoever_learns_them() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let g = GraphBuilder::named("fivefold", ["alice", "carol"]);
    let x = g.private_input("alice", [1]);
    let y = g.add(g.scale(x, 4.0), x);
    g.private_output("alice", y);
    g.private_output("carol", y);
    let graph = g.build().unwrap();
    fs::write(place("graph.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    let brings = graph.inputs_of("alice".parse().unwrap());
    let rows = [1.5, 913.25, -2.0];
    let input = (brings[0].name.as_str(), Dtype::F64, vec![3, 1], &rows[..]);
    write_tensors(place("x.safetensors").as_ref(), &[input]);
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["run", &place("graph.json"), "--evaluations=3"])
        .arg(format!("--player=alice={}", place("x.safetensors")))
        .arg(format!("--output=alice={}", place("alice.safetensors")))
        .arg(format!("--output=carol={}", place("carol.safetensors")))
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for player in ["alice", "carol"] {
        assert!(error.contains(&format!("{player} (exit code 2)")), "{error}");
        let path = PathBuf::from(place(&format!("{player}.safetensors")));
        let (name, _) = graph.outputs_of(player.parse().unwrap()).remove(0);
        let (_, found) = read_tensor(&path, &name);
        assert!((found[0] - 7.5).abs() < 0.01 && (found[2] + 10.0).abs() < 0.01, "{found:?}");
        assert!(found[1].is_nan(), "{found:?}");
    }
    let said = "the outputs of 1 of 3 evaluations are out of range";
    assert_eq!(error.matches(said).count(), 2, "{error}");
    // Neither inputs nor outputs.
    assert!(!error.contains("913") && !error.contains("4566"), "{error}");
}
