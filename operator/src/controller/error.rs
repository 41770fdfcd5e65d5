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
    /// An object of this name exists that is not of this run.
    #[error("cannot {action} of {resource}: {message}")]
    OfAnother {
        /// What was tried.
        action: &'static str,
        /// For which resource.
        resource: String,
        /// What is there, and what to do.
        message: String,
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
        let (action, source) = match self {
            Self::Api { action, source, .. } => (action, source),
            Self::OfAnother { action, message, .. } => {
                return Some(format!("cannot {action}: {message}"));
            }
            Self::Secret(_) => return Some(self.to_string()),
            _ => return None,
        };
        match source.as_ref() {
            kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => {
                Some(format!("cannot {action}: {}", status.message))
            }
            _ => None,
        }
    }
}

impl Error {
    /// Whether what was to be made exists already, of whomever.
    pub(super) fn already_exists(&self) -> bool {
        matches!(self, Self::Api { source, .. } if existing(source).is_some())
    }

    /// The same error once it is known that what exists, if this is the error, is not of this run.
    pub(super) fn of_another(self) -> Self {
        match self {
            Self::Api { action, resource, source } => match existing(&source) {
                Some(said) => {
                    let message = format!(
                        "{said}, and is not of this run; the operator takes over nothing: delete it"
                    );
                    Self::OfAnother { action, resource, message }
                }
                None => Self::Api { action, resource, source },
            },
            other => other,
        }
    }
}

/// What an API server said, if it was that an object of this name exists already.
fn existing(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if status.reason == "AlreadyExists" => Some(&status.message),
        _ => None,
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

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn error(code: u16, reason: &str, message: &str) -> Error {
        let status = Status::failure(message, reason).with_code(code);
        failed_for("make the Services", "run", kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_exists_and_is_not_of_this_run_is_a_refusal_that_says_so() {
        let exists = error(409, "AlreadyExists", "services \"a\" already exists");
        assert!(exists.already_exists() && exists.refusal().is_none(), "it may be this run's");
        assert_eq!(
            exists.of_another().refusal().as_deref(),
            Some(
                "cannot make the Services: services \"a\" already exists, and is not of this run; \
                 the operator takes over nothing: delete it"
            )
        );
        let other = error(409, "Conflict", "the quota was modified");
        assert!(!other.already_exists());
        assert!(other.of_another().refusal().is_none());
    }
}
