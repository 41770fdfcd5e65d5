//! Five processes on real images, and everything that can go wrong between them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bench::launch::local::{self, Failure, Job, LaunchError};
use bench::table1::Table1;
use bytes::Bytes;
use party::config::{Computation, Deadlines, PartyConfig, Transport, Workload};
use party::net;
use spdz::channel::{Channel, Phase, Role, Tag};
use spdz::plan::{NumberFormat, Truncation};
use tempfile::TempDir;

/// Parties wait this long for each other in tests of failures, seconds.
const DEADLINE: f64 = 2.0;

fn party_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("party");
    assert!(path.is_file(), "{} is missing: run cargo build -p party first", path.display());
    path
}

fn own_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A run of network A with so many inferences that it does not end by itself.
struct Scenario {
    folder: TempDir,
    configs: Vec<PartyConfig>,
}

impl Scenario {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let job = Job {
            computation: Computation {
                network: "A".into(),
                format: NumberFormat::Int64,
                truncation: Truncation::Local,
                batch_size: 1,
            },
            weights: own_folder("models/a.safetensors"),
            workload: Workload {
                images: own_folder("data/t10k-images-idx3-ubyte.gz"),
                warmup: 0,
                repetitions: 1_000_000,
                accuracy: None,
                result: folder.path().join("result.json"),
            },
            deadlines: Deadlines { connect_seconds: DEADLINE, message_seconds: DEADLINE },
            transport: Transport::default(),
        };
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

#[test]
fn five_processes_classify_real_images() {
    for (network, batch_size, rounds) in [("A", 1, 6), ("B", 3, 9), ("C", 16, 9)] {
        let table = Table1 {
            networks: vec![network.into()],
            formats: vec![NumberFormat::Int64],
            batch_size,
            repetitions: 3,
            warmup: 1,
            // No multiple of the batches: the last is padded.
            accuracy_samples: 500,
            data: own_folder("data"),
            models: own_folder("models"),
            party: party_program(),
            transport: Transport::default(),
        };
        let results = table.run(&AtomicBool::new(false)).unwrap();
        let run = &results.runs[0];
        let accuracy = run.accuracy.unwrap();
        assert_eq!((run.batch_size, run.repetitions, run.online_rounds), (batch_size, 3, rounds));
        assert_eq!(accuracy.samples, 500);
        assert!(accuracy.secure >= 0.99 && accuracy.plaintext >= 0.99, "{accuracy:?}");
        assert!(accuracy.agreement >= 0.998, "{accuracy:?}");
        assert!((0.0..=1e-6).contains(&accuracy.mean_kl_divergence), "{accuracy:?}");
        assert!(run.online.mean_ms > 0.0 && run.offline.mean_ms > 0.0);
        let sum = run.online.mean_ms + run.offline.mean_ms;
        assert!((run.combined.mean_ms - sum).abs() < 1e-9);
        assert!(run.online_bytes > 0 && run.offline_bytes > 0);
    }
}

#[test]
fn online_bytes_are_what_the_plan_says() {
    let table = Table1 {
        networks: vec!["C".into()],
        formats: vec![NumberFormat::Int64],
        batch_size: 1,
        repetitions: 5,
        warmup: 0,
        accuracy_samples: 0,
        data: own_folder("data"),
        models: own_folder("models"),
        party: party_program(),
        transport: Transport::default(),
    };
    let run = table.run(&AtomicBool::new(false)).unwrap().runs.remove(0);
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
fn a_party_that_dies_mid_run_is_named_by_those_who_talk_to_it() {
    // The model owner is not among them: once it is done, nobody needs it.
    for victim in [Role::Server0, Role::Server1, Role::Producer, Role::Client] {
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

#[test]
fn two_plans_are_refused_before_any_share_moves() {
    let mut scenario = Scenario::new();
    scenario.config(Role::Client).computation.batch_size = 2;
    let failures = failures(&mut scenario.start());
    let message = &failures[&Role::Client].message;
    assert_eq!(failures[&Role::Client].code, Some(3));
    assert!(message.contains("has another plan") && message.contains("batch 1"), "{message}");
    // Nobody takes it for something that another attempt could mend.
    assert!(failures.values().all(|f| f.code == Some(3)), "{failures:?}");
    // The set-up, in which shares and keys would move, was never reached.
    for role in ["server0", "server1", "producer", "model-owner"] {
        let log = std::fs::read_to_string(scenario.folder.path().join(format!("{role}.log")));
        assert!(!log.unwrap().contains("masked model"), "{role}");
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
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for (weights, expected) in [(path, "truncated"), (wrong_network, "fc1.weight")] {
        scenario.config(Role::ModelOwner).model.as_mut().unwrap().weights = weights;
        let failures = failures(&mut scenario.start());
        assert_eq!(failures[&Role::ModelOwner].code, Some(2));
        let message = &failures[&Role::ModelOwner].message;
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_weight_out_of_range_is_told_to_its_owner_alone() {
    let mut scenario = Scenario::new();
    let network = spdz::network::Network::a();
    let path = scenario.folder.path().join("huge.safetensors");
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = network
        .parameters()
        .unwrap()
        .into_iter()
        .map(|parameter| {
            let value: f32 = if parameter.name == "fc2.bias" { 54_321.5 } else { 1.0 };
            let len: usize = parameter.shape.iter().product();
            (parameter.name, parameter.shape, value.to_le_bytes().repeat(len))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data);
        (name, view.unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    scenario.config(Role::ModelOwner).model.as_mut().unwrap().weights = path;
    let failures = failures(&mut scenario.start());
    let own = &failures[&Role::ModelOwner];
    assert_eq!(own.code, Some(2));
    assert!(own.message.contains("fc2.bias") && own.message.contains("54321"), "{own}");
    for role in Role::ALL.into_iter().filter(|role| *role != Role::ModelOwner) {
        assert_eq!(failures[&role].code, Some(4), "{failures:?}");
        let log = std::fs::read_to_string(scenario.folder.path().join(format!("{role}.log")));
        assert!(!log.unwrap().contains("54321"), "{role} learned the weight");
    }
}

#[test]
fn another_roles_or_another_sessions_certificate_opens_nothing() {
    // Another session's: the right role, but from another authority.
    let mut scenario = Scenario::new();
    let stranger = Scenario::new();
    let identity = stranger.configs.iter().find(|c| c.role == Role::Client).unwrap();
    let (identity, session) = (identity.identity.clone(), identity.session);
    let client = scenario.config(Role::Client);
    client.identity = identity;
    client.session = session;
    let found = failures(&mut scenario.start());
    assert_eq!(found[&Role::Client].code, Some(3), "{found:?}");
    let refused = &found[&Role::Server0].message;
    assert!(refused.contains("client did not connect") && refused.contains("refused"), "{refused}");

    // Another role's: server0's certificate is genuine, but server0 does not dial server1.
    let mut scenario = Scenario::new();
    let server0 = scenario.config(Role::Server0).identity.clone();
    scenario.config(Role::Client).identity = server0;
    let found = failures(&mut scenario.start());
    assert_eq!(found[&Role::Client].code, Some(2));
    let message = &found[&Role::Client].message;
    assert!(message.contains("not the certificate of client"), "{message}");
}

/// A producer in this process, connected to real servers; what it does next is the test's.
fn with_rogue_producer(act: impl FnOnce(&mut [net::Link])) -> BTreeMap<Role, Failure> {
    let mut scenario = Scenario::new();
    let config = scenario.remove(Role::Producer);
    let mut running = scenario.start();
    let plan = config.computation.plan().unwrap();
    let mut links = net::connect(&config, &plan).unwrap();
    act(&mut links);
    let failures = failures(&mut running);
    drop(links);
    failures
}

#[test]
fn messages_that_do_not_belong_end_the_run_with_their_step() {
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
                    let tag = Tag::new(Phase::Offline, 0, 1);
                    link.send(tag, Bytes::from(vec![0; 1 << 20])).unwrap();
                }
            }),
            "offline step 1 (matmul of fc1), inference 0: producer sent 1048576 bytes",
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
    scenario.configs.iter_mut().for_each(|config| config.computation.batch_size = 64);
    let config = scenario.remove(Role::Server0);
    let mut running = scenario.start();
    let plan = config.computation.plan().unwrap();
    let mut links = net::connect(&config, &plan).unwrap();
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

#[test]
fn an_interrupted_run_leaves_no_process_behind() {
    let scenario = Scenario::new();
    let mut running = scenario.start();
    assert!(running.wait_for_progress(&AtomicBool::new(false)).is_ok());
    let ids: Vec<u32> =
        Role::ALL.iter().filter_map(|role| running.process(*role).map(|p| p.id())).collect();
    assert!(matches!(running.wait(&AtomicBool::new(true), |_| {}), Err(LaunchError::Interrupted)));
    drop(running);
    for id in ids {
        assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is left");
    }
}
