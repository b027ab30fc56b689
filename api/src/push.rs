//! The pushed configuration: generated from `proto/push.proto`, plus what both ends must compute alike.

#[expect(clippy::allow_attributes, reason = "generated code")]
mod generated {
    tonic::include_proto!("meshgate.push.v1alpha1");
}
pub use generated::*;

use std::fmt;

/// Longest message of the push stream, in both directions: a full state of 10,000 Services with 10 endpoints each is some
/// 20 MiB, and a proxy that resumes names all that it holds in one request.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Never prints the private key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

/// A resource type that travels over [`push_client::PushClient::delta`].
pub trait ResourceBody: prost::Message + prost::Name + Default {
    /// The `type_url` of requests, responses and bodies.
    fn resource_type_url() -> String {
        format!("type.meshgate.dev/{}", Self::full_name())
    }
}

impl ResourceBody for EdgeHost {}
impl ResourceBody for Service {}
impl ResourceBody for Certificate {}
impl ResourceBody for Workload {}

/// Hash over the name and version of everything one side holds of a type (`DeltaResponse.held_hash`).
///
/// Independent of order, so both ends may keep it incrementally: it is the wrapping sum of [`resource_hash`].
/// It finds lost updates, not attackers: the stream is authenticated by mTLS.
pub fn held_hash<'a>(held: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    held.into_iter().fold(0, |sum, (name, version)| {
        sum.wrapping_add(resource_hash(name, version))
    })
}

/// What one resource adds to [`held_hash`]: FNV-1a over `name`, a zero byte and `version`, then mixed (splitmix64).
pub fn resource_hash(name: &str, version: &str) -> u64 {
    let bytes = name.bytes().chain([0]).chain(version.bytes());
    let fnv = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Certificate, held_hash};

    #[test]
    fn held_hash_ignores_order_but_nothing_else() {
        let hash = |held: &[(&str, &str)]| held_hash(held.iter().copied());
        assert_eq!(hash(&[]), 0);
        assert_eq!(
            hash(&[("a", "1"), ("b", "2")]),
            hash(&[("b", "2"), ("a", "1")])
        );
        assert_ne!(
            hash(&[("a", "1"), ("b", "2")]),
            hash(&[("a", "2"), ("b", "1")])
        );
        assert_ne!(hash(&[("a", "1")]), hash(&[("a1", "")]));
    }

    #[test]
    fn debug_of_a_certificate_hides_its_key() {
        let certificate = Certificate {
            hosts: vec!["a.test".into()],
            chain_pem: "chain".into(),
            key_pem: "secret".into(),
            ..Certificate::default()
        };
        assert!(!format!("{certificate:?}").contains("secret"));
    }
}
