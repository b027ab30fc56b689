//! Role-based access control, purely over what [`Rbac::update`] was fed: roles, bindings, aggregation.

mod cover;
mod role;
mod rule;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use self::role::{Binding, ClusterRole, RoleRef, SubjectKey, subject_keys};

pub(super) use self::cover::{Uncovered, uncovered};
pub(super) use self::role::{binding_role, has_aggregation};
pub(super) use self::rule::Rule;

use super::{Attributes, User};

pub(super) const RESOURCES: [&str; 4] = [
    "roles",
    "clusterroles",
    "rolebindings",
    "clusterrolebindings",
];

/// A cluster-wide binding has the empty namespace.
type Key = (Box<str>, Box<str>);
type Rules = Arc<[Rule]>;

/// All roles and bindings, indexed by whom they are for.
#[derive(Debug, Default)]
pub(super) struct Rbac {
    roles: HashMap<Key, Rules>,
    cluster_roles: BTreeMap<Box<str>, ClusterRole>,
    /// What aggregated ClusterRoles come to: computed when first asked for, forgotten with every change of a ClusterRole,
    /// so that taking in thousands of roles at start costs nothing.
    aggregated: OnceLock<HashMap<Box<str>, Rules>>,
    bindings: HashMap<Key, Binding>,
    by_subject: HashMap<SubjectKey, BTreeSet<Key>>,
}

/// Why something is allowed.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    key: &'a Key,
    binding: &'a Binding,
    subject: SubjectKey,
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.key;
        let RoleRef {
            cluster,
            name: role,
        } = &self.binding.role;
        let role_kind = if *cluster { "ClusterRole" } else { "Role" };
        let subject = &self.subject;
        if namespace.is_empty() {
            write!(f, "RBAC: allowed by ClusterRoleBinding {name:?}")?;
        } else {
            write!(f, "RBAC: allowed by RoleBinding \"{name}/{namespace}\"")?;
        }
        write!(f, " of {role_kind} {role:?} to {subject}")
    }
}

impl Rbac {
    pub(super) fn update(
        &mut self,
        resource: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
    ) {
        let key: Key = (namespace.into(), name.into());
        match (resource, object) {
            ("roles", Some(role)) => {
                self.roles.insert(key, Rule::all_of(&role["rules"]));
            }
            ("roles", None) => {
                self.roles.remove(&key);
            }
            ("clusterroles", _) => {
                match object {
                    Some(role) => self.cluster_roles.insert(key.1, ClusterRole::of(role)),
                    None => self.cluster_roles.remove(name),
                };
                self.aggregated = OnceLock::new();
            }
            ("rolebindings" | "clusterrolebindings", _) => {
                self.set_binding(key, object.and_then(Binding::of));
            }
            _ => {}
        }
    }

    fn set_binding(&mut self, key: Key, binding: Option<Binding>) {
        if let Some(old) = self.bindings.remove(&key) {
            for subject in &old.subjects {
                if let Some(keys) = self.by_subject.get_mut(subject) {
                    keys.remove(&key);
                    if keys.is_empty() {
                        self.by_subject.remove(subject);
                    }
                }
            }
        }
        if let Some(binding) = binding {
            for subject in &binding.subjects {
                let keys = self.by_subject.entry(subject.clone()).or_default();
                keys.insert(key.clone());
            }
            self.bindings.insert(key, binding);
        }
    }

    /// May `user` do this? An error is what is worth knowing about a refusal: roles that are bound but do not exist.
    pub(super) fn authorize<'a>(
        &'a self,
        user: &User,
        what: &Attributes<'a>,
    ) -> Result<Grant<'a>, String> {
        let mut missing = Vec::new();
        let namespace = match *what {
            Attributes::Resource { namespace, .. } => namespace,
            Attributes::NonResource { .. } => "",
        };
        for (key, binding, subject) in self.bindings_for(user, namespace) {
            match self.rules_of(&binding.role, &key.0) {
                Some(rules) if rules.iter().any(|rule| rule.allows(what)) => {
                    return Ok(Grant {
                        key,
                        binding,
                        subject,
                    });
                }
                Some(_) => {}
                None => missing.push(binding.role.not_found()),
            }
        }
        missing.sort();
        missing.dedup();
        Err(if missing.is_empty() {
            String::new()
        } else {
            format!("RBAC: {}", missing.join(", "))
        })
    }

    /// Everything `user` may do in `namespace` (empty: cluster-wide only).
    pub(super) fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let mut all = Vec::new();
        for (key, binding, _) in self.bindings_for(user, namespace) {
            if let Some(rules) = self.rules_of(&binding.role, &key.0) {
                all.extend(rules.iter().cloned());
            }
        }
        all
    }

    /// The rules of a role that a binding in `namespace` refers to; `None` if it does not exist.
    pub(super) fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Rules> {
        if !role.cluster {
            return self
                .roles
                .get(&(namespace.into(), role.name.clone()))
                .cloned();
        }
        if let Some(aggregated) = self.aggregated().get(&role.name) {
            return Some(aggregated.clone());
        }
        let role = self.cluster_roles.get(&role.name)?;
        Some(role.rules.clone())
    }

    pub(super) fn aggregated_rules(&self, name: &str) -> Option<Value> {
        let rules = self.aggregated().get(name)?;
        Some(rules.iter().map(Rule::to_json).collect())
    }

    /// Bindings that name the user or one of its groups: cluster-wide ones, then those of the namespace.
    fn bindings_for<'a>(
        &'a self,
        user: &User,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Binding, SubjectKey)> {
        subject_keys(user).into_iter().flat_map(move |subject| {
            let keys = self.by_subject.get(&subject).into_iter().flatten();
            keys.filter(move |(of, _)| of.is_empty() || **of == *namespace)
                .filter_map(move |key| {
                    let binding = self.bindings.get(key)?;
                    Some((key, binding, subject.clone()))
                })
        })
    }

    /// What aggregated roles come to. An aggregated role may itself be picked up by another.
    fn aggregated(&self) -> &HashMap<Box<str>, Rules> {
        self.aggregated.get_or_init(|| {
            let mut aggregated = HashMap::new();
            for (name, role) in &self.cluster_roles {
                if role.aggregation.is_some() {
                    let mut rules = Vec::new();
                    self.collect(name, role, &mut BTreeSet::new(), &mut rules);
                    aggregated.insert(name.clone(), rules.into());
                }
            }
            aggregated
        })
    }

    fn collect<'a>(
        &'a self,
        name: &'a str,
        role: &'a ClusterRole,
        seen: &mut BTreeSet<&'a str>,
        rules: &mut Vec<Rule>,
    ) {
        if !seen.insert(name) {
            return;
        }
        let Some(aggregation) = &role.aggregation else {
            for rule in role.rules.iter() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
            return;
        };
        for (other_name, other) in &self.cluster_roles {
            if aggregation.selects(&other.labels) {
                self.collect(other_name, other, seen, rules);
            }
        }
    }
}
