//! Bytes and rounds.

use party::result::RunResult;

use crate::report::figures::bytes;
use crate::report::model::MeasuredCell;
use crate::report::naming::Naming;
use crate::report::parts::{self, Section, Table, head};

pub(super) fn section(cells: &[&MeasuredCell], naming: &Naming) -> Section {
    let mut section = parts::section("traffic", "Bytes and rounds");
    section.prose.push(
        "What all parties together send for one inference, as gRPC messages before HTTP/2 and \
         TLS. Rounds are exchanges between the servers, one after the other: on a network each \
         costs a round trip, whatever the batch. These numbers do not vary from run to run."
            .into(),
    );
    let rows = cells.iter().map(|cell| {
        let RunResult { online_bytes, offline_bytes, online_rounds, .. } = cell.result;
        let each = |count: u64| bytes(count / cell.key.batch_size.max(1) as u64);
        vec![
            naming.full(&cell.key),
            online_rounds.to_string(),
            bytes(online_bytes),
            bytes(offline_bytes),
            each(online_bytes.saturating_add(offline_bytes)),
        ]
    });
    section.tables.push(Table {
        caption: "Communication of one inference".into(),
        head: head(&["Cell", ">Rounds", ">Online", ">Offline", ">Both, an input"]),
        rows: rows.collect(),
    });
    section
}
