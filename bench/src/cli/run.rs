//! The arguments of `bench run`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use party::config::limits;
use spdz::channel::Name;
use spdz::plan::NumberFormat;

use super::common::{Manner, Program, Threads, format, interruptible, print_json, within};
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

/// `NAME=FILE`, or `NAME.INPUT=FILE` for one of several inputs.
fn source(text: &str) -> Result<(Name, Source), String> {
    let (name, tensor) = match text.split_once('=') {
        Some((name, _)) => match name.split_once('.') {
            Some((player, tensor)) => (player, Some(tensor.to_owned())),
            None => (name, None),
        },
        None => (text, None),
    };
    let file = text.split_once('=').map_or("", |(_, file)| file);
    let (name, path) = named_file(&format!("{name}={file}"))?;
    Ok((name, Source { tensor, path }))
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

/// Inputs by player: one file with names of its own, or several with one input each.
fn inputs(files: Vec<(Name, Source)>) -> anyhow::Result<BTreeMap<Name, Vec<Source>>> {
    let mut map: BTreeMap<Name, Vec<Source>> = BTreeMap::new();
    for (name, source) in files {
        let sources = map.entry(name).or_default();
        sources.push(source);
        if sources.len() > 1 && sources.iter().any(|source| source.tensor.is_none()) {
            refuse!(
                "--player {name}=... is given twice; put all tensors of a player into one file, or \
                 name the input of each, as in --player {name}.INPUT=FILE"
            );
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

    #[test]
    fn several_files_of_a_player_each_have_an_input() {
        let of = |texts: &[&str]| {
            let sources = texts.iter().map(|text| source(text).unwrap());
            inputs(sources.collect()).map_err(|error| error.to_string())
        };
        let found = of(&["alice.x=a.b=c.npy", "alice.w=w.csv", "bob=b.npz"]).unwrap();
        let alice = &found[&"alice".parse().unwrap()];
        let expected = Source { tensor: Some("x".into()), path: "a.b=c.npy".into() };
        assert_eq!((alice.len(), &alice[0]), (2, &expected));
        for twice in [["alice=a", "alice=b"], ["alice.x=a", "alice=b"]] {
            let error = of(&twice).unwrap_err();
            assert!(error.contains("--player alice=... is given twice"), "{error}");
        }
        assert!(source("alice.x").is_err() && source("Alice.x=a").is_err());
    }
}
