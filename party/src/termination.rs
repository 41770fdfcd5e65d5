//! How a run ended, in a short file: the last thing that a party writes.
//!
//! In a cluster the file is the container's termination message, which whoever started the
//! party reads from the container's status: a party needs no access to anything else to
//! report its failure or its result.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use spdz::channel::Role;

use crate::result::RunResult;

/// Largest termination message, bytes: more than that a cluster cuts off.
pub const MAX_TERMINATION_BYTES: usize = 4096;

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
    /// What was measured, from the player that commands
    /// ([`Plan::driver`](spdz::plan::Plan::driver)).
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
    /// The configuration, the identity, inputs or outputs; a retry fails alike.
    BadInput,
    /// The parties do not mean the same run; a retry fails alike.
    Disagreement,
    /// A peer never came, left, fell silent or gave up; a new run may succeed.
    PeerLost,
    /// The process was told to stop.
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
            Self::Terminated => 143,
        }
    }
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
            // A byte of text is at least one of JSON.
            let mut kept = text.len().saturating_sub(excess + ELLIPSIS.len_utf8());
            while !text.is_char_boundary(kept) {
                kept -= 1;
            }
            text.truncate(kept);
            text.push(ELLIPSIS);
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

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OfflineMode;
    use crate::result::Latency;
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
            batch_size: 1,
            repetitions: 2,
            offline_mode: OfflineMode::Inline,
            combined: Latency { mean_ms: 1.0 / 3.0, ..Latency::default() },
            online: Latency::default(),
            offline: Latency::default(),
            online_bytes: 4,
            offline_bytes: 5,
            online_rounds: 6,
            accuracy: None,
        }
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
    fn the_longest_text_is_cut_where_a_character_ends() {
        for (text, least) in [("é".repeat(5000), 3900), ("\u{1}\n\"".repeat(3000), 900)] {
            let message = failed(&text);
            let json = message.to_json().unwrap();
            assert!(json.len() <= MAX_TERMINATION_BYTES, "{}", json.len());
            let read = Termination::parse(&json).unwrap();
            let kept = &read.failure.as_ref().unwrap().message;
            let start = kept.strip_suffix(ELLIPSIS).unwrap();
            assert!(text.starts_with(start) && kept.len() >= least, "{}", kept.len());
        }
        let long = Termination::success(Role::CLIENT, Some(result(&"x".repeat(10_000))));
        let json = long.to_json().unwrap();
        assert_eq!(json.len(), MAX_TERMINATION_BYTES);
        assert_eq!(Termination::parse(&json).unwrap().result.unwrap().online_rounds, 6);
        let short = failed(&"x".repeat(3000)).to_json().unwrap();
        assert!(short.contains(&"x".repeat(3000)), "what fits is left as it is");
    }
}
