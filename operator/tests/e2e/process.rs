//! Programs of this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, bail};

/// What a program said.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs a program to its end, off the runtime's own threads.
pub(crate) async fn run(mut command: Command) -> anyhow::Result<Said> {
    let shown = shown(&command);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let output = output.await?.with_context(|| format!("cannot run {shown}"))?;
    Ok(Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program that has to succeed, and returns what it wrote to standard output.
pub(crate) async fn output(command: Command) -> anyhow::Result<String> {
    let shown = shown(&command);
    let said = run(command).await?;
    if !said.status.success() {
        bail!("{shown} ended with {}:\n{}{}", said.status, said.out, said.err);
    }
    Ok(said.out)
}

/// Runs a program that has to succeed and takes long; people read along.
pub(crate) async fn visibly(mut command: Command) -> anyhow::Result<()> {
    let shown = shown(&command);
    // Standard output is for the results of cases.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = tokio::task::spawn_blocking(move || command.status());
    let status = status.await?.with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
