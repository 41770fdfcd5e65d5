//! Correlated randomness: what the producer makes for one inference.
//!
//! For each masked tensor there is a mask `a = a_0 + a_1`; for each product of
//! masked tensors, shares of the product of their masks. Both servers expand
//! their shares of the masks from the seed they have in common with the
//! producer. So does one of them with its share of a product; only the other's
//! share, the difference, is sent. The two take turns, so that neither link
//! carries everything.

use bytes::Bytes;

use crate::channel::{Channel, ChannelError, Phase, Tag};
use crate::masked::Mask;
use crate::ops::{LinearLayer, LinearTriple, MulTriple, SquareTriple};
use crate::plan::{MaskedId, Operation, Plan};
use crate::prg::{Purpose, Seed};
use crate::ring::{Ring, Side};
use crate::share::Share;

/// What one step of a plan consumes.
#[derive(Debug)]
pub(crate) enum StepRandomness<R: Ring> {
    Nothing,
    Mask(Mask<R>),
    Linear(LinearTriple<R>),
    Square(SquareTriple<R>),
    Mul(MulTriple<R>),
}

/// A server's correlated randomness for one inference, one entry for each step.
/// Consumed by the inference: there is no way to use it twice.
#[derive(Debug)]
pub struct Bundle<R: Ring> {
    pub(crate) inference: u64,
    pub(crate) steps: Vec<StepRandomness<R>>,
}

/// The steps that multiply masked tensors, each with the server that receives
/// its share of the masks' product from the producer.
fn products(plan: &Plan) -> impl Iterator<Item = (usize, Side)> + '_ {
    plan.steps()
        .iter()
        .enumerate()
        .filter(|(_, step)| {
            matches!(
                step.operation,
                Operation::Linear { .. } | Operation::Square { .. } | Operation::Mul { .. }
            )
        })
        .zip([Side::Zero, Side::One].into_iter().cycle())
        .map(|((index, _), receiver)| (index, receiver))
}

/// The seed of a server's share of the mask made at `step`; `key` is what the
/// server has in common with the producer.
pub(crate) fn mask_seed(key: &Seed, plan: &Plan, inference: u64, step: usize) -> Seed {
    let purpose = match plan.steps()[step].operation {
        Operation::Input { .. } => Purpose::InputMask,
        _ => Purpose::OpeningMask,
    };
    key.derive(purpose, inference, step as u32)
}

/// The step that makes each masked tensor.
fn origins(plan: &Plan) -> Vec<usize> {
    let mut origins = vec![0; plan.masked_count()];
    for (index, step) in plan.steps().iter().enumerate() {
        if let Some(id) = step.operation.masked_output() {
            origins[id.0] = index;
        }
    }
    origins
}

fn product_len(plan: &Plan, operation: &Operation) -> usize {
    match operation {
        Operation::Linear { output, .. }
        | Operation::Square { output, .. }
        | Operation::Mul { output, .. } => plan.private_len(*output),
        _ => 0,
    }
}

/// Server's side: expands masks and shares of products, receives the others
/// from the producer, and computes everything that does not need the input.
///
/// # Errors
/// If the producer is gone, silent or sends something else.
pub(crate) fn prepare<R: Ring, C: Channel>(
    plan: &Plan,
    side: Side,
    inference: u64,
    key: &Seed,
    layers: &[LinearLayer<R>],
    producer: &mut C,
) -> Result<Bundle<R>, ChannelError> {
    let mut steps: Vec<StepRandomness<R>> = Vec::with_capacity(plan.steps().len());
    let origins = origins(plan);
    let mut products = products(plan).peekable();
    for (index, step) in plan.steps().iter().enumerate() {
        let operation = &step.operation;
        if let Some(id) = operation.masked_output() {
            let seed = mask_seed(key, plan, inference, index);
            steps.push(StepRandomness::Mask(Mask::expand(seed, plan.masked_len(id))));
            continue;
        }
        let Some((_, receiver)) = products.next_if(|(product, _)| *product == index) else {
            steps.push(StepRandomness::Nothing);
            continue;
        };
        let len = product_len(plan, operation);
        let share = if receiver == side {
            let tag = Tag::new(Phase::Offline, inference, index as u32);
            let bytes = producer.recv(tag, len * R::WIRE_BYTES)?;
            Share(R::elements(&bytes).collect())
        } else {
            let seed = key.derive(Purpose::Product, inference, index as u32);
            Share::sample(&mut seed.into_stream(), len)
        };
        steps.push(match operation {
            Operation::Linear { input, layer, .. } => {
                let StepRandomness::Mask(mask) = &steps[origins[input.0]] else {
                    unreachable!("a masked tensor is made by the step that consumes its mask");
                };
                StepRandomness::Linear(layers[*layer].prepare(mask, share))
            }
            Operation::Square { .. } => StepRandomness::Square(SquareTriple::new(share)),
            _ => StepRandomness::Mul(MulTriple::new(share)),
        });
    }
    Ok(Bundle { inference, steps })
}

/// Producer's side: makes the randomness of one inference and sends each server
/// the shares of products that it does not expand itself.
///
/// # Errors
/// If a server is gone.
pub(crate) fn produce<R: Ring, C: Channel>(
    plan: &Plan,
    inference: u64,
    keys: &[Seed; 2],
    weight_masks: &[R::Packed],
    servers: &mut [C; 2],
) -> Result<(), ChannelError> {
    let origins = origins(plan);
    let mut masks: Vec<Option<Share<R>>> = Vec::new();
    masks.resize_with(plan.masked_count(), || None);
    for (index, receiver) in products(plan) {
        let operation = &plan.steps()[index].operation;
        for id in operation.reads_masked() {
            masks[id.0].get_or_insert_with(|| {
                let expand = |key| {
                    let seed = mask_seed(key, plan, inference, origins[id.0]);
                    Share::<R>::sample(&mut seed.into_stream(), plan.masked_len(id))
                };
                let mut mask = expand(&keys[0]);
                mask.add_assign(&expand(&keys[1]));
                mask
            });
        }
        let mask = |id: &MaskedId| {
            let Some(mask) = &masks[id.0] else {
                unreachable!("every mask that the step reads was just made");
            };
            mask
        };
        let product = match operation {
            Operation::Linear { input, linear, layer, .. } => {
                LinearLayer::<R>::product(linear, mask(input), &weight_masks[*layer])
            }
            Operation::Square { input, .. } => SquareTriple::product(mask(input)),
            Operation::Mul { left, right, .. } => MulTriple::product(mask(left), mask(right)),
            _ => continue,
        };
        let (expander, link) = match receiver {
            Side::Zero => (1, 0),
            Side::One => (0, 1),
        };
        let seed = keys[expander].derive(Purpose::Product, inference, index as u32);
        let tag = Tag::new(Phase::Offline, inference, index as u32);
        servers[link].send(tag, difference(product, seed))?;
        for id in operation.reads_masked() {
            if plan.last_masked_read(id) == index {
                masks[id.0] = None;
            }
        }
    }
    Ok(())
}

/// `product` less the share that `seed` expands to, in wire form.
fn difference<R: Ring>(mut product: Share<R>, seed: Seed) -> Bytes {
    product.sub_assign(&Share::sample(&mut seed.into_stream(), product.len()));
    R::to_bytes(&product.0)
}
