//! Clients of the API server, by kubeconfig.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::CertificateDer;

/// A client as the kubeconfig's user.
pub(crate) async fn from_kubeconfig(path: &Path) -> anyhow::Result<kube::Client> {
    Ok(meshgate_api::client::connect(path).await?)
}

/// The CA that the kubeconfig verifies its API server with.
pub(crate) async fn ca_pem(path: &Path) -> anyhow::Result<String> {
    let named = || format!("kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(named)?;
    let roots = config
        .root_cert
        .with_context(|| format!("{}: it names no certificate authority", named()))?;
    let roots =
        meshgate_certs::trust::TrustBundle::from_der(roots.into_iter().map(CertificateDer::from))
            .with_context(named)?;
    Ok(roots.pem())
}
