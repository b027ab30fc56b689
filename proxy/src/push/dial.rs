//! Connections to the control plane: found anew, verified against the cluster's CA, with the certificate in force.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use meshgate_certs::credential::CurrentCredential;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::upstream::connect_tcp;

/// Longest time for each of: finding the address, connecting, the TLS handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// A control plane that vanished without a word is noticed after this much silence plus [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// `HOST:PORT` of the control plane; the host is a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    host: String,
    port: u16,
}

impl FromStr for ControlAddress {
    type Err = InvalidControlAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidControlAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let host = host.strip_prefix('[').unwrap_or(host);
        let host = host.strip_suffix(']').unwrap_or(host);
        let port = port.parse().map_err(|_| invalid())?;
        ServerName::try_from(host).map_err(|_| invalid())?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The text is no `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no address of a control plane; it must be HOST:PORT")]
pub struct InvalidControlAddress(String);

/// Where the control plane is and how to know that it is it.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Where it listens for push, identity and quota.
    pub address: ControlAddress,
    /// The cluster's CA, which its certificate is verified against. Read anew at each connect: it may be replaced.
    pub ca_path: PathBuf,
    /// Firewall mark of our packets, for where the redirect knows us by mark instead of by user.
    pub mark: Option<u32>,
}

impl ControlPlane {
    /// A new connection, presenting the credential in force if one is given.
    ///
    /// One channel is one connection: when it ends, calls fail and the caller dials again, so that each connection is
    /// made with the CA and certificate of its own time.
    pub async fn dial(&self, credential: Option<&CurrentCredential>) -> Result<Channel, DialError> {
        let tls = self.tls(credential)?;
        let tcp = self.connect().await?;
        let stream = self.handshake(tls, tcp).await?;
        let origin = format!("http://{}", self.address); // The scheme is only a word here: TLS is below.
        let endpoint = Endpoint::from_shared(origin)
            .map_err(DialError::Http2)?
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .buffer_size(16);
        let mut connection = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_| {
            let connection = connection.take();
            async move { connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(DialError::Http2)
    }

    fn tls(&self, credential: Option<&CurrentCredential>) -> Result<ClientConfig, DialError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(DialError::Tls)?
            .with_root_certificates(roots(&self.ca_path)?);
        let mut config = match credential {
            Some(credential) => builder.with_client_cert_resolver(Arc::new(credential.clone())),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Connections are rare: a session ticket would only cost memory.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    async fn connect(&self) -> Result<TcpStream, DialError> {
        let target = (self.address.host.as_str(), self.address.port);
        let found = within(lookup_host(target)).await;
        let addresses: Vec<SocketAddr> = found.map_err(DialError::Resolve)?.collect();
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match within(connect_tcp(address, self.mark)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(DialError::Connect {
            address: self.address.to_string(),
            source: failure,
        })
    }

    async fn handshake(
        &self,
        tls: ClientConfig,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, DialError> {
        let name = ServerName::try_from(self.address.host.clone())
            .expect("checked when the address was parsed");
        let connector = TlsConnector::from(Arc::new(tls));
        within(connector.connect(name, tcp))
            .await
            .map_err(DialError::Handshake)
    }
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(STEP_TIMEOUT, step).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, DialError> {
    let pem = std::fs::read(path).map_err(|source| DialError::ReadCa {
        path: path.to_owned(),
        source,
    })?;
    let unusable = || DialError::UnusableCa {
        path: path.to_owned(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| unusable())?;
        roots.add(certificate).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    Ok(roots)
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The file of the cluster's CA.
    #[error("cannot read the cluster's CA {}", path.display())]
    ReadCa {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds nothing usable.
    #[error("the cluster's CA {} has no usable certificate", path.display())]
    UnusableCa {
        /// Which file.
        path: PathBuf,
    },
    /// No TLS configuration.
    #[error("cannot configure TLS to the control plane")]
    Tls(#[source] rustls::Error),
    /// The name has no address.
    #[error("cannot find the control plane's address")]
    Resolve(#[source] io::Error),
    /// Nobody answers there.
    #[error("cannot connect to the control plane at {address}")]
    Connect {
        /// `HOST:PORT` as given.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It is not who it must be, or does not take us.
    #[error("the TLS handshake with the control plane failed")]
    Handshake(#[source] io::Error),
    /// HTTP/2 on top.
    #[error("cannot open HTTP/2 to the control plane")]
    Http2(#[source] tonic::transport::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_addresses() {
        fn check(text: &str, expected: &str) {
            let shown = match text.parse::<ControlAddress>() {
                Ok(address) => format!("{} {}", address.host, address.port),
                Err(_) => "invalid".to_owned(),
            };
            assert_eq!(shown, expected, "{text}");
        }
        check("10.88.0.1:15012", "10.88.0.1 15012");
        check(
            "meshgate-control.meshgate-system.svc:15012",
            "meshgate-control.meshgate-system.svc 15012",
        );
        check("[fd00::1]:15012", "fd00::1 15012");
        check("host", "invalid");
        check("host:port", "invalid");
        check("host:99999", "invalid");
        check(":15012", "invalid");
        check("ho st:1", "invalid");
    }
}
