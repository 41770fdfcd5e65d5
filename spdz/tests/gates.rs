//! Exact non-linear functions, on five parties: bit for bit against the integers.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use common::{
    Outcome, PlayerInputs, Settings, both_servers, check_lengths, noise, player_inputs, received,
    run, run_compiled, uniform_bytes, with_gates,
};
use spdz::channel::Role;
use spdz::graph::{Graph, GraphBuilder};
use spdz::plan::{NumberFormat, Plan, Truncation};

const UNIT: f64 = 4096.0;

const TRUNCATIONS: [Truncation; 2] = [Truncation::Local, Truncation::Interactive];

/// What tests of ReLU alone run in.
fn everywhere() -> impl Iterator<Item = (NumberFormat, Truncation)> {
    let each = with_gates();
    // All have the same unit.
    each.inspect(|(format, _)| assert_eq!(f64::from(format.precision().fraction).exp2(), UNIT))
}

fn settings(truncation: Truncation, randomness: u8) -> Settings {
    Settings::new(NumberFormat::Int64, truncation, randomness)
}

fn plan(graph: &Graph, truncation: Truncation) -> Plan {
    Plan::compile(graph, NumberFormat::Int64, truncation).unwrap()
}

/// The ReLU of what alice brings.
fn relu_alone(len: usize) -> Graph {
    let g = GraphBuilder::new(["alice"]);
    let x = g.share(g.local_input("alice", "x", [len]));
    g.output("y", g.reveal("alice", g.relu(x)));
    g.build().unwrap()
}

const ROWS: usize = 3;
const INPUTS: usize = 12;
const HIDDEN: usize = 64;
const OUTPUTS: usize = 5;

/// A dense layer, ReLU, and another dense layer; what is in between is learnt, too.
fn layers() -> Graph {
    let g = GraphBuilder::named("layers", ["owner", "client"]);
    let weight = |name: &str, shape: &[usize]| g.share(g.local_variable("owner", name, shape));
    let x = g.share(g.local_input("client", "x", [ROWS, INPUTS]));
    g.label("fc1");
    let y = g.matmul(x, weight("w1", &[INPUTS, HIDDEN]));
    let y = g.add(y, weight("b1", &[HIDDEN]));
    g.label("act1");
    let z = g.relu(y);
    g.label("fc2");
    let logits = g.matmul(z, weight("w2", &[HIDDEN, OUTPUTS]));
    g.label("result");
    g.output("z", g.reveal("client", z));
    g.output("logits", g.reveal("client", logits));
    g.build().unwrap()
}

/// Multiples of a unit in the last place, below `limit`.
fn units(len: usize, limit: f64, seed: u64) -> Vec<f64> {
    let mut random = noise(seed);
    (0..len).map(|_| (f64::from(random()).clamp(-1.0, 1.0) * limit * UNIT).round() / UNIT).collect()
}

fn layer_inputs(seed: u64) -> PlayerInputs {
    player_inputs([
        ("owner", "w1", vec![INPUTS, HIDDEN], units(INPUTS * HIDDEN, 1.0, seed)),
        ("owner", "b1", vec![HIDDEN], units(HIDDEN, 2.0, seed + 1)),
        ("owner", "w2", vec![HIDDEN, OUTPUTS], units(HIDDEN * OUTPUTS, 0.5, seed + 2)),
        ("client", "x", vec![ROWS, INPUTS], units(ROWS * INPUTS, 4.0, seed + 3)),
    ])
}

/// A player's input in units in the last place.
fn integers(inputs: &PlayerInputs, player: &str, name: &str) -> Vec<i64> {
    let tensor = &inputs[&player.parse().unwrap()][name];
    tensor.as_slice().iter().map(|x| (x * UNIT) as i64).collect()
}

fn output(outcome: &Outcome, evaluation: usize, player: &str, name: &str) -> Vec<i64> {
    outcome.output(evaluation, player, name).iter().map(|x| (x * UNIT) as i64).collect()
}

/// Products of rows with columns.
fn matmul(x: &[i64], y: &[i64], k: usize, n: usize) -> Vec<i64> {
    let row = |row: &[i64], column| (0..k).map(|i| row[i] * y[i * n + column]).sum();
    x.chunks(k).flat_map(|x| (0..n).map(move |column| row(x, column))).collect()
}

#[test]
fn relu_is_that_of_the_integers_at_the_ends_of_the_range() {
    // The last row of 64 is not filled.
    const LEN: usize = 203;
    let graph = relu_alone(LEN);
    for (format, truncation) in everywhere() {
        let limit = format.precision().limit();
        let (largest, half) = (limit - UNIT.recip(), limit / 2.0);
        let mut x = vec![0.0, UNIT.recip(), -UNIT.recip(), largest, -largest, half, -half, 1.0];
        x.extend(units(LEN - x.len(), largest, 5));
        let inputs = player_inputs([("alice", "x", vec![LEN], x.clone())]);
        for ahead in [false, true] {
            let settings = Settings { ahead, ..Settings::new(format, truncation, 3) };
            let outcome = run(&graph, settings, &[inputs.clone(), inputs.clone()]);
            for evaluation in 0..2 {
                let found = outcome.output(evaluation, "alice", "y");
                let expected: Vec<f64> = x.iter().map(|x| x.max(0.0)).collect();
                assert_eq!(found, expected, "{format} {truncation} {ahead}");
            }
        }
    }
}

#[test]
fn layers_are_those_of_the_integers_given_the_rounding() {
    let graph = layers();
    for truncation in TRUNCATIONS {
        for ahead in [false, true] {
            let evaluations: Vec<_> = (0..4)
                .map(|i| {
                    let mut inputs = layer_inputs(40);
                    inputs.extend(
                        layer_inputs(40 + 10 * i)
                            .into_iter()
                            .filter(|(name, _)| name.as_str() == "client"),
                    );
                    inputs
                })
                .collect();
            let settings = Settings { ahead, ..settings(truncation, 4) };
            let outcome = run(&graph, settings, &evaluations);
            let mut rounded_up = 0;
            for (index, inputs) in evaluations.iter().enumerate() {
                let read = |player, name| integers(inputs, player, name);
                let mut sums = matmul(&read("client", "x"), &read("owner", "w1"), INPUTS, HIDDEN);
                let bias = read("owner", "b1");
                sums.iter_mut().zip(bias.iter().cycle()).for_each(|(sum, b)| *sum += b << 12);
                let z = output(&outcome, index, "client", "z");
                for (sum, z) in sums.iter().zip(&z) {
                    let quotient = sum >> 12;
                    assert!(*z == quotient.max(0) || *z == (quotient + 1).max(0), "{sum} {z}");
                    rounded_up += usize::from(*z > quotient.max(0));
                }
                assert!(z.contains(&0) && z.iter().any(|z| *z > 0));
                let products = matmul(&z, &read("owner", "w2"), HIDDEN, OUTPUTS);
                let logits = output(&outcome, index, "client", "logits");
                for (product, logit) in products.iter().zip(&logits) {
                    assert!([0, 1].contains(&(logit - (product >> 12))), "{product} {logit}");
                }
            }
            // Half of those that are positive, which are half of 768: the rounding is right on average.
            assert!((140..240).contains(&rounded_up), "{rounded_up}");
        }
    }
}

#[test]
fn a_plan_says_what_relu_sends() {
    let graph = layers();
    for truncation in TRUNCATIONS {
        let plan = plan(&graph, truncation);
        let listing = plan.to_string();
        for line in [
            " act1 open_narrow p1 shift 12 -> m3 bits 23 len 192 round 0",
            " act1 compare m3 blocks 5 5 4 4 4 -> p2 len 192 round 1",
            " act1 select m3 p2 -> p3 len 192 round 2",
        ] {
            assert!(listing.lines().any(|listed| listed.ends_with(line)), "{line}: {listing}");
        }
        // Opened at 23 bits, compared, selected, and opened for the next product.
        let exchanges: Vec<usize> = (0..4).map(|round| plan.round_bytes(round)).collect();
        let rows = ROWS * HIDDEN / 64;
        assert_eq!(exchanges, [8 * rows * 23, 8 * rows * 8, 8 * rows, 8 * rows * 36]);
        // What is revealed is rounded without an exchange.
        assert_eq!(plan.rounds(), 4);
        // Of the ring 36 bits count: 24 fractional and 10 integral ones, a sign, and one more.
        assert_eq!(plan.table().low_bits(), Some(36));
        // 112 bits of tables and 37 of products; 2 * 36 + 3 * (36 - 23) of what is selected.
        let of = |name: &str| {
            let step = plan.steps().iter().position(|step| step.operation.name() == name);
            plan.sent_bytes(Role::Producer, step.unwrap())
        };
        assert_eq!((of("compare"), of("select")), (8 * rows * 149, 8 * rows * 111));
        assert_eq!(of("open_narrow"), 0);
        // No truncation of what is compared can fail.
        let alone = relu_alone(64);
        assert_eq!(
            Plan::compile(&alone, NumberFormat::Int64, truncation).unwrap().local_failure(),
            0.0
        );
        assert!(plan.steps().len() <= graph.work().steps);
        // What is sent is what the plan says.
        let outcome = run(&graph, settings(truncation, 1), &[layer_inputs(1)]);
        check_lengths(&plan, &outcome);
    }
}

/// Independent comparisons share their exchanges, with each other and with other openings.
#[test]
fn comparisons_of_a_level_share_their_exchanges() {
    let g = GraphBuilder::new(["alice", "bob"]);
    let x = g.share(g.local_input("alice", "x", [70]));
    let y = g.share(g.local_input("bob", "y", [5]));
    let sum = g.add(g.reduce_sum(g.relu(x), [0]), g.relu(y));
    let sum = g.add(sum, g.square(g.add(y, y)));
    g.output("y", g.reveal("alice", sum));
    let graph = g.build().unwrap();
    for truncation in TRUNCATIONS {
        let plan = plan(&graph, truncation);
        assert!(plan.rounds() <= 4, "{plan}");
        // Two comparisons and the sum's opening.
        assert_eq!(plan.round_bytes(0), 8 * (2 * 23 + 23) + 8 * 36);
        let (x, y) = (units(70, 0.5, 1), units(5, 3.0, 2));
        let inputs =
            player_inputs([("alice", "x", vec![70], x.clone()), ("bob", "y", vec![5], y.clone())]);
        let outcome = run(&graph, settings(truncation, 9), &[inputs]);
        let sum: f64 = x.iter().map(|x| x.max(0.0)).sum();
        for (y, found) in y.iter().zip(outcome.output(0, "alice", "y")) {
            let expected = sum + y.max(0.0) + 4.0 * y * y;
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
    }
}

#[test]
fn every_message_of_a_relu_is_uniform() {
    // The same values each time, all negative or all positive; only the randomness differs.
    for (format, sign) in [
        (NumberFormat::Int64, -1.0),
        (NumberFormat::Int64, 1.0),
        (NumberFormat::Int32, -1.0),
        (NumberFormat::Int32, 1.0),
    ] {
        let inputs = player_inputs([("alice", "x", vec![256], vec![sign * 3.75; 256])]);
        let graph = relu_alone(256);
        let evaluations = [inputs.clone(), inputs];
        let bytes = received(60, |randomness| {
            let settings = Settings::new(format, Truncation::Local, randomness);
            run(&graph, settings, &evaluations)
        });
        // Alice's input to both servers, three exchanges, and what the producer shares of two.
        assert_eq!(bytes.len(), 2 + 2 * 3 + 2, "{:?}", bytes.keys());
        for (place, bytes) in &bytes {
            uniform_bytes(&format!("{format} {place:?}"), bytes);
        }
        // What both servers' messages of an exchange make together is uniform, too.
        let plan = Plan::compile(&graph, format, Truncation::Local).unwrap();
        for round in plan.exchanges() {
            let sums = both_servers(&bytes, round.start);
            if plan.steps()[round.start].operation.name() != "open_narrow" {
                uniform_bytes(&format!("{format}: opened in {round:?}"), &sums);
            }
        }
    }
}

/// So are the low bits of the ring's elements that are opened, and those that the producer shares.
#[test]
fn every_message_of_layers_is_uniform() {
    let graph = layers();
    let bytes = received(80, |randomness| {
        run(&graph, settings(Truncation::Local, randomness), &[layer_inputs(1)])
    });
    // Four inputs, four exchanges, and what the producer shares of two products, tables and selections.
    assert_eq!(bytes.len(), 4 * 2 + 4 * 2 + 4, "{:?}", bytes.keys());
    for (place, bytes) in &bytes {
        uniform_bytes(&format!("{place:?}"), bytes);
    }
}

#[test]
fn the_producer_does_not_depend_on_what_is_compared() {
    let graph = layers();
    for truncation in TRUNCATIONS {
        let sent = |seed| {
            let outcome = run(&graph, settings(truncation, 2), &[layer_inputs(seed)]);
            let producer = outcome.messages.into_iter().filter(|m| m.0 == Role::Producer);
            producer.map(|m| (m.1, m.2, m.3)).collect::<Vec<_>>()
        };
        let by_server = |messages: &[(Role, _, _)], to| {
            let these = messages.iter().filter(|m| m.0 == to);
            these
                .map(|m: &(Role, spdz::channel::Tag, bytes::Bytes)| (m.1, m.2.clone()))
                .collect::<Vec<_>>()
        };
        let (first, second) = (sent(1), sent(70));
        for to in [Role::Server0, Role::Server1] {
            assert!(by_server(&first, to).len() > 2);
            assert_eq!(by_server(&first, to), by_server(&second, to));
        }
    }
}

#[test]
fn a_format_without_comparison_says_so() {
    for truncation in TRUNCATIONS {
        let refused = Plan::compile(&layers(), NumberFormat::Int100, truncation).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "act1, node 8 (relu): Int100 cannot compare numbers, which an exact relu needs; choose Int64 or Int32, or a polynomial in place of the relu"
        );
    }
}

/// An average has two fractional bits more than its numbers. They are multiplied, not truncated.
#[test]
fn what_is_averaged_after_a_gate_is_not_truncated() {
    const IMAGES: usize = 3;
    let g = GraphBuilder::new(["owner", "client"]);
    let x = g.share(g.local_input("client", "x", [IMAGES, 4, 4, 2]));
    let w = g.share(g.local_variable("owner", "w", [8, 5]));
    let z = g.relu(x);
    let pooled = g.reshape(g.avg_pool(z, 2), [IMAGES, 8]);
    g.output("y", g.reveal("client", g.matmul(pooled, w)));
    let graph = g.build().unwrap();
    for truncation in TRUNCATIONS {
        let plan = plan(&graph, truncation);
        assert_eq!(plan.local_failure(), 0.0);
        assert!(!plan.to_string().contains("truncate"), "{plan}");
        assert_eq!(plan.table().low_bits(), Some(38));
        assert_eq!(plan.rounds(), 4);
        let inputs = player_inputs([
            ("client", "x", vec![IMAGES, 4, 4, 2], units(IMAGES * 32, 900.0, 6)),
            ("owner", "w", vec![8, 5], units(40, 0.25, 7)),
        ]);
        let outcome = run(&graph, settings(truncation, 5), std::slice::from_ref(&inputs));
        let x = integers(&inputs, "client", "x");
        let sums: Vec<i64> = (0..IMAGES * 8)
            .map(|at| {
                let (image, row, column, channel) = (at / 8, at / 4 % 2, at / 2 % 2, at % 2);
                let pixel =
                    |i, j| x[image * 32 + (2 * row + i) * 8 + (2 * column + j) * 2 + channel];
                [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| pixel(i, j).max(0)).iter().sum()
            })
            .collect();
        let products = matmul(&sums, &integers(&inputs, "owner", "w"), 8, 5);
        for (product, found) in products.iter().zip(output(&outcome, 0, "client", "y")) {
            assert!([0, 1].contains(&(found - (product >> 14))), "{product} {found}");
        }
    }
}

/// A product of a product, in a graph with a gate: the first is opened narrow and lifted, unless a
/// local truncation is as good as certain.
#[test]
fn what_is_multiplied_again_is_lifted_without_failure() {
    let g = GraphBuilder::new(["owner", "client"]);
    let x = g.share(g.local_input("client", "x", [ROWS, INPUTS]));
    let weight = |name: &str, shape: &[usize]| g.share(g.local_variable("owner", name, shape));
    let y = g.matmul(x, weight("w1", &[INPUTS, HIDDEN]));
    let z = g.relu(g.matmul(y, weight("w2", &[HIDDEN, OUTPUTS])));
    g.output("y", g.reveal("client", y));
    g.output("z", g.reveal("client", z));
    let graph = g.build().unwrap();
    let plan = plan(&graph, Truncation::Interactive);
    let names: Vec<&str> = plan.steps().iter().map(|step| step.operation.name()).collect();
    assert!(names.contains(&"lift") && !names.iter().any(|name| name.starts_with("truncate")));
    for truncation in TRUNCATIONS {
        for ahead in [false, true] {
            let mut inputs = layer_inputs(60);
            inputs.get_mut(&"owner".parse().unwrap()).unwrap().remove("b1");
            let settings = Settings { ahead, ..settings(truncation, 8) };
            let outcome = run(&graph, settings, std::slice::from_ref(&inputs));
            let read = |player, name| integers(&inputs, player, name);
            let sums = matmul(&read("client", "x"), &read("owner", "w1"), INPUTS, HIDDEN);
            let y = output(&outcome, 0, "client", "y");
            let z = output(&outcome, 0, "client", "z");
            for (sum, y) in sums.iter().zip(&y) {
                assert!([0, 1].contains(&(y - (sum >> 12))), "{sum} {y}");
            }
            // What is learnt of the first product is rounded apart from what is multiplied.
            let near = |sums: &[i64]| matmul(sums, &read("owner", "w2"), HIDDEN, OUTPUTS);
            let quotients: Vec<i64> = sums.iter().map(|sum| sum >> 12).collect();
            let slack: i64 = read("owner", "w2").iter().map(|w| w.abs()).sum::<i64>() / 4096 + 1;
            for (product, z) in near(&quotients).iter().zip(&z) {
                assert!((z - (product >> 12).max(0)).abs() <= slack, "{product} {z}");
            }
        }
    }
}

/// [`layers`], all of whose numbers are declared to be below `range`.
fn within(range: u32) -> Result<Graph, serde_json::Error> {
    let mut file = serde_json::to_value(layers()).unwrap();
    file["range"] = range.into();
    serde_json::from_value(file)
}

#[test]
fn a_declared_range_makes_what_travels_narrower_and_weights_finer() {
    let local = |graph: &Graph, format| Plan::compile(graph, format, Truncation::Local);
    for format in [NumberFormat::Int64, NumberFormat::Int32] {
        let (whole, narrow) =
            (local(&layers(), format).unwrap(), local(&within(32).unwrap(), format).unwrap());
        assert_ne!(whole.digest(), narrow.digest());
        assert_eq!(narrow.precision().limit(), 32.0);
        let width = narrow.precision().integral + 12 + 1;
        assert!(narrow.to_string().contains(&format!(" bits {width}")), "{narrow}");
        assert!(narrow.online_bytes() < whole.online_bytes(), "{format}");
        assert!(narrow.offline_bytes() < whole.offline_bytes(), "{format}");
        let inputs = layer_inputs(60);
        let settings = Settings::new(format, Truncation::Local, 7);
        let outcome = run_compiled(narrow, settings, std::slice::from_ref(&inputs));
        let integer = |name| integers(&inputs, if name == "x" { "client" } else { "owner" }, name);
        let (hidden, bias) = (matmul(&integer("x"), &integer("w1"), INPUTS, HIDDEN), integer("b1"));
        let found = output(&outcome, 0, "client", "z");
        for (index, (sum, z)) in hidden.iter().zip(found).enumerate() {
            let exact = (*sum as f64 / UNIT + bias[index % HIDDEN] as f64).max(0.0);
            assert!((z as f64 - exact).abs() <= 1.0, "{format} at {index}: {z} and {exact}");
        }
    }
    let fraction = |graph: &Graph, format| {
        let plan = local(graph, format).unwrap();
        plan.inputs().iter().find(|input| input.name == "w1").unwrap().fraction
    };
    let finer = within(32).unwrap();
    assert_eq!(
        [fraction(&layers(), NumberFormat::Int32), fraction(&finer, NumberFormat::Int32)],
        [12, 14]
    );
    assert_eq!(fraction(&finer, NumberFormat::Int64), 12);
}

#[test]
fn a_range_is_a_power_of_two_within_the_formats_and_kept_by_inputs() {
    for wrong in [0, 3, 33, 2048] {
        let refused = within(wrong).unwrap_err().to_string();
        assert!(refused.contains(&format!("from 1 to 1024, found {wrong}")), "{refused}");
    }
    let built = |range| {
        let g = GraphBuilder::new(["alice"]);
        g.range(range);
        let x = g.share(g.local_input("alice", "x", [2]));
        g.output("y", g.reveal("alice", g.relu(x)));
        g.build()
    };
    assert!(built(3).is_err());
    let graph = built(256).unwrap();
    let refused = Plan::compile(&graph, NumberFormat::Int32, Truncation::Local).unwrap_err();
    assert!(
        refused.to_string().contains("range is 256, and numbers of Int32 are below 128"),
        "{refused}"
    );
    let graph = built(4).unwrap();
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    let inputs = |x: f64| player_inputs([("alice", "x", vec![2], vec![x, -3.5])]);
    let outcome = run_compiled(plan.clone(), settings(Truncation::Local, 9), &[inputs(3.75)]);
    assert_eq!(outcome.output(0, "alice", "y"), [3.75, 0.0]);
    let beyond = &inputs(4.0)[&"alice".parse().unwrap()];
    let refused = spdz::role::check_inputs(
        &plan,
        "alice".parse().unwrap(),
        spdz::graph::Lifetime::Evaluation,
        beyond,
    );
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains('4') && refused.contains('x'), "{refused}");
}
