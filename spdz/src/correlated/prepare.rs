//! The server's part of the offline phase.

use std::borrow::Cow;

use super::bundle::Bundle;
use super::seeds::{generated_seed, mask_seed, packed_mask_seed, packed_share_seed};
use crate::channel::{Channel, ChannelError, Phase, Tag};
use crate::low;
use crate::masked::Masked;
use crate::observer::Observer;
use crate::ops::{Correlation, Kept, PackedRandomness, Preparation, ProtocolRing, Randomness};
use crate::packed::Packed;
use crate::plan::Plan;
use crate::prg::Seed;
use crate::ring::{Plane, Ring, Side};
use crate::share::Share;
use crate::tensors::MaskedId;

/// What a server has of a session while it prepares an evaluation.
pub(crate) struct Context<'a, R: Ring> {
    /// The plan.
    pub plan: &'a Plan,
    /// Which server this is.
    pub side: Side,
    /// What it has in common with the producer for this evaluation.
    pub key: &'a Seed,
    /// The masked tensors of the session.
    pub session: &'a [Option<Masked<R>>],
    /// What operations kept in the set-up, by step.
    pub kept: &'a [Option<Kept>],
}

/// Expands masks and shares of what is generated, receives the others from the producer, and
/// computes everything that does not need the input.
///
/// # Errors
/// If the producer is gone, silent or sends something else.
pub(crate) fn prepare<R: ProtocolRing, C: Channel>(
    context: &Context<'_, R>,
    inference: u64,
    producer: &mut C,
    observer: &mut impl Observer,
) -> Result<Bundle<R>, ChannelError> {
    let plan = context.plan;
    let mut steps: Vec<Correlation<R>> = Vec::with_capacity(plan.steps().len());
    steps.resize_with(plan.setup_steps(), Correlation::none);
    let mut generated = plan.generated().peekable();
    for (index, step) in plan.evaluation() {
        let randomness = step.operation.randomness(plan.table());
        if randomness.is_none() {
            steps.push(Correlation::none());
            continue;
        }
        let received = generated.next_if(|(step, ..)| *step == index);
        let mut server = PreparedStep {
            context,
            inference,
            index,
            randomness,
            receives: received.is_some_and(|(_, _, receiver)| receiver == context.side),
            steps: &steps,
            producer,
        };
        let correlation = R::parts(&*step.operation).prepare(&mut server)?;
        observer.step(index);
        steps.push(correlation);
    }
    Ok(Bundle::new(inference, steps))
}

/// One step of an evaluation that is prepared.
struct PreparedStep<'a, R: Ring, C> {
    context: &'a Context<'a, R>,
    inference: u64,
    index: usize,
    randomness: Randomness,
    /// Whether the producer sends this server its share, instead of having it expanded.
    receives: bool,
    /// The correlations of the steps before.
    steps: &'a [Correlation<R>],
    producer: &'a mut C,
}

impl<R: Ring, C: Channel> PreparedStep<'_, R, C> {
    fn tag(&self) -> Tag {
        Tag::new(Phase::Offline, self.inference, self.index as u32)
    }

    fn low_bits(&self) -> Option<u32> {
        self.context.plan.table().low_bits()
    }

    /// Packed values that the producer sends.
    fn receive_packed(&mut self, len: usize, bits: usize) -> Result<Packed, ChannelError> {
        let (tag, mut packed) = (self.tag(), Packed::zeros(len, bits));
        let words = packed.words_mut();
        let mut taken = 0;
        self.producer.recv_parts(tag, size_of_val(words), &mut |part| {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
            bytes[taken..taken + part.len()].copy_from_slice(part);
            taken += part.len();
        })?;
        words.iter_mut().for_each(|word| *word = u64::from_le(*word));
        Ok(packed)
    }
}

impl<R: ProtocolRing, C: Channel> Preparation<R> for PreparedStep<'_, R, C> {
    fn randomness(&self) -> Randomness {
        self.randomness
    }

    fn seed(&self) -> Seed {
        mask_seed(self.context.key, self.context.plan, self.inference, self.index)
    }

    fn generated(&mut self) -> Result<Share<R>, ChannelError> {
        let mut share = self.expanded();
        self.join(&mut share)?;
        Ok(share)
    }

    fn expanded(&mut self) -> Share<R> {
        let len = self.randomness.generated;
        if self.receives {
            return Share::zeros(len);
        }
        let seed = generated_seed(self.context.key, self.inference, self.index);
        let mut stream = seed.into_stream();
        let Some(bits) = self.low_bits() else {
            return Share::sample(&mut stream, len);
        };
        let mut share = Share::zeros(len);
        low::add(&mut share, &Packed::sample(&mut stream, len, bits as usize));
        share
    }

    fn join(&mut self, share: &mut Share<R>) -> Result<(), ChannelError> {
        if !self.receives {
            return Ok(());
        }
        match self.low_bits() {
            None => share.receive(self.producer, self.tag(), R::Plane::add),
            Some(bits) => {
                low::add(share, &self.receive_packed(share.len(), bits as usize)?);
                Ok(())
            }
        }
    }

    fn packed_mask(&mut self) -> Packed {
        let PackedRandomness { len, drawn, .. } = self.randomness.packed;
        let seed = packed_mask_seed(self.context.key, self.inference, self.index);
        Packed::sample(&mut seed.into_stream(), len, drawn)
    }

    fn packed_share(&mut self) -> Result<Packed, ChannelError> {
        let PackedRandomness { len, shared, .. } = self.randomness.packed;
        if !self.receives {
            let seed = packed_share_seed(self.context.key, self.inference, self.index);
            return Ok(Packed::sample(&mut seed.into_stream(), len, shared));
        }
        self.receive_packed(len, shared)
    }

    fn mask_share(&self, id: MaskedId) -> Cow<'_, Share<R>> {
        mask_share(self.context, self.steps, id)
    }

    fn kept(&self) -> Option<&Kept> {
        self.context.kept[self.index].as_ref()
    }
}

/// A server's share of the mask of `id`, made by an earlier step or in the set-up.
fn mask_share<'a, R: ProtocolRing>(
    context: &'a Context<'a, R>,
    steps: &'a [Correlation<R>],
    id: MaskedId,
) -> Cow<'a, Share<R>> {
    if let Some(masked) = &context.session[id.0] {
        return Cow::Borrowed(&masked.mask);
    }
    let written = context.plan.table().spec(id.into()).written;
    let operation = R::parts(&*context.plan.steps()[written].operation);
    operation.mask_share(&steps[written], &|id| mask_share(context, steps, id))
}
