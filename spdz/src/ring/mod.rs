//! Arithmetic in the ring of integers modulo 2⁶⁴.

pub mod kernels;
