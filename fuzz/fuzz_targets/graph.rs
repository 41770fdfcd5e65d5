//! A graph and its plans.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::GRAPH.check(bytes)));
