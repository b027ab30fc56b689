//! Which policy holds where: the most specific target wins, then the oldest, then the first by name.

use std::{cmp::Reverse, collections::BTreeMap};

use meshgate_api::policies::{backend::BackendPolicySpec, rate_limit::RateLimitPolicySpec};

use super::{
    Compiler,
    index::{MultiMap, Target, TargetKind},
};
use crate::objects::{Checked, Name, Policy};

impl Compiler {
    /// The policy in force for a port of a Service.
    pub(super) fn backend_policy(
        &self,
        service: &Name,
        port_name: &str,
    ) -> Option<(&Name, &BackendPolicySpec)> {
        let target = Target {
            kind: TargetKind::Service,
            name: service.clone(),
        };
        let policies = self.index.backend_targets.at(&target).filter_map(|name| {
            let policy = self.objects.backend_policies.get(name)?;
            let refs = policy
                .targets()
                .iter()
                .filter(|of| Target::of(name, of).as_ref() == Some(&target));
            let specificity = refs.filter_map(|of| match of.section_name.as_deref() {
                None => Some(0),
                Some(section) => (section == port_name).then_some(1),
            });
            Some((name, policy, specificity.max()?))
        });
        let (name, policy, _) = policies.min_by_key(|(name, policy, specificity)| {
            (Reverse(*specificity), policy.meta.created_unix_s, *name)
        })?;
        Some((name, policy.spec.as_ref()?))
    }

    /// The policy in force for an Ingress.
    pub(super) fn rate_limit_policy(
        &self,
        ingress: &Name,
    ) -> Option<(&Name, &RateLimitPolicySpec)> {
        let target = Target {
            kind: TargetKind::Ingress,
            name: ingress.clone(),
        };
        let policies = self.index.rate_limit_targets.at(&target);
        let policies =
            policies.filter_map(|name| Some((name, self.objects.rate_limit_policies.get(name)?)));
        let (name, policy) =
            policies.min_by_key(|(name, policy)| (policy.meta.created_unix_s, *name))?;
        Some((name, policy.spec.as_ref()?))
    }
}

/// The policy that takes `target` away from `policy`: attached to exactly the same, and older.
pub(super) fn older_rival<'a, S: Checked>(
    policies: &'a BTreeMap<Name, Policy<S>>,
    targets: &'a MultiMap<Target, Name>,
    policy: &Name,
    target: &Target,
    section: Option<&str>,
) -> Option<&'a Name> {
    let age = |name: &Name| policies.get(name).map(|policy| policy.meta.created_unix_s);
    let rivals = targets.at(target).filter(|rival| {
        let older = (age(rival), *rival) < (age(policy), policy);
        let refs = policies
            .get(*rival)
            .map(Policy::targets)
            .unwrap_or_default();
        let same = |of: &&meshgate_api::policies::TargetRef| {
            Target::of(rival, of).as_ref() == Some(target) && of.section_name.as_deref() == section
        };
        older && refs.iter().any(|of| same(&of))
    });
    rivals.min_by_key(|rival| (age(rival), *rival))
}
