//! A `traceparent`: the span above a run.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::TRACEPARENT.check(bytes)));
