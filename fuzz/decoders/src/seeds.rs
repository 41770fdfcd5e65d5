//! Seeds of the corpora: small accepted inputs, as the programs write them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use party::config::PartyConfig;
use party::net::PROTOCOL_VERSION;
use party::net::wire::{Abort, Chunk, Frame, Hello, frame::Content};
use prost::Message as _;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use spdz::channel::{Phase, Role, Tag};
use spdz::graph::{InputSpec, Lifetime};
use spdz::network::{Layer, Network};
use spdz::plan::Plan;

/// The sender of the frames.
pub(crate) const PEER: Role = Role::Producer;

/// The messages that are expected from it after its `Hello`: its key, and one of several chunks.
pub(crate) fn messages() -> [(Tag, usize); 2] {
    [(Tag::new(Phase::Setup, 0, 0), 32), (Tag::new(Phase::Offline, 0, 3), 600)]
}

const SERVER: &str = "
role: server0
session: 000102030405060708090a0b0c0d0e0f
computation: { network: A, format: Int64 }
identity: { certificate: tls.crt, key: tls.key, authority: ca.crt }
listen: 127.0.0.1:7000
";

/// The party that decodes frames, and its plan.
#[allow(clippy::expect_used)] // What it is made of is above.
pub(crate) fn server() -> (&'static PartyConfig, &'static Plan) {
    static SERVER0: LazyLock<(PartyConfig, Plan)> = LazyLock::new(|| {
        let config = PartyConfig::parse(SERVER, Path::new("server0.yaml")).expect("a server's");
        let plan = config.computation.plan().expect("network A's plan");
        (config, plan)
    });
    (&SERVER0.0, &SERVER0.1)
}

/// A network of a few weights.
pub(crate) fn network() -> Network {
    let layers = vec![Layer::Dense { outputs: 2 }, Layer::BatchNorm];
    Network { name: "tiny".into(), input: vec![2], range: None, layers }
}

/// A player's inputs: a tensor of the session, and one with a row for each evaluation.
pub(crate) fn inputs() -> Vec<InputSpec> {
    let input = |name: &str, shape: &[usize], lifetime| InputSpec {
        name: name.into(),
        shape: shape.into(),
        lifetime,
    };
    vec![input("bn1.variance", &[2], Lifetime::Session), input("x", &[2, 2], Lifetime::Evaluation)]
}

/// The binary seeds, by their paths in the folder of the corpora.
#[must_use]
pub fn written() -> BTreeMap<&'static str, Vec<u8>> {
    let pixels = [1, 2, 3, 4, 5, 6];
    BTreeMap::from([
        (
            "frames/messages",
            stream(&[hello(), chunk(0, 0, 32), chunk(1, 0, 250), chunk(1, 250, 350)]),
        ),
        ("frames/whole", stream(&[hello(), chunk(0, 0, 32), chunk(1, 0, 600)])),
        ("frames/abort", stream(&[hello(), abort()])),
        ("weights/trained.safetensors", tensors(&TRAINED)),
        ("weights/inputs.safetensors", tensors(&[("bn1.variance", &[2]), ("x", &[3, 2, 2])])),
        ("weights/logits.safetensors", tensors(&[("logits", &[1, 2])])),
        ("idx/images", idx(&[0x803, 2, 1, 3], &pixels)),
        ("idx/images.gz", gzip(&idx(&[0x803, 2, 1, 3], &pixels))),
        ("idx/labels", idx(&[0x801, 6], &pixels)),
    ])
}

/// The body of a gRPC stream of these frames: each preceded by a zero and its length.
fn stream(frames: &[Frame]) -> Vec<u8> {
    let mut body = Vec::new();
    for frame in frames {
        let message = frame.encode_to_vec();
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(&message);
    }
    body
}

fn frame(content: Content) -> Frame {
    Frame { content: Some(content) }
}

fn hello() -> Frame {
    let (config, plan) = server();
    frame(Content::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        session: Bytes::copy_from_slice(&config.session.0.0),
        role: PEER.name().into(),
        plan_digest: Bytes::copy_from_slice(&plan.digest().0),
        plan_summary: "network A".into(),
    }))
}

/// A chunk of a message: its number, the position of the chunk and its length.
fn chunk(number: usize, start: usize, bytes: usize) -> Frame {
    let (tag, length) = messages()[number];
    frame(Content::Chunk(Chunk {
        session: Bytes::copy_from_slice(&server().0.session.0.0),
        phase: tag.phase as i32,
        inference: tag.inference,
        step: tag.step,
        sequence: number as u64,
        length: length as u64,
        data: (start..start + bytes).map(|place| place as u8).collect(),
    }))
}

fn abort() -> Frame {
    frame(Content::Abort(Abort { reason: "terminated".into(), disagreement: false }))
}

const TRAINED: [(&str, &[usize]); 6] = [
    ("fc1.weight", &[2, 2]),
    ("fc1.bias", &[2]),
    ("bn1.gamma", &[2]),
    ("bn1.beta", &[2]),
    ("bn1.mean", &[2]),
    ("bn1.variance", &[2]),
];

/// A safetensors file of these tensors, F32.
#[allow(clippy::expect_used)] // Their bytes are as many as their shapes say.
fn tensors(shapes: &[(&str, &[usize])]) -> Vec<u8> {
    let data = [0, 0, 128, 63].repeat(16);
    let views = shapes.iter().map(|(name, shape)| {
        let bytes = &data[..4 * shape.iter().product::<usize>()];
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("a tensor");
        (*name, view)
    });
    safetensors::serialize(views, None).expect("a file of tensors")
}

fn idx(words: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    bytes.extend_from_slice(elements);
    bytes
}

#[allow(clippy::expect_used)] // It is written to memory.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
