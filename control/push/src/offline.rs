//! The compile step for an edge without a cluster: objects in, what it enforces out. Pure, and as incremental.
//!
//! The compiler is the one behind the push stream. What differs is what it is told: every Secret and ConfigMap is at hand; an
//! Ingress without a class is ours; and there is one replica, so its own count of a global limit is the exact one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use kube::api::DynamicObject;
use meshgate_api::{names, policies::access::AccessPolicySpec, push};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    compile::{Body, Compiler, Key, Problem, Report, ResourceKind, Subject, SubjectKind, Update},
    objects::{
        Change, ClassName, ConfigMap, EndpointSlice, Ingress, IngressClass, Kind, Meta, Name,
        Object, Policy, Readiness, Secret, Service,
    },
};

pub use crate::compile::key_pair_problem;

/// What is read, as (apiVersion, kind).
pub const KINDS: [(&str, &str); 9] = [
    ("v1", "Service"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "IngressClass"),
    ("meshgate.dev/v1alpha1", "RateLimitPolicy"),
    ("meshgate.dev/v1alpha1", "BackendPolicy"),
    ("meshgate.dev/v1alpha1", "AccessPolicy"),
];

/// Which object; shown as `Ingress shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// One of [`KINDS`].
    pub kind: &'static str,
    /// Empty for what belongs to no namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// An object, trimmed to what the compiler reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    id: ObjectId,
    /// None for one that has no effect, such as an EndpointSlice of names.
    object: Option<Object>,
}

impl Manifest {
    /// Reads an object that the API's schema has found valid, and has brought into its stored form.
    pub fn read(object: Value) -> Result<Self, NotRead> {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
        let (_, kind) = KINDS
            .into_iter()
            .find(|(_, known)| *known == kind)
            .ok_or_else(|| NotRead(format!("kind {kind} is not read")))?;
        let dynamic: DynamicObject = parsed(object.clone())?;
        let name = Name::of(&dynamic.metadata);
        let meta = || Meta::from(&dynamic.metadata);
        let object = match kind {
            "Service" => Some(Object::Service(Service::trim(parsed::<core::Service>(
                object,
            )?))),
            "Secret" => Some(Object::Secret(Secret::trim(parsed::<core::Secret>(
                object,
            )?))),
            "ConfigMap" => Some(Object::ConfigMap(ConfigMap::trim(
                parsed::<core::ConfigMap>(object)?,
            ))),
            "EndpointSlice" => EndpointSlice::trim(parsed::<discovery::EndpointSlice>(object)?)
                .map(Object::EndpointSlice),
            "Ingress" => Some(Object::Ingress(Ingress::trim(
                parsed::<networking::Ingress>(object)?,
            ))),
            "IngressClass" => Some(Object::IngressClass(IngressClass::trim(&parsed::<
                networking::IngressClass,
            >(
                object
            )?))),
            "RateLimitPolicy" => Some(Object::RateLimitPolicy(Policy::new(meta(), &dynamic.data))),
            "BackendPolicy" => {
                let policy = Policy::new(meta(), &dynamic.data);
                Some(Object::BackendPolicy(Box::new(policy)))
            }
            _ => Some(Object::AccessPolicy(Policy::new(meta(), &dynamic.data))),
        };
        let id = ObjectId {
            kind,
            namespace: name.namespace,
            name: name.name,
        };
        Ok(Self { id, object })
    }

    /// Which one it is.
    pub fn id(&self) -> &ObjectId {
        &self.id
    }

    /// What makes it invalid beyond its schema; compiled nevertheless, it would leave its last valid version in force.
    pub fn problem(&self) -> Option<String> {
        let fault = match self.object.as_ref()? {
            Object::RateLimitPolicy(policy) => &policy.fault,
            Object::BackendPolicy(policy) => &policy.fault,
            Object::AccessPolicy(policy) => &policy.fault,
            _ => return None,
        };
        fault.as_ref().map(|fault| fault.problem.clone())
    }
}

fn parsed<T: DeserializeOwned>(object: Value) -> Result<T, NotRead> {
    serde_json::from_value(object).map_err(|error| NotRead(error.to_string()))
}

/// Why an object cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRead(String);

/// A compiled resource, in wire form.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// A certificate and the hosts it is for.
    Certificate(push::Certificate),
    /// A port of a Service.
    Service(Box<push::Service>),
    /// A host with its rules.
    EdgeHost(push::EdgeHost),
}

/// Names a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId {
    /// Its type.
    pub kind: EdgeKind,
    /// Its name.
    pub name: Arc<str>,
}

/// The types that an edge is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeKind {
    /// See [`Resource::Certificate`].
    Certificate,
    /// See [`Resource::Service`].
    Service,
    /// See [`Resource::EdgeHost`].
    EdgeHost,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object itself is wrong.
    Invalid,
    /// The object is right and something around it is not: in a cluster, a condition.
    Warning,
}

/// Something about an object that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Whose.
    pub id: ObjectId,
    /// How bad.
    pub severity: Severity,
    /// For machines, as in conditions.
    pub reason: &'static str,
    /// For people, as in conditions.
    pub message: String,
}

/// The compiler with the objects it was told of.
#[derive(Debug)]
pub struct Offline {
    compiler: Compiler,
    secrets: BTreeMap<Name, Secret>,
    config_maps: BTreeMap<Name, ConfigMap>,
    reports: BTreeMap<Subject, Report>,
}

impl Default for Offline {
    fn default() -> Self {
        Self::new()
    }
}

impl Offline {
    /// No objects but the classes that always are there.
    pub fn new() -> Self {
        let mut compiler = Compiler::new(names::TRUST_DOMAIN);
        compiler.absorb([no_class(), own_class()]);
        Self {
            compiler,
            secrets: BTreeMap::new(),
            config_maps: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    /// Takes an object, new or changed.
    pub fn apply(&mut self, manifest: &Manifest) {
        let Some(object) = &manifest.object else {
            return self.delete(&manifest.id);
        };
        let name = name_of(&manifest.id);
        match object {
            Object::Secret(secret) => drop(self.secrets.insert(name.clone(), secret.clone())),
            Object::ConfigMap(map) => drop(self.config_maps.insert(name.clone(), map.clone())),
            _ => {}
        }
        self.compiler
            .absorb([Change::Apply(name, Box::new(object.clone()))]);
    }

    /// Takes away an object.
    pub fn delete(&mut self, id: &ObjectId) {
        let (kind, name) = (kind_of(id), name_of(id));
        match kind {
            Kind::Secret => drop(self.secrets.remove(&name)),
            Kind::ConfigMap => drop(self.config_maps.remove(&name)),
            _ => {}
        }
        let own = kind == Kind::IngressClass && &*id.name == names::INGRESS_CLASS;
        self.compiler.absorb([match own {
            true => own_class(),
            false => Change::Delete(kind, name),
        }]);
    }

    /// Compiles what depends on what was taken since the last time. `None` = gone.
    pub fn compile(&mut self) -> BTreeMap<ResourceId, Option<Resource>> {
        let mut all = BTreeMap::new();
        loop {
            let update = self.compiler.compile();
            let secrets = update.secrets.iter().filter(|(_, wanted)| **wanted);
            let maps = update.config_maps.iter().filter(|(_, wanted)| **wanted);
            let wanted: Vec<Change> = secrets
                .map(|(name, _)| self.secret(name))
                .chain(maps.map(|(name, _)| self.config_map(name)))
                .collect();
            self.note(update, &mut all);
            if wanted.is_empty() {
                return all;
            }
            self.compiler.absorb(wanted);
        }
    }

    fn secret(&self, name: &Name) -> Change {
        match self.secrets.get(name) {
            Some(secret) => Change::Apply(name.clone(), Box::new(Object::Secret(secret.clone()))),
            None => Change::Delete(Kind::Secret, name.clone()),
        }
    }

    fn config_map(&self, name: &Name) -> Change {
        match self.config_maps.get(name) {
            Some(map) => Change::Apply(name.clone(), Box::new(Object::ConfigMap(map.clone()))),
            None => Change::Delete(Kind::ConfigMap, name.clone()),
        }
    }

    fn note(&mut self, update: Update, all: &mut BTreeMap<ResourceId, Option<Resource>>) {
        for (subject, report) in update.reports {
            match report {
                Some(report) => drop(self.reports.insert(subject, report)),
                None => drop(self.reports.remove(&subject)),
            }
        }
        let resources = update.resources.into_iter();
        all.extend(
            resources.filter_map(|(key, body)| Some((resource_id(key)?, body.and_then(resource)))),
        );
    }

    /// Everything that is to be said about the objects as they are.
    pub fn findings(&self) -> BTreeSet<Finding> {
        let reported = self
            .reports
            .iter()
            .flat_map(|(subject, report)| reported(subject, report));
        reported
            .chain(self.not_served())
            .chain(self.not_enforced())
            .chain(self.without_endpoints())
            .chain(self.lost_slices())
            .collect()
    }

    /// Ingresses of classes that are not ours.
    fn not_served(&self) -> impl Iterator<Item = Finding> {
        self.compiler.foreign_ingresses().map(|(name, class)| {
            let message = format!("its class {class} is none of {}", names::INGRESS_CONTROLLER);
            warning("Ingress", name, "NotServed", message)
        })
    }

    /// What only sidecars enforce.
    fn not_enforced(&self) -> impl Iterator<Item = Finding> {
        let policies = self.compiler.objects().access_policies.iter();
        policies.filter_map(|(name, policy)| {
            let spec = policy.spec.as_ref()?;
            let parts = for_sidecars(spec);
            let message = format!(
                "enforced by sidecars, and this edge has none behind it: {}",
                parts.join(", ")
            );
            (!parts.is_empty()).then(|| warning("AccessPolicy", name, "NotEnforced", message))
        })
    }

    /// Services that requests are sent to and nobody answers for.
    fn without_endpoints(&self) -> impl Iterator<Item = Finding> {
        self.compiler.idle_services().map(|name| {
            let message = format!("service {name} has no ready endpoint");
            warning("Service", name, "NoEndpoints", message)
        })
    }

    fn lost_slices(&self) -> impl Iterator<Item = Finding> {
        let objects = self.compiler.objects();
        let services = objects
            .slices
            .iter()
            .map(|(name, slice)| (name, name.sibling(&slice.service)));
        services
            .filter(|(_, service)| !objects.services.contains_key(service))
            .map(|(name, service)| {
                let message = format!("service {service} does not exist");
                warning("EndpointSlice", name, "ServiceNotFound", message)
            })
    }
}

impl Compiler {
    /// Ingresses of other classes, with the class.
    fn foreign_ingresses(&self) -> impl Iterator<Item = (&Name, &str)> {
        let all = self.objects().ingresses.iter();
        all.filter(|(name, _)| !self.is_owned(name))
            .map(|(name, ingress)| {
                let class = match &ingress.class {
                    ClassName::Field(class) | ClassName::Annotation(class) => class.as_str(),
                    ClassName::Absent => "",
                };
                (name, class)
            })
    }

    /// Services that an Ingress names and that have no endpoint to send to.
    fn idle_services(&self) -> impl Iterator<Item = &Name> {
        let services = self.objects().services.iter();
        services
            .filter(|(name, service)| !service.external_name && self.is_backend(name))
            .filter(|(name, _)| {
                let endpoints = self.slices_of(name).flat_map(|slice| &slice.endpoints);
                !endpoints
                    .into_iter()
                    .any(|endpoint| endpoint.readiness != Readiness::NotReady)
            })
            .map(|(name, _)| name)
    }
}

/// The parts of a policy that hold for pods.
fn for_sidecars(spec: &AccessPolicySpec) -> Vec<String> {
    let targets = spec.target_refs.iter().enumerate();
    let pods = targets.filter(|(_, of)| ["Namespace", "Service"].contains(&of.kind.as_str()));
    let pods =
        pods.map(|(index, of)| format!("spec.targetRefs[{index}] ({} {})", of.kind, of.name));
    let selector = spec.selector.iter().map(|_| "spec.selector".to_owned());
    pods.chain(selector).collect()
}

fn reported(subject: &Subject, report: &Report) -> Vec<Finding> {
    let kind = match subject.kind {
        SubjectKind::Ingress => "Ingress",
        SubjectKind::RateLimitPolicy => "RateLimitPolicy",
        SubjectKind::BackendPolicy => "BackendPolicy",
        SubjectKind::AccessPolicy => "AccessPolicy",
    };
    let finding = |problem: &Problem| Finding {
        severity: severity(problem.reason),
        ..warning(kind, &subject.name, problem.reason, problem.message.clone())
    };
    match report {
        Report::Ingress(report) => report.problems.iter().map(finding).collect(),
        Report::Policy(report) => {
            let verdicts = report.ancestors.iter().filter_map(|ancestor| {
                let problem = ancestor.verdict.as_ref().err()?;
                Some(finding(problem))
            });
            let unsupported = report
                .ancestors
                .iter()
                .filter_map(|ancestor| Some(finding(&ancestor.unsupported_problem()?)));
            verdicts.chain(unsupported).collect()
        }
    }
}

/// What is wrong with an object whatever else there is, and what only its surroundings are to blame for.
fn severity(reason: &str) -> Severity {
    match reason {
        "Invalid" | "InvalidHost" | "InvalidPath" | "InvalidBackend" | "SecretInvalid" => {
            Severity::Invalid
        }
        _ => Severity::Warning,
    }
}

fn warning(kind: &'static str, name: &Name, reason: &'static str, message: String) -> Finding {
    Finding {
        id: ObjectId {
            kind,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        },
        severity: Severity::Warning,
        reason,
        message,
    }
}

fn kind_of(id: &ObjectId) -> Kind {
    match id.kind {
        "Service" => Kind::Service,
        "Secret" => Kind::Secret,
        "ConfigMap" => Kind::ConfigMap,
        "EndpointSlice" => Kind::EndpointSlice,
        "Ingress" => Kind::Ingress,
        "IngressClass" => Kind::IngressClass,
        "RateLimitPolicy" => Kind::RateLimitPolicy,
        "BackendPolicy" => Kind::BackendPolicy,
        _ => Kind::AccessPolicy,
    }
}

fn name_of(id: &ObjectId) -> Name {
    Name {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
    }
}

/// What serves Ingresses without a class. Nobody can name it: a class has a name.
fn no_class() -> Change {
    class("")
}

/// Our class, unless somebody defines what its name means.
fn own_class() -> Change {
    class(names::INGRESS_CLASS)
}

fn class(name: &str) -> Change {
    let class = IngressClass {
        ours: true,
        default: true,
    };
    Change::Apply(Name::new("", name), Box::new(Object::IngressClass(class)))
}

fn resource_id(key: Key) -> Option<ResourceId> {
    let kind = match key.kind {
        ResourceKind::Certificate => EdgeKind::Certificate,
        ResourceKind::Service => EdgeKind::Service,
        ResourceKind::EdgeHost => EdgeKind::EdgeHost,
        // A sidecar's matter.
        ResourceKind::Workload => return None,
    };
    Some(ResourceId {
        kind,
        name: key.name,
    })
}

fn resource(body: Body) -> Option<Resource> {
    match body {
        Body::Certificate(certificate) => Some(Resource::Certificate(certificate)),
        Body::Service(service) => Some(Resource::Service(service)),
        Body::EdgeHost(mut host) => {
            let limits = host.rules.iter_mut().flat_map(|rule| &mut rule.rate_limits);
            limits.for_each(|limit| limit.set_scope(push::rate_limit::Scope::Local));
            Some(Resource::EdgeHost(host))
        }
        Body::Workload(_) => None,
    }
}

#[cfg(test)]
mod tests;
