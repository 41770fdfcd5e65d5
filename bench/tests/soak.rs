//! Very many inferences through one set of processes: what is used up is given back, and what is
//! counted agrees.
//!
//! `make soak` does 100,000; `cargo test` a few thousand.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a test program")]
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench::launch::local::{self, Job, Running};
use clap::Parser;
use common::{Series, own_folder, party_program, scrape, watch};
use party::config::{Computation, Deadlines, OfflineMode, PlayerTask, Stock, Transport, Workload};
use party::result::RunResult;
use rustix::process::{Pid, Signal, kill_process};
use spdz::channel::{Name, Role};
use spdz::plan::NumberFormat;

/// Parties have what they need after so many.
const SETTLED: u64 = 1_000;

/// By how much the memory of a process may grow after that.
const GROWTH: f64 = 0.05;

/// How often the parties are looked at.
const LOOKS: u64 = 20;

/// By how much the last inferences may be slower than the first. A machine's own speed may
/// change by as much, so it is only asked of very many.
const DRIFT: f64 = 0.25;

/// From how many on.
const MANY: u64 = 100_000;

/// Between two looks at how far they are.
const POLL: Duration = Duration::from_millis(20);

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
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(2_000..=1_000_000))]
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
        Pid::from_raw(child.id() as i32).context("there is no process 0")
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
            std::thread::sleep(POLL);
        };
        let memory = LASTING.map(|role| Ok((role, self.memory(role)?)));
        let memory = memory.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(Look { completed, seconds, memory })
    }

    /// Stops the client, so that nothing moves, and compares what the servers have counted.
    fn compare(&mut self) -> anyhow::Result<String> {
        let client = self.process(Role::CLIENT)?;
        let until = Instant::now() + PATIENCE;
        loop {
            kill_process(client, Signal::STOP)?;
            std::thread::sleep(10 * POLL);
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

fn soak(inferences: u64) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let result = folder.path().join("result.json");
    let weights = own_folder("models/a.safetensors");
    let owner = PlayerTask { inputs: Some(weights), ..PlayerTask::default() };
    let job = Job {
        computation: Computation::of_network("A", 1, NumberFormat::Int64),
        players: BTreeMap::from([(Name::MODEL_OWNER, owner)]),
        workload: Some(Workload {
            images: own_folder("data/t10k-images-idx3-ubyte.gz"),
            warmup: 0,
            repetitions: inferences,
            offline: OfflineMode::Inline,
            accuracy: None,
            inspect: None,
            result: Some(result.clone()),
        }),
        stock: Stock::default(),
        threads: None,
        deadlines: Deadlines::default(),
        transport: Transport::default(),
    };
    let mut configs = local::configure(&job, folder.path())?;
    let addresses = watch(&mut configs);
    let running = local::start(&configs, folder.path(), &party_program())?;
    let began = Instant::now();
    let mut soak = Soak { running, addresses };
    while scrape(soak.addresses[&Role::Server0]).is_none() {
        ensure!(began.elapsed() < PATIENCE, "server0 did not begin to listen in {PATIENCE:?}");
        std::thread::sleep(POLL);
    }

    // The last look is a little before the end, so that everybody is still there.
    let last = inferences - inferences / 20;
    let mut looks = vec![soak.look(SETTLED)?];
    for number in 1..=LOOKS {
        looks.push(soak.look(SETTLED + (last - SETTLED) * number / LOOKS)?);
        let look = looks.last().context("it was just pushed")?;
        eprintln!(
            "{} of {inferences} inferences after {:.0} s",
            look.completed,
            began.elapsed().as_secs_f64()
        );
    }
    let counted = soak.compare()?;
    soak.running.wait(&AtomicBool::new(false), |_| {})?;
    let result: RunResult = serde_json::from_slice(&fs::read(&result)?)?;
    ensure!(result.repetitions == inferences, "the client did {}", result.repetitions);

    let mut lines = vec![format!("{inferences} inferences of A in one session: {counted}")];
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    for role in LASTING {
        let after = looks[0].memory[&role];
        let most = looks.iter().map(|look| look.memory[&role]).max().unwrap_or_default();
        let growth = most as f64 / after as f64 - 1.0;
        lines.push(format!(
            "{role}: {:.1} MB after {SETTLED}, at most {:.1} MB later ({:+.1} %)",
            megabytes(after),
            megabytes(most),
            100.0 * growth
        ));
        ensure!(growth <= GROWTH, "expected memory to stay within {GROWTH}:\n{}", lines.join("\n"));
    }
    let each: Vec<f64> = looks
        .windows(2)
        .map(|pair| (pair[1].seconds - pair[0].seconds) / (pair[1].completed - pair[0].completed))
        .collect();
    let quarter = each.len() / 4;
    let (first, last) = (median(&each[..quarter]), median(&each[each.len() - quarter..]));
    lines.push(format!(
        "mean latency at server0: {:.3} ms in the first quarter, {:.3} ms in the last ({:+.1} %)",
        1e3 * first,
        1e3 * last,
        100.0 * (last / first - 1.0)
    ));
    let drifts = inferences >= MANY && last / first > 1.0 + DRIFT;
    ensure!(!drifts, "expected latency to stay within {DRIFT}:\n{}", lines.join("\n"));
    Ok(lines.join("\n"))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
