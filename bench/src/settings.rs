//! What a sweep measures: a YAML file, or the same from the command line.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use party::config::{
    Computation, Conditions, ConfigError, OfflineMode, OutOfRange, Store, Transport, limits,
};
use party::yaml;
use serde::{Deserialize, Serialize};
use spdz::graph::Graph;
use spdz::network::{Activation, Builtin, Pooling, Reveal, UnknownNetwork};
use spdz::plan::{NumberFormat, Truncation};

use crate::cell::{CellId, CellPlan, Place, computed};
use crate::forms;
use crate::graph_file::{self, GraphFile};

/// What a sweep measures, and how: the product of the lists is its cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// What people call the sweep.
    pub name: String,
    /// Where the parties run.
    pub on: Place,
    /// The paper's networks: `A`, `B`, `C`.
    pub networks: Vec<String>,
    /// What activations they have.
    pub activations: Vec<Activation>,
    /// What pooling they have.
    pub poolings: Vec<Pooling>,
    /// What their client learns; a graph says it itself.
    pub reveals: Vec<Reveal>,
    /// Graphs of one's own, on this machine alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub graphs: Vec<GraphFile>,
    /// Inputs of one inference, 1 to 1024; graphs have no batches.
    pub batch_sizes: Vec<usize>,
    /// The number formats.
    pub formats: Vec<NumberFormat>,
    /// The truncations.
    pub truncations: Vec<Truncate>,
    /// When randomness is made.
    pub offline: Vec<OfflineMode>,
    /// Networks to imitate between the parties.
    pub conditions: Vec<Link>,
    /// Trials of each cell, 1 to 100: each launches the parties anew.
    pub trials: u32,
    /// Timed inferences of each trial, 1 to 100000.
    pub repetitions: u64,
    /// Inferences before them, 0 to 100000.
    pub warmup: u64,
    /// For how long a network's client has inferences made before those, 0 to 600 seconds;
    /// without it not at all here, and [`CLUSTER_WARMUP_SECONDS`] in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_seconds: Option<u64>,
    /// Images of the test set scored after the timed inferences of a cell's first trial,
    /// 0 to 10000.
    pub accuracy_samples: usize,
    /// What the order of the trials is drawn from.
    pub seed: u64,
    /// Threads that each server and the producer divide large products among, 1 to 256;
    /// without it they share the cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Memory of each server's preprocessing store, units of 2^20 bytes.
    #[serde(alias = "stockMegabytes")]
    pub store_megabytes: u64,
    /// Disk of each server for what does not fit there, units of 2^20 bytes.
    #[serde(alias = "stockDiskMegabytes")]
    pub store_disk_megabytes: u64,
    /// How long a party looks for a message before it sleeps, microseconds.
    pub spin_micros: u64,
    /// How the parties' pods are made, as `spec.parties` of a `SecureInference` says it; in a
    /// cluster alone.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub parties: PartySettings,
}

/// What `spec.parties` of a `SecureInference` has. What that may be is the operator's affair,
/// which only a build for clusters knows.
pub type PartySettings = serde_json::Map<String, serde_json::Value>;

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "sweep".into(),
            on: Place::Local,
            networks: Builtin::ARCHITECTURES.map(String::from).into(),
            activations: vec![Activation::default()],
            poolings: vec![Pooling::default()],
            reveals: vec![Reveal::default()],
            graphs: Vec::new(),
            batch_sizes: vec![1],
            formats: NumberFormat::ALL.into(),
            truncations: vec![Truncate::Usual],
            offline: vec![OfflineMode::Inline],
            conditions: vec![Link::Loopback],
            trials: 3,
            repetitions: 100,
            warmup: 5,
            warmup_seconds: None,
            accuracy_samples: 0,
            seed: 1,
            threads: None,
            store_megabytes: Store::default().memory_megabytes,
            store_disk_megabytes: 0,
            spin_micros: Transport::default().spin_micros,
            parties: PartySettings::new(),
        }
    }
}

/// How products are truncated to the format's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
pub enum Truncate {
    /// The format's own, as in the paper
    #[serde(rename = "usual")]
    #[value(name = "usual")]
    Usual,
    /// Without interaction; wrong with a small probability
    #[value(name = "Local")]
    Local,
    /// In one round; never wrong within the format's range
    #[value(name = "Interactive")]
    Interactive,
}

impl Truncate {
    /// The one that is named, whatever the format; nothing for the usual one.
    #[must_use]
    pub fn named(self) -> Option<Truncation> {
        match self {
            Self::Usual => None,
            Self::Local => Some(Truncation::Local),
            Self::Interactive => Some(Truncation::Interactive),
        }
    }

    /// What it is in a number format.
    #[must_use]
    pub fn of(self, format: NumberFormat) -> Truncation {
        self.named().unwrap_or_else(|| format.usual_truncation())
    }
}

/// A network to imitate between the parties: by name, or by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ValueEnum)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Link {
    /// None: the links as they are
    Loopback,
    /// 0.5 ms there and back, 10 Gbit/s
    Lan,
    /// 40 ms there and back, 100 Mbit/s
    Wan,
    /// Any other.
    #[value(skip)]
    Own(Conditions),
}

impl Link {
    const NAMED: [(&'static str, Self); 3] =
        [("loopback", Self::Loopback), ("lan", Self::Lan), ("wan", Self::Wan)];

    /// What it does to what is sent.
    #[must_use]
    pub fn conditions(self) -> Option<Conditions> {
        match self {
            Self::Loopback => None,
            Self::Lan => Some(Conditions::LAN),
            Self::Wan => Some(Conditions::WAN),
            Self::Own(conditions) => Some(conditions),
        }
    }
}

impl TryFrom<serde_json::Value> for Link {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let Some(found) = value.as_str() else {
            let conditions = serde_json::from_value(value);
            return conditions.map(Self::Own).map_err(|error| format!("conditions: {error}"));
        };
        let named = Self::NAMED.into_iter().find(|(name, _)| *name == found);
        named.map(|(_, link)| link).ok_or_else(|| {
            format!(
                "there are no conditions {found}; expected loopback, lan, wan, or \
                 {{rttMs: 10, jitterMs: 1, bandwidthMbps: 1000}}"
            )
        })
    }
}

impl From<Link> for serde_json::Value {
    fn from(link: Link) -> Self {
        match link {
            Link::Loopback => "loopback".into(),
            Link::Lan => "lan".into(),
            Link::Wan => "wan".into(),
            Link::Own(conditions) => serde_json::to_value(conditions).unwrap_or_default(),
        }
    }
}

/// How a cell is computed, whatever it is.
struct Manner {
    format: NumberFormat,
    truncation: Truncation,
    offline_mode: OfflineMode,
    conditions: Option<Conditions>,
}

/// Why settings describe no sweep.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error("cannot read the sweep file {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any sweep.
    #[error("the sweep file {} has {found} bytes, at most {MAX_FILE_BYTES} are read", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// It is not in order.
    #[error("sweep file {}: {source}; bench sweep --help explains it", path.display())]
    Yaml {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_yaml::Error,
    },
    /// A list is empty.
    #[error("the sweep measures nothing: {list} is empty; name at least one")]
    Empty {
        /// Which list.
        list: &'static str,
    },
    /// A number is too small or too large.
    #[error("{what} is {found}, expected {lowest} to {highest}")]
    Range {
        /// Which.
        what: &'static str,
        /// The number.
        found: u64,
        /// The least.
        lowest: u64,
        /// The most.
        highest: u64,
    },
    /// There is no network with such conditions.
    #[error("conditions: {0}")]
    Conditions(#[from] OutOfRange),
    /// There is no such network.
    #[error("{0}; a graph of one's own is a file in `graphs`")]
    Network(#[from] UnknownNetwork),
    /// A graph has the name of another, so that they would be one cell, or of a network of the
    /// paper, whose figures would stand beside it.
    #[error("two graphs are called {name}, or a graph and a network; give a graph another name")]
    Twice {
        /// The name.
        name: String,
    },
    /// A graph cannot be read.
    #[error("{0:#}")]
    Graph(anyhow::Error),
    /// Graphs need files that pods do not have.
    #[error(
        "graphs are measured on this machine alone; in a cluster apply a SecureInference with \
         model.graph, whose players' files are on volumes"
    )]
    GraphInCluster,
    /// A setting is one of this machine's processes.
    #[error("{0} cannot be set in a cluster; leave it out")]
    NotInCluster(&'static str),
    /// A setting is one of pods.
    #[error("parties is about pods; leave it out on this machine, or measure with on: cluster")]
    OnlyInCluster,
    /// Threads are a sweep's own setting, here as in a cluster.
    #[error("parties.threads is the sweep's own setting; write threads beside parties")]
    PartyThreads,
    /// A cell has no plan.
    #[error("{key} is impossible: {source}")]
    Plan {
        /// Which.
        key: Box<CellId>,
        /// Why.
        source: ConfigError,
    },
}

/// Inputs of one inference.
pub const BATCH_SIZES: RangeInclusive<u64> = limits::BATCH_SIZE.range();

/// Trials of each cell.
pub const TRIALS: RangeInclusive<u64> = 1..=100;

/// Timed inferences of each trial.
pub const REPETITIONS: RangeInclusive<u64> = limits::REPETITIONS.range();

/// Inferences before them.
pub const WARMUP: RangeInclusive<u64> = limits::WARMUP.range();

/// For how long inferences are made before those, seconds.
pub const WARMUP_SECONDS: RangeInclusive<u64> = limits::WARMUP_SECONDS.range();

/// Images of the test set that are scored.
pub const ACCURACY_SAMPLES: RangeInclusive<u64> = 0..=10_000;

/// Images of the test set whose layers are inspected.
pub const INSPECTED: RangeInclusive<u64> = limits::INSPECTED.range();

/// Threads that a party divides large products among.
pub const THREADS: RangeInclusive<u64> = limits::THREADS.range();

/// Memory of each server's preprocessing store, units of 2^20 bytes.
pub const STORE_MEGABYTES: RangeInclusive<u64> = limits::STORE_MEMORY_MEGABYTES.range();

/// Disk of each server for what does not fit there, units of 2^20 bytes.
pub const STORE_DISK_MEGABYTES: RangeInclusive<u64> = limits::STORE_DISK_MEGABYTES.range();

/// Largest sweep file, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Most cells of a sweep.
const MAX_CELLS: u64 = 10_000;

/// Warm-up in a cluster unless something else is said, seconds: so long a node is busy with
/// the pods that it has started.
pub const CLUSTER_WARMUP_SECONDS: u64 = 3;

impl Settings {
    /// For how long a network's client has inferences made before any that are counted,
    /// seconds.
    #[must_use]
    pub fn warmup_seconds(&self) -> u64 {
        self.warmup_seconds.unwrap_or(match self.on {
            Place::Local => 0,
            Place::Cluster => CLUSTER_WARMUP_SECONDS,
        })
    }

    /// Reads a sweep file. Files that it names are relative to its folder.
    ///
    /// # Errors
    /// If it cannot be read, or has a key that nobody knows or a value that is none.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let io = |source| SettingsError::Io { path: path.into(), source };
        let found = std::fs::metadata(path).map_err(io)?.len();
        if found > MAX_FILE_BYTES {
            return Err(SettingsError::Size { path: path.into(), found });
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let mut settings: Self = serde_yaml::from_str(yaml::unmarked(&text))
            .map_err(|source| SettingsError::Yaml { path: path.into(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for graph in &mut settings.graphs {
            graph.file = folder.join(&graph.file);
            for file in graph.players.values_mut() {
                *file = folder.join(&*file);
            }
        }
        Ok(settings)
    }

    /// The paper's networks in the forms that are measured.
    ///
    /// # Errors
    /// If there is no such network, or it has none of the forms.
    pub fn models(&self) -> Result<Vec<Builtin>, UnknownNetwork> {
        forms::networks(&self.networks, &self.activations, &self.poolings)
    }

    /// What of the product of networks and named formats is not measured, for people; nothing if
    /// all is, or nobody named the formats.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let models = self.models().ok()?;
        if self.formats == NumberFormat::ALL {
            return None;
        }
        let of = |model: Builtin, reveal| {
            let able = forms::formats(model, reveal, &self.formats);
            let lacking = self.formats.iter().filter(|format| !able.contains(format));
            let lacking: Vec<&str> = lacking.map(|format| format.name()).collect();
            let name = computed(model.name(), reveal);
            (!lacking.is_empty()).then(|| format!("{name} in {}", lacking.join(" and ")))
        };
        let out: Vec<String> = self
            .reveals
            .iter()
            .flat_map(|&reveal| models.iter().filter_map(move |&model| of(model, reveal)))
            .collect();
        (!out.is_empty()).then(|| format!("left out, as there is none: {}", out.join(", ")))
    }

    /// The cells, each once: networks and then graphs, and for each the product of the
    /// batch sizes, formats, truncations and ways to make randomness. A network is left out of
    /// formats that it cannot be computed in, if there are others.
    ///
    /// # Errors
    /// If there are none, a number is out of range, or one of them has no plan.
    pub fn cells(&self) -> Result<Vec<CellPlan>, SettingsError> {
        self.check()?;
        let mut cells: Vec<CellPlan> = Vec::new();
        let mut add = |cell: CellPlan| {
            // `usual` is one of the others too.
            if cells.iter().all(|other| other.key != cell.key) {
                let plan = cell.computation.plan();
                let key = Box::new(cell.key.clone());
                plan.map_err(|source| SettingsError::Plan { key, source })?;
                cells.push(CellPlan { position: cells.len(), ..cell });
            }
            Ok(())
        };
        let models = self.models()?;
        for &reveal in &self.reveals {
            for model in &models {
                let formats = forms::formats(*model, reveal, &self.formats);
                for &batch in &self.batch_sizes {
                    self.manners(&formats, |manner| {
                        let network = model.name();
                        let computation = Computation::of_network(network, batch, manner.format);
                        let computation = Computation { reveal, ..computation };
                        add(self.cell(network, computation, &manner, None))
                    })?;
                }
            }
        }
        let mut names: Vec<String> = Builtin::ALL.map(|network| network.to_string()).into();
        for file in &self.graphs {
            let graph = graph_file::read(&file.file).map_err(SettingsError::Graph)?;
            let name = graph.name().to_owned();
            if names.contains(&name) {
                return Err(SettingsError::Twice { name });
            }
            let formats = self.formats_of(&graph);
            self.manners(&formats, |manner| {
                let computation = Computation::of_graph(graph.clone(), manner.format);
                add(self.cell(&name, computation, &manner, Some(file)))
            })?;
            names.push(name);
        }
        Ok(cells)
    }

    /// The formats in which a graph is measured: where nobody named them, those that have what it
    /// needs.
    fn formats_of(&self, graph: &Graph) -> Vec<NumberFormat> {
        let able = |format: &NumberFormat| {
            self.formats != NumberFormat::ALL
                || Computation::of_graph(graph.clone(), *format).plan().is_ok()
        };
        let formats: Vec<NumberFormat> = self.formats.iter().copied().filter(able).collect();
        if formats.is_empty() { self.formats.clone() } else { formats }
    }

    /// Each of the formats with every truncation, way to make randomness, and network.
    fn manners(
        &self,
        formats: &[NumberFormat],
        mut add: impl FnMut(Manner) -> Result<(), SettingsError>,
    ) -> Result<(), SettingsError> {
        for &format in formats {
            for truncation in &self.truncations {
                let truncation = truncation.of(format);
                for &offline_mode in &self.offline {
                    for link in &self.conditions {
                        let conditions = link.conditions();
                        add(Manner { format, truncation, offline_mode, conditions })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A cell whose position is not known yet.
    fn cell(
        &self,
        name: &str,
        computation: Computation,
        manner: &Manner,
        graph: Option<&GraphFile>,
    ) -> CellPlan {
        let Manner { format, truncation, offline_mode, conditions } = *manner;
        let key = CellId {
            network: name.into(),
            format,
            truncation,
            reveal: computation.reveal,
            batch_size: computation.batch(),
            offline_mode,
            conditions,
            place: self.on,
        };
        let computation = Computation { truncation: Some(truncation), ..computation };
        CellPlan { key, position: 0, computation, graph: graph.cloned() }
    }

    fn check(&self) -> Result<(), SettingsError> {
        for (list, empty) in [
            ("networks, with graphs,", self.networks.is_empty() && self.graphs.is_empty()),
            ("batchSizes", self.batch_sizes.is_empty() && !self.networks.is_empty()),
            ("activations", self.activations.is_empty()),
            ("poolings", self.poolings.is_empty()),
            ("reveals", self.reveals.is_empty()),
            ("formats", self.formats.is_empty()),
            ("truncations", self.truncations.is_empty()),
            ("offline", self.offline.is_empty()),
            ("conditions", self.conditions.is_empty()),
        ] {
            if empty {
                return Err(SettingsError::Empty { list });
            }
        }
        let range = |what, found: u64, range: RangeInclusive<u64>| {
            if range.contains(&found) {
                return Ok(());
            }
            let (lowest, highest) = range.into_inner();
            Err(SettingsError::Range { what, found, lowest, highest })
        };
        for batch in &self.batch_sizes {
            range("a batch size", *batch as u64, BATCH_SIZES)?;
        }
        range("trials", self.trials.into(), TRIALS)?;
        range("repetitions", self.repetitions, REPETITIONS)?;
        range("warmup", self.warmup, WARMUP)?;
        range("warmupSeconds", self.warmup_seconds(), WARMUP_SECONDS)?;
        range("accuracySamples", self.accuracy_samples as u64, ACCURACY_SAMPLES)?;
        range("threads", self.threads.unwrap_or(1) as u64, THREADS)?;
        range("storeMegabytes", self.store_megabytes, STORE_MEGABYTES)?;
        range("storeDiskMegabytes", self.store_disk_megabytes, STORE_DISK_MEGABYTES)?;
        for conditions in self.conditions.iter().filter_map(|link| link.conditions()) {
            conditions.check()?;
        }
        let Self { formats, truncations, offline, conditions, .. } = self;
        let sizes = [formats.len(), truncations.len(), offline.len(), conditions.len()];
        let sizes = sizes.iter().map(|size| *size as u64).product::<u64>();
        let forms = self.activations.len() * self.poolings.len() * self.reveals.len();
        let subjects = self.networks.len() * forms * self.batch_sizes.len() + self.graphs.len();
        range("the number of cells", sizes.saturating_mul(subjects as u64), 1..=MAX_CELLS)?;
        self.models()?;
        if self.on == Place::Cluster && !self.graphs.is_empty() {
            return Err(SettingsError::GraphInCluster);
        }
        if self.on == Place::Local && !self.parties.is_empty() {
            return Err(SettingsError::OnlyInCluster);
        }
        if self.parties.contains_key("threads") {
            return Err(SettingsError::PartyThreads);
        }
        let usual = Self::default();
        for (setting, changed) in [
            ("storeMegabytes", self.store_megabytes != usual.store_megabytes),
            ("storeDiskMegabytes", self.store_disk_megabytes != usual.store_disk_megabytes),
            ("spinMicros", self.spin_micros != usual.spin_micros),
        ] {
            if changed && self.on == Place::Cluster {
                return Err(SettingsError::NotInCluster(setting));
            }
        }
        Ok(())
    }

    /// How much prepared randomness may wait at the servers.
    #[must_use]
    pub fn store(&self) -> Store {
        let disk_megabytes = self.store_disk_megabytes;
        Store { disk_megabytes, ..Store::in_memory(self.store_megabytes) }
    }

    /// How parties wait and send, over the network as it is.
    #[must_use]
    pub fn transport(&self) -> Transport {
        Transport { spin_micros: self.spin_micros, ..Transport::default() }
    }

    /// The names of the settings that differ, with both values, `self`'s first.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |settings: &Self| match serde_json::to_value(settings) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let value = |fields: &serde_json::Map<String, serde_json::Value>, name: &str| {
            fields.get(name).map_or("none".into(), ToString::to_string)
        };
        names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name))
            .map(|name| format!("{name} {} and {}", value(&ours, name), value(&theirs, name)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn parse(yaml: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.yaml");
        std::fs::write(&path, yaml).unwrap();
        let cells = Settings::read(&path).and_then(|settings| settings.cells());
        let keys = cells.map(|cells| cells.iter().map(|cell| cell.key.to_string()).collect());
        keys.map_err(|error| error.to_string())
    }

    #[test]
    fn the_files_that_come_with_the_project_are_sweeps() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps");
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let settings = Settings::read(&path).unwrap();
            assert_eq!(path.file_stem().unwrap().to_str(), Some(&*settings.name));
            found.insert(settings.name.clone(), settings.cells().unwrap().len());
        }
        assert_eq!(found["report"], 3 * 3 * 2);
        assert_eq!(found["networks"], 3 * 2 * 3);
    }

    #[test]
    fn cells_are_the_product_each_once() {
        let yaml = "networks: [C, A]\nbatchSizes: [1, 10]\nformats: [Int64]\n\
                    truncations: [usual, Local, Interactive]\n";
        let expected = [
            "C Int64 Local, batch 1",
            "C Int64 Interactive, batch 1",
            "C Int64 Local, batch 10",
            "C Int64 Interactive, batch 10",
            "A Int64 Local, batch 1",
            "A Int64 Interactive, batch 1",
            "A Int64 Local, batch 10",
            "A Int64 Interactive, batch 10",
        ];
        assert_eq!(parse(yaml).unwrap(), expected);
        assert_eq!(parse("{}").unwrap().len(), 6);
        let links = "networks: [A]\nformats: [Int64]\nconditions: [loopback, wan, {rttMs: 2}]";
        assert_eq!(
            parse(links).unwrap(),
            [
                "A Int64 Local, batch 1",
                "A Int64 Local, batch 1, 40 ms and 100 Mbit/s",
                "A Int64 Local, batch 1, 2 ms"
            ]
        );
        let ahead = parse("offline: [ahead]\non: cluster\nnetworks: [B]\nformats: [Int100]");
        assert_eq!(ahead.unwrap(), ["B Int100 Interactive, batch 1, randomness ahead, cluster"]);
    }

    #[test]
    fn forms_are_a_list_as_formats_are() {
        let settings = Settings {
            activations: Activation::ALL.into(),
            poolings: Pooling::ALL.into(),
            formats: vec![NumberFormat::Int64, NumberFormat::Int100],
            ..Settings::default()
        };
        let cells = settings.cells().unwrap();
        let names: Vec<String> = cells.iter().map(|cell| cell.key.to_string()).collect();
        // The paper's networks first, and what compares in the formats that can.
        assert_eq!(
            names,
            [
                "A Int64 Local, batch 1",
                "A Int100 Interactive, batch 1",
                "B Int64 Local, batch 1",
                "B Int100 Interactive, batch 1",
                "C Int64 Local, batch 1",
                "C Int100 Interactive, batch 1",
                "A-relu Int64 Local, batch 1",
                "B-relu Int64 Local, batch 1",
                "C-relu Int64 Local, batch 1",
                "B-relu-max Int64 Local, batch 1",
                "C-relu-max Int64 Local, batch 1",
            ]
        );
        assert_eq!(
            settings.left_out().unwrap(),
            "left out, as there is none: A-relu in Int100, B-relu in Int100, C-relu in Int100, \
             B-relu-max in Int100, C-relu-max in Int100"
        );
        assert_eq!(Settings::default().left_out(), None);
        let yaml = "networks: [B]\nactivations: [relu]\npoolings: [max]\n";
        assert_eq!(parse(yaml).unwrap()[0], "B-relu-max Int64 Local, batch 1");
        let yaml = "networks: [A, B]\nactivations: [relu]\nreveals: [logits, label]\n";
        let forms = ["A-relu", "B-relu", "A-relu (label)", "B-relu (label)"];
        let cells = forms.iter().flat_map(|form| {
            ["Int64", "Int32"].map(|name| format!("{form} {name} Local, batch 1"))
        });
        assert_eq!(parse(yaml).unwrap(), cells.collect::<Vec<_>>());
        let labels = Settings { reveals: vec![Reveal::Label], ..settings.clone() };
        let left_out = labels.left_out().unwrap();
        assert!(
            left_out.starts_with("left out, as there is none: A (label) in Int100,"),
            "{left_out}"
        );
        // What was measured before there were forms.
        let mut before = serde_json::to_value(Settings::default()).unwrap();
        for list in ["activations", "poolings", "reveals"] {
            assert!(before.as_object_mut().unwrap().remove(list).is_some());
        }
        assert_eq!(serde_json::from_value::<Settings>(before).unwrap(), Settings::default());
    }

    #[test]
    fn what_is_wrong_with_a_sweep_is_said() {
        let graph = "{file: nowhere.yaml}";
        for (yaml, expected) in [
            ("batchSize: [1]", "unknown field `batchSize`, expected one of"),
            (
                "formats: [Int128]",
                "unknown variant `Int128`, expected one of `Int64`, `Int100`, `Int32`",
            ),
            ("formats: [Int32]", "A Int32 Local, batch 1 is impossible: "),
            ("networks: []", "measures nothing: networks, with graphs, is empty"),
            ("batchSizes: []", "measures nothing: batchSizes is empty; name at least one"),
            ("offline: []", "measures nothing: offline is empty"),
            ("batchSizes: [0]", "a batch size is 0, expected 1 to 1024"),
            ("batchSizes: [1, 1025]", "a batch size is 1025, expected 1 to 1024"),
            ("batchSizes: [-1]", "-1"),
            ("trials: 0", "trials is 0, expected 1 to 100"),
            ("accuracySamples: 10001", "accuracySamples is 10001, expected 0 to 10000"),
            ("conditions: [moon]", "there are no conditions moon; expected loopback, lan, wan"),
            ("conditions: [{rtt: 3}]", "unknown field `rtt`, expected one of `rttMs`"),
            ("conditions: [{rttMs: -1}]", "conditions: rttMs is -1, expected 0 to 10000"),
            ("conditions: []", "measures nothing: conditions is empty"),
            ("networks: [D]", "there is no network D; expected one of A, A-relu, B"),
            ("networks: [A-relu]", "there is no network A-relu; expected"),
            ("activations: []", "measures nothing: activations is empty"),
            ("poolings: []", "measures nothing: poolings is empty"),
            ("reveals: []", "measures nothing: reveals is empty"),
            ("reveals: [class]", "unknown variant `class`, expected `logits` or `label`"),
            (
                "reveals: [label]\nformats: [Int100]",
                "A (label) Int100 Interactive, batch 1 is impossible: label, node 53 (argmax): Int100 cannot",
            ),
            ("reveals: [label]\nformats: [Int32]", "A (label) Int32 Local, batch 1 is impossible"),
            ("activations: [gelu]", "unknown variant `gelu`, expected `polynomial` or `relu`"),
            ("poolings: [max]\nnetworks: [B]", "max pooling with the activation relu alone"),
            ("poolings: [max]\nactivations: [relu]", "network A has no pooling"),
            (
                "activations: [relu]\nformats: [Int100]",
                "A-relu Int100 Interactive, batch 1 is impossible: act1, node 23 (relu): Int100 cannot compare numbers",
            ),
            (&format!("graphs: [{graph}]"), "nowhere.yaml"),
            (&format!("graphs: [{graph}]\non: cluster"), "on this machine alone"),
            ("on: cluster\nspinMicros: 0", "spinMicros cannot be set in a cluster"),
            ("parties: {image: a}", "parties is about pods; leave it out on this machine"),
            ("on: cluster\nparties: {threads: 1}", "write threads beside parties"),
            ("on: cluster\nparties: [1]", "parties: invalid type: sequence"),
            ("", "sweep.yaml"),
        ] {
            match parse(yaml) {
                Err(error) => assert!(error.contains(expected), "{yaml}: {error}"),
                // An empty file has all defaults.
                Ok(cells) => assert!(yaml.is_empty() && cells.len() == 6, "{yaml}: {cells:?}"),
            }
        }
    }

    #[test]
    fn a_graph_is_found_beside_the_sweep_and_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let example = crate::run::tests::example();
        std::fs::write(folder.path().join("score.yaml"), example).unwrap();
        let path = folder.path().join("sweep.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Settings::read(&path).unwrap()
        };
        let graph = "{file: score.yaml, players: {alice: a.safetensors}}";
        let settings = read(&format!("networks: []\nbatchSizes: [1, 10]\ngraphs: [{graph}]"));
        assert_eq!(
            settings.graphs[0].players.values().next().unwrap(),
            &folder.path().join("a.safetensors")
        );
        let keys: Vec<String> =
            settings.cells().unwrap().iter().map(|cell| cell.key.to_string()).collect();
        let formats = ["Int64 Local", "Int100 Interactive", "Int32 Local"];
        assert_eq!(keys, formats.map(|format| format!("score {format}, batch 1")));
        let twice = read(&format!("graphs: [{graph}, {graph}]"));
        let error = twice.cells().unwrap_err().to_string();
        assert!(error.contains("two graphs are called score"), "{error}");
        // Not even alone: what the paper says of A is not of this.
        let named = std::fs::read_to_string(folder.path().join("score.yaml")).unwrap();
        let named = named.replacen("name: score", "name: A", 1);
        std::fs::write(folder.path().join("score.yaml"), named).unwrap();
        let error = settings.cells().unwrap_err().to_string();
        assert!(error.contains("called A, or a graph and a network"), "{error}");
    }

    #[test]
    fn differences_are_named() {
        let settings = Settings::default();
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(json).unwrap(), settings);
        let other = Settings { repetitions: 7, threads: Some(2), ..settings.clone() };
        assert_eq!(settings.differences(&settings), Vec::<String>::new());
        assert_eq!(other.differences(&settings), ["repetitions 7 and 100", "threads 2 and none"]);
    }
}
