//! Resources of a hostile or careless tenant: each is refused soon, or validated while all
//! else goes on, within the memory that the operator has.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use operator::api::v1alpha1::{MAX_GRAPH_BYTES, SecureInference, SecureInferenceSpec};
use operator::health::Status;
use operator::job::{MAX_FITS, MAX_LEVELS, MAX_PARTS, stem};
use operator::metrics::Metrics;
use operator::policy::Policy;
use operator::validator::{Validated, Validator};
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};
use spdz::channel::Role;
use spdz::graph::{MAX_NODES, MAX_POLYNOMIALS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What the operator's container may take, bytes (`resources.limits.memory` of the chart).
const MEMORY: usize = 128 << 20;

/// The longest that a health probe may wait: its time-out in the chart is a second.
const HEALTHY: Duration = Duration::from_millis(900);

/// The most processor time of a refusal: reading half a mebibyte takes most.
const SOON: Duration = Duration::from_secs(2);

/// A graph's definition, node by node.
struct Definition {
    text: String,
    nodes: usize,
}

impl Definition {
    fn of(players: &[String]) -> Self {
        let text = format!("name: g\nplayers: [{}]\nnodes:\n", players.join(", "));
        Self { text, nodes: 0 }
    }

    /// Appends a node; its number.
    fn node(&mut self, operation: &str) -> usize {
        writeln!(self.text, "- {{ label: l, operation: {{ op: {operation} }} }}").unwrap();
        self.nodes += 1;
        self.nodes - 1
    }

    /// A private input of a shape.
    fn private(&mut self, player: &str, name: &str, shape: &str) -> usize {
        let input = self.node(&format!("input, player: {player}, name: {name}, shape: {shape}"));
        self.node(&format!("share, input: {input}"))
    }

    /// The definition with an output of a private tensor.
    fn revealing(mut self, player: &str, tensor: usize) -> String {
        let revealed = self.node(&format!("reveal, input: {tensor}, player: {player}"));
        self.node(&format!("output, input: {revealed}, name: y"));
        self.text
    }
}

fn one() -> (Definition, usize) {
    let mut graph = Definition::of(&["p0".to_owned()]);
    let x = graph.private("p0", "x", "[1]");
    (graph, x)
}

/// Public windows that overlap: sums of a thousand million terms in a few lines.
fn overlapping_windows(players: usize) -> (Vec<String>, String) {
    let names: Vec<String> = (0..players).map(|player| format!("p{player}")).collect();
    let mut graph = Definition::of(&names);
    let private: Vec<String> =
        names.iter().map(|name| graph.private(name, "x", "[1]").to_string()).collect();
    let number = graph.node("constant, shape: [1, 1, 1, 1], values: [0.0]");
    let image = graph.node(&format!("expand, input: {number}, shape: [1, 1024, 512, 1]"));
    graph.node(&format!("sumPool, input: {image}, window: [48, 48], stride: [1, 1]"));
    let all = graph.node(&format!("concat, axis: 0, inputs: [{}]", private.join(", ")));
    (names, graph.revealing("p0", all))
}

/// A public matrix product of more terms than are accepted.
fn product() -> String {
    let (mut graph, x) = one();
    let number = graph.node("constant, shape: [1, 1], values: [0.5]");
    let left = graph.node(&format!("expand, input: {number}, shape: [150, 3000]"));
    let right = graph.node(&format!("transpose, input: {left}, axes: [1, 0]"));
    graph.node(&format!("matmul, left: {left}, right: {right}"));
    graph.revealing("p0", x)
}

/// Polynomials of the highest degree, each with all of its powers.
fn polynomials(count: usize, degree: usize) -> String {
    let (mut graph, mut x) = one();
    let coefficients = vec!["1"; degree + 1].join(",");
    for _ in 0..count {
        let polynomial = format!("{{ coefficients: [{coefficients}], range: 0.5 }}");
        x = graph.node(&format!("polynomial, input: {x}, polynomial: {polynomial}"));
    }
    graph.revealing("p0", x)
}

/// Fits, which are computed when the graph is read.
fn fits(count: usize) -> String {
    let (mut graph, mut x) = one();
    for _ in 0..count {
        let fit = "{ fit: { function: tanh, bound: 2, degree: 20 } }";
        x = graph.node(&format!("polynomial, input: {x}, polynomial: {fit}"));
    }
    graph.revealing("p0", x)
}

/// A row of public numbers added again and again to a large private tensor.
fn copies(sums: usize) -> String {
    let mut graph = Definition::of(&["p0".to_owned()]);
    let mut x = graph.private("p0", "x", "[512, 1000]");
    let values = (0..1000).map(|value| value.to_string()).collect::<Vec<_>>().join(",");
    let row = graph.node(&format!("constant, shape: [1000], values: [{values}]"));
    for _ in 0..sums {
        x = graph.node(&format!("add, left: {x}, right: {row}"));
    }
    graph.revealing("p0", x)
}

/// The same elements in another shape, again and again.
fn layouts(count: usize) -> String {
    let (mut graph, mut x) = one();
    for _ in 0..count {
        x = graph.node(&format!("reshape, input: {x}, shape: [1]"));
    }
    graph.revealing("p0", x)
}

/// Two tensors of different precision after each other, again and again.
fn repetitions(count: usize) -> String {
    let (mut graph, x) = one();
    let public = graph.node("constant, shape: [1], values: [0.3]");
    let y = graph.node(&format!("mul, left: {x}, right: {public}"));
    let inputs = vec![format!("{x},{y}"); MAX_NODES / 2].join(",");
    let concat = |graph: &mut Definition, inputs: &str| {
        graph.node(&format!("concat, axis: 0, inputs: [{inputs}]")).to_string()
    };
    let parts: Vec<String> = (0..count).map(|_| concat(&mut graph, &inputs)).collect();
    let all = concat(&mut graph, &parts.join(","));
    graph.revealing("p0", all.parse().unwrap())
}

/// As many nodes as there may be.
fn nodes() -> String {
    let (mut graph, mut x) = one();
    for _ in 0..(MAX_GRAPH_BYTES - 400) / 64 {
        x = graph.node(&format!("neg, input: {x}"));
    }
    graph.revealing("p0", x)
}

/// Text with as many parts as it has room for.
fn fill(start: &str, part: &str, end: &str) -> String {
    let parts = (MAX_GRAPH_BYTES - start.len() - end.len()) / part.len();
    format!("{start}{}{end}", part.repeat(parts))
}

/// A constant of so many numbers.
fn numbers(count: usize) -> String {
    let (mut graph, x) = one();
    let room = MAX_GRAPH_BYTES - graph.text.len() - 300;
    let values = vec!["1"; count.min(room / 2)];
    graph.node(&format!("constant, shape: [{}], values: [{}]", values.len(), values.join(",")));
    graph.revealing("p0", x)
}

fn resource(uid: &str, players: &[String], definition: &str) -> SecureInference {
    let players: serde_json::Map<String, Value> = players
        .iter()
        .map(|name| (name.clone(), json!({ "source": { "emptyDir": {} }, "inputs": "x" })))
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "secureinference.dev/v1alpha1",
        "kind": "SecureInference",
        "metadata": { "name": uid, "namespace": "lab", "uid": uid, "generation": 1 },
        "spec": { "model": { "graph": { "definition": definition, "players": players } } },
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
    let single = || vec!["p0".to_owned()];
    let (many, windows) = overlapping_windows(64);
    let terms = "terms in sums and polynomials of public tensors, at most 67108864 are accepted";
    let parts = "names, numbers and ends of lists, at most 131072 are accepted";
    let refused = [
        ("windows of 64 players", many, windows, terms),
        ("windows", single(), overlapping_windows(1).1, terms),
        ("product", single(), product(), terms),
        ("polynomials", single(), polynomials(1024, 64), "powers in polynomials of private"),
        ("fits", single(), fits(MAX_POLYNOMIALS), "2048 fits, at most 256 are accepted"),
        ("copies", single(), copies(4000), "elements of public tensors and of their copies"),
        ("layouts", single(), layouts(7000), "layout operations in a row, at most 256"),
        ("repetitions", single(), repetitions(15), parts),
        ("lists", single(), fill("[", "[],", "]"), parts),
        ("words", single(), fill("[", "a,", "a]"), parts),
        ("numbers", single(), numbers(1 << 18), parts),
        ("keys", single(), fill("{", "? a,", "}"), parts),
        (
            "depth",
            single(),
            "[".repeat(1 << 16),
            "lists within each other, at most 64 are accepted",
        ),
        ("marks", single(), fill("", "- ", "a"), parts),
        ("questions", single(), fill("", "? ", "a"), parts),
    ];
    // The most that is compiled.
    let accepted = [
        ("windows", single(), {
            let text = overlapping_windows(1).1;
            text.replace("[48, 48]", "[11, 11]")
        }),
        ("polynomials", single(), polynomials(128, 12)),
        ("copies", single(), copies(2)),
        ("layouts", single(), layouts(256)),
        ("repetitions", single(), repetitions(7)),
        ("nodes", single(), nodes()),
        ("fits", single(), fits(MAX_FITS)),
        ("numbers", single(), numbers(MAX_PARTS - 200)),
    ];
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
        let known = resource("known", &single(), &layouts(1));
        let job = validate(&validator, &mut woken, &known).await.unwrap();

        let mut rows: Vec<(&str, SecureInference, Option<&str>)> = Vec::new();
        for (name, players, definition, why) in &refused {
            rows.push((
                name,
                resource(&format!("r-{}", rows.len()), players, definition),
                Some(why),
            ));
        }
        for (name, players, definition) in &accepted {
            rows.push((name, resource(&format!("r-{}", rows.len()), players, definition), None));
        }
        let mut problems = Vec::new();
        let before = HEAP.current_usage();
        for (name, resource, why) in rows {
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
            let refusal = validated.as_ref().err();
            println!(
                "{name}: {took:?}, CPU {worked:?}, {peak} bytes, probes {longest:?}, {refusal:?}"
            );
            let mut expect = |holds: bool, what: String| {
                if !holds {
                    problems.push(format!("{name}: {what}"));
                }
            };
            expect(peak < MEMORY, format!("{peak} bytes"));
            expect(longest < HEALTHY, format!("a probe waited {longest:?}"));
            match (validated.map_err(|refusal| refusal.0), why) {
                (Err(refusal), Some(why)) => {
                    expect(refusal.contains(why), refusal);
                    expect(worked < SOON, format!("{worked:?}"));
                }
                (validated, why) => expect(
                    validated.is_ok() && why.is_none(),
                    format!("{:?}, expected {why:?}", validated.err()),
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
    spec.parties.tolerations = None;
    refused(&spec);
    spec.parties.node_selector = None;
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
