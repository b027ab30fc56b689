//! What only the edge is sent: hosts with their rules, and certificates.

use std::sync::Arc;
use std::time::Duration;

use meshgate_api::push as wire;
use meshgate_routing::permit::limit::{KeyPart, LimitMatch, OnFailure, Scope};
use meshgate_routing::permit::{AccessRules, Limit, Rate};
use meshgate_routing::route::{
    ConditionProblem, Conditions, HeaderMatch, HostName, Pattern, QueryMatch, RequestMatch,
    ValueMatch,
};
use rustls::sign::CertifiedKey;

use super::{Enforceable, Invalid, access, duration, each, known, path_match};
use crate::push::report::Chain;
use crate::snapshot::Target;
use crate::tls::{ClientAuth, certified_key};

/// One host with its rules; of two that demand the same the first is asked.
#[derive(Debug)]
pub struct EdgeHost {
    /// Its name.
    pub host: HostName,
    /// Its rules.
    pub rules: Vec<EdgeRule>,
    /// Who may ask, in one list for all rules that have the same.
    pub access: Vec<AccessRules>,
}

/// One rule of a host.
#[derive(Debug)]
pub struct EdgeRule {
    /// Which requests.
    pub matches: RequestMatch,
    /// Where to.
    pub target: Target,
    /// The object it comes from.
    pub origin: Arc<str>,
    /// Index in that object.
    pub index: u32,
    /// All must permit.
    pub limits: Vec<Limit>,
    /// Who may ask: which list of the host's; none when no policy has an opinion.
    pub access: Option<usize>,
}

/// Buckets are kept for as long as their window: longer ones would never be freed.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// Converts a host.
pub fn edge_host(wire: wire::EdgeHost) -> Result<EdgeHost, Invalid> {
    let lists = wire.access.len();
    Ok(EdgeHost {
        host: HostName::parse(&wire.host).map_err(|why| Invalid::new("host", why))?,
        rules: each("rules", wire.rules, |wire| rule(wire, lists))?,
        access: each("access", wire.access, access_rules)?,
    })
}

fn rule(wire: wire::Rule, lists: usize) -> Result<EdgeRule, Invalid> {
    let path = wire.path.ok_or_else(|| Invalid::new("path", "missing"))?;
    let matches = RequestMatch {
        path: path_match(path).map_err(|invalid| invalid.within("path"))?,
        conditions: conditions(&wire.method, wire.headers, wire.query)?,
    };
    let target = match (wire.service.as_str(), wire.problem.as_str()) {
        ("", "") => return Err(Invalid::new("service", "missing, and no problem says why")),
        (_, "") => Target::Service(wire.service.into()),
        (_, _) => Target::Problem(wire.problem.into()),
    };
    Ok(EdgeRule {
        matches,
        target,
        origin: wire.origin.into(),
        index: wire.index,
        limits: each("rate_limits", wire.rate_limits, limit)?,
        access: access_list(wire.authorization, wire.access, lists)?,
    })
}

fn access_rules(wire: wire::AccessRules) -> Result<AccessRules, Invalid> {
    let rules = each("rules", wire.rules, |rule| {
        // The edge knows its own port, and not the one that clients asked for: others map ports to it.
        match rule.to.iter().position(|to| !to.ports.is_empty()) {
            Some(to) => Err(Invalid::new(
                format_args!("to[{to}].ports"),
                "means nothing at an edge",
            )),
            None => access::rule(rule),
        }
    })?;
    Ok(AccessRules {
        enforced: true,
        rules,
    })
}

/// Which of so many lists holds for a rule.
fn access_list(enforced: bool, index: u32, lists: usize) -> Result<Option<usize>, Invalid> {
    match (enforced, usize::try_from(index)) {
        (true, Ok(index)) if index < lists => Ok(Some(index)),
        (true, _) => Err(Invalid::new(
            "access",
            format_args!("there is no list {index}, but {lists} in all"),
        )),
        (false, Ok(0)) => Ok(None),
        (false, _) => Err(Invalid::new(
            "authorization",
            "not set, and a list is named",
        )),
    }
}

fn conditions(
    method: &str,
    headers: Vec<wire::FieldMatch>,
    query: Vec<wire::FieldMatch>,
) -> Result<Conditions, Invalid> {
    let none = Conditions::default();
    let with_method = match method {
        "" => none,
        method => none
            .with_method(method)
            .map_err(|why| Invalid::new("method", why))?,
    };
    let headers = each("headers", headers, |h| field_match(h, HeaderMatch::new))?;
    let query = each("query", query, |q| field_match(q, QueryMatch::new))?;
    with_method
        .with_headers(headers)
        .map_err(|why| Invalid::new("headers", why))?
        .with_query(query)
        .map_err(|why| Invalid::new("query", why))
}

fn field_match<T>(
    wire: wire::FieldMatch,
    new: fn(&str, ValueMatch) -> Result<T, ConditionProblem>,
) -> Result<T, Invalid> {
    let value = match wire.regex {
        true => Pattern::new(&wire.value)
            .map(ValueMatch::Regex)
            .map_err(|why| Invalid::new("value", why))?,
        false => ValueMatch::Exact(wire.value.into()),
    };
    new(&wire.name, value).map_err(|why| Invalid::new("name", why))
}

fn limit(wire: wire::RateLimit) -> Result<Limit, Invalid> {
    if wire.id.is_empty() {
        return Err(Invalid::new("id", "missing"));
    }
    if wire.requests == 0 {
        return Err(Invalid::new("requests", "must be at least 1"));
    }
    let per = duration("per", wire.per)?;
    if per.is_zero() || per > WINDOW_MAX {
        return Err(Invalid::new("per", "must be above 0 and at most 24h"));
    }
    let scope = match known::<wire::rate_limit::Scope>("scope", wire.scope)? {
        wire::rate_limit::Scope::Local => Scope::Local,
        wire::rate_limit::Scope::Global => Scope::Global {
            replicas: wire.replicas.max(1),
            on_failure: on_failure(wire.on_failure)?,
        },
    };
    let header = |h: wire::HeaderMatch| (h.name.to_ascii_lowercase(), h.value);
    Ok(Limit {
        id: wire.id.into(),
        name: wire.name.into(),
        matches: LimitMatch {
            paths: each("paths", wire.paths, path_match)?,
            methods: wire.methods,
            headers: wire.headers.into_iter().map(header).collect(),
        },
        key: each("key", wire.key, key_part)?,
        rate: Rate::new(wire.requests, per, wire.burst),
        scope,
        shadow: wire.shadow,
    })
}

fn on_failure(value: i32) -> Result<OnFailure, Invalid> {
    let known = known::<wire::rate_limit::OnFailure>("on_failure", value)?;
    Ok(match known {
        wire::rate_limit::OnFailure::LocalShare => OnFailure::LocalShare,
        wire::rate_limit::OnFailure::Open => OnFailure::Open,
        wire::rate_limit::OnFailure::Closed => OnFailure::Closed,
    })
}

fn key_part(wire: wire::KeyPart) -> Result<KeyPart, Invalid> {
    use wire::key_part::Part;
    let part = wire.part.ok_or_else(|| Invalid::new("part", "missing"))?;
    Ok(match part {
        Part::ClientAddress(address) => KeyPart::ClientAddress {
            prefix_v4: prefix("client_address.prefix_v4", address.prefix_v4, 32)?,
            prefix_v6: prefix("client_address.prefix_v6", address.prefix_v6, 128)?,
        },
        Part::Header(name) => KeyPart::Header(name.to_ascii_lowercase()),
        Part::Identity(_) => KeyPart::Identity,
        Part::Path(_) => KeyPart::Path,
    })
}

/// Zero is "not set": the whole address.
fn prefix(field: &str, value: u32, longest: u8) -> Result<u8, Invalid> {
    match u8::try_from(value) {
        Ok(0) => Ok(longest),
        Ok(bits) if bits <= longest => Ok(bits),
        _ => Err(Invalid::new(
            field,
            format_args!("{value} is above {longest}"),
        )),
    }
}

/// A certificate of the edge.
#[derive(Debug)]
pub struct EdgeCertificate {
    /// Valid host names that it is served for.
    pub hosts: Vec<String>,
    /// Chain and key.
    pub key: Arc<CertifiedKey>,
    /// What clients of these hosts must prove.
    pub client_auth: Option<Arc<ClientAuth>>,
}

/// Converts a certificate. A demand that cannot be enforced is refused to all clients: without it, or with a former one,
/// hosts would be open to those whom it was to keep out.
pub fn certificate(wire: wire::Certificate) -> Result<Enforceable<EdgeCertificate>, Invalid> {
    let host = |host: String| match HostName::parse(&host) {
        Ok(_) => Ok(host),
        Err(why) => Err(Invalid::new("", why)),
    };
    let hosts = each("hosts", wire.hosts, host)?;
    let key = certified_key(&wire.chain_pem, &wire.key_pem)
        .map_err(|why| Invalid::new("chain_pem", Chain(&why)))?;
    let (client_auth, closed) = wire.client_auth.map(client_auth).unzip();
    Ok(Enforceable {
        resource: EdgeCertificate {
            hosts,
            key,
            client_auth: client_auth.map(Arc::new),
        },
        closed: closed.flatten(),
    })
}

fn client_auth(wire: wire::ClientAuth) -> (ClientAuth, Option<Invalid>) {
    match ClientAuth::new(&wire.roots_pem.join("\n"), wire.required) {
        Ok(client_auth) => (client_auth, None),
        Err(why) => {
            let invalid = Invalid::new("client_auth.roots_pem", Chain(&why));
            let refused = ClientAuth::Refused(invalid.to_string().into());
            (refused, Some(invalid))
        }
    }
}
