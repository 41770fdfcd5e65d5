//! The code of the wire format is what its definition says. It is kept, since the compiler of
//! definitions takes longer to build than all of it; here it is made again.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn the_wire_format_is_as_its_definition_generates_it() {
    const FILE: &str = "secureinference.party.v1.rs";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors =
        protox::compile([folder.join("secureinference/party/v1/party.proto")], [&folder]).unwrap();
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    tonic_prost_build::configure()
        .bytes(".")
        // Its data may be a key or a share, which nothing must print.
        .skip_debug(["secureinference.party.v1.Chunk"])
        .out_dir(made.path())
        .compile_fds(descriptors)
        .unwrap();
    let expected = fs::read_to_string(made.path().join(FILE)).unwrap();
    if fs::read_to_string(folder.join(FILE)).unwrap() != expected {
        let made = made.keep().join(FILE);
        let (made, kept) = (made.display(), folder.join(FILE));
        panic!(
            "party/proto/{FILE} is not what the definition says; put it there: cp {made} {}",
            kept.display()
        );
    }
}
