//! Correlated randomness: what the producer generates for one evaluation.
//!
//! For each masked tensor there is a mask `a = a_0 + a_1`; for each product of
//! masked tensors a generalised Beaver triple, shares of the product of their masks; for
//! some truncations, shares of what remains of the dividends' mask. Both servers expand
//! their shares of the masks from the seed they have in common with the producer. So does
//! one of them with its share of what is generated; only the other's share, the difference,
//! is sent. They alternate, so that neither link carries everything.

mod bundle;
mod generate;
mod prepare;
mod seeds;

pub use bundle::{Bundle, SealError};
pub(crate) use generate::Generator;
pub(crate) use prepare::{Context, prepare};
pub(crate) use seeds::mask_seed;
