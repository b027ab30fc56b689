//! What an edge must know of who may ask an Ingress.

use std::collections::BTreeMap;

use meshgate_api::{
    policies::access::{AccessPolicySpec, Action, Rule},
    push,
};

use crate::{
    compile::{
        Compiler,
        access::of_rule,
        index::{Target, TargetKind},
        report::{Effect, Unsupported},
    },
    objects::Name,
};

/// Who may ask for a host: the rules of each policy, once.
#[derive(Default)]
pub(in crate::compile) struct AccessLists<'a> {
    pub(in crate::compile) rules: Vec<push::AccessRules>,
    of: BTreeMap<&'a Name, u32>,
}

impl Compiler {
    /// Where in a host's lists the rules for an Ingress are; `None` when no policy has an opinion.
    pub(in crate::compile) fn edge_access<'a>(
        &'a self,
        ingress: &Name,
        lists: &mut AccessLists<'a>,
    ) -> Option<u32> {
        let (policy, spec) = self.edge_access_policy(ingress)?;
        let next = u32::try_from(lists.rules.len()).expect("a host has fewer policies than rules");
        let index = *lists.of.entry(policy).or_insert(next);
        if index == next {
            let rules = self.access_rules(policy, &judged_rules(spec), spec.audit);
            lists.rules.push(push::AccessRules { rules });
        }
        Some(index)
    }

    /// The policy in force for an Ingress: the oldest that has an opinion.
    pub(in crate::compile) fn edge_access_policy(
        &self,
        ingress: &Name,
    ) -> Option<(&Name, &AccessPolicySpec)> {
        let target = Target {
            kind: TargetKind::Ingress,
            name: ingress.clone(),
        };
        let policies = self.index.access_targets.at(&target).filter_map(|name| {
            let policy = self.objects.access_policies.get(name)?;
            let spec = policy.spec.as_ref().filter(|spec| has_opinion(spec))?;
            Some((policy.meta.created_unix_s, name, spec))
        });
        let (_, name, spec) = policies.min_by_key(|(created, name, _)| (*created, *name))?;
        Some((name, spec))
    }
}

/// Whether a policy decides who may ask an Ingress.
pub(in crate::compile) fn has_opinion(spec: &AccessPolicySpec) -> bool {
    spec.rules.is_some() || spec.authentication.is_some()
}

/// The rules as an edge can judge them. What it cannot must not let anyone in, nor past a Deny.
fn judged_rules(spec: &AccessPolicySpec) -> Vec<Rule> {
    let rules = spec.rules.iter().flatten();
    // Nobody can prove yet who he is.
    let rules = rules.filter(|rule| rule.action == Action::Deny || spec.authentication.is_none());
    rules.filter_map(judged).collect()
}

/// Which port a client reached is no fact at an edge: others map ports to it.
fn judged(rule: &Rule) -> Option<Rule> {
    let mut rule = rule.clone();
    match rule.action {
        Action::Deny => rule.to.iter_mut().for_each(|to| to.ports.clear()),
        Action::Allow => {
            let is_for_all = rule.to.is_empty();
            rule.to.retain(|to| to.ports.is_empty());
            if rule.to.is_empty() && !is_for_all {
                return None;
            }
        }
    }
    Some(rule)
}

/// The fields that are set and not supported at an edge, or otherwise than for pods.
pub(in crate::compile) fn unsupported(spec: &AccessPolicySpec) -> Vec<Unsupported> {
    let fields = [
        (
            spec.mtls.is_some(),
            "spec.mtls at an edge",
            Effect::NotEnforced,
        ),
        (
            !spec.ports.is_empty(),
            "spec.ports at an edge",
            Effect::NotEnforced,
        ),
        (
            spec.authentication.is_some(),
            "spec.authentication",
            Effect::NobodyLetIn,
        ),
    ];
    let fields = fields.into_iter().filter(|(is_set, ..)| *is_set);
    let fields = fields.map(|(_, path, effect)| Unsupported::new(path, effect));
    let rules = spec.rules.iter().flatten().enumerate();
    let of_rules = rules.flat_map(|(rule, of)| {
        let effect = of_rule(of.action);
        let with_ports = of.to.iter().enumerate();
        let with_ports = with_ports.filter(|(_, to)| !to.ports.is_empty());
        with_ports.map(move |(to, _)| {
            let path = format!("spec.rules[{rule}].to[{to}].ports at an edge");
            Unsupported::new(path, effect)
        })
    });
    fields.chain(of_rules).collect()
}
