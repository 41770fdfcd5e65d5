//! docs/networks.md has the layers, shapes, parameters and coefficients that the code has.

#![allow(clippy::unwrap_used, clippy::panic)]

use spdz::network::{
    Activation, BATCH_NORM_EPSILON, Builtin, IMAGES, LOGITS, Layer, MAX_BATCH, Network, Pooling,
    Variant,
};
use spdz::plan::{NumberFormat, Plan, Truncation};

const PAGE: &str = include_str!("../../docs/networks.md");

/// The cells of the rows of the first table under a heading, without its head.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, text) = PAGE.split_once(&format!("\n{heading}\n")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &'static str| {
        let inner = row.strip_prefix('|').unwrap().strip_suffix('|').unwrap();
        inner.split('|').map(str::trim).collect()
    };
    rows.map(cells).collect()
}

/// What the page calls a layer.
fn described(layer: &Layer, input: &[usize]) -> String {
    match layer {
        Layer::Dense { outputs } => {
            format!("dense, {} to {outputs}", input.iter().product::<usize>())
        }
        Layer::Conv2d { filter, channels, stride, padding } => {
            assert_eq!((*stride, *padding), (1, 0), "the page says so of all convolutions");
            format!("convolution, {filter}x{filter}, {} to {channels} channels", input[2])
        }
        Layer::BatchNorm => "batch normalisation".into(),
        Layer::Activation(_) => "polynomial".into(),
        Layer::Relu => "exact ReLU".into(),
        Layer::AvgPool { window } => format!("average pooling, {window}x{window}"),
        Layer::MaxPool { window } => format!("max pooling, {window}x{window}"),
    }
}

/// An empty cell for none.
fn counted(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

#[test]
fn the_layers_are_the_codes() {
    for network in [Network::a(), Network::b(), Network::c()] {
        let heading = format!("### Network {}", network.name);
        let names = network.layer_names();
        let outputs = network.shapes().unwrap();
        let parameters = network.parameters().unwrap();
        let inputs = [&network.input].into_iter().chain(&outputs);
        let (mut expected, mut all, mut shared) = (Vec::new(), [0, 0], 0);
        for (((layer, name), input), output) in
            network.layers.iter().zip(&names).zip(inputs).zip(&outputs)
        {
            let of_layer = parameters.iter().filter(|p| p.name.split_once('.').unwrap().0 == name);
            let stored = of_layer.map(|p| p.shape.iter().product::<usize>()).sum();
            // Each weight takes part in one product at each pixel that the layer puts out.
            let weight = parameters.iter().find(|p| p.name == format!("{name}.weight"));
            let macs = weight.map_or(0, |weight| {
                let pixels: usize = output.iter().rev().skip(1).product();
                weight.shape.iter().product::<usize>() * pixels
            });
            all = [all[0] + stored, all[1] + macs];
            shared += if weight.is_some() { stored } else { 0 };
            expected.push([
                format!("`{name}`"),
                described(layer, input),
                format!("`{output:?}`"),
                counted(stored),
                counted(macs),
            ]);
        }
        let [stored, macs] = all.map(counted);
        expected.push(["all".into(), String::new(), String::new(), stored, macs]);
        assert_eq!(table(&heading), expected, "{heading}");
        assert!(PAGE.contains(&shared.to_string()), "{heading}: {shared} numbers are shared");
    }
}

#[test]
fn the_forms_are_the_codes() {
    let mut expected = Vec::new();
    for builtin in Builtin::ALL {
        let Variant { activation, pooling } = builtin.variant();
        let network = builtin.network();
        let activation = match activation {
            Activation::Polynomial => "polynomial",
            Activation::Relu => "exact ReLU",
        };
        let pooled = network.layer_names().iter().any(|name| name == "pool1");
        let pooling = match pooling {
            _ if !pooled => "",
            Pooling::Average => "average, after the activation",
            Pooling::Max => "max, before the activation",
        };
        expected.push([
            format!("`{builtin}`"),
            format!("`{}`", builtin.file_stem()),
            activation.into(),
            pooling.into(),
        ]);
        // What the row says of the layers, in their order.
        let described: Vec<String> = network
            .layers
            .iter()
            .filter(|layer| !matches!(layer, Layer::Dense { .. } | Layer::BatchNorm))
            .map(|layer| match layer {
                Layer::Conv2d { .. } => "convolution".into(),
                layer => described(layer, &[]),
            })
            .collect();
        let average = "average pooling, 2x2";
        let expected: Vec<&str> = match builtin.name() {
            "A" | "A-relu" => vec![activation; 2],
            "B-relu-max" | "C-relu-max" => {
                let block = ["convolution", "max pooling, 2x2", activation];
                [block, block].concat().into_iter().chain([activation]).collect()
            }
            _ => {
                let block = ["convolution", activation, average];
                [block, block].concat().into_iter().chain([activation]).collect()
            }
        };
        assert_eq!(described, expected, "{builtin}");
    }
    assert_eq!(table("## Forms"), expected);
}

#[test]
fn the_activation_is_the_codes() {
    let networks = [Network::a(), Network::b(), Network::c()];
    let activations =
        networks.iter().flat_map(|network| &network.layers).filter_map(|layer| match layer {
            Layer::Activation(polynomial) => Some(polynomial),
            _ => None,
        });
    let mut count = 0;
    for polynomial in activations {
        let rows = table("### Activation");
        assert_eq!(rows.len(), polynomial.coefficients.len());
        for (power, (row, coefficient)) in rows.iter().zip(&polynomial.coefficients).enumerate() {
            let quotient = match row[1].split_once(" / ") {
                Some((above, below)) => {
                    above.parse::<f64>().unwrap() / below.parse::<f64>().unwrap()
                }
                None => row[1].parse().unwrap(),
            };
            let decimal: f64 = row[2].parse().unwrap();
            assert_eq!(row[0], power.to_string());
            for found in [quotient, decimal] {
                assert!((found - coefficient).abs() < 1e-15, "{row:?}, {coefficient}");
            }
        }
        let range = polynomial.range;
        assert!(PAGE.contains(&format!("[-{range}, {range}], which is its *range*")), "{range}");
        let end = format!("{:.1} at {range}", polynomial.evaluate(range));
        assert!(PAGE.contains(&end), "{end}");
        let error = polynomial.largest_error(|x| x.max(0.0), 3.0);
        assert!(PAGE.contains(&format!("the largest error against ReLU is {error:.3}, at zero")));
        assert_eq!(polynomial.evaluate(0.0), polynomial.largest_error(|x| x.max(0.0), 3.0));
        count += 1;
    }
    assert_eq!(count, 2 + 3 + 3);
}

#[test]
fn names_and_numbers_are_the_codes() {
    // Wherever its lines end.
    let flowing = PAGE.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        format!("`epsilon = {BATCH_NORM_EPSILON:e}`"),
        format!("A batch has 1 to {MAX_BATCH} images."),
        format!("the input `{IMAGES}`, of shape `[batch, 28, 28, 1]`"),
        format!("`{LOGITS}`, of shape `[batch, 10]`"),
    ] {
        assert!(flowing.contains(&text), "the page should say: {text}");
    }
    // The names and the axes of what a weights file holds.
    let rows = table("## Weights files");
    let listed = |name: &str, axes: usize| {
        rows.iter().any(|row| {
            row[0].split(", ").any(|cell| cell == format!("`{name}`"))
                && row[2].split(',').count() == axes
        })
    };
    for network in [Network::a(), Network::b(), Network::c()] {
        assert_eq!(network.input, [28, 28, 1]);
        for parameter in network.parameters().unwrap() {
            let (layer, what) = parameter.name.split_once('.').unwrap();
            let kind = layer.trim_end_matches(|c: char| c.is_ascii_digit());
            let name = format!("{kind}N.{what}");
            assert!(listed(&name, parameter.shape.len()), "{name}, {:?}", parameter.shape);
        }
    }
}

/// docs/protocol.md, which says what the forms with exact layers send.
const PROTOCOL: &str = include_str!("../../docs/protocol.md");

#[test]
fn the_protocols_page_says_what_exact_networks_send() {
    let row = |network: Builtin| {
        let graph = network.network().graph(1).unwrap();
        let cells = [NumberFormat::Int64, NumberFormat::Int32].map(|format| {
            let plan = Plan::compile(&graph, format, Truncation::Local).unwrap();
            let kilobytes = |bytes: usize| format!("{:.1}", bytes as f64 / 1e3);
            let (online, offline) = (plan.online_bytes(), plan.offline_bytes());
            format!("{} | {} | {}", plan.rounds(), kilobytes(online), kilobytes(offline))
        });
        format!("| {network} | {} |", cells.join(" | "))
    };
    let rows: Vec<String> =
        Builtin::ALL.into_iter().filter(|network| network.compares()).map(row).collect();
    let rows = rows.join("\n");
    assert!(PROTOCOL.contains(&rows), "the page should have:\n{rows}");
}
