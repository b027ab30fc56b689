//! A workload's identity: proven by its projected token, certified by the control plane, renewed while it is good.
//!
//! The life of a certificate: a new key and a signing request, `Certify` with the token of that moment, the swap (new
//! connections present it, existing ones go on), and the same again at 70 % of its life. A failure keeps the valid one
//! until it expires and is said aloud.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use meshgate_api::push as wire;
use meshgate_certs::credential::{Credential, CredentialError, CurrentCredential};
use meshgate_certs::csr::{self, CsrError};
use meshgate_certs::expiry::Validity;
use meshgate_certs::identity::{IdentityError, InvalidId, SpiffeId, TrustDomain};
use meshgate_certs::renewal::{Held, Renewal, Step};
use meshgate_certs::trust::{Trust, TrustBundle, TrustError};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tracing::{error, info, warn};

use super::dial::{ControlPlane, DialError};
use super::report::Chain;

/// A workload without a valid certificate serves nothing, so it asks this often at least.
const RETRY_WITHOUT_CERTIFICATE: Duration = Duration::from_secs(2);
/// Longest single sleep until the renewal: wall clocks step and machines sleep, and monotonic timers do not notice.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the answer to one request.
const CERTIFY_TIMEOUT: Duration = Duration::from_secs(10);
/// A token is a JWT of some 1 KiB; what is larger is no token.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// Who this workload is, with what proves it; swapped in place at each renewal.
#[derive(Debug, Clone)]
pub struct WorkloadIdentity {
    /// Its name.
    pub id: SpiffeId,
    /// Its certificate and key in force.
    pub credential: CurrentCredential,
    /// The roots its peers are verified against.
    pub trust: Trust,
}

/// Waits for the identity; `None` when its client has ended, and so will the process.
pub(super) async fn first(
    identity: &mut watch::Receiver<Option<WorkloadIdentity>>,
) -> Option<WorkloadIdentity> {
    let known = identity.wait_for(Option::is_some).await;
    known.ok().and_then(|known| known.clone())
}

/// Obtains and renews this workload's certificate.
#[derive(Debug)]
pub struct IdentityClient {
    /// Whom to ask.
    pub control: ControlPlane,
    /// The projected token (audience `meshgate.dev/identity`); rotated by the node, so read anew each time.
    pub token_path: PathBuf,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
}

struct Issued {
    id: SpiffeId,
    credential: Credential,
    bundle: TrustBundle,
}

impl IdentityClient {
    /// Publishes the identity once there is one, keeps it fresh until `shutdown`, and tells `on_validity` each new span.
    pub async fn run(
        self,
        publish: watch::Sender<Option<WorkloadIdentity>>,
        on_validity: impl Fn(Validity),
        shutdown: CancellationToken,
    ) {
        let mut renewal = Renewal::new(Timestamp::now());
        loop {
            let wait = match renewal.next(Timestamp::now()) {
                Step::WaitUntil(due) => until(due, Timestamp::now()),
                Step::Request => match shutdown.run_until_cancelled(self.certify()).await {
                    None => return,
                    Some(Ok(issued)) => {
                        let validity = issued.credential.validity();
                        on_validity(validity);
                        install(&publish, issued);
                        renewal.issued(validity, Timestamp::now(), rand::random());
                        continue;
                    }
                    Some(Err(failure)) => {
                        let now = Timestamp::now();
                        renewal.failed(now, rand::random());
                        complain(&failure, renewal.held(now));
                        continue;
                    }
                },
            };
            let wait = match renewal.held(Timestamp::now()) {
                Held::Valid(_) => wait,
                Held::Nothing | Held::Expired(_) => wait.min(RETRY_WITHOUT_CERTIFICATE),
            };
            if shutdown
                .run_until_cancelled(tokio::time::sleep(wait))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn certify(&self) -> Result<Issued, CertifyError> {
        let token = self.read_token()?;
        let id = identity_of_token(&token, &self.trust_domain)?;
        let request = csr::generate(&id).map_err(CertifyError::Csr)?;
        let channel = self.control.dial(None).await.map_err(CertifyError::Dial)?;
        let mut call = tonic::Request::new(wire::CertifyRequest {
            csr_der: request.csr_der,
        });
        let bearer: MetadataValue<_> = format!("Bearer {token}")
            .parse()
            .map_err(|_| CertifyError::TokenForm("it has characters no header may have"))?;
        call.metadata_mut().insert("authorization", bearer);
        call.set_timeout(CERTIFY_TIMEOUT);
        let answer = wire::identity_client::IdentityClient::new(channel)
            .certify(call)
            .await
            .map_err(CertifyError::Refused)?
            .into_inner();
        let der = |chain: Vec<Vec<u8>>| chain.into_iter().map(CertificateDer::from);
        let credential = Credential::new(der(answer.chain_der).collect(), request.key)
            .map_err(CertifyError::Credential)?;
        let certified = credential.identity().map_err(CertifyError::NoIdentity)?;
        if certified != id {
            return Err(CertifyError::OtherIdentity(certified));
        }
        let bundle = TrustBundle::from_der(der(answer.roots_der)).map_err(CertifyError::Bundle)?;
        Ok(Issued {
            id,
            credential,
            bundle,
        })
    }

    fn read_token(&self) -> Result<String, CertifyError> {
        let read = || {
            let size = std::fs::metadata(&self.token_path)?.len();
            if size > TOKEN_BYTES_MAX {
                return Err(io::Error::from(io::ErrorKind::FileTooLarge));
            }
            std::fs::read_to_string(&self.token_path)
        };
        match read() {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(source) => Err(CertifyError::ReadToken {
                path: self.token_path.clone(),
                source,
            }),
        }
    }
}

/// The identity a token proves: its subject is the service account. Its signature is the control plane's to check.
pub(super) fn identity_of_token(
    token: &str,
    domain: &TrustDomain,
) -> Result<SpiffeId, CertifyError> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let payload = token
        .split('.')
        .nth(1)
        .ok_or(CertifyError::TokenForm("it is no JWT"))?;
    let claims = URL_SAFE_NO_PAD
        .decode(payload)
        .map_err(|_| CertifyError::TokenForm("its claims are not base64url"))?;
    let claims: Claims = serde_json::from_slice(&claims)
        .map_err(|_| CertifyError::TokenForm("its claims have no subject"))?;
    let (namespace, account) = claims
        .sub
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .ok_or(CertifyError::TokenForm("its subject is no service account"))?;
    SpiffeId::new(domain, namespace, account).map_err(CertifyError::TokenSubject)
}

/// Swaps in place if there was one before, so that whoever holds a clone sees the new one.
fn install(publish: &watch::Sender<Option<WorkloadIdentity>>, issued: Issued) {
    let validity = issued.credential.validity();
    info!(identity = %issued.id, not_after = %validity.not_after, "certificate in force");
    publish.send_if_modified(|current| match current {
        Some(identity) => {
            // Trust first: a peer that already shows a certificate of a new root must be accepted.
            identity.trust.replace(issued.bundle);
            identity.credential.replace(issued.credential);
            false
        }
        None => {
            *current = Some(WorkloadIdentity {
                id: issued.id,
                credential: CurrentCredential::new(issued.credential),
                trust: Trust::new(issued.bundle),
            });
            true
        }
    });
}

fn complain(failure: &CertifyError, held: Held) {
    let failure = Chain(failure);
    match held {
        Held::Nothing => warn!(%failure, "no certificate yet"),
        Held::Valid(validity) => {
            warn!(%failure, not_after = %validity.not_after, "certificate not renewed; the present one stays");
        }
        Held::Expired(validity) => {
            error!(%failure, not_after = %validity.not_after, "certificate EXPIRED and not renewed: meshed traffic fails");
        }
    }
}

fn until(due: Timestamp, now: Timestamp) -> Duration {
    let wait = Duration::try_from(now.duration_until(due)).unwrap_or_default();
    wait.min(SLEEP_MAX)
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// The token's file.
    #[error("cannot read the identity token {}", path.display())]
    ReadToken {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token itself.
    #[error("the identity token is unusable: {0}")]
    TokenForm(&'static str),
    /// Whom it names.
    #[error("the identity token names no valid workload")]
    TokenSubject(#[source] InvalidId),
    /// No key or request.
    #[error("cannot make a signing request")]
    Csr(#[source] CsrError),
    /// No connection.
    #[error("cannot reach the identity service")]
    Dial(#[source] DialError),
    /// The service said no.
    #[error("the identity service refused: {} ({})", .0.message(), .0.code())]
    Refused(tonic::Status),
    /// The chain it gave.
    #[error("the certificate received is unusable")]
    Credential(#[source] CredentialError),
    /// The chain names nobody.
    #[error("the certificate received has no identity")]
    NoIdentity(#[source] IdentityError),
    /// The chain names another.
    #[error("the certificate received is for another workload, {0}")]
    OtherIdentity(SpiffeId),
    /// The roots it gave.
    #[error("the trust bundle received is unusable")]
    Bundle(#[source] TrustError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_says_who() {
        fn check(claims: &str, expected: &str) {
            let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
            let domain: TrustDomain = "cluster.local".parse().unwrap();
            let shown = match identity_of_token(&token, &domain) {
                Ok(id) => id.to_string(),
                Err(error) => Chain(&error).to_string(),
            };
            assert_eq!(shown, expected, "{claims}");
        }
        check(
            r#"{"sub":"system:serviceaccount:shop:cart","aud":["x"]}"#,
            "spiffe://cluster.local/ns/shop/sa/cart",
        );
        let unusable = |why: &str| format!("the identity token is unusable: {why}");
        check(
            r#"{"sub":"alice"}"#,
            &unusable("its subject is no service account"),
        );
        check(r#"{}"#, &unusable("its claims have no subject"));
        check("not json", &unusable("its claims have no subject"));
        check(
            r#"{"sub":"system:serviceaccount:a/b:c"}"#,
            "the identity token names no valid workload: the namespace is not a Kubernetes name",
        );
        let domain: TrustDomain = "cluster.local".parse().unwrap();
        assert!(identity_of_token("no-dots", &domain).is_err());
        assert!(identity_of_token("a.%%%.b", &domain).is_err());
    }
}
