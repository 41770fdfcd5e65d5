//! A whole session in one process: five roles on threads, in-memory channels, everything recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use spdz::channel::{Channel, ChannelError, MemoryChannel, Role, Tag, memory_pair};
use spdz::network::Network;
use spdz::network::weights::Weights;
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::prg::{Seed, SessionId};
use spdz::ring::{Int64, Side};
use spdz::role::{Client, Error, Producer, Server, ServerLinks, provide_model};

/// A message and who sent it to whom.
pub type Message = (Role, Role, Tag, Bytes);

/// Records what is sent through it.
pub struct Recorder {
    from: Role,
    to: Role,
    inner: MemoryChannel,
    log: Arc<Mutex<Vec<Message>>>,
}

impl Channel for Recorder {
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError> {
        self.log.lock().unwrap().push((self.from, self.to, tag, message.clone()));
        self.inner.send(tag, message)
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        self.inner.recv(tag, length)
    }
}

/// The randomness of a session, fixed by two numbers.
#[derive(Clone, Copy)]
pub struct Randomness {
    /// What the producer starts from.
    pub producer: u8,
    /// What the key shared by the servers starts from.
    pub servers: u8,
}

impl Randomness {
    /// Both from the same number.
    pub fn all(number: u8) -> Self {
        Self { producer: number, servers: number ^ 0x55 }
    }
}

/// What came of a session.
pub struct Outcome {
    /// One result for each batch.
    pub outputs: Vec<Result<Vec<f64>, Error>>,
    /// Everything that was sent.
    pub messages: Vec<Message>,
}

/// Weights from a function of the tensor's name, its index and its shape.
pub fn weights(network: &Network, value: impl Fn(&str, usize, &[usize]) -> f32) -> Weights {
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = network
        .parameters()
        .unwrap()
        .into_iter()
        .map(|parameter| {
            let len: usize = parameter.shape.iter().product();
            let bytes = (0..len)
                .flat_map(|index| value(&parameter.name, index, &parameter.shape).to_le_bytes())
                .collect();
            (parameter.name, (parameter.shape, bytes))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    Weights::from_safetensors(&file, network).unwrap()
}

/// Runs `batches` through a session.
pub fn run(
    network: &Network,
    weights: &Weights,
    batch: usize,
    batches: &[Vec<f32>],
    randomness: Randomness,
) -> Outcome {
    let plan =
        Arc::new(Plan::compile(network, batch, NumberFormat::Int64, Truncation::Local).unwrap());
    let session = SessionId([1; 16]);
    let log = Arc::new(Mutex::new(Vec::new()));
    let pair = |x, y| {
        let (at_x, at_y) = memory_pair(x, y, Duration::from_secs(30));
        let record = |from, to, inner| Recorder { from, to, inner, log: log.clone() };
        (record(x, y, at_x), record(y, x, at_y))
    };
    use Role::{ModelOwner, Producer as P, Server0, Server1};
    let (s0_s1, s1_s0) = pair(Server0, Server1);
    let (s0_p, p_s0) = pair(Server0, P);
    let (s1_p, p_s1) = pair(Server1, P);
    let (s0_o, o_s0) = pair(Server0, ModelOwner);
    let (s1_o, o_s1) = pair(Server1, ModelOwner);
    let (s0_c, c_s0) = pair(Server0, Role::Client);
    let (s1_c, c_s1) = pair(Server1, Role::Client);
    let links = |other, producer, client| ServerLinks { other, producer, client };

    let outputs = std::thread::scope(|scope| {
        let serve = |side, fresh, links, owner| {
            let plan = plan.clone();
            scope.spawn(move || {
                let fresh = Seed::from_bytes([fresh; 32]);
                let mut server =
                    Server::<Int64, _>::set_up(plan, session, side, fresh, links, owner).unwrap();
                assert_eq!(server.serve().unwrap(), batches.len() as u64);
            })
        };
        serve(Side::Zero, randomness.servers, links(s0_s1, s0_p, s0_c), s0_o);
        serve(Side::One, 0, links(s1_s0, s1_p, s1_c), s1_o);
        scope.spawn({
            let plan = plan.clone();
            move || {
                let root = Seed::from_bytes([randomness.producer; 32]);
                let mut producer =
                    Producer::<Int64, _>::set_up(plan, session, &root, [p_s0, p_s1]).unwrap();
                assert_eq!(producer.serve().unwrap(), batches.len() as u64);
            }
        });
        scope.spawn({
            let plan = plan.clone();
            move || provide_model::<Int64, _>(&plan, weights, &mut [o_s0, o_s1]).unwrap()
        });
        let mut client = Client::<Int64, _>::new(plan.clone(), [c_s0, c_s1]);
        let outputs = batches
            .iter()
            .map(|inputs| {
                let ready = client.prepare()?;
                client.infer(ready, inputs)
            })
            .collect();
        client.finish().unwrap();
        outputs
    });
    let messages = std::mem::take(&mut *log.lock().unwrap());
    Outcome { outputs, messages }
}

/// Numbers that look random and are the same on every run, from -1 to 1.
pub fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
