//! The arguments of `bench floor`, and of its hidden other end.

use std::path::PathBuf;

use clap::Args;
use party::cli::Instructions;
use party::config::Transport;
use spdz::network::Reveal;
use spdz::plan::NumberFormat;

use super::common::{Networks, format, interruptible, print_json, reveal, within};
use crate::console;
use crate::floor;
use crate::settings::BATCH_SIZES;

/// Arguments of `bench floor`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    networks: Networks,
    /// What the client learns; each network with each
    #[arg(long, value_name = "NAMES", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = reveal(), default_values_t = [Reveal::default()])]
    reveal: Vec<Reveal>,
    /// Number formats, each with its usual truncation
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format(), default_values_t = NumberFormat::ALL)]
    formats: Vec<NumberFormat>,
    /// Images of one inference
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,100")]
    #[arg(value_parser = within::<usize>(BATCH_SIZES))]
    batch_size: Vec<usize>,
    /// How long a process looks for a message before it sleeps, microseconds
    #[arg(long, value_name = "MICROS", default_value_t = Transport::default().spin_micros)]
    spin_micros: u64,
    #[command(flatten)]
    instructions: Instructions,
    /// Print speeds and floors as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.instructions.apply();
        let report = floor::run(
            &self.networks.each()?,
            &self.reveal,
            &self.formats,
            &self.batch_size,
            Transport { spin_micros: self.spin_micros, ..Transport::default() },
            &std::env::current_exe()?,
            interruptible()?.as_ref(),
        )?;
        if self.json {
            return print_json(&report.to_json());
        }
        console::print(report.render(console::width()))
    }
}

/// Arguments of the hidden command that is one end of a connection.
#[derive(Debug, Args)]
pub struct LinkArguments {
    /// The configuration of a server, YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where server 1 writes what it measured, JSON
    #[arg(long, value_name = "FILE")]
    result: PathBuf,
}

impl LinkArguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        floor::transport::run(&self.config, &self.result)
    }
}
