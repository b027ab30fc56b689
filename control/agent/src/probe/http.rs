//! HTTP and HTTPS probes and hooks: any status from 200 to 399 is well.

use std::sync::{Arc, LazyLock};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Target, stream};

/// Read of an answer's body, in bytes: as much as the kubelet reads.
const BODY_BYTES_MAX: usize = 10 << 10;

/// Asks once; the error is what an event says.
pub(crate) async fn get(target: &Target, action: &HTTPGetAction) -> Result<(), String> {
    let port = target.port(&action.port)?;
    let target = match &action.host {
        Some(host) => &Target {
            address: host
                .parse()
                .map_err(|_| format!("host {host:?} is not an IPv4 address"))?,
            ..target.clone()
        },
        None => target,
    };
    let scheme = action.scheme.as_deref().unwrap_or("HTTP");
    let path = action
        .path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let url = format!(
        "{}://{}:{port}{path}",
        scheme.to_lowercase(),
        target.address
    );
    let failed = |why: String| format!("Get {url:?}: {why}");
    let request = request(action, &path, &format!("{}:{port}", target.address)).map_err(failed)?;
    let tcp = stream::connect(target, port)
        .await
        .map_err(|error| failed(format!("dial tcp {}:{port}: {error}", target.address)))?;
    let status = if scheme.eq_ignore_ascii_case("https") {
        let name = ServerName::from(std::net::IpAddr::from(target.address));
        let tls = TlsConnector::from(Arc::clone(&ANY_SERVER))
            .connect(name, tcp)
            .await
            .map_err(|error| failed(error.to_string()))?;
        send(tls, request).await
    } else {
        send(tcp, request).await
    }
    .map_err(failed)?;
    match status {
        200..400 => Ok(()),
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

type Request = hyper::Request<Empty<Bytes>>;

fn request(action: &HTTPGetAction, path: &str, host: &str) -> Result<Request, String> {
    let mut request = hyper::Request::get(path);
    let own = action.http_headers.iter().flatten();
    let has = |name: &str| {
        action
            .http_headers
            .iter()
            .flatten()
            .any(|h| h.name.eq_ignore_ascii_case(name))
    };
    for (name, value) in [
        ("host", host),
        ("user-agent", "kube-probe/1.36"),
        ("accept", "*/*"),
        ("connection", "close"),
    ] {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    for header in own {
        request = request.header(&header.name, &header.value);
    }
    request
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request,
) -> Result<u16, String> {
    let told = |error: hyper::Error| crate::shim::chain(&error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(told)?;
        let status = response.status().as_u16();
        // Read so that the server is not cut off while it answers; how it goes does not matter.
        let _ = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await;
        Ok(status)
    };
    let mut exchange = std::pin::pin!(exchange);
    // The connection is driven here, not in a task: both end together.
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(told(error)),
        },
    }
}

/// Probes ask whether a server answers, not who it is: as in Kubernetes, certificates are not verified.
static ANY_SERVER: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
