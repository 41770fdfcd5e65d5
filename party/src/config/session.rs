//! Which run a configuration is of.

use serde::{Deserialize, Serialize};
use spdz::prg::SessionId;

/// A session id in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Session(pub SessionId);

impl TryFrom<String> for Session {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("a session id is 32 hexadecimal digits, found {text:?}");
        if text.len() != 32 || !text.is_ascii() {
            return Err(refuse());
        }
        let mut bytes = [0; 16];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(SessionId(bytes)))
    }
}

impl From<Session> for String {
    fn from(session: Session) -> Self {
        session.0.to_string()
    }
}
