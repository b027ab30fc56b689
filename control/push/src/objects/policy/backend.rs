//! What makes a BackendPolicy valid.

use std::{fmt::Display, str::FromStr};

use meshgate_api::policies::{
    TargetRef,
    backend::{
        Algorithm, BackendPolicySpec, CircuitBreaker, HashKey, Limits, LoadBalancing, Retries, Tls,
    },
};
use meshgate_certs::origin::{self, SubjectName};
use meshgate_routing::upstream::{RetryOn, RetryPolicy};
use serde_json::Value;

use super::Checked;

impl Checked for BackendPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    fn stand_in(spec: &Value, declared: &[TargetRef]) -> Option<(Self, &'static str)> {
        spec.get("tls").filter(|tls| !tls.is_null())?;
        let closed = Self {
            target_refs: declared.to_vec(),
            tls: Some(Box::default()),
            ..Self::default()
        };
        Some((closed, "nothing is sent to endpoints outside the mesh"))
    }

    fn check(&self) -> Result<(), String> {
        if let Some(balancing) = &self.load_balancing {
            check_balancing(balancing)?;
        }
        if let Some(retries) = &self.retries {
            check_retries(retries).map_err(|problem| format!("spec.retries.{problem}"))?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            check_breaker(breaker).map_err(|problem| format!("spec.circuitBreaker.{problem}"))?;
        }
        if let Some(limits) = &self.limits {
            check_limits(limits).map_err(|problem| format!("spec.limits.{problem}"))?;
        }
        self.tls.as_deref().map_or(Ok(()), check_tls)
    }
}

/// What proxies refuse freezes the whole Service, its endpoints included: so nothing that they refuse is accepted here.
fn at_most<T: PartialOrd + Display>(at: &str, value: Option<T>, max: T) -> Result<(), String> {
    match value {
        Some(value) if value > max => Err(format!("{at}: {value} is above {max}")),
        _ => Ok(()),
    }
}

fn check_retries(retries: &Retries) -> Result<(), String> {
    for (index, condition) in retries.on.iter().flatten().enumerate() {
        RetryOn::parse([condition.as_str()])
            .map_err(|problem| format!("on[{index}]: {problem}"))?;
    }
    at_most("attempts", retries.attempts, RetryPolicy::ATTEMPTS_MAX)?;
    let replay = retries.replay_body_max.map(|max| max.0);
    at_most("replayBodyMax", replay, RetryPolicy::REPLAY_BODY_BYTES_MAX)?;
    let budget = retries.budget.as_ref();
    at_most("budget.percent", budget.and_then(|b| b.percent), 100)
}

fn check_breaker(breaker: &CircuitBreaker) -> Result<(), String> {
    let ejection = breaker.ejection.as_ref();
    at_most(
        "ejection.maxPercent",
        ejection.and_then(|e| e.max_percent),
        100,
    )?;
    let Some(rate) = &breaker.success_rate else {
        return Ok(());
    };
    at_most("successRate.below", Some(rate.below), 100)?;
    match rate.window.is_some_and(|window| window.0.is_zero()) {
        true => Err("successRate.window: must be above 0".into()),
        false => Ok(()),
    }
}

fn check_limits(limits: &Limits) -> Result<(), String> {
    for (at, value) in [
        ("connections", limits.connections),
        ("requests", limits.requests),
    ] {
        if value == Some(0) {
            return Err(format!("{at}: 0 would let nothing through"));
        }
    }
    Ok(())
}

fn check_balancing(balancing: &LoadBalancing) -> Result<(), String> {
    let at = "spec.loadBalancing.hash";
    let (at, name) = match &balancing.hash {
        None if balancing.algorithm == Algorithm::ConsistentHash => {
            return Err(format!(
                "{at}: ConsistentHash needs what it hashes: header, cookie, clientAddress or query"
            ));
        }
        None | Some(HashKey::ClientAddress {} | HashKey::Query(_)) => return Ok(()),
        Some(HashKey::Header(name)) => (format!("{at}.header"), name),
        Some(HashKey::Cookie { name, .. }) => (format!("{at}.cookie.name"), name),
    };
    match http::HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{at}: \"{name}\" is no token")),
    }
}

/// One that wants what is not supported is not looked at further: it is in force as it is, and lets nothing through.
fn check_tls(tls: &Tls) -> Result<(), String> {
    if !tls.is_supported() {
        return Ok(());
    }
    if tls.ca_refs.is_empty() {
        let what = "name at least one ConfigMap or Secret with a CA certificate under ca.crt";
        return Err(format!("spec.tls.caRefs: {what}"));
    }
    for (index, ca) in tls.ca_refs.iter().enumerate() {
        if !ca.group.is_empty() {
            let at = format!("spec.tls.caRefs[{index}].group");
            return Err(format!("{at}: must be empty for a ConfigMap or a Secret"));
        }
    }
    origin::host(&tls.hostname)
        .map_err(|_| format!("spec.tls.hostname: \"{}\" is no DNS name", tls.hostname))?;
    for (index, name) in tls.subject_alt_names.iter().enumerate() {
        SubjectName::from_str(name)
            .map_err(|problem| format!("spec.tls.subjectAltNames[{index}]: {problem}"))?;
    }
    Ok(())
}
