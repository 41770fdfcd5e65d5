//! The way of spans to a collector.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, skip_field,
};
use prost::{DecodeError, Message};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tracing::Instrument;

use super::settings::Settings;
use super::span::Encode;

/// The method that takes spans.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// After a collector did not take spans, before it is asked again: at first and at most.
const BACKOFF: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// How many spans were exported and dropped.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    /// Spans that the collector has.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that nobody has: the queue was full, or the collector did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Sends spans in the background. Clones share the queue.
#[derive(Clone)]
pub struct Exporter {
    shared: Arc<Shared>,
    flush: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exporter({})", self.shared.settings.endpoint.uri())
    }
}

struct Shared {
    settings: Settings,
    queue: Mutex<Queue>,
    counts: Arc<Counts>,
    /// There is enough for a request, or more.
    much: Notify,
    /// Of spans that are on their way.
    pending: AtomicU64,
    /// At the end: what is left is dropped.
    over: AtomicBool,
    /// The log says already that spans cannot be sent.
    warned: AtomicBool,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Box<dyn Encode>>,
    spans: usize,
}

impl Exporter {
    /// Sends with `settings` from a task of `runtime`, and counts in `counts`.
    #[must_use]
    pub fn start(settings: Settings, counts: Arc<Counts>, runtime: &Handle) -> Self {
        let (flush, flushes) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            settings,
            queue: Mutex::default(),
            counts,
            much: Notify::new(),
            pending: AtomicU64::new(0),
            over: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        });
        runtime.spawn(Worker::run(shared.clone(), flushes).in_current_span());
        Self { shared, flush }
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Queues spans, or drops them if there is no room.
    pub fn send(&self, item: Box<dyn Encode>) {
        let (spans, limit) = (item.spans(), self.shared.settings.queue);
        let mut queue = self.shared.queue();
        if queue.spans + spans > limit || self.shared.over.load(Ordering::Relaxed) {
            drop(queue);
            self.shared.counts.dropped.fetch_add(spans as u64, Ordering::Relaxed);
            return;
        }
        let before = queue.spans;
        queue.spans += spans;
        queue.items.push_back(item);
        drop(queue);
        // To wake the other thread costs more than all else here.
        if before <= limit / 2 && before + spans > limit / 2 {
            self.shared.much.notify_one();
        }
    }

    /// Waits until everything is sent, at most `patience`; what is left then is dropped.
    pub async fn flush(&self, patience: Duration) {
        let (done, wait) = oneshot::channel();
        // The worker lives as long as its runtime.
        let _ = self.flush.send(done);
        let in_time = tokio::time::timeout(patience, wait).await.is_ok();
        if !in_time {
            self.shared.over.store(true, Ordering::Relaxed);
        }
        let left = {
            let mut queue = self.shared.queue();
            let left = if in_time { 0 } else { std::mem::take(&mut *queue).spans as u64 };
            left + if in_time { 0 } else { self.shared.pending.swap(0, Ordering::Relaxed) }
        };
        self.shared.counts.dropped.fetch_add(left, Ordering::Relaxed);
        let dropped = self.shared.counts.dropped();
        if dropped > 0 && !self.shared.warned.load(Ordering::Relaxed) {
            let endpoint = self.shared.settings.endpoint.uri();
            tracing::warn!(dropped, %endpoint, "spans were dropped; traces are incomplete");
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first items, as many as go into a request.
    fn take(&self) -> Vec<Box<dyn Encode>> {
        let mut queue = self.queue();
        let mut items = Vec::new();
        let mut spans = 0;
        while let Some(next) = queue.items.front().map(|item| item.spans()) {
            if spans > 0 && spans + next > self.settings.batch {
                break;
            }
            spans += next;
            items.extend(queue.items.pop_front());
        }
        queue.spans -= spans;
        items
    }
}

/// A request that was encoded before.
#[derive(Clone, Debug, Default)]
struct Encoded(Bytes);

impl Message for Encoded {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // It is never read.
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What is around the spans of every request.
struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Envelope {
    /// The fields of `ExportTraceServiceRequest` and `ResourceSpans` that hold the next level.
    const RESOURCE_SPANS: u32 = 1;
    const SCOPE_SPANS: u32 = 2;

    fn new(settings: &Settings) -> Self {
        let ResourceAttributesWithSchema { attributes, schema_url } = (&settings.resource).into();
        let resource = ResourceSpans {
            resource: Some(Resource { attributes: attributes.0, ..Resource::default() }),
            schema_url: schema_url.unwrap_or_default(),
            ..ResourceSpans::default()
        };
        let scope = InstrumentationScope {
            name: "secure-inference".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        let scope = ScopeSpans { scope: Some(scope), ..ScopeSpans::default() };
        Self { resource: resource.encode_to_vec(), scope: scope.encode_to_vec() }
    }

    fn around(&self, spans: &[u8]) -> Encoded {
        let scope = self.scope.len() + spans.len();
        let resource = self.resource.len()
            + key_len(Self::SCOPE_SPANS)
            + encoded_len_varint(scope as u64)
            + scope;
        let mut out = Vec::with_capacity(resource + 16);
        encode_key(Self::RESOURCE_SPANS, WireType::LengthDelimited, &mut out);
        encode_varint(resource as u64, &mut out);
        out.extend_from_slice(&self.resource);
        encode_key(Self::SCOPE_SPANS, WireType::LengthDelimited, &mut out);
        encode_varint(scope as u64, &mut out);
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(spans);
        Encoded(out.into())
    }
}

/// Sends what is queued.
struct Worker {
    shared: Arc<Shared>,
    client: Grpc<Channel>,
    envelope: Envelope,
    /// Encoded spans, and how many they are, that the collector did not take yet.
    unsent: Option<(Encoded, u64)>,
    /// Whether it ever took any.
    answered: bool,
    backoff: Option<Duration>,
}

impl Worker {
    async fn run(shared: Arc<Shared>, mut flushes: mpsc::UnboundedReceiver<oneshot::Sender<()>>) {
        let channel = shared.settings.endpoint.clone().connect_timeout(shared.settings.timeout);
        let mut worker = Self {
            client: Grpc::new(channel.connect_lazy()),
            envelope: Envelope::new(&shared.settings),
            shared,
            unsent: None,
            answered: false,
            backoff: None,
        };
        loop {
            let wait = worker.backoff.unwrap_or(worker.shared.settings.delay);
            tokio::select! {
                () = tokio::time::sleep(wait) => worker.send().await,
                () = worker.shared.much.notified(), if worker.backoff.is_none() => {
                    worker.send().await;
                }
                flush = flushes.recv() => {
                    let Some(done) = flush else { return };
                    worker.finish().await;
                    // Perhaps its patience is over.
                    let _ = done.send(());
                }
            }
        }
    }

    /// Sends everything, if the collector takes it.
    async fn send(&mut self) {
        while let Some((request, spans)) = self.next() {
            match self.export(request.clone()).await {
                Ok(()) => {
                    if self.backoff.take().is_some() {
                        tracing::info!("the collector of traces takes spans again");
                    }
                    self.answered = true;
                    self.count(&self.shared.counts.exported);
                }
                Err(status) => {
                    let again = retryable(status.code());
                    if again {
                        self.unsent = Some((request, spans));
                    } else {
                        self.count(&self.shared.counts.dropped);
                    }
                    if self.backoff.is_none() {
                        self.shared.warned.store(true, Ordering::Relaxed);
                        let endpoint = self.shared.settings.endpoint.uri();
                        // What a server says may repeat what it was sent.
                        let (code, reason) = (status.code(), cause(&status));
                        tracing::warn!(%endpoint, ?code, "cannot send traces: {reason}; the run goes on");
                    }
                    let next = self.backoff.map_or(BACKOFF[0], |backoff| 2 * backoff);
                    self.backoff = Some(next.min(BACKOFF[1]));
                    if again {
                        return;
                    }
                }
            }
        }
    }

    /// Sends everything, and tries again where the collector has shown that it is there.
    async fn finish(&mut self) {
        loop {
            self.send().await;
            let left = self.unsent.is_some() || self.shared.queue().spans > 0;
            if !left {
                return;
            }
            if !self.answered {
                // It never was there, and nobody knows that it will be.
                let queued = std::mem::take(&mut *self.shared.queue()).spans as u64;
                self.shared.counts.dropped.fetch_add(queued, Ordering::Relaxed);
                self.unsent = None;
                return self.count(&self.shared.counts.dropped);
            }
            tokio::time::sleep(BACKOFF[0]).await;
        }
    }

    /// The request that failed, or the next.
    fn next(&mut self) -> Option<(Encoded, u64)> {
        if let Some(unsent) = self.unsent.take() {
            return Some(unsent);
        }
        let items = self.shared.take();
        let spans: usize = items.iter().map(|item| item.spans()).sum();
        if spans == 0 {
            return None;
        }
        let mut bytes = Vec::new();
        items.iter().for_each(|item| item.encode(&mut bytes));
        self.shared.pending.store(spans as u64, Ordering::Relaxed);
        Some((self.envelope.around(&bytes), spans as u64))
    }

    /// Counts the spans that were on their way, unless somebody lost patience with them.
    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(self.shared.pending.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    async fn export(&mut self, request: Encoded) -> Result<(), Status> {
        let settings = &self.shared.settings;
        let mut request = Request::new(request);
        *request.metadata_mut() = settings.headers.clone();
        let until = Instant::now() + settings.timeout;
        let client = &mut self.client;
        let exchange = async {
            client.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<Encoded, ExportTraceServiceResponse>::default();
            client.unary(request, PathAndQuery::from_static(EXPORT), codec).await
        };
        let response = tokio::time::timeout_at(until, exchange)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
        if let Some(partial) = response.into_inner().partial_success
            && partial.rejected_spans > 0
        {
            tracing::warn!(rejected = partial.rejected_spans, "the collector refused spans");
        }
        Ok(())
    }
}

/// Whether the same request may succeed later, as OTLP has it.
fn retryable(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

/// What this side knows of a failure.
fn cause(status: &Status) -> String {
    let mut error: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut last = None;
    while let Some(source) = error {
        last = Some(source.to_string());
        error = source.source();
    }
    last.unwrap_or_else(|| "the collector refused them".into())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

    use opentelemetry::trace::{SpanId, SpanKind, TraceId};

    use super::super::span::{Span, Times};
    use super::*;

    fn settings(endpoint: &str, variables: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read("test", [], Some(endpoint), None, variable).unwrap().unwrap()
    }

    fn span(name: &str) -> Box<Span> {
        Box::new(Span {
            trace: TraceId::from_bytes([1; 16]),
            id: SpanId::from_bytes([2; 8]),
            parent: None,
            name: name.into(),
            kind: SpanKind::Internal,
            times: Times { start: 1, end: 2 },
            attributes: Vec::new(),
            error: None,
        })
    }

    #[test]
    fn a_request_is_what_otlp_says() {
        let envelope = Envelope::new(&settings("http://x:1", &[("OTEL_SERVICE_NAME", "named")]));
        let mut spans = Vec::new();
        ["one", "two"].iter().for_each(|name| span(name).encode(&mut spans));
        let encoded = envelope.around(&spans).encode_to_vec();
        let request = ExportTraceServiceRequest::decode(&encoded[..]).unwrap();
        let [resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let [scope] = &resource.scope_spans[..] else { panic!("{request:?}") };
        assert_eq!(scope.scope.as_ref().unwrap().name, "secure-inference");
        let names: Vec<&str> = scope.spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert!(format!("{attributes:?}").contains("named"), "{attributes:?}");
        // Exactly as the library would write it.
        assert_eq!(request.encoded_len(), encoded.len());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        // Nobody listens there, and the worker has not run yet.
        let counts = Arc::new(Counts::default());
        let settings = settings("http://127.0.0.1:9", &[("OTEL_BSP_MAX_QUEUE_SIZE", "3")]);
        let exporter = Exporter::start(settings, counts.clone(), &Handle::current());
        for _ in 0..5 {
            exporter.send(span("one"));
        }
        assert_eq!((counts.dropped(), counts.exported()), (2, 0));
        let start = std::time::Instant::now();
        exporter.flush(Duration::from_secs(5)).await;
        assert_eq!((counts.dropped(), counts.exported()), (5, 0));
        assert!(start.elapsed() < Duration::from_secs(2), "a refusal is not waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_its_patience() {
        // It takes connections and says nothing.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = settings(&format!("http://{}", silent.local_addr().unwrap()), &[]);
        let counts = Arc::new(Counts::default());
        let exporter = Exporter::start(settings, counts.clone(), &Handle::current());
        (0..7).for_each(|_| exporter.send(span("one")));
        let start = Instant::now();
        exporter.flush(Duration::from_secs(2)).await;
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!((counts.dropped(), counts.exported()), (7, 0));
        exporter.send(span("late"));
        assert_eq!(counts.dropped(), 8);
    }
}
