//! Our policies at the border: JSON in, checked specs out.

mod access;
mod backend;

use std::{collections::BTreeSet, fmt};

use meshgate_api::policies::{
    TargetRef,
    access::AccessPolicySpec,
    backend::BackendPolicySpec,
    rate_limit::{KeyPart, RateLimitPolicySpec},
};
use meshgate_routing::route::{PathKind, PathMatch};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use access::without_last_dot;

use super::Meta;

pub(crate) type RateLimitPolicy = Policy<RateLimitPolicySpec>;
pub(crate) type BackendPolicy = Policy<BackendPolicySpec>;
pub(crate) type AccessPolicy = Policy<AccessPolicySpec>;

/// A policy as last seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Policy<S> {
    pub(crate) meta: Meta,
    /// What is in force: the present spec, or what [`Fault`] says.
    pub(crate) spec: Option<S>,
    /// What the present spec names, valid or not.
    pub(crate) declared: Vec<TargetRef>,
    /// Set when the present spec is not valid.
    pub(crate) fault: Option<Fault>,
    /// `status.ancestors`, to write only what differs.
    pub(crate) ancestors: Vec<Value>,
}

/// Why a spec is not valid, and what is in force in its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    /// The last valid spec is in force. Only memory has it: a control plane that starts anew does without.
    pub(crate) has_former: bool,
    /// What it means to do without a former one ("nobody is let in"); empty when the policy then has no effect.
    pub(crate) closes: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)?;
        match (self.has_former, self.closes) {
            (true, "") => f.write_str("; the last valid version stays in force"),
            (true, closes) => write!(
                f,
                "; the last valid version stays in force until the control plane starts anew, then {closes}"
            ),
            (false, "") => Ok(()),
            (false, closes) => write!(f, "; {closes} until it is mended"),
        }
    }
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

    /// What holds in place of a spec that never was valid, with what that means: what was to keep somebody out, or
    /// something from being sent in the clear, closes. None where nothing does.
    fn stand_in(spec: &Value, declared: &[TargetRef]) -> Option<(Self, &'static str)>;
}

impl<S: Checked> Policy<S> {
    /// Reads a policy; an invalid spec is kept as a problem, because its status must say so.
    pub(crate) fn new(meta: Meta, data: &Value) -> Self {
        let raw = data.get("spec").unwrap_or(&Value::Null);
        let declared = raw.get("targetRefs").map(Vec::deserialize);
        let declared = declared.and_then(Result::ok).unwrap_or_default();
        let ancestors = data.pointer("/status/ancestors").and_then(Value::as_array);
        let spec = S::deserialize(raw)
            .map_err(|error| format!("spec: {error}"))
            .and_then(|spec| spec.check().map(|()| spec));
        let (spec, fault) = match spec {
            Ok(spec) => (Some(spec), None),
            Err(problem) => {
                let (spec, closes) = S::stand_in(raw, &declared).unzip();
                let fault = Fault {
                    problem,
                    has_former: false,
                    closes: closes.unwrap_or_default(),
                };
                (spec, Some(fault))
            }
        };
        Self {
            meta,
            spec,
            declared,
            fault,
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
        if let (Some(fault), None) = (&mut self.fault, before.standing_in()) {
            fault.has_former = true;
            self.spec = before.spec.clone();
        }
        match self.spec == before.spec && self.standing_in() == before.standing_in() {
            true => Difference::Status,
            false => Difference::Spec,
        }
    }

    /// What is in force, if it is a spec that was valid.
    pub(crate) fn valid(&self) -> Option<&S> {
        self.spec.as_ref().filter(|_| self.standing_in().is_none())
    }

    /// Why what is in force only stands in for a spec.
    pub(crate) fn standing_in(&self) -> Option<&str> {
        let fault = self.fault.as_ref().filter(|fault| !fault.has_former)?;
        Some(&fault.problem)
    }

    pub(crate) fn targets(&self) -> &[TargetRef] {
        self.spec.as_ref().map(S::targets).unwrap_or_default()
    }
}

impl Checked for RateLimitPolicySpec {
    fn targets(&self) -> &[TargetRef] {
        &self.target_refs
    }

    fn stand_in(_spec: &Value, _declared: &[TargetRef]) -> Option<(Self, &'static str)> {
        None
    }

    fn check(&self) -> Result<(), String> {
        check_sections(&self.target_refs, &["Ingress"])?;
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
            limit.key.iter().try_for_each(|part| check_key(&at, part))?;
            let paths = limit.matches.iter().flat_map(|matches| &matches.paths);
            for path in paths {
                check_path(&at, &path.value)?;
            }
        }
        Ok(())
    }
}

fn check_key(at: &str, part: &KeyPart) -> Result<(), String> {
    match part {
        KeyPart::ClientAddress {
            prefix_v4,
            prefix_v6,
        } if *prefix_v4 > 32 || *prefix_v6 > 128 => Err(format!(
            "{at}.key: a prefix is longer than an address: at most 32 and 128 bits"
        )),
        _ => Ok(()),
    }
}

/// What names a part of a target without parts must not be in force for all of it.
fn check_sections(targets: &[TargetRef], without_parts: &[&str]) -> Result<(), String> {
    let is_wrong =
        |of: &TargetRef| of.section_name.is_some() && without_parts.contains(&of.kind.as_str());
    match targets.iter().position(is_wrong) {
        None => Ok(()),
        Some(index) => {
            let kind = &targets[index].kind;
            let article = if kind == "Ingress" { "an" } else { "a" };
            Err(format!(
                "spec.targetRefs[{index}].sectionName: means nothing for {article} {kind}"
            ))
        }
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
