//! A compiled plan, and what everybody asks of it.

use std::ops::Range;
use std::sync::Arc;

use super::compile::{Program, compile};
use super::digest::Digest;
use super::error::PlanError;
use super::rounds::in_rounds;
use super::step::Step;
use crate::channel::Name;
use crate::fixed::Precision;
use crate::graph::{Graph, Lifetime};
use crate::ops::Operation;
use crate::ring::{NumberFormat, Truncation};
use crate::tensors::{InputSpec, OutputSpec, PublicTensor, Route, Table};

/// A graph compiled for a number format and a truncation.
#[derive(Clone, Debug)]
pub struct Plan {
    graph: Arc<Graph>,
    truncation: Truncation,
    steps: Vec<Step>,
    /// How many of the steps are the set-up.
    setup: usize,
    /// Of each round of an evaluation, the steps whose messages share it.
    exchanges: Vec<Range<usize>>,
    table: Table,
    /// Of the local truncations of one evaluation, how many fail on average at most.
    local_failures: f64,
    /// The largest error of a polynomial, units in the last place.
    polynomial_error: f64,
    digest: Digest,
}

/// Plans with one fingerprint are the same.
impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Plan {
    /// Compiles `graph`.
    ///
    /// # Errors
    /// If sizes, coefficients or intermediate results exceed what the number format
    /// can hold.
    pub fn compile(
        graph: &Graph,
        format: NumberFormat,
        truncation: Truncation,
    ) -> Result<Self, PlanError> {
        let program = compile(graph, format, truncation)?;
        let Program { setup, evaluation, table, local_failures, polynomial_error } = program;
        let mut plan = Self {
            graph: Arc::new(graph.clone()),
            truncation,
            setup: setup.len(),
            steps: setup,
            exchanges: Vec::new(),
            table,
            local_failures,
            polynomial_error,
            digest: Digest([0; 32]),
        };
        plan.arrange(evaluation);
        Ok(plan)
    }

    /// The plan with some operations in place of others: `substitute` is asked for each step,
    /// and what it returns takes the step's place if it writes the same tensor. It may read what
    /// was written before.
    ///
    /// For operations that no graph lowers to, and for optimisations that know more.
    #[must_use]
    pub fn with_operations(
        mut self,
        substitute: impl Fn(&dyn Operation) -> Option<Arc<dyn Operation>>,
    ) -> Self {
        for step in &mut self.steps {
            if let Some(operation) = substitute(&*step.operation)
                && operation.writes() == step.operation.writes()
            {
                step.operation = operation;
            }
        }
        let evaluation = self.steps.split_off(self.setup);
        self.arrange(evaluation);
        self
    }

    /// Appends the steps of an evaluation in the order of their rounds, and notes where
    /// tensors are written and needed.
    fn arrange(&mut self, evaluation: Vec<Step>) {
        let (evaluation, exchanges) = in_rounds(evaluation, &self.table);
        let setup = self.setup;
        let later = |round: Range<usize>| setup + round.start..setup + round.end;
        self.exchanges = exchanges.into_iter().map(later).collect();
        self.steps.extend(evaluation);
        let table = &mut self.table;
        for spec in table.private.iter_mut().chain(&mut table.masked) {
            (spec.written, spec.last_read, spec.last_kept) = (0, 0, None);
        }
        for (index, Step { operation, .. }) in self.steps.iter().enumerate() {
            operation.reads().into_iter().for_each(|id| table.spec_mut(id).last_read = index);
            for id in operation.keeps() {
                table.spec_mut(id).last_kept = Some(index);
            }
            if let Some(id) = operation.writes() {
                table.spec_mut(id).written = index;
            }
            match operation.message(table).map(|message| message.route) {
                Some(Route::Input(input)) => table.inputs[input].step = index,
                Some(Route::Output(output)) => table.outputs[output].step = index,
                Some(Route::Exchange) | None => {}
            }
        }
        self.digest = self.fingerprint();
    }

    /// The graph it computes.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The number format.
    #[must_use]
    pub fn format(&self) -> NumberFormat {
        self.table.format()
    }

    /// Precision and range of its numbers: those of the format, with the range that the graph
    /// [declares](Graph::range).
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.format().precision().within(self.graph.range())
    }

    /// The truncation.
    #[must_use]
    pub fn truncation(&self) -> Truncation {
        self.truncation
    }

    /// The steps, in the order in which every party takes them.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How many of the steps are taken once a session instead of in each evaluation.
    #[must_use]
    pub fn setup_steps(&self) -> usize {
        self.setup
    }

    /// The steps of an evaluation with their numbers.
    pub(crate) fn evaluation(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().skip(self.setup)
    }

    /// Of each round of an evaluation, in their order, the steps whose messages share it.
    #[must_use]
    pub fn exchanges(&self) -> &[Range<usize>] {
        &self.exchanges
    }

    /// The tensors.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The tensors that players share, in the order of the graph.
    #[must_use]
    pub fn inputs(&self) -> &[InputSpec] {
        self.table.inputs()
    }

    /// The tensors that players are revealed, in the order of the graph and of the steps.
    #[must_use]
    pub fn outputs(&self) -> &[OutputSpec] {
        self.table.outputs()
    }

    /// A player's inputs of a lifetime, each with its number in the plan.
    pub(crate) fn inputs_of(
        &self,
        player: Name,
        lifetime: Lifetime,
    ) -> impl Iterator<Item = (usize, &InputSpec)> {
        let mine = move |input: &InputSpec| input.player == player && input.lifetime == lifetime;
        self.inputs().iter().enumerate().filter(move |(_, input)| mine(input))
    }

    /// Whether a player has a part in every evaluation, and not only in the set-up.
    #[must_use]
    pub fn takes_part(&self, player: Name) -> bool {
        self.inputs_of(player, Lifetime::Evaluation).next().is_some()
            || self.outputs().iter().any(|output| output.player == player)
    }

    /// The coordinator: the first player that brings an input to each evaluation and learns an
    /// output, or else the first that learns one.
    #[must_use]
    pub fn coordinator(&self) -> Name {
        let learns = |player: Name| self.outputs().iter().any(|output| output.player == player);
        let brings = |player: Name| self.inputs_of(player, Lifetime::Evaluation).next().is_some();
        let players = || self.graph.players().iter().copied().filter(|player| learns(*player));
        let coordinator = players().find(|player| brings(*player)).or_else(|| players().next());
        // Every graph reveals something to somebody.
        coordinator.unwrap_or(self.graph.players()[0])
    }

    /// Public tensors.
    #[must_use]
    pub fn publics(&self) -> &[PublicTensor] {
        self.table.publics()
    }

    /// The probability that a local truncation fails in one evaluation, if all values were at
    /// the ends of their ranges: an upper bound, as it is proportional to the values
    /// (`docs/protocol.md`). Zero for interactive truncation, which does not fail.
    #[must_use]
    pub fn local_failure(&self) -> f64 {
        self.local_failures.min(1.0)
    }

    /// A bound of what computing any of its polynomials on shares adds to the error of an
    /// argument within the polynomial's range, in units in the last place of the format
    /// (`2^-f`), unless a local truncation fails. Zero if there is none.
    #[must_use]
    pub fn polynomial_error(&self) -> f64 {
        self.polynomial_error
    }

    /// For people: the step's number, layer and operation.
    #[must_use]
    pub fn describe(&self, step: usize) -> String {
        match self.steps.get(step) {
            Some(Step { layer, operation }) => {
                format!("step {step} ({} of {layer})", operation.name())
            }
            None => format!("step {step}"),
        }
    }

    /// The fingerprint of everything that the parties must agree on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
