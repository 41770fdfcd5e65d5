//! Certificates: who issues them, and which role one proves.
//!
//! A session has its own authority. It signs one certificate a role, whose
//! subject alternative name is the role's name in that session, and is then
//! forgotten. A party trusts that authority alone, so a certificate of another
//! session, or of another role, opens nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{Timestamp, Unit};
use spdz::channel::Role;
use spdz::prg::SessionId;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::{self, kx_group::X25519MLKEM768};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::Signer;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, ConnectionCommon, PeerIncompatible,
    RootCertStore, ServerConfig, SideData, SignatureScheme,
};
use zeroize::Zeroize;

use crate::config::Identity;

/// The cryptography of connections between parties. Keys are agreed on with X25519 and ML-KEM-768
/// together, and in no other way: what is recorded today must stay secret from whoever breaks
/// elliptic curves later, since seeds and masked inputs together are the inputs.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![X25519MLKEM768], ..aws_lc_rs::default_provider() }
}

/// What the two ends of a connection know of it when its peers have proved who they are.
#[derive(Clone, Copy, Default)]
pub(crate) struct Proof {
    /// The digest of the peer's certificate.
    pub(crate) certificate: [u8; 32],
    /// A key that both ends have and nobody else, for digests of messages.
    pub(crate) digests: [u8; 32],
}

/// What is known of a connection after its handshake.
///
/// # Errors
/// If the handshake is not over.
pub(crate) fn proof<S: SideData>(connection: &ConnectionCommon<S>) -> Result<Proof, rustls::Error> {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map_or([0; 32], |proof| *blake3::hash(proof).as_bytes());
    let label = b"EXPERIMENTAL secure-inference transcript";
    let digests = connection.export_keying_material([0; 32], label, None)?;
    Ok(Proof { certificate, digests })
}

/// A party's certificate, and what signs with its key.
///
/// # Errors
/// If a file cannot be read, or the key is of no kind that signs here.
pub(crate) fn signer(files: &Identity) -> Result<(Vec<u8>, Box<dyn Signer>), IdentityError> {
    let problem = |path: &Path, problem: String| IdentityError::File { path: path.into(), problem };
    let certificate = CertificateDer::from_pem_file(&files.certificate)
        .map_err(|error| problem(&files.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| problem(&files.key, error.to_string()))?;
    let key = aws_lc_rs::sign::any_supported_type(&key)
        .map_err(|error| problem(&files.key, error.to_string()))?;
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let signer = key.choose_scheme(&schemes);
    let signer = signer.ok_or_else(|| problem(&files.key, "it does not sign".into()))?;
    Ok((certificate.to_vec(), signer))
}

/// Whether the certificate's key has signed the message.
pub(crate) fn has_signed(
    certificate: &CertificateDer<'_>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
    let algorithms = provider().signature_verification_algorithms.all;
    algorithms
        .iter()
        .any(|algorithm| certificate.verify_signature(*algorithm, message, signature).is_ok())
}

/// Whether the authority issued the certificate, be it expired by now or not.
pub(crate) fn is_issued_by(
    certificate: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> bool {
    let (Ok(certificate), Ok(anchor)) =
        (webpki::EndEntityCert::try_from(certificate), webpki::anchor_from_trusted_cert(authority))
    else {
        return false;
    };
    let valid = |at: UnixTime| {
        let algorithms = provider().signature_verification_algorithms.all;
        let (anchors, usage) = (std::slice::from_ref(&anchor), webpki::KeyUsage::client_auth());
        certificate.verify_for_usage(algorithms, anchors, &[], at, usage, None, None).map(drop)
    };
    // A time at which it is valid, if it is not valid now.
    match valid(UnixTime::now()) {
        Err(webpki::Error::CertExpired { not_after, .. }) => valid(not_after).is_ok(),
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => valid(not_before).is_ok(),
        valid => valid.is_ok(),
    }
}

/// What is wrong with a party's identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be used.
    #[error("cannot use {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The certificate is another role's or another session's.
    #[error("{} is not the certificate of {role} in session {session}: it must carry the name {name}", path.display())]
    Role {
        /// The file.
        path: PathBuf,
        /// The configured role.
        role: Role,
        /// The configured session.
        session: SessionId,
        /// The name that the certificate lacks.
        name: String,
    },
    /// The certificates could not be made.
    #[error("cannot issue certificates: {0}")]
    Issue(#[from] rcgen::Error),
}

/// The name of a role in a session, as certificates carry it.
#[must_use]
pub fn name(role: Role, session: SessionId) -> String {
    format!("{role}.{session}.secure-inference.internal")
}

/// The role that a certificate proves in `session`, if it proves one.
#[must_use]
pub fn role_of(certificate: &CertificateDer<'_>, session: SessionId) -> Option<Role> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    // Its names only say which roles to ask for.
    let labels = certificate.valid_dns_names().filter_map(|name| name.split('.').next());
    labels.filter_map(|label| label.parse().ok()).find(|role: &Role| {
        ServerName::try_from(name(*role, session))
            .is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
    })
}

/// What a certificate and the clock of this process do not agree on, if that is the problem.
fn clocks(problem: &CertificateError) -> Option<String> {
    let at = |time: UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or("a time out of range".into(), |at| at.to_string())
    };
    match *problem {
        CertificateError::ExpiredContext { time, not_after } => Some(format!(
            "has expired at {}, and it is {} by this clock: check the clocks of both, or issue \
             certificates anew",
            at(not_after),
            at(time)
        )),
        CertificateError::NotValidYetContext { time, not_before } => Some(format!(
            "is not valid before {}, and it is {} by this clock: check the clocks of both",
            at(not_before),
            at(time)
        )),
        _ => None,
    }
}

/// What TLS says of a connection that failed.
fn of_tls(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|reason| reason.downcast_ref())
}

/// Whether a peer that proved who it is refused this party's certificate because of the time.
#[must_use]
pub(crate) fn refused_for_the_time(error: &std::io::Error) -> Option<String> {
    let expired = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    (of_tls(error) == Some(&expired)).then(|| {
        format!(
            "by its clock this party's certificate has expired, or is not valid yet; it is {} by \
             this clock: check the clocks of both",
            Timestamp::now().round(Unit::Second).unwrap_or_else(|_| Timestamp::now())
        )
    })
}

/// Why a TLS handshake with a peer failed, in words for whoever reads the log of one side.
#[must_use]
pub(crate) fn refusal(error: &std::io::Error) -> String {
    if let Some(text) = refused_for_the_time(error) {
        return text;
    }
    let reason = of_tls(error);
    if let Some(rustls::Error::InvalidCertificate(problem)) = reason
        && let Some(text) = clocks(problem)
    {
        return format!("its certificate {text}");
    }
    let reason = match reason {
        Some(rustls::Error::NoCertificatesPresented) => "it presented no certificate",
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled,
        )) => "it does not speak TLS 1.3, and no older version is spoken here",
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired,
        )) => "it does not offer the hybrid key exchange X25519MLKEM768, and no other is used here",
        // It does not say what it lacks.
        Some(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)) => {
            "it has no cipher suite or key exchange in common with this party, whose key exchange is \
             X25519MLKEM768 alone"
        }
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is from another authority than this session's"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is another role's, or of another session"
            }
            _ => return error.to_string(),
        },
        _ => return error.to_string(),
    };
    reason.into()
}

/// The certificates of a session, PEM.
pub struct Issued {
    /// The authority's certificate.
    pub authority: String,
    /// Each role's certificate and private key.
    pub parties: Vec<(Role, IssuedParty)>,
}

/// One role's certificate and private key, PEM; the key is wiped when dropped.
pub struct IssuedParty {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

impl Drop for IssuedParty {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Makes an authority, issues a certificate for each of `roles`, and forgets the authority's key.
/// The certificates do not expire: the session ends before.
///
/// # Errors
/// If there is no randomness.
pub fn issue(session: SessionId, roles: &[Role]) -> Result<Issued, IdentityError> {
    issue_for(session, roles, None)
}

/// For clocks of peers that are slow, how much earlier than now certificates are valid from.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);

/// As [`issue`], with certificates that expire after `validity`, if there is one.
///
/// # Errors
/// As [`issue`].
pub fn issue_for(
    session: SessionId,
    roles: &[Role],
    validity: Option<Duration>,
) -> Result<Issued, IdentityError> {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa,
        Issuer, KeyPair, KeyUsagePurpose,
    };
    let now = SystemTime::now();
    let limit = |params: &mut CertificateParams| {
        if let Some(validity) = validity {
            params.not_before = (now - CLOCKS_DIFFER).into();
            params.not_after = (now + validity).into();
        }
    };
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, format!("secure-inference {session}"));
    limit(&mut authority);
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let parties = roles
        .iter()
        .map(|&role| {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new([name(role, session)])?;
            params.distinguished_name.push(DnType::CommonName, role.name());
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
            limit(&mut params);
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok((role, IssuedParty { certificate, key: key.serialize_pem() }))
        })
        .collect::<Result<_, IdentityError>>()?;
    Ok(Issued { authority: authority_certificate.pem(), parties })
}

/// What a party needs to prove who it is and to check who its peers are.
#[derive(Clone)]
pub struct Credentials {
    /// For connections that this party accepts.
    pub server: Arc<ServerConfig>,
    /// For connections that this party makes.
    pub client: Arc<ClientConfig>,
    /// Why this party's own certificate is not valid now, if it is not: its peers' clocks may
    /// tell another time.
    pub(crate) untimely: Option<String>,
}

impl Credentials {
    /// Reads the files, and checks that the certificate is that of `role` in `session`.
    ///
    /// # Errors
    /// If a file cannot be read, or the certificate is another role's.
    pub fn load(files: &Identity, role: Role, session: SessionId) -> Result<Self, IdentityError> {
        fn refuse<E: ToString>(path: &Path) -> impl Fn(E) -> IdentityError + '_ {
            |error| IdentityError::File { path: path.into(), problem: error.to_string() }
        }
        let certificate = CertificateDer::from_pem_file(&files.certificate)
            .map_err(refuse(&files.certificate))?;
        if role_of(&certificate, session) != Some(role) {
            let name = name(role, session);
            return Err(IdentityError::Role {
                path: files.certificate.clone(),
                role,
                session,
                name,
            });
        }
        let key = || PrivateKeyDer::from_pem_file(&files.key).map_err(refuse(&files.key));
        let authority =
            CertificateDer::from_pem_file(&files.authority).map_err(refuse(&files.authority))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(refuse(&files.authority))?;
        let roots = Arc::new(roots);
        let provider = Arc::new(provider());

        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(refuse(&files.authority))?;
        let untimely = match verifier.verify_client_cert(&certificate, &[], UnixTime::now()) {
            Err(rustls::Error::InvalidCertificate(problem)) => clocks(&problem),
            _ => None,
        }
        .map(|text| format!("this party's own certificate {text}"));
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(refuse(&files.certificate))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.clone()], key()?)
            .map_err(refuse(&files.key))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        // Each session's connections are made once; there is nothing to resume.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(refuse(&files.certificate))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key()?)
            .map_err(refuse(&files.key))?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { server: Arc::new(server), client: Arc::new(client), untimely })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_rustls::rustls::NamedGroup;
    use tokio_rustls::rustls::crypto::SupportedKxGroup;
    use tokio_rustls::rustls::crypto::aws_lc_rs::kx_group::{SECP256R1, X25519};

    const SESSION: SessionId = SessionId([1; 16]);

    fn roles() -> Vec<Role> {
        let longest = "a".repeat(spdz::channel::MAX_NAME_BYTES);
        let players = ["client", "carol-2", &longest].map(|name| name.parse().unwrap());
        [Role::Server0, Role::Server1, Role::Producer].into_iter().chain(players).collect()
    }

    #[test]
    fn a_certificate_proves_its_role_in_its_session_only() {
        let (session, other) = (SessionId([1; 16]), SessionId([2; 16]));
        let issued = issue(session, &roles()).unwrap();
        assert_eq!(issued.parties.len(), roles().len());
        for (role, party) in &issued.parties {
            let certificate = CertificateDer::from_pem_slice(party.certificate.as_bytes()).unwrap();
            assert_eq!(role_of(&certificate, session), Some(*role));
            assert_eq!(role_of(&certificate, other), None);
        }
    }

    #[test]
    fn certificates_expire_when_they_should() {
        let day = Duration::from_secs(24 * 3600);
        let issued = issue_for(SessionId([1; 16]), &[Role::CLIENT], Some(7 * day)).unwrap();
        let authority = CertificateDer::from_pem_slice(issued.authority.as_bytes()).unwrap();
        let anchor = webpki::anchor_from_trusted_cert(&authority).unwrap();
        let party = issued.parties[0].1.certificate.as_bytes();
        let certificate = CertificateDer::from_pem_slice(party).unwrap();
        let certificate = webpki::EndEntityCert::try_from(&certificate).unwrap();
        let valid = |at: Duration| {
            let algorithms = provider().signature_verification_algorithms.all;
            let (at, usage) = (UnixTime::since_unix_epoch(at), webpki::KeyUsage::client_auth());
            let anchors = std::slice::from_ref(&anchor);
            certificate.verify_for_usage(algorithms, anchors, &[], at, usage, None, None).is_ok()
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!valid(now - day) && valid(now - CLOCKS_DIFFER / 2));
        assert!(valid(now + 6 * day) && !valid(now + 8 * day));
    }

    #[test]
    fn clocks_that_differ_are_named_on_both_sides() {
        use std::io::{Error, ErrorKind::InvalidData};
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let refused =
            |problem| refusal(&Error::new(InvalidData, rustls::Error::InvalidCertificate(problem)));
        let early = CertificateError::NotValidYetContext { time: at(1000), not_before: at(3600) };
        assert_eq!(
            refused(early),
            "its certificate is not valid before 1970-01-01T01:00:00Z, and it is \
             1970-01-01T00:16:40Z by this clock: check the clocks of both"
        );
        let late = CertificateError::ExpiredContext { time: at(3600), not_after: at(0) };
        assert!(refused(late).contains("has expired at 1970-01-01T00:00:00Z, and it is"));
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        let alert = Error::new(InvalidData, alert);
        assert!(refusal(&alert).starts_with("by its clock this party's certificate has expired"));
        assert_eq!(refused_for_the_time(&Error::other("gone")), None);
    }

    #[test]
    fn a_party_knows_whether_its_own_certificate_is_valid_now() {
        let hour = Duration::from_secs(3600);
        for (validity, untimely) in
            [(Some(hour), false), (None, false), (Some(Duration::ZERO), true)]
        {
            let issued = issue_for(SESSION, &[Role::CLIENT], validity).unwrap();
            std::thread::sleep(Duration::from_millis(if untimely { 1100 } else { 0 }));
            let (_folder, files) = files(&issued, Role::CLIENT);
            let credentials = Credentials::load(&files, Role::CLIENT, SESSION).unwrap();
            assert_eq!(credentials.untimely.is_some(), untimely, "{:?}", credentials.untimely);
        }
    }

    /// The files of `role` in a fresh folder.
    fn files(issued: &Issued, role: Role) -> (tempfile::TempDir, Identity) {
        let folder = tempfile::tempdir().unwrap();
        let (_, party) = issued.parties.iter().find(|(found, _)| *found == role).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let identity = Identity {
            certificate: write("tls.crt", &party.certificate),
            key: write("tls.key", &party.key),
            authority: write("ca.crt", &issued.authority),
        };
        (folder, identity)
    }

    /// The groups that both sides name after a handshake, or what each says of it.
    fn handshake(
        server: &Credentials,
        client: ClientConfig,
        session: SessionId,
    ) -> Result<[NamedGroup; 2], [String; 2]> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let name = ServerName::try_from(name(Role::Server0, session)).unwrap();
        runtime.block_on(async {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let accept = tokio_rustls::TlsAcceptor::from(server.server.clone()).accept(far);
            match tokio::join!(accept, connector.connect(name, near)) {
                (Ok(accepted), Ok(connected)) => {
                    let ours = accepted.get_ref().1.negotiated_key_exchange_group();
                    let theirs = connected.get_ref().1.negotiated_key_exchange_group();
                    Ok([ours, theirs].map(|group| group.unwrap().name()))
                }
                (accepted, connected) => Err([accepted.err(), connected.err()]
                    .map(|error| error.map_or(String::new(), |error| refusal(&error)))),
            }
        })
    }

    #[test]
    fn only_this_sessions_certificates_complete_a_handshake() {
        let session = SessionId([1; 16]);
        let issue = || issue(session, &roles()).unwrap();
        let (issued, other) = (issue(), issue());
        let credentials = |issued: &Issued, role| {
            let (_folder, files) = files(issued, role);
            Credentials::load(&files, role, session).unwrap()
        };
        let server = credentials(&issued, Role::Server0);
        let genuine = credentials(&issued, Role::CLIENT).client;
        assert!(handshake(&server, (*genuine).clone(), session).is_ok());

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(issued.authority.as_bytes()).unwrap()).unwrap();
        let anonymous = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let [refused, _] = handshake(&server, anonymous, session).unwrap_err();
        assert!(refused.contains("it presented no certificate"), "{refused}");

        // The same role and session, but from another authority.
        let stranger = (*credentials(&other, Role::CLIENT).client).clone();
        assert!(handshake(&server, stranger, session).is_err());
    }

    #[test]
    fn keys_are_agreed_on_with_a_hybrid_group_or_not_at_all() {
        let issued = issue(SESSION, &roles()).unwrap();
        let credentials = |role| {
            let (_folder, files) = files(&issued, role);
            Credentials::load(&files, role, SESSION).unwrap()
        };
        let (server, client) = (credentials(Role::Server0), credentials(Role::CLIENT).client);
        let hybrid = Ok([NamedGroup::X25519MLKEM768; 2]);
        assert_eq!(handshake(&server, (*client).clone(), SESSION), hybrid);

        // A client that would rather have another, or has no other.
        let authority = CertificateDer::from_pem_slice(issued.authority.as_bytes()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority).unwrap();
        let with = |groups: &[&'static dyn SupportedKxGroup]| {
            let provider = CryptoProvider { kx_groups: groups.to_vec(), ..provider() };
            let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            config.client_auth_cert_resolver = client.client_auth_cert_resolver.clone();
            config
        };
        assert_eq!(handshake(&server, with(&[X25519, X25519MLKEM768]), SESSION), hybrid);
        for group in [X25519, SECP256R1] {
            let [ours, theirs] = handshake(&server, with(&[group]), SESSION).unwrap_err();
            assert!(ours.starts_with("it does not offer the hybrid key exchange"), "{ours}");
            assert!(theirs.contains("whose key exchange is X25519MLKEM768 alone"), "{theirs}");
        }
    }

    #[test]
    fn a_party_refuses_to_start_with_another_roles_certificate() {
        let session = SessionId([1; 16]);
        let (folder, files) = files(&issue(session, &roles()).unwrap(), Role::CLIENT);
        let path = |name: &str| folder.path().join(name);
        assert!(Credentials::load(&files, Role::CLIENT, session).is_ok());
        let load = |files: &Identity, role| {
            Credentials::load(files, role, session).err().unwrap().to_string()
        };
        let wrong_role = load(&files, Role::Server0);
        assert!(wrong_role.contains("not the certificate of server0"), "{wrong_role}");
        let swapped = Identity { key: path("ca.crt"), ..files.clone() };
        let no_key = load(&swapped, Role::CLIENT);
        assert!(no_key.contains("ca.crt"), "{no_key}");
        let missing = Identity { authority: path("nothing"), ..files };
        let no_authority = load(&missing, Role::CLIENT);
        assert!(no_authority.contains("nothing"), "{no_authority}");
    }
}
