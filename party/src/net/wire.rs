//! The generated types of the wire format.

tonic::include_proto!("secureinference.party.v1");
