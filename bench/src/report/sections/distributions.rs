//! How much latencies vary.

use party::result::Latency;

use crate::report::figures::{figure, milliseconds};
use crate::report::model::MeasuredCell;
use crate::report::naming::Naming;
use crate::report::parts::{
    self, Figure, Plot, Section, Table, absent, groups, head, look, with_deviation,
};
use crate::report::plot::{Mark, Row, Rows, Shape, Spacing};

pub(super) fn section(cells: &[&MeasuredCell], naming: &Naming) -> Section {
    let mut section = parts::section("distributions", "How much latencies vary");
    section.prose.push(
        "Each row is all timed inferences of a cell. The box holds the middle half, the stroke \
         in it is the median, the line reaches from the 5th to the 95th percentile, and the \
         ring is the slowest of all. Rare slow ones are mostly the machine’s: another process, \
         or a core that five parties share."
            .into(),
    );
    for (name, cells) in groups(cells, naming) {
        let mut rows = vec![];
        for cell in cells {
            let Latency { quantiles_ms: quantiles, p50_ms, p99_ms, .. } = &cell.result.combined;
            let (ink, _) = look(cell.key.format);
            // Every 20th part: 1 is 5 %, 5 is 25 % and so on.
            let [_, p5, _, _, _, p25, .., p75, _, _, _, p95, most] = quantiles[..] else {
                continue;
            };
            let marks = vec![
                Mark::Line {
                    from: p5,
                    to: p95,
                    ink,
                    title: format!("5 % to 95 %: {} to {}", figure(p5), milliseconds(p95)),
                },
                Mark::Bar {
                    from: p25,
                    to: p75,
                    ink,
                    faint: true,
                    text: String::new(),
                    title: format!("25 % to 75 %: {} to {}", figure(p25), milliseconds(p75)),
                },
                Mark::Tick { at: *p50_ms, ink, title: format!("median {}", milliseconds(*p50_ms)) },
                Mark::Point {
                    at: most,
                    ink,
                    shape: Shape::Ring,
                    label: None,
                    title: format!("slowest {}", milliseconds(most)),
                },
            ];
            let note = format!("{} · p99 {}", figure(*p50_ms), figure(*p99_ms));
            rows.push(Row { name: naming.cell(&cell.key), marks, note });
        }
        if rows.is_empty() {
            continue;
        }
        section.figures.push(Figure {
            caption: format!(
                "{name}: distribution of the runtime; at the end median and 99th percentile, ms"
            ),
            key: vec![],
            plot: Plot::Rows(Rows {
                title: format!("Distribution of latencies, {name}"),
                description: "A box plot for each cell on a logarithmic axis of milliseconds. \
                              The table below has the percentiles."
                    .into(),
                spacing: Spacing::Log,
                axis: "ms, logarithmic".into(),
                reference: None,
                at_least: None,
                rows,
            }),
        });
    }
    let rows = cells.iter().map(|cell| {
        let latency = &cell.result.combined;
        let end = |value: Option<&f64>| value.map_or_else(absent, |x| figure(*x));
        vec![
            naming.full(&cell.key),
            cell.result.repetitions.to_string(),
            cell.trial_means_ms.len().to_string(),
            with_deviation(latency, cell.result.repetitions),
            end(latency.quantiles_ms.first()),
            figure(latency.p50_ms),
            figure(latency.p95_ms),
            figure(latency.p99_ms),
            end(latency.quantiles_ms.last()),
        ]
    });
    section.tables.push(Table {
        caption: "Runtime of an inference in ms".into(),
        head: head(&[
            "Cell",
            ">Timed",
            ">Trials",
            ">Mean (sd)",
            ">Fastest",
            ">Median",
            ">p95",
            ">p99",
            ">Slowest",
        ]),
        rows: rows.collect(),
    });
    section
}
