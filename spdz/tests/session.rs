//! The conformance tests of the protocol, on whole sessions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[allow(unreachable_pub)]
mod common;

use common::{
    Callback, Outcome, Randomness, Settings, batches, logits, noise, player_inputs, received, run,
    uniform_bytes, uniform_counts, weights, with_gates, with_polynomials,
};
use spdz::channel::{Name, Phase, Role};
use spdz::graph::{GraphBuilder, Tensors};
use spdz::network::{IMAGES, LOGITS, Layer, Network};
use spdz::plan::{NumberFormat, Plan, TensorId, Truncation};
use spdz::polynomial::{Fit, Polynomial};
use spdz::protocol::{Protocol, Spdz};
use spdz::role;

/// Small, and with every kind of layer and every operation of a plan.
fn everything() -> Network {
    Network {
        name: "everything".into(),
        input: vec![8, 8, 2],
        range: None,
        layers: vec![
            Layer::Conv2d { filter: 3, channels: 5, stride: 1, padding: 1 },
            Layer::BatchNorm,
            Layer::Activation(Polynomial::relu(3.0)),
            Layer::AvgPool { window: 2 },
            Layer::Conv2d { filter: 2, channels: 4, stride: 2, padding: 0 },
            // An odd power, so that a product of two different tensors is needed.
            Layer::Activation(Polynomial { coefficients: vec![0.1, 0.7, 0.0, -0.05], range: 8.0 }),
            Layer::Dense { outputs: 6 },
            Layer::BatchNorm,
            Layer::Activation(Polynomial::relu(3.0)),
            Layer::Dense { outputs: 3 },
        ],
    }
}

fn everything_weights(network: &Network, seed: u64) -> Tensors {
    let random = std::cell::RefCell::new(noise(seed));
    weights(network, |name, _, shape| {
        let value = random.borrow_mut()();
        if name.ends_with("variance") {
            return 0.5 + value.abs();
        }
        let inputs: usize = shape[..shape.len() - 1].iter().product();
        value * 1.5 / (inputs.max(1) as f32).sqrt()
    })
}

fn settings(randomness: u8) -> Settings {
    Settings::new(NumberFormat::Int64, Truncation::Local, randomness)
}

/// The logits of each batch, or why there are none.
type PlayerOutputs = Vec<Result<Vec<f64>, String>>;

/// The logits of each batch in a session, and on plaintext.
fn infer(
    network: &Network,
    weights: &Tensors,
    batch: usize,
    images: &[Vec<f32>],
    settings: Settings,
) -> (PlayerOutputs, Vec<Vec<f64>>, Outcome) {
    let graph = network.graph(batch).unwrap();
    let evaluations = batches(network, weights, batch, images);
    let outcome = run(&graph, settings, &evaluations);
    let clear = evaluations.iter().map(|player_inputs| {
        let player_outputs = graph.evaluate_plaintext(player_inputs).unwrap();
        player_outputs[&Name::CLIENT][LOGITS].as_slice().to_vec()
    });
    (logits(&outcome), clear.collect(), outcome)
}

fn inputs(len: usize, seed: u64) -> Vec<f32> {
    let mut random = noise(seed);
    (0..len).map(|_| random()).collect()
}

#[test]
fn a_session_computes_the_network() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    for (format, truncation) in with_polynomials() {
        for (batch, ahead) in [(1, false), (3, true)] {
            let images: Vec<_> = (0..4).map(|i| inputs(batch * 128, 100 + i)).collect();
            let settings = Settings { ahead, ..Settings::new(format, truncation, 7) };
            let (found, expected, _) = infer(&network, &weights, batch, &images, settings);
            for (found, expected) in found.into_iter().zip(expected) {
                let found = found.unwrap();
                assert_eq!(found.len(), 3 * batch);
                for (expected, found) in expected.iter().zip(found) {
                    let error = (expected - found).abs();
                    assert!(error < 0.01, "{format} {truncation}: {expected} {found}");
                }
            }
        }
    }
}

#[test]
fn a_session_computes_exact_layers() {
    let mut network = everything();
    for layer in &mut network.layers {
        match layer {
            Layer::Activation(_) => *layer = Layer::Relu,
            Layer::AvgPool { window } => *layer = Layer::MaxPool { window: *window },
            _ => {}
        }
    }
    // Pooling first makes the same numbers, also of odd windows.
    let mut other = network.clone();
    other.layers.swap(2, 3);
    let odd = Network {
        name: "odd".into(),
        input: vec![6, 3, 2],
        range: None,
        layers: vec![Layer::MaxPool { window: 3 }, Layer::Dense { outputs: 2 }],
    };
    for (format, truncation) in with_gates() {
        for network in [&network, &other, &odd] {
            let weights = everything_weights(network, 3);
            let batch = 2;
            let pixels = network.input.iter().product::<usize>();
            let images: Vec<_> = (0..3).map(|i| inputs(batch * pixels, 100 + i)).collect();
            let settings = Settings::new(format, truncation, 7);
            let (found, expected, _) = infer(network, &weights, batch, &images, settings);
            for (found, expected) in found.into_iter().zip(expected) {
                for (expected, found) in expected.iter().zip(found.unwrap()) {
                    let error = (expected - found).abs();
                    assert!(error < 5e-3, "{format} {truncation}: {expected} {found}");
                }
            }
        }
    }
    let graph = network.graph(1).unwrap();
    let error = Plan::compile(&graph, NumberFormat::Int100, Truncation::Local).unwrap_err();
    assert!(error.to_string().contains("Int100 cannot compare numbers"), "{error}");
}

#[test]
fn other_pool_sizes_and_layers_in_any_order_work() {
    let polynomial = |coefficients: &[f64]| {
        Layer::Activation(Polynomial { coefficients: coefficients.to_vec(), range: 4.0 })
    };
    let networks = [
        vec![Layer::AvgPool { window: 3 }, Layer::Dense { outputs: 2 }],
        vec![polynomial(&[0.25, -0.5, 0.125]), Layer::Dense { outputs: 2 }],
        vec![Layer::Dense { outputs: 4 }, Layer::Dense { outputs: 2 }, polynomial(&[0.0, 2.0])],
        vec![
            Layer::Conv2d { filter: 4, channels: 3, stride: 2, padding: 2 },
            polynomial(&[0.0, 0.0, 0.3, 0.0, 0.0, 0.02]),
            Layer::Dense { outputs: 2 },
        ],
    ];
    for layers in networks {
        let network =
            Network { name: "shuffled".into(), input: vec![6, 6, 1], range: None, layers };
        let weights = everything_weights(&network, 5);
        let images = [inputs(36, 77)];
        for (format, truncation) in with_polynomials() {
            let settings = Settings::new(format, truncation, 1);
            let (found, expected, _) = infer(&network, &weights, 1, &images, settings);
            for (expected, found) in expected[0].iter().zip(found[0].as_ref().unwrap()) {
                let error = (expected - found).abs();
                assert!(error < 0.01, "{expected} {found}: {:?} {format}", network.layers);
            }
        }
    }
}

#[test]
fn a_linear_layer_is_exact_to_the_truncation() {
    let network = Network {
        name: "linear".into(),
        input: vec![50],
        range: None,
        layers: vec![Layer::Dense { outputs: 20 }],
    };
    // Multiples of 2^-12, which the formats hold exactly.
    let unit = 2f32.powi(-12);
    let random = std::cell::RefCell::new(noise(9));
    let weights = weights(&network, |_, _, _| (random.borrow_mut()() * 4096.0).round() * unit);
    let images = [inputs(50, 10).iter().map(|x| (x * 4096.0).round() * unit).collect()];
    for (format, truncation) in with_polynomials() {
        let settings = Settings::new(format, truncation, 2);
        let (found, expected, _) = infer(&network, &weights, 1, &images, settings);
        let unit = f64::from(format.precision().fraction).exp2();
        for (expected, found) in expected[0].iter().zip(found[0].as_ref().unwrap()) {
            let error = found * unit - (expected * unit).floor();
            let allowed = match (format, truncation) {
                (NumberFormat::Int100, Truncation::Interactive) => -1.0..=2.0,
                _ => 0.0..=1.0,
            };
            assert!(error.fract() == 0.0 && allowed.contains(&error), "{format} {error}");
        }
    }
}

/// Largest and mean error of `polynomial` over its range on shares against the same in the
/// clear, and the bound that the plan gives; units in the last place.
fn polynomial_errors(
    polynomial: &Polynomial,
    format: NumberFormat,
    truncation: Truncation,
) -> (f64, f64, f64) {
    const POINTS: i32 = 1000;
    let len = 2 * POINTS as usize + 1;
    let g = GraphBuilder::new(["client"]);
    let x = g.share(g.local_input("client", IMAGES, [len]));
    g.output(LOGITS, g.reveal("client", g.polynomial(x, polynomial.clone())));
    let graph = g.build().unwrap();
    // Both formats hold these arguments exactly.
    let argument = |step: i32| polynomial.range * f64::from(step) / f64::from(POINTS);
    let grid = (-POINTS..=POINTS).map(|step| (argument(step) * 4096.0).trunc() / 4096.0).collect();
    let evaluations = vec![player_inputs([("client", IMAGES, vec![len], grid)]); 10];
    let expected = graph.evaluate_plaintext(&evaluations[0]).unwrap();
    let expected = expected[&Name::CLIENT][LOGITS].as_slice();
    let unit = f64::from(format.precision().fraction).exp2().recip();
    let found = logits(&run(&graph, Settings::new(format, truncation, 6), &evaluations));
    let (mut largest, mut sum) = (0f64, 0f64);
    for found in &found {
        for (expected, found) in expected.iter().zip(found.as_ref().unwrap()) {
            let error = (found - expected) / unit;
            largest = largest.max(error.abs());
            sum += error;
        }
    }
    let plan = spdz::plan::Plan::compile(&graph, format, truncation).unwrap();
    (largest, sum / (10 * len) as f64, plan.polynomial_error())
}

#[test]
fn polynomials_are_as_good_as_their_plan_says_over_all_of_their_range() {
    let fit = |function: &dyn Fn(f64) -> f64, bound, degree| {
        Polynomial::fit(function, Fit { bound, degree, range: bound }).unwrap()
    };
    let sigmoid = |x: f64| (1.0 + (-x).exp()).recip();
    // A bound in units of each of `with_polynomials` that a change must not exceed.
    let cases = [
        ("ReLU of degree 4 on 8", Polynomial::relu(3.0), [6.0, 1.6, 4.2, 5.8]),
        ("ReLU of degree 4 on 3", Polynomial::relu(3.0).within(3.0), [1.3, 1.1, 1.2, 1.7]),
        ("sigmoid of degree 9 on 8", fit(&sigmoid, 8.0, 9), [4.0, 1.4, 2.6, 3.4]),
        ("tanh of degree 9 on 4", fit(&f64::tanh, 4.0, 9), [6.5, 1.6, 3.6, 4.8]),
        ("sigmoid of degree 15 on 8", fit(&sigmoid, 8.0, 15), [100.0, 4.5, 20.0, 27.0]),
        (
            "a large coefficient on a short range",
            Polynomial { coefficients: vec![0.0, 0.0, 0.0, 0.0, 1e6], range: 0.01 },
            [1.3, 1.1, 1.1, 1.6],
        ),
    ];
    for (name, polynomial, bounds) in cases {
        for ((format, truncation), allowed) in with_polynomials().zip(bounds) {
            let (largest, mean, bound) = polynomial_errors(&polynomial, format, truncation);
            let what = format!(
                "{name}, {format} {truncation}: {largest:.2} units, {mean:.2} on average, bound {bound:.2}"
            );
            println!("{what}");
            assert!(largest <= bound && bound <= allowed, "{what}, allowed {allowed}");
            assert!(mean.abs() < 0.25 * bound, "{what}");
        }
    }
}

#[test]
fn every_message_a_server_receives_is_uniform() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    // The same input and the same weights each time; only the randomness differs.
    let images = [inputs(128, 1), inputs(128, 1)];
    for (format, truncation) in with_polynomials() {
        let words = received(60, |randomness| {
            let settings = Settings::new(format, truncation, randomness);
            infer(&network, &weights, 1, &images, settings).2
        });
        // Every opening, every generated share, every parameter and input, at both
        // servers.
        let graph = network.graph(1).unwrap();
        let plan = spdz::plan::Plan::compile(&graph, format, truncation).unwrap();
        let openings = 2 * plan.rounds();
        let inputs = 2 * plan.inputs().len();
        let places = words.len();
        assert!(places > openings + inputs, "{places} places: {:?}", words.keys());
        for (place, bytes) in words {
            match format {
                NumberFormat::Int100 => uniform_residues(&format!("{place:?}"), &bytes),
                _ => uniform_bytes(&format!("{place:?}"), &bytes),
            }
        }
    }
}

/// The low bits of the residues' distance from the lowest one, of all planes together:
/// the moduli are no multiples of eight, but far less than this test can see.
fn uniform_residues(place: &str, bytes: &[u8]) {
    let mut counts = [0f64; 8];
    for word in bytes.as_chunks::<2>().0 {
        let residue = i32::from(i16::from_le_bytes(*word)) + 1024;
        counts[(residue % 8) as usize] += 1.0;
    }
    uniform_counts(place, &counts);
}

#[test]
fn what_the_producer_sends_does_not_depend_on_inputs_or_weights() {
    let network = everything();
    for (format, truncation) in with_polynomials() {
        let transcript = |weights_seed, input_seed| {
            let weights = everything_weights(&network, weights_seed);
            let images = [inputs(128, input_seed), inputs(128, input_seed + 1)];
            let settings = Settings::new(format, truncation, 11);
            let (_, _, outcome) = infer(&network, &weights, 1, &images, settings);
            let sent = |to| {
                let messages = outcome.messages.iter();
                messages
                    .filter(|message| message.0 == Role::Producer && message.1 == to)
                    .map(|message| (message.2, message.3.clone()))
                    .collect::<Vec<_>>()
            };
            (sent(Role::Server0), sent(Role::Server1), outcome.messages)
        };
        let (to_server0, to_server1, messages) = transcript(3, 50);
        let (again0, again1, other_messages) = transcript(4, 90);
        assert!(!to_server0.is_empty() && to_server0 == again0);
        assert!(!to_server1.is_empty() && to_server1 == again1);
        // And nobody tells it anything but server 0's commands.
        for (_, to, tag, message) in messages.iter().filter(|m| m.1 == Role::Producer) {
            assert_eq!((*to, tag.phase, message.len()), (Role::Producer, Phase::Control, 1));
        }
        // The same comparison does see the difference elsewhere.
        let online = |messages: &[common::Message]| {
            let of = messages.iter().filter(|m| m.0 == Role::CLIENT && m.2.phase == Phase::Online);
            of.map(|m| m.3.clone()).collect::<Vec<_>>()
        };
        assert_ne!(online(&messages), online(&other_messages));
    }
}

#[test]
fn masks_are_fresh_for_every_inference() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    let input = inputs(128, 1);
    for (format, truncation) in with_polynomials() {
        let settings = Settings::new(format, truncation, 4);
        let (_, _, outcome) = infer(&network, &weights, 1, &vec![input.clone(); 5], settings);
        let mut seen = std::collections::HashSet::new();
        for (from, to, tag, message) in outcome.messages {
            // Players' messages go to both servers alike.
            let broadcast = matches!(from, Role::Player(_));
            let to = if broadcast { from } else { to };
            if message.len() > 1 {
                let repeated = !seen.insert((from, to, message));
                assert!(!repeated || broadcast, "{from} sent {to} the same bytes twice, at {tag}");
            }
        }
        let from_client = seen.iter().filter(|(from, ..)| *from == Role::CLIENT).count();
        assert_eq!(from_client, 5, "the same input never looks the same");
    }
}

#[test]
fn the_output_is_re_randomised() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    let images = [inputs(128, 1)];
    // Everything but the output follows from the producer's randomness.
    let shares = |servers| {
        let randomness = Randomness { producer: 20, servers };
        let settings = Settings { randomness, ..settings(0) };
        let (found, _, outcome) = infer(&network, &weights, 1, &images, settings);
        let of = |role| {
            let mut messages = outcome.messages.iter();
            let online = |m: &&common::Message| m.1 == Role::CLIENT && m.2.phase == Phase::Online;
            messages.find(|m| online(m) && m.0 == role).unwrap().3.clone()
        };
        (of(Role::Server0), of(Role::Server1), found[0].clone().unwrap())
    };
    let (x, y) = (shares(1), shares(1));
    assert_eq!((&x.0, &x.1), (&y.0, &y.1), "a session is deterministic given its randomness");
    let z = shares(2);
    assert!(x.0 != z.0 && x.1 != z.1, "the shares the client sees are masked by the servers");
    assert_eq!(x.2, z.2, "and still share the same output");
}

#[test]
fn values_outside_the_range_are_named_and_never_wrap() {
    let network = Network {
        name: "scale".into(),
        input: vec![2],
        range: None,
        layers: vec![Layer::Dense { outputs: 1 }],
    };
    let weights_of = |value: f32| {
        weights(&network, |name, _, _| if name.ends_with("weight") { value } else { 0.0 })
    };
    let images = [vec![900.0, 900.0], vec![1.0, 2.0]];
    let (found, ..) = infer(&network, &weights_of(1.0), 1, &images, settings(5));
    let message = found[0].as_ref().unwrap_err();
    assert!(message.starts_with("output of fc1, element 0: beyond"), "{message}");
    // The session is in order and goes on.
    assert!((found[1].as_ref().unwrap()[0] - 3.0).abs() < 1e-3);

    let refused = |weights: Tensors, image: Vec<f32>| {
        let graph = network.graph(1).unwrap();
        let player_inputs = &batches(&network, &weights, 1, &[image])[0];
        common::refused_input(&graph, settings(1), Name::MODEL_OWNER, player_inputs)
            .or_else(|| common::refused_input(&graph, settings(1), Name::CLIENT, player_inputs))
            .unwrap()
    };
    let message = refused(weights_of(-1024.5), vec![1.0, 2.0]);
    assert!(message.starts_with("fc1.weight, element 0: not a number between"), "{message}");
    for value in [2000.0, f32::NAN] {
        let message = refused(weights_of(1.0), vec![1.0, value]);
        assert!(message.starts_with("images, element 1: not a number between"), "{message}");
    }
}

/// What the observer of a role should be told of one evaluation: the steps in which it has
/// a part, offline and online, or nothing if it has none in that phase.
fn parts(plan: &Plan, role: Role) -> [Option<Vec<usize>>; 2] {
    let steps = |wanted: &dyn Fn(&str, usize) -> bool| -> Vec<usize> {
        let steps = plan.steps().iter().enumerate().skip(plan.setup_steps());
        let steps = steps.filter(|(index, step)| wanted(step.operation.name(), *index));
        steps.map(|(index, _)| index).collect()
    };
    // Of the two products called `mul`, and of matrices, those with a public operand have no
    // triple; their step reads no masked tensor.
    let masked = |step: usize| {
        let reads = plan.steps()[step].operation.reads();
        reads.iter().any(|id| matches!(id, TensorId::Masked(_)))
    };
    let product = |name: &str, step: usize| {
        ["matmul", "conv2d", "square", "mul"].contains(&name) && masked(step)
    };
    let masks = |name: &str| ["input", "open", "truncate_interactive"].contains(&name);
    let generated = |name: &str, step: usize| {
        let quotient = name == "truncate_interactive";
        product(name, step) || quotient && plan.format().truncation_parts() > 0
    };
    match role {
        Role::Producer => [Some(steps(&generated)), None],
        Role::Server0 | Role::Server1 => [
            Some(steps(&|name, step| product(name, step) || masks(name))),
            Some(steps(&|_, _| true)),
        ],
        Role::Player(name) if plan.takes_part(name) => [
            Some(Vec::new()),
            Some(steps(&|operation, step| match operation {
                "input" => plan.inputs().iter().any(|it| it.step == step && it.player == name),
                "output" => plan.outputs().iter().any(|it| it.step == step && it.player == name),
                _ => false,
            })),
        ],
        Role::Player(_) => [None, None],
    }
}

#[test]
fn observers_are_told_of_every_part_that_their_role_has() {
    let network = everything();
    let network_brought =
        batches(&network, &everything_weights(&network, 3), 1, &[inputs(128, 1), inputs(128, 2)]);
    // Alice commands, carol follows, and bob leaves.
    let g = GraphBuilder::new(["alice", "bob", "carol"]);
    let x = g.private_input("alice", [2]);
    let z = g.square(g.add(x, g.private_variable("bob", "b", [2])));
    g.private_output("alice", z);
    g.private_output("carol", g.mul(z, x));
    let graph = g.build().unwrap();
    let x = &graph.inputs_of("alice".parse().unwrap())[0].name;
    let tensors = |value: f64| {
        let alice = ("alice", x.as_str(), vec![2], vec![value; 2]);
        player_inputs([alice, ("bob", "b", vec![2], vec![0.5; 2])])
    };
    // The second result is more than the format holds, for carol alone.
    let graph_brought = [tensors(1.0), tensors(30.0)];
    let network = network.graph(1).unwrap();
    for (graph, evaluations) in [(&network, &network_brought[..]), (&graph, &graph_brought)] {
        for (format, truncation) in with_polynomials() {
            for ahead in [false, true] {
                let settings = Settings { ahead, ..Settings::new(format, truncation, 7) };
                let plan = Plan::compile(graph, format, truncation).unwrap();
                let outcome = run(graph, settings, evaluations);
                for role in Spdz::roles(plan.graph().players()) {
                    let [offline, online] = parts(&plan, role);
                    let phase = |phase, steps: &Option<Vec<usize>>, number: u64| -> Vec<Callback> {
                        let Some(steps) = steps else { return Vec::new() };
                        let fine = match role {
                            Role::Player(name) if phase == Phase::Online => {
                                outcome.player_outputs[number as usize][&name].is_ok()
                            }
                            _ => true,
                        };
                        let end =
                            if fine { role::Outcome::Done } else { role::Outcome::OutOfRange };
                        let mut told = vec![Callback::Begin(phase, number)];
                        told.extend(steps.iter().map(|step| Callback::Step(*step)));
                        told.push(Callback::End(end));
                        told
                    };
                    let offline = |number| phase(Phase::Offline, &offline, number);
                    let online = |number| phase(Phase::Online, &online, number);
                    let expected = if ahead {
                        [offline(0), offline(1), online(0), online(1)]
                    } else {
                        [offline(0), online(0), offline(1), online(1)]
                    };
                    assert_eq!(outcome.callbacks[&role], expected.concat(), "{role} {settings:?}");
                }
                let carol = outcome.player_outputs[1].get(&"carol".parse().unwrap());
                assert!(carol.is_none_or(Result::is_err), "{carol:?}");
            }
        }
    }
}
