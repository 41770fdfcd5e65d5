//! Private computation between players, on the secret shares of two servers.
//!
//! A model owner has the weights of a network, a client has images, and neither shows them to
//! the other. Two servers compute the prediction on additive secret shares, with correlated
//! randomness (masks and Beaver triples) that a third party, the producer, generates without
//! ever seeing an input. This is the two-server variant of SPDZ of [*Private Machine Learning in
//! TensorFlow using Secure Computation*](https://arxiv.org/abs/1810.08130) (Dahl et al. 2018),
//! for any computation that can be written as a graph, between any players.
//!
//! The crate is the protocol and nothing else: synchronous, and deterministic given its
//! randomness. It has no sockets, no clocks, no files, and no threads but those that its caller
//! lends it. Messages go through a [`Channel`](channel::Channel): channels in memory are here,
//! and a connection over the network is whatever implements the trait.
//!
//! # A whole computation
//!
//! Five parties in one process: two servers, the producer, and two players, each on a thread.
//! In a deployment each is a process of its own, and the code of a role is the same.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//! use std::thread;
//! use std::time::Duration;
//!
//! use spdz::channel::{Name, Role, memory_pair};
//! use spdz::graph::{GraphBuilder, Plaintext, Tensors};
//! use spdz::plan::{NumberFormat, Plan, Truncation};
//! use spdz::prg::{Seed, SessionId};
//! use spdz::ring::{Int64, Side};
//! use spdz::role::{Memory, Player, Producer, Server, ServerLinks};
//!
//! type Failure = Box<dyn std::error::Error + Send + Sync>;
//!
//! // 1. The graph is public: the players, what each brings, what is computed, who learns it.
//! let (owner, client): (Name, Name) = ("owner".parse()?, "client".parse()?);
//! let g = GraphBuilder::new(["owner", "client"]);
//! // Weights last for the session; an image is new in each evaluation.
//! let weights = g.share(g.local_variable("owner", "weights", [3, 1]));
//! let image = g.share(g.local_input("client", "image", [1, 3]));
//! let score = g.sigmoid(g.matmul(image, weights));
//! g.output("score", g.reveal("client", score));
//! let graph = g.build()?;
//!
//! // 2. All parties compile it to the same plan: every step, message and length.
//! let plan = Arc::new(Plan::compile(&graph, NumberFormat::Int64, Truncation::Local)?);
//! println!("{} exchanges, digest {}", plan.rounds(), plan.digest());
//!
//! // 3. The inputs are private: each is known to its player alone.
//! let tensor = |name: &str, shape: [usize; 2], values: [f64; 3]| {
//!     Ok::<_, Failure>(Tensors::from([(name.into(), Plaintext::new(shape, values.into())?)]))
//! };
//! let owners = tensor("weights", [3, 1], [0.5, -1.0, 2.0])?;
//! let clients = tensor("image", [1, 3], [1.0, 2.0, 0.25])?;
//!
//! // 4. A channel between each two parties that talk to each other.
//! let (server0, server1, producer) = (Role::Server0, Role::Server1, Role::Producer);
//! let connect = |x, y| memory_pair(x, y, Duration::from_secs(60));
//! let (s0_s1, s1_s0) = connect(server0, server1);
//! let (s0_producer, producer_s0) = connect(server0, producer);
//! let (s1_producer, producer_s1) = connect(server1, producer);
//! let (s0_owner, owner_s0) = connect(server0, Role::Player(owner));
//! let (s1_owner, owner_s1) = connect(server1, Role::Player(owner));
//! let (s0_client, client_s0) = connect(server0, Role::Player(client));
//! let (s1_client, client_s1) = connect(server1, Role::Player(client));
//!
//! // 5. Each role follows the plan. Seeds are fresh and never used again.
//! let session = SessionId::fresh()?;
//! let serve = |side, other, producer, (client_link, owner_link)| {
//!     let players = vec![(client, client_link)];
//!     let links = ServerLinks { other, producer, players };
//!     // The owner shares its weights in the set-up, and is done.
//!     let mut departing = [(owner, owner_link)];
//!     let fresh = Seed::fresh()?;
//!     let mut server =
//!         Server::<Int64, _>::set_up(plan.clone(), session, side, fresh, links, &mut departing)?;
//!     Ok::<_, Failure>(server.serve(&mut Memory::default())?)
//! };
//! let outputs = thread::scope(|scope| {
//!     scope.spawn(|| serve(Side::Zero, s0_s1, s0_producer, (s0_client, s0_owner)));
//!     scope.spawn(|| serve(Side::One, s1_s0, s1_producer, (s1_client, s1_owner)));
//!     scope.spawn(|| {
//!         let (root, servers) = (Seed::fresh()?, [producer_s0, producer_s1]);
//!         let producer = Producer::<Int64, _>::set_up(plan.clone(), session, root, servers);
//!         Ok::<_, Failure>(producer?.serve()?)
//!     });
//!     scope.spawn(|| {
//!         Player::<Int64, _>::set_up(plan.clone(), owner, &owners, [owner_s0, owner_s1]).map(drop)
//!     });
//!     // The client is the coordinator: it has an evaluation prepared (offline), run (online),
//!     // and ends the session.
//!     let servers = [client_s0, client_s1];
//!     let mut player = Player::<Int64, _>::set_up(plan.clone(), client, &clients, servers)?;
//!     let ready = player.prepare()?;
//!     let outputs = player.evaluate(ready, &clients)?;
//!     player.finish()?;
//!     Ok::<_, Failure>(outputs)
//! })?;
//!
//! // 6. What the client learnt is close to the same graph on plaintext.
//! let score = outputs["score"].as_slice()[0];
//! let plaintext = graph.evaluate_plaintext(&BTreeMap::from([(owner, owners), (client, clients)]))?;
//! assert!((score - plaintext[&client]["score"].as_slice()[0]).abs() < 0.01, "{score}");
//! # Ok::<_, Failure>(())
//! ```
//!
//! # Where to find what
//!
//! | to | see |
//! |---|---|
//! | write a computation, or read one from a file | [`graph`]; [`piecewise`] for activations on comparisons, [`polynomial`] for functions that sums and products only approximate |
//! | compute a convolutional network, or the paper's A, B and C | [`network`] |
//! | know steps, messages, bytes and rounds before anything runs | [`plan`] |
//! | choose a number format and a truncation | [`ring::NumberFormat`], [`ring::Truncation`] |
//! | run a party | [`role`], over a [`channel`]; its keys are of [`prg`] and [`ratchet`] |
//! | prepare evaluations ahead, in memory or on disk | [`role::Store`], [`correlated`] |
//! | observe or measure a run | [`role::Observer`] |
//! | read the protocol beside the paper | [`ops`], one file for each operation, on [`share`] and [`masked`] tensors of [`fixed`]-point numbers |
//! | add an operation or a number format | [`ops`], [`ring`] |
//! | know the roles and who connects to whom | [`protocol`] |
//!
//! # What is protected
//!
//! Security is *semi-honest* (passive), against one of the two servers and the producer: each
//! follows the protocol, and learns nothing but what the graph and the plan say, which are
//! public. A server together with the other one or with the producer can reconstruct
//! everything. Values are not authenticated: a party that deviates can make outputs wrong. An
//! output says something about the inputs from which it was computed, as any prediction does.
//! Opened values are uniformly random, or for interactive truncation with [`ring::Int100`]
//! within a statistical distance of 2^-40.
//!
//! Channels must be authenticated and encrypted, which those over a network have to see to.
//! Masks and triples cannot be copied, and the operation that uses one consumes it: a program
//! that uses one twice does not compile. Shares, seeds and inputs are overwritten when they are
//! dropped, and never printed.
//!
//! # Features
//!
//! Both are on by default.
//!
//! - `threads`: large products on several threads, those of [`ring::Threads`]; needs `rayon`.
//!   Without it a session computes on its own thread.
//! - `weights`: the weights of a network from a file, [`network::weights`]; needs `safetensors`.
//!
//! On x86-64 the kernels use AVX2 or AVX-512 if the processor has them, which is decided at run
//! time; elsewhere they are portable code.

pub mod buffer;
pub mod channel;
pub mod correlated;
pub mod fixed;
pub mod geometry;
pub mod graph;
mod low;
pub mod masked;
pub mod network;
mod observer;
pub mod ops;
pub mod packed;
mod packed_opening;
pub mod piecewise;
pub mod plan;
pub mod polynomial;
pub mod prg;
pub mod protocol;
pub mod ratchet;
pub mod ring;
pub mod role;
pub mod share;
pub mod tensors;

/// The README's examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
