//! Where things are. Lasting things are below `data`, what ends with the cluster's processes below `run`.
//!
//! ```text
//! data/pods/UID/record.json             what is known of a pod across agents and restarts
//! data/pods/UID/volumes/NAME            emptyDir
//! data/pods/UID/etc/…                   hosts, hostname, resolv.conf
//! data/pods/UID/containers/NAME/N/…     what run N of a container wrote: upper, work, termination message
//! data/logs/NAMESPACE_POD_UID/NAME/N.log
//! run/pods/UID/{net,ipc,uts,shm}        the sandbox's namespaces, kept by mounts
//! run/pods/UID/volumes/NAME             volumes in memory: secrets, tokens, configuration
//! run/containers/ID/…                   shim and container: see `shim::files`
//! ```

use std::path::{Path, PathBuf};

/// A node's folders.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    data: PathBuf,
    run: PathBuf,
}

impl Paths {
    pub(crate) fn new(data: &Path, run: &Path) -> Paths {
        Paths {
            data: data.to_owned(),
            run: run.to_owned(),
        }
    }

    pub(crate) fn all_pod_data(&self) -> PathBuf {
        self.data.join("pods")
    }

    pub(crate) fn all_pod_runs(&self) -> PathBuf {
        self.run.join("pods")
    }

    pub(crate) fn all_containers(&self) -> PathBuf {
        self.run.join("containers")
    }

    pub(crate) fn pod_data(&self, uid: &str) -> PathBuf {
        self.all_pod_data().join(uid)
    }

    pub(crate) fn pod_run(&self, uid: &str) -> PathBuf {
        self.all_pod_runs().join(uid)
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.all_containers().join(id)
    }

    pub(crate) fn container_data(&self, uid: &str, name: &str, run: u32) -> PathBuf {
        self.pod_data(uid)
            .join("containers")
            .join(name)
            .join(run.to_string())
    }

    pub(crate) fn pod_logs(&self, namespace: &str, pod: &str, uid: &str) -> PathBuf {
        self.data
            .join("logs")
            .join(format!("{namespace}_{pod}_{uid}"))
    }

    pub(crate) fn log(&self, pod: PodName<'_>, container: &str, run: u32) -> PathBuf {
        self.pod_logs(pod.namespace, pod.name, pod.uid)
            .join(container)
            .join(format!("{run}.log"))
    }
}

/// A pod in paths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodName<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
}
