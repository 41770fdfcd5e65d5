//! A party's process and peers that are not what they should be, over TLS: who is turned away
//! and with which words, and what a peer's word for a length is worth.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::SQUARES;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame as Part, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use party::config::{MAX_CHUNK_BYTES, PartyConfig};
use party::identity;
use party::net::PROTOCOL_VERSION;
use party::net::wire::{Chunk, Frame, Hello, frame::Content};
use party::termination::{Reason, Termination};
use prost::Message as _;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use spdz::channel::Role;
use spdz::prg::SessionId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::wrappers::ReceiverStream;

const SESSION: SessionId = SessionId([7; 16]);
const OTHER_SESSION: SessionId = SessionId([8; 16]);

/// Whatever is waited for is there within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority whose key the test keeps.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate and its key.
struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    /// All have the same name.
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate of that role in that session, good until that year.
    fn issue(&self, role: Role, session: SessionId, until: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([identity::name(role, session)]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key }
    }

    fn genuine(&self, role: Role) -> Identity {
        self.issue(role, SESSION, 3000)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// A client that knows this authority, and shows that certificate or none.
    fn client(&self, identity: Option<&Identity>) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(Arc::new(identity::provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(identity) => {
                config.with_client_auth_cert(identity.chain(), identity.private_key()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

impl Identity {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

fn alice() -> Role {
    "alice".parse().unwrap()
}

/// The process of a party in a computation between the servers and alice.
struct Process {
    folder: TempDir,
    config: PartyConfig,
    child: Child,
}

impl Process {
    /// Plays `role` with the genuine certificate; `places` says where it listens or dials.
    fn start(authority: &Authority, role: Role, places: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let identity = authority.genuine(role);
        write("tls.crt", &identity.certificate.pem());
        write("tls.key", &identity.key.serialize_pem());
        write("ca.crt", &authority.certificate.pem());
        let text = format!(
            "
role: {role}
session: {SESSION}
{SQUARES}
identity: {{ certificate: tls.crt, key: tls.key, authority: ca.crt }}
deadlines: {{ connectSeconds: 20, messageSeconds: 5 }}
{places}
"
        );
        write("party.yaml", &text);
        let config = PartyConfig::load(&folder.path().join("party.yaml")).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_party"))
            .args(["--config", "party.yaml", "--termination-message", "end.json"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, config, child }
    }

    /// A server that listens on a port of its own.
    fn server(authority: &Authority) -> (Self, SocketAddr) {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        (Self::start(authority, Role::Server0, &format!("listen: {address}")), address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Why it has refused connections so far.
    fn refusals(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap();
        let lines = log.lines().filter(|line| line.ends_with('}'));
        lines
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|line| line["message"] == "refused a connection")
            .map(|line| line["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    fn end(&mut self) -> (ExitStatus, Termination) {
        let status = eventually("the party's end", || self.child.try_wait().unwrap());
        let text = fs::read_to_string(self.path("end.json"));
        let log = || fs::read_to_string(self.path("log")).unwrap();
        let text = text.unwrap_or_else(|_| panic!("{status}, it left no message: {}", log()));
        (status, Termination::parse(&text).unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn tcp(address: SocketAddr) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A stream to a server whose bytes are the test's.
struct Line {
    sender: mpsc::Sender<Result<Part<Bytes>, Infallible>>,
    body: Incoming,
}

impl Line {
    /// Opens the stream to server 0; an error if it does not let it.
    async fn open(address: SocketAddr, config: ClientConfig) -> Result<Self, String> {
        Self::open_to(Role::Server0, address, config).await
    }

    async fn open_to(
        server: Role,
        address: SocketAddr,
        config: ClientConfig,
    ) -> Result<Self, String> {
        let said = |error: &dyn std::error::Error| error.to_string();
        let name = ServerName::try_from(identity::name(server, SESSION)).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, tcp(address).await).await.map_err(|e| said(&e))?;
        let (mut requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .map_err(|e| said(&e))?;
        tokio::spawn(connection);
        let (sender, parts) = mpsc::channel(16);
        let request = hyper::Request::post(format!(
            "https://{}/secureinference.party.v1.Party/Exchange",
            identity::name(server, SESSION)
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(ReceiverStream::new(parts)))
        .unwrap();
        let response = requests.send_request(request).await.map_err(|e| said(&e))?;
        match response.headers().get("grpc-message") {
            Some(refusal) => Err(refusal.to_str().unwrap().to_owned()),
            None => Ok(Self { sender, body: response.into_body() }),
        }
    }

    async fn send(&self, bytes: impl Into<Bytes>) {
        self.sender.send(Ok(Part::data(bytes.into()))).await.unwrap();
    }

    /// Takes what the server says until it ends the stream.
    async fn drain(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }

    /// Ends this side at once, and takes what the server says until it ends its own: with which
    /// status, or how the stream broke.
    async fn half_close(self) -> String {
        let Self { sender, mut body } = self;
        drop(sender);
        let mut status = String::from("no status");
        while let Some(part) = body.frame().await {
            match part {
                Ok(part) => {
                    if let Some(trailers) = part.trailers_ref() {
                        status = format!("status {:?}", trailers.get("grpc-status").unwrap());
                    }
                }
                Err(error) => return format!("the stream broke: {error}"),
            }
        }
        status
    }
}

/// What a client of TLS 1.2 begins with, as OpenSSL sends it.
const CLIENT_HELLO_OF_TLS12: [u8; 136] = *b"\
\x16\x03\x01\x00\x83\x01\x00\x00\x7f\x03\x03\xf0\x1d\x40\x33\xfb\x11\x47\xfb\x71\x50\x70\xe8\xab\
\x2b\xe9\x9c\xa8\x1e\x63\xe1\xa8\x1e\xfa\x61\x3a\x90\xac\x24\xe9\xc1\xfb\x1f\x00\x00\x04\xc0\x2b\
\x00\xff\x01\x00\x00\x52\x00\x0b\x00\x04\x03\x00\x01\x02\x00\x0a\x00\x0c\x00\x0a\x00\x1d\x00\x17\
\x00\x1e\x00\x19\x00\x18\x00\x23\x00\x00\x00\x16\x00\x00\x00\x17\x00\x00\x00\x0d\x00\x2a\x00\x28\
\x04\x03\x05\x03\x06\x03\x08\x07\x08\x08\x08\x09\x08\x0a\x08\x0b\x08\x04\x08\x05\x08\x06\x04\x01\
\x05\x01\x06\x01\x03\x03\x03\x01\x03\x02\x04\x02\x05\x02\x06\x02";

#[tokio::test]
async fn a_server_turns_strangers_away_and_says_which() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (mut server, address) = Process::server(&ours);
    let issued = |authority: &Authority, role, session, until| {
        ours.client(Some(&authority.issue(role, session, until)))
    };
    let strangers = [
        (ours.client(None), "it presented no certificate"),
        (issued(&ours, Role::Producer, SESSION, 2020), "its certificate has expired"),
        (
            issued(&other, Role::Producer, SESSION, 3000),
            "its certificate is from another authority than this session's",
        ),
        (
            issued(&ours, Role::Server0, SESSION, 3000),
            "the certificate of server0, which does not talk to server0",
        ),
        (
            issued(&ours, "mallory".parse().unwrap(), SESSION, 3000),
            "the certificate of mallory, which does not talk to server0",
        ),
        (
            issued(&ours, Role::Producer, OTHER_SESSION, 3000),
            "a certificate that names no role of this session",
        ),
    ];
    let mut refusals = 0;
    for (stranger, expected) in strangers {
        let refused = Line::open(address, stranger).await.err();
        assert!(refused.is_some(), "{expected}: was let in");
        refusals += 1;
        let found = eventually(expected, || server.refusals().get(refusals - 1).cloned());
        assert!(found.contains(expected), "{found}, expected {expected}");
    }

    let mut old = tcp(address).await;
    old.write_all(&CLIENT_HELLO_OF_TLS12).await.unwrap();
    let mut alert = Vec::new();
    old.read_to_end(&mut alert).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 70]);
    let expected = "it does not speak TLS 1.3, and no older version is spoken here";
    let found = eventually(expected, || server.refusals().get(refusals).cloned());
    assert!(found.ends_with(expected), "{found}");

    // Nobody was admitted in the place of those who belong here.
    let genuine = |role| ours.client(Some(&ours.genuine(role)));
    let mut lines = Vec::new();
    for role in [Role::Server1, Role::Producer, alice()] {
        lines.push(Line::open(address, genuine(role)).await.unwrap());
    }
    assert!(server.child.try_wait().unwrap().is_none());
    assert_eq!(server.refusals().len(), refusals + 1);
}

#[tokio::test]
async fn a_party_leaves_at_once_if_the_server_it_dials_is_another() {
    let (ours, other) = (Authority::new(), Authority::new());
    for (identity, expected) in [
        (ours.issue(Role::Server0, SESSION, 2020), "its certificate has expired"),
        (
            other.genuine(Role::Server0),
            "its certificate is from another authority than this session's",
        ),
        (ours.genuine(Role::Server1), "its certificate is another role's, or of another session"),
        (
            ours.issue(Role::Server0, OTHER_SESSION, 3000),
            "its certificate is another role's, or of another session",
        ),
    ] {
        let config = ServerConfig::builder_with_provider(Arc::new(identity::provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain(), identity.private_key())
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = format!("peers: {{ server0: '{address}', server1: '{address}' }}");
        let mut producer = Process::start(&ours, Role::Producer, &peers);
        let stream = listener.accept().await.unwrap().0;
        assert!(TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err(), "{expected}");
        let (status, termination) = producer.end();
        assert_eq!(status.code(), Some(3), "{termination:?}");
        let failure = termination.failure.unwrap();
        assert_eq!(failure.reason, Reason::Disagreement);
        let expected = format!("server0 and this party do not accept each other: {expected}");
        assert!(failure.message.starts_with(&expected), "{}", failure.message);
    }
}

/// A gRPC message: whether it is compressed, its length, itself.
fn message(compressed: u8, declared: u32, bytes: &[u8]) -> Vec<u8> {
    [&[compressed][..], &declared.to_be_bytes(), bytes].concat()
}

fn frame(content: Content) -> Vec<u8> {
    let frame = Frame { content: Some(content) }.encode_to_vec();
    message(0, frame.len() as u32, &frame)
}

/// Room for the frames that are agreed, for threads and for what the allocator sets aside.
const ROOM: u64 = 64 << 20;

/// Limits a process to the address space that it has and [`ROOM`], so that it could not survive
/// taking more.
fn limit(process: &Child) {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kilobytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let limit = Some((kilobytes << 10) + ROOM);
    let limit = Rlimit { current: limit, maximum: limit };
    prlimit(Some(Pid::from_child(process)), Resource::As, limit).unwrap();
}

#[tokio::test]
async fn what_a_peer_declares_takes_no_memory_and_is_told_by_name() {
    let authority = Authority::new();
    let chunk = |length: u64, bytes: usize| {
        frame(Content::Chunk(Chunk {
            session: Bytes::copy_from_slice(&SESSION.0),
            phase: 0,
            inference: 0,
            step: 0,
            sequence: 0,
            length,
            data: vec![9; bytes].into(),
        }))
    };
    // Field 2 of a frame is a chunk, whose field 7 is its data.
    let nested = [&[0x12, 0x0a, 0x3a][..], &[0xff; 8], &[0x7f]].concat();
    let too_long = format!("found {} bytes", u32::MAX);
    let room = MAX_CHUNK_BYTES as u32 + 1025;
    // What is sent in place of the introduction or after it, and what the server says of it.
    let cases = [
        (false, message(0, u32::MAX, b""), too_long.as_str()),
        (false, message(0, room, b""), "what is no frame"),
        (false, message(1, 20, &[0; 20]), "what is no frame"),
        (false, message(0, nested.len() as u32, &nested), "what is no frame"),
        (true, message(0, u32::MAX, b""), too_long.as_str()),
        (true, chunk(u64::MAX, 32), "sent 18446744073709551615 bytes, expected 32"),
        (true, chunk(1 << 40, 32), "sent 1099511627776 bytes, expected 32"),
        (true, chunk(32, MAX_CHUNK_BYTES), "sent 4194304 bytes, expected 32"),
        (true, chunk(32, 0), "sent 0 bytes, expected 32"),
    ];
    for (introduced, bytes, expected) in cases {
        let (mut server, address) = Process::server(&authority);
        let plan = server.config.computation.plan().unwrap();
        let hello = |role: Role| {
            frame(Content::Hello(Hello {
                protocol_version: PROTOCOL_VERSION,
                session: Bytes::copy_from_slice(&SESSION.0),
                role: role.name().into(),
                plan_digest: Bytes::copy_from_slice(&plan.digest().0),
                plan_summary: String::new(),
            }))
        };
        let open = |role| Line::open(address, authority.client(Some(&authority.genuine(role))));
        let (server1, player) = (open(Role::Server1).await.unwrap(), open(alice()).await.unwrap());
        limit(&server.child);
        let producer = open(Role::Producer).await.unwrap();
        server1.send(hello(Role::Server1)).await;
        player.send(hello(alice())).await;
        if introduced {
            producer.send(hello(Role::Producer)).await;
        }
        producer.send(bytes).await;
        let lines = [server1, player, producer].map(|line| tokio::spawn(line.drain()));
        let (status, termination) =
            tokio::task::spawn_blocking(move || server.end()).await.unwrap();
        assert_eq!(status.code(), Some(3), "{expected}: {termination:?}");
        let message = termination.failure.unwrap().message;
        assert!(message.contains("producer") && message.contains(expected), "{message}");
        for line in lines {
            line.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_at_once_is_told_the_status_by_both_servers() {
    let authority = Authority::new();
    // What is late may come in time now and then.
    for round in 0..5 {
        let (server0, address0) = Process::server(&authority);
        let address1 = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let peers = format!("server0: '{address0}'");
        let places = format!("listen: {address1}\npeers: {{ {peers} }}");
        let server1 = Process::start(&authority, Role::Server1, &places);
        let places = format!("peers: {{ {peers}, server1: '{address1}' }}");
        let producer = Process::start(&authority, Role::Producer, &places);
        let plan = server0.config.computation.plan().unwrap();
        let client = || authority.client(Some(&authority.genuine(alice())));
        let open = |server, address| Line::open_to(server, address, client());
        let lines = [
            open(Role::Server0, address0).await.unwrap(),
            open(Role::Server1, address1).await.unwrap(),
        ];
        let session = Bytes::copy_from_slice(&SESSION.0);
        for line in &lines {
            let hello = Hello {
                protocol_version: PROTOCOL_VERSION,
                session: session.clone(),
                role: alice().name().into(),
                plan_digest: Bytes::copy_from_slice(&plan.digest().0),
                plan_summary: String::new(),
            };
            line.send(frame(Content::Hello(hello))).await;
            // The first command, `control 0 0`: finish.
            let finish = Chunk {
                session: session.clone(),
                phase: 3,
                inference: 0,
                step: 0,
                sequence: 0,
                length: 1,
                data: Bytes::from_static(&[2]),
            };
            line.send(frame(Content::Chunk(finish))).await;
        }
        let [first, second] = lines.map(|line| tokio::spawn(line.half_close()));
        for (server, said) in [("server0", first), ("server1", second)] {
            assert_eq!(said.await.unwrap(), "status \"0\"", "{server} in round {round}");
        }
        for mut process in [server0, server1, producer] {
            let (status, termination) =
                tokio::task::spawn_blocking(move || process.end()).await.unwrap();
            assert_eq!(status.code(), Some(0), "{termination:?}");
        }
    }
}

/// The time of a clock that is slow by decades.
#[derive(Debug)]
struct SlowClock;

impl TimeProvider for SlowClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(1000)))
    }
}

#[tokio::test]
async fn a_party_whose_certificate_is_refused_for_the_time_says_so_at_once() {
    let ours = Authority::new();
    let provider = Arc::new(identity::provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(ours.roots()), provider.clone());
    let identity = ours.genuine(Role::Server0);
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(SlowClock))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(identity.chain(), identity.private_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers = format!("peers: {{ server0: '{address}', server1: '{address}' }}");
    let mut producer = Process::start(&ours, Role::Producer, &peers);
    let stream = listener.accept().await.unwrap().0;
    let refused = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    assert!(refused.is_err());
    let (status, termination) = producer.end();
    let message = termination.failure.unwrap().message;
    assert_eq!(status.code(), Some(3), "{message}");
    assert!(message.contains("by its clock this party's certificate has expired"), "{message}");
    assert!(message.contains("check the clocks of both"), "{message}");
}
