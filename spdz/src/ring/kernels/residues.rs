//! Products of matrices of residues modulo a small prime.
//!
//! The residues are centred, so a product of two has less than 20 bits and the sum of
//! some thousand still fits 32 bits. The kernels multiply and add them as they are, and
//! reduce once at the end: processors multiply 32 pairs of 16-bit words and add their
//! products in twos by one instruction (`vpdpwssd`, `vpmaddwd`), four times as many
//! words as they multiply 64-bit ones.
//!
//! These instructions want the words of a row in pairs. A row of the left operand is
//! read where it lies ([`Rows`]), a pair or more by one load, and repeated all over a
//! vector; the right operand is packed to match ([`PackedResidues`]).

use std::fmt;
use std::ops::Range;

use zeroize::{DefaultIsZeroes, Zeroize, Zeroizing};

use super::{InstructionSet, Rows, Starts};
use crate::ring::residues::Modulus;

/// Words in one vector of the widest instruction set: a cache line.
const WORDS: usize = 32;

/// Sums in one vector of the widest instruction set: those of pairs of words.
const SUMS: usize = WORDS / 2;

/// Words of a row that serve one line of most panels.
const PAIR: usize = 2;

/// Vectors in a full panel. Six rows of four accumulators, four vectors of the right
/// operand and one of the left fit AVX-512's 32 registers.
const PANEL_VECTORS: usize = 4;

/// Products that are summed before they are reduced. With [`LARGEST`] factors and a
/// residue to add the product to, the sum of so many fits 32 bits.
const BLOCK_WORDS: usize = 4096;

/// Rows of fewer words do not profit from a panel of few columns: to add up the sums that
/// belong to a column takes longer than the products that are saved.
const SHORT: usize = 64;

/// The largest magnitude of a residue.
const LARGEST: i64 = Modulus::LARGEST as i64 / 2;

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);
const _: () = assert!(BLOCK_WORDS as i64 * LARGEST * LARGEST + LARGEST <= i32::MAX as i64);

/// How much of the left operand is taken through all panels before going on:
/// little enough to stay in the second-level cache, together with a panel.
const CHUNK_WORDS: usize = 128 * 1024;

/// A chunk of rows is a multiple of this, so that it splits into whole register
/// blocks, which have six or eight rows.
const CHUNK_ROWS: usize = 24;

/// One vector's worth of the right operand. The alignment keeps every load of it
/// within one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i16; WORDS]);

impl Default for Line {
    fn default() -> Self {
        Self([0; WORDS])
    }
}

impl DefaultIsZeroes for Line {}

/// The right operand of a product, `[k, n]`, in the order the kernels read it.
///
/// The columns are cut into panels. Of every panel, line after line, a product reads
/// as many words of its rows as the panel's `group` says, and multiplies them with the
/// 32 words of a line: `group` words of each of `32 / group` columns. Where a segment
/// of the rows is no multiple of the group, its last group overlaps the one before,
/// and the words they share are multiplied by zeros the second time: no product reads
/// beyond a segment.
///
/// Most panels take pairs of words, and up to four lines of 16 columns. The
/// columns left over, if they are few, make a last one that takes more words of fewer
/// columns, so that it has few zeros for columns that are not there.
///
/// The words are erased when it is dropped, as they may be shares of a model.
pub struct PackedResidues {
    lines: Vec<Line>,
    k: usize,
    n: usize,
    /// Segments of the rows it multiplies, of `length` words each, at least two.
    segments: usize,
    length: usize,
    /// The group of the last panel.
    last_group: usize,
    modulus: Modulus,
}

/// Some columns of a packed operand.
struct Panel {
    columns: Range<usize>,
    /// Words of a row that a line holds for each of its columns.
    group: usize,
    /// Lines for each group of words.
    vectors: usize,
}

impl PackedResidues {
    /// Packs the row-major `[k, n]` matrix `values` of centred residues.
    ///
    /// `segment_length` is the length of the segments of the [`Rows`] that it will
    /// multiply: `k` for a matrix, the words in a row of the filter for a convolution.
    /// Rows with other segments are multiplied as well, but copied first.
    ///
    /// # Panics
    ///
    /// If `values` does not have `k * n` words, or `k` is not a multiple of
    /// `segment_length`.
    pub fn new(
        values: &[i16],
        k: usize,
        n: usize,
        segment_length: usize,
        modulus: Modulus,
    ) -> Self {
        assert_eq!(Some(values.len()), k.checked_mul(n), "a right operand of {k} by {n}");
        assert!(
            k == 0 || (segment_length > 0 && k.is_multiple_of(segment_length)),
            "{k} rows in segments of {segment_length}"
        );
        // There is no pair in a segment of one word. Such rows are copied; a product
        // with k = 1 gets a second row of zeros.
        let (segments, length) = match segment_length {
            _ if k < PAIR => (1, PAIR),
            1 => (1, k),
            _ => (k / segment_length, segment_length),
        };
        // As many words of a row at once as leave room for the remaining columns.
        let rest = n % SUMS;
        let fits =
            |group: &usize| k >= SHORT && rest > 0 && rest <= WORDS / group && *group <= length;
        let last_group = [16, 8, 4].into_iter().find(fits).unwrap_or(PAIR);
        let mut packed = Self { lines: Vec::new(), k, n, segments, length, last_group, modulus };
        // Of an empty matrix the other dimension may be anything.
        if values.is_empty() {
            return packed;
        }
        // Room for everything at once: growing would leave copies behind that are
        // not erased.
        let lines = packed.panels().map(|panel| packed.lines_of(&panel)).sum();
        let mut lines = Vec::with_capacity(lines);
        for Panel { columns, group, vectors } in packed.panels() {
            for segment in 0..segments {
                for first in (0..length).step_by(group) {
                    let start = first.min(length - group);
                    for vector in 0..vectors {
                        let width = WORDS / group;
                        let from = columns.start + vector * width;
                        let width = width.min(columns.end - from);
                        let mut line = Line::default();
                        for i in first - start..group {
                            let row = segment * length + start + i;
                            let Some(row) = values.get(row * n + from..) else { continue };
                            let words = line.0.iter_mut().skip(i).step_by(group);
                            for (word, value) in words.zip(row.iter().take(width)) {
                                *word = *value;
                            }
                        }
                        lines.push(line);
                    }
                }
            }
        }
        packed.lines = lines;
        packed
    }

    /// The rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// What its words are residues of.
    pub fn modulus(&self) -> Modulus {
        self.modulus
    }

    /// The panels, in the order of their lines.
    fn panels(&self) -> impl Iterator<Item = Panel> + use<> {
        let (n, last_group) = (self.n, self.last_group);
        let paired = if last_group == PAIR { n } else { n - n % SUMS };
        let width = PANEL_VECTORS * SUMS;
        let pairs = (0..paired).step_by(width).map(move |first| {
            let columns = first..paired.min(first + width);
            Panel { group: PAIR, vectors: columns.len().div_ceil(SUMS), columns }
        });
        let last =
            (paired < n).then_some(Panel { group: last_group, vectors: 1, columns: paired..n });
        pairs.chain(last)
    }

    /// The lines of a panel.
    fn lines_of(&self, panel: &Panel) -> usize {
        self.segments * self.length.div_ceil(panel.group) * panel.vectors
    }

    /// The rows as segments of the length this operand is packed for, if they are.
    fn match_segments<'a>(&self, rows: &Rows<'a, i16>) -> Option<Rows<'a, i16>> {
        if rows.length == self.length {
            Some(*rows)
        } else if rows.segments == 1 && rows.length == self.segments * self.length {
            // What lies together may be taken apart.
            let (segments, length) = (self.segments, self.length);
            Some(Rows { segments, stride: length, length, ..*rows })
        } else {
            None
        }
    }
}

impl Drop for PackedResidues {
    fn drop(&mut self) {
        self.lines.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for PackedResidues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedResidues")
            .field("k", &self.k)
            .field("n", &self.n)
            .field("modulus", &self.modulus)
            .finish_non_exhaustive()
    }
}

/// `out += left · right`, reduced: `[m, n]` from `[m, k]` and `[k, n]`, row-major, all of
/// them centred residues.
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add(left: &Rows<'_, i16>, right: &PackedResidues, out: &mut [i16]) {
    multiply_add_with(InstructionSet::detect(), left, right, out);
}

/// [`multiply_add`] by the instruction set `isa`, for tests and benchmarks. One the
/// machine does not have is replaced by [`InstructionSet::Portable`].
///
/// # Panics
///
/// If the operands disagree on `k`, or if `out` does not have `m * n` words.
pub fn multiply_add_with(
    isa: InstructionSet,
    left: &Rows<'_, i16>,
    right: &PackedResidues,
    out: &mut [i16],
) {
    let (m, k, n) = (left.m(), right.k, right.n);
    assert_eq!(left.k(), k, "the operands' inner dimensions differ");
    assert_eq!(
        Some(out.len()),
        m.checked_mul(n),
        "a product of {m} by {n} into {} words",
        out.len()
    );
    if k == 0 || out.is_empty() {
        return;
    }
    let copy;
    let left = match right.match_segments(left) {
        Some(left) => left,
        None => {
            let (segments, length) = (right.segments, right.length);
            copy = Zeroizing::new(gather(left, segments * length));
            let starts = Starts::Dense;
            Rows { data: &copy, starts, m, segments, stride: length, length }
        }
    };
    let strips: fn(Strip<'_>) = match isa {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512Vnni if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx512_vnni(strip) }
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx512(strip) }
        },
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 if isa.is_available() => |strip| {
            // SAFETY: this arm is for machines with the instructions.
            unsafe { x86::multiply_avx2(strip) }
        },
        _ => portable::multiply,
    };
    let pairs = steps(&left, PAIR);
    let groups = steps(&left, right.last_group);
    let chunk = (CHUNK_WORDS / k / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    for first in (0..m).step_by(chunk) {
        let rows = first..m.min(first + chunk);
        let mut lines = right.lines.as_slice();
        for panel in right.panels() {
            let steps = if panel.group == PAIR { &pairs } else { &groups };
            for steps in steps.chunks(BLOCK_WORDS / panel.group) {
                let block;
                (block, lines) = lines.split_at(steps.len() * panel.vectors);
                strips(Strip {
                    left: &left,
                    rows: rows.clone(),
                    lines: block,
                    steps,
                    group: panel.group,
                    vectors: panel.vectors,
                    columns: panel.columns.clone(),
                    out,
                    n,
                    modulus: right.modulus,
                });
            }
        }
    }
}

/// The rows one after the other, with zeros up to `length` words each.
fn gather(rows: &Rows<'_, i16>, length: usize) -> Vec<i16> {
    let mut words = vec![0; rows.m * length];
    for (row, words) in words.chunks_exact_mut(length).enumerate() {
        for (segment, words) in words[..rows.k()].chunks_exact_mut(rows.length).enumerate() {
            let start = rows.start(row) + segment * rows.stride;
            words.copy_from_slice(&rows.data[start..][..rows.length]);
        }
    }
    words
}

/// Where the groups of the words of a row start, counted from the start of the row.
fn steps(rows: &Rows<'_, i16>, group: usize) -> Vec<usize> {
    let mut steps = Vec::with_capacity(rows.segments * rows.length.div_ceil(group));
    for segment in 0..rows.segments {
        let first = segment * rows.stride;
        let last = first + rows.length - group;
        steps.extend((first..last).step_by(group));
        steps.push(last);
    }
    steps
}

/// Some rows of the left operand times one panel of the right one, or times a block of
/// that panel's rows.
// What the kernels rely on: `rows` are rows of `left`; `columns` are columns of `out`,
// whose rows have `n` words and of which there are as many as of `left`; they are
// more than `(vectors - 1) * WORDS / group` and at most `vectors * WORDS / group`;
// `group` is PAIR with 1 to PANEL_VECTORS vectors, or 4, 8 or 16 with one; from each of
// the `steps` on after the start of a row, `group` words are that row's; there are at
// most BLOCK_WORDS / group steps; and for each of them there are `vectors` lines in
// `lines`. `multiply_add_with` alone makes them.
struct Strip<'a> {
    left: &'a Rows<'a, i16>,
    rows: Range<usize>,
    lines: &'a [Line],
    steps: &'a [usize],
    group: usize,
    vectors: usize,
    columns: Range<usize>,
    out: &'a mut [i16],
    n: usize,
    modulus: Modulus,
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_broadcastsi128_si256,
        _mm256_load_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32,
        _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32,
        _mm512_broadcast_i32x4, _mm512_broadcast_i64x4, _mm512_dpwssd_epi32, _mm512_load_si512,
        _mm512_madd_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };
    use std::mem::MaybeUninit;

    use super::{PAIR, SUMS, Strip, Sums, WORDS, add_pairs, add_sums, place};

    /// The vectors of an instruction set. Everything is inlined into functions that are
    /// compiled for it, which also makes the intrinsics single instructions.
    trait Vector: Copy {
        /// Vectors in a line.
        const PER_LINE: usize;

        /// # Safety
        ///
        /// The machine has the instruction set.
        unsafe fn zero() -> Self;

        /// # Safety
        ///
        /// The machine has the instruction set, and `words` points to a vector's worth,
        /// aligned for it.
        unsafe fn load(words: *const i16) -> Self;

        /// The `GROUP` words from `words` on, again and again.
        ///
        /// # Safety
        ///
        /// The machine has the instruction set, and `words` points to `GROUP` words;
        /// these are 2, 4, 8 or 16.
        unsafe fn repeat<const GROUP: usize>(words: *const i16) -> Self;

        /// Adds to each sum two products.
        ///
        /// # Safety
        ///
        /// The machine has the instruction set.
        unsafe fn dot(self, left: Self, right: Self) -> Self;

        /// # Safety
        ///
        /// The machine has the instruction set, and `sums` has room for a vector of
        /// 32-bit sums.
        unsafe fn store(self, sums: *mut i32);

        /// [`rows`], compiled for the instruction set.
        ///
        /// # Safety
        ///
        /// That of [`rows`].
        unsafe fn rows<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            line: usize,
        );

        /// [`finish`], compiled for the instruction set, and not inlined: the constants it
        /// needs would take registers from the inner loop.
        ///
        /// # Safety
        ///
        /// That of [`finish`].
        unsafe fn finish<const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            row: usize,
            line: usize,
            sums: &[i32],
        );
    }

    /// AVX-512, with its VNNI part or without.
    #[derive(Clone, Copy)]
    struct Wide<const VNNI: bool>(__m512i);

    impl<const VNNI: bool> Vector for Wide<VNNI> {
        const PER_LINE: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_setzero_si512() })
        }

        #[inline(always)]
        unsafe fn load(words: *const i16) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm512_load_si512(words.cast()) })
        }

        #[inline(always)]
        unsafe fn repeat<const GROUP: usize>(words: *const i16) -> Self {
            // SAFETY: the caller's; no load needs alignment.
            Self(unsafe {
                match GROUP {
                    2 => _mm512_set1_epi32(words.cast::<i32>().read_unaligned()),
                    4 => _mm512_set1_epi64(words.cast::<i64>().read_unaligned()),
                    8 => _mm512_broadcast_i32x4(_mm_loadu_si128(words.cast())),
                    _ => _mm512_broadcast_i64x4(_mm256_loadu_si256(words.cast())),
                }
            })
        }

        #[inline(always)]
        unsafe fn dot(self, left: Self, right: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe {
                if VNNI {
                    _mm512_dpwssd_epi32(self.0, left.0, right.0)
                } else {
                    _mm512_add_epi32(self.0, _mm512_madd_epi16(left.0, right.0))
                }
            })
        }

        #[inline(always)]
        unsafe fn store(self, sums: *mut i32) {
            // SAFETY: the caller's.
            unsafe { _mm512_storeu_si512(sums.cast(), self.0) }
        }

        #[inline(always)]
        unsafe fn rows<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            line: usize,
        ) {
            // SAFETY: the caller's.
            unsafe {
                if VNNI {
                    rows_avx512_vnni::<ROWS, VECTORS, GROUP>(strip, line);
                } else {
                    rows_avx512::<ROWS, VECTORS, GROUP>(strip, line);
                }
            }
        }

        #[inline(always)]
        unsafe fn finish<const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            row: usize,
            line: usize,
            sums: &[i32],
        ) {
            // SAFETY: the caller's.
            unsafe { finish_avx512::<VECTORS, GROUP>(strip, row, line, sums) }
        }
    }

    /// AVX2.
    #[derive(Clone, Copy)]
    struct Narrow(__m256i);

    impl Vector for Narrow {
        const PER_LINE: usize = 2;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm256_setzero_si256() })
        }

        #[inline(always)]
        unsafe fn load(words: *const i16) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm256_load_si256(words.cast()) })
        }

        #[inline(always)]
        unsafe fn repeat<const GROUP: usize>(words: *const i16) -> Self {
            // SAFETY: the caller's; no load needs alignment.
            Self(unsafe {
                match GROUP {
                    2 => _mm256_set1_epi32(words.cast::<i32>().read_unaligned()),
                    4 => _mm256_set1_epi64x(words.cast::<i64>().read_unaligned()),
                    8 => _mm256_broadcastsi128_si256(_mm_loadu_si128(words.cast())),
                    _ => _mm256_loadu_si256(words.cast()),
                }
            })
        }

        #[inline(always)]
        unsafe fn dot(self, left: Self, right: Self) -> Self {
            // SAFETY: the caller's.
            Self(unsafe { _mm256_add_epi32(self.0, _mm256_madd_epi16(left.0, right.0)) })
        }

        #[inline(always)]
        unsafe fn store(self, sums: *mut i32) {
            // SAFETY: the caller's.
            unsafe { _mm256_storeu_si256(sums.cast(), self.0) }
        }

        #[inline(always)]
        unsafe fn rows<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            line: usize,
        ) {
            // SAFETY: the caller's.
            unsafe { rows_avx2::<ROWS, VECTORS, GROUP>(strip, line) }
        }

        #[inline(always)]
        unsafe fn finish<const VECTORS: usize, const GROUP: usize>(
            strip: &mut Strip<'_>,
            row: usize,
            line: usize,
            sums: &[i32],
        ) {
            // SAFETY: the caller's.
            unsafe { finish_avx2::<VECTORS, GROUP>(strip, row, line, sums) }
        }
    }

    /// # Safety
    ///
    /// The machine has AVX-512, and its VNNI part.
    pub(super) unsafe fn multiply_avx512_vnni(mut strip: Strip<'_>) {
        // SAFETY: the caller's.
        unsafe { multiply_wide::<Wide<true>>(&mut strip) }
    }

    /// # Safety
    ///
    /// The machine has AVX-512.
    pub(super) unsafe fn multiply_avx512(mut strip: Strip<'_>) {
        // SAFETY: the caller's.
        unsafe { multiply_wide::<Wide<false>>(&mut strip) }
    }

    /// # Safety
    ///
    /// The machine has the instruction set of the vectors, and their lines are one vector.
    #[inline(always)]
    unsafe fn multiply_wide<V: Vector>(strip: &mut Strip<'_>) {
        // SAFETY: the caller's; the number of vectors and the group are the strip's.
        unsafe {
            match (strip.group, strip.vectors) {
                (16, _) => V::rows::<8, 1, 16>(strip, 0),
                (8, _) => V::rows::<8, 1, 8>(strip, 0),
                (4, _) => V::rows::<8, 1, 4>(strip, 0),
                (_, 1) => V::rows::<8, 1, PAIR>(strip, 0),
                (_, 2) => V::rows::<8, 2, PAIR>(strip, 0),
                (_, 3) => V::rows::<8, 3, PAIR>(strip, 0),
                _ => V::rows::<6, 4, PAIR>(strip, 0),
            }
        }
    }

    /// The strip line by line of its panel: six rows of two accumulators, two vectors of
    /// the right operand, one of the left and one of products fill the 16 registers.
    ///
    /// # Safety
    ///
    /// The machine has AVX2.
    pub(super) unsafe fn multiply_avx2(mut strip: Strip<'_>) {
        for line in 0..strip.vectors {
            // SAFETY: the caller's; the line and the group are the strip's.
            unsafe {
                match strip.group {
                    16 => Narrow::rows::<6, 2, 16>(&mut strip, line),
                    8 => Narrow::rows::<6, 2, 8>(&mut strip, line),
                    4 => Narrow::rows::<6, 2, 4>(&mut strip, line),
                    _ => Narrow::rows::<6, 2, PAIR>(&mut strip, line),
                }
            }
        }
    }

    /// [`rows`] for AVX-512 with VNNI.
    ///
    /// # Safety
    ///
    /// That of [`rows`].
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512vnni")]
    unsafe fn rows_avx512_vnni<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        line: usize,
    ) {
        // SAFETY: the caller's.
        unsafe { rows::<Wide<true>, ROWS, VECTORS, GROUP>(strip, line) }
    }

    /// [`rows`] for AVX-512.
    ///
    /// # Safety
    ///
    /// That of [`rows`].
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
    unsafe fn rows_avx512<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        line: usize,
    ) {
        // SAFETY: the caller's.
        unsafe { rows::<Wide<false>, ROWS, VECTORS, GROUP>(strip, line) }
    }

    /// [`rows`] for AVX2.
    ///
    /// # Safety
    ///
    /// That of [`rows`].
    #[target_feature(enable = "avx2")]
    unsafe fn rows_avx2<const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        line: usize,
    ) {
        // SAFETY: the caller's.
        unsafe { rows::<Narrow, ROWS, VECTORS, GROUP>(strip, line) }
    }

    /// [`finish`] for AVX-512.
    ///
    /// # Safety
    ///
    /// That of [`finish`].
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
    #[inline(never)]
    unsafe fn finish_avx512<const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        row: usize,
        line: usize,
        sums: &[i32],
    ) {
        // SAFETY: the caller's.
        unsafe { finish::<Wide<false>, VECTORS, GROUP>(strip, row, line, sums) }
    }

    /// [`finish`] for AVX2.
    ///
    /// # Safety
    ///
    /// That of [`finish`].
    #[target_feature(enable = "avx2")]
    #[inline(never)]
    unsafe fn finish_avx2<const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        row: usize,
        line: usize,
        sums: &[i32],
    ) {
        // SAFETY: the caller's.
        unsafe { finish::<Narrow, VECTORS, GROUP>(strip, row, line, sums) }
    }

    /// The rows of a strip in blocks of `ROWS`, and what remains in smaller ones.
    ///
    /// # Safety
    ///
    /// Those of [`block`], except for the row.
    #[inline(always)]
    unsafe fn rows<V: Vector, const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        line: usize,
    ) {
        let mut row = strip.rows.start;
        while row < strip.rows.end {
            let left = strip.rows.end - row;
            // SAFETY: each block has at most as many rows as are left.
            row += unsafe {
                match left {
                    _ if left >= ROWS => block::<V, ROWS, VECTORS, GROUP>(strip, row, line),
                    4.. => block::<V, 4, VECTORS, GROUP>(strip, row, line),
                    2.. => block::<V, 2, VECTORS, GROUP>(strip, row, line),
                    _ => block::<V, 1, VECTORS, GROUP>(strip, row, line),
                }
            };
        }
    }

    /// Rows `row..row + ROWS` of the strip, and of its columns those of the `VECTORS`
    /// vectors from line `line` on, with the sums in registers from the first word of
    /// the rows to the last. Returns `ROWS`.
    ///
    /// # Safety
    ///
    /// The machine has the instruction set of the vectors, the strip has these rows and
    /// lines, and its group is `GROUP`.
    #[inline(always)]
    unsafe fn block<V: Vector, const ROWS: usize, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        row: usize,
        line: usize,
    ) -> usize {
        let left = strip.left;
        let mut starts = [left.data.as_ptr(); ROWS];
        for (i, start) in starts.iter_mut().enumerate() {
            // SAFETY: the rows of a `Rows` start within its data.
            *start = unsafe { start.add(left.start(row + i)) };
        }
        // Wrapping, since after the last group it may point beyond the panel.
        let mut lines = strip.lines.as_ptr().wrapping_add(line);
        // SAFETY: the caller's.
        let mut sums = [[unsafe { V::zero() }; VECTORS]; ROWS];
        for &step in strip.steps {
            // SAFETY: the caller's.
            let mut right = [unsafe { V::zero() }; VECTORS];
            for (v, right) in right.iter_mut().enumerate() {
                // SAFETY: `lines` is at the lines for this step, this vector's among them,
                // and a line is as large as PER_LINE vectors and aligned for them.
                *right = unsafe { V::load(lines.cast::<i16>().add(v * (WORDS / V::PER_LINE))) };
            }
            lines = lines.wrapping_add(strip.vectors);
            for (sums, start) in sums.iter_mut().zip(starts) {
                // SAFETY: from `step` on there are GROUP words of the row.
                let left = unsafe { V::repeat::<GROUP>(start.add(step)) };
                for (sum, right) in sums.iter_mut().zip(right) {
                    // SAFETY: the caller's.
                    *sum = unsafe { sum.dot(left, right) };
                }
            }
        }
        // From registers to memory in a loop that is short enough to be unrolled: what is
        // indexed by a variable is never in registers. Where the vectors are all of the
        // product's columns, one row's sums begin where those of the row before end, as in
        // the product: what a row has too much is overwritten by the next.
        let mut stored = [[const { MaybeUninit::<Sums>::uninit() }; VECTORS]; ROWS];
        let stored = stored.as_mut_ptr().cast::<i32>();
        let lanes = SUMS / V::PER_LINE;
        let all = VECTORS * lanes;
        let pitch = if is_whole::<GROUP>(strip, all) { strip.n } else { all };
        for (i, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: a row has at most `VECTORS` vectors from `pitch` times its number
                // on, and `pitch` is at most as much.
                unsafe { sum.store(stored.add(i * pitch + v * lanes)) }
            }
        }
        // SAFETY: all of it has just been stored, without a gap.
        let sums = unsafe { std::slice::from_raw_parts(stored, (ROWS - 1) * pitch + all) };
        // SAFETY: the caller's.
        unsafe { V::finish::<VECTORS, GROUP>(strip, row, line, sums) }
        ROWS
    }

    /// Whether vectors with so many sums are all of the product's columns: then one row's
    /// sums follow the other's without a gap.
    #[inline(always)]
    fn is_whole<const GROUP: usize>(strip: &Strip<'_>, sums: usize) -> bool {
        GROUP == PAIR && strip.columns == (0..strip.n) && strip.n <= sums
    }

    /// Adds the sums of some rows of a strip, from `row` on, to the product. They have
    /// `VECTORS` vectors, the first of them in line `line`; see [`is_whole`].
    ///
    /// # Safety
    ///
    /// The machine has the instruction set of the vectors.
    #[inline(always)]
    unsafe fn finish<V: Vector, const VECTORS: usize, const GROUP: usize>(
        strip: &mut Strip<'_>,
        row: usize,
        line: usize,
        sums: &[i32],
    ) {
        let modulus = strip.modulus;
        let all = VECTORS * SUMS / V::PER_LINE;
        if is_whole::<GROUP>(strip, all) {
            let rows = (sums.len() - all) / strip.n + 1;
            let out = &mut strip.out[row * strip.n..][..rows * strip.n];
            return add_pairs(out, sums, modulus);
        }
        for (i, sums) in sums.chunks_exact(all).enumerate() {
            for (l, sums) in sums.as_chunks::<SUMS>().0.iter().enumerate() {
                let out = place::<GROUP>(strip, row + i, line + l);
                add_sums::<GROUP>(out, sums, modulus);
            }
        }
    }
}

mod portable {
    use super::{Line, PAIR, SUMS, Strip, add_sums, place};

    /// The strip line by line of its panel, in code that is safe on any processor.
    pub(super) fn multiply(mut strip: Strip<'_>) {
        match strip.group {
            16 => lines::<16>(&mut strip),
            8 => lines::<8>(&mut strip),
            4 => lines::<4>(&mut strip),
            _ => lines::<PAIR>(&mut strip),
        }
    }

    fn lines<const GROUP: usize>(strip: &mut Strip<'_>) {
        let left = strip.left;
        for line in 0..strip.vectors {
            for row in strip.rows.clone() {
                let mut sums = [0; SUMS];
                let lines = strip.lines.iter().skip(line).step_by(strip.vectors);
                let row_words = &left.data[left.start(row)..];
                for (step, line) in strip.steps.iter().zip(lines) {
                    let Some(words) = row_words[*step..].first_chunk::<GROUP>() else { continue };
                    add_products(&mut sums, words, line);
                }
                let modulus = strip.modulus;
                add_sums::<GROUP>(place::<GROUP>(strip, row, line), &sums, modulus);
            }
        }
    }

    #[inline(always)]
    fn add_products<const GROUP: usize>(sums: &mut [i32; SUMS], words: &[i16; GROUP], line: &Line) {
        for (i, (sum, right)) in sums.iter_mut().zip(line.0.as_chunks::<2>().0).enumerate() {
            let at = 2 * i % GROUP;
            *sum += i32::from(words[at]) * i32::from(right[0])
                + i32::from(words[at + 1]) * i32::from(right[1]);
        }
    }
}

/// Room for the sums of one line.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([i32; SUMS]);

/// The place in the product of row `row` of a strip and its line `line` of columns.
#[inline(always)]
fn place<'a, const GROUP: usize>(
    strip: &'a mut Strip<'_>,
    row: usize,
    line: usize,
) -> &'a mut [i16] {
    let first = strip.columns.start + line * (WORDS / GROUP);
    let columns = (WORDS / GROUP).min(strip.columns.end - first);
    &mut strip.out[row * strip.n + first..][..columns]
}

/// Adds the sums of one line to their place in the product.
#[inline(always)]
fn add_sums<const GROUP: usize>(out: &mut [i16], sums: &[i32; SUMS], modulus: Modulus) {
    if GROUP == PAIR {
        // Of a whole vector the compiler knows the length.
        let Ok(out) = <&mut [i16; SUMS]>::try_from(&mut *out) else {
            return add_pairs(out, sums, modulus);
        };
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = modulus.reduce(*sum + i32::from(*out));
        }
        return;
    }
    let mut words = [0; SUMS];
    for (i, word) in words.iter_mut().enumerate().take(WORDS / GROUP) {
        let mut sum = 0;
        for part in 0..GROUP / 2 {
            sum += sums[i * (GROUP / 2) + part];
        }
        *word = modulus.reduce(sum);
    }
    add_rest(out, &words, modulus);
}

/// Adds one sum to each word of the product; there may be more sums, up to a whole vector.
#[inline(always)]
fn add_pairs(out: &mut [i16], sums: &[i32], modulus: Modulus) {
    let (out, rest) = out.split_at_mut(out.len() / SUMS * SUMS);
    let (sums, last) = sums.split_at(out.len());
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = modulus.reduce(*sum + i32::from(*out));
    }
    if !rest.is_empty() {
        let mut words = [0; SUMS];
        for (word, sum) in words.iter_mut().zip(last) {
            *word = modulus.reduce(*sum);
        }
        add_rest(rest, &words, modulus);
    }
}

/// Adds the first words to those of the product, which are fewer than a vector has.
#[inline(always)]
fn add_rest(out: &mut [i16], words: &[i16; SUMS], modulus: Modulus) {
    // In pieces that are loaded and stored at once. A masked store would do for all, but
    // what is loaded beside it soon after would have to wait for it.
    let rest = (out, words.as_slice());
    let rest = add_words::<8>(rest, modulus);
    let rest = add_words::<4>(rest, modulus);
    let rest = add_words::<2>(rest, modulus);
    add_words::<1>(rest, modulus);
}

/// Adds the first `N` words, if there are as many, and returns the others.
#[inline(always)]
fn add_words<'a, const N: usize>(
    (out, words): (&'a mut [i16], &'a [i16]),
    modulus: Modulus,
) -> (&'a mut [i16], &'a [i16]) {
    if out.len() < N {
        return (out, words);
    }
    let (first, rest) = out.split_at_mut(N);
    for (out, word) in first.iter_mut().zip(words) {
        *out = modulus.add(*out, *word);
    }
    (rest, &words[N..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What must not be written lies on both sides of every product.
    const GUARD: i16 = 0x5afe;

    fn reference(left: &[i16], right: &[i16], k: usize, n: usize, m: Modulus) -> Vec<i16> {
        let mut out = Vec::new();
        for left in left.chunks_exact(k) {
            for j in 0..n {
                let product = |(t, x): (usize, &i16)| i128::from(*x) * i128::from(right[t * n + j]);
                out.push(m.of(left.iter().enumerate().map(product).sum()));
            }
        }
        out
    }

    /// Residues without a pattern; if `extreme`, only those of the largest magnitude.
    fn words(count: usize, seed: u64, m: Modulus, extreme: bool) -> Vec<i16> {
        let half = m.value() / 2;
        (0..count as u64)
            .map(|i| {
                let word = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed << 8);
                let word = (word ^ word >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20;
                if extreme {
                    if seed.is_multiple_of(2) { half } else { -half }
                } else {
                    m.of(word.into())
                }
            })
            .collect()
    }

    /// Compares all instruction sets with `product`.
    fn check(rows: &Rows<'_, i16>, packed: &PackedResidues, product: &[i16]) {
        let (m, k, n, modulus) = (rows.m(), packed.k(), packed.n(), packed.modulus());
        let before = words(m * n, 7, modulus, false);
        let expected: Vec<i16> =
            before.iter().zip(product).map(|(x, y)| modulus.add(*x, *y)).collect();
        for isa in InstructionSet::available() {
            let mut guarded = vec![GUARD; 32 + m * n + 32];
            guarded[32..32 + m * n].copy_from_slice(&before);
            let out = &mut guarded[32..32 + m * n];
            multiply_add_with(isa, rows, packed, out);
            assert!(out == expected, "{isa:?} {m}x{k}x{n} {modulus:?}");
            assert_eq!(guarded[..32], [GUARD; 32]);
            assert_eq!(guarded[32 + m * n..], [GUARD; 32]);
        }
    }

    fn check_matrix(m: usize, k: usize, n: usize, modulus: Modulus, extreme: bool) {
        let (left, right) = (words(m * k, 1, modulus, extreme), words(k * n, 2, modulus, extreme));
        // At the end of an allocation, which the sanitisers and Valgrind can see.
        let left = left.into_boxed_slice();
        let rows = Rows::matrix(&left, m, k).unwrap();
        let packed = PackedResidues::new(&right, k, n, k, modulus);
        check(&rows, &packed, &reference(&left, &right, k, n, modulus));
    }

    #[test]
    fn products_of_all_shapes() {
        for (i, k) in [1, 2, 3, 5, 7, 8, 15, 16, 17, 25, 63, 64, 65, 100].into_iter().enumerate() {
            for m in [0, 1, 2, 3, 5, 6, 7, 8, 9, 15, 17, 25] {
                for n in [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 20, 31, 32, 33, 40, 50, 64, 65, 100] {
                    check_matrix(m, k, n, Modulus::ALL[(i + m + n) % 10], false);
                }
            }
        }
    }

    #[test]
    fn products_modulo_all_moduli() {
        for modulus in Modulus::ALL {
            check_matrix(25, 100, 41, modulus, false);
            check_matrix(25, 100, 41, modulus, true);
        }
    }

    /// The largest sums there can be, below, at and above what fits 32 bits.
    #[test]
    fn long_rows_are_reduced_in_between() {
        for k in [BLOCK_WORDS - 1, BLOCK_WORDS, BLOCK_WORDS + 1, 3 * BLOCK_WORDS + 7] {
            for n in [1, 3, 6, 16, 20] {
                check_matrix(2, k, n, Modulus::ALL[1], true);
                check_matrix(2, k, n, Modulus::ALL[9], true);
                check_matrix(2, k, n, Modulus::ALL[4], false);
            }
        }
    }

    #[test]
    fn more_rows_than_a_chunk() {
        check_matrix(101, 1500, 41, Modulus::ALL[3], false);
        check_matrix(50, 5000, 20, Modulus::ALL[3], false);
    }

    #[test]
    fn products_by_the_detected_instruction_set() {
        let modulus = Modulus::ALL[9];
        let rows = Rows::matrix(&[1, 2, 3, -500], 2, 2).unwrap();
        let right = PackedResidues::new(&[10, 20, 30, 40], 2, 2, 2, modulus);
        let mut out = [9; 4];
        multiply_add(&rows, &right, &mut out);
        assert_eq!(out, [79, 109, modulus.of(39 - 15_000), modulus.of(69 - 20_000)]);
    }

    #[test]
    fn products_without_words() {
        let modulus = Modulus::ALL[0];
        for (segments, length) in [(0, 3), (3, 0), (0, 0)] {
            let rows = Rows::new(&[], &[7, u32::MAX], segments, 5, length).unwrap();
            check(&rows, &PackedResidues::new(&[], 0, 3, length, modulus), &[0; 6]);
        }
        let right = PackedResidues::new(&[], usize::MAX, 0, usize::MAX, modulus);
        multiply_add(&Rows::matrix(&[], 0, usize::MAX).unwrap(), &right, &mut []);
        let right = PackedResidues::new(&[], 0, usize::MAX, 0, modulus);
        multiply_add(&Rows::matrix(&[], 0, 0).unwrap(), &right, &mut []);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn operands_must_agree() {
        let rows = Rows::matrix(&[1, 2], 1, 2).unwrap();
        let right = PackedResidues::new(&[1, 2, 3], 3, 1, 3, Modulus::ALL[0]);
        multiply_add(&rows, &right, &mut [0]);
    }

    #[test]
    #[should_panic(expected = "a product of 1 by 3 into 2 words")]
    fn the_product_must_fit() {
        let rows = Rows::matrix(&[1], 1, 1).unwrap();
        let right = PackedResidues::new(&[1, 2, 3], 1, 3, 1, Modulus::ALL[0]);
        multiply_add(&rows, &right, &mut [0; 2]);
    }

    #[test]
    #[should_panic(expected = "a right operand of 2 by 2")]
    fn the_right_operand_must_have_its_shape() {
        PackedResidues::new(&[1, 2, 3], 2, 2, 2, Modulus::ALL[0]);
    }

    #[test]
    #[should_panic(expected = "4 rows in segments of 3")]
    fn the_right_operand_must_have_whole_segments() {
        PackedResidues::new(&[1, 2, 3, 4], 4, 1, 3, Modulus::ALL[0]);
    }

    #[test]
    fn debug_output_has_no_values() {
        let data = [567; 4];
        let packed = PackedResidues::new(&data, 2, 2, 2, Modulus::ALL[0]);
        let shown = format!("{packed:?} {:?}", Rows::matrix(&data, 2, 2));
        assert!(shown.contains("k: 2, n: 2, modulus: Modulus(1201)"), "{shown}");
        assert!(!shown.contains("567"), "{shown}");
    }

    proptest! {
        #[test]
        fn products_of_any_values(
            modulus in 0usize..10,
            (k, n, left, right) in (0usize..20, 1usize..90, 0usize..70).prop_flat_map(
                |(m, k, n)| {
                    // Modulo any of the moduli these are residues.
                    let word = -519i16..=519;
                    let left = prop::collection::vec(word.clone(), m * k);
                    let right = prop::collection::vec(word, k * n);
                    (Just(k), Just(n), left, right)
                },
            )
        ) {
            let modulus = Modulus::ALL[modulus];
            let rows = Rows::matrix(&left, left.len() / k, k).unwrap();
            let packed = PackedResidues::new(&right, k, n, k, modulus);
            check(&rows, &packed, &reference(&left, &right, k, n, modulus));
        }

        /// A convolution without padding, against copied patches; packed for its own
        /// segments, for those of a matrix, and for those of a single word.
        #[test]
        fn convolutions(
            (filter_height, filter_width) in (1usize..6, 1usize..6),
            (above, beside) in (0usize..6, 0usize..6),
            (batch, channels, filters) in (1usize..3, 1usize..8, 1usize..40),
            step in 1usize..3,
            (seed, modulus) in (any::<u64>(), 0usize..10),
        ) {
            let modulus = Modulus::ALL[modulus];
            let (height, width) = (filter_height + above, filter_width + beside);
            // At the end of an allocation: nothing may be read beyond the last segment.
            let image = words(batch * height * width * channels, seed, modulus, false);
            let image = image.into_boxed_slice();
            let (mut starts, mut patches) = (Vec::new(), Vec::new());
            for b in 0..batch {
                for y in (0..=above).step_by(step) {
                    for x in (0..=beside).step_by(step) {
                        let at = |y, x| ((b * height + y) * width + x) * channels;
                        starts.push(at(y, x) as u32);
                        for dy in 0..filter_height {
                            for dx in 0..filter_width {
                                patches.extend(&image[at(y + dy, x + dx)..][..channels]);
                            }
                        }
                    }
                }
            }
            let (stride, length) = (width * channels, filter_width * channels);
            let rows = Rows::new(&image, &starts, filter_height, stride, length).unwrap();
            let k = filter_height * length;
            prop_assert_eq!((rows.m(), rows.k()), (starts.len(), k));
            let right = words(k * filters, !seed, modulus, false);
            let expected = reference(&patches, &right, k, filters, modulus);
            for segment in [length, k, 1] {
                let packed = PackedResidues::new(&right, k, filters, segment, modulus);
                check(&rows, &packed, &expected);
            }
        }
    }
}
