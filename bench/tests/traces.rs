//! What a collector receives of real runs.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../party/tests/collector/mod.rs"]
mod collector;
#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::TcpListener;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bench::launch::local::{self, Job};
use collector::Collector;
use common::{network_job, own_folder, party_program, scrape, signal, wait_for, watch};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use party::config::{Deadlines, PartyConfig, Telemetry};
use party::trace::{self, Settings};
use rustix::process::Signal;
use safetensors::SafeTensors;
use spdz::channel::Role;
use spdz::plan::{NumberFormat, Plan};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Runs all collectors.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());

fn collector() -> Collector {
    Collector::start("127.0.0.1:0".parse().unwrap(), RUNTIME.handle()).unwrap()
}

fn endpoint(collector: &Collector) -> String {
    format!("http://{}", collector.address())
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::ArrayValue(list) => {
            let values = list.values.iter().map(|value| text(value.value.as_ref().unwrap()));
            values.collect::<Vec<_>>().join("x")
        }
        other => panic!("{other:?}"),
    }
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let attributes = span.attributes.iter();
    attributes
        .map(|a| (a.key.as_str(), text(a.value.as_ref().unwrap().value.as_ref().unwrap())))
        .collect()
}

fn size(span: &Span, attribute: &str) -> usize {
    attributes(span)[attribute].parse().unwrap()
}

/// A run of a network.
struct Scenario {
    folder: TempDir,
    configs: Vec<PartyConfig>,
    plan: Plan,
}

impl Scenario {
    fn new(network: &str, format: NumberFormat, repetitions: u64, telemetry: &Telemetry) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deadlines = Deadlines { connect_seconds: 30.0, message_seconds: 30.0 };
        let job = network_job(network, format, repetitions, folder.path());
        let job = Job { deadlines, ..job };
        let plan = job.computation.plan().unwrap();
        let mut configs = local::configure(&job, folder.path()).unwrap();
        configs.iter_mut().for_each(|config| config.telemetry = Some(telemetry.clone()));
        Self { folder, configs, plan }
    }

    fn run(&self) {
        let mut running =
            local::start(&self.configs, self.folder.path(), &party_program()).unwrap();
        running.wait(&AtomicBool::new(false), |_| {}).unwrap();
    }

    /// Runs it. What the collector has when the client exits, which is all there will be.
    fn spans(&self, collector: &Collector) -> Vec<(String, Span)> {
        let mut running =
            local::start(&self.configs, self.folder.path(), &party_program()).unwrap();
        assert!(running.process(Role::CLIENT).unwrap().wait().unwrap().success());
        let spans = collector.spans();
        running.wait(&AtomicBool::new(false), |_| {}).unwrap();
        assert_eq!(collector.spans().len(), spans.len(), "some came after the client's exit");
        spans
    }

    fn inferences(&self, count: u64) -> BTreeSet<Vec<u8>> {
        let session = self.configs[0].session.0;
        (0..count).map(|k| trace::inference(session, k).to_bytes().to_vec()).collect()
    }

    fn log(&self, role: Role) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{role}.log"))).unwrap()
    }
}

fn telemetry(endpoint: &str) -> Telemetry {
    Telemetry { otlp_endpoint: Some(endpoint.into()), ..Telemetry::default() }
}

/// Spans of each trace.
fn by_trace(spans: Vec<(String, Span)>) -> BTreeMap<Vec<u8>, Vec<(String, Span)>> {
    let mut traces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (service, span) in spans {
        traces.entry(span.trace_id.clone()).or_default().push((service, span));
    }
    traces
}

const SERVERS: [&str; 2] = ["secure-inference-server0", "secure-inference-server1"];
const PRODUCER: &str = "secure-inference-producer";
const CLIENT: &str = "secure-inference-client";

/// The tree of one inference.
fn check_inference(plan: &Plan, spans: &[(String, Span)], start: &Span) {
    let known: BTreeMap<&[u8], &(String, Span)> =
        spans.iter().map(|own| (&own.1.span_id[..], own)).collect();
    assert_eq!(known.len(), spans.len(), "ids differ");
    let roots: Vec<_> = spans.iter().filter(|(_, span)| span.parent_span_id.is_empty()).collect();
    let [(service, root)] = roots[..] else { panic!("{roots:?}") };
    assert_eq!((service.as_str(), root.name.as_str()), (CLIENT, "inference"));
    let [link] = &root.links[..] else { panic!("{root:?}") };
    assert_eq!((&link.trace_id, &link.span_id), (&start.trace_id, &start.span_id));

    let layers = plan.evaluation_layers();
    let generated =
        layers.iter().filter(|layer| layer.steps.iter().any(|step| plan.generates(*step)));
    let expected = BTreeMap::from([
        (CLIENT, 3),
        (PRODUCER, 1 + generated.count()),
        (SERVERS[0], 2 + layers.len() + plan.rounds()),
        (SERVERS[1], 2 + layers.len() + plan.rounds()),
    ]);
    let mut found = BTreeMap::new();
    spans.iter().for_each(|(service, _)| *found.entry(service.as_str()).or_insert(0) += 1);
    assert_eq!(found, expected);

    let (mut online, mut offline) = (0, 0);
    for (service, span) in spans {
        let about = attributes(span);
        assert_eq!(about["number.format"], plan.format().to_string());
        assert_eq!(format!("secure-inference-{}", about["role"]), *service);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano && span.flags == 1);
        assert!(span.status.is_none(), "{span:?}");
        let parent = known.get(&span.parent_span_id[..]);
        if let Some((of, parent)) = parent.filter(|(of, _)| of == service) {
            assert!(parent.start_time_unix_nano <= span.start_time_unix_nano, "{of} {span:?}");
            assert!(parent.end_time_unix_nano >= span.end_time_unix_nano, "{of} {span:?}");
        }
        let parent_name = parent.map_or("", |(_, parent)| &parent.name);
        let whole = if service == PRODUCER { "produce" } else { "evaluate" };
        match (span.name.as_str(), parent_name) {
            ("inference", "") => online += size(span, "mpc.bytes"),
            ("evaluate", "inference") => {
                assert!(SERVERS.contains(&service.as_str()) && about["outcome"] == "completed");
                assert_eq!(size(span, "mpc.rounds"), plan.rounds());
                online += size(span, "mpc.bytes");
            }
            ("produce", "inference") => {
                assert_eq!(about["mpc.phase"], "offline");
                offline += size(span, "mpc.bytes");
            }
            (name @ ("offline" | "online"), "inference" | "evaluate") => {
                assert_eq!(about["mpc.phase"], name);
            }
            (name, parent) if name.starts_with("layer ") => {
                let layer = &layers[size(span, "layer.index")];
                assert_eq!((parent, name), (whole, &*format!("layer {}", layer.name)));
                assert_eq!(
                    (about["layer.kind"].as_str(), &about["layer.name"]),
                    (layer.kind, &layer.name)
                );
                let shape: Vec<String> = layer.shape.iter().map(usize::to_string).collect();
                assert_eq!(about["tensor.shape"], shape.join("x"));
                let phase = if service == PRODUCER { "offline" } else { "online" };
                assert_eq!(about["mpc.phase"], phase);
                let within = spans.iter().filter(|(_, other)| other.parent_span_id == span.span_id);
                let within: Vec<_> = within.map(|(_, other)| other).collect();
                assert_eq!(size(span, "mpc.rounds"), within.len());
                let sent: usize = within.iter().map(|other| size(other, "mpc.bytes")).sum();
                assert!(size(span, "mpc.bytes") >= sent, "{span:?}");
            }
            ("open" | "truncate_interactive", parent) => {
                assert_eq!(parent, format!("layer {}", about["layer.name"]));
                let bytes = size(span, "tensor.shape") * plan.format().wire_bytes();
                assert_eq!((size(span, "mpc.bytes"), size(span, "mpc.rounds")), (bytes, 1));
                assert_eq!(about["mpc.phase"], "online");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((online, offline), (plan.online_bytes(), plan.offline_bytes()));
}

/// The trace of a start: its root's id, and whether that is one of the spans.
fn check_start(spans: &[(String, Span)], parent: Option<&[u8]>) -> Span {
    let named = |name: &str| spans.iter().filter(|(_, span)| span.name == name).collect::<Vec<_>>();
    let services: BTreeSet<&String> = spans.iter().map(|(service, _)| service).collect();
    assert_eq!((services.len(), spans.len()), (5, 15));
    let starts = named("start");
    let client = &starts.iter().find(|(service, _)| service == CLIENT).unwrap().1;
    for (service, start) in &starts {
        let expected = match parent {
            Some(parent) => parent,
            None if service == CLIENT => &[],
            None => &client.span_id,
        };
        assert_eq!(start.parent_span_id, expected, "{service}");
        for name in ["connect", "set-up"] {
            let found = named(name);
            let own = |(_, span): &&&(String, Span)| span.parent_span_id == start.span_id;
            let own: Vec<_> = found.iter().filter(own).collect();
            let [(of, span)] = own[..] else { panic!("{service} {name} {own:?}") };
            assert_eq!(of, service);
            assert!(start.start_time_unix_nano <= span.start_time_unix_nano);
            assert!(start.end_time_unix_nano >= span.end_time_unix_nano);
        }
    }
    client.clone()
}

#[test]
fn an_inference_is_one_trace_of_all_parties() {
    for (network, format, given) in [
        ("A", NumberFormat::Int64, true),
        ("A", NumberFormat::Int100, false),
        ("C", NumberFormat::Int64, false),
        ("C", NumberFormat::Int100, true),
    ] {
        let collector = collector();
        let parent: trace::Context =
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let telemetry =
            Telemetry { traceparent: given.then_some(parent), ..telemetry(&endpoint(&collector)) };
        let scenario = Scenario::new(network, format, 3, &telemetry);
        let mut traces = by_trace(scenario.spans(&collector));
        let session = trace::session(scenario.configs[0].session.0);
        let of_start = if given { parent.trace } else { session };
        let start = traces.remove(&of_start.to_bytes()[..]).unwrap();
        let parent = parent.span.to_bytes();
        let start = check_start(&start, given.then_some(&parent));
        assert!(traces.keys().eq(&scenario.inferences(3)), "{:?}", traces.keys());
        for spans in traces.values() {
            check_inference(&scenario.plan, spans, &start);
            assert!(spans.len() < 200, "{network} {format}: {}", spans.len());
        }

        for config in &scenario.configs {
            let log = scenario.log(config.role);
            assert!(log.lines().count() > 1);
            for line in log.lines() {
                assert!(line.contains(&format!("\"trace_id\":\"{of_start}\"")), "{line}");
            }
        }
    }
}

/// Numbers in the ways in which they could be written.
struct Secrets {
    texts: Vec<String>,
    bytes: Vec<[u8; 8]>,
}

impl Secrets {
    fn of(tensors: &[&[f32]], bytes: &[u8]) -> Self {
        let mut secrets = Self { texts: Vec::new(), bytes: Vec::new() };
        let told = |bytes: &[u8]| {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            // Of a longer text only what does not depend on its beginning and end.
            let base64 = |from: usize| BASE64_STANDARD.encode(&bytes[from..])[..8].to_owned();
            [hex.to_uppercase(), base64(0), base64(1), base64(2), hex]
        };
        // Numbers with few digits are not only secrets.
        let long = |value: &f32| value.to_string().len() > 8;
        for tensor in tensors {
            for value in tensor.iter().filter(|value| long(value)).take(500) {
                secrets.texts.extend([value.to_string(), f64::from(*value).to_string()]);
                let wide = f64::from(*value).to_le_bytes();
                secrets.bytes.push(wide);
                secrets.texts.extend(told(&wide));
            }
            for two in tensor.chunks_exact(2).filter(|two| two.iter().all(long)).take(500) {
                let bytes: Vec<u8> = two.iter().flat_map(|value| value.to_le_bytes()).collect();
                secrets.texts.extend(told(&bytes));
                secrets.bytes.push(bytes.try_into().unwrap());
            }
        }
        let windows = bytes.as_chunks::<8>().0.iter();
        for window in windows.filter(|window| !window.contains(&0)) {
            secrets.texts.extend(told(window));
            secrets.bytes.push(*window);
        }
        secrets
    }

    /// Those that are in `content`.
    fn within(&self, content: &[u8]) -> Vec<String> {
        let windows: HashSet<&[u8]> = content.windows(8).collect();
        let text = String::from_utf8_lossy(content);
        let texts = self.texts.iter().filter(|secret| text.contains(secret.as_str())).cloned();
        let bytes = self.bytes.iter().filter(|secret| windows.contains(&secret[..]));
        texts.chain(bytes.map(|bytes| format!("{bytes:?}"))).collect()
    }
}

#[test]
fn no_span_and_no_line_of_a_log_has_an_input_or_a_weight() {
    let collector = collector();
    let scenario = Scenario::new("A", NumberFormat::Int64, 2, &telemetry(&endpoint(&collector)));
    scenario.run();
    let file = std::fs::read(own_folder("models/a.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let weights: Vec<Vec<f32>> = tensors
        .tensors()
        .iter()
        .map(|(_, tensor)| {
            tensor
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect()
        })
        .collect();
    let images = std::fs::File::open(own_folder("data/t10k-images-idx3-ubyte.gz")).unwrap();
    let mut pixels = vec![0; 16 + 2 * 784];
    std::io::Read::read_exact(&mut flate2::read::GzDecoder::new(images), &mut pixels).unwrap();
    let pixels = &pixels[16..];
    let inputs: Vec<f32> = pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
    let tensors: Vec<&[f32]> = weights.iter().chain([&inputs]).map(Vec::as_slice).collect();
    let secrets = Secrets::of(&tensors, pixels);
    assert!(secrets.texts.len() > 1000 && secrets.bytes.len() > 1000);
    // It finds what is there.
    let sample = weights.iter().flatten().find(|value| value.to_string().len() > 8).unwrap();
    assert!(!secrets.within(format!("{{\"x\":{sample}}}").as_bytes()).is_empty());
    assert!(!secrets.within(&file).is_empty() && !secrets.within(pixels).is_empty());
    assert!(!secrets.within(BASE64_STANDARD.encode(pixels).as_bytes()).is_empty());

    let spans = collector.spans();
    assert!(!spans.is_empty());
    for (service, span) in &spans {
        let mut content = span.name.clone().into_bytes();
        for attribute in &span.attributes {
            content.extend_from_slice(format!(" {} ", attribute.key).as_bytes());
            let value = attribute.value.as_ref().unwrap().value.as_ref().unwrap();
            content.extend_from_slice(text(value).as_bytes());
            if let Value::IntValue(number) = value {
                content.extend_from_slice(&number.to_le_bytes());
            }
        }
        assert!(span.events.is_empty());
        assert_eq!(secrets.within(&content), [""; 0], "{service} {span:?}");
    }
    for config in &scenario.configs {
        let log = scenario.log(config.role);
        assert_eq!(secrets.within(log.as_bytes()), [""; 0], "{log}");
    }
}

#[test]
fn all_parties_trace_the_same_inferences() {
    for ratio in [0.0, 0.5] {
        let collector = collector();
        let telemetry =
            Telemetry { sampling_ratio: Some(ratio), ..telemetry(&endpoint(&collector)) };
        let scenario = Scenario::new("A", NumberFormat::Int64, 24, &telemetry);
        scenario.run();
        let settings = Settings::read("x", [], Some(&endpoint(&collector)), Some(ratio), |_| None);
        let settings = settings.unwrap().unwrap();
        let session = scenario.configs[0].session.0;
        let sampled = (0..24).map(|k| trace::inference(session, k));
        let sampled = sampled.filter(|trace| settings.samples(*trace));
        let sampled: BTreeSet<Vec<u8>> = sampled.map(|trace| trace.to_bytes().to_vec()).collect();
        assert_eq!(sampled.is_empty(), ratio == 0.0);
        assert!(sampled.len() < 24);
        let mut found: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (service, span) in collector.spans() {
            if span.trace_id != trace::session(session).to_bytes() {
                found.entry(service).or_default().insert(span.trace_id);
            } else {
                assert!(settings.samples(trace::session(session)));
            }
        }
        assert_eq!(found.len(), if ratio == 0.0 { 0 } else { 4 });
        assert!(found.values().all(|traces| *traces == sampled), "{found:?}");
        if ratio == 0.0 {
            assert!(collector.spans().is_empty());
        }
    }
}

#[test]
fn a_benchmark_is_traced_where_the_environment_says() {
    let collector = collector();
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args([
            "table1",
            "--networks=A",
            "--activation=polynomial",
            "--formats=Int64",
            "--repetitions=2",
            "--warmup=1",
        ])
        .args(["--accuracy-samples=0", "--out"])
        .arg(folder.path())
        .current_dir(own_folder(".."))
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(&collector))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let spans = collector.spans();
    assert_eq!(spans.iter().filter(|(_, span)| span.name == "inference").count(), 3);
    assert_eq!(spans.iter().filter(|(_, span)| span.name == "start").count(), 5);
}

#[test]
fn what_becomes_of_spans_is_counted() {
    let collector = collector();
    let telemetry = telemetry(&endpoint(&collector));
    let mut scenario = Scenario::new("A", NumberFormat::Int64, 1_000_000, &telemetry);
    let address = watch(&mut scenario.configs)[&Role::Server1];
    let counts = || {
        let (series, _) = scrape(address)?;
        let count = |outcome: &str| {
            let labels = format!("{{outcome=\"{outcome}\",role=\"server1\"}}");
            series.get(&format!("secure_inference_trace_spans_total{labels}")).copied()
        };
        Some((count("exported")?, count("dropped")?))
    };
    let mut running =
        local::start(&scenario.configs, scenario.folder.path(), &party_program()).unwrap();
    // Both are there before there is anything to count.
    wait_for("the counters", counts);
    wait_for("spans", || counts().filter(|(exported, _)| *exported > 100.0));
    signal(running.process(Role::CLIENT).unwrap(), Signal::STOP);
    let mut last = counts();
    wait_for("a moment without spans", || {
        // Longer than spans wait for others to go with.
        std::thread::sleep(Duration::from_secs(2));
        let before = std::mem::replace(&mut last, counts());
        (before == last).then_some(())
    });
    let own = collector.spans().iter().filter(|(service, _)| service == SERVERS[1]).count();
    assert_eq!(last, Some((own as f64, 0.0)));
}

#[test]
fn a_collector_that_is_not_there_costs_little() {
    // One takes connections and says nothing, the other refuses them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        let telemetry = telemetry(&format!("http://{address}"));
        let scenario = Scenario::new("A", NumberFormat::Int64, 3, &telemetry);
        let start = Instant::now();
        scenario.run();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        for config in &scenario.configs {
            let log = scenario.log(config.role);
            let warnings = log.lines().filter(|line| line.contains("\"level\":\"WARN\""));
            assert_eq!(warnings.count(), 1, "{log}");
        }
    }
}
