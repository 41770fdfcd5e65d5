//! Resources of a hostile or careless tenant, for the operator's tests with a cluster and without.

#![allow(clippy::unwrap_used, reason = "text can always be written to")]

use std::fmt::Write as _;

use operator::api::v1alpha1::MAX_GRAPH_BYTES;
use operator::job::{MAX_FITS, MAX_PARTS};
use serde_json::{Map, Value, json};
use spdz::graph::{MAX_NODES, MAX_POLYNOMIALS};

/// A graph that a tenant submits.
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    pub(crate) players: Vec<String>,
    pub(crate) definition: String,
    /// What its refusal says; nothing if it is accepted, as the most that is compiled.
    pub(crate) refusal: Option<&'static str>,
}

/// `spec.model` of a graph whose players all have a volume of their own.
pub(crate) fn model(players: &[String], definition: &str) -> Value {
    let player = json!({ "source": { "emptyDir": {} }, "inputs": "x" });
    let players: Map<String, Value> =
        players.iter().map(|name| (name.clone(), player.clone())).collect();
    json!({ "graph": { "definition": definition, "players": players } })
}

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
pub(crate) fn layouts(count: usize) -> String {
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

/// What is refused.
pub(crate) fn refused() -> Vec<Hostile> {
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
    refused
        .map(|(name, players, definition, why)| Hostile {
            name,
            players,
            definition,
            refusal: Some(why),
        })
        .into()
}

/// The most that is compiled.
pub(crate) fn accepted() -> Vec<Hostile> {
    let single = || vec!["p0".to_owned()];
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
    accepted
        .map(|(name, players, definition)| Hostile { name, players, definition, refusal: None })
        .into()
}
