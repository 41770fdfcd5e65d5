//! An operation from outside the crate: declared, substituted in a plan, and run by all roles.
//!
//! `docs/adding-an-operation.md` shows this file's operation and says what each part is for.

#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(unreachable_pub)]
mod common;

use std::fmt;
use std::sync::Arc;

use common::{Settings, player_inputs, run_compiled, with_polynomials};
use spdz::channel::{ChannelError, Role};
use spdz::graph::{Graph, GraphBuilder};
use spdz::masked::Masked;
use spdz::ops::{
    Correlation, Execute, Mul, Operation, Producer, Randomness, SquareTriple, Values, combine,
};
use spdz::plan::{MaskedId, NumberFormat, Plan, PrivateId, TensorId, Truncation};
use spdz::ring::{Ring, Side};
use spdz::share::Share;
use spdz::tensors::Table;

/// `(x - y)^2`, element by element: one square of a difference that is masked already, as the
/// difference of two masked tensors is masked by the difference of their masks.
#[derive(Clone, Debug)]
struct SquaredDifference {
    left: MaskedId,
    right: MaskedId,
    output: PrivateId,
}

impl Operation for SquaredDifference {
    fn name(&self) -> &'static str {
        "squared_difference"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.left.into(), self.right.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn randomness(&self, table: &Table) -> Randomness {
        Randomness::generated(table.len(self.output))
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, _: &Table) -> fmt::Result {
        write!(f, " {} {} -> {}", self.left, self.right, self.output)
    }
}

impl<R: Ring> Execute<R> for SquaredDifference {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        producer.make(self.left);
        producer.make(self.right);
        let mask = difference(producer.get(self.left), producer.get(self.right));
        producer.share(&SquareTriple::product(&mask))
    }

    fn compute(&self, values: &mut Values<'_, R>, correlation: Correlation<R>) {
        let (x, y) = (values.masked(self.left), values.masked(self.right));
        let alphas = [x, y].map(|masked| Share::<R>::from(masked.alpha.clone()));
        let masked = Masked {
            alpha: difference(&alphas[0], &alphas[1]).into_words(),
            mask: difference(&x.mask, &y.mask),
        };
        let triple = SquareTriple::new(correlation.into_generated());
        let square = triple.square(&masked, values.side());
        values.put(self.output, square);
    }
}

/// `x - y`. There is no constant that one server alone would add.
fn difference<R: Ring>(x: &Share<R>, y: &Share<R>) -> Share<R> {
    combine(&[(x, 1), (y, -1)], 0, x.len(), Side::Zero)
}

/// `x * y` of two players' numbers.
fn product() -> Graph {
    let g = GraphBuilder::new(["alice", "bob"]);
    let x = g.private_input("alice", [2, 3]);
    let y = g.private_input("bob", [2, 3]);
    g.private_output("alice", g.mul(x, y));
    g.build().unwrap()
}

/// Its plan with the product replaced.
fn squared_difference(format: NumberFormat, truncation: Truncation) -> Plan {
    let plan = Plan::compile(&product(), format, truncation).unwrap();
    plan.with_operations(|operation| {
        let operation: &dyn std::any::Any = operation;
        let &Mul { left, right, output } = operation.downcast_ref()?;
        Some(Arc::new(SquaredDifference { left, right, output }))
    })
}

#[test]
fn an_operation_from_outside_runs_on_five_parties() {
    let x = [0.5, -1.25, 3.0, 0.0, 12.0, -7.5];
    let y = [0.25, 2.0, 3.0, -4.5, -12.0, 7.0];
    let graph = product();
    let name = |player: &str| graph.inputs_of(player.parse().unwrap())[0].name.clone();
    let (x_name, y_name) = (name("alice"), name("bob"));
    let inputs = player_inputs([
        ("alice", x_name.as_str(), vec![2, 3], x.to_vec()),
        ("bob", y_name.as_str(), vec![2, 3], y.to_vec()),
    ]);
    for (format, truncation) in with_polynomials() {
        for ahead in [false, true] {
            let plan = squared_difference(format, truncation);
            let settings = Settings { ahead, ..Settings::new(format, truncation, 5) };
            // Ahead, what was prepared is sealed and opened again.
            let outcome = run_compiled(plan, settings, &[inputs.clone(), inputs.clone()]);
            for evaluation in 0..2 {
                let player_outputs = &outcome.player_outputs[evaluation][&"alice".parse().unwrap()];
                let player_outputs = player_outputs.as_ref().unwrap().values().next().unwrap();
                for ((x, y), found) in x.iter().zip(&y).zip(player_outputs.as_slice()) {
                    let expected = (x - y).powi(2);
                    let error = (found - expected).abs();
                    assert!(error < 1e-3, "{format} {truncation} {ahead}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_page_shows_this_operation() {
    let page = include_str!("../../docs/adding-an-operation.md");
    let shown = page.split_once("```rust\n").unwrap().1.split_once("\n```").unwrap().0;
    assert!(include_str!("operation.rs").contains(shown));
}

#[test]
fn what_a_plan_is_asked_covers_an_operation_from_outside() {
    for (format, truncation) in with_polynomials() {
        let other = Plan::compile(&product(), format, truncation).unwrap();
        let plan = squared_difference(format, truncation);
        let step = plan.steps().iter().position(|s| s.operation.name() == "squared_difference");
        let step = step.unwrap();
        let bytes = 6 * format.wire_bytes();
        assert_eq!(plan.sent_bytes(Role::Producer, step), bytes);
        assert!(plan.generates(step) && plan.has_part(Role::Producer, step));
        // It consumes as much as the product that it replaces.
        assert_eq!(plan.offline_bytes(), other.offline_bytes());
        assert_eq!(plan.bundle_bytes(), other.bundle_bytes());
        assert_eq!(plan.rounds(), other.rounds());
        let line = format!("{step} main squared_difference m0 m1 -> p0");
        assert!(plan.to_string().lines().any(|listed| listed == line), "{plan}");
        assert!(plan.describe(step).contains("squared_difference of main"));
        // Parties without it do not agree with those that have it.
        assert_ne!(plan.digest(), other.digest());
        assert_eq!(plan, squared_difference(format, truncation));
    }
}
