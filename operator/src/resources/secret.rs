//! The Secret of a party: its configuration, its certificate and its key, for it alone.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use party::config::{PartyConfig, Session};
use party::identity::IssuedParty;

use super::{SESSION, map, party_metadata};
use crate::job::{CONFIG_FILE, Job};

/// Largest data of a Secret that API servers take, bytes.
const MAX_SECRET_BYTES: usize = 1 << 20;

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
    use party::identity;
    use spdz::channel::Role;
    use spdz::prg::SessionId;

    use super::*;
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
