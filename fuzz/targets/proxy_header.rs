//! See `meshgate_claims::proxy_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| meshgate_claims::proxy_header(input));
