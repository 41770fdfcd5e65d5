//! The arguments of `bench table1`.

use clap::Args;
use spdz::network::{Activation, Pooling};

use super::common::{Manner, Measured, interruptible, print_json, say_how_to_go_on, within};
use super::selection::Selection;
use crate::launch::here::Here;
use crate::results::Results;
use crate::settings::{BATCH_SIZES, Settings};
use crate::sweep::{self, Finished};
use crate::{console, table1};

/// Arguments of `bench table1`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Images of one inference
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<usize>(BATCH_SIZES))]
    batch_size: usize,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    manner: Manner,
    /// Print the results as JSON in place of the table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.manner.store();
        // A sweep of one trial of each cell.
        let mut settings = Settings {
            name: "table1".into(),
            activations: Activation::ALL.into(),
            poolings: Pooling::ALL.into(),
            batch_sizes: vec![self.batch_size],
            truncations: vec![self.manner.truncation],
            offline: vec![self.manner.offline],
            trials: 1,
            accuracy_samples: 10_000,
            store_megabytes: store.memory_megabytes,
            store_disk_megabytes: store.disk_megabytes,
            spin_micros: self.manner.spin_micros,
            ..Settings::default()
        };
        self.selection.apply(&mut settings);
        Results::check_place(&self.selection.out)?;
        let options = sweep::Options {
            journal: Some(self.selection.out.clone()),
            parallel: 1,
            stop_at_failure: true,
            in_order: true,
            bench: std::env::current_exe()?,
            table: (!self.json).then_some(table1::AS_IT_COMES),
        };
        let here = Here::new(self.selection.files()?, &settings)?;
        let interrupted = interruptible()?;
        let finished = sweep::run(&settings, &options, &[&here], &interrupted);
        say_how_to_go_on(&interrupted);
        let Finished { results, lock: _lock, .. } = finished?;
        let written = results[0].write(&self.selection.out)?;
        if self.json {
            let written = vec![written.path];
            print_json(&Measured { results: &results, written, comparison: None })?;
        } else {
            let foot = table1::foot(&results[0], console::width());
            console::print(format_args!("{foot}\n{written}\n"))?;
        }
        sweep::forget(&results, &self.selection.out)?;
        Ok(())
    }
}
