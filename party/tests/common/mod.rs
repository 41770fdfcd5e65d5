//! What several tests of parties' processes need.

#![allow(dead_code, clippy::unwrap_used, reason = "no test needs all of it")]

use std::fs;
use std::path::Path;

use party::identity;
use spdz::channel::Role;
use spdz::prg::SessionId;

/// The part of a configuration that says what is computed: the squares of four numbers of alice's.
pub(crate) const SQUARES: &str = "\
computation:
  graph:
    name: squares
    players: [alice]
    nodes:
    - { label: main, operation: { op: input, player: alice, name: x, shape: [4] } }
    - { label: main, operation: { op: share, input: 0 } }
    - { label: main, operation: { op: square, input: 1 } }
    - { label: main, operation: { op: reveal, input: 2, player: alice } }
    - { label: main, operation: { op: output, input: 3, name: y } }";

/// Writes the identities of a session into a folder: `ca.crt`, and of each role `ROLE.crt` and
/// `ROLE.key`.
pub(crate) fn issue(folder: &Path, session: SessionId, roles: &[Role]) {
    let issued = identity::issue(session, roles).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    write("ca.crt", &issued.authority);
    for (role, party) in &issued.parties {
        write(&format!("{role}.crt"), &party.certificate);
        write(&format!("{role}.key"), &party.key);
    }
}
