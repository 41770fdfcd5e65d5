//! The decoders, called in the same way as by the programs.

use std::path::Path;

use bench::report::{self, Run};
use bench::results::Results;
use bench::table1;
use bytes::Bytes;
use party::config::PartyConfig;
use party::decoders::{self, FRAME_BYTES};
use party::idx;
use party::termination::{MAX_TERMINATION_BYTES, Termination};
use party::trace;
use party::transcript::Transcript;
use party::yaml;
use spdz::graph::Graph;
use spdz::network::weights::{FoldedLinear, Weights};
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::protocol::{Protocol, Spdz};

use crate::decoder::Decoder;
use crate::seeds;

const MEGABYTE: usize = 1 << 20;

/// An error as a text, for the decoder's caller.
fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(text)
}

/// A producer's frames to a server. Memory is bounded by one frame and the messages that the
/// plan expects, for any lengths that the frames declare.
pub const FRAMES: Decoder = Decoder {
    name: "frames",
    fixed: 2 * FRAME_BYTES + MEGABYTE,
    each: 8,
    decode: |bytes| {
        let (config, plan) = seeds::server();
        let expected = seeds::messages();
        let stream = Bytes::copy_from_slice(bytes);
        let peer = seeds::PEER;
        let messages = decoders::replay(config, plan, peer, stream, &expected).map_err(text)?;
        for (message, (_, length)) in messages.iter().zip(expected) {
            assert_eq!(message.len(), length, "a message of another length was accepted");
        }
        Ok(())
    },
};

/// The configuration of a party, with its graph.
pub const CONFIGURATION: Decoder = Decoder {
    name: "configuration",
    fixed: PLAN,
    each: 4096,
    decode: |bytes| {
        let path = Path::new("party.yaml");
        let config = PartyConfig::parse(utf8(bytes)?, path).map_err(text)?;
        let written = serde_yaml::to_string(&config).map_err(text)?;
        let again = PartyConfig::parse(&written, path).map_err(text);
        let again = again.and_then(|config| serde_yaml::to_string(&config).map_err(text));
        assert_eq!(again.as_ref(), Ok(&written), "a configuration changes with writing it");
        Ok(())
    },
};

/// The transcript of a session.
pub const TRANSCRIPT: Decoder = Decoder {
    name: "transcript",
    fixed: MEGABYTE,
    each: 16,
    decode: |bytes| {
        let definition = utf8(bytes)?;
        let transcript = Transcript::parse(definition).map_err(text)?;
        assert_eq!(transcript.to_string(), definition, "a transcript changes with writing it");
        Ok(())
    },
};

/// Memory for a graph's public numbers, which a constant of `spdz` limits, and for its steps,
/// bytes.
const PLAN: usize = 128 * MEGABYTE;

/// A graph, YAML or JSON, and its plans.
pub const GRAPH: Decoder = Decoder {
    name: "graph",
    fixed: PLAN,
    each: 4096,
    decode: |bytes| {
        let definition = utf8(bytes)?;
        let graph: Graph = match serde_json::from_str(definition) {
            Ok(graph) => graph,
            Err(_) => yaml::parse(definition).map_err(text)?,
        };
        let written = serde_json::to_string(&graph).map_err(text)?;
        let again: Result<Graph, String> = serde_json::from_str(&written).map_err(text);
        assert_eq!(again.as_ref(), Ok(&graph), "a graph changes with writing it");
        // Not every format holds every graph: comparisons, or products of any values.
        let mut outcome = Err("no format holds it".into());
        for format in NumberFormat::ALL {
            for truncation in [Truncation::Local, Truncation::Interactive] {
                match Plan::compile(&graph, format, truncation) {
                    Ok(plan) => {
                        listed(&plan);
                        outcome = Ok(());
                    }
                    Err(refused) if outcome.is_err() => outcome = Err(text(refused)),
                    Err(_) => {}
                }
            }
        }
        outcome
    },
};

/// The properties of a plan that every party uses before it connects.
fn listed(plan: &Plan) {
    let lengths = [plan.largest_message(), plan.online_bytes(), plan.rounds()];
    assert!(lengths.iter().all(|length| *length < 1 << 60), "a length that cannot be");
    assert!(Spdz::roles(plan.graph().players()).len() >= 4 && !plan.outputs().is_empty());
    assert!(plan.to_string().starts_with("plan version"));
    let dividend = plan.format().precision().dividend;
    for step in plan.steps() {
        if let Some(bits) = step.operation.shift() {
            assert!((1..=dividend).contains(&bits), "a truncation by {bits} bits");
        }
    }
}

/// Weights as the training writes them, and as the model owner and the client read them.
pub const WEIGHTS: Decoder = Decoder {
    name: "weights",
    fixed: MEGABYTE,
    each: 64,
    decode: |bytes| {
        let network = seeds::network();
        let outcomes = [
            Weights::from_safetensors(bytes, &network)
                .and_then(|weights| weights.fold(&network))
                .map(|folded| {
                    let finite = |layer: &FoldedLinear| {
                        layer.weight.iter().chain(&layer.bias).all(|x| x.is_finite())
                    };
                    assert!(folded.iter().all(finite), "folded weights that are no numbers");
                })
                .map_err(text),
            decoders::tensors(bytes, seeds::inputs(), true).map_err(text),
            decoders::logits(bytes, 1, 2).map_err(text).map(drop),
        ];
        // A file is valid for one of them at most; each refuses it with an error.
        let first = outcomes.iter().position(Result::is_ok).unwrap_or_default();
        outcomes.into_iter().nth(first).unwrap_or(Ok(()))
    },
};

/// Images or labels, gzipped or not.
pub const IDX: Decoder = Decoder {
    name: "idx",
    // Unpacking makes at most 1032 bytes of one, and a buffer grows to twice its content.
    fixed: MEGABYTE,
    each: 3 * 1032,
    decode: |bytes| {
        let images = idx::read_images(bytes).map(|images| {
            let pixels = images.count * images.height * images.width;
            assert_eq!(images.pixels.len(), pixels, "images without their pixels");
        });
        let labels = idx::read_labels(bytes).map(drop);
        images.or(labels).map_err(text)
    },
};

/// Results of a benchmark, and the report of them.
pub const RESULTS: Decoder = Decoder {
    name: "results",
    fixed: 16 * MEGABYTE,
    each: 1024,
    decode: |bytes| {
        let path = Path::new("results.json");
        let results = Results::parse(bytes, path).map_err(text)?;
        let written = serde_json::to_vec(&results).map_err(text)?;
        let again = Results::parse(&written, path).map_err(text);
        assert_eq!(again.as_ref(), Ok(&results), "results change with writing them");
        assert!(!table1::render(&results, None).is_empty());
        if results.runs.is_empty() {
            return Ok(());
        }
        let forms = report::forms(&[Run::of(results, path.into())]).map_err(text)?;
        assert!(forms.iter().all(|(_, content)| !content.is_empty()));
        Ok(())
    },
};

/// How a party ended.
pub const TERMINATION: Decoder = Decoder {
    name: "termination",
    fixed: MEGABYTE,
    each: 256,
    decode: |bytes| {
        let termination = Termination::parse(utf8(bytes)?).map_err(text)?;
        let written = termination.to_json().map_err(text)?;
        // A message that is too long has its texts cut and is otherwise unchanged.
        if bytes.len() <= MAX_TERMINATION_BYTES && written.len() <= MAX_TERMINATION_BYTES {
            let again = Termination::parse(&written).map_err(text);
            assert_eq!(again, Ok(termination), "a message changes with writing it");
        }
        Ok(())
    },
};

/// A `traceparent`: the span above a run.
pub const TRACEPARENT: Decoder = Decoder {
    name: "traceparent",
    fixed: MEGABYTE,
    each: 64,
    decode: |bytes| {
        let text = utf8(bytes)?;
        let context: trace::Context = text.parse().map_err(self::text)?;
        let again = context.to_string().parse();
        assert_eq!(again, Ok(context), "a context changes with writing it");
        Ok(())
    },
};
