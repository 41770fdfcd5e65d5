//! Whether the transcripts of a session's parties are true to each other.

use std::fmt;

use spdz::channel::Role;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::format::{Direction, Entry, Transcript};
use crate::identity;

/// What agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Transcripts.
    pub parties: usize,
    /// Connections of which both ends' transcripts were there.
    pub connections: usize,
    /// Messages that sender and receiver gave alike.
    pub messages: u64,
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { parties, connections, messages } = self;
        write!(
            f,
            "transcripts {parties}, all signatures genuine; connections {connections}, messages \
             {messages}, all the same at sender and receiver"
        )
    }
}

/// The first thing that is wrong with some transcripts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// Its certificate is not the session's.
    #[error(
        "the certificate of {role}'s transcript is not of this authority for this role and session"
    )]
    Certificate {
        /// Whose.
        role: Role,
    },
    /// It was changed, or signed by somebody else.
    #[error("the transcript of {role} does not have the signature of its certificate's key")]
    Signature {
        /// Whose.
        role: Role,
    },
    /// They are of different things.
    #[error("{first} and {other} have transcripts of different {what}s")]
    Different {
        /// The first.
        first: Role,
        /// Another.
        other: Role,
        /// A session or a plan.
        what: &'static str,
    },
    /// One party has two.
    #[error("there are two transcripts of {role}")]
    Twice {
        /// Whose.
        role: Role,
    },
    /// The certificate that a peer saw is not that of the other's transcript.
    #[error("{role} saw another certificate of {peer} than {peer}'s transcript has")]
    Peer {
        /// Who saw it.
        role: Role,
        /// Whose it was.
        peer: Role,
    },
    /// One end has a message that the other does not have.
    #[error(
        "message {number} from {sender} to {receiver}: {sender} says {sent}, {receiver} says {received}"
    )]
    Message {
        /// Of the connection's in that direction, from 0.
        number: usize,
        /// Who sent it.
        sender: Role,
        /// Who received it.
        receiver: Role,
        /// What the sender says.
        sent: String,
        /// What the receiver says.
        received: String,
    },
}

/// Whether all signatures are genuine and all transcripts agree, or what is wrong first.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    transcripts: &[Transcript],
    authority: &CertificateDer<'_>,
) -> Result<Agreement, VerifyError> {
    for (index, transcript) in transcripts.iter().enumerate() {
        let role = transcript.role;
        let certificate = CertificateDer::from(&transcript.certificate[..]);
        if identity::role_of(&certificate, transcript.session) != Some(role)
            || !identity::is_issued_by(&certificate, authority)
        {
            return Err(VerifyError::Certificate { role });
        }
        let signed = transcript.chain().signed();
        if !identity::has_signed(&certificate, &signed, &transcript.signature) {
            return Err(VerifyError::Signature { role });
        }
        let first = &transcripts[0];
        let what = match () {
            () if first.session != transcript.session => Some("session"),
            () if first.plan != transcript.plan => Some("plan"),
            () => None,
        };
        if let Some(what) = what {
            return Err(VerifyError::Different { first: first.role, other: role, what });
        }
        if transcripts[..index].iter().any(|earlier| earlier.role == role) {
            return Err(VerifyError::Twice { role });
        }
    }
    let mut agreement = Agreement { parties: transcripts.len(), connections: 0, messages: 0 };
    for (index, one) in transcripts.iter().enumerate() {
        for other in &transcripts[index + 1..] {
            let seen = [saw(one, other)?, saw(other, one)?];
            agreement.connections += usize::from(seen.contains(&true));
            agreement.messages += compare(one, other)? + compare(other, one)?;
        }
    }
    Ok(agreement)
}

/// Whether a party was connected to another, whose certificate it then has to have seen.
fn saw(one: &Transcript, other: &Transcript) -> Result<bool, VerifyError> {
    let expected = *blake3::hash(&other.certificate).as_bytes();
    let mut seen = one.peers.iter().filter(|(role, _)| *role == other.role).peekable();
    let connected = seen.peek().is_some();
    if seen.all(|(_, certificate)| *certificate == expected) {
        return Ok(connected);
    }
    Err(VerifyError::Peer { role: one.role, peer: other.role })
}

/// What a party says of the messages in one direction of a connection, in their order.
fn messages(one: &Transcript, direction: Direction, peer: Role) -> impl Iterator<Item = &Entry> {
    one.messages.iter().filter(move |entry| entry.direction == direction && entry.peer == peer)
}

/// How many messages `sender` sent to `receiver`, if both say the same of each.
fn compare(sender: &Transcript, receiver: &Transcript) -> Result<u64, VerifyError> {
    let mut sent = messages(sender, Direction::Sent, receiver.role);
    let mut received = messages(receiver, Direction::Received, sender.role);
    for number in 0.. {
        let (ours, theirs) = match (sent.next(), received.next()) {
            (None, None) => return Ok(number as u64),
            pair => pair,
        };
        let alike = |ours: &Entry, theirs: &Entry| {
            (ours.tag, ours.length, ours.digest) == (theirs.tag, theirs.length, theirs.digest)
        };
        if ours.zip(theirs).is_some_and(|(ours, theirs)| alike(ours, theirs)) {
            continue;
        }
        return Err(VerifyError::Message {
            number,
            sender: sender.role,
            receiver: receiver.role,
            sent: said(ours),
            received: said(theirs),
        });
    }
    Ok(0)
}

fn said(entry: Option<&Entry>) -> String {
    let Some(Entry { tag, length, digest, .. }) = entry else { return "there is none".into() };
    let [a, b, c, d, ..] = digest;
    format!("{tag}, {length} bytes, digest {a:02x}{b:02x}{c:02x}{d:02x}")
}

#[cfg(test)]
mod tests {
    use super::super::format::{Chain, head, message, peer};
    use super::*;
    use spdz::channel::{Phase, Tag};
    use spdz::plan::Digest;
    use spdz::prg::SessionId;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    const SESSION: SessionId = SessionId([4; 16]);
    const ROLES: [Role; 2] = [Role::Server0, Role::Server1];

    /// The certificates of a session, and what signs with each role's key.
    struct Keys {
        folder: tempfile::TempDir,
        authority: CertificateDer<'static>,
    }

    impl Keys {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let issued = identity::issue(SESSION, &ROLES).unwrap();
            for (role, party) in &issued.parties {
                let path = |end: &str| folder.path().join(format!("{role}.{end}"));
                std::fs::write(path("crt"), &party.certificate).unwrap();
                std::fs::write(path("key"), &party.key).unwrap();
            }
            let authority = CertificateDer::from_pem_slice(issued.authority.as_bytes()).unwrap();
            Self { folder, authority }
        }

        fn files(&self, role: Role) -> crate::config::Identity {
            let path = |end: &str| self.folder.path().join(format!("{role}.{end}"));
            crate::config::Identity {
                certificate: path("crt"),
                key: path("key"),
                authority: path("ca"),
            }
        }

        fn certificate(&self, role: Role) -> Vec<u8> {
            identity::signer(&self.files(role)).unwrap().0
        }

        /// A transcript of `role`, which sent and received two messages, changed and then signed.
        fn signed(&self, role: Role, change: impl FnOnce(&mut Transcript)) -> Transcript {
            let other = if role == Role::Server0 { Role::Server1 } else { Role::Server0 };
            let entry = |direction, step: u32| {
                // The same at both ends of a message.
                let from = if direction == Direction::Sent { role } else { other };
                let digest = *blake3::hash(format!("{from} {step}").as_bytes()).as_bytes();
                let tag = Tag::new(Phase::Online, 0, step);
                Entry { direction, peer: other, tag, length: 40, digest }
            };
            let (certificate, signer) = identity::signer(&self.files(role)).unwrap();
            let mut transcript = Transcript {
                session: SESSION,
                plan: Digest([9; 32]),
                role,
                certificate,
                peers: vec![(other, *blake3::hash(&self.certificate(other)).as_bytes())],
                messages: vec![
                    entry(Direction::Sent, 1),
                    entry(Direction::Received, 1),
                    entry(Direction::Sent, 2),
                    entry(Direction::Received, 2),
                ],
                signature: Vec::new(),
            };
            change(&mut transcript);
            transcript.signature = signer.sign(&transcript.chain().signed()).unwrap();
            // As it would come from a file.
            Transcript::parse(&transcript.to_string()).unwrap()
        }
    }

    #[test]
    fn what_two_parties_say_alike_is_agreed_and_the_first_difference_is_named() {
        let keys = Keys::new();
        let server0 = || keys.signed(Role::Server0, |_| ());
        let agreed = verify(&[server0(), keys.signed(Role::Server1, |_| ())], &keys.authority);
        assert_eq!(agreed, Ok(Agreement { parties: 2, connections: 1, messages: 4 }));

        type Change = fn(&mut Transcript);
        let cases: [(Change, &str); 7] = [
            (
                |changed| changed.messages[3].digest[0] ^= 1,
                "message 1 from server0 to server1: server0 says online step 2 of inference 0, 40 bytes",
            ),
            (|changed| changed.messages[0].length = 41, "message 0 from server1 to server0"),
            (|changed| changed.messages[0].tag.step = 7, "message 0 from server1 to server0"),
            (
                |changed| changed.messages.truncate(3),
                "message 1 from server0 to server1: server0 says online step 2 of inference 0, 40 \
                 bytes, digest",
            ),
            (
                |changed| changed.plan.0[0] ^= 1,
                "server0 and server1 have transcripts of different plans",
            ),
            (
                |changed| changed.peers[0].1[0] ^= 1,
                "server1 saw another certificate of server0 than server0's transcript has",
            ),
            (
                |changed| changed.role = Role::Producer,
                "the certificate of producer's transcript is not of this authority",
            ),
        ];
        for (change, expected) in cases {
            let server1 = keys.signed(Role::Server1, change);
            let error = verify(&[server0(), server1], &keys.authority).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let twice = verify(&[server0(), server0()], &keys.authority);
        assert_eq!(twice, Err(VerifyError::Twice { role: Role::Server0 }));
    }

    #[test]
    fn a_transcript_is_its_certificates_keys_and_nobody_elses() {
        let (keys, others) = (Keys::new(), Keys::new());
        let genuine = keys.signed(Role::Server0, |_| ());
        assert!(verify(std::slice::from_ref(&genuine), &keys.authority).is_ok());
        // Every line is covered.
        let changes: [fn(&mut Transcript); 4] = [
            |changed| changed.plan.0[31] ^= 1,
            |changed| changed.peers[0].1[0] ^= 1,
            |changed| changed.messages[2].digest[5] ^= 1,
            |changed| changed.messages.swap(0, 2),
        ];
        for change in changes {
            let mut changed = genuine.clone();
            change(&mut changed);
            let refused = verify(&[changed], &keys.authority);
            assert_eq!(refused, Err(VerifyError::Signature { role: Role::Server0 }));
        }
        let refused = verify(&[genuine], &others.authority);
        assert_eq!(refused, Err(VerifyError::Certificate { role: Role::Server0 }));
    }

    #[test]
    fn a_text_that_a_party_does_not_write_is_refused_with_the_line() {
        let keys = Keys::new();
        let text = keys.signed(Role::Server0, |_| ()).to_string();
        let (without_end, cut) = (text.trim_end(), text.rsplit_once("signature").unwrap().0);
        let cases = [
            (String::new(), "line 0"),
            (without_end.to_owned(), "line 11: expected a line's end"),
            (cut.to_owned(), "line 10: expected a signature"),
            (text.replace("transcript 1", "transcript 2"), "line 1"),
            (text.replace("role server0", "role Server0"), "line 4"),
            (
                text.replace(" 40 ", " 040 "),
                "line 0: expected numbers and digits as a party writes",
            ),
            (text.replace("online", "offline2"), "line 7"),
            (format!("{text}peer server1 00\n"), "line 12"),
        ];
        for (text, expected) in cases {
            let error = Transcript::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}, expected {expected}");
        }
        // The recorder's lines are those that are read.
        let mut chain = Chain::new();
        let parsed = Transcript::parse(&text).unwrap();
        let lines = head(parsed.session, parsed.plan, parsed.role, &parsed.certificate);
        lines.iter().for_each(|line| chain.add(line));
        parsed.peers.iter().for_each(|(role, digest)| chain.add(&peer(*role, digest)));
        parsed.messages.iter().for_each(|entry| chain.add(&message(entry)));
        assert_eq!(chain, parsed.chain());
    }
}
