//! Hosts of the edge: the rules of all Ingresses for one host, merged and in the order in which they are tried.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use meshgate_api::push;
use meshgate_routing::route::{PathKind, PathMatch, normalise};

use super::{Compiler, Problem, access::edge::AccessLists, service::resource_name};
use crate::objects::{Backend, Ingress, IngressPath, Name, PortRef};

/// A rule on its way into a host.
struct Candidate<'a> {
    ingress: &'a Name,
    created_unix_s: i64,
    /// Index of the path in its Ingress, counted over all rules.
    index: usize,
    /// The default backend: tried last.
    default: bool,
    exact: bool,
    path: &'a str,
    backend: &'a Backend,
}

impl Compiler {
    /// The resource of a host, and for each Ingress that lost paths to an older one, which.
    pub(super) fn edge_host(
        &self,
        host: &Arc<str>,
    ) -> (Option<push::EdgeHost>, BTreeMap<Name, Vec<String>>) {
        let mut conflicts: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        if !valid_host(host) {
            return (None, conflicts);
        }
        let ingresses = self
            .index
            .hosts
            .at(host)
            .filter_map(|name| Some((name, self.objects.ingresses.get(name)?)));
        let mut candidates: Vec<_> = ingresses
            .flat_map(|(name, ingress)| candidates(host, name, ingress))
            .collect();
        // Longest path first, Exact before Prefix, then the oldest object (Ingress v1).
        candidates.sort_by_key(|rule| {
            let age = (rule.created_unix_s, rule.ingress, rule.index);
            (rule.default, Reverse(rule.path.len()), !rule.exact, age)
        });
        let mut rules: Vec<push::Rule> = Vec::new();
        let mut access = AccessLists::default();
        let mut winners: BTreeMap<(bool, &str), &Name> = BTreeMap::new();
        for candidate in candidates {
            match winners.get(&(candidate.exact, candidate.path)) {
                Some(winner) if *winner == candidate.ingress || candidate.default => {}
                Some(winner) => {
                    let lost = format!(
                        "path {} of host {host} belongs to the older Ingress {winner}",
                        candidate.path
                    );
                    conflicts
                        .entry(candidate.ingress.clone())
                        .or_default()
                        .push(lost);
                }
                None => {
                    winners.insert((candidate.exact, candidate.path), candidate.ingress);
                    rules.push(self.rule(&candidate, &mut access));
                }
            }
        }
        let compiled = push::EdgeHost {
            host: host.to_string(),
            rules,
            access: access.rules,
        };
        ((!compiled.rules.is_empty()).then_some(compiled), conflicts)
    }

    fn rule<'a>(&'a self, candidate: &Candidate<'_>, access: &mut AccessLists<'a>) -> push::Rule {
        let kind = match candidate.exact {
            true => push::path_match::Kind::Exact,
            false => push::path_match::Kind::Prefix,
        };
        let (service, problem) = match self.resolve(candidate.ingress, candidate.backend) {
            Ok(service) => (service, String::new()),
            Err(problem) => (String::new(), problem.message),
        };
        let access = self.edge_access(candidate.ingress, access);
        push::Rule {
            path: Some(push::PathMatch {
                kind: kind.into(),
                value: candidate.path.to_owned(),
            }),
            service,
            origin: format!("ingress/{}", candidate.ingress),
            index: u32::try_from(candidate.index).unwrap_or(u32::MAX),
            rate_limits: self.rate_limits(candidate.ingress),
            problem,
            authorization: access.is_some(),
            access: access.unwrap_or_default(),
            // An Ingress knows hosts and paths.
            ..push::Rule::default()
        }
    }

    /// The Service resource that a backend names.
    pub(super) fn resolve(&self, ingress: &Name, backend: &Backend) -> Result<String, Problem> {
        let (name, port) = match backend {
            Backend::Service { name, port } => (ingress.sibling(name), port),
            Backend::Resource(resource) => {
                let message = format!("backend {resource} is not supported: name a service");
                return Err(Problem::new("BackendNotSupported", message));
            }
            Backend::Nothing => {
                return Err(Problem::new(
                    "InvalidBackend",
                    "the backend names no service and port".into(),
                ));
            }
        };
        let Some(service) = self.objects.services.get(&name) else {
            return Err(Problem::new(
                "ServiceNotFound",
                format!("service {name} does not exist"),
            ));
        };
        if service.external_name {
            let message = format!("service {name} is of type ExternalName, which is not supported");
            return Err(Problem::new("BackendNotSupported", message));
        }
        let found = service.ports.iter().find(|candidate| match port {
            PortRef::Number(number) => candidate.port == *number,
            PortRef::Name(wanted) => candidate.name == *wanted,
        });
        let found = found.ok_or_else(|| {
            let message = match port {
                PortRef::Number(number) => format!("service {name} has no TCP port {number}"),
                PortRef::Name(wanted) => format!("service {name} has no TCP port named {wanted}"),
            };
            Problem::new("PortNotFound", message)
        })?;
        Ok(resource_name(&name, found.port.into()))
    }
}

fn candidates<'a>(host: &str, name: &'a Name, ingress: &'a Ingress) -> Vec<Candidate<'a>> {
    let created_unix_s = ingress.meta.created_unix_s;
    let paths = ingress
        .rules
        .iter()
        .flat_map(|rule| rule.paths.iter().map(move |path| (rule, path)));
    let wanted = paths
        .enumerate()
        .filter(|(_, (rule, _))| &*rule.host == host)
        .filter_map(|(index, (_, path))| Some((index, path, compared(path).ok()?)));
    let mut candidates: Vec<_> = wanted
        .map(|(index, path, compared)| Candidate {
            ingress: name,
            created_unix_s,
            index,
            default: false,
            exact: path.exact,
            path: compared,
            backend: &path.backend,
        })
        .collect();
    candidates.extend(ingress.default_backend.iter().map(|backend| Candidate {
        ingress: name,
        created_unix_s,
        index: ingress.rules.iter().map(|rule| rule.paths.len()).sum(),
        default: true,
        exact: false,
        path: "/",
        backend,
    }));
    candidates
}

/// A path as requests are compared with it. One that none can equal is left out: for its sake a proxy would refuse the whole
/// host, the rules of others included.
pub(super) fn compared(path: &IngressPath) -> Result<&str, Problem> {
    let (kind, value) = match path.exact {
        true => (PathKind::Exact, path.value.as_str()),
        false => (PathKind::Prefix, without_trailing_slash(&path.value)),
    };
    match PathMatch::new(kind, value) {
        Ok(_) => Ok(value),
        Err(problem) => {
            let normal = normalise(value).ok().filter(|normal| *normal != value);
            let advice = normal.map_or(String::new(), |normal| {
                format!("; requests for it are known as \"{normal}\": write that")
            });
            Err(Problem::new("InvalidPath", format!("{problem}{advice}")))
        }
    }
}

/// Prefix `/foo/` means the same as `/foo` (Ingress v1).
fn without_trailing_slash(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        path => path,
    }
}

/// A DNS name, optionally with `*.` before it, or `*`.
pub(super) fn valid_host(host: &str) -> bool {
    let name = match host {
        "*" => return true,
        _ => host.strip_prefix("*.").unwrap_or(host),
    };
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
