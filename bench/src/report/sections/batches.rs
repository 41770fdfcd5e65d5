//! Latency and throughput against batch size.

use crate::paper::BATCHES;
use crate::report::figures::figure;
use crate::report::model::{BatchPoint, Report};
use crate::report::naming::SUSPICIOUS;
use crate::report::parts::{self, Figure, Plot, Section, Table, absent, head, look};
use crate::report::plot::{At, Line, Panel, Panels, Shape};
use crate::report::theme::Ink;

pub(super) fn section(report: &Report<'_>) -> Section {
    let naming = &report.naming;
    let mut section = parts::section("batches", "Batch size");
    let groups = &report.batches;
    if groups.is_empty() {
        section.prose.push(
            "Every cell of this sweep has one batch size only. With several, as in \
             bench sweep --batch-sizes 1,10,100, latency and throughput against it are here."
                .into(),
        );
        return section;
    }
    let quoted: Vec<_> = BATCHES.points.iter().map(|(_, ms)| ms.to_string()).collect();
    section.prose.push(format!(
        "A larger batch shares rounds and masked weights among more images, so latency grows \
         more slowly than the batch until the processors are busy. The paper reports it for \
         network {} with {}: {} ms at batch 1, 10 and 100.",
        BATCHES.network,
        BATCHES.format,
        quoted.join(", ")
    ));
    let mut names: Vec<String> = vec![];
    for group in groups {
        let name = naming.network(group.key);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let panels = |value: fn(usize, f64) -> f64, unit: &str| -> Vec<Panel> {
        let panel = |name: &String| {
            let of_network = groups.iter().filter(|group| naming.network(group.key) == *name);
            let mut lines = vec![];
            for group in of_network {
                let (ink, shape) = look(group.key.format);
                let at = |point: &BatchPoint| At {
                    x: point.batch_size as f64,
                    y: value(point.batch_size, point.mean_ms),
                    title: format!(
                        "batch {}: {} {unit}",
                        point.batch_size,
                        figure(value(point.batch_size, point.mean_ms))
                    ),
                };
                let points = group.points.iter().map(at).collect();
                lines.push(Line { name: naming.format(group.key), ink, shape, points });
            }
            let compares = groups.iter().any(|group| {
                naming.network(group.key) == *name
                    && group.key.network == BATCHES.network
                    && group.points.iter().any(|point| point.paper_ms.is_some())
            });
            if compares {
                let at = |&(batch, ms): &(usize, f64)| At {
                    x: batch as f64,
                    y: value(batch, ms),
                    title: format!("paper, batch {batch}: {} {unit}", figure(value(batch, ms))),
                };
                let points = BATCHES.points.iter().map(at).collect();
                lines.push(Line {
                    name: "paper".into(),
                    ink: Ink::Grey,
                    shape: Shape::Ring,
                    points,
                });
            }
            let name =
                if name.chars().count() == 1 { format!("Network {name}") } else { name.clone() };
            Panel { name, lines }
        };
        names.iter().map(panel).collect()
    };
    let figure_of = |caption: &str, unit: &str, value| Figure {
        caption: caption.into(),
        key: vec![],
        plot: Plot::Panels(Panels {
            title: caption.into(),
            description: format!(
                "A panel for each network and a line for each format, both axes logarithmic, \
                 {unit} against batch size. The table below has the numbers."
            ),
            x_axis: "batch size".into(),
            y_axis: unit.into(),
            panels: panels(value, unit),
        }),
    };
    section.figures.push(figure_of("Latency against batch size", "ms", |_, ms| ms));
    section.figures.push(figure_of("Throughput against batch size", "inputs/s", |batch, ms| {
        batch as f64 * 1e3 / ms
    }));
    let mut rows = vec![];
    for group in groups {
        for point in &group.points {
            let first = &group.points[0];
            let mark = if point.suspicious { SUSPICIOUS } else { "" };
            rows.push(vec![
                format!("{}{mark}", naming.computation(group.key)),
                point.batch_size.to_string(),
                figure(point.mean_ms),
                point.paper_ms.map_or_else(absent, |ms| ms.to_string()),
                format!("{}×", figure(point.mean_ms / first.mean_ms)),
                figure(point.mean_ms / point.batch_size as f64),
                figure(point.batch_size as f64 * 1e3 / point.mean_ms),
            ]);
        }
    }
    section.tables.push(Table {
        caption: "Latency and throughput of whole batches".into(),
        head: head(&[
            "Cell",
            ">Batch",
            ">Latency, ms",
            ">Paper, ms",
            ">Of the smallest batch’s",
            ">ms an input",
            ">Inputs/s",
        ]),
        rows,
    });
    section
}
