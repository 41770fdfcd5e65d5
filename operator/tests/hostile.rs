//! Resources of a hostile or careless tenant: each is refused soon, or validated while all
//! else goes on, within the memory that the operator has.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod hostile_resources;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use operator::api::v1alpha1::{SecureInference, SecureInferenceSpec};
use operator::health::Status;
use operator::job::{MAX_FITS, MAX_LEVELS, MAX_PARTS, stem};
use operator::metrics::Metrics;
use operator::policy::Policy;
use operator::validator::{Validated, Validator};
use peak_alloc::PeakAlloc;
use serde_json::json;
use spdz::channel::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use hostile_resources::{Hostile, accepted, layouts, model, refused};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What the operator's container may take, bytes (`resources.limits.memory` of the chart).
const MEMORY: usize = 128 << 20;

/// The longest that a health probe may wait: its time-out in the chart is a second.
const HEALTHY: Duration = Duration::from_millis(900);

/// The most processor time of a refusal: reading half a mebibyte takes most.
const SOON: Duration = Duration::from_secs(2);

fn resource(uid: &str, players: &[String], definition: &str) -> SecureInference {
    serde_json::from_value(json!({
        "apiVersion": "secureinference.dev/v1alpha1",
        "kind": "SecureInference",
        "metadata": { "name": uid, "namespace": "lab", "uid": uid, "generation": 1 },
        "spec": { "model": model(players, definition) },
    }))
    .unwrap()
}

/// The longest that a health probe waited until `stop`.
async fn probe(address: SocketAddr, stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let began = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("alive\n"), "{answer}");
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    longest
}

/// The processor time of this process, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which is in brackets: user and system time are the 12th and 13th.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

/// Validates a resource as the controller does: asks again when it is woken.
async fn validate(
    validator: &Arc<Validator<String>>,
    woken: &mut UnboundedReceiver<String>,
    resource: &SecureInference,
) -> Validated {
    let uid = resource.metadata.uid.clone().unwrap();
    loop {
        if let Some(validated) = validator.validate(resource, uid.clone()).await {
            return validated;
        }
        while woken.recv().await.unwrap() != uid {}
    }
}

#[test]
fn what_a_hostile_tenant_writes_stops_nobody() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let health = Status { metrics: Metrics::new().unwrap(), ready: Arc::default() };
        let listener = party::http::listen(free).unwrap();
        tokio::spawn(party::http::serve(listener, Arc::new(health)));
        while TcpStream::connect(free).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (wake, mut woken) = unbounded_channel();
        let validator = Validator::new(Policy::default(), move |uid: String| drop(wake.send(uid)));
        let known = resource("known", &["p0".to_owned()], &layouts(1));
        let job = validate(&validator, &mut woken, &known).await.unwrap();

        let rows: Vec<_> = refused().into_iter().chain(accepted()).collect();
        let mut problems = Vec::new();
        let before = HEAP.current_usage();
        for (number, Hostile { name, players, definition, refusal }) in rows.iter().enumerate() {
            let resource = resource(&format!("r-{number}"), players, definition);
            HEAP.reset_peak_usage();
            let stop = Arc::new(AtomicBool::new(false));
            let probing = tokio::spawn(probe(free, stop.clone()));
            let (began, worked) = (Instant::now(), cpu());
            // Meanwhile another resource goes on.
            let (validated, other) = tokio::join!(
                validate(&validator, &mut woken, &resource),
                validator.validate(&known, "known".into()),
            );
            let other = other.expect("known already").unwrap();
            assert!(Arc::ptr_eq(&other, &job), "validated once for each generation");
            let (took, worked) = (began.elapsed(), cpu() - worked);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let longest = probing.await.unwrap();
            let peak = HEAP.peak_usage().saturating_sub(before);
            let found = validated.as_ref().err();
            println!(
                "{name}: {took:?}, CPU {worked:?}, {peak} bytes, probes {longest:?}, {found:?}"
            );
            let mut expect = |holds: bool, what: String| {
                if !holds {
                    problems.push(format!("{name}: {what}"));
                }
            };
            expect(peak < MEMORY, format!("{peak} bytes"));
            expect(longest < HEALTHY, format!("a probe waited {longest:?}"));
            match (validated.map_err(|refusal| refusal.0), refusal) {
                (Err(found), Some(refusal)) => {
                    expect(found.contains(refusal), found);
                    expect(worked < SOON, format!("{worked:?}"));
                }
                (validated, refusal) => expect(
                    validated.is_ok() && refusal.is_none(),
                    format!("{:?}, expected {refusal:?}", validated.err()),
                ),
            }
        }
        assert!(problems.is_empty(), "{problems:#?}");
    });
}

/// A resource as a tenant wrote it.
fn written(text: &str) -> Vec<SecureInference> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_tenant_does_not_have_the_operator_mount_what_is_not_the_tenants() {
    let [deputy] = &written(include_str!("hostile_resources/deputy.json"))[..] else {
        panic!("one resource");
    };
    // Each thing that it asks for is refused, not the first alone.
    let mut spec = deputy.spec.clone();
    let mut reasons = Vec::new();
    let mut refused = |spec: &SecureInferenceSpec| {
        reasons.push(Policy::default().check(spec).unwrap_err().0);
    };
    refused(&spec);
    spec.parties.image = None;
    for player in ["a", "b", "c"] {
        refused(&spec);
        let players = &mut spec.model.graph.as_mut().unwrap().players;
        players.get_mut(player).unwrap().source = None;
    }
    refused(&spec);
    spec.parties.pods.tolerations = None;
    refused(&spec);
    spec.parties.pods.node_selector = None;
    assert!(Policy::default().check(&spec).is_ok());
    for (reason, expected) in reasons.iter().zip([
        "spec.parties.image is attacker.example/img:1",
        "players.a.source is a volume of kind secret",
        "players.b.source is a volume of kind projected",
        "players.c.source is a volume of kind hostPath",
        "spec.parties.tolerations tolerates every taint",
        "spec.parties.nodeSelector has node-role.kubernetes.io/control-plane",
    ]) {
        assert!(reason.contains(expected), "{reason}\nexpected: {expected}");
    }
    assert_eq!(reasons.len(), 6);
}

#[test]
fn a_tenant_does_not_have_the_objects_of_others_overwritten() {
    let text = include_str!("hostile_resources/collide.json");
    let [player, victim] = &written(text)[..] else { panic!("two resources") };
    let found = Policy::default().job(player).unwrap_err().0;
    assert!(found.contains("\"1-server0\" is no player's name; expected"), "{found}");
    // Nor with a name that is one, of which each part may be taken for another's.
    let victim = Policy::default().job(victim).unwrap();
    for (name, role) in [("a-1", "server0"), ("a", "a-1-server0"), ("a-1-1", "server0")] {
        let uid = format!("uid-of-{name}");
        let stranger = object_name(&stem(name, &uid), 1, role);
        assert_ne!(stranger, victim.object_name(1, Role::Server0));
    }
}

fn object_name(stem: &str, attempt: u32, role: &str) -> String {
    format!("{stem}-{attempt}-{role}")
}

#[test]
fn the_page_of_graphs_has_the_limits() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/graph.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (what, most) in [
        ("names, numbers and ends of lists", MAX_PARTS),
        ("lists within each other", MAX_LEVELS),
        ("fits", MAX_FITS),
    ] {
        assert!(page.contains(&format!("| {what} | {most} |")), "{what}");
    }
}
