//! The two ways to truncate.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How products are truncated to the format's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Truncation {
    /// Without interaction (SecureML); wrong with probability `|x|` over the ring's size.
    Local,
    /// In one round; never wrong within the format's range.
    Interactive,
}

impl fmt::Display for Truncation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "Local",
            Self::Interactive => "Interactive",
        })
    }
}
