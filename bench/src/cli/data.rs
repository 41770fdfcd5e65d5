//! The arguments of `bench data`.

use std::path::PathBuf;

use clap::Args;

use crate::console;
use crate::data;

/// Arguments of `bench data`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folder to put the files into
    #[arg(long, value_name = "DIR", default_value = data::DEFAULT_FOLDER)]
    dir: PathBuf,
    /// Folder that has the files, gzipped or not; without it they are downloaded
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut written = Ok(());
        data::fetch(&self.dir, self.from.as_deref(), |line| {
            if written.is_ok() {
                written = console::print(format_args!("{line}\n"));
            }
        })?;
        written
    }
}
