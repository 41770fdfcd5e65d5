//! The operations of the protocol, one file each, written on shares and masked
//! tensors. None of them talks to anyone: opening ([`crate::masked::Mask::open`])
//! is the only interaction, and happens before.

mod combine;
mod linear;
mod multiply;
mod pool;
mod truncate;

pub use combine::combine;
pub(crate) use linear::unmask;
pub use linear::{LinearLayer, LinearTriple};
pub use multiply::{MulTriple, SquareTriple};
pub use pool::{sum_pool, sum_windows};
pub use truncate::truncate;
