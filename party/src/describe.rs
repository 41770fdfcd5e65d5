//! A plan for people and for programs in other languages: what `party plan` prints.
//!
//! The tags are those of `docs/wire.md`, where they are explained.

use std::fmt;

use spdz::channel::{Name, Phase};
use spdz::graph::Lifetime;
use spdz::plan::{InputSpec, OutputSpec, Plan};
use spdz::polynomial::WrittenFit;
use spdz::prg::SEED_BYTES;

use crate::report::Report;

/// A plan, and the messages of one of its players.
pub(crate) struct Description<'plan> {
    pub(crate) plan: &'plan Plan,
    /// Of the text that the plan's graph was read from.
    pub(crate) fits: &'plan [WrittenFit],
    pub(crate) player: Option<Name>,
}

/// The listing, a line for each property, and a line for each message.
impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan;
        write!(f, "{plan}\ndigest ")?;
        plan.digest().0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        writeln!(f, "\nrounds {}", plan.rounds())?;
        writeln!(f, "online bytes {}", plan.online_bytes())?;
        writeln!(f, "offline bytes {}", plan.offline_bytes())?;
        writeln!(f, "polynomials within {:.1} units", plan.polynomial_error())?;
        self.fits.iter().try_for_each(|fit| writeln!(f, "fit of {fit}"))?;
        writeln!(f, "local truncations fail at most {:.1e}", plan.local_failure())?;
        let Some(player) = self.player else { return Ok(()) };
        writeln!(f, "\nmessages of {player}")?;
        messages(plan, player).iter().try_for_each(|message| writeln!(f, "{message}"))
    }
}

/// A message that a player sends or receives, once or again and again.
struct Message {
    route: String,
    phase: Phase,
    /// A number, `k` for each evaluation or `n` for each command.
    inference: char,
    step: usize,
    bytes: usize,
    what: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, phase, inference, step, bytes, what } = self;
        let tag = format!("{} {inference} {step}", phase.name());
        write!(f, "{route:<20} {tag:<15} {bytes:>10}  {what}")
    }
}

/// The messages of `player` in their order.
fn messages(plan: &Plan, player: Name) -> Vec<Message> {
    let sent = format!("{player} -> both");
    let received = format!("both -> {player}");
    let message = |route: &str, phase, inference, step, bytes, what: String| Message {
        route: route.into(),
        phase,
        inference,
        step,
        bytes,
        what,
    };
    let elements = |len: usize| len * plan.format().wire_bytes();
    let inputs = |lifetime: Lifetime| {
        let inputs = plan.inputs().iter();
        inputs.filter(move |input| input.player == player && input.lifetime == lifetime)
    };
    let seeds = |phase, inference, step, lifetime| {
        let names: Vec<&str> = inputs(lifetime).map(|input| input.name.as_str()).collect();
        let what = format!("seeds of the masks of {}", names.join(", "));
        let what = if names.is_empty() { "no seeds".into() } else { what };
        message(&received, phase, inference, step, SEED_BYTES * names.len(), what)
    };
    let input = |phase, inference, step, input: &InputSpec| {
        let InputSpec { name, node, fraction, len, .. } = input;
        let what = format!("{name}, node {}, fraction {fraction}", node.0);
        message(&sent, phase, inference, step, elements(*len), what)
    };
    let mut all = Vec::new();
    if inputs(Lifetime::Session).next().is_some() {
        all.push(seeds(Phase::Setup, '0', 2, Lifetime::Session));
        all.extend(
            inputs(Lifetime::Session).map(|spec| input(Phase::Setup, '0', 3 + spec.step, spec)),
        );
    }
    if !plan.takes_part(player) {
        return all;
    }
    let commands = plan.coordinator() == player;
    let route = if commands { sent.clone() } else { format!("server0 -> {player}") };
    all.push(message(&route, Phase::Control, 'n', 0, 1, "command n".into()));
    all.push(seeds(Phase::Offline, 'k', 0, Lifetime::Evaluation));
    all.extend(inputs(Lifetime::Evaluation).map(|spec| input(Phase::Online, 'k', spec.step, spec)));
    let outputs = plan.outputs().iter().filter(|output| output.player == player);
    all.extend(outputs.map(|output| {
        let OutputSpec { layer, node, fraction, len, step, .. } = output;
        let what = format!("share of {layer}, node {}, fraction {fraction}", node.0);
        message(&received, Phase::Online, 'k', *step, elements(*len), what)
    }));
    if commands {
        all.push(message(&received, Phase::Control, '0', 1, Report::bytes(plan), "report".into()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::graph::{Graph, GraphBuilder};
    use spdz::plan::{NumberFormat, Truncation};

    const PAGE: &str = include_str!("../../docs/wire.md");

    /// The only block of the page with this info string.
    fn block(info: &str) -> &'static str {
        let start = format!("```{info}\n");
        let (_, text) = PAGE.split_once(start.as_str()).unwrap();
        text.split_once("\n```").unwrap().0
    }

    fn describe(graph: &Graph, player: &str) -> String {
        let plan = Plan::compile(graph, NumberFormat::Int64, Truncation::Local).unwrap();
        Description { plan: &plan, fits: &[], player: Some(player.parse().unwrap()) }.to_string()
    }

    #[test]
    fn the_page_shows_what_is_printed() {
        let text = describe(&serde_json::from_str(block("json")).unwrap(), "alice");
        let expected = format!("{}\n\n{}\n", block("text listing"), block("text description"));
        assert_eq!(text, expected);
        // The tags of all messages that players have are those of the session on the page,
        // which the library's tests compare with what the library sends.
        for line in block("text description").lines().filter(|line| line.contains(" -> ")) {
            let tag = line.split_whitespace().skip(3).take(3);
            let tag = tag.map(|word| if ["k", "n"].contains(&word) { "0" } else { word });
            let tag = format!(" {}  ", tag.collect::<Vec<_>>().join(" "));
            let report = line.ends_with("report");
            assert!(report || block("vector session-int64").contains(&tag), "{tag:?}");
        }
    }

    #[test]
    fn who_brings_or_learns_less_has_fewer_messages() {
        let g = GraphBuilder::named("three", ["alice", "bob", "carol"]);
        let x = g.private_input("alice", [2]);
        let w = g.private_variable("bob", "w", [2]);
        let z = g.mul(x, w);
        g.private_output("alice", z);
        g.private_output("carol", z);
        let graph = g.build().unwrap();
        let messages = |player| {
            let text = describe(&graph, player);
            let (_, messages) = text.split_once(&format!("messages of {player}\n")).unwrap();
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            messages.lines().map(words).collect::<Vec<_>>()
        };
        assert_eq!(
            messages("bob"),
            [
                "both -> bob setup 0 2 32 seeds of the masks of w",
                "bob -> both setup 0 3 16 w, node 3, fraction 12"
            ]
        );
        assert_eq!(
            messages("carol"),
            [
                "server0 -> carol control n 0 1 command n",
                "both -> carol offline k 0 0 no seeds",
                "both -> carol online k 5 16 share of main, node 7, fraction 12"
            ]
        );
        assert_eq!(messages("alice").len(), 5);
    }
}
