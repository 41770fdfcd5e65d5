//! Correlated randomness: what the producer makes for one evaluation.
//!
//! For each masked tensor there is a mask `a = a_0 + a_1`; for each product of
//! masked tensors, shares of the product of their masks; for some truncations, shares
//! of what remains of the dividends' mask. Both servers expand their shares of the
//! masks from the seed they have in common with the producer. So does one of them
//! with its share of what is dealt; only the other's share, the difference, is sent.
//! The two take turns, so that neither link carries everything.

use std::borrow::Cow;

use crate::buffer::Buffer;
use crate::channel::{Channel, ChannelError, Phase, Tag};
use crate::masked::{Mask, Masked};
use crate::ops::{
    self, Division, LinearLayer, LinearTriple, MulTriple, ProductTriple, SquareTriple,
};
use crate::plan::{MaskedId, Operation, Plan};
use crate::prg::{Purpose, Seed};
use crate::ring::{Plane, Ring, Sampler, Side, update_part};
use crate::role::Observer;
use crate::share::Share;

/// What one step of a plan consumes.
#[derive(Debug)]
pub(crate) enum StepRandomness<R: Ring> {
    Nothing,
    Mask(Mask<R>),
    Division(Division<R>),
    Linear(LinearTriple<R>),
    Product(ProductTriple<R>),
    Square(SquareTriple<R>),
    Mul(MulTriple<R>),
}

/// A server's correlated randomness for one evaluation, one entry for each step.
/// Consumed by the evaluation: there is no way to use it twice.
///
/// ```
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn put_away(bundle: Bundle<Int64>, key: &Seed) -> Vec<u8> {
///     bundle.seal(key)
/// }
/// ```
///
/// ```compile_fail,E0382
/// # use spdz::{correlated::Bundle, prg::Seed, ring::Int64};
/// fn keep_one(bundle: Bundle<Int64>, key: &Seed) -> (Vec<u8>, Bundle<Int64>) {
///     (bundle.seal(key), bundle)
/// }
/// ```
#[derive(Debug)]
pub struct Bundle<R: Ring> {
    pub(crate) inference: u64,
    pub(crate) steps: Vec<StepRandomness<R>>,
}

/// Bytes of the authentication tag of a sealed bundle.
const TAG_BYTES: usize = 32;

/// Sealed randomness that cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed randomness of inference {inference} was changed or cut")]
pub struct SealError {
    /// The inference it was made for.
    pub inference: u64,
}

impl<R: Ring> Bundle<R> {
    /// The inference that it is for.
    #[must_use]
    pub fn inference(&self) -> u64 {
        self.inference
    }

    /// Its size in memory, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words: usize = self.shares().map(|share| share.0.len()).sum();
        words * size_of::<R::Word>()
    }

    fn shares(&self) -> impl Iterator<Item = &Share<R>> {
        self.steps.iter().flat_map(StepRandomness::shares).flatten()
    }

    /// Encrypts and authenticates it under `key`, to be kept outside this process's
    /// memory. Consumes it: there is one copy.
    #[must_use]
    pub fn seal(self, key: &Seed) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(self.bytes() + TAG_BYTES);
        let mut stream = key.derive(Purpose::Sealing, self.inference, 0).into_stream();
        for share in self.shares() {
            let plain: &[u8] = bytemuck::cast_slice(&share.0);
            let mut pad = Buffer::<u8>::zeros(plain.len());
            stream.fill(&mut pad);
            sealed.extend(plain.iter().zip(&pad[..]).map(|(plain, pad)| plain ^ pad));
        }
        let tag = seal_tag(key, self.inference, &sealed);
        sealed.extend_from_slice(tag.as_bytes());
        sealed
    }

    /// What was sealed for an `inference` of `plan`.
    ///
    /// # Errors
    /// If it is not what [`Bundle::seal`] made under the same key.
    pub fn open(plan: &Plan, inference: u64, sealed: &[u8], key: &Seed) -> Result<Self, SealError> {
        let mut bundle = Self { inference, steps: Vec::new() };
        let refuse = SealError { inference };
        let cut = sealed.len().checked_sub(TAG_BYTES).ok_or(refuse)?;
        let (mut rest, tag) = sealed.split_at(cut);
        // Compared in constant time by the type.
        let expected = seal_tag(key, inference, rest);
        if blake3::Hash::from_slice(tag).ok() != Some(expected) {
            return Err(refuse);
        }
        let mut stream = key.derive(Purpose::Sealing, inference, 0).into_stream();
        let mut next = |len: usize| -> Result<Share<R>, SealError> {
            let mut share = Share::<R>::zeros(len);
            let words: &mut [u8] = bytemuck::cast_slice_mut(&mut share.0);
            let (sealed, later) = rest.split_at_checked(words.len()).ok_or(refuse)?;
            rest = later;
            stream.fill(words);
            words.iter_mut().zip(sealed).for_each(|(word, sealed)| *word ^= sealed);
            Ok(share)
        };
        for (index, step) in plan.steps().iter().enumerate() {
            let operation = &step.operation;
            let randomness = match operation {
                _ if index < plan.setup_steps() => StepRandomness::Nothing,
                Operation::Input { output, .. } | Operation::Open { output, .. } => {
                    StepRandomness::Mask(Mask::from_share(next(plan.masked_len(*output))?))
                }
                Operation::Divide { bits, output, .. } => {
                    let len = plan.masked_len(*output);
                    let parts = R::QUOTIENT_PARTS.max(1) * len;
                    StepRandomness::Division(Division::new(next(len)?, next(parts)?, *bits))
                }
                Operation::Linear { output, .. } => {
                    StepRandomness::Linear(LinearTriple(next(plan.private_len(*output))?))
                }
                Operation::Product { output, .. } => {
                    StepRandomness::Product(ProductTriple(next(plan.private_len(*output))?))
                }
                Operation::Square { output, .. } => {
                    StepRandomness::Square(SquareTriple(next(plan.private_len(*output))?))
                }
                Operation::Mul { output, .. } => {
                    StepRandomness::Mul(MulTriple(next(plan.private_len(*output))?))
                }
                _ => StepRandomness::Nothing,
            };
            bundle.steps.push(randomness);
        }
        if rest.is_empty() { Ok(bundle) } else { Err(refuse) }
    }
}

fn seal_tag(key: &Seed, inference: u64, sealed: &[u8]) -> blake3::Hash {
    let key = key.derive(Purpose::Sealing, inference, 1);
    blake3::keyed_hash(key.expose(), sealed)
}

impl<R: Ring> StepRandomness<R> {
    fn shares(&self) -> [Option<&Share<R>>; 2] {
        match self {
            Self::Nothing => [None, None],
            Self::Mask(mask) => [Some(mask.share()), None],
            Self::Division(division) => division.shares().map(Some),
            Self::Linear(LinearTriple(share))
            | Self::Product(ProductTriple(share))
            | Self::Square(SquareTriple(share))
            | Self::Mul(MulTriple(share)) => [Some(share), None],
        }
    }
}

/// What a server's randomness for one evaluation takes in memory, bytes.
#[must_use]
pub fn bundle_bytes(plan: &Plan) -> usize {
    let elements = |operation: &Operation| match operation {
        Operation::Input { output, .. } | Operation::Open { output, .. } => {
            plan.masked_len(*output)
        }
        Operation::Divide { output, .. } => {
            (1 + plan.format().quotient_parts().max(1)) * plan.masked_len(*output)
        }
        operation => dealt(plan, operation),
    };
    let elements: usize = plan.evaluation().map(|(_, step)| elements(&step.operation)).sum();
    // In memory a word is what it is on the wire.
    elements * plan.format().wire_bytes()
}

/// How many elements the producer shares for an operation.
fn dealt(plan: &Plan, operation: &Operation) -> usize {
    match operation {
        Operation::Linear { output, .. }
        | Operation::Product { output, .. }
        | Operation::Square { output, .. }
        | Operation::Mul { output, .. } => plan.private_len(*output),
        Operation::Divide { output, .. } => {
            plan.format().quotient_parts() * plan.masked_len(*output)
        }
        _ => 0,
    }
}

/// The steps for which the producer shares something, with how many elements, and the
/// server that receives its share instead of expanding it.
pub(crate) fn deals(plan: &Plan) -> impl Iterator<Item = (usize, usize, Side)> + '_ {
    plan.evaluation()
        .map(|(index, step)| (index, dealt(plan, &step.operation)))
        .filter(|(_, len)| *len > 0)
        .zip([Side::Zero, Side::One].into_iter().cycle())
        .map(|((index, len), receiver)| (index, len, receiver))
}

/// The bytes that the producer sends to each server for one evaluation.
#[must_use]
pub fn dealt_bytes(plan: &Plan) -> [usize; 2] {
    let mut bytes = [0; 2];
    for (_, len, receiver) in deals(plan) {
        let server = if receiver == Side::Zero { 0 } else { 1 };
        bytes[server] += len * plan.format().wire_bytes();
    }
    bytes
}

/// The seed of a server's share of the mask made at `step`; `key` is what the
/// server has in common with the producer.
pub(crate) fn mask_seed(key: &Seed, plan: &Plan, inference: u64, step: usize) -> Seed {
    let purpose = match plan.steps()[step].operation {
        Operation::Input { .. } if step < plan.setup_steps() => Purpose::SessionMask,
        Operation::Input { .. } => Purpose::InputMask,
        Operation::Divide { .. } => Purpose::DividendMask,
        _ => Purpose::OpeningMask,
    };
    key.derive(purpose, inference, step as u32)
}

/// Server's side: expands masks and shares of products, receives the others
/// from the producer, and computes everything that does not need the input.
///
/// # Errors
/// If the producer is gone, silent or sends something else.
#[expect(clippy::too_many_arguments, reason = "a server's parts, some of them borrowed mutably")]
pub(crate) fn prepare<R: Ring, C: Channel>(
    plan: &Plan,
    side: Side,
    inference: u64,
    key: &Seed,
    session: &[Option<Masked<R>>],
    layers: &[LinearLayer<R>],
    producer: &mut C,
    observer: &mut impl Observer,
) -> Result<Bundle<R>, ChannelError> {
    let mut steps: Vec<StepRandomness<R>> = Vec::with_capacity(plan.steps().len());
    steps.resize_with(plan.setup_steps(), || StepRandomness::Nothing);
    let mut deals = deals(plan).peekable();
    for (index, step) in plan.evaluation() {
        let operation = &step.operation;
        let deal = deals.next_if(|(step, ..)| *step == index);
        let receives = deal.is_some_and(|(_, _, receiver)| receiver == side);
        let tag = Tag::new(Phase::Offline, inference, index as u32);
        let expand = |len: usize| {
            let seed = key.derive(Purpose::Dealt, inference, index as u32);
            Share::sample(&mut seed.into_stream(), len)
        };
        let mut share = || match deal {
            None => Ok(None),
            Some((_, len, _)) if receives => Share::received(producer, tag, len).map(Some),
            Some((_, len, _)) => Ok(Some(expand(len))),
        };
        let seed = || mask_seed(key, plan, inference, index);
        let dealt = |share: Option<Share<R>>| {
            let Some(share) = share else {
                unreachable!("the producer deals for every product");
            };
            share
        };
        let randomness = match operation {
            Operation::Input { output, .. } | Operation::Open { output, .. } => {
                StepRandomness::Mask(Mask::expand(seed(), plan.masked_len(*output)))
            }
            Operation::Divide { bits, output, .. } => {
                let len = plan.masked_len(*output);
                let parts = share()?;
                StepRandomness::Division(Division::expand(seed(), *bits, len, parts))
            }
            Operation::Linear { input, layer, output, .. } => {
                let mask = mask_share(plan, &steps, session, *input);
                let len = plan.private_len(*output);
                // What comes from the producer joins last: it may still be at work.
                let start = if receives { Share::zeros(len) } else { expand(len) };
                let mut triple = layers[*layer].prepare(&mask, start);
                if receives {
                    triple.0.receive(producer, tag, R::Plane::add)?;
                }
                StepRandomness::Linear(triple)
            }
            Operation::Product { .. } => {
                StepRandomness::Product(ProductTriple::new(dealt(share()?)))
            }
            Operation::Square { .. } => StepRandomness::Square(SquareTriple::new(dealt(share()?))),
            Operation::Mul { .. } => StepRandomness::Mul(MulTriple::new(dealt(share()?))),
            _ => StepRandomness::Nothing,
        };
        if !matches!(randomness, StepRandomness::Nothing) {
            observer.step(index);
        }
        steps.push(randomness);
    }
    Ok(Bundle { inference, steps })
}

/// A server's share of the mask of `id`, made by an earlier step or in the set-up.
fn mask_share<'a, R: Ring>(
    plan: &Plan,
    steps: &'a [StepRandomness<R>],
    session: &'a [Option<Masked<R>>],
    id: MaskedId,
) -> Cow<'a, Share<R>> {
    if let Some(masked) = &session[id.0] {
        return Cow::Borrowed(&masked.mask);
    }
    let step = plan.origin(id);
    match (&plan.steps()[step].operation, &steps[step]) {
        (_, StepRandomness::Mask(mask)) => Cow::Borrowed(mask.share()),
        (_, StepRandomness::Division(division)) => Cow::Borrowed(division.mask()),
        (Operation::ViewMasked { input, view, .. }, _) => {
            let mask = mask_share(plan, steps, session, *input);
            Cow::Owned(Share(ops::view::<R>(&mask.0, view)))
        }
        (Operation::ConcatMasked { inputs, outer, .. }, _) => {
            let masks: Vec<_> =
                inputs.iter().map(|id| mask_share(plan, steps, session, *id)).collect();
            let words: Vec<&[R::Word]> = masks.iter().map(|mask| &mask.0[..]).collect();
            Cow::Owned(Share(ops::concat::<R>(&words, *outer)))
        }
        _ => unreachable!("a masked tensor is made before it is multiplied"),
    }
}

/// The producer's side of a session: the keys, and what lasts of the set-up.
#[derive(Debug)]
pub(crate) struct Dealer<R: Ring> {
    keys: [Seed; 2],
    /// The masks of the session's tensors, by number.
    session: Vec<Option<Share<R>>>,
    /// For each layer `B`, packed.
    weights: Vec<Packed<R>>,
}

/// A packed mask, which is not printed.
struct Packed<R: Ring>(R::Packed);

impl<R: Ring> std::fmt::Debug for Packed<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packed(..)")
    }
}

impl<R: Ring> Dealer<R> {
    /// Expands the masks of the session's inputs and what is moved of them.
    pub(crate) fn new(plan: &Plan, keys: [Seed; 2]) -> Self {
        let mut dealer = Self { keys, session: Vec::new(), weights: Vec::new() };
        dealer.session.resize_with(plan.masked_count(), || None);
        for step in &plan.steps()[..plan.setup_steps()] {
            if let Some(id) = step.operation.masked_output() {
                let mut masks = Masks { plan, inference: 0, made: Vec::new(), dealer: &dealer };
                masks.made.resize_with(plan.masked_count(), || None);
                masks.make(id);
                let mask = masks.made[id.0].take();
                dealer.session[id.0] = mask;
            }
        }
        for (_, step) in plan.evaluation() {
            if let Operation::Linear { weight, linear, .. } = &step.operation
                && let Some(mask) = &dealer.session[weight.0]
            {
                dealer.weights.push(Packed(R::pack(&mask.0, linear)));
            }
        }
        let mut needed = vec![false; plan.masked_count()];
        for (_, step) in plan.evaluation() {
            step.operation.reads_masked().iter().for_each(|id| needed[id.0] = true);
        }
        for (mask, needed) in dealer.session.iter_mut().zip(needed) {
            if !needed {
                *mask = None;
            }
        }
        dealer
    }

    /// Makes the randomness of one evaluation and sends each server the shares of what
    /// is dealt that it does not expand itself.
    ///
    /// # Errors
    /// If a server is gone.
    pub(crate) fn produce<C: Channel>(
        &self,
        plan: &Plan,
        inference: u64,
        servers: &mut [C; 2],
        observer: &mut impl Observer,
    ) -> Result<(), ChannelError> {
        let mut masks = Masks { plan, inference, made: Vec::new(), dealer: self };
        masks.made.resize_with(plan.masked_count(), || None);
        for (index, len, receiver) in deals(plan) {
            let (expander, link) = match receiver {
                Side::Zero => (1, 0),
                Side::One => (0, 1),
            };
            let seed = self.keys[expander].derive(Purpose::Dealt, inference, index as u32);
            let tag = Tag::new(Phase::Offline, inference, index as u32);
            let deal = Deal { link: &mut servers[link], tag, seed, words: R::PLANES * len };
            match &plan.steps()[index].operation {
                Operation::Linear { input, linear, layer, .. } => {
                    masks.make(*input);
                    let weight = &self.weights[*layer].0;
                    let mask = masks.get(*input);
                    deal.send(&ops::multiply_public::<R>(linear, &mask.0, weight))?;
                }
                Operation::Product { left, right, linear, .. } => {
                    masks.make(*left);
                    masks.make(*right);
                    let (left, right) = (masks.get(*left), masks.get(*right));
                    deal.send(&ProductTriple::product(linear, left, right))?;
                }
                Operation::Square { input, .. } => match masks.drawn_for(*input, index) {
                    // Nobody else needs this mask: it is squared as it is drawn.
                    Some(seeds) => deal.send_square::<R>(seeds)?,
                    None => {
                        masks.make(*input);
                        deal.send(&SquareTriple::product(masks.get(*input)))?;
                    }
                },
                Operation::Mul { left, right, .. } => {
                    masks.make(*left);
                    masks.make(*right);
                    deal.send(&MulTriple::product(masks.get(*left), masks.get(*right)))?;
                }
                Operation::Divide { bits, output, .. } => {
                    let len = plan.masked_len(*output);
                    deal.send(&Division::<R>::parts(masks.seeds(index), *bits, len))?;
                }
                _ => continue,
            }
            masks.drop_unneeded(index);
            observer.step(index);
        }
        Ok(())
    }
}

/// What one server is sent of something that the producer shares.
struct Deal<'a, C> {
    link: &'a mut C,
    tag: Tag,
    /// Of the other server's share.
    seed: Seed,
    words: usize,
}

impl<C: Channel> Deal<'_, C> {
    /// Sends the share of `product`.
    fn send<R: Ring>(self, product: &Share<R>) -> Result<(), ChannelError> {
        self.send_parts::<R>(|first, part| {
            part.copy_from_slice(&product.0[first..first + part.len()]);
        })
    }

    /// Sends the share of the square of the mask that is drawn from these seeds.
    fn send_square<R: Ring>(self, seeds: [Seed; 2]) -> Result<(), ChannelError> {
        let words = self.words;
        let [mut stream, mut other] = seeds.map(Seed::into_stream);
        let (mut sampler, mut other) =
            (R::sampler(&mut stream, words), R::sampler(&mut other, words));
        let mut rest = Buffer::zeros(R::PART.min(words));
        self.send_parts::<R>(|first, part| {
            let rest = &mut rest[..part.len()];
            sampler.next(part);
            other.next(rest);
            update_part::<R>(part, rest, first, words, |plane, x, y| {
                let mask = plane.add(x, y);
                plane.mul(mask, mask)
            });
        })
    }

    /// Sends the share of a tensor that is made part by part: `make` writes its words from
    /// that of a number on, [`Ring::PART`] of them or all that are left.
    fn send_parts<R: Ring>(
        self,
        mut make: impl FnMut(usize, &mut [R::Word]),
    ) -> Result<(), ChannelError> {
        let Self { link, tag, seed, words } = self;
        let mut stream = seed.into_stream();
        let mut sampler = R::sampler(&mut stream, words);
        let mut share = Buffer::zeros(R::PART.min(words));
        let mut other = Buffer::zeros(R::PART.min(words));
        let (mut made, mut sent) = (0, 0);
        let size = size_of::<R::Word>();
        link.send_parts(tag, size * words, &mut |mut bytes| {
            while !bytes.is_empty() {
                if made == sent {
                    let from = made;
                    made = words.min(made + R::PART);
                    let (share, other) = (&mut share[..made - from], &mut other[..made - from]);
                    make(from, share);
                    sampler.next(other);
                    update_part::<R>(share, other, from, words, |plane, x, y| {
                        plane.sent(plane.sub(x, y))
                    });
                }
                let count = (made - sent).min(bytes.len() / size);
                let (now, later) = std::mem::take(&mut bytes).split_at_mut(size * count);
                let at = sent % R::PART;
                now.copy_from_slice(bytemuck::cast_slice(&share[at..at + count]));
                sent += count;
                bytes = later;
            }
        })
    }
}

/// The masks of one evaluation, as far as they are needed.
struct Masks<'a, R: Ring> {
    plan: &'a Plan,
    inference: u64,
    made: Vec<Option<Share<R>>>,
    dealer: &'a Dealer<R>,
}

impl<R: Ring> Masks<'_, R> {
    fn seeds(&self, step: usize) -> [Seed; 2] {
        self.dealer.keys.each_ref().map(|key| mask_seed(key, self.plan, self.inference, step))
    }

    /// The seeds of a mask that is drawn for the step `index` alone, and has not been made.
    fn drawn_for(&self, id: MaskedId, index: usize) -> Option<[Seed; 2]> {
        let step = self.plan.origin(id);
        let drawn = matches!(self.plan.steps()[step].operation, Operation::Open { .. });
        let alone = self.made[id.0].is_none() && self.plan.last_masked_read(id) == index;
        (drawn && alone).then(|| self.seeds(step))
    }

    fn get(&self, id: MaskedId) -> &Share<R> {
        let Some(mask) = self.made[id.0].as_ref().or(self.dealer.session[id.0].as_ref()) else {
            unreachable!("the masks that a step reads were just made");
        };
        mask
    }

    fn make(&mut self, id: MaskedId) {
        if self.made[id.0].is_some() || self.dealer.session[id.0].is_some() {
            return;
        }
        let step = self.plan.origin(id);
        let len = self.plan.masked_len(id);
        let plan = self.plan;
        let mask = match &plan.steps()[step].operation {
            Operation::Divide { bits, .. } => Division::parts(self.seeds(step), *bits, len),
            Operation::ViewMasked { input, view, .. } => {
                self.make(*input);
                Share(ops::view::<R>(&self.get(*input).0, view))
            }
            Operation::ConcatMasked { inputs, outer, .. } => {
                inputs.iter().for_each(|id| self.make(*id));
                let words: Vec<&[R::Word]> = inputs.iter().map(|id| &self.get(*id).0[..]).collect();
                Share(ops::concat::<R>(&words, *outer))
            }
            _ => {
                let [mut first, mut other] = self.seeds(step).map(Seed::into_stream);
                let mut mask = Share::<R>::sample(&mut first, len);
                mask.add_sampled(&mut other);
                mask
            }
        };
        self.made[id.0] = Some(mask);
    }

    /// Frees what no step after `index` reads.
    fn drop_unneeded(&mut self, index: usize) {
        for (id, mask) in self.made.iter_mut().enumerate() {
            if mask.is_some() && self.plan.last_masked_read(MaskedId(id)) <= index {
                *mask = None;
            }
        }
    }
}
