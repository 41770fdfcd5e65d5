//! What is built is what the locks say: all of it from the registry with a checksum, the same for
//! the fuzz targets, and no command that builds may change a lock on its way. `make supply-chain`
//! checks what is in the locks.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// A lock's packages, each with its fields.
fn packages(lock: &str) -> Vec<BTreeMap<String, String>> {
    let text = read(&root().join(lock));
    let packages = text.split("[[package]]\n").skip(1).map(|package| {
        let fields = package.lines().filter_map(|line| line.split_once(" = "));
        fields.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
    });
    packages.collect()
}

#[test]
fn all_dependencies_are_of_the_registry_with_a_checksum() {
    // Which one it is, deny.toml says: cargo's default. Here all are of the same.
    let mut registries = BTreeSet::new();
    for (lock, own) in [
        ("Cargo.lock", ["bench", "decoders", "operator", "party", "spdz"].as_slice()),
        ("fuzz/Cargo.lock", &["bench", "decoders", "fuzz", "party", "spdz"]),
    ] {
        let (others, ours): (Vec<_>, Vec<_>) =
            packages(lock).into_iter().partition(|package| package.contains_key("source"));
        let names: Vec<_> = ours.iter().map(|package| package["name"].as_str()).collect();
        assert_eq!(names, own, "{lock}: what has no source is of this repository");
        assert!(!others.is_empty(), "{lock} names no dependency");
        for package in others {
            let name = &package["name"];
            let source = &package["source"];
            assert!(source.starts_with("registry+"), "{lock}: {name} is from {source}");
            registries.insert(source.clone());
            let checksum = package.get("checksum").map_or("", String::as_str);
            let is_sha256 = checksum.len() == 64 && checksum.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_sha256, "{lock}: {name} has the checksum '{checksum}', expected a SHA-256");
        }
    }
    assert_eq!(registries.len(), 1, "expected one registry, found {registries:?}");
}

#[test]
fn the_fuzz_targets_are_built_with_what_the_programs_are_built_with() {
    let key = |package: &BTreeMap<String, String>| {
        let field = |name: &str| package.get(name).cloned().unwrap_or_default();
        [field("name"), field("version"), field("checksum")]
    };
    let main: BTreeSet<_> = packages("Cargo.lock").iter().map(key).collect();
    let fuzz: BTreeSet<_> = packages("fuzz/Cargo.lock").iter().map(key).collect();
    let alone: Vec<_> = fuzz.difference(&main).map(|[name, ..]| name.as_str()).collect();
    assert_eq!(
        alone,
        ["arbitrary", "fuzz", "libfuzzer-sys"],
        "fuzz/Cargo.lock has other packages than the fuzzer that Cargo.lock has not; copy the \
         versions: cp Cargo.lock fuzz/ && cargo metadata --manifest-path fuzz/Cargo.toml"
    );
}

/// Cargo's subcommands that would write a lock that is behind the manifests.
const LOCKING: [&str; 12] = [
    "bench", "build", "check", "clippy", "deny", "doc", "install", "metadata", "run", "rustc",
    "test", "tree",
];

/// The commands in a script that run cargo so.
fn commands(script: &str) -> Vec<String> {
    let joined = script.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.flat_map(|line| line.split(['|', ';', '&']));
    let runs_cargo = |command: &&str| {
        let words: Vec<_> = command.split_whitespace().map(bare).collect();
        words.windows(2).any(|pair| {
            let cargo = matches!(pair[0], "cargo" | "$(CARGO" | "${CARGO:-cargo}");
            cargo && LOCKING.contains(&pair[1])
        })
    };
    commands.filter(runs_cargo).map(|command| command.trim().to_owned()).collect()
}

/// A word of a shell's command without what may be around it: quotes, a substitution, a group.
fn bare(word: &str) -> &str {
    let start = word.rfind("$(cargo").map_or(word, |at| &word[at + 2..]);
    start.trim_matches(['"', '\'', '`', '@', '(', ')'])
}

#[test]
fn every_command_that_builds_is_locked() {
    let mut scripts: Vec<_> = ["Makefile", "Containerfile", "fuzz/run.sh", ".ci/run"]
        .map(|file| root().join(file))
        .into();
    for folder in ["hack", "hack/image", "hack/test-cluster", ".github/workflows"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        scripts.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    let mut found = BTreeMap::new();
    for script in scripts {
        for command in commands(&read(&script)) {
            let locked = command.split_whitespace().any(|word| bare(word) == "--locked");
            assert!(locked, "{}: expected --locked in: {command}", script.display());
            *found.entry(script.file_name().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    // Had they another form, the test would see none.
    for script in ["Makefile", "root.sh", "run.sh", "pinned.sh", "supply-chain.sh", "sbom.sh"] {
        assert!(
            found.contains_key(script.as_ref() as &std::ffi::OsStr),
            "no command found in {script}"
        );
    }
}

#[test]
fn commands_are_found_in_all_their_forms() {
    let script = "\
# cargo build\n\t@$(CARGO) test --locked -p a\n\"${CARGO:-cargo}\" build \\\n  --release >&2\n\
x=$(cargo tree --locked) && cargo fmt\nfor x in $(cargo fuzz list); do cargo run; done\n";
    let expected = [
        "@$(CARGO) test --locked -p a",
        "\"${CARGO:-cargo}\" build    --release >",
        "x=$(cargo tree --locked)",
        "do cargo run",
    ];
    assert_eq!(commands(script), expected);
}

/// What a file that CI or a container engine reads takes from elsewhere.
fn taken(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.trim_start().trim_start_matches("- "));
    let named = lines.filter_map(|line| {
        line.strip_prefix("uses: ").or_else(|| line.strip_prefix("FROM ")).map(str::trim)
    });
    named.filter(|what| !what.starts_with("./") && !what.starts_with("scratch")).collect()
}

/// Whether something that is taken from elsewhere is told by a digest, with a version for people.
fn pinned(what: &str) -> bool {
    let hexadecimal = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match what.split_once('@') {
        Some((image, rest)) if rest.starts_with("sha256:") => {
            let digest = rest["sha256:".len()..].split_whitespace().next().unwrap_or_default();
            hexadecimal(digest, 64) && image.contains(':')
        }
        Some((_, rest)) => rest
            .split_once(" # v")
            .is_some_and(|(commit, version)| hexadecimal(commit, 40) && !version.is_empty()),
        None => false,
    }
}

#[test]
fn actions_and_base_images_are_pinned_by_digest() {
    let workflows = std::fs::read_dir(root().join(".github/workflows")).unwrap();
    let mut files: Vec<_> = workflows.map(|entry| entry.unwrap().path()).collect();
    files.push(root().join("Containerfile"));
    let mut found = 0;
    for file in files {
        for what in taken(&read(&file)) {
            assert!(pinned(what), "{}: {what} is not pinned by digest", file.display());
            found += 1;
        }
    }
    assert!(found >= 10, "found {found}; had they another form, the test would see none");
    for (what, is) in [
        ("actions/checkout@v4", false),
        ("actions/checkout@34e114876b0b11c390a56381ad16ebd13914f8d5", false),
        ("actions/checkout@34e114876b0b11c390a56381ad16ebd13914f8d5 # v4.3.1", true),
        ("rust:1-bookworm AS build", false),
        ("rust@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1", false),
        (
            "rust:1@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS a",
            true,
        ),
    ] {
        assert_eq!(pinned(what), is, "{what}");
    }
}
