//! What `up` notes for `status` and `down`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    /// Process that holds the cluster; when it ends, everything ends.
    pub(crate) keeper_pid: i32,
    pub(crate) api: SocketAddr,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) nodes: u8,
    pub(crate) version: String,
    pub(crate) started: jiff::Timestamp,
}

impl State {
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<State> {
        let path = data_dir.join("state.json");
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "the cluster is still starting: {} is not written yet",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged: stop the cluster and start it again",
                path.display()
            )
        })
    }

    /// Replaces the file whole: a reader sees the old state or the new one.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let path = data_dir.join("state.json");
        let new = data_dir.join("state.json.new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
