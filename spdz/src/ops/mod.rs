//! The operations of the protocol, one file each, written on shares and masked
//! tensors. Opening ([`crate::masked::Mask::open`]) and dividing ([`Division`]) take a
//! round with the other server; nothing else talks to anyone.

mod combine;
mod linear;
mod multiply;
mod pool;
mod rearrange;
mod truncate;

pub use combine::{add_public, combine, mul_public, sum};
pub(crate) use linear::unmask;
pub use linear::{LinearLayer, LinearTriple, ProductTriple, multiply_public};
pub use multiply::{MulTriple, SquareTriple};
pub use pool::sum_pool;
pub use rearrange::{concat, view};
pub use truncate::{Division, truncate};
