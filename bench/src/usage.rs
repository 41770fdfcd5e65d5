//! What is wrong with a command beyond its syntax.

/// The command asks for something that there is not: it fails again however often it is
/// repeated, and no file needs to change for another command to succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Returns a [`UsageError`] with a formatted message.
macro_rules! refuse {
    ($($message:tt)*) => {
        return Err(anyhow::Error::new($crate::usage::UsageError(format!($($message)*))))
    };
}

pub(crate) use refuse;
