//! `bench train`: trains networks, saves them with their model cards, and shows how far it is.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use party::files::write_whole;
use spdz::network::{Builtin, weights::Weights};

use crate::card::{Measured, ModelCard, Training};
use crate::console;
use crate::data::{Dataset, sha256};
use crate::train::{Progress, TRAINED_WITH, train};

/// Trains the networks one after the other.
///
/// # Errors
/// If the data set is missing, a training fails or a file cannot be written.
pub(super) fn run(
    networks: &[Builtin],
    training: &Training,
    data: &Path,
    out: &Path,
) -> anyhow::Result<()> {
    let train_set = Dataset::train(data)?;
    let test_set = Dataset::test(data)?;
    std::fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder {}", out.display()))?;
    for model in networks {
        let (name, network) = (model.to_string(), model.network());
        let mut display = Display::new(&name);
        let weights = train(&network, training, &train_set, |progress| {
            display.show(progress);
        })
        .with_context(|| format!("training network {name}"))?;
        display.finish();
        let measured =
            Measured::of(&network, &Weights::from_safetensors(&weights, &network)?, &test_set)?;
        let card = ModelCard {
            network: model.architecture().into(),
            activation: model.variant().activation,
            pooling: model.variant().pooling,
            training: training.clone(),
            measured,
            sha256: sha256(&weights),
            trained_with: TRAINED_WITH.into(),
        };
        let stem = out.join(model.file_stem());
        let mut json = serde_json::to_vec_pretty(&card)?;
        json.push(b'\n');
        for (extension, bytes) in [("safetensors", &weights), ("json", &json)] {
            let path = stem.with_extension(extension);
            write_whole(&path, bytes)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        console::print(format_args!(
            "{name}: {:.2} % of the test images right, largest pre-activation {:.2}, largest logit {:.2}\n",
            100.0 * measured.plaintext_accuracy,
            measured.largest_pre_activation,
            measured.largest_logit,
        ))?;
    }
    Ok(())
}

/// The training's progress on stderr: a bar on a terminal, a line per epoch elsewhere.
struct Display {
    network: String,
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Display {
    fn new(network: &str) -> Self {
        Self {
            network: network.to_owned(),
            bar: io::stderr().is_terminal().then(|| {
                let style = ProgressStyle::with_template(
                    "{prefix} {bar:30} {msg}, {elapsed} passed, {eta} to go",
                );
                let bar = ProgressBar::new(0);
                bar.set_prefix(network.to_owned());
                style.map_or(bar.clone(), |style| bar.with_style(style))
            }),
            start: Instant::now(),
        }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { step, steps, epochs, epoch, loss } = progress;
        let message = format!("epoch {epoch}/{epochs}, loss {loss:.4}");
        if let Some(bar) = &self.bar {
            bar.set_length(steps as u64);
            bar.set_position(step as u64);
            bar.set_message(message);
        } else if step * epochs % steps == 0 {
            let elapsed = self.start.elapsed();
            let left = elapsed.mul_f64((steps - step) as f64 / step as f64);
            let seconds = |duration: Duration| duration.as_secs();
            // Progress nobody can see is no reason to stop training.
            let _ = writeln!(
                io::stderr().lock(),
                "{} {message}, {} s passed, {} s to go",
                self.network,
                seconds(elapsed),
                seconds(left),
            );
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
