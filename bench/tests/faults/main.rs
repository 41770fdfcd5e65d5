//! Faults: five processes, and everything that can happen to them and between them.
//!
//! `make faults` does it at every message; `cargo test` at a few, picked at random.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a test program")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod openings;
mod relay;
// What tells how the cases on a cluster went.
#[path = "../../../operator/tests/e2e/report.rs"]
#[allow(dead_code, reason = "what is told where there is no cluster")]
mod report;
mod scene;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use cases::{CASES, Case};
use report::Report;

/// Sessions that run at the same time: they wait more than they work.
const AT_ONCE: usize = 3;

/// How often long work tells how far it is.
const TELL: Duration = Duration::from_secs(30);

/// What happens to five processes when they are killed, stopped, cut off from each other, or
/// told what is not so.
#[derive(Parser)]
#[command(bin_name = "cargo test -p bench --test faults --")]
struct Arguments {
    /// Only cases whose names contain one of these
    filters: Vec<String>,
    /// At every message, not at a few
    #[arg(long)]
    all: bool,
    /// Pick the same messages as a run that printed this number
    #[arg(long, default_value_t = rand::random::<u32>().into())]
    seed: u64,
    /// Print the names of the cases, and run none
    #[arg(long)]
    list: bool,
}

/// How thorough the cases are.
struct Effort {
    all: bool,
    seed: u64,
}

impl Effort {
    /// All, or as many as are enough for a first look.
    fn choose<T: Clone>(&self, all: Vec<T>, few: usize) -> Vec<T> {
        if self.all {
            return all;
        }
        let mut random = StdRng::seed_from_u64(self.seed);
        all.sample(&mut random, few).cloned().collect()
    }

    /// One of so many.
    fn one(&self, count: usize) -> usize {
        StdRng::seed_from_u64(self.seed).random_range(0..count)
    }
}

/// Does the same to all items, a few at a time, until one fails.
fn each<T: Sync + std::fmt::Debug, R: Send>(
    items: &[T],
    act: impl Fn(usize, &T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results = Mutex::new(Vec::new());
    let told = Mutex::new(Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while !failed.load(Ordering::SeqCst) {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = items.get(index) else { return };
                    let result =
                        act(index, item).map_err(|error| error.context(format!("{item:?}")));
                    failed.fetch_or(result.is_err(), Ordering::SeqCst);
                    results.lock().unwrap().push(result);
                    let mut told = told.lock().unwrap();
                    if told.elapsed() > TELL {
                        *told = Instant::now();
                        eprintln!("         {index} of {}", items.len());
                    }
                }
            });
        }
    });
    results.into_inner().unwrap().into_iter().collect()
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Arguments { filters, all, seed, list } = arguments;
    let chosen = |case: &&Case| filters.is_empty() || filters.iter().any(|w| case.name.contains(w));
    let chosen: Vec<&Case> = CASES.iter().filter(chosen).collect();
    if list {
        chosen.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if chosen.is_empty() {
        eprintln!("no case has {} in its name; --list shows them", filters.join(" or "));
        return ExitCode::FAILURE;
    }
    let effort = Effort { all, seed };
    println!(
        "faults of five processes{}",
        match all {
            true => ", at every message".to_owned(),
            false => format!(", at some messages (--seed {seed}; --all for every one)"),
        }
    );
    let mut report = Report::new();
    for case in &chosen {
        let began = Instant::now();
        let outcome = (case.run)(&effort);
        report.tell(case.name, began.elapsed(), &outcome, "");
    }
    ExitCode::from(u8::from(!report.end()))
}
