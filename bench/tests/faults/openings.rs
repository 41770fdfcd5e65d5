//! What was sent under a mask, and whether any mask was used twice.
//!
//! An opening is a value minus a mask that is uniform in the ring. Under one mask, two openings
//! differ by no more than the values do, which are small; under two, the difference is uniform
//! itself. So words of 64 bits that are close to each other, many in a row, tell of a mask that
//! hid two values.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use party::net::wire::Frame;
use spdz::channel::{Phase, Role};

use crate::relay::{Place, chunk, tag};

/// Words that are compared of each part of an opening.
const WORDS: usize = 16;

/// Parts of an opening that are compared, evenly spaced.
const PARTS: usize = 4;

/// Values and their sums stay far below; that two random words are that close has a
/// probability of 2^-23.
const CLOSE: u64 = 1 << 40;

/// How many words of a part must be close.
const SUSPICIOUS: usize = WORDS / 2;

/// The first message of the set-up that is masked; those before hold keys.
const FIRST_MASKED: u32 = 3;

/// Identifies a message of a session: sender and receiver; phase, inference and step.
type Message = (Role, Role, [u64; 3]);

/// Everything that a session has sent, delivered or not, of what is masked.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<BTreeMap<Message, Vec<u64>>>>);

impl Record {
    /// Takes down a frame that holds a whole message.
    pub(crate) fn add(&self, place: Place, frame: &Frame) {
        let (Some(tag), Some(chunk)) = (tag(frame), chunk(frame)) else { return };
        let masked = match (place.from, place.to) {
            (Role::Player(_), _) => match tag.phase {
                Phase::Setup => tag.step >= FIRST_MASKED,
                phase => phase == Phase::Online,
            },
            (Role::Server0, Role::Server1) | (Role::Server1, Role::Server0) => {
                tag.phase == Phase::Online
            }
            _ => false,
        };
        if masked {
            let words = chunk.data.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            let tag = [tag.phase as u64, tag.inference, tag.step.into()];
            let key = (place.from, place.to, tag);
            self.0.lock().unwrap().insert(key, words.collect());
        }
    }

    /// The openings: what a player sent to a server, and what the two servers sent each other
    /// put together. Half of one, which is all that there is if the other half was not sent
    /// before somebody died, is an opening of a share.
    pub(crate) fn openings(&self, session: usize) -> Vec<Opening> {
        let record = self.0.lock().unwrap();
        let mut openings = Vec::new();
        for ((from, to, tag), words) in record.iter() {
            let [_, inference, step] = *tag;
            let opened = match from {
                // The same goes to both servers.
                Role::Player(_) if *to == Role::Server1 => continue,
                Role::Server1 => continue,
                Role::Server0 => match record.get(&(Role::Server1, Role::Server0, *tag)) {
                    Some(other) => {
                        words.iter().zip(other).map(|(x, y)| x.wrapping_add(*y)).collect()
                    }
                    None => words.clone(),
                },
                _ => words.clone(),
            };
            for part in 0..PARTS {
                let start = opened.len().saturating_sub(WORDS) * part / (PARTS - 1);
                let words = opened[start..].iter().copied().take(WORDS).collect();
                let name = format!(
                    "part {part} of step {step} of inference {inference} from {from} in session \
                     {session}"
                );
                openings.push(Opening { session, name, words });
            }
        }
        openings
    }
}

/// A part of an opening.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) session: usize,
    /// Which it is, for people.
    pub(crate) name: String,
    words: Vec<u64>,
}

impl Opening {
    /// As it would be under the same mask, had another value been hidden.
    pub(crate) fn of_another_value(&self) -> Self {
        let words = self.words.iter().enumerate().map(|(index, word)| {
            let difference = 4096 * (index as u64 + 1);
            if index % 2 == 0 {
                word.wrapping_add(difference)
            } else {
                word.wrapping_sub(difference)
            }
        });
        Self { words: words.collect(), session: self.session + 1_000_000, ..self.clone() }
    }

    fn under_the_mask_of(&self, other: &Self) -> bool {
        let close = |(x, y): &(&u64, &u64)| {
            let difference = x.wrapping_sub(**y);
            difference.min(difference.wrapping_neg()) < CLOSE
        };
        self.words.iter().zip(&other.words).filter(close).count() >= SUSPICIOUS
    }
}

/// Pairs of openings under one mask.
pub(crate) fn under_one_mask(mut openings: Vec<Opening>) -> Vec<(Opening, Opening)> {
    let mut found = Vec::new();
    // Half of the words of such a pair are close, so one of the first nine is.
    for index in 0..=SUSPICIOUS {
        openings.sort_by_key(|opening| opening.words[index]);
        for (place, opening) in openings.iter().enumerate() {
            let near = |other: &&Opening| other.words[index] - opening.words[index] < CLOSE;
            let others = openings[place + 1..].iter().take_while(near);
            let same = others.filter(|other| opening.under_the_mask_of(other));
            found.extend(same.map(|other| (opening.clone(), other.clone())));
        }
    }
    found
}
