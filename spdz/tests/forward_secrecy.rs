//! What is left in the memory of a process that ran all roles: the keys of evaluations to come,
//! and nothing from which those before follow.
//!
//! The test starts itself again as that process, which stops between two evaluations, and reads
//! all its memory.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use spdz::channel::{MemoryChannel, Name, Role, memory_pair};
use spdz::graph::{GraphBuilder, Plaintext, Tensors};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::prg::{Purpose, Seed, SessionId};
use spdz::ratchet::Ratchet;
use spdz::ring::{Int64, Side};
use spdz::role::{Memory, Player, Producer, Server, ServerLinks};

/// Set for the process that runs the roles.
const RUN: &str = "SPDZ_TEST_RUNS_ALL_ROLES";

const SESSION: SessionId = SessionId([3; 16]);
const DONE: u64 = 3;

fn plan() -> Arc<Plan> {
    let g = GraphBuilder::new(["alice"]);
    let w = g.share(g.local_variable("alice", "w", [4]));
    let x = g.share(g.local_input("alice", "x", [4]));
    g.output("y", g.reveal("alice", g.square(g.mul(x, w))));
    let graph = g.build().unwrap();
    Arc::new(Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap())
}

/// Runs `DONE` evaluations, prepares one more, says so and waits for ever.
fn run_all_roles() {
    let (plan, alice): (_, Name) = (plan(), "alice".parse().unwrap());
    let pair = |x, y| memory_pair(x, y, Duration::from_secs(60));
    let (s0_s1, s1_s0) = pair(Role::Server0, Role::Server1);
    let (s0_p, p_s0) = pair(Role::Server0, Role::Producer);
    let (s1_p, p_s1) = pair(Role::Server1, Role::Producer);
    let (s0_a, a_s0) = pair(Role::Server0, Role::Player(alice));
    let (s1_a, a_s1) = pair(Role::Server1, Role::Player(alice));
    for (side, key, other, producer, player) in
        [(Side::Zero, 1, s0_s1, s0_p, s0_a), (Side::One, 0, s1_s0, s1_p, s1_a)]
    {
        let plan = plan.clone();
        thread::spawn(move || {
            let links = ServerLinks { other, producer, players: vec![(alice, player)] };
            let nobody: &mut [(Name, MemoryChannel)] = &mut [];
            let fresh = Seed::from_bytes([key; 32]);
            let set_up = Server::<Int64, _>::set_up(plan, SESSION, side, fresh, links, nobody);
            set_up.unwrap().serve(&mut Memory::default())
        });
    }
    thread::spawn({
        let plan = plan.clone();
        move || {
            let root = Seed::from_bytes([2; 32]);
            let set_up = Producer::<Int64, _>::set_up(plan, SESSION, root, [p_s0, p_s1]);
            set_up.unwrap().serve()
        }
    });
    let tensor =
        |name: &str, value| (name.to_owned(), Plaintext::new([4], vec![value; 4]).unwrap());
    let inputs = Tensors::from([tensor("w", 0.5), tensor("x", 3.0)]);
    let mut player = Player::<Int64, _>::set_up(plan, alice, &inputs, [a_s0, a_s1]).unwrap();
    for _ in 0..DONE {
        let ready = player.prepare().unwrap();
        let outputs = player.evaluate(ready, &inputs).unwrap();
        assert!((outputs["y"].as_slice()[0] - 2.25).abs() < 0.01);
    }
    let _ready = player.prepare().unwrap();
    println!("prepared");
    thread::park();
}

/// All that a process has written, by its mappings.
fn memory(process: u32) -> Vec<Vec<u8>> {
    let mappings = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let writable =
        mappings.lines().filter(|line| line.split(' ').nth(1).unwrap().starts_with("rw"));
    let mut found = Vec::new();
    for line in writable {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|place| u64::from_str_radix(place, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            found.push(bytes);
        }
    }
    found
}

fn count(memory: &[Vec<u8>], secret: &[u8]) -> usize {
    memory.iter().map(|bytes| memmem(bytes, secret)).sum()
}

fn memmem(bytes: &[u8], secret: &[u8]) -> usize {
    // Keys and shares lie on words.
    bytes
        .chunks_exact(8)
        .zip(0..)
        .filter(|(word, _)| *word == &secret[..8])
        .map(|(_, at)| at)
        .filter(|at: &usize| bytes[8 * at..].starts_with(secret))
        .count()
}

#[test]
fn a_seized_process_holds_no_key_of_an_evaluation_before() {
    const NAME: &str = "a_seized_process_holds_no_key_of_an_evaluation_before";
    if std::env::var_os(RUN).is_some() {
        run_all_roles();
    }
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(RUN, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let prepared = lines.any(|line| line.unwrap().contains("prepared"));
    // The other roles come to rest.
    thread::sleep(Duration::from_millis(200));
    let memory = memory(process.id());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(prepared, "the process did not come that far");

    let plan = plan();
    let root = Seed::from_bytes([2; 32]);
    let (mut gone, mut held) = (Vec::new(), Vec::new());
    let mut secret = |list: usize, name: String, bytes: &[u8]| {
        [&mut gone, &mut held][list].push((name, bytes.to_vec()));
    };
    let bind = |seed: &Seed| seed.bind(SESSION, &plan.digest().0);
    let shared = [
        ("producer and server 0", root.derive(Purpose::ProducerServer0, 0, 0)),
        ("producer and server 1", root.derive(Purpose::ProducerServer1, 0, 0)),
        ("the servers", Seed::from_bytes([1; 32])),
    ];
    for (who, sent) in shared {
        let producers = who.starts_with("producer");
        if producers {
            secret(0, format!("the key that {who} agreed on"), sent.expose());
        }
        secret(0, format!("the same, bound to the session, of {who}"), bind(&sent).expose());
        let (set_up, mut ratchet) = Ratchet::split(bind(&sent));
        secret(0, format!("the key of the set-up of {who}"), set_up.expose());
        for k in 0..DONE {
            let key = ratchet.key(k).unwrap();
            secret(0, format!("key {k} of {who}"), key.expose());
            for step in 0..plan.steps().len() as u32 {
                for purpose in [Purpose::InputMask, Purpose::OpeningMask, Purpose::Generated] {
                    let seed = key.derive(purpose, k, step);
                    secret(0, format!("{purpose:?} {k} {step} of {who}, seed"), seed.expose());
                    let mut drawn = [0; 16];
                    seed.into_stream().fill(&mut drawn);
                    secret(0, format!("{purpose:?} {k} {step} of {who}, drawn"), &drawn);
                }
            }
        }
        // The evaluation that is prepared and not run: the mask of its input waits at both
        // servers, and its seed at the player.
        let next = ratchet.key(DONE).unwrap();
        if producers {
            secret(0, format!("key {DONE} of {who}, used"), next.expose());
            let input = plan.inputs()[1].step as u32;
            let seed = next.derive(Purpose::InputMask, DONE, input);
            secret(1, format!("seed of the input's mask {DONE} of {who}"), seed.expose());
        }
    }
    let found: Vec<_> =
        gone.iter().filter(|(_, bytes)| count(&memory, bytes) > 0).map(|(name, _)| name).collect();
    let missing: Vec<_> =
        held.iter().filter(|(_, bytes)| count(&memory, bytes) == 0).map(|(name, _)| name).collect();
    // What is to come is there: the search finds what a process holds.
    assert!(missing.is_empty(), "not found: {missing:#?}");
    assert!(found.is_empty(), "still in memory: {found:#?}");
    std::io::stdout().flush().unwrap();
}
