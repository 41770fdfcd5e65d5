//! Private values that are compared with each other, on five parties: bit for bit against the
//! integers.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use common::{
    Outcome, PlayerInputs, Settings, batches, both_servers, check_lengths, noise, player_inputs,
    received, run, uniform_bytes, weights,
};
use spdz::channel::{Name, Phase, Role};
use spdz::graph::{Graph, GraphBuilder, Op, Padding, Stride, Tensor, Window, Work};
use spdz::network::{LABELS, LOGITS, Layer, Network, Reveal};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::polynomial::Polynomial;

const UNIT: f64 = 4096.0;

const TRUNCATIONS: [Truncation; 2] = [Truncation::Local, Truncation::Interactive];

/// The formats that can compare.
fn formats() -> impl Iterator<Item = NumberFormat> {
    NumberFormat::ALL.into_iter().filter(|format| format.has_gates())
}

/// What alice learns of what she brings.
fn of_one(shape: &[usize], write: impl Fn(&GraphBuilder, Tensor) -> Tensor) -> Graph {
    let g = GraphBuilder::new(["alice"]);
    let x = g.share(g.local_input("alice", "x", shape));
    g.output("y", g.reveal("alice", write(&g, x)));
    g.build().unwrap()
}

/// Multiples of a unit in the last place, below `limit`.
fn units(len: usize, limit: f64, seed: u64) -> Vec<f64> {
    let mut random = noise(seed);
    let scaled = |x: f32| (f64::from(x).clamp(-1.0, 1.0) * limit * UNIT).trunc() / UNIT;
    (0..len).map(|_| scaled(random())).collect()
}

/// Values with many ties, both signs, and the ends of a format's range.
fn values(format: NumberFormat, len: usize, seed: u64) -> Vec<f64> {
    let end = format.precision().limit() / 2.0 - UNIT.recip();
    let kinds = [0.0, UNIT.recip(), -UNIT.recip(), end, -end, 1.5, -1.5];
    let (mut random, all) = (noise(seed), units(len, end, seed + 1));
    let value = |x: f64| match (f64::from(random()) * 10.0 + 10.0) as usize {
        kind if kind < kinds.len() => kinds[kind],
        _ => x,
    };
    all.into_iter().map(value).collect()
}

fn alice(shape: &[usize], values: Vec<f64>) -> PlayerInputs {
    player_inputs([("alice", "x", shape.to_vec(), values)])
}

/// What alice learns is what the graph says of the same numbers, whatever the truncation, and
/// whether or not it was prepared ahead.
fn check(graph: &Graph, shape: &[usize], seed: u64) {
    check_to(graph, shape, seed, 0.0);
}

/// The same, up to some units in the last place.
fn check_to(graph: &Graph, shape: &[usize], seed: u64, units: f64) {
    for format in formats() {
        let len = shape.iter().product();
        let evaluations: Vec<_> =
            (0..2).map(|i| alice(shape, values(format, len, seed + 100 * i))).collect();
        for truncation in TRUNCATIONS {
            let plan = Plan::compile(graph, format, truncation).unwrap();
            assert!(plan.steps().len() <= graph.work().steps, "{plan}");
            for ahead in [false, true] {
                let settings = Settings { ahead, ..Settings::new(format, truncation, 3) };
                let outcome = run(graph, settings, &evaluations);
                for (index, inputs) in evaluations.iter().enumerate() {
                    let expected = graph.evaluate_plaintext(inputs).unwrap();
                    for (name, expected) in &expected[&"alice".parse().unwrap()] {
                        let found = outcome.output(index, "alice", name);
                        let far = |(x, y): (&f64, &f64)| (x - y).abs() * UNIT > units;
                        let wrong = found.iter().zip(expected.as_slice()).position(far);
                        assert_eq!(wrong, None, "{format} {truncation} {ahead} {plan}");
                    }
                }
            }
        }
    }
}

/// Windows next to each other, over each other and apart, with rests, padding, and odd numbers of
/// places.
fn geometries() -> Vec<([usize; 4], Window, Stride, Padding)> {
    vec![
        ([2, 4, 4, 3], 2.into(), 2.into(), 0.into()),
        ([1, 6, 5, 70], 2.into(), 2.into(), 0.into()),
        ([1, 5, 5, 2], 3.into(), 2.into(), 0.into()),
        ([2, 5, 6, 3], 3.into(), 2.into(), 1.into()),
        ([1, 7, 7, 1], 3.into(), 1.into(), [0, 1, 2, 1].into()),
        ([1, 4, 9, 2], [1, 3].into(), [2, 3].into(), 0.into()),
        ([3, 2, 5, 1], [2, 1].into(), 1.into(), [1, 0, 0, 0].into()),
        ([1, 5, 7, 2], [5, 7].into(), usize::MAX.into(), 0.into()),
        ([1, 4, 4, 5], 1.into(), 3.into(), 0.into()),
        ([2, 3, 3, 3], 2.into(), 2.into(), 1.into()),
    ]
}

#[test]
fn the_largest_values_of_windows_are_those_of_the_integers() {
    for (shape, window, stride, padding) in geometries() {
        let graph = of_one(&shape, |g, x| g.max_pool(x, window, stride, padding));
        check(&graph, &shape, 7);
    }
}

#[test]
fn relu_and_pooling_in_any_order_and_more_of_each() {
    let shape = [2, 8, 8, 3];
    check(&of_one(&shape, |g, x| g.relu(g.max_pool(x, 2, 2, 0))), &shape, 8);
    check(&of_one(&shape, |g, x| g.max_pool(g.relu(x), 2, 2, 0)), &shape, 9);
    check(&of_one(&shape, |g, x| g.max_pool(g.relu(x), 3, 2, 1)), &shape, 10);
    check(&of_one(&shape, |g, x| g.relu(g.max_pool(g.max_pool(x, 2, 2, 0), 3, 1, 1))), &shape, 11);
    check(&of_one(&shape, |g, x| g.relu(g.max_pool(g.relu(x), 2, 3, 0))), &shape, 12);
    check(&of_one(&shape, |g, x| g.max_pool(g.relu(g.max_pool(x, 2, 2, 0)), 2, 2, 0)), &shape, 13);
    check(&of_one(&shape, |g, x| g.max_pool(g.relu(x), 1, 2, 0)), &shape, 14);
    check(
        &of_one(&shape, |g, x| {
            let flat = g.reshape(g.max_pool(x, 2, 2, 0), [2, 4, 12, 1]);
            g.relu(g.max_pool(flat, [2, 3], [2, 3], 0))
        }),
        &shape,
        15,
    );
}

#[test]
fn the_larger_and_the_smaller_of_two_and_magnitudes() {
    let shape = [2, 3, 70];
    let halves = |g: &GraphBuilder, x| {
        let half = |from| g.slice(x, [(from, from + 1, 1), (0, 3, 1), (0, 70, 1)]);
        (half(0), half(1))
    };
    type Write = fn(&GraphBuilder, Tensor, Tensor) -> Tensor;
    let of_two: [(&str, Write); 9] = [
        ("maximum", |g, x, y| g.maximum(x, y)),
        ("minimum", |g, x, y| g.minimum(x, y)),
        ("of itself", |g, x, y| g.minimum(g.maximum(x, x), y)),
        ("median of three", |g, x, y| {
            let z = g.neg(x);
            g.maximum(g.minimum(x, y), g.minimum(g.maximum(x, y), z))
        }),
        ("range", |g, x, y| g.sub(g.scale(g.maximum(x, y), 0.5), g.scale(g.minimum(x, y), 0.5))),
        ("repeated", |g, x, y| g.maximum(x, g.slice(y, [(0, 1, 1), (1, 2, 1), (0, 70, 1)]))),
        ("relu of a minimum", |g, x, y| g.relu(g.minimum(x, y))),
        ("magnitudes", |g, x, y| g.abs(g.maximum(g.abs(x), y))),
        // A fraction of less bits than the format's.
        ("a bit", |g, x, y| g.minimum(g.scale(x, 0.5), g.scale(y, 0.25))),
    ];
    for (number, (name, write)) in of_two.into_iter().enumerate() {
        let graph = of_one(&shape, |g, x| {
            let (x, y) = halves(g, x);
            write(g, x, y)
        });
        if ["range", "a bit"].contains(&name) {
            check_to(&graph, &shape, 20 + number as u64, 1.5);
        } else {
            check(&graph, &shape, 20 + number as u64);
        }
    }
    check(&of_one(&shape, |g, x| g.abs(x)), &shape, 30);
    check(&of_one(&shape, |g, x| g.maximum(x, g.scalar(-1.5))), &shape, 31);
    check(&of_one(&shape, |g, x| g.minimum(g.scalar(1.5), x)), &shape, 32);
    let row = |g: &GraphBuilder| g.constant([70], units(70, 60.0, 33));
    check(&of_one(&shape, |g, x| g.maximum(row(g), x)), &shape, 34);
    check(&of_one(&shape, |g, x| g.relu(g.minimum(x, row(g)))), &shape, 35);
}

/// Of a product the rounding is not known, but both results have the same.
#[test]
fn a_product_is_compared_with_numbers_without_a_rounding_of_its_own() {
    let graph = of_one(&[200], |g, x| g.maximum(g.mul(x, g.scale(x, 0.125)), g.scalar(4.0)));
    let inputs = alice(&[200], units(200, 30.0, 5));
    let expected = graph.evaluate_plaintext(&inputs).unwrap();
    let expected = expected[&"alice".parse().unwrap()]["y"].as_slice().to_vec();
    for truncation in TRUNCATIONS {
        let settings = Settings::new(NumberFormat::Int64, truncation, 6);
        let found = run(&graph, settings, std::slice::from_ref(&inputs)).output(0, "alice", "y");
        let mut exact = 0;
        for (found, expected) in found.iter().zip(&expected) {
            // Both factors are rounded to a unit in the last place.
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
            exact += usize::from(*expected == 4.0 && *found == 4.0);
        }
        assert!(exact > 20, "{exact}");
    }
}

/// One tensor as a wire, and otherwise.
#[test]
fn what_is_compared_serves_other_operations_too() {
    let shape = [1, 6, 6, 2];
    let g = GraphBuilder::new(["alice"]);
    let x = g.share(g.local_input("alice", "x", shape));
    let (overlapping, rectified) = (g.max_pool(x, 3, 1, 0), g.relu(x));
    let pooled = g.max_pool(overlapping, 2, 2, 0);
    let all = [
        ("x", g.neg(x)),
        ("overlapping", overlapping),
        ("pooled", pooled),
        ("positive", g.relu(pooled)),
        ("rectified", rectified),
        ("again", g.neg(g.max_pool(rectified, 3, 3, 0))),
    ];
    for (name, tensor) in all {
        g.output(name, g.reveal("alice", tensor));
    }
    check(&g.build().unwrap(), &shape, 16);
}

#[test]
fn the_place_of_the_largest_value_and_of_equal_ones_the_first() {
    let shapes: [&[usize]; 10] = [
        &[2],
        &[5, 2],
        &[3, 3],
        &[70, 10],
        &[2, 3, 16],
        &[3, 17],
        &[2, 20],
        &[1, 31],
        &[65, 32],
        &[1, 300],
    ];
    for (seed, shape) in (50..).zip(shapes) {
        check(&of_one(shape, |g, x| g.argmax(x)), shape, seed);
        check(&of_one(shape, |g, x| g.one_hot_argmax(x)), shape, seed);
    }
    // All are equal, or the last is the largest; a number beyond the range of other values.
    for (count, expected) in [(12, [0.0, 11.0]), (1100, [0.0, 1099.0])] {
        let graph = of_one(&[2, count], |g, x| g.argmax(x));
        let rows = [vec![-2.5; count], (0..count).map(|i| i as f64 / 4.0).collect()].concat();
        let settings = Settings::new(NumberFormat::Int64, Truncation::Local, 8);
        let outcome = run(&graph, settings, &[alice(&[2, count], rows)]);
        assert_eq!(outcome.output(0, "alice", "y"), expected);
    }
}

/// What follows a choice is computed on it.
#[test]
fn a_choice_takes_part_in_further_operations() {
    let shape = [4, 10];
    // A quarter is rounded.
    check_to(
        &of_one(&shape, |g, x| {
            let largest = g.reduce_sum(g.mul(g.one_hot_argmax(x), g.scale(x, 0.25)), [1]);
            g.add(largest, g.argmax(g.neg(x)))
        }),
        &shape,
        70,
        1.5,
    );
}

#[test]
fn a_plan_says_what_a_choice_sends() {
    let plan = |shape: &[usize], write: fn(&GraphBuilder, Tensor) -> Tensor| {
        let graph = of_one(shape, write);
        let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
        assert!(plan.steps().len() <= graph.work().steps);
        plan
    };
    let ten = plan(&[64, 10], |g, x| g.argmax(x));
    let exchanges: Vec<usize> = (0..ten.rounds()).map(|round| ten.round_bytes(round)).collect();
    // The opening; 45 comparisons and what they say; counts of 4 bits; which is 9.
    assert_eq!(exchanges, [8 * 10 * 24, 8 * 45 * 8, 8 * 45, 8 * 10 * 4, 8 * 10]);
    assert_eq!(plan(&[3, 16], |g, x| g.argmax(x)).rounds(), 1 + 4);
    assert_eq!(plan(&[3, 16], |g, x| g.one_hot_argmax(x)).rounds(), 1 + 4);
    // Beyond that a tree.
    for (count, levels) in [(17, 5), (32, 5), (100, 7), (1 << 16, 16)] {
        let shape = [1, count];
        assert_eq!(plan(&shape, |g, x| g.argmax(x)).rounds(), 1 + 3 * levels, "{count}");
        assert_eq!(plan(&shape, |g, x| g.one_hot_argmax(x)).rounds(), 1 + 3 * levels + 1);
    }
    let step = |name: &str| ten.steps().iter().position(|step| step.operation.name() == name);
    let of = |name: &str| ten.sent_bytes(Role::Producer, step(name).unwrap());
    // Tables of 16 bits for counts, and of a bit that is converted as many as it becomes.
    assert_eq!(
        (of("compare"), of("convert"), of("one_hot")),
        (8 * 45 * 165, 8 * 45 * 4, 8 * 10 * 16)
    );
}

#[test]
fn every_message_of_a_choice_is_uniform() {
    for (shape, write) in [
        ([64, 4], (|g: &GraphBuilder, x| g.argmax(x)) as fn(&GraphBuilder, Tensor) -> Tensor),
        ([64, 18], |g, x| g.argmax(x)),
        ([64, 18], |g, x| g.one_hot_argmax(x)),
    ] {
        let graph = of_one(&shape, write);
        let values = (0..64 * shape[1]).map(|i| f64::from((i % 7) as u8)).collect();
        every_message_is_uniform(&graph, &alice(&shape, values));
    }
}

/// Two dense layers with a ReLU-like polynomial between them.
fn small() -> Network {
    Network {
        name: "small".into(),
        input: vec![2, 3, 1],
        range: None,
        layers: vec![
            Layer::Dense { outputs: 7 },
            Layer::Activation(Polynomial::relu(3.0)),
            Layer::Dense { outputs: 5 },
        ],
    }
}

#[test]
fn a_client_that_is_revealed_labels_learns_nothing_else() {
    const BATCH: usize = 6;
    let (network, client) = (small(), Name::CLIENT);
    let graph = network.revealing_graph(BATCH, Reveal::Label).unwrap();
    assert_eq!(graph.outputs_of(client), [(LABELS.to_owned(), vec![BATCH])]);
    // One tensor is revealed in all, and that is the place of the largest.
    let reveals: Vec<&Op> = graph
        .nodes()
        .iter()
        .filter_map(|node| match node.operation {
            Op::Reveal { input, player } => {
                assert_eq!(player, client);
                Some(graph.operation(input))
            }
            _ => None,
        })
        .collect();
    assert!(matches!(reveals[..], [Op::ArgMax { .. }]));
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    let listing = plan.to_string();
    assert!(listing.contains(" label compare ") && listing.contains("-> client fraction 0\n"));

    let logits = network.graph(BATCH).unwrap();
    let images: Vec<f32> = (0..6 * BATCH).map(|i| (i * 5 % 17) as f32 / 17.0).collect();
    let mut learnt = Vec::new();
    for scale in [1.0, 1.25] {
        // Logits of the second model are larger, their order is the same.
        let mut random = noise(3);
        let numbers: Vec<f32> = (0..200).map(|_| random()).collect();
        let weights = weights(&network, |name, index, _| {
            let number = numbers[(index * 7 + name.len() * 13) % 200];
            if name.starts_with("fc2") { number * scale } else { number }
        });
        let inputs = batches(&network, &weights, BATCH, std::slice::from_ref(&images));
        let plaintext = logits.evaluate_plaintext(&inputs[0]).unwrap();
        let expected: Vec<f64> = plaintext[&client][LOGITS]
            .as_slice()
            .chunks(5)
            .map(|row| (0..5).max_by(|i, j| row[*i].total_cmp(&row[*j])).unwrap() as f64)
            .collect();
        let settings = Settings::new(NumberFormat::Int64, Truncation::Local, 9);
        let outcome = run(&graph, settings, &inputs);
        assert_eq!(outcome.output(0, "client", LABELS), expected);
        // All bits of what the servers send the client are those of the label.
        let sent = |from: Role| -> Vec<u64> {
            let messages = outcome.messages.iter();
            let online = messages
                .filter(|m| m.0 == from && m.1 == Role::CLIENT && m.2.phase == Phase::Online);
            let bytes: Vec<u8> = online.flat_map(|m| m.3.to_vec()).collect();
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
        };
        let (one, other) = (sent(Role::Server0), sent(Role::Server1));
        assert_eq!(one.len(), BATCH);
        let low = u64::MAX >> (64 - plan.table().ring_bits());
        assert!(one.iter().chain(&other).all(|share| *share <= low));
        let sums: Vec<u64> =
            one.iter().zip(&other).map(|(x, y)| x.wrapping_add(*y) & low).collect();
        assert_eq!(sums, expected.iter().map(|label| *label as u64).collect::<Vec<_>>());
        learnt.push(sums);
    }
    assert_eq!(learnt[0], learnt[1]);
    assert!(learnt[0].iter().any(|label| *label != learnt[0][0]), "{learnt:?}");

    let refused =
        Plan::compile(&graph, NumberFormat::Int100, Truncation::Local).unwrap_err().to_string();
    assert!(
        refused.contains("label, node") && refused.contains("an exact argmax needs"),
        "{refused}"
    );
}

#[test]
fn the_papers_networks_have_max_pooling_and_labels_in_every_format_that_compares() {
    for (name, rounds) in [("A-relu", 8), ("B-relu-max", 24), ("C-relu-max", 24)] {
        let network = Network::builtin(name).unwrap();
        for format in formats() {
            let planned = |reveal| {
                let graph = network.revealing_graph(3, reveal).unwrap();
                assert_eq!(graph.work().check(&Work::OF_OTHERS), Ok(()));
                let plan = Plan::compile(&graph, format, Truncation::Local).unwrap();
                assert_eq!(plan.local_failure(), 0.0, "{name} {format}");
                plan.rounds()
            };
            // Nine exchanges for pooling with ReLU, three for ReLU alone, and one before each
            // layer but the first; then five for the label.
            assert_eq!(planned(Reveal::Logits), rounds, "{name} {format}");
            assert_eq!(planned(Reveal::Label), rounds + 5, "{name} {format}");
        }
    }
}

const FILTER: [usize; 4] = [3, 3, 2, 4];
const IMAGES: [usize; 4] = [2, 6, 6, 2];

/// A convolution, pooling, ReLU and a dense layer; what is in between is learnt, too.
fn layers() -> Graph {
    let g = GraphBuilder::named("layers", ["owner", "client"]);
    let weight = |name: &str, shape: &[usize]| g.share(g.local_variable("owner", name, shape));
    let x = g.share(g.local_input("client", "x", IMAGES));
    g.label("conv1");
    let y = g.conv2d(x, weight("w1", &FILTER), 1, 0);
    g.label("pool1");
    let y = g.max_pool(y, 2, 2, 0);
    g.label("act1");
    let z = g.relu(y);
    g.label("fc1");
    let logits = g.matmul(g.flatten(z), weight("w2", &[16, 3]));
    g.label("result");
    g.output("z", g.reveal("client", z));
    g.output("logits", g.reveal("client", logits));
    g.build().unwrap()
}

fn layer_inputs(seed: u64) -> PlayerInputs {
    // A format may have a bit less for weights of what is compared.
    let even = |x: f64| (x * UNIT / 2.0).trunc() * 2.0 / UNIT;
    let filter = units(FILTER.iter().product(), 1.0, seed).into_iter().map(even).collect();
    player_inputs([
        ("owner", "w1", FILTER.to_vec(), filter),
        ("owner", "w2", vec![16, 3], units(48, 0.5, seed + 1)),
        ("client", "x", IMAGES.to_vec(), units(IMAGES.iter().product(), 2.0, seed + 2)),
    ])
}

fn integers(values: &[f64]) -> Vec<i64> {
    values.iter().map(|x| (x * UNIT) as i64).collect()
}

/// What a player brings, in units in the last place.
fn brought(inputs: &PlayerInputs, player: &str, name: &str) -> Vec<i64> {
    integers(inputs[&player.parse().unwrap()][name].as_slice())
}

/// A valid convolution of one image after the other.
fn convolved(x: &[i64], w: &[i64]) -> Vec<i64> {
    let ([_, height, width, inputs], [high, wide, _, outputs]) = (IMAGES, FILTER);
    let mut sums = Vec::new();
    for image in x.chunks(height * width * inputs) {
        for y in 0..=height - high {
            for x in 0..=width - wide {
                for output in 0..outputs {
                    let term = |at: usize| {
                        let (place, input) = (at / inputs, at % inputs);
                        let pixel = (y + place / wide) * width + x + place % wide;
                        image[pixel * inputs + input] * w[at * outputs + output]
                    };
                    sums.push((0..high * wide * inputs).map(term).sum());
                }
            }
        }
    }
    sums
}

#[test]
fn layers_are_those_of_the_integers_given_the_rounding() {
    let graph = layers();
    for (format, truncation) in
        formats().flat_map(|f| TRUNCATIONS.map(|truncation| (f, truncation)))
    {
        let mut rounded_up = 0;
        for seed in [40, 50, 60] {
            let inputs = layer_inputs(seed);
            let settings = Settings::new(format, truncation, 4);
            let outcome = run(&graph, settings, std::slice::from_ref(&inputs));
            let sums =
                convolved(&brought(&inputs, "client", "x"), &brought(&inputs, "owner", "w1"));
            let z = integers(&outcome.output(0, "client", "z"));
            for (index, z) in z.iter().enumerate() {
                let (image, row, column, channel) =
                    (index / 16, index / 8 % 2, index / 4 % 2, index % 4);
                let sum = |y: usize, x: usize| {
                    sums[((image * 4 + 2 * row + y) * 4 + 2 * column + x) * 4 + channel]
                };
                let window = [sum(0, 0), sum(0, 1), sum(1, 0), sum(1, 1)];
                let largest = window.map(|sum| sum >> 12).into_iter().max().unwrap().max(0);
                let up = window.map(|sum| (sum >> 12) + 1).into_iter().max().unwrap().max(0);
                assert!((largest..=up).contains(z), "{window:?} {z}");
                rounded_up += usize::from(*z > largest);
            }
            let w = brought(&inputs, "owner", "w2");
            let logits = integers(&outcome.output(0, "client", "logits"));
            for (index, logit) in logits.iter().enumerate() {
                let row = &z[index / 3 * 16..][..16];
                let product: i64 =
                    row.iter().zip(w.iter().skip(index % 3).step_by(3)).map(|(z, w)| z * w).sum();
                assert!([0, 1].contains(&(logit - (product >> 12))), "{product} {logit}");
            }
        }
        // Of 96 values, most positive, somewhat more than half, as of four each has its own rounding.
        assert!((20..90).contains(&rounded_up), "{rounded_up}");
    }
}

#[test]
fn a_plan_says_what_pooling_sends() {
    let graph = layers();
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    let listing = plan.to_string();
    for line in [
        // Values of 23 bits and one more, so that differences fit.
        " pool1 open_narrow p1 shift 12 -> m2 bits 24 len 128 round 0",
        " pool1 difference m2 m2 64-0*64 -> m3 len 64",
        " pool1 compare m3 blocks 5 5 5 4 4 -> p2 len 64 round 1",
        " pool1 select_integers m3 p2 of m3 -> p3 bits 24 len 64 round 2",
        " pool1 open_integers m2 from 0 plus p3 -> m4 bits 24 len 64 round 3",
        " pool1 difference m4 m4 32-0*32 -> m5 len 32",
        " act1 compare m6 blocks 5 5 5 4 4 -> p6 len 32 round 7",
        " act1 select m6 p6 -> p7 len 32 round 8",
    ] {
        assert!(listing.lines().any(|listed| listed.ends_with(line)), "{line}: {listing}");
    }
    // Of two rows of 64: opened at 24 bits; two levels of a comparison, a selection and an
    // opening; a comparison with zero and its selection; and the opening for the next product.
    let exchanges: Vec<usize> = (0..plan.rounds()).map(|round| plan.round_bytes(round)).collect();
    let expected = [8 * 2 * 24, 8 * 8, 8, 8 * 24, 8 * 8, 8, 8 * 24, 8 * 8, 8, 8 * 36];
    assert_eq!(exchanges[..10], expected);
    let of = |name: &str| {
        let step = plan.steps().iter().position(|step| step.operation.name() == name);
        plan.sent_bytes(Role::Producer, step.unwrap())
    };
    // 128 bits of tables and 37 of products; 2 l bits of what is selected; nothing of what
    // is made of others.
    assert_eq!((of("compare"), of("select_integers")), (8 * 165, 8 * 48));
    assert_eq!((of("open_narrow"), of("difference"), of("open_integers")), (0, 0, 0));
    // The order of pooling and ReLU makes no difference to what is sent.
    let shape = [2, 8, 8, 3];
    let orders: [fn(&GraphBuilder, Tensor) -> Tensor; 2] =
        [|g, x| g.relu(g.max_pool(x, 2, 2, 0)), |g, x| g.max_pool(g.relu(x), 2, 2, 0)];
    let costs = orders.map(|order| {
        let plan =
            Plan::compile(&of_one(&shape, order), NumberFormat::Int64, Truncation::Local).unwrap();
        (plan.rounds(), plan.online_bytes(), plan.offline_bytes(), plan.steps().len())
    });
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0].0, 1 + 3 * 2 + 2);
    // Without a ReLU the last level lifts, and opens nothing.
    let alone = of_one(&shape, |g, x| g.max_pool(x, 3, 3, 0));
    let plan = Plan::compile(&alone, NumberFormat::Int64, Truncation::Local).unwrap();
    assert_eq!(plan.rounds(), 1 + 3 * 4 - 1);
    // No truncation of what is compared can fail.
    assert_eq!(plan.local_failure(), 0.0);
    // What is sent is what the plan says.
    let inputs = alice(&shape, units(384, 4.0, 3));
    let outcome = run(&alone, Settings::new(NumberFormat::Int64, Truncation::Local, 1), &[inputs]);
    check_lengths(&plan, &outcome);
}

/// All messages of a graph are uniform, and so is what both servers' bits make together.
fn every_message_is_uniform(graph: &Graph, inputs: &PlayerInputs) {
    let evaluations = [inputs.clone(), inputs.clone()];
    let bytes = received(60, |randomness| {
        let settings = Settings::new(NumberFormat::Int64, Truncation::Local, randomness);
        run(graph, settings, &evaluations)
    });
    for (place, bytes) in &bytes {
        uniform_bytes(&format!("{place:?}"), bytes);
    }
    let plan = Plan::compile(graph, NumberFormat::Int64, Truncation::Local).unwrap();
    for round in plan.exchanges() {
        let sums = both_servers(&bytes, round.start);
        if ["compare", "select", "select_integers"]
            .contains(&plan.steps()[round.start].operation.name())
        {
            uniform_bytes(&format!("opened in {round:?}"), &sums);
        }
    }
}

#[test]
fn every_message_of_a_pooling_is_uniform() {
    // Overlapping windows: one opening serves several comparisons.
    let shape = [1, 4, 4, 64];
    for order in [
        |g: &GraphBuilder, x| g.max_pool(x, 3, 1, 0),
        |g: &GraphBuilder, x| g.relu(g.max_pool(x, [2, 1], [2, 1], [1, 0, 0, 0])),
    ] {
        let graph = of_one(&shape, order);
        // Ties, and one that is the largest by far.
        for values in [vec![-3.75; 1024], (0..1024).map(|i| f64::from(i % 7)).collect()] {
            every_message_is_uniform(&graph, &alice(&shape, values));
        }
    }
}

#[test]
fn the_producer_does_not_depend_on_what_is_compared() {
    let graph = layers();
    for truncation in TRUNCATIONS {
        let sent = |seed| {
            let settings = Settings::new(NumberFormat::Int64, truncation, 2);
            let outcome: Outcome = run(&graph, settings, &[layer_inputs(seed)]);
            let messages = outcome.messages.into_iter();
            let mut sent: Vec<_> = messages
                .filter(|m| m.0 == Role::Producer)
                .map(|m| (m.1.to_string(), m.2.step, m.3))
                .collect();
            sent.sort_by(|x, y| (&x.0, x.1).cmp(&(&y.0, y.1)));
            sent
        };
        assert!(sent(1).len() > 6);
        assert_eq!(sent(1), sent(70));
    }
}

#[test]
fn what_has_no_largest_value_is_refused_with_numbers() {
    let refused = |window: usize, stride: usize, padding: usize, shape: &[usize]| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", shape);
        g.private_output("alice", g.max_pool(x, window, stride, padding));
        g.build().unwrap_err().to_string()
    };
    let image = [1, 4, 5, 2];
    for (found, expected) in [
        (refused(7, 1, 1, &image), "windows of 7x7 do not fit into 4x5 pixels with padding 1"),
        (refused(0, 1, 0, &image), "windows of 0x0 pixels have none"),
        (refused(2, 0, 0, &image), "stride 0; expected at least 1 pixel"),
        (refused(2, 1, 2, &image), "padding 2 has room for whole windows of 2x2"),
        (refused(2, 1, usize::MAX, &image), "do not fit into 4x5 pixels"),
        (refused(2, 1, 0, &[4, 5]), "shape [4, 5]; expected [batch, height, width, channels]"),
        (
            refused(1000, 1, 0, &[1, 2000, 2000, 1]),
            "1001x1001 windows of 1000x1000 pixels of [1, 2000, 2000, 1] have more than 268435456 elements",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    for (shape, expected) in [
        (&[3, 1][..], "shape [3, 1] has 1 elements along its last axis; expected 2 to 65536"),
        (&[1, 65537], "shape [1, 65537] has 65537 elements along its last axis"),
        (&[], "a single number has no last axis"),
    ] {
        for write in [GraphBuilder::argmax, GraphBuilder::one_hot_argmax] {
            let g = GraphBuilder::new(["alice"]);
            g.private_output("alice", write(&g, g.private_input("alice", shape)));
            let refused = g.build().unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }
    let graph = of_one(&image, |g, x| g.max_pool(x, 2, 2, 0));
    let refused =
        Plan::compile(&graph, NumberFormat::Int100, Truncation::Local).unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "main, node 2 (max_pool): Int100 cannot compare numbers, which an exact max_pool needs; choose "
        ) && refused.ends_with(", or average pooling in place of the max_pool"),
        "{refused}"
    );
}
