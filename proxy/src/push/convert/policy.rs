//! How a service is called.

use std::time::Duration;

use http::HeaderName;
use meshgate_api::push as wire;
use meshgate_routing::upstream::{
    Algorithm, Backoff, BreakerPolicy, RetryOn, RetryPolicy, SuccessRatePolicy,
};

use super::{Enforceable, Invalid, duration, known};
use crate::service::{HashCookie, HashOn, Limits, Policy, ProxyProtocol};
use crate::tls::origin::{EndpointTls, OriginTls, OriginTlsSpec};

/// Converts a policy in which the control plane has filled in every default.
pub(super) fn policy(wire: wire::BackendPolicy) -> Result<Enforceable<Policy>, Invalid> {
    let algorithm = match known::<wire::backend_policy::Algorithm>("algorithm", wire.algorithm)? {
        wire::backend_policy::Algorithm::LeastRequest => Algorithm::LeastRequest,
        wire::backend_policy::Algorithm::RoundRobin => Algorithm::RoundRobin,
        wire::backend_policy::Algorithm::Random => Algorithm::Random,
        wire::backend_policy::Algorithm::PeakEwma => Algorithm::PeakEwma,
        wire::backend_policy::Algorithm::ConsistentHash => Algorithm::ConsistentHash,
    };
    let defaults = Policy::default();
    let connect = duration("connect_timeout", wire.connect_timeout)?;
    let hash_on = match wire.hash {
        Some(hash) => Some(hash_on(hash).map_err(|i| i.within("hash"))?),
        None if algorithm == Algorithm::ConsistentHash => {
            return Err(Invalid::new("hash", "missing"));
        }
        None => None,
    };
    let (tls, closed) = wire.tls.map(tls).unzip();
    let resource = Policy {
        algorithm,
        hash_on,
        connect_timeout: if connect.is_zero() {
            defaults.connect_timeout
        } else {
            connect
        },
        request_timeout: limit("request_timeout", wire.request_timeout)?,
        per_try_timeout: limit("per_try_timeout", wire.per_try_timeout)?,
        idle_timeout: limit("idle_timeout", wire.idle_timeout)?,
        retries: match wire.retries {
            Some(retries) => self::retries(retries).map_err(|i| i.within("retries"))?,
            None => defaults.retries,
        },
        breaker: match wire.breaker {
            Some(breaker) => self::breaker(breaker).map_err(|i| i.within("breaker"))?,
            None => defaults.breaker,
        },
        limits: match wire.limits {
            Some(limits) => self::limits(limits).map_err(|i| i.within("limits"))?,
            None => defaults.limits,
        },
        proxy_protocol: {
            use wire::backend_policy::ProxyProtocol as Pushed;
            match known::<Pushed>("proxy_protocol", wire.proxy_protocol)? {
                Pushed::Off => None,
                Pushed::V1 => Some(ProxyProtocol::V1),
                Pushed::V2 => Some(ProxyProtocol::V2),
            }
        },
        tls,
    };
    Ok(Enforceable {
        resource,
        closed: closed.flatten(),
    })
}

fn hash_on(wire: wire::HashKey) -> Result<HashOn, Invalid> {
    use wire::hash_key::Key;
    // What a header and a cookie are called is a token for both.
    let token = |field, name: String| match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name.into_boxed_str()),
        Err(why) => Err(Invalid::new(field, why)),
    };
    Ok(
        match wire.key.ok_or_else(|| Invalid::new("key", "missing"))? {
            Key::Header(name) => HashOn::Header(token("header", name.to_ascii_lowercase())?),
            Key::Cookie(cookie) => HashOn::Cookie(HashCookie {
                name: token("cookie.name", cookie.name)?,
                ttl: match cookie.ttl {
                    Some(ttl) => Some(duration("cookie.ttl", Some(ttl))?),
                    None => None,
                },
            }),
            Key::ClientAddress(_) => HashOn::ClientAddress,
            Key::Query(name) => HashOn::Query(name.into()),
        },
    )
}

/// What cannot be verified is not reached, as when the control plane finds it out: the last good version may have been
/// without TLS.
fn tls(wire: wire::BackendTls) -> (EndpointTls, Option<Invalid>) {
    if !wire.problem.is_empty() {
        return (EndpointTls::Refused(wire.problem.into()), None);
    }
    let spec = OriginTlsSpec {
        hostname: wire.hostname,
        subject_alt_names: wire.subject_alt_names,
        ca_pem: wire.ca_pem,
    };
    match OriginTls::new(spec) {
        Ok(tls) => (EndpointTls::Verified(tls.into()), None),
        Err(problem) => {
            let invalid = Invalid::new(problem.field(), problem).within("tls");
            let refused = EndpointTls::Refused(invalid.to_string().into());
            (refused, Some(invalid))
        }
    }
}

/// Zero means none.
fn limit(field: &str, value: Option<prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    Ok(Some(duration(field, value)?).filter(|limit| !limit.is_zero()))
}

fn retries(wire: wire::Retries) -> Result<RetryPolicy, Invalid> {
    if wire.attempts > RetryPolicy::ATTEMPTS_MAX {
        let why = format_args!("{} is above {}", wire.attempts, RetryPolicy::ATTEMPTS_MAX);
        return Err(Invalid::new("attempts", why));
    }
    if wire.replay_body_max_bytes > RetryPolicy::REPLAY_BODY_BYTES_MAX {
        let why = format_args!("above {}", RetryPolicy::REPLAY_BODY_BYTES_MAX);
        return Err(Invalid::new("replay_body_max_bytes", why));
    }
    Ok(RetryPolicy {
        attempts: wire.attempts,
        on: RetryOn::parse(wire.on.iter().map(String::as_str))
            .map_err(|why| Invalid::new("on", why))?,
        backoff: Backoff::new(
            duration("backoff_base", wire.backoff_base)?,
            duration("backoff_max", wire.backoff_max)?,
        ),
        budget_percent: wire.budget_percent,
        budget_min_per_second: wire.budget_min_per_second,
        replay_body_max_bytes: usize::try_from(wire.replay_body_max_bytes)
            .map_err(|why| Invalid::new("replay_body_max_bytes", why))?,
    })
}

fn breaker(wire: wire::CircuitBreaker) -> Result<BreakerPolicy, Invalid> {
    if wire.ejection_max_percent > 100 {
        return Err(Invalid::new("ejection_max_percent", "above 100"));
    }
    Ok(BreakerPolicy {
        consecutive_failures: wire.consecutive_failures,
        success_rate: match wire.success_rate {
            Some(rate) => Some(success_rate(rate).map_err(|i| i.within("success_rate"))?),
            None => None,
        },
        ejection_base: duration("ejection_base", wire.ejection_base)?,
        ejection_max: duration("ejection_max", wire.ejection_max)?,
        ejection_max_percent: wire.ejection_max_percent,
    })
}

fn success_rate(wire: wire::SuccessRate) -> Result<SuccessRatePolicy, Invalid> {
    if wire.below_percent > 100 {
        return Err(Invalid::new("below_percent", "above 100"));
    }
    let window = duration("window", wire.window)?;
    if window.is_zero() {
        return Err(Invalid::new("window", "must be above 0"));
    }
    Ok(SuccessRatePolicy {
        below: wire.below_percent,
        window,
        min_requests: wire.min_requests,
    })
}

fn limits(wire: wire::Limits) -> Result<Limits, Invalid> {
    let at_least_one = |field, value: u32| match value {
        0 => Err(Invalid::new(field, "0 would let nothing through")),
        value => Ok(value),
    };
    Ok(Limits {
        connections: at_least_one("connections", wire.connections)?,
        requests: at_least_one("requests", wire.requests)?,
        pending: wire.pending,
        pending_timeout: duration("pending_timeout", wire.pending_timeout)?,
    })
}
