//! Five processes that compute something whose result is known, and how each of them ended.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench::launch::local::{self, Job};
use party::config::{
    Computation, Deadlines, OfflineMode, PartyConfig, PlayerTask, Store, Transport,
};
use party::termination::{self, Termination};
use rustix::process::{Pid, Signal, kill_process};
use safetensors::Dtype;
use spdz::channel::{Name, Role};
use spdz::graph::{Graph, GraphBuilder};
use spdz::plan::NumberFormat;
use tempfile::TempDir;

use crate::common::{party_program, read_tensor, wave, write_tensors};
use crate::relay::{Relay, Rule};

/// For the parties to find each other, seconds.
pub(crate) const CONNECT: f64 = 8.0;

/// For any one message, seconds.
pub(crate) const MESSAGE: f64 = 2.0;

/// After a fault, everybody has ended by then: with its deadline, the moment for which it then
/// listens for the name of whoever is to blame, and what a busy machine takes.
const END: Duration = Duration::from_secs(12);

/// Numbers in each tensor: the randomness of one evaluation fills more than half of the memory
/// that the store has, so that of the second is on disk.
const NUMBERS: usize = 20_000;

/// How often the graph is evaluated, with the randomness of all made ahead.
const EVALUATIONS: usize = 2;

/// Units in the last place by which a result may be off, after two truncations.
const TOLERANCE: f64 = 5e-3;

/// Sessions so far.
static SESSIONS: AtomicU16 = AtomicU16::new(1);

/// The players: alice commands and learns, bob has something for the session and something for
/// each evaluation.
pub(crate) fn all_roles() -> [Role; 5] {
    let player = |name: &str| Role::Player(name.parse().unwrap());
    [Role::Server0, Role::Server1, Role::Producer, player("alice"), player("bob")]
}

/// `square(x w + y)`.
fn graph() -> Graph {
    let g = GraphBuilder::named("faults", ["alice", "bob"]);
    let x = g.share(g.local_input("alice", "x", [NUMBERS]));
    let w = g.private_variable("bob", "w", [NUMBERS]);
    let y = g.share(g.local_input("bob", "y", [NUMBERS]));
    let z = g.reveal("alice", g.square(g.add(g.mul(x, w), y)));
    g.output("z", z);
    g.build().unwrap()
}

/// What is to be computed, in a folder that several sessions use after each other.
pub(crate) struct Scene {
    folder: TempDir,
    job: Job,
    values: [Vec<f64>; 3],
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let values = [
            wave(EVALUATIONS * NUMBERS, 0.7),
            wave(NUMBERS, 1.1),
            wave(EVALUATIONS * NUMBERS, 0.3),
        ];
        let file = |name: &str| folder.path().join(name);
        let each = vec![EVALUATIONS, NUMBERS];
        write_tensors(&file("alice.in"), &[("x", Dtype::F64, each.clone(), &values[0])]);
        let w = ("w", Dtype::F64, vec![NUMBERS], &values[1][..]);
        write_tensors(&file("bob.in"), &[w, ("y", Dtype::F64, each, &values[2])]);
        let alice = PlayerTask {
            inputs: Some(file("alice.in")),
            outputs: Some(file("alice.out")),
            evaluations: Some(EVALUATIONS as u64),
            offline: Some(OfflineMode::Ahead),
            ..PlayerTask::default()
        };
        let bob = PlayerTask { inputs: Some(file("bob.in")), ..PlayerTask::default() };
        let players = [("alice", alice), ("bob", bob)];
        let job = Job {
            computation: Computation::of_graph(graph(), NumberFormat::Int64),
            players: players.map(|(name, task)| (name.parse::<Name>().unwrap(), task)).into(),
            workload: None,
            store: Store { memory_megabytes: 1, disk_megabytes: 4, folder: None },
            threads: Some(1),
            deadlines: Deadlines { connect_seconds: CONNECT, message_seconds: MESSAGE },
            // A message is one frame.
            transport: Transport { chunk_bytes: 4 << 20, ..Transport::default() },
        };
        Self { folder, job, values }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Configurations of a new session.
    pub(crate) fn configure(&self) -> anyhow::Result<Vec<PartyConfig>> {
        let _ = fs::remove_file(self.path().join("alice.out"));
        let mut configs = local::configure(&self.job, self.path())?;
        // Ports that are free now may be another session's when the servers start; an address of
        // the session's own is not.
        let [high, low] = SESSIONS.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for config in &mut configs {
            if let Some(listen) = &mut config.listen {
                listen.set_ip(Ipv4Addr::new(127, 77, high, low).into());
            }
        }
        Ok(configs)
    }

    /// Runs a new session through a relay with this rule.
    pub(crate) fn start(&self, rule: impl Rule + 'static) -> anyhow::Result<Parties> {
        self.start_with(Processes::default(), rule)
    }

    /// As [`start`](Self::start), with processes that the rule knows.
    pub(crate) fn start_with(
        &self,
        processes: Processes,
        rule: impl Rule + 'static,
    ) -> anyhow::Result<Parties> {
        self.run(self.configure()?, processes, rule, |_| party_program())
    }

    /// As [`start_with`](Self::start_with), with a program for each role.
    pub(crate) fn run(
        &self,
        mut configs: Vec<PartyConfig>,
        processes: Processes,
        rule: impl Rule + 'static,
        program: impl Fn(Role) -> PathBuf,
    ) -> anyhow::Result<Parties> {
        let relay = Relay::start(&mut configs, rule);
        let mut running = Vec::new();
        let mut ids = BTreeMap::new();
        for config in configs {
            let role = config.role;
            let mut party = local::start(&[config], self.path(), &program(role))?;
            let child = party.process(role).context("there is no process")?;
            ids.insert(role, Pid::from_child(child));
            running.push((role, party));
        }
        ensure!(processes.0.set(ids).is_ok(), "expected these processes to be new");
        Ok(Parties { running, processes, _relay: relay, folder: self.path().into() })
    }

    /// A program that does something and then is a party.
    pub(crate) fn party_after(&self, line: &str) -> anyhow::Result<PathBuf> {
        let script = self.path().join("party");
        let party = party_program();
        fs::write(&script, format!("#!/bin/sh\n{line}\nexec {} \"$@\"\n", party.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(script)
    }

    /// Whether alice has learnt what she should.
    fn is_right(&self) -> anyhow::Result<()> {
        let (shape, found) = read_tensor(&self.path().join("alice.out"), "z");
        ensure!(shape == [EVALUATIONS, NUMBERS], "alice learnt {shape:?}");
        let [x, w, y] = &self.values;
        for (index, found) in found.iter().enumerate() {
            let expected = (x[index] * w[index % NUMBERS] + y[index]).powi(2);
            ensure!(
                (found - expected).abs() < TOLERANCE,
                "alice learnt {found} at {index}, expected {expected}"
            );
        }
        Ok(())
    }

    /// Sealed bundles that are on disk.
    pub(crate) fn sealed(&self) -> usize {
        let in_folder = |server| {
            let entries = fs::read_dir(self.path().join(format!("store_of_{server}")));
            let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().ends_with(".sealed")).count()
        };
        in_folder("server0") + in_folder("server1")
    }

    /// Checks how a session ended in which something was done to `victim`, or to the
    /// connections if there is none. Whoever was not the victim has a result that is right, or
    /// an error that names a peer, and the errors lead to the victim.
    pub(crate) fn judge(&self, ended: &Ended, victim: Option<Role>) -> anyhow::Result<Outcome> {
        let check = || {
            let mut failed = Vec::new();
            for (role, end) in ended.iter().filter(|(role, _)| Some(**role) != victim) {
                match end {
                    End::Hung => bail!("{role} had not ended after {} s", END.as_secs()),
                    End::Signal(status) => bail!("{role} ended with {status}"),
                    End::Code(0, None) => {}
                    End::Code(code, Some(failure)) => {
                        ensure!(
                            i32::from(failure.reason.exit_code()) == *code,
                            "{role} ended with {code}, and says {failure:?}"
                        );
                        ensure!(!failure.message.is_empty(), "{role} does not say why it failed");
                        failed.push(failure);
                    }
                    End::Code(code, None) => bail!("{role} ended with {code} and says nothing"),
                }
            }
            let [.., alice, _] = all_roles();
            let done = matches!(ended[&alice], End::Code(0, _));
            if done {
                self.is_right()?;
            }
            if let Some(victim) = victim
                && !failed.is_empty()
            {
                let named = failed.iter().any(|failure| failure.peer == Some(victim));
                ensure!(named, "nobody names {victim}");
            }
            Ok(match (done, failed.first()) {
                (true, _) => Outcome::Right,
                (false, Some(_)) => Outcome::Named,
                (false, None) if victim == Some(alice) => Outcome::Named,
                (false, None) => bail!("nobody failed, and alice learnt nothing"),
            })
        };
        check().with_context(|| self.describe(ended))
    }

    /// Checks that a session ended as it should with nothing in its way.
    pub(crate) fn judge_undisturbed(&self, ended: &Ended) -> anyhow::Result<()> {
        self.judge(ended, None)?;
        let all_well = ended.values().all(|end| matches!(end, End::Code(0, None)));
        ensure!(all_well, "expected no party to fail: {}", self.describe(ended));
        let left = self.sealed();
        ensure!(left == 0, "expected no sealed bundle to be left, found {left}");
        Ok(())
    }

    /// How the parties ended, and the ends of their logs.
    pub(crate) fn describe(&self, ended: &Ended) -> String {
        let log = |role: &Role| {
            let path = self.path().join(format!("{role}.log"));
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
            format!("{role}:\n  {last}\n")
        };
        let logs: String = all_roles().iter().map(log).collect();
        format!("{ended:#?}\n{logs}")
    }
}

/// How a session in which something happened ended for who learns the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The result is there, and is right.
    Right,
    /// There is none, and whoever is left says why.
    Named,
}

/// The processes of a session, as soon as all are there.
#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<OnceLock<BTreeMap<Role, Pid>>>);

impl Processes {
    /// Sends a signal; waits until there are processes.
    pub(crate) fn signal(&self, role: Role, signal: Signal) {
        // One that has ended, but was not waited for, takes it too.
        let _ = kill_process(self.0.wait()[&role], signal);
    }
}

/// How a party ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Code(i32, Option<termination::Failure>),
    Signal(ExitStatus),
    Hung,
}

pub(crate) type Ended = BTreeMap<Role, End>;

/// Parties that run; those that are left when it is dropped are ended.
pub(crate) struct Parties {
    running: Vec<(Role, local::Running)>,
    processes: Processes,
    _relay: Relay,
    folder: PathBuf,
}

impl Parties {
    pub(crate) fn signal(&self, role: Role, signal: Signal) {
        self.processes.signal(role, signal);
    }

    /// Waits until all have ended, those of `but` aside.
    pub(crate) fn wait(&mut self, but: &[Role]) -> anyhow::Result<Ended> {
        let until = Instant::now() + Duration::from_secs_f64(CONNECT) + END;
        let mut ended = Ended::new();
        for (role, running) in &mut self.running {
            if but.contains(role) {
                continue;
            }
            let child = running.process(*role).context("there is no process")?;
            let end = loop {
                if let Some(status) = child.try_wait()? {
                    let path = local::termination_path(&self.folder, *role);
                    let said = Termination::parse(&fs::read_to_string(path)?).ok();
                    break match status.code() {
                        Some(code) => End::Code(code, said.and_then(|said| said.failure)),
                        None => End::Signal(status),
                    };
                }
                if Instant::now() > until {
                    break End::Hung;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            ended.insert(*role, end);
        }
        Ok(ended)
    }
}
