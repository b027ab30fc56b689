//! What an agent must know of a pod after it, or the machine, was restarted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::shim::files;

const FILE: &str = "record.json";

/// A pod on this node. Written before whatever it tells of happens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Of the current sandbox.
    pub(crate) address: Option<Ipv4Addr>,
    /// The init containers were through in the current sandbox.
    pub(crate) initialized: bool,
    /// By container name.
    pub(crate) containers: BTreeMap<String, ContainerRecord>,
}

/// A container's history, as far as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerRecord {
    /// Runs before the current one: `restartCount`.
    pub(crate) run: u32,
    /// The current run, or the last.
    pub(crate) id: Option<String>,
    /// `imageID` of it.
    pub(crate) image_id: String,
    /// Its startup probe has passed.
    pub(crate) started: bool,
    /// How the current run ended; absent while it runs.
    pub(crate) ended: Option<Ended>,
    /// How the run before it ended.
    pub(crate) last: Option<Ended>,
}

/// A run that is over, in the words of a container status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == 0
    }
}

impl PodRecord {
    /// The record in the pod's folder.
    pub(crate) fn read(dir: &Path) -> io::Result<PodRecord> {
        Ok(serde_json::from_slice(&fs::read(dir.join(FILE))?)?)
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        files::write(dir, FILE, self)
    }

    pub(crate) fn container(&mut self, name: &str) -> &mut ContainerRecord {
        self.containers.entry(name.to_owned()).or_default()
    }
}
