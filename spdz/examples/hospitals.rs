//! Two hospitals learn nothing of each other's patients, a ministry learns the mean and the
//! standard deviation of a measurement over all of them.
//!
//! The hospitals bring values and learn nothing; the ministry brings nothing and learns the
//! result; the servers see shares and masked values.
//!
//! ```text
//! cargo run --release -p spdz --example hospitals
//! ```

#![allow(clippy::print_stdout)]

mod session;

use std::sync::Arc;

use session::{Failure, Players, noise};
use spdz::graph::{Function, Graph, GraphBuilder, GraphError, Plaintext, Tensors};
use spdz::plan::{NumberFormat, Plan, Truncation};

/// Patients of each hospital.
const PATIENTS: [(&str, usize); 2] = [("northern", 30), ("southern", 50)];

/// Systolic blood pressure is around this, mmHg.
const USUAL: f64 = 120.0;

/// And differs from it by not much more than this, mmHg.
const UNIT: f64 = 40.0;

fn graph() -> Result<Graph, GraphError> {
    let g = GraphBuilder::named("hospitals", ["northern", "southern", "ministry"]);

    // Each hospital alone: numbers of order one keep the most digits in fixed point.
    g.label("scaled");
    let scaled = PATIENTS.map(|(hospital, patients)| {
        let pressures = g.local_input(hospital, "pressure", [patients]);
        g.share(g.scale(g.sub(pressures, g.scalar(USUAL)), 1.0 / UNIT))
    });

    // The servers, on shares.
    g.label("statistics");
    let everybody = g.concat(&scaled, 0);
    let mean = g.reduce_mean(everybody, [0]);
    let deviations = g.sub(everybody, mean);
    let variance = g.reduce_mean(g.square(deviations), [0]);

    // The ministry alone: back to mmHg, and a square root, which shares do not have.
    g.label("result");
    let mean = g.scale(g.reveal("ministry", mean), UNIT);
    g.output("mean", g.add(mean, g.scalar(USUAL)));
    let deviation = g.function(g.reveal("ministry", variance), Function::Sqrt);
    g.output("standard-deviation", g.scale(deviation, UNIT));
    g.build()
}

fn main() -> Result<(), Failure> {
    let graph = graph()?;
    let plan = Arc::new(Plan::compile(&graph, NumberFormat::Int64, Truncation::Local)?);

    let mut inputs = Players::new();
    for (number, (hospital, patients)) in PATIENTS.into_iter().enumerate() {
        let pressure = |patient| USUAL + 5.0 + 30.0 * noise(1000 * number + patient);
        let pressures = Plaintext::new([patients], (0..patients).map(pressure).collect())?;
        inputs.insert(hospital.parse()?, Tensors::from([("pressure".into(), pressures)]));
    }

    let outputs = session::run(&plan, &inputs)?;
    for (player, tensors) in &outputs {
        println!("{player} learns {} numbers", tensors.len());
        for (name, value) in tensors {
            println!("  {name}: {:.2} mmHg", value.as_slice()[0]);
        }
    }
    let expected = graph.evaluate_plaintext(&inputs)?;
    session::check(&outputs, &expected, 0.1)?;
    println!("within 0.1 mmHg of the same on plaintext");
    Ok(())
}
