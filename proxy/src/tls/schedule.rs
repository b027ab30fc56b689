//! The key schedule of TLS 1.3 (RFC 8446 §7.1).
//!
//! A handshake derives some twenty secrets from a few keys. The library's own way for this provider hands each derivation
//! the key anew, and repeats the extraction behind it; here a key is prepared once (RFC 2104 §4), which takes a quarter of
//! the hashing off a handshake. What is derived is the same.

use std::sync::LazyLock;

use aws_lc_rs::hmac;
use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::hash::HashAlgorithm;
use rustls::crypto::hmac::{Hmac, Key, Tag};
use rustls::crypto::tls13::{Hkdf, HkdfUsingHmac};
use rustls::{SupportedCipherSuite, Tls13CipherSuite};

/// The suites of TLS 1.3 that the library has for this provider, with this schedule.
static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let all = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter();
    all.filter_map(SupportedCipherSuite::tls13)
        .map(|theirs| Tls13CipherSuite {
            common: CipherSuiteCommon {
                suite: theirs.common.suite,
                hash_provider: theirs.common.hash_provider,
                confidentiality_limit: theirs.common.confidentiality_limit,
            },
            hkdf_provider: schedule(theirs.common.hash_provider.algorithm())
                .unwrap_or(theirs.hkdf_provider),
            aead_alg: theirs.aead_alg,
            quic: theirs.quic,
        })
        .collect()
});

static WITH_SHA256: HkdfUsingHmac<'_> = HkdfUsingHmac(&Prepared(hmac::HMAC_SHA256));
static WITH_SHA384: HkdfUsingHmac<'_> = HkdfUsingHmac(&Prepared(hmac::HMAC_SHA384));

fn schedule(hash: HashAlgorithm) -> Option<&'static dyn Hkdf> {
    match hash {
        HashAlgorithm::SHA256 => Some(&WITH_SHA256),
        HashAlgorithm::SHA384 => Some(&WITH_SHA384),
        _ => None,
    }
}

/// The same suite with this schedule; as it is for TLS 1.2.
pub(super) fn prepared(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let ours = SUITES
        .iter()
        .find(|ours| ours.common.suite == suite.suite());
    ours.map_or(suite, SupportedCipherSuite::Tls13)
}

struct Prepared(hmac::Algorithm);

impl Hmac for Prepared {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(PreparedKey(hmac::Key::new(self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.tag_len()
    }
}

struct PreparedKey(hmac::Key);

impl Key for PreparedKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        for piece in middle {
            context.update(piece);
        }
        context.update(last);
        Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_is_what_the_library_derives() {
        let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
        let mut compared = 0;
        for theirs in suites.iter().filter_map(SupportedCipherSuite::tls13) {
            let ours = prepared(SupportedCipherSuite::Tls13(theirs))
                .tls13()
                .unwrap();
            assert!(!std::ptr::eq(ours, theirs), "{theirs:?} has its own way");
            let derived = |hkdf: &dyn Hkdf| derived(hkdf, theirs.common.hash_provider.output_len());
            assert_eq!(derived(ours.hkdf_provider), derived(theirs.hkdf_provider));
            compared += 1;
        }
        assert_eq!(compared, 3);
    }

    /// By each function of a schedule: what a handshake asks for, and lengths that it does not.
    fn derived(hkdf: &dyn Hkdf, hash_length: usize) -> Vec<Vec<u8>> {
        let (salt, secret) = (&[7; 48][..hash_length], b"a secret of the two");
        let early = hkdf.extract_from_zero_ikm(None);
        let salted = hkdf.extract_from_zero_ikm(Some(salt));
        let unsalted = hkdf.extract_from_secret(None, secret);
        let exchanged = hkdf.extract_from_secret(Some(salt), secret);
        let block = exchanged.expand_block(&[b"tls13 ", b"c hs traffic", &[]]);
        let mut all = vec![
            block.as_ref().to_vec(),
            hkdf.hmac_sign(&block, b"finished").as_ref().to_vec(),
        ];
        for expander in [
            early,
            salted,
            unsalted,
            exchanged,
            hkdf.expander_for_okm(&block),
        ] {
            assert_eq!(expander.hash_len(), hash_length);
            for length in [0, 1, 12, 16, 32, 48, 49, 200] {
                let mut out = vec![0; length];
                expander
                    .expand_slice(&[b"key", b"", b"context"], &mut out)
                    .unwrap();
                all.push(out);
            }
            let too_long = &mut vec![0; 255 * hash_length + 1];
            assert!(expander.expand_slice(&[b"key"], too_long).is_err());
        }
        all
    }
}
