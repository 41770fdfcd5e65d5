//! The rings of the integers modulo two to the power of a word's bits, in two's complement.
//!
//! All of them are made by [`binary_ring!`], which their files give their constants to.

/// Implements [`Ring`](super::Ring) and what belongs to it for a ring of `$word`s, whose signed
/// form is `$signed`. `$constants` are those that are the ring's own.
macro_rules! binary_ring {
    ($ring:ident, $word:ident as $signed:ident, { $($constants:tt)* }) => {
        const _: () = {
            use $crate::buffer::Buffer;
            use $crate::geometry::{Linear, MatMul};
            use $crate::prg::KeyStream;
            use $crate::ring::kernels::{self, PackedRight, Rows};
            use $crate::ring::{BinaryRing, Plane, Ring, Sampler, Side, Truncation};
            use $crate::ring::{TruncationMask, threads};

            impl Sampler<$word> for &mut KeyStream {
                fn next(&mut self, part: &mut [$word]) {
                    self.fill(bytemuck::cast_slice_mut(part));
                    if cfg!(target_endian = "big") {
                        part.iter_mut().for_each(|word| *word = $word::from_le(*word));
                    }
                }
            }

            impl Plane for $ring {
                type Word = $word;

                #[inline(always)]
                fn add(self, x: $word, y: $word) -> $word {
                    x.wrapping_add(y)
                }

                #[inline(always)]
                fn sub(self, x: $word, y: $word) -> $word {
                    x.wrapping_sub(y)
                }

                #[inline(always)]
                fn mul(self, x: $word, y: $word) -> $word {
                    x.wrapping_mul(y)
                }

                #[inline(always)]
                fn of(self, integer: i128) -> $word {
                    integer as $word
                }

                #[inline(always)]
                fn sent(self, x: $word) -> $word {
                    x.to_le()
                }

                #[inline(always)]
                fn received(self, x: $word) -> $word {
                    $word::from_le(x)
                }
            }

            impl BinaryRing for $ring {
                const BITS: u32 = $word::BITS;

                #[inline(always)]
                fn word(integer: u64) -> $word {
                    integer as $word
                }
            }

            impl Ring for $ring {
                type Word = $word;
                type Plane = Self;
                type Packed = PackedRight<$word>;
                type Sampler<'a> = &'a mut KeyStream;

                $($constants)*
                const PLANES: usize = 1;
                const WIRE_BYTES: usize = size_of::<$word>();
                const PART: usize = (32 << 10) / size_of::<$word>();
                /// A dividend with its offset leaves the top bit free, which shows a wrap.
                const DIVIDEND_BITS: u32 = $word::BITS - 2;
                const TRUNCATION_PARTS: usize = 2;
                const TRUNCATION_ERROR: f64 = 1.0;
                /// A shift of each word.
                const LOCAL_TRUNCATION_IS_FREE: bool = true;
                const IS_BINARY: bool = true;
                const USUAL_TRUNCATION: Truncation = Truncation::Local;

                fn plane(_: usize) -> Self {
                    Self
                }

                fn from_integers(integers: &[i128], words: &mut [$word]) {
                    for (word, integer) in words.iter_mut().zip(integers) {
                        *word = *integer as $word;
                    }
                }

                fn to_integers(words: &[$word]) -> Vec<i128> {
                    words.iter().map(|word| i128::from(*word as $signed)).collect()
                }

                fn truncate(share: &mut [$word], bits: u32, side: Side) {
                    // A match outside the loop, so that each side's loop is vectorised on its own.
                    kernels::vectorized(
                        #[inline(always)]
                        || match side {
                            Side::Zero => {
                                for x in share {
                                    *x = ((*x as $signed) >> bits) as $word;
                                }
                            }
                            Side::One => {
                                for x in share {
                                    let quotient = (x.wrapping_neg() as $signed) >> bits;
                                    *x = (quotient as $word).wrapping_neg();
                                }
                            }
                        },
                    );
                }

                fn truncation_mask(mut stream: KeyStream, _: u32, len: usize) -> TruncationMask<Self> {
                    let mut dividend = Buffer::zeros(len);
                    Self::sample(&mut stream, &mut dividend);
                    TruncationMask { dividend, quotient: Buffer::zeros(0) }
                }

                /// Of `r`, the sum of both servers' parts, `-(r >> bits)`, and what a wrap of the
                /// opening adds: `r`'s top bit times `2^(BITS - bits)`.
                fn truncation_correlation(
                    streams: [KeyStream; 2],
                    bits: u32,
                    len: usize,
                ) -> Buffer<$word> {
                    let [part0, part1] =
                        streams.map(|stream| Self::truncation_mask(stream, bits, len).dividend);
                    let mut parts = Buffer::zeros(2 * len);
                    let (quotients, wraps) = parts.split_at_mut(len);
                    kernels::vectorized(
                        #[inline(always)]
                        || {
                            let masks = part0.iter().zip(&part1[..]);
                            for ((x, y), (quotient, wrap)) in
                                masks.zip(quotients.iter_mut().zip(wraps))
                            {
                                let r = x.wrapping_add(*y);
                                *quotient = (r >> bits).wrapping_neg();
                                *wrap = (r >> ($word::BITS - 1)) << ($word::BITS - bits);
                            }
                        },
                    );
                    parts
                }

                fn dividend_offset(_: u32) -> i128 {
                    1 << Self::DIVIDEND_BITS
                }

                /// With the dividend `0 <= y < 2^(BITS - 1)` and the opened `c = y + r mod 2^BITS`,
                /// the sum wrapped if and only if `r` has the top bit and `c` has not. So
                /// `(c >> bits) - (r >> bits)`, plus `2^(BITS - bits)` if it wrapped, is
                /// `floor(y / 2^bits)` plus the carry of the low bits: 0 or 1.
                fn truncate_opened(
                    opened: &mut [$word],
                    parts: Buffer<$word>,
                    bits: u32,
                ) -> Buffer<$word> {
                    let offset = (1 << Self::DIVIDEND_BITS) >> bits;
                    let mut mask = Buffer::zeros(opened.len());
                    let (quotients, wraps) = parts.split_at(opened.len());
                    kernels::vectorized(
                        #[inline(always)]
                        || {
                            let parts = quotients.iter().zip(wraps);
                            for ((c, mask), (quotient, wrap)) in
                                opened.iter_mut().zip(&mut mask[..]).zip(parts)
                            {
                                let may_have_wrapped = (*c >> ($word::BITS - 1)).wrapping_sub(1);
                                *mask = quotient.wrapping_add(*wrap & may_have_wrapped);
                                *c = (*c >> bits).wrapping_sub(offset);
                            }
                        },
                    );
                    mask
                }

                fn sampler(stream: &mut KeyStream, _: usize) -> &mut KeyStream {
                    stream
                }

                fn pack(words: &[$word], linear: &Linear) -> PackedRight<$word> {
                    let MatMul { k, n, .. } = linear.as_matmul();
                    PackedRight::new(words, k, n)
                }

                fn multiply_add(
                    linear: &Linear,
                    left: &[$word],
                    right: &PackedRight<$word>,
                    out: &mut [$word],
                ) {
                    let starts;
                    let rows = match linear {
                        Linear::MatMul(MatMul { m, k, .. }) => Rows::matrix(left, *m, *k),
                        Linear::Conv2d(convolution) => {
                            starts = convolution.row_starts();
                            let (segments, stride, length) = convolution.segments();
                            Rows::new(left, &starts, segments, stride, length)
                        }
                    };
                    let Some(rows) = rows else {
                        unreachable!("a plan's shapes agree");
                    };
                    let MatMul { n, .. } = linear.as_matmul();
                    threads::by_rows(&rows, n, out, |rows, out| {
                        kernels::multiply_add(rows, right, out);
                    });
                }
            }
        };
    };
}

pub(super) use binary_ring;
