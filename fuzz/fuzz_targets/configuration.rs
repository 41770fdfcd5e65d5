//! The configuration of a party.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::CONFIGURATION.check(bytes)));
