//! A workload's identity as the engine's TLS.

use std::sync::Arc;

use meshgate_certs::identity::{SpiffeId, TrustDomain};
use meshgate_certs::verify::{DownstreamVerifier, Expected, UpstreamVerifier};
use meshgate_routing::WorkloadId;
use meshgate_routing::identity::NotAnIdentity;
use rustls::client::Resumption;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::identity::WorkloadIdentity;
use crate::tls::{self, MeshTls};

/// TLS 1.3 only, both sides with certificates of the mesh, HTTP/2. Certificate and roots are those in force at each
/// handshake. No session is resumed: a resumed one would outlive the certificate that it was verified with.
pub fn mesh_tls(
    identity: &WorkloadIdentity,
    domain: &TrustDomain,
) -> Result<MeshTls, MeshTlsError> {
    let provider = Arc::new(tls::provider());
    let versions = [&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(MeshTlsError::Tls)?
        .with_client_cert_verifier(DownstreamVerifier::new(
            identity.trust.clone(),
            domain.clone(),
        ))
        .with_cert_resolver(Arc::new(identity.credential.clone()));
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.send_tls13_tickets = 0;
    // Which workload of the mesh it is the engine compares after the handshake, before it sends anything.
    let any = Expected::AnyOf(domain.clone());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(MeshTlsError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(UpstreamVerifier::new(identity.trust.clone(), any))
        .with_client_cert_resolver(Arc::new(identity.credential.clone()));
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    Ok(MeshTls {
        identity: WorkloadId::parse(identity.id.as_str()).map_err(MeshTlsError::Identity)?,
        server: Arc::new(server),
        client: Arc::new(client),
        identify: Arc::new(identify),
    })
}

/// The workload that a verified chain names.
fn identify(chain: &[CertificateDer<'_>]) -> Result<WorkloadId, String> {
    let id = SpiffeId::of_peer(Some(chain)).map_err(|why| why.to_string())?;
    WorkloadId::parse(id.as_str()).map_err(|why| why.to_string())
}

/// Why an identity cannot be used by the engine.
#[derive(Debug, thiserror::Error)]
pub enum MeshTlsError {
    /// The TLS library refused our settings.
    #[error("cannot set up mTLS")]
    Tls(#[source] rustls::Error),
    /// The name is none.
    #[error("this workload's own identity is unusable")]
    Identity(#[source] NotAnIdentity),
}
