//! Hostile bytes for every decoder, the same in each run: the corpora, and mutations of them
//! by flips, cuts, insertions, splices and false lengths.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use decoders::{ALL, CORPORA, Decoder, named, seeds};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

/// Mutated inputs for each decoder: some seconds in a test build.
const ROUNDS: usize = 50_000;

/// The largest input, bytes.
const LONGEST: usize = 1 << 16;

/// A decoder's memory is measured as that of the process, so decoders run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                withstands(stringify!($name));
            }
        )*

        #[test]
        fn every_decoder_has_its_test() {
            assert_eq!(ALL.map(|decoder| decoder.name), [$(stringify!($name)),*]);
        }
    };
}

tests!(frames configuration weights graph idx results termination traceparent transcript);

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(Path::new(CORPORA).join(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The order of files in a folder is undefined.
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Gives the corpus to its decoder, and then mutations of it.
fn withstands(name: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let decoder = named(name).unwrap();
    let corpus = corpus(name);
    let accepted = corpus.iter().filter(|bytes| attempt(decoder, bytes)).count();
    assert!(
        accepted > 0,
        "no part of the corpus {name} is accepted: it tests the first check alone"
    );
    let mut random = StdRng::seed_from_u64(7);
    let dictionary = words(&corpus);
    let mut accepted = 0;
    for _ in 0..ROUNDS {
        let bytes = changed(&mut random, &corpus, &dictionary);
        accepted += usize::from(attempt(decoder, &bytes));
    }
    assert!((1..ROUNDS).contains(&accepted), "{accepted} of {ROUNDS} changed inputs accepted");
}

/// Whether `bytes` are accepted. If the decoder panics, they are saved in a file.
fn attempt(decoder: &Decoder, bytes: &[u8]) -> bool {
    struct Culprit<'a>(&'a Decoder, &'a [u8]);
    impl Drop for Culprit<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.0.name);
                fs::write(&path, self.1).unwrap();
                eprintln!("the input is in {}", path.display());
            }
        }
    }
    let _culprit = Culprit(decoder, bytes);
    decoder.check(bytes).is_ok()
}

/// The words of a corpus, for inputs that are texts.
fn words(corpus: &[Vec<u8>]) -> Vec<&[u8]> {
    let ends = |byte: &u8| !byte.is_ascii_alphanumeric() && !b"-._".contains(byte);
    let words = corpus.iter().flat_map(|bytes| bytes.split(ends));
    let mut words: Vec<&[u8]> = words.filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// A random mutation of the corpus.
fn changed(random: &mut StdRng, corpus: &[Vec<u8>], dictionary: &[&[u8]]) -> Vec<u8> {
    let mut bytes = corpus.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=4) {
        let place = random.random_range(0..=bytes.len());
        let rest = bytes.len() - place;
        match random.random_range(0..10) {
            0 if rest > 0 => bytes[place] ^= 1 << random.random_range(0..8),
            1 if rest > 0 => bytes[place] = random.random(),
            2 => bytes.truncate(place),
            3 => drop(bytes.drain(place..place + random.random_range(0..=rest.min(40)))),
            4 => {
                let mut noise = vec![0; random.random_range(1..40)];
                random.fill_bytes(&mut noise);
                bytes.splice(place..place, noise);
            }
            5 => {
                let part = bytes[place..place + random.random_range(0..=rest.min(200))].to_vec();
                let copies = part.repeat(random.random_range(1..20));
                bytes.splice(place..place, copies);
            }
            6 => {
                let other = corpus.choose(random).unwrap();
                bytes.truncate(place);
                bytes.extend_from_slice(&other[random.random_range(0..=other.len())..]);
            }
            7 => {
                let length = length(random);
                let end = place + rest.min(length.len());
                bytes.splice(place..end, length);
            }
            8 => replace(random, &mut bytes, u8::is_ascii_digit, NUMBERS),
            _ => replace(random, &mut bytes, u8::is_ascii_alphanumeric, dictionary),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// Numbers as text at the limits of types.
const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"-1",
    b"2",
    b"7",
    b"63",
    b"64",
    b"65",
    b"1024",
    b"65536",
    b"268435456",
    b"268435457",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"0.1",
    b"1e-300",
    b"1e300",
    b"1e999",
    b"0.0000000000000001",
    b"1000000000000000000000000000000000",
];

/// A large length in binary, of some width and byte order, or of protobuf.
fn length(random: &mut StdRng) -> Vec<u8> {
    let values = [u64::MAX, 1 << 63, 1 << 40, u64::from(u32::MAX), 1 << 31, 1 << 22, 1 << 16, 0];
    let value = *values.choose(random).unwrap();
    match random.random_range(0..5) {
        0 => value.to_le_bytes().to_vec(),
        1 => value.to_be_bytes().to_vec(),
        2 => (value as u32).to_le_bytes().to_vec(),
        3 => (value as u32).to_be_bytes().to_vec(),
        _ => {
            let mut varint = Vec::new();
            let mut left = value;
            while left >= 0x80 {
                varint.push(left as u8 | 0x80);
                left >>= 7;
            }
            varint.push(left as u8);
            varint
        }
    }
}

/// Replaces a run of such bytes by one of `others`.
fn replace(random: &mut StdRng, bytes: &mut Vec<u8>, such: fn(&u8) -> bool, others: &[&[u8]]) {
    let from = random.random_range(0..=bytes.len());
    let Some(start) = bytes[from..].iter().position(such).map(|place| from + place) else {
        return;
    };
    let end = bytes[start..].iter().position(|byte| !such(byte)).map_or(bytes.len(), |n| start + n);
    if let Some(other) = others.choose(random) {
        bytes.splice(start..end, other.iter().copied());
    }
}

#[test]
fn the_seeds_that_are_no_text_are_those_that_the_code_writes() {
    for (place, expected) in seeds::written() {
        let found = fs::read(Path::new(CORPORA).join(place)).unwrap_or_default();
        assert!(
            found == expected,
            "{place} is of another version; cargo run -p decoders writes it"
        );
    }
}
