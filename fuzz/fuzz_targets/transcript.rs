//! Transcripts of sessions.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(decoders::TRANSCRIPT.check(bytes)));
