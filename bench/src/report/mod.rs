//! `bench report`: results as Markdown, as a page, as CSV and as JSON.
//!
//! [`model`] computes what results say, `sections` puts it into words, plots and tables
//! (`parts`),
//! and the others write those down. Only this module reads and writes files.

use std::path::{Path, PathBuf};

use anyhow::Context;
use party::files::write_whole;

use crate::results::Results;

pub mod csv;
mod figures;
mod html;
mod markdown;
pub mod model;
mod naming;
mod parts;
mod plot;
mod sections;
mod theme;

pub use model::{Report, Run};

/// Most results of one report.
const MAX_RUNS: usize = 16;

/// The report of `results` into the folder `out`; where it is.
pub(crate) fn of(results: &[PathBuf], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    write(&read_all(results)?, out)
}

/// Reads results, from folders or files, and gives each a name of its own.
///
/// # Errors
/// If one cannot be read, is of another version, or holds no cell.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<Run>> {
    if paths.len() > MAX_RUNS {
        anyhow::bail!(
            "{} results are given, and a report has room for {MAX_RUNS}; leave some out",
            paths.len()
        );
    }
    let mut runs = paths.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in &mut runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = format!("{} ({})", run.name, run.source.display());
        }
    }
    Ok(runs)
}

fn read(path: &Path) -> anyhow::Result<Run> {
    let results = Results::read(path).with_context(|| {
        format!(
            "no report of {}: bench sweep and bench table1 write the results it is made of",
            path.display()
        )
    })?;
    if results.runs.is_empty() {
        anyhow::bail!(
            "no report of {}: its results hold no cell yet; run the sweep again, and it goes on \
             where it was",
            path.display()
        );
    }
    Ok(Run::of(results, path.into()))
}

/// The report in all its forms, by the names of their files, the page first.
///
/// # Errors
/// If there are no runs, or one has a number that JSON or CSV cannot hold.
pub fn forms(runs: &[Run]) -> anyhow::Result<[(&'static str, Vec<u8>); 4]> {
    let report = Report::of(runs).context("there are no results to report")?;
    let mut json = serde_json::to_vec_pretty(&report)?;
    json.push(b'\n');
    Ok([
        ("report.html", html::render(&report).into_bytes()),
        ("report.md", markdown::render(&report).into_bytes()),
        ("report.csv", csv::render(&report)?),
        ("report.json", json),
    ])
}

/// Writes the report in all its [`forms`] into `folder`, which is made if it is not there.
/// Returns their paths, the page first.
///
/// # Errors
/// If one cannot be made or written.
pub fn write(runs: &[Run], folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let forms = forms(runs)?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut paths = vec![];
    for (name, content) in forms {
        let path = folder.join(name);
        write_whole(&path, &content).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    Ok(paths)
}
