//! gRPC probes: `grpc.health.v1.Health/Check` over plain HTTP/2. Its two messages have one field each, so they are
//! written and read by hand.

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Target, stream};

/// An answer is a few bytes.
const BODY_BYTES_MAX: usize = 1 << 10;
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u8 = 1;

/// Asks once; the error is what an event says.
pub(super) async fn check(target: &Target, port: u16, service: &str) -> Result<(), String> {
    let told = |error: hyper::Error| crate::shim::chain(&error);
    let tcp = stream::connect(target, port)
        .await
        .map_err(|error| format!("dial tcp {}:{port}: {error}", target.address))?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
        .await
        .map_err(told)?;
    let request = hyper::Request::post(format!(
        "http://{}:{port}/grpc.health.v1.Health/Check",
        target.address
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("user-agent", "kube-probe/1.36")
    .body(Full::new(Bytes::from(frame(&health_request(service)?))))
    .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(told)?;
        let head = response.headers().get("grpc-status").cloned();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let status = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned())
            .or(head);
        match status.as_ref().and_then(|status| status.to_str().ok()) {
            Some("0") => verdict(&body.to_bytes()),
            Some(code) => Err(format!("gRPC status {code}")),
            None => Err("the answer is not gRPC".to_owned()),
        }
    };
    tokio::select! {
        result = exchange => result,
        _ = connection => Err("the connection ended".to_owned()),
    }
}

/// `HealthCheckRequest{service}`: field 1, a string.
fn health_request(service: &str) -> Result<Vec<u8>, String> {
    if service.is_empty() {
        return Ok(Vec::new());
    }
    // One byte holds lengths below 128; service names are shorter.
    let length = u8::try_from(service.len())
        .ok()
        .filter(|length| *length < 128);
    let length = length.ok_or("the service's name is too long")?;
    Ok([&[0x0a, length], service.as_bytes()].concat())
}

/// Length-prefixed, not compressed.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [&[0], &length[..], message].concat()
}

fn verdict(body: &[u8]) -> Result<(), String> {
    // Behind the frame's head: field 1, an enumeration.
    match body.get(5..) {
        Some([0x08, SERVING]) => Ok(()),
        Some([0x08, status]) => Err(format!("service unhealthy (responded with {status})")),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        assert_eq!(frame(&health_request("").expect("short")), [0, 0, 0, 0, 0]);
        assert_eq!(
            frame(&health_request("a").expect("short")),
            [0, 0, 0, 0, 3, 10, 1, b'a']
        );
        assert!(health_request(&"x".repeat(200)).is_err());
        assert!(verdict(&[0, 0, 0, 0, 2, 8, 1]).is_ok());
        assert!(verdict(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(verdict(&[0, 0, 0, 0, 0]).is_err());
    }
}
