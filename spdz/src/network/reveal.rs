//! What the client of a network learns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the client of a network learns.
///
/// ```
/// use spdz::network::Reveal;
///
/// assert_eq!("label".parse::<Reveal>()?, Reveal::Label);
/// assert_eq!(Reveal::default().to_string(), "logits");
/// # Ok::<(), spdz::network::UnknownReveal>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Reveal {
    /// What the last layer puts out: [`LOGITS`](super::LOGITS).
    #[default]
    Logits,
    /// The place of the largest logit, the first of equals, and nothing else of them:
    /// [`LABELS`](super::LABELS). From logits a client learns more of the weights than from
    /// labels. It needs a number format with comparisons.
    Label,
}

/// Why there is nothing of that name to reveal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network cannot reveal {found}; expected {}", Reveal::ALL.map(Reveal::name).join(" or "))]
pub struct UnknownReveal {
    found: String,
}

impl Reveal {
    /// Each of them, the default first.
    pub const ALL: [Self; 2] = [Self::Logits, Self::Label];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Logits => "logits",
            Self::Label => "label",
        }
    }

    /// Whether it is the default: what all networks did before there was a choice, and what is
    /// left out of configurations and results.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Reveal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reveal {
    type Err = UnknownReveal;

    fn from_str(name: &str) -> Result<Self, UnknownReveal> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| UnknownReveal { found: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for reveal in Reveal::ALL {
            assert_eq!(reveal.to_string().parse(), Ok(reveal));
            assert_eq!(serde_json::to_string(&reveal).unwrap(), format!("\"{reveal}\""));
            assert_eq!(reveal.is_default(), reveal == Reveal::Logits);
        }
        let error = "class".parse::<Reveal>().unwrap_err().to_string();
        assert_eq!(error, "a network cannot reveal class; expected logits or label");
    }
}
