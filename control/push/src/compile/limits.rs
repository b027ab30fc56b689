//! RateLimitPolicies of an Ingress as limits of its rules.

use meshgate_api::{
    policies::{
        PathKind, PathMatch,
        rate_limit::{KeyPart, Limit, OnFailure, RateLimitPolicySpec, Scope},
    },
    push,
};

use super::{
    Compiler,
    report::{Effect, Unsupported},
};
use crate::objects::Name;

impl Compiler {
    pub(super) fn rate_limits(&self, ingress: &Name) -> Vec<push::RateLimit> {
        let Some((policy, spec)) = self.rate_limit_policy(ingress) else {
            return Vec::new();
        };
        let limits = spec.limits.iter().filter(|limit| is_supported(limit));
        limits
            .map(|limit| compile_limit(policy, limit, self.edge_replicas))
            .collect()
    }
}

fn compile_limit(policy: &Name, limit: &Limit, replicas: u32) -> push::RateLimit {
    let matches = limit.matches.clone().unwrap_or_default();
    let header = |header: meshgate_api::policies::HeaderMatch| push::HeaderMatch {
        name: header.name.to_ascii_lowercase(),
        value: header.value,
    };
    push::RateLimit {
        id: format!("{policy}/{}", limit.name),
        name: limit.name.clone(),
        paths: matches.paths.iter().map(path_match).collect(),
        methods: matches.methods,
        headers: matches.headers.into_iter().map(header).collect(),
        key: limit.key.iter().filter_map(key_part).collect(),
        requests: limit.requests,
        per: prost_types::Duration::try_from(limit.per.0).ok(),
        burst: limit.burst,
        scope: match limit.scope {
            Scope::Global => push::rate_limit::Scope::Global,
            Scope::Local => push::rate_limit::Scope::Local,
        }
        .into(),
        on_failure: match limit.on_failure {
            OnFailure::LocalShare => push::rate_limit::OnFailure::LocalShare,
            OnFailure::Open => push::rate_limit::OnFailure::Open,
            OnFailure::Closed => push::rate_limit::OnFailure::Closed,
        }
        .into(),
        shadow: limit.shadow,
        replicas: match limit.scope {
            Scope::Global => replicas,
            Scope::Local => 1,
        },
    }
}

pub(super) fn path_match(path: &PathMatch) -> push::PathMatch {
    let kind = match path.kind {
        PathKind::Prefix => push::path_match::Kind::Prefix,
        PathKind::Exact => push::path_match::Kind::Exact,
    };
    push::PathMatch {
        kind: kind.into(),
        value: path.value.clone(),
    }
}

fn key_part(part: &KeyPart) -> Option<push::KeyPart> {
    use push::key_part::Part;
    let part = match part {
        KeyPart::ClientAddress {
            prefix_v4,
            prefix_v6,
        } => Part::ClientAddress(push::ClientAddress {
            prefix_v4: (*prefix_v4).into(),
            prefix_v6: (*prefix_v6).into(),
        }),
        KeyPart::Header(name) => Part::Header(name.to_ascii_lowercase()),
        KeyPart::Identity {} => Part::Identity(true),
        KeyPart::Path {} => Part::Path(true),
        KeyPart::Claim(_) => return None,
    };
    Some(push::KeyPart { part: Some(part) })
}

/// A limit whose buckets cannot be told apart is left out rather than enforced on all alike.
fn is_supported(limit: &Limit) -> bool {
    !limit
        .key
        .iter()
        .any(|part| matches!(part, KeyPart::Claim(_)))
}

/// The fields that are set and not supported yet.
pub(super) fn unsupported(spec: &RateLimitPolicySpec) -> Vec<Unsupported> {
    let limits = spec
        .limits
        .iter()
        .enumerate()
        .filter(|(_, limit)| !is_supported(limit));
    let key = |index| format!("spec.limits[{index}].key with a claim");
    limits
        .map(|(index, _)| Unsupported::new(key(index), Effect::NotEnforced))
        .collect()
}
