//! Where parties run: as processes on this machine.

pub mod local;
