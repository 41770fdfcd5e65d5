//! Files that others read while they are written.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Writes a file so that under its name it is there either whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The whole name: `x.json` and `x.safetensors` may be written at the same time.
    let mut part = OsString::from(path);
    part.push(".part");
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}

/// Whether a file can be written at `path`, as far as that can be told before: its
/// folder is there, and it is none itself.
///
/// # Errors
/// If not.
pub fn check_place(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let problem = if path.is_dir() {
        "it is a folder"
    } else if !folder.is_dir() {
        "its folder is not there"
    } else {
        return Ok(());
    };
    Err(io::Error::other(problem))
}
