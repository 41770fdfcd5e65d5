//! What several tests of five processes need.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "no test needs all of it")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bench::launch::local::Job;
use party::config::{
    Computation, Deadlines, OfflineMode, PartyConfig, PlayerTask, Store, Telemetry, Transport,
    Workload,
};
use rustix::process::{Pid, Signal, kill_process};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use spdz::channel::{Name, Role};
use spdz::plan::NumberFormat;

/// The program of a party, as it was built beside `bench`.
pub(crate) fn party_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_bench")).with_file_name("party");
    assert!(path.is_file(), "{} is missing: run cargo build -p party first", path.display());
    path
}

/// A file or folder of this package.
pub(crate) fn own_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Numbers from -1 to 1.
pub(crate) fn wave(count: usize, step: f64) -> Vec<f64> {
    (0..count).map(|i| (step * (i + 1) as f64).sin()).collect()
}

/// Writes what a player brings: names, F32 or F64, shapes, values.
pub(crate) fn write_tensors(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, &[f64])]) {
    let bytes: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, dtype, shape, values)| {
            let bytes = values.iter().flat_map(|value| match dtype {
                Dtype::F32 => (*value as f32).to_le_bytes().to_vec(),
                _ => value.to_le_bytes().to_vec(),
            });
            (*name, *dtype, shape.clone(), bytes.collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A tensor that a player wrote, F64.
pub(crate) fn read_tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F64);
    let values = view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    (view.shape().to_vec(), values.collect())
}

/// Has every party answer probes, and says where.
pub(crate) fn watch(configs: &mut [PartyConfig]) -> BTreeMap<Role, SocketAddr> {
    let listener = |_| TcpListener::bind("127.0.0.1:0").unwrap();
    // All are held at once, so that they differ.
    let listeners: Vec<TcpListener> = configs.iter().map(listener).collect();
    let mut addresses = BTreeMap::new();
    for (config, listener) in configs.iter_mut().zip(listeners) {
        let listen = listener.local_addr().unwrap();
        let others = config.telemetry.take().unwrap_or_default();
        config.telemetry = Some(Telemetry { listen: Some(listen), ..others });
        addresses.insert(config.role, listen);
    }
    addresses
}

/// Status and content of an answer; none if there is no one to answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, content) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, content.to_owned()))
}

/// Looks again and again until there is what is wanted.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not come in 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The series of a scrape, each with its value.
pub(crate) type Series = BTreeMap<String, f64>;

/// Of each family of a scrape its type and help.
pub(crate) type Families = BTreeMap<String, (String, String)>;

/// The metrics of a party.
pub(crate) fn scrape(address: SocketAddr) -> Option<(Series, Families)> {
    let (code, text) = get(address, "/metrics")?;
    assert_eq!(code, 200, "{text}");
    let (mut series, mut families) = (Series::new(), Families::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [kind, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let family = families.entry(name.to_owned()).or_default();
            *(if kind == "TYPE" { &mut family.0 } else { &mut family.1 }) = rest.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.insert(name.to_owned(), value.parse().unwrap()), None, "{line}");
        }
    }
    Some((series, families))
}

/// Sends a signal to a process.
pub(crate) fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// So many inferences of a network, one image each, and nothing scored; the result is in the
/// folder's `result.json`.
pub(crate) fn network_job(
    network: &str,
    format: NumberFormat,
    repetitions: u64,
    folder: &Path,
) -> Job {
    let weights = own_folder(&format!("models/{}.safetensors", network.to_lowercase()));
    let owner = PlayerTask { inputs: Some(weights), ..PlayerTask::default() };
    Job {
        computation: Computation::of_network(network, 1, format),
        players: BTreeMap::from([(Name::MODEL_OWNER, owner)]),
        workload: Some(Workload {
            images: own_folder("data/t10k-images-idx3-ubyte.gz"),
            warmup: 0,
            warmup_seconds: 0,
            repetitions,
            offline: OfflineMode::Inline,
            accuracy: None,
            inspect: None,
            result: Some(folder.join("result.json")),
        }),
        store: Store::default(),
        threads: None,
        deadlines: Deadlines::default(),
        transport: Transport::default(),
    }
}

/// Connections to these addresses, so many a second to each, for as long as it lives: half of
/// them silent, half with the beginning of a request.
pub(crate) struct Strangers(Arc<AtomicBool>, Vec<JoinHandle<usize>>);

impl Strangers {
    pub(crate) fn begin(addresses: Vec<SocketAddr>, each_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |address: SocketAddr| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut held = VecDeque::new();
                let mut made = 0;
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(address) else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    made += 1;
                    if made % 2 == 0 {
                        // One that was closed cannot be written to.
                        let _ = stream.write_all(b"GET /r");
                    }
                    held.push_back(stream);
                    // As many as a process may have open.
                    if held.len() > 400 {
                        held.pop_front();
                    }
                    let due = start + Duration::from_secs(1) / each_second * made as u32;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                made
            })
        };
        let threads = addresses.into_iter().map(begin).collect();
        Self(stop, threads)
    }

    /// How many connections there were to each address.
    pub(crate) fn end(self) -> Vec<usize> {
        self.0.store(true, Ordering::Relaxed);
        self.1.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}
