//! What a sweep has done so far, in the folder of its results: each trial is a file that is
//! written whole, so that an interruption loses no more than the trial that ran.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use party::files::write_whole;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::inputs::{self, Inputs};
use crate::cell::{CellId, CellPlan, Trial};
use crate::environment::Environment;
use crate::results::{SCHEMA_VERSION, Sweep};
use crate::settings::Settings;

/// The folder of the journal in that of the results.
pub const JOURNAL_FOLDER: &str = "journal";

/// How a sweep began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Which sweep it is, with its settings.
    pub sweep: Sweep,
    /// On what it began.
    pub environment: Environment,
    /// The commits of the builds whose trials alternate.
    pub builds: Vec<String>,
    /// The files that it measures on.
    #[serde(default)]
    pub inputs: Inputs,
}

/// A trial that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// Of which cell.
    pub key: CellId,
    /// By which of the builds, from 0.
    #[serde(default, skip_serializing_if = "is_first")]
    pub build: usize,
    /// How long it took with all around it, seconds.
    pub seconds: f64,
    /// What it measured.
    pub trial: Trial,
}

fn is_first(build: &usize) -> bool {
    *build == 0
}

/// Why there is no journal to write to.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what a sweep writes.
    #[error(
        "{} is no part of a sweep's journal: {source}; remove the folder {} to begin anew",
        path.display(), folder.display()
    )]
    Content {
        /// Which.
        path: PathBuf,
        /// The journal.
        folder: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The folder is not a journal's.
    #[error(
        "{} is no part of a sweep's journal, but in the place of one; give --out another folder",
        path.display()
    )]
    Foreign {
        /// What is in it.
        path: PathBuf,
    },
    /// The journal is of another sweep.
    #[error(
        "{} holds an unfinished sweep that differs in {}; repeat its command to go on with it, \
         give --out another folder, or remove {} to begin anew",
        folder.display(), differences.join(", "), folder.display()
    )]
    Another {
        /// The journal.
        folder: PathBuf,
        /// In what it differs: what it is now, and what it was.
        differences: Vec<String>,
    },
}

/// The journal of one sweep.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
}

const HEAD: &str = "sweep.json";

impl Journal {
    /// Of the results in `out`. Nothing is read or made yet.
    #[must_use]
    pub fn in_folder(out: &Path) -> Self {
        Self { folder: out.join(JOURNAL_FOLDER) }
    }

    /// How the sweep in it began; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is of other settings, files or another build than these; or if
    /// something else is in its place.
    pub fn resume(
        &self,
        settings: &Settings,
        environment: &Environment,
        builds: &[String],
        inputs: &Inputs,
    ) -> Result<Option<Head>, JournalError> {
        let path = self.folder.join(HEAD);
        if !path.exists() {
            return match self.entries()?.first() {
                None => Ok(None),
                Some(found) => Err(JournalError::Foreign { path: found.clone() }),
            };
        }
        let head: Head = self.read(&path)?;
        let mut differences = settings.differences(&head.sweep.settings);
        differences.extend(inputs::differences(inputs, &head.inputs));
        let (ours, theirs) = (environment, &head.environment);
        let [built, was_built] = [builds, &head.builds].map(|builds| builds.join(" and "));
        for (name, ours, theirs) in [
            ("commit", &ours.commit, &theirs.commit),
            ("the parties' commits", &built, &was_built),
            ("version", &ours.version, &theirs.version),
            ("cpu", &ours.cpu, &theirs.cpu),
        ] {
            if ours != theirs {
                differences.push(format!("{name} {ours} and {theirs}"));
            }
        }
        if head.schema_version != SCHEMA_VERSION {
            let theirs = head.schema_version;
            differences.push(format!("schema version {SCHEMA_VERSION} and {theirs}"));
        }
        if differences.is_empty() {
            return Ok(Some(head));
        }
        Err(JournalError::Another { folder: self.folder.clone(), differences })
    }

    /// Begins a sweep.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, head: &Head) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { action: "make", path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(io)?;
        self.write(&self.folder.join(HEAD), head)
    }

    fn path(&self, position: usize, build: usize, round: u32) -> PathBuf {
        let by = if is_first(&build) { String::new() } else { format!("-build-{build}") };
        self.folder.join(format!("cell-{position:04}-round-{round:03}{by}.json"))
    }

    /// Keeps a trial of `cell`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, cell: &CellPlan, record: &Record) -> Result<(), JournalError> {
        self.write(&self.path(cell.position, record.build, record.trial.round), record)
    }

    /// All trials that were kept of `rounds` rounds of these cells by so many builds, round by
    /// round.
    ///
    /// # Errors
    /// If one cannot be read, or is of another cell.
    pub fn kept(
        &self,
        cells: &[CellPlan],
        builds: usize,
        rounds: u32,
    ) -> Result<Vec<Record>, JournalError> {
        let mut kept = Vec::new();
        for round in 0..rounds {
            for build in 0..builds {
                for cell in cells {
                    let path = self.path(cell.position, build, round);
                    if path.exists() {
                        kept.push(self.record(&path, &cell.key, build, round)?);
                    }
                }
            }
        }
        Ok(kept)
    }

    /// The record in a file, which is of this trial.
    fn record(
        &self,
        path: &Path,
        key: &CellId,
        build: usize,
        round: u32,
    ) -> Result<Record, JournalError> {
        let record: Record = self.read(path)?;
        if (&record.key, record.build, record.trial.round) == (key, build, round) {
            return Ok(record);
        }
        let differences = vec![format!("{key} and {} of {}", record.key, path.display())];
        Err(JournalError::Another { folder: self.folder.clone(), differences })
    }

    /// Removes the journal: what was in it is in the results. Files that are no part of it stay,
    /// and with them the folder.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn end(&self) -> Result<(), JournalError> {
        let remove = |path: &Path, removed: io::Result<()>| {
            removed.map_err(|source| JournalError::Io {
                action: "remove",
                path: path.into(),
                source,
            })
        };
        let (own, foreign): (Vec<_>, Vec<_>) =
            self.entries()?.into_iter().partition(|path| is_own(path));
        own.iter().try_for_each(|path| remove(path, fs::remove_file(path)))?;
        if !foreign.is_empty() {
            return Ok(());
        }
        remove(&self.folder, fs::remove_dir(&self.folder))
    }

    /// What is in the folder; nothing if there is none.
    fn entries(&self) -> Result<Vec<PathBuf>, JournalError> {
        let read = || match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries?.map(|entry| Ok(entry?.path())).collect(),
        };
        read().map_err(|source| JournalError::Io {
            action: "read",
            path: self.folder.clone(),
            source,
        })
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<T, JournalError> {
        let io = |source| JournalError::Io { action: "read", path: path.into(), source };
        let bytes = fs::read(path).map_err(io)?;
        serde_json::from_slice(&bytes).map_err(|source| JournalError::Content {
            path: path.into(),
            folder: self.folder.clone(),
            source,
        })
    }

    fn write<T: Serialize>(&self, path: &Path, value: &T) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { action: "write", path: path.into(), source };
        let json = serde_json::to_vec_pretty(value).map_err(|error| io(error.into()))?;
        write_whole(path, &json).map_err(io)
    }
}

/// Whether a file is one that a journal has, by its name.
fn is_own(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let trial = name.starts_with("cell-") && name.ends_with(".json");
    name == HEAD || trial || name.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::tests::{key, trial};
    use party::config::Computation;

    fn head(settings: &Settings) -> Head {
        let sweep = Sweep { id: "x".into(), name: "x".into(), settings: settings.clone() };
        let environment = Environment::read();
        Head {
            schema_version: SCHEMA_VERSION,
            sweep,
            environment,
            builds: vec!["4567".into()],
            inputs: Inputs::from([("w".into(), "89".into())]),
        }
    }

    #[test]
    fn trials_are_found_again_and_others_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, environment) = (Settings::default(), Environment::read());
        let builds = ["4567".to_owned()];
        let inputs = Inputs::from([("w".into(), "89".into())]);
        let journal = Journal::in_folder(folder.path());
        assert_eq!(journal.resume(&settings, &environment, &builds, &inputs).unwrap(), None);
        let begun = head(&settings);
        journal.begin(&begun).unwrap();
        let resumed = journal.resume(&settings, &environment, &builds, &inputs).unwrap();
        assert_eq!(resumed, Some(begun));
        let cell = |position, batch_size| CellPlan {
            key: CellId { batch_size, ..key() },
            position,
            computation: Computation::of_network("A", batch_size, key().format),
            graph: None,
        };
        let cells = [cell(0, 1), cell(1, 10)];
        assert_eq!(journal.kept(&cells, 2, 3).unwrap(), []);
        let record = |position: usize, build, round| Record {
            key: cells[position].key.clone(),
            build,
            seconds: 0.5,
            trial: Trial { round, ..trial(&[1.0, 2.0]) },
        };
        for (position, build, round) in [(1, 0, 2), (0, 0, 0), (1, 0, 0), (1, 1, 0)] {
            journal.keep(&cells[position], &record(position, build, round)).unwrap();
        }
        // As before there were builds.
        let file = folder.path().join("journal/cell-0000-round-000.json");
        assert!(!fs::read_to_string(&file).unwrap().contains("build"));
        let first = [record(0, 0, 0), record(1, 0, 0)];
        let both = [&first[..], &[record(1, 1, 0), record(1, 0, 2)]].concat();
        assert_eq!(journal.kept(&cells, 2, 3).unwrap(), both);
        assert_eq!(journal.kept(&cells, 1, 1).unwrap(), first);

        let error = journal.kept(&[cell(0, 10), cell(1, 1)], 1, 3).unwrap_err().to_string();
        assert!(
            error.contains("differs in A Int64 Local, batch 10 and A Int64 Local, batch 1"),
            "{error}"
        );
        fs::write(&file, "{}").unwrap();
        let error = journal.kept(&cells, 1, 3).unwrap_err().to_string();
        assert!(
            error.contains("cell-0000-round-000.json is no part of a sweep's journal"),
            "{error}"
        );
        journal.end().unwrap();
        assert_eq!(journal.resume(&settings, &environment, &builds, &inputs).unwrap(), None);
    }

    #[test]
    fn another_sweep_or_build_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, environment) = (Settings::default(), Environment::read());
        let builds = ["4567".to_owned()];
        let inputs = Inputs::from([("w".into(), "89".into())]);
        let journal = Journal::in_folder(folder.path());
        journal.begin(&head(&settings)).unwrap();
        let error = |settings: &Settings, environment: &Environment| {
            journal.resume(settings, environment, &builds, &inputs).unwrap_err().to_string()
        };
        let other = Settings { repetitions: 7, ..settings.clone() };
        let refused = error(&other, &environment);
        for part in ["differs in repetitions 7 and 100", "--out another folder", "begin anew"] {
            assert!(refused.contains(part), "{refused}");
        }
        let other = Environment { commit: "0123".into(), ..environment.clone() };
        assert!(error(&settings, &other).contains("differs in commit 0123 and"));
        let others = [builds[0].clone(), "89ab".to_owned()];
        let error =
            journal.resume(&settings, &environment, &others, &inputs).unwrap_err().to_string();
        assert!(error.contains("the parties' commits 4567 and 89ab and 4567"), "{error}");
        let changed = Inputs::from([("w".into(), "01".into())]);
        let error =
            journal.resume(&settings, &environment, &builds, &changed).unwrap_err().to_string();
        assert!(error.contains("differs in the content of w;"), "{error}");
    }

    #[test]
    fn what_is_no_journal_is_neither_used_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let diary = folder.path().join("journal/diary.txt");
        fs::create_dir(folder.path().join("journal")).unwrap();
        fs::write(&diary, "mine").unwrap();
        let (settings, environment) = (Settings::default(), Environment::read());
        let journal = Journal::in_folder(folder.path());
        let resume = || journal.resume(&settings, &environment, &[], &Inputs::new());
        let error = resume().unwrap_err().to_string();
        assert!(error.contains("diary.txt is no part of a sweep's journal"), "{error}");
        // One that was put there later stays, too.
        fs::remove_file(&diary).unwrap();
        assert_eq!(resume().unwrap(), None);
        journal.begin(&head(&settings)).unwrap();
        fs::write(&diary, "mine").unwrap();
        journal.end().unwrap();
        let left = fs::read_dir(folder.path().join("journal")).unwrap().count();
        assert_eq!((left, fs::read(&diary).unwrap()), (1, b"mine".into()));
    }
}
