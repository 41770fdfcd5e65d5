//! Which kernel multiplies which words on which machine.

use super::portable;
use super::strip::Strip;
use super::word::Word;
#[cfg(target_arch = "x86_64")]
use super::{avx2_u32, avx2_u64, avx512};
use crate::ring::kernels::InstructionSet;

/// A word that there are kernels for.
pub trait Kernels: Word {
    /// The kernel of an instruction set, or that for any processor where the machine has none.
    #[doc(hidden)]
    fn kernel(isa: InstructionSet) -> fn(Strip<'_, Self>);
}

/// The word's kernels; `$avx2` is what AVX2 needs one of its own for.
macro_rules! kernels {
    ($word:ty, $avx2:ident) => {
        impl Kernels for $word {
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

kernels!(u64, avx2_u64);
kernels!(u32, avx2_u32);
