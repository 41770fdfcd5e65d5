//! Graphs in files of the user's own, and the files of their players.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use party::config::{MAX_CONFIG_BYTES, PlayerTask};
use party::files;
use party::fits;
use party::tensors::describe;
use party::yaml;
use serde::{Deserialize, Serialize};
use spdz::channel::Name;
use spdz::graph::Graph;
use spdz::plan::Plan;
use spdz::polynomial::WrittenFit;

use crate::usage::refuse;

/// A graph and its players' inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GraphFile {
    /// The graph, JSON or YAML by its ending; `bench run --help` explains it.
    pub file: PathBuf,
    /// A safetensors file for each player with inputs.
    #[serde(default)]
    pub players: BTreeMap<Name, PathBuf>,
}

/// The inputs and outputs of each player of a graph, if the files are those that it needs.
///
/// # Errors
/// If there is no such player, one has no inputs or outputs, or a file is missing.
pub(crate) fn tasks(
    inputs: &BTreeMap<Name, PathBuf>,
    outputs: &BTreeMap<Name, PathBuf>,
    plan: &Plan,
) -> anyhow::Result<BTreeMap<Name, PlayerTask>> {
    let graph = plan.graph();
    let all = graph.players().iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    let named = inputs.keys().chain(outputs.keys());
    if let Some(player) = named.into_iter().find(|name| !graph.players().contains(name)) {
        refuse!("graph {} has no player {player}; its players are {all}", graph.name());
    }
    let mut missing = String::new();
    let mut files = BTreeSet::new();
    let mut tasks = BTreeMap::new();
    for &player in graph.players() {
        let needed = graph.inputs_of(player);
        let mut task = PlayerTask::default();
        match inputs.get(&player) {
            Some(_) if needed.is_empty() => {
                refuse!("--player {player}=...: {player} has no inputs in the graph; leave it out")
            }
            // The parties may run in another folder than this program.
            Some(path) => {
                let whole = fs::canonicalize(path);
                task.inputs =
                    Some(whole.with_context(|| format!("--player {player}={}", path.display()))?);
            }
            None if needed.is_empty() => {}
            None => {
                // Writing to a string cannot fail.
                let _ = write!(
                    missing,
                    "\n  --player {player}=FILE, safetensors with {}",
                    describe(&needed)
                );
            }
        }
        if let Some(path) = outputs.get(&player) {
            if graph.outputs_of(player).is_empty() {
                refuse!(
                    "--output {player}=...: {player} has no outputs in the graph; leave it out"
                );
            }
            let whole = std::path::absolute(path)?;
            if !files.insert(whole.clone()) {
                refuse!("two players would write {}; name another file", path.display());
            }
            task.outputs = Some(whole);
        }
        if task != PlayerTask::default() {
            tasks.insert(player, task);
        }
    }
    if !missing.is_empty() {
        refuse!("graph {} needs inputs of its players:{missing}", graph.name());
    }
    Ok(tasks)
}

/// Reads a graph, JSON or YAML by the file's ending.
///
/// # Errors
/// If it cannot be read, is too large, or is no graph.
pub fn read(path: &Path) -> anyhow::Result<Graph> {
    read_with_fits(path).map(|(graph, _)| graph)
}

/// As [`read`], with the fits of polynomials that the file has.
///
/// # Errors
/// As [`read`].
pub fn read_with_fits(path: &Path) -> anyhow::Result<(Graph, Vec<WrittenFit>)> {
    let place = || format!("graph {}", path.display());
    let size = files::len(path).with_context(place)?;
    if size > MAX_CONFIG_BYTES {
        bail!("{} has {size} bytes, at most {MAX_CONFIG_BYTES} are read", place());
    }
    let text = fs::read_to_string(path).with_context(place)?;
    let graph = match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => serde_json::from_str(yaml::unmarked(&text)).with_context(place)?,
        Some("yaml" | "yml") => yaml::parse(&text).with_context(place)?,
        _ => bail!("{}: expected a file that ends in .json or .yaml", place()),
    };
    Ok((graph, fits::in_text(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_graph_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, expected) in [
            ("graph.json", "{}", "missing field `name`"),
            ("graph.txt", "", "ends in .json or .yaml"),
            ("graph.yaml", "name: x\nplayers: [a]\nnodes: []\nmore: 1\n", "unknown field `more`"),
            ("graph.yml", "name: x\nplayers: [a]\nnodes: []\n", "nobody receives an output"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", read(&path).unwrap_err());
            assert!(error.contains(expected) && error.contains(name), "{error}");
        }
    }
}
