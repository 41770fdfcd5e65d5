//! A producer's frames to a server.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::FRAMES.check(bytes)));
