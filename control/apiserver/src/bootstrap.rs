//! Objects that a cluster always has: its first namespaces, its roles, and the Service of the API server.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use meshgate_schema::Failure;
use meshgate_store::Expect;
use serde_json::{Value, json};

use crate::auth;
use crate::objects::{self, decode, encode, meta};
use crate::server::Server;
use crate::write::metadata;

const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
/// The field that is brought up to date on an object that exists already; everything else is its owner's.
type Kept<'a> = &'a [&'a str];

/// Makes what is missing. All writes share a commit or two.
pub(crate) async fn ensure(server: &Server) -> Result<(), Failure> {
    let mut wanted: Vec<(Value, Kept<'static>)> = Vec::new();
    for name in NAMESPACES {
        wanted.push((namespace(name), &[]));
    }
    for object in auth::bootstrap() {
        wanted.push((object, &[]));
    }
    wanted.push((service(server), &[]));
    wanted.push((slice(server), &["endpoints", "ports"]));
    wanted.push((endpoints(server), &["subsets"]));
    let writes = wanted
        .into_iter()
        .map(|(object, kept)| ensure_object(server, object, kept));
    futures::future::try_join_all(writes).await?;
    Ok(())
}

fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

fn service(server: &Server) -> Value {
    let (network, _) = server.service_network;
    let address = Ipv4Addr::from(u32::from(network) + 1);
    json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "type": "ClusterIP",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": server.advertise.port()}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(server: &Server) -> Value {
    let family = match server.advertise.ip() {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    json!({
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [server.advertise.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "protocol": "TCP", "port": server.advertise.port()}],
    })
}

fn endpoints(server: &Server) -> Value {
    json!({
        "kind": "Endpoints",
        "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": server.advertise.ip()}],
            "ports": [{"name": "https", "port": server.advertise.port(), "protocol": "TCP"}],
        }],
    })
}

async fn ensure_object(server: &Server, mut object: Value, kept: Kept<'_>) -> Result<(), Failure> {
    let registry = server.live.registry();
    let (group, version) = match object["apiVersion"]
        .as_str()
        .unwrap_or_default()
        .split_once('/')
    {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), "v1".to_owned()),
    };
    let kind_name = object["kind"].as_str().unwrap_or_default();
    let kind = registry
        .by_kind(&group, &version, kind_name)
        .ok_or_else(|| {
            Failure::internal(format!(
                "the bootstrap object's kind {kind_name} is not served"
            ))
        })?;
    let key = objects::key(kind, meta(&object, "namespace"), meta(&object, "name"));
    let Some(entry) = server.store.find(&key) else {
        kind.default(&mut object);
        metadata::begin(kind, &mut object, Timestamp::now());
        // Taken meanwhile: somebody else made it, which is as good.
        let _ = server
            .write(&key, Expect::Absent, Some(encode(&object)))
            .await?;
        return Ok(());
    };
    let mut stored = decode(&entry)?;
    let mut changed = false;
    for field in kept {
        if stored[*field] != object[*field] {
            stored[*field] = object[*field].clone();
            changed = true;
        }
    }
    if changed {
        let _ = server
            .write(
                &key,
                Expect::Unchanged(entry.modified),
                Some(encode(&stored)),
            )
            .await?;
    }
    Ok(())
}
