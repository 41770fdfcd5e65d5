//! The arguments of `bench run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use party::config::limits;
use spdz::channel::Name;
use spdz::plan::NumberFormat;

use super::common::{Manner, Program, Threads, format, interruptible, print_json, within};
use super::inputs::{inputs, named_file, source};
use crate::console;
use crate::run;
use crate::tensor_files::Source;
use crate::usage::refuse;

/// Arguments of `bench run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The graph, JSON or YAML by its ending
    graph: PathBuf,
    /// A player's inputs: .safetensors or .npz with the graph's names; or .npy or .csv with one
    /// input, as NAME.INPUT=FILE if the player has several
    #[arg(long = "player", value_name = "NAME=FILE", value_parser = source)]
    players: Vec<(Name, Source)>,
    /// Where to write a player's outputs, a safetensors file
    #[arg(long = "output", value_name = "NAME=FILE", value_parser = named_file)]
    outputs: Vec<(Name, PathBuf)>,
    /// The number format
    #[arg(long, ignore_case = true, value_parser = format(), default_value_t = NumberFormat::default())]
    format: NumberFormat,
    /// How often to evaluate the graph
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<u64>(1..=limits::EVALUATIONS.max))]
    evaluations: u64,
    #[command(flatten)]
    manner: Manner,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    program: Program,
    /// Print what was measured and small outputs as JSON
    #[arg(long)]
    json: bool,
}

/// Outputs by player, each given once.
fn outputs(files: Vec<(Name, PathBuf)>) -> anyhow::Result<BTreeMap<Name, PathBuf>> {
    let mut map = BTreeMap::new();
    for (name, file) in files {
        if map.insert(name, file).is_some() {
            refuse!("--output {name}=... is given twice; all outputs of a player are in one file");
        }
    }
    Ok(map)
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let run = run::Run {
            graph: self.graph,
            inputs: inputs(self.players)?,
            outputs: outputs(self.outputs)?,
            format: self.format,
            truncation: self.manner.truncation.named(),
            evaluations: self.evaluations,
            offline: self.manner.offline,
            store: self.manner.store(),
            threads: self.threads.threads,
            party: self.program.path()?,
            transport: self.manner.transport(),
        };
        let report = run.run(interruptible()?.as_ref())?;
        if self.json {
            return print_json(&report.to_json());
        }
        console::print(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_player() {
        let parse = |text: &str| named_file(text).map(|(name, file)| (name.to_string(), file));
        assert_eq!(parse("alice=a=b"), Ok(("alice".into(), "a=b".into())));
        for text in ["alice", "alice=", "=a", "Alice=a"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let twice = ["a", "b"].map(|file| named_file(&format!("alice={file}")).unwrap());
        let error = outputs(twice.into()).unwrap_err().to_string();
        assert!(error.contains("--output alice=... is given twice"), "{error}");
    }
}
