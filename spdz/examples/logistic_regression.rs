//! Logistic regression trained on one player's features and another's labels, and used for
//! a third player's records. Nobody learns the weights.
//!
//! Training is written as for plaintext: steps of gradient descent, unrolled into the graph.
//! The logistic function is its least-squares polynomial, since shares know sums and
//! products only.
//!
//! ```text
//! cargo run --release -p spdz --example logistic_regression
//! ```

#![allow(clippy::print_stdout)]

mod session;

use std::sync::Arc;

use session::{Failure, Players, noise};
use spdz::graph::{Graph, GraphBuilder, GraphError, Plaintext, Tensors};
use spdz::plan::{NumberFormat, Plan, Truncation};

const RECORDS: usize = 64;
const PATIENTS: usize = 8;
const FEATURES: usize = 3;
const STEPS: usize = 6;
const RATE: f64 = 4.0;

fn graph() -> Result<Graph, GraphError> {
    let g = GraphBuilder::named("logistic-regression", ["clinic", "registry", "patients"]);
    // A column of ones, whose weight is the intercept, which each player adds alone.
    let with_ones =
        |features, rows| g.concat(&[features, g.constant([rows, 1], vec![1.0; rows])], 1);

    let features = g.local_input("clinic", "features", [RECORDS, FEATURES]);
    let x = g.share(with_ones(features, RECORDS));
    let y = g.share(g.local_input("registry", "labels", [RECORDS, 1]));

    // Public zeros to begin with, private from the first step on.
    let mut weights = g.constant([FEATURES + 1, 1], vec![0.0; FEATURES + 1]);
    for step in 0..STEPS {
        g.label(&format!("step{step}"));
        let errors = g.sub(g.sigmoid(g.matmul(x, weights)), y);
        let gradient = g.matmul(g.transpose(x, [1, 0]), errors);
        weights = g.sub(weights, g.scale(gradient, RATE / RECORDS as f64));
    }

    g.label("inference");
    let features = g.local_input("patients", "features", [PATIENTS, FEATURES]);
    let x = g.share(with_ones(features, PATIENTS));
    let risk = g.sigmoid(g.matmul(x, weights));
    g.output("risk", g.reveal("patients", risk));
    g.build()
}

/// Records that look random.
fn records(first: usize, rows: usize) -> Vec<[f64; FEATURES]> {
    let feature = |row, column| noise(FEATURES * (first + row) + column);
    (0..rows).map(|row| std::array::from_fn(|column| feature(row, column))).collect()
}

/// What is there to be learnt: positive for label 1.
fn margin(record: &[f64; FEATURES]) -> f64 {
    2.0 * record[0] - 1.5 * record[1] + 0.25
}

fn main() -> Result<(), Failure> {
    let graph = graph()?;
    let plan = Plan::compile(&graph, NumberFormat::Int100, Truncation::Interactive)?;
    println!("{} steps of training and an inference: {} rounds", STEPS, plan.rounds());

    let (training, asking) = (records(0, RECORDS), records(1000, PATIENTS));
    let labels = training.iter().map(|record| f64::from(margin(record) > 0.0)).collect();
    let tensor = |name: &str, shape: [usize; 2], values: Vec<f64>| {
        Ok::<_, Failure>(Tensors::from([(name.to_owned(), Plaintext::new(shape, values)?)]))
    };
    let inputs = Players::from([
        ("clinic".parse()?, tensor("features", [RECORDS, FEATURES], training.concat())?),
        ("registry".parse()?, tensor("labels", [RECORDS, 1], labels)?),
        ("patients".parse()?, tensor("features", [PATIENTS, FEATURES], asking.concat())?),
    ]);

    let outputs = session::run(&Arc::new(plan), &inputs)?;
    let mut right = 0;
    for (record, risk) in asking.iter().zip(outputs[&"patients".parse()?]["risk"].as_slice()) {
        println!("risk {risk:.3}, truly {}", u8::from(margin(record) > 0.0));
        right += usize::from((*risk > 0.5) == (margin(record) > 0.0));
    }
    session::check(&outputs, &graph.evaluate_plaintext(&inputs)?, 0.01)?;
    println!("{right} of {PATIENTS} right, all within 0.01 of the same on plaintext");
    if right < PATIENTS - 1 {
        return Err(format!("only {right} of {PATIENTS} are right").into());
    }
    Ok(())
}
