//! What it costs a run to be watched: metrics that a Prometheus would read every second, and
//! a trace of every inference. Alternates with runs that nobody watches, prints the ratios.
//!
//! `cargo run --release -p bench --example telemetry_cost -- C 15`: network, rounds.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "../../party/tests/collector/mod.rs"]
mod collector;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bench::environment::Environment;
use bench::launch::local::{self, Job};
use collector::Collector;
use party::config::{
    Computation, Deadlines, OfflineMode, PartyConfig, PlayerTask, Stock, Telemetry, Transport,
    Workload,
};
use party::result::RunResult;
use spdz::channel::Name;
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
    let mut arguments = std::env::args().skip(1);
    let network = arguments.next().unwrap_or_else(|| "C".into());
    let rounds: usize = arguments.next().unwrap_or_else(|| "15".into()).parse()?;
    ensure!(rounds > 0, "expected a number of rounds above 0");
    let party = std::env::current_exe()?;
    let party = party.parent().and_then(Path::parent).context("no folder")?.join("party");
    ensure!(party.is_file(), "{} is missing: cargo build --release -p party", party.display());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let collector = Collector::start("127.0.0.1:0".parse()?, runtime.handle())?;

    let machine = Environment::read();
    println!(
        "network {network}, batch 1, Int64, {REPETITIONS} inferences a run, {rounds} rounds, on {} cores of {}, load {:.1}",
        machine.cores, machine.cpu, machine.load_average
    );
    let mut medians: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..ALL.len() {
            let which = (round + turn) % ALL.len();
            let result = run(&network, &party, ALL[which], &collector)?;
            medians[which].push(result.combined.p50_ms);
        }
    }
    let traced = collector.spans().iter().filter(|(_, span)| span.name == "inference").count();
    let expected = rounds * REPETITIONS as usize;
    ensure!(traced >= expected, "expected {expected} traced inferences, found {traced}");
    for (watched, own) in ALL.iter().zip(&medians) {
        let ratios = own.iter().zip(&medians[0]).map(|(own, without)| own / without);
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let quarter = |part: usize| ratios[(ratios.len() - 1) * part / 4];
        println!(
            "{:<18} combined {:.3} ms, {:.3} times that of the same round unwatched (quartiles {:.3}, {:.3})",
            format!("{watched:?}"),
            median(own),
            quarter(2),
            quarter(1),
            quarter(3)
        );
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn run(
    network: &str,
    party: &Path,
    watched: Watched,
    collector: &Collector,
) -> anyhow::Result<RunResult> {
    let folder = tempfile::tempdir()?;
    let own = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let weights: PathBuf = own(&format!("models/{}.safetensors", network.to_lowercase()));
    let task = PlayerTask { inputs: Some(weights), ..PlayerTask::default() };
    let path = folder.path().join("result.json");
    let job = Job {
        computation: Computation::of_network(network, 1, NumberFormat::Int64),
        players: BTreeMap::from([(Name::MODEL_OWNER, task)]),
        workload: Some(Workload {
            images: own("data/t10k-images-idx3-ubyte.gz"),
            warmup: 20,
            repetitions: REPETITIONS,
            offline: OfflineMode::Inline,
            accuracy: None,
            inspect: None,
            result: Some(path.clone()),
        }),
        stock: Stock::default(),
        threads: None,
        deadlines: Deadlines::default(),
        transport: Transport::default(),
    };
    let mut configs = local::configure(&job, folder.path())?;
    let addresses = watch(&mut configs, watched, collector)?;
    let mut running = local::start(&configs, folder.path(), party)?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| read(&addresses, &over));
        let ended = running.wait(&AtomicBool::new(false), |_| {});
        over.store(true, Ordering::Relaxed);
        ended
    })?;
    Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
}

/// Has the parties tell what they do; where their metrics are.
fn watch(
    configs: &mut [PartyConfig],
    watched: Watched,
    collector: &Collector,
) -> anyhow::Result<Vec<SocketAddr>> {
    if matches!(watched, Watched::No) {
        return Ok(Vec::new());
    }
    let listeners: Result<Vec<_>, _> =
        configs.iter().map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let mut addresses = Vec::new();
    for (config, listener) in configs.iter_mut().zip(listeners?) {
        let listen = listener.local_addr()?;
        addresses.push(listen);
        let traced = matches!(watched, Watched::MetricsAndTraces);
        config.telemetry = Some(Telemetry {
            listen: Some(listen),
            otlp_endpoint: traced.then(|| format!("http://{}", collector.address())),
            ..Telemetry::default()
        });
    }
    Ok(addresses)
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
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n");
                let mut answer = Vec::new();
                let _ = stream
                    .write_all(request.as_bytes())
                    .and_then(|()| stream.read_to_end(&mut answer));
            }
        }
        std::thread::sleep(tick);
        waited += tick;
    }
}
