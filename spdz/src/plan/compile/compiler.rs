//! The state of lowering a graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::differences::have_differences;
use super::lowered::{LoweredValue, Scaled};
use crate::fixed::Precision;
use crate::graph::{Graph, Lifetime, NodeId, Op, Place, Plaintext};
use crate::ops::Operation;
use crate::plan::error::PlanError;
use crate::plan::step::Step;
use crate::ring::{NumberFormat, Truncation};
use crate::tensors::{
    Domain, MaskedId, PrivateId, PublicId, PublicTensor, Route, Table, TensorId, TensorSpec,
};

pub(super) struct Compiler<'graph> {
    pub(super) graph: &'graph Graph,
    pub(super) format: NumberFormat,
    pub(super) truncation: Truncation,
    pub(super) precision: Precision,
    /// Whether numbers are truncated where they are opened, which never fails: the graph has a
    /// gate, or the format has too few bits to truncate otherwise.
    pub(super) exact: bool,
    pub(super) layer: String,
    /// The node that is lowered.
    pub(super) current: usize,
    pub(super) setup: Vec<Step>,
    pub(super) evaluation: Vec<Step>,
    pub(super) table: Table,
    /// Which tensors last for the session.
    pub(super) private_lasts: Vec<bool>,
    pub(super) masked_lasts: Vec<bool>,
    /// One for each node of the graph, then those of powers.
    pub(super) lowered: Vec<LoweredValue>,
    /// The nodes that read each node.
    pub(super) users: Vec<Vec<usize>>,
    /// Whether the values of each node are compared with others.
    pub(super) have_differences: Vec<bool>,
    /// Those of the public nodes.
    pub(super) values: BTreeMap<NodeId, Plaintext>,
    /// What is known of them so far; see [`Compiler::uniform`].
    pub(super) uniform: BTreeMap<NodeId, Option<f64>>,
    /// For each addition of a bias, the product that takes it in.
    pub(super) biased: Vec<Option<Biased>>,
    /// Whether a node is part of a biased product, which is computed at the addition.
    pub(super) deferred: Vec<bool>,
    /// How many local truncations fail in one evaluation at most, on average.
    pub(super) local_failures: f64,
    /// The largest error of a polynomial, units in the last place.
    pub(super) polynomial_error: f64,
    /// The first truncation that fails too often, or whose dividends have too many bits.
    pub(super) unreliable: Option<PlanError>,
}

/// An addition that a product with a weight of the session takes in.
#[derive(Clone, Copy)]
pub(super) struct Biased {
    pub(super) product: usize,
    pub(super) bias: usize,
}

/// Whether a graph's numbers are truncated where they are opened.
fn is_exact(graph: &Graph, format: NumberFormat) -> bool {
    let on_shares = |index: usize| graph.facts(NodeId(index)).place == Place::Private;
    let mut nodes = graph.nodes().iter().enumerate();
    let mut has_gate = || nodes.any(|(index, node)| node.operation.is_gate() && on_shares(index));
    format.has_gates() && (format.declares_ranges() || has_gate())
}

impl<'graph> Compiler<'graph> {
    pub(super) fn new(graph: &'graph Graph, format: NumberFormat, truncation: Truncation) -> Self {
        let nodes = graph.nodes();
        let mut users = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            node.operation.inputs().iter().for_each(|id| users[id.0].push(index));
        }
        let facts = |index: usize| graph.facts(NodeId(index));
        let private = |index: usize| facts(index).place == Place::Private;
        let lasts = |index: usize| facts(index).lifetime == Lifetime::Session;
        // A product with a weight of the session whose only user adds one number for
        // each of its columns, also of the session.
        let biased = |index: usize| {
            let Op::Add { left, right } = nodes[index].operation else { return None };
            let pair = |product: usize, bias: usize| {
                let (Op::MatMul { left, right } | Op::Conv2d { input: left, filter: right, .. }) =
                    nodes[product].operation
                else {
                    return None;
                };
                let columns = facts(product).shape.last().copied();
                let is_row = facts(bias).shape.last().copied() == columns
                    && Some(facts(bias).len()) == columns
                    && facts(bias).shape.len() <= facts(product).shape.len();
                let fits = private(left.0)
                    && private(right.0)
                    && private(bias)
                    && !lasts(left.0)
                    && lasts(right.0)
                    && lasts(bias)
                    && users[product] == [index];
                (is_row && fits).then_some(Biased { product, bias })
            };
            pair(left.0, right.0).or_else(|| pair(right.0, left.0))
        };
        let biased: Vec<Option<Biased>> = (0..nodes.len()).map(biased).collect();
        let mut deferred = vec![false; nodes.len()];
        biased.iter().flatten().for_each(|pair| deferred[pair.product] = true);
        Self {
            graph,
            format,
            truncation,
            precision: format.precision().within(graph.range()),
            exact: is_exact(graph, format),
            layer: String::new(),
            current: 0,
            setup: Vec::new(),
            evaluation: Vec::new(),
            table: Table::new(format),
            private_lasts: Vec::new(),
            masked_lasts: Vec::new(),
            lowered: (0..nodes.len())
                .map(|index| LoweredValue { len: facts(index).len(), ..LoweredValue::default() })
                .collect(),
            have_differences: have_differences(graph, &users),
            users,
            values: graph.public_values(),
            uniform: BTreeMap::new(),
            biased,
            deferred,
            local_failures: 0.0,
            polynomial_error: 0.0,
            unreliable: None,
        }
    }

    /// Where in the graph something is wrong, for people.
    pub(super) fn place(&self) -> String {
        let operation = self.graph.nodes()[self.current].operation.name();
        format!("{}, node {} ({operation})", self.layer, self.current)
    }

    /// The format's fractional bits.
    pub(super) fn f(&self) -> i32 {
        self.precision.fraction as i32
    }

    /// Bits of values that may be multiplied or revealed: those of the range that the graph
    /// declares, or of the format's.
    pub(super) fn integral(&self) -> i32 {
        self.precision.integral as i32
    }

    /// Whether truncating costs so much that it is worth many bits to do it seldom; with
    /// a local truncation that is free, values should rather stay small, as their ratio to
    /// the ring's size is the probability of failure.
    pub(super) fn truncates_seldom(&self) -> bool {
        self.truncation == Truncation::Interactive || !self.format.local_truncation_is_free()
    }

    pub(super) fn shape(&self, id: NodeId) -> &'graph [usize] {
        &self.graph.facts(id).shape
    }

    pub(super) fn is_private(&self, id: NodeId) -> bool {
        self.graph.facts(id).place == Place::Private
    }

    /// Appends a step to the set-up if it needs nothing of an evaluation and no
    /// interaction, else to the evaluation.
    pub(super) fn push(&mut self, operation: Arc<dyn Operation>) {
        let message = operation.message(&self.table).map(|message| message.route);
        let lasts = match message {
            Some(Route::Input(input)) => self.table.inputs[input].lifetime == Lifetime::Session,
            Some(Route::Exchange | Route::Output(_)) => false,
            None => {
                let reads = operation.reads();
                let all_last = reads.iter().all(|id| self.lasts(*id));
                operation.randomness(&self.table).is_none() && !reads.is_empty() && all_last
            }
        };
        match operation.writes() {
            Some(TensorId::Private(id)) => self.private_lasts[id.0] = lasts,
            Some(TensorId::Masked(id)) => self.masked_lasts[id.0] = lasts,
            None => {}
        }
        let step = Step { layer: self.layer.clone(), operation };
        if lasts { self.setup.push(step) } else { self.evaluation.push(step) }
    }

    /// Whether a tensor lasts for the session.
    fn lasts(&self, id: TensorId) -> bool {
        match id {
            TensorId::Private(id) => self.private_lasts[id.0],
            TensorId::Masked(id) => self.masked_lasts[id.0],
        }
    }

    pub(super) fn private_of(&mut self, len: usize) -> PrivateId {
        self.private_in(Domain::Ring, len)
    }

    pub(super) fn masked_of(&mut self, len: usize) -> MaskedId {
        self.masked_in(Domain::Ring, len)
    }

    pub(super) fn private_in(&mut self, domain: Domain, len: usize) -> PrivateId {
        self.table.private.push(TensorSpec::of(len, domain));
        self.private_lasts.push(false);
        PrivateId(self.table.private.len() - 1)
    }

    pub(super) fn masked_in(&mut self, domain: Domain, len: usize) -> MaskedId {
        self.table.masked.push(TensorSpec::of(len, domain));
        self.masked_lasts.push(false);
        MaskedId(self.table.masked.len() - 1)
    }

    pub(super) fn public(&mut self, integers: Vec<i128>, fraction: i32) -> PublicId {
        self.table.publics.push(PublicTensor { integers, fraction });
        PublicId(self.table.publics.len() - 1)
    }

    /// The result of a computation at `slot`.
    pub(super) fn set(
        &mut self,
        slot: usize,
        fraction: i32,
        integral: i32,
        make: impl FnOnce(PrivateId) -> Arc<dyn Operation>,
    ) -> Result<(), PlanError> {
        let integral = self.declared(fraction, integral);
        self.check_bits(fraction, integral)?;
        let id = self.private_of(self.lowered[slot].len);
        self.push(make(id));
        self.lowered[slot].raw = Some(Scaled { id, fraction, integral });
        Ok(())
    }
}
