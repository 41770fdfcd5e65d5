//! What the report says: sections of prose, plots and tables, the same for a page and for
//! Markdown. Pure: from results to words and numbers.

use std::collections::BTreeMap;

use party::config::OfflineMode;
use party::result::{Latency, RunResult};
use spdz::plan::NumberFormat;

use super::figures::{bytes, change, figure, milliseconds, percent, scientific, time};
use super::model::{Against, BatchPoint, Measured, Naming, Pair, Report, conditions};
use super::plot::{At, Line, Mark, Panel, Panels, Row, Rows, Shape, Side, Spacing};
use super::theme::Ink;
use crate::compare::{Comparison, THRESHOLD};
use crate::paper;
use crate::stats::{Ratio, Verdict};

/// A part of the report.
pub(super) struct Section {
    /// Its anchor in a page.
    pub(super) id: &'static str,
    /// Its heading.
    pub(super) title: &'static str,
    /// Something a reader has to know before the rest.
    pub(super) warning: bool,
    /// What it says before its plots.
    pub(super) prose: Vec<String>,
    pub(super) figures: Vec<Figure>,
    pub(super) tables: Vec<Table>,
}

/// A plot with what is written above it.
pub(super) struct Figure {
    pub(super) caption: String,
    pub(super) key: Vec<(Ink, String)>,
    pub(super) plot: Plot,
}

/// What is drawn.
pub(super) enum Plot {
    Rows(Rows),
    Panels(Panels),
}

/// A table; the columns whose heads begin with `>` hold numbers.
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// A figure that opens the report.
pub(super) struct Headline {
    pub(super) value: String,
    pub(super) of: String,
}

fn ink(format: NumberFormat) -> (Ink, Shape) {
    match format {
        NumberFormat::Int64 => (Ink::Blue, Shape::Circle),
        NumberFormat::Int100 => (Ink::Vermilion, Shape::Square),
    }
}

fn section(id: &'static str, title: &'static str) -> Section {
    Section { id, title, warning: false, prose: vec![], figures: vec![], tables: vec![] }
}

fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).into()).collect()
}

/// Mean and deviation, both to the mean's last digit.
fn with_deviation(latency: &Latency) -> String {
    let mean = figure(latency.mean_ms);
    let decimals = mean.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    format!("{mean} ({:.decimals$})", latency.stddev_ms)
}

fn absent() -> String {
    "–".into()
}

/// All sections, in their order.
pub(super) fn sections(report: &Report<'_>) -> Vec<Section> {
    let naming = &report.naming;
    let cells: Vec<&Measured> = report.subject().cells.iter().collect();
    let mut sections = vec![];
    sections.extend(problems(report));
    sections.push(table1(report));
    sections.push(batches(report));
    sections.push(phases(&cells, naming));
    sections.push(layers(&cells, naming));
    sections.push(distributions(&cells, naming));
    sections.push(formats(report));
    sections.push(traffic(&cells, naming));
    sections.push(comparison(report));
    sections.push(environment(report));
    sections
}

/// The figures that open the report: of the largest of the paper's networks at its
/// smallest batch, in the fastest format.
pub(super) fn headlines(report: &Report<'_>) -> Vec<Headline> {
    let cells = &report.subject().cells;
    let smallest = cells.iter().map(|cell| cell.key.batch_size).min();
    let first = cells.iter().filter(|cell| Some(cell.key.batch_size) == smallest).max_by(|a, b| {
        let rank = |cell: &Measured| (cell.result.online_bytes, cell.key.network.clone());
        let fast = |cell: &Measured| cell.key.format == NumberFormat::Int64;
        (fast(a), rank(a)).cmp(&(fast(b), rank(b)))
    });
    let Some(first) = first else { return vec![] };
    let name = format!("{} {}", first.key.network, first.key.format);
    let mut headlines = vec![Headline {
        value: milliseconds(first.result.combined.mean_ms),
        of: format!("one private inference of {name}, batch {}", first.key.batch_size),
    }];
    if first.key.batch_size == 1
        && let Some(paper) = paper::table1(&first.key.network, first.key.format)
    {
        headlines.push(Headline {
            value: format!("{} ms", paper.mean_ms),
            of: "the same in the paper, on other machines".into(),
        });
    }
    let best = cells.iter().max_by(|a, b| a.inputs_per_second.total_cmp(&b.inputs_per_second));
    if let Some(best) = best {
        headlines.push(Headline {
            value: format!("{} /s", figure(best.inputs_per_second)),
            of: format!("inputs at most: {}", report.naming.full(&best.key)),
        });
    }
    let agreement = cells.iter().filter_map(|cell| cell.result.accuracy.as_ref()?.agreement);
    if let Some(worst) = agreement.min_by(f64::total_cmp) {
        headlines.push(Headline {
            value: percent(worst),
            of: "of predictions at least are the same on shares and in the clear".into(),
        });
    }
    headlines
}

fn problems(report: &Report<'_>) -> Option<Section> {
    let mut rows = vec![];
    for run in report.runs {
        for failure in &run.failures {
            rows.push(vec![
                run.name.clone(),
                failure.key.to_string(),
                if failure.measured { "a trial failed" } else { "failed" }.into(),
                failure.why.clone(),
            ]);
        }
        for cell in run.cells.iter().filter(|cell| cell.suspicious) {
            let trials: Vec<_> = cell.trial_means_ms.iter().map(|x| figure(*x)).collect();
            rows.push(vec![
                run.name.clone(),
                cell.key.to_string(),
                "suspicious".into(),
                format!("its trials differ more than they should: {} ms", trials.join(", ")),
            ]);
        }
    }
    if rows.is_empty() {
        return None;
    }
    let mut section = section("problems", "Read this first");
    section.warning = true;
    section.prose.push(
        "Not every cell of the sweep is as it should be. Failed cells are missing below; \
         suspicious ones are there, but something else ran on the machine while they did. \
         Measure them again before you quote them."
            .into(),
    );
    let head = head(&["Run", "Cell", "What", "Why"]);
    section.tables.push(Table { caption: "Failures and suspicious cells".into(), head, rows });
    Some(section)
}

fn table1(report: &Report<'_>) -> Section {
    let naming = &report.naming;
    let mut section = section("table1", "The paper’s Table 1, beside ours");
    if report.table1.is_empty() {
        section.prose.push(
            "Nothing here compares: Table 1 is networks A, B and C at batch 1, with the \
             randomness made within the runtime. Such cells are in every sweep unless it is \
             told otherwise."
                .into(),
        );
        return section;
    }
    section.prose.push(
        "Private inference on MNIST: mean runtime, offline and online together, of one image. \
         The paper’s parties had 36 virtual cores each, in one region of a public cloud; the \
         machine of this report is described at its end. Our networks were trained for longer, \
         so accuracies do not compare across: what counts is how close the one on shares is to \
         the one in the clear, and how small the divergence is."
            .into(),
    );
    let mut rows = vec![];
    for row in &report.table1 {
        let (ink, shape) = ink(row.key.format);
        let (ours, theirs) = (row.cell.result.combined.mean_ms, row.paper.mean_ms);
        let (left, right) =
            if ours <= theirs { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
        let mut marks = vec![Mark::Line {
            from: ours.min(theirs),
            to: ours.max(theirs),
            ink: Ink::Grey,
            title: format!("the paper’s runtime is {}× this", figure(row.ratio)),
        }];
        marks.push(Mark::Point {
            at: theirs,
            ink: Ink::Grey,
            shape: Shape::Ring,
            label: Some((right, figure(theirs))),
            title: format!("paper: {theirs} ms"),
        });
        marks.push(Mark::Point {
            at: ours,
            ink,
            shape,
            label: Some((left, figure(ours))),
            title: format!("here: {}", milliseconds(ours)),
        });
        rows.push(Row {
            name: naming.table1(row.key),
            marks,
            note: format!("{}×", figure(row.ratio)),
        });
    }
    section.figures.push(Figure {
        caption: "Runtime of one inference here and in the paper, ms, and how many times as long \
                  the paper’s is"
            .into(),
        key: vec![
            (Ink::Blue, "● Int64".into()),
            (Ink::Vermilion, "■ Int100".into()),
            (Ink::Grey, "○ paper".into()),
        ],
        plot: Plot::Rows(Rows {
            title: "Runtime here and in the paper".into(),
            description: "A row for each network and format with two points on a logarithmic \
                          axis of milliseconds. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "ms, logarithmic".into(),
            reference: None,
            at_least: None,
            rows,
        }),
    });
    let rows = report.table1.iter().map(|row| {
        let (paper, result) = (row.paper, &row.cell.result);
        let part = |part: f64| format!("{:.2}", part * 100.0);
        let secure = |plaintext: Option<f64>, secure| {
            format!("{} / {}", plaintext.map_or_else(absent, part), part(secure))
        };
        vec![
            naming.table1(row.key),
            row.key.truncation.to_string(),
            format!("{} ({})", paper.mean_ms, paper.stddev_ms),
            with_deviation(&result.combined),
            figure(result.online.mean_ms),
            secure(Some(paper.plaintext), paper.secure),
            result.accuracy.map_or_else(absent, |a| secure(a.plaintext, a.secure)),
            format!("{:.4}", paper.kl_divergence),
            result.accuracy.and_then(|a| a.mean_kl_divergence).map_or_else(absent, scientific),
        ]
    });
    section.tables.push(Table {
        caption: "Table 1: runtime in ms (standard deviation), accuracy in the clear / secure, \
                  mean KL divergence"
            .into(),
        head: head(&[
            "Cell",
            "Truncation",
            ">Paper, ms",
            ">Here, ms",
            ">Online, ms",
            ">Accuracy, paper, %",
            ">Accuracy, here, %",
            ">KL, paper",
            ">KL, here",
        ]),
        rows: rows.collect(),
    });
    section
}

fn batches(report: &Report<'_>) -> Section {
    let naming = &report.naming;
    let mut section = section("batches", "Batch size");
    let groups = &report.batches;
    if groups.is_empty() {
        section.prose.push(
            "Every cell of this sweep has one batch size only. With several, as in \
             bench sweep --batch-sizes 1,10,100, latency and throughput against it are here."
                .into(),
        );
        return section;
    }
    let quoted: Vec<_> = paper::BATCHES.iter().map(|(_, ms)| ms.to_string()).collect();
    section.prose.push(format!(
        "A larger batch shares rounds and masked weights among more images, so latency grows \
         more slowly than the batch until the processors are busy. The paper reports it for \
         network C with Int64: {} ms at batch 1, 10 and 100.",
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
                let (ink, shape) = ink(group.key.format);
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
            if name == "C" {
                let at = |&(batch, ms): &(usize, f64)| At {
                    x: batch as f64,
                    y: value(batch, ms),
                    title: format!("paper, batch {batch}: {} {unit}", figure(value(batch, ms))),
                };
                let points = paper::BATCHES.iter().map(at).collect();
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
        let is_papers = group.key.network == "C" && group.key.format == NumberFormat::Int64;
        for point in &group.points {
            let first = &group.points[0];
            let paper = paper::BATCHES.iter().find(|(batch, _)| *batch == point.batch_size);
            rows.push(vec![
                naming.cell(group.key),
                point.batch_size.to_string(),
                figure(point.mean_ms),
                paper.filter(|_| is_papers).map_or_else(absent, |(_, ms)| ms.to_string()),
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

/// Cells that may share an axis, with what they share.
fn groups<'a>(cells: &[&'a Measured], naming: &Naming) -> Vec<(String, Vec<&'a Measured>)> {
    let mut groups: Vec<(String, Vec<&Measured>)> = vec![];
    for cell in cells {
        let name = naming.group(&cell.key);
        match groups.iter_mut().find(|group| group.0 == name) {
            Some(group) => group.1.push(cell),
            None => groups.push((name, vec![cell])),
        }
    }
    groups
}

fn phases(cells: &[&Measured], naming: &Naming) -> Section {
    let mut section = section("phases", "Offline against online");
    section.prose.push(
        "Offline, the producer makes the randomness and both servers get it; online begins when \
         the masked input is sent and ends with the output. Only the online part has to wait \
         for the input. Where randomness is made ahead, the runtime is the online part, and the \
         offline one, drawn faint, was spent before."
            .into(),
    );
    for (name, cells) in groups(cells, naming) {
        let rows = cells.iter().map(|cell| {
            let RunResult { offline, online, combined, .. } = &cell.result;
            let (ink, _) = ink(cell.key.format);
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

fn layers(cells: &[&Measured], naming: &Naming) -> Section {
    let mut section = section("layers", "Layer by layer");
    let with: Vec<&Measured> =
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
fn layer_table(network: &str, cells: &[&Measured], naming: &Naming) -> Table {
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

fn distributions(cells: &[&Measured], naming: &Naming) -> Section {
    let mut section = section("distributions", "How much latencies vary");
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
            let (ink, _) = ink(cell.key.format);
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
            with_deviation(latency),
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

fn formats(report: &Report<'_>) -> Section {
    let naming = &report.naming;
    let mut section = section("formats", "Int64 against Int100");
    if report.formats.is_empty() {
        section.prose.push("No computation was measured in both number formats.".into());
        return section;
    }
    section.prose.push(
        "Int100 has 100 bits in ten residues: more bytes and slower products, and a result \
         closer to the one in the clear, by a truncation that is never wrong within its range."
            .into(),
    );
    let point = |cell: &Measured, side| {
        let (ink, shape) = ink(cell.key.format);
        let mean = cell.result.combined.mean_ms;
        Mark::Point {
            at: mean,
            ink,
            shape,
            label: Some((side, figure(mean))),
            title: format!("{}: {}", cell.key.format, milliseconds(mean)),
        }
    };
    let rows = report.formats.iter().map(|Pair { int64, int100, ratio }| {
        let (left, right) =
            if *ratio >= 1.0 { (Side::Left, Side::Right) } else { (Side::Right, Side::Left) };
        let means = [int64, int100].map(|cell| cell.result.combined.mean_ms);
        Row {
            name: naming.pair(&int64.key),
            marks: vec![
                Mark::Line {
                    from: means[0].min(means[1]),
                    to: means[0].max(means[1]),
                    ink: Ink::Grey,
                    title: format!("Int100 takes {}× as long", figure(*ratio)),
                },
                point(int64, left),
                point(int100, right),
            ],
            note: format!("{}×", figure(*ratio)),
        }
    });
    section.figures.push(Figure {
        caption: "Runtime in both formats, ms, and how many times as long Int100 takes".into(),
        key: vec![(Ink::Blue, "● Int64".into()), (Ink::Vermilion, "■ Int100".into())],
        plot: Plot::Rows(Rows {
            title: "Runtime in both formats".into(),
            description: "A row for each computation with a point for each format on a \
                          logarithmic axis of milliseconds. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "ms, logarithmic".into(),
            reference: None,
            at_least: None,
            rows: rows.collect(),
        }),
    });
    let divergence = |cell: &Measured| {
        let accuracy = cell.result.accuracy;
        accuracy.and_then(|a| a.mean_kl_divergence).map_or_else(absent, scientific)
    };
    let all = |cell: &Measured| cell.result.online_bytes.saturating_add(cell.result.offline_bytes);
    let rows = report.formats.iter().map(|Pair { int64, int100, ratio }| {
        vec![
            naming.pair(&int64.key),
            figure(int64.result.combined.mean_ms),
            figure(int100.result.combined.mean_ms),
            format!("{}×", figure(*ratio)),
            format!("{}×", figure(all(int100) as f64 / all(int64).max(1) as f64)),
            divergence(int64),
            divergence(int100),
        ]
    });
    section.tables.push(Table {
        caption: "The two formats".into(),
        head: head(&[
            "Computation",
            ">Int64, ms",
            ">Int100, ms",
            ">Time",
            ">Bytes",
            ">KL, Int64",
            ">KL, Int100",
        ]),
        rows: rows.collect(),
    });
    section
}

fn traffic(cells: &[&Measured], naming: &Naming) -> Section {
    let mut section = section("traffic", "Bytes and rounds");
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

/// What a comparison comes to, in a sentence.
fn verdict(against: &Against<'_>) -> String {
    let Against { run, comparison, unmatched } = against;
    let Some(comparison) = comparison else {
        return format!("{run}: no cell is in both, so there is nothing to compare.");
    };
    let count = |verdict| comparison.cells.iter().filter(|c| c.verdict == verdict).count();
    let (slower, faster) = (count(Verdict::Slower), count(Verdict::Faster));
    let all = comparison.cells.len();
    let cells = |count: usize| match count {
        1 => String::from("1 cell is"),
        _ => format!("{count} cells are"),
    };
    let mut text = match (slower, faster) {
        (0, 0) => format!("no significant change in any of {all} cells"),
        (_, 0) => format!("{} slower, of {all}", cells(slower)),
        (0, _) => format!("{} faster, of {all}", cells(faster)),
        _ => format!("{} slower and {} faster, of {all}", cells(slower), cells(faster)),
    };
    let together = match comparison.verdict {
        Verdict::NoSignificantChange => "no significant change of all together".into(),
        verdict => format!("all together are {verdict}"),
    };
    text.push_str(&format!(
        "; {together}: {} ({})",
        change(comparison.all.ratio),
        interval(&comparison.all)
    ));
    if *unmatched > 0 {
        text.push_str(&format!("; {unmatched} more in one of the two only"));
    }
    format!("{run}: {text}.")
}

fn interval(ratio: &Ratio) -> String {
    format!("{} to {}", change(ratio.low), change(ratio.high))
}

fn comparison(report: &Report<'_>) -> Section {
    let mut section = section("comparison", "Against earlier results");
    let baseline = &report.runs[0];
    if report.comparisons.is_empty() {
        section.prose.push(
            "There is nothing to compare with: bench report OLD NEW sets the results in NEW \
             against those in OLD."
                .into(),
        );
        return section;
    }
    section.prose.push(format!(
        "The baseline is “{}”, measured {}, commit {}. A ratio is that of typical moments, each \
         trial divided by how fast the machine was around it, and so not exactly that of the \
         means. The intervals of all cells hold at once, with a probability of 95 %. Where one \
         holds 1, or the ratio is within {} %, nothing has changed significantly.",
        baseline.name,
        time(baseline.environment.started_unix_seconds),
        baseline.environment.commit,
        THRESHOLD * 100.0,
    ));
    for against in &report.comparisons {
        section.prose.push(verdict(against));
        let Some(comparison) = &against.comparison else { continue };
        let sentence = |note: &String| format!("{}: {note}.", against.run);
        section.prose.extend(comparison.notes.iter().map(sentence));
        section.figures.push(ratios(against.run, comparison, &report.naming));
        let rows = comparison.cells.iter().map(|cell| {
            let [before, now] = cell.mean_ms;
            let changes: Vec<String> = cell.changes.iter().map(ToString::to_string).collect();
            vec![
                report.naming.full(&cell.key),
                figure(before),
                figure(now),
                change(cell.time.ratio),
                interval(&cell.time),
                cell.verdict.to_string(),
                if changes.is_empty() { "nothing".into() } else { changes.join("; ") },
            ]
        });
        section.tables.push(Table {
            caption: format!("{} against {}", against.run, baseline.name),
            head: head(&[
                "Cell",
                ">Before, ms",
                ">Now, ms",
                ">Change",
                ">Interval",
                "Verdict",
                "Besides time",
            ]),
            rows: rows.collect(),
        });
    }
    section
}

/// A row for each cell with its ratio and interval.
fn ratios(run: &str, comparison: &Comparison, naming: &Naming) -> Figure {
    let rows = comparison.cells.iter().map(|cell| {
        let ink = match cell.verdict {
            Verdict::Slower => Ink::Vermilion,
            Verdict::Faster => Ink::Blue,
            Verdict::NoSignificantChange => Ink::Grey,
        };
        let Ratio { ratio, low, high } = cell.time;
        let marks = vec![
            Mark::Line { from: low, to: high, ink, title: interval(&cell.time) },
            Mark::Point { at: ratio, ink, shape: Shape::Square, label: None, title: change(ratio) },
        ];
        let note = match cell.verdict {
            Verdict::NoSignificantChange => cell.verdict.to_string(),
            _ => format!("{} {}", cell.verdict, change(ratio)),
        };
        Row { name: naming.full(&cell.key), marks, note }
    });
    Figure {
        caption: format!("{run}: runtime as a multiple of the baseline’s, and its interval"),
        key: vec![],
        plot: Plot::Rows(Rows {
            title: format!("Runtime of {run} against the baseline’s"),
            description: "A row for each cell with the ratio of its runtimes and the interval on \
                          a logarithmic axis; left of 1 is faster. The table below has the numbers."
                .into(),
            spacing: Spacing::Log,
            axis: "times the baseline’s runtime, logarithmic".into(),
            reference: Some(1.0),
            // Small changes shall look small.
            at_least: Some([0.85, 1.0 / 0.85]),
            rows: rows.collect(),
        }),
    }
}

fn environment(report: &Report<'_>) -> Section {
    let mut section = section("environment", "What it was measured on");
    section.prose.extend(report.notes.iter().cloned());
    let run = report.subject();
    let machine = &run.environment;
    let mut rows: Vec<(&str, String)> = vec![
        ("Processor", machine.cpu.clone()),
        ("Cores", machine.cores.to_string()),
        ("Kernels", machine.kernels.clone()),
        ("Features", machine.features.join(", ")),
        ("Frequency governor", machine.governor.clone().unwrap_or_else(|| "not readable".into())),
        ("Memory", bytes(machine.memory_bytes)),
        ("System", machine.os.clone()),
        ("Load at the start", format!("{:.2}", machine.load_average)),
        ("Begun", time(machine.started_unix_seconds)),
        ("Version", machine.version.clone()),
        ("Commit", machine.commit.clone()),
        ("Sweep", format!("{}, id {}", run.name, run.sweep)),
    ];
    if let Some(cluster) = &machine.cluster {
        rows.push(("Kubernetes", cluster.kubernetes.clone()));
        let image = [cluster.image.as_deref(), cluster.image_digest.as_deref()];
        rows.push(("Image", image.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        for node in &cluster.nodes {
            let text = format!("{}: {} cores, {}, {}", node.name, node.cores, node.memory, node.os);
            rows.push(("Node", text));
        }
    }
    let placed = run.cells.iter().find(|cell| !cell.nodes.is_empty());
    for (role, node) in placed.iter().flat_map(|cell| &cell.nodes) {
        rows.push(("First trial’s nodes", format!("{role} on {node}")));
    }
    if let Some(speeds) = &run.speeds {
        section.prose.push(
            "The floor of a cell is what its messages and matrix products alone would take at \
             the speeds below, one after the other; all else is taken to be free. It is a \
             yardstick for the software, not a bound."
                .into(),
        );
        rows.push((
            "Exchange of two small messages",
            format!("{} µs", figure(speeds.exchange_micros)),
        ));
        rows.push((
            "Bandwidth, each way at once",
            format!("{} GB/s", figure(speeds.gigabytes_per_second)),
        ));
        for product in &speeds.products {
            let speed = figure(product.gigamacs_per_second);
            rows.push(("Products on one core", format!("{speed} GMAC/s with {}", product.format)));
        }
    }
    let mut shaped: Vec<String> = vec![];
    for key in run.cells.iter().map(|cell| &cell.key) {
        let text = key.conditions.map_or_else(|| "as they are".into(), conditions);
        if !shaped.contains(&text) {
            shaped.push(text);
        }
    }
    rows.push(("Links between parties", shaped.join("; ")));
    rows.retain(|(_, value)| !value.is_empty());
    section.tables.push(Table {
        caption: format!("Machine, build and settings of “{}”", run.name),
        head: head(&["What", "Found"]),
        rows: rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect(),
    });
    section
}
