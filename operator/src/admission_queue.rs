//! The admission queue of gang scheduling: the pods of one run are scheduled at a time.
//!
//! A run needs all of its pods at once. Two runs that each have half of theirs on nodes, and
//! no room for the rest, would wait for each other for ever.
//!
//! Every run gets its turn: namespaces take turns, and within a namespace the run that has
//! waited longest is next. A run that gave way waits from then on, behind all that wait already.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Mutex;

/// Which run is admitted, and which wait to be. `Key` names a run to whoever reconciles it.
#[derive(Debug)]
pub struct AdmissionQueue<Key> {
    state: Mutex<State<Key>>,
}

/// What becomes of a request to be admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<Key> {
    /// Its pods may be scheduled.
    Admitted,
    /// It waits. Those are to be reconciled: who is next if nobody is admitted, or else the
    /// admitted, who may have to give way now that somebody waits.
    Queued(Vec<Key>),
}

#[derive(Debug)]
struct State<Key> {
    /// By unique id; more than one after a restart only.
    admitted: HashMap<String, Key>,
    /// Namespaces in which runs wait, in the order of their turns.
    turns: VecDeque<String>,
    /// By namespace; then by since when they wait, in seconds, and by unique id.
    waiting: HashMap<String, BTreeMap<(i64, String), Key>>,
    /// When runs last gave way, in seconds, by unique id.
    gave_way: HashMap<String, i64>,
}

impl<Key> Default for State<Key> {
    fn default() -> Self {
        Self {
            admitted: HashMap::new(),
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            gave_way: HashMap::new(),
        }
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

    /// Asks for a run, created at a time in seconds, to be admitted.
    pub fn request(&self, uid: &str, namespace: &str, created: i64, key: Key) -> Answer<Key> {
        let mut state = self.state();
        if state.admitted.contains_key(uid) {
            return Answer::Admitted;
        }
        let new = !state.waits(uid);
        if new {
            let since = state.gave_way.get(uid).copied().unwrap_or(created);
            state.enqueue(uid, namespace, since, key.clone());
        }
        match (state.admitted.is_empty(), state.next()) {
            (true, Some((next, _))) if next == uid => {
                state.take_turn(uid, namespace);
                state.admitted.insert(uid.into(), key);
                Answer::Admitted
            }
            (true, next) => Answer::Queued(next.map(|(_, key)| key.clone()).into_iter().collect()),
            (false, _) if new => Answer::Queued(state.admitted.values().cloned().collect()),
            (false, _) => Answer::Queued(Vec::new()),
        }
    }

    /// Is admitted whoever else is: its pods are there already.
    pub fn hold(&self, uid: &str, key: Key) {
        let mut state = self.state();
        state.admitted.insert(uid.into(), key);
        state.leave(uid);
    }

    /// Whether this one is admitted.
    pub fn is_admitted(&self, uid: &str) -> bool {
        self.state().admitted.contains_key(uid)
    }

    /// Whether somebody else waits.
    pub fn others_wait(&self, uid: &str) -> bool {
        self.state().waiting.values().flat_map(BTreeMap::keys).any(|(_, waiting)| waiting != uid)
    }

    /// Leaves the queue; who is next, if nobody is admitted now.
    pub fn release(&self, uid: &str) -> Option<Key> {
        let mut state = self.state();
        state.leave(uid);
        state.admitted.remove(uid);
        state.due()
    }

    /// Leaves its place to others, at a time in seconds, from which on it waits when it asks
    /// again; as [`Self::release`].
    pub fn give_way(&self, uid: &str, now: i64) -> Option<Key> {
        self.state().gave_way.insert(uid.into(), now);
        self.release(uid)
    }

    /// Goes behind the others if it waits: it was called and cannot come now. Who is next, if
    /// that is another and nobody is admitted.
    pub fn postpone(&self, uid: &str, now: i64) -> Option<Key> {
        let mut state = self.state();
        let (namespace, key) = state.leave(uid)?;
        state.gave_way.insert(uid.into(), now);
        state.enqueue(uid, &namespace, now, key);
        let is_other = state.next().is_some_and(|(next, _)| next != uid);
        if is_other { state.due() } else { None }
    }

    /// Forgets a run that is gone; as [`Self::release`].
    pub fn forget(&self, uid: &str) -> Option<Key> {
        self.state().gave_way.remove(uid);
        self.release(uid)
    }

    /// Forgets all but those that are still there, as after missed deletions.
    pub fn retain(&self, there: &HashSet<String>) {
        let mut state = self.state();
        let waiting = state.waiting.values().flat_map(BTreeMap::keys);
        let gone = waiting.filter(|(_, uid)| !there.contains(uid));
        let gone: Vec<String> = gone.map(|(_, uid)| uid.clone()).collect();
        for uid in gone {
            state.leave(&uid);
        }
        state.admitted.retain(|uid, _| there.contains(uid));
        state.gave_way.retain(|uid, _| there.contains(uid));
    }
}

impl<Key: Clone> State<Key> {
    fn waits(&self, uid: &str) -> bool {
        self.waiting.values().flat_map(BTreeMap::keys).any(|(_, waiting)| waiting == uid)
    }

    /// A namespace in which nobody waited has its turn after all others.
    fn enqueue(&mut self, uid: &str, namespace: &str, since: i64, key: Key) {
        if !self.waiting.contains_key(namespace) {
            self.turns.push_back(namespace.into());
        }
        self.waiting.entry(namespace.into()).or_default().insert((since, uid.into()), key);
    }

    /// Waits no more; its namespace, and its key, if it did.
    fn leave(&mut self, uid: &str) -> Option<(String, Key)> {
        let found = self.waiting.iter().find_map(|(namespace, runs)| {
            let place = runs.keys().find(|(_, waiting)| waiting == uid)?;
            Some((namespace.clone(), place.clone()))
        });
        let (namespace, place) = found?;
        let runs = self.waiting.get_mut(&namespace)?;
        let key = runs.remove(&place)?;
        if runs.is_empty() {
            self.waiting.remove(&namespace);
            self.turns.retain(|turn| *turn != namespace);
        }
        Some((namespace, key))
    }

    /// Waits no more, and its namespace has its next turn after all others.
    fn take_turn(&mut self, uid: &str, namespace: &str) {
        self.leave(uid);
        if self.waiting.contains_key(namespace) {
            self.turns.retain(|turn| turn != namespace);
            self.turns.push_back(namespace.into());
        }
    }

    /// Who is next: its unique id and its key.
    fn next(&self) -> Option<(&str, &Key)> {
        let runs = self.waiting.get(self.turns.front()?)?;
        runs.first_key_value().map(|((_, uid), key)| (uid.as_str(), key))
    }

    /// Who is next, if nobody is admitted.
    fn due(&self) -> Option<Key> {
        let next = self.next().filter(|_| self.admitted.is_empty())?;
        Some(next.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::Answer::{Admitted, Queued};
    use super::*;

    /// A queue that admits in one namespace.
    fn ask(
        queue: &AdmissionQueue<&'static str>,
        uid: &'static str,
        created: i64,
    ) -> Answer<&'static str> {
        queue.request(uid, "lab", created, uid)
    }

    #[test]
    fn one_is_admitted_and_the_oldest_follows() {
        let queue = AdmissionQueue::default();
        assert_eq!([ask(&queue, "a", 1), ask(&queue, "a", 1)], [Admitted, Admitted]);
        assert_eq!(ask(&queue, "c", 3), Queued(vec!["a"]), "it may have to give way");
        assert_eq!(ask(&queue, "c", 3), Queued(vec![]), "it knows");
        assert_eq!(ask(&queue, "b", 2), Queued(vec!["a"]));
        assert!(queue.others_wait("a") && queue.others_wait("b"));
        assert_eq!(queue.release("c"), None, "it only waited");
        assert_eq!(ask(&queue, "c", 3), Queued(vec!["a"]));
        assert_eq!(queue.release("a"), Some("b"));
        assert_eq!(ask(&queue, "c", 3), Queued(vec!["b"]), "it is not its turn");
        assert_eq!(ask(&queue, "b", 2), Admitted);
        assert!(!queue.others_wait("c"));
        assert_eq!(queue.release("b"), Some("c"));
    }

    #[test]
    fn who_gave_way_goes_behind_those_that_wait() {
        let queue = AdmissionQueue::default();
        assert_eq!(ask(&queue, "a", 1), Admitted);
        for (uid, created) in [("b", 2), ("c", 3)] {
            ask(&queue, uid, created);
        }
        assert_eq!(queue.give_way("a", 10), Some("b"));
        // While its pods go it is not in the queue.
        assert_eq!(queue.release("a"), Some("b"));
        assert_eq!(ask(&queue, "a", 1), Queued(vec!["b"]));
        assert_eq!(ask(&queue, "b", 2), Admitted);
        assert_eq!(queue.give_way("b", 20), Some("c"));
        ask(&queue, "b", 2);
        assert_eq!(ask(&queue, "c", 3), Admitted);
        assert_eq!(queue.release("c"), Some("a"));
    }

    #[test]
    fn namespaces_take_turns() {
        let queue = AdmissionQueue::default();
        queue.request("holder", "x", 0, "holder");
        for (uid, namespace) in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")] {
            queue.request(uid, namespace, 1, uid);
        }
        let mut next = queue.release("holder");
        let mut order = Vec::new();
        while let Some(uid) = next {
            order.push(uid);
            assert_eq!(queue.request(uid, &uid[..1], 1, uid), Admitted);
            next = queue.release(uid);
        }
        assert_eq!(order, ["a1", "b1", "a2", "b2", "a3"]);
    }

    #[test]
    fn who_cannot_come_lets_the_next_one_come() {
        let queue = AdmissionQueue::default();
        assert_eq!(ask(&queue, "a", 1), Admitted);
        for (uid, created) in [("b", 2), ("c", 3)] {
            ask(&queue, uid, created);
        }
        assert_eq!(queue.postpone("b", 5), None, "it is nobody's turn");
        ask(&queue, "b", 2);
        assert_eq!(queue.release("a"), Some("c"));
        assert_eq!(queue.postpone("c", 6), Some("b"));
        assert_eq!(queue.postpone("b", 7), Some("c"));
        assert_eq!(ask(&queue, "c", 3), Admitted);
        assert_eq!(queue.postpone("c", 8), None, "it has come");
        assert_eq!(queue.release("c"), Some("b"));
        assert_eq!(queue.postpone("b", 9), None, "nobody else waits");
    }

    #[test]
    fn what_a_restart_finds_is_admitted_together() {
        let queue = AdmissionQueue::default();
        queue.hold("a", "a");
        queue.hold("b", "b");
        let Queued(mut woken) = ask(&queue, "c", 3) else { panic!("two are admitted") };
        woken.sort_unstable();
        assert_eq!(woken, ["a", "b"]);
        assert_eq!(queue.release("a"), None);
        assert_eq!(queue.release("b"), Some("c"));
    }

    #[test]
    fn the_deleted_are_not_admitted() {
        let queue = AdmissionQueue::default();
        assert_eq!(ask(&queue, "a", 1), Admitted);
        assert_eq!(ask(&queue, "b", 2), Queued(vec!["a"]));
        ask(&queue, "c", 3);
        queue.retain(&HashSet::from(["c".to_owned()]));
        assert_eq!(ask(&queue, "c", 3), Admitted);
        assert_eq!(queue.forget("c"), None);
    }
}
