//! The span that a run belongs to.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::TRACEPARENT.check(bytes)));
