//! Our policies at the border: JSON in, checked specs out.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use meshgate_api::policies::{
    TargetRef,
    access::AccessPolicySpec,
    backend::{Algorithm, BackendPolicySpec, HashKey, LoadBalancing, Tls},
    rate_limit::RateLimitPolicySpec,
};
use meshgate_certs::origin::{self, SubjectName};
use meshgate_routing::route::{PathKind, PathMatch};
use meshgate_routing::upstream::retry::grpc_code;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::Meta;

pub(crate) type RateLimitPolicy = Policy<RateLimitPolicySpec>;
pub(crate) type BackendPolicy = Policy<BackendPolicySpec>;
pub(crate) type AccessPolicy = Policy<AccessPolicySpec>;

/// A policy as last seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy<S> {
    pub(crate) meta: Meta,
    /// The last spec that was valid; none when there never was one.
    pub(crate) spec: Option<S>,
    /// What the present spec names, valid or not.
    pub(crate) declared: Vec<TargetRef>,
    /// Why the present spec is not valid.
    pub(crate) problem: Option<String>,
    /// `status.ancestors`, to write only what differs.
    pub(crate) ancestors: Vec<Value>,
}

/// What one version of a policy differs in from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// What is in force.
    Spec,
    /// At most the status, and what is wrong with the spec.
    Status,
}

/// What makes a spec valid beyond its types.
pub(crate) trait Checked: DeserializeOwned + Clone + PartialEq {
    fn check(&self) -> Result<(), String>;
    fn targets(&self) -> &[TargetRef];
}

impl<S: Checked> Policy<S> {
    /// Reads a policy; an invalid spec is kept as a problem, because its status must say so.
    pub(crate) fn new(meta: Meta, data: &Value) -> Self {
        let spec = S::deserialize(data.get("spec").unwrap_or(&Value::Null))
            .map_err(|error| format!("spec: {error}"))
            .and_then(|spec| spec.check().map(|()| spec));
        let ancestors = data.pointer("/status/ancestors").and_then(Value::as_array);
        let (spec, problem) = match spec {
            Ok(spec) => (Some(spec), None),
            Err(problem) => (None, Some(problem)),
        };
        let declared = data.pointer("/spec/targetRefs").map(Vec::deserialize);
        Self {
            meta,
            spec,
            declared: declared.and_then(Result::ok).unwrap_or_default(),
            problem,
            ancestors: ancestors.cloned().unwrap_or_default(),
        }
    }

    /// Takes over what stays in force from `before`, and tells what differs.
    ///
    /// An invalid change leaves the spec that was valid before in force.
    pub(crate) fn follows(&mut self, before: Option<&Self>) -> Difference {
        let Some(before) = before.filter(|before| before.meta.uid == self.meta.uid) else {
            return Difference::Spec;
        };
        if self.spec.is_none() {
            self.spec = before.spec.clone();
        }
        match self.spec == before.spec {
            true => Difference::Status,
            false => Difference::Spec,
        }
    }

    pub(crate) fn targets(&self) -> &[TargetRef] {
        self.spec.as_ref().map(S::targets).unwrap_or_default()
    }
}

impl Checked for RateLimitPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for (index, limit) in self.limits.iter().enumerate() {
            let at = format!("spec.limits[{index}]");
            if !names.insert(&limit.name) {
                return Err(format!("{at}.name: \"{}\" is there twice", limit.name));
            }
            if limit.requests == 0 {
                return Err(format!("{at}.requests: must be at least 1"));
            }
            let per_ms = limit.per.0.as_millis();
            if !(10..=86_400_000).contains(&per_ms) {
                return Err(format!("{at}.per: must be from 10ms to 24h"));
            }
            let paths = limit.matches.iter().flat_map(|matches| &matches.paths);
            for path in paths {
                check_path(&at, &path.value)?;
            }
        }
        Ok(())
    }
}

impl Checked for BackendPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    fn check(&self) -> Result<(), String> {
        let percents = [
            (
                "retries.budget.percent",
                self.retries
                    .as_ref()
                    .and_then(|r| r.budget.as_ref()?.percent),
            ),
            (
                "circuitBreaker.successRate.below",
                self.circuit_breaker
                    .as_ref()
                    .and_then(|b| Some(b.success_rate.as_ref()?.below)),
            ),
            (
                "circuitBreaker.ejection.maxPercent",
                self.circuit_breaker
                    .as_ref()
                    .and_then(|b| b.ejection.as_ref()?.max_percent),
            ),
        ];
        let window = self
            .circuit_breaker
            .as_ref()
            .and_then(|b| b.success_rate.as_ref()?.window);
        if window.is_some_and(|window| window.0.is_zero()) {
            return Err("spec.circuitBreaker.successRate.window: must be above 0".into());
        }
        for (at, percent) in percents {
            if percent.is_some_and(|percent| percent > 100) {
                return Err(format!("spec.{at}: must be at most 100"));
            }
        }
        if let Some(balancing) = &self.load_balancing {
            check_balancing(balancing)?;
        }
        let on = self
            .retries
            .iter()
            .flat_map(|retries| retries.on.iter().flatten());
        for (index, condition) in on.enumerate() {
            let status = condition.len() == 3
                && condition
                    .parse::<u16>()
                    .is_ok_and(|s| (100..600).contains(&s));
            if !status
                && !crate::compile::RETRY_CONDITIONS.contains(&condition.as_str())
                && grpc_code(condition).is_none()
            {
                return Err(format!(
                    "spec.retries.on[{index}]: \"{condition}\" is no retry condition"
                ));
            }
        }
        self.tls.as_deref().map_or(Ok(()), check_tls)
    }
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

impl Checked for AccessPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    fn check(&self) -> Result<(), String> {
        if self.selector.is_some() != self.target_refs.is_empty() {
            return Err("spec: give either targetRefs or selector".into());
        }
        if self
            .selector
            .as_ref()
            .is_some_and(|selector| selector.match_expressions.is_some())
        {
            return Err("spec.selector.matchExpressions: not supported yet".into());
        }
        for (index, rule) in self.rules.iter().flatten().enumerate() {
            let at = format!("spec.rules[{index}]");
            for from in &rule.from {
                from.ip_blocks
                    .iter()
                    .chain(&from.not_ip_blocks)
                    .try_for_each(|block| check_block(&at, block))?;
            }
            for path in rule.to.iter().flat_map(|to| &to.paths) {
                check_path(&at, &path.value)?;
            }
        }
        Ok(())
    }
}

/// A proxy refuses the whole host or workload for the sake of one path that nothing can equal.
fn check_path(at: &str, path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{at}: path \"{path}\" does not start with /"));
    }
    PathMatch::new(PathKind::Exact, path)
        .map(drop)
        .map_err(|problem| format!("{at}: {problem}"))
}

fn check_block(at: &str, block: &str) -> Result<(), String> {
    if ipnet::IpNet::from_str(block).is_ok() || IpAddr::from_str(block).is_ok() {
        return Ok(());
    }
    Err(format!("{at}: \"{block}\" is no network"))
}
