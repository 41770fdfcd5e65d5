//! Number formats: the rings by the names that configurations, plans and reports use.
//!
//! A format is registered in one place, the list in [`formats!`] below. Whatever is a
//! constant of a format is a constant of its [`Ring`]; code that is generic over rings is
//! reached from a format through [`with_ring!`](crate::with_ring) and in no other way.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Ring;
use super::truncation::Truncation;
use crate::fixed::Precision;

/// Declares [`NumberFormat`], the list of all formats and the one dispatch from a format to
/// its ring, which has the same name. `$d` is a dollar sign for the macro that this one makes.
macro_rules! formats {
    ($d:tt $($(#[$meta:meta])* $name:ident,)+) => {
        /// A number format: which ring shares live in.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum NumberFormat {
            $($(#[$meta])* $name,)+
        }

        impl NumberFormat {
            /// All formats, in the order in which lists and reports name them.
            pub const ALL: [Self; [$(stringify!($name)),+].len()] = [$(Self::$name),+];
        }

        /// Evaluates an expression that is generic over a ring in the ring of a
        /// [`NumberFormat`](crate::ring::NumberFormat) that is known at run time only.
        ///
        /// ```
        /// use spdz::ring::{NumberFormat, Ring};
        ///
        /// fn largest_product<R: Ring>() -> u32 {
        ///     R::PRECISION.dividend
        /// }
        ///
        /// let format: NumberFormat = "Int64".parse()?;
        /// assert_eq!(spdz::with_ring!(format, R => largest_product::<R>()), 62);
        /// # Ok::<_, spdz::ring::UnknownFormat>(())
        /// ```
        #[macro_export]
        macro_rules! with_ring {
            ($d format:expr, $d ring:ident => $d generic:expr) => {
                match $d format {
                    $($crate::ring::NumberFormat::$name => {
                        type $d ring = $crate::ring::$name;
                        $d generic
                    })+
                }
            };
        }

        /// Hands the names of all formats' rings to a macro.
        macro_rules! for_each_ring {
            ($d apply:ident) => {
                $d apply! { $($name),+ }
            };
        }
        pub(crate) use for_each_ring;
    };
}

formats! { $
    /// Integers modulo 2^64.
    #[default]
    Int64,
    /// Ten residues of integers modulo a number of 103 bits.
    Int100,
    /// Integers modulo 2^32.
    Int32,
}

/// A name that no number format has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no number format {name:?}; choose one of {}",
    NumberFormat::ALL.map(NumberFormat::name).join(", ")
)]
pub struct UnknownFormat {
    name: String,
}

impl NumberFormat {
    /// What configuration and reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        with_ring!(self, R => R::NAME)
    }

    /// For people, what its numbers are and what it is good for.
    #[must_use]
    pub fn summary(self) -> &'static str {
        with_ring!(self, R => R::SUMMARY)
    }

    /// Bytes of an element on the wire.
    #[must_use]
    pub fn wire_bytes(self) -> usize {
        with_ring!(self, R => R::WIRE_BYTES)
    }

    /// Its precision and range.
    #[must_use]
    pub fn precision(self) -> Precision {
        with_ring!(self, R => R::PRECISION)
    }

    /// Whether it holds products of any values within its range, and so polynomials. In others what
    /// is multiplied must stay within the range too, and comparisons take the place of polynomials.
    #[must_use]
    pub fn has_polynomials(self) -> bool {
        !self.declares_ranges()
    }

    /// Those that hold polynomials, in the order of [`NumberFormat::ALL`].
    pub fn with_polynomials() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|format| format.has_polynomials())
    }

    /// Those whose numbers can be compared exactly, in the order of [`NumberFormat::ALL`].
    pub fn with_gates() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|format| format.has_gates())
    }

    /// Interactive truncation divides integers of magnitude below two to the power of it
    /// ([`Ring::DIVIDEND_BITS`]).
    #[must_use]
    pub fn dividend_bits(self) -> u32 {
        with_ring!(self, R => R::DIVIDEND_BITS)
    }

    /// The truncation that the paper pairs it with.
    #[must_use]
    pub fn usual_truncation(self) -> Truncation {
        with_ring!(self, R => R::USUAL_TRUNCATION)
    }

    /// Whether a local truncation costs next to nothing ([`Ring::LOCAL_TRUNCATION_IS_FREE`]).
    #[must_use]
    pub fn local_truncation_is_free(self) -> bool {
        with_ring!(self, R => R::LOCAL_TRUNCATION_IS_FREE)
    }

    /// Whether values are in its range because their graph's author says so
    /// ([`Ring::DECLARES_RANGES`]).
    #[must_use]
    pub fn declares_ranges(self) -> bool {
        with_ring!(self, R => R::DECLARES_RANGES)
    }

    /// Whether its numbers can be compared exactly ([`Ring::IS_BINARY`]).
    #[must_use]
    pub fn has_gates(self) -> bool {
        with_ring!(self, R => R::IS_BINARY)
    }

    /// How many tensors the producer shares for an interactive truncation. If none,
    /// the quotients' mask is known before the opening, and they can be multiplied as
    /// they come.
    #[must_use]
    pub fn truncation_parts(self) -> usize {
        with_ring!(self, R => R::TRUNCATION_PARTS)
    }

    /// How far what a server sees of one dividend of an interactive truncation is at most from
    /// what it would see of any other.
    #[must_use]
    pub fn dividend_distance(self) -> f64 {
        with_ring!(self, R => R::DIVIDEND_DISTANCE)
    }

    /// By how many units in the last place a quotient may be off (`docs/protocol.md`), unless
    /// a local truncation fails.
    #[must_use]
    pub fn truncation_error(self, truncation: Truncation) -> f64 {
        match truncation {
            Truncation::Local => 1.0,
            Truncation::Interactive => with_ring!(self, R => R::TRUNCATION_ERROR),
        }
    }
}

impl fmt::Display for NumberFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// By name, upper or lower case.
impl FromStr for NumberFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let named = |format: &Self| format.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownFormat { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_name_everywhere() {
        for format in NumberFormat::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(format.name().to_lowercase().parse(), Ok(format));
            assert_eq!(format!("{format:?} {format}"), format!("{format} {}", format.name()));
            let written = serde_json::to_string(&format).unwrap();
            assert_eq!(written, format!("\"{format}\""));
            assert_eq!(serde_json::from_str::<NumberFormat>(&written).unwrap(), format);
        }
        let unknown = "Int128".parse::<NumberFormat>().unwrap_err().to_string();
        let expected = "there is no number format \"Int128\"; choose one of Int64, Int100, Int32";
        assert_eq!(unknown, expected);
    }

    #[test]
    fn the_dispatch_reaches_the_ring_of_the_same_name() {
        for format in NumberFormat::ALL {
            assert!(with_ring!(format, R => std::any::type_name::<R>()).ends_with(format.name()));
            assert_eq!(with_ring!(format, R => R::WIRE_BYTES), format.wire_bytes());
        }
    }

    #[test]
    fn interactive_truncation_takes_what_sums_of_products_may_be() {
        for format in NumberFormat::ALL {
            // Of a declared range it takes half, as it needs a bit to see a wrap.
            let declared = u32::from(format.declares_ranges());
            assert_eq!(format.dividend_bits() + declared, format.precision().dividend, "{format}");
        }
    }
}
