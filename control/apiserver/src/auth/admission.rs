//! What authorization must see of the object itself: nobody gives more than they hold, nodes change only what is theirs.

use serde_json::Value;

use super::node::{self, NodeWrite};
use super::rbac::{Rule, Uncovered, binding_role, has_aggregation, uncovered};
use super::user::subject;
use super::{Attributes, Auth, Denied, MASTERS, RBAC_GROUP, State, User};

/// A write that is otherwise ready to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    /// `create`, `update` (patches too) or `delete`.
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub old: Option<&'a Value>,
    pub new: Option<&'a Value>,
}

impl Auth {
    /// Call after mutation and before storing, for every write.
    pub(crate) fn admit(&self, user: &User, write: &Write<'_>) -> Result<(), Denied> {
        let state = self.read();
        if let Some(node) = node::name_of(user) {
            let of_node = NodeWrite {
                node,
                verb: write.verb,
                subresource: write.subresource,
                namespace: write.namespace,
                name: write.name,
                old: write.old,
                new: write.new,
            };
            of_node
                .admit(write.group, write.resource, &state.live)
                .map_err(|why| write.refused(why))?;
        }
        let Some(new) = write.new else {
            return Ok(());
        };
        if write.group != RBAC_GROUP || user.in_group(MASTERS) {
            return Ok(());
        }
        match write.resource {
            "roles" | "clusterroles" => state.admit_role(user, write, new),
            "rolebindings" | "clusterrolebindings" => state.admit_binding(user, write, new),
            _ => Ok(()),
        }
    }
}

impl State {
    /// A role may be written by who holds everything in it, or may `escalate` it.
    fn admit_role(&self, user: &User, write: &Write<'_>, new: &Value) -> Result<(), Denied> {
        let unchanged = write.old.is_some_and(|old| {
            old["rules"] == new["rules"] && old["aggregationRule"] == new["aggregationRule"]
        });
        let may = Attributes::Resource {
            verb: "escalate",
            group: RBAC_GROUP,
            resource: write.resource,
            subresource: "",
            namespace: write.namespace,
            name: write.name,
        };
        if unchanged || self.rbac.authorize(user, &may).is_ok() {
            return Ok(());
        }
        // An aggregation rule takes in whatever anybody labels later: only who holds everything may write one.
        let aggregation = |role: Option<&Value>| role.map(|role| role["aggregationRule"].clone());
        if has_aggregation(new) && aggregation(write.old) != aggregation(Some(new)) {
            self.holds(user, write, &Rule::everything())?;
        }
        self.holds(user, write, &Rule::all_of(&new["rules"]))
    }

    /// A binding may be written by who holds everything in its role, or may `bind` it.
    fn admit_binding(&self, user: &User, write: &Write<'_>, new: &Value) -> Result<(), Denied> {
        let Some(role) = binding_role(new) else {
            return Err(write.refused("roleRef names no Role or ClusterRole"));
        };
        let may = Attributes::Resource {
            verb: "bind",
            group: RBAC_GROUP,
            resource: role.resource(),
            subresource: "",
            namespace: write.namespace,
            name: &role.name,
        };
        if self.rbac.authorize(user, &may).is_ok() {
            return Ok(());
        }
        match self.rbac.rules_of(&role, write.namespace) {
            Some(rules) => self.holds(user, write, &rules),
            // Who knows what a role of this name will hold some day.
            None => Err(write.refused(&role.not_found())),
        }
    }

    fn holds(&self, user: &User, write: &Write<'_>, wanted: &[Rule]) -> Result<(), Denied> {
        let held = self.rbac.rules_for(user, write.namespace);
        let missing = match uncovered(&held, wanted) {
            Ok(()) => return Ok(()),
            Err(Uncovered::TooMany) => {
                return Err(write.refused("the role has too many permissions to compare"));
            }
            Err(Uncovered::NotHeld(missing)) => missing,
        };
        let missing: Vec<String> = missing.iter().map(Rule::to_string).collect();
        Err(write.refused(&format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            missing.join("\n")
        )))
    }
}

impl Write<'_> {
    fn refused(&self, why: &str) -> Denied {
        let subject = subject(self.group, self.resource, self.name);
        Denied::Forbidden(format!("{subject} is forbidden: {why}"))
    }
}
