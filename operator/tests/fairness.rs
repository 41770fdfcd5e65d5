//! The admission queue, used as the controller uses it: every run that can be scheduled gets its
//! turn, whatever others do.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;

use operator::admission_queue::{AdmissionQueue, Answer};
use proptest::collection::vec;
use proptest::prelude::*;

/// How long a run keeps its turn while others wait and its pods get no nodes, seconds.
const PATIENCE: i64 = 30;

/// How long the pods of a run that gave way take to go, seconds.
const GOING: i64 = 5;

/// How long the pods of a run take to get nodes, seconds.
const SCHEDULING: i64 = 2;

/// How long a run that cannot be read is left alone, seconds, and how often until it has no turn.
const BACK_OFF: i64 = 32;
const LOST: i64 = 3;

/// What becomes of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Its pods get nodes.
    Schedulable,
    /// They never do.
    Stuck,
    /// It is queued or admitted, and cannot be read after that.
    Unreadable,
    /// It is deleted while it waits, or while it has its turn: so many seconds after it came.
    Deleted(i64),
}

#[derive(Clone, Debug)]
struct Run {
    namespace: u8,
    comes: i64,
    kind: Kind,
}

fn run() -> impl Strategy<Value = Run> {
    let kind = prop_oneof![
        3 => Just(Kind::Schedulable),
        2 => Just(Kind::Stuck),
        1 => Just(Kind::Unreadable),
        1 => (0i64..100).prop_map(Kind::Deleted),
    ];
    (0u8..4, 0i64..200, kind).prop_map(|(namespace, comes, kind)| Run { namespace, comes, kind })
}

struct World {
    queue: AdmissionQueue<usize>,
    runs: Vec<Run>,
    now: i64,
    /// When a run is looked at again though nothing happens.
    again: Vec<Option<i64>>,
    /// Since when it has its turn.
    holds: Vec<Option<i64>>,
    /// When all its pods had nodes.
    scheduled: Vec<Option<i64>>,
    gone: Vec<bool>,
    /// Reconciles that failed one after the other.
    failures: Vec<i64>,
    woken: BTreeSet<usize>,
}

impl World {
    fn new(runs: Vec<Run>) -> Self {
        let count = runs.len();
        Self {
            queue: AdmissionQueue::default(),
            now: 0,
            again: runs.iter().map(|run| Some(run.comes)).collect(),
            holds: vec![None; count],
            scheduled: vec![None; count],
            gone: vec![false; count],
            failures: vec![0; count],
            woken: BTreeSet::new(),
            runs,
        }
    }

    fn reconcile(&mut self, index: usize) {
        let (run, uid) = (self.runs[index].clone(), index.to_string());
        self.again[index] = None;
        if self.gone[index] {
            return;
        }
        if run.kind == Kind::Unreadable && self.now > run.comes {
            self.again[index] = Some(self.now + BACK_OFF);
            self.failures[index] += 1;
            self.woken.extend(self.queue.postpone(&uid, self.now));
            if self.failures[index] >= LOST {
                self.holds[index] = None;
                self.woken.extend(self.queue.release(&uid));
            }
            return;
        }
        if self.scheduled[index].is_some() {
            self.woken.extend(self.queue.release(&uid));
            return;
        }
        let Some(since) = self.holds[index] else {
            match self.queue.request(&uid, &run.namespace.to_string(), run.comes, index) {
                Answer::Admitted => {
                    self.holds[index] = Some(self.now);
                    if run.kind == Kind::Schedulable {
                        self.again[index] = Some(self.now + SCHEDULING);
                    } else {
                        self.wait_with_pods(index, self.now);
                    }
                }
                Answer::Queued(wake) => self.woken.extend(wake),
            }
            return;
        };
        match run.kind {
            Kind::Schedulable if self.now >= since + SCHEDULING => {
                self.scheduled[index] = Some(self.now);
                self.holds[index] = None;
                self.woken.extend(self.queue.release(&uid));
            }
            Kind::Schedulable => self.again[index] = Some(since + SCHEDULING),
            _ => self.wait_with_pods(index, since),
        }
    }

    /// It gives way if others wait for long enough. If nobody waits nothing makes it look again.
    fn wait_with_pods(&mut self, index: usize, since: i64) {
        let uid = index.to_string();
        if !self.queue.others_wait(&uid) {
            return;
        }
        if self.now < since + PATIENCE {
            self.again[index] = Some(since + PATIENCE);
            return;
        }
        self.holds[index] = None;
        self.again[index] = Some(self.now + GOING);
        self.woken.extend(self.queue.give_way(&uid, self.now));
    }

    fn second(&mut self) {
        for index in 0..self.runs.len() {
            if let Kind::Deleted(after) = self.runs[index].kind
                && self.now == self.runs[index].comes + after
            {
                self.gone[index] = true;
                self.woken.extend(self.queue.forget(&index.to_string()));
            }
        }
        let due = (0..self.runs.len()).filter(|i| self.again[*i].is_some_and(|at| at <= self.now));
        let due: Vec<usize> = due.collect();
        self.woken.extend(due);
        for _ in 0..1000 {
            let Some(index) = self.woken.pop_first() else {
                self.now += 1;
                return;
            };
            self.reconcile(index);
        }
        panic!("runs wake each other without end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn every_schedulable_run_gets_its_turn(runs in vec(run(), 1..24)) {
        let mut world = World::new(runs);
        while world.now < 6000 {
            world.second();
        }
        let namespaces: BTreeSet<u8> = world.runs.iter().map(|run| run.namespace).collect();
        for (index, run) in world.runs.iter().enumerate() {
            if run.kind != Kind::Schedulable {
                continue;
            }
            let at = world.scheduled[index];
            prop_assert!(at.is_some(), "{run:?} of {:?}", world.runs);
            // A turn of each namespace for each run of its own, its own turn included.
            let own = world.runs.iter().filter(|other| other.namespace == run.namespace).count();
            let turns = i64::try_from(own * namespaces.len()).unwrap();
            let bound = (turns + 1) * (LOST * BACK_OFF);
            let waited = at.unwrap() - run.comes;
            prop_assert!(waited <= bound, "{waited} s, at most {bound}: {run:?} of {:?}", world.runs);
        }
    }
}

/// What a tenant met whose neighbour had two runs for which no node was large enough.
#[test]
fn two_stuck_runs_of_another_namespace_do_not_alternate_for_ever() {
    let run = |namespace, comes, kind| Run { namespace, comes, kind };
    let mut world = World::new(vec![
        run(0, 0, Kind::Stuck),
        run(0, 0, Kind::Stuck),
        run(1, 2, Kind::Schedulable),
    ]);
    while world.now < 1000 {
        world.second();
    }
    let at = world.scheduled[2].expect("it had its turn");
    assert!(at <= 2 * (PATIENCE + GOING), "at {at} s");
}

#[test]
fn who_has_the_turn_alone_gives_way_to_one_that_comes_later() {
    let run = |namespace, comes, kind| Run { namespace, comes, kind };
    let mut world = World::new(vec![run(0, 0, Kind::Stuck), run(1, 500, Kind::Schedulable)]);
    while world.now < 1000 {
        world.second();
    }
    assert_eq!(world.scheduled[1], Some(500 + SCHEDULING), "it had the turn for long enough");
}
