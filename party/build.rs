//! Compiles the wire format, without an installed protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/secureinference/party/v1/party.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Its data may be a key or a share, which nothing must print.
        .skip_debug(["secureinference.party.v1.Chunk"])
        .compile_fds(descriptors)?;
    Ok(())
}
