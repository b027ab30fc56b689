//! Pods: one worker for each, from its first sight to its last file.

mod backoff;
pub(crate) mod downward;
mod env;
mod etc;
mod hooks;
mod keeper;
mod launch;
mod phase;
mod plan;
mod record;
mod sandbox;
mod security;
mod slot;
mod status;
mod stop;
mod worker;
mod writer;

pub(crate) use downward::NodeFacts;
pub(crate) use keeper::{Keeper, PodEntry};
pub(crate) use record::{ContainerRecord, PodRecord};
pub(crate) use security::MappedIds;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use meshgate_api::client::{Cache, Recorder};
use tokio::sync::watch;

use crate::cgroup::Cgroups;
use crate::images::{ImageStore, OwnImage};
use crate::net::NodeNetwork;
use crate::paths::Paths;
use crate::sources::Sources;

/// What every worker needs of its node. One for all.
pub(crate) struct Node {
    pub(crate) client: kube::Client,
    pub(crate) facts: NodeFacts,
    pub(crate) address: Ipv4Addr,
    pub(crate) paths: Paths,
    pub(crate) images: ImageStore,
    pub(crate) own_image: OwnImage,
    /// Raised when images were loaded.
    pub(crate) images_loaded: watch::Receiver<u64>,
    pub(crate) network: Arc<NodeNetwork>,
    pub(crate) recorder: Recorder,
    pub(crate) services: Cache<Service>,
    pub(crate) sources: Sources,
    pub(crate) cgroups: Cgroups,
    /// Runs shims.
    pub(crate) binary: PathBuf,
    pub(crate) mapped: MappedIds,
    pub(crate) rootless: bool,
}
