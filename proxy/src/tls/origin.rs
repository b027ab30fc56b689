//! TLS to endpoints outside the mesh, as a policy asks for it.

use std::fmt;
use std::sync::Arc;

use meshgate_certs::origin::{
    NoAuthorities, NoName, OriginVerifier, SubjectName, authorities, host,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;

use super::provider;

/// How endpoints outside the mesh are reached where a policy asks for TLS. Never in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointTls {
    /// By TLS, once they proved who they are.
    Verified(Arc<OriginTls>),
    /// Not at all, and why: the policy cannot be enforced as it is.
    Refused(Arc<str>),
}

/// What endpoints must prove, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTlsSpec {
    /// Asked for in the handshake (SNI); the name that is verified unless there are others.
    pub hostname: String,
    /// DNS names and URIs: the certificate must have one of them.
    pub subject_alt_names: Vec<String>,
    /// Authorities, PEM. Trusted for these endpoints and nothing else.
    pub ca_pem: Vec<String>,
}

/// Configurations of TLS for one version of a policy. Equal when what endpoints must prove is; sessions are resumed only
/// with the value that they began with.
pub struct OriginTls {
    spec: OriginTlsSpec,
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

/// What is wrong with a policy's TLS, and in which field.
#[derive(Debug, Error)]
pub enum OriginTlsProblem {
    /// The host is none.
    #[error(transparent)]
    Hostname(NoName),
    /// A name is none.
    #[error(transparent)]
    SubjectAltName(NoName),
    /// A text holds no authorities.
    #[error(transparent)]
    Authorities(#[from] NoAuthorities),
    /// Nobody is trusted.
    #[error("there is no authority")]
    NoAuthority,
    /// The library refuses.
    #[error(transparent)]
    Library(rustls::Error),
}

impl OriginTlsProblem {
    /// As the pushed configuration names it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Hostname(_) => "hostname",
            Self::SubjectAltName(_) => "subject_alt_names",
            Self::Authorities(_) | Self::NoAuthority => "ca_pem",
            Self::Library(_) => "",
        }
    }
}

/// What is spoken inside (RFC 7301).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Alpn {
    Http1,
    Http2,
    /// Bytes of nobody knows what: nothing is offered.
    Bytes,
}

impl OriginTls {
    /// Builds the configurations. 1.3 and 1.2; no early data, which could be sent twice.
    pub fn new(spec: OriginTlsSpec) -> Result<Self, OriginTlsProblem> {
        use OriginTlsProblem as Problem;
        let name = host(&spec.hostname).map_err(Problem::Hostname)?;
        let mut roots = rustls::RootCertStore::empty();
        for text in &spec.ca_pem {
            roots.roots.extend(authorities(text.as_bytes())?.roots);
        }
        if roots.is_empty() {
            return Err(Problem::NoAuthority);
        }
        let mut names = spec
            .subject_alt_names
            .iter()
            .map(|name| name.parse().map_err(Problem::SubjectAltName))
            .collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            names.push(SubjectName::Dns(name.clone()));
        }
        let bytes = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(Problem::Library)?
            .dangerous()
            .with_custom_certificate_verifier(OriginVerifier::new(roots, names))
            .with_no_client_auth();
        // They share the sessions.
        let offering = |protocol: &[u8]| {
            let mut config = bytes.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self {
            spec,
            name: ServerName::DnsName(name),
            http1: offering(b"http/1.1"),
            http2: offering(b"h2"),
            bytes: Arc::new(bytes),
        })
    }

    pub(crate) fn config(&self, alpn: Alpn) -> Arc<ClientConfig> {
        match alpn {
            Alpn::Http1 => self.http1.clone(),
            Alpn::Http2 => self.http2.clone(),
            Alpn::Bytes => self.bytes.clone(),
        }
    }

    /// What is asked for in the handshake.
    pub(crate) fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }
}

impl PartialEq for OriginTls {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Eq for OriginTls {}

impl fmt::Debug for OriginTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginTls")
            .field("hostname", &self.spec.hostname)
            .field("subject_alt_names", &self.spec.subject_alt_names)
            .finish_non_exhaustive()
    }
}
