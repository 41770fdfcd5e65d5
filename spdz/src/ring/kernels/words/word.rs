//! The words that these kernels multiply.

use zeroize::DefaultIsZeroes;

/// A word of a matrix: `u64` or `u32`, multiplied and added modulo two to the power of its bits.
pub trait Word: DefaultIsZeroes {
    /// The words of a line.
    type Words: Copy + Default + AsRef<[Self]> + AsMut<[Self]>;

    /// Words in a line.
    const LANES: usize;

    /// `self + other`, wrapping.
    fn plus(self, other: Self) -> Self;

    /// `self * other`, wrapping.
    fn times(self, other: Self) -> Self;
}

/// The word's arithmetic.
macro_rules! word {
    ($word:ty, $lanes:expr) => {
        impl Word for $word {
            type Words = [Self; $lanes];

            const LANES: usize = $lanes;

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
        }
    };
}

word!(u64, 8);
word!(u32, 16);
