//! `meshgate status`: what runs, where, how it is.

mod processes;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use meshgate_certs::cluster::ClusterPki;
use serde::Serialize;

use crate::args::{Output, StatusArgs};
use crate::cluster::{Cluster, State};
use processes::{Process, Role};

/// The API server gets this long to answer all questions; after that it counts as not healthy.
const API_TIMEOUT: Duration = Duration::from_secs(3);

/// All there is to say; also the JSON output, a contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    running: bool,
    data_dir: PathBuf,
    kubeconfig: PathBuf,
    api: SocketAddr,
    edge: Edge,
    components: Vec<Component>,
    nodes: Vec<NodeStatus>,
    certificates: Vec<Certificate>,
    versions: Versions,
}

#[derive(Debug, Serialize)]
struct Edge {
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct Component {
    name: String,
    node: Option<String>,
    pid: i32,
    healthy: bool,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    name: String,
    ready: bool,
    address: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Certificate {
    name: String,
    expires: jiff::Timestamp,
}

#[derive(Debug, Serialize)]
struct Versions {
    meshgate: String,
    kubernetes: Option<String>,
}

/// What only the API server knows.
#[derive(Debug, Default)]
struct Seen {
    kubernetes: Option<String>,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let cluster = Cluster::find(&args.cluster)?;
    let state = cluster.running()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot make a runtime")?;
    let seen = runtime.block_on(async {
        match tokio::time::timeout(API_TIMEOUT, ask(&cluster)).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the API server cannot be asked"
                );
                Seen::default()
            }
            Err(_) => Seen::default(),
        }
    });
    let status = assemble(&cluster, &state, &seen)?;
    let healthy = status.components.iter().all(|c| c.healthy);
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&status)?,
        Output::Text => text(&status),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write the status")?;
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn ask(cluster: &Cluster) -> anyhow::Result<Seen> {
    let client = crate::client::from_kubeconfig(&cluster.kubeconfig()).await?;
    let all = Default::default();
    let (version, nodes, pods) = tokio::try_join!(
        client.apiserver_version(),
        async { Api::<Node>::all(client.clone()).list(&all).await },
        async { Api::<Pod>::all(client.clone()).list(&all).await },
    )?;
    Ok(Seen {
        kubernetes: Some(version.git_version),
        nodes: nodes.items,
        pods: pods.items,
    })
}

fn assemble(cluster: &Cluster, state: &State, seen: &Seen) -> anyhow::Result<Status> {
    let nodes: Vec<NodeStatus> = seen.nodes.iter().map(node_status).collect();
    let components = processes::below(state.keeper_pid)
        .into_iter()
        .map(|process| component(process, seen, &nodes))
        .collect();
    let pki = ClusterPki::open(&cluster.data_dir).context("the cluster's certificates")?;
    let certificates = pki
        .certificates()
        .into_iter()
        .map(|(path, expiry)| Certificate {
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            expires: expiry.validity.not_after,
        })
        .collect();
    Ok(Status {
        name: state.name.clone(),
        running: true,
        data_dir: cluster.data_dir.clone(),
        kubeconfig: cluster.kubeconfig(),
        api: state.api,
        edge: Edge {
            http: state.http,
            https: state.https,
        },
        components,
        nodes,
        certificates,
        versions: Versions {
            meshgate: state.version.clone(),
            kubernetes: seen.kubernetes.clone(),
        },
    })
}

fn node_status(node: &Node) -> NodeStatus {
    let status = node.status.as_ref();
    let conditions = status
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    let addresses = status
        .and_then(|s| s.addresses.as_deref())
        .unwrap_or_default();
    NodeStatus {
        name: node.metadata.name.clone().unwrap_or_default(),
        ready: conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
        address: addresses
            .iter()
            .find(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone()),
    }
}

/// Whether a process does its work: the API's word for it, and that it is there at all.
fn component(process: Process, seen: &Seen, nodes: &[NodeStatus]) -> Component {
    let (name, node, healthy) = match process.role {
        Role::Control => ("control".to_owned(), None, seen.kubernetes.is_some()),
        Role::Agent { node } => {
            let ready = nodes.iter().any(|n| n.name == node && n.ready);
            ("agent".to_owned(), Some(node), ready)
        }
        Role::Edge {
            namespace,
            pod,
            node,
        } => {
            let ready = is_ready(seen, &namespace, &pod);
            (format!("edge/{pod}"), node, ready)
        }
        Role::Sidecar {
            namespace,
            pod,
            node,
        } => {
            let ready = is_ready(seen, &namespace, &pod);
            (format!("sidecar/{namespace}/{pod}"), node, ready)
        }
    };
    Component {
        name,
        node,
        pid: process.pid,
        healthy,
    }
}

fn is_ready(seen: &Seen, namespace: &str, pod: &str) -> bool {
    let found = seen.pods.iter().find(|p| {
        p.metadata.namespace.as_deref() == Some(namespace)
            && p.metadata.name.as_deref() == Some(pod)
    });
    let conditions = found
        .and_then(|p| p.status.as_ref()?.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn text(status: &Status) -> String {
    let shown = |address: &Option<SocketAddr>| address.map_or("none".to_owned(), |a| a.to_string());
    let mut facts = BTreeMap::new();
    facts.insert("1 cluster", status.name.clone());
    facts.insert("2 api", format!("https://{}", status.api));
    facts.insert(
        "3 edge",
        format!(
            "http {}, https {}",
            shown(&status.edge.http),
            shown(&status.edge.https)
        ),
    );
    facts.insert("4 kubeconfig", status.kubeconfig.display().to_string());
    facts.insert(
        "5 versions",
        format!(
            "meshgate {}, Kubernetes {}",
            status.versions.meshgate,
            status
                .versions
                .kubernetes
                .as_deref()
                .unwrap_or("not answering")
        ),
    );
    let mut text: String = facts
        .iter()
        .map(|(name, value)| format!("{:<12}{value}\n", &name[2..]))
        .collect();
    text += "\nCOMPONENT                                         NODE      PID       HEALTHY\n";
    for c in &status.components {
        let node = c.node.as_deref().unwrap_or("-");
        text += &format!(
            "{:<50}{:<10}{:<10}{}\n",
            c.name,
            node,
            c.pid,
            if c.healthy { "yes" } else { "NO" }
        );
    }
    text += "\nNODE      ADDRESS        READY\n";
    for n in &status.nodes {
        let address = n.address.as_deref().unwrap_or("-");
        text += &format!(
            "{:<10}{:<15}{}\n",
            n.name,
            address,
            if n.ready { "yes" } else { "NO" }
        );
    }
    let soonest = status.certificates.iter().min_by_key(|c| c.expires);
    if let Some(first) = soonest {
        text += &format!(
            "\n{} certificates; the first to expire is {} at {}",
            status.certificates.len(),
            first.name,
            first.expires
        );
    }
    text
}
