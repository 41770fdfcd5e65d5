//! The layers of a plan, for measurements by layer.

use std::collections::HashMap;

use super::compiled::Plan;
use crate::graph::{NodeId, Op};

/// A layer of a plan: the steps of an evaluation that belong to the graph's nodes of one
/// label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanLayer {
    /// Their label.
    pub name: String,
    /// The graph's operation among them that costs most, as a rule.
    pub kind: &'static str,
    /// The shape of what it puts out.
    pub shape: Vec<usize>,
    /// The numbers of the steps, in their order.
    pub steps: Vec<usize>,
}

/// How little an operation of a graph says about what its layer costs.
fn weight(operation: &Op) -> u8 {
    match operation {
        Op::Conv2d { .. } | Op::MatMul { .. } => 0,
        Op::Polynomial { .. } => 1,
        gate if gate.is_gate() => 1,
        Op::Mul { .. } | Op::Square { .. } => 2,
        Op::SumPool { .. } | Op::ReduceSum { .. } => 3,
        Op::Share { .. } => 5,
        Op::Input { .. } | Op::Constant { .. } | Op::Reveal { .. } | Op::Output { .. } => 6,
        _ => 4,
    }
}

impl Plan {
    /// The layers of an evaluation, in the order of their first steps. Every step of an
    /// evaluation belongs to one.
    #[must_use]
    pub fn evaluation_layers(&self) -> Vec<PlanLayer> {
        let mut layers: Vec<PlanLayer> = Vec::new();
        let mut places = HashMap::new();
        for (index, step) in self.evaluation() {
            let place = *places.entry(step.layer.as_str()).or_insert_with(|| {
                let nodes = || {
                    let nodes = self.graph().nodes().iter().enumerate();
                    nodes.filter(|(_, node)| node.label == step.layer)
                };
                let main = nodes()
                    .map(|(_, node)| &node.operation)
                    .min_by_key(|operation| weight(operation));
                let kind = main.map_or(step.operation.name(), Op::name);
                let last = nodes().next_back();
                let shape = last.map(|(index, _)| self.graph().facts(NodeId(index)).shape.clone());
                layers.push(PlanLayer {
                    name: step.layer.clone(),
                    kind,
                    shape: shape.unwrap_or_default(),
                    steps: Vec::new(),
                });
                layers.len() - 1
            });
            layers[place].steps.push(index);
        }
        layers
    }
}
