//! Why a reconcile fails.

use std::time::Duration;

use kube::ResourceExt;
use party::identity::IdentityError;
use spdz::prg::NoRandomness;

use crate::api::v1alpha1::SecureInference;
use crate::plan::Refusal;
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
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let (action, source) = match self {
            Self::Api { action, source, .. } => (action, source),
            Self::OfAnother { action, message, .. } => {
                let message = format!("cannot {action}: {message}");
                return Some(Refusal { message, permanent: true });
            }
            Self::Secret(_) => return Some(Refusal { message: self.to_string(), permanent: true }),
            _ => return None,
        };
        let makes = action.starts_with(MAKES);
        match source.as_ref() {
            kube::Error::Api(status) if makes && !matches!(status.code, 409 | 429) => {
                let message = format!("cannot {action}: {}", status.message);
                let permanent = is_permanent(status.code, &status.message);
                Some(Refusal { message, permanent })
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

/// How the actions begin that make objects.
const MAKES: &str = "make ";

/// What API servers say, with status 403, of what may be otherwise soon: a quota is used up or not
/// counted yet, the operator lacks a permission, a namespace is new or about to go.
const PASSES: [&str; 6] = [
    "exceeded quota",
    "status unknown for quota",
    "cannot create resource",
    "not yet ready to handle request",
    "error looking up service account",
    "is being terminated",
];

/// What they say, with status 500, of quantities that are none.
const NO_QUANTITY: [&str; 2] = ["quantities must match", "unable to parse quantity"];

/// Whether an API server that refused an object with this status would do so again, whenever it
/// is asked. It may be without a resource, or without a session, for a moment only.
fn is_permanent(code: u16, message: &str) -> bool {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match code {
        401 | 404 | 408 | 409 | 425 | 429 => false,
        403 => !says(&PASSES),
        400..=499 => true,
        500 => says(&NO_QUANTITY),
        _ => false,
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
            exists.of_another().refusal(),
            Some(Refusal {
                message: "cannot make the Services: services \"a\" already exists, and is not of \
                          this run; the operator takes over nothing: delete it"
                    .into(),
                permanent: true,
            })
        );
        let other = error(409, "Conflict", "the quota was modified");
        assert!(!other.already_exists());
        assert!(other.of_another().refusal().is_none());
    }

    #[test]
    fn what_an_api_server_would_refuse_again_is_told_from_what_passes() {
        let forbidden = |why: &str| format!("pods \"a\" is forbidden: {why}");
        for (code, message, permanent) in [
            (422, "Pod \"a\" is invalid: spec.nodeSelector: Invalid value".to_owned(), true),
            (400, "Pod in version \"v1\" cannot be handled: quantities must match".into(), true),
            (500, "quantities must match the regular expression '^([+-]?[0-9.]+)'".into(), true),
            (500, "unable to parse quantity's suffix".into(), true),
            (413, "Request entity too large: limit is 3145728".into(), true),
            (403, forbidden("violates PodSecurity \"restricted:latest\""), true),
            (403, forbidden("unable to validate against any security context constraint"), true),
            (403, forbidden("no PriorityClass with name high was found"), true),
            (403, forbidden("failed quota: q: must specify limits.cpu"), true),
            (403, forbidden("exceeded quota: q, requested: pods=1"), false),
            (403, forbidden("status unknown for quota: q, resources: pods"), false),
            (403, forbidden("error looking up service account lab/default"), false),
            (403, forbidden("not yet ready to handle request"), false),
            (403, "pods is forbidden: User \"o\" cannot create resource \"pods\"".into(), false),
            (403, forbidden("unable to create new content: lab is being terminated"), false),
            (404, "the server could not find the requested resource".into(), false),
            (401, "Unauthorized".into(), false),
            (500, "Internal error occurred: failed calling webhook".into(), false),
            (503, "the server is currently unable to handle the request".into(), false),
        ] {
            let refusal = error(code, "A", &message).refusal().unwrap();
            assert_eq!(refusal.message, format!("cannot make the Services: {message}"));
            assert_eq!(refusal.permanent, permanent, "{code}: {message}");
        }
        for code in [409, 429] {
            assert_eq!(error(code, "Conflict", "again").refusal(), None, "to be tried again");
        }
        let status = Status::failure("no", "Forbidden").with_code(403);
        let source = kube::Error::Api(Box::new(status));
        let other = failed_for("list the objects", "run", source).refusal();
        assert_eq!(other, None, "nothing was to be made");
    }
}
