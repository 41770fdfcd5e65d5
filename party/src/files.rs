//! Files that others read while they are written.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// Whether others than the user may read a file that was not there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    /// As the process's file mode creation mask has it.
    Usual,
    /// Nobody else: mode 0600.
    Owner,
}

/// Writes a file so that under its name it is there either whole or not at all.
///
/// A file that is there is replaced; its mode stays, and so does its owner if the system
/// allows it. A link is followed.
///
/// # Errors
/// If it cannot be written, or the name is that of something else than a file, which is left
/// as it is.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, Readers::Usual)
}

/// Writes a file as [`write_whole`] does; if it was not there, only its owner can read it.
///
/// # Errors
/// As [`write_whole`].
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write(path, bytes, Readers::Owner)
}

fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let target = Target::of(path)?;
    let part = target.part(readers)?;
    let written = part.write(bytes, target.replaces.as_ref());
    let renamed = written.and_then(|()| fs::rename(&part.path, &target.path));
    if renamed.is_err() {
        part.remove();
    }
    renamed
}

/// A new file that only its owner can read, under a name that nothing has.
///
/// # Errors
/// If something is there, or no file can be made.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Bytes of a file that is to be read.
///
/// # Errors
/// If it is not there, or is no file: reading a pipe could wait for ever.
pub fn len(path: &Path) -> io::Result<u64> {
    let found = fs::metadata(path)?;
    match other_than_a_file(&found) {
        Some(kind) => Err(io::Error::other(format!("it is {kind}, expected a file"))),
        None => Ok(found.len()),
    }
}

/// Whether a file can be written at `path`, as far as that can be told before, and is none of
/// those that are `read`, by whatever name.
///
/// # Errors
/// If not, as [`write_whole`] would fail.
pub fn check_place(path: &Path, read: &[&Path]) -> io::Result<()> {
    let target = Target::of(path)?;
    if let Some(replaced) = &target.replaces {
        let is_it = |other: &&&Path| {
            let found = fs::metadata(other);
            found.is_ok_and(|found| (found.dev(), found.ino()) == (replaced.dev(), replaced.ino()))
        };
        if let Some(other) = read.iter().find(is_it) {
            let other = other.display();
            let why = format!("it is {other}, which is read; name another file");
            return Err(io::Error::other(why));
        }
    }
    target.part(Readers::Owner)?.remove();
    Ok(())
}

/// What a name stands for, its links followed.
struct Target {
    path: PathBuf,
    /// The file that is there already.
    replaces: Option<Metadata>,
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(found) => match other_than_a_file(&found) {
                Some(kind) => Err(io::Error::other(format!("it is {kind}, expected a file"))),
                None => Ok(Self { path: fs::canonicalize(path)?, replaces: Some(found) }),
            },
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) if path.symlink_metadata().is_ok() => {
                Err(io::Error::other("it is a link to a file that is not there"))
            }
            Err(_) if !folder(path).is_dir() => Err(io::Error::other("its folder is not there")),
            Err(_) => Ok(Self { path: path.into(), replaces: None }),
        }
    }

    /// A new file beside it, under a name that nothing has.
    fn part(&self, readers: Readers) -> io::Result<Part> {
        // What replaces a file gets that file's mode, and is nobody else's until then.
        let mode = match (&self.replaces, readers) {
            (None, Readers::Usual) => 0o666,
            _ => 0o600,
        };
        let mut attempts = 0..100;
        loop {
            let mut path = OsString::from(&self.path);
            // The whole name: `x.json` and `x.safetensors` may be written at the same time.
            // An earlier process of the same number may have left its own behind.
            path.push(format!(".{}-{}.part", std::process::id(), attempts.next().unwrap_or(100)));
            let path = PathBuf::from(path);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
                Ok(file) => return Ok(Part { path, file }),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists && !attempts.is_empty() => {}
                Err(error) => {
                    let text = format!("no file can be made in its folder: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
    }
}

/// A file that is being written.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn write(&self, bytes: &[u8], replaces: Option<&Metadata>) -> io::Result<()> {
        (&self.file).write_all(bytes)?;
        let Some(found) = replaces else { return Ok(()) };
        let own = self.file.metadata()?;
        if (own.uid(), own.gid()) != (found.uid(), found.gid()) {
            // Only root may; whose file it is matters less than that it is written.
            let _ = fchown(&self.file, Some(found.uid()), Some(found.gid()));
        }
        self.file.set_permissions(found.permissions())
    }

    /// Whoever cannot remove it has a reason to report already.
    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder of a file.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn other_than_a_file(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    /// The names in a folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
        UnixListener::bind(&pipe).unwrap();
        fs::write(&file, "four").unwrap();
        assert_eq!(len(&file).unwrap(), 4);
        assert_eq!(len(&pipe).unwrap_err().to_string(), "it is a socket, expected a file");
        assert!(len(folder.path()).is_err() && len(&folder.path().join("none")).is_err());
    }

    #[test]
    fn what_is_read_is_not_written_by_whatever_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("x"), "before").unwrap();
        symlink("x", at("link")).unwrap();
        for (name, read) in [("x", "x"), ("link", "x"), ("x", "link"), ("x", "./x")] {
            let error = check_place(&at(name), &[&at("none"), &at(read)]).unwrap_err().to_string();
            assert!(error.contains("which is read; name another file"), "{error}");
        }
        check_place(&at("x"), &[&at("none")]).unwrap();
        check_place(&at("y"), &[&at("y")]).unwrap();
    }

    #[test]
    fn a_file_is_replaced_and_its_mode_and_links_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "before").unwrap();
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("secret", at("link")).unwrap();
        symlink("link", at("second")).unwrap();
        check_place(&at("second"), &[]).unwrap();
        write_whole(&at("second"), b"after").unwrap();
        assert!(fs::symlink_metadata(at("link")).unwrap().is_symlink());
        assert_eq!(
            (fs::read(at("secret")).unwrap(), mode(&at("secret"))),
            (b"after".into(), 0o640)
        );
        write_private(&at("own"), b"x").unwrap();
        write_whole(&at("all"), b"x").unwrap();
        assert_eq!(mode(&at("own")), 0o600);
        assert_eq!(mode(&at("all")) & 0o600, 0o600);
        assert_eq!(names(folder.path()), ["all", "link", "own", "second", "secret"]);
    }

    #[test]
    fn what_is_no_file_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        symlink("nowhere", at("broken")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(pipe.success());
        for (name, expected) in [
            ("folder", "it is a folder, expected a file"),
            ("broken", "a link to a file that is not there"),
            ("socket", "it is a socket"),
            ("pipe", "it is a named pipe"),
            ("absent/x", "its folder is not there"),
        ] {
            let before = names(folder.path());
            for refused in [
                check_place(&at(name), &[]).unwrap_err(),
                write_whole(&at(name), b"x").unwrap_err(),
            ] {
                assert!(refused.to_string().contains(expected), "{name}: {refused}");
            }
            assert_eq!(names(folder.path()), before);
        }
    }

    #[test]
    fn what_an_earlier_process_left_behind_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let left = folder.path().join(format!("x.{}-0.part", std::process::id()));
        fs::write(&left, "left").unwrap();
        write_whole(&path, b"x").unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&left).unwrap()),
            (b"x".into(), b"left".into())
        );
    }

    /// Root may write everywhere but there.
    #[test]
    fn a_folder_that_takes_no_files_is_named_before_anything_is_computed() {
        let error = check_place(Path::new("/proc/self/x"), &[]).unwrap_err();
        assert!(error.to_string().contains("no file can be made in its folder: "), "{error}");
    }
}
