//! The dimensions of the linear operations and the index arithmetic that follows from them.
//!
//! Layouts are row-major and channels last: images `[batch, height, width,
//! channels]`, filters `[height, width, in, out]`.

mod linear;
mod places;
#[cfg(test)]
mod tests;
mod view;
mod windows;

pub use linear::{Convolution, Linear, MatMul, Pooling};
pub use places::Places;
pub use view::View;
pub use windows::{Padding, Stride, Window, Windows};
