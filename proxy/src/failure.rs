//! Why a request or a connection failed: whose fault it is, at which step, and whether trying again is safe.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use meshgate_routing::upstream::{FailureKind, Safety};

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client's.
    Downstream,
    /// The endpoint's or the network's between.
    Upstream,
    /// Ours or the configuration's.
    Proxy,
}

/// Where in the story of a request it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Reading and judging the request.
    Identify,
    /// Finding its rule.
    Route,
    /// Access rules and rate limits.
    Permit,
    /// Choosing an endpoint.
    Pick,
    /// Reaching the endpoint.
    Connect,
    /// The exchange itself.
    Exchange,
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It cannot help.
    Never,
    /// Provided that the policy wants it after such a failure.
    Perhaps(FailureKind, Safety),
}

/// The name in `Meshgate-Reason`, in records and in metrics. A closed list: it bounds the series.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// Malformed or ambiguous request.
    BadRequest,
    /// Request head over a limit.
    HeadersTooLarge,
    /// Request target over the limit.
    UriTooLong,
    /// Body over the limit.
    BodyTooLarge,
    /// CONNECT or another method that is never forwarded.
    MethodNotAllowed,
    /// The TLS name and the Host differ.
    Misdirected,
    /// Another proof is demanded by now than when the connection began.
    Outdated,
    /// The client took too long.
    ClientTimeout,
    /// The client went away.
    ClientGone,
    /// No rule for host or path.
    NoRoute,
    /// A rule that cannot be served.
    Misconfigured,
    /// Refused by an access policy.
    AccessDenied,
    /// Plaintext where mTLS is required.
    MtlsRequired,
    /// Refused by a rate limit.
    RateLimited,
    /// The service has no endpoints.
    NoEndpoint,
    /// All endpoints are ejected.
    BreakerOpen,
    /// A limit of connections, requests or pending requests.
    Overload,
    /// No connection to the endpoint.
    UpstreamConnect,
    /// The endpoint did not prove its identity.
    UpstreamIdentity,
    /// The endpoint ended the exchange.
    UpstreamReset,
    /// The endpoint broke the protocol.
    UpstreamProtocol,
    /// One attempt took too long.
    PerTryTimeout,
    /// All attempts together took too long.
    RequestTimeout,
    /// This proxy is going away.
    Draining,
    /// A request that came to itself again.
    Loop,
}

impl Reason {
    /// As written in headers, records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::HeadersTooLarge => "headers-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::BodyTooLarge => "body-too-large",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Misdirected => "misdirected",
            Self::Outdated => "outdated",
            Self::ClientTimeout => "client-timeout",
            Self::ClientGone => "client-gone",
            Self::NoRoute => "no-route",
            Self::Misconfigured => "misconfigured",
            Self::AccessDenied => "access-denied",
            Self::MtlsRequired => "mtls-required",
            Self::RateLimited => "rate-limited",
            Self::NoEndpoint => "no-endpoint",
            Self::BreakerOpen => "breaker-open",
            Self::Overload => "overload",
            Self::UpstreamConnect => "upstream-connect",
            Self::UpstreamIdentity => "upstream-identity",
            Self::UpstreamReset => "upstream-reset",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::PerTryTimeout => "per-try-timeout",
            Self::RequestTimeout => "request-timeout",
            Self::Draining => "draining",
            Self::Loop => "loop",
        }
    }

    /// The status a client gets.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected | Self::Outdated => StatusCode::MISDIRECTED_REQUEST,
            Self::ClientTimeout | Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::AccessDenied | Self::MtlsRequired => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Misconfigured
            | Self::NoEndpoint
            | Self::BreakerOpen
            | Self::Overload
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnect
            | Self::UpstreamIdentity
            | Self::UpstreamReset
            | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::PerTryTimeout | Self::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }
}

/// A failure, complete from birth.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose fault.
    pub side: Side,
    /// Where in the story.
    pub step: Step,
    /// Whether to try again.
    pub retry: Retry,
    /// Its name.
    pub reason: Reason,
    /// More for people; never a secret, never the contents of a policy. Shown to clients.
    pub detail: Cow<'static, str>,
    /// For rate limits: what the answer's fields say.
    pub limited: Option<Box<Limited>>,
}

/// What a client is told about the limit that refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Name of the limit.
    pub name: String,
    /// `requests` of the limit.
    pub quota: u64,
    /// Its window.
    pub window: Duration,
    /// When to come back.
    pub retry_after: Duration,
}

impl Failure {
    /// A failure that no second attempt can help.
    pub fn new(
        side: Side,
        step: Step,
        reason: Reason,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            side,
            step,
            retry: Retry::Never,
            reason,
            detail: detail.into(),
            limited: None,
        }
    }

    /// The client's fault.
    pub fn downstream(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Side::Downstream, Step::Identify, reason, detail)
    }

    /// A failed attempt that another endpoint may do better.
    pub fn upstream(
        step: Step,
        reason: Reason,
        retry: (FailureKind, Safety),
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            retry: Retry::Perhaps(retry.0, retry.1),
            ..Self::new(Side::Upstream, step, reason, detail)
        }
    }

    /// The status a client gets.
    pub fn status(&self) -> StatusCode {
        self.reason.status()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if !self.detail.is_empty() {
            write!(f, "; {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
