//! How a sweep is run, apart from what it measures.

use std::path::PathBuf;

use crate::cell::{CellId, Trial};
use crate::environment::Environment;
use crate::settings::Settings;

/// How a sweep is run, apart from what it measures.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder for the journal; without it nothing is kept before the end.
    pub journal: Option<PathBuf>,
    /// Trials at the same time; on one machine they would only disturb each other.
    pub parallel: usize,
    /// Whether the first trial that fails ends it all.
    pub stop_at_failure: bool,
    /// In the order of the cells instead of a drawn one.
    pub in_order: bool,
    /// This program, for the [floor](crate::floor).
    pub bench: PathBuf,
    /// What is printed to standard output before the end.
    pub table: Option<Table>,
}

/// A table that is printed while the sweep goes on.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What is above its rows.
    pub head: fn(&Environment, &Settings) -> String,
    /// The row of a trial of a cell.
    pub row: fn(&CellId, &Trial) -> String,
}
