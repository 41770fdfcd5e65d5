//! The preprocessing store of a server: correlated randomness that waits for its evaluation,
//! within bounds. It is in memory as far as it fits there, the rest on disk.
//!
//! What is on disk is sealed under a key that is fresh in each process and never leaves
//! its memory. So nobody else can read or change it, and what a crash leaves behind is of
//! use to no one: the next process removes it. Each bundle is used once, and its file is
//! gone before it is.

use std::collections::VecDeque;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spdz::correlated::Bundle;
use spdz::plan::Plan;
use spdz::prg::{NoRandomness, Seed, SessionId};
use spdz::ratchet::Ratchet;
use spdz::ring::Ring;
use spdz::role::{self, StoreError};

use crate::config::Store;
use crate::files::create_private;
use crate::termination::Reason;

/// Evaluations that are kept at once, however small each is: they take a place in a list and, on
/// disk, a file.
const MAX_KEPT: usize = 1 << 20;

/// What a file takes of a disk, at least, and what its size is rounded up to, bytes.
const BLOCK: usize = 4096;

/// A preprocessing store that refuses what does not fit.
pub(crate) struct Bounded<R: Ring> {
    plan: Arc<Plan>,
    settings: Store,
    /// Of one evaluation in memory, bytes.
    each: usize,
    /// First in, first out, wherever they are.
    kept: VecDeque<Kept<R>>,
    in_memory: usize,
    disk: Option<Disk>,
    /// How many are kept, for whoever watches.
    available: Arc<AtomicU64>,
}

/// Where a bundle is.
enum Kept<R: Ring> {
    Memory(Bundle<R>),
    Disk { inference: u64, bytes: usize },
}

impl<R: Ring> Bounded<R> {
    /// An empty store. `disk` is the folder that `settings` names, opened, if they name one;
    /// `available` always has the number of evaluations that are kept.
    pub(crate) fn new(
        settings: Store,
        disk: Option<Disk>,
        plan: Arc<Plan>,
        available: Arc<AtomicU64>,
    ) -> Self {
        let each = plan.bundle_memory();
        Self { plan, settings, each, kept: VecDeque::new(), in_memory: 0, disk, available }
    }

    fn count(&self) {
        self.available.store(self.kept.len() as u64, Ordering::Relaxed);
    }

    fn full(&self) -> StoreError {
        let megabytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let Store { memory_megabytes: memory, disk_megabytes: disk, .. } = self.settings;
        let on_disk = match &self.disk {
            Some(Disk { taken, .. }) => format!(" and {:.2} MB of disk", megabytes(*taken)),
            None => String::new(),
        };
        StoreError(format!(
            "{} prepared evaluations take {:.2} MB of memory{on_disk}, and one more {:.2} MB, more \
             than the {memory} MB of `store.memoryMegabytes` and the {disk} MB of \
             `store.diskMegabytes`; prepare fewer ahead, or let the servers keep more",
            self.kept.len(),
            megabytes(self.in_memory * self.each),
            megabytes(self.each),
        ))
    }
}

impl<R: Ring> role::Store<R> for Bounded<R> {
    fn put(&mut self, bundle: Bundle<R>) -> Result<(), StoreError> {
        if self.kept.len() >= MAX_KEPT {
            return Err(StoreError(format!(
                "{MAX_KEPT} evaluations are prepared, and no more can be; prepare fewer ahead"
            )));
        }
        let taken = self.in_memory as u128 * self.each as u128;
        let fits = taken + self.each as u128 <= u128::from(self.settings.memory_megabytes) << 20;
        // Without one, nothing could be evaluated.
        if fits || self.in_memory == 0 {
            self.in_memory += 1;
            self.kept.push_back(Kept::Memory(bundle));
            self.count();
            return Ok(());
        }
        let inference = bundle.inference();
        let kept = match &mut self.disk {
            Some(disk) => disk.keep(bundle)?,
            None => None,
        };
        let bytes = kept.ok_or_else(|| self.full())?;
        self.kept.push_back(Kept::Disk { inference, bytes });
        self.count();
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Bundle<R>>, StoreError> {
        let first = self.kept.pop_front();
        self.count();
        match (first, &mut self.disk) {
            (Some(Kept::Memory(bundle)), _) => {
                self.in_memory -= 1;
                Ok(Some(bundle))
            }
            (Some(Kept::Disk { inference, bytes }), Some(disk)) => {
                disk.take(&self.plan, inference, bytes).map(Some)
            }
            (Some(Kept::Disk { .. }), None) => unreachable!("what is on disk was put there"),
            (None, _) => Ok(None),
        }
    }
}

/// Nobody can use what is left.
impl<R: Ring> Drop for Bounded<R> {
    fn drop(&mut self) {
        let Some(disk) = &self.disk else { return };
        for kept in &self.kept {
            if let Kept::Disk { inference, .. } = kept {
                // The next process in this folder tries again.
                let _ = fs::remove_file(disk.path(*inference));
            }
        }
    }
}

/// Why the folder of a preprocessing store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read or written, or is another process's.
    #[error("the preprocessing store cannot be in {} (`store.folder`): {source}", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The session was run before.
    #[error(
        "session {session} was run before with the preprocessing store in {} (`store.folder`); give every run a session of its own, at all parties",
        folder.display()
    )]
    SessionUsed {
        /// The session.
        session: SessionId,
        /// The folder that has a note of it.
        folder: PathBuf,
    },
    /// There is no key to seal with.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl FolderError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Unusable { .. } | Self::SessionUsed { .. } => Reason::BadInput,
            Self::NoRandomness(_) => Reason::Internal,
        }
    }
}

/// The part of a preprocessing store that is on disk: a folder of files, one for each bundle, that
/// belongs to one process at a time.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    session: SessionId,
    /// The keys of bundles to come, and of those that are kept: an earlier bundle, of which the
    /// disk may still hold the blocks, cannot be opened any more.
    sealing: Ratchet,
    opening: Ratchet,
    /// Most bytes of all files.
    limit: u64,
    /// Bytes of all files, each in whole blocks.
    taken: usize,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Disk {
    /// Takes the folder of `settings` into use and removes what an earlier process left in
    /// it; nothing if nothing is to be kept on disk.
    pub(crate) fn open(settings: &Store, session: SessionId) -> Result<Option<Self>, FolderError> {
        let Some(folder) = settings.folder.clone().filter(|_| settings.disk_megabytes > 0) else {
            return Ok(None);
        };
        let refuse = |source| FolderError::Unusable { folder: folder.clone(), source };
        let lock = lock(&folder).map_err(refuse)?;
        remember(&folder, session)?;
        remove_leftovers(&folder).map_err(refuse)?;
        let limit = settings.disk_megabytes << 20;
        let key = Seed::fresh()?;
        let (sealing, opening) = (Ratchet::new(&key), Ratchet::new(&key));
        drop(key);
        let disk = Self {
            folder: folder.clone(),
            session,
            sealing,
            opening,
            limit,
            taken: 0,
            _lock: lock,
        };
        let probe = disk.path(0);
        create_private(&probe).and_then(|_| fs::remove_file(&probe)).map_err(refuse)?;
        Ok(Some(disk))
    }

    /// Keeps a bundle and returns the bytes of its file, or nothing if there is no room.
    fn keep<R: Ring>(&mut self, bundle: Bundle<R>) -> Result<Option<usize>, StoreError> {
        let inference = bundle.inference();
        let key = self.sealing.key(inference).ok_or_else(|| unordered(inference))?;
        let sealed = bundle.seal(key);
        let bytes = sealed.len();
        if (self.taken + bytes.next_multiple_of(BLOCK)) as u64 > self.limit {
            return Ok(None);
        }
        let path = self.path(inference);
        let written = create_private(&path).and_then(|mut file| file.write_all(&sealed));
        if let Err(error) = written {
            // What there is of it is of no use, and the first error says more.
            let _ = fs::remove_file(&path);
            return Err(self.failed("write", inference, &error));
        }
        self.taken += bytes.next_multiple_of(BLOCK);
        Ok(Some(bytes))
    }

    /// The bundle of an inference, whose file has so many bytes and is gone afterwards.
    fn take<R: Ring>(
        &mut self,
        plan: &Plan,
        inference: u64,
        bytes: usize,
    ) -> Result<Bundle<R>, StoreError> {
        let path = self.path(inference);
        let mut sealed = Vec::with_capacity(bytes + 1);
        // No more is read than was written, whoever wrote to it since.
        let read =
            File::open(&path).and_then(|file| file.take(bytes as u64 + 1).read_to_end(&mut sealed));
        read.map_err(|error| self.failed("read", inference, &error))?;
        fs::remove_file(&path).map_err(|error| self.failed("remove", inference, &error))?;
        self.taken -= bytes.next_multiple_of(BLOCK);
        let key = self.opening.key(inference).ok_or_else(|| unordered(inference))?;
        Bundle::open(plan, inference, &sealed, key).map_err(|error| {
            StoreError(format!("{} in `store.folder`: {error}", self.name(inference)))
        })
    }

    fn name(&self, inference: u64) -> String {
        format!("{PREFIX}{}-{inference}{SUFFIX}", self.session)
    }

    fn path(&self, inference: u64) -> PathBuf {
        self.folder.join(self.name(inference))
    }

    /// Peers are told too, so it does not say where the folder is.
    fn failed(&self, action: &str, inference: u64, error: &io::Error) -> StoreError {
        StoreError(format!("cannot {action} {} in `store.folder`: {error}", self.name(inference)))
    }
}

/// The store is first in, first out.
fn unordered(inference: u64) -> StoreError {
    StoreError(format!("inference {inference} is asked for after a later one"))
}

const PREFIX: &str = "store-";
const SUFFIX: &str = ".sealed";

/// Whether a file is called as those of a store: `store-SESSION-INFERENCE.sealed`.
fn is_ours(name: &str) -> bool {
    let inner = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    let Some((session, inference)) = inner.and_then(|inner| inner.split_once('-')) else {
        return false;
    };
    let digits = |text: &str, allowed: fn(&u8) -> bool| text.as_bytes().iter().all(allowed);
    session.len() == 32
        && digits(session, u8::is_ascii_hexdigit)
        && !inference.is_empty()
        && digits(inference, u8::is_ascii_digit)
}

/// Makes sure that no other process has its store there, or removes ours.
fn lock(folder: &Path) -> io::Result<File> {
    let lock = File::open(folder)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(
            "another process has its store there; give each server a folder of its own",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Makes sure that no session is run twice with the folder: what this party sent in the first
/// try is out, and the peers of that try may be those of this one.
fn remember(folder: &Path, session: SessionId) -> Result<(), FolderError> {
    let note = create_private(&folder.join(format!("session-{session}.used")));
    let kept = match note {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(FolderError::SessionUsed { session, folder: folder.into() });
        }
        // On disk before the first message of the session is sent.
        note => note.and_then(|note| note.sync_all()).and_then(|()| File::open(folder)?.sync_all()),
    };
    kept.map_err(|source| FolderError::Unusable { folder: folder.into(), source })
}

fn remove_leftovers(folder: &Path) -> io::Result<()> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_ours) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(removed, "removed what an earlier process left in `store.folder`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::channel::{MemoryChannel, Name, Role, memory_pair};
    use spdz::graph::{GraphBuilder, Tensors};
    use spdz::plan::{NumberFormat, Truncation};
    use spdz::ring::{Int64, Side};
    use spdz::role::{Player, Producer, Server, ServerLinks, Store as _};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    const SESSION: SessionId = SessionId([7; 16]);

    /// Squares of so many numbers of alice's: two words of randomness each.
    fn plan(numbers: usize) -> Arc<Plan> {
        let g = GraphBuilder::new(["alice"]);
        let x = g.private_input("alice", [numbers]);
        g.private_output("alice", g.square(x));
        let graph = g.build().unwrap();
        Arc::new(Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap())
    }

    /// Takes everything and gives nothing back.
    struct Keeps<'a>(&'a mut Vec<Bundle<Int64>>);

    impl role::Store<Int64> for Keeps<'_> {
        fn put(&mut self, bundle: Bundle<Int64>) -> Result<(), StoreError> {
            self.0.push(bundle);
            Ok(())
        }

        fn take(&mut self) -> Result<Option<Bundle<Int64>>, StoreError> {
            Ok(None)
        }
    }

    /// What server 0 prepares for so many evaluations in a session of all roles.
    fn bundles(plan: &Arc<Plan>, count: usize) -> Vec<Bundle<Int64>> {
        let alice: Name = "alice".parse().unwrap();
        let pair = |x, y| memory_pair(x, y, Duration::from_secs(10));
        let (s0_s1, s1_s0) = pair(Role::Server0, Role::Server1);
        let (s0_p, p_s0) = pair(Role::Server0, Role::Producer);
        let (s1_p, p_s1) = pair(Role::Server1, Role::Producer);
        let (s0_a, a_s0) = pair(Role::Server0, Role::Player(alice));
        let (s1_a, a_s1) = pair(Role::Server1, Role::Player(alice));
        let serve = |side, other, producer, player| {
            let links = ServerLinks { other, producer, players: vec![(alice, player)] };
            let key = Seed::from_bytes([1; 32]);
            let nobody: &mut [(Name, MemoryChannel)] = &mut [];
            let set_up =
                Server::<Int64, _>::set_up(plan.clone(), SESSION, side, key, links, nobody);
            let mut kept = Vec::new();
            set_up.unwrap().serve(&mut Keeps(&mut kept)).unwrap();
            kept
        };
        std::thread::scope(|scope| {
            let server0 = scope.spawn(move || serve(Side::Zero, s0_s1, s0_p, s0_a));
            scope.spawn(move || serve(Side::One, s1_s0, s1_p, s1_a));
            scope.spawn(|| {
                let root = Seed::from_bytes([2; 32]);
                let servers = [p_s0, p_s1];
                let set_up = Producer::<Int64, _>::set_up(plan.clone(), SESSION, root, servers);
                set_up.unwrap().serve().unwrap();
            });
            let nothing = Tensors::new();
            let servers = [a_s0, a_s1];
            let set_up = Player::<Int64, _>::set_up(plan.clone(), alice, &nothing, servers);
            let mut player = set_up.unwrap();
            (0..count).for_each(|_| drop(player.prepare().unwrap()));
            player.finish().unwrap();
            server0.join().unwrap()
        })
    }

    fn settings(memory: u64, disk: u64, folder: &Path) -> Store {
        Store { memory_megabytes: memory, disk_megabytes: disk, folder: Some(folder.into()) }
    }

    fn store(settings: &Store, plan: &Arc<Plan>) -> Bounded<Int64> {
        let disk = Disk::open(settings, SESSION).unwrap();
        Bounded::new(settings.clone(), disk, plan.clone(), Arc::default())
    }

    /// Without the notes of sessions.
    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("session-"));
        names.sort();
        names
    }

    fn name(inference: u64) -> String {
        format!("store-{}-{inference}.sealed", "07".repeat(16))
    }

    /// A graph of so many squares of one number of alice's.
    fn small_steps(count: usize) -> Arc<Plan> {
        let g = GraphBuilder::named("small", ["alice"]);
        let x = g.share(g.local_input("alice", "x", [1]));
        let squares: Vec<_> = (0..count).map(|_| g.square(x)).collect();
        for (number, square) in squares.into_iter().enumerate() {
            g.output(&format!("y{number}"), g.reveal("alice", square));
        }
        let graph = g.build().unwrap();
        Arc::new(Plan::compile(&graph, NumberFormat::Int64, Truncation::Interactive).unwrap())
    }

    #[test]
    fn many_small_steps_are_charged_for_what_holds_them() {
        let plan = small_steps(4000);
        let folder = tempfile::tempdir().unwrap();
        let mut store = store(&settings(4, 0, folder.path()), &plan);
        let mut kept = 0;
        let refused = bundles(&plan, 12).into_iter().find_map(|bundle| {
            let refused = store.put(bundle).err();
            kept += usize::from(refused.is_none());
            refused
        });
        assert!(refused.unwrap().to_string().contains("let the servers keep more"));
        // Its numbers alone would have had room for many times as many.
        assert_eq!(kept, (4 << 20) / plan.bundle_memory());
        assert!(plan.bundle_memory() > 5 * plan.bundle_bytes(), "{}", plan.bundle_memory());
    }

    #[test]
    fn the_first_in_is_the_first_out_across_memory_and_disk() {
        let folder = tempfile::tempdir().unwrap();
        // Two fit into a megabyte, with some to spare.
        let plan = plan(30_000);
        assert!((350 << 10..512 << 10).contains(&plan.bundle_bytes()));
        let mut store = store(&settings(1, 2, folder.path()), &plan);
        let (mut made, mut taken) = (bundles(&plan, 7).into_iter(), 0);
        let mut put = |store: &mut Bounded<Int64>, count| {
            made.by_ref().take(count).for_each(|bundle| store.put(bundle).unwrap());
        };
        let mut take = |store: &mut Bounded<Int64>| {
            let bundle = store.take().unwrap().unwrap();
            assert_eq!((bundle.inference(), bundle.bytes()), (taken, plan.bundle_bytes()));
            taken += 1;
        };
        put(&mut store, 4);
        assert_eq!(files(folder.path()), [name(2), name(3)]);
        let file = fs::metadata(folder.path().join(name(2))).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        take(&mut store);
        // Memory has room again: the last in is there, those before it on disk.
        put(&mut store, 1);
        take(&mut store);
        take(&mut store);
        assert_eq!(files(folder.path()), [name(3)], "a file is gone once it is used");
        put(&mut store, 2);
        assert_eq!(files(folder.path()), [name(3), name(6)]);
        (0..4).for_each(|_| take(&mut store));
        assert!(store.take().unwrap().is_none());
        assert_eq!(files(folder.path()), [] as [String; 0]);
        assert_eq!(store.disk.as_ref().unwrap().taken, 0);
    }

    #[test]
    fn what_fits_nowhere_is_refused_with_the_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(30_000);
        let mut store = store(&settings(1, 1, folder.path()), &plan);
        let mut made = bundles(&plan, 5).into_iter();
        made.by_ref().take(4).for_each(|bundle| store.put(bundle).unwrap());
        let error = store.put(made.next().unwrap()).unwrap_err().to_string();
        for part in [
            "4 prepared evaluations take 0.92 MB of memory and 0.92 MB of disk, and one more 0.46 MB",
            "the 1 MB of `store.memoryMegabytes` and the 1 MB of `store.diskMegabytes`",
        ] {
            assert!(error.contains(part), "{error}");
        }
        drop(store);
        assert_eq!(files(folder.path()), [] as [String; 0], "it leaves nothing behind");
    }

    #[test]
    fn one_larger_than_the_memory_is_kept_there_and_the_next_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(100_000);
        let mut store = store(&settings(1, 3, folder.path()), &plan);
        bundles(&plan, 2).into_iter().for_each(|bundle| store.put(bundle).unwrap());
        assert_eq!(files(folder.path()), [name(1)]);
        assert_eq!(store.take().unwrap().unwrap().inference(), 0);
        assert_eq!(store.take().unwrap().unwrap().inference(), 1);
    }

    #[test]
    fn a_file_that_was_changed_cut_or_removed_is_refused_by_name() {
        let plan = plan(100_000);
        type Harm = fn(&Path);
        let cases: [(Harm, &str); 4] = [
            (
                |path| {
                    let mut bytes = fs::read(path).unwrap();
                    bytes[1000] ^= 1;
                    fs::write(path, bytes).unwrap();
                },
                "in `store.folder`: the sealed randomness of inference 1 was changed or cut",
            ),
            (|path| fs::write(path, [0; 100]).unwrap(), "was changed or cut"),
            (
                |path| {
                    let mut bytes = fs::read(path).unwrap();
                    bytes.push(0);
                    fs::write(path, bytes).unwrap();
                },
                "was changed or cut",
            ),
            (|path| fs::remove_file(path).unwrap(), "cannot read store-"),
        ];
        for (harm, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let mut store = store(&settings(1, 9, folder.path()), &plan);
            bundles(&plan, 2).into_iter().for_each(|bundle| store.put(bundle).unwrap());
            harm(&folder.path().join(name(1)));
            assert!(store.take().is_ok());
            let error = store.take().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&name(1)), "{error}");
            assert!(!error.contains(folder.path().to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_folder_is_one_process_s_at_a_time_and_leftovers_go() {
        let folder = tempfile::tempdir().unwrap();
        let other = format!("store-{}-12.sealed", "0f".repeat(16));
        let foreign = ["notes.txt", "store-12.sealed", "store-x-1.sealed"];
        for name in foreign.iter().copied().chain([other.as_str()]) {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let settings = settings(1, 1, folder.path());
        let disk = Disk::open(&settings, SESSION).unwrap();
        assert_eq!(files(folder.path()), foreign);
        let error = Disk::open(&settings, SESSION).unwrap_err().to_string();
        assert!(error.contains("a folder of its own"), "{error}");
        drop(disk);
        let error = Disk::open(&settings, SESSION).unwrap_err();
        assert_eq!(error.reason(), Reason::BadInput);
        assert!(error.to_string().contains("session 0707070707070707"), "{error}");
        assert!(error.to_string().contains("was run before"), "{error}");
        // One who did not run to the end was run too, and another session is none of them.
        let other = SessionId([8; 16]);
        assert!(Disk::open(&settings, other).is_ok());
        assert!(Disk::open(&settings, other).is_err());

        let missing = Store { folder: Some(folder.path().join("no")), ..settings };
        let error = Disk::open(&missing, SESSION).unwrap_err();
        assert_eq!(error.reason(), Reason::BadInput);
        assert!(error.to_string().contains("/no"), "{error}");
        assert!(Disk::open(&Store::default(), SESSION).unwrap().is_none());
    }
}
