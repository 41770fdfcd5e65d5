//! The arithmetic of `Int100`: integers modulo the product of ten primes, as residues.
//!
//! An integer of 102 bits is represented by its residues modulo ten primes of 11 bits,
//! the ones that TF Encrypted has for its `int100`. Sums and products are sums and
//! products of residues, which are so short that processors do many of them at once;
//! what needs the integer itself, above all its division by a power of two, needs the
//! Chinese remainder theorem.
//!
//! A tensor of `n` elements is `10 * n` words: ten *planes* after each other, plane `p`
//! with the residues of all elements modulo `MODULI[p]`. Every word is in *centred* form:
//! of the residues modulo `m` that of least magnitude, from `-(m - 1) / 2` to `(m - 1) / 2`.
//!
//! No branch and no address depends on the values, with one exception that reveals
//! nothing about them: how often sampling rejects.

mod bounded;
mod crt;
mod modulus;
mod sampler;
#[cfg(test)]
mod tests;

pub use bounded::{Bounded, from_limbs};
pub use crt::{from_integers, shift_right, to_integers};
pub use modulus::{MODULI, MODULUS, Modulus, PLANES, WIRE_BYTES, planes, planes_mut};
pub use sampler::{DRAWN, Sampler};
