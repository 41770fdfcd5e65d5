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
        let pieces = Pieces { unit: R::PART, most: R::PART };
        send_made(link, tag, words, pieces, &mut |first, share| {
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
        send_made(link, tag, words, Pieces { unit: shared, most }, &mut |_, part: &mut [u64]| {
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
    let pieces = Pieces { unit: row, most };
    send_made(link, tag, row * rows(words), pieces, &mut |first, part: &mut [u64]| {
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

/// In how many words at a time a message is made: whole `units`, and at most `most`.
#[derive(Clone, Copy)]
struct Pieces {
    unit: usize,
    most: usize,
}

/// Sends a message of so many words, made in `pieces`: `make` is given the number of the first
/// of them and their places, and leaves what their memory on the wire is. They are made in place;
/// a unit that two parts of the message have is made elsewhere and copied.
fn send_made<W: Pod + Default>(
    link: &mut dyn Channel,
    tag: Tag,
    words: usize,
    pieces: Pieces,
    make: &mut dyn FnMut(usize, &mut [W]),
) -> Result<(), ChannelError> {
    let Pieces { unit, most } = pieces;
    let mut straddling = Buffer::<W>::zeros(unit.min(words));
    // Of what is in `straddling`: how many words are left to send, its last ones.
    let (mut made, mut left) = (0, 0..0);
    let size = size_of::<W>();
    link.send_parts(tag, size * words, &mut |mut bytes| {
        while !bytes.is_empty() {
            let room = bytes.len() / size;
            let whole = if room >= words - made { room } else { room / unit * unit };
            let place = &mut bytes[..size * whole.min(most).min(words - made)];
            if left.is_empty()
                && whole > 0
                && let Ok(place) = bytemuck::try_cast_slice_mut(place)
            {
                make(made, place);
                made += place.len();
                let sent = size_of_val(place);
                bytes = &mut bytes[sent..];
                continue;
            }
            if left.is_empty() {
                left = 0..unit.min(words - made);
                make(made, &mut straddling[left.clone()]);
                made += left.len();
            }
            let count = left.len().min(room);
            let (now, later) = bytes.split_at_mut(size * count);
            let from = left.start;
            now.copy_from_slice(bytemuck::cast_slice(&straddling[from..from + count]));
            left.start += count;
            bytes = later;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Has messages made in parts of so many bytes.
    struct Parted {
        part: usize,
        message: Vec<u8>,
    }

    impl Channel for Parted {
        fn send(&mut self, _: Tag, _: Bytes) -> Result<(), ChannelError> {
            unreachable!("what is made is sent while it is made")
        }

        fn recv(&mut self, _: Tag, _: usize) -> Result<Bytes, ChannelError> {
            unreachable!("the producer only sends")
        }

        fn send_parts(
            &mut self,
            _: Tag,
            length: usize,
            make: &mut dyn FnMut(&mut [u8]),
        ) -> Result<(), ChannelError> {
            self.message = vec![0; length];
            self.message.chunks_mut(self.part).for_each(make);
            Ok(())
        }
    }

    fn parted<W: Pod + Default>(
        words: usize,
        pieces: Pieces,
        part: usize,
        word: fn(usize) -> W,
    ) -> Vec<u8> {
        let mut channel = Parted { part, message: Vec::new() };
        let mut next = 0;
        let tag = Tag::new(Phase::Offline, 0, 0);
        let sent = send_made(&mut channel, tag, words, pieces, &mut |first, made: &mut [W]| {
            assert_eq!(first, next, "one after the other");
            let whole = made.len().is_multiple_of(pieces.unit) || first + made.len() == words;
            assert!(!made.is_empty() && made.len() <= pieces.most && whole, "{}", made.len());
            made.iter_mut().zip(first..).for_each(|(made, index)| *made = word(index));
            next += made.len();
        });
        assert!(sent.is_ok() && next == words);
        channel.message
    }

    #[test]
    fn a_message_is_the_same_in_parts_of_any_length() {
        for (unit, most) in [(1, 7), (3, 12), (5, 5), (16, 64), (200, 200)] {
            for words in [1, 4, 15, 64, 101] {
                let pieces = Pieces { unit, most };
                let whole: Vec<u64> = (0..words as u64).collect();
                for part in [8, 16, 40, 64, 136, 4096] {
                    let message = parted(words, pieces, part, |index| index as u64);
                    assert_eq!(message, bytemuck::cast_slice::<u64, u8>(&whole), "{unit} {part}");
                }
                let short: Vec<u32> = (0..words as u32).collect();
                for part in [8, 24, 256] {
                    let message = parted(words, pieces, part, |index| index as u32);
                    assert_eq!(message, bytemuck::cast_slice::<u32, u8>(&short), "{unit} {part}");
                }
            }
        }
    }
}
