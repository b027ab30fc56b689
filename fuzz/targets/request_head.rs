//! See `meshgate_claims::request_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::request_head(input));
