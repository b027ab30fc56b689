//! The same site for every proxy: a thousand hosts, one certificate, one origin; each in the words of the proxy.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

const HOSTS: usize = 1000;
/// The host that is asked for; it comes late in every list.
pub(crate) const HOST: &str = "h777.bench.test";
/// Connections that a proxy must be able to hold, those to the origin included: below 20,000, which is what a process may
/// have open files on many machines.
const CONNECTIONS_MAX: usize = 16_000;
/// Requests of one connection; what Meshgate's edge allows.
const REQUESTS_MAX: usize = 10_000;

/// Files in a temporary folder that goes when this is dropped.
pub(crate) struct Site {
    folder: TempDir,
    origin: SocketAddr,
    pub(crate) certificate_pem: String,
    key_pem: String,
}

/// Where a proxy listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listens {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Site {
    pub(crate) fn new(origin: SocketAddr) -> anyhow::Result<Self> {
        let certified = rcgen::generate_simple_self_signed(["*.bench.test".to_owned()])?;
        let site = Self {
            folder: tempfile::Builder::new()
                .prefix("meshgate-compare-")
                .tempdir()?,
            origin,
            certificate_pem: certified.cert.pem(),
            key_pem: certified.signing_key.serialize_pem(),
        };
        site.write("certificate.pem", &site.certificate_pem)?;
        site.write("key.pem", &site.key_pem)?;
        let both = site.certificate_pem.clone() + &site.key_pem;
        site.write("both.pem", &both)?;
        Ok(site)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// `HOST ADDR` a line, for the peers of our own.
    pub(crate) fn routes(&self) -> anyhow::Result<PathBuf> {
        let origin = self.origin;
        let lines = hosts().map(|host| format!("{host} {origin}\n"));
        self.write("routes.txt", &lines.collect::<String>())
    }

    /// A server a host, the way an ingress controller writes it; the access log in blocks, as Meshgate writes its own.
    pub(crate) fn nginx(&self, listens: Listens) -> anyhow::Result<PathBuf> {
        let Listens { http, https } = listens;
        let (folder, origin) = (self.folder.path().display(), self.origin);
        let mut text = format!(
            "daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error warn;
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
  access_log {folder}/nginx.log combined buffer=64k flush=1s;
  client_body_temp_path {folder}/nginx.body;
  proxy_temp_path {folder}/nginx.proxy;
  fastcgi_temp_path {folder}/nginx.fastcgi;
  uwsgi_temp_path {folder}/nginx.uwsgi;
  scgi_temp_path {folder}/nginx.scgi;
  keepalive_timeout 600s;
  keepalive_requests {REQUESTS_MAX};
  server_names_hash_max_size 8192;
  server_names_hash_bucket_size 64;
  ssl_certificate {folder}/certificate.pem;
  ssl_certificate_key {folder}/key.pem;
  ssl_protocols TLSv1.2 TLSv1.3;
  proxy_http_version 1.1;
  proxy_set_header Connection \"\";
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $request_id;
  proxy_buffers 16 8k;
  proxy_max_temp_file_size 0;
  upstream origin {{
    server {origin};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{ listen {http} default_server; listen {https} ssl http2 default_server; return 404; }}
"
        );
        for host in hosts() {
            let _ = writeln!(
                text,
                "  server {{ listen {http}; listen {https} ssl http2; server_name {host}; location / {{ proxy_pass http://origin; }} }}"
            );
        }
        text.push_str("}\n");
        self.write("nginx.conf", &text)
    }

    /// It keeps connections to the origin also when many descriptors are in use.
    pub(crate) fn haproxy(&self, listens: Listens) -> anyhow::Result<PathBuf> {
        let Listens { http, https } = listens;
        let (folder, origin) = (self.folder.path().display(), self.origin);
        let map = hosts().map(|host| format!("{host} origin\n"));
        self.write("haproxy.map", &map.collect::<String>())?;
        let text = format!(
            "global
  nbthread 1
  maxconn {CONNECTIONS_MAX}
  no strict-limits
  tune.pool-low-fd-ratio 100
  tune.pool-high-fd-ratio 100
  log stdout format raw local0
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  log global
  option httplog
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend edge
  bind {http}
  bind {https} ssl crt {folder}/both.pem alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  http-request set-header X-Request-Id %[uuid]
  use_backend %[req.hdr(host),field(1,:),lower,map({folder}/haproxy.map,unknown)]
backend origin
  server origin {origin}
backend unknown
  http-request deny deny_status 404
"
        );
        self.write("haproxy.cfg", &text)
    }

    /// A folder of manifests: a Secret, a Service with its endpoint, an Ingress a host.
    pub(crate) fn manifests(&self) -> anyhow::Result<PathBuf> {
        let folder = self.path("manifests");
        fs::create_dir_all(&folder).context("a folder")?;
        let (address, port) = (self.origin.ip(), self.origin.port());
        let mut text = format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: certificate}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}---
apiVersion: v1
kind: Service
metadata: {{name: origin}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: origin, labels: {{kubernetes.io/service-name: origin}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [\"{address}\"]}}]
",
            indented(&self.certificate_pem),
            indented(&self.key_pem)
        );
        for host in hosts() {
            let _ = write!(
                text,
                "---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {host}}}
spec:
  tls: [{{hosts: [{host}], secretName: certificate}}]
  rules:
  - host: {host}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: origin, port: {{number: 80}}}}}}}}]}}
"
            );
        }
        self.write("manifests/site.yaml", &text)?;
        Ok(folder)
    }
}

fn hosts() -> impl Iterator<Item = String> {
    (0..HOSTS).map(|number| format!("h{number}.bench.test"))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
