//! Data, trained models and measurements of the secure-inference toolkit.

pub mod accuracy;
pub mod calibrate;
pub mod card;
pub mod cell;
pub mod cli;
pub mod compare;
mod console;
pub mod data;
pub mod environment;
pub mod floor;
pub mod forms;
pub mod graph_file;
pub mod inspect;
pub mod launch;
mod layout;
pub mod load;
pub mod pace;
pub mod paper;
pub mod patches;
pub mod plaintext;
mod progress;
pub mod reference;
pub mod report;
pub mod results;
pub mod run;
mod scratch;
pub mod settings;
pub mod stats;
pub mod sweep;
pub mod table1;
pub mod tensor_files;
#[cfg(feature = "train")]
pub mod train;
mod usage;
