//! The arguments of `bench run`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use party::config::limits;
use spdz::channel::Name;
use spdz::plan::NumberFormat;

use super::common::{Manner, Program, Threads, format, interruptible, within};
use crate::run;

/// Arguments of `bench run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The graph, JSON or YAML by its ending
    graph: PathBuf,
    /// A player's inputs, a safetensors file: the graph's names, F32 or F64
    #[arg(long = "player", value_name = "NAME=FILE", value_parser = named_file)]
    players: Vec<(Name, PathBuf)>,
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
}

/// `NAME=FILE`.
fn named_file(text: &str) -> Result<(Name, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !file.is_empty() => {
            let name = name.parse().map_err(|error| format!("{error}"))?;
            Ok((name, file.into()))
        }
        _ => {
            Err("expected a player's name, an equals sign and a file, as in alice=a.safetensors"
                .into())
        }
    }
}

/// Files by player, each given once.
fn by_player(option: &str, files: Vec<(Name, PathBuf)>) -> anyhow::Result<BTreeMap<Name, PathBuf>> {
    let mut map = BTreeMap::new();
    for (name, file) in files {
        if map.insert(name, file).is_some() {
            anyhow::bail!(
                "{option} {name}=... is given twice; put all tensors of a player into one file"
            );
        }
    }
    Ok(map)
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let run = run::Run {
            graph: self.graph,
            inputs: by_player("--player", self.players)?,
            outputs: by_player("--output", self.outputs)?,
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
        write!(io::stdout().lock(), "{report}")?;
        Ok(())
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
        let error = by_player("--player", twice.into()).unwrap_err().to_string();
        assert!(error.contains("--player alice=... is given twice"), "{error}");
    }
}
