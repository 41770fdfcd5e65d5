//! Whether branches and addresses depend on secrets: the method of *ctgrind* (Langley 2010).
//!
//! Run by valgrind (`make constant-time`), this program tells memcheck that all keys and seeds
//! are undefined, and runs whole sessions: all that a server or the producer computes of them is
//! undefined too, and memcheck reports each branch and each address that depends on it. Two
//! functions that do so on purpose must be reported.

// Requests to valgrind are instructions that do nothing elsewhere.
#![allow(unsafe_code)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spdz::channel::{Channel, ChannelError, MemoryChannel, Name, Phase, Role, Tag, memory_pair};
use spdz::graph::{Graph, GraphBuilder, Plaintext, Tensor, Tensors};
use spdz::ops::ProtocolRing;
use spdz::piecewise::Activation;
use spdz::plan::{NumberFormat, Plan, Truncation};
use spdz::prg::{Seed, SessionId};
use spdz::ring::Side;
use spdz::role::{Memory, Player, Producer, Server, ServerLinks};

/// What valgrind and its memcheck are asked.
mod valgrind {
    const RUNNING: u64 = 0x1001;
    const COUNT_ERRORS: u64 = 0x1201;
    const MAKE_UNDEFINED: u64 = 0x4d43_0001;
    const MAKE_DEFINED: u64 = 0x4d43_0002;

    /// The sequence of `valgrind.h`, which rotates a register by 128 bits in all.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    fn ask(question: u64, address: u64, length: u64) -> u64 {
        let arguments = [question, address, length, 0, 0, 0];
        let mut answer = 0u64;
        // SAFETY: without valgrind no register but the flags changes. With it, the answer is in
        // `rdx`, and nothing is written to the memory that is named.
        unsafe {
            std::arch::asm!(
                "rol rdi, 3",
                "rol rdi, 13",
                "rol rdi, 61",
                "rol rdi, 51",
                "xchg rbx, rbx",
                inout("rdx") answer,
                in("rax") arguments.as_ptr(),
            );
        }
        answer
    }

    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    fn ask(_: u64, _: u64, _: u64) -> u64 {
        0
    }

    pub(crate) fn is_running() -> bool {
        ask(RUNNING, 0, 0) > 0
    }

    pub(crate) fn errors() -> u64 {
        ask(COUNT_ERRORS, 0, 0)
    }

    pub(crate) fn make_undefined(bytes: &[u8]) {
        ask(MAKE_UNDEFINED, bytes.as_ptr() as u64, bytes.len() as u64);
    }

    pub(crate) fn make_defined(bytes: &[u8]) {
        ask(MAKE_DEFINED, bytes.as_ptr() as u64, bytes.len() as u64);
    }
}

/// A seed that memcheck holds for undefined.
fn secret(byte: u8) -> Seed {
    let seed = Seed::from_bytes([byte; 32]);
    valgrind::make_undefined(seed.expose());
    seed
}

/// A player's connection: the shares of its outputs are its own to branch on.
struct AtPlayer(MemoryChannel);

impl Channel for AtPlayer {
    fn send(&mut self, tag: Tag, message: Bytes) -> Result<(), ChannelError> {
        self.0.send(tag, message)
    }

    fn recv(&mut self, tag: Tag, length: usize) -> Result<Bytes, ChannelError> {
        let message = self.0.recv(tag, length)?;
        if tag.phase == Phase::Online {
            valgrind::make_defined(&message);
        }
        Ok(message)
    }
}

/// What is compared with public numbers.
fn thresholds(g: &GraphBuilder, x: Tensor) -> Tensor {
    let activated = g.activation(g.leaky_relu(x, 0.25), Activation::Sigmoid);
    g.add(activated, g.step(g.prelu(x, x), 0.5))
}

/// Every kind of operation that a server computes in a format.
fn graph(format: NumberFormat) -> Graph {
    let g = GraphBuilder::named("all", ["alice"]);
    let image = g.private_input("alice", [1, 8, 8, 2]);
    let filter = g.private_variable("alice", "filter", [3, 3, 2, 4]);
    let weights = g.private_variable("alice", "weights", [36, 10]);
    let other = g.private_input("alice", [1, 10]);
    if !format.has_polynomials() {
        let image = g.max_pool(image, 2, 1, [0, 1, 1, 0]);
        let hidden = g.avg_pool(g.relu(g.conv2d(image, filter, 1, 0)), 2);
        let hidden = g.relu(g.matmul(g.flatten(hidden), weights));
        let larger = g.maximum(g.abs(other), g.relu(g.sub(g.scalar(0.5), other)));
        let all = [g.mul(hidden, other), g.square(other), larger, thresholds(&g, other)];
        g.private_output("alice", g.concat(&all, 0));
        return g.build().unwrap();
    }
    let hidden = g.conv2d(image, filter, 1, 0);
    let hidden = match format.has_gates() {
        // Each pixel once, and some of them several times.
        true => g.max_pool(g.relu(g.max_pool(hidden, 2, 2, 0)), 2, 1, [0, 1, 1, 0]),
        false => g.avg_pool(hidden, 2),
    };
    let hidden = g.matmul(g.flatten(hidden), weights);
    let product = g.mul(g.sigmoid(hidden), other);
    let outer = g.matmul(g.transpose(product, [1, 0]), other);
    let sum = g.reduce_sum(g.concat(&[g.square(product), g.scale(other, 0.3)], 0), [0]);
    let sum = match format.has_gates() {
        true => {
            let many = g.reshape(g.concat(&[outer, outer], 0), [10, 20]);
            let larger = g.maximum(g.abs(sum), g.minimum(product, other));
            let larger = g.add(larger, thresholds(&g, sum));
            g.add(g.add(larger, g.one_hot_argmax(sum)), g.argmax(many))
        }
        false => sum,
    };
    g.private_output("alice", g.add(sum, g.reduce_mean(outer, [0])));
    g.build().unwrap()
}

/// Two evaluations of all roles, each on its thread.
fn session<R: ProtocolRing>(plan: &Arc<Plan>) {
    let (alice, session): (Name, _) = ("alice".parse().unwrap(), SessionId([1; 16]));
    let pair = |x, y| memory_pair(x, y, Duration::from_secs(600));
    let (s0_s1, s1_s0) = pair(Role::Server0, Role::Server1);
    let (s0_p, p_s0) = pair(Role::Server0, Role::Producer);
    let (s1_p, p_s1) = pair(Role::Server1, Role::Producer);
    let (s0_a, a_s0) = pair(Role::Server0, Role::Player(alice));
    let (s1_a, a_s1) = pair(Role::Server1, Role::Player(alice));
    let serve = |side, other, producer, player| {
        let links = ServerLinks { other, producer, players: vec![(alice, player)] };
        let nobody: &mut [(Name, MemoryChannel)] = &mut [];
        let set_up = Server::<R, _>::set_up(plan.clone(), session, side, secret(1), links, nobody);
        set_up.unwrap().serve(&mut Memory::default()).unwrap();
    };
    let mut inputs = Tensors::new();
    for node in plan.inputs() {
        let tensor =
            Plaintext::new(plan.graph().facts(node.node).shape.clone(), vec![0.25; node.len]);
        inputs.insert(node.name.clone(), tensor.unwrap());
    }
    std::thread::scope(|scope| {
        scope.spawn(move || serve(Side::Zero, s0_s1, s0_p, s0_a));
        scope.spawn(move || serve(Side::One, s1_s0, s1_p, s1_a));
        scope.spawn(|| {
            let links = [p_s0, p_s1];
            let set_up = Producer::<R, _>::set_up(plan.clone(), session, secret(2), links);
            set_up.unwrap().serve().unwrap();
        });
        let servers = [AtPlayer(a_s0), AtPlayer(a_s1)];
        let mut player = Player::<R, _>::set_up(plan.clone(), alice, &inputs, servers).unwrap();
        for _ in 0..2 {
            let ready = player.prepare().unwrap();
            assert_eq!(player.evaluate(ready, &inputs).unwrap().len(), 1);
        }
        player.finish().unwrap();
    });
}

/// A branch on a secret.
#[inline(never)]
fn leaks_by_a_branch(secret: &[u8]) -> usize {
    secret.iter().position(|byte| black_box(*byte) == 77).unwrap_or(secret.len())
}

/// A secret address.
#[inline(never)]
fn leaks_by_an_address(secret: &[u8], table: &[u8; 256]) -> u8 {
    secret.iter().fold(0, |sum, byte| sum ^ black_box(table)[usize::from(*byte)])
}

/// The errors that memcheck reports while `run` runs.
fn errors_of(run: impl FnOnce()) -> u64 {
    let before = valgrind::errors();
    run();
    valgrind::errors() - before
}

fn main() -> ExitCode {
    if !valgrind::is_running() {
        println!("not run by valgrind, so nothing is checked; use make constant-time");
        return ExitCode::SUCCESS;
    }
    let mut right = true;
    let mut report = |name: &str, leaks: bool, errors: u64| {
        let verdict = if (errors > 0) == leaks { "as expected" } else { "WRONG" };
        right &= (errors > 0) == leaks;
        println!("{name:<40} {errors:>6} errors  {verdict}");
    };
    let (seed, table) = (secret(3), [5; 256]);
    let branch = errors_of(|| _ = black_box(leaks_by_a_branch(seed.expose())));
    report("control: a branch on a secret", true, branch);
    let address = errors_of(|| _ = black_box(leaks_by_an_address(seed.expose(), &table)));
    report("control: an address that is secret", true, address);
    for format in NumberFormat::ALL {
        let graph = graph(format);
        for truncation in [Truncation::Local, Truncation::Interactive] {
            let plan = Arc::new(Plan::compile(&graph, format, truncation).unwrap());
            let errors = errors_of(|| spdz::with_ring!(format, R => session::<R>(&plan)));
            report(&format!("session: {format}, {truncation}"), false, errors);
        }
    }
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
