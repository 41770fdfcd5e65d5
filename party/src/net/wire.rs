//! The generated types of the wire format; a test generates them anew.

include!("../../proto/secureinference.party.v1.rs");
