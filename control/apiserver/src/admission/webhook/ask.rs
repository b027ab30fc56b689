//! Getting a question to a webhook: by URL, or to a ready endpoint of a Service.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::Value;

use super::rules::{ClientConfig, ServiceReference, Webhook};
use crate::server::Server;

/// Bytes of an answer: an object with its patch is smaller.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where to connect, whose certificate to expect, what to ask for.
struct Destination {
    addresses: Vec<SocketAddr>,
    server_name: String,
    authority: String,
    path: String,
}

/// Posts a review; the body of a 200.
pub(super) async fn post(
    server: &Server,
    webhook: &Webhook,
    review: Vec<u8>,
) -> Result<Bytes, String> {
    let destination = destination(server, &webhook.client).await?;
    let tls = tls(server, &webhook.client)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(&destination.path)
        .header(http::header::HOST, &destination.authority)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(review)))
        .map_err(|error| error.to_string())?;
    let exchange = server
        .outbound
        .send(
            &destination.addresses,
            &destination.server_name,
            tls,
            request,
        )
        .await;
    let failed = |error: &dyn std::fmt::Display| {
        format!(
            "failed to call webhook: Post \"https://{}{}\": {error}",
            destination.authority, destination.path
        )
    };
    let (parts, body) = exchange.map_err(|error| failed(&error))?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| failed(&error))?
        .to_bytes();
    if parts.status != http::StatusCode::OK {
        return Err(failed(&format!(
            "the server answered {}: {}",
            parts.status,
            excerpt(&body)
        )));
    }
    Ok(body)
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(200).collect()
}

fn tls(server: &Server, client: &ClientConfig) -> Result<Arc<rustls::ClientConfig>, String> {
    if let Some(tls) = client.tls.get() {
        return Ok(Arc::clone(tls));
    }
    let made = if client.ca_pem.is_empty() {
        server.outbound.cluster_tls()
    } else {
        server
            .outbound
            .tls_with(&client.ca_pem)
            .map_err(|error| format!("its caBundle cannot be used: {error}"))?
    };
    Ok(Arc::clone(client.tls.get_or_init(|| made)))
}

async fn destination(server: &Server, client: &ClientConfig) -> Result<Destination, String> {
    if let Some(service) = &client.service {
        return Ok(Destination {
            addresses: endpoints(server, service)?,
            server_name: format!("{}.{}.svc", service.name, service.namespace),
            authority: format!(
                "{}.{}.svc:{}",
                service.name, service.namespace, service.port
            ),
            path: if service.path.is_empty() {
                "/".into()
            } else {
                service.path.clone()
            },
        });
    }
    let url = client
        .url
        .as_deref()
        .ok_or("its clientConfig has neither url nor service")?;
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("its url {url:?} cannot be read: {error}"))?;
    let host = uri
        .host()
        .ok_or_else(|| format!("its url {url:?} has no host"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let addresses = found
        .map_err(|error| format!("{host} cannot be resolved: {error}"))?
        .collect();
    Ok(Destination {
        addresses,
        authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        server_name: host,
    })
}

/// The ready endpoints behind a Service's port. The API server has no service addresses of its own to dial.
fn endpoints(server: &Server, reference: &ServiceReference) -> Result<Vec<SocketAddr>, String> {
    let ServiceReference {
        namespace,
        name,
        port,
        ..
    } = reference;
    let service = server
        .find("", "services", namespace, name)
        .ok_or_else(|| format!("failed to call webhook: service \"{name}\" not found"))?;
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = ports
        .filter(|entry| entry["port"] == *port)
        .map(|entry| entry["name"].as_str().unwrap_or_default())
        .next();
    let port_name = found.ok_or_else(|| {
        format!("failed to call webhook: service {namespace}/{name} has no port {port}")
    })?;
    let slices = server.all("discovery.k8s.io", "endpointslices", namespace);
    let slices = slices
        .iter()
        .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name.as_str());
    let addresses: Vec<SocketAddr> = slices.flat_map(|slice| ready(slice, port_name)).collect();
    if addresses.is_empty() {
        return Err(format!(
            "failed to call webhook: no endpoints available for service \"{name}\""
        ));
    }
    Ok(addresses)
}

fn ready(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
    let Some(port) = port
        .filter_map(|port| port["port"].as_u64())
        .find_map(|port| u16::try_from(port).ok())
    else {
        return Vec::new();
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    // An endpoint that does not say is ready.
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses
        .filter_map(|address| address.parse().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}
