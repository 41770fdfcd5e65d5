//! Very many inferences through one set of processes: what is used up is given back, and what is
//! counted agrees.
//!
//! `make soak` does 100,000; `cargo test` a tenth.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a test program")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench::launch::local::{self, Running};
use bench::stats::median;
use clap::Parser;
use common::{Series, network_job, party_program, scrape, wait_for, watch};
use party::result::RunResult;
use rustix::process::{Pid, Signal, kill_process};
use spdz::channel::Role;
use spdz::plan::NumberFormat;

/// Parties have what they need after so many.
const SETTLED: u64 = 1_000;

/// By how much the memory of a process may grow after that, over the least it has had since.
const GROWTH: f64 = 0.05;

/// How often the parties are looked at.
const LOOKS: u64 = 20;

/// By how much the last inferences may be slower than those of a session that has just begun.
/// The two alternate, so that a slow minute does not land on one.
const DRIFT: f64 = 0.25;

/// How often they do, and with how many inferences each.
const TURNS: usize = 5;
const TURN: u64 = 500;

/// From how many on that is asked: fewer wear nothing out.
const MANY: u64 = 100_000;

/// What is left of the inferences at the last look, at least: some 300 go by between two looks.
const LEFT: u64 = 2_000;

/// Between two looks at how far they are.
const POLL: Duration = Duration::from_millis(100);

/// The same while very many are done: who asks all the time is not what is looked at.
const SELDOM: Duration = Duration::from_secs(1);

/// Nothing takes longer without one more inference.
const PATIENCE: Duration = Duration::from_secs(60);

/// The parties that are there from the first inference to the last: the model owner leaves
/// before.
const LASTING: [Role; 4] = [Role::Server0, Role::Server1, Role::Producer, Role::CLIENT];

/// Very many inferences of network A through one set of processes.
#[derive(Parser)]
#[command(bin_name = "cargo test -p bench --test soak --")]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(5_000..=1_000_000))]
    inferences: u64,
}

fn main() -> ExitCode {
    let Arguments { inferences } = Arguments::parse();
    match soak(inferences) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One look at the parties.
struct Look {
    completed: f64,
    /// Of all inferences so far together, at server 0.
    seconds: f64,
    /// Resident, bytes.
    memory: BTreeMap<Role, u64>,
}

/// The parties while they run.
struct Soak {
    /// Between two looks at how far they are.
    poll: Duration,
    running: Running,
    addresses: BTreeMap<Role, SocketAddr>,
}

impl Soak {
    fn series(&self, role: Role) -> anyhow::Result<Series> {
        let (series, _) = scrape(self.addresses[&role]).with_context(|| {
            format!("{role} does not answer; it has ended, or never began to listen")
        })?;
        Ok(series)
    }

    fn process(&mut self, role: Role) -> anyhow::Result<Pid> {
        let child = self.running.process(role).with_context(|| format!("{role} has no process"))?;
        Ok(Pid::from_child(child))
    }

    fn memory(&mut self, role: Role) -> anyhow::Result<u64> {
        let status = format!("/proc/{}/status", self.process(role)?.as_raw_pid());
        let status =
            fs::read_to_string(&status).with_context(|| format!("cannot read {status}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(1024 * kilobytes.context("there is no VmRSS")?.parse::<u64>()?)
    }

    /// Waits until there are so many inferences, and looks.
    fn look(&mut self, at: u64) -> anyhow::Result<Look> {
        let (mut last, mut progress) = (-1.0, Instant::now());
        let (completed, seconds) = loop {
            let series = self.series(Role::Server0)?;
            let completed = value(&series, COMPLETED, Role::Server0)?;
            if completed >= at as f64 {
                break (completed, value(&series, SECONDS, Role::Server0)?);
            }
            if completed > last {
                (last, progress) = (completed, Instant::now());
            }
            ensure!(progress.elapsed() < PATIENCE, "no inference in {PATIENCE:?} after {last}");
            std::thread::sleep(self.poll);
        };
        let memory = LASTING.map(|role| Ok((role, self.memory(role)?)));
        let memory = memory.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(Look { completed, seconds, memory })
    }

    /// Seconds of an inference at server 0, over some of them from now on.
    fn turn(&mut self) -> anyhow::Result<f64> {
        let from = self.look(0)?;
        let to = self.look(from.completed as u64 + TURN)?;
        Ok((to.seconds - from.seconds) / (to.completed - from.completed))
    }

    /// Stops the client, so that nothing moves, and compares what the servers have counted.
    fn compare(&mut self) -> anyhow::Result<String> {
        let client = self.process(Role::CLIENT)?;
        let until = Instant::now() + PATIENCE;
        loop {
            kill_process(client, Signal::STOP)?;
            std::thread::sleep(2 * POLL);
            let servers = [Role::Server0, Role::Server1].map(|role| Ok((role, self.series(role)?)));
            let servers = servers.into_iter().collect::<anyhow::Result<Vec<_>>>();
            kill_process(client, Signal::CONT)?;
            let found = consistent(&servers?);
            // It may have been stopped in the middle of an inference.
            if found.is_ok() || Instant::now() > until {
                return found;
            }
            std::thread::sleep(POLL);
        }
    }
}

const COMPLETED: &str = r#"inferences_total{outcome="completed",role="ROLE"}"#;
const SECONDS: &str = r#"inference_duration_seconds_sum{phase="combined",role="ROLE"}"#;

fn value(series: &Series, name: &str, role: Role) -> anyhow::Result<f64> {
    let name = format!("secure_inference_{}", name.replace("ROLE", role.name()));
    series.get(&name).copied().with_context(|| format!("there is no {name}"))
}

/// What both servers have counted, if they agree.
fn consistent(servers: &[(Role, Series)]) -> anyhow::Result<String> {
    let [(zero, of_zero), (one, of_one)] = servers else { bail!("there are two servers") };
    let both = |name: &str| -> anyhow::Result<f64> {
        let found = (value(of_zero, name, *zero)?, value(of_one, name, *one)?);
        ensure!(found.0 == found.1, "{name}: {} at {zero}, {} at {one}", found.0, found.1);
        Ok(found.0)
    };
    let inferences = both(COMPLETED)?;
    ensure!(both(r#"inferences_total{outcome="failed",role="ROLE"}"#)? == 0.0, "some failed");
    let rounds = both(r#"rounds_total{phase="online",role="ROLE"}"#)?;
    ensure!(rounds == 6.0 * inferences, "{rounds} rounds of {inferences} inferences");
    let mut bytes = 0.0;
    for phase in ["setup", "offline", "online", "control"] {
        for (from, to, sender, receiver) in
            [(zero, one, of_zero, of_one), (one, zero, of_one, of_zero)]
        {
            let way = |way, peer| {
                format!(r#"{way}_bytes_total{{peer="{peer}",phase="{phase}",role="ROLE"}}"#)
            };
            let sent = value(sender, &way("sent", to), *from)?;
            let received = value(receiver, &way("received", from), *to)?;
            ensure!(
                sent == received,
                "{phase}: {from} sent {sent}, {to} received {received} bytes"
            );
            bytes += sent;
        }
    }
    Ok(format!(
        "both servers counted {inferences} inferences, {rounds} rounds, none failed, and {:.1} MB \
         between them",
        bytes / 1e6
    ))
}

/// Starts a session of so many inferences; its result is in the folder's `result.json`.
fn start(folder: &Path, inferences: u64) -> anyhow::Result<Soak> {
    let job = network_job("A", NumberFormat::Int64, inferences, folder);
    let mut configs = local::configure(&job, folder)?;
    let addresses = watch(&mut configs);
    let running = local::start(&configs, folder, &party_program())?;
    wait_for("server0", || scrape(addresses[&Role::Server0]));
    Ok(Soak { poll: POLL, running, addresses })
}

/// How many times as long as in a session that has just begun an inference takes in an old one.
fn drift(old: &mut Soak) -> anyhow::Result<f64> {
    let client = old.process(Role::CLIENT)?;
    let mut ratios = Vec::new();
    for _ in 0..TURNS {
        let aged = old.turn()?;
        kill_process(client, Signal::STOP)?;
        let folder = tempfile::tempdir()?;
        let fresh = start(folder.path(), 2 * SETTLED + TURN).and_then(|mut fresh| {
            fresh.look(SETTLED)?;
            fresh.turn()
        });
        kill_process(client, Signal::CONT)?;
        ratios.push(aged / fresh?);
    }
    Ok(median(ratios))
}

fn soak(inferences: u64) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let mut soak = start(folder.path(), inferences)?;

    // The last look is before the end, so that everybody is still there for what follows.
    let last = inferences - (inferences / 10).max(LEFT);
    let mut looks = vec![soak.look(SETTLED)?];
    if inferences >= MANY {
        soak.poll = SELDOM;
    }
    for number in 1..=LOOKS {
        looks.push(soak.look(SETTLED + (last - SETTLED) * number / LOOKS)?);
        let look = looks.last().context("it was just pushed")?;
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} of {inferences} inferences after {seconds:.0} s", look.completed);
    }
    soak.poll = POLL;
    let counted = soak.compare()?;
    let drift = if inferences >= MANY { Some(drift(&mut soak)?) } else { None };
    soak.running.wait(&AtomicBool::new(false), |_| {})?;
    let result = fs::read(folder.path().join("result.json"))?;
    let result: RunResult = serde_json::from_slice(&result)?;
    ensure!(result.repetitions == inferences, "the client did {}", result.repetitions);

    let mut lines = vec![format!("{inferences} inferences of A in one session: {counted}")];
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut grown = false;
    for role in LASTING {
        let memory: Vec<u64> = looks.iter().map(|look| look.memory[&role]).collect();
        let (mut least, mut growth) = (u64::MAX, 0f64);
        for bytes in &memory {
            least = least.min(*bytes);
            growth = growth.max(*bytes as f64 / least as f64 - 1.0);
        }
        grown |= growth > GROWTH;
        let quarters = memory.iter().step_by(LOOKS as usize / 4);
        let quarters: Vec<_> = quarters.map(|bytes| format!("{:.1}", megabytes(*bytes))).collect();
        lines.push(format!(
            "{role}: {} MB from {SETTLED} inferences to the last ({:+.1} % at most)",
            quarters.join(", "),
            100.0 * growth
        ));
    }
    if let Some(drift) = drift {
        lines.push(format!(
            "an inference takes {drift:.2} times as long as in a session that has just begun, \
             median of {TURNS} turns"
        ));
        ensure!(drift <= 1.0 + DRIFT, "expected {}:\n{}", 1.0 + DRIFT, lines.join("\n"));
    }
    ensure!(!grown, "expected memory to grow by no more than {GROWTH}:\n{}", lines.join("\n"));
    Ok(lines.join("\n"))
}
