//! The listening side: servers accept the roles that must talk to them, and no one else.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spdz::channel::Role;
use spdz::prg::SessionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::error::ConnectError;
use super::framing::{HTTP2_FRAME, MAX_FRAME, WINDOW};
use super::shape::{Shaping, Wire};
use super::stream::{ALIVE, Arrival, Outgoing, REPLY, Renewal, Unaccompanied};
use super::wire::Frame;
use super::wire::party_server::{Party, PartyServer};
use crate::config::PartyConfig;
use crate::identity::{self, Credentials, Proof};
use crate::slots::Slots;

/// A stranger gets this long for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Handshakes under way at once; for one more the oldest is ended. A party needs milliseconds.
const HANDSHAKES: usize = 128;

/// After the handshake a peer gets this long for its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(3);

/// Connections of a role at once: the one that counts, and another that is told so.
const CONNECTIONS: usize = 2;

/// How many connections there are by the role that their peers proved, if one.
type Present = Arc<Mutex<HashMap<Option<Role>, usize>>>;

/// A connection's place among those of its role, which it leaves when dropped.
struct Place {
    present: Present,
    role: Option<Role>,
}

impl Place {
    /// A place for one more connection of a role; nothing if there are enough.
    fn take(present: &Present, role: Option<Role>) -> Option<Self> {
        let mut counts = present.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(role).or_default();
        (*count < CONNECTIONS).then(|| {
            *count += 1;
            Self { present: present.clone(), role }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry(self.role).and_modify(|count| *count -= 1);
    }
}

/// An accepted connection whose peer holds a certificate of this session's authority.
struct Accepted {
    stream: TlsStream<Wire>,
    place: Place,
    /// Whether its stream of messages has begun.
    begun: Arc<AtomicBool>,
    /// Until then: how long it may wait.
    patience: Pin<Box<Sleep>>,
    renewal: Renewal,
    unaccompanied: Unaccompanied,
    proof: Proof,
}

impl Accepted {
    /// Renews the keys if that was asked for. Both directions': the peer is asked to follow.
    fn renew(&mut self) -> std::io::Result<bool> {
        let asked = self.renewal.asked() && self.unaccompanied.renew();
        if asked {
            self.stream.get_mut().1.refresh_traffic_keys().map_err(std::io::Error::other)?;
        }
        Ok(asked)
    }

    /// Notes that bytes were taken to be sent, if some were.
    fn sent(&mut self, written: Poll<std::io::Result<usize>>) -> Poll<std::io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.unaccompanied.sent();
        }
        written
    }
}

/// Who the peer of a connection proved to be.
#[derive(Clone)]
struct Peer {
    role: Option<Role>,
    begun: Arc<AtomicBool>,
    renewal: Renewal,
    proof: Proof,
}

impl Connected for Accepted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let (begun, renewal) = (self.begun.clone(), self.renewal.clone());
        Peer { role: self.place.role, begun, renewal, proof: self.proof }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.begun.load(Ordering::Relaxed) && self.patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        // A server that sends nothing on a connection only gets here.
        if self.renew()? {
            // What the socket does not take at once goes out later.
            let _ = Pin::new(&mut self.stream).poll_flush(context)?;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.unaccompanied.received();
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.renew()?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.renew()?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The gRPC service: admits each expected role once.
struct Gate {
    role: Role,
    expected: Vec<Role>,
    admitted: Mutex<HashSet<Role>>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    /// Frames that may wait to be sent on one connection.
    queue: usize,
    refusals: Refusals,
}

/// So many refusals are logged; of more, those whose number is a power of two.
const LOGGED: usize = 32;

/// Connections that were refused: how many, and why the last one, for the error when somebody
/// never comes.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<(usize, String)>>);

impl Refusals {
    /// How many there are so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn add(&self, reason: String) {
        let mut refusals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.0 + 1;
        // Hundreds a second would fill the log.
        if count <= LOGGED || count.is_power_of_two() {
            tracing::warn!(reason, count, "refused a connection");
        }
        *refusals = (count, reason);
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
    fn admit(&self, proved: Option<Role>) -> Result<Role, Status> {
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
        let connection = request.extensions().get::<Peer>();
        let peer = self.admit(connection.and_then(|peer| peer.role))?;
        let proof = connection.map(|connection| connection.proof).unwrap_or_default();
        let renewal = connection.map(|connection| {
            connection.begun.store(true, Ordering::Relaxed);
            connection.renewal.clone()
        });
        let (sender, receiver) = mpsc::channel(self.queue);
        let outgoing = Outgoing::Response(sender);
        self.arrivals
            .send(Arrival { peer, outgoing, incoming: request.into_inner(), proof, renewal })
            .map_err(|_| Status::unavailable(format!("{} is closing", self.role)))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A server's side of its connections, for as long as it has peers.
pub(super) struct Serving {
    end: oneshot::Sender<()>,
    connections: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    /// While it is there more connections may come, and those that there are go on.
    _secured: mpsc::Sender<std::io::Result<Accepted>>,
}

impl Serving {
    /// Has all connections say all that they still have to, the end of each stream with its
    /// status among it, and end. A peer that ended its own side first would otherwise see its
    /// connection break: nothing drives it once this party is done.
    pub(super) async fn finish(self) {
        let Self { end, connections, _secured } = self;
        // It has ended already if nobody listens.
        let _ = end.send(());
        let _ = connections.await;
    }
}

/// A server's listener.
pub(super) struct Acceptor {
    expected: Vec<Role>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    refusals: Refusals,
    /// Why nobody may accept this party's own certificate, if that is so.
    untimely: Option<String>,
    accepting: tokio::task::AbortHandle,
    serving: Serving,
}

/// Starts to listen for the `expected` peers, if the role does.
pub(super) async fn listen(
    config: &PartyConfig,
    expected: Vec<Role>,
    credentials: &Credentials,
    queue: usize,
    shaping: Option<Arc<Shaping>>,
    refusals: Refusals,
) -> Result<Option<Acceptor>, ConnectError> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ConnectError::Listen { address, source })?;
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let gate = Gate {
        role: config.role,
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
        Entrance {
            tls: TlsAcceptor::from(credentials.server.clone()),
            session: config.session.0,
            present: Present::default(),
            secured: secured.clone(),
            refusals: refusals.clone(),
        },
        shaping,
    ));
    let (end, ended) = oneshot::channel::<()>();
    let connections = tokio_stream::wrappers::ReceiverStream::new(connections);
    let serving = tokio::spawn(
        Server::builder()
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(HTTP2_FRAME)
            .http2_keepalive_interval(Some(ALIVE))
            .http2_keepalive_timeout(Some(REPLY))
            .add_service(service)
            .serve_with_incoming_shutdown(connections, async {
                if ended.await.is_err() {
                    // The party goes on with its connections and nobody waits for their end.
                    std::future::pending::<()>().await;
                }
            }),
    );
    Ok(Some(Acceptor {
        expected,
        arrivals,
        refusals,
        untimely: credentials.untimely.clone(),
        accepting: accepting.abort_handle(),
        serving: Serving { end, connections: serving, _secured: secured },
    }))
}

/// Accepts connections and completes their TLS handshakes, for as long as the runtime lives.
async fn accept(listener: TcpListener, entrance: Entrance, shaping: Option<Arc<Shaping>>) {
    let mut slots = Slots::new(HANDSHAKES);
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                // Out of descriptors, say: wait for some to be freed.
                entrance.refusals.add(format!("cannot accept: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let wire = Shaping::wire(shaping.as_ref(), stream);
        let entering = entrance.clone();
        let evicted = slots.spawn(async move {
            if let Err(problem) = entering.enter(wire).await {
                entering.refusals.add(format!("{address}: {problem}"));
            }
        });
        if evicted {
            entrance.refusals.add("a TLS handshake, slower than many that came later".into());
        }
    }
}

/// Where a connection's peer proves who it is.
#[derive(Clone)]
struct Entrance {
    tls: TlsAcceptor,
    session: SessionId,
    present: Present,
    secured: mpsc::Sender<std::io::Result<Accepted>>,
    refusals: Refusals,
}

impl Entrance {
    /// Hands over a connection whose peer has a certificate of the session and a role without
    /// enough connections, or says why not.
    async fn enter(&self, wire: std::io::Result<Wire>) -> Result<(), String> {
        let refused = |error: std::io::Error| identity::refusal(&error);
        let handshake = tokio::time::timeout(HANDSHAKE, self.tls.accept(wire.map_err(refused)?));
        let silence = || format!("no TLS handshake within {} s", HANDSHAKE.as_secs());
        let stream = handshake.await.map_err(|_| silence())?.map_err(refused)?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let role = certificate.and_then(|proof| identity::role_of(proof, self.session));
        let proof = identity::proof(connection).map_err(|error| error.to_string())?;
        let Some(place) = Place::take(&self.present, role) else {
            let who = role.map_or("a certificate without a role".into(), |role| role.to_string());
            return Err(format!("{who} has {CONNECTIONS} connections already"));
        };
        let patience = Box::pin(tokio::time::sleep(FIRST_REQUEST));
        let (begun, renewal) = (Arc::default(), Renewal::default());
        let unaccompanied = Unaccompanied::default();
        let accepted = Accepted { stream, place, begun, patience, renewal, unaccompanied, proof };
        // Nobody takes it if the party ends.
        let _ = self.secured.send(Ok(accepted)).await;
        Ok(())
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
                    // What strangers present says nothing about this clock; its own certificate does.
                    if let Some(reason) = &self.untimely {
                        let reason = format!("{reason} ({detail})");
                        return Err(ConnectError::Refused { peer, reason });
                    }
                    return Err(ConnectError::Absent { peer, waited: patience, detail });
                }
            }
        }
        self.accepting.abort();
        Ok(())
    }

    /// What is left to do when the run is over.
    pub(super) fn into_serving(self) -> Serving {
        self.serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Computation;
    use spdz::plan::NumberFormat;
    use spdz::protocol::{Protocol, Spdz};
    use tokio_rustls::rustls::pki_types::CertificateDer;
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
            expected: Spdz::accepts(Role::Server1, plan.graph().players()),
            admitted: Mutex::default(),
            arrivals: mpsc::unbounded_channel().0,
            queue: 1,
            refusals: Refusals::default(),
        };
        let admit =
            |role, session| gate.admit(identity::role_of(&certificate(role, session), SESSION));
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

    #[test]
    fn a_role_has_few_places_and_leaves_them() {
        let present = Present::default();
        let take = |role| Place::take(&present, role);
        let held: Vec<_> = (0..CONNECTIONS).map(|_| take(Some(Role::Producer)).unwrap()).collect();
        assert!(take(Some(Role::Producer)).is_none());
        let others = [take(Some(Role::CLIENT)), take(None)];
        assert!(others.iter().all(Option::is_some));
        drop(held);
        assert!(take(Some(Role::Producer)).is_some());
    }
}
