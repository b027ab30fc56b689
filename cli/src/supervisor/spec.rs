//! What `up` tells keeper and supervisor, and what they report back.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A cluster to run. Descriptors are numbers of files that were left open for the reader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) cgroup: String,
    pub(crate) nodes: u8,
    pub(crate) cert_ttl: Duration,
    /// Arguments of the control plane about spans.
    pub(crate) trace: Vec<String>,
    /// End when `up` ends.
    pub(crate) foreground: bool,
    pub(crate) lock: RawFd,
    pub(crate) report: RawFd,
    pub(crate) api: RawFd,
    pub(crate) http: Option<RawFd>,
    pub(crate) https: Option<RawFd>,
    pub(crate) edge_addresses: Vec<IpAddr>,
}

impl Spec {
    /// With nodes, the cluster lives in namespaces of its own. A control plane alone needs none.
    pub(crate) fn isolated(&self) -> bool {
        self.nodes > 0
    }

    pub(crate) fn to_argument(&self) -> String {
        serde_json::to_string(self)
            .expect("numbers, strings and paths from the command line are JSON")
    }

    pub(crate) fn from_argument(text: &str) -> anyhow::Result<Spec> {
        Ok(serde_json::from_str(text)?)
    }

    pub(crate) fn node_names(&self) -> impl Iterator<Item = (u8, String)> + use<> {
        (0..self.nodes).map(|index| (index, node_name(index)))
    }
}

/// Name of node `index`.
pub(crate) fn node_name(index: u8) -> String {
    format!("node-{index}")
}

/// A step that was taken, or the end of it all. One JSON line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// Namespaces and networks are there.
    Network,
    /// The API server answers.
    Api,
    /// All agents run.
    Nodes,
    /// The cluster cannot come up, and why.
    Failed(String),
}

impl Report {
    /// Says it to `up`, which may have gone.
    pub(crate) fn send(&self, to: &mut impl Write) {
        let line = serde_json::to_string(self).expect("a report is JSON") + "\n";
        if let Err(error) = to.write_all(line.as_bytes()) {
            tracing::debug!(%error, "nobody listens to reports any more");
        }
    }

    /// The next report; `None` at the end.
    pub(crate) fn receive(from: &mut impl BufRead) -> anyhow::Result<Option<Report>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}
