//! The admission queue of gang scheduling: the pods of one run are scheduled at a time.
//!
//! A run needs all of its pods at once. Two runs that each have half of theirs on nodes, and
//! no room for the rest, would wait for each other for ever.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;

/// Which run is admitted, and which wait to be.
#[derive(Debug)]
pub struct AdmissionQueue<Key> {
    state: Mutex<State<Key>>,
}

#[derive(Debug)]
struct State<Key> {
    /// Unique ids; more than one after a restart only.
    admitted: HashSet<String>,
    /// By age and unique id.
    waiting: BTreeMap<(i64, String), Key>,
}

impl<Key> Default for State<Key> {
    fn default() -> Self {
        Self { admitted: HashSet::new(), waiting: BTreeMap::new() }
    }
}

impl<Key> Default for AdmissionQueue<Key> {
    fn default() -> Self {
        Self { state: Mutex::default() }
    }
}

impl<Key: Clone> AdmissionQueue<Key> {
    fn state(&self) -> std::sync::MutexGuard<'_, State<Key>> {
        // A panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Asks to be admitted; a run that is not waits, and a later [`Self::release`] names it.
    pub fn request(&self, uid: &str, created: i64, key: Key) -> bool {
        let mut state = self.state();
        let place = (created, uid.to_owned());
        if state.admitted.is_empty() || state.admitted.contains(uid) {
            state.admitted.insert(uid.into());
            state.waiting.remove(&place);
            return true;
        }
        state.waiting.insert(place, key);
        false
    }

    /// Is admitted whoever else is: its pods are there already.
    pub fn hold(&self, uid: &str) {
        let mut state = self.state();
        state.admitted.insert(uid.into());
        state.waiting.retain(|(_, waiting), _| waiting != uid);
    }

    /// Whether this one is admitted.
    pub fn is_admitted(&self, uid: &str) -> bool {
        self.state().admitted.contains(uid)
    }

    /// Whether somebody else waits.
    pub fn others_wait(&self, uid: &str) -> bool {
        self.state().waiting.keys().any(|(_, waiting)| waiting != uid)
    }

    /// Leaves the queue; the run that has waited longest is to ask again, if none is admitted
    /// now.
    pub fn release(&self, uid: &str) -> Option<Key> {
        let mut state = self.state();
        state.waiting.retain(|(_, waiting), _| waiting != uid);
        let held = state.admitted.remove(uid);
        if !held || !state.admitted.is_empty() {
            return None;
        }
        state.waiting.first_key_value().map(|(_, key)| key.clone())
    }

    /// Forgets all but those that are still there, as after missed deletions; as
    /// [`Self::release`].
    pub fn retain(&self, there: &HashSet<String>) -> Option<Key> {
        let mut state = self.state();
        state.waiting.retain(|(_, waiting), _| there.contains(waiting));
        state.admitted.retain(|uid| there.contains(uid));
        if !state.admitted.is_empty() {
            return None;
        }
        state.waiting.first_key_value().map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_admitted_and_the_oldest_follows() {
        let queue = AdmissionQueue::default();
        assert!(queue.request("a", 1, "a") && queue.request("a", 1, "a"));
        assert!(!queue.request("c", 3, "c") && !queue.request("b", 2, "b"));
        assert!(queue.others_wait("a") && queue.others_wait("b"));
        assert_eq!(queue.release("c"), None, "it only waited");
        assert!(!queue.request("c", 3, "c"));
        assert_eq!(queue.release("a"), Some("b"));
        assert!(queue.request("b", 2, "b") && !queue.others_wait("c"));
        assert_eq!(queue.release("b"), Some("c"));
    }

    #[test]
    fn what_a_restart_finds_is_admitted_together() {
        let queue = AdmissionQueue::default();
        queue.hold("a");
        queue.hold("b");
        assert!(!queue.request("c", 3, "c"));
        assert_eq!(queue.release("a"), None);
        assert_eq!(queue.release("b"), Some("c"));
    }

    #[test]
    fn the_deleted_are_not_admitted() {
        let queue = AdmissionQueue::default();
        assert!(queue.request("a", 1, "a") && !queue.request("b", 2, "b"));
        assert_eq!(queue.retain(&HashSet::from(["b".to_owned()])), Some("b"));
        assert!(queue.request("b", 2, "b"));
    }
}
