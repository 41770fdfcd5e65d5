//! The kernels for the vector instructions of x86-64: AVX-512 with and without VNNI, and AVX2.

use std::arch::x86_64::{
    __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_broadcastsi128_si256,
    _mm256_load_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_add_epi32,
    _mm512_broadcast_i32x4, _mm512_broadcast_i64x4, _mm512_dpwssd_epi32, _mm512_load_si512,
    _mm512_madd_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_storeu_si512,
};
use std::mem::MaybeUninit;

use super::packed::{PAIR, SUMS, WORDS};
use super::strip::{Strip, Sums, add_pairs, add_sums, place};

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
