//! A plan for people and for programs in other languages: what `party plan` prints.
//!
//! The tags are those of `docs/wire.md`, where they are explained.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value, json};
use spdz::channel::{Name, Phase};
use spdz::graph::{Graph, Lifetime, NodeId, Op, Place};
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
        writeln!(f, "{plan}\ndigest {:x}", plan.digest())?;
        writeln!(f, "rounds {}", plan.rounds())?;
        writeln!(f, "online bytes {}", plan.online_bytes())?;
        writeln!(f, "offline bytes {}", plan.offline_bytes())?;
        writeln!(f, "polynomials within {:.1} units", plan.polynomial_error())?;
        self.fits.iter().try_for_each(|fit| writeln!(f, "fit of {fit}"))?;
        writeln!(f, "local truncations fail at most {:.1e}", plan.local_failure())?;
        let distance = plan.statistical_distance();
        writeln!(f, "openings within a statistical distance of {distance:.1e}")?;
        let Some(player) = self.player else { return Ok(()) };
        writeln!(f, "\nmessages of {player}")?;
        messages(plan, player).iter().try_for_each(|message| writeln!(f, "{message}"))
    }
}

impl Description<'_> {
    /// All of it for programs: the same words and numbers, and the graph.
    pub(crate) fn to_json(&self) -> Value {
        let plan = self.plan;
        let graph = plan.graph();
        let inputs = plan.inputs().iter().map(|input| {
            json!({
                "player": input.player.as_str(),
                "name": input.name,
                "node": input.node.0,
                "shape": graph.facts(input.node).shape,
                "lifetime": input.lifetime,
                "fraction": input.fraction,
                "bytes": input.len * plan.format().wire_bytes(),
            })
        });
        let outputs = graph.players().iter().flat_map(|player| {
            let named = graph.outputs_of(*player).into_iter();
            named.map(move |(name, shape)| {
                let revealed = reveals(graph, *player, &name);
                json!({
                    "player": player.as_str(),
                    "name": name,
                    "shape": shape,
                    "revealed": revealed.iter().map(|node| node.0).collect::<Vec<_>>(),
                })
            })
        });
        let steps = plan.steps().iter().enumerate().map(|(index, step)| {
            let phase = if index < plan.setup_steps() { "setup" } else { "evaluation" };
            let round = plan.exchanges().iter().position(|round| round.contains(&index));
            json!({
                "step": index,
                "phase": phase,
                "layer": step.layer,
                "operation": step.operation.name(),
                "text": plan.describe(index),
                "round": round,
            })
        });
        let rounds = plan.exchanges().iter().enumerate().map(|(number, steps)| {
            json!({ "round": number, "steps": steps.clone().collect::<Vec<_>>(), "bytes": plan.round_bytes(number) })
        });
        let players = graph.players().iter().copied();
        let players = players.filter(|player| self.player.is_none_or(|only| only == *player));
        let messages = players.map(|player| {
            let messages = messages(plan, player).iter().map(Message::to_json).collect();
            (player.to_string(), Value::Array(messages))
        });
        json!({
            "digest": format!("{:x}", plan.digest()),
            "format": plan.format(),
            "truncation": plan.truncation(),
            "lowBits": plan.table().low_bits(),
            "coordinator": plan.coordinator().as_str(),
            "players": graph.players().iter().map(Name::as_str).collect::<Vec<_>>(),
            "rounds": plan.rounds(),
            "onlineBytes": plan.online_bytes(),
            "offlineBytes": plan.offline_bytes(),
            "polynomialError": plan.polynomial_error(),
            "localFailure": plan.local_failure(),
            "statisticalDistance": plan.statistical_distance(),
            "fits": self.fits.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "inputs": inputs.collect::<Vec<_>>(),
            "outputs": outputs.collect::<Vec<_>>(),
            "steps": steps.collect::<Vec<_>>(),
            "exchanges": rounds.collect::<Vec<_>>(),
            "messages": messages.collect::<Map<_, _>>(),
            "graph": graph,
        })
    }
}

/// The nodes that reveal what an output of `player` is computed from.
fn reveals(graph: &Graph, player: Name, output: &str) -> Vec<NodeId> {
    let is_it = |id: &NodeId| {
        matches!(graph.operation(*id), Op::Output { name, .. } if name == output)
            && matches!(graph.facts(*id).place, Place::Local { player: at, .. } if at == player)
    };
    let mut left: Vec<NodeId> = (0..graph.nodes().len()).map(NodeId).filter(is_it).collect();
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    while let Some(node) = left.pop() {
        if !seen.insert(node) {
            continue;
        }
        match graph.operation(node) {
            Op::Reveal { .. } => {
                found.insert(node);
            }
            operation => left.extend(operation.inputs()),
        }
    }
    found.into_iter().collect()
}

/// The names of the outputs of `player` that are computed from what `node` reveals.
fn outputs_from(graph: &Graph, player: Name, node: NodeId) -> Vec<String> {
    let names = graph.outputs_of(player).into_iter().map(|(name, _)| name);
    names.filter(|name| reveals(graph, player, name).contains(&node)).collect()
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
    /// The inputs or outputs that it is of.
    names: Vec<String>,
    /// The graph's node, and the fractional bits of its numbers.
    tensor: Option<(NodeId, i32)>,
}

impl Message {
    fn to_json(&self) -> Value {
        let (from, to) = self.route.split_once(" -> ").unwrap_or_default();
        let inference = match self.inference.to_digit(10) {
            Some(number) => json!(number),
            None => json!(self.inference.to_string()),
        };
        let mut message = json!({
            "from": from,
            "to": to,
            "phase": self.phase.name(),
            "inference": inference,
            "step": self.step,
            "bytes": self.bytes,
            "what": self.what,
            "names": self.names,
        });
        if let Some((node, fraction)) = self.tensor {
            message["node"] = json!(node.0);
            message["fraction"] = json!(fraction);
        }
        message
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { route, phase, inference, step, bytes, what, .. } = self;
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
        names: Vec::new(),
        tensor: None,
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
        let bytes = SEED_BYTES * names.len();
        let names = names.into_iter().map(String::from).collect();
        Message { names, ..message(&received, phase, inference, step, bytes, what) }
    };
    let input = |phase, inference, step, input: &InputSpec| {
        let InputSpec { name, node, fraction, len, .. } = input;
        let what = format!("{name}, node {}, fraction {fraction}", node.0);
        Message {
            names: vec![name.clone()],
            tensor: Some((*node, *fraction)),
            ..message(&sent, phase, inference, step, elements(*len), what)
        }
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
        Message {
            names: outputs_from(plan.graph(), player, *node),
            tensor: Some((*node, *fraction)),
            ..message(&received, Phase::Online, 'k', *step, elements(*len), what)
        }
    }));
    if commands {
        all.push(message(&received, Phase::Control, '0', 1, Report::bytes(plan), "report".into()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdz::graph::GraphBuilder;
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

    #[test]
    fn programs_find_outputs_by_their_names() {
        let g = GraphBuilder::named("two", ["alice", "bob"]);
        let x = g.private_input("alice", [2]);
        let w = g.private_variable("bob", "w", [2]);
        let (a, b) = (g.reveal("alice", g.mul(x, w)), g.reveal("alice", g.add(x, w)));
        g.output("both", g.add(a, b));
        g.output("second", g.neg(b));
        let graph = g.build().unwrap();
        let plan = Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap();
        let describe = |player: Option<&str>| {
            let player = player.map(|name| name.parse().unwrap());
            Description { plan: &plan, fits: &[], player }.to_json()
        };
        let json = describe(None);
        let [both, second] = &json["outputs"].as_array().unwrap()[..] else { panic!("{json}") };
        assert_eq!((&both["name"], &second["name"]), (&json!("both"), &json!("second")));
        let nodes = |output: &Value| output["revealed"].as_array().unwrap().clone();
        assert_eq!((nodes(both).len(), nodes(second).len()), (2, 1));
        assert!(nodes(both).contains(&nodes(second)[0]));
        // Each message that brings a part of an output says of which.
        let messages = json["messages"]["alice"].as_array().unwrap();
        let of_second = messages.iter().filter(|message| message["node"] == nodes(second)[0]);
        let names: Vec<&Value> = of_second.map(|message| &message["names"]).collect();
        assert_eq!(names, [&json!(["both", "second"])]);
        assert_eq!(json["graph"], serde_json::to_value(&graph).unwrap());
        assert_eq!(json["steps"].as_array().unwrap().len(), plan.steps().len());
        assert_eq!(json["exchanges"].as_array().unwrap().len(), plan.rounds());
        // What people read is the same.
        let text = Description { plan: &plan, fits: &[], player: None }.to_string();
        assert!(text.contains(json["digest"].as_str().unwrap()));
        let players = |json: &Value| json["messages"].as_object().unwrap().len();
        assert_eq!((players(&json), players(&describe(Some("bob")))), (2, 1));
    }
}
