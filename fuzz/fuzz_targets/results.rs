//! Results of a benchmark, and the report of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::RESULTS.check(bytes)));
