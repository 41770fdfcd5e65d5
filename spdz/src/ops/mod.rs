//! The operations of the protocol, one file each: what an operation declares
//! ([`Operation`]), each role's part of it ([`Execute`]), and the arithmetic on shares and
//! masked tensors beneath. `docs/adding-an-operation.md` is how to write another.
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
mod compare;
mod compare_thresholds;
mod concat;
mod convert;
mod difference;
mod hinges;
mod input;
mod kept;
mod lift;
mod linear;
mod multiply;
mod numbered;
mod one_hot;
mod open;
mod open_integers;
mod open_narrow;
mod operation;
mod output;
mod pool;
mod product;
mod public;
mod public_product;
mod round;
mod segment;
mod select;
mod select_integers;
mod square;
mod sum;
mod truncate;
mod truncate_interactive;
mod values;
mod view;
mod windows;
mod wins;
mod wire;
mod wire_masks;

pub use combine::{Combine, combine};
pub(crate) use compare::NARROWEST;
pub use compare::{Blocks, Compare};
pub use compare_thresholds::CompareThresholds;
pub use concat::{Concat, ConcatMasked, concat};
pub use convert::Convert;
pub use difference::{Difference, Pairs};
pub use hinges::{Hinge, Hinges};
pub use input::Input;
pub use kept::{Kept, kept};
pub use lift::Lift;
pub use linear::{Linear, LinearLayer, LinearTriple};
pub use multiply::{Mul, MulTriple};
pub use numbered::Numbered;
pub use one_hot::OneHot;
pub use open::{Open, Unmask};
pub use open_integers::OpenIntegers;
pub use open_narrow::OpenNarrow;
pub use operation::{
    Correlation, Execute, InEveryRing, Operation, PackedRandomness, Preparation, Producer,
    ProtocolRing, Randomness, Session,
};
pub use output::Output;
pub use pool::{SumPool, sum_pool};
pub use product::{Product, ProductTriple, multiply_public};
pub use public::{AddPublic, MulPublic, add_public, mul_public};
pub use public_product::{PublicLeft, PublicRight};
pub use round::Round;
pub use segment::Segment;
pub use select::Select;
pub use select_integers::SelectIntegers;
pub use square::{Square, SquareTriple};
pub use sum::{Sum, sum};
pub use truncate::{Truncate, truncate};
pub use truncate_interactive::{TruncateInteractive, TruncationCorrelation};
pub(crate) use values::Tensors;
pub use values::Values;
pub use view::{View, ViewMasked, view};
pub use windows::Windows;
pub use wins::Wins;
pub use wire_masks::WireMasks;
