//! What a long command is doing: a bar on a terminal, plain lines elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use party::run::{Progress, Stage};

const WAITING: &str = "{spinner} {msg} [{elapsed}]";
const COUNTING: &str = "{spinner} {msg} {wide_bar} {pos}/{len} [{eta} left]";

/// The progress of a series of runs.
pub(crate) struct Reporter {
    bar: ProgressBar,
    label: String,
    stage: Option<Stage>,
}

impl Reporter {
    /// Writes to standard error.
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let reporter = Self { bar, label: String::new(), stage: None };
        reporter.style(WAITING);
        reporter.bar.enable_steady_tick(Duration::from_millis(200));
        reporter
    }

    /// Something begins that cannot be counted.
    pub(crate) fn begin(&mut self, label: &str, what: &str) {
        self.label = label.into();
        self.stage = None;
        self.style(WAITING);
        self.bar.unset_length();
        self.say(what);
    }

    /// The coordinator got further.
    pub(crate) fn update(&mut self, progress: Progress) {
        if self.stage != Some(progress.stage) {
            self.stage = Some(progress.stage);
            self.say(match progress.stage {
                Stage::Settle => "warming up, in seconds",
                Stage::Prepare => "preprocessing",
                Stage::Warmup => "warming up",
                Stage::Timed => "timed evaluations",
                Stage::Accuracy => "scoring the test set",
                Stage::Inspect => "comparing the outputs of layers",
            });
            self.bar.reset();
            self.bar.set_length(progress.of);
            self.style(COUNTING);
        }
        self.bar.set_position(progress.done);
    }

    fn style(&self, template: &str) {
        // A template that is a constant always parses.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, line: &str) {
        if self.bar.is_hidden() {
            plain(line);
        } else {
            self.bar.println(line);
        }
    }

    /// A part of the command's result, on standard output as soon as it is known.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        self.bar.suspend(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(text.as_bytes())?;
            stdout.flush()
        })
    }

    fn say(&self, what: &str) {
        let message = format!("{}: {what}", self.label);
        if self.bar.is_hidden() {
            plain(&message);
        }
        self.bar.set_message(message);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn plain(line: &str) {
    // Nobody has to read it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}
