//! The report's cells as CSV: one row a cell, of all runs.

use super::model::{MeasuredCell, Report};
use crate::cell::CellId;
use spdz::network::Builtin;

/// The columns and what they hold; times are milliseconds of one inference.
pub const COLUMNS: [(&str, &str); 40] = [
    ("run", "which of the results, by name"),
    ("sweep", "the id of its sweep"),
    ("commit", "what it was built from"),
    ("network", "the network or graph"),
    ("format", "the number format, such as Int64"),
    ("truncation", "Local or Interactive"),
    ("reveal", "what a network's client learns: logits or label; empty of a graph"),
    ("batch_size", "inputs of one inference"),
    ("offline_mode", "when randomness is made: inline or ahead"),
    ("where", "local or cluster"),
    ("rtt_ms", "round trip that the links are shaped to; empty if they are not"),
    ("jitter_ms", "how much each way may be longer"),
    ("bandwidth_mbps", "10^6 bits a second each way; empty without a limit"),
    ("trials", "how often the parties were started"),
    ("repetitions", "timed inferences, of all trials"),
    ("combined_mean_ms", "runtime: offline and online if inline, online if ahead"),
    ("combined_stddev_ms", "its sample standard deviation; empty of one repetition"),
    ("combined_p50_ms", "its median"),
    ("combined_p95_ms", "its 95th percentile"),
    ("combined_p99_ms", "its 99th percentile"),
    ("online_mean_ms", "from the masked input to the output"),
    ("online_p50_ms", "its median"),
    ("online_p99_ms", "its 99th percentile"),
    ("offline_mean_ms", "until both servers hold the randomness"),
    ("inputs_per_second", "batch size / mean runtime"),
    ("floor_ms", "what messages and products alone would take; empty in a cluster"),
    ("times_floor", "mean runtime / floor"),
    ("online_bytes", "sent by all parties online, for one inference"),
    ("offline_bytes", "sent by all parties offline, for one inference"),
    ("online_rounds", "exchanges between the servers"),
    ("accuracy_samples", "inputs scored; empty, and the next six, if none were"),
    ("accuracy_plaintext", "part that the plaintext network gets right"),
    ("accuracy_secure", "part that the evaluation on shares gets right"),
    ("accuracy_low", "least that is plausible of it, at a confidence of 95 %"),
    ("accuracy_high", "most"),
    ("accuracy_agreement", "part where both predict the same"),
    ("mean_kl_divergence", "mean KL divergence, nats; empty of labels"),
    ("suspicious", "true if the trials differ more than they should"),
    ("others_cores", "cores that others kept busy in the worst trial; empty in a cluster"),
    ("failure", "why a trial failed; without a time if none succeeded"),
];

/// The whole file.
///
/// # Errors
/// If a row does not have the columns, which would be a mistake here.
pub(super) fn render(report: &Report<'_>) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(vec![]);
    writer.write_record(COLUMNS.map(|column| column.0))?;
    for run in report.runs {
        let of_run = [text(&run.name), text(&run.sweep), text(&run.environment.commit)];
        for cell in &run.cells {
            let failure = run.failures.iter().find(|failure| failure.key == cell.key);
            let mut row = of_run.to_vec();
            row.extend(key(&cell.key));
            row.extend(measured(cell));
            row.push(text(failure.map_or("", |failure| &failure.why)));
            writer.write_record(row)?;
        }
        for failure in run.failures.iter().filter(|failure| !failure.measured) {
            let mut row = of_run.to_vec();
            row.extend(key(&failure.key));
            row.resize(COLUMNS.len() - 1, String::new());
            row.push(text(&failure.why));
            writer.write_record(row)?;
        }
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}

/// Text from a file, which a spreadsheet shall not take for a formula.
fn text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.into()
    }
}

fn key(key: &CellId) -> Vec<String> {
    let conditions = key.conditions;
    vec![
        text(&key.network),
        key.format.to_string(),
        key.truncation.to_string(),
        // A graph reveals what it says.
        key.network.parse::<Builtin>().map_or_else(|_| String::new(), |_| key.reveal.to_string()),
        key.batch_size.to_string(),
        key.offline_mode.to_string(),
        key.place.to_string(),
        conditions.map_or_else(String::new, |c| c.rtt_ms.to_string()),
        conditions.map_or_else(String::new, |c| c.jitter_ms.to_string()),
        optional(conditions.and_then(|c| c.bandwidth_mbps)),
    ]
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn measured(cell: &MeasuredCell) -> Vec<String> {
    let result = &cell.result;
    let accuracy = result.accuracy;
    vec![
        cell.trial_means_ms.len().to_string(),
        result.repetitions.to_string(),
        result.combined.mean_ms.to_string(),
        optional(result.combined.deviation_ms(result.repetitions)),
        result.combined.p50_ms.to_string(),
        result.combined.p95_ms.to_string(),
        result.combined.p99_ms.to_string(),
        result.online.mean_ms.to_string(),
        result.online.p50_ms.to_string(),
        result.online.p99_ms.to_string(),
        result.offline.mean_ms.to_string(),
        cell.inputs_per_second.to_string(),
        optional(cell.floor_ms),
        optional(cell.times_floor),
        result.online_bytes.to_string(),
        result.offline_bytes.to_string(),
        result.online_rounds.to_string(),
        accuracy.map_or_else(String::new, |a| a.samples.to_string()),
        optional(accuracy.and_then(|a| a.plaintext)),
        optional(accuracy.map(|a| a.secure)),
        optional(cell.accuracy_interval.map(|[low, _]| low)),
        optional(cell.accuracy_interval.map(|[_, high]| high)),
        optional(accuracy.and_then(|a| a.agreement)),
        optional(accuracy.and_then(|a| a.mean_kl_divergence)),
        cell.suspicious.to_string(),
        optional(cell.load.map(|load| load.others_cores)),
    ]
}
