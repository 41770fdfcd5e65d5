//! The arguments of `bench report`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::common::print_json;
use crate::console;
use crate::report;

/// What `bench report --help` says besides its options.
fn help() -> String {
    let mut text = String::from(
        "Beside the results it writes report.html (a page that needs no network), report.md, \
         report.csv and report.json. The columns of report.csv, times in milliseconds of one \
         inference:\n\n",
    );
    for (name, meaning) in report::csv::COLUMNS {
        text.push_str(&format!("  {name:<20} {meaning}\n"));
    }
    text
}

/// Arguments of `bench report`.
#[derive(Debug, Args)]
#[command(after_long_help = help())]
pub struct Arguments {
    /// Folders with a results.json, or such files; the report is about the last, and the
    /// first is the baseline that the later ones are compared with
    #[arg(value_name = "DIR", required = true)]
    results: Vec<PathBuf>,
    /// Folder for the report; that of the last results without it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print where the files are as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Reads, computes, writes, and says where the report is.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let out = self.out.or_else(|| folder_of(self.results.last()?)).context("no results")?;
        let paths = report::of(&self.results, &out)?;
        if self.json { print_json(&paths) } else { say_where(&paths) }
    }
}

/// Prints where the report is.
pub(super) fn say_where(paths: &[PathBuf]) -> anyhow::Result<()> {
    paths.iter().try_for_each(|path| console::print(format_args!("{}\n", path.display())))
}

fn folder_of(path: &Path) -> Option<PathBuf> {
    if path.is_dir() { Some(path.into()) } else { path.parent().map(Path::to_path_buf) }
}
