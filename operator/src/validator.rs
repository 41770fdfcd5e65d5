//! Validation beside the runtime: once for each generation of a resource, on threads that may
//! block, one at a time.
//!
//! Compiling what a user wrote takes up to a second. Whoever waits for it on a worker of the
//! runtime would keep the health endpoints, the Lease and all other resources waiting too.
//! A reconcile waits for a moment only; then it ends, and the resource is reconciled again when
//! its validation is done.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use tokio::sync::oneshot;

use crate::api::v1alpha1::SecureInference;
use crate::job::{Invalid, Job};
use crate::policy::Policy;

/// Validations at once. Each takes up to 64 MiB for a moment, of the operator's 128.
const AT_ONCE: usize = 1;

/// How long a reconcile waits before it lets others go on.
const WAIT: Duration = Duration::from_millis(100);

/// The longest that a validation may take. What is validated is bounded before, so that only a
/// machine without time for it reaches this.
const DEADLINE: Duration = Duration::from_secs(60);

/// Most results that are kept.
const MOST_ENTRIES: usize = 1024;

/// Most memory of the results that are kept, bytes.
const MOST_BYTES: usize = 16 << 20;

/// What a validated resource takes at least, bytes.
const LEAST_BYTES: usize = 8 << 10;

/// What a graph takes in memory for each byte of its definition.
const BYTES_OF_A_BYTE: usize = 10;

/// A resource's validation: the job, or why it is refused.
pub type Validated = Result<Arc<Job>, Invalid>;

/// What to call with the key of a resource that is to be reconciled again.
type Wake<Key> = Box<dyn Fn(Key) + Send + Sync>;

/// Validates resources, and remembers the results. `Key` names a resource to whoever
/// reconciles it.
pub struct Validator<Key> {
    policy: Policy,
    state: Mutex<State<Key>>,
    wake: Wake<Key>,
}

struct State<Key> {
    /// By unique id.
    results: HashMap<String, Entry>,
    /// Counts uses, to tell what was not used for longest.
    uses: u64,
    running: Vec<Running>,
    /// Who is next: the first of each namespace, then the second of each, and so on.
    waiting: VecDeque<Waiting<Key>>,
}

/// A validation that is to begin.
struct Waiting<Key> {
    uid: String,
    namespace: String,
    key: Key,
}

/// A validation that is under way.
struct Running {
    uid: String,
    generation: i64,
    /// Its resource was deleted meanwhile.
    gone: bool,
}

struct Entry {
    generation: i64,
    validated: Validated,
    bytes: usize,
    used: u64,
}

impl<Key: Clone + Send + 'static> Validator<Key> {
    /// One that has validated nothing yet, by a policy. It calls `wake` with a resource whose
    /// validation is done or can begin after it was not when asked for.
    #[must_use]
    pub fn new(policy: Policy, wake: impl Fn(Key) + Send + Sync + 'static) -> Arc<Self> {
        let state = State {
            results: HashMap::new(),
            uses: 0,
            running: Vec::new(),
            waiting: VecDeque::new(),
        };
        Arc::new(Self { policy, state: Mutex::new(state), wake: Box::new(wake) })
    }

    fn state(&self) -> MutexGuard<'_, State<Key>> {
        // A panic elsewhere leaves nothing half done here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The validation of `resource`, if it is known or done in a moment; else it is under way
    /// or waits for others, and `key` is woken when it is worth asking again.
    pub async fn validate(
        self: &Arc<Self>,
        resource: &SecureInference,
        key: Key,
    ) -> Option<Validated> {
        let (Some(uid), Some(generation)) = (resource.uid(), resource.metadata.generation) else {
            // No API server leaves them out; there is nothing to remember it by.
            return Some(self.policy.job(resource).map(Arc::new));
        };
        {
            let mut state = self.state();
            if let Some(known) = state.known(&uid, generation) {
                return Some(known);
            }
            let namespace = resource.namespace().unwrap_or_default();
            if !state.may_begin(&uid, &namespace, &key) {
                return None;
            }
            state.running.push(Running { uid: uid.clone(), generation, gone: false });
        }
        let (sender, receiver) = oneshot::channel();
        let (this, resource) = (self.clone(), resource.clone());
        tokio::spawn(async move {
            let bytes = weight(&resource);
            let policy = this.policy.clone();
            let work = tokio::task::spawn_blocking(move || policy.job(&resource).map(Arc::new));
            let validated = match tokio::time::timeout(DEADLINE, work).await {
                Ok(Ok(validated)) => validated,
                Ok(Err(failed)) => Err(Invalid(format!("a bug: validating it failed: {failed}"))),
                Err(_) => Err(Invalid(format!(
                    "validating it took more than {} s; make the graph smaller, or give the \
                     operator more CPU",
                    DEADLINE.as_secs()
                ))),
            };
            let next = this.finish(&uid, generation, validated.clone(), bytes);
            // Whoever asked may have stopped waiting.
            let again = sender.send(validated).is_err().then_some(key);
            next.into_iter().chain(again).for_each(&this.wake);
        });
        tokio::time::timeout(WAIT, receiver).await.ok()?.ok()
    }

    /// Keeps a result; who may begin now.
    fn finish(
        &self,
        uid: &str,
        generation: i64,
        validated: Validated,
        bytes: usize,
    ) -> Option<Key> {
        let mut state = self.state();
        let is_this = |running: &Running| running.uid == uid && running.generation == generation;
        let place = state.running.iter().position(is_this);
        let ended = place.map(|place| state.running.swap_remove(place));
        if ended.is_some_and(|ended| !ended.gone) {
            state.keep(uid, generation, validated, bytes);
        }
        state.next()
    }

    /// Forgets a resource that is gone.
    pub fn forget(&self, uid: &str) {
        {
            let mut state = self.state();
            state.results.remove(uid);
            let running = state.running.iter_mut().filter(|running| running.uid == uid);
            running.for_each(|running| running.gone = true);
        }
        self.leave(uid);
    }

    /// Stops waiting for a resource's validation to begin; asked for again it waits anew.
    pub fn leave(&self, uid: &str) {
        let next = {
            let mut state = self.state();
            let before = state.waiting.len();
            state.waiting.retain(|waiting| waiting.uid != uid);
            (state.waiting.len() < before).then(|| state.next()).flatten()
        };
        next.into_iter().for_each(&self.wake);
    }

    /// How many results are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().results.len()
    }

    /// Whether no result is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<Key: Clone> State<Key> {
    fn known(&mut self, uid: &str, generation: i64) -> Option<Validated> {
        self.uses += 1;
        let entry = self.results.get_mut(uid).filter(|entry| entry.generation == generation)?;
        entry.used = self.uses;
        Some(entry.validated.clone())
    }

    /// Whether a validation may begin now; else it waits, unless it is under way.
    fn may_begin(&mut self, uid: &str, namespace: &str, key: &Key) -> bool {
        if self.running.iter().any(|running| running.uid == uid) {
            return false;
        }
        let free = AT_ONCE.saturating_sub(self.running.len());
        let place = self.waiting.iter().position(|waiting| waiting.uid == uid);
        let before = place.unwrap_or_else(|| self.turn(namespace));
        if before < free {
            place.map(|place| self.waiting.remove(place));
            return true;
        }
        if place.is_none() {
            let (uid, namespace) = (uid.to_owned(), namespace.to_owned());
            self.waiting.insert(before, Waiting { uid, namespace, key: key.clone() });
        }
        false
    }

    /// The place of one more of a namespace, so that namespaces take turns: before all that have
    /// more of their own namespace before them than it has.
    fn turn(&self, namespace: &str) -> usize {
        let own = self.waiting.iter().filter(|waiting| waiting.namespace == namespace).count();
        let mut before = HashMap::new();
        let later = self.waiting.iter().position(|waiting| {
            let count = before.entry(waiting.namespace.as_str()).or_insert(0);
            *count += 1;
            *count - 1 > own
        });
        later.unwrap_or(self.waiting.len())
    }

    /// Whose turn it is, if a validation can begin.
    fn next(&self) -> Option<Key> {
        let first = self.waiting.front().filter(|_| self.running.len() < AT_ONCE)?;
        Some(first.key.clone())
    }

    /// Keeps a result, in place of those that were not used for longest.
    fn keep(&mut self, uid: &str, generation: i64, validated: Validated, bytes: usize) {
        let bytes = if validated.is_ok() { bytes } else { LEAST_BYTES };
        let entry = Entry { generation, validated, bytes, used: self.uses };
        self.results.insert(uid.into(), entry);
        loop {
            let total: usize = self.results.values().map(|entry| entry.bytes).sum();
            if self.results.len() <= MOST_ENTRIES && total <= MOST_BYTES {
                return;
            }
            let others = self.results.iter().filter(|(other, _)| *other != uid);
            let oldest = others.min_by_key(|(_, entry)| entry.used).map(|(uid, _)| uid.clone());
            let Some(oldest) = oldest else { return };
            self.results.remove(&oldest);
        }
    }
}

/// About how much memory the job of a resource takes, bytes.
fn weight(resource: &SecureInference) -> usize {
    let graph = resource.spec.model.graph.as_ref();
    let definition = graph.map_or(0, |graph| graph.definition.len());
    LEAST_BYTES.saturating_add(definition.saturating_mul(BYTES_OF_A_BYTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_turns() {
        let mut state = State {
            results: HashMap::new(),
            uses: 0,
            running: Vec::new(),
            waiting: VecDeque::new(),
        };
        for place in 0..AT_ONCE {
            let uid = format!("busy-{place}");
            state.running.push(Running { uid, generation: 1, gone: false });
        }
        for uid in ["a1", "a2", "a3", "b1", "c1", "b2", "a4", "c2"] {
            assert!(!state.may_begin(uid, &uid[..1], &uid));
            // Who asks again keeps its place.
            assert!(!state.may_begin(uid, &uid[..1], &uid));
        }
        let mut order = Vec::new();
        while !state.waiting.is_empty() {
            state.running.pop();
            let uid = state.next().unwrap();
            assert!(state.may_begin(uid, &uid[..1], &uid));
            state.running.push(Running { uid: uid.into(), generation: 1, gone: false });
            order.push(uid);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "c2", "a3", "a4"]);
    }
}
