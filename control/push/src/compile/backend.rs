//! BackendPolicy as enforced: defaults filled in.

use std::time::Duration;

use meshgate_api::{
    policies::{
        backend::{Algorithm, BackendPolicySpec, HashKey, LoadBalancing, ProxyProtocol, TlsMode},
        duration::GatewayDuration,
    },
    push,
};

use super::report::{Effect, Unsupported};
use crate::objects::Name;

/// Only what provably was not processed is tried again unless a policy says otherwise.
const DEFAULT_RETRY_ON: [&str; 2] = ["ConnectFailure", "RefusedStream"];

/// The policy with its defaults (reference: hardening, edge defaults); `None` = no policy.
pub(super) fn compile_policy(
    policy: Option<(&Name, &BackendPolicySpec)>,
    tls: Option<push::BackendTls>,
) -> push::BackendPolicy {
    let spec = policy.map(|(_, spec)| spec);
    let timeouts = spec.and_then(|spec| spec.timeouts.as_ref());
    let or = |value: Option<GatewayDuration>, default_ms: u64| {
        let value = value.map_or(Duration::from_millis(default_ms), |value| value.0);
        prost_types::Duration::try_from(value).ok()
    };
    push::BackendPolicy {
        origin: policy.map(|(name, _)| name.to_string()).unwrap_or_default(),
        algorithm: algorithm(spec.and_then(|spec| spec.load_balancing.as_ref())).into(),
        connect_timeout: or(timeouts.and_then(|timeouts| timeouts.connect), 5_000),
        request_timeout: or(timeouts.and_then(|timeouts| timeouts.request), 0),
        per_try_timeout: or(timeouts.and_then(|timeouts| timeouts.per_try), 0),
        idle_timeout: or(timeouts.and_then(|timeouts| timeouts.idle), 3_600_000),
        retries: Some(retries(spec, or)),
        breaker: Some(breaker(spec, or)),
        limits: Some(limits(spec, or)),
        proxy_protocol: proxy_protocol(spec.and_then(|spec| spec.proxy_protocol)).into(),
        hash: spec
            .and_then(|spec| spec.load_balancing.as_ref())
            .filter(|balancing| balancing.algorithm == Algorithm::ConsistentHash)
            .and_then(|balancing| Some(hash_key(balancing.hash.as_ref()?))),
        tls,
    }
}

fn proxy_protocol(version: Option<ProxyProtocol>) -> push::backend_policy::ProxyProtocol {
    use push::backend_policy::ProxyProtocol as Pushed;
    match version {
        None => Pushed::Off,
        Some(ProxyProtocol::V1) => Pushed::V1,
        Some(ProxyProtocol::V2) => Pushed::V2,
    }
}

fn algorithm(balancing: Option<&LoadBalancing>) -> push::backend_policy::Algorithm {
    use push::backend_policy::Algorithm as Pushed;
    match balancing.map(|balancing| balancing.algorithm) {
        Some(Algorithm::RoundRobin) => Pushed::RoundRobin,
        Some(Algorithm::Random) => Pushed::Random,
        Some(Algorithm::PeakEwma) => Pushed::PeakEwma,
        Some(Algorithm::ConsistentHash) => Pushed::ConsistentHash,
        None | Some(Algorithm::LeastRequest) => Pushed::LeastRequest,
    }
}

fn hash_key(key: &HashKey) -> push::HashKey {
    use push::hash_key::Key;
    let key = match key {
        HashKey::Header(name) => Key::Header(name.to_ascii_lowercase()),
        HashKey::Cookie { name, ttl } => Key::Cookie(push::HashCookie {
            name: name.clone(),
            ttl: ttl.and_then(|ttl| prost_types::Duration::try_from(ttl.0).ok()),
        }),
        HashKey::ClientAddress {} => Key::ClientAddress(true),
        HashKey::Query(name) => Key::Query(name.clone()),
    };
    push::HashKey { key: Some(key) }
}

type OrDefault = fn(Option<GatewayDuration>, u64) -> Option<prost_types::Duration>;

fn retries(spec: Option<&BackendPolicySpec>, or: OrDefault) -> push::Retries {
    let retries = spec.and_then(|spec| spec.retries.as_ref());
    let backoff = retries.and_then(|retries| retries.backoff.as_ref());
    let budget = retries.and_then(|retries| retries.budget.as_ref());
    let on = match retries.and_then(|retries| retries.on.as_ref()) {
        None => DEFAULT_RETRY_ON.map(str::to_owned).to_vec(),
        Some(on) => on.iter().map(|on| retry_condition(on)).collect(),
    };
    push::Retries {
        attempts: retries.and_then(|retries| retries.attempts).unwrap_or(2),
        on,
        backoff_base: or(backoff.and_then(|backoff| backoff.base), 25),
        backoff_max: or(backoff.and_then(|backoff| backoff.max), 250),
        budget_percent: budget.and_then(|budget| budget.percent).unwrap_or(20),
        budget_min_per_second: budget
            .and_then(|budget| budget.min_per_second)
            .unwrap_or(10),
        replay_body_max_bytes: retries
            .and_then(|retries| retries.replay_body_max)
            .map_or(64 << 10, |max| max.0),
    }
}

/// Gateway API's Retriable4xx is 409.
fn retry_condition(name: &str) -> String {
    match name {
        "Retriable4xx" => "409".into(),
        name => name.into(),
    }
}

fn breaker(spec: Option<&BackendPolicySpec>, or: OrDefault) -> push::CircuitBreaker {
    let breaker = spec.and_then(|spec| spec.circuit_breaker.as_ref());
    let ejection = breaker.and_then(|breaker| breaker.ejection.as_ref());
    push::CircuitBreaker {
        consecutive_failures: breaker
            .and_then(|breaker| breaker.consecutive_failures)
            .unwrap_or(5),
        success_rate: breaker
            .and_then(|breaker| breaker.success_rate.as_ref())
            .map(|rate| push::SuccessRate {
                below_percent: rate.below,
                window: or(rate.window, 10_000),
                min_requests: rate.min_requests.unwrap_or(20),
            }),
        ejection_base: or(ejection.and_then(|ejection| ejection.base), 1_000),
        ejection_max: or(ejection.and_then(|ejection| ejection.max), 60_000),
        ejection_max_percent: ejection
            .and_then(|ejection| ejection.max_percent)
            .unwrap_or(50),
    }
}

fn limits(spec: Option<&BackendPolicySpec>, or: OrDefault) -> push::Limits {
    let limits = spec.and_then(|spec| spec.limits.as_ref());
    push::Limits {
        connections: limits.and_then(|limits| limits.connections).unwrap_or(1024),
        requests: limits.and_then(|limits| limits.requests).unwrap_or(1024),
        pending: limits.and_then(|limits| limits.pending).unwrap_or(256),
        pending_timeout: or(limits.and_then(|limits| limits.pending_timeout), 3_000),
    }
}

/// The fields that are set and not supported yet.
pub(super) fn unsupported(spec: &BackendPolicySpec) -> Vec<Unsupported> {
    let balancing = spec.load_balancing.as_ref();
    let retries = spec.retries.as_ref();
    let tls = spec.tls.as_ref();
    let fields = [
        (
            "loadBalancing.hash without ConsistentHash",
            balancing.is_some_and(|b| b.hash.is_some() && b.algorithm != Algorithm::ConsistentHash),
        ),
        (
            "loadBalancing.slowStart",
            balancing.is_some_and(|b| b.slow_start.is_some()),
        ),
        (
            "loadBalancing.locality",
            balancing.is_some_and(|b| b.locality.is_some()),
        ),
        (
            "retries.hedgeAfter",
            retries.is_some_and(|r| r.hedge_after.is_some()),
        ),
        ("healthCheck", spec.health_check.is_some()),
        (
            "tls.mode Mutual",
            tls.is_some_and(|tls| tls.mode == TlsMode::Mutual),
        ),
        (
            "tls.clientCertificateRef",
            tls.is_some_and(|tls| tls.client_certificate_ref.is_some()),
        ),
    ];
    let fields = fields.into_iter().filter(|(_, is_set)| *is_set);
    let unsupported = fields.map(|(path, _)| {
        let effect = match path.starts_with("tls.") {
            true => Effect::NothingSent,
            false => Effect::NotEnforced,
        };
        Unsupported::new(format!("spec.{path}"), effect)
    });
    unsupported.collect()
}
