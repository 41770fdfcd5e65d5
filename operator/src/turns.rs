//! Whose pods may be put on nodes: one run at a time.
//!
//! A run needs all of its pods at once. Two runs that each have half of theirs on nodes, and
//! no room for the rest, would wait for each other for ever.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

/// The turn, and who waits for it.
#[derive(Debug)]
pub struct Turns<Key> {
    state: Mutex<State<Key>>,
}

#[derive(Debug)]
struct State<Key> {
    /// More than one after a restart only.
    holders: HashSet<String>,
    /// By age and unique id.
    waiting: BTreeMap<(i64, String), Key>,
}

impl<Key> Default for State<Key> {
    fn default() -> Self {
        Self { holders: HashSet::new(), waiting: BTreeMap::new() }
    }
}

impl<Key> Default for Turns<Key> {
    fn default() -> Self {
        Self { state: Mutex::default() }
    }
}

impl<Key: Clone> Turns<Key> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<Key>> {
        // A panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks for the turn; who does not get it waits and is named by a later [`Self::leave`].
    pub fn ask(&self, uid: &str, created: i64, key: Key) -> bool {
        let mut state = self.state();
        let place = (created, uid.to_owned());
        if state.holders.is_empty() || state.holders.contains(uid) {
            state.holders.insert(uid.into());
            state.waiting.remove(&place);
            return true;
        }
        state.waiting.insert(place, key);
        false
    }

    /// Holds the turn whoever else does: its pods are there already.
    pub fn hold(&self, uid: &str) {
        let mut state = self.state();
        state.holders.insert(uid.into());
        state.waiting.retain(|(_, waiting), _| waiting != uid);
    }

    /// Whether this one holds the turn.
    pub fn has(&self, uid: &str) -> bool {
        self.state().holders.contains(uid)
    }

    /// Whether somebody else waits.
    pub fn others_wait(&self, uid: &str) -> bool {
        self.state().waiting.keys().any(|(_, waiting)| waiting != uid)
    }

    /// Gives up the turn, or waiting for it; the one that has waited longest is to ask again,
    /// if the turn is free now.
    pub fn leave(&self, uid: &str) -> Option<Key> {
        let mut state = self.state();
        state.waiting.retain(|(_, waiting), _| waiting != uid);
        let held = state.holders.remove(uid);
        if !held || !state.holders.is_empty() {
            return None;
        }
        state.waiting.first_key_value().map(|(_, key)| key.clone())
    }

    /// Forgets all but those that are still there, as after missed deletions.
    pub fn keep(&self, there: &HashSet<String>) -> Option<Key> {
        let mut state = self.state();
        state.waiting.retain(|(_, waiting), _| there.contains(waiting));
        state.holders.retain(|holder| there.contains(holder));
        if !state.holders.is_empty() {
            return None;
        }
        state.waiting.first_key_value().map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_turn_and_the_oldest_follows() {
        let turns = Turns::default();
        assert!(turns.ask("a", 1, "a") && turns.ask("a", 1, "a"));
        assert!(!turns.ask("c", 3, "c") && !turns.ask("b", 2, "b"));
        assert!(turns.others_wait("a") && turns.others_wait("b"));
        assert_eq!(turns.leave("c"), None, "it only waited");
        assert!(!turns.ask("c", 3, "c"));
        assert_eq!(turns.leave("a"), Some("b"));
        assert!(turns.ask("b", 2, "b") && !turns.others_wait("c"));
        assert_eq!(turns.leave("b"), Some("c"));
    }

    #[test]
    fn what_a_restart_finds_holds_the_turn_together() {
        let turns = Turns::default();
        turns.hold("a");
        turns.hold("b");
        assert!(!turns.ask("c", 3, "c"));
        assert_eq!(turns.leave("a"), None);
        assert_eq!(turns.leave("b"), Some("c"));
    }

    #[test]
    fn the_deleted_do_not_hold_the_turn() {
        let turns = Turns::default();
        assert!(turns.ask("a", 1, "a") && !turns.ask("b", 2, "b"));
        assert_eq!(turns.keep(&HashSet::from(["b".to_owned()])), Some("b"));
        assert!(turns.ask("b", 2, "b"));
    }
}
