//! A convolutional network of one's own: what a plan costs in each number format, and an
//! inference in each, compared with the same on plaintext.
//!
//! The model owner knows the weights and the statistics of the batch normalisation, the
//! client knows the images and learns the class.
//!
//! ```text
//! cargo run --release -p spdz --example custom_network
//! ```

#![allow(clippy::print_stdout)]

mod session;

use std::sync::Arc;

use session::{Failure, Players, noise};
use spdz::graph::{BatchNorm, Function, Graph, GraphBuilder, GraphError, Plaintext, Tensors};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::polynomial::Fit;

const OWNER: &str = "model-owner";
const CLIENT: &str = "client";

/// In a format that can compare numbers ReLU is exact, else it is a polynomial.
fn graph(batch: usize, format: NumberFormat) -> Result<Graph, GraphError> {
    let g = GraphBuilder::named("custom-network", [OWNER, CLIENT]);
    let weight = |name: &str, shape: &[usize]| g.private_variable(OWNER, name, shape);
    let statistic = |name: &str| g.local_variable(OWNER, name, [4]);

    let images = g.share(g.local_input(CLIENT, "images", [batch, 12, 12, 1]));
    g.label("conv");
    let x = g.conv2d(images, weight("conv.filter", &[3, 3, 1, 4]), 1, 1);
    g.label("norm");
    let x = g.batch_norm(
        x,
        BatchNorm {
            gamma: statistic("norm.gamma"),
            beta: statistic("norm.beta"),
            mean: statistic("norm.mean"),
            variance: statistic("norm.variance"),
            epsilon: 1e-3,
        },
    );
    g.label("act");
    let papers = Fit { bound: 3.0, degree: 4, range: 8.0 };
    let x = match format.has_gates() {
        true => g.relu(x),
        false => g.fitted(x, Function::Relu, papers),
    };
    let x = g.avg_pool(x, 2);
    g.label("dense");
    let x = g.matmul(g.flatten(x), weight("dense.weight", &[6 * 6 * 4, 5]));
    let logits = g.add(x, weight("dense.bias", &[5]));

    g.label("result");
    let logits = g.reveal(CLIENT, logits);
    g.output("probabilities", g.softmax(logits));
    g.output("class", g.argmax(logits));
    g.build()
}

/// What each player brings: numbers that look random in the shapes that the graph asks for.
fn inputs(graph: &Graph) -> Result<Players, Failure> {
    let mut players = Players::new();
    for &player in graph.players() {
        let mut tensors = Tensors::new();
        for (number, input) in graph.inputs_of(player).into_iter().enumerate() {
            let len = input.shape.iter().product();
            let value = |place| match input.name.as_str() {
                "norm.variance" | "norm.gamma" => 1.0 + 0.3 * noise(place),
                _ => 0.8 * noise(5000 * number + place),
            };
            let clear = Plaintext::new(input.shape.clone(), (0..len).map(value).collect())?;
            tensors.insert(input.name, clear);
        }
        players.insert(player, tensors);
    }
    Ok(players)
}

fn main() -> Result<(), Failure> {
    for (format, truncation) in
        [(NumberFormat::Int64, Truncation::Local), (NumberFormat::Int100, Truncation::Interactive)]
    {
        let graph = graph(2, format)?;
        let inputs = inputs(&graph)?;
        let expected = graph.evaluate_plaintext(&inputs)?;
        let plan = Arc::new(Plan::compile(&graph, format, truncation)?);
        println!("{format}, {truncation} truncation: {} rounds,", plan.rounds());
        println!("  {} bytes online, {} offline", plan.online_bytes(), plan.offline_bytes());
        plan.to_string().lines().take(20).for_each(|line| println!("  | {line}"));

        let outputs = session::run(&plan, &inputs)?;
        println!("  classes {:?}", outputs[&CLIENT.parse()?]["class"].as_slice());
        session::check(&outputs, &expected, 0.01)?;
        println!("  within 0.01 of the same on plaintext");
    }
    Ok(())
}
