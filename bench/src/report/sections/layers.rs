//! The time of each layer.

use std::collections::BTreeMap;

use crate::report::figures::{figure, milliseconds};
use crate::report::model::MeasuredCell;
use crate::report::naming::Naming;
use crate::report::parts::{self, Figure, Plot, Section, Table, absent, groups, head};
use crate::report::plot::{Mark, Row, Rows, Spacing};
use crate::report::theme::Ink;

/// What a kind of layer looks like; several kinds share the last ink.
fn layer_ink(kind: &str) -> Ink {
    match kind {
        "conv2d" => Ink::Blue,
        "matmul" => Ink::Vermilion,
        "polynomial" => Ink::Green,
        // Pooling is a sum and a product.
        "mul" | "sum_pool" => Ink::Purple,
        _ => Ink::Grey,
    }
}

pub(super) fn section(cells: &[&MeasuredCell], naming: &Naming) -> Section {
    let mut section = parts::section("layers", "Layer by layer");
    let with: Vec<&MeasuredCell> =
        cells.iter().filter(|cell| !cell.result.layers.is_empty()).copied().collect();
    if with.is_empty() {
        section.prose.push("The results hold no times of layers.".into());
        return section;
    }
    section.prose.push(
        "What server 0 needs for each layer, offline and online, with its waits for the others; \
         a layer that waits for a message is long without being busy. Means are of all \
         inferences of a session, those that were not timed included, so they do not add up to \
         the runtime, which the way from and to the client is in too."
            .into(),
    );
    for (name, cells) in groups(&with, naming) {
        let rows = cells.iter().map(|cell| {
            let total: f64 = cell.result.layers.iter().map(|l| l.offline_ms + l.online_ms).sum();
            let mut from = 0.0;
            let marks = cell.result.layers.iter().map(|layer| {
                let part = 100.0 * (layer.offline_ms + layer.online_ms) / total;
                let start = from;
                from += part;
                Mark::Bar {
                    from: start,
                    to: from,
                    ink: layer_ink(&layer.kind),
                    faint: false,
                    text: layer.name.clone(),
                    title: format!(
                        "{} ({}): {}, {} of it online",
                        layer.name,
                        layer.kind,
                        milliseconds(layer.offline_ms + layer.online_ms),
                        milliseconds(layer.online_ms)
                    ),
                }
            });
            Row { name: naming.cell(&cell.key), marks: marks.collect(), note: milliseconds(total) }
        });
        let mut key: Vec<(Ink, String)> = vec![];
        let kinds = cells.iter().flat_map(|cell| &cell.result.layers).map(|layer| &layer.kind);
        for kind in kinds {
            let ink = layer_ink(kind);
            match key.iter_mut().find(|entry| entry.0 == ink) {
                None => key.push((ink, kind.clone())),
                Some((_, names)) if !names.split(", ").any(|name| name == kind) => {
                    names.push_str(", ");
                    names.push_str(kind);
                }
                Some(_) => {}
            }
        }
        section.figures.push(Figure {
            caption: format!("{name}: share of each layer in server 0’s time, in the order of the computation, and their total"),
            key,
            plot: Plot::Rows(Rows {
                title: format!("Time of each layer, {name}"),
                description: "A bar of 100 % for each cell, divided into its layers. The table \
                              below has the times."
                    .into(),
                spacing: Spacing::Linear,
                axis: "% of the layers’ time".into(),
                reference: None,
                at_least: None,
                rows: rows.collect(),
            }),
        });
    }
    let mut networks: Vec<&str> = vec![];
    for cell in &with {
        if !networks.contains(&cell.key.network.as_str()) {
            networks.push(&cell.key.network);
        }
    }
    for network in networks {
        let cells = with.iter().filter(|cell| cell.key.network == network);
        section.tables.push(layer_table(network, &cells.copied().collect::<Vec<_>>(), naming));
    }
    section
}

/// A row for each layer of a network, a column for each cell.
fn layer_table(network: &str, cells: &[&MeasuredCell], naming: &Naming) -> Table {
    // A result may have only the longest of its layers, and not each the same.
    let layers: BTreeMap<usize, (&str, &str)> = cells
        .iter()
        .flat_map(|cell| &cell.result.layers)
        .map(|layer| (layer.index, (layer.name.as_str(), layer.kind.as_str())))
        .collect();
    let rows = layers.into_iter().map(|(index, (name, kind))| {
        let times = cells.iter().map(|cell| {
            let layer = cell.result.layers.iter().find(|layer| layer.index == index);
            layer.map_or_else(absent, |layer| {
                format!("{} + {}", figure(layer.offline_ms), figure(layer.online_ms))
            })
        });
        [name.into(), kind.into()].into_iter().chain(times).collect()
    });
    let columns = cells.iter().map(|cell| format!(">{}", naming.without_network(&cell.key)));
    Table {
        caption: format!("{network}: mean offline + online time of each layer at server 0, ms"),
        head: head(&["Layer", "Kind"]).into_iter().chain(columns).collect(),
        rows: rows.collect(),
    }
}
