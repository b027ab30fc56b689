//! See `meshgate_claims::same_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: meshgate_claims::same_request::require_go(),
    |input: &[u8]| meshgate_claims::same_request(input)
);
