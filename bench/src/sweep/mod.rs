//! `bench sweep`: networks, batch sizes, number formats and truncations, measured by turns.

pub mod settings;

pub use settings::Settings;
