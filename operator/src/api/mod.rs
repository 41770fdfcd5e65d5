//! The resource that users write, as Rust types; the CRD is generated from them.

pub mod v1alpha1;
