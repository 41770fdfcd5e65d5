//! One sweep at a time for the results of a folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file in the folder of the results that a sweep locks.
pub const LOCK_FILE: &str = "sweep.lock";

/// Most bytes of a process's number that are read.
const MOST_DIGITS: u64 = 20;

/// How often a lock is asked for whose file goes meanwhile.
const ATTEMPTS: usize = 100;

/// Why a folder cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another sweep has it.
    #[error(
        "{holder} measures into {} now; wait until it has ended, or give --out another folder",
        folder.display()
    )]
    Held {
        /// The folder of the results.
        folder: PathBuf,
        /// The process.
        holder: String,
    },
    /// The file.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right to write results and a journal into a folder. The system takes it back however the
/// process ends; the file goes with it unless the process is killed.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Locks the folder, which is made if it is not there.
    ///
    /// # Errors
    /// If another process has it, which is named, or it cannot be locked.
    pub fn of(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(LOCK_FILE);
        let refuse = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(refuse)?;
        for _ in 0..ATTEMPTS {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&path).map_err(refuse)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let (folder, holder) = (folder.into(), holder(file));
                    return Err(LockError::Held { folder, holder });
                }
                Err(TryLockError::Error(source)) => return Err(refuse(source)),
            }
            // Who had it may have removed it since it was opened: then it is nobody's file.
            let opened = file.metadata().map_err(refuse)?;
            let there = fs::metadata(&path)
                .is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()));
            if there {
                file.set_len(0).map_err(refuse)?;
                writeln!(file, "{}", std::process::id()).map_err(refuse)?;
                return Ok(Self { path, _file: file });
            }
        }
        let holder = "another process".into();
        Err(LockError::Held { folder: folder.into(), holder })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is unlocked, so that nobody's file is removed but its own.
        let _ = fs::remove_file(&self.path);
    }
}

/// The process that a locked file names.
fn holder(mut file: File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(MOST_DIGITS).read_to_string(&mut text));
    match text.trim().parse::<u32>() {
        Ok(process) if read.is_ok() => format!("process {process}"),
        // It has just got the lock.
        _ => "another process".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_sweeps_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("results");
        let lock = Lock::of(&out).unwrap();
        let error = Lock::of(&out).unwrap_err().to_string();
        let expected =
            format!("process {} measures into {} now;", std::process::id(), out.display());
        assert!(error.starts_with(&expected), "{error}");
        drop(Lock::of(folder.path()).unwrap());
        drop(lock);
        assert!(!out.join(LOCK_FILE).exists());
        // What a killed process left is no lock, whatever it says.
        fs::write(out.join(LOCK_FILE), "1\nand more").unwrap();
        let lock = Lock::of(&out).unwrap();
        let left = fs::read_to_string(out.join(LOCK_FILE)).unwrap();
        assert_eq!(left, format!("{}\n", std::process::id()));
        drop(lock);
        fs::create_dir(out.join(LOCK_FILE)).unwrap();
        let error = Lock::of(&out).unwrap_err().to_string();
        assert!(error.contains("cannot lock") && error.contains(LOCK_FILE), "{error}");
    }
}
