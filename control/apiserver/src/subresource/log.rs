//! `pods/NAME/log`: passed through from the agent of the pod's node.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, BodyStream, Full};
use meshgate_api::names::PORT_AGENT;
use meshgate_schema::{Failure, FieldError};
use serde_json::Value;

use crate::http::body;
use crate::objects::read;
use crate::server::{Call, Reply};

/// Bytes of a node's error that a client gets to see.
const ERROR_BYTES_MAX: usize = 2048;

/// GET.
pub(crate) async fn get(call: &Call) -> Result<Reply, Failure> {
    let name = &call.path.name;
    let entry = call
        .server
        .store
        .find(&call.key(name))
        .ok_or_else(|| call.not_found())?;
    let pod = read(&call.kind, &entry)?;
    check_options(call)?;
    let container = container(call, &pod)?;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        // Nothing has run yet, so there is nothing to read.
        return Ok(Reply::Response(text(body::whole(Bytes::new()))));
    }
    let address = agent(call, node)?;
    let query = call.query.encode_without(&["container", "timeoutSeconds"]);
    let path = format!(
        "/containerLogs/{}/{name}/{container}?{query}",
        call.path.namespace
    );
    let request = Request::get(path)
        .header(http::header::HOST, node)
        .body(Full::new(Bytes::new()));
    let request = request.map_err(|error| Failure::bad_request(error.to_string()))?;
    let outbound = &call.server.outbound;
    let answer = outbound
        .send(
            &[address],
            &address.ip().to_string(),
            outbound.node_tls(),
            request,
        )
        .await;
    let (parts, answer) = answer
        .map_err(|error| {
            Failure::internal(format!(
                "Get \"https://{address}/containerLogs/…\": {error}"
            ))
        })?
        .into_parts();
    if parts.status != http::StatusCode::OK {
        let text = answer
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        return Err(node_failure(parts.status.as_u16(), &text));
    }
    let chunks = BodyStream::new(answer)
        .try_filter_map(|frame| async { Ok(frame.into_data().ok()) })
        .map_err(std::io::Error::other)
        .take_until(call.server.shutdown.clone().cancelled_owned());
    Ok(Reply::Response(text(body::stream(chunks))))
}

fn text(body: body::Body) -> Response<body::Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain"),
    );
    response
}

fn node_failure(code: u16, text: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_BYTES_MAX)])
        .trim()
        .to_owned();
    match code {
        404 => Failure::new(404, "NotFound", text),
        400..500 => Failure::bad_request(text),
        _ => Failure::internal(text),
    }
}

fn check_options(call: &Call) -> Result<(), Failure> {
    let mut errors = Vec::new();
    for (field, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(text) = call.query.find(field) else {
            continue;
        };
        let number: i64 = text.parse().map_err(|_| {
            Failure::bad_request(format!("{field} must be a whole number, not {text:?}"))
        })?;
        if number < least {
            let detail = format!("must be greater than or equal to {least}");
            errors.push(FieldError::invalid(field, number, detail));
        }
    }
    if call.query.find("sinceSeconds").is_some() && call.query.find("sinceTime").is_some() {
        errors.push(FieldError::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Failure::invalid(
            "",
            "PodLogOptions",
            &call.path.name,
            &errors,
        ))
    }
}

/// The container that is meant: the named one, the annotated default, or the only one.
fn container(call: &Call, pod: &Value) -> Result<String, Failure> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str())
            .map(str::to_owned)
            .collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let pod_name = &call.path.name;
    match call.query.find("container") {
        Some(name)
            if main
                .iter()
                .chain(&init)
                .chain(&names("ephemeralContainers"))
                .any(|known| known == name) =>
        {
            Ok(name.to_owned())
        }
        Some(name) => Err(Failure::bad_request(format!(
            "container {name} is not valid for pod {pod_name}"
        ))),
        None => match main.as_slice() {
            [only] if init.is_empty() => Ok(only.clone()),
            [only] => Err(ambiguous(pod_name, std::slice::from_ref(only), &init)),
            many => Err(ambiguous(pod_name, many, &init)),
        },
    }
}

fn ambiguous(pod: &str, main: &[String], init: &[String]) -> Failure {
    let mut message = format!(
        "a container name must be specified for pod {pod}, choose one of: [{}]",
        main.join(" ")
    );
    if !init.is_empty() {
        message.push_str(&format!(
            " or one of the init containers: [{}]",
            init.join(" ")
        ));
    }
    Failure::bad_request(message)
}

/// Where the agent of a node listens.
fn agent(call: &Call, node: &str) -> Result<SocketAddr, Failure> {
    let object = call.server.find("", "nodes", "", node);
    let object = object.ok_or_else(|| Failure::not_found("", "nodes", node))?;
    let addresses = object["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten();
    let internal = addresses.filter(|address| address["type"] == "InternalIP");
    let address: Option<IpAddr> = internal
        .filter_map(|address| address["address"].as_str())
        .find_map(|address| address.parse().ok());
    let address = address
        .ok_or_else(|| Failure::internal(format!("node {node} has no InternalIP address")))?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(PORT_AGENT);
    Ok(SocketAddr::new(address, port))
}
