//! Who may do what: the rules of AccessPolicies that select a workload or an Ingress.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::WorkloadId;
use crate::route::{HostName, PathMatch};

/// All rules that select a workload, or that the policy of an Ingress has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRules {
    /// False when no policy has an opinion: everything is allowed.
    pub enforced: bool,
    /// In any order: Deny wins over Allow.
    pub rules: Vec<AccessRule>,
}

/// Matches when one of `from` (or none given) and one of `to` (or none given) match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRule {
    /// Deny instead of Allow.
    pub deny: bool,
    /// Who asks.
    pub from: Vec<AccessFrom>,
    /// What for.
    pub to: Vec<AccessTo>,
    /// "namespace/policy", for the access record.
    pub origin: Arc<str>,
    /// Only report what this rule would do.
    pub audit: bool,
}

/// All given parts must match; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFrom {
    /// Whole SPIFFE IDs.
    pub identities: Vec<String>,
    /// Namespaces of the peer's identity.
    pub namespaces: Vec<String>,
    /// Addresses that match.
    pub ip_blocks: Vec<IpNet>,
    /// Addresses that do not.
    pub not_ip_blocks: Vec<IpNet>,
}

/// All given parts must match; a list matches when one of its entries does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessTo {
    /// Upper case.
    pub methods: Vec<String>,
    /// Normalised paths.
    pub paths: Vec<PathMatch>,
    /// Hosts.
    pub hosts: Vec<HostName>,
    /// Destination ports.
    pub ports: Vec<u16>,
}

/// What is known of a request or a TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The verified identity; `None` for plain peers, and for clients of an edge.
    pub peer: Option<&'a WorkloadId>,
    /// The peer's address; at an edge the client's, as it is told to the application.
    pub address: IpAddr,
    /// Destination port.
    pub port: u16,
    /// `None` for TCP.
    pub http: Option<AccessHttp<'a>>,
}

/// The HTTP part of a request.
#[derive(Clone, Copy, Debug)]
pub struct AccessHttp<'a> {
    /// As sent.
    pub method: &'a str,
    /// Normalised, without query.
    pub path: &'a str,
    /// Lower case, without port or dots at its end.
    pub host: &'a str,
}

/// The decision, with the policy that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessVerdict<'a> {
    /// Go on.
    Allowed,
    /// Go on, but a rule in audit mode would have refused.
    WouldDeny {
        /// That rule's policy; `None` when no rule allows it.
        by: Option<&'a str>,
    },
    /// Refused.
    Denied {
        /// The policy; `None` when no rule allows it.
        by: Option<&'a str>,
    },
}

impl AccessRules {
    /// Decides. Deny wins; with rules present, what no Allow rule allows is denied.
    pub fn decide(&self, request: &AccessRequest<'_>) -> AccessVerdict<'_> {
        if !self.enforced {
            return AccessVerdict::Allowed;
        }
        let decided = |audit: bool| {
            let mut rules = self.rules.iter().filter(|rule| rule.audit == audit);
            decide(&mut rules, request)
        };
        let has_audit = self.rules.iter().any(|rule| rule.audit);
        let has_enforced = self.rules.iter().any(|rule| !rule.audit);
        // Without any rule at all the policies deny everything; with audit rules only they deny nothing.
        if (has_enforced || !has_audit)
            && let Err(by) = decided(false)
        {
            return AccessVerdict::Denied { by };
        }
        match has_audit.then(|| decided(true)) {
            Some(Err(by)) => AccessVerdict::WouldDeny { by },
            _ => AccessVerdict::Allowed,
        }
    }
}

/// `Err` carries the denying policy, or `None` when nothing allows.
fn decide<'a>(
    rules: &mut dyn Iterator<Item = &'a AccessRule>,
    request: &AccessRequest<'_>,
) -> Result<(), Option<&'a str>> {
    let mut allowed = false;
    for rule in rules {
        if rule.deny && rule.matches(request) {
            return Err(Some(&rule.origin));
        }
        allowed = allowed || (!rule.deny && rule.matches(request));
    }
    if allowed { Ok(()) } else { Err(None) }
}

impl AccessRule {
    fn matches(&self, request: &AccessRequest<'_>) -> bool {
        let from = self.from.is_empty() || self.from.iter().any(|from| from.matches(request));
        let to = self.to.is_empty() || self.to.iter().any(|to| to.matches(request, self.deny));
        from && to
    }
}

impl AccessFrom {
    fn matches(&self, request: &AccessRequest<'_>) -> bool {
        let identity = |wanted: &[String], part: fn(&WorkloadId) -> &str| {
            wanted.is_empty()
                || request
                    .peer
                    .is_some_and(|peer| wanted.iter().any(|name| name == part(peer)))
        };
        let address = request.address.to_canonical();
        let within = |blocks: &[IpNet]| blocks.iter().any(|block| block.contains(&address));
        identity(&self.identities, WorkloadId::as_str)
            && identity(&self.namespaces, WorkloadId::namespace)
            && (self.ip_blocks.is_empty() || within(&self.ip_blocks))
            && !within(&self.not_ip_blocks)
    }
}

impl AccessTo {
    /// What a TCP connection does not tell (method, path, host) never satisfies an Allow and always a Deny.
    fn matches(&self, request: &AccessRequest<'_>, unknown: bool) -> bool {
        let http = |given: bool, matches: &dyn Fn(&AccessHttp<'_>) -> bool| {
            !given || request.http.as_ref().map_or(unknown, matches)
        };
        (self.ports.is_empty() || self.ports.contains(&request.port))
            && http(!self.methods.is_empty(), &|http| {
                self.methods.iter().any(|method| method == http.method)
            })
            && http(!self.paths.is_empty(), &|http| {
                self.paths.iter().any(|path| path.matches(http.path))
            })
            && http(!self.hosts.is_empty(), &|http| {
                self.hosts.iter().any(|host| host.matches(http.host))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PathKind;

    fn id(text: &str) -> WorkloadId {
        let (namespace, account) = text.split_once('/').unwrap();
        WorkloadId::parse(&format!("spiffe://t/ns/{namespace}/sa/{account}")).unwrap()
    }

    /// Request: `peer METHOD /path`, or `peer tcp`; peer `-` is plain.
    fn check(rules: &AccessRules, request: &str, expected: AccessVerdict<'_>) {
        let parts: Vec<&str> = request.split(' ').collect();
        let peer = (parts[0] != "-").then(|| id(parts[0]));
        let http = (parts[1] != "tcp").then(|| AccessHttp {
            method: parts[1],
            path: parts[2],
            host: "web.test",
        });
        let request_parts = AccessRequest {
            peer: peer.as_ref(),
            address: "10.0.0.9".parse().unwrap(),
            port: 8080,
            http,
        };
        assert_eq!(rules.decide(&request_parts), expected, "{request}");
    }

    fn allow_front_get() -> AccessRule {
        AccessRule {
            from: vec![AccessFrom {
                identities: vec!["spiffe://t/ns/shop/sa/front".into()],
                ..AccessFrom::default()
            }],
            to: vec![AccessTo {
                methods: vec!["GET".into()],
                ..AccessTo::default()
            }],
            origin: "shop/allow".into(),
            ..AccessRule::default()
        }
    }

    fn deny_admin() -> AccessRule {
        AccessRule {
            deny: true,
            to: vec![AccessTo {
                paths: vec![PathMatch::new(PathKind::Prefix, "/admin").unwrap()],
                ..AccessTo::default()
            }],
            origin: "shop/deny".into(),
            ..AccessRule::default()
        }
    }

    #[test]
    fn deny_wins_and_what_nobody_allows_is_denied() {
        let rules = AccessRules {
            enforced: true,
            rules: vec![allow_front_get(), deny_admin()],
        };
        check(&rules, "shop/front GET /", AccessVerdict::Allowed);
        check(
            &rules,
            "shop/front POST /",
            AccessVerdict::Denied { by: None },
        );
        check(
            &rules,
            "shop/other GET /",
            AccessVerdict::Denied { by: None },
        );
        check(&rules, "- GET /", AccessVerdict::Denied { by: None });
        let denied = AccessVerdict::Denied {
            by: Some("shop/deny"),
        };
        check(&rules, "shop/front GET /admin/x", denied.clone());
        check(&rules, "shop/front tcp", denied);
    }

    #[test]
    fn no_opinion_allows_no_rule_denies_audit_only_reports() {
        check(&AccessRules::default(), "- GET /", AccessVerdict::Allowed);
        let nothing = AccessRules {
            enforced: true,
            rules: vec![],
        };
        check(
            &nothing,
            "shop/front GET /",
            AccessVerdict::Denied { by: None },
        );
        let audit = AccessRules {
            enforced: true,
            rules: vec![AccessRule {
                audit: true,
                ..allow_front_get()
            }],
        };
        check(&audit, "shop/front GET /", AccessVerdict::Allowed);
        check(&audit, "- GET /", AccessVerdict::WouldDeny { by: None });
    }

    #[test]
    fn hosts() {
        for (host, is_denied) in [
            ("web.test", true),
            ("WEB.test", true),
            ("*.test", true),
            ("*", true),
            ("test", false),
            ("*.web.test", false),
        ] {
            let to = AccessTo {
                hosts: vec![HostName::parse(host).unwrap()],
                ..AccessTo::default()
            };
            let rule = |deny, to: &[AccessTo]| AccessRule {
                deny,
                to: to.to_vec(),
                origin: "shop/host".into(),
                ..AccessRule::default()
            };
            let rules = AccessRules {
                enforced: true,
                rules: vec![rule(true, &[to]), rule(false, &[])],
            };
            let expected = match is_denied {
                true => AccessVerdict::Denied {
                    by: Some("shop/host"),
                },
                false => AccessVerdict::Allowed,
            };
            check(&rules, "- GET /", expected);
        }
    }

    #[test]
    fn addresses_and_namespaces() {
        let rule = |from: AccessFrom| AccessRules {
            enforced: true,
            rules: vec![AccessRule {
                from: vec![from],
                ..AccessRule::default()
            }],
        };
        let inside = rule(AccessFrom {
            ip_blocks: vec!["10.0.0.0/8".parse().unwrap()],
            ..AccessFrom::default()
        });
        check(&inside, "- tcp", AccessVerdict::Allowed);
        let except = rule(AccessFrom {
            ip_blocks: vec!["10.0.0.0/8".parse().unwrap()],
            not_ip_blocks: vec!["10.0.0.9/32".parse().unwrap()],
            ..AccessFrom::default()
        });
        check(&except, "- tcp", AccessVerdict::Denied { by: None });
        let namespace = rule(AccessFrom {
            namespaces: vec!["shop".into()],
            ..AccessFrom::default()
        });
        check(&namespace, "shop/any GET /", AccessVerdict::Allowed);
        check(&namespace, "- GET /", AccessVerdict::Denied { by: None });
    }
}
