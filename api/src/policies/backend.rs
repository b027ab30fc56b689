//! `BackendPolicy`.

use std::str::FromStr;

use serde::Deserialize;

use super::{Reserved, TargetRef, duration::GatewayDuration};

/// `spec` of a BackendPolicy. What is absent keeps its default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicySpec {
    /// Services it applies to.
    pub target_refs: Vec<TargetRef>,
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// How an endpoint is chosen.
    #[serde(default)]
    pub load_balancing: Option<LoadBalancing>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: Option<Timeouts>,
    /// What is tried again.
    #[serde(default)]
    pub retries: Option<Retries>,
    /// When an endpoint is ejected.
    #[serde(default)]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How much at once.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// Connections begin with a PROXY header that tells the client; only to endpoints outside the mesh.
    #[serde(default)]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Active checks. Not enforced yet.
    #[serde(default)]
    pub health_check: Option<Reserved>,
    /// TLS to endpoints outside the mesh.
    #[serde(default)]
    pub tls: Option<Box<Tls>>,
}

/// TLS to endpoints outside the mesh, as in Gateway API's BackendTLSPolicy (GEP-1897).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Who proves who they are.
    #[serde(default)]
    pub mode: TlsMode,
    /// Where the authorities are that endpoints' certificates must come from; at least one.
    #[serde(default)]
    pub ca_refs: Vec<CaRef>,
    /// Asked for in the handshake (SNI), and verified unless there are other names.
    #[serde(default)]
    pub hostname: String,
    /// DNS names and URIs; with any, the certificate must have one of them.
    #[serde(default)]
    pub subject_alt_names: Vec<String>,
    /// What a proxy would show of itself. Not enforced yet: nothing is sent to such endpoints.
    #[serde(default)]
    pub client_certificate_ref: Option<Reserved>,
}

impl Tls {
    /// Whether it asks for nothing that is not enforced yet.
    pub fn is_supported(&self) -> bool {
        self.mode == TlsMode::Simple && self.client_certificate_ref.is_none()
    }
}

/// Who proves who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TlsMode {
    /// The endpoint.
    #[default]
    Simple,
    /// The proxy as well. Not enforced yet: nothing is sent to such endpoints.
    Mutual,
}

/// An object of the policy's namespace with authorities, PEM, under the key `ca.crt`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CaRef {
    /// Empty: the core group.
    #[serde(default)]
    pub group: String,
    /// Which kind.
    pub kind: CaKind,
    /// Its name.
    pub name: String,
}

/// What holds authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum CaKind {
    /// For certificates, which are no secrets.
    ConfigMap,
    /// Where they lie beside a key.
    Secret,
}

/// What endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// Detected.
    Auto,
    /// HTTP/1.1.
    #[serde(rename = "HTTP1")]
    Http1,
    /// HTTP/2 with prior knowledge.
    #[serde(rename = "HTTP2")]
    Http2,
    /// Bytes.
    #[serde(rename = "TCP")]
    Tcp,
}

/// Versions of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    /// The rule.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What ConsistentHash hashes.
    #[serde(default)]
    pub hash: Option<HashKey>,
    /// Ramp-up of new endpoints. Not enforced yet.
    #[serde(default)]
    pub slow_start: Option<Reserved>,
    /// Preference for near endpoints. Not enforced yet.
    #[serde(default)]
    pub locality: Option<Reserved>,
}

/// Balancing algorithms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// The less loaded of two random endpoints.
    #[default]
    LeastRequest,
    /// The one of two random endpoints where a request takes less time.
    PeakEwma,
    /// In turn.
    RoundRobin,
    /// Any.
    Random,
    /// The same one for the same key.
    ConsistentHash,
}

/// What ConsistentHash hashes; requests without it go by load.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashKey {
    /// A request header's value.
    Header(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// Clients without it are given one for so long; zero: for the browser's session; absent: they are given none.
        #[serde(default)]
        ttl: Option<GatewayDuration>,
    },
    /// The client's address.
    ClientAddress {},
    /// A parameter of the query.
    Query(String),
}

/// How long things may take; zero = no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// Until a connection stands.
    #[serde(default)]
    pub connect: Option<GatewayDuration>,
    /// The whole request with its retries.
    #[serde(default)]
    pub request: Option<GatewayDuration>,
    /// Each try.
    #[serde(default)]
    pub per_try: Option<GatewayDuration>,
    /// Without a byte in either direction.
    #[serde(default)]
    pub idle: Option<GatewayDuration>,
}

/// What is tried again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Tries besides the first.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// ConnectFailure, RefusedStream, ResetBeforeResponse, GatewayError, PerTryTimeout, a status, or a gRPC code by name.
    ///
    /// Also read as `true`: that is what YAML 1.1, and so kubectl, makes of a bare `on`.
    #[serde(default, alias = "true")]
    pub on: Option<Vec<String>>,
    /// Pause before a retry.
    #[serde(default)]
    pub backoff: Option<Backoff>,
    /// Share of requests that may be retries.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Larger bodies are not retried once sent: bytes, or with Ki or Mi.
    #[serde(default)]
    pub replay_body_max: Option<ByteCount>,
    /// Hedging. Not enforced yet.
    #[serde(default)]
    pub hedge_after: Option<Reserved>,
}

/// Pause before a retry, doubling with jitter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Backoff {
    /// The first.
    #[serde(default)]
    pub base: Option<GatewayDuration>,
    /// The longest.
    #[serde(default)]
    pub max: Option<GatewayDuration>,
}

/// Share of requests that may be retries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Budget {
    /// Of the requests of the last seconds.
    #[serde(default)]
    pub percent: Option<u32>,
    /// Always permitted.
    #[serde(default)]
    pub min_per_second: Option<u32>,
}

/// When an endpoint is ejected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// 5xx, resets and timeouts in a row; zero turns it off.
    #[serde(default)]
    pub consecutive_failures: Option<u32>,
    /// Failures among successes.
    #[serde(default)]
    pub success_rate: Option<SuccessRate>,
    /// For how long, and how many.
    #[serde(default)]
    pub ejection: Option<Ejection>,
}

/// Ejects who fails too often, though never often enough in a row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessRate {
    /// Percent of requests that succeed.
    pub below: u32,
    /// Requests that are over for longer do not count.
    #[serde(default)]
    pub window: Option<GatewayDuration>,
    /// Of fewer nothing is concluded.
    #[serde(default)]
    pub min_requests: Option<u32>,
}

/// For how long endpoints are ejected, and how many at once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ejection {
    /// The first time, doubling.
    #[serde(default)]
    pub base: Option<GatewayDuration>,
    /// The longest.
    #[serde(default)]
    pub max: Option<GatewayDuration>,
    /// Of all endpoints, at once.
    #[serde(default)]
    pub max_percent: Option<u32>,
}

/// How much at once, per proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections to the service.
    #[serde(default)]
    pub connections: Option<u32>,
    /// Requests in flight.
    #[serde(default)]
    pub requests: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(default)]
    pub pending: Option<u32>,
    /// How long they wait.
    #[serde(default)]
    pub pending_timeout: Option<GatewayDuration>,
}

/// A number of bytes: `65536`, `64Ki`, `1Mi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteCount(pub u64);

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, unit) = match text {
            _ if text.ends_with("Ki") => (&text[..text.len() - 2], 1 << 10),
            _ if text.ends_with("Mi") => (&text[..text.len() - 2], 1 << 20),
            _ => (text, 1),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is not a number of bytes: write 65536, 64Ki or 1Mi"))
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NumberOrText {
            Number(u64),
            Text(String),
        }
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(count) => Ok(Self(count)),
            NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}
