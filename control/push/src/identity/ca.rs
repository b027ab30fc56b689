//! The mesh's root, kept in a Secret: made at the first start, taken up ever after.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use meshgate_api::{client::is_already_exists, names};
use meshgate_certs::{
    authority::{Authority, AuthorityError},
    identity::TrustDomain,
};

use crate::retry::Retry;

/// Name of the Secret in the system namespace.
const SECRET: &str = "meshgate-ca";

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The Secret is there and cannot be used. Not replaced: every certificate of the mesh hangs on it.
    #[error(
        "Secret {}/{SECRET} is not a usable root; restore it, or delete it to start with a new one",
        names::SYSTEM_NAMESPACE
    )]
    Unusable(#[source] AuthorityError),
    /// The Secret is there without the root in it.
    #[error("Secret {}/{SECRET} has no text in {field}", names::SYSTEM_NAMESPACE)]
    Field {
        /// Which part.
        field: &'static str,
    },
    /// A new root cannot be made.
    #[error("cannot make a root")]
    Generate(#[source] AuthorityError),
}

/// Reads the root, or makes it. Waits for the API server and for the namespace.
pub(crate) async fn load_or_create(
    client: Client,
    domain: &TrustDomain,
) -> Result<Authority, CaError> {
    let secrets: Api<Secret> = Api::namespaced(client, names::SYSTEM_NAMESPACE);
    let mut retry = Retry::default();
    loop {
        let error = match secrets.get_opt(SECRET).await {
            Ok(Some(secret)) => return read(&secret),
            Ok(None) => {
                let authority =
                    Authority::generate(domain, Timestamp::now()).map_err(CaError::Generate)?;
                match secrets
                    .create(&PostParams::default(), &secret(&authority))
                    .await
                {
                    Ok(_) => {
                        tracing::info!(not_after = %authority.validity().not_after, "made the mesh's root");
                        return Ok(authority);
                    }
                    // Another replica was first: its root counts.
                    Err(error) if is_already_exists(&error) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        // The namespace may not be there yet, nor the permission.
        if retry.is_worth_a_warning() {
            tracing::warn!(%error, "cannot read or keep the mesh's root, trying again");
        }
        retry.pause().await;
    }
}

fn read(secret: &Secret) -> Result<Authority, CaError> {
    let field = |field: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(field));
        bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .ok_or(CaError::Field { field })
    };
    Authority::from_pem(field("tls.crt")?, field("tls.key")?).map_err(CaError::Unusable)
}

fn secret(authority: &Authority) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            namespace: Some(names::SYSTEM_NAMESPACE.into()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/part-of".into(),
                "meshgate".into(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(BTreeMap::from([
            ("ca.crt".into(), bytes(authority.cert_pem())),
            ("tls.crt".into(), bytes(authority.cert_pem())),
            ("tls.key".into(), bytes(authority.key_pem())),
        ])),
        ..Secret::default()
    }
}
