//! Every operation of a graph, private with private and private with public, against the
//! same graph on plaintext; what costs interaction and what does not; what is refused.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[allow(unreachable_pub)]
mod common;

use std::cell::RefCell;

use common::{PlayerInputs, Settings, noise, run, with_gates, with_polynomials};
use proptest::prelude::*;
use spdz::channel::Role;
use spdz::graph::{
    BatchNorm, Function, Graph, GraphBuilder, Padding, Plaintext, Stride, Tensor, Tensors, Window,
    Windows,
};
use spdz::network::Network;
use spdz::plan::{NumberFormat, Plan, PlanError, Route, Truncation};
use spdz::polynomial::{Fit, Polynomial};

/// Numbers from -2 to 2 for every input of a graph.
fn random_inputs(graph: &Graph, seed: u64) -> PlayerInputs {
    let random = RefCell::new(noise(seed));
    let tensor = |shape: Vec<usize>| {
        let len = shape.iter().product();
        let values = (0..len).map(|_| 2.0 * f64::from(random.borrow_mut()())).collect();
        Plaintext::new(shape, values).unwrap()
    };
    let tensors = |player| {
        let inputs = graph.inputs_of(player).into_iter();
        inputs.map(|input| (input.name, tensor(input.shape))).collect::<Tensors>()
    };
    graph.players().iter().map(|player| (*player, tensors(*player))).collect()
}

/// Runs the graph twice under every format that holds any graph without comparisons, with every
/// truncation, and compares all outputs.
fn check(graph: &Graph, tolerance: f64) {
    check_in(graph, tolerance, with_polynomials());
}

/// The same in some formats.
fn check_in(
    graph: &Graph,
    tolerance: f64,
    formats: impl IntoIterator<Item = (NumberFormat, Truncation)>,
) {
    let evaluations = [random_inputs(graph, 1), random_inputs(graph, 2)];
    let evaluations = evaluations.map(|mut player_inputs| {
        // What lasts for the session is what the first evaluation brings.
        let first = random_inputs(graph, 1);
        for player in graph.players() {
            for input in graph.inputs_of(*player) {
                if input.lifetime == spdz::graph::Lifetime::Session {
                    let value = first[player][&input.name].clone();
                    player_inputs.get_mut(player).unwrap().insert(input.name, value);
                }
            }
        }
        player_inputs
    });
    for (format, truncation) in formats {
        for ahead in [false, true] {
            let settings = Settings { ahead, ..Settings::new(format, truncation, 3) };
            let outcome = run(graph, settings, &evaluations);
            for (index, (player_outputs, player_inputs)) in
                outcome.player_outputs.iter().zip(&evaluations).enumerate()
            {
                let expected = graph.evaluate_plaintext(player_inputs).unwrap();
                for (player, expected) in &expected {
                    for (name, expected) in expected {
                        let found = &player_outputs[player].as_ref().unwrap_or_else(|e| {
                            panic!("{} {format} {truncation} {e}", graph.name())
                        })[name];
                        assert_eq!(found.shape(), expected.shape());
                        let pairs = found.as_slice().iter().zip(expected.as_slice());
                        for (place, (x, y)) in pairs.enumerate() {
                            assert!(
                                (x - y).abs() <= tolerance,
                                "{}: {format} {truncation} ahead {ahead}: evaluation {index}, {name}, element {place} is {x}, expected {y}",
                                graph.name()
                            );
                        }
                    }
                }
            }
        }
    }
}

fn rounds(graph: &Graph, format: NumberFormat, truncation: Truncation) -> usize {
    Plan::compile(graph, format, truncation).unwrap().rounds()
}

/// A graph of two private inputs `[3, 4]` of two players and a public `[3, 4]`.
fn graph(name: &str, write: impl Fn(&GraphBuilder, Tensor, Tensor, Tensor) -> Tensor) -> Graph {
    let g = GraphBuilder::named(name, ["alice", "bob", "carol"]);
    let x = g.private_input("alice", [3, 4]);
    let y = g.private_input("bob", [3, 4]);
    let numbers = (0..12).map(|i| f64::from(i) * 0.3 - 1.7).collect::<Vec<_>>();
    let p = g.constant([3, 4], numbers);
    let z = write(&g, x, y, p);
    // Both inputs are used, whatever the operation does.
    g.private_output("alice", g.add(x, y));
    g.private_output("carol", z);
    g.build().unwrap()
}

#[test]
fn operations_of_private_tensors_with_private_ones() {
    let t = |g: &GraphBuilder, x| g.transpose(x, [1, 0]);
    check(&graph("add", |g, x, y, _| g.add(x, y)), 1e-3);
    check(&graph("sub", |g, x, y, _| g.sub(x, y)), 1e-3);
    check(&graph("neg", |g, x, _, _| g.neg(x)), 1e-3);
    check(&graph("mul", |g, x, y, _| g.mul(x, y)), 3e-3);
    check(&graph("square", |g, x, _, _| g.square(x)), 3e-3);
    check(&graph("matmul", |g, x, y, _| g.matmul(x, t(g, y))), 5e-3);
    check(&graph("outer", |g, x, y, _| g.matmul(t(g, x), y)), 5e-3);
    check(&graph("mul-of-itself", |g, x, _, _| g.mul(x, x)), 3e-3);
    check(&graph("broadcast", |g, x, y, _| g.mul(x, g.slice(y, [(1, 2, 1), (0, 4, 1)]))), 3e-3);
    check(&graph("reshape", |g, x, y, _| g.mul(g.reshape(x, [12]), g.reshape(y, [12]))), 3e-3);
    check(&graph("transpose", |g, x, y, _| g.mul(t(g, x), t(g, y))), 3e-3);
    check(&graph("concat", |g, x, y, _| g.concat(&[x, g.mul(x, y), y], 1)), 3e-3);
    check(&graph("stack", |g, x, y, _| g.square(g.stack(&[x, y], 1))), 3e-3);
    check(&graph("slice", |g, x, y, _| g.slice(g.mul(x, y), [(0, 3, 2), (1, 4, 2)])), 3e-3);
    check(&graph("first", |g, x, _, _| g.slice(x, [(0, 3, usize::MAX), (1, 4, 1 << 63)])), 1e-3);
    check(&graph("expand", |g, x, _, _| g.expand(x, [2, 3, 4])), 1e-3);
    check(&graph("sum", |g, x, y, _| g.reduce_sum(g.mul(x, y), [0, 1])), 5e-3);
    check(&graph("mean", |g, x, _, _| g.reduce_mean(x, [0])), 1e-3);
    check(
        &graph("variance", |g, x, _, _| {
            let centred = g.sub(x, g.reduce_mean(x, [0]));
            g.reduce_mean(g.square(centred), [0])
        }),
        5e-3,
    );
}

#[test]
fn operations_of_private_tensors_with_public_ones() {
    let t = |g: &GraphBuilder, x| g.transpose(x, [1, 0]);
    check(&graph("add", |g, x, _, p| g.add(x, p)), 1e-3);
    check(&graph("sub", |g, x, _, p| g.sub(x, p)), 1e-3);
    check(&graph("from", |g, x, _, p| g.sub(p, x)), 1e-3);
    check(&graph("mul", |g, x, _, p| g.mul(x, p)), 3e-3);
    check(&graph("mul-left", |g, x, _, p| g.mul(p, x)), 3e-3);
    check(&graph("scale", |g, x, _, _| g.scale(x, -0.37)), 1e-3);
    check(&graph("scale-small", |g, x, _, _| g.scale(g.scale(x, 1e-3), 1e3)), 0.5);
    check(&graph("halve", |g, x, _, _| g.scale(x, -0.25)), 1e-3);
    check(&graph("double", |g, x, _, _| g.scale(x, 2.0)), 1e-3);
    check(&graph("add-number", |g, x, _, _| g.add(g.scalar(1.5), x)), 1e-3);
    check(&graph("matmul", |g, x, _, p| g.matmul(x, t(g, p))), 5e-3);
    check(&graph("matmul-left", |g, x, _, p| g.matmul(p, t(g, x))), 5e-3);
    check(&graph("public-alone", |g, x, _, p| g.mul(x, g.square(p))), 5e-3);
    check(&graph("concat", |g, x, _, p| g.concat(&[p, g.scale(x, 0.3)], 0)), 2e-3);
    check(
        &graph("broadcast", |g, x, _, p| g.add(g.mul(g.slice(x, [(0, 1, 1), (0, 4, 1)]), p), p)),
        5e-3,
    );
}

/// All but polynomials is in Int32 as it is elsewhere, of numbers in its range.
#[test]
fn sums_products_and_comparisons_of_int32() {
    let t = |g: &GraphBuilder, x| g.transpose(x, [1, 0]);
    let graphs = [
        graph("add", |g, x, y, _| g.add(x, y)),
        graph("sub", |g, x, y, p| g.sub(g.sub(x, y), p)),
        graph("neg", |g, x, _, _| g.neg(x)),
        graph("double", |g, x, _, _| g.scale(x, 2.0)),
        graph("layouts", |g, x, y, _| g.reshape(g.add(t(g, x), t(g, y)), [12])),
        graph("concat", |g, x, y, p| g.concat(&[x, g.neg(y), p], 1)),
        graph("slice", |g, x, y, _| g.slice(g.sub(x, y), [(0, 3, 2), (1, 4, 2)])),
        graph("expand", |g, x, _, _| g.expand(x, [2, 3, 4])),
        graph("sum", |g, x, y, _| g.reduce_sum(g.add(x, y), [0, 1])),
        graph("scale", |g, x, _, _| g.scale(x, 0.3)),
        graph("mean", |g, x, y, _| g.reduce_mean(g.sub(x, y), [1])),
        graph("matmul", |g, x, y, _| g.matmul(x, t(g, y))),
        graph("relu", |g, x, _, _| g.relu(x)),
        graph("relus", |g, x, y, p| g.relu(g.sub(g.relu(g.add(x, y)), g.relu(g.sub(p, x))))),
    ];
    for graph in &graphs {
        check_in(graph, 2e-3, with_gates().filter(|(format, _)| !format.has_polynomials()));
    }
}

/// Every kind of operation that a network with ReLU has.
#[test]
fn a_network_of_int32() {
    let g = GraphBuilder::named("small", ["alice", "bob"]);
    let image = g.private_input("alice", [2, 8, 8, 2]);
    let other = g.private_input("alice", [2, 10]);
    let filter = g.scale(g.private_variable("bob", "filter", [3, 3, 2, 4]), 0.25);
    let weights = g.scale(g.private_variable("bob", "weights", [36, 10]), 0.25);
    let hidden = g.avg_pool(g.relu(g.conv2d(image, filter, 1, 0)), 2);
    let hidden = g.relu(g.matmul(g.flatten(hidden), weights));
    let product = g.mul(hidden, other);
    g.private_output("alice", g.concat(&[product, g.square(other)], 0));
    let graph = g.build().unwrap();
    for (format, _) in with_gates() {
        check_in(&graph, 0.03, [(format, Truncation::Local), (format, Truncation::Interactive)]);
    }
}

#[test]
fn what_int32_does_not_hold_is_refused_with_what_to_choose() {
    let polynomial = graph("polynomial", |g, x, _, _| g.polynomial(x, Polynomial::relu(3.0)));
    let fine = graph("fine", |g, x, _, _| g.scale(g.scale(x, 1e-5), 1e5));
    let networks = [Network::a(), Network::b(), Network::c()];
    let networks = networks.map(|network| network.graph(1).unwrap());
    let graphs = [&polynomial, &fine].into_iter().chain(&networks);
    for (graph, truncation) in
        graphs.flat_map(|g| [Truncation::Local, Truncation::Interactive].map(|t| (g, t)))
    {
        let refused = Plan::compile(graph, NumberFormat::Int32, truncation).unwrap_err();
        let refused = refused.to_string();
        println!("{}: {refused}", graph.name());
        let advice = "; choose Int64 or Int100, or a network with ReLU in place of polynomials";
        assert!(refused.contains("Int32") && refused.ends_with(advice), "{refused}");
    }
}

#[test]
fn convolutions_of_any_stride_and_padding() {
    let alike = |stride: usize, padding: usize| (Stride::from(stride), Padding::from(padding));
    for (stride, padding) in [
        alike(1, 0),
        alike(2, 1),
        alike(3, 2),
        alike(1, 3),
        ([2, 1].into(), Padding::same([5, 6], [3, 2], [2, 1])),
        ([1, 3].into(), [0, 1, 4, 0].into()),
    ] {
        for (image_kind, filter_kind) in
            [("s", "s"), ("e", "s"), ("e", "e"), ("e", "p"), ("p", "e")]
        {
            let name = format!("{stride}-{padding}-{image_kind}{filter_kind}");
            let g = GraphBuilder::named(&name, ["alice", "bob"]);
            let tensor = |kind: &str, name: &str, shape: [usize; 4]| {
                let len: usize = shape.iter().product();
                match kind {
                    "s" => g.private_variable("alice", name, shape),
                    "e" => g.share(g.local_input("alice", name, shape)),
                    _ => g.constant(
                        shape,
                        (0..len).map(|i| (i % 7) as f64 * 0.2).collect::<Vec<_>>(),
                    ),
                }
            };
            let images = tensor(image_kind, "images", [2, 5, 6, 3]);
            let filters = tensor(filter_kind, "filters", [3, 2, 3, 4]);
            g.private_output("bob", g.conv2d(images, filters, stride, padding));
            check(&g.build().unwrap(), 0.02);
        }
    }
}

#[test]
fn pooling_of_any_windows() {
    let windows: [(&str, Windows); 5] = [
        ("rest", 2.into()),
        ("overlapping", Window::from(3).every(2)),
        ("apart", Window::from(1).every([2, 3])),
        ("flat", Window::from([1, 4]).every([3, 1])),
        ("whole", [5, 7].into()),
    ];
    for (name, windows) in windows {
        let g = GraphBuilder::named(name, ["alice", "bob"]);
        let x = g.private_input("alice", [2, 5, 7, 3]);
        g.private_output("bob", g.sum_pool(x, windows));
        // Of a product, whose fractional bits are still those of both factors.
        g.private_output("bob", g.avg_pool(g.square(x), windows));
        let graph = g.build().unwrap();
        check(&graph, 0.01);
        // Inputs arrive masked, ready to be squared, and pooling is local.
        assert_eq!(rounds(&graph, NumberFormat::Int64, Truncation::Local), 0, "{name}");
    }
}

/// What differs in its geometry alone has another digest, and what is the same the same.
#[test]
fn a_digest_covers_every_stride_window_and_border() {
    let digest = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [1, 6, 6, 1]);
        let filter = g.constant([2, 2, 1, 1], [1.0, 2.0, 3.0, 4.0]);
        let x = g.conv2d(x, filter, 1, 0);
        g.private_output("alice", g.reduce_sum(write(&g, x), [0, 1, 2, 3]));
        let graph = g.build().unwrap();
        let text = serde_json::to_string(&graph).unwrap();
        assert_eq!(serde_json::from_str::<Graph>(&text).unwrap(), graph, "{text}");
        Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap().digest().0
    };
    let conv = |stride: Stride, padding: Padding| {
        digest(&move |g, x| {
            g.conv2d(x, g.constant([2, 2, 1, 1], [1.0, 2.0, 3.0, 4.0]), stride, padding)
        })
    };
    let pool = |windows: Windows| digest(&move |g, x| g.sum_pool(x, windows));
    let mut digests = vec![
        conv(1.into(), 0.into()),
        conv([1, 2].into(), 0.into()),
        conv([2, 1].into(), 0.into()),
        conv(2.into(), 0.into()),
        conv(1.into(), 1.into()),
        conv(1.into(), [1, 0, 0, 0].into()),
        conv(1.into(), [0, 1, 0, 0].into()),
        conv(1.into(), [0, 0, 1, 0].into()),
        conv(1.into(), [0, 0, 0, 1].into()),
        pool(2.into()),
        pool([2, 1].into()),
        pool([1, 2].into()),
        pool(Window::from(2).every(1)),
        pool(Window::from(2).every([1, 2])),
        pool(Window::from(2).every([2, 1])),
    ];
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
    assert_eq!(pool(2.into()), pool(Window::from(2).every([2, 2])));
    assert_eq!(conv(1.into(), 1.into()), conv([1, 1].into(), [1, 1, 1, 1].into()));
}

#[test]
fn windows_and_filters_that_do_not_fit_are_refused() {
    let error = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [1, 4, 6, 1]);
        g.private_output("alice", write(&g, x));
        g.build().unwrap_err().to_string()
    };
    let pool = |windows: Windows| error(&move |g, x| g.sum_pool(x, windows));
    let conv = |stride: Stride, padding: Padding| {
        error(&move |g, x| g.conv2d(x, g.constant([5, 2, 1, 1], vec![1.0; 10]), stride, padding))
    };
    for (found, expected) in [
        (pool([5, 1].into()), "windows of 5x1 do not fit into 4x6 pixels"),
        (pool([1, 7].into()), "windows of 1x7 do not fit into 4x6 pixels"),
        (pool(usize::MAX.into()), "do not fit into 4x6 pixels"),
        (pool([2, 0].into()), "windows of 2x0 pixels have none"),
        (pool(Window::from(2).every([0, 1])), "stride 0x1; expected at least 1 pixel along"),
        (conv(1.into(), 0.into()), "filters of 5x2 do not fit into 4x6 pixels with padding 0"),
        (conv(1.into(), [0, 0, 1, 0].into()), "4x6 pixels with padding 0,0,1,0"),
        (conv([1, 0].into(), 1.into()), "stride 1x0; expected at least 1 pixel along each axis"),
        (conv(1.into(), [usize::MAX, 1, 0, 0].into()), "have more than 268435456 elements"),
    ] {
        assert!(found.contains(expected), "{found}, expected {expected}");
    }
    assert!(pool(0.into()).contains("sum_pool (spdz/tests/graph.rs:"), "{}", pool(0.into()));
}

#[test]
fn pooling_and_batch_normalisation() {
    let build = |statistics: &str| {
        let g = GraphBuilder::named(statistics, ["alice", "bob"]);
        let images = g.private_input("alice", [2, 6, 6, 3]);
        let sums = g.sum_pool(images, 3);
        let averages = g.avg_pool(g.square(g.avg_pool(images, 3)), 2);
        let numbers = |name: &str, values: [f64; 3]| match statistics {
            "public" => g.constant([3], values),
            _ => g.local_variable("bob", name, [3]),
        };
        let positive = |x| g.add(g.function(x, Function::Relu), g.scalar(0.5));
        let statistics = BatchNorm {
            gamma: numbers("gamma", [1.0, -0.5, 2.0]),
            beta: numbers("beta", [0.1, 0.2, -0.3]),
            mean: numbers("mean", [0.5, 0.0, -1.0]),
            variance: positive(numbers("variance", [1.0, 2.0, 0.5])),
            epsilon: 1e-5,
        };
        g.private_output("bob", g.batch_norm(sums, statistics));
        g.private_output("bob", averages);
        g.build().unwrap()
    };
    check(&build("public"), 0.03);
    check(&build("local"), 0.05);
}

#[test]
fn polynomials_of_any_degree_and_the_fits() {
    let fitted = |name: &str, range: f64, f: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::named(name, ["alice"]);
        let values: Vec<f64> = (-20..=20).map(|i| f64::from(i) / 20.0 * range).collect();
        let zero = g.private_input("alice", [41]);
        let x = g.add(g.scale(zero, 0.0), g.constant([41], values));
        g.private_output("alice", f(&g, x));
        g.build().unwrap()
    };
    let papers = Fit { bound: 3.0, degree: 4, range: 8.0 };
    check(&fitted("relu", 8.0, &|g, x| g.fitted(x, Function::Relu, papers)), 5e-3);
    check(&fitted("sigmoid", 8.0, &|g, x| g.sigmoid(x)), 1e-3);
    check(&fitted("tanh", 4.0, &|g, x| g.tanh(x)), 2e-3);
    for degree in [0, 1, 2, 3, 5, 8, 13] {
        let fit = Fit { bound: 3.0, degree, range: 3.0 };
        let graph =
            fitted(&format!("degree{degree}"), 3.0, &|g, x| g.fitted(x, Function::Relu, fit));
        check(&graph, 5e-3);
    }
}

/// What nearly vanishes has many fractional bits, and next to other numbers it is nothing.
#[test]
fn numbers_far_below_a_unit_in_the_last_place() {
    for factor in [3e-10, -3e-6, 2f64.powi(-31)] {
        let tiny = |g: &GraphBuilder, x: Tensor, times: usize| {
            (0..times).fold(x, |x, _| g.scale(x, factor))
        };
        for times in 1..=4 {
            let small = |write: &dyn Fn(&GraphBuilder, Tensor, Tensor) -> Tensor| {
                graph(&format!("{factor}-{times}"), |g, x, y, _| write(g, tiny(g, x, times), y))
            };
            for graph in [
                small(&|_, x, _| x),
                small(&|g, x, y| g.add(x, y)),
                small(&|g, x, y| g.concat(&[x, y], 0)),
                small(&|g, x, y| g.mul(x, y)),
                small(&|g, x, _| g.square(x)),
            ] {
                check(&graph, 2e-3);
            }
        }
    }
}

#[test]
fn players_compute_alone_before_sharing_and_after_receiving() {
    let g = GraphBuilder::new(["hospital", "insurer", "patient"]);
    let ages = g.local_input("hospital", "ages", [5]);
    let scaled = g.share(g.scale(ages, 0.01));
    let weight = g.private_variable("insurer", "weight", [5]);
    let risk = g.mul(scaled, weight);
    let logits = g.reveal("patient", g.reshape(risk, [1, 5]));
    g.output("probabilities", g.softmax(logits));
    g.output("largest", g.argmax(logits));
    g.private_output("hospital", g.reduce_sum(risk, [0]));
    let graph = g.build().unwrap();
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    assert_eq!(plan.coordinator().as_str(), "hospital");
    assert!(!plan.takes_part("insurer".parse().unwrap()));
    assert!(plan.takes_part("patient".parse().unwrap()));
    check(&graph, 5e-3);
}

#[test]
fn a_graph_survives_writing_and_reading_and_keeps_its_plan() {
    let graph = spdz::network::Network::c().graph(2).unwrap();
    let text = serde_json::to_string(&graph).unwrap();
    let read: Graph = serde_json::from_str(&text).unwrap();
    assert_eq!(graph, read);
    let plan = |graph| Plan::compile(graph, NumberFormat::Int100, Truncation::Interactive).unwrap();
    assert_eq!(plan(&graph).digest(), plan(&read).digest());
    let tampered = text.replace("\"stride\":1", "\"stride\":0");
    let error = serde_json::from_str::<Graph>(&tampered).unwrap_err().to_string();
    assert!(error.contains("conv2d") && error.contains("stride 0"), "{error}");
}

#[test]
fn what_needs_no_interaction_costs_none() {
    let free: Vec<Graph> = vec![
        graph("add", |g, x, y, _| g.sub(g.neg(x), y)),
        graph("scale", |g, x, _, _| g.scale(x, 4.0)),
        graph("halves", |g, x, _, _| g.scale(x, 0.125)),
        graph("moves", |g, x, y, _| {
            let z = g.stack(&[g.transpose(x, [1, 0]), g.transpose(y, [1, 0])], 0);
            g.expand(g.slice(z, [(0, 2, 1), (0, 4, 3), (2, 3, 1)]), [2, 2, 5])
        }),
        graph("sums", |g, x, _, _| g.reduce_sum(x, [0])),
        graph("integers", |g, x, _, _| g.mul(x, g.constant([4], [1.0, 2.0, -3.0, 4.0]))),
    ];
    for graph in &free {
        // Outputs with more fractional bits than the format's are divided, no more.
        let dividing = usize::from(graph.name() == "halves");
        assert_eq!(rounds(graph, NumberFormat::Int64, Truncation::Local), 0, "{}", graph.name());
        let interactive = rounds(graph, NumberFormat::Int100, Truncation::Interactive);
        assert_eq!(interactive, dividing, "{}", graph.name());
    }
    // Scaling, matrices and public products interact only to divide.
    let scaled = graph("public", |g, x, _, p| g.mul(g.scale(x, 0.3), p));
    assert_eq!(rounds(&scaled, NumberFormat::Int64, Truncation::Local), 0);
}

#[test]
fn a_tensor_is_masked_once_however_often_it_is_used() {
    let used = graph("often", |g, x, y, _| {
        let z = g.add(x, y);
        let t = g.transpose(z, [1, 0]);
        let square = g.matmul(z, t);
        let wide = g.mul(g.expand(z, [2, 3, 4]), g.expand(z, [2, 3, 4]));
        g.add(g.reduce_sum(square, [0, 1]), g.reduce_sum(wide, [0, 1, 2]))
    });
    // The sum is opened; inputs arrive masked.
    assert_eq!(rounds(&used, NumberFormat::Int64, Truncation::Local), 1);
    check(&used, 0.02);
}

#[test]
fn a_weight_of_the_session_serves_any_number_of_products() {
    let g = GraphBuilder::named("shared-weight", ["alice", "bob"]);
    let x = g.private_input("alice", [3, 4]);
    let w = g.private_variable("bob", "w", [4, 4]);
    let once = g.matmul(x, w);
    let twice = g.matmul(once, w);
    let turned = g.matmul(x, g.transpose(w, [1, 0]));
    let alone = g.reduce_sum(w, [0]);
    g.private_output("alice", g.add(g.add(twice, turned), alone));
    check(&g.build().unwrap(), 0.05);
}

#[test]
fn what_a_product_keeps_of_the_session_serves_others_too() {
    // A bias that is computed, added to two products, and used in the set-up itself.
    let g = GraphBuilder::named("shared-bias", ["alice", "bob"]);
    let x = g.private_input("alice", [3, 4]);
    let w = g.private_variable("bob", "w", [4, 4]);
    let b = g.private_variable("bob", "b", [4]);
    let numbers = g.constant([4], vec![0.5, 0.3, -1.1, 2.0]);
    let bias = g.mul(b, numbers);
    let more = g.add(g.mul(bias, numbers), numbers);
    let once = g.add(g.matmul(x, w), bias);
    let twice = g.add(g.matmul(once, w), bias);
    g.private_output("alice", g.add(twice, g.add(more, b)));
    check(&g.build().unwrap(), 0.05);
}

/// A weight or a bias that lasts for the session, and that only an evaluation can compute.
#[test]
fn a_bias_joins_its_product_wherever_both_come_from() {
    type Write = fn(&GraphBuilder, Tensor) -> Tensor;
    let same: Write = |_, w| w;
    let half: Write = |g, w| g.scale(w, 0.5);
    let third: Write = |g, w| g.scale(w, 0.3);
    let doubled: Write = |g, w| g.add(w, w);
    let squared: Write = |g, w| g.square(w);
    let rectified: Write = |g, w| g.relu(w);
    let graph = |weight: Write, bias: Write| {
        let g = GraphBuilder::new(["alice", "bob"]);
        let x = g.private_input("alice", [3, 4]);
        let w = weight(&g, g.private_variable("bob", "w", [4, 5]));
        let b = bias(&g, g.private_variable("bob", "b", [5]));
        g.private_output("alice", g.add(g.matmul(x, w), b));
        g.build().unwrap()
    };
    for write in [same, half, third, doubled, squared] {
        check(&graph(write, same), 0.02);
        check(&graph(same, write), 0.02);
        check(&graph(write, write), 0.02);
    }
    let comparing = || with_polynomials().filter(|(format, _)| format.has_gates());
    for write in [same, half, rectified] {
        check_in(&graph(write, rectified), 0.02, comparing());
        check_in(&graph(rectified, write), 0.02, comparing());
    }
}

#[test]
fn independent_openings_share_a_round() {
    // Neither sum is masked yet: both are opened in the same exchange.
    let product = graph("product", |g, x, y, _| g.mul(g.add(x, y), g.sub(x, y)));
    // Of a chain each link waits for the one before; the two chains go side by side.
    let chains = graph("chains", |g, x, y, _| {
        let chain = |x| g.square(g.scale(g.square(g.scale(x, 0.25)), 0.5));
        g.add(chain(g.add(x, y)), chain(g.sub(x, y)))
    });
    for (graph, local) in [(&product, 1), (&chains, 2)] {
        assert_eq!(rounds(graph, NumberFormat::Int64, Truncation::Local), local);
        for (format, truncation) in with_polynomials() {
            let plan = Plan::compile(graph, format, truncation).unwrap();
            let exchanges = plan.exchanges();
            // All exchanges belong to a round, in the order of the steps.
            let all: Vec<usize> = exchanges.iter().cloned().flatten().collect();
            let route = |step: &usize| plan.message(*step).map(|message| message.route);
            let steps = 0..plan.steps().len();
            let expected: Vec<usize> =
                steps.filter(|step| route(step) == Some(Route::Exchange)).collect();
            assert_eq!(all, expected, "{plan}");
            assert_eq!(exchanges[0].len(), 2, "{plan}");
            let bytes: usize = (0..plan.rounds()).map(|round| plan.round_bytes(round)).sum();
            let alone = plan.sent_bytes(Role::Server0, exchanges[0].start);
            assert_eq!(plan.round_bytes(0), 2 * alone);
            assert!(bytes <= plan.online_bytes() / 2);
            assert!(plan.largest_message() >= plan.round_bytes(0));
        }
        check(graph, 0.05);
    }
}

#[test]
fn int100_opens_and_divides_in_one_round() {
    let network = spdz::network::Network::c().graph(1).unwrap();
    let rounds = |format, truncation| rounds(&network, format, truncation);
    // Two openings an activation; each linear layer's input is opened, but for the first.
    assert_eq!(rounds(NumberFormat::Int64, Truncation::Local), 9);
    if NumberFormat::Int100.truncation_parts() == 0 {
        // The output is divided too.
        assert_eq!(rounds(NumberFormat::Int100, Truncation::Interactive), 10);
    }
    let plan = Plan::compile(&network, NumberFormat::Int64, Truncation::Interactive).unwrap();
    let divisions = plan.steps().iter().filter(|s| s.operation.name() == "truncate_interactive");
    assert_eq!(plan.rounds(), 9 + divisions.count());
}

/// Compiling is where a graph and a format meet; what is wrong is said with numbers.
fn refusal(graph: &Graph, format: NumberFormat) -> String {
    Plan::compile(graph, format, Truncation::Interactive).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_is_refused_before_anything_starts() {
    let error = |write: &dyn Fn(&GraphBuilder) -> Option<Tensor>| {
        let g = GraphBuilder::new(["alice", "bob"]);
        if let Some(output) = write(&g) {
            g.private_output("bob", output);
        }
        g.build().unwrap_err().to_string()
    };
    let shapes = error(&|g| {
        let (x, y) = (g.private_input("alice", [2, 3]), g.private_input("bob", [2, 3]));
        Some(g.matmul(x, y))
    });
    assert!(shapes.contains("matmul") && shapes.contains("graph.rs:"), "{shapes}");
    assert!(shapes.contains("[2, 3] and [2, 3]"), "{shapes}");
    let unknown = error(&|g| Some(g.private_input("clara", [2])));
    assert!(unknown.contains("unknown player clara; the players are alice, bob"), "{unknown}");
    let name = error(&|g| Some(g.private_input("Alice!", [2])));
    assert!(name.contains("\"Alice!\" is no player's name"), "{name}");
    let nobody = error(&|g| {
        g.private_input("alice", [2]);
        None
    });
    assert!(nobody.contains("nobody receives an output"), "{nobody}");
    let unused = error(&|g| {
        let x = g.private_input("alice", [2]);
        g.square(x);
        Some(g.neg(x))
    });
    assert!(unused.contains("square") && unused.contains("nobody receives its result"), "{unused}");
    let mixed = error(&|g| {
        let x = g.private_input("alice", [2]);
        Some(g.add(x, g.local_input("bob", "y", [2])))
    });
    assert!(mixed.contains("local to bob; share it first"), "{mixed}");
    let twice = error(&|g| {
        let x = g.private_input("alice", [2]);
        Some(g.share(g.reveal("bob", x)))
    });
    assert!(twice.contains("was revealed"), "{twice}");
    let back = error(&|g| {
        let x = g.local_input("bob", "x", [2]);
        g.output("doubled", g.add(x, x));
        Some(g.share(x))
    });
    assert!(back.contains("output (") && back.contains("bob would get back what it"), "{back}");
    // Together with something that was revealed it is a result.
    let g = GraphBuilder::new(["alice", "bob"]);
    let y = g.reveal("bob", g.private_input("alice", [2]));
    g.output("sum", g.add(y, g.local_input("bob", "x", [2])));
    assert!(g.build().is_ok());
    let g = GraphBuilder::new(["alice", "bob", "carol"]);
    g.private_output("bob", g.private_input("alice", [2]));
    let idle = g.build().unwrap_err().to_string();
    assert!(idle.contains("carol has no part"), "{idle}");
    let empty = error(&|g| Some(g.private_input("alice", [2, 0])));
    assert!(empty.contains("[2, 0] is empty"), "{empty}");

    let with = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [4]);
        g.label("layer1");
        g.private_output("alice", write(&g, x));
        g.build().unwrap()
    };
    let steep = with(&|g, x| g.polynomial(x, Polynomial::relu(3.0).within(100.0)));
    let message = refusal(&steep, NumberFormat::Int64);
    assert!(
        message.contains("layer1, node 2 (polynomial): for arguments up to 100 the polynomial of degree 4 can reach")
            && message.contains("beyond the 1024 of Int64"),
        "{message}"
    );
    let wide =
        with(&|g, x| g.polynomial(x, Polynomial { coefficients: vec![0.0, 1.0], range: 5000.0 }));
    assert!(refusal(&wide, NumberFormat::Int100).contains("can reach 5.000000e3"));
    let large = with(&|g, x| g.add(x, g.scalar(1e6)));
    assert!(refusal(&large, NumberFormat::Int64).contains("1000000 is outside"));
    let tiny = with(&|g, x| g.scale(x, 2f64.powi(-70)));
    assert!(refusal(&tiny, NumberFormat::Int64).contains("more than the 62"));
    let long = {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [1, 1 << 19]);
        let y = g.private_input("alice", [1 << 19, 1]);
        g.private_output("alice", g.matmul(x, y));
        g.build().unwrap()
    };
    let message = refusal(&long, NumberFormat::Int64);
    assert!(message.contains("sums of 524288 products") && message.contains("262144"), "{message}");
}

/// What a few bytes of a graph could ask of everybody who reads it.
#[test]
fn what_would_take_too_much_to_plan_is_refused() {
    let build = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [1, 4, 4, 1]);
        g.private_output("alice", write(&g, x));
        g.build()
    };
    let error = |write: &dyn Fn(&GraphBuilder, Tensor) -> Tensor| {
        build(write).map(drop).unwrap_err().to_string()
    };
    let public = error(&|g, x| g.mul(x, g.expand(g.scalar(2.0), [1 << 22, 1, 1, 1])));
    assert!(public.contains("4194305 elements, at most 2097152 are accepted"), "{public}");
    let products = error(&|g, x| {
        let one = g.expand(g.scalar(1e-3), [720, 720]);
        let product = g.matmul(g.matmul(g.matmul(one, one), one), one);
        g.mul(x, g.reduce_sum(product, [0, 1]))
    });
    assert!(products.contains("sums of more than 1073741824 terms"), "{products}");
    let pooled = error(&|g, x| {
        let one = g.expand(g.scalar(1e-3), [1, 1000, 1000, 1]);
        let sums = g.sum_pool(one, Window::from(500).every(1));
        g.mul(x, g.reduce_sum(sums, [0, 1, 2, 3]))
    });
    assert!(pooled.contains("sums of more than 1073741824 terms"), "{pooled}");
    for padding in [1 << 14, 1 << 32, usize::MAX / 2] {
        let filter = |g: &GraphBuilder| g.constant([1, 1, 1, 1], [1.0]);
        let padded = error(&|g, x| g.conv2d(x, filter(g), usize::MAX / 4, padding));
        assert!(padded.contains(&format!("padding {padding} have more than")), "{padded}");
    }
    let steep = Polynomial { coefficients: vec![0.1; 66], range: 1.0 };
    let degree = error(&|g, x| g.polynomial(x, steep.clone()));
    assert!(degree.contains("at most degree 64, found 65"), "{degree}");
    let label = error(&|g, x| {
        g.label(&"x".repeat(256));
        g.neg(x)
    });
    assert!(label.contains("a label has 1 to 255 bytes, found 256"), "{label}");
    let axes = error(&|g, x| g.reshape(x, vec![1; 1 << 16]));
    assert!(axes.len() < 200, "{axes}");

    // Within the bounds as it is, and not in the shape that it is used in.
    let repeated = build(&|g, x| {
        let wide = g.expand(x, [1 << 20, 4, 4, 1]);
        g.mul(wide, g.constant([4, 1], [1.0, 2.0, 3.0, 4.0]))
    });
    let message = refusal(&repeated.unwrap(), NumberFormat::Int64);
    assert!(message.contains("16777216 elements in the shapes"), "{message}");
    let long = build(&|g, x| {
        let polynomial = Polynomial { coefficients: vec![1e-3; 65], range: 1.0 };
        let sums: Vec<Tensor> = (0..2000).map(|_| g.polynomial(x, polynomial.clone())).collect();
        g.concat(&sums, 0)
    });
    let message = refusal(&long.unwrap(), NumberFormat::Int100);
    assert!(message.contains("more than 131072 steps"), "{message}");
}

/// `party plan` prints the listing for people who want to know what is revealed: nothing in
/// it may look like what it is not.
#[test]
fn a_listing_shows_every_name_and_label_as_it_is() {
    let build = |name: &str, label: &str, input: &str, output: &str| {
        let g = GraphBuilder::named(name, ["alice"]);
        g.label(label);
        let x = g.share(g.local_input("alice", input, [2]));
        g.output(output, g.reveal("alice", x));
        g.build()
    };
    let text = "Conv_1/kernel:0['a'].\\~";
    let graph = build(text, text, text, text).unwrap();
    let read: Graph = serde_json::from_str(&serde_json::to_string(&graph).unwrap()).unwrap();
    assert_eq!(graph, read);
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    assert!(plan.to_string().contains(&format!("0 {text} input alice {text} -> m0")));

    let whole = serde_json::to_string(&build("G", "L", "I", "O").unwrap()).unwrap();
    let long = "x".repeat(256);
    let lengths = |what: &str, longest: usize| format!("{what} has 1 to {longest} bytes, found ");
    for (found, shown) in [
        ("my layer\n7 x open p0 -> m9", Some("my layer\\n7 x open p0 -> m9")),
        ("two words", Some("two words")),
        ("tab\t", Some("tab\\t")),
        ("\u{1b}[2Kgone", Some("\\u{1b}[2Kgone")),
        ("del\u{7f}", Some("del\\u{7f}")),
        // Reads from right to left, is no wider than nothing, or looks like an `a`.
        ("\u{202e}1m", Some("\\u{202e}1m")),
        ("a\u{200b}", Some("a\\u{200b}")),
        ("l\u{430}yer", Some("l\\u{430}yer")),
        ("", None),
        (long.as_str(), None),
    ] {
        for (place, what, longest) in [
            ("\"name\":\"G\"", "a graph's name", 63),
            ("\"label\":\"L\"", "a label", 255),
            ("\"name\":\"I\"", "an input's name", 255),
            ("\"name\":\"O\"", "an output's name", 255),
        ] {
            let key = place.split(':').next().unwrap();
            let quoted = serde_json::to_string(found).unwrap();
            let text = whole.replace(place, &format!("{key}:{quoted}"));
            let read = serde_json::from_str::<Graph>(&text).unwrap_err().to_string();
            let built = match what {
                "a graph's name" => build(found, "L", "I", "O"),
                "a label" => build("G", found, "I", "O"),
                "an input's name" => build("G", "L", found, "O"),
                _ => build("G", "L", "I", found),
            };
            let built = built.unwrap_err().to_string();
            let expected = match shown {
                Some(shown) => format!(
                    "{what} has visible ASCII characters only and no white space, found \"{shown}\""
                ),
                None => lengths(what, longest) + &found.len().to_string(),
            };
            for error in [&read, &built] {
                assert!(error.contains(&expected), "{error:?}, expected {expected:?}");
                assert!(error.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{error:?}");
            }
        }
    }
}

/// A graph of random operations on tensors `[2, 3]`.
fn random_graph(choices: &[(usize, u8, u8)]) -> Graph {
    let g = GraphBuilder::new(["alice", "bob"]);
    let mut tensors = vec![
        g.private_input("alice", [2, 3]),
        g.private_input("bob", [2, 3]),
        g.private_variable("bob", "lasting", [2, 3]),
    ];
    // Kept within the range by halving what was multiplied.
    for &(choice, first, second) in choices {
        let x = tensors[usize::from(first) % tensors.len()];
        let y = tensors[usize::from(second) % tensors.len()];
        let public = g.constant([3], [0.5, -1.0, 0.3]);
        let tensor = match choice {
            0 => g.scale(g.add(x, y), 0.5),
            1 => g.scale(g.sub(x, y), 0.5),
            2 => g.scale(g.mul(x, y), 0.3),
            3 => g.scale(g.square(x), 0.25),
            4 => g.scale(g.matmul(g.matmul(x, g.transpose(y, [1, 0])), x), 0.05),
            5 => g.mul(x, public),
            6 => g.scale(g.add(x, public), 0.5),
            7 => g.neg(x),
            8 => g.reshape(g.transpose(x, [1, 0]), [2, 3]),
            9 => g.slice(g.concat(&[x, y], 0), [(1, 4, 2), (0, 3, 1)]),
            10 => g.expand(g.scale(g.reduce_sum(x, [0]), 0.4), [2, 3]),
            11 => {
                g.polynomial(x, Polynomial { coefficients: vec![0.1, 0.3, 0.0, -0.05], range: 4.0 })
            }
            12 => g.matmul(x, g.constant([3, 3], [0.4, 0.0, -0.2, 0.1, 0.5, 0.0, 0.0, 0.1, 0.3])),
            13 => g.slice(g.stack(&[x, y], 1), [(0, 2, 1), (1, 2, 1), (0, 3, 1)]),
            14 => g.matmul(g.constant([2, 2], [0.5, 0.25, -0.5, 0.3]), x),
            _ => g.scale(x, 0.7),
        };
        let tensor = g.reshape(tensor, [2, 3]);
        tensors.push(tensor);
    }
    g.private_output("alice", g.concat(&tensors, 1));
    g.build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Whatever the compiler makes of a graph, the servers compute what the players would
    /// on plaintext.
    #[test]
    fn random_graphs(choices in prop::collection::vec((0usize..16, any::<u8>(), any::<u8>()), 1..14)) {
        check(&random_graph(&choices), 0.03);
    }

    /// What is known of a graph's work before it is compiled is no less than what compiling takes.
    #[test]
    fn plans_have_no_more_steps_than_was_estimated(
        choices in prop::collection::vec((0usize..16, any::<u8>(), any::<u8>()), 1..60)
    ) {
        let graph = random_graph(&choices);
        let most = graph.work().steps;
        for (format, truncation) in with_polynomials() {
            // Values may outgrow the format: nothing is compiled then.
            if let Ok(plan) = Plan::compile(&graph, format, truncation) {
                prop_assert!(plan.steps().len() <= most, "{} of {most}", plan.steps().len());
            }
        }
    }
}

/// What both servers sum up before they divide by a power of two is a large dividend.
#[test]
fn a_local_truncation_that_would_fail_too_often_is_refused_with_numbers() {
    let g = GraphBuilder::named("covariance", ["alice"]);
    let x = g.private_input("alice", [1 << 15, 4]);
    g.label("sum");
    let sums = g.matmul(g.transpose(x, [1, 0]), x);
    g.label("mean");
    let means = g.scale(sums, f64::from(-15).exp2());
    g.label("output");
    g.private_output("alice", means);
    let graph = g.build().unwrap();
    let compile = |format, truncation| Plan::compile(&graph, format, truncation);
    let error = compile(NumberFormat::Int64, Truncation::Local).unwrap_err();
    // Below 1024, with 24 fractional bits of the products and 15 of the scale.
    assert!(
        matches!(error, PlanError::Truncation { fraction: 39, integral: 10, one_in: 32_768, .. }),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("output, node 6 (reveal): Int64 does not go together"),
        "{error}"
    );
    let plan = compile(NumberFormat::Int64, Truncation::Interactive).unwrap();
    assert_eq!(plan.local_failure(), 0.0);
}

#[test]
fn the_papers_networks_rarely_fail_and_their_plans_say_how_rarely() {
    for network in [Network::a(), Network::b(), Network::c()] {
        let failure = |batch, truncation| {
            let graph = network.graph(batch).unwrap();
            Plan::compile(&graph, NumberFormat::Int64, truncation).unwrap().local_failure()
        };
        let one = failure(1, Truncation::Local);
        assert!(one > 0.0 && one < 1e-4, "{} {one}", network.name);
        let hundred = failure(100, Truncation::Local);
        assert!((hundred / one - 100.0).abs() < 1.0, "{} {hundred}", network.name);
        assert_eq!(failure(1, Truncation::Interactive), 0.0);
    }
}

#[test]
fn a_plan_says_how_far_its_openings_are_from_uniform() {
    for network in [Network::a(), Network::b(), Network::c()] {
        let graph = network.graph(3).unwrap();
        let plan = |format, truncation| Plan::compile(&graph, format, truncation).unwrap();
        for (format, truncation) in [
            (NumberFormat::Int64, Truncation::Local),
            (NumberFormat::Int64, Truncation::Interactive),
            (NumberFormat::Int100, Truncation::Local),
        ] {
            assert_eq!(plan(format, truncation).statistical_distance(), 0.0, "{}", network.name);
        }
        // Counted from the listing, as a reader would: 2^-40 for each element of each truncation.
        let plan = plan(NumberFormat::Int100, Truncation::Interactive);
        let listing = plan.to_string();
        let truncations = listing.lines().filter(|line| line.contains(" truncate_interactive "));
        let len = |line: &str| -> u32 {
            let (_, len) = line.split_once(" len ").unwrap();
            len.split(' ').next().unwrap().parse().unwrap()
        };
        let elements: u32 = truncations.map(len).sum();
        assert!(elements > 0, "{listing}");
        let expected = f64::from(elements) * 2f64.powi(-40);
        assert_eq!(plan.statistical_distance(), expected, "{}", network.name);
    }
}

#[test]
fn a_polynomial_for_which_there_is_no_room_is_refused_with_numbers() {
    let g = GraphBuilder::named("steep", ["alice"]);
    let x = g.private_input("alice", [3]);
    g.label("steep");
    let fit = Fit { bound: 12.0, degree: 13, range: 12.0 };
    g.private_output("alice", g.fitted(x, Function::Sigmoid, fit));
    let graph = g.build().unwrap();
    let error = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap_err();
    assert!(matches!(error, PlanError::Coarse { degree: 13, .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(
            "steep, node 2 (polynomial): Int64 with Local truncation has too few bits for the polynomial of degree 13 and arguments up to 12: up to 15"
        ),
        "{text}"
    );
    let fine = Plan::compile(&graph, NumberFormat::Int64, Truncation::Interactive).unwrap();
    assert!(fine.polynomial_error() < 5.0);
}
