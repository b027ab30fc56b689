//! The site's certificate: made anew by each run, kept in files for the engine, trusted by clients.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use meshgate_proxy::tls::{Certificates, certified_key};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

const CHAIN: &str = "chain.pem";
const KEY: &str = "key.pem";
const HOSTS: &str = "*.bench.test";

/// A certificate that signed itself.
pub(crate) struct Issued {
    folder: TempDir,
    /// TLS 1.3 with full handshakes only.
    pub(crate) client: Arc<ClientConfig>,
}

impl Issued {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let issued = rcgen::generate_simple_self_signed([HOSTS.to_owned()])?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join(CHAIN), issued.cert.pem())?;
        fs::write(folder.path().join(KEY), issued.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(issued.cert.der().clone())?;
        // X25519 alone, as the comparison with other proxies has it: not every peer there knows a post-quantum group.
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Self {
            folder,
            client: Arc::new(client),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// What the engine presents.
pub(crate) fn certificates(folder: &Path) -> anyhow::Result<Certificates> {
    let read = |name| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let mut certificates = Certificates::default();
    certificates.add(HOSTS, certified_key(&read(CHAIN)?, &read(KEY)?)?)?;
    Ok(certificates)
}
