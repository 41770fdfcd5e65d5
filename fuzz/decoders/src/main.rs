//! Writes the binary seeds of the corpora.

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    for (place, bytes) in decoders::seeds::written() {
        let path = Path::new(decoders::CORPORA).join(place);
        let folder = path.parent().context("a corpus has a folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
