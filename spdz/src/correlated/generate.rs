//! The producer's part: masks from the seeds it shares with the servers, and what it
//! generates of them.

use std::sync::Arc;

use bytemuck::Pod;

use super::seeds::{generated_seed, mask_seed, packed_mask_seed, packed_share_seed};
use crate::buffer::Buffer;
use crate::channel::{Channel, ChannelError, Phase, Tag};
use crate::low;
use crate::observer::Observer;
use crate::ops::{Kept, PackedRandomness, Producer, ProtocolRing, Randomness, WireMasks};
use crate::packed::{Packed, ROW, draw, rows};
use crate::plan::Plan;
use crate::prg::{KeyStream, Seed};
use crate::ring::{Plane, Ring, Sampler, Side, update_part};
use crate::share::Share;
use crate::tensors::{MaskedId, TensorId};

/// The producer's side of a session: what lasts of the set-up. Keys are lent to it, those of the
/// set-up or of one evaluation.
#[derive(Debug)]
pub(crate) struct Generator<R: Ring> {
    /// The masks of the session's tensors, by number.
    session: Vec<Option<Share<R>>>,
    /// What operations kept in the set-up, by step.
    kept: Vec<Option<Kept>>,
}

impl<R: ProtocolRing> Generator<R> {
    /// Expands the masks of the session's inputs and of what is made of them without
    /// interaction.
    pub(crate) fn new(plan: &Plan, keys: &[Seed; 2]) -> Self {
        let mut generator = Self { session: Vec::new(), kept: Vec::new() };
        generator.session.resize_with(plan.table().masked.len(), || None);
        generator.kept.resize_with(plan.steps().len(), || None);
        let mut step = GeneratedStep::new(Masks::new(plan, keys, 0, &generator), 0, None);
        for (index, spec) in plan.table().masked.iter().enumerate() {
            if spec.written < plan.setup_steps() {
                step.make(MaskedId(index));
            }
        }
        generator.session = step.masks.made;
        let mut kept = Vec::with_capacity(plan.steps().len());
        kept.resize_with(plan.setup_steps(), || None);
        let mut set_up = GeneratedStep::new(Masks::new(plan, keys, 0, &generator), 0, None);
        for (index, step) in plan.evaluation() {
            set_up.index = index;
            kept.push(R::parts(&*step.operation).keep_mask(&mut set_up));
        }
        generator.kept = kept;
        for (mask, spec) in generator.session.iter_mut().zip(&plan.table().masked) {
            if spec.last_read < plan.setup_steps() {
                *mask = None;
            }
        }
        generator
    }

    /// Makes the randomness of one evaluation from its keys, and sends each server the shares
    /// that it does not expand itself.
    ///
    /// # Errors
    /// If a server is gone.
    pub(crate) fn produce<C: Channel>(
        &self,
        plan: &Plan,
        keys: &[Seed; 2],
        inference: u64,
        servers: &mut [C; 2],
        observer: &mut impl Observer,
    ) -> Result<(), ChannelError> {
        let mut masks = Masks::new(plan, keys, inference, self);
        for (index, _, receiver) in plan.generated() {
            let (expander, link) = match receiver {
                Side::Zero => (1, 0),
                Side::One => (0, 1),
            };
            let link = Some((&mut servers[link] as &mut dyn Channel, &keys[expander]));
            let mut step = GeneratedStep::new(masks, index, link);
            R::parts(&*plan.steps()[index].operation).generate(&mut step)?;
            masks = step.masks;
            masks.drop_unneeded(index);
            observer.step(index);
        }
        Ok(())
    }
}

/// The masks of one evaluation, as far as they are needed.
struct Masks<'a, R: Ring> {
    plan: &'a Plan,
    /// What the producer has in common with each server, for this evaluation or the set-up.
    keys: &'a [Seed; 2],
    inference: u64,
    made: Vec<Option<Share<R>>>,
    /// The servers' shares of the masks of wires that are made of others.
    wires: Vec<Option<Arc<[Packed; 2]>>>,
    generator: &'a Generator<R>,
}

impl<'a, R: Ring> Masks<'a, R> {
    fn new(
        plan: &'a Plan,
        keys: &'a [Seed; 2],
        inference: u64,
        generator: &'a Generator<R>,
    ) -> Self {
        let mut made = Vec::new();
        made.resize_with(plan.table().masked.len(), || None);
        let wires = vec![None; plan.table().masked.len()];
        Self { plan, keys, inference, made, wires, generator }
    }

    /// Frees what no step after `index` reads.
    fn drop_unneeded(&mut self, index: usize) {
        let masks = self.made.iter_mut().zip(&mut self.wires);
        for ((mask, wire), spec) in masks.zip(&self.plan.table().masked) {
            if spec.last_read <= index {
                *mask = None;
                *wire = None;
            }
        }
    }
}

/// One step of an evaluation for which something is generated.
struct GeneratedStep<'a, 'link, R: Ring> {
    masks: Masks<'a, R>,
    index: usize,
    /// To the server that receives its share, with the key of the other, which expands its own;
    /// none in the set-up.
    link: Option<(&'link mut dyn Channel, &'link Seed)>,
}

impl<'a, 'link, R: Ring> GeneratedStep<'a, 'link, R> {
    fn new(
        masks: Masks<'a, R>,
        index: usize,
        link: Option<(&'link mut dyn Channel, &'link Seed)>,
    ) -> Self {
        Self { masks, index, link }
    }

    fn randomness(&self) -> Randomness {
        let plan = self.masks.plan;
        plan.steps()[self.index].operation.randomness(plan.table())
    }

    fn seeds_at(&self, step: usize) -> [Seed; 2] {
        let Masks { plan, keys, inference, .. } = &self.masks;
        keys.each_ref().map(|key| mask_seed(key, plan, *inference, step))
    }
}

impl<R: ProtocolRing> Producer<R> for GeneratedStep<'_, '_, R> {
    fn get(&self, id: MaskedId) -> &Share<R> {
        let session = &self.masks.generator.session[id.0];
        let Some(mask) = self.masks.made[id.0].as_ref().or(session.as_ref()) else {
            unreachable!("an operation makes a mask before it gets it");
        };
        mask
    }

    fn make(&mut self, id: MaskedId) {
        if self.masks.made[id.0].is_some() || self.masks.generator.session[id.0].is_some() {
            return;
        }
        let plan = self.masks.plan;
        let written = plan.table().spec(id.into()).written;
        // The operation that wrote the tensor makes its mask.
        let index = std::mem::replace(&mut self.index, written);
        let mask = R::parts(&*plan.steps()[written].operation).mask(self);
        self.index = index;
        self.masks.made[id.0] = Some(mask);
    }

    fn seeds(&self) -> [Seed; 2] {
        self.seeds_at(self.index)
    }

    fn drawn(&mut self) -> Share<R> {
        let [mut first, mut other] = self.seeds().map(Seed::into_stream);
        let mut mask = Share::<R>::sample(&mut first, self.mask_len());
        mask.add_sampled(&mut other);
        mask
    }

    fn seeds_of(&self, id: MaskedId) -> Option<[Seed; 2]> {
        let plan = self.masks.plan;
        let spec = plan.table().spec(id.into());
        let written = plan.steps()[spec.written].operation.randomness(plan.table());
        // A mask that something else is derived from is not what the seeds expand to.
        let drawn = written.mask.is_some() && written.derived == 0 && written.generated == 0;
        let alone = spec.written >= plan.setup_steps()
            && self.masks.made[id.0].is_none()
            && spec.last_read == self.index;
        (drawn && alone).then(|| self.seeds_at(spec.written))
    }

    fn kept(&self) -> Option<&Kept> {
        self.masks.generator.kept[self.index].as_ref()
    }

    fn mask_len(&self) -> usize {
        self.randomness().mask.map_or(0, |(_, len)| len)
    }

    fn words(&self) -> usize {
        R::PLANES * self.randomness().generated
    }

    fn share(&mut self, tensor: &Share<R>) -> Result<(), ChannelError> {
        self.share_parts(&mut |first, part| {
            part.copy_from_slice(&tensor.0[first..first + part.len()]);
        })
    }

    fn share_parts(
        &mut self,
        make: &mut dyn FnMut(usize, &mut [R::Word]),
    ) -> Result<(), ChannelError> {
        let words = self.words();
        let tag = Tag::new(Phase::Offline, self.masks.inference, self.index as u32);
        let Some((link, key)) = self.link.take() else {
            unreachable!("an operation shares once an evaluation");
        };
        let mut stream = generated_seed(key, self.masks.inference, self.index).into_stream();
        if let Some(bits) = self.masks.plan.table().low_bits() {
            return send_low::<R>(link, tag, (words, bits), &mut stream, make);
        }
        let mut sampler = R::sampler(&mut stream, words);
        let mut other = Buffer::zeros(R::PART.min(words));
        send_made(link, tag, words, R::PART, &mut |first, share| {
            let other = &mut other[..share.len()];
            make(first, share);
            sampler.next(other);
            update_part::<R>(share, other, first, words, |plane, x, y| plane.sent(plane.sub(x, y)));
        })
    }

    fn len(&self, id: MaskedId) -> usize {
        self.masks.plan.table().len(id)
    }

    fn width(&self, id: MaskedId) -> u32 {
        self.masks.plan.table().width(id)
    }

    fn ring_bits(&self) -> u32 {
        self.masks.plan.table().ring_bits()
    }

    fn packed_masks(&self, written: TensorId) -> [KeyStream; 2] {
        let Masks { plan, keys, inference, .. } = &self.masks;
        let step = plan.table().spec(written).written;
        let seed = |key| packed_mask_seed(key, *inference, step);
        keys.each_ref().map(|key| seed(key).into_stream())
    }

    fn wire_masks(&mut self, id: MaskedId) -> WireMasks {
        let table = self.masks.plan.table();
        let (written, len) = (table.spec(id.into()).written, table.len(id));
        let operation = &*self.masks.plan.steps()[written].operation;
        if operation.randomness(table).packed.drawn > 0 {
            let streams = Box::new(self.packed_masks(id.into()));
            return WireMasks::Drawn { streams, len, bits: table.encoding(id).bits() };
        }
        if let Some(made) = &self.masks.wires[id.0] {
            return WireMasks::Made(made.clone());
        }
        // The operation that wrote the wire makes its mask.
        let index = std::mem::replace(&mut self.index, written);
        let made = Arc::new(R::parts(operation).wire_masks(self));
        self.index = index;
        self.masks.wires[id.0] = Some(made.clone());
        WireMasks::Made(made)
    }

    fn share_packed(&mut self, make: &mut dyn FnMut(&mut [u64])) -> Result<(), ChannelError> {
        let PackedRandomness { len, shared, .. } = self.randomness().packed;
        let tag = Tag::new(Phase::Offline, self.masks.inference, self.index as u32);
        let Some((link, key)) = self.link.take() else {
            unreachable!("an operation shares once an evaluation");
        };
        let mut stream = packed_share_seed(key, self.masks.inference, self.index).into_stream();
        let words = shared * rows(len);
        // Whole rows, as many as stay in cache.
        let most = shared * (R::PART / shared).max(1);
        send_made(link, tag, words, most, &mut |_, part: &mut [u64]| {
            draw(&mut stream, part);
            part.chunks_exact_mut(shared).for_each(&mut *make);
            part.iter_mut().for_each(|word| *word = word.to_le());
        })
    }
}

/// Sends the low bits of so many words, in place of what one server expands, packed.
fn send_low<R: Ring>(
    link: &mut dyn Channel,
    tag: Tag,
    (words, bits): (usize, u32),
    stream: &mut KeyStream,
    make: &mut dyn FnMut(usize, &mut [R::Word]),
) -> Result<(), ChannelError> {
    let row = bits as usize;
    // As many rows as `make` makes at once.
    let most = row * (R::PART / ROW).max(1);
    let mut made = Buffer::<R::Word>::zeros(R::PART.max(ROW).min(words));
    send_made(link, tag, row * rows(words), most, &mut |first, part: &mut [u64]| {
        let first = first / row * ROW;
        let made = &mut made[..(part.len() / row * ROW).min(words - first)];
        make(first, made);
        draw(stream, part);
        for (packed, made) in part.chunks_exact_mut(row).zip(made.chunks(ROW)) {
            low::subtract_from::<R>(made, bits, packed);
            packed.iter_mut().for_each(|word| *word = word.to_le());
        }
    })
}

/// Sends a message of so many words, of which `most` are made at a time: `make` is given the
/// number of the first of them and their places, and leaves what their memory on the wire is.
fn send_made<W: Pod + Default>(
    link: &mut dyn Channel,
    tag: Tag,
    words: usize,
    most: usize,
    make: &mut dyn FnMut(usize, &mut [W]),
) -> Result<(), ChannelError> {
    let mut part = Buffer::<W>::zeros(most.min(words));
    let (mut made, mut sent) = (0, 0);
    let size = size_of::<W>();
    link.send_parts(tag, size * words, &mut |mut bytes| {
        while !bytes.is_empty() {
            if made == sent {
                let first = made;
                made = words.min(made + most);
                make(first, &mut part[..made - first]);
            }
            let count = (made - sent).min(bytes.len() / size);
            let (now, later) = std::mem::take(&mut bytes).split_at_mut(size * count);
            let at = sent % most;
            now.copy_from_slice(bytemuck::cast_slice(&part[at..at + count]));
            sent += count;
            bytes = later;
        }
    })
}
