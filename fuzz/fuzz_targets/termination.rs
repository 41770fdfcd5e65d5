//! How a party ended.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::TERMINATION.check(bytes)));
