//! Temporary folders that do not outlive who uses them.
//!
//! What is in them may be secret: keys of a session, a player's inputs. A process that is killed
//! cannot remove its folder, so the next one does: each folder has a file that its process holds a
//! lock on, which the system releases however the process ends.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use tempfile::TempDir;

/// What the names of the folders begin with.
const PREFIX: &str = "secure-inference-";

/// The file in a folder that is locked while its process lives.
const LOCK: &str = "lock";

/// Most entries of the folder for temporary files that are looked at.
const MOST_ENTRIES: usize = 10_000;

/// A temporary folder of this process, which nobody else can look into.
#[derive(Debug)]
pub(crate) struct Scratch {
    // Removed before the lock is released.
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// A new folder, in that of `TMPDIR`. Those of processes that were killed are removed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn new() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        let named = |error: io::Error| {
            let what = format!("cannot make a temporary folder in {}: {error}", parent.display());
            io::Error::new(error.kind(), what)
        };
        Self::within(&parent).map_err(named)
    }

    fn within(parent: &Path) -> io::Result<Self> {
        remove_abandoned(parent);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        // It has its name once it is locked: until then nobody takes the folder for abandoned.
        let new = folder.path().join("new-lock");
        let lock = File::create_new(&new)?;
        lock.lock()?;
        fs::rename(&new, folder.path().join(LOCK))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders of this user's processes that are no more. What cannot be removed stays:
/// nobody depends on it.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.take(MOST_ENTRIES).flatten() {
        if is_ours(&entry.file_name()) && is_abandoned(&entry.path()).unwrap_or(false) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX))
}

/// Whether it is a folder of this user with a lock that nobody holds.
fn is_abandoned(folder: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Ok(false);
    }
    // A link or a pipe in its place is nothing to follow or to wait for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let lock = OpenOptions::new().read(true).custom_flags(flags).open(folder.join(LOCK))?;
    Ok(lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let make = |name: &str, lock: bool| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("alice-x.csv.safetensors"), "secret").unwrap();
            if lock {
                File::create_new(at(name).join(LOCK)).unwrap();
            }
        };
        make("secure-inference-killed", true);
        // One that is being made, one of somebody else's making, and one behind a link.
        make("secure-inference-new", false);
        make("others", true);
        symlink(at("others"), at("secure-inference-link")).unwrap();
        make("secure-inference-odd", false);
        symlink(at("others/lock"), at("secure-inference-odd/lock")).unwrap();
        let living = Scratch::within(parent.path()).unwrap();
        fs::write(living.path().join("key"), "secret").unwrap();
        assert_eq!(fs::metadata(living.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let other = Scratch::within(parent.path()).unwrap();
        assert!(!at("secure-inference-killed").exists());
        for name in
            ["secure-inference-new", "others", "secure-inference-link", "secure-inference-odd"]
        {
            assert!(fs::symlink_metadata(at(name)).is_ok(), "{name}");
        }
        assert!(at("others/alice-x.csv.safetensors").exists());
        assert!(living.path().join("key").exists() && other.path() != living.path());
        let paths = [living.path().to_owned(), other.path().to_owned()];
        drop((living, other));
        assert!(paths.iter().all(|path| !path.exists()));
    }
}
