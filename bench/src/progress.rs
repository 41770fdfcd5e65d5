//! What a long command is doing: a bar on a terminal, plain lines elsewhere.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use party::run::{Progress, Stage};

use crate::console;

/// Between two lines of one phase, where there is no bar.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

const WAITING: &str = "{spinner} {msg} [{elapsed}]";
const COUNTING: &str = "{spinner} {msg} {wide_bar} {pos}/{len} [{eta} left]";

/// The progress of a series of runs.
pub(crate) struct Reporter {
    bar: ProgressBar,
    label: String,
    stage: Option<Stage>,
    steps: Steps,
}

/// How far a phase is, for who sees no bar.
#[derive(Debug)]
struct Steps {
    what: &'static str,
    began: Instant,
    said: Instant,
}

impl Steps {
    fn begin(what: &'static str, now: Instant) -> Self {
        Self { what, began: now, said: now }
    }

    /// A line now and then: `scoring the test set, 3400 of 10000, 20 s left`.
    fn line(&mut self, done: u64, of: u64, now: Instant) -> Option<String> {
        if now.duration_since(self.said) < BETWEEN_LINES || done == 0 || done >= of {
            return None;
        }
        self.said = now;
        let passed = now.duration_since(self.began).as_secs_f64();
        let left = passed * (of - done) as f64 / done as f64;
        Some(format!("{}, {done} of {of}, {left:.0} s left", self.what))
    }
}

impl Reporter {
    /// Writes to standard error.
    pub(crate) fn new() -> Self {
        let target = match console::has_bar() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let steps = Steps::begin("", Instant::now());
        let reporter = Self { bar, label: String::new(), stage: None, steps };
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
            let what = match progress.stage {
                Stage::Settle => "warming up, in seconds",
                Stage::Prepare => "preprocessing",
                Stage::Warmup => "warming up",
                Stage::Timed => "timed evaluations",
                Stage::Accuracy => "scoring the test set",
                Stage::Inspect => "comparing the outputs of layers",
            };
            self.steps = Steps::begin(what, Instant::now());
            self.say(what);
            self.bar.reset();
            self.bar.set_length(progress.of);
            self.style(COUNTING);
        }
        self.bar.set_position(progress.done);
        if self.bar.is_hidden()
            && let Some(line) = self.steps.line(progress.done, progress.of, Instant::now())
        {
            plain(&format!("{}: {line}", self.label));
        }
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

    /// A line that stays, however little is said.
    pub(crate) fn warn(&self, text: &str) {
        let line = format!("warning: {text}");
        if self.bar.is_hidden() {
            // Nobody has to read it.
            let _ = writeln!(io::stderr().lock(), "{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// A part of the command's result, on standard output as soon as it is known.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn print(&self, text: &str) -> anyhow::Result<()> {
        self.bar.suspend(|| console::print(text))
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
    if console::is_quiet() {
        return;
    }
    // Nobody has to read it.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_phase_says_how_far_it_is() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut steps = Steps::begin("scoring", start);
        assert_eq!(steps.line(10, 100, at(9)), None);
        assert_eq!(steps.line(20, 100, at(10)).as_deref(), Some("scoring, 20 of 100, 40 s left"));
        assert_eq!(steps.line(21, 100, at(11)), None, "not every moment");
        assert_eq!(steps.line(50, 100, at(20)).as_deref(), Some("scoring, 50 of 100, 20 s left"));
        assert_eq!(steps.line(100, 100, at(40)), None, "done");
    }
}
