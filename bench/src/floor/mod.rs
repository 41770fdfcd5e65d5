//! `bench floor`: how fast an inference could be on this machine.
//!
//! The *floor* is what the messages and the matrix products of one evaluation alone
//! would take at the speeds that this machine reaches with the parties' own code: their
//! [kernels](products) on the plan's own shapes, and their [connections](transport). All
//! else is taken to be free: masks, truncations, element-wise products, encoding,
//! waking up.
//!
//! It adds up the chain of an evaluation, offline and then online, one link after the
//! other and without overlap:
//!
//! - *Rounds.* Each crossing of a message costs one exchange: two parties send a small
//!   message each and wait for the other's, so both cross at the same time. There are
//!   four crossings offline (the command to server 0, from there to the producer, what
//!   it sends to the servers, their word to the client that they are ready) and online
//!   one for each round and two more (input and output): the client's two trips there
//!   and back, the producer's one, and the exchanges between the servers.
//! - *Bytes.* At the bandwidth of one direction while both are busy: offline what the
//!   producer sends to the server that it sends more; online the masked input and the
//!   output on the way from or to one server, and what each server sends at each opening.
//! - *Products.* Of each linear step three in a row, each on one core: the producer's,
//!   of the masks; the servers', of mask and masked weight; the servers', of the masked
//!   input and weight online. The servers work at the same time if there are two cores,
//!   and take turns on one. Cores are those that this process may use, the processor's
//!   threads if it has several a core; more than two make no difference.
//!
//! A yardstick, then, not a proof that nothing is faster: a server can multiply while
//! the producer still does, and send while it multiplies. With a core for each of the
//! three that would hide up to a third of the products' time.

use std::ops::Add;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use party::config::{Computation, Transport};
use serde_json::{Value, json};
use spdz::geometry::Linear;
use spdz::network::{Builtin, Reveal};
use spdz::plan::{NumberFormat, Plan, Truncation};

use crate::cell::computed;
use crate::environment::Environment;
use crate::forms;
use crate::layout::{Align, Table, fill};
use crate::progress::Reporter;
use crate::scratch::Scratch;

pub mod products;
pub mod speeds;
pub mod transport;

pub use speeds::{ProductSpeed, Speeds};

/// What `bench floor --help` says besides its options.
pub(crate) const HELP: &str = "\
The floor is what the messages and matrix products of one inference alone would
take at the speeds measured here, offline and then online, one after the other:

  rounds    crossings x one exchange (two processes send 64 bytes each and wait for
            the other's). Crossings: 4 offline (command to server 0, on to the
            producer, what it sends, ready to the client), 1 a round (openings that do not
            depend on each other share one), 2 for the input and the output.
  bytes     bytes / bandwidth of one direction while both are busy: what the
            producer sends to the server that gets more, the masked input to one
            server, each opening one way, the output from one server.
  products  of each linear step three, one after the other and on one core each: the
            producer's, the servers' offline, the servers' online. The two servers
            work at the same time on two cores and take turns on one.

The rest (masks, truncations, element-wise products, waking up) is taken to be free.
It is a yardstick and not a bound: work that overlaps can beat the sum. Speeds are
medians of short runs through the parties' own kernels and connections (gRPC over
mutual TLS on loopback), so measure on an idle machine.
";

/// The messages of one phase that wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// How often one has to arrive before the next can leave.
    pub crossings: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What one evaluation has to do, as the module says.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Until the servers hold the randomness.
    pub offline: Messages,
    /// From the masked input to the output.
    pub online: Messages,
    /// The products with the weights; each is done once at the producer, and once
    /// offline and once online at each server.
    pub products: Vec<Linear>,
}

impl Work {
    /// The work of an evaluation of `plan`, which is a network's: of one client, and
    /// without products but those with its weights.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let [server0, server1] = plan.generated_bytes();
        let offline = Messages { crossings: 4, bytes: server0.max(server1) };
        let evaluation = plan.setup_steps()..plan.steps().len();
        let messages = evaluation.clone().filter_map(|step| plan.message(step));
        let bytes = messages.map(|message| message.bytes()).sum();
        let online = Messages { crossings: 2 + plan.rounds(), bytes };
        let products = plan.steps()[evaluation]
            .iter()
            .filter_map(|step| step.operation.product().copied())
            .collect();
        Self { offline, online, products }
    }

    /// Multiplications of one of the three rounds of products.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.products.iter().map(products::macs).sum()
    }
}

/// What the work of a phase alone would take, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// The crossings.
    pub rounds_ms: f64,
    /// The bytes.
    pub bytes_ms: f64,
    /// The products.
    pub products_ms: f64,
}

impl Floor {
    /// All of it, one after the other.
    #[must_use]
    pub fn total_ms(&self) -> f64 {
        self.rounds_ms + self.bytes_ms + self.products_ms
    }
}

impl Add for Floor {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rounds_ms: self.rounds_ms + other.rounds_ms,
            bytes_ms: self.bytes_ms + other.bytes_ms,
            products_ms: self.products_ms + other.products_ms,
        }
    }
}

/// The floor of the two phases of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floors {
    /// Until the servers hold the randomness.
    pub offline: Floor,
    /// From the masked input to the output.
    pub online: Floor,
}

impl Floors {
    /// The floor of `work` at these speeds on so many cores, where one core needs
    /// `products_ms` for all of the work's products once.
    #[must_use]
    pub fn of(work: &Work, speeds: &Speeds, products_ms: f64, cores: usize) -> Self {
        let servers = if cores >= 2 { 1.0 } else { 2.0 };
        let phase = |messages: &Messages, products: f64| Floor {
            rounds_ms: messages.crossings as f64 * speeds.exchange_micros / 1e3,
            bytes_ms: messages.bytes as f64 / (speeds.gigabytes_per_second * 1e6),
            products_ms: products * products_ms,
        };
        Self { offline: phase(&work.offline, 1.0 + servers), online: phase(&work.online, servers) }
    }

    /// Offline and online, one after the other.
    #[must_use]
    pub fn combined(&self) -> Floor {
        self.offline + self.online
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The computations whose floor is asked for.
    pub computations: Vec<Computation>,
    /// This program: its `link` command is an end of the connection.
    pub program: PathBuf,
    /// How parties wait and send.
    pub transport: Transport,
}

/// The floor of one computation.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The network.
    pub network: String,
    /// The number format.
    pub format: NumberFormat,
    /// The truncation.
    pub truncation: Truncation,
    /// What the client learns.
    pub reveal: Reveal,
    /// Inputs of one inference.
    pub batch_size: usize,
    /// What one inference has to do.
    pub work: Work,
    /// What one core needs for the products once, milliseconds.
    pub products_ms: f64,
    /// What it would take alone.
    pub floors: Floors,
}

/// What was measured; printed as a table.
#[derive(Clone, Debug)]
pub struct Report {
    /// The machine and the build.
    pub environment: Environment,
    /// How fast it is.
    pub speeds: Speeds,
    /// The floors, in the order of the computations.
    pub entries: Vec<Entry>,
}

impl Measurement {
    /// Measures, and says what. Takes a second or two.
    ///
    /// # Errors
    /// If there is no plan, the two processes cannot be started or connected, or on
    /// interruption.
    pub(crate) fn run(
        &self,
        environment: Environment,
        say: &mut dyn FnMut(&str),
        interrupted: &AtomicBool,
    ) -> anyhow::Result<Report> {
        let plans = self.computations.iter().map(Computation::plan);
        let plans = plans.collect::<Result<Vec<Plan>, _>>()?;
        say("exchanges between two processes");
        let folder = Scratch::new()?;
        // The floor is this machine's, whatever network is imitated on it.
        let unshaped = Transport { network: None, ..self.transport };
        let measured = transport::measure(&self.program, unshaped, folder.path(), interrupted)
            .context("cannot measure the connection of two processes")?;
        say("products on one core");
        let mut timer = products::Timer::new(interrupted);
        let mut speeds = Speeds {
            exchange_micros: measured.exchange_micros,
            gigabytes_per_second: measured.gigabytes_per_second,
            products: Vec::new(),
        };
        for plan in &plans {
            let format = plan.format();
            if speeds.products.iter().all(|product| product.format != format) {
                let seconds = timer.seconds(format, &products::LARGE)?;
                let gigamacs_per_second = products::macs(&products::LARGE) as f64 / seconds / 1e9;
                speeds.products.push(ProductSpeed { format, gigamacs_per_second });
            }
        }
        let mut entries = Vec::new();
        for (computation, plan) in self.computations.iter().zip(&plans) {
            let work = Work::of(plan);
            let mut products_ms = 0.0;
            for linear in &work.products {
                products_ms += timer.seconds(plan.format(), linear)? * 1e3;
            }
            entries.push(Entry {
                network: plan.graph().name().into(),
                format: plan.format(),
                truncation: plan.truncation(),
                reveal: computation.reveal,
                batch_size: computation.batch(),
                floors: Floors::of(&work, &speeds, products_ms, environment.cores),
                work,
                products_ms,
            });
        }
        Ok(Report { environment, speeds, entries })
    }
}

/// What `bench floor` does.
///
/// # Errors
/// As [`Measurement::run`].
pub(crate) fn run(
    networks: &[Builtin],
    reveals: &[Reveal],
    formats: &[NumberFormat],
    batch_sizes: &[usize],
    transport: Transport,
    program: &Path,
    interrupted: &AtomicBool,
) -> anyhow::Result<Report> {
    let mut computations = Vec::new();
    for &format in formats {
        for &batch_size in batch_sizes {
            for &reveal in reveals {
                let able = |network: &&Builtin| {
                    forms::formats(**network, reveal, formats).contains(&format)
                };
                for network in networks.iter().filter(able) {
                    let name = network.to_string();
                    let computation = Computation::of_network(&name, batch_size, format);
                    computations.push(Computation { reveal, ..computation });
                }
            }
        }
    }
    let measurement = Measurement { computations, program: program.into(), transport };
    let mut reporter = Reporter::new();
    let mut say = |what: &str| reporter.begin("floor", what);
    let report = measurement.run(Environment::read(), &mut say, interrupted);
    reporter.finish();
    report
}

impl Report {
    /// What was measured, for programs; times in milliseconds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let phase = |floor: &Floor, messages: &Messages| {
            json!({
                "crossings": messages.crossings,
                "bytes": messages.bytes,
                "roundsMs": floor.rounds_ms,
                "bytesMs": floor.bytes_ms,
                "productsMs": floor.products_ms,
                "totalMs": floor.total_ms(),
            })
        };
        let entry = |entry: &Entry| {
            json!({
                "network": entry.network,
                "format": entry.format,
                "truncation": entry.truncation,
                "reveal": entry.reveal,
                "batchSize": entry.batch_size,
                "macs": entry.work.macs(),
                "offline": phase(&entry.floors.offline, &entry.work.offline),
                "online": phase(&entry.floors.online, &entry.work.online),
                "totalMs": entry.floors.combined().total_ms(),
            })
        };
        json!({
            "environment": self.environment,
            "speeds": self.speeds,
            "floors": self.entries.iter().map(entry).collect::<Vec<_>>(),
        })
    }

    /// What was measured, for a terminal of so many columns.
    #[must_use]
    pub fn render(&self, width: Option<usize>) -> String {
        use Align::{Left, Right};
        let Environment { cores, cpu, load_average, .. } = &self.environment;
        let Speeds { exchange_micros, gigabytes_per_second, products } = &self.speeds;
        let rates = products.iter().map(|product| {
            let ProductSpeed { format, gigamacs_per_second } = product;
            format!("{format} {gigamacs_per_second:.1} GMAC/s")
        });
        let mut text = fill(
            &format!(
                "Floor of one inference: what its messages and products alone would take\n\
                 here: {cores} cores of {cpu}, load {load_average:.1} at the start\n"
            ),
            width,
        );
        let mut speeds = Table::new(&[("speed", Left), ("measured", Left)]);
        for (what, speed) in [
            (
                format!("exchange of {} bytes between two processes", transport::SMALL),
                format!("{exchange_micros:.1} us"),
            ),
            (
                format!("{} KiB both ways at once, each way", transport::LARGE >> 10),
                format!("{gigabytes_per_second:.2} GB/s"),
            ),
            ("512x512x512 product on one core".into(), rates.collect::<Vec<_>>().join(", ")),
        ] {
            speeds.row(vec![what, speed], Vec::new());
        }
        text.push('\n');
        text.push_str(&speeds.render(width));
        text.push('\n');
        let mut table = Table::new(&[
            ("floor, ms", Left),
            ("batch", Right),
            ("crossings", Right),
            ("kB", Right),
            ("MMAC", Right),
            ("GMAC/s", Right),
            ("rounds", Right),
            ("bytes", Right),
            ("products", Right),
            ("sum", Right),
            ("online", Right),
        ]);
        for entry in &self.entries {
            let Entry { network, format, truncation, reveal, batch_size, work, .. } = entry;
            let floor = entry.floors.combined();
            let fields = vec![
                format!("{} {format} {truncation}", computed(network, *reveal)),
                batch_size.to_string(),
                (work.offline.crossings + work.online.crossings).to_string(),
                format!("{:.1}", (work.offline.bytes + work.online.bytes) as f64 / 1e3),
                format!("{:.2}", work.macs() as f64 / 1e6),
                format!("{:.1}", work.macs() as f64 / entry.products_ms / 1e6),
                format!("{:.3}", floor.rounds_ms),
                format!("{:.3}", floor.bytes_ms),
                format!("{:.3}", floor.products_ms),
                format!("{:.3}", floor.total_ms()),
                format!("{:.3}", entry.floors.online.total_ms()),
            ];
            table.row(fields, Vec::new());
        }
        text.push_str(&table.render(width));
        text.push_str(&fill(
            "\nCrossings, kB, MMAC and GMAC/s are of one inference; the sum is offline and online \
             together. bench floor --help defines it all.",
            width,
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use party::config::Conditions;
    use spdz::geometry::MatMul;
    use spdz::graph::GraphBuilder;

    /// `square(x w + y) v`, as a network would have it.
    fn plan(format: NumberFormat, truncation: Truncation) -> Plan {
        let g = GraphBuilder::named("tiny", ["model-owner", "client"]);
        let x = g.share(g.local_input("client", "x", [2, 3]));
        let w = g.private_variable("model-owner", "w", [3, 5]);
        let v = g.private_variable("model-owner", "v", [5, 4]);
        let z = g.matmul(g.square(g.matmul(x, w)), v);
        let z = g.reveal("client", z);
        g.output("z", z);
        Plan::compile(&g.build().unwrap(), format, truncation).unwrap()
    }

    #[test]
    fn the_work_is_that_of_the_plan() {
        // Openings of xw and its square, ten elements each; x has six and the output eight.
        let products = vec![
            Linear::MatMul(MatMul { m: 2, k: 3, n: 5 }),
            Linear::MatMul(MatMul { m: 2, k: 5, n: 4 }),
        ];
        let work = Work::of(&plan(NumberFormat::Int64, Truncation::Local));
        let expected = Work {
            // The servers take turns: server 0 is sent its shares of the two matrix products.
            offline: Messages { crossings: 4, bytes: 8 * (10 + 8) },
            online: Messages { crossings: 2 + 2, bytes: 8 * (6 + 10 + 10 + 8) },
            products,
        };
        assert_eq!(work, expected);
        assert_eq!(work.macs(), 30 + 40);
    }

    #[test]
    fn a_slower_network_is_a_higher_floor() {
        let here =
            Speeds { exchange_micros: 20.0, gigabytes_per_second: 2.0, products: Vec::new() };
        let wan = here.over(&Conditions::WAN);
        assert!((wan.exchange_micros - 20_020.0).abs() < 1e-6, "{wan:?}");
        assert_eq!(wan.gigabytes_per_second, 0.0125);
        let unlimited = Conditions { bandwidth_mbps: None, ..Conditions::LAN };
        assert_eq!(here.over(&unlimited).gigabytes_per_second, 2.0);
    }

    #[test]
    fn the_floor_is_the_sum_of_its_parts() {
        let work = Work {
            offline: Messages { crossings: 4, bytes: 3_000_000 },
            online: Messages { crossings: 5, bytes: 500_000 },
            products: Vec::new(),
        };
        let speeds =
            Speeds { exchange_micros: 20.0, gigabytes_per_second: 2.0, products: Vec::new() };
        let close = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        };
        // Cores, and how often the products are done one after the other in each phase.
        for (cores, offline, online) in [(1, 3.0, 2.0), (2, 2.0, 1.0), (64, 2.0, 1.0)] {
            let floors = Floors::of(&work, &speeds, 0.25, cores);
            close(floors.offline.rounds_ms, 0.08);
            close(floors.offline.bytes_ms, 1.5);
            close(floors.offline.products_ms, 0.25 * offline);
            close(floors.online.rounds_ms, 0.1);
            close(floors.online.bytes_ms, 0.25);
            close(floors.online.products_ms, 0.25 * online);
            let total = 0.08 + 1.5 + 0.1 + 0.25 + 0.25 * (offline + online);
            close(floors.combined().total_ms(), total);
        }
    }
}
