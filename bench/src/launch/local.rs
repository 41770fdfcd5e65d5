//! The parties of a run as processes on this machine, over loopback.
//!
//! The same program, the same configuration files and the same mutual TLS as
//! anywhere else. The folder of a run holds its certificates, configurations and
//! logs; whoever made the folder removes it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use party::cli::{INSTRUCTION_SET_VARIABLE, PARENT_VARIABLE};
use party::config::{
    Computation, ConfigError, Deadlines, Identity, MAX_CONFIG_BYTES, PartyConfig, PlayerTask,
    Session, Store, Transport, Workload,
};
use party::console::VERBOSE_LOGS;
use party::identity::{self, IdentityError};
use party::run::Progress;
use party::termination::{Reason, TERMINATION_VARIABLE, Termination, ended_by_signal};
use spdz::channel::{Name, Role};
use spdz::prg::{NoRandomness, SessionId};
use spdz::protocol::{Protocol, Spdz};
use spdz::ring::kernels::InstructionSet;

use super::{MULTIPLYING, threads};
use crate::console;

/// After one party failed, how long the others get to say what they saw.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Between two looks at the processes.
const POLL: Duration = Duration::from_millis(5);

/// Why a local run failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file could not be written, or a process not started.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What is to be computed is not in order.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A configuration could not be written as YAML.
    #[error("cannot write a configuration: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// A configuration is larger than what a party reads.
    #[error(
        "the configuration of a party would have {found} bytes, at most {MAX_CONFIG_BYTES} are \
         read; make large tensors inputs of a player instead of constants of the graph"
    )]
    Size {
        /// Its size.
        found: usize,
    },
    /// Parties failed: the causes first, and then who followed them.
    #[error("{}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Failed {
        /// Each failed party.
        failures: Vec<Failure>,
    },
    /// The user interrupted the run.
    #[error("interrupted")]
    Interrupted,
}

/// How a party failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The party.
    pub role: Role,
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Why, in its own words; of a process that was killed, by which signal.
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (exit code {code}): {}", self.role, self.message),
            None => write!(f, "{}: {}", self.role, self.message),
        }
    }
}

/// What the parties of a run are to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// What they compute.
    pub computation: Computation,
    /// The inputs, outputs and task of each player.
    pub players: BTreeMap<Name, PlayerTask>,
    /// What the client of a network does instead.
    pub workload: Option<Workload>,
    /// How much prepared randomness may wait at the servers. On disk it is in the run's
    /// folder.
    pub store: Store,
    /// How many threads each server and the producer divide large products among; without
    /// it a third each of the cores of this machine.
    pub threads: Option<usize>,
    /// How long they wait for each other.
    pub deadlines: Deadlines,
    /// How they wait and send.
    pub transport: Transport,
}

/// The name under which a party program is started, and under which `bench` is one.
pub const PARTY: &str = "party";

/// Starts a party program. `bench` is one too when it is called so: to build and link one
/// program is enough for a sweep, and it cannot be older than what measures it.
pub(super) fn party_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg0(PARTY);
    command
}

/// The configurations of `job`, one for each role of its plan, with a fresh session,
/// fresh certificates in `folder` and two free ports.
///
/// # Errors
/// If there is no plan, certificates cannot be made or written, or there is no free port.
pub fn configure(job: &Job, folder: &Path) -> Result<Vec<PartyConfig>, LaunchError> {
    let session = SessionId::fresh()?;
    let issued = identity::issue(session, &Spdz::roles(job.computation.plan()?.graph().players()))?;
    // No player has an underscore in its name.
    let authority = folder.join("session_authority.crt");
    write(&authority, issued.authority.as_bytes())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = job.threads.unwrap_or(threads(cores, MULTIPLYING));
    let ports = free_ports(folder)?;
    let address = |role: Role| {
        SocketAddr::from((Ipv4Addr::LOCALHOST, ports[usize::from(role == Role::Server1)]))
    };
    issued
        .parties
        .iter()
        .map(|(role, issued)| {
            let role = *role;
            let certificate = folder.join(format!("{role}.crt"));
            let key = folder.join(format!("{role}.key"));
            write(&certificate, issued.certificate.as_bytes())?;
            write(&key, issued.key.as_bytes())?;
            // A usual one is not written, so that parties of another version, which may name it
            // otherwise, read the same configuration.
            let unusual = role.is_server() && job.store != Store::default();
            let store = unusual.then(|| store(job, folder, role)).transpose()?;
            Ok(PartyConfig {
                role,
                session: Session(session),
                computation: job.computation.clone(),
                identity: Identity { certificate, key, authority: authority.clone() },
                listen: role.is_server().then(|| address(role)),
                peers: Spdz::dials(role)
                    .iter()
                    .map(|peer| (*peer, address(*peer).to_string()))
                    .collect(),
                deadlines: job.deadlines,
                transport: job.transport,
                store,
                threads: (!matches!(role, Role::Player(_))).then_some(threads),
                player: match role {
                    Role::Player(name) => job.players.get(&name).cloned(),
                    _ => None,
                },
                workload: job.workload.clone().filter(|_| role == Role::CLIENT),
                // The environment, which parties inherit, may say where traces go.
                telemetry: None,
            })
        })
        .collect()
}

/// A server's preprocessing store, with a folder of its own if some of it is on disk.
fn store(job: &Job, folder: &Path, role: Role) -> Result<Store, LaunchError> {
    if job.store.disk_megabytes == 0 {
        return Ok(job.store.clone());
    }
    let folder = folder.join(format!("store_of_{role}"));
    fs::create_dir_all(&folder).map_err(|source| LaunchError::Io {
        action: "make",
        path: folder.clone(),
        source,
    })?;
    Ok(Store { folder: Some(folder), ..job.store.clone() })
}

/// Two ports that are free now. Another program may still take one before the
/// servers do; they then say so.
fn free_ports(folder: &Path) -> Result<[u16; 2], LaunchError> {
    let refuse =
        |source| LaunchError::Io { action: "find a free port for", path: folder.into(), source };
    // Both are held at once, so that they differ.
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(refuse);
    let listeners = [listen()?, listen()?];
    let port = |listener: &TcpListener| listener.local_addr().map(|a| a.port()).map_err(refuse);
    Ok([port(&listeners[0])?, port(&listeners[1])?])
}

/// Writes a file that only this user can read: some hold private keys.
fn write(path: &Path, bytes: &[u8]) -> Result<(), LaunchError> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(|source| LaunchError::Io { action: "write", path: path.into(), source })
}

/// Parties that have been started; those still running when it is dropped are ended.
pub struct Running {
    parties: Vec<(Role, Child)>,
    folder: PathBuf,
    /// The files of their private keys, until all have read them.
    keys: Vec<PathBuf>,
    progress: mpsc::Receiver<Progress>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for (_, child) in &mut self.parties {
            // It may have ended by itself in the meantime.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Writes the configurations into `folder` and starts a process of `program` for each.
///
/// # Errors
/// If a file cannot be written or a process not started.
pub fn start(
    configs: &[PartyConfig],
    folder: &Path,
    program: &Path,
) -> Result<Running, LaunchError> {
    start_with(configs, folder, program, || party_command(program))
}

/// As [`start`], with a command of `program` that takes the one argument more that names the
/// configuration.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_with(
    configs: &[PartyConfig],
    folder: &Path,
    program: &Path,
    command: impl Fn() -> Command,
) -> Result<Running, LaunchError> {
    let (sender, progress) = mpsc::channel();
    let keys = configs.iter().map(|config| config.identity.key.clone()).collect();
    let mut running = Running { parties: Vec::new(), folder: folder.into(), keys, progress };
    for config in configs {
        let role = config.role;
        let path = folder.join(format!("{role}.yaml"));
        let text = serde_yaml::to_string(config)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(LaunchError::Size { found: text.len() });
        }
        write(&path, text.as_bytes())?;
        let create = |path: PathBuf| {
            File::create(&path).map_err(|source| LaunchError::Io { action: "write", path, source })
        };
        let log = create(log_path(folder, role))?;
        let ending = termination_path(folder, role);
        // What an earlier run left is not this one's.
        create(ending.clone())?;
        let mut command = command();
        if console::is_verbose() && std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", VERBOSE_LOGS);
        }
        let mut child = command
            .arg("--config")
            .arg(&path)
            .env(TERMINATION_VARIABLE, &ending)
            .env(INSTRUCTION_SET_VARIABLE, InstructionSet::detect().to_string())
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::null())
            // The coordinator reports how far it is; the others say nothing.
            .stdout(match role {
                Role::Player(_) => Stdio::piped(),
                _ => Stdio::null(),
            })
            .stderr(log)
            .spawn()
            .map_err(|source| LaunchError::Io { action: "start", path: program.into(), source })?;
        if let Some(output) = child.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if let Ok(progress) = serde_json::from_str(&line)
                        && sender.send(progress).is_err()
                    {
                        return;
                    }
                }
            });
        }
        running.parties.push((role, child));
    }
    Ok(running)
}

/// Where a party leaves how its run ended.
#[must_use]
pub fn termination_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}.end.json"))
}

fn log_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(format!("{role}.log"))
}

impl Running {
    /// The process of a party.
    pub fn process(&mut self, role: Role) -> Option<&mut Child> {
        self.parties.iter_mut().find(|(party, _)| *party == role).map(|(_, child)| child)
    }

    /// The parties are connected, so they have read their keys. Without them nothing secret is
    /// left in the folder, however this process ends.
    fn remove_keys(&mut self) {
        for key in self.keys.drain(..) {
            // The whole folder goes later.
            let _ = fs::remove_file(key);
        }
    }

    /// Waits until the coordinator has reported its first evaluation.
    ///
    /// # Errors
    /// If a party failed before, or on interruption.
    pub fn wait_for_progress(&mut self, interrupted: &AtomicBool) -> Result<(), LaunchError> {
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(LaunchError::Interrupted);
            }
            match self.progress.recv_timeout(POLL) {
                Ok(_) => {
                    self.remove_keys();
                    return Ok(());
                }
                // The players' output has ended, so they have: how is for `wait` to say.
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return self.wait(interrupted, |_| {});
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// What the parties have logged, each line after the party's name.
    fn show_logs(&self) {
        for (role, _) in &self.parties {
            let log = fs::read(log_path(&self.folder, *role)).unwrap_or_default();
            for line in String::from_utf8_lossy(&log).lines() {
                // Nobody has to read it.
                let _ = writeln!(std::io::stderr().lock(), "{role}: {line}");
            }
        }
    }

    /// Waits until all parties have ended, and shows what they logged if that is asked for.
    ///
    /// # Errors
    /// If a party failed (the error says which and why), or on interruption.
    pub fn wait(
        &mut self,
        interrupted: &AtomicBool,
        on_progress: impl FnMut(Progress),
    ) -> Result<(), LaunchError> {
        let ended = self.wait_for_end(interrupted, on_progress);
        if console::is_verbose() {
            self.show_logs();
        }
        ended
    }

    /// Waits until all parties have ended. The parties are ended when this is
    /// dropped: on interruption, or when one has failed and the others do not
    /// follow.
    ///
    /// # Errors
    /// If a party failed (the error says which and why), or on interruption.
    fn wait_for_end(
        &mut self,
        interrupted: &AtomicBool,
        mut on_progress: impl FnMut(Progress),
    ) -> Result<(), LaunchError> {
        let mut failures: Vec<Failure> = Vec::new();
        let mut give_up_at: Option<Instant> = None;
        let mut ended = vec![false; self.parties.len()];
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(LaunchError::Interrupted);
            }
            while let Ok(progress) = self.progress.try_recv() {
                self.remove_keys();
                on_progress(progress);
            }
            for (index, (role, child)) in self.parties.iter_mut().enumerate() {
                if ended[index] {
                    continue;
                }
                let status = child.try_wait().map_err(|source| LaunchError::Io {
                    action: "wait for",
                    path: PathBuf::from(role.name()),
                    source,
                })?;
                let Some(status) = status else { continue };
                ended[index] = true;
                if !status.success() {
                    failures.push(failure(&self.folder, *role, status));
                    give_up_at.get_or_insert(Instant::now() + AFTERMATH);
                }
            }
            let late = give_up_at.is_some_and(|at| Instant::now() >= at);
            if late || ended.iter().all(|ended| *ended) {
                if failures.is_empty() {
                    return Ok(());
                }
                causes_first(&mut failures);
                return Err(LaunchError::Failed { failures });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Orders failures as whoever reads them wants to: who failed by itself, who found that the
/// parties do not agree, and last who lost such a peer. Those of a kind stay in the order in
/// which they were seen.
fn causes_first(failures: &mut [Failure]) {
    let follows = |failure: &Failure| match failure.code {
        Some(code) if code == i32::from(Reason::PeerLost.exit_code()) => 2,
        Some(code) if code == i32::from(Reason::Disagreement.exit_code()) => 1,
        _ => 0,
    };
    failures.sort_by_key(follows);
}

fn failure(folder: &Path, role: Role, status: ExitStatus) -> Failure {
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let ended = Termination::parse(&read(termination_path(folder, role))).ok();
    let message = match ended.and_then(|termination| termination.failure) {
        Some(failure) => failure.message,
        None => unexplained(status.signal(), &read(log_path(folder, role))),
    };
    Failure { role, code: status.code(), message }
}

/// What is known of a process that did not say why it ended: the signal that ended it, and the
/// last line of its log that is about its end.
fn unexplained(signal: Option<i32>, log: &str) -> String {
    let last = |is: &dyn Fn(&&str) -> bool| log.lines().rfind(|line| is(line));
    let Some(signal) = signal else {
        let last = last(&|line| !line.is_empty() && !line.starts_with("note: "));
        return last.unwrap_or("it said nothing").into();
    };
    let how = ended_by_signal(signal);
    // The rest of its log is of before.
    match last(&|line| line.starts_with("memory allocation of ")) {
        Some(line) => format!("{how}: {line}"),
        None => how,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_that_was_killed_is_not_explained_by_what_it_logged_before() {
        let log = "{\"level\":\"INFO\",\"message\":\"connected to all peers\"}\n";
        let allocation = "memory allocation of 288000000 bytes failed";
        let panicked = "panicked at x.rs:1\nnote: run with `RUST_BACKTRACE=1`\n\n";
        for (signal, log, expected) in [
            (Some(9), log, "ended by signal 9 (SIGKILL, as when memory runs out)"),
            (Some(64), "", "ended by signal 64"),
            (None, panicked, "panicked at x.rs:1"),
            (None, "", "it said nothing"),
        ] {
            assert_eq!(unexplained(signal, log), expected);
        }
        let aborted = unexplained(Some(6), &format!("{log}{allocation}\n"));
        assert!(aborted.ends_with(allocation) && aborted.contains("SIGABRT"), "{aborted}");
    }

    #[test]
    fn causes_come_before_those_who_followed_them() {
        let failure = |role, code| Failure { role, code, message: String::new() };
        let (server0, server1) = (Role::Server0, Role::Server1);
        let mut failures = [
            failure(server0, Some(4)),
            failure(Role::Producer, Some(4)),
            failure(server1, Some(3)),
            failure(Role::CLIENT, Some(2)),
            failure(Role::MODEL_OWNER, None),
        ];
        causes_first(&mut failures);
        let order = failures.map(|failure| failure.role);
        assert_eq!(order, [Role::CLIENT, Role::MODEL_OWNER, server1, server0, Role::Producer]);
    }
}
