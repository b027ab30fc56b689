//! YAML in, resources and reports out; and the proof that incremental means the same as from scratch.

mod attach;
mod certificates;
mod guarded;
mod hosts;
mod incremental;
mod services;
mod tls;
mod workloads;

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use kube::api::DynamicObject;
use meshgate_api::push;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Body, Compiler, Key, PodTarget, Report, Subject, Update};
use crate::objects::{
    Change, ConfigMap, EndpointSlice, Ingress, IngressClass, Kind, Meta, Name, Object, Pod, Policy,
    Secret, Service,
};

/// A compiler with everything that it has put out so far.
pub(super) struct World {
    pub(super) compiler: Compiler,
    pub(super) resources: BTreeMap<Key, Body>,
    pub(super) pods: BTreeMap<Name, PodTarget>,
    pub(super) reports: BTreeMap<Subject, Report>,
    pub(super) secrets: BTreeMap<Name, bool>,
    pub(super) config_maps: BTreeMap<Name, bool>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            compiler: Compiler::new("cluster.local"),
            resources: BTreeMap::new(),
            pods: BTreeMap::new(),
            reports: BTreeMap::new(),
            secrets: BTreeMap::new(),
            config_maps: BTreeMap::new(),
        }
    }

    /// A world with our class as the default one, and `yaml`.
    #[track_caller]
    pub(super) fn of(yaml: &str) -> Self {
        let mut world = Self::new();
        world.apply(CLASS);
        world.apply(yaml);
        world
    }

    #[track_caller]
    pub(super) fn apply(&mut self, yaml: &str) {
        self.changes(objects(yaml));
    }

    pub(super) fn delete(&mut self, kind: Kind, name: &str) {
        let (namespace, name) = name.split_once('/').expect("NAMESPACE/NAME");
        self.changes(vec![Change::Delete(kind, Name::new(namespace, name))]);
    }

    pub(super) fn changes(&mut self, changes: Vec<Change>) -> usize {
        self.compiler.absorb(changes);
        let update = self.compiler.compile();
        self.take(update)
    }

    /// Takes over an update; returns how many resources differ from before.
    pub(super) fn take(&mut self, update: Update) -> usize {
        let differing = update
            .resources
            .iter()
            .filter(|(key, body)| self.resources.get(key) != body.as_ref());
        let differing = differing.count();
        merge(&mut self.resources, update.resources);
        merge(&mut self.pods, update.pods);
        merge(&mut self.reports, update.reports);
        self.secrets.extend(update.secrets);
        self.secrets.retain(|_, wanted| *wanted);
        self.config_maps.extend(update.config_maps);
        self.config_maps.retain(|_, wanted| *wanted);
        differing
    }

    /// The resources as text, one a paragraph, those whose type starts with `kind`.
    #[track_caller]
    pub(super) fn check(&self, kind: &str, expected: &str) {
        let shown: Vec<_> = self
            .resources
            .iter()
            .map(|(key, body)| show(key, body))
            .collect();
        let shown: Vec<_> = shown
            .iter()
            .map(String::as_str)
            .filter(|text| text.starts_with(kind))
            .collect();
        assert_eq!(
            shown.join("\n"),
            unindent(expected),
            "\n{}",
            shown.join("\n")
        );
    }

    /// What is said about an object: its problems, or targets with their verdicts.
    #[track_caller]
    pub(super) fn check_report(&self, name: &str, expected: &str) {
        let report = self
            .reports
            .iter()
            .find(|(subject, _)| subject.name.to_string() == name);
        let shown = match report {
            None => "none".to_owned(),
            Some((_, Report::Ingress(report))) => {
                let problems = report
                    .problems
                    .iter()
                    .map(|problem| format!("{}: {}", problem.reason, problem.message));
                problems.collect::<Vec<_>>().join("\n")
            }
            Some((_, Report::Policy(report))) => {
                let targets = report.ancestors.iter().map(|ancestor| {
                    let affects = ancestor
                        .affects
                        .iter()
                        .map(|key| format!("{:?} {}", key.kind, key.name));
                    let verdict = match &ancestor.verdict {
                        Ok(()) => format!("accepted, in {}", affects.collect::<Vec<_>>().join(" ")),
                        Err(problem) => format!("{}: {}", problem.reason, problem.message),
                    };
                    let unsupported = match ancestor.unsupported.as_slice() {
                        [] => String::new(),
                        fields => {
                            let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
                            format!("; not supported: {}", fields.join(", "))
                        }
                    };
                    let awaited = match &ancestor.awaited {
                        None => String::new(),
                        Some(what) => format!("; awaits: {what}"),
                    };
                    format!(
                        "{} {}: {verdict}{unsupported}{awaited}",
                        ancestor.target.kind, ancestor.target.name
                    )
                });
                targets.collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(shown, unindent(expected));
    }
}

pub(super) const CLASS: &str = r#"
kind: IngressClass
metadata: {name: meshgate, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: meshgate.dev/ingress}
"#;

fn merge<K: Ord, V>(into: &mut BTreeMap<K, V>, update: BTreeMap<K, Option<V>>) {
    for (key, value) in update {
        match value {
            Some(value) => drop(into.insert(key, value)),
            None => drop(into.remove(&key)),
        }
    }
}

/// Objects of a multi-document YAML text.
#[track_caller]
pub(super) fn objects(yaml: &str) -> Vec<Change> {
    serde_norway::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).expect("valid YAML"))
        .filter(|value| !value.is_null())
        .map(object)
        .collect()
}

#[track_caller]
fn object(mut value: Value) -> Change {
    let kind = value["kind"].as_str().expect("a kind").to_owned();
    let namespaced = kind != "IngressClass";
    if namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = "shop".into();
    }
    let typed = || value.clone();
    let name = Name::of(&read::<DynamicObject>(with_types(typed())).metadata);
    let object = match kind.as_str() {
        "Service" => Some(Object::Service(Service::trim(read::<core::Service>(
            typed(),
        )))),
        "EndpointSlice" => EndpointSlice::trim(read::<discovery::EndpointSlice>(typed()))
            .map(Object::EndpointSlice),
        "Pod" => Pod::trim(read::<core::Pod>(typed())).map(Object::Pod),
        "Ingress" => Some(Object::Ingress(Ingress::trim(read::<networking::Ingress>(
            typed(),
        )))),
        "IngressClass" => Some(Object::IngressClass(IngressClass::trim(&read::<
            networking::IngressClass,
        >(typed())))),
        "Secret" => {
            let mut value = typed();
            for text in value["data"]
                .as_object_mut()
                .into_iter()
                .flat_map(|data| data.values_mut())
            {
                let bytes = text.as_str().expect("text").as_bytes();
                *text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
                    .into();
            }
            Some(Object::Secret(Secret::trim(read::<core::Secret>(value))))
        }
        "ConfigMap" => Some(Object::ConfigMap(ConfigMap::trim(read::<core::ConfigMap>(
            typed(),
        )))),
        policy => {
            let object = read::<DynamicObject>(with_types(typed()));
            let meta = Meta::from(&object.metadata);
            match policy {
                "RateLimitPolicy" => Some(Object::RateLimitPolicy(Policy::new(meta, &object.data))),
                "BackendPolicy" => {
                    let policy = Policy::new(meta, &object.data);
                    Some(Object::BackendPolicy(Box::new(policy)))
                }
                "AccessPolicy" => Some(Object::AccessPolicy(Policy::new(meta, &object.data))),
                other => panic!("kind {other} is not watched"),
            }
        }
    };
    match object {
        Some(object) => Change::Apply(name, Box::new(object)),
        None => Change::Delete(kind_of(&kind), name),
    }
}

fn kind_of(kind: &str) -> Kind {
    match kind {
        "Pod" => Kind::Pod,
        _ => Kind::EndpointSlice,
    }
}

fn with_types(mut value: Value) -> Value {
    value["apiVersion"] = "test/v1".into();
    value
}

#[track_caller]
fn read<T: DeserializeOwned>(mut value: Value) -> T {
    value["metadata"]
        .as_object_mut()
        .expect("metadata")
        .entry("uid")
        .or_insert("uid".into());
    serde_json::from_value(value).expect("an object of its kind")
}

/// Drops the indentation that the source code gives a text.
fn unindent(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .skip_while(|line| line.trim().is_empty())
        .collect();
    let indent = lines
        .iter()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min();
    let lines = lines
        .iter()
        .map(|line| line.get(indent.unwrap_or(0)..).unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

fn show(key: &Key, body: &Body) -> String {
    let mut lines = Vec::new();
    match body {
        Body::EdgeHost(host) => {
            lines.push(format!("host {}", key.name));
            let rules = host.rules.iter();
            lines.extend(rules.map(|rule| show_rule(rule, &host.access)));
        }
        Body::Service(service) => {
            let addresses = match service.addresses.is_empty() {
                true => String::new(),
                false => format!(" at {}", service.addresses.join(" ")),
            };
            lines.push(format!(
                "service {}{addresses} {}",
                key.name,
                service.protocol().as_str_name()
            ));
            lines.extend(service.endpoints.iter().map(show_endpoint));
            let policy = service.policy.as_ref().expect("always set");
            if !policy.origin.is_empty() {
                lines.push(format!("  by {}: {}", policy.origin, show_policy(policy)));
            }
        }
        Body::Certificate(certificate) => {
            lines.push(format!(
                "certificate {} for {}",
                key.name,
                certificate.hosts.join(" ")
            ));
        }
        Body::Workload(workload) => {
            let closed = if workload.authorization {
                ", authorized"
            } else {
                ""
            };
            lines.push(format!(
                "workload {} {} {}{closed}",
                key.name,
                workload.identity,
                workload.mtls().as_str_name()
            ));
            lines.extend(
                workload
                    .ports
                    .iter()
                    .map(|port| format!("  port {} {}", port.port, port.mtls().as_str_name())),
            );
            lines.extend(workload.rules.iter().map(show_access));
        }
    }
    lines.join("\n")
}

fn show_rule(rule: &push::Rule, access: &[push::AccessRules]) -> String {
    let path = rule.path.as_ref().expect("always set");
    let kind = match path.kind() {
        push::path_match::Kind::Prefix => "prefix",
        push::path_match::Kind::Exact => "exact",
        push::path_match::Kind::Regex => "regex",
    };
    let to = match rule.problem.is_empty() {
        true => format!("-> {}", rule.service),
        false => format!("!! {}", rule.problem),
    };
    let limits: String = rule
        .rate_limits
        .iter()
        .map(|limit| {
            format!(
                " <= {} {}/{}s x{}",
                limit.id,
                limit.requests,
                limit.per.map_or(0, |per| per.seconds),
                limit.replicas
            )
        })
        .collect();
    let closed = if rule.authorization {
        ", authorized"
    } else {
        ""
    };
    let access = access
        .get(rule.access as usize)
        .filter(|_| rule.authorization);
    let access = access.iter().flat_map(|list| &list.rules).map(show_access);
    let access: String = access.map(|rule| format!("\n  {rule}")).collect();
    format!(
        "  {kind} {} {to} ({} {}){limits}{closed}{access}",
        path.value, rule.origin, rule.index
    )
}

fn show_endpoint(endpoint: &push::Endpoint) -> String {
    let identity = match endpoint.identity.is_empty() {
        true => " plain".to_owned(),
        false => format!(" as {}", endpoint.identity),
    };
    let terminating = if endpoint.terminating {
        " terminating"
    } else {
        ""
    };
    format!(
        "  {}:{} {}{identity}{terminating}",
        endpoint.address, endpoint.port, endpoint.pod
    )
}

fn show_policy(policy: &push::BackendPolicy) -> String {
    let retries = policy.retries.as_ref().expect("always set");
    let seconds = |duration: Option<prost_types::Duration>| {
        duration.map_or(0.0, |duration| {
            duration.seconds as f64 + f64::from(duration.nanos) / 1e9
        })
    };
    let told = match policy.proxy_protocol() {
        push::backend_policy::ProxyProtocol::Off => "",
        version => version.as_str_name(),
    };
    let breaker = policy.breaker.as_ref().expect("always set");
    let hash = policy.hash.as_ref().and_then(|hash| hash.key.as_ref());
    let hash = hash.map_or(String::new(), |key| {
        use push::hash_key::Key;
        match key {
            Key::Header(name) => format!(" header {name}"),
            Key::Cookie(cookie) => format!(" cookie {} {}s", cookie.name, seconds(cookie.ttl)),
            Key::ClientAddress(_) => " address".into(),
            Key::Query(name) => format!(" query {name}"),
        }
    });
    let shown = format!(
        "{}{hash} request {}s perTry {}s retries {} on {} breaker {}",
        policy.algorithm().as_str_name(),
        seconds(policy.request_timeout),
        seconds(policy.per_try_timeout),
        retries.attempts,
        retries.on.join(","),
        breaker.consecutive_failures,
    );
    let shown = match &breaker.success_rate {
        None => shown,
        Some(rate) => format!(
            "{shown} below {}% of {}",
            rate.below_percent, rate.min_requests
        ),
    };
    let shown = match told {
        "" => shown,
        version => format!("{shown} PROXY {version}"),
    };
    match &policy.tls {
        None => shown,
        Some(tls) => format!("{shown} TLS {}", show_tls(tls)),
    }
}

fn show_tls(tls: &push::BackendTls) -> String {
    if !tls.problem.is_empty() {
        return format!("!! {}", tls.problem);
    }
    let names = match tls.subject_alt_names.as_slice() {
        [] => String::new(),
        names => format!(" as {}", names.join(" ")),
    };
    let roots = tls.ca_pem.iter().map(|pem| pem.matches("BEGIN").count());
    format!("to {}{names} by {}", tls.hostname, roots.sum::<usize>())
}

fn show_access(rule: &push::AccessRule) -> String {
    let verb = if rule.deny { "deny" } else { "allow" };
    let from = rule.from.iter().map(|from| {
        let not = from.not_ip_blocks.iter().map(|block| format!("!{block}"));
        let parts = from
            .identities
            .iter()
            .chain(&from.namespaces)
            .chain(&from.ip_blocks)
            .cloned()
            .chain(not);
        parts.collect::<Vec<_>>().join(",")
    });
    let to = rule.to.iter().map(|to| {
        let paths = to.paths.iter().map(|path| path.value.clone());
        let ports = to.ports.iter().map(u32::to_string);
        let parts = to
            .methods
            .iter()
            .cloned()
            .chain(paths)
            .chain(to.hosts.iter().cloned())
            .chain(ports);
        parts.collect::<Vec<_>>().join(",")
    });
    let (from, to): (Vec<_>, Vec<_>) = (from.collect(), to.collect());
    let audit = if rule.audit { ", audit" } else { "" };
    format!(
        "  {verb} from [{}] to [{}] ({}{audit})",
        from.join(" | "),
        to.join(" | "),
        rule.origin
    )
}
