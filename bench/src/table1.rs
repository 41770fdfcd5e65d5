//! `bench table1`: the paper's Table 1 again, on this machine.

use std::fmt::Write as _;

use party::config::OfflineMode;
use party::result::{Accuracy, RunResult};
use spdz::network::Reveal;

use crate::accuracy::{interval, percents};
use crate::cell::{CellId, LABELS, computed};
use crate::console;
use crate::environment::Environment;
use crate::floor::{ProductSpeed, Speeds};
use crate::layout::{Align, Table, fill, wrap};
use crate::paper::{self, COMPARABLE};
use crate::results::{Cell, Results};
use crate::settings::Settings;
use crate::sweep;

/// An accuracy beside that of the plaintext network.
struct Compared {
    plaintext: f64,
    secure: f64,
    /// None of labels.
    divergence: Option<f64>,
}

impl Compared {
    fn of(accuracy: &Accuracy) -> Option<Self> {
        Some(Self {
            plaintext: accuracy.plaintext?,
            secure: accuracy.secure,
            divergence: accuracy.mean_kl_divergence,
        })
    }

    /// Of a run that was scored.
    fn in_run(run: &RunResult) -> Option<Self> {
        run.accuracy.as_ref().and_then(Self::of)
    }
}

/// Columns of the widest row. On a narrower terminal each row is a list.
const COLUMNS: usize = 100;

fn fits(width: Option<usize>) -> bool {
    width.is_none_or(|width| width >= COLUMNS)
}

/// The table, for a terminal of so many columns: the paper's numbers beside these.
#[must_use]
pub fn render(results: &Results, width: Option<usize>) -> String {
    let first = results.runs.first().and_then(|cell| cell.merged.as_ref());
    let rows: String = measured(results).map(|(cell, run)| row(&cell.key, run, width)).collect();
    let (batch, repetitions, offline) = first.map_or((1, 0, OfflineMode::Inline), |run| {
        (run.batch_size, run.repetitions, run.offline_mode)
    });
    let head = head(&results.environment, batch, repetitions, offline, width);
    format!("{head}{rows}{}", foot(results, width))
}

/// Its head and its rows, for a sweep to print as it goes on; [`foot`] then ends it.
pub const AS_IT_COMES: sweep::Table = sweep::Table {
    head: |environment, settings| {
        let Settings { ref batch_sizes, ref offline, repetitions, .. } = *settings;
        let batch = batch_sizes.first().copied().unwrap_or(1);
        let offline = offline.first().copied().unwrap_or_default();
        head(environment, batch, repetitions, offline, console::width())
    },
    row: |key, trial| row(key, &trial.result, console::width()),
};

/// The cells that were measured.
fn measured(results: &Results) -> impl Iterator<Item = (&Cell, &RunResult)> {
    results.runs.iter().filter_map(|cell| Some((cell, cell.merged.as_ref()?)))
}

/// What is above the first row.
fn head(
    environment: &Environment,
    batch: usize,
    repetitions: u64,
    offline: OfflineMode,
    width: Option<usize>,
) -> String {
    let Environment { cores, cpu, load_average, .. } = environment;
    let mut text = fill(
        &format!(
            "Table 1: private inference on MNIST, batch {batch}, {repetitions} timed inferences\n\
             correlated randomness generated {offline}\n\
             here: 5 processes on {cores} cores of {cpu}, mutual TLS on loopback, load \
             {load_average:.1} at the start\n\
             paper: 36 cores for each party, one cloud region"
        ),
        width,
    );
    text.push('\n');
    if fits(width) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:22}runtime, ms                       accuracy, % plain / secure    KL divergence",
            ""
        );
        let _ = writeln!(
            text,
            "{:20}  paper (sd)  here (sd)     online  paper          here           paper   here",
            ""
        );
    }
    text
}

/// `C Int100 Interactive`.
fn name(run: &RunResult) -> String {
    let RunResult { network, reveal, format, truncation, .. } = run;
    format!("{} {format} {truncation}", computed(network, *reveal))
}

/// Where the columns begin.
const STARTS: [usize; 8] = [0, 22, 34, 48, 56, 71, 86, 94];

/// Fields in their columns. One that is too long takes the room of the next as far as that has
/// some: what the paper did not measure is short.
fn in_columns(fields: &[&str; 8]) -> String {
    let mut line = String::new();
    for (index, field) in fields.iter().enumerate() {
        let end = line.chars().count();
        let next = STARTS.get(index + 1).copied().unwrap_or(COLUMNS + 2);
        let gap = match STARTS[index].saturating_sub(end) {
            _ if end == 0 => 0,
            gap @ 2.. => gap,
            // One space, if the column after it then begins where it should.
            _ if end + 2 + field.chars().count() + 2 > next => 1,
            _ => 2,
        };
        line.extend(std::iter::repeat_n(' ', gap));
        line.push_str(field);
    }
    line
}

/// The row of one network in one number format.
fn row(key: &CellId, run: &RunResult, width: Option<usize>) -> String {
    let published = paper::beside(key);
    let paper = published.and_then(|published| published.row);
    let accuracy = Compared::in_run(run);
    let pair = |mean: f64, deviation: Option<f64>, digits: usize| {
        let deviation = deviation.map_or("-".into(), |deviation| format!("{deviation:.digits$}"));
        format!("{mean:.digits$} ({deviation})")
    };
    let percent = |plain: f64, secure: f64| format!("{:.2} / {:.2}", plain * 100.0, secure * 100.0);
    let absent = || String::from("-");
    let fields = [
        published.map_or_else(absent, |p| pair(p.mean_ms, paper.map(|row| row.stddev_ms), 0)),
        pair(run.combined.mean_ms, run.combined.deviation_ms(run.repetitions), 2),
        format!("{:.2}", run.online.mean_ms),
        paper.map_or_else(absent, |p| percent(p.plaintext, p.secure)),
        accuracy.as_ref().map_or_else(absent, |a| percent(a.plaintext, a.secure)),
        paper.map_or_else(absent, |p| format!("{:.4}", p.kl_divergence)),
        accuracy
            .as_ref()
            .and_then(|a| a.divergence)
            .map_or_else(absent, |divergence| format!("{divergence:.1e}")),
    ];
    let [theirs, ours, online, their_accuracy, accuracy, their_divergence, divergence] = fields;
    if fits(width) {
        let line = in_columns(&[
            &name(run),
            &theirs,
            &ours,
            &online,
            &their_accuracy,
            &accuracy,
            &their_divergence,
            &divergence,
        ]);
        if width.is_none_or(|width| line.chars().count() <= width) {
            return line + "\n";
        }
    }
    let list = format!(
        "runtime (sd) {ours} ms, paper {theirs}; online {online} ms\n\
         plain / secure {accuracy} %, paper {their_accuracy}\n\
         KL divergence {divergence}, paper {their_divergence}"
    );
    format!("{}\n{}", name(run), wrap(&list, "  ", width))
}

/// What is below the last row, for a terminal of so many columns.
#[must_use]
pub fn foot(results: &Results, width: Option<usize>) -> String {
    let offline = measured(results).next().map_or(OfflineMode::Inline, |(_, run)| run.offline_mode);
    let runtime = match offline {
        OfflineMode::Inline => {
            "Runtime is offline and online together: the producer makes each inference's randomness \
             within it. Online starts when the randomness is there."
        }
        OfflineMode::Ahead => {
            "Runtime is online alone: the producer made the randomness of all inferences before the \
             first. The paper's has both."
        }
    };
    let mut text = format!("\n{}", fill(runtime, width));
    if measured(results).any(|(cell, _)| paper::beside(&cell.key).is_none()) {
        text.push_str(&fill(COMPARABLE, width));
    }
    if measured(results).any(|(cell, _)| cell.key.reveal == Reveal::Label) {
        text.push_str(&fill(LABELS, width));
    }
    text.push('\n');
    text.push_str(&costs(results, offline).render(width));
    text.push_str(&fill(
        "\nBytes and rounds are those of one inference. The interval is that of the accuracy on shares \
         of all such images, at a confidence of 95 % and as far as the n that were scored tell. \
         Predictions agree with those of the plaintext network.",
        width,
    ));
    let Some(Speeds { exchange_micros, gigabytes_per_second, products }) = &results.speeds else {
        return text;
    };
    let products = products.iter().map(|product| {
        let ProductSpeed { format, gigamacs_per_second } = product;
        format!("{format} {gigamacs_per_second:.1} GMAC/s a core")
    });
    text.push_str(&fill(
        &format!(
            "The floor is what these messages and the matrix products alone would take at the speeds \
             measured here, each product in its own shape: exchange {exchange_micros:.1} us, \
             {gigabytes_per_second:.2} GB/s each way; 512x512x512 products {}.",
            products.collect::<Vec<_>>().join(", "),
        ),
        width,
    ));
    text
}

/// What an inference costs, a row for each cell, and what to know of its measurement.
fn costs(results: &Results, offline: OfflineMode) -> Table {
    use Align::{Left, Right};
    let mut head = vec![
        ("", Left),
        ("online kB", Right),
        ("rounds", Right),
        ("offline kB", Right),
        ("floor ms", Right),
        ("times", Right),
        ("95 % interval", Right),
        ("agree %", Right),
        ("n", Right),
    ];
    if offline == OfflineMode::Ahead {
        head.push(("offline ms", Right));
    }
    let mut table = Table::new(&head);
    for (cell, run) in measured(results) {
        let optional = |text: Option<String>| text.unwrap_or_default();
        let accuracy = run.accuracy.as_ref();
        let mut fields = vec![
            name(run),
            format!("{:.1}", run.online_bytes as f64 / 1e3),
            run.online_rounds.to_string(),
            format!("{:.1}", run.offline_bytes as f64 / 1e3),
            optional(cell.floor_ms.map(|floor| format!("{floor:.3}"))),
            optional(cell.times_floor().map(|times| format!("{times:.1}"))),
            optional(accuracy.and_then(interval).map(percents)),
            optional(accuracy.and_then(|a| a.agreement).map(|part| format!("{:.2}", part * 100.0))),
            optional(accuracy.map(|accuracy| accuracy.samples.to_string())),
        ];
        if offline == OfflineMode::Ahead {
            fields.push(format!("{:.2}", run.offline.mean_ms));
        }
        table.row(fields, cell.remarks());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Trial;
    use crate::cell::tests::{key, trial};
    use crate::load::Load;
    use crate::results::{SCHEMA_VERSION, Sweep};

    fn accuracy() -> Accuracy {
        Accuracy {
            samples: 400,
            plaintext: Some(0.99),
            secure: 0.9875,
            agreement: Some(0.9975),
            mean_kl_divergence: Some(1e-7),
        }
    }

    fn results(key: CellId, samples: &[f64]) -> Results {
        let load = Some(Load { others_cores: 1.5, cores: 2 });
        let mut trial = Trial { load, ..trial(samples) };
        trial.result.truncation = key.truncation;
        trial.result.batch_size = key.batch_size;
        trial.result.out_of_range = 3;
        trial.result.accuracy = Some(accuracy());
        let settings = Settings::default();
        Results {
            schema_version: SCHEMA_VERSION,
            sweep: Sweep { id: "x".into(), name: "x".into(), settings },
            environment: Environment::read(),
            speeds: None,
            runs: vec![Cell::of(key, vec![trial])],
        }
    }

    #[test]
    fn the_papers_figures_stand_beside_what_compares() {
        let table = render(&results(key(), &[2.0, 3.0]), None);
        assert!(table.contains("A Int64 Local         14 (4)      2.50 (0.71)"), "{table}");
        assert!(!table.contains("The paper measured"), "{table}");
        let table = render(&results(CellId { batch_size: 3, ..key() }, &[2.0, 3.0]), None);
        assert!(table.contains("A Int64 Local         -           2.50 (0.71)"), "{table}");
        assert!(table.contains("The paper measured networks A, B and C at batch 1"), "{table}");
        let ahead = CellId { offline_mode: OfflineMode::Ahead, ..key() };
        assert!(!render(&results(ahead, &[2.0]), None).contains("14 (4)"));
        let label = CellId { reveal: Reveal::Label, ..key() };
        let label = render(&results(label, &[2.0]), None);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&label).contains(LABELS) && !words(&table).contains(LABELS), "{label}");
    }

    #[test]
    fn rows_of_exact_networks_are_as_wide_as_the_others() {
        use super::row as table1_row;
        let row = |network: &str| {
            let mut trial = trial(&[2.0, 3.0]);
            trial.result.network = network.into();
            row(&CellId { network: network.into(), ..key() }, &trial.result, None)
        };
        let (paper, exact) = (row("A"), row("C-relu-max"));
        assert!(paper.starts_with("A Int64 Local         14 (4)      2.50 (0.71)"), "{paper}");
        assert!(exact.starts_with("C-relu-max Int64 Local  -         2.50 (0.71)"), "{exact}");
        assert_eq!(paper.find("2.50"), exact.find("2.50"));
        // The longest name with the format's own truncation.
        let mut trial = trial(&[2.0, 3.0]);
        trial.result.accuracy = Some(Accuracy { mean_kl_divergence: None, ..accuracy() });
        (trial.result.network, trial.result.reveal) = ("C-relu-max".into(), Reveal::Label);
        let key = CellId { network: "C-relu-max".into(), reveal: Reveal::Label, ..key() };
        let label = table1_row(&key, &trial.result, None);
        assert_eq!(paper.find("2.50"), label.find("2.50"));
        assert!(label.starts_with("C-relu-max (label) Int64 Local - "), "{label}");
        assert!(label.ends_with("99.00 / 98.75  -       -\n"), "there is no divergence: {label}");
    }

    #[test]
    fn a_field_that_is_too_long_leaves_the_row_as_wide() {
        let row = |ms: &[f64], divergence| {
            let mut trial = trial(ms);
            trial.result.accuracy = Some(Accuracy {
                plaintext: Some(1.0),
                secure: 1.0,
                mean_kl_divergence: divergence,
                ..accuracy()
            });
            row(&key(), &trial.result, Some(100))
        };
        let (usual, long) = (row(&[2.0, 3.0], Some(1e-7)), row(&[123.4, 143.4], Some(1e-7)));
        for expected in
            [" 133.40 (14.14) ", " 133.40 97.35 / 97.18 ", " 100.00 / 100.00 0.0065 1.0e-7"]
        {
            assert!(long.contains(expected), "{expected}: {long}");
        }
        assert_eq!(long.trim_end().chars().count(), 100, "{long}");
        assert_eq!(usual.find("97.35"), long.find("97.35"));
        // A row that is wider for all that is a list.
        let list = row(&[123_456.0, 234_567.0], Some(1e-7));
        assert!(list.lines().count() > 1 && list.lines().all(|line| line.len() <= 100), "{list}");
    }

    #[test]
    fn what_is_not_sure_is_said() {
        let table = render(&results(key(), &[2.0]), None);
        assert!(table.contains("2.00 (-)"), "one repetition has no deviation: {table}");
        for expected in ["97.11 to 99.46", "400", "others used 1.5 of 2 cores", "3 evaluations out"]
        {
            assert!(table.contains(expected), "{expected}: {table}");
        }
    }

    #[test]
    fn it_is_read_at_any_width() {
        let results = results(key(), &[2.0, 3.0]);
        for width in [60, 100] {
            let table = render(&results, Some(width));
            let longest = table.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{longest:?}: {table}");
            for expected in ["14 (4)", "2.50 (0.71)", "99.00 / 98.75", "97.11 to 99.46"] {
                assert!(table.contains(expected), "{expected}: {table}");
            }
        }
    }
}
