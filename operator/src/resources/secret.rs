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
