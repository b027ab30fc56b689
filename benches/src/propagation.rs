//! From the API server's acknowledgement of a change to the first request that it decides.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::cluster::patch;
use crate::figures::Series;
use crate::probe::Probe;

/// Measures both kinds of changes `count` times. The time includes the question that first sees the change.
pub(crate) async fn measure(
    client: &Client,
    edge: SocketAddr,
    count: usize,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let routes = routes(client, edge, count)
        .await
        .context("changes of an Ingress")?;
    let endpoints = endpoints(client, edge, count)
        .await
        .context("changes of endpoints")?;
    writeln!(
        out,
        "acknowledged to enforced               median ms (range)     p99 ms"
    )?;
    for (name, series) in [
        ("an Ingress change", routes),
        ("an endpoint change", endpoints),
    ] {
        writeln!(out, "  {name:<37}{series:<22}{:.1}", series.quantile(0.99))?;
    }
    Ok(())
}

/// Adds a path to an Ingress again and again; it answers 404 before.
async fn routes(client: &Client, edge: SocketAddr, count: usize) -> anyhow::Result<Series> {
    let mut probe = Probe::new(edge, "routes.test");
    let mut times = Series::default();
    for change in 0..count {
        let path = format!("/change-{change}");
        let backend = json!({"service": {"name": "echo", "port": {"number": 80}}});
        let rule = json!({"path": path, "pathType": "Exact", "backend": backend});
        let spec = json!({"spec": {"rules": [{"host": "routes.test", "http": {"paths": [rule]}}]}});
        let kind = GroupVersionKind::gvk("networking.k8s.io", "v1", "Ingress");
        patch(client, kind, "routes", &spec).await?;
        let acknowledged = Instant::now();
        probe.until(&path, |answer| answer.status == 200)?;
        times.push(acknowledged.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// Points a Service without selector at one pod, then at the other.
async fn endpoints(client: &Client, edge: SocketAddr, count: usize) -> anyhow::Result<Series> {
    let pods = Api::<Pod>::namespaced(client.clone(), "bench");
    let pods = pods.list(&ListParams::default().labels("app=echo")).await?;
    let pods: Vec<(String, String)> = pods
        .items
        .iter()
        .filter_map(|pod| {
            Some((
                pod.metadata.name.clone()?,
                pod.status.as_ref()?.pod_ip.clone()?,
            ))
        })
        .collect();
    let mut probe = Probe::new(edge, "endpoints.test");
    let mut times = Series::default();
    for (name, address) in pods.iter().cycle().take(count) {
        let endpoints =
            json!({"endpoints": [{"addresses": [address], "conditions": {"ready": true}}]});
        let kind = GroupVersionKind::gvk("discovery.k8s.io", "v1", "EndpointSlice");
        patch(client, kind, "moving", &endpoints).await?;
        let acknowledged = Instant::now();
        probe.until("/", |answer| pod_of(&answer.body).as_deref() == Some(name))?;
        times.push(acknowledged.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// The pod that answered, by its own word.
fn pod_of(body: &str) -> Option<String> {
    let body: Value = serde_json::from_str(body).ok()?;
    body["pod"].as_str().map(str::to_owned)
}
