//! The vectors that `docs/wire.md` prints are what the code gives. They were made by a second
//! implementation of the page's rules, in another language, and not by this code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use spdz::channel::{Channel, MemoryChannel, Name, Phase, Role, Tag, memory_pair};
use spdz::fixed::Precision;
use spdz::graph::{Graph, Plaintext, Tensors};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::prg::{KeyStream, Purpose, Seed, SessionId};
use spdz::ratchet::Ratchet;
use spdz::ring::residues::{MODULI, MODULUS};
use spdz::ring::{Int32, Int64, Int100, Ring};
use spdz::role::Player;

const PAGE: &str = include_str!("../../docs/wire.md");

/// The code block of the page with this info string.
fn block(info: &str) -> &'static str {
    let start = format!("```{info}\n");
    let mut found = PAGE.split(start.as_str()).skip(1);
    let text = found.next().unwrap_or_else(|| panic!("docs/wire.md has no block {info}"));
    assert!(found.next().is_none(), "docs/wire.md has two blocks {info}");
    text.split("\n```").next().unwrap()
}

/// What follows `key` on its line of a vector.
fn field(vector: &'static str, key: &str) -> &'static str {
    let line = vector.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no line {key} in {vector}")).trim()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn numbers(text: &str) -> Vec<i16> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn stream(vector: &'static str) -> KeyStream {
    Seed::from_bytes(unhex(field(vector, "seed")).try_into().unwrap()).into_stream()
}

fn sampled<R: Ring>(vector: &'static str, elements: usize) -> Vec<R::Word> {
    let mut words = vec![R::Word::default(); R::PLANES * elements];
    R::sample(&mut stream(vector), &mut words);
    words
}

#[test]
fn key_streams_and_masks_of_int64_and_int32() {
    let vector = block("vector stream");
    let mut bytes = [0; 48];
    stream(vector).fill(&mut bytes);
    assert_eq!(hex(&bytes), field(vector, "bytes"));

    let vector = block("vector mask-int64");
    let expected: Vec<u64> = field(vector, "elements")
        .split(' ')
        .map(|word| u64::from_str_radix(word, 16).unwrap())
        .collect();
    assert_eq!(sampled::<Int64>(vector, expected.len()), expected);

    let vector = block("vector mask-int32");
    let expected: Vec<u32> = field(vector, "elements")
        .split(' ')
        .map(|word| u32::from_str_radix(word, 16).unwrap())
        .collect();
    assert_eq!(sampled::<Int32>(vector, expected.len()), expected);
}

#[test]
fn masks_of_int100() {
    let vector = block("vector mask-int100");
    let elements = field(vector, "elements").parse().unwrap();
    let words = sampled::<Int100>(vector, elements);
    for (plane, words) in words.chunks(elements).enumerate() {
        assert_eq!(words, numbers(field(vector, &format!("plane {plane}"))), "plane {plane}");
    }
    // One of its words is drawn again.
    let rejected = rule(&mut stream(vector), elements).1;
    assert_eq!(rejected, 1);

    let vector = block("vector mask-int100-long");
    let words = sampled::<Int100>(vector, field(vector, "elements").parse().unwrap());
    for line in vector.lines().filter_map(|line| line.strip_prefix("at ")) {
        let (at, expected) = line.split_once(' ').unwrap();
        let (at, expected): (usize, _) = (at.parse().unwrap(), numbers(expected));
        assert_eq!(words[at..at + expected.len()], expected, "at {at}");
    }
}

/// The page's rule for masks of `Int100`, word by word; also how many words it rejects.
fn rule(stream: &mut KeyStream, elements: usize) -> (Vec<i16>, usize) {
    let draw = |stream: &mut KeyStream, count: usize| {
        let mut bytes = vec![0; 2 * count];
        stream.fill(&mut bytes);
        bytes.chunks(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>()
    };
    let (mut mask, mut rejected) = (Vec::new(), 0);
    let mut spare = Vec::new().into_iter();
    while mask.len() < 10 * elements {
        let count = (10 * elements - mask.len()).min(8192);
        for mut word in draw(stream, count) {
            let modulus = i32::from(MODULI[mask.len() / elements]);
            while i32::from(word) >= -32768 + 65536 / modulus * modulus {
                rejected += 1;
                word = spare.next().unwrap_or_else(|| {
                    spare = draw(stream, 64).into_iter();
                    spare.next().unwrap()
                });
            }
            let residue = i32::from(word).rem_euclid(modulus);
            let above = residue > (modulus - 1) / 2;
            mask.push((residue - if above { modulus } else { 0 }) as i16);
        }
    }
    (mask, rejected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn masks_of_int100_follow_the_rule(seed: [u8; 32], elements in 1usize..3000) {
        let mut words = vec![0; 10 * elements];
        Int100::sample(&mut Seed::from_bytes(seed).into_stream(), &mut words);
        let expected = rule(&mut Seed::from_bytes(seed).into_stream(), elements).0;
        prop_assert_eq!(words, expected);
    }
}

#[test]
fn keys_of_the_servers_and_the_producer() {
    let vector = block("vector keys");
    let bytes = |key: &str| unhex(field(vector, key));
    let key = |name: &str| -> [u8; 32] { bytes(name).try_into().unwrap() };
    let session = SessionId(bytes("session").try_into().unwrap());
    let bound = Seed::from_bytes(key("sent")).bind(session, &key("digest"));
    assert_eq!(*bound.expose(), key("bound"));
    let (set_up, mut ratchet) = Ratchet::split(bound);
    assert_eq!(*set_up.expose(), key("set-up"));
    assert_eq!(*set_up.derive(Purpose::SessionMask, 0, 0).expose(), key("set-up, 3 0"));
    let keys = [0, 1, 2].map(|k| ratchet.key(k).unwrap());
    for (k, found) in keys.iter().enumerate() {
        assert_eq!(*found.expose(), key(&format!("key {k}")), "{k}");
    }
    assert_eq!(*keys[2].derive(Purpose::InputMask, 2, 1).expose(), key("key 2, 4 1"));
    // The table of purposes.
    for (purpose, text) in [
        (Purpose::SessionMask, "a server's share of the mask of a session's input"),
        (Purpose::InputMask, "a server's share of the mask of an evaluation's input"),
        (Purpose::OpeningMask, "a server's share of the mask of an opened tensor"),
        (Purpose::Generated, "a server's share of what the producer generates"),
        (Purpose::OutputZero, "the sharing of zero"),
        (Purpose::DividendMask, "a server's share of the mask of dividends"),
    ] {
        let row = format!("| {} | {text}", purpose as u8);
        assert!(PAGE.contains(&row), "{row}");
    }
}

fn values<R: Ring>(vector: &'static str, precision: Precision) {
    for line in vector.lines() {
        let [value, fraction, bytes] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (value, fraction): (f64, i32) = (value.parse().unwrap(), fraction.parse().unwrap());
        let integer = precision.encode(value, fraction).unwrap();
        let mut words = vec![R::Word::default(); R::PLANES];
        R::from_integers(&[integer], &mut words);
        assert_eq!(hex(&R::to_bytes(words[..].into())), bytes, "{value}");
        let mut read = vec![R::Word::default(); R::PLANES];
        R::from_bytes(&unhex(bytes), &mut read);
        assert_eq!(R::to_integers(&read), [integer], "{value}");
    }
}

#[test]
fn numbers_on_the_wire() {
    values::<Int64>(block("vector value-int64"), Int64::PRECISION);
    values::<Int32>(block("vector value-int32"), Int32::PRECISION);
    values::<Int100>(block("vector value-int100"), Int100::PRECISION);
    // The table of formats.
    let moduli = MODULI.map(|modulus| modulus.to_string()).join(", ");
    for format in NumberFormat::ALL {
        let (precision, bytes) = (format.precision(), format.wire_bytes());
        let row =
            format!("| `{format}` | {bytes} | {} | {} |", precision.fraction, precision.limit());
        assert!(PAGE.contains(&row), "{row}");
    }
    for text in [moduli, MODULUS.to_string()] {
        assert!(PAGE.contains(&text), "{text}");
    }
}

fn tag(text: &str) -> Tag {
    let [phase, inference, step] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{text}");
    };
    let phase = Phase::ALL.into_iter().find(|known| known.name() == phase).unwrap();
    Tag::new(phase, inference.parse().unwrap(), step.parse().unwrap())
}

/// Plays the player of a transcript against servers that say what it says.
fn replay<R: Ring>(graph: &Graph, format: NumberFormat, transcript: &'static str) {
    let plan = Arc::new(Plan::compile(graph, format, Truncation::Local).unwrap());
    let alice: Name = "alice".parse().unwrap();
    let pair = |server| memory_pair(Role::Player(alice), server, Duration::from_secs(1));
    let (near0, far0) = pair(Role::Server0);
    let (near1, far1) = pair(Role::Server1);
    let (mut servers, mut sent, mut player_outputs) = ([far0, far1], Vec::new(), "");
    for line in transcript.lines() {
        let (route, rest) = line.split_at(17);
        if route.starts_with("alice learns") {
            player_outputs = rest;
            continue;
        }
        let (place, bytes) = rest.split_at(13);
        match route.trim_end() {
            "server0 -> alice" => servers[0].send(tag(place), unhex(bytes.trim()).into()).unwrap(),
            "server1 -> alice" => servers[1].send(tag(place), unhex(bytes.trim()).into()).unwrap(),
            "alice -> both" => sent.push((tag(place), bytes.trim())),
            route => panic!("{route}"),
        }
    }

    let inputs = [("w", [1.5, -0.25]), ("x", [-2.0, 0.1])];
    let inputs: Tensors = inputs
        .into_iter()
        .map(|(name, values)| (name.to_owned(), Plaintext::new([2], values.into()).unwrap()))
        .collect();
    let links: [MemoryChannel; 2] = [near0, near1];
    let mut player = Player::<R, _>::set_up(plan, alice, &inputs, links).unwrap();
    let ready = player.prepare().unwrap();
    let outputs = player.evaluate(ready, &inputs).unwrap();
    player.finish().unwrap();
    let expected: Vec<f64> =
        player_outputs.split_whitespace().map(|x| x.parse().unwrap()).collect();
    assert_eq!(outputs["y"].as_slice(), expected);
    for (tag, bytes) in sent {
        for server in &mut servers {
            let found = server.recv(tag, bytes.len() / 2).unwrap();
            assert_eq!(hex(&found), bytes, "{tag}");
        }
    }
}

#[test]
fn a_session_of_a_player() {
    let graph: Graph = serde_json::from_str(block("json")).unwrap();
    let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
    assert_eq!(plan.to_string().trim_end(), block("text listing"));
    replay::<Int64>(&graph, NumberFormat::Int64, block("vector session-int64"));
    replay::<Int100>(&graph, NumberFormat::Int100, block("vector session-int100"));
}
