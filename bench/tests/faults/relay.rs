//! Between the parties: a relay that holds the certificates of all roles, so that it sees every
//! message and decides what becomes of it. To the parties it is their peer.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use party::config::{MAX_CHUNK_BYTES, PartyConfig};
use party::identity::{self, Credentials};
use party::net::wire::frame::Content;
use party::net::wire::party_client::PartyClient;
use party::net::wire::party_server::{Party, PartyServer};
use party::net::wire::{Chunk, Frame};
use spdz::channel::{Phase, Role, Tag};
use spdz::prg::SessionId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Server, Uri};
use tonic::{Request, Response, Status, Streaming};

/// Largest frame, bytes.
const MAX_FRAME: usize = MAX_CHUNK_BYTES + 1024;

/// What was passed on is given this long to arrive before a connection is cut.
const ARRIVAL: Duration = Duration::from_millis(50);

/// Identifies a frame of a session: who sends it to whom, and its number in that direction, the
/// introduction being 0. The messages of these tests are one frame each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) from: Role,
    pub(crate) to: Role,
    pub(crate) number: u64,
}

/// What becomes of a frame.
pub(crate) enum Verdict {
    Pass,
    /// Other frames, or none, are there in its place.
    Replace(Vec<Frame>),
    /// It is late.
    Delay(Duration),
    /// It passes, and then this happens.
    Then(Box<dyn FnOnce() + Send>),
    /// From now on nothing gets through in either direction, and neither side is told.
    Silence,
    /// Both connections end without a word.
    Cut,
}

/// What becomes of a connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Relay,
    /// It is closed.
    Close,
    /// It stays open, and nothing is ever said.
    Ignore,
}

/// Decides. It is called by one thread at a time.
pub(crate) trait Rule: Send {
    fn frame(&mut self, place: Place, frame: &Frame) -> Verdict;

    /// For the `number`-th connection to `server`, counted from 0.
    fn connection(&mut self, _server: Role, _number: usize) -> Admission {
        Admission::Relay
    }
}

/// Passes everything on.
impl Rule for () {
    fn frame(&mut self, _: Place, _: &Frame) -> Verdict {
        Verdict::Pass
    }
}

/// Any other rule, for frames alone.
impl<F: FnMut(Place, &Frame) -> Verdict + Send> Rule for F {
    fn frame(&mut self, place: Place, frame: &Frame) -> Verdict {
        self(place, frame)
    }
}

/// The tag of the message that a frame belongs to; none for an introduction or an abort.
pub(crate) fn tag(frame: &Frame) -> Option<Tag> {
    let Some(Content::Chunk(chunk)) = &frame.content else { return None };
    let phase = Phase::ALL[usize::try_from(chunk.phase).unwrap()];
    Some(Tag::new(phase, chunk.inference, chunk.step))
}

/// The chunk of a frame.
pub(crate) fn chunk(frame: &Frame) -> Option<&Chunk> {
    match &frame.content {
        Some(Content::Chunk(chunk)) => Some(chunk),
        _ => None,
    }
}

/// A frame that holds a chunk.
pub(crate) fn of_chunk(chunk: Chunk) -> Frame {
    Frame { content: Some(Content::Chunk(chunk)) }
}

/// A running relay; all its connections end with it.
pub(crate) struct Relay {
    runtime: Option<Runtime>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Relay {
    /// Puts a relay in front of both servers of `configs`, whose peers then dial it.
    pub(crate) fn start(configs: &mut [PartyConfig], rule: impl Rule + 'static) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let session = configs[0].session.0;
        let load = |config: &PartyConfig| {
            let credentials = Credentials::load(&config.identity, config.role, session).unwrap();
            (config.role, credentials)
        };
        let shared = Arc::new(Shared {
            session,
            credentials: configs.iter().map(load).collect(),
            rule: Mutex::new(Box::new(rule)),
            sent: Mutex::default(),
        });
        for server in [Role::Server0, Role::Server1] {
            let real = configs.iter().find(|config| config.role == server).unwrap();
            let gate = Gate { server, real: real.listen.unwrap(), shared: shared.clone() };
            let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
            let address = listener.local_addr().unwrap();
            runtime.spawn(accept(listener, gate));
            for config in configs.iter_mut() {
                if let Some(peer) = config.peers.get_mut(&server) {
                    *peer = address.to_string();
                }
            }
        }
        Self { runtime: Some(runtime) }
    }
}

struct Shared {
    session: SessionId,
    credentials: BTreeMap<Role, Credentials>,
    rule: Mutex<Box<dyn Rule>>,
    /// How many frames each has sent to each.
    sent: Mutex<BTreeMap<(Role, Role), u64>>,
}

/// In front of a server.
#[derive(Clone)]
struct Gate {
    server: Role,
    real: SocketAddr,
    shared: Arc<Shared>,
}

/// A connection that was accepted in the server's name.
struct Accepted {
    stream: TlsStream<TcpStream>,
    peer: Dialler,
}

/// Who dialled, and the handle that ends its connection.
#[derive(Clone)]
struct Dialler {
    role: Role,
    socket: Arc<std::net::TcpStream>,
}

impl Connected for Accepted {
    type ConnectInfo = Dialler;

    fn connect_info(&self) -> Dialler {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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

/// A stream and a second handle of its socket.
fn with_handle(stream: TcpStream) -> (TcpStream, Arc<std::net::TcpStream>) {
    let stream = stream.into_std().unwrap();
    let handle = Arc::new(stream.try_clone().unwrap());
    stream.set_nodelay(true).unwrap();
    (TcpStream::from_std(stream).unwrap(), handle)
}

async fn accept(listener: TcpListener, gate: Gate) {
    let (secured, connections) = mpsc::unbounded_channel::<std::io::Result<Accepted>>();
    let service = PartyServer::new(gate.clone())
        .max_decoding_message_size(MAX_FRAME)
        .max_encoding_message_size(MAX_FRAME);
    let incoming = UnboundedReceiverStream::new(connections);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let mut ignored = Vec::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let admission = gate.shared.rule.lock().unwrap().connection(gate.server, number);
        match admission {
            Admission::Relay => {}
            Admission::Close => continue,
            Admission::Ignore => {
                ignored.push(stream);
                continue;
            }
        }
        let (gate, secured) = (gate.clone(), secured.clone());
        tokio::spawn(async move {
            let (stream, socket) = with_handle(stream);
            let server = gate.shared.credentials[&gate.server].server.clone();
            // Who is turned away comes again, or says why it does not.
            let Ok(stream) = TlsAcceptor::from(server).accept(stream).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let role = identity::role_of(&certificate, gate.shared.session).unwrap();
            let peer = Dialler { role, socket };
            let _ = secured.send(Ok(Accepted { stream, peer }));
        });
    }
}

#[tonic::async_trait]
impl Party for Gate {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let dialler = request.extensions().get::<Dialler>().unwrap().clone();
        let (to_server, for_server) = mpsc::channel(64);
        let (from_server, socket) = self
            .dial(dialler.role, ReceiverStream::new(for_server))
            .await
            .map_err(|error| Status::unavailable(format!("the relay cannot dial: {error:#}")))??;
        let (to_dialler, for_dialler) = mpsc::channel(64);
        let pipe = |from, to, ours: &Arc<std::net::TcpStream>, its: &Arc<std::net::TcpStream>| {
            Pipe { from, to, shared: self.shared.clone(), sockets: [ours.clone(), its.clone()] }
        };
        let silent = Arc::new(AtomicBool::new(false));
        let forth = pipe(dialler.role, self.server, &dialler.socket, &socket);
        let back = pipe(self.server, dialler.role, &socket, &dialler.socket);
        let deaf = silent.clone();
        tokio::spawn(async move {
            forth.run(request.into_inner(), Outgoing::Request(to_server), &silent).await;
        });
        tokio::spawn(async move {
            back.run(from_server, Outgoing::Response(to_dialler), &deaf).await;
        });
        Ok(Response::new(ReceiverStream::new(for_dialler)))
    }
}

impl Gate {
    /// Connects to the server in the name of `role`; the inner error is the server's answer.
    async fn dial(
        &self,
        role: Role,
        frames: ReceiverStream<Frame>,
    ) -> anyhow::Result<Result<(Streaming<Frame>, Arc<std::net::TcpStream>), Status>> {
        let (stream, socket) = with_handle(TcpStream::connect(self.real).await?);
        let name = identity::name(self.server, self.shared.session);
        let client = self.shared.credentials[&role].client.clone();
        let stream =
            TlsConnector::from(client).connect(ServerName::try_from(name.clone())?, stream).await?;
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection ended"));
            std::future::ready(stream)
        });
        let channel = Endpoint::from_shared(format!("http://{name}"))?
            .connect_with_connector(connector)
            .await?;
        let mut client = PartyClient::new(channel)
            .max_decoding_message_size(MAX_FRAME)
            .max_encoding_message_size(MAX_FRAME);
        let answer = client.exchange(frames).await;
        Ok(answer.map(|response| (response.into_inner(), socket)))
    }
}

/// Where frames go on.
enum Outgoing {
    Request(mpsc::Sender<Frame>),
    Response(mpsc::Sender<Result<Frame, Status>>),
}

impl Outgoing {
    /// Whether the frame was taken.
    async fn send(&self, frame: Frame) -> bool {
        match self {
            Self::Request(sender) => sender.send(frame).await.is_ok(),
            Self::Response(sender) => sender.send(Ok(frame)).await.is_ok(),
        }
    }
}

/// One direction of a connection.
struct Pipe {
    from: Role,
    to: Role,
    shared: Arc<Shared>,
    /// Of the sender, and of the receiver.
    sockets: [Arc<std::net::TcpStream>; 2],
}

impl Pipe {
    async fn run(self, mut frames: Streaming<Frame>, outgoing: Outgoing, silent: &AtomicBool) {
        loop {
            let frame = match frames.message().await {
                Ok(Some(frame)) => frame,
                // It ends in good order, as this does when it is dropped.
                Ok(None) if !silent.load(Ordering::SeqCst) => return,
                Err(_) if !silent.load(Ordering::SeqCst) => return self.cut().await,
                _ => return std::future::pending().await,
            };
            if silent.load(Ordering::SeqCst) {
                continue;
            }
            let place = {
                let mut sent = self.shared.sent.lock().unwrap();
                let number = sent.entry((self.from, self.to)).or_default();
                *number += 1;
                Place { from: self.from, to: self.to, number: *number - 1 }
            };
            let verdict = self.shared.rule.lock().unwrap().frame(place, &frame);
            let passed = match verdict {
                Verdict::Pass => outgoing.send(frame).await,
                Verdict::Replace(frames) => {
                    for frame in frames {
                        outgoing.send(frame).await;
                    }
                    true
                }
                Verdict::Delay(time) => {
                    tokio::time::sleep(time).await;
                    outgoing.send(frame).await
                }
                Verdict::Then(act) => {
                    let passed = outgoing.send(frame).await;
                    act();
                    passed
                }
                Verdict::Silence => {
                    silent.store(true, Ordering::SeqCst);
                    true
                }
                Verdict::Cut => return self.cut().await,
            };
            if !passed {
                return;
            }
        }
    }

    async fn cut(&self) {
        tokio::time::sleep(ARRIVAL).await;
        for socket in &self.sockets {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
