//! Where this party's identity is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Files with this party's identity, PEM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// This party's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificate of the authority that every party's certificate comes from.
    pub authority: PathBuf,
}
