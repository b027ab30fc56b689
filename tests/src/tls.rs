//! Certificates made by openssl, as a user makes them, and a client that notes which one a server shows.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use crate::{Cluster, run, text};

/// A self-signed certificate for `host` in `folder`: certificate file and key file. Each call makes a new one.
pub fn self_signed(folder: &Path, host: &str) -> (PathBuf, PathBuf) {
    made(folder, host, &[])
}

/// The same, but one that vouches for itself alone: strict clients take no authority for a server.
pub fn own_word(folder: &Path, host: &str) -> (PathBuf, PathBuf) {
    let server = "basicConstraints=critical,CA:FALSE";
    made(folder, host, &["-config", "/dev/null", "-addext", server])
}

fn made(folder: &Path, host: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let (cert, key) = (
        folder.join(format!("{host}.crt")),
        folder.join(format!("{host}.key")),
    );
    let output = run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            &format!("/CN={host}"),
            "-addext",
            &format!("subjectAltName=DNS:{host}"),
        ])
        .args(more)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    assert!(output.status.success(), "openssl: {}", text(&output));
    (cert, key)
}

/// Puts a new certificate for `host` into Secret `namespace/name`, replacing one that is there; its file.
pub fn secret(cluster: &Cluster, namespace: &str, name: &str, host: &str) -> PathBuf {
    let (cert, key) = self_signed(cluster.scratch(), host);
    let path = |flag: &str, file: &Path| format!("--{flag}={}", file.display());
    let manifest = cluster.kubectl(&[
        "create",
        "secret",
        "tls",
        name,
        "-n",
        namespace,
        &path("cert", &cert),
        &path("key", &key),
        "--dry-run=client",
        "-o",
        "yaml",
    ]);
    cluster.apply(&manifest);
    cert
}

/// Serial number of the certificate that `address` shows for `host`; none when the handshake fails.
pub fn served_serial(address: &str, host: &str) -> Option<String> {
    let output = run(Command::new("sh").arg("-c").arg(format!(
        "openssl s_client -connect {address} -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -serial"
    )));
    output
        .status
        .success()
        .then(|| text(&output).trim().to_owned())
}

/// Serial number of the certificate in a file.
pub fn serial(cert: &Path) -> String {
    let output = run(Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(cert));
    text(&output).trim().to_owned()
}

/// A client that takes whatever certificate it is shown, if the server has its key. It never resumes: each handshake
/// shows a certificate.
pub fn client(protocol: &str) -> Arc<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The name that is asked for in TLS.
pub fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

/// Serial number of the certificate that the server showed, as [`serial`] writes it.
pub(crate) fn shown_serial(client: &ClientConnection) -> io::Result<String> {
    let shown = client.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::other("the server showed no certificate"))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(shown).map_err(io::Error::other)?;
    let digits = format!("{:X}", certificate.tbs_certificate.serial);
    // openssl writes whole bytes.
    let odd = if digits.len() % 2 == 1 { "0" } else { "" };
    Ok(format!("serial={odd}{digits}"))
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
