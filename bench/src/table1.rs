//! `bench table1`: the paper's Table 1 again, on this machine.

use std::fmt::Write as _;

use party::config::OfflineMode;
use party::result::{Accuracy, RunResult};

use crate::environment::Environment;
use crate::floor::{ProductSpeed, Speeds};
use crate::paper;
use crate::results::Results;
use crate::settings::Settings;
use crate::sweep::Table;

/// An accuracy beside that of the plaintext network.
struct Compared {
    samples: usize,
    plaintext: f64,
    secure: f64,
    agreement: f64,
    divergence: f64,
}

impl Compared {
    fn of(accuracy: &Accuracy) -> Option<Self> {
        let Accuracy { samples, secure, .. } = *accuracy;
        Some(Self {
            samples,
            plaintext: accuracy.plaintext?,
            secure,
            agreement: accuracy.agreement?,
            divergence: accuracy.mean_kl_divergence?,
        })
    }

    /// Of a run that was scored.
    fn in_run(run: &RunResult) -> Option<Self> {
        run.accuracy.as_ref().and_then(Self::of)
    }
}

/// The table: the paper's numbers beside these.
#[must_use]
pub fn render(results: &Results) -> String {
    let first = results.runs.first().and_then(|cell| cell.merged.as_ref());
    let runs = results.runs.iter().filter_map(|cell| cell.merged.as_ref());
    let rows: String = runs.map(row).collect();
    let (batch, repetitions, offline) = first.map_or((1, 0, OfflineMode::Inline), |run| {
        (run.batch_size, run.repetitions, run.offline_mode)
    });
    let head = head(&results.environment, batch, repetitions, offline);
    format!("{head}{rows}{}", foot(results))
}

/// Its head and its rows, for a sweep to print as it goes on; [`foot`] then ends it.
pub const AS_IT_COMES: Table = Table {
    head: |environment, settings| {
        let Settings { ref batch_sizes, ref offline, repetitions, .. } = *settings;
        let batch = batch_sizes.first().copied().unwrap_or(1);
        head(environment, batch, repetitions, offline.first().copied().unwrap_or_default())
    },
    row,
};

/// What is above the first row.
fn head(environment: &Environment, batch: usize, repetitions: u64, offline: OfflineMode) -> String {
    format!(
        "Table 1: private inference on MNIST, batch {batch}, {repetitions} timed inferences, \
         correlated randomness generated {offline}\n  \
         here:  5 processes on {} cores of {}, mutual TLS on loopback, load {:.1} at the start\n  \
         paper: 36 cores for each party, one cloud region, batch 1\n\n\
         {:23}runtime, ms                              accuracy, %                   KL divergence\n\
         {:23}paper (sd)     here (sd)        online   paper plain/secure  here plain/secure   paper    here\n",
        environment.cores, environment.cpu, environment.load_average, "", "",
    )
}

/// The row of one network in one number format.
fn row(run: &RunResult) -> String {
    let paper = paper::table1(&run.network, run.format);
    let accuracy = Compared::in_run(run);
    let pair = |mean: f64, deviation: f64, digits: usize| {
        format!("{mean:.digits$} ({deviation:.digits$})")
    };
    let percent = |plain: f64, secure: f64| format!("{:.2} / {:.2}", plain * 100.0, secure * 100.0);
    format!(
        "{:<2} {:<6} {:<11}  {:<13}  {:<15}  {:<7}  {:<18}  {:<18}  {:<7}  {}\n",
        run.network,
        run.format,
        run.truncation,
        paper.map_or("-".into(), |p| pair(p.mean_ms, p.stddev_ms, 0)),
        pair(run.combined.mean_ms, run.combined.stddev_ms, 2),
        format!("{:.2}", run.online.mean_ms),
        paper.map_or("-".into(), |p| percent(p.plaintext, p.secure)),
        accuracy.as_ref().map_or("-".into(), |a| percent(a.plaintext, a.secure)),
        paper.map_or("-".into(), |p| format!("{:.4}", p.kl_divergence)),
        accuracy.as_ref().map_or("-".into(), |a| format!("{:.1e}", a.divergence)),
    )
}

/// What is below the last row.
#[must_use]
pub fn foot(results: &Results) -> String {
    let measured = || results.runs.iter().filter_map(|cell| Some((cell, cell.merged.as_ref()?)));
    let offline = measured().next().map_or(OfflineMode::Inline, |(_, run)| run.offline_mode);
    let mut text = String::new();
    let runtime = match offline {
        OfflineMode::Inline => {
            "Runtime is offline and online together: the producer makes each inference's randomness\n\
             within it. Online starts when the randomness is there. Bytes and rounds of one inference:"
        }
        OfflineMode::Ahead => {
            "Runtime is online alone: the producer made the randomness of all inferences before the\n\
             first. The paper's has both. Bytes, rounds and time spent ahead for one inference:"
        }
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{runtime}");
    for (cell, run) in measured() {
        let agreement = Compared::in_run(run).map_or(String::new(), |a| {
            format!(", {:.2} % of {} predictions agree", a.agreement * 100.0, a.samples)
        });
        let lost = match run.out_of_range {
            0 => String::new(),
            count => format!(", {count} inferences out of range"),
        };
        let ahead = match run.offline_mode {
            OfflineMode::Inline => String::new(),
            OfflineMode::Ahead => format!(" in {:.2} ms", run.offline.mean_ms),
        };
        let floor = match (cell.times_floor(), cell.floor_ms) {
            (Some(times), Some(floor)) => {
                format!(", runtime {times:.1} times the floor of {floor:.3} ms")
            }
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "{:<2} {:<6} {:<11}  online {:.1} kB in {} rounds, offline {:.1} kB{ahead}{floor}\
             {agreement}{lost}",
            run.network,
            run.format,
            run.truncation,
            run.online_bytes as f64 / 1e3,
            run.online_rounds,
            run.offline_bytes as f64 / 1e3,
        );
    }
    let Some(Speeds { exchange_micros, gigabytes_per_second, products }) = &results.speeds else {
        return text;
    };
    let products = products.iter().map(|product| {
        let ProductSpeed { format, gigamacs_per_second } = product;
        format!("{format} {gigamacs_per_second:.1} GMAC/s a core")
    });
    let _ = writeln!(
        text,
        "\nThe floor is what these messages and the matrix products alone would take at the speeds\n\
         measured here, each product in its own shape: exchange {exchange_micros:.1} us, \
         {gigabytes_per_second:.2} GB/s each way;\n512x512x512 products {}.",
        products.collect::<Vec<_>>().join(", "),
    );
    text
}
