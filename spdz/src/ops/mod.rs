//! The operations of the protocol, one file each, written on shares and masked
//! tensors. Opening ([`crate::masked::Mask::open`]) and dividing ([`Division`]) take a
//! round with the other server; nothing else talks to anyone.
//!
//! What an operation consumes serves it alone: the types have no copies.
//!
//! ```
//! # use spdz::{channel::*, geometry::Linear, masked::Masked, ops::*, ring::{Int64, Side}, share::Share};
//! # type X = Masked<Int64>;
//! fn square(x: &X, aa: SquareTriple<Int64>) { let _ = aa.square(x, Side::Zero); }
//! fn multiply(x: &X, ab: MulTriple<Int64>) { let _ = ab.multiply(x, x, Side::Zero); }
//! fn matmul(l: &Linear, x: &X, ab: ProductTriple<Int64>) { let _ = ab.multiply(l, x, x, Side::Zero); }
//! fn dense(layer: &LinearLayer<Int64>, x: &X, ab: LinearTriple<Int64>) { let _ = layer.apply(x, ab); }
//! ```
//!
//! The same twice is refused by the compiler, in each of them:
//!
//! ```compile_fail,E0382
//! # use spdz::{masked::Masked, ops::*, ring::{Int64, Side}};
//! fn square(x: &Masked<Int64>, y: &Masked<Int64>, aa: SquareTriple<Int64>) {
//!     let _ = aa.square(x, Side::Zero);
//!     let _ = aa.square(y, Side::Zero);
//! }
//! ```
//! ```compile_fail,E0382
//! # use spdz::{masked::Masked, ops::*, ring::{Int64, Side}};
//! fn multiply(x: &Masked<Int64>, y: &Masked<Int64>, ab: MulTriple<Int64>) {
//!     let _ = ab.multiply(x, y, Side::Zero);
//!     let _ = ab.multiply(y, x, Side::Zero);
//! }
//! ```
//! ```compile_fail,E0382
//! # use spdz::{geometry::Linear, masked::Masked, ops::*, ring::{Int64, Side}};
//! fn matmul(l: &Linear, x: &Masked<Int64>, y: &Masked<Int64>, ab: ProductTriple<Int64>) {
//!     let _ = ab.multiply(l, x, y, Side::Zero);
//!     let _ = ab.multiply(l, y, x, Side::Zero);
//! }
//! ```
//! ```compile_fail,E0382
//! # use spdz::{masked::Masked, ops::*, ring::Int64};
//! fn dense(layer: &LinearLayer<Int64>, x: &Masked<Int64>, y: &Masked<Int64>, ab: LinearTriple<Int64>) {
//!     let _ = layer.apply(x, ab);
//!     let _ = layer.apply(y, ab);
//! }
//! ```

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
