//! The files that a sweep measures on, which stay the same from its first trial to its last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use party::files;

use crate::data::sha256;

/// The SHA-256 of each file, in hexadecimal.
pub type Inputs = BTreeMap<PathBuf, String>;

/// Of these files as they are now. Those that cannot be read are left out: whoever needs one
/// says what is wrong with it.
pub(super) fn fingerprints(files: BTreeSet<PathBuf>) -> Inputs {
    let fingerprint = |path: PathBuf| {
        files::len(&path).ok()?;
        let bytes = fs::read(&path).ok()?;
        Some((path, sha256(&bytes)))
    };
    files.into_iter().filter_map(fingerprint).collect()
}

/// What differs between the files of now and those a sweep began with.
pub(super) fn differences(now: &Inputs, began: &Inputs) -> Vec<String> {
    let names = now.keys().chain(began.keys().filter(|name| !now.contains_key(*name)));
    let changed = names.filter(|name| now.get(*name) != began.get(*name));
    changed.map(|name| format!("the content of {}", name.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_came_or_went_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let all = BTreeSet::from(["same", "changed", "gone", "came"].map(path));
        for (name, text) in [("same", "1"), ("changed", "1"), ("gone", "1")] {
            fs::write(path(name), text).unwrap();
        }
        let began = fingerprints(all.clone());
        assert_eq!(differences(&fingerprints(all.clone()), &began), [""; 0]);
        fs::write(path("changed"), "2").unwrap();
        fs::write(path("came"), "2").unwrap();
        fs::remove_file(path("gone")).unwrap();
        let found = differences(&fingerprints(all), &began);
        let expected = ["came", "changed", "gone"];
        assert_eq!(found, expected.map(|name| format!("the content of {}", path(name).display())));
    }
}
