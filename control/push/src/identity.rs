//! The identity service: a projected token in, a workload certificate out.

mod ca;
mod limiter;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use meshgate_api::{
    names,
    push::{CertifyRequest, CertifyResponse, identity_server::Identity},
};
use meshgate_certs::{
    authority::Authority,
    identity::{SpiffeId, TrustDomain},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{metrics::Metrics, xds::lock};
pub use ca::CaError;
pub(crate) use ca::load_or_create;
use limiter::Limiter;

/// A projected token has about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Token reviews at the same time: strangers must not be able to keep the API server busy.
const REVIEWS_MAX: usize = 32;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Signs workload certificates.
pub(crate) struct IdentityService {
    pub(crate) client: Client,
    pub(crate) authority: Arc<Authority>,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) ttl: Duration,
    pub(crate) metrics: Metrics,
    limiter: Mutex<Limiter>,
    reviews: Semaphore,
}

/// What a token proves.
#[derive(Debug, PartialEq, Eq)]
struct Proven {
    identity: SpiffeId,
    /// Empty when the token is not bound to a pod.
    pod: String,
}

impl IdentityService {
    pub(crate) fn new(
        client: Client,
        authority: Arc<Authority>,
        trust_domain: TrustDomain,
        ttl: Duration,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            authority,
            trust_domain,
            ttl,
            metrics,
            limiter: Mutex::default(),
            reviews: Semaphore::new(REVIEWS_MAX),
        }
    }

    async fn review(&self, token: &str) -> Result<Proven, Status> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![names::IDENTITY_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let permit = self.reviews.acquire().await;
        let reviewed = reviews.create(&PostParams::default(), &review).await;
        drop(permit);
        let reviewed = reviewed.map_err(|error| {
            tracing::warn!(%error, "tokens cannot be reviewed");
            Status::unavailable("tokens cannot be reviewed now")
        })?;
        proven(reviewed.status.unwrap_or_default(), &self.trust_domain)
    }

    fn sign(&self, csr_der: &[u8], proven: &Proven) -> Result<CertifyResponse, Status> {
        let signed = self
            .authority
            .sign(csr_der, &proven.identity, self.ttl, Timestamp::now());
        let signed = signed.map_err(|refusal| {
            tracing::warn!(identity = %proven.identity, pod = proven.pod, %refusal, "certificate refused");
            self.metrics.certified("refused");
            Status::permission_denied(refusal.to_string())
        })?;
        tracing::info!(
            identity = %proven.identity,
            pod = proven.pod,
            not_after = %signed.validity.not_after,
            "certificate signed"
        );
        self.metrics.certified("signed");
        Ok(CertifyResponse {
            chain_der: signed.chain_der.iter().map(|der| der.to_vec()).collect(),
            roots_der: vec![self.authority.cert_der().to_vec()],
            not_before_unix_s: signed.validity.not_before.as_second(),
            not_after_unix_s: signed.validity.not_after.as_second(),
        })
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn certify(
        &self,
        request: Request<CertifyRequest>,
    ) -> Result<Response<CertifyResponse>, Status> {
        let token = bearer(request.metadata())
            .inspect_err(|_| self.metrics.certified("unauthenticated"))?;
        let proven = self.review(token).await.inspect_err(|status| {
            tracing::warn!(reason = status.message(), "certificate refused");
            self.metrics.certified("unauthenticated");
        })?;
        // Replicas of one account must not slow each other down: the pod counts where the token names it.
        let asker = format!("{}#{}", proven.identity, proven.pod);
        if !lock(&self.limiter).permit(&asker, Instant::now()) {
            tracing::warn!(identity = %proven.identity, pod = proven.pod, "certificate refused: asked too often");
            self.metrics.certified("limited");
            return Err(Status::resource_exhausted(
                "asked for certificates too often",
            ));
        }
        self.sign(&request.get_ref().csr_der, &proven)
            .map(Response::new)
    }
}

fn bearer(metadata: &tonic::metadata::MetadataMap) -> Result<&str, Status> {
    let value = metadata
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let token = value
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim);
    match token {
        Some(token) if !token.is_empty() && token.len() <= TOKEN_BYTES_MAX => Ok(token),
        _ => Err(Status::unauthenticated("a bearer token is required")),
    }
}

/// The identity of a reviewed token.
fn proven(status: TokenReviewStatus, domain: &TrustDomain) -> Result<Proven, Status> {
    if status.authenticated != Some(true) {
        let error = status.error.unwrap_or_else(|| "it is not valid".into());
        return Err(Status::unauthenticated(format!(
            "the token was refused: {error}"
        )));
    }
    // A server that does not know audiences answers without them: such a token could be for anyone.
    if !status
        .audiences
        .iter()
        .flatten()
        .any(|audience| audience == names::IDENTITY_AUDIENCE)
    {
        return Err(Status::unauthenticated(format!(
            "the token is not for {}",
            names::IDENTITY_AUDIENCE
        )));
    }
    let user = status.user.unwrap_or_default();
    let account = user
        .username
        .as_deref()
        .and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let (namespace, name) = account
        .and_then(|account| account.split_once(':'))
        .ok_or_else(|| Status::permission_denied("the token is not of a service account"))?;
    let identity = SpiffeId::new(domain, namespace, name).map_err(|error| {
        Status::permission_denied(format!("the service account has no identity: {error}"))
    })?;
    let pod = user
        .extra
        .and_then(|mut extra| extra.remove(POD_NAME)?.into_iter().next());
    Ok(Proven {
        identity,
        pod: pod.unwrap_or_default(),
    })
}
