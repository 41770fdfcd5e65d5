//! docs/graph.md is what the code reads: every operation, its keys, its shapes, and the limits.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use spdz::channel::MAX_NAME_BYTES;
use spdz::graph::{
    Function, Graph, GraphBuilder, MAX_DEGREE, MAX_LABEL_BYTES, MAX_NODES, MAX_PLAYERS,
    MAX_POLYNOMIALS, MAX_PUBLIC, MAX_PUBLIC_TERMS, MAX_TENSOR, NodeId, Op, Work,
};
use spdz::piecewise::{ACTIVATION_ERROR, Activation, MAX_POINTS};
use spdz::plan::{MAX_STEPS, NumberFormat, Plan, Truncation};
use spdz::polynomial::{MAX_FIT_DEGREE, Polynomial};
use spdz::ring::{Int64, Int100, Ring};

const PAGE: &str = include_str!("../../docs/graph.md");

/// What the page has under a heading, up to the next.
fn section(heading: &str) -> &'static str {
    let (_, text) = PAGE.split_once(&format!("\n{heading}\n")).unwrap();
    let level = heading.split(' ').next().unwrap();
    text.split(&format!("\n{level} ")).next().unwrap()
}

/// The operations of the page: name, examples, and the text.
fn operations() -> Vec<(&'static str, Vec<Value>, &'static str)> {
    let all = section("## Operations").split("\n### ").skip(1);
    all.map(|text| {
        let (name, text) = text.split_once('\n').unwrap();
        let examples = text
            .split("```json\n")
            .skip(1)
            .map(|block| serde_json::from_str(block.split("\n```").next().unwrap()).unwrap());
        (name, examples.collect(), text)
    })
    .collect()
}

/// What is in backticks in a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The names that serde says it would have taken in place of `nothing`.
fn expected_by<T: serde::de::DeserializeOwned>(value: Value) -> BTreeSet<String> {
    let refused = serde_json::from_value::<T>(value).map(drop).unwrap_err().to_string();
    let (found, expected) = refused.split_once("expected ").unwrap();
    assert!(found.starts_with("unknown ") && found.contains("`nothing`"), "{refused}");
    quoted(expected).into_iter().map(str::to_owned).collect()
}

#[test]
fn every_operation_is_on_the_page_with_all_its_keys() {
    let known = expected_by::<Op>(json!({ "op": "nothing" }));
    let page: BTreeSet<String> = operations().iter().map(|(name, ..)| (*name).into()).collect();
    assert_eq!(page, known);
    for (name, examples, _) in operations() {
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            assert_eq!(example["op"], name);
            let mut more: Map<String, Value> = example.as_object().unwrap().clone();
            more.insert("nothing".into(), Value::Null);
            let keys = expected_by::<Op>(Value::Object(more));
            let own = example.as_object().unwrap().keys().filter(|key| *key != "op");
            assert_eq!(own.cloned().collect::<BTreeSet<_>>(), keys, "{name}");
            let op: Op = serde_json::from_value(example.clone()).unwrap();
            // What the page shows is what is written, but for a fit.
            let written = serde_json::to_value(&op).unwrap();
            assert!(written == example || !example["polynomial"]["fit"].is_null(), "{written}");
        }
    }
}

#[test]
fn every_function_is_on_the_page() {
    let known = expected_by::<Function>(json!("nothing"));
    let table = section("### function");
    let rows = table.lines().filter(|line| line.starts_with("| `")).skip(1);
    assert_eq!(rows.map(|row| quoted(row)[0].to_owned()).collect::<BTreeSet<_>>(), known);
    // Those that have a fit.
    let fits = |function: &&String| {
        let fit = json!({ "fit": { "function": function, "bound": 1, "degree": 1 } });
        serde_json::from_value::<Polynomial>(fit).is_ok()
    };
    let (_, listed) = section("### polynomial").split_once("The function is ").unwrap();
    let listed = quoted(listed.split(", and the").next().unwrap());
    let listed: BTreeSet<&str> = listed.into_iter().collect();
    assert_eq!(listed, known.iter().filter(fits).map(String::as_str).collect());
}

#[test]
fn every_activation_is_on_the_page_with_its_points() {
    let known = expected_by::<Activation>(json!("nothing"));
    let table = section("### activation");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).skip(1).collect();
    let names = rows.iter().map(|row| quoted(row)[0].to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), known);
    for row in rows {
        let name = quoted(row)[0];
        let activation: Activation = match name {
            "hardSigmoid" => Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            name => serde_json::from_value(json!(name)).unwrap(),
        };
        let points = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        assert_eq!(points.parse(), Ok(activation.piecewise().points.len()), "{name}");
    }
    assert_eq!(ACTIVATION_ERROR, 1.0 / 512.0);
    assert!(table.contains("at most 1/512 (0.00196)"));
}

/// The numbers of a shape: `[2, 3]`.
fn shape(text: &str) -> Vec<usize> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn shapes_are_those_of_the_page() {
    let mut checked = 0;
    for (name, examples, text) in operations() {
        let lines = text.lines().filter_map(|line| line.strip_prefix("Of `"));
        // Node 2 k is the k-th operand at alice, and the next one the same, private.
        let local = usize::from(name == "function");
        for line in lines {
            let (operands, result) = line.split_once("it makes").unwrap();
            let of: Vec<_> = quoted(&format!("`{operands}")).into_iter().map(shape).collect();
            let mut nodes = Vec::new();
            for (number, shape) in of.iter().enumerate() {
                let name = format!("x{number}");
                let op = json!({ "op": "input", "player": "alice", "name": name, "shape": shape });
                nodes.push(json!({ "label": "main", "operation": op }));
                let op = json!({ "op": "share", "input": 2 * number });
                nodes.push(json!({ "label": "main", "operation": op }));
            }
            let at = |number: &Value| json!(2 * number.as_u64().unwrap() as usize + 1 - local);
            let mut op = examples[0].clone();
            for key in ["input", "left", "right", "filter", "slopes"] {
                if let Some(operand) = op.get_mut(key) {
                    *operand = at(operand);
                }
            }
            if let Some(operands) = op.get_mut("inputs") {
                operands.as_array_mut().unwrap().iter_mut().for_each(|node| *node = at(node));
            }
            nodes.push(json!({ "label": "main", "operation": op }));
            let result_node = nodes.len() - 1;
            // Somebody has to learn something.
            let reveal = json!({ "op": "reveal", "input": result_node - local, "player": "alice" });
            nodes.push(json!({ "label": "main", "operation": reveal }));
            let mut last = nodes.len() - 1;
            if local == 1 {
                let add = json!({ "op": "mul", "left": result_node, "right": last });
                nodes.push(json!({ "label": "main", "operation": add }));
                last += 1;
            }
            let output = json!({ "op": "output", "input": last, "name": "y" });
            nodes.push(json!({ "label": "main", "operation": output }));
            let graph = json!({ "name": "page", "players": ["alice"], "nodes": nodes });
            let graph: Graph = serde_json::from_value(graph)
                .unwrap_or_else(|error| panic!("{name}, {line}: {error}"));
            let made = &graph.facts(NodeId(result_node)).shape;
            assert_eq!(*made, shape(quoted(result)[0]), "{name}, {line}");
            checked += 1;
        }
    }
    // All but input, constant, share, reveal and output.
    assert!(checked >= operations().len() - 5, "{checked}");
}

/// What the table of limits says of something.
fn limit(what: &str) -> usize {
    let rows = section("## Limits").lines();
    let row = rows.filter_map(|line| line.strip_prefix(&format!("| {what} | "))).next();
    row.unwrap_or_else(|| panic!("no limit of {what}")).trim_end_matches(" |").parse().unwrap()
}

#[test]
fn limits_are_the_codes() {
    for (what, code) in [
        ("nodes", MAX_NODES),
        ("polynomials among them", MAX_POLYNOMIALS),
        ("players", MAX_PLAYERS),
        ("elements of a tensor", MAX_TENSOR),
        ("elements of all public tensors", MAX_PUBLIC),
        ("terms of all sums in products and pooling of public tensors", MAX_PUBLIC_TERMS),
        ("degree of a polynomial by its coefficients", MAX_DEGREE),
        ("degree of a fit", MAX_FIT_DEGREE),
        ("points of a piecewise linear function", MAX_POINTS),
        ("bytes of a label", MAX_LABEL_BYTES),
        ("steps of the plan", MAX_STEPS),
        (
            "elements of public tensors and of their copies in sums and products",
            Work::OF_OTHERS.public_elements,
        ),
        ("terms in sums and polynomials of public tensors", Work::OF_OTHERS.public_terms),
        ("powers in polynomials of private tensors", Work::OF_OTHERS.powers),
        ("steps as an upper bound", Work::OF_OTHERS.steps),
        ("layout operations in a row", Work::OF_OTHERS.layout_depth),
    ] {
        assert_eq!(limit(what), code, "{what}");
    }
    let with_axes = |axes: usize| {
        let g = GraphBuilder::new(["alice"]);
        g.private_output("alice", g.private_input("alice", vec![1; axes]));
        g.build().is_ok()
    };
    let axes = limit("axes of a tensor");
    assert!(with_axes(axes) && !with_axes(axes + 1));
    assert!(PAGE.contains(&format!("{MAX_PLAYERS} names, each of 1 to {MAX_NAME_BYTES} lower")));
    assert!(PAGE.contains(&format!("messages name, 1 to {MAX_LABEL_BYTES} visible ASCII")));
    assert!(PAGE.contains(&format!("degree at most {MAX_FIT_DEGREE}.")));

    let (int64, int100) = (Int64::PRECISION, Int100::PRECISION);
    assert_eq!((int64.limit(), int100.limit()), (1024.0, 1024.0));
    for text in [
        format!("has {} fractional bits and `Int100`\n{}.", int64.fraction, int100.fraction),
        format!(
            "at most {} terms in `Int64` and {} in `Int100`",
            int64.largest_inner_dimension(),
            int100.largest_inner_dimension()
        ),
    ] {
        assert!(PAGE.contains(&text), "the page should say: {text}");
    }
}

#[test]
fn a_degree_costs_the_exchanges_that_the_page_says() {
    let rounds = |degrees: &[usize]| {
        let g = GraphBuilder::new(["alice"]);
        let y = degrees.iter().fold(g.private_input("alice", [4]), |x, degree| {
            g.polynomial(x, Polynomial { coefficients: vec![0.01; degree + 1], range: 1.0 })
        });
        g.private_output("alice", y);
        let graph = g.build().unwrap();
        Plan::compile(&graph, NumberFormat::Int64, Truncation::Local).unwrap().rounds()
    };
    // What a player shares is opened to begin with; the second argument is not.
    let exchanges = |degree| rounds(&[2, degree]) - rounds(&[2]);
    assert_eq!([2, 3, 4].map(exchanges), [1, 2, 2]);
    assert!((5..=12).all(|degree| exchanges(degree) >= 3));
}
