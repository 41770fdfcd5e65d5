//! The arguments of `bench reference`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::common::{Folders, Networks};
use crate::console;
use crate::reference;

/// Arguments of `bench reference`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    networks: Networks,
    #[command(flatten)]
    folders: Folders,
    /// Folder to put the files into, made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let networks = self.networks.each()?;
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the folder {}", self.out.display()))?;
        for network in networks {
            let path = reference::file_in(&self.out, network);
            reference::write(network, &self.folders.data, &self.folders.models, usize::MAX, &path)?;
            console::print(format_args!("{}\n", path.display()))?;
        }
        Ok(())
    }
}
