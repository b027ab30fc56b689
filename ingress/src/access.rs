//! Access rules, shared: thousands of hosts may be under one policy.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use meshgate_routing::permit::AccessRules;

/// The rules in force, by the policy that they come from.
#[derive(Debug, Default)]
pub(crate) struct AccessBook {
    policies: HashMap<Arc<str>, Weak<AccessRules>>,
}

impl AccessBook {
    /// Those that equal these, if they are in force.
    pub(crate) fn shared(&mut self, rules: AccessRules) -> Arc<AccessRules> {
        // Without any rule nothing tells the policies apart, and nothing has to.
        let first = rules.rules.first();
        let origin = first.map(|rule| rule.origin.clone()).unwrap_or_default();
        let known = self.policies.get(&origin).and_then(Weak::upgrade);
        known.filter(|known| **known == rules).unwrap_or_else(|| {
            let rules = Arc::new(rules);
            self.policies.insert(origin, Arc::downgrade(&rules));
            rules
        })
    }

    /// Forgets what is no longer in force.
    pub(crate) fn forget_unused(&mut self) {
        self.policies.retain(|_, rules| rules.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meshgate_routing::permit::AccessRule;

    fn rules(origin: &str, deny: bool) -> AccessRules {
        let rule = AccessRule {
            deny,
            origin: origin.into(),
            ..AccessRule::default()
        };
        AccessRules {
            enforced: true,
            rules: vec![rule],
        }
    }

    #[test]
    fn equal_rules_of_one_policy_are_kept_once() {
        let mut book = AccessBook::default();
        let one = book.shared(rules("shop/one", true));
        let is_one = |other: &Arc<AccessRules>| Arc::ptr_eq(&one, other);
        assert!(is_one(&book.shared(rules("shop/one", true))));
        assert!(!is_one(&book.shared(rules("shop/two", true))));
        // A new version comes while routes still have the old one.
        let new = book.shared(rules("shop/one", false));
        assert!(!is_one(&new));
        assert!(Arc::ptr_eq(&new, &book.shared(rules("shop/one", false))));
        drop(new);
        book.forget_unused();
        assert!(book.policies.is_empty());
    }
}
