//! Piecewise linear functions and steps of private values, on five parties: bit for bit against the
//! integers.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use std::any::Any;

use common::{
    PlayerInputs, Settings, both_servers, check_lengths, noise, player_inputs, received, run,
    uniform_bytes, with_gates,
};
use spdz::channel::Role;
use spdz::graph::{Graph, GraphBuilder, Tensor};
use spdz::ops::{Hinge, Hinges};
use spdz::piecewise::{ACTIVATION_ERROR, Activation, MAX_POINTS, Piecewise};
use spdz::plan::{NumberFormat, Plan, Truncation};

const UNIT: f64 = 4096.0;

const HARD_SIGMOID: Activation = Activation::HardSigmoid { alpha: 0.2, beta: 0.5 };

const ACTIVATIONS: [Activation; 6] = [
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Gelu,
    Activation::Silu,
    Activation::HardSwish,
    HARD_SIGMOID,
];

/// What alice learns of what she brings.
fn of_one(shape: &[usize], write: impl Fn(&GraphBuilder, Tensor) -> Tensor) -> Graph {
    let g = GraphBuilder::new(["alice"]);
    let x = g.share(g.local_input("alice", "x", shape));
    g.output("y", g.reveal("alice", write(&g, x)));
    g.build().unwrap()
}

fn alice(shape: &[usize], values: Vec<f64>) -> PlayerInputs {
    player_inputs([("alice", "x", shape.to_vec(), values)])
}

/// Multiples of a unit in the last place: the ends of a format's range, numbers beside `places`, and
/// others of all magnitudes.
fn values(format: NumberFormat, len: usize, places: &[f64], seed: u64) -> Vec<f64> {
    // A result may be rounded to a unit more, which is to be in the range too.
    let end = format.precision().limit() - 4.0 / UNIT;
    let mut random = noise(seed);
    let beside = |x: &f64| [-1.0, 0.0, 1.0].map(|more| ((x * UNIT).round() + more) / UNIT);
    let mut values = vec![0.0, 1.0 / UNIT, -1.0 / UNIT, end, -end];
    values.extend(places.iter().flat_map(beside));
    while values.len() < len {
        let magnitude = [4.0, 16.0, end][values.len() % 3];
        values.push((f64::from(random()).clamp(-1.0, 1.0) * magnitude * UNIT).trunc() / UNIT);
    }
    values.truncate(len);
    values
}

/// The steps of a plan that are hinges.
fn hinges(plan: &Plan) -> Vec<Hinges> {
    let of = |any: &dyn Any| any.downcast_ref::<Hinges>().cloned();
    plan.steps().iter().filter_map(|step| of(&*step.operation)).collect()
}

/// What the integers say of a value, with the fractional bits of slopes.
fn model(function: &Hinges, x: f64) -> i64 {
    let x = (x * UNIT) as i64;
    let hinge = |hinge: &Hinge| hinge.change * (x - hinge.threshold).max(0);
    function.slope * x + function.constant + function.hinges.iter().map(hinge).sum::<i64>()
}

/// A function on its own, revealed.
fn check(write: impl Fn(&GraphBuilder, Tensor) -> Tensor, places: &[f64], most: f64) {
    // The last row of 64 is not filled.
    const LEN: usize = 203;
    let graph = of_one(&[LEN], write);
    for (format, truncation) in with_gates() {
        let plan = Plan::compile(&graph, format, truncation).unwrap();
        assert!(plan.steps().len() <= graph.work().steps, "{plan}");
        assert_eq!((plan.rounds(), plan.local_failure()), (3, 0.0), "{plan}");
        let function = &hinges(&plan)[0];
        let bits = plan.table().outputs()[0].fraction - 12;
        let inputs = [1, 2].map(|seed| alice(&[LEN], values(format, LEN, places, seed)));
        for ahead in [false, true] {
            let settings = Settings { ahead, ..Settings::new(format, truncation, 3) };
            for inputs in &inputs {
                let outcome = run(&graph, settings, std::slice::from_ref(inputs));
                check_lengths(&plan, &outcome);
                let x = inputs[&"alice".parse().unwrap()]["x"].as_slice();
                let expected = graph.evaluate_plaintext(inputs).unwrap();
                let expected = expected[&"alice".parse().unwrap()]["y"].as_slice();
                let found = outcome.output(0, "alice", "y");
                for ((x, expected), found) in x.iter().zip(expected).zip(&found) {
                    let exact = model(function, *x);
                    let units = (found * UNIT) as i64;
                    let up = i64::from(exact & ((1 << bits) - 1) != 0);
                    let floor = exact >> bits;
                    assert!((floor..=floor + up).contains(&units), "{format} {x}: {found} {exact}");
                    let most = most * (1.0 + x.abs());
                    assert!((found - expected).abs() <= most, "{format} {x}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn clips_are_those_of_the_integers() {
    check(|g, x| g.clip(x, -1.0, 1.0), &[-1.0, 1.0], 0.0);
    check(|g, x| g.relu6(x), &[0.0, 6.0], 0.0);
    check(|g, x| g.clip(x, -2.5, None), &[-2.5], 0.0);
    check(|g, x| g.clip(x, None, 100.0), &[100.0], 0.0);
    check(|g, x| g.clip(x, 3.0, 3.0 + 1.0 / UNIT), &[3.0], 0.0);
    // Ends that are no multiples of a unit in the last place.
    check(|g, x| g.clip(x, -0.1, 0.3), &[-0.1, 0.3], 0.5 / UNIT);
}

#[test]
fn slopes_are_those_of_the_integers() {
    check(|g, x| g.leaky_relu(x, 0.25), &[0.0], 1.0 / UNIT);
    check(|g, x| g.leaky_relu(x, -0.5), &[0.0], 1.0 / UNIT);
    // In Int32 a slope has 11 fractional bits.
    check(|g, x| g.leaky_relu(x, 0.01), &[0.0], 1.01 / UNIT);
    let many: Vec<[f64; 2]> =
        (0..MAX_POINTS).map(|i| [i as f64 - 31.5, if i % 2 == 0 { 1.0 } else { -2.0 }]).collect();
    let places: Vec<f64> = many.iter().map(|point| point[0]).collect();
    let zigzag = Piecewise { points: many, slopes: [0.0, 0.0] };
    check(|g, x| g.piecewise(x, zigzag.clone()), &places, 2.01 / UNIT);
    let hat =
        Piecewise { points: vec![[-4.0, 0.0], [0.5, 3.0], [2.0, -1.0]], slopes: [-0.5, 0.125] };
    check(|g, x| g.piecewise(x, hat.clone()), &[-4.0, 0.5, 2.0], 2.01 / UNIT);
}

#[test]
fn activations_are_within_their_error() {
    for activation in ACTIVATIONS {
        let function = activation.piecewise();
        let places: Vec<f64> = function.points.iter().map(|point| point[0]).collect();
        let write = |g: &GraphBuilder, x| g.activation(x, activation);
        check(write, &places, f64::INFINITY);
        // Without a factor that grows with the argument.
        let graph = of_one(&[500], write);
        for (format, truncation) in with_gates() {
            let inputs = alice(&[500], values(format, 500, &places, 9));
            let expected = graph.evaluate_plaintext(&inputs).unwrap();
            let expected = expected[&"alice".parse().unwrap()]["y"].as_slice().to_vec();
            let settings = Settings::new(format, truncation, 8);
            let found = run(&graph, settings, &[inputs]).output(0, "alice", "y");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() <= ACTIVATION_ERROR, "{activation:?}");
            }
        }
    }
}

#[test]
fn a_step_is_that_of_the_integers() {
    const LEN: usize = 130;
    for threshold in [0.0, 1.5, -3.25, 0.1, -0.1, 127.0, -127.9] {
        let graph = of_one(&[LEN], |g, x| g.step(x, threshold));
        for (format, truncation) in with_gates() {
            let plan = Plan::compile(&graph, format, truncation).unwrap();
            assert_eq!((plan.rounds(), plan.local_failure()), (3, 0.0));
            let inputs = alice(&[LEN], values(format, LEN, &[threshold], 4));
            let expected = graph.evaluate_plaintext(&inputs).unwrap();
            let outcome = run(&graph, Settings::new(format, truncation, 3), &[inputs]);
            let expected = expected[&"alice".parse().unwrap()]["y"].as_slice();
            assert_eq!(outcome.output(0, "alice", "y"), expected, "{threshold} {format}");
        }
    }
}

/// Slopes of a channel, private or public, and a public argument.
#[test]
fn a_slope_of_each_channel_is_that_of_the_integers() {
    const SHAPE: [usize; 3] = [4, 10, 5];
    let slopes = [0.25, -0.125, 0.0, 1.0, 0.5];
    let private = |g: &GraphBuilder| g.share(g.local_variable("alice", "slopes", [5]));
    let public = |g: &GraphBuilder| g.constant([5], slopes);
    type Slopes<'a> = &'a dyn Fn(&GraphBuilder) -> Tensor;
    for (slopes_of, rounds) in [(&private as Slopes<'_>, 4), (&public, 3)] {
        let graph = of_one(&SHAPE, |g, x| g.prelu(x, slopes_of(g)));
        for (format, truncation) in with_gates() {
            let plan = Plan::compile(&graph, format, truncation).unwrap();
            assert!(plan.steps().len() <= graph.work().steps);
            assert_eq!((plan.rounds(), plan.local_failure()), (rounds, 0.0), "{plan}");
            let x = values(format, 200, &[], 6);
            let inputs = player_inputs([
                ("alice", "x", SHAPE.to_vec(), x.clone()),
                ("alice", "slopes", vec![5], slopes.to_vec()),
            ]);
            let outcome = run(&graph, Settings::new(format, truncation, 5), &[inputs]);
            check_lengths(&plan, &outcome);
            for ((x, slope), found) in
                x.iter().zip(slopes.iter().cycle()).zip(outcome.output(0, "alice", "y"))
            {
                let exact = if *x < 0.0 { x * slope } else { *x } * UNIT;
                let units = found * UNIT;
                assert!((exact.floor()..=exact.ceil()).contains(&units), "{format} {x} {slope}");
            }
        }
    }
    // A public argument of a private slope.
    let g = GraphBuilder::new(["alice"]);
    let x = g.constant([3], [-2.0, 0.0, 3.0]);
    let slope = g.share(g.local_variable("alice", "slope", []));
    g.output("y", g.reveal("alice", g.prelu(x, slope)));
    let graph = g.build().unwrap();
    let inputs = player_inputs([("alice", "slope", vec![], vec![0.25])]);
    let settings = Settings::new(NumberFormat::Int64, Truncation::Local, 5);
    assert_eq!(run(&graph, settings, &[inputs]).output(0, "alice", "y"), [-0.5, 0.0, 3.0]);
    // One public slope is a leaky ReLU.
    let graph = of_one(&[8], |g, x| g.prelu(x, g.scalar(0.25)));
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    assert_eq!(hinges(&plan).len(), 1);
}

/// Gates of gates, of products and of choices, and products of gates, none of which is truncated with
/// a probability of failure.
#[test]
fn gates_take_part_in_further_operations() {
    type Write = fn(&GraphBuilder, Tensor) -> Tensor;
    let all: [(&str, Write, f64); 11] = [
        (
            "pool",
            |g, x| g.relu6(g.reshape(g.max_pool(g.reshape(x, [1, 4, 8, 1]), 2, 2, 0), [8])),
            0.0,
        ),
        (
            "pooled",
            |g, x| g.max_pool(g.reshape(g.activation(x, Activation::Tanh), [1, 4, 8, 1]), 2, 2, 0),
            0.003,
        ),
        (
            "again",
            |g, x| g.activation(g.clip(g.leaky_relu(x, 0.5), -4.0, 4.0), Activation::Sigmoid),
            0.003,
        ),
        (
            "product",
            |g, x| {
                let x = g.reshape(x, [4, 8]);
                let y = g.activation(g.scale(x, 0.125), Activation::Sigmoid);
                g.matmul(y, g.transpose(y, [1, 0]))
            },
            0.04,
        ),
        ("hard swish", |g, x| g.mul(g.clip(x, -8.0, 8.0), g.activation(x, HARD_SIGMOID)), 0.01),
        ("gate", |g, x| g.mul(g.step(x, 1.5), g.scale(x, 0.25)), 0.001),
        ("both", |g, x| g.add(g.relu(x), g.neg(g.clip(x, -1.0, 1.0))), 0.0),
        ("of a choice", |g, x| g.clip(g.argmax(g.reshape(x, [4, 8])), 0.5, 2.5), 0.0),
        ("slopes", |g, x| g.step(g.prelu(x, g.relu(x)), 1.5), 0.0),
        (
            "its own slopes",
            |g, x| {
                let x = g.clip(x, -4.0, 4.0);
                g.relu(g.prelu(x, x))
            },
            0.003,
        ),
        ("a line", |g, x| g.leaky_relu(g.clip(x, -1.0, 1.0), 1.0), 0.0),
    ];
    for (name, write, most) in all {
        let graph = of_one(&[32], write);
        for (format, truncation) in with_gates() {
            if name == "hard swish" && format == NumberFormat::Int32 {
                continue;
            }
            let plan = Plan::compile(&graph, format, truncation)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(plan.steps().len() <= graph.work().steps, "{name} {plan}");
            let x: Vec<f64> = values(format, 64, &[], 6)
                .into_iter()
                .filter(|x| x.abs() < 60.0)
                .take(32)
                .collect();
            let inputs = alice(&[32], x);
            let expected = graph.evaluate_plaintext(&inputs).unwrap();
            let outcome = run(&graph, Settings::new(format, truncation, 5), &[inputs]);
            check_lengths(&plan, &outcome);
            let expected = expected[&"alice".parse().unwrap()]["y"].as_slice();
            for (found, expected) in outcome.output(0, "alice", "y").iter().zip(expected) {
                assert!((found - expected).abs() <= most, "{name} {format}: {found} {expected}");
            }
        }
    }
}

/// In a graph that declares a small range, thresholds beyond it are left out, and wires have fewer bits.
#[test]
fn thresholds_that_no_value_reaches_are_left_out() {
    type Write = fn(&GraphBuilder, Tensor) -> Tensor;
    let all: [(Write, usize, f64); 6] = [
        (|g, x| g.relu6(x), 1, 0.0),
        (|g, x| g.clip(x, -5.0, 4.0), 0, 0.0),
        (|g, x| g.activation(x, Activation::Sigmoid), 15, ACTIVATION_ERROR),
        (|g, x| g.activation(x, Activation::Silu), 20, ACTIVATION_ERROR),
        (|g, x| g.step(x, 17.0), 0, 0.0),
        (|g, x| g.step(x, -4.0), 0, 0.0),
    ];
    for (write, most, error) in all {
        let g = GraphBuilder::new(["alice"]);
        g.range(4);
        let x = g.share(g.local_input("alice", "x", [100]));
        g.output("y", g.reveal("alice", write(&g, x)));
        let graph = g.build().unwrap();
        let mut random = noise(3);
        let mut x: Vec<f64> =
            (0..99).map(|_| (f64::from(random()) * 3.99 * UNIT).trunc() / UNIT).collect();
        x.push(-4.0 + 1.0 / UNIT);
        let inputs = alice(&[100], x);
        let expected = graph.evaluate_plaintext(&inputs).unwrap();
        let expected = expected[&"alice".parse().unwrap()]["y"].as_slice().to_vec();
        for (format, truncation) in with_gates() {
            let plan = Plan::compile(&graph, format, truncation).unwrap();
            let points = hinges(&plan).first().map_or(0, |function| function.hinges.len());
            assert!(points <= most, "{format}: {points}");
            assert!(!plan.to_string().contains("bits 24"), "{plan}");
            let settings = Settings::new(format, truncation, 8);
            let outcome = run(&graph, settings, std::slice::from_ref(&inputs));
            for (found, expected) in outcome.output(0, "alice", "y").iter().zip(&expected) {
                assert!((found - expected).abs() <= error, "{format}: {found} {expected}");
            }
        }
    }
}

#[test]
fn one_table_serves_all_thresholds() {
    let rows = 8;
    let sent = |write: fn(&GraphBuilder, Tensor) -> Tensor| {
        let graph = of_one(&[64], write);
        let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
        let of = |name: &str| {
            let step = plan.steps().iter().position(|step| step.operation.name() == name).unwrap();
            plan.sent_bytes(Role::Producer, step) / rows
        };
        let exchanges: Vec<usize> =
            (0..plan.rounds()).map(|round| plan.round_bytes(round) / rows).collect();
        let count = hinges(&plan)[0].hinges.len();
        (of("compare_thresholds"), of("hinges"), exchanges, plan.table().ring_bits(), count)
    };
    // 128 bits of tables and 37 of products for each threshold. Of what is selected two counts of
    // the bits above the wire's 24, and for each threshold twice the ring's and a count. Alone a clip
    // needs one bit more than its wire has.
    let one = sent(|g, x| g.clip(x, 0.0, None));
    assert_eq!(one, (128 + 37, 2 + (2 * 25 + 1), vec![24, 8, 1], 25, 1));
    let two = sent(|g, x| g.relu6(x));
    assert_eq!(two, (128 + 2 * 37, 2 + 2 * (2 * 25 + 1), vec![24, 16, 2], 25, 2));
    let (compared, selected, exchanges, ring, count) =
        sent(|g, x| g.activation(x, Activation::Sigmoid));
    // One more than points, so that it saturates at 1.
    assert_eq!(count, Activation::Sigmoid.piecewise().points.len() + 1);
    let ring_bits = ring as usize;
    assert_eq!(compared, 128 + count * 37);
    assert_eq!(selected, 2 * (ring_bits - 24) + count * (3 * ring_bits - 24));
    assert_eq!(exchanges, [24, 8 * count, count]);
}

#[test]
fn every_message_of_hinges_is_uniform() {
    type Write = fn(&GraphBuilder, Tensor) -> Tensor;
    let all: [(&str, Write, usize); 3] = [
        ("clip", |g, x| g.relu6(x), 2),
        ("tanh", |g, x| g.activation(x, Activation::Tanh), 2),
        ("step", |g, x| g.step(x, 1.5), 2),
    ];
    for (name, write, shared) in all {
        let graph = of_one(&[128], write);
        for format in [NumberFormat::Int64, NumberFormat::Int32] {
            // The same values each time; only the randomness differs.
            let x = (0..128).map(|i| if i < 64 { -0.75 } else { 7.25 }).collect();
            let inputs = alice(&[128], x);
            let evaluations = [inputs.clone(), inputs];
            let bytes = received(60, |randomness| {
                let settings = Settings::new(format, Truncation::Local, randomness);
                run(&graph, settings, &evaluations)
            });
            // Alice's input to both servers, three exchanges, and what the producer shares.
            assert_eq!(bytes.len(), 2 + 2 * 3 + shared, "{name} {:?}", bytes.keys());
            for (place, bytes) in &bytes {
                uniform_bytes(&format!("{name} {format} {place:?}"), bytes);
            }
            // What both servers' messages of an exchange make together is uniform, too.
            let plan = Plan::compile(&graph, format, Truncation::Local).unwrap();
            for round in plan.exchanges() {
                if plan.steps()[round.start].operation.name() != "open_narrow" {
                    let sums = both_servers(&bytes, round.start);
                    uniform_bytes(&format!("{name} {format}: opened in {round:?}"), &sums);
                }
            }
        }
    }
}

#[test]
fn the_producer_does_not_depend_on_what_is_compared() {
    let graph = of_one(&[70], |g, x| g.activation(x, Activation::Gelu));
    let sent = |seed| {
        let inputs = alice(&[70], values(NumberFormat::Int64, 70, &[], seed));
        let settings = Settings::new(NumberFormat::Int64, Truncation::Local, 2);
        let messages = run(&graph, settings, &[inputs]).messages.into_iter();
        let mut sent: Vec<_> =
            messages.filter(|m| m.0 == Role::Producer).map(|m| format!("{m:?}")).collect();
        sent.sort();
        sent
    };
    assert!(sent(1).len() > 2);
    assert_eq!(sent(1), sent(2));
}

#[test]
fn what_cannot_be_is_refused_with_numbers() {
    let built = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.share(g.local_input("alice", "x", [2, 3]));
        g.output("y", g.reveal("alice", write(&g, x)));
        g.build()
    };
    let points = |arguments: &[f64]| Piecewise {
        points: arguments.iter().map(|x| [*x, 0.0]).collect(),
        slopes: [0.0, 1.0],
    };
    let many: Vec<f64> = (0..65).map(f64::from).collect();
    type Write<'a> = &'a dyn Fn(&GraphBuilder, Tensor) -> Tensor;
    let refused: [(Write<'_>, &str); 14] = [
        (&|g, x| g.clip(x, 1.0, -1.0), "found 1 and -1"),
        (&|g, x| g.clip(x, 1.0, 1.0), "found 1 and 1"),
        (&|g, x| g.clip(x, None, None), "found neither"),
        (&|g, x| g.clip(x, f64::NEG_INFINITY, 1.0), "-inf is not a finite number"),
        (&|g, x| g.leaky_relu(x, f64::NAN), "NaN is not a finite number"),
        (&|g, x| g.step(x, f64::INFINITY), "inf is not a finite number"),
        (&|g, x| g.piecewise(x, points(&[])), "1 to 64 points, found 0"),
        (&|g, x| g.piecewise(x, points(&many)), "1 to 64 points, found 65"),
        (&|g, x| g.piecewise(x, points(&[2.0, 1.0])), "found 1 after 2"),
        (&|g, x| g.piecewise(x, points(&[2.0, 2.0])), "found 2 after 2"),
        (&|g, x| g.piecewise(x, points(&[f64::NAN])), "found NaN"),
        (
            &|g, x| g.activation(x, Activation::HardSigmoid { alpha: 0.0, beta: 0.5 }),
            "positive, found 0",
        ),
        (
            &|g, x| g.prelu(x, g.constant([2], [0.1, 0.2])),
            "slopes of shape [2] cannot be broadcast to [2, 3]",
        ),
        (
            &|g, x| g.prelu(x, g.constant([4, 1, 1], [0.1; 4])),
            "slopes of shape [4, 1, 1] cannot be broadcast to [2, 3]",
        ),
    ];
    for (write, expected) in refused {
        let error = built(write).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let planned = |write: Write<'_>, format| {
        Plan::compile(&built(write).unwrap(), format, Truncation::Local)
            .map(|plan| plan.to_string())
            .map_err(|error| error.to_string())
    };
    let clip: Write<'_> = &|g, x| g.clip(x, -200.0, 6.0);
    assert!(planned(clip, NumberFormat::Int64).is_ok());
    assert_eq!(
        planned(clip, NumberFormat::Int32).unwrap_err(),
        "main, node 2 (clip): -200 is not within the range of Int32, whose values are below 128 and are compared in 21 bits; leave out what lies beyond the range, or choose a format with a wider one"
    );
    let step: Write<'_> = &|g, x| g.step(x, 1024.0);
    assert!(planned(step, NumberFormat::Int64).unwrap_err().contains("1024 is not within"));
    let close: Write<'_> = &|g, x| g.piecewise(x, points(&[1.0, 1.00001]));
    let error = planned(close, NumberFormat::Int64).unwrap_err();
    assert!(error.contains("1 and 1.00001 are the same number in Int64, which has 12"), "{error}");
    let high = Piecewise { points: vec![[0.0, 1e300], [1.0, 0.0]], slopes: [0.0; 2] };
    let steep = Piecewise { points: vec![[0.0, 0.0]], slopes: [0.0, -1e30] };
    let beyond: [(Write<'_>, &str); 4] = [
        (&|g, x| g.piecewise(x, high.clone()), "main, node 2 (piecewise): 1000"),
        (&|g, x| g.piecewise(x, steep.clone()), "main, node 2 (piecewise): -1000"),
        (&|g, x| g.leaky_relu(x, 2000.0), "main, node 2 (leaky_relu): 2000 is outside"),
        (&|g, x| g.prelu(x, g.scalar(2000.0)), "main, node 3 (prelu): 2000 is outside"),
    ];
    for (write, expected) in beyond {
        for format in [NumberFormat::Int64, NumberFormat::Int32] {
            let error = planned(write, format).unwrap_err();
            assert!(error.contains(expected) && error.contains("outside the"), "{error}");
        }
    }
    for (write, gate) in [
        (clip, "clip"),
        (&|g, x| g.leaky_relu(x, 0.5), "leaky_relu"),
        (&|g, x| g.prelu(x, x), "prelu"),
        (step, "step"),
        (close, "piecewise"),
        (&|g, x| g.activation(x, Activation::Sigmoid), "sigmoid"),
        (&|g, x| g.activation(x, HARD_SIGMOID), "hard_sigmoid"),
    ] {
        let error = planned(write, NumberFormat::Int100).unwrap_err();
        let expected = format!("Int100 cannot compare numbers, which an exact {gate} needs");
        assert!(error.contains(&expected), "{error}");
    }
}

/// What a gate costs for each value, as the page has it: bits of its wire, bits of the ring that count,
/// points, bytes that the producer sends, and bits that each server sends. A dense layer follows.
fn costs(format: NumberFormat, write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor) -> String {
    const LEN: usize = 64;
    let g = GraphBuilder::new(["alice"]);
    let x = g.share(g.local_input("alice", "x", [1, LEN]));
    let weights = g.share(g.local_variable("alice", "w", [LEN, 1]));
    g.label("gate");
    let y = write(&g, x);
    g.label("dense");
    g.output("y", g.reveal("alice", g.matmul(y, weights)));
    let plan = Plan::compile(&g.build().unwrap(), format, Truncation::Interactive).unwrap();
    assert_eq!(plan.local_failure(), 0.0);
    let (mut producer, mut server) = (0, 0);
    for (index, step) in plan.steps().iter().enumerate().filter(|(_, step)| step.layer == "gate") {
        producer += plan.sent_bytes(Role::Producer, index);
        let message = step.operation.message(plan.table());
        server += message.map_or(0, |message| message.bytes());
    }
    let points = hinges(&plan).first().map_or(1, |function| function.hinges.len());
    let (ring, producer) = (plan.table().ring_bits(), producer as f64 / LEN as f64);
    let bits = 8 * server / LEN;
    format!("{ring} | {points} | {producer:.1} | {bits} | {} |", plan.rounds() - 1)
}

#[test]
fn the_protocol_page_has_the_plans_costs() {
    type Write = fn(&GraphBuilder, Tensor) -> Tensor;
    let gates: [(&str, Write); 10] = [
        ("clip with one end", |g, x| g.clip(x, -1.0, None)),
        ("clip with both, ReLU6", |g, x| g.relu6(x)),
        ("leaky ReLU, slope 1/8", |g, x| g.leaky_relu(x, 0.125)),
        ("step", |g, x| g.step(x, 0.5)),
        ("hard sigmoid, 0.2 and 0.5", |g, x| g.activation(x, HARD_SIGMOID)),
        ("sigmoid", |g, x| g.activation(x, Activation::Sigmoid)),
        ("tanh", |g, x| g.activation(x, Activation::Tanh)),
        ("GELU", |g, x| g.activation(x, Activation::Gelu)),
        ("SiLU", |g, x| g.activation(x, Activation::Silu)),
        ("hard swish", |g, x| g.activation(x, Activation::HardSwish)),
    ];
    let product = |g: &GraphBuilder, x| {
        let gate = Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 };
        g.mul(x, g.activation(x, gate))
    };
    // The other way to a hard swish.
    assert_eq!(costs(NumberFormat::Int64, &product), "37 | 3 | 75.9 | 103 | 6 |");
    let page = include_str!("../../docs/protocol.md");
    assert!(page.contains(
        "would take 76 bytes of the producer and 103 bits of each server, in place of 415 and 282"
    ));
    let mut missing = Vec::new();
    for format in [NumberFormat::Int64, NumberFormat::Int32] {
        for (name, write) in gates {
            let row = format!("| {name} | {format} | {}", costs(format, &write));
            if !page.lines().any(|line| line == row) {
                missing.push(row);
            }
        }
    }
    assert!(missing.is_empty(), "the page should say:\n{}", missing.join("\n"));
}
