//! The words that these kernels multiply, and what differs between them.

use zeroize::DefaultIsZeroes;

use super::portable;
use super::strip::Strip;
#[cfg(target_arch = "x86_64")]
use super::{avx2_u32, avx2_u64, avx512};
use crate::ring::kernels::InstructionSet;

/// A word of a matrix: `u64` or `u32`, multiplied and added modulo two to the power of its bits.
pub trait Word: Kernels {}

impl Word for u64 {}
impl Word for u32 {}

/// What the kernels need of a word. Private, so that nobody adds a word without kernels.
pub trait Kernels: DefaultIsZeroes {
    /// The words of a line.
    type Words: Copy + Default + AsRef<[Self]> + AsMut<[Self]>;

    /// Words in a line.
    const LANES: usize;

    /// `self + other`, wrapping.
    fn plus(self, other: Self) -> Self;

    /// `self * other`, wrapping.
    fn times(self, other: Self) -> Self;

    /// The kernel of an instruction set, or that for any processor where the machine has none.
    fn kernel(isa: InstructionSet) -> fn(Strip<'_, Self>)
    where
        Self: Word;
}

/// The word's arithmetic and kernels; `$avx2` is what AVX2 needs one of its own for.
macro_rules! kernels {
    ($word:ty, $lanes:expr, $avx2:ident) => {
        impl Kernels for $word {
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

            fn kernel(isa: InstructionSet) -> fn(Strip<'_, Self>) {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512Vnni | InstructionSet::Avx512 if isa.is_available() => {
                        // SAFETY: this arm is for machines with the instructions.
                        |strip| unsafe { avx512::multiply(strip) }
                    }
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 if isa.is_available() => {
                        // SAFETY: this arm is for machines with the instructions.
                        |strip| unsafe { $avx2::multiply(strip) }
                    }
                    _ => portable::multiply,
                }
            }
        }
    };
}

kernels!(u64, 8, avx2_u64);
kernels!(u32, 16, avx2_u32);
