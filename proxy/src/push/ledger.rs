//! What a proxy wants and holds of one resource type. Pure: the stream carries out what this decides.

use std::collections::{BTreeMap, BTreeSet};

use meshgate_api::push::{self as wire, resource_hash};

use super::resource::Kind;

/// Subscriptions and held versions of one type, across reconnects.
#[derive(Debug)]
pub(super) struct Ledger {
    kind: Kind,
    wanted: BTreeSet<String>,
    /// Name to version of everything held, refused ones included: on one stream they count as delivered.
    held: BTreeMap<String, String>,
    /// Names of those in `held` whose version was refused.
    refused: BTreeSet<String>,
    /// Hash over `held`, kept with each change.
    hash: u64,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// What is held is true as far as it goes; responses are differences to it.
    Delta,
    /// What is held is doubted: the next responses are everything, and what they do not name is gone.
    Resync {
        /// What they have named so far.
        named: BTreeSet<String>,
    },
}

/// What a response did to the ledger.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Names to remove: those that the response names, and after a resync those that it does not.
    pub(super) removed: Vec<String>,
    /// Whether both ends now hold the same.
    pub(super) agreement: Agreement,
}

/// What comparing both ends gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// Both hold the same.
    Agreed,
    /// They do not: an update was lost or misunderstood.
    Differs,
    /// Nobody can tell yet: more responses follow.
    Open,
}

impl Ledger {
    /// Subscribed to `wanted` and holding nothing.
    pub(super) fn new(kind: Kind, wanted: impl IntoIterator<Item = String>) -> Self {
        Self {
            kind,
            wanted: wanted.into_iter().collect(),
            held: BTreeMap::new(),
            refused: BTreeSet::new(),
            hash: 0,
            phase: Phase::Delta,
        }
    }

    /// Whether there is any subscription.
    pub(super) fn wants_any(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// The first request of this type on a new stream. It says of no version that it is held when it was refused: who
    /// hears this stream cannot know that, and sends it again or takes it away.
    pub(super) fn opening(&mut self) -> wire::DeltaRequest {
        for name in std::mem::take(&mut self.refused) {
            self.hold(name, String::new());
        }
        let held_versions = match self.phase {
            Phase::Delta => self.held.clone().into_iter().collect(),
            Phase::Resync { .. } => Default::default(),
        };
        wire::DeltaRequest {
            type_url: self.kind.type_url(),
            subscribe: self.wanted.iter().cloned().collect(),
            held_versions,
            ..wire::DeltaRequest::default()
        }
    }

    /// Adds subscriptions; the request to send if any is new.
    pub(super) fn want(
        &mut self,
        names: impl IntoIterator<Item = String>,
    ) -> Option<wire::DeltaRequest> {
        let new = |name: &String| self.wanted.insert(name.clone());
        let subscribe: Vec<String> = names.into_iter().filter(new).collect();
        (!subscribe.is_empty()).then(|| wire::DeltaRequest {
            type_url: self.kind.type_url(),
            subscribe,
            ..wire::DeltaRequest::default()
        })
    }

    /// Ends subscriptions; the request to send if there were any. The control plane answers with what to remove.
    pub(super) fn unwant(
        &mut self,
        names: impl IntoIterator<Item = String>,
    ) -> Option<wire::DeltaRequest> {
        let known = |name: &String| self.wanted.remove(name);
        let unsubscribe: Vec<String> = names.into_iter().filter(known).collect();
        (!unsubscribe.is_empty()).then(|| wire::DeltaRequest {
            type_url: self.kind.type_url(),
            unsubscribe,
            ..wire::DeltaRequest::default()
        })
    }

    /// Notes what a response brings and compares both ends.
    pub(super) fn take(&mut self, response: &wire::DeltaResponse) -> Taken {
        let mut removed = response.removed.clone();
        if let Phase::Resync { named } = &mut self.phase {
            named.extend(response.resources.iter().map(|r| r.name.clone()));
            if !response.more {
                let unnamed = self.held.keys().filter(|name| !named.contains(*name));
                removed.extend(unnamed.cloned());
                self.phase = Phase::Delta;
            }
        }
        for name in &removed {
            self.drop_held(name);
        }
        for resource in &response.resources {
            self.hold(resource.name.clone(), resource.version.clone());
        }
        let agreement = match (response.more, self.hash == response.held_hash) {
            (true, _) => Agreement::Open,
            (false, true) => Agreement::Agreed,
            (false, false) => Agreement::Differs,
        };
        Taken { removed, agreement }
    }

    /// Notes which resources of the last response were refused.
    pub(super) fn refuse(&mut self, names: impl IntoIterator<Item = String>) {
        let held = names.into_iter().filter(|n| self.held.contains_key(n));
        self.refused.extend(held);
    }

    fn hold(&mut self, name: String, version: String) {
        self.drop_held(&name);
        self.hash = self.hash.wrapping_add(resource_hash(&name, &version));
        self.held.insert(name, version);
    }

    fn drop_held(&mut self, name: &str) {
        self.refused.remove(name);
        if let Some(version) = self.held.remove(name) {
            self.hash = self.hash.wrapping_sub(resource_hash(name, &version));
        }
    }

    /// Doubts what is held: the next stream asks for everything.
    pub(super) fn doubt(&mut self) {
        self.phase = Phase::Resync {
            named: BTreeSet::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies `script` ("+name@version" and "-name" by response, "..." when more follow, responses apart by `|`), the
    /// other end holding `theirs` at the end; shows what is held, what the last response removes, and the agreement.
    fn check(doubted_after_first: bool, script: &str, theirs: &[(&str, &str)], expected: &str) {
        let mut ledger = Ledger::new(Kind::Service, ["*".to_owned()]);
        let responses: Vec<&str> = script.split('|').collect();
        let mut line = String::new();
        for (index, changes) in responses.iter().enumerate() {
            if index == 1 && doubted_after_first {
                ledger.doubt();
                assert!(ledger.opening().held_versions.is_empty(), "{script}");
            }
            let mut response = wire::DeltaResponse::default();
            for change in changes.split_whitespace() {
                match (change.strip_prefix('-'), change.strip_prefix('+')) {
                    _ if change == "..." => response.more = true,
                    (Some(name), _) => response.removed.push(name.to_owned()),
                    (_, Some(added)) => {
                        let (name, version) = added.split_once('@').unwrap();
                        response.resources.push(wire::Resource {
                            name: name.to_owned(),
                            version: version.to_owned(),
                            body: None,
                        });
                    }
                    _ => panic!("{change}"),
                }
            }
            response.held_hash = wire::held_hash(theirs.iter().copied());
            let taken = ledger.take(&response);
            let held: Vec<String> = ledger
                .held
                .iter()
                .map(|(n, v)| format!("{n}@{v}"))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect();
            line = format!(
                "{} removed:{} {:?}",
                held.join(","),
                taken.removed.join(","),
                taken.agreement
            );
        }
        assert_eq!(line, expected, "{script}");
    }

    #[test]
    fn responses_add_up() {
        check(false, "", &[], " removed: Agreed");
        check(
            false,
            "+a@1 +b@1",
            &[("a", "1"), ("b", "1")],
            "a@1,b@1 removed: Agreed",
        );
        check(
            false,
            "+a@1 +b@1 | +a@2 -b",
            &[("a", "2")],
            "a@2 removed:b Agreed",
        );
        check(
            false,
            "+a@1 | -never",
            &[("a", "1")],
            "a@1 removed:never Agreed",
        );
        check(false, "+a@1 | +a@1", &[("a", "1")], "a@1 removed: Agreed");
    }

    #[test]
    fn a_lost_update_is_seen() {
        check(
            false,
            "+a@1 | +b@1",
            &[("a", "2"), ("b", "1")],
            "a@1,b@1 removed: Differs",
        );
    }

    #[test]
    fn a_resync_drops_what_it_does_not_name() {
        check(
            true,
            "+a@1 +b@1 | +b@2",
            &[("b", "2")],
            "b@2 removed:a Agreed",
        );
        check(
            true,
            "+a@1 +b@1 +c@1 | +b@2 ... | +c@1",
            &[("b", "2"), ("c", "1")],
            "b@2,c@1 removed:a Agreed",
        );
        check(true, "+a@1 | ...", &[], "a@1 removed: Open");
    }

    /// `script` as in [`check`], "!name" after a response for what it brought and was refused; shows what a new stream
    /// would be told, and whether both ends then agree.
    fn check_opening(script: &str, expected: &str) {
        let mut ledger = Ledger::new(Kind::Service, ["*".to_owned()]);
        for changes in script.split('|') {
            let words = || changes.split_whitespace();
            let added = words().filter_map(|w| w.strip_prefix('+')?.split_once('@'));
            let removed = words().filter_map(|w| w.strip_prefix('-'));
            ledger.take(&wire::DeltaResponse {
                resources: added
                    .map(|(name, version)| wire::Resource {
                        name: name.to_owned(),
                        version: version.to_owned(),
                        body: None,
                    })
                    .collect(),
                removed: removed.map(str::to_owned).collect(),
                ..wire::DeltaResponse::default()
            });
            let refused = words().filter_map(|w| w.strip_prefix('!'));
            ledger.refuse(refused.map(str::to_owned));
        }
        let told: BTreeMap<String, String> = ledger.opening().held_versions.into_iter().collect();
        let shown: Vec<String> = told.iter().map(|(n, v)| format!("{n}@{v}")).collect();
        assert_eq!(shown.join(" "), expected, "{script}");
        let theirs = wire::held_hash(told.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        assert_eq!(ledger.hash, theirs, "{script}");
    }

    #[test]
    fn a_refused_version_is_not_held() {
        check_opening("+a@1 +b@1", "a@1 b@1");
        check_opening("+a@1 +b@1 !b", "a@1 b@");
        check_opening("+a@1 | +a@2 !a", "a@");
        check_opening("+a@1 !a | +b@1", "a@ b@1");
        check_opening("+a@1 !a | +a@2", "a@2");
        check_opening("+a@1 !a | -a", "");
        check_opening("+a@1 !never", "a@1");
    }

    #[test]
    fn subscriptions_are_sent_once_and_again_on_a_new_stream() {
        let name = || ["10.96.0.7:80".to_owned()];
        let mut ledger = Ledger::new(Kind::Service, []);
        assert_eq!(ledger.want(name()).expect("new").subscribe, name());
        assert!(ledger.want(name()).is_none());
        assert_eq!(ledger.opening().subscribe, name());
        assert_eq!(ledger.unwant(name()).expect("known").unsubscribe, name());
        assert!(ledger.unwant(name()).is_none());
        assert!(ledger.opening().subscribe.is_empty());
    }
}
