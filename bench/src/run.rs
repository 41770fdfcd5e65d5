//! `bench run`: a graph of the user's own, on this machine.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use party::config::{Computation, Deadlines, OfflineMode, PlayerTask, Store, Transport};
use party::files::check_place;
use party::result::{Latency, RunResult};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde_json::{Value, json};
use spdz::channel::Name;
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::polynomial::WrittenFit;

use crate::graph_file;
use crate::launch::local::{self, Job};
use crate::progress::Reporter;
use crate::scratch::Scratch;
use crate::tensor_files::{self, Source};

/// What `bench run --help` says besides its options.
pub(crate) const HELP: &str = "\
A graph names its players and lists its nodes; a node reads earlier ones by
their number, counted from 0. A player computes on its inputs in plaintext,
shares them, and what is computed on shares is private until it is revealed to
one player. This is bob's score of alice's features, revealed to alice alone:

  name: score
  players: [alice, bob]
  nodes:
    - { label: main, operation: { op: input, player: alice, name: features, shape: [1, 3] } }
    - { label: main, operation: { op: share, input: 0 } }
    - label: main
      operation: { op: input, player: bob, name: weights, shape: [3, 1], lifetime: session }
    - { label: main, operation: { op: share, input: 2 } }
    - { label: main, operation: { op: matmul, left: 1, right: 3 } }
    - { label: main, operation: { op: reveal, input: 4, player: alice } }
    - { label: main, operation: { op: function, function: sigmoid, input: 5 } }
    - { label: main, operation: { op: output, input: 6, name: score } }

  bench run score.yaml --player alice=a.safetensors --player bob=b.safetensors \\
      --output alice=score.safetensors

Inputs may be NumPy's .npy or .npz, or CSV, too: --player alice=features.csv. An
.npz has the graph's names; an .npy or CSV file holds one input, and where the
player has several --player bob.weights=w.npy says which. A CSV file has rows of
numbers, and above them a row of names if there is one: all of it is the input,
or each row, or as many rows as it takes, that of one evaluation.

docs/graph.md has every operation and the limits. Programs write graphs with
spdz::graph::GraphBuilder, and serde gives them this form. An input of several
evaluations may have one more axis in front: each evaluation takes the next
row. Outputs have it always.
";

/// What to run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The graph, JSON or YAML.
    pub graph: PathBuf,
    /// Each player's inputs.
    pub inputs: BTreeMap<Name, Vec<Source>>,
    /// Where to write each player's outputs.
    pub outputs: BTreeMap<Name, PathBuf>,
    /// The number format.
    pub format: NumberFormat,
    /// The truncation; the usual one of the format without it.
    pub truncation: Option<Truncation>,
    /// How often the graph is evaluated.
    pub evaluations: u64,
    /// When randomness is made.
    pub offline: OfflineMode,
    /// How much of it may wait at the servers.
    pub store: Store,
    /// How many threads each server and the producer use; a share of the cores without it.
    pub threads: Option<usize>,
    /// The party program.
    pub party: PathBuf,
    /// How parties wait and send.
    pub transport: Transport,
}

/// What was measured; printed as a short table.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was measured.
    pub result: RunResult,
    /// How many processes there were.
    pub processes: usize,
    /// What players have obtained.
    pub outputs: Vec<Obtained>,
    /// What the plan says of its polynomials, [`Plan::polynomial_error`].
    pub polynomial_error: f64,
    /// How far polynomials are from the functions that they are fitted to.
    pub fits: Vec<WrittenFit>,
    /// And of its local truncations, [`Plan::local_failure`].
    pub local_failure: f64,
}

/// What a player has obtained.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obtained {
    /// The player.
    pub player: String,
    /// Its outputs, in the order of the graph.
    pub outputs: Vec<Output>,
    /// Where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// An output.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Its shape in one evaluation.
    pub shape: Vec<usize>,
    /// Its numbers in all evaluations, one after the other, if they are few; `null` where one
    /// was out of range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<f64>>,
}

/// Where outputs are that are shown and not kept.
fn shown_in(folder: &Path, player: Name) -> PathBuf {
    folder.join(format!("{player}.outputs.safetensors"))
}

/// Most numbers of a player's outputs that are written for some of them to be shown.
const LARGEST_BESIDE: usize = 1 << 16;

/// Most numbers of an output that are shown.
const SHOWN: usize = 32;

/// The numbers of `name` in a file of outputs, if they are few.
fn values(file: &Path, name: &str) -> Option<Vec<f64>> {
    let bytes = fs::read(file).ok()?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let view = tensors.tensor(name).ok()?;
    let numbers = view.data().as_chunks::<8>().0;
    let few = view.dtype() == Dtype::F64 && numbers.len() <= SHOWN;
    few.then(|| numbers.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect())
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.shape)?;
        let Some(values) = &self.values else { return Ok(()) };
        // No more digits than a format has, and none that say nothing.
        let short = |value: &f64| {
            let text = format!("{value:.5}");
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".into() } else { text.to_owned() }
        };
        let values: Vec<String> = values.iter().map(short).collect();
        write!(f, " = {}", values.join(", "))
    }
}

impl Run {
    /// Runs it, a process for each role, and tells of it on standard error.
    ///
    /// # Errors
    /// If a file is missing or wrong, something does not fit the graph, or the run fails.
    pub fn run(&self, interrupted: &AtomicBool) -> anyhow::Result<Report> {
        let (graph, fits) = graph_file::read_with_fits(&self.graph)?;
        let computation = Computation {
            truncation: self.truncation,
            ..Computation::of_graph(graph, self.format)
        };
        let context = || format!("graph {}", self.graph.display());
        let plan = computation.plan().with_context(context)?;
        let folder = Scratch::new()?;
        let result = folder.path().join("result.json");
        let job = Job {
            players: self.players(&plan, folder.path(), &result)?,
            computation,
            workload: None,
            store: self.store.clone(),
            threads: self.threads,
            deadlines: Deadlines::default(),
            transport: self.transport,
        };
        let configs = local::configure(&job, folder.path())?;
        configs.iter().try_for_each(party::config::PartyConfig::check)?;
        let mut reporter = Reporter::new();
        reporter.begin(plan.graph().name(), &format!("starting {} processes", configs.len()));
        let mut running = local::start(&configs, folder.path(), &self.party)?;
        let ended = running.wait(interrupted, |progress| reporter.update(progress));
        reporter.finish();
        ended.context("the run failed")?;
        let json = fs::read(&result).context("there is no result")?;
        let result = serde_json::from_slice(&json).context("the result cannot be read")?;
        let outputs = plan.graph().players().iter().filter_map(|player| {
            let outputs = plan.graph().outputs_of(*player);
            let kept = self.outputs.get(player).cloned();
            let file = kept.clone().unwrap_or_else(|| shown_in(folder.path(), *player));
            let output = |(name, shape): (String, Vec<usize>)| {
                let values = values(&file, &name);
                Output { name, shape, values }
            };
            (!outputs.is_empty()).then(|| Obtained {
                player: player.to_string(),
                outputs: outputs.into_iter().map(output).collect(),
                file: kept,
            })
        });
        Ok(Report {
            result,
            processes: configs.len(),
            outputs: outputs.collect(),
            polynomial_error: plan.polynomial_error(),
            fits,
            local_failure: plan.local_failure(),
        })
    }

    /// The task of each player, if the files are those that the graph needs.
    /// `folder` is for what is made of them, and for outputs that are shown alone.
    fn players(
        &self,
        plan: &Plan,
        folder: &Path,
        result: &Path,
    ) -> anyhow::Result<BTreeMap<Name, PlayerTask>> {
        let sources = self.inputs.values().flatten().map(|source| source.path.as_path());
        let read: Vec<&Path> = sources.chain([self.graph.as_path()]).collect();
        for path in self.outputs.values() {
            check_place(path, &read)
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        let inputs = tensor_files::of_players(&self.inputs, plan, self.evaluations, folder)?;
        let mut tasks = graph_file::tasks(&inputs, &self.outputs, plan)?;
        for &player in plan.graph().players() {
            let outputs = plan.graph().outputs_of(player);
            let few = |(_, shape): &(String, Vec<usize>)| {
                shape.iter().product::<usize>() as u64 <= SHOWN as u64 / self.evaluations
            };
            if !self.outputs.contains_key(&player) && outputs.iter().any(few) {
                let each = outputs.iter().map(|(_, shape)| shape.iter().product::<usize>());
                // Others of the player may be large, and are written too.
                if each.sum::<usize>() <= LARGEST_BESIDE {
                    let task = tasks.entry(player).or_default();
                    task.outputs = Some(shown_in(folder, player));
                }
            }
        }
        let coordinator = tasks.entry(plan.coordinator()).or_default();
        coordinator.evaluations = Some(self.evaluations);
        coordinator.offline = Some(self.offline);
        coordinator.result = Some(result.into());
        Ok(tasks)
    }
}

impl Report {
    /// What was measured and obtained, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "result": self.result,
            "processes": self.processes,
            "outputs": self.outputs,
            "polynomialError": self.polynomial_error,
            "localFailure": self.local_failure,
            "fits": self.fits.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunResult { format, truncation, repetitions, offline_mode, .. } = self.result;
        writeln!(
            f,
            "{}: {format}, {truncation} truncation, {} processes, evaluations: {repetitions}, \
             correlated randomness generated {offline_mode}\n",
            self.result.network, self.processes
        )?;
        writeln!(f, "ms          mean        sd       p50       p95       p99")?;
        let mut row = |name: &str, latency: &Latency| {
            let Latency { mean_ms, p50_ms, p95_ms, p99_ms, .. } = latency;
            let deviation = latency.deviation_ms(repetitions);
            let deviation = deviation.map_or("-".into(), |deviation| format!("{deviation:.2}"));
            writeln!(
                f,
                "{name:<7} {mean_ms:>8.2}  {deviation:>8}  {p50_ms:>8.2}  {p95_ms:>8.2}  {p99_ms:>8.2}"
            )
        };
        row("runtime", &self.result.combined)?;
        row("offline", &self.result.offline)?;
        row("online", &self.result.online)?;
        writeln!(
            f,
            "\nRuntime is {}. One evaluation: online {:.1} kB in {} rounds, offline {:.1} kB.\n",
            match offline_mode {
                OfflineMode::Inline => "offline and online together",
                OfflineMode::Ahead => "online alone, offline was done before the first",
            },
            self.result.online_bytes as f64 / 1e3,
            self.result.online_rounds,
            self.result.offline_bytes as f64 / 1e3,
        )?;
        for fit in &self.fits {
            writeln!(f, "{fit}; beyond it is another function, and nobody notices.")?;
        }
        if self.polynomial_error > 0.0 {
            writeln!(
                f,
                "Polynomials are within {:.1} units in the last place (2^-{}) of their plaintext values.",
                self.polynomial_error,
                format.precision().fraction
            )?;
        }
        if self.local_failure > 0.0 {
            writeln!(
                f,
                "At most {:.0e} of evaluations fail by local truncation, with all values at the ends of their ranges.",
                self.local_failure
            )?;
        }
        for Obtained { player, outputs, file } in &self.outputs {
            match file {
                Some(file) => writeln!(f, "outputs of {player}: {}", file.display())?,
                None => {
                    writeln!(f, "outputs of {player}: not kept, --output {player}=FILE keeps them")?
                }
            }
            outputs.iter().try_for_each(|output| writeln!(f, "  {output}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use spdz::graph::Graph;

    /// The graph in the help.
    pub(crate) fn example() -> String {
        let lines = HELP.lines().skip_while(|line| !line.starts_with("  name:"));
        lines.take_while(|line| !line.is_empty()).map(|line| format!("{}\n", &line[2..])).collect()
    }

    /// Players and files.
    type Files<'a> = &'a [(&'a str, &'a str)];

    fn run(inputs: Files<'_>, outputs: Files<'_>) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let graph = folder.path().join("score.yaml");
        fs::write(&graph, example()).unwrap();
        fs::write(folder.path().join("there"), "").unwrap();
        let files = |files: Files<'_>| -> BTreeMap<Name, PathBuf> {
            let file =
                |(name, file): &(&str, &str)| (name.parse().unwrap(), folder.path().join(file));
            files.iter().map(file).collect()
        };
        let sources = files(inputs)
            .into_iter()
            .map(|(name, path): (Name, PathBuf)| (name, vec![Source { tensor: None, path }]));
        let run = Run {
            graph,
            inputs: sources.collect(),
            outputs: files(outputs),
            format: NumberFormat::Int64,
            truncation: None,
            evaluations: 2,
            offline: OfflineMode::Ahead,
            store: Store::default(),
            threads: None,
            party: "party".into(),
            transport: Transport::default(),
        };
        let plan = Plan::compile(
            &graph_file::read(&run.graph).unwrap(),
            NumberFormat::Int64,
            Truncation::Local,
        );
        let tasks = run.players(&plan.unwrap(), folder.path(), Path::new("result.json"));
        tasks.map(|tasks| format!("{tasks:?}")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_example_in_the_help_is_a_graph() {
        let graph: Graph = serde_yaml::from_str(&example()).unwrap();
        assert_eq!(graph.name(), "score");
        assert_eq!(graph.outputs_of("alice".parse().unwrap()), [("score".into(), vec![1, 1])]);
    }

    #[test]
    fn small_outputs_are_shown_short() {
        let output = |values: &[f64]| {
            Output { name: "y".into(), shape: vec![3], values: Some(values.into()) }.to_string()
        };
        let expected = "y [3] = 0.19312, -2, 0, 100, NaN";
        assert_eq!(output(&[0.193_118, -2.0, -1e-9, 100.0, f64::NAN]), expected);
    }

    #[test]
    fn files_that_do_not_fit_the_graph_are_named() {
        let both = [("alice", "there"), ("bob", "there")];
        assert!(run(&both, &[("alice", "out")]).is_ok());
        let cases: [(Files<'_>, Files<'_>, &str); 5] = [
            (&both[..1], &[], "--player bob=FILE, safetensors with weights [3, 1]"),
            (&[], &[], "--player alice=FILE, safetensors with features [1, 3]"),
            (&both, &[("bob", "out")], "bob has no outputs"),
            (&[("carol", "there")], &[], "has no player carol; its players are alice, bob"),
            (&[("alice", "nowhere"), both[1]], &[], "nowhere"),
        ];
        for (inputs, outputs, expected) in cases {
            let error = run(inputs, outputs).unwrap_err();
            assert!(error.contains(expected), "{error}\n(expected {expected})");
        }
    }
}
