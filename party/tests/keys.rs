//! What goes over a connection: the keys of TLS are renewed in both directions, and what was
//! recorded before stays closed to whoever takes the keys later.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::issue;
use party::config::PartyConfig;
use party::net::{Link, connect_to};
use spdz::channel::{Channel, Phase, Role, Tag};
use spdz::prg::SessionId;

const SESSION: SessionId = SessionId([5; 16]);

/// A record of TLS 1.3 with a KeyUpdate, which is five bytes long, its type, and a tag. No frame
/// of HTTP/2 is as short.
const KEY_UPDATE: usize = 5 + 1 + 16;

/// The lengths of the records of application data in one direction.
type Records = Arc<Mutex<Vec<usize>>>;

/// Passes bytes on and notes the records.
fn pass(mut from: TcpStream, mut to: TcpStream, records: Records) {
    thread::spawn(move || {
        let mut header = [0; 5];
        while from.read_exact(&mut header).is_ok() {
            let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
            from.read_exact(&mut record).unwrap();
            if header[0] == 23 {
                records.lock().unwrap().push(record.len());
            }
            if to.write_all(&[&header[..], &record].concat()).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

/// Between a party that dials and a server; what goes to the server, and what comes from it.
fn relay(server: SocketAddr) -> (SocketAddr, [Records; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let records = [Records::default(), Records::default()];
    let [to, from] = records.clone();
    thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = loop {
            match TcpStream::connect(server) {
                Ok(stream) => break stream,
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        };
        pass(near.try_clone().unwrap(), far.try_clone().unwrap(), to);
        pass(far, near, from);
    });
    (address, records)
}

fn config(folder: &Path, role: Role, place: &str) -> PartyConfig {
    let path = folder.join(format!("{role}.yaml"));
    let folder = folder.display();
    let text = format!(
        "
role: {role}
session: {SESSION}
computation: {{ network: A }}
identity:
  certificate: {folder}/{role}.crt
  key: {folder}/{role}.key
  authority: {folder}/ca.crt
deadlines: {{ connectSeconds: 20, messageSeconds: 20 }}
{place}
"
    );
    fs::write(&path, text).unwrap();
    PartyConfig::load(&path).unwrap()
}

/// Has two servers talk, server 1 having dialled; what goes to server 0, and what comes from it.
fn between_servers(talk: impl Fn(Role, Link) + Copy + Send) -> [Records; 2] {
    let folder = tempfile::tempdir().unwrap();
    let servers = [Role::Server0, Role::Server1];
    issue(folder.path(), SESSION, &servers);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (between, records) = relay(address);
    let config0 = config(folder.path(), Role::Server0, &format!("listen: {address}"));
    let places = format!("listen: 127.0.0.1:0\npeers: {{ server0: '{between}' }}");
    let config1 = config(folder.path(), Role::Server1, &places);
    thread::scope(|scope| {
        for (config, peer) in [(config0, Role::Server1), (config1, Role::Server0)] {
            scope.spawn(move || {
                let plan = config.computation.plan().unwrap();
                talk(config.role, connect_to(&config, &plan, peer).unwrap());
            });
        }
    });
    records
}

/// The places of the records that are key updates.
fn updates(records: &[usize]) -> Vec<usize> {
    (0..records.len()).filter(|at| records[*at] == KEY_UPDATE).collect()
}

/// What a party says and hears: a message of the set-up, then some of evaluations.
fn talk(mut link: Link) {
    let mut exchange = |phase, inference| {
        let tag = Tag::new(phase, inference, 0);
        link.send(tag, vec![7; 400].into()).unwrap();
        assert_eq!(link.recv(tag, 400).unwrap(), vec![7; 400]);
    };
    exchange(Phase::Setup, 0);
    (0..5).for_each(|inference| exchange(Phase::Online, inference));
    thread::sleep(Duration::from_millis(1100));
    (5..10).for_each(|inference| exchange(Phase::Online, inference));
    link.close(Duration::from_secs(5)).unwrap();
}

#[test]
fn keys_of_a_connection_are_renewed_after_the_set_up_and_then_now_and_again() {
    let records = between_servers(|_, link| talk(link));
    for (records, direction) in records.iter().zip(["to the server", "from the server"]) {
        let records = records.lock().unwrap();
        let updates = updates(&records);
        // After the set-up, and once more when a second was over.
        assert_eq!(updates.len(), 2, "{direction}: {records:?}");
        let set_up = records.iter().position(|length| *length > 400).unwrap();
        assert!(set_up < updates[0], "{direction}: {records:?}");
    }
}

/// How often keys are renewed without data in a direction until TLS ends a connection.
const TOO_MANY: u64 = 32;

#[test]
fn a_connection_with_messages_in_one_direction_lasts() {
    let records = between_servers(|role, mut link| {
        for inference in 0..TOO_MANY + 4 {
            let tag = Tag::new(Phase::Offline, inference, 0);
            match role {
                Role::Server0 => drop(link.recv(tag, 400).unwrap()),
                _ => link.send(tag, vec![7; 400].into()).unwrap(),
            }
            if role == Role::Server1 {
                thread::sleep(Duration::from_millis(1010));
            }
        }
        link.close(Duration::from_secs(5)).unwrap();
    });
    // It has lasted, and its keys were renewed meanwhile. The other direction has the replies, of
    // which one may be to several.
    let [_, from_server] = records;
    let records = from_server.lock().unwrap();
    let found = updates(&records).len();
    assert!(found > 20, "{found} of {records:?}");
}
