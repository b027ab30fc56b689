//! `meshgate node`: one node's agent.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use meshgate_certs::cluster::ClusterPki;

use crate::args::NodeArgs;
use crate::{resident, runtime};

pub(crate) fn run(args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    runtime::current_thread()?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
        resident::trim_when_settled();
        meshgate_agent::run(options, shutdown)
            .await
            .context("the node agent")
    })?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &NodeArgs) -> anyhow::Result<meshgate_agent::Options> {
    let pki = ClusterPki::open(&args.data_dir).context("the cluster's certificates")?;
    let files = pki.node(&args.name).with_context(|| {
        format!(
            "{} has no certificate for node {}",
            args.data_dir.display(),
            args.name
        )
    })?;
    Ok(meshgate_agent::Options {
        node_name: args.name.clone(),
        index: args.index,
        address: args.address.into(),
        kubeconfig: args.kubeconfig.clone(),
        data_dir: args.data_dir.join("nodes").join(&args.name),
        images_dir: args.data_dir.join("images"),
        run_dir: args.run_dir.join(&args.name),
        cgroup_parent: format!("/{}/{}", args.cgroup_parent.trim_matches('/'), args.name),
        self_exe: PathBuf::from("/proc/self/exe"),
        serving_cert: files.serving.cert.clone(),
        serving_key: files.serving.key.clone(),
        client_ca: pki.ca.clone(),
    })
}
