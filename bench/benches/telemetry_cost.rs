//! What it costs a run to be watched: metrics that a Prometheus would read every second, and
//! a trace of every inference. Alternates with runs that nobody watches, prints the ratios of
//! latency and of the processor time of all parties together, which a busy machine disturbs less.
//!
//! `cargo bench -p bench --bench telemetry_cost -- C 15`: network, rounds.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../../party/tests/collector/mod.rs"]
mod collector;
#[path = "../tests/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bench::environment::Environment;
use bench::launch::local::{self, Job};
use bench::stats::median;
use collector::Collector;
use common::{get, network_job, party_program, watch};
use party::config::{PartyConfig, Workload};
use party::result::RunResult;
use spdz::plan::NumberFormat;
use tokio::runtime::Builder;

/// Timed inferences of a run.
const REPETITIONS: u64 = 400;

/// Between two readings of the metrics.
const INTERVAL: Duration = Duration::from_secs(1);

/// How a run is watched.
#[derive(Clone, Copy, Debug)]
enum Watched {
    No,
    Metrics,
    MetricsAndTraces,
}

const ALL: [Watched; 3] = [Watched::No, Watched::Metrics, Watched::MetricsAndTraces];

fn main() -> anyhow::Result<()> {
    // Cargo tells every benchmark that it is one.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let network = arguments.next().unwrap_or_else(|| "C".into());
    let rounds: usize = arguments.next().unwrap_or_else(|| "15".into()).parse()?;
    ensure!(rounds > 0, "expected a number of rounds above 0");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let collector = Collector::start("127.0.0.1:0".parse()?, runtime.handle())?;

    let machine = Environment::read();
    println!(
        "network {network}, batch 1, Int64, {REPETITIONS} inferences a run, {rounds} rounds, on {} cores of {}, load {:.1}",
        machine.cores, machine.cpu, machine.load_average
    );
    let mut medians: [Vec<f64>; 3] = Default::default();
    let mut processor: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..ALL.len() {
            let which = (round + turn) % ALL.len();
            let before = children_seconds()?;
            let result = run(&network, ALL[which], &collector)?;
            medians[which].push(result.combined.p50_ms);
            processor[which].push((children_seconds()? - before) * 1e3 / REPETITIONS as f64);
        }
    }
    let traced = collector.spans().iter().filter(|(_, span)| span.name == "inference").count();
    let expected = rounds * REPETITIONS as usize;
    ensure!(traced >= expected, "expected {expected} traced inferences, found {traced}");
    for (what, found) in [("combined", &medians), ("processor", &processor)] {
        for (watched, own) in ALL.iter().zip(found) {
            let ratios = own.iter().zip(&found[0]).map(|(own, without)| own / without);
            let mut ratios: Vec<f64> = ratios.collect();
            ratios.sort_by(f64::total_cmp);
            let quarter = |part: usize| ratios[(ratios.len() - 1) * part / 4];
            println!(
                "{:<18} {what} {:.3} ms, {:.3} times that of the same round unwatched (quartiles {:.3}, {:.3})",
                format!("{watched:?}"),
                median(own.clone()),
                quarter(2),
                quarter(1),
                quarter(3)
            );
        }
    }
    Ok(())
}

/// Processor time of all children that have ended, seconds.
fn children_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The program's name, which ends with the last bracket, is the second of the fields.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(13).take(2).flat_map(str::parse::<u64>).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn run(network: &str, watched: Watched, collector: &Collector) -> anyhow::Result<RunResult> {
    let folder = tempfile::tempdir()?;
    let job = network_job(network, NumberFormat::Int64, REPETITIONS, folder.path());
    let workload = job.workload.map(|workload| Workload { warmup: 20, ..workload });
    let job = Job { workload, ..job };
    let mut configs = local::configure(&job, folder.path())?;
    let addresses = tell(&mut configs, watched, collector);
    let mut running = local::start(&configs, folder.path(), &party_program())?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| read(&addresses, &over));
        let ended = running.wait(&AtomicBool::new(false), |_| {});
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    Ok(serde_json::from_slice(&std::fs::read(folder.path().join("result.json"))?)?)
}

/// Has the parties tell what they do; where their metrics are.
fn tell(configs: &mut [PartyConfig], watched: Watched, collector: &Collector) -> Vec<SocketAddr> {
    if matches!(watched, Watched::No) {
        return Vec::new();
    }
    let addresses = watch(configs).into_values().collect();
    if matches!(watched, Watched::MetricsAndTraces) {
        for telemetry in configs.iter_mut().filter_map(|config| config.telemetry.as_mut()) {
            telemetry.otlp_endpoint = Some(format!("http://{}", collector.address()));
        }
    }
    addresses
}

/// Reads the metrics as a Prometheus does, until the run is over.
fn read(addresses: &[SocketAddr], over: &AtomicBool) {
    let tick = Duration::from_millis(20);
    let mut waited = INTERVAL;
    while !over.load(Ordering::Relaxed) {
        if waited >= INTERVAL {
            waited = Duration::ZERO;
            for address in addresses {
                // Parties come and go.
                let _ = get(*address, "/metrics");
            }
        }
        std::thread::sleep(tick);
        waited += tick;
    }
}
