//! What came of an object, for its status and Events.

mod edge;
mod ingress;

use std::{collections::BTreeSet, fmt, sync::Arc};

use meshgate_api::policies::TargetRef;
use serde_json::Value;

use super::{
    Compiler, Key, ResourceKind, access,
    access::Facet,
    attach::older_rival,
    backend,
    index::{self, MultiMap, Target, TargetKind},
    limits,
    tls::NoAuthorities,
};
use crate::{
    EdgeAddress,
    objects::{Checked, Meta, Name, Policy},
};

/// Kinds that get a status from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SubjectKind {
    Ingress,
    RateLimitPolicy,
    BackendPolicy,
    AccessPolicy,
}

/// An object that gets a status from us.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Subject {
    pub(crate) kind: SubjectKind,
    pub(crate) name: Name,
}

impl Subject {
    pub(crate) fn new(kind: SubjectKind, name: &Name) -> Self {
        Self {
            kind,
            name: name.clone(),
        }
    }

    pub(crate) fn ingress(name: &Name) -> Self {
        Self::new(SubjectKind::Ingress, name)
    }
}

/// Something wrong: a reason for machines, a message for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Ingress(IngressReport),
    Policy(PolicyReport),
}

/// An Ingress of our class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IngressReport {
    pub(crate) meta: Meta,
    pub(crate) problems: Vec<Problem>,
    /// Resources it has a part in.
    pub(crate) affects: BTreeSet<Key>,
    /// As its status has them.
    pub(crate) addresses: Vec<EdgeAddress>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PolicyReport {
    pub(crate) meta: Meta,
    pub(crate) ancestors: Vec<Ancestor>,
    /// `status.ancestors` as it is.
    pub(crate) observed: Vec<Value>,
}

/// A field that is set and not supported yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unsupported {
    pub(crate) path: String,
    pub(crate) effect: Effect,
}

/// What comes of a field that is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    NotEnforced,
    NothingSent,
    NobodyLetIn,
    /// Of an Allow rule.
    NeverAllows,
    /// Of a Deny rule.
    DeniesRegardless,
}

impl Unsupported {
    pub(crate) fn new(path: impl Into<String>, effect: Effect) -> Self {
        Self {
            path: path.into(),
            effect,
        }
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = match self.effect {
            Effect::NotEnforced => "not enforced",
            Effect::NothingSent => "nothing is sent to endpoints outside the mesh",
            Effect::NobodyLetIn => "nobody is let in",
            Effect::NeverAllows => "what names it allows nothing",
            Effect::DeniesRegardless => "what names it denies regardless of it",
        };
        write!(f, "{} ({effect})", self.path)
    }
}

/// One target of a policy.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ancestor {
    pub(crate) target: TargetRef,
    pub(crate) verdict: Result<(), Problem>,
    pub(crate) unsupported: Vec<Unsupported>,
    pub(crate) affects: BTreeSet<Key>,
    /// What endpoints are verified by: with others the policy is to be enforced anew, though all else is the same.
    pub(crate) authorities: Vec<Arc<str>>,
    /// What must be known before it can be enforced as it is now.
    pub(crate) awaited: Option<String>,
}

impl Ancestor {
    /// What the condition `Supported` says when it is false.
    pub(crate) fn unsupported_problem(&self) -> Option<Problem> {
        if self.unsupported.is_empty() {
            return None;
        }
        let fields: Vec<_> = self.unsupported.iter().map(ToString::to_string).collect();
        let message = format!("not supported yet: {}", fields.join(", "));
        Some(Problem::new("UnsupportedFields", message))
    }
}

impl Compiler {
    pub(super) fn report(&self, subject: &Subject) -> Option<Report> {
        let name = &subject.name;
        match subject.kind {
            SubjectKind::Ingress => self.ingress_report(name).map(Report::Ingress),
            SubjectKind::RateLimitPolicy => {
                let policy = self.objects.rate_limit_policies.get(name)?;
                Some(policy_report(
                    name,
                    policy,
                    limits::unsupported,
                    Err(no_target()),
                    |target| self.rate_limit_target(name, target),
                ))
            }
            SubjectKind::BackendPolicy => {
                let policy = self.objects.backend_policies.get(name)?;
                let mut report = policy_report(
                    name,
                    policy,
                    backend::unsupported,
                    Err(no_target()),
                    |target| self.backend_target(name, target),
                );
                self.note_mesh(name, &mut report);
                self.note_tls(name, &mut report);
                Some(report)
            }
            SubjectKind::AccessPolicy => self.access_report(name),
        }
    }

    fn rate_limit_target(&self, name: &Name, of: &TargetRef) -> Result<BTreeSet<Key>, Problem> {
        let target = supported(name, of, TargetKind::Ingress)?;
        let (policies, targets) = (
            &self.objects.rate_limit_policies,
            &self.index.rate_limit_targets,
        );
        let hosts = self.hosts_of(&target, of)?;
        unrivalled(policies, targets, name, &target, of)?;
        Ok(hosts)
    }

    /// The resources of an Ingress that is served.
    fn hosts_of(&self, target: &Target, of: &TargetRef) -> Result<BTreeSet<Key>, Problem> {
        let ingress = self
            .objects
            .ingresses
            .get(&target.name)
            .filter(|_| self.index.owned.contains(&target.name));
        let hosts = index::hosts(ingress.ok_or_else(|| not_found(of))?).into_iter();
        Ok(hosts
            .map(|host| Key::new(ResourceKind::EdgeHost, host))
            .collect())
    }

    fn backend_target(&self, name: &Name, of: &TargetRef) -> Result<BTreeSet<Key>, Problem> {
        let target = supported(name, of, TargetKind::Service)?;
        let (policies, targets) = (&self.objects.backend_policies, &self.index.backend_targets);
        let service = self
            .objects
            .services
            .get(&target.name)
            .ok_or_else(|| not_found(of))?;
        let ports = service.ports.iter().filter(|port| {
            of.section_name
                .as_ref()
                .is_none_or(|name| *name == port.name)
        });
        let keys: BTreeSet<_> = ports
            .map(|port| super::resource_name(&target.name, port.port.into()))
            .map(|resource| Key::new(ResourceKind::Service, resource))
            .collect();
        if let (true, Some(section)) = (keys.is_empty(), &of.section_name) {
            let message = format!("Service {} has no TCP port named {section}", of.name);
            return Err(Problem::new("TargetNotFound", message));
        }
        unrivalled(policies, targets, name, &target, of)?;
        self.enforceable(name)?;
        self.verifiable(name)?;
        Ok(keys)
    }

    /// What closes is no lesser form of what was asked for.
    fn enforceable(&self, name: &Name) -> Result<(), Problem> {
        let policy = self.objects.backend_policies.get(name);
        let spec = policy.and_then(Policy::valid);
        let fields = spec.map(backend::unsupported).unwrap_or_default();
        match fields
            .iter()
            .find(|field| field.effect == Effect::NothingSent)
        {
            None => Ok(()),
            Some(field) => Err(Problem::new(
                "UnsupportedFields",
                format!("not supported yet: {field}"),
            )),
        }
    }

    /// Without authorities nothing is sent to endpoints, which is not what the policy is for. What is not supported is
    /// said otherwise, and what is just being read may well do.
    fn verifiable(&self, name: &Name) -> Result<(), Problem> {
        let policy = self.objects.backend_policies.get(name);
        let tls = policy.and_then(|policy| policy.valid()?.tls.as_deref());
        let Some(tls) = tls.filter(|tls| tls.is_supported()) else {
            return Ok(());
        };
        match self.tls_authorities(name, tls) {
            Ok(_) | Err(NoAuthorities::Unread(_)) => Ok(()),
            Err(NoAuthorities::Unusable(problem)) => {
                let message = format!("{problem}; nothing is sent to endpoints outside the mesh");
                Err(Problem::new("NoValidCACertificate", message))
            }
        }
    }

    /// What endpoints are verified by, or what that waits for.
    fn note_tls(&self, name: &Name, report: &mut Report) {
        let policy = self.objects.backend_policies.get(name);
        let tls = policy.and_then(|policy| policy.valid()?.tls.as_deref());
        let (Report::Policy(report), Some(tls)) = (report, tls) else {
            return;
        };
        let (authorities, awaited) = match self.tls_authorities(name, tls) {
            Ok(authorities) => (authorities, None),
            Err(NoAuthorities::Unread(what)) => (Vec::new(), Some(what)),
            // Not accepted, or not supported.
            Err(NoAuthorities::Unusable(_)) => return,
        };
        for ancestor in &mut report.ancestors {
            ancestor.authorities.clone_from(&authorities);
            ancestor.awaited.clone_from(&awaited);
        }
    }

    /// What a policy asks for that endpoints in the mesh do not get.
    fn note_mesh(&self, name: &Name, report: &mut Report) {
        let Report::Policy(report) = report else {
            return;
        };
        let policy = self.objects.backend_policies.get(name);
        let spec = policy.and_then(|policy| policy.spec.as_ref());
        if spec.is_none_or(|spec| spec.proxy_protocol.is_none()) {
            return;
        }
        for ancestor in &mut report.ancestors {
            let section = ancestor.target.section_name.as_deref();
            let target = Target::of(name, &ancestor.target);
            let has_mesh = target.is_some_and(|of| self.has_mesh(&of.name, section));
            if ancestor.verdict.is_ok() && has_mesh {
                let field = "spec.proxyProtocol for endpoints in the mesh";
                let unsupported = Unsupported::new(field, Effect::NotEnforced);
                ancestor.unsupported.push(unsupported);
            }
        }
    }

    fn access_report(&self, name: &Name) -> Option<Report> {
        let policy = self.objects.access_policies.get(name)?;
        let pods = self.selected_pods(name, policy);
        let pod_keys: BTreeSet<_> = pods
            .iter()
            .map(|(pod, _)| Key::new(ResourceKind::Workload, pod.to_string()))
            .collect();
        let conflict = pods.iter().find_map(|(pod_name, pod)| {
            let holding = self.access_policies(pod_name, pod);
            let own = holding.iter().find(|holding| holding.name == name)?;
            Facet::ALL
                .into_iter()
                .filter(|facet| facet.set_in(own.spec))
                .find_map(|facet| {
                    let winner = access::winner(&holding, facet)?;
                    let lost = winner.name != name && winner.specificity == own.specificity;
                    lost.then(|| {
                        Problem::new(
                            "Conflicted",
                            format!("the older policy {} holds for pod {pod_name}", winner.name),
                        )
                    })
                })
        });
        let target = |of: &TargetRef| {
            let target = Target::of(name, of).ok_or_else(|| not_supported(of))?;
            let found = match target.kind {
                TargetKind::Ingress => return self.edge_access_target((name, policy), &target, of),
                TargetKind::Namespace => target.name.name == name.namespace,
                TargetKind::Service => self.objects.services.contains_key(&target.name),
            };
            match (found, &conflict) {
                (false, _) => Err(not_found(of)),
                (true, Some(conflict)) => Err(conflict.clone()),
                (true, None) => Ok(pod_keys.clone()),
            }
        };
        let without_target = match &conflict {
            Some(conflict) => Err(conflict.clone()),
            None => Ok(pod_keys.clone()),
        };
        let mut report = policy_report(name, policy, access::unsupported, without_target, target);
        edge::note_edge(name, policy, &mut report);
        Some(report)
    }
}

/// `without_target` is what came of a policy that names none.
fn policy_report<S: Checked>(
    name: &Name,
    policy: &Policy<S>,
    unsupported: fn(&S) -> Vec<Unsupported>,
    without_target: Result<BTreeSet<Key>, Problem>,
    target: impl Fn(&TargetRef) -> Result<BTreeSet<Key>, Problem>,
) -> Report {
    let declared = policy.declared.iter();
    let mut ancestors: Vec<_> = declared
        .map(|of| ancestor(policy, of.clone(), unsupported, target(of)))
        .collect();
    if ancestors.is_empty() {
        ancestors.push(ancestor(
            policy,
            own_namespace(name),
            unsupported,
            without_target,
        ));
    }
    Report::Policy(PolicyReport {
        meta: policy.meta.clone(),
        ancestors,
        observed: policy.ancestors.clone(),
    })
}

fn ancestor<S: Checked>(
    policy: &Policy<S>,
    target: TargetRef,
    unsupported: fn(&S) -> Vec<Unsupported>,
    outcome: Result<BTreeSet<Key>, Problem>,
) -> Ancestor {
    let outcome = match &policy.fault {
        None => outcome,
        Some(fault) => Err(Problem::new("Invalid", fault.to_string())),
    };
    let (verdict, affects) = match outcome {
        Ok(affects) => (Ok(()), affects),
        Err(problem) => (Err(problem), BTreeSet::new()),
    };
    Ancestor {
        target,
        verdict,
        unsupported: policy.valid().map(unsupported).unwrap_or_default(),
        affects,
        authorities: Vec::new(),
        awaited: None,
    }
}

/// The ancestor of a policy that names no target.
fn own_namespace(policy: &Name) -> TargetRef {
    TargetRef {
        group: String::new(),
        kind: "Namespace".into(),
        name: policy.namespace.to_string(),
        section_name: None,
    }
}

fn supported(policy: &Name, of: &TargetRef, kind: TargetKind) -> Result<Target, Problem> {
    Target::of(policy, of)
        .filter(|target| target.kind == kind)
        .ok_or_else(|| not_supported(of))
}

fn not_supported(of: &TargetRef) -> Problem {
    Problem::new(
        "Invalid",
        format!("targets of kind {} are not supported yet", of.kind),
    )
}

fn no_target() -> Problem {
    Problem::new("Invalid", "spec.targetRefs: names no target".into())
}

fn not_found(of: &TargetRef) -> Problem {
    let message = match of.kind.as_str() {
        "Ingress" => format!(
            "there is no Ingress {} of class meshgate in this namespace",
            of.name
        ),
        "Namespace" => "a policy can only target its own namespace".to_owned(),
        kind => format!("there is no {kind} {} in this namespace", of.name),
    };
    Problem::new("TargetNotFound", message)
}

fn unrivalled<S: Checked>(
    policies: &std::collections::BTreeMap<Name, Policy<S>>,
    targets: &MultiMap<Target, Name>,
    name: &Name,
    target: &Target,
    of: &TargetRef,
) -> Result<(), Problem> {
    match older_rival(policies, targets, name, target, of.section_name.as_deref()) {
        None => Ok(()),
        Some(rival) => Err(conflicted(rival)),
    }
}

fn conflicted(older: &Name) -> Problem {
    let message = format!("the older policy {older} has the same target");
    Problem::new("Conflicted", message)
}
