//! All names of the cluster as one immutable table. Pure.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meshgate_api::names::CLUSTER_DOMAIN;

use crate::net::slices::Slices;

/// Names without a final dot, in lower case, with all their records.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    records: HashMap<String, Vec<Data>>,
}

/// The data of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(Ipv4Addr),
    Alias(String),
    Pointer(String),
    Port { port: u16, target: String },
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Address,
    Port,
    Pointer,
    Alias,
    Any,
    /// A type that no name here has, such as AAAA.
    Other,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Not a name of the cluster.
    Refused,
    /// A name of the cluster that does not exist.
    NoSuchName,
    /// The name exists; it may have nothing of the type asked for.
    Records(Vec<Data>),
}

impl Zone {
    pub(crate) fn new<'a>(
        services: impl IntoIterator<Item = &'a Service>,
        slices: &Slices<'_>,
    ) -> Zone {
        let mut zone = Zone::default();
        zone.add("".to_owned() + CLUSTER_DOMAIN, None);
        zone.add(format!("svc.{CLUSTER_DOMAIN}"), None);
        for service in services {
            zone.add_service(service, slices.of(service));
        }
        zone
    }

    fn add_service(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let (Some(name), Some(namespace), Some(spec)) = (
            &service.metadata.name,
            &service.metadata.namespace,
            &service.spec,
        ) else {
            return;
        };
        let host = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}");
        self.add(format!("{namespace}.svc.{CLUSTER_DOMAIN}"), None);
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec
                .external_name
                .as_deref()
                .unwrap_or_default()
                .trim_end_matches('.');
            self.add(host, Some(Data::Alias(target.to_ascii_lowercase())));
            return;
        }
        if let Some(address) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            self.add(host.clone(), Some(Data::Address(address)));
            self.add(reverse(address), Some(Data::Pointer(host.clone())));
            for port in spec.ports.iter().flatten() {
                if let (Some(name), Ok(number)) = (&port.name, u16::try_from(port.port)) {
                    self.add_port(&host, name, port.protocol.as_deref(), number, &host);
                }
            }
            return;
        }
        let unready_too = spec.publish_not_ready_addresses == Some(true);
        for slice in slices {
            self.add_headless(&host, slice, unready_too);
        }
    }

    fn add_headless(&mut self, host: &str, slice: &EndpointSlice, unready_too: bool) {
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|c| c.ready)
                .unwrap_or(true);
            if !ready && !unready_too {
                continue;
            }
            for address in endpoint
                .addresses
                .iter()
                .filter_map(|a| a.parse::<Ipv4Addr>().ok())
            {
                let label = endpoint
                    .hostname
                    .clone()
                    .filter(|h| !h.is_empty())
                    .unwrap_or_else(|| address.to_string().replace('.', "-"));
                let own = format!("{label}.{host}");
                self.add(host.to_owned(), Some(Data::Address(address)));
                self.add(own.clone(), Some(Data::Address(address)));
                self.add(reverse(address), Some(Data::Pointer(own.clone())));
                for port in slice.ports.iter().flatten() {
                    if let (Some(name), Some(Ok(number))) =
                        (&port.name, port.port.map(u16::try_from))
                    {
                        self.add_port(host, name, port.protocol.as_deref(), number, &own);
                    }
                }
            }
        }
    }

    fn add_port(
        &mut self,
        host: &str,
        name: &str,
        protocol: Option<&str>,
        port: u16,
        target: &str,
    ) {
        if name.is_empty() {
            return;
        }
        let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
        let target = target.to_owned();
        self.add(
            format!("_{name}._{protocol}.{host}"),
            Some(Data::Port { port, target }),
        );
        self.add(format!("_{protocol}.{host}"), None);
    }

    fn add(&mut self, name: String, data: Option<Data>) {
        let records = self.records.entry(name).or_default();
        if let Some(data) = data
            && !records.contains(&data)
        {
            records.push(data);
        }
    }

    /// `name` in lower case, without its final dot.
    pub(super) fn find(&self, name: &str, query: Query) -> Answer {
        let found = match self.records.get(name) {
            Some(records) => records.clone(),
            None => match pod_address(name) {
                Some(address) => vec![Data::Address(address)],
                None if self.owns(name) => return Answer::NoSuchName,
                None => return Answer::Refused,
            },
        };
        let wanted = |data: &Data| match (query, data) {
            (Query::Any, _) => true,
            // An alias answers every type: the resolver follows it.
            (_, Data::Alias(_)) => true,
            (Query::Address, Data::Address(_)) => true,
            (Query::Port, Data::Port { .. }) => true,
            (Query::Pointer, Data::Pointer(_)) => true,
            _ => false,
        };
        Answer::Records(found.into_iter().filter(wanted).collect())
    }

    fn owns(&self, name: &str) -> bool {
        name == CLUSTER_DOMAIN
            || name
                .strip_suffix(CLUSTER_DOMAIN)
                .is_some_and(|rest| rest.ends_with('.'))
            || name.ends_with(".10.in-addr.arpa")
    }
}

/// `10-244-0-5.NAMESPACE.pod.cluster.local`, by its form: every pod address has such a name.
fn pod_address(name: &str) -> Option<Ipv4Addr> {
    let rest = name.strip_suffix(CLUSTER_DOMAIN)?.strip_suffix(".pod.")?;
    let (label, namespace) = rest.split_once('.')?;
    if namespace.is_empty() || namespace.contains('.') {
        return None;
    }
    label.replace('-', ".").parse().ok()
}

fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let services: Vec<Service> = serde_json::from_value(serde_json::json!([
            {"metadata": {"name": "web", "namespace": "shop"},
             "spec": {"clusterIP": "10.96.3.4", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]}},
            {"metadata": {"name": "db", "namespace": "shop"},
             "spec": {"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}},
            {"metadata": {"name": "mail", "namespace": "shop"},
             "spec": {"type": "ExternalName", "externalName": "Mail.example.com."}},
        ]))
        .unwrap();
        let slices: Vec<EndpointSlice> = serde_json::from_value(serde_json::json!([
            {"addressType": "IPv4",
             "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
             "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
             "endpoints": [
                {"addresses": ["10.244.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.8"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.9"], "conditions": {"ready": false}}]},
        ]))
        .unwrap();
        Zone::new(&services, &slices.iter().collect())
    }

    fn check(name: &str, query: Query, wanted: &str) {
        let shown = match zone().find(name, query) {
            Answer::Refused => "refused".to_owned(),
            Answer::NoSuchName => "no such name".to_owned(),
            Answer::Records(records) => {
                let mut shown: Vec<String> = records
                    .into_iter()
                    .map(|data| match data {
                        Data::Address(a) => a.to_string(),
                        Data::Alias(target) | Data::Pointer(target) => target,
                        Data::Port { port, target } => format!("{target}:{port}"),
                    })
                    .collect();
                shown.sort();
                shown.join(" ")
            }
        };
        assert_eq!(shown, wanted, "{name} {query:?}");
    }

    #[test]
    fn names_of_the_specification() {
        check("web.shop.svc.cluster.local", Query::Address, "10.96.3.4");
        check("web.shop.svc.cluster.local", Query::Other, "");
        check("shop.svc.cluster.local", Query::Address, "");
        check(
            "web.other.svc.cluster.local",
            Query::Address,
            "no such name",
        );
        check(
            "web.shop.svc.cluster.local.shop.svc.cluster.local",
            Query::Address,
            "no such name",
        );
        check("example.com", Query::Address, "refused");
        check("notcluster.local", Query::Address, "refused");
        check(
            "_http._tcp.web.shop.svc.cluster.local",
            Query::Port,
            "web.shop.svc.cluster.local:80",
        );
        check(
            "_dns._udp.web.shop.svc.cluster.local",
            Query::Port,
            "web.shop.svc.cluster.local:53",
        );
        check(
            "4.3.96.10.in-addr.arpa",
            Query::Pointer,
            "web.shop.svc.cluster.local",
        );
        check("5.3.96.10.in-addr.arpa", Query::Pointer, "no such name");
        check(
            "mail.shop.svc.cluster.local",
            Query::Address,
            "mail.example.com",
        );
        check(
            "10-244-0-5.shop.pod.cluster.local",
            Query::Address,
            "10.244.0.5",
        );
        check(
            "10-244-0.shop.pod.cluster.local",
            Query::Address,
            "no such name",
        );
    }

    #[test]
    fn headless_services_have_their_endpoints() {
        check(
            "db.shop.svc.cluster.local",
            Query::Address,
            "10.244.0.7 10.244.0.8",
        );
        check(
            "db-0.db.shop.svc.cluster.local",
            Query::Address,
            "10.244.0.7",
        );
        check(
            "10-244-0-8.db.shop.svc.cluster.local",
            Query::Address,
            "10.244.0.8",
        );
        check(
            "_sql._tcp.db.shop.svc.cluster.local",
            Query::Port,
            "10-244-0-8.db.shop.svc.cluster.local:5432 db-0.db.shop.svc.cluster.local:5432",
        );
        check(
            "7.0.244.10.in-addr.arpa",
            Query::Pointer,
            "db-0.db.shop.svc.cluster.local",
        );
    }
}
