//! `bench calibrate`: how large the numbers of a graph get, and which range it can declare.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use party::config::Computation;
use party::tensors::Inputs;
use serde::Serialize;
use serde_json::{Value, json};
use spdz::channel::Name;
use spdz::graph::{Graph, MAX_RANGE, NodeId, Place, Tensors};
use spdz::plan::NumberFormat;

use crate::graph_file;
use crate::launch::local::LaunchError;
use crate::layout::{Align, Table, fill};
use crate::progress::Reporter;
use crate::scratch::Scratch;
use crate::tensor_files::{self, Source};

/// What `bench calibrate --help` says besides its options.
pub(crate) const HELP: &str = "\
Not private: it needs the inputs of all players in one place, and computes with
them in plaintext. Use inputs that stand for those to come.

A graph file may declare the range of its numbers, as in `range: 32`. Nobody
sees on shares whether a number keeps to it, so the range that is proposed is
four times the largest number that was found, or more. What the servers send is
narrower then, in a graph with a gate, and in Int32 weights are more precise.";

/// How much larger than the largest number that was found the proposed range is.
const MARGIN: f64 = 4.0;

/// What to look at.
#[derive(Clone, Debug)]
pub struct Calibrate {
    /// The graph, JSON or YAML.
    pub graph: PathBuf,
    /// Each player's inputs.
    pub inputs: BTreeMap<Name, Vec<Source>>,
    /// How many evaluations, from the first row of the inputs; all without it.
    pub evaluations: Option<u64>,
}

/// How large the numbers under a label get.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// The label.
    pub label: String,
    /// The largest magnitude of a number on shares.
    pub largest: f64,
}

/// What was found; prints as a table.
#[derive(Clone, Debug)]
pub struct Report {
    graph: String,
    evaluations: u64,
    sections: Vec<Section>,
    /// What the graph declares.
    declared: Option<u32>,
}

impl Calibrate {
    /// Evaluates the graph in plaintext.
    ///
    /// # Errors
    /// If a file is missing or wrong, something does not fit the graph, or on interruption.
    pub fn run(&self, interrupted: &AtomicBool) -> anyhow::Result<Report> {
        let graph = graph_file::read(&self.graph)?;
        let declared = graph.range();
        // Inputs beyond what is declared are what this is to find.
        let graph = graph.with_range(None)?;
        let inputs = self.read(&graph)?;
        let all = inputs.values().map(Inputs::evaluations).max().unwrap_or(1);
        let evaluations = self.evaluations.unwrap_or(all);
        let mut reporter = Reporter::new();
        reporter.begin(graph.name(), &format!("{evaluations} evaluations in plaintext"));
        let mut largest = vec![0.0; graph.nodes().len()];
        for number in 0..evaluations {
            if interrupted.load(Ordering::Relaxed) {
                bail!(LaunchError::Interrupted);
            }
            let rows: BTreeMap<Name, Tensors> =
                inputs.iter().map(|(player, inputs)| (*player, inputs.tensors(number))).collect();
            let found = graph.largest_magnitudes(&rows)?;
            largest.iter_mut().zip(found).for_each(|(most, found): (&mut f64, f64)| {
                *most = most.max(found);
            });
        }
        reporter.finish();
        let sections = sections(&graph, &largest);
        Ok(Report { graph: graph.name().into(), evaluations, sections, declared })
    }

    /// Each player's inputs.
    fn read(&self, graph: &Graph) -> anyhow::Result<BTreeMap<Name, Inputs>> {
        // In the format with most room, which any graph has a plan for.
        let computation = Computation::of_graph(graph.clone(), NumberFormat::Int64);
        let plan = computation.plan().with_context(|| format!("graph {}", self.graph.display()))?;
        let folder = Scratch::new()?;
        let evaluations = self.evaluations.unwrap_or(u64::MAX);
        let files = tensor_files::of_players(&self.inputs, &plan, evaluations, folder.path())?;
        let mut inputs = BTreeMap::new();
        for (player, task) in graph_file::tasks(&files, &BTreeMap::new(), &plan)? {
            let Some(path) = task.inputs else { continue };
            let place = || path.display().to_string();
            let bytes = fs::read(&path).with_context(place)?;
            let specs = graph.inputs_of(player);
            inputs.insert(player, Inputs::read(&bytes, specs, false).with_context(place)?);
        }
        Ok(inputs)
    }
}

/// The largest numbers by label, in the order of the graph.
fn sections(graph: &Graph, largest: &[f64]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (index, (node, &largest)) in graph.nodes().iter().zip(largest).enumerate() {
        if graph.facts(NodeId(index)).place != Place::Private {
            continue;
        }
        match sections.iter_mut().find(|section| section.label == node.label) {
            Some(section) => section.largest = section.largest.max(largest),
            None => sections.push(Section { label: node.label.clone(), largest }),
        }
    }
    sections
}

/// The smallest range with a margin, if there is one that large.
fn proposed(largest: f64) -> Option<u32> {
    let range = (largest * MARGIN).max(1.0).log2().ceil().exp2();
    (range <= f64::from(MAX_RANGE)).then_some(range as u32)
}

impl Report {
    fn largest(&self) -> f64 {
        self.sections.iter().map(|section| section.largest).fold(0.0, f64::max)
    }

    /// What was found, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "graph": self.graph,
            "evaluations": self.evaluations,
            "sections": self.sections,
            "largest": self.largest(),
            "declaredRange": self.declared,
            "proposedRange": proposed(self.largest()),
        })
    }

    /// As text, in so many columns of a terminal.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        let number = |value: f64| format!("{value:.4}");
        let mut table = Table::new(&[("label", Align::Left), ("largest magnitude", Align::Right)]);
        for Section { label, largest } in &self.sections {
            table.row(vec![label.clone(), number(*largest)], Vec::new());
        }
        let mut text =
            format!("{}: evaluations in plaintext: {}\n\n", self.graph, self.evaluations);
        text.push_str(&table.render(width));
        text.push('\n');
        text.push_str(&fill(&self.advice(), width));
        text
    }

    fn advice(&self) -> String {
        let largest = self.largest();
        let found = format!("The largest number on shares is {largest:.4}.");
        let proposal = match proposed(largest) {
            None => format!(
                "{found} Four times as much is beyond {MAX_RANGE}, which the numbers of all formats \
                 are below; scale inputs or weights down, and outputs up."
            ),
            Some(range) => {
                let int32 = NumberFormat::Int32.precision().limit();
                let fits = match f64::from(range) <= int32 {
                    true => String::new(),
                    false => format!(" Int32, whose numbers are below {int32}, is too narrow."),
                };
                format!(
                    "{found} With a margin of four the graph can declare `range: {range}`.{fits}"
                )
            }
        };
        match self.declared {
            Some(declared) if largest >= f64::from(declared) => format!(
                "{proposal} It declares {declared}, which is too little: results are meaningless."
            ),
            Some(declared) => format!(
                "{proposal} It declares {declared}, {:.1} times the largest.",
                f64::from(declared) / largest.max(f64::MIN_POSITIVE)
            ),
            None => proposal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_margin_and_an_end() {
        let cases =
            [(0.0, 1), (0.25, 1), (0.26, 2), (7.3, 32), (8.0, 32), (8.01, 64), (256.0, 1024)];
        for (largest, range) in cases {
            assert_eq!(proposed(largest), Some(range), "{largest}");
        }
        assert_eq!([proposed(256.1), proposed(1e300), proposed(f64::INFINITY)], [None; 3]);
    }

    #[test]
    fn the_largest_numbers_of_all_rows_are_found_by_label() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let graph = file(
            "mean.json",
            r#"{"name": "mean", "players": ["alice", "bob"], "range": 2, "nodes": [
                {"label": "x", "operation": {"op": "input", "player": "alice", "name": "x", "shape": [1, 4]}},
                {"label": "x", "operation": {"op": "share", "input": 0}},
                {"label": "w", "operation": {"op": "input", "player": "bob", "name": "w", "shape": [1, 4], "lifetime": "session"}},
                {"label": "w", "operation": {"op": "share", "input": 2}},
                {"label": "product", "operation": {"op": "mul", "left": 1, "right": 3}},
                {"label": "mean", "operation": {"op": "reduceSum", "input": 4, "axes": [1]}},
                {"label": "mean", "operation": {"op": "constant", "shape": [], "values": [0.25]}},
                {"label": "mean", "operation": {"op": "mul", "left": 5, "right": 6}},
                {"label": "relu", "operation": {"op": "relu", "input": 7}},
                {"label": "result", "operation": {"op": "reveal", "input": 8, "player": "alice"}},
                {"label": "result", "operation": {"op": "output", "input": 9, "name": "y"}}]}"#,
        );
        let source = |path| vec![Source { tensor: None, path }];
        let x = file("x.csv", "1,2,3,4\n-8,-8,-8,-8\n0,0,0,1\n");
        let alice: Name = "alice".parse().unwrap();
        let inputs = BTreeMap::from([
            (alice, source(x)),
            ("bob".parse().unwrap(), source(file("w.csv", "3,1,1,1\n"))),
        ]);
        let calibrate = Calibrate { graph, inputs, evaluations: None };
        let found = |calibrate: &Calibrate| {
            let report = calibrate.run(&AtomicBool::new(false)).unwrap();
            let pair = |section: &Section| (section.label.clone(), section.largest);
            (report.evaluations, report.sections.iter().map(pair).collect::<Vec<_>>())
        };
        let named = |largest: [f64; 5]| {
            let labels = ["x", "w", "product", "mean", "relu"].map(str::to_owned);
            labels.into_iter().zip(largest).collect::<Vec<_>>()
        };
        // The sum of four is four times the mean, and no number on shares that has to be in range.
        assert_eq!(found(&calibrate), (3, named([8.0, 3.0, 24.0, 12.0, 3.0])));
        let one = Calibrate { evaluations: Some(1), ..calibrate.clone() };
        assert_eq!(found(&one), (1, named([4.0, 3.0, 4.0, 3.0, 3.0])));
        let missing = Calibrate { inputs: BTreeMap::new(), ..calibrate };
        let error = missing.run(&AtomicBool::new(false)).unwrap_err().to_string();
        assert!(error.contains("--player bob=FILE, safetensors with w [1, 4]"), "{error}");
    }

    #[test]
    fn advice_depends_on_what_was_found_and_is_declared() {
        let report = |largest, declared| Report {
            graph: "score".into(),
            evaluations: 3,
            sections: vec![Section { label: "fc1".into(), largest }],
            declared,
        };
        let says = |largest, declared, expected: &str| {
            let text = report(largest, declared).render(None);
            // Wherever its lines end.
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(text.contains(expected), "{text}\n(expected {expected})");
        };
        says(7.3, None, "can declare `range: 32`.");
        says(100.0, None, "`range: 512`. Int32, whose numbers are below 128, is too narrow.");
        says(300.0, None, "Four times as much is beyond 1024");
        says(7.3, Some(16), "It declares 16, 2.2 times the largest.");
        says(20.0, Some(16), "It declares 16, which is too little");
        assert_eq!(report(7.3, Some(16)).to_json()["proposedRange"], 32);
    }
}
