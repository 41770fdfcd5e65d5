//! Answers to probes and scrapes: HTTP/1.1 without TLS, of a party and of the operator.
//!
//! Nothing private is answered. Each client gets little: a bounded number of connections,
//! one short request each, for a bounded time.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::slots::Slots;

/// Connections at once; for one more the oldest is closed, so that strangers who say nothing
/// keep no probe waiting.
const CONNECTIONS: usize = 128;

/// From the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most headers of a request, and bytes of all of them.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;

/// What a process reports about itself.
pub trait Health: Send + Sync + 'static {
    /// Why the process is not ready; `None` if it is.
    fn obstacle(&self) -> Option<&'static str>;

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If they cannot be written.
    fn metrics(&self) -> Result<String, prometheus::Error>;
}

/// Listens on `address`, which takes effect at once. Needs the context of a tokio runtime.
///
/// # Errors
/// If the address is taken or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens on a port of all addresses, IPv6 and IPv4, as far as the machine has them. Needs the
/// context of a tokio runtime.
///
/// # Errors
/// If the port is taken.
pub fn listen_everywhere(port: u16) -> io::Result<Vec<TcpListener>> {
    let six = listen((Ipv6Addr::UNSPECIFIED, port).into());
    // Taken already where a listener of IPv6 takes IPv4 too; the only one where IPv6 is off.
    match (six, listen((Ipv4Addr::UNSPECIFIED, port).into())) {
        (Err(_), Err(error)) => Err(error),
        (six, four) => Ok(six.into_iter().chain(four).collect()),
    }
}

/// Answers `/healthz`, `/readyz` and `/metrics` for as long as it is polled. The tasks of
/// connections end by themselves within seconds.
pub async fn serve(listener: TcpListener, health: Arc<impl Health>) {
    let mut slots = Slots::new(CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: wait for some to be freed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = health.clone();
        slots.spawn(async move {
            // A client that is too slow, or sends no request, gets no answer.
            let _ = tokio::time::timeout(TIMEOUT, exchange(stream, &*health)).await;
        });
    }
}

async fn exchange(stream: TcpStream, health: &impl Health) -> hyper::Result<()> {
    let service = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), health))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(TIMEOUT)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        // A client that asks seldom need not hold a connection in between.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(method: &Method, path: &str, health: &impl Health) -> Response<Full<Bytes>> {
    let line = |text: &str| format!("{text}\n");
    let (code, content) = match path {
        "/healthz" => (StatusCode::OK, line("alive")),
        "/readyz" => match health.obstacle() {
            None => (StatusCode::OK, line("ready")),
            Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, line(obstacle)),
        },
        "/metrics" => match health.metrics() {
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
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What the tests say of themselves.
    #[derive(Default)]
    struct Fixed {
        obstacle: Mutex<Option<&'static str>>,
        broken: Mutex<bool>,
    }

    impl Health for Fixed {
        fn obstacle(&self) -> Option<&'static str> {
            *self.obstacle.lock().unwrap()
        }

        fn metrics(&self) -> Result<String, prometheus::Error> {
            match *self.broken.lock().unwrap() {
                false => Ok("up 1\n".into()),
                true => Err(prometheus::Error::Msg("no such family".into())),
            }
        }
    }

    /// What comes back on one connection, to its end.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The answer may come before all of it is read.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn start() -> (SocketAddr, Arc<Fixed>) {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, health) = (listener.local_addr().unwrap(), Arc::new(Fixed::default()));
        tokio::spawn(serve(listener, health.clone()));
        (address, health)
    }

    #[tokio::test]
    async fn all_addresses_of_the_machine_are_answered_at() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listeners = listen_everywhere(free).unwrap();
        assert!(!listeners.is_empty());
        for listener in listeners {
            tokio::spawn(serve(listener, Arc::new(Fixed::default())));
        }
        let mut addresses = vec!["127.0.0.1"];
        // Where IPv6 is off there is nothing to answer at.
        if std::net::TcpListener::bind("[::1]:0").is_ok() {
            addresses.push("[::1]");
        }
        for address in addresses {
            let mut stream = TcpStream::connect(format!("{address}:{free}")).await.unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with("alive\n"), "{address}: {text}");
        }
        assert!(listen_everywhere(free).is_err(), "it is taken");
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let (address, health) = start().await;
        let get = async |path: &str| {
            let text = exchange(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("connection: close"), "{head}");
            assert!(head.contains("content-type: text/plain; version=0.0.4;"), "{head}");
            (head.split(' ').nth(1).unwrap().parse::<u16>().unwrap(), body.to_owned())
        };
        let expected = |code, text: &str| (code, text.to_owned());
        assert_eq!(get("/readyz").await, expected(200, "ready\n"));
        *health.obstacle.lock().unwrap() = Some("waiting");
        assert_eq!(get("/readyz").await, expected(503, "waiting\n"));
        assert_eq!(get("/healthz").await, expected(200, "alive\n"));
        assert_eq!(get("/metrics").await, expected(200, "up 1\n"));
        *health.broken.lock().unwrap() = true;
        assert_eq!(get("/metrics").await.0, 500);
        assert_eq!(get("/").await.0, 404);
        let refused = exchange(address, "POST /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 405"), "{refused}");
        assert!(refused.contains("allow: GET, HEAD"), "{refused}");
        let head = exchange(address, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[tokio::test]
    async fn an_address_is_taken_once() {
        let (address, _) = start().await;
        assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn what_is_no_short_request_gets_nothing_done() {
        let (address, _) = start().await;
        let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(2 * HEADER_BYTES));
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(2 * HEADERS));
        for request in ["no request\r\n\r\n", &long, &many] {
            let answer = exchange(address, request).await;
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(exchange(address, "GET /healthz HTTP/1.0\r\n\r\n").await.contains("200"));
    }

    #[tokio::test]
    async fn those_who_say_nothing_or_little_keep_nobody_waiting() {
        let (address, _) = start().await;
        let mut silent = Vec::new();
        for number in 0..3 * CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                // The beginning of a request.
                stream.write_all(b"GET /hea").await.unwrap();
            }
            silent.push(stream);
        }
        let began = tokio::time::Instant::now();
        let answer = exchange(address, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() < TIMEOUT / 10, "{:?}", began.elapsed());
        // The first of them are closed, the last are not.
        let mut closed = [0; 1];
        assert!(!matches!(silent[0].read(&mut closed).await, Ok(1..)));
        let last = silent[3 * CONNECTIONS - 1].read(&mut closed);
        assert!(tokio::time::timeout(Duration::from_millis(50), last).await.is_err());
    }
}
