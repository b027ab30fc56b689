//! What a sidecar must know of its own pod: identity, whether plaintext is taken, who may call.

pub(super) mod edge;

use std::{cmp::Reverse, collections::BTreeMap};

use meshgate_api::{
    names,
    policies::access::{AccessPolicySpec, Action, From, Mtls, Rule, To},
    push,
};

use super::{
    Compiler,
    index::{Target, TargetKind},
    limits::path_match,
    report::{Effect, Unsupported},
};
use crate::objects::{AccessPolicy, Name, Pod, in_namespace, without_last_dot};

/// What a policy can have an opinion on; each is decided on its own, so that rules for a pod do not undo its namespace's
/// `mtls: Strict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Facet {
    Mtls,
    Ports,
    Rules,
}

impl Facet {
    pub(super) const ALL: [Self; 3] = [Self::Mtls, Self::Ports, Self::Rules];

    pub(super) fn set_in(self, spec: &AccessPolicySpec) -> bool {
        match self {
            Self::Mtls => spec.mtls.is_some(),
            Self::Ports => !spec.ports.is_empty(),
            Self::Rules => spec.rules.is_some(),
        }
    }
}

/// A policy that holds for a pod.
pub(super) struct Holding<'a> {
    pub(super) name: &'a Name,
    pub(super) spec: &'a AccessPolicySpec,
    pub(super) specificity: u8,
    created_unix_s: i64,
}

impl Compiler {
    pub(super) fn workload(&self, name: &Name) -> Option<push::Workload> {
        let pod = self.objects.pods.get(name)?;
        let holding = self.access_policies(name, pod);
        let of = |facet| winner(&holding, facet).map(|holding| (holding.name, holding.spec));
        let rules = of(Facet::Rules);
        let ports = of(Facet::Ports)
            .map(|(_, spec)| spec.ports.as_slice())
            .unwrap_or_default();
        Some(push::Workload {
            identity: self.identity(name, pod),
            mtls: mtls(of(Facet::Mtls).and_then(|(_, spec)| spec.mtls)).into(),
            ports: ports
                .iter()
                .map(|exception| push::PortMtls {
                    port: exception.port.into(),
                    mtls: mtls(Some(exception.mtls)).into(),
                })
                .collect(),
            authorization: rules.is_some(),
            rules: rules
                .map(|(policy, spec)| {
                    let rules = spec.rules.as_deref().unwrap_or_default();
                    self.access_rules(policy, rules, spec.audit)
                })
                .unwrap_or_default(),
        })
    }

    /// All policies that select a pod.
    pub(super) fn access_policies(&self, pod_name: &Name, pod: &Pod) -> Vec<Holding<'_>> {
        // Policies of a namespace are few; their own index by label would cost more than it saves.
        let of_namespace = in_namespace(&self.objects.access_policies, &pod_name.namespace);
        of_namespace
            .filter_map(|(name, policy)| {
                Some(Holding {
                    specificity: self.access_specificity(name, policy, pod)?,
                    name,
                    spec: policy.spec.as_ref()?,
                    created_unix_s: policy.meta.created_unix_s,
                })
            })
            .collect()
    }

    /// How closely a policy names a pod: by its labels 2, by its Service 1, by its namespace 0.
    fn access_specificity(&self, name: &Name, policy: &AccessPolicy, pod: &Pod) -> Option<u8> {
        let spec = policy.spec.as_ref()?;
        let selector = spec.selector.as_ref();
        if selector.is_some_and(|selector| is_subset(&selector.match_labels, &pod.labels)) {
            return Some(2);
        }
        let targets = spec
            .target_refs
            .iter()
            .filter_map(|target| Target::of(name, target));
        let specificities = targets.filter_map(|target| match target.kind {
            TargetKind::Service => {
                let selector = &self.objects.services.get(&target.name)?.selector;
                (!selector.is_empty() && is_subset(selector, &pod.labels)).then_some(1)
            }
            TargetKind::Namespace => (target.name.name == name.namespace).then_some(0),
            TargetKind::Ingress => None,
        });
        specificities.max()
    }

    /// Meshed pods that a policy selects.
    pub(super) fn selected_pods<'a>(
        &'a self,
        name: &Name,
        policy: &AccessPolicy,
    ) -> Vec<(&'a Name, &'a Pod)> {
        let pods = in_namespace(&self.objects.pods, &name.namespace);
        pods.filter(|(_, pod)| self.access_specificity(name, policy, pod).is_some())
            .collect()
    }

    fn access_rules(&self, policy: &Name, rules: &[Rule], audit: bool) -> Vec<push::AccessRule> {
        // A condition that is not understood must not let anyone in, nor past a Deny.
        let understood = |rule: &&Rule| rule.when.is_none() || rule.action == Action::Deny;
        let rules = rules.iter().filter(understood);
        let mut compiled: Vec<_> = rules
            .map(|rule| self.access_rule(policy, rule, audit))
            .collect();
        if audit && compiled.is_empty() {
            // Without any rule all would be denied, and not only said to be.
            compiled.push(push::AccessRule {
                deny: true,
                origin: policy.to_string(),
                audit,
                ..push::AccessRule::default()
            });
        }
        compiled
    }

    fn access_rule(&self, policy: &Name, rule: &Rule, audit: bool) -> push::AccessRule {
        push::AccessRule {
            deny: rule.action == Action::Deny,
            from: rule
                .from
                .iter()
                .map(|from| self.access_from(policy, from))
                .collect(),
            to: rule.to.iter().map(access_to).collect(),
            origin: policy.to_string(),
            audit,
        }
    }

    fn access_from(&self, policy: &Name, from: &From) -> push::AccessFrom {
        let accounts = from.service_accounts.iter().map(|account| {
            let (namespace, name) = account
                .split_once('/')
                .unwrap_or((&policy.namespace, account));
            names::spiffe_id(&self.trust_domain, namespace, name)
        });
        push::AccessFrom {
            identities: from.identities.iter().cloned().chain(accounts).collect(),
            namespaces: from.namespaces.clone(),
            ip_blocks: from.ip_blocks.clone(),
            not_ip_blocks: from.not_ip_blocks.clone(),
        }
    }
}

/// The policy that decides a facet.
pub(super) fn winner<'a, 'b>(holding: &'b [Holding<'a>], facet: Facet) -> Option<&'b Holding<'a>> {
    let opinions = holding.iter().filter(|holding| facet.set_in(holding.spec));
    opinions.min_by_key(|holding| {
        (
            Reverse(holding.specificity),
            holding.created_unix_s,
            holding.name,
        )
    })
}

/// The fields that are set and not supported yet.
pub(super) fn unsupported(spec: &AccessPolicySpec) -> Vec<Unsupported> {
    let rules = spec.rules.iter().flatten().enumerate();
    let when = rules
        .filter(|(_, rule)| rule.when.is_some())
        .map(|(index, rule)| {
            Unsupported::new(format!("spec.rules[{index}].when"), of_rule(rule.action))
        });
    let authentication = spec.authentication.iter();
    let authentication =
        authentication.map(|_| Unsupported::new("spec.authentication", Effect::NotEnforced));
    when.chain(authentication).collect()
}

/// What a rule does that names what cannot be judged.
fn of_rule(action: Action) -> Effect {
    match action {
        Action::Allow => Effect::NeverAllows,
        Action::Deny => Effect::DeniesRegardless,
    }
}

fn mtls(mode: Option<Mtls>) -> push::workload::Mtls {
    match mode {
        Some(Mtls::Strict) => push::workload::Mtls::Strict,
        Some(Mtls::Permissive) | None => push::workload::Mtls::Permissive,
    }
}

fn access_to(to: &To) -> push::AccessTo {
    push::AccessTo {
        methods: to.methods.clone(),
        paths: to.paths.iter().map(path_match).collect(),
        hosts: to
            .hosts
            .iter()
            .map(|host| without_last_dot(host).to_ascii_lowercase())
            .collect(),
        ports: to.ports.iter().copied().map(u32::from).collect(),
    }
}

fn is_subset(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
