//! How the programs of this toolkit meet people and shells: errors, colours, how much is said,
//! completions and manual pages. The same for all of them.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::builder::Styles;
use clap::{Args, Command};
use clap_complete::Shell;

/// Writes `error: ...` to standard error, as the command line's own errors are.
pub fn error(message: &dyn fmt::Display) {
    let style = *Styles::styled().get_error();
    // Without a place to complain to, the exit code has to do.
    let _ = writeln!(anstream::stderr().lock(), "{style}error:{style:#} {message}");
}

/// Whether standard error is to have colours: on a terminal that has them. `NO_COLOR`, `CLICOLOR`
/// and `CLICOLOR_FORCE` say otherwise.
#[must_use]
pub fn colours() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Whether standard error is a terminal whose lines can be written anew.
#[must_use]
pub fn can_redraw() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !dumb
}

/// What parties log where much is asked for, as `RUST_LOG` says it.
pub const VERBOSE_LOGS: &str = "info,party=debug,spdz=debug";

/// How much is said on standard error.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Verbosity {
    /// Say nothing on standard error but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more on standard error
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// Arguments of the command that prints completions.
#[derive(Args, Clone, Copy, Debug)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints what the shell reads to complete `command`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn print(self, mut command: Command) -> io::Result<()> {
        let name = command.get_name().to_owned();
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        io::stdout().lock().write_all(&text)
    }
}

/// Arguments of the command that writes manual pages.
#[derive(Args, Clone, Debug)]
pub struct Manual {
    /// Folder for the pages, made if it is not there; pages that are there are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Manual {
    /// Writes a page for `command` and each of its own commands.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, command: Command) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(command, &self.folder)
    }

    /// Where the pages are to be.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}
