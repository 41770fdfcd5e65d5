//! Answers to those who ask how a party is: probes and scrapes, HTTP/1.1 without TLS.
//!
//! What is told is nothing private. Whoever asks gets little: a bounded number of
//! connections, one short request each, for a bounded time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::background::Background;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 32;

/// From the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most headers of a request, and bytes of all of them.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Readiness {
    /// Reading files.
    #[default]
    Loading,
    /// Waiting for peers.
    Connecting,
    /// At work with all peers.
    Connected,
    /// Over, well or not.
    Ended,
}

impl Readiness {
    const ALL: [Self; 4] = [Self::Loading, Self::Connecting, Self::Connected, Self::Ended];

    /// What keeps the party from being ready.
    fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Loading => Some("reading its files"),
            Self::Connecting => Some("waiting for its peers to connect"),
            Self::Connected => None,
            Self::Ended => Some("the run is over"),
        }
    }
}

/// What there is to tell.
#[derive(Debug)]
pub(crate) struct Status {
    readiness: AtomicU8,
    metrics: Arc<Metrics>,
}

impl Status {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { readiness: AtomicU8::default(), metrics: Arc::new(metrics) }
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn set(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }

    fn readiness(&self) -> Readiness {
        Readiness::ALL[usize::from(self.readiness.load(Ordering::Relaxed))]
    }
}

/// Listens on `address` and answers there for as long as the process lives.
///
/// # Errors
/// If the address is taken or not this machine's.
pub(crate) fn start(
    address: SocketAddr,
    status: Arc<Status>,
    background: &Background,
) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _context = background.runtime().enter();
        TcpListener::from_std(listener)?
    };
    background.runtime().spawn(accept(listener, status));
    Ok(())
}

async fn accept(listener: TcpListener, status: Arc<Status>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: wait for some to be freed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let status = status.clone();
        tokio::spawn(async move {
            let _slot = slot;
            // Who is too slow, or sends what is no request, gets no answer.
            let _ = tokio::time::timeout(PATIENCE, serve(stream, &status)).await;
        });
    }
}

async fn serve(stream: TcpStream, status: &Status) -> hyper::Result<()> {
    let service = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), status))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        // Whoever asks seldom need not hold a connection in between.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    let line = |text: &str| format!("{text}\n");
    let (code, content) = match path {
        "/healthz" => (StatusCode::OK, line("alive")),
        "/readyz" => match status.readiness().obstacle() {
            None => (StatusCode::OK, line("ready")),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, line(obstacle)),
        },
        "/metrics" => match status.metrics.text() {
            Ok(text) => (StatusCode::OK, text),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, line(&error.to_string())),
        },
        _ => (StatusCode::NOT_FOUND, line("there are /healthz, /readyz and /metrics")),
    };
    let mut response = Response::new(Full::from(content));
    *response.status_mut() = code;
    // What Prometheus calls its text format is plain text for everybody else too.
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    if ![Method::GET, Method::HEAD].contains(method) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        *response.body_mut() = Full::from("expected GET or HEAD\n");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Computation;
    use spdz::channel::Role;
    use spdz::plan::NumberFormat;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What comes back on one connection, to its end.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The answer may come before all of it is read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn listen() -> (SocketAddr, Arc<Status>) {
        let plan = Computation::of_network("A", 1, NumberFormat::Int64).plan().unwrap();
        let metrics = Metrics::new(Role::Producer, &plan, Arc::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, status) = (listener.local_addr().unwrap(), Arc::new(Status::new(metrics)));
        tokio::spawn(accept(listener, status.clone()));
        (address, status)
    }

    #[tokio::test]
    async fn probes_are_told_how_far_the_run_is() {
        let (address, status) = listen().await;
        let get = async |path: &str| {
            let text = exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("connection: close"), "{head}");
            (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body.to_owned())
        };
        for (readiness, code, text) in [
            (Readiness::Loading, 503, "reading its files\n"),
            (Readiness::Connecting, 503, "waiting for its peers to connect\n"),
            (Readiness::Connected, 200, "ready\n"),
            (Readiness::Ended, 503, "the run is over\n"),
        ] {
            status.set(readiness);
            assert_eq!(get("/readyz").await, (code, text.to_owned()));
            assert_eq!(get("/healthz").await.0, 200);
        }
        assert_eq!(get("/").await.0, 404);
        let (code, metrics) = get("/metrics").await;
        assert!(code == 200 && metrics.contains("secure_inference_build_info{"), "{metrics}");
        let refused = exchange(address, "POST /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
        let head = exchange(address, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn what_is_no_short_request_gets_nothing_done() {
        let (address, _) = listen().await;
        let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * HEADER_BYTES));
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2 * HEADERS));
        for request in ["no request\r\n\r\n", &long, &many] {
            let answer = exchange(address, request).await;
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(exchange(address, "GET /healthz HTTP/1.0\r\n\r\n").await.contains("200"));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_say_nothing_hold_no_place_for_long() {
        let (address, _) = listen().await;
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = exchange(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
