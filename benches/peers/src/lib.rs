//! What the peers of the comparison share: their arguments. Each listens in the clear and with TLS, knows a list of hosts,
//! and sends their requests to one origin.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

const USAGE: &str =
    "usage: PEER --http ADDR --https ADDR --routes FILE --certificate PEM --key PEM";

/// A host and the address of its origin; names are in lower case.
pub type Routes = HashMap<Box<str>, SocketAddr>;

/// What a peer is started with.
#[derive(Debug)]
pub struct Arguments {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub routes: Routes,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Arguments {
    /// Those of this process.
    pub fn of_process() -> anyhow::Result<Self> {
        let mut given = HashMap::new();
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            given.insert(name, words.next().context(USAGE)?);
        }
        let mut take = |name: &str| given.remove(name).context(USAGE);
        let arguments = Self {
            http: take("--http")?.parse().context("--http")?,
            https: take("--https")?.parse().context("--https")?,
            routes: read_routes(&take("--routes")?).context("--routes")?,
            certificate: take("--certificate")?.into(),
            key: take("--key")?.into(),
        };
        if !given.is_empty() {
            bail!(USAGE);
        }
        Ok(arguments)
    }
}

/// `HOST ADDR` a line.
fn read_routes(path: &str) -> anyhow::Result<Routes> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let lines = text.lines();
    let routes = lines.map(|line| {
        let (host, origin) = line.split_once(' ').context("a line without a space")?;
        let host = host.to_ascii_lowercase().into_boxed_str();
        let origin = origin.parse();
        Ok((host, origin.with_context(|| line.to_owned())?))
    });
    routes.collect()
}

/// pingora brings ring along; all peers encrypt with what the product encrypts with.
pub fn use_aws_lc() -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another provider is installed"))
}

/// The origin of a host, which may have a port behind it.
pub fn find(routes: &Routes, authority: &str) -> Option<SocketAddr> {
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    match routes.get(host) {
        Some(origin) => Some(*origin),
        None => routes.get(host.to_ascii_lowercase().as_str()).copied(),
    }
}
