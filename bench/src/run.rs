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
use spdz::channel::Name;
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::polynomial::WrittenFit;

use crate::graph_file;
use crate::launch::local::{self, Job};
use crate::progress::Reporter;

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
    pub inputs: BTreeMap<Name, PathBuf>,
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
    /// For each player with outputs: its name, its outputs, and the file.
    pub outputs: Vec<(Name, String, Option<PathBuf>)>,
    /// What the plan says of its polynomials, [`Plan::polynomial_error`].
    pub polynomial_error: f64,
    /// How far polynomials are from the functions that they are fitted to.
    pub fits: Vec<WrittenFit>,
    /// And of its local truncations, [`Plan::local_failure`].
    pub local_failure: f64,
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
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let result = folder.path().join("result.json");
        let job = Job {
            players: self.players(&plan, &result)?,
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
            let names = outputs.iter().map(|(name, shape)| format!("{name} {shape:?}"));
            let names = names.collect::<Vec<_>>().join(", ");
            let file = self.outputs.get(player).cloned();
            (!outputs.is_empty()).then_some((*player, names, file))
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
    fn players(&self, plan: &Plan, result: &Path) -> anyhow::Result<BTreeMap<Name, PlayerTask>> {
        for path in self.outputs.values() {
            check_place(path).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        let mut tasks = graph_file::tasks(&self.inputs, &self.outputs, plan)?;
        let coordinator = tasks.entry(plan.coordinator()).or_default();
        coordinator.evaluations = Some(self.evaluations);
        coordinator.offline = Some(self.offline);
        coordinator.result = Some(result.into());
        Ok(tasks)
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
        for (player, names, file) in &self.outputs {
            match file {
                Some(file) => writeln!(f, "outputs of {player}, {names}: {}", file.display())?,
                None => writeln!(
                    f,
                    "outputs of {player}, {names}: not kept, --output {player}=FILE keeps them"
                )?,
            }
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
        let files = |files: Files<'_>| {
            let file =
                |(name, file): &(&str, &str)| (name.parse().unwrap(), folder.path().join(file));
            files.iter().map(file).collect()
        };
        let run = Run {
            graph,
            inputs: files(inputs),
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
        let tasks = run.players(&plan.unwrap(), Path::new("result.json"));
        tasks.map(|tasks| format!("{tasks:?}")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_example_in_the_help_is_a_graph() {
        let graph: Graph = serde_yaml::from_str(&example()).unwrap();
        assert_eq!(graph.name(), "score");
        assert_eq!(graph.outputs_of("alice".parse().unwrap()), [("score".into(), vec![1, 1])]);
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
