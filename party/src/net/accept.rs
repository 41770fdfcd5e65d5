//! The listening side: servers accept the roles that must talk to them, and no one else.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spdz::channel::Role;
use spdz::prg::SessionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::error::ConnectError;
use super::framing::{HTTP2_FRAME, MAX_FRAME, WINDOW};
use super::shape::{Shaping, Wire};
use super::stream::{Arrival, Outgoing};
use super::wire::Frame;
use super::wire::party_server::{Party, PartyServer};
use crate::config::PartyConfig;
use crate::identity::{self, Credentials};

/// A stranger gets this long for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Handshakes under way at once; more wait in the listener's queue.
const HANDSHAKES: usize = 64;

/// An accepted connection whose peer holds a certificate of this session's authority.
struct Accepted(TlsStream<Wire>);

/// The certificate that the peer proved to hold.
#[derive(Clone)]
struct PeerCertificate(Option<CertificateDer<'static>>);

impl Connected for Accepted {
    type ConnectInfo = PeerCertificate;

    fn connect_info(&self) -> PeerCertificate {
        let (_, connection) = self.0.get_ref();
        let first = connection.peer_certificates().and_then(<[_]>::first);
        PeerCertificate(first.map(|certificate| certificate.clone().into_owned()))
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The gRPC service: admits each expected role once.
struct Gate {
    role: Role,
    session: SessionId,
    expected: Vec<Role>,
    admitted: Mutex<HashSet<Role>>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// Frames that may wait to be sent on one connection.
    queue: usize,
    refusals: Refusals,
}

/// Why connections were refused, for the error when somebody never comes.
#[derive(Clone, Default)]
struct Refusals(Arc<Mutex<(usize, String)>>);

impl Refusals {
    fn add(&self, reason: String) {
        tracing::warn!(reason, "refused a connection");
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals = (refusals.0 + 1, reason);
    }

    fn describe(&self) -> String {
        let refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*refusals {
            (0, _) => "nobody tried".into(),
            (count, last) => format!("{count} connection(s) refused, the last: {last}"),
        }
    }
}

impl Gate {
    fn admit(&self, certificate: Option<&CertificateDer<'_>>) -> Result<Role, Status> {
        let proved = certificate.and_then(|c| identity::role_of(c, self.session));
        let Some(peer) = proved.filter(|peer| self.expected.contains(peer)) else {
            let found = match proved {
                Some(role) => {
                    format!("the certificate of {role}, which does not talk to {}", self.role)
                }
                None => "a certificate that names no role of this session".into(),
            };
            self.refusals.add(found.clone());
            return Err(Status::permission_denied(format!("{} refuses {found}", self.role)));
        };
        let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
        if !admitted.insert(peer) {
            let reason = format!("{peer} is connected already");
            self.refusals.add(reason.clone());
            return Err(Status::already_exists(reason));
        }
        Ok(peer)
    }
}

#[tonic::async_trait]
impl Party for Gate {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let certificate =
            request.extensions().get::<PeerCertificate>().and_then(|peer| peer.0.as_ref());
        let peer = self.admit(certificate)?;
        let (sender, receiver) = mpsc::channel(self.queue);
        let outgoing = Outgoing::Response(sender);
        self.arrivals
            .send(Arrival { peer, outgoing, incoming: request.into_inner() })
            .map_err(|_| Status::unavailable(format!("{} is closing", self.role)))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A server's listener.
pub(super) struct Acceptor {
    expected: Vec<Role>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    refusals: Refusals,
    accepting: tokio::task::AbortHandle,
}

/// Starts to listen for the `expected` peers, if the role does.
pub(super) async fn listen(
    config: &PartyConfig,
    expected: Vec<Role>,
    credentials: &Credentials,
    queue: usize,
    shaping: Option<Arc<Shaping>>,
) -> Result<Option<Acceptor>, ConnectError> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ConnectError::Listen { address, source })?;
    let refusals = Refusals::default();
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let gate = Gate {
        role: config.role,
        session: config.session.0,
        expected: expected.clone(),
        admitted: Mutex::default(),
        arrivals: arrived,
        queue,
        refusals: refusals.clone(),
    };
    let service = PartyServer::new(gate)
        .max_decoding_message_size(MAX_FRAME)
        .max_encoding_message_size(MAX_FRAME);
    let (secured, connections) = mpsc::channel(HANDSHAKES);
    let accepting = tokio::spawn(accept(
        listener,
        TlsAcceptor::from(credentials.server.clone()),
        shaping,
        secured,
        refusals.clone(),
    ));
    let connections = tokio_stream::wrappers::ReceiverStream::new(connections);
    tokio::spawn(
        Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(HTTP2_FRAME)
            .add_service(service)
            .serve_with_incoming(connections),
    );
    Ok(Some(Acceptor { expected, arrivals, refusals, accepting: accepting.abort_handle() }))
}

/// Accepts connections and completes their TLS handshakes, for as long as the runtime lives.
async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    shaping: Option<Arc<Shaping>>,
    secured: mpsc::Sender<std::io::Result<Accepted>>,
    refusals: Refusals,
) {
    let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, address) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                // Out of descriptors, say: wait for some to be freed.
                refusals.add(format!("cannot accept: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, secured, refusals) = (tls.clone(), secured.clone(), refusals.clone());
        let wire = Shaping::wire(shaping.as_ref(), stream);
        tokio::spawn(async move {
            let _slot = slot;
            let handshake = match wire {
                Ok(stream) => tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await,
                Err(error) => Ok(Err(error)),
            };
            let problem = match handshake {
                Ok(Ok(stream)) => {
                    let _ = secured.send(Ok(Accepted(stream))).await;
                    return;
                }
                Ok(Err(error)) => identity::refusal(&error),
                Err(_) => format!("no TLS handshake within {} s", HANDSHAKE.as_secs()),
            };
            refusals.add(format!("{address}: {problem}"));
        });
    }
}

impl Acceptor {
    /// Waits until every expected role has connected, then stops listening: once a
    /// run is under way, strangers get nothing done at its expense.
    pub(super) async fn wait(
        &mut self,
        until: Instant,
        patience: Duration,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), ConnectError> {
        let mut missing = self.expected.clone();
        while let Some(&peer) = missing.first() {
            match tokio::time::timeout_at(until.into(), self.arrivals.recv()).await {
                Ok(Some(arrival)) => {
                    missing.retain(|role| *role != arrival.peer);
                    arrivals.push(arrival);
                }
                Ok(None) | Err(_) => {
                    let detail = self.refusals.describe();
                    return Err(ConnectError::Absent { peer, waited: patience, detail });
                }
            }
        }
        self.accepting.abort();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Computation;
    use spdz::plan::NumberFormat;
    use spdz::protocol::{Protocol, Spdz};
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    const SESSION: SessionId = SessionId([1; 16]);

    fn certificate(role: Role, session: SessionId) -> CertificateDer<'static> {
        let issued = identity::issue(session, &[role]).unwrap();
        let [(_, party)] = &issued.parties[..] else { panic!("one certificate a role") };
        CertificateDer::from_pem_slice(party.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn a_server_admits_the_roles_that_talk_to_it_each_once() {
        let computation = Computation::of_network("A", 1, NumberFormat::Int64);
        let plan = computation.plan().unwrap();
        let gate = Gate {
            role: Role::Server1,
            session: SESSION,
            expected: Spdz::accepts(Role::Server1, plan.graph().players()),
            admitted: Mutex::default(),
            arrivals: mpsc::unbounded_channel().0,
            queue: 1,
            refusals: Refusals::default(),
        };
        let admit = |role, session| gate.admit(Some(&certificate(role, session)));
        for role in [Role::Producer, Role::MODEL_OWNER, Role::CLIENT] {
            assert_eq!(admit(role, SESSION).ok(), Some(role));
            let again = admit(role, SESSION).unwrap_err();
            assert_eq!(again.message(), format!("{role} is connected already"));
        }
        for role in [Role::Server0, Role::Server1, "carol".parse().unwrap()] {
            let refused = admit(role, SESSION).unwrap_err();
            assert!(refused.message().contains(&format!("the certificate of {role}")), "{refused}");
        }
        for stranger in [admit(Role::CLIENT, SessionId([2; 16])), gate.admit(None)] {
            let refused = stranger.unwrap_err();
            assert!(refused.message().contains("names no role of this session"), "{refused}");
        }
        assert!(gate.refusals.describe().starts_with("8 connection(s) refused"));
    }
}
