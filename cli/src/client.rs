//! Clients of the API server, by kubeconfig.

use std::path::Path;

/// A client as the kubeconfig's user.
pub(crate) async fn from_kubeconfig(path: &Path) -> anyhow::Result<kube::Client> {
    Ok(meshgate_api::client::connect(path).await?)
}
