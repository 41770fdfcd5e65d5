//! The Secret of a party: its configuration, its certificate and its key, for it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use party::config::{PartyConfig, Session};
use party::identity::{self, IdentityError, Issued, IssuedParty};
use spdz::prg::SessionId;

use super::{SESSION, map, party_metadata};
use crate::job::{CONFIG_FILE, Job};

/// Largest data of a Secret that API servers take, bytes.
const MAX_SECRET_BYTES: usize = 1 << 20;

/// How much longer than a run may take its certificates are valid: clocks of nodes differ, and an
/// operator that was away ends a run late.
const MARGIN: Duration = Duration::from_secs(3600);

/// The identities of an attempt. They are worth nothing once the run is over.
///
/// # Errors
/// If there is no randomness.
pub fn identities(job: &Job, session: SessionId) -> Result<Issued, IdentityError> {
    let run = Duration::from_secs(job.spec.active_deadline_seconds.into());
    identity::issue_for(session, &job.roles, Some(run + MARGIN))
}

/// Why a Secret cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The configuration cannot be written.
    #[error("cannot write the configuration of {role}: {source}")]
    Yaml {
        /// Whose.
        role: String,
        /// Why.
        source: serde_yaml::Error,
    },
    /// The configuration is too large.
    #[error(
        "the Secret of {role} would have {found} bytes, at most {MAX_SECRET_BYTES} are possible; \
         let a player bring large tensors instead of making them constants of the graph"
    )]
    Size {
        /// Whose.
        role: String,
        /// Its size.
        found: usize,
    },
}

/// The Secret of the party that `config` describes.
///
/// # Errors
/// If its configuration is too large.
pub fn build(
    job: &Job,
    attempt: u32,
    config: &PartyConfig,
    authority: &str,
    identity: &IssuedParty,
) -> Result<Secret, SecretError> {
    let role = config.role;
    let yaml = serde_yaml::to_string(config)
        .map_err(|source| SecretError::Yaml { role: role.name().into(), source })?;
    let data = BTreeMap::from([
        (CONFIG_FILE.to_owned(), ByteString(yaml.into_bytes())),
        ("ca.crt".to_owned(), ByteString(authority.as_bytes().to_vec())),
        ("tls.crt".to_owned(), ByteString(identity.certificate.as_bytes().to_vec())),
        ("tls.key".to_owned(), ByteString(identity.key.as_bytes().to_vec())),
    ]);
    let found = data.values().map(|value| value.0.len()).sum();
    if found > MAX_SECRET_BYTES {
        return Err(SecretError::Size { role: role.name().into(), found });
    }
    let mut metadata = party_metadata(job, attempt, role);
    metadata.annotations = Some(map([(SESSION, &session_text(config.session))]));
    Ok(Secret { metadata, data: Some(data), type_: Some("Opaque".into()), ..Secret::default() })
}

/// A session as text.
#[must_use]
pub fn session_text(session: Session) -> String {
    session.into()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use spdz::channel::Role;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};

    use super::*;
    use crate::api::v1alpha1::SecureInferenceSpec;
    use crate::job::Addresses;
    use crate::job::tests::{job, network};

    fn config(job: &Job, role: Role) -> PartyConfig {
        let addresses = Addresses { server0: "10.0.0.1".into(), server1: "10.0.0.2".into() };
        job.config(role, Session(SessionId([7; 16])), &addresses)
    }

    #[test]
    fn a_party_finds_there_what_it_reads_and_no_others_key() {
        let job = job(network());
        let issued = identity::issue(SessionId([7; 16]), &job.roles).unwrap();
        assert_eq!(issued.parties.len(), 5);
        for (role, identity) in &issued.parties {
            let config = config(&job, *role);
            let secret = build(&job, 1, &config, &issued.authority, identity).unwrap();
            let data = secret.data.unwrap();
            let text = |key: &str| std::str::from_utf8(&data[key].0).unwrap();
            let keys: Vec<&str> = data.keys().map(String::as_str).collect();
            assert_eq!(keys, ["ca.crt", "party.yaml", "tls.crt", "tls.key"]);
            assert_eq!((text("ca.crt"), text("tls.key")), (&*issued.authority, &*identity.key));
            // The party reads exactly what was written.
            let read: PartyConfig = serde_yaml::from_str(text("party.yaml")).unwrap();
            read.check().unwrap();
            assert_eq!(serde_yaml::to_string(&read).unwrap(), text("party.yaml"));
            for (other, theirs) in &issued.parties {
                let there = data.values().any(|value| value.0 == theirs.key.as_bytes());
                assert_eq!(there, other == role);
            }
            assert_eq!(secret.metadata.annotations.unwrap()[SESSION], "07".repeat(16));
        }
    }

    #[test]
    fn certificates_last_as_long_as_the_run_may_and_not_much_longer() {
        let usage = webpki::KeyUsage::client_auth;
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        for seconds in [1, 1800, 604_800] {
            let job = job(SecureInferenceSpec { active_deadline_seconds: seconds, ..network() });
            let issued = identities(&job, SessionId([7; 16])).unwrap();
            let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
            let authority = der(&issued.authority);
            let anchors = [webpki::anchor_from_trusted_cert(&authority).unwrap()];
            for (role, party) in &issued.parties {
                let certificate = der(&party.certificate);
                let certificate = webpki::EndEntityCert::try_from(&certificate).unwrap();
                let valid = |at: Duration| {
                    let at = UnixTime::since_unix_epoch(at);
                    let found = certificate.verify_for_usage(
                        algorithms,
                        &anchors,
                        &[],
                        at,
                        usage(),
                        None,
                        None,
                    );
                    found.is_ok()
                };
                let end = now + Duration::from_secs(seconds.into());
                assert!(valid(now) && valid(end), "{role} of a run of {seconds} s");
                assert!(!valid(end + 2 * MARGIN), "{role} of a run of {seconds} s");
            }
        }
    }

    #[test]
    fn what_no_api_server_takes_is_refused_with_advice() {
        let job = job(network());
        let issued = identity::issue(SessionId([7; 16]), &[Role::Server0]).unwrap();
        let authority = "x".repeat(MAX_SECRET_BYTES);
        let config = config(&job, Role::Server0);
        let error = build(&job, 1, &config, &authority, &issued.parties[0].1).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("the Secret of server0 would have 10")
                && message
                    .contains("at most 1048576 are possible; let a player bring large tensors"),
            "{message}"
        );
    }
}
