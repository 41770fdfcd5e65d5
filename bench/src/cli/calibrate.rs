//! The arguments of `bench calibrate`.

use std::path::PathBuf;

use clap::Args;
use party::config::limits;
use spdz::channel::Name;

use super::common::{interruptible, print_json, within};
use super::inputs::{inputs, source};
use crate::tensor_files::Source;
use crate::{calibrate, console};

/// Arguments of `bench calibrate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The graph, JSON or YAML by its ending
    graph: PathBuf,
    /// A player's inputs, in the files that run takes
    #[arg(long = "player", value_name = "NAME=FILE", value_parser = source)]
    players: Vec<(Name, Source)>,
    /// How many evaluations, from the inputs' first row; all rows without it
    #[arg(long, value_name = "N", value_parser = within::<u64>(1..=limits::EVALUATIONS.max))]
    evaluations: Option<u64>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let calibrate = calibrate::Calibrate {
            graph: self.graph,
            inputs: inputs(self.players)?,
            evaluations: self.evaluations,
        };
        let report = calibrate.run(interruptible()?.as_ref())?;
        if self.json {
            return print_json(&report.to_json());
        }
        console::print(report.render(console::width()))
    }
}
