//! A resource that has been validated: what its parties compute and how they are made.
//!
//! Pure: knows the resource and what a party reads, and nothing of the cluster.

mod definition;
mod error;
mod model;
mod pods;
mod render;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

pub use definition::{MAX_FITS, MAX_LEVELS, MAX_PARTS};
pub use error::Invalid;
pub use model::{
    CONFIG_FILE, IDENTITY_FOLDER, Job, METRICS_PORT, PARTY_PORT, PartyVolume, VOLUME,
    VOLUME_FOLDER, is_party_object, stem,
};
pub use pods::quantity;
pub use render::Addresses;
pub use validate::digest;
