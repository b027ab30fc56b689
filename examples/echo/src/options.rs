//! What the server is told by its environment; the names are echo-basic's.

use std::env::{self, VarError};
use std::path::PathBuf;

use serde::Serialize;

/// Where the server runs, as it says in its answers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct PodContext {
    pub(crate) namespace: String,
    pub(crate) ingress: String,
    pub(crate) service: String,
    pub(crate) pod: String,
}

/// What to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub(crate) context: PodContext,
    pub(crate) mode: Mode,
    pub(crate) tls: TlsFiles,
    /// A line a request on standard output, as echo-basic does; `LOG_REQUESTS=false` turns it off for load tests.
    pub(crate) log_requests: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Http {
        http_port: u16,
        h2c_port: u16,
        https_port: u16,
    },
    Grpc {
        http_port: u16,
        https_port: u16,
    },
    /// Without HTTP: TCP (plain and TLS) or UDP, or both.
    Plain {
        tcp: Option<TcpPorts>,
        udp_port: Option<u16>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpPorts {
    pub(crate) tcp_port: u16,
    pub(crate) tls_port: u16,
}

/// PEM files; a certificate of its own is made where none is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    pub(crate) server: Option<(PathBuf, PathBuf)>,
    /// Roots of client certificates; those that are shown must be good.
    pub(crate) client_ca: Option<PathBuf>,
}

impl ServeOptions {
    pub fn from_env() -> Result<Self, OptionsError> {
        Self::read(|name| match env::var(name) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(OptionsError::NotText(name.to_owned())),
        })
    }

    pub(crate) fn read(
        variable: impl Fn(&str) -> Result<Option<String>, OptionsError>,
    ) -> Result<Self, OptionsError> {
        let port = |name: &str, default: u16| match variable(name)? {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| OptionsError::Port {
                name: name.to_owned(),
                value,
            }),
        };
        let text = |name: &str| variable(name).map(Option::unwrap_or_default);
        let is_set = |name: &str| variable(name).map(|value| value.is_some());
        let (tcp, udp) = (is_set("TCP_ECHO_SERVER")?, is_set("UDP_ECHO_SERVER")?);
        let mode = if is_set("GRPC_ECHO_SERVER")? {
            Mode::Grpc {
                http_port: port("HTTP_PORT", 3000)?,
                https_port: port("HTTPS_PORT", 8443)?,
            }
        } else if tcp || udp {
            let ports = TcpPorts {
                tcp_port: port("TCP_PORT", 3000)?,
                tls_port: port("TLS_PORT", 8443)?,
            };
            let udp_port = port("UDP_PORT", 8080)?;
            Mode::Plain {
                tcp: tcp.then_some(ports),
                udp_port: udp.then_some(udp_port),
            }
        } else {
            Mode::Http {
                http_port: port("HTTP_PORT", 3000)?,
                h2c_port: port("H2C_PORT", 3001)?,
                https_port: port("HTTPS_PORT", 8443)?,
            }
        };
        Ok(Self {
            context: PodContext {
                namespace: text("NAMESPACE")?,
                ingress: text("INGRESS_NAME")?,
                service: text("SERVICE_NAME")?,
                pod: text("POD_NAME")?,
            },
            mode,
            tls: TlsFiles::read(&variable)?,
            log_requests: variable("LOG_REQUESTS")?.as_deref() != Some("false"),
        })
    }
}

impl TlsFiles {
    fn read(
        variable: &impl Fn(&str) -> Result<Option<String>, OptionsError>,
    ) -> Result<Self, OptionsError> {
        // echo-basic has the key's name both ways, by mode.
        let key = match variable("TLS_SERVER_PRIVKEY")? {
            None => variable("TLS_SERVER_PRIV_KEY")?,
            some => some,
        };
        let server = match (variable("TLS_SERVER_CERT")?, key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err(OptionsError::HalfAPair),
        };
        Ok(Self {
            server,
            client_ca: variable("TLS_CLIENT_CACERTS")?.map(PathBuf::from),
        })
    }
}

/// Why the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("{0} is not text")]
    NotText(String),
    #[error("{name}={value:?} is not a port (0 to 65535)")]
    Port { name: String, value: String },
    #[error("TLS_SERVER_CERT and TLS_SERVER_PRIVKEY belong together: only one is set")]
    HalfAPair,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(environment: &[(&str, &str)], expected: &str) {
        let variable = |name: &str| {
            let mut pairs = environment.iter();
            let found = pairs.find(|(own, _)| *own == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        let read = match ServeOptions::read(variable) {
            Ok(options) => format!("{:?}", options.mode),
            Err(error) => error.to_string(),
        };
        assert_eq!(read, expected, "{environment:?}");
    }

    #[test]
    fn the_environment_chooses_mode_and_ports() {
        check(
            &[],
            "Http { http_port: 3000, h2c_port: 3001, https_port: 8443 }",
        );
        check(
            &[("HTTP_PORT", "80"), ("H2C_PORT", "0")],
            "Http { http_port: 80, h2c_port: 0, https_port: 8443 }",
        );
        check(
            &[("GRPC_ECHO_SERVER", "1")],
            "Grpc { http_port: 3000, https_port: 8443 }",
        );
        check(
            &[("TCP_ECHO_SERVER", "1"), ("TCP_PORT", "9")],
            "Plain { tcp: Some(TcpPorts { tcp_port: 9, tls_port: 8443 }), udp_port: None }",
        );
        check(
            &[("UDP_ECHO_SERVER", "true")],
            "Plain { tcp: None, udp_port: Some(8080) }",
        );
        check(
            &[("HTTP_PORT", "http")],
            "HTTP_PORT=\"http\" is not a port (0 to 65535)",
        );
        check(
            &[("TLS_SERVER_CERT", "/x")],
            "TLS_SERVER_CERT and TLS_SERVER_PRIVKEY belong together: only one is set",
        );
    }
}
