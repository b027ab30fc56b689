//! Files below /etc that the node writes for its pods.

use k8s_openapi::api::core::v1::PodSpec;
use meshgate_api::names;

/// Names that a resolver tries, at most; as in the kubelet.
const SEARCH_MAX: usize = 32;
/// Servers that a resolver asks, at most.
const NAMESERVERS_MAX: usize = 3;

/// `/etc/resolv.conf` of a pod; `host` is the node's own.
pub(crate) fn resolv_conf(spec: &PodSpec, namespace: &str, host: &str) -> String {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network.unwrap_or(false);
    let mut conf = match policy {
        "None" => Resolver::default(),
        "Default" => Resolver::parse(host),
        "ClusterFirst" if host_network => Resolver::parse(host),
        _ => Resolver::cluster(namespace),
    };
    if let Some(own) = &spec.dns_config {
        for server in own.nameservers.iter().flatten() {
            push_new(&mut conf.nameservers, server.clone());
        }
        for name in own.searches.iter().flatten() {
            push_new(&mut conf.search, name.clone());
        }
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            conf.options
                .retain(|known| known.split(':').next() != Some(name.as_str()));
            conf.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    conf.text()
}

#[derive(Debug, Default)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Resolver {
    fn cluster(namespace: &str) -> Resolver {
        let domain = names::CLUSTER_DOMAIN;
        Resolver {
            nameservers: vec![names::DNS_SERVICE_ADDRESS.to_string()],
            search: vec![
                format!("{namespace}.svc.{domain}"),
                format!("svc.{domain}"),
                domain.to_owned(),
            ],
            options: vec!["ndots:5".to_owned()],
        }
    }

    fn parse(text: &str) -> Resolver {
        let mut conf = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            let search: Vec<&str> = self
                .search
                .iter()
                .take(SEARCH_MAX)
                .map(String::as_str)
                .collect();
            text.push_str(&format!("search {}\n", search.join(" ")));
        }
        for server in self.nameservers.iter().take(NAMESERVERS_MAX) {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn push_new(list: &mut Vec<String>, value: String) {
    if !list.contains(&value) {
        list.push(value);
    }
}

/// The pod's host name, and its full name where it has a subdomain.
pub(crate) fn host_names(spec: &PodSpec, pod: &str, namespace: &str) -> (String, Option<String>) {
    // A host name has at most 63 characters and no dots at its end.
    let own = spec.hostname.clone().unwrap_or_else(|| {
        let cut: String = pod.chars().take(63).collect();
        cut.trim_end_matches(['-', '.']).to_owned()
    });
    let full = spec
        .subdomain
        .as_ref()
        .filter(|name| !name.is_empty())
        .map(|subdomain| {
            format!(
                "{own}.{subdomain}.{namespace}.svc.{}",
                names::CLUSTER_DOMAIN
            )
        });
    (own, full)
}

/// `/etc/hosts` of a pod.
pub(crate) fn hosts(spec: &PodSpec, address: &str, host: &str, full: Option<&str>) -> String {
    let mut text = String::from(
        "# Managed by the node agent.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    match full {
        Some(full) => text.push_str(&format!("{address}\t{full}\t{host}\n")),
        None => text.push_str(&format!("{address}\t{host}\n")),
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias
            .hostnames
            .iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>();
        text.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: serde_json::Value, wanted: &str) {
        let mut spec = spec;
        spec["containers"] = serde_json::json!([]);
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let host = "# c\nnameserver 1.1.1.1\nsearch home.test\noptions edns0\n";
        assert_eq!(resolv_conf(&spec, "shop", host), wanted);
    }

    #[test]
    fn resolvers() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n";
        let host = "search home.test\nnameserver 1.1.1.1\noptions edns0\n";
        check(serde_json::json!({}), cluster);
        check(serde_json::json!({"dnsPolicy": "Default"}), host);
        check(serde_json::json!({"hostNetwork": true}), host);
        check(
            serde_json::json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            cluster,
        );
        check(
            serde_json::json!({"dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["9.9.9.9"], "searches": ["a.test"], "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]}}),
            "search a.test\nnameserver 9.9.9.9\noptions ndots:1 edns0\n",
        );
        check(
            serde_json::json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}),
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:2\n",
        );
    }

    #[test]
    fn names() {
        let spec: PodSpec = serde_json::from_value(
            serde_json::json!({"containers": [], "subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}),
        )
        .expect("a spec");
        let (host, full) = host_names(&spec, "db-0", "shop");
        assert_eq!(
            (host.as_str(), full.as_deref()),
            ("db-0", Some("db-0.db.shop.svc.cluster.local"))
        );
        let text = hosts(&spec, "10.0.0.9", &host, full.as_deref());
        assert!(
            text.contains("10.0.0.9\tdb-0.db.shop.svc.cluster.local\tdb-0\n"),
            "{text}"
        );
        assert!(text.ends_with("1.2.3.4\tx\ty\n"), "{text}");
    }
}
