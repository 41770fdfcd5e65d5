//! The machine, the build and the settings.

use crate::report::figures::{bytes, figure, time};
use crate::report::model::Report;
use crate::report::naming::conditions;
use crate::report::parts::{self, Section, Table, head};

pub(super) fn section(report: &Report<'_>) -> Section {
    let mut section = parts::section("environment", "What it was measured on");
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
