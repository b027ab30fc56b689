//! See `meshgate_claims::response_head`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::response_head(input));
