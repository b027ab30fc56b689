//! An edge as people start it: `meshgate ingress --from`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{CertifiedKey, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::tools;

/// Ends when dropped.
pub(crate) struct Edge {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    _process: Child,
    _log: tokio::task::JoinHandle<()>,
    folder: TempDir,
}

/// The one host that is served.
pub(crate) const HOST: &str = "localhost";
/// Beside the manifests.
const CERTIFICATE: &str = "certificate.pem";
const START_PATIENCE: Duration = Duration::from_secs(30);

impl Edge {
    /// Sends everything to one endpoint.
    pub(crate) async fn start(origin: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("meshgate-foreign-")
            .tempdir()?;
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests)?;
        let issued = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        std::fs::write(folder.path().join(CERTIFICATE), issued.cert.pem())?;
        std::fs::write(manifests.join("site.yaml"), site(origin, &issued))?;
        let mut process = command(folder.path(), &manifests)?
            .spawn()
            .context("the edge")?;
        let log = process.stderr.take().context("the edge's log")?;
        let mut log = BufReader::new(log).lines();
        let listening = tokio::time::timeout(START_PATIENCE, addresses(&mut log));
        let (http, https) = listening
            .await
            .context("the edge did not serve in time")??;
        let log = tokio::spawn(async move {
            // Nobody reads it, but a full pipe would stop the edge.
            while let Ok(Some(_)) = log.next_line().await {}
        });
        Ok(Self {
            http,
            https,
            _process: process,
            _log: log,
            folder,
        })
    }

    /// The file of the certificate that it shows.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join(CERTIFICATE)
    }
}

fn command(folder: &Path, manifests: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(tools::path("MESHGATE")?);
    command
        .args(["ingress", "--access-log", "off", "--workers", "1"])
        .args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
        .args(["--ready", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
        .arg("--control-socket")
        .arg(folder.join("control"))
        .arg("--from")
        .arg(manifests)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

/// Where it listens, once it serves.
async fn addresses(
    log: &mut Lines<BufReader<ChildStderr>>,
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let (mut http, mut https) = (None, None);
    let mut seen = String::new();
    while let Some(line) = log.next_line().await? {
        let at = |listener: &str| {
            let named = line.contains(&format!("listener=\"{listener}\""));
            let at = line.split_once("at=")?.1.split_whitespace().next()?;
            named.then(|| at.parse().ok()).flatten()
        };
        http = http.or_else(|| at("http"));
        https = https.or_else(|| at("https"));
        if let (Some(http), Some(https), true) = (http, https, line.contains(" serving")) {
            return Ok((http, https));
        }
        seen += &line;
        seen.push('\n');
    }
    anyhow::bail!("the edge ended: {seen}")
}

fn site(origin: SocketAddr, issued: &CertifiedKey<KeyPair>) -> String {
    let indented = |pem: String| pem.replace('\n', "\n    ");
    let (certificate, key) = (
        indented(issued.cert.pem()),
        indented(issued.signing_key.serialize_pem()),
    );
    let (ip, port) = (origin.ip(), origin.port());
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: certificate}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
---
apiVersion: v1
kind: Service
metadata: {{name: origin}}
spec:
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: origin, labels: {{kubernetes.io/service-name: origin}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [{ip}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: site}}
spec:
  tls: [{{hosts: [{HOST}], secretName: certificate}}]
  rules:
  - host: {HOST}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: origin, port: {{number: 80}}}}}}}}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: for-clients-that-name-no-host}}
spec:
  tls: [{{secretName: certificate}}]
  defaultBackend: {{service: {{name: origin, port: {{number: 80}}}}}}
"
    )
}
