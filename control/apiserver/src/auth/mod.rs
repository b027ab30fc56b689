//! Who asks, and may they: authentication, RBAC, the node authorizer, and the reviews that clients ask about both.
//!
//! [`Auth`] decides from memory only. The server feeds it every committed write before it acknowledges it
//! ([`Auth::update`]), so a binding or a deleted account counts for the very next request.
//!
//! Order of a request: [`Auth::authenticate`] (client certificate, bearer token, impersonation) → [`Auth::authorize`]
//! (nodes, then RBAC) → the server's own work → [`Auth::admit`] for writes (no escalation; nodes change only what is theirs).
//!
//! Deliberately absent: anonymous requests beyond health checks, token files, authorization webhooks.

mod admission;
mod aggregation;
mod bootstrap;
mod certificate;
mod jwt;
mod live;
mod node;
mod rbac;
mod request;
mod review;
mod token;
mod token_request;
mod user;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use self::jwt::SigningKey;
use self::live::Live;
use self::rbac::Rbac;
use self::token::Verified;

pub(crate) use self::aggregation::write_aggregated_rules;

pub(crate) use self::admission::Write;
pub(crate) use self::bootstrap::bootstrap;
pub(crate) use self::request::Request;
pub(crate) use self::review::Review;
pub(crate) use self::user::{Attributes, Denied, User};

/// Issuer of service-account tokens, and the audience that the API server itself accepts.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// What [`Auth`] starts from.
#[derive(Clone)]
pub(crate) struct AuthOptions {
    /// Private key that signs service-account tokens: ECDSA P-256 or RSA, PKCS#8.
    pub sa_key_pem: String,
    /// Roots of client certificates.
    pub client_ca_pem: String,
}

impl std::fmt::Debug for AuthOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthOptions").finish_non_exhaustive()
    }
}

/// One per server.
pub(crate) struct Auth {
    key: SigningKey,
    clients: Arc<dyn ClientCertVerifier>,
    /// A lock rather than a swapped snapshot: pods change all the time and copying their index with each change would
    /// cost more than the lookups, which hold it for microseconds and never across an await.
    state: RwLock<State>,
    verified: Verified,
}

/// What decisions are made from.
#[derive(Default)]
struct State {
    live: Live,
    rbac: Rbac,
    node_rules: Vec<rbac::Rule>,
}

impl Auth {
    pub(crate) fn new(options: &AuthOptions) -> Result<Self, AuthError> {
        let key = SigningKey::from_pem(&options.sa_key_pem)?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(options.client_ca_pem.as_bytes()) {
            let root = root.map_err(AuthError::ClientCaPem)?;
            roots.add(root).map_err(AuthError::ClientCa)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|_| AuthError::NoClientCa)?;
        let state = State {
            node_rules: bootstrap::node_rules(),
            ..State::default()
        };
        Ok(Self {
            key,
            clients,
            state: RwLock::new(state),
            verified: Verified::default(),
        })
    }

    /// For the server's TLS configuration: certificates are optional, but what is shown must be good.
    pub(crate) fn tls_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.clients.clone()
    }

    /// Takes in a committed write, `None` for a deletion. Counts from the next decision on.
    pub(crate) fn update(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
    ) {
        if !needs(group, resource) {
            return;
        }
        let mut state = self.write();
        if group == RBAC_GROUP {
            state.rbac.update(resource, namespace, name, object);
        } else {
            state.live.update(resource, namespace, name, object);
        }
    }

    /// May `user` do this? The refusal is the whole message of the answer.
    pub(crate) fn authorize(&self, user: &User, what: &Attributes<'_>) -> Result<(), Denied> {
        let state = self.read();
        match state.decide(user, what) {
            Decision::Allowed(_) => Ok(()),
            Decision::NoOpinion(why) => Err(Denied::Forbidden(what.forbidden(user, &why))),
        }
    }

    /// The rules that an aggregated ClusterRole has at this moment; `None` for any other.
    pub(crate) fn aggregated_rules(&self, name: &str) -> Option<Value> {
        self.read().rbac.aggregated_rules(name)
    }

    // A panic while the lock is held leaves maps that are whole in themselves; refusing everybody from then on would
    // turn one lost update into a dead server.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Whether [`Auth::update`] wants the objects of this resource.
pub(crate) fn needs(group: &str, resource: &str) -> bool {
    match group {
        "" => live::RESOURCES.contains(&resource),
        RBAC_GROUP => rbac::RESOURCES.contains(&resource),
        _ => false,
    }
}

/// The outcome of authorization: nothing here denies for good, what nobody allows is refused.
enum Decision {
    Allowed(String),
    NoOpinion(String),
}

impl State {
    fn decide(&self, user: &User, what: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allowed(format!("the group {MASTERS} may do everything"));
        }
        let mut why = String::new();
        if let Some(node) = node::name_of(user) {
            match node::authorize(node, what, &self.live, &self.node_rules) {
                Ok(()) => return Decision::Allowed(format!("allowed to node {node}")),
                Err(reason) => why = reason.to_owned(),
            }
        }
        match self.rbac.authorize(user, what) {
            Ok(grant) => Decision::Allowed(grant.to_string()),
            Err(missing) => {
                if why.is_empty() {
                    why = missing;
                }
                Decision::NoOpinion(why)
            }
        }
    }
}

/// Why the server cannot start to authenticate.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("the key of service accounts is not PEM")]
    KeyPem(#[source] rustls_pki_types::pem::Error),
    #[error("the key of service accounts is neither ECDSA P-256 nor RSA")]
    Key,
    #[error("the CA of clients is not PEM")]
    ClientCaPem(#[source] rustls_pki_types::pem::Error),
    #[error("the CA of clients cannot be a root")]
    ClientCa(#[source] rustls::Error),
    #[error("the CA of clients holds no certificate")]
    NoClientCa,
}

#[cfg(test)]
mod tests;
