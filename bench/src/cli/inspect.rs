//! The arguments of `bench inspect`.

use clap::Args;
use spdz::plan::NumberFormat;

use super::common::{Folders, Networks, Program, format, interruptible, print_json, within};
use crate::settings::{BATCH_SIZES, INSPECTED, Truncate};
use crate::{console, inspect};

/// Arguments of `bench inspect`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    networks: Networks,
    /// Number formats
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', ignore_case = true)]
    #[arg(value_parser = format(), default_values_t = NumberFormat::ALL)]
    formats: Vec<NumberFormat>,
    /// How products are truncated to the format's precision
    #[arg(long, value_name = "HOW", ignore_case = true, default_value = "usual")]
    truncation: Truncate,
    /// Images of one inference
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = within::<usize>(BATCH_SIZES))]
    batch_size: usize,
    /// Images to inspect, from the first of the test set
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = within::<usize>(INSPECTED))]
    samples: usize,
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    program: Program,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let inspect = inspect::Inspect {
            networks: self.networks.each()?,
            formats: self.formats,
            truncation: self.truncation.named(),
            batch_size: self.batch_size,
            samples: self.samples,
            files: self.folders.with(self.program.path()?),
        };
        let report = inspect.run(interruptible()?.as_ref())?;
        if self.json {
            return print_json(&report.to_json());
        }
        console::print(report.render(console::width()))
    }
}
