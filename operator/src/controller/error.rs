//! Why a reconcile fails.

use std::time::Duration;

use kube::ResourceExt;
use party::identity::IdentityError;
use spdz::prg::NoRandomness;

use crate::api::v1alpha1::SecureInference;
use crate::resources::secret::SecretError;

/// The longest that a reconcile may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A request to the API server.
    #[error("cannot {action} of {resource}: {}", brief(source))]
    Api {
        /// What was tried.
        action: &'static str,
        /// For which resource.
        resource: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// The certificates could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// A Secret could not be made.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A plan asks for objects of a resource that was not validated.
    #[error("a bug: objects are planned of a resource that is not valid")]
    NotValidated,
    /// It took too long.
    #[error("the reconcile took more than {DEADLINE:?}")]
    Deadline,
}

impl Error {
    /// What the API server said, if it refused what was asked, rather than failed to answer.
    pub(super) fn refusal(&self) -> Option<String> {
        let Self::Api { action, source, .. } = self else {
            return matches!(self, Self::Secret(_)).then(|| self.to_string());
        };
        match source.as_ref() {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => {
                Some(format!("cannot {action}: {}", status.message))
            }
            _ => None,
        }
    }
}

/// What an API server said, without the object that it said it with.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} (status {})", status.message, status.code),
        other => other.to_string(),
    }
}

/// Deleting what is not there has succeeded.
pub(super) fn gone<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

pub(super) fn failed(
    action: &'static str,
    resource: &SecureInference,
    source: kube::Error,
) -> Error {
    failed_for(action, &resource.name_any(), source)
}

pub(super) fn failed_for(action: &'static str, name: &str, source: kube::Error) -> Error {
    Error::Api { action, resource: name.into(), source: Box::new(source) }
}
