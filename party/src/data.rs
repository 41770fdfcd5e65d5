//! A party's files: how they are read, and what may be wrong with them.

use std::path::{Path, PathBuf};

use crate::files;
use crate::idx::IdxError;
use crate::tensors::{TensorError, Unshareable};

/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is far too large.
    #[error("{} has {found} bytes, at most {MAX_FILE_BYTES} are accepted", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// It does not hold the tensors that it should.
    #[error("{}: {source}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: TensorError,
    },
    /// Its numbers cannot be shared.
    #[error("{}: {source}", path.display())]
    Unshareable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Unshareable,
    },
    /// It is not in the idx format.
    #[error("{}: {source}", path.display())]
    Idx {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdxError,
    },
    /// It does not fit the rest.
    #[error("{} holds {found}, expected {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },
}

/// Reads a whole file of bounded size.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let refuse = |source| DataError::Read { path: path.into(), source };
    let found = files::len(path).map_err(refuse)?;
    if found > MAX_FILE_BYTES {
        return Err(DataError::Size { path: path.into(), found });
    }
    std::fs::read(path).map_err(refuse)
}

/// Whether a file can be written at `path`, as far as that can be told before, and is none of
/// those that are `read`.
pub(crate) fn check_place(path: &Path, read: &[&Path]) -> Result<(), DataError> {
    files::check_place(path, read).map_err(|source| DataError::Write { path: path.into(), source })
}
