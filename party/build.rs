//! Lets programs say which commit they were built from.

use std::process::Command;

fn main() {
    println!("cargo:rustc-env=COMMIT={}", commit());
}

/// The commit of the sources, or what the builder says where they come without their history.
fn commit() -> String {
    const GIVEN: &str = "SECURE_INFERENCE_COMMIT";
    println!("cargo:rerun-if-env-changed={GIVEN}");
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    if let Some(folder) = git(&["rev-parse", "--absolute-git-dir"]) {
        println!("cargo:rerun-if-changed={folder}/logs/HEAD");
    }
    let given = std::env::var(GIVEN).ok().filter(|commit| !commit.is_empty());
    let own = || git(&["rev-parse", "--short=12", "HEAD"]);
    given.or_else(own).unwrap_or_else(|| "unknown".into())
}
