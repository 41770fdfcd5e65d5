//! How a run ended, in a short file: the last thing that a party writes.
//!
//! In a cluster the file is the container's termination message, which whoever started the
//! party reads from the container's status: a party needs no access to anything else to
//! report its failure or its result.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use spdz::channel::Role;

use crate::result::RunResult;
use crate::stop::Signal;

/// Largest termination message, bytes: more than that a cluster cuts off.
pub const MAX_TERMINATION_BYTES: usize = 4096;

/// The environment variable that says where to leave the message, as `--termination-message`
/// of `party` does.
pub const TERMINATION_VARIABLE: &str = "PARTY_TERMINATION_MESSAGE";

/// How a run ended for one party. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Termination {
    /// The party's role; absent if there was no configuration to say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The exit code of the process; `party --help` lists them.
    pub exit_code: u8,
    /// When it ended, milliseconds since 1970 in UTC.
    pub finished_at_ms: u64,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What was measured, from the coordinator
    /// ([`Plan::coordinator`](spdz::plan::Plan::coordinator)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
}

/// Why a party failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The kind of failure.
    pub reason: Reason,
    /// What happened, for people.
    pub message: String,
    /// With [`Reason::PeerLost`] the peer that never came, left, fell silent or gave up, as
    /// this party saw it: that peer's own message says why, or names the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Role>,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Something failed inside the process.
    Internal,
    /// The configuration, the identity, inputs or outputs; a retry fails too.
    BadInput,
    /// The parties do not mean the same run; a retry fails too.
    Disagreement,
    /// A peer never came, left, fell silent or gave up; a new run may succeed.
    PeerLost,
    /// The process was told to stop, by a signal.
    Terminated,
}

impl Reason {
    /// The exit code of a process that fails for this reason.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::BadInput => 2,
            Self::Disagreement => 3,
            Self::PeerLost => 4,
            Self::Terminated => Signal::Terminate.exit_code(),
        }
    }
}

/// How a process ended that left no words of its own: the signal, what is known to send it, and
/// no more than a number for what is no signal of Linux.
#[must_use]
pub fn ended_by_signal(signal: i32) -> String {
    let known = match signal {
        1 => "SIGHUP, as when a terminal closes",
        2 => "SIGINT, as Ctrl-C sends",
        4 => "SIGILL, an instruction that this processor does not have",
        6 => "SIGABRT, as when memory runs out or by a bug",
        7 => "SIGBUS, as when a disk is full or broken",
        9 => "SIGKILL, as when memory runs out",
        11 => "SIGSEGV, a bug",
        15 => "SIGTERM, a request to stop",
        _ => return format!("ended by signal {signal}"),
    };
    format!("ended by signal {signal} ({known})")
}

/// The signal behind an exit code, as shells and container runtimes report it.
#[must_use]
pub fn signal_of(exit_code: i32) -> Option<i32> {
    Some(exit_code - 128).filter(|signal| (1..=64).contains(signal))
}

/// Put where a text was cut off.
const ELLIPSIS: char = '…';

impl Termination {
    /// A run of `role` that succeeded just now.
    #[must_use]
    pub fn success(role: Role, result: Option<RunResult>) -> Self {
        let finished_at_ms = unix_ms();
        Self { role: Some(role), exit_code: 0, finished_at_ms, failure: None, result }
    }

    /// A run that failed just now.
    #[must_use]
    pub fn failure(role: Option<Role>, failure: Failure) -> Self {
        let exit_code = failure.reason.exit_code();
        let finished_at_ms = unix_ms();
        Self { role, exit_code, finished_at_ms, failure: Some(failure), result: None }
    }

    /// A run that was told to stop.
    #[must_use]
    pub fn stopped(role: Option<Role>, signal: Signal) -> Self {
        let message = format!("told to stop by {signal}");
        let failure = Failure { reason: Reason::Terminated, message, peer: None };
        Self { exit_code: signal.exit_code(), ..Self::failure(role, failure) }
    }

    /// Reads a termination message.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The message: JSON of at most [`MAX_TERMINATION_BYTES`], for which texts are cut off,
    /// the longest first.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut whole = self.clone();
        loop {
            let json = serde_json::to_string(&whole)?;
            let excess = json.len().saturating_sub(MAX_TERMINATION_BYTES);
            if excess == 0 {
                return Ok(json);
            }
            let message = whole.failure.as_mut().map(|failure| &mut failure.message);
            let network = whole.result.as_mut().map(|result| &mut result.network);
            let longest = [message, network].into_iter().flatten().max_by_key(|text| text.len());
            // Without texts it is far shorter.
            let Some(text) = longest.filter(|text| text.len() > ELLIPSIS.len_utf8()) else {
                return Ok(json);
            };
            shorten(text, excess);
        }
    }

    /// Writes the message in place: `path` may be a mount, which nothing can be renamed to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let json = self.to_json()?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.write_all(json.as_bytes())
    }
}

/// Takes so many bytes of JSON off the end of a text, and puts an ellipsis there.
fn shorten(text: &mut String, excess: usize) {
    let in_json = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..' ' => 6,
        c => c.len_utf8(),
    };
    let mut freed = 0;
    while freed < excess + ELLIPSIS.len_utf8()
        && let Some(last) = text.pop()
    {
        freed += in_json(last);
    }
    text.push(ELLIPSIS);
}

/// The end of the process, which comes once, whichever thread is the first to see it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    path: Option<PathBuf>,
    role: OnceLock<Role>,
    exit_code: Mutex<Option<u8>>,
}

impl Ending {
    /// Leaves the termination message at `path`, if that is said.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, ..Self::default() }
    }

    /// The role is known from now on.
    pub(crate) fn set_role(&self, role: Role) {
        let _ = self.role.set(role);
    }

    /// The role, if it is known.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role.get().copied()
    }

    /// Leaves the message, unless there was an end before. Returns the exit code of the first.
    pub(crate) fn end(&self, termination: &Termination) -> u8 {
        let mut exit_code = self.exit_code.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = *exit_code {
            return first;
        }
        if let Some(path) = &self.path
            && let Err(error) = termination.write(path)
        {
            tracing::warn!("cannot write the termination message {}: {error}", path.display());
        }
        *exit_code.insert(termination.exit_code)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OfflineMode;
    use crate::result::{Accuracy, Inspection, Latency, LayerRange, LayerTime, MAX_LAYERS};
    use spdz::network::Reveal;
    use spdz::plan::{NumberFormat, Truncation};

    fn failed(message: &str) -> Termination {
        let message = message.into();
        let failure = Failure { reason: Reason::PeerLost, message, peer: Some(Role::Server0) };
        Termination { finished_at_ms: 7, ..Termination::failure(Some(Role::CLIENT), failure) }
    }

    fn result(network: &str) -> RunResult {
        RunResult {
            network: network.into(),
            format: NumberFormat::Int64,
            truncation: Truncation::Local,
            reveal: Reveal::default(),
            batch_size: 1,
            repetitions: 2,
            offline_mode: OfflineMode::Inline,
            combined: Latency { mean_ms: 1.0 / 3.0, ..Latency::default() },
            online: Latency::default(),
            offline: Latency::default(),
            online_bytes: 4,
            offline_bytes: 5,
            online_rounds: 6,
            out_of_range: 0,
            layers: Vec::new(),
            accuracy: None,
            inspection: None,
        }
    }

    /// As long as a result gets: all layers and blocks, and no number shorter than another.
    fn longest_result() -> RunResult {
        let samples: Vec<f64> = (0..1000).map(|i| (f64::from(i) * 1.7 + 0.3).sin().abs()).collect();
        let latency = |scale: f64| {
            let scaled: Vec<f64> = samples.iter().map(|x| x * scale + scale / 3.0).collect();
            Latency::with_distribution(&scaled)
        };
        let third = 1.0 / 3.0;
        let layer = |index| {
            LayerTime::new(
                index,
                "a_layer_of_a_long_name",
                "reduce_sum",
                third / 100.0,
                third / 1e4,
            )
        };
        RunResult {
            repetitions: 100_000,
            batch_size: 1024,
            truncation: Truncation::Interactive,
            // Of labels there is no divergence: this is longer than any.
            reveal: Reveal::Label,
            format: NumberFormat::Int100,
            combined: latency(123_456.7),
            online: latency(0.000_123_456),
            offline: Latency { quantiles_ms: vec![], block_means_ms: vec![], ..latency(third) },
            online_bytes: u64::MAX,
            offline_bytes: u64::MAX,
            online_rounds: 1_000_000,
            out_of_range: 100_000,
            layers: (0..MAX_LAYERS).map(|index| layer(index + 100_000)).collect(),
            accuracy: Some(Accuracy {
                samples: 10_000,
                plaintext: Some(third),
                secure: third,
                agreement: Some(third),
                mean_kl_divergence: Some(third * 1e-7),
            }),
            ..result("a name of a graph that is not short")
        }
    }

    #[test]
    fn the_longest_result_fits_whole() {
        let success = Termination::success(Role::CLIENT, Some(longest_result()));
        let json = success.to_json().unwrap();
        // Some room is left for what else a result may have to say.
        assert!(json.len() <= MAX_TERMINATION_BYTES - 256, "{}", json.len());
        let read = Termination::parse(&json).unwrap().result.unwrap();
        let written = longest_result();
        assert_eq!(read.combined.block_means_ms, written.combined.block_means_ms);
        assert_eq!((read.layers, read.network), (written.layers, written.network));
    }

    #[test]
    fn the_longest_inspection_fits_whole() {
        let third = -1.0 / 3.0;
        let range = |index: usize| {
            let mut range = LayerRange::new(&format!("a_layer_of_a_long_name{index}"));
            range.add(third * 1e3, third, 1.0);
            LayerRange { values: u64::from(u32::MAX), near_limit: 4_000_000_000, ..range.rounded() }
        };
        let longest = longest_result();
        let bare = |latency: Latency| Latency {
            quantiles_ms: Vec::new(),
            block_means_ms: Vec::new(),
            ..latency
        };
        let inspected = RunResult {
            combined: bare(longest.combined.clone()),
            online: bare(longest.online.clone()),
            layers: Vec::new(),
            inspection: Some(Inspection {
                not_private: true,
                samples: 10_000,
                out_of_range: 10_000,
                limit: 1024.0,
                layers: (0..MAX_LAYERS).map(range).collect(),
            }),
            ..longest
        };
        let success = Termination::success(Role::CLIENT, Some(inspected));
        let json = success.to_json().unwrap();
        assert!(json.len() <= MAX_TERMINATION_BYTES - 256, "{}", json.len());
        let read = Termination::parse(&json).unwrap().result.unwrap();
        assert_eq!(read.inspection, success.result.unwrap().inspection);
    }

    #[test]
    fn a_failure_has_these_fields() {
        assert_eq!(
            failed("server0 is gone").to_json().unwrap(),
            r#"{"role":"client","exitCode":4,"finishedAtMs":7,"failure":{"reason":"PeerLost","message":"server0 is gone","peer":"server0"}}"#
        );
        let unknown = Failure { reason: Reason::BadInput, message: "no file".into(), peer: None };
        let unknown = Termination::failure(None, unknown).to_json().unwrap();
        assert!(unknown.starts_with(r#"{"exitCode":2,"#), "{unknown}");
    }

    #[test]
    fn a_message_survives_writing_over_a_longer_one_and_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        failed(&"long ".repeat(100)).write(&path).unwrap();
        let success = Termination::success(Role::CLIENT, Some(result("C")));
        success.write(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(Termination::parse(&text).unwrap(), success);
        assert!(Termination::parse("killed").is_err());
    }

    #[test]
    fn the_first_end_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        let ending = Ending::new(Some(path.clone()));
        ending.set_role(Role::Producer);
        assert_eq!(ending.end(&Termination::stopped(ending.role(), Signal::Interrupt)), 130);
        assert_eq!(ending.end(&Termination::success(Role::Producer, None)), 130);
        let read = Termination::parse(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((read.role, read.exit_code), (Some(Role::Producer), 130));
        assert_eq!(read.failure.unwrap().message, "told to stop by SIGINT");
        // A message that cannot be written changes nothing.
        let nowhere = Ending::new(Some(folder.path().join("no/such/folder")));
        assert_eq!(nowhere.end(&Termination::stopped(None, Signal::Terminate)), 143);
    }

    #[test]
    fn the_longest_text_is_cut_where_a_character_ends() {
        for (text, least) in [("é".repeat(5000), 3900), ("\u{1}\n\"".repeat(3000), 900)] {
            let message = failed(&text);
            let json = message.to_json().unwrap();
            assert!(json.len() <= MAX_TERMINATION_BYTES, "{}", json.len());
            let read = Termination::parse(&json).unwrap();
            let kept = &read.failure.as_ref().unwrap().message;
            let start = kept.strip_suffix(ELLIPSIS).unwrap();
            assert!(text.starts_with(start) && kept.len() >= least, "{}", kept.len());
            // No more was cut than needed.
            assert!(json.len() > MAX_TERMINATION_BYTES - 6, "{}", json.len());
        }
        let long = Termination::success(Role::CLIENT, Some(result(&"x".repeat(10_000))));
        let json = long.to_json().unwrap();
        assert_eq!(json.len(), MAX_TERMINATION_BYTES);
        assert_eq!(Termination::parse(&json).unwrap().result.unwrap().online_rounds, 6);
        let short = failed(&"x".repeat(3000)).to_json().unwrap();
        assert!(short.contains(&"x".repeat(3000)), "what fits is left as it is");
    }
}
