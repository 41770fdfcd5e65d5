//! The dialling side: connects to a server and checks that it is the one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use spdz::channel::Role;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::ConnectError;
use super::framing::{HTTP2_FRAME, MAX_FRAME, WINDOW, excerpt};
use super::shape::{Shaping, Wire};
use super::stream::{ALIVE, Arrival, Outgoing, REPLY};
use super::wire::party_client::PartyClient;
use crate::config::PartyConfig;
use crate::identity::{self, Credentials};

/// Between two attempts to reach a peer that is not there yet.
const RETRY: Duration = Duration::from_millis(20);

/// Nobody is given less time than this for the TLS handshake, if there is as much left.
const SHORTEST: Duration = Duration::from_secs(1);

/// Why an attempt failed.
enum Failure {
    /// Perhaps the peer has not started yet.
    Unreachable(String),
    /// Another attempt would fail alike.
    Final(String),
}

/// Connects to `peer`, trying again until it is there.
pub(super) async fn dial(
    config: &PartyConfig,
    credentials: &Credentials,
    peer: Role,
    queue: usize,
    shaping: Option<&Arc<Shaping>>,
    until: Instant,
) -> Result<Arrival, ConnectError> {
    let Some(address) = config.peers.get(&peer) else {
        return Err(crate::config::ConfigError::Section {
            role: config.role,
            problem: format!("needs `peers.{peer}`"),
        }
        .into());
    };
    let mut seen = String::from("no answer");
    loop {
        let attempt = attempt(config, credentials, peer, queue, shaping, address, until);
        match tokio::time::timeout_at(until.into(), attempt).await {
            Ok(Ok(arrival)) => return Ok(arrival),
            Ok(Err(Failure::Final(reason))) => return Err(ConnectError::Refused { peer, reason }),
            Ok(Err(Failure::Unreachable(reason))) => seen = reason,
            Err(_) => {}
        }
        if Instant::now() + RETRY >= until {
            let detail = format!("{address}: {seen}");
            let waited = config.deadlines.connect();
            return Err(ConnectError::Absent { peer, waited, detail });
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(
    config: &PartyConfig,
    credentials: &Credentials,
    peer: Role,
    queue: usize,
    shaping: Option<&Arc<Shaping>>,
    address: &str,
    until: Instant,
) -> Result<Arrival, Failure> {
    // Whoever takes the connection and says nothing may be gone, and another attempt find the
    // peer: half of the time that is left is for this one. Once a peer has admitted this party
    // there is no other attempt.
    let patience = (until.saturating_duration_since(Instant::now()) / 2).max(SHORTEST);
    let name = identity::name(peer, config.session.0);
    let connecting = connect(credentials, &name, shaping, address);
    let silence = format!("no TLS handshake within {:.1} s", patience.as_secs_f64());
    let stream = tokio::time::timeout(patience, connecting)
        .await
        .map_err(|_| Failure::Unreachable(silence))??;

    let proof = identity::proof(stream.get_ref().get_ref().1)
        .map_err(|error| Failure::Final(error.to_string()))?;
    // The connection is made; the connector hands it over once.
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection ended"));
        std::future::ready(stream)
    });
    let channel: Channel = Endpoint::from_shared(format!("http://{name}"))
        .map_err(|error| Failure::Final(error.to_string()))?
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(HTTP2_FRAME)
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(REPLY)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Failure::Unreachable(with_causes(&error)))?;
    let (sender, receiver) = mpsc::channel(queue);
    let response = PartyClient::new(channel)
        .max_decoding_message_size(MAX_FRAME)
        .max_encoding_message_size(MAX_FRAME)
        .exchange(ReceiverStream::new(receiver))
        .await
        .map_err(|status| match status.code() {
            // Whoever holds this session's only certificate for the role was here first.
            Code::PermissionDenied | Code::AlreadyExists => {
                Failure::Final(excerpt(status.message()))
            }
            _ => Failure::Unreachable(with_causes(&status)),
        })?;
    let outgoing = Outgoing::Request(sender);
    Ok(Arrival { peer, outgoing, incoming: response.into_inner(), proof, renewal: None })
}

/// So little is read ahead that larger reads go around the buffer.
const AHEAD: usize = 64;

/// A connection over which the peer has proved to be who is called `name`, and has accepted this
/// party's certificate.
async fn connect(
    credentials: &Credentials,
    name: &str,
    shaping: Option<&Arc<Shaping>>,
    address: &str,
) -> Result<BufReader<TlsStream<Wire>>, Failure> {
    let unreachable = |error: std::io::Error| Failure::Unreachable(error.to_string());
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let stream = Shaping::wire(shaping, stream).map_err(unreachable)?;
    let server_name =
        ServerName::try_from(name.to_owned()).map_err(|error| Failure::Final(error.to_string()))?;
    let connected = TlsConnector::from(credentials.client.clone()).connect(server_name, stream);
    // A certificate that does not verify comes as invalid data.
    let connected = connected.await.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => Failure::Final(identity::refusal(&error)),
        _ => unreachable(error),
    })?;
    // A server looks at this party's certificate when the handshake is over here. What it sends
    // first are its settings of HTTP/2, or the alert that says what is wrong.
    let mut stream = BufReader::with_capacity(AHEAD, connected);
    match stream.fill_buf().await {
        Ok([]) => Err(Failure::Unreachable("it closed the connection".into())),
        Ok(_) => Ok(stream),
        Err(error) => Err(match identity::refused_for_the_time(&error) {
            Some(reason) => Failure::Final(reason),
            None => unreachable(error),
        }),
    }
}

/// An error and what caused it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    excerpt(&text)
}
