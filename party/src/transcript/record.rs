//! Writes a party's transcript while the session runs.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use spdz::channel::{Role, Tag};
use spdz::plan::Plan;
use tokio_rustls::rustls::sign::Signer;

use super::format::{self, Chain, Direction, Entry};
use crate::config::PartyConfig;
use crate::error::{OutputError, RunError};
use crate::files;
use crate::identity::{self, Proof};
use crate::net::ConnectError;

/// A transcript that is being written.
pub(crate) struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    chain: Chain,
    signer: Box<dyn Signer>,
    /// The first failure to write, which the end tells.
    failure: Option<io::Error>,
}

impl Recorder {
    /// A new transcript in `folder`, named after the role and the session: none is there yet.
    ///
    /// # Errors
    /// If it cannot be written, or the party's key cannot sign.
    pub(crate) fn start(
        folder: &Path,
        config: &PartyConfig,
        plan: &Plan,
    ) -> Result<Rc<RefCell<Self>>, RunError> {
        let (certificate, signer) =
            identity::signer(&config.identity).map_err(ConnectError::from)?;
        let (role, session) = (config.role, config.session.0);
        let path = folder.join(format!("{role}-{session}.transcript"));
        let refuse = |source| OutputError::Write { path: path.clone(), source };
        let file = BufWriter::new(files::create_private(&path).map_err(refuse)?);
        let mut this = Self { path, file, chain: Chain::new(), signer, failure: None };
        for line in format::head(session, plan.digest(), role, &certificate) {
            this.write(&line);
        }
        Ok(Rc::new(RefCell::new(this)))
    }

    /// The messages of a connection to a peer that proved who it is.
    pub(crate) fn peer(this: &Rc<RefCell<Self>>, role: Role, proof: &Proof) -> Recording {
        this.borrow_mut().write(&format::peer(role, &proof.certificate));
        Recording { recorder: this.clone(), peer: role, key: proof.digests }
    }

    fn write(&mut self, line: &str) {
        self.chain.add(line);
        let written =
            self.file.write_all(line.as_bytes()).and_then(|()| self.file.write_all(b"\n"));
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }

    /// Signs what was written.
    ///
    /// # Errors
    /// If it, or any line before, could not be written.
    pub(crate) fn finish(this: &Rc<RefCell<Self>>) -> Result<(), OutputError> {
        let mut this = this.borrow_mut();
        let signed = this.signer.sign(&this.chain.signed()).map_err(io::Error::other);
        let Self { path, file, failure, .. } = &mut *this;
        let ended = failure.take().map_or(Ok(()), Err).and(signed).and_then(|signature| {
            writeln!(file, "{}", format::signature(&signature))?;
            file.flush()?;
            file.get_ref().sync_all()
        });
        ended.map_err(|source| OutputError::Write { path: path.clone(), source })
    }
}

/// Records the messages of one connection.
pub(crate) struct Recording {
    recorder: Rc<RefCell<Recorder>>,
    peer: Role,
    /// What digests are keyed with, at both ends.
    key: [u8; 32],
}

impl Recording {
    /// The digest of a message, to be fed with its bytes.
    pub(crate) fn digest(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.key)
    }

    pub(crate) fn sent(&self, tag: Tag, length: usize, digest: &blake3::Hasher) {
        self.add(Direction::Sent, tag, length, digest);
    }

    pub(crate) fn received(&self, tag: Tag, length: usize, digest: &blake3::Hasher) {
        self.add(Direction::Received, tag, length, digest);
    }

    fn add(&self, direction: Direction, tag: Tag, length: usize, digest: &blake3::Hasher) {
        let digest = *digest.finalize().as_bytes();
        let entry = Entry { direction, peer: self.peer, tag, length: length as u64, digest };
        self.recorder.borrow_mut().write(&format::message(&entry));
    }
}
