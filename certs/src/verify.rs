//! Verifiers of workload certificates for rustls, both directions. Neither ever falls back: a peer whose chain, usage,
//! time or identity is not right does not get through the handshake.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, OtherError};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::{IdentityError, SpiffeId, TrustDomain};
use crate::signatures::{algorithms, signatures_by_algorithms};
use crate::trust::Trust;

/// For servers: the client must show a certificate of the trust domain (chain, clientAuth, time). Which workload it is
/// stays for the caller to ask ([`SpiffeId::of_peer`]) and to permit.
#[derive(Debug)]
pub struct DownstreamVerifier {
    trust: Trust,
    domain: TrustDomain,
    algorithms: WebPkiSupportedAlgorithms,
}

impl DownstreamVerifier {
    pub fn new(trust: Trust, domain: TrustDomain) -> Arc<Self> {
        Arc::new(Self {
            trust,
            domain,
            algorithms: algorithms(),
        })
    }
}

impl ClientCertVerifier for DownstreamVerifier {
    // No hints: the roots may change while a listener lives, and a workload has one certificate anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .trust
            .current()
            .client
            .verify_client_cert(leaf, intermediates, now)?;
        of_domain(leaf, &self.domain).map_err(refused)?;
        Ok(verified)
    }

    signatures_by_algorithms!();
}

/// Whom a client expects to find.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Exactly this workload.
    Id(SpiffeId),
    /// Any workload of this trust domain: only for where the control plane does not know the identity.
    AnyOf(TrustDomain),
}

/// For clients: the server must show a certificate (chain, serverAuth, time) of the expected workload. The name asked for
/// in the handshake plays no part: workloads are identified by SPIFFE id, not by DNS name.
#[derive(Debug)]
pub struct UpstreamVerifier {
    trust: Trust,
    expected: Expected,
    algorithms: WebPkiSupportedAlgorithms,
}

impl UpstreamVerifier {
    pub fn new(trust: Trust, expected: Expected) -> Arc<Self> {
        Arc::new(Self {
            trust,
            expected,
            algorithms: algorithms(),
        })
    }
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.trust.current().roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        match &self.expected {
            Expected::AnyOf(domain) => of_domain(leaf, domain).map(|_| ()),
            Expected::Id(expected) => SpiffeId::of_certificate(leaf).and_then(|found| {
                if found == *expected {
                    Ok(())
                } else {
                    Err(IdentityError::OtherWorkload)
                }
            }),
        }
        .map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_algorithms!();
}

fn of_domain(leaf: &CertificateDer<'_>, domain: &TrustDomain) -> Result<SpiffeId, IdentityError> {
    let id = SpiffeId::of_certificate(leaf)?;
    if id.trust_domain() == domain.as_str() {
        Ok(id)
    } else {
        Err(IdentityError::OtherTrustDomain)
    }
}

fn refused(error: IdentityError) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

#[cfg(test)]
mod tests;
