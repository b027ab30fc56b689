//! pingora as a reverse proxy and nothing else: the origin by Host, on one thread.

use anyhow::Context as _;
use async_trait::async_trait;
use meshgate_peers::{Arguments, Routes, find, use_aws_lc};
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Proxy {
    routes: Routes,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let request = session.req_header();
        let host = match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => request
                .headers
                .get("host")
                .and_then(|host| host.to_str().ok()),
        };
        let origin = host.and_then(|host| find(&self.routes, host));
        let origin = origin.ok_or_else(|| Error::new(ErrorType::HTTPStatus(404)))?;
        Ok(Box::new(HttpPeer::new(origin, false, String::new())))
    }

    /// HTTP/2 names the host elsewhere than HTTP/1, which the origin speaks.
    async fn upstream_request_filter(
        &self,
        _: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        if let Some(authority) = request.uri.authority() {
            let authority = authority.as_str().to_owned();
            request.insert_header("host", authority)?;
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    use_aws_lc()?;
    let arguments = Arguments::of_process()?;
    let configuration = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, configuration);
    server.bootstrap();
    let routes = arguments.routes;
    let mut proxy = http_proxy_service(&server.configuration, Proxy { routes });
    proxy.add_tcp(&arguments.http.to_string());
    let certificate = arguments.certificate.to_str().context("--certificate")?;
    let key = arguments.key.to_str().context("--key")?;
    let mut tls =
        TlsSettings::intermediate(certificate, key).map_err(|error| anyhow::anyhow!("{error}"))?;
    tls.enable_h2();
    proxy.add_tls_with_settings(&arguments.https.to_string(), None, tls);
    server.add_service(proxy);
    server.run_forever()
}
