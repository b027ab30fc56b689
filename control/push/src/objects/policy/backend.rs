//! What makes a BackendPolicy valid.

use std::str::FromStr;

use meshgate_api::policies::{
    TargetRef,
    backend::{Algorithm, BackendPolicySpec, HashKey, LoadBalancing, Tls},
};
use meshgate_certs::origin::{self, SubjectName};
use meshgate_routing::upstream::retry::grpc_code;
use serde_json::Value;

use super::Checked;
use crate::compile::RETRY_CONDITIONS;

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
                && !RETRY_CONDITIONS.contains(&condition.as_str())
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
