//! Certificates made by openssl, as a user makes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Cluster, run, text};

/// A self-signed certificate for `host` in `folder`: certificate file and key file. Each call makes a new one.
pub fn self_signed(folder: &Path, host: &str) -> (PathBuf, PathBuf) {
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
