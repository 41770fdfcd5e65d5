//! The arguments of `bench compare`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::common::print_json;
use super::exit::WORSE;
use crate::compare::{Comparison, Incomparable};
use crate::console;
use crate::results::Results;

/// What `bench compare --help` says besides its options.
pub(super) const HELP: &str = "\
The ratio is that of typical moments, each trial divided by how fast the machine
was around it (a piece of work that no build changes), and so not exactly that of
the means. An interval says which ratios are plausible; those of all cells hold at
once. A verdict needs an interval without 1 and a ratio beyond the threshold.
Sweeps with more trials detect smaller changes; those of a single trial, such as
table1's, only large ones.
";

/// Arguments of `bench compare`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The results before: results.json, or its folder
    before: PathBuf,
    /// The results after
    after: PathBuf,
    /// What is not taken for a change
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    threshold: f64,
    /// Print the comparison as JSON
    #[arg(long)]
    json: bool,
}

/// `5%` or `5`, as a part.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("expected a percentage from 0 to 1000, as in 5%".into()),
    }
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let read = |path: &PathBuf| Results::read(path).map_err(Incomparable::from);
        let (before, after) = (read(&self.before)?, read(&self.after)?);
        let comparison = Comparison::of(&before, &after, self.threshold)?;
        if self.json {
            print_json(&comparison)?;
        } else {
            print(&comparison)?;
        }
        judge(&comparison)
    }
}

/// Prints a comparison for people.
pub(super) fn print(comparison: &Comparison) -> anyhow::Result<()> {
    console::print(comparison.render(console::width()))
}

/// The exit code: whether something became worse.
///
/// # Errors
/// If no cell can be judged.
pub(super) fn judge(comparison: &Comparison) -> anyhow::Result<ExitCode> {
    if comparison.is_regression() {
        return Ok(ExitCode::from(WORSE));
    }
    if !comparison.is_judged() {
        bail!(
            "every cell is suspicious, so none is judged; measure again while the machine does \
             nothing else, with more trials"
        );
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_percentage() {
        assert_eq!(percent("5%"), Ok(crate::compare::THRESHOLD), "the default");
        assert_eq!(percent("12.5"), Ok(0.125));
        for text in ["", "%", "-1%", "five", "NaN", "2000"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
