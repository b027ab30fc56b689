//! The cluster's own PKI, kept as files in the data directory: made at first start, completed and renewed at every start.
//!
//! ```text
//! kubeconfig                     the administrator's, for people
//! kubeconfigs/<who>.kubeconfig   one identity each for the components and the nodes
//! pki/ca.{crt,key}               the cluster CA: 10 years, kept for good
//! pki/sa.key                     signs service-account tokens
//! pki/<what>.{crt,key}           the rest: 1 year, made anew with less than 30 % of life left
//! ```
//! All files have mode 0600. The CA is never replaced silently: whoever trusts it would be cut off.

mod files;
mod issue;
mod kubeconfig;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::expiry::{self, Expiry};
use files::Files;
use issue::{Issued, Profile, Wanted};

pub use files::ClusterPkiError;

/// CN under which the API server calls node agents; they let nobody else in.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// Names under which every cluster's API server is reached from inside.
const API_NAMES: [&str; 5] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];
/// Loopback, the `kubernetes` Service, the control network.
const API_ADDRESSES: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1)),
];
/// Names of the control plane's Service, for push, identity and the webhook.
const PUSH_NAMES: [&str; 5] = [
    "meshgate-control",
    "meshgate-control.meshgate-system",
    "meshgate-control.meshgate-system.svc",
    "meshgate-control.meshgate-system.svc.cluster.local",
    "localhost",
];
const PUSH_ADDRESSES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, 1)),
];

/// What the cluster looks like from outside.
#[derive(Clone, Debug)]
pub struct ClusterPkiOptions {
    /// Addresses of the API server beyond the usual ones.
    pub api_addresses: Vec<IpAddr>,
    /// Names of the API server beyond the usual ones.
    pub api_names: Vec<String>,
    /// Where people reach the API server: goes into `kubeconfig`.
    pub api_url_host: String,
    /// Where components and nodes reach it: goes into `kubeconfigs/`.
    pub api_url_inside: String,
    /// Name of cluster and context in the kubeconfigs.
    pub cluster_name: String,
    /// Names and addresses of the nodes.
    pub nodes: Vec<(String, IpAddr)>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl KeyFiles {
    /// Certificate and key as PEM.
    pub fn read(&self) -> Result<(String, String), ClusterPkiError> {
        Ok((files::read(&self.cert)?, files::read(&self.key)?))
    }
}

/// What a node agent needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    pub name: String,
    pub kubeconfig: PathBuf,
    pub serving: KeyFiles,
}

/// Where everything is. All files exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPki {
    pub ca: PathBuf,
    pub sa_key: PathBuf,
    pub api_server: KeyFiles,
    pub kubelet_client: KeyFiles,
    pub push: KeyFiles,
    pub admin_kubeconfig: PathBuf,
    pub scheduler_kubeconfig: PathBuf,
    pub controllers_kubeconfig: PathBuf,
    pub push_kubeconfig: PathBuf,
    pub addons_kubeconfig: PathBuf,
    pub nodes: Vec<NodeFiles>,
    ca_pem: String,
}

/// A client of the API server: file name, common name, organization (group).
struct Client {
    file: &'static str,
    name: &'static str,
    group: Option<&'static str>,
}

const CLIENTS: [Client; 4] = [
    Client {
        file: "scheduler",
        name: "system:kube-scheduler",
        group: None,
    },
    Client {
        file: "controllers",
        name: "system:kube-controller-manager",
        group: None,
    },
    Client {
        file: "push",
        name: "meshgate:push",
        group: Some("meshgate:control"),
    },
    Client {
        file: "addons",
        name: "meshgate:addons",
        group: Some("system:masters"),
    },
];

impl ClusterPki {
    /// Makes what is missing in `dir` (the data directory) and renews what is near its end. Safe to call at every start.
    pub fn ensure(dir: &Path, options: &ClusterPkiOptions) -> Result<Self, ClusterPkiError> {
        Self::ensure_at(dir, options, Timestamp::now())
    }

    /// [`ClusterPki::ensure`] at a given time.
    pub fn ensure_at(
        dir: &Path,
        options: &ClusterPkiOptions,
        now: Timestamp,
    ) -> Result<Self, ClusterPkiError> {
        let files = Files::new(dir);
        files.create_directories()?;
        let issuer = issue::authority(&files, now)?;
        issue::service_account_key(&files)?;
        let node_names = options.nodes.iter().map(|(name, _)| name.clone()).collect();
        let pki = Self::paths(&files, node_names, issuer.ca_pem().to_owned());

        issuer.ensure(&pki.api_server, &api_server(options), now)?;
        issuer.ensure(&pki.push, &push(), now)?;
        let kubelet_client = client(KUBELET_CLIENT, None);
        issuer.ensure(&pki.kubelet_client, &kubelet_client, now)?;

        let configure = |file: &Path, keys: &KeyFiles, wanted: &Wanted, url: &str| {
            let issued = issuer.ensure(keys, wanted, now)?;
            pki.configure(
                file,
                &wanted.common_name,
                &issued,
                &options.cluster_name,
                url,
            )
        };
        let admin = client("meshgate-admin", Some("system:masters"));
        let keys = files.pair("clients/admin");
        configure(&pki.admin_kubeconfig, &keys, &admin, &options.api_url_host)?;
        for Client { file, name, group } in &CLIENTS {
            let keys = files.pair(&format!("clients/{file}"));
            let wanted = client(name, *group);
            configure(
                &files.kubeconfig(file),
                &keys,
                &wanted,
                &options.api_url_inside,
            )?;
        }
        for (node, (name, address)) in pki.nodes.iter().zip(&options.nodes) {
            issuer.ensure(&node.serving, &node_serving(name, *address), now)?;
            let wanted = client(&format!("system:node:{name}"), Some("system:nodes"));
            let keys = files.pair(&format!("nodes/{name}-client"));
            configure(&node.kubeconfig, &keys, &wanted, &options.api_url_inside)?;
        }
        Ok(pki)
    }

    /// Finds what [`ClusterPki::ensure`] made, for another process of the same cluster; makes and changes nothing.
    pub fn open(dir: &Path) -> Result<Self, ClusterPkiError> {
        let files = Files::new(dir);
        let ca_pem = files::read(&files.pair("ca").cert)?;
        Ok(Self::paths(&files, files.nodes()?, ca_pem))
    }

    fn paths(files: &Files, nodes: Vec<String>, ca_pem: String) -> Self {
        let node = |name: String| NodeFiles {
            kubeconfig: files.kubeconfig(&name),
            serving: files.pair(&format!("nodes/{name}")),
            name,
        };
        Self {
            ca: files.pair("ca").cert,
            sa_key: files.pair("sa").key,
            api_server: files.pair("api-server"),
            kubelet_client: files.pair("kubelet-client"),
            push: files.pair("push"),
            admin_kubeconfig: files.admin_kubeconfig(),
            scheduler_kubeconfig: files.kubeconfig("scheduler"),
            controllers_kubeconfig: files.kubeconfig("controllers"),
            push_kubeconfig: files.kubeconfig("push"),
            addons_kubeconfig: files.kubeconfig("addons"),
            nodes: nodes.into_iter().map(node).collect(),
            ca_pem,
        }
    }

    /// The cluster CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub fn node(&self, name: &str) -> Option<&NodeFiles> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Every certificate file that exists, with its name and span, for people to see what ends when.
    pub fn certificates(&self) -> Vec<(PathBuf, Expiry)> {
        let mut all = Vec::new();
        let single = [&self.api_server, &self.kubelet_client, &self.push];
        let nodes = self.nodes.iter().map(|node| &node.serving);
        let files = single.into_iter().chain(nodes).map(|keys| &keys.cert);
        for file in std::iter::once(&self.ca).chain(files) {
            if let Ok(text) = files::read(file)
                && let Ok(found) = expiry::of_pem(&text)
            {
                all.extend(found.into_iter().map(|expiry| (file.clone(), expiry)));
            }
        }
        all
    }

    fn configure(
        &self,
        file: &Path,
        user: &str,
        issued: &Issued,
        cluster: &str,
        url: &str,
    ) -> Result<(), ClusterPkiError> {
        let text = kubeconfig::Kubeconfig {
            cluster,
            url,
            ca_pem: &self.ca_pem,
            user,
            cert_pem: &issued.cert_pem,
            key_pem: &issued.key_pem,
        }
        .to_yaml();
        files::write_if_changed(file, &text)
    }
}

fn client(name: &str, group: Option<&str>) -> Wanted {
    Wanted {
        common_name: name.to_owned(),
        organization: group.map(str::to_owned),
        names: Vec::new(),
        addresses: Vec::new(),
        profile: Profile::Client,
    }
}

fn server(name: &str, names: Vec<String>, addresses: Vec<IpAddr>) -> Wanted {
    Wanted {
        common_name: name.to_owned(),
        organization: None,
        names,
        addresses,
        profile: Profile::Server,
    }
}

fn api_server(options: &ClusterPkiOptions) -> Wanted {
    let mut names: Vec<String> = API_NAMES.map(str::to_owned).into();
    let mut addresses: Vec<IpAddr> = API_ADDRESSES.into();
    names.extend_from_slice(&options.api_names);
    addresses.extend_from_slice(&options.api_addresses);
    server("kube-apiserver", names, addresses)
}

fn push() -> Wanted {
    server(
        "meshgate-control",
        PUSH_NAMES.map(str::to_owned).into(),
        PUSH_ADDRESSES.into(),
    )
}

fn node_serving(name: &str, address: IpAddr) -> Wanted {
    server(
        &format!("system:node:{name}"),
        vec![name.to_owned(), "localhost".to_owned()],
        vec![address, IpAddr::V4(Ipv4Addr::LOCALHOST)],
    )
}

#[cfg(test)]
mod tests;
