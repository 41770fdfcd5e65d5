//! Offline against online.

use party::config::OfflineMode;
use party::result::{Latency, RunResult};

use crate::report::figures::{figure, milliseconds, percent};
use crate::report::model::MeasuredCell;
use crate::report::naming::Naming;
use crate::report::parts::{self, Figure, Plot, Section, Table, absent, groups, head, look};
use crate::report::plot::{Mark, Row, Rows, Spacing};
use crate::report::theme::Ink;

pub(super) fn section(cells: &[&MeasuredCell], naming: &Naming) -> Section {
    let mut section = parts::section("phases", "Offline against online");
    section.prose.push(
        "Offline, the producer makes the randomness and both servers get it; online begins when \
         the masked input is sent and ends with the output. Only the online part has to wait \
         for the input. Where correlated randomness is generated ahead, the runtime is the online part, and the \
         offline one, drawn faint, was spent before."
            .into(),
    );
    for (name, cells) in groups(cells, naming) {
        let rows = cells.iter().map(|cell| {
            let RunResult { offline, online, combined, .. } = &cell.result;
            let (ink, _) = look(cell.key.format);
            let ahead = cell.key.offline_mode == OfflineMode::Ahead;
            let bar = |from: f64, latency: &Latency, faint, phase: &str| Mark::Bar {
                from,
                to: from + latency.mean_ms,
                ink,
                faint,
                text: String::new(),
                title: format!("{phase} {}", milliseconds(latency.mean_ms)),
            };
            let mut marks = vec![
                bar(0.0, offline, true, "offline"),
                bar(offline.mean_ms, online, false, "online"),
            ];
            if let Some(floor) = cell.floor_ms.filter(|_| !ahead) {
                marks.push(Mark::Tick {
                    at: floor,
                    ink: Ink::Text,
                    title: format!("floor {}", milliseconds(floor)),
                });
            }
            Row { name: naming.cell(&cell.key), marks, note: milliseconds(combined.mean_ms) }
        });
        section.figures.push(Figure {
            caption: format!(
                "{name}: mean offline (faint) and online (full) time of an inference; the stroke \
                 is the floor, what messages and products alone would take"
            ),
            key: vec![],
            plot: Plot::Rows(Rows {
                title: format!("Offline and online time, {name}"),
                description: "A bar for each cell, offline and online part end to end, on a \
                              linear axis of milliseconds. The table below has the numbers."
                    .into(),
                spacing: Spacing::Linear,
                axis: "ms".into(),
                reference: None,
                at_least: None,
                rows: rows.collect(),
            }),
        });
    }
    let rows = cells.iter().map(|cell| {
        let RunResult { offline, online, combined, .. } = &cell.result;
        vec![
            naming.full(&cell.key),
            figure(combined.mean_ms),
            figure(offline.mean_ms),
            figure(online.mean_ms),
            percent(online.mean_ms / (offline.mean_ms + online.mean_ms)),
            cell.floor_ms.map_or_else(absent, figure),
            cell.times_floor.map_or_else(absent, |times| format!("{times:.1}×")),
        ]
    });
    section.tables.push(Table {
        caption: "Mean times of an inference, and the runtime against its floor".into(),
        head: head(&[
            "Cell",
            ">Runtime, ms",
            ">Offline, ms",
            ">Online, ms",
            ">Online part",
            ">Floor, ms",
            ">Times the floor",
        ]),
        rows: rows.collect(),
    });
    section
}
