//! Interactive truncation: division by a power of two in one round, which never fails
//! within the format's range (Catrina and Saxena 2010, protocol 3.1, in the form that
//! `docs/protocol.md` gives).

use std::borrow::Cow;
use std::fmt;

use super::operation::{Correlation, Execute, Operation, Preparation, Producer, Randomness};
use super::values::Values;
use crate::buffer::Buffer;
use crate::channel::ChannelError;
use crate::masked::{Masked, Opening, SumOpening};
use crate::prg::{Purpose, Seed};
use crate::ring::{Plane, Ring, Side, TruncationMask};
use crate::share::Share;
use crate::tensors::{MaskedId, Message, PrivateId, Route, Table, TensorId};

/// Division by `2^bits` in one round, which leaves the quotient masked.
#[derive(Clone, Debug)]
pub struct TruncateInteractive {
    /// The dividend.
    pub input: PrivateId,
    /// How many bits go.
    pub bits: u32,
    /// The quotient.
    pub output: MaskedId,
}

impl Operation for TruncateInteractive {
    fn name(&self) -> &'static str {
        "truncate_interactive"
    }

    fn reads(&self) -> Vec<TensorId> {
        vec![self.input.into()]
    }

    fn writes(&self) -> Option<TensorId> {
        Some(self.output.into())
    }

    fn message(&self, table: &Table) -> Option<Message> {
        Some(table.message(Route::Exchange, self.output))
    }

    fn randomness(&self, table: &Table) -> Randomness {
        let len = table.len(self.output);
        let generated = table.format().truncation_parts() * len;
        // The mask of the quotients, where it follows from that of the dividends.
        let derived = if generated == 0 { len } else { 0 };
        Randomness {
            mask: Some((Purpose::DividendMask, len)),
            generated,
            derived,
            ..Randomness::NONE
        }
    }

    fn shift(&self) -> Option<u32> {
        Some(self.bits)
    }

    fn needs_all_bits(&self) -> bool {
        true
    }

    fn distance(&self, table: &Table) -> f64 {
        table.format().dividend_distance() * table.len(self.output) as f64
    }

    fn list(&self, f: &mut fmt::Formatter<'_>, table: &Table) -> fmt::Result {
        let len = table.len(self.output);
        write!(f, " {} bits {} -> {} len {len}", self.input, self.bits, self.output)
    }
}

impl<R: Ring> Execute<R> for TruncateInteractive {
    fn generate(&self, producer: &mut dyn Producer<R>) -> Result<(), ChannelError> {
        let parts = Execute::<R>::mask(self, producer);
        producer.share(&parts)
    }

    fn mask(&self, producer: &mut dyn Producer<R>) -> Share<R> {
        TruncationCorrelation::parts(producer.seeds(), self.bits, producer.mask_len())
    }

    fn prepare(&self, server: &mut dyn Preparation<R>) -> Result<Correlation<R>, ChannelError> {
        let Randomness { mask, generated, .. } = server.randomness();
        let len = mask.map_or(0, |(_, len)| len);
        let received = if generated > 0 { Some(server.generated()?) } else { None };
        let correlation = TruncationCorrelation::expand(server.seed(), self.bits, len, received);
        Ok(Correlation::of(vec![correlation.dividend, correlation.parts]))
    }

    fn mask_share<'a>(
        &self,
        correlation: &'a Correlation<R>,
        _: &dyn Fn(MaskedId) -> Cow<'a, Share<R>>,
    ) -> Cow<'a, Share<R>> {
        Cow::Borrowed(&correlation.shares[1])
    }

    fn open<'a>(
        &self,
        values: &'a Values<'_, R>,
        correlation: Correlation<R>,
    ) -> Box<dyn Opening<R> + 'a> {
        let [dividend, parts] = correlation.into_parts();
        let correlation = TruncationCorrelation { dividend, parts, bits: self.bits };
        correlation.opening(values.get(self.input), values.side())
    }
}

/// A server's part of what one interactive truncation consumes: its share of the
/// dividends' mask, and its shares of what remains of the mask in the quotients.
pub struct TruncationCorrelation<R: Ring> {
    dividend: Share<R>,
    parts: Share<R>,
    bits: u32,
}

impl<R: Ring> fmt::Debug for TruncationCorrelation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TruncationCorrelation by 2^{} of {:?}", self.bits, self.dividend)
    }
}

impl<R: Ring> TruncationCorrelation<R> {
    /// Expands a server's part for `len` dividends. If the producer shares the parts
    /// ([`Ring::TRUNCATION_PARTS`]), `received` is what this server has of them.
    pub(crate) fn expand(seed: Seed, bits: u32, len: usize, received: Option<Share<R>>) -> Self {
        let TruncationMask { dividend, quotient } =
            R::truncation_mask(seed.into_stream(), bits, len);
        let parts = received.unwrap_or(Share(quotient));
        Self { dividend: Share(dividend), parts, bits }
    }

    /// What the producer makes for two servers' parts ([`Ring::truncation_correlation`]).
    pub(crate) fn parts(seeds: [Seed; 2], bits: u32, len: usize) -> Share<R> {
        Share(R::truncation_correlation(seeds.map(Seed::into_stream), bits, len))
    }

    /// The exchange with the other server in which both open `x` under the mask, and which
    /// leaves the quotient as a masked tensor.
    #[must_use]
    pub fn opening<'a>(self, x: &'a Share<R>, side: Side) -> Box<dyn Opening<R> + 'a> {
        let Self { dividend, parts, bits } = self;
        let offset = if side == Side::Zero { R::dividend_offset(bits) } else { 0 };
        let masked = move |plane: R::Plane| {
            let offset = plane.of(offset);
            move |x, r| plane.add(plane.add(x, r), offset)
        };
        let finish = move |mut alpha: Buffer<R::Word>, _| {
            let mask = Share(R::truncate_opened(&mut alpha, parts.0, bits));
            Masked { alpha, mask }
        };
        Box::new(SumOpening::new(&x.0, dividend, masked, finish))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::channel::{Phase, Role, Tag, memory_pair};
    use crate::masked::exchange;
    use crate::ops::truncate;
    use crate::ring::{Int32, Int64, Int100};
    use crate::share::{reconstruct, share};

    fn seed(number: u8) -> Seed {
        Seed::from_bytes([number; 32])
    }

    fn shares<R: Ring>(value: i128, samples: usize, bits: u32) -> [Share<R>; 2] {
        let mut words = vec![R::Word::default(); R::PLANES * samples];
        R::from_integers(&vec![value; samples], &mut words);
        share(&words, &mut seed(bits as u8).into_stream()).into()
    }

    /// Truncates `value` many times under fresh shares: the differences from the floor.
    fn local<R: Ring>(value: i128, bits: u32, samples: usize) -> Vec<i128> {
        let [mut x0, mut x1] = shares::<R>(value, samples, bits);
        truncate(&mut x0, bits, Side::Zero);
        truncate(&mut x1, bits, Side::One);
        let found = R::to_integers(&reconstruct(&x0, &x1));
        found.into_iter().map(|x| x - (value >> bits)).collect()
    }

    /// The same in one round, with fresh masks too.
    fn interactive<R: Ring>(value: i128, bits: u32, samples: usize) -> Vec<i128> {
        let [x0, x1] = shares::<R>(value, samples, bits);
        let seeds = || [seed(101), seed(102)];
        let mut parts = [None, None];
        if R::TRUNCATION_PARTS > 0 {
            let generated = TruncationCorrelation::<R>::parts(seeds(), bits, samples);
            let (part0, part1) = share(&generated.0, &mut seed(103).into_stream());
            parts = [Some(part0), Some(part1)];
        }
        let [part0, part1] = parts;
        let [seed0, seed1] = seeds();
        let wait = Duration::from_secs(30);
        let (mut to1, mut to0) = memory_pair(Role::Server0, Role::Server1, wait);
        let tag = Tag::new(Phase::Online, 0, 0);
        let shares = std::thread::scope(|scope| {
            let other = scope.spawn(move || {
                let correlation = TruncationCorrelation::expand(seed1, bits, samples, part1);
                exchange(correlation.opening(&x1, Side::One), &mut to0, tag).unwrap()
            });
            let correlation = TruncationCorrelation::expand(seed0, bits, samples, part0);
            let quotient0 = exchange(correlation.opening(&x0, Side::Zero), &mut to1, tag).unwrap();
            let quotient1 = other.join().unwrap();
            assert!(quotient0.alpha == quotient1.alpha, "both servers see the same");
            if R::TRUNCATION_PARTS == 0 {
                let mask = TruncationCorrelation::<R>::parts(seeds(), bits, samples);
                let sum = reconstruct(&quotient0.mask, &quotient1.mask);
                assert!(mask.0[..] == sum, "the producer knows the mask before the opening");
            }
            [(quotient0, Side::Zero), (quotient1, Side::One)]
                .map(|(quotient, side)| crate::ops::open::unmask(&quotient, side))
        });
        let found = R::to_integers(&reconstruct(&shares[0], &shares[1]));
        found.into_iter().map(|x| x - (value >> bits)).collect()
    }

    /// Errors lie within `allowed`, and floor and error average to the exact quotient.
    fn check(name: &str, value: i128, bits: u32, errors: &[i128], allowed: [i128; 2]) {
        let [least, most] = allowed;
        let within = errors.iter().all(|error| (least..=most).contains(error));
        assert!(within, "{name}: {value} by 2^{bits}");
        let mean = errors.iter().sum::<i128>() as f64 / errors.len() as f64;
        let remainder = (value & ((1 << bits) - 1)) as f64 / f64::from(bits).exp2();
        // Six standard deviations of the mean, of errors that deviate by half a unit or less.
        let bound = 3.0 / (errors.len() as f64).sqrt();
        let found = (mean - remainder).abs();
        assert!(found < bound, "{name}: {value} by 2^{bits}: {mean} {remainder}");
    }

    const VALUES: [i128; 8] = [0, 1, -1, 4095, -4097, 123_456_789, -987_654_321, 1 << 30];

    #[test]
    fn the_local_error_is_zero_or_one_and_unbiased() {
        for bits in [12, 14, 18] {
            for value in VALUES {
                check("Int64", value, bits, &local::<Int64>(value, bits, 20_000), [0, 1]);
                check("Int100", value, bits, &local::<Int100>(value, bits, 20_000), [0, 1]);
            }
        }
    }

    #[test]
    fn the_interactive_error_is_unbiased_and_never_large() {
        for bits in [1, 12, 24, 30] {
            let largest = (1 << Int32::DIVIDEND_BITS) - 1;
            let within = VALUES.into_iter().filter(|value| value.abs() <= largest);
            for value in within.chain([largest, -largest]) {
                check("Int32", value, bits, &interactive::<Int32>(value, bits, 20_000), [0, 1]);
            }
        }
        for bits in [12, 14, 18, 40] {
            let largest = [Int64::DIVIDEND_BITS, Int100::DIVIDEND_BITS].map(|bits| (1 << bits) - 1);
            // Up to the largest dividends: there is no probability of failure.
            for value in VALUES.into_iter().chain([largest[0], -largest[0]]) {
                check("Int64", value, bits, &interactive::<Int64>(value, bits, 20_000), [0, 1]);
            }
            // Less than one and a half units from the quotient, on either side.
            let offset = 1 << (bits - 1);
            for value in VALUES.into_iter().chain([largest[1], offset - largest[1]]) {
                check("Int100", value, bits, &interactive::<Int100>(value, bits, 20_000), [-1, 2]);
            }
        }
    }

    /// `|x|` over the ring's size is 1/16 or so; a failure is off by the size over `2^bits`.
    fn failures<R: Ring>(value: i128, size: f64) {
        let bits = 13;
        let samples = 100_000;
        let errors = local::<R>(value, bits, samples);
        let failures: Vec<i128> =
            errors.into_iter().filter(|error| !(0..=1).contains(error)).collect();
        let rate = failures.len() as f64 / samples as f64;
        let expected = value as f64 / size;
        assert!((rate - expected).abs() < 0.004, "{}: {rate} {expected}", R::NAME);
        let distance = size / f64::from(bits).exp2();
        for failure in failures {
            // Beside the error of a truncation that does not fail.
            let off = (failure.abs() as f64 - distance).abs();
            assert!(off <= 1f64.max(1e-6 * distance), "{}: {failure} {distance}", R::NAME);
        }
    }

    #[test]
    fn the_local_form_fails_with_the_documented_probability() {
        failures::<Int32>(1 << 28, 2f64.powi(32));
        failures::<Int64>(1 << 60, 2f64.powi(64));
        failures::<Int100>(1 << 98, crate::ring::residues::MODULUS as f64);
    }
}
