//! The conformance tests of the protocol, on whole sessions.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

#[allow(unreachable_pub)]
mod common;

use std::collections::HashMap;

use common::{Randomness, noise, run, weights};
use spdz::channel::{Phase, Role, Tag};
use spdz::network::{Layer, Network, Polynomial};

/// Small, and with every kind of layer and every operation of a plan.
fn everything() -> Network {
    Network {
        name: "everything".into(),
        input: vec![8, 8, 2],
        layers: vec![
            Layer::Conv2d { filter: 3, channels: 5, stride: 1, padding: 1 },
            Layer::BatchNorm,
            Layer::Activation(Polynomial::relu(3.0)),
            Layer::AvgPool { window: 2 },
            Layer::Conv2d { filter: 2, channels: 4, stride: 2, padding: 0 },
            // An odd power, so that a product of two different tensors is needed.
            Layer::Activation(Polynomial { coefficients: vec![0.1, 0.7, 0.0, -0.05] }),
            Layer::Dense { outputs: 6 },
            Layer::BatchNorm,
            Layer::Activation(Polynomial::relu(3.0)),
            Layer::Dense { outputs: 3 },
        ],
    }
}

fn everything_weights(network: &Network, seed: u64) -> spdz::network::weights::Weights {
    let random = std::cell::RefCell::new(noise(seed));
    weights(network, |name, _, shape| {
        let value = random.borrow_mut()();
        if name.ends_with("variance") {
            return 0.5 + value.abs();
        }
        let inputs: usize = shape[..shape.len() - 1].iter().product();
        value * 1.5 / (inputs as f32).sqrt()
    })
}

/// The network in floating point, straight from the definitions.
fn reference(
    network: &Network,
    weights: &spdz::network::weights::Weights,
    input: &[f32],
) -> Vec<f64> {
    let folded = weights.fold(network).unwrap();
    let mut linear = folded.iter();
    let mut shape = network.input.clone();
    let mut values: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();
    for (layer, output) in network.layers.iter().zip(network.shapes().unwrap()) {
        values = match layer {
            Layer::Dense { outputs } => {
                let parameters = linear.next().unwrap();
                (0..*outputs)
                    .map(|o| {
                        let products = values.iter().enumerate();
                        products.map(|(i, x)| x * parameters.weight[[i, o]]).sum::<f64>()
                            + parameters.bias[[o]]
                    })
                    .collect()
            }
            Layer::Conv2d { filter, stride, padding, .. } => {
                let parameters = linear.next().unwrap();
                let (h, w, c) = (shape[0] as isize, shape[1] as isize, shape[2]);
                let mut out = Vec::new();
                for y in 0..output[0] {
                    for x in 0..output[1] {
                        for o in 0..output[2] {
                            let mut sum = parameters.bias[[o]];
                            for dy in 0..*filter {
                                for dx in 0..*filter {
                                    let py = (y * stride + dy) as isize - *padding as isize;
                                    let px = (x * stride + dx) as isize - *padding as isize;
                                    if py < 0 || px < 0 || py >= h || px >= w {
                                        continue;
                                    }
                                    for i in 0..c {
                                        let place = (py * w + px) as usize * c + i;
                                        sum += values[place] * parameters.weight[[dy, dx, i, o]];
                                    }
                                }
                            }
                            out.push(sum);
                        }
                    }
                }
                out
            }
            Layer::BatchNorm => values,
            Layer::Activation(polynomial) => {
                values.iter().map(|&x| polynomial.evaluate(x)).collect()
            }
            Layer::AvgPool { window } => {
                let (w, c) = (shape[1], shape[2]);
                let mut out = vec![0.0; output.iter().product()];
                for (place, value) in values.iter().enumerate() {
                    let (y, x, i) = (place / (w * c), place / c % w, place % c);
                    out[((y / window) * output[1] + x / window) * c + i] +=
                        value / (window * window) as f64;
                }
                out
            }
        };
        shape = output;
    }
    values
}

fn inputs(len: usize, seed: u64) -> Vec<f32> {
    let mut random = noise(seed);
    (0..len).map(|_| random()).collect()
}

#[test]
fn a_session_computes_the_network() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    for batch in [1, 3] {
        let batches: Vec<_> = (0..4).map(|i| inputs(batch * 128, 100 + i)).collect();
        let outcome = run(&network, &weights, batch, &batches, Randomness::all(7));
        for (inputs, outputs) in batches.iter().zip(outcome.outputs) {
            let outputs = outputs.unwrap();
            assert_eq!(outputs.len(), 3 * batch);
            for (input, output) in inputs.chunks(128).zip(outputs.chunks(3)) {
                for (expected, found) in reference(&network, &weights, input).iter().zip(output) {
                    assert!((expected - found).abs() < 0.01, "{expected} {found}");
                }
            }
        }
    }
}

#[test]
fn other_pool_sizes_and_layers_in_any_order_work() {
    let networks = [
        vec![Layer::AvgPool { window: 3 }, Layer::Dense { outputs: 2 }],
        vec![
            Layer::Activation(Polynomial { coefficients: vec![0.25, -0.5, 0.125] }),
            Layer::Dense { outputs: 2 },
        ],
        vec![
            Layer::Dense { outputs: 4 },
            Layer::Dense { outputs: 2 },
            Layer::Activation(Polynomial { coefficients: vec![0.0, 2.0] }),
        ],
        vec![
            Layer::Conv2d { filter: 4, channels: 3, stride: 2, padding: 2 },
            Layer::Activation(Polynomial { coefficients: vec![0.0, 0.0, 0.3, 0.0, 0.0, 0.02] }),
            Layer::Dense { outputs: 2 },
        ],
    ];
    for layers in networks {
        let network = Network { name: "shuffled".into(), input: vec![6, 6, 1], layers };
        let weights = everything_weights(&network, 5);
        let input = inputs(36, 77);
        let outcome = run(&network, &weights, 1, std::slice::from_ref(&input), Randomness::all(1));
        let found = outcome.outputs[0].as_ref().unwrap();
        for (expected, found) in reference(&network, &weights, &input).iter().zip(found) {
            assert!((expected - found).abs() < 0.01, "{expected} {found}: {:?}", network.layers);
        }
    }
}

#[test]
fn a_linear_layer_is_exact_to_the_truncation() {
    let network = Network {
        name: "linear".into(),
        input: vec![50],
        layers: vec![Layer::Dense { outputs: 20 }],
    };
    // Multiples of 2^-12, which the format holds exactly.
    let unit = 2f32.powi(-12);
    let random = std::cell::RefCell::new(noise(9));
    let weights = weights(&network, |_, _, _| (random.borrow_mut()() * 4096.0).round() * unit);
    let input: Vec<f32> = inputs(50, 10).iter().map(|x| (x * 4096.0).round() * unit).collect();
    let outcome = run(&network, &weights, 1, std::slice::from_ref(&input), Randomness::all(2));
    let expected = reference(&network, &weights, &input);
    for (expected, found) in expected.iter().zip(outcome.outputs[0].as_ref().unwrap()) {
        let error = found * 4096.0 - (expected * 4096.0).floor();
        assert!(error == 0.0 || error == 1.0, "{error}");
    }
}

#[test]
fn the_activation_is_good_to_a_few_units_in_the_last_place() {
    let relu = Polynomial::relu(3.0);
    let network = Network {
        name: "activation".into(),
        input: vec![801],
        layers: vec![Layer::Activation(relu.clone())],
    };
    let weights = weights(&network, |_, _, _| 0.0);
    // Multiples of the unit from -4 to 4, a little beyond where activations lie.
    let unit = 2f64.powi(-12);
    let grid: Vec<f32> = (-400..=400).map(|i| (f64::from(i * 41) * unit) as f32).collect();
    let batches = vec![grid.clone(); 20];
    let outcome = run(&network, &weights, 1, &batches, Randomness::all(6));
    let (mut largest, mut sum) = (0f64, 0f64);
    for outputs in &outcome.outputs {
        for (x, found) in grid.iter().zip(outputs.as_ref().unwrap()) {
            let error = (found - relu.evaluate(f64::from(*x))) / unit;
            largest = largest.max(error.abs());
            sum += error;
        }
    }
    assert!(largest < 5.0, "{largest} units");
    let mean = sum / (20.0 * 801.0);
    assert!(mean.abs() < 0.25, "{mean} units on average");
}

/// Messages that carry a seed or a command instead of ring elements.
fn is_key_or_command(from: Role, to: Role, tag: Tag) -> bool {
    let server = |role| matches!(role, Role::Server0 | Role::Server1);
    match tag.phase {
        Phase::Control => true,
        Phase::Setup => tag.step < 3,
        Phase::Offline => server(from) && to == Role::Client,
        Phase::Online => false,
    }
}

#[test]
fn every_message_a_server_receives_is_uniform() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    let input = inputs(128, 1);
    // The same input and the same weights each time; only the randomness differs.
    let mut bytes: HashMap<(Role, Role, Phase, u32), Vec<u8>> = HashMap::new();
    for randomness in 0..60 {
        let batches = [input.clone(), input.clone()];
        let outcome = run(&network, &weights, 1, &batches, Randomness::all(randomness));
        for (from, to, tag, message) in outcome.messages {
            if matches!(to, Role::Server0 | Role::Server1) && !is_key_or_command(from, to, tag) {
                let place = (from, to, tag.phase, tag.step);
                bytes.entry(place).or_default().extend_from_slice(&message);
            }
        }
    }
    // Every opening, product, parameter and input, at both servers.
    assert_eq!(bytes.len(), 2 * (9 + 8 + 1) + 10, "{:?}", bytes.keys());
    for (place, bytes) in bytes {
        let mut counts = [0f64; 256];
        for byte in &bytes {
            counts[usize::from(*byte)] += 1.0;
        }
        let expected = bytes.len() as f64 / 256.0;
        let chi_square: f64 = counts.iter().map(|n| (n - expected).powi(2) / expected).sum();
        // 255 degrees of freedom, normal approximation: six standard deviations.
        let bound = 255.0 + 6.0 * (2.0 * 255.0f64).sqrt();
        assert!(chi_square < bound, "{place:?}: {chi_square} over {} bytes", bytes.len());
    }
}

#[test]
fn what_the_producer_sends_does_not_depend_on_inputs_or_weights() {
    let network = everything();
    let transcript = |weights_seed, input_seed| {
        let weights = everything_weights(&network, weights_seed);
        let batches = [inputs(128, input_seed), inputs(128, input_seed + 1)];
        let outcome = run(&network, &weights, 1, &batches, Randomness::all(11));
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
    for (_, to, tag, message) in messages.iter().filter(|message| message.1 == Role::Producer) {
        assert_eq!((*to, tag.phase, message.len()), (Role::Producer, Phase::Control, 1));
    }
    // The same comparison does see the difference elsewhere.
    let online = |messages: &[common::Message]| {
        let of = messages.iter().filter(|m| m.0 == Role::Client && m.2.phase == Phase::Online);
        of.map(|m| m.3.clone()).collect::<Vec<_>>()
    };
    assert_ne!(online(&messages), online(&other_messages));
}

#[test]
fn masks_are_fresh_for_every_inference() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    let input = inputs(128, 1);
    let outcome = run(&network, &weights, 1, &vec![input; 5], Randomness::all(4));
    let mut seen = std::collections::HashSet::new();
    for (from, to, tag, message) in outcome.messages {
        // The servers' and the input owners' messages go to both servers alike.
        let to = if matches!(from, Role::Client | Role::ModelOwner) { from } else { to };
        if message.len() > 1 {
            let repeated = !seen.insert((from, to, message));
            let broadcast = matches!(from, Role::Client | Role::ModelOwner);
            assert!(!repeated || broadcast, "{from} sent {to} the same bytes twice, at {tag}");
        }
    }
    let from_client = seen.iter().filter(|(from, ..)| *from == Role::Client).count();
    assert_eq!(from_client, 5, "the same input never looks the same");
}

#[test]
fn the_output_is_re_randomised() {
    let network = everything();
    let weights = everything_weights(&network, 3);
    let input = inputs(128, 1);
    // Everything but the output follows from the producer's randomness.
    let shares = |servers| {
        let randomness = Randomness { producer: 20, servers };
        let outcome = run(&network, &weights, 1, std::slice::from_ref(&input), randomness);
        let of = |role| {
            let mut messages = outcome.messages.iter();
            let online = |m: &&common::Message| m.1 == Role::Client && m.2.phase == Phase::Online;
            messages.find(|m| online(m) && m.0 == role).unwrap().3.clone()
        };
        (of(Role::Server0), of(Role::Server1), outcome.outputs[0].as_ref().unwrap().clone())
    };
    let (x, y) = (shares(1), shares(1));
    assert_eq!((&x.0, &x.1), (&y.0, &y.1), "a session is deterministic given its randomness");
    let z = shares(2);
    assert!(x.0 != z.0 && x.1 != z.1, "the shares the client sees are masked by the servers");
    assert_eq!(x.2, z.2, "and still share the same output");
}

#[test]
fn values_outside_the_range_are_named_and_never_wrap() {
    let network =
        Network { name: "scale".into(), input: vec![2], layers: vec![Layer::Dense { outputs: 1 }] };
    let weights_of = |value: f32| {
        weights(&network, |name, _, _| if name.ends_with("weight") { value } else { 0.0 })
    };
    let batches = [vec![1.0, 2000.0], vec![1.0, f32::NAN], vec![900.0, 900.0], vec![1.0, 2.0]];
    // An input that cannot be encoded ends the client's session: here each has its own.
    let outcome = |batch: &Vec<f32>| {
        run(&network, &weights_of(1.0), 1, std::slice::from_ref(batch), Randomness::all(5))
    };
    let overflow = &outcome(&batches[2]).outputs[0];
    let message = overflow.as_ref().unwrap_err().to_string();
    assert!(message.starts_with("output of fc1, element 0: 1800"), "{message}");
    let fine = outcome(&batches[3]);
    assert!((fine.outputs[0].as_ref().unwrap()[0] - 3.0).abs() < 1e-3);

    let plan = spdz::plan::Plan::compile(
        &network,
        1,
        spdz::plan::NumberFormat::Int64,
        spdz::plan::Truncation::Local,
    )
    .unwrap();
    let (mut owner, _server) = {
        let wait = std::time::Duration::from_secs(1);
        let (o0, s0) = spdz::channel::memory_pair(Role::ModelOwner, Role::Server0, wait);
        let (o1, s1) = spdz::channel::memory_pair(Role::ModelOwner, Role::Server1, wait);
        ([o0, o1], [s0, s1])
    };
    let refused =
        spdz::role::provide_model::<spdz::ring::Int64, _>(&plan, &weights_of(-1024.5), &mut owner);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("fc1.weight") && message.contains("-1024.5 is outside"), "{message}");
}
