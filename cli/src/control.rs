//! `meshgate control`: the control plane in one process. Its parts talk to the API server as any client does.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use kube::Client;
use meshgate_api::names;
use meshgate_certs::cluster::{ClusterPki, ClusterPkiOptions};
use nix::sys::signal::Signal;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use crate::apply::{Manifest, put_all};
use crate::args::{ControlArgs, Part};
use crate::client::from_kubeconfig;
use crate::cluster::inherited;
use crate::{resident, runtime};

pub(crate) fn run(args: ControlArgs) -> anyhow::Result<ExitCode> {
    if args.die_with_parent {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .context("cannot ask to end with the parent")?;
    }
    runtime::multi_thread(2)?.block_on(async {
        let shutdown = runtime::shutdown_on_signal()?;
        resident::trim_when_settled();
        match args.data_dir.clone() {
            // Scheduler, controllers and push share one thread: they mostly wait. The API server has the others.
            Some(data_dir) => {
                LocalSet::new()
                    .run_until(whole(&args, &data_dir, shutdown))
                    .await
            }
            None => {
                LocalSet::new()
                    .run_until(clients_only(&args, shutdown))
                    .await
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn whole(
    args: &ControlArgs,
    data_dir: &Path,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut listeners = vec![listen(args.listen)?];
    let advertise = listeners[0].local_addr()?;
    let pki = pki(args, data_dir, advertise)?;
    let store = meshgate_store::Store::open(&data_dir.join("store.redb")).context("the store")?;
    if let Some(descriptor) = args.api_fd {
        listeners.push(TcpListener::from(inherited(descriptor)?));
    }
    let options = meshgate_apiserver::Options {
        store,
        pki: pki.clone(),
        listeners,
        advertise,
        service_cidr: names::SERVICE_CIDR,
    };
    let server = meshgate_apiserver::start(options, shutdown.clone())
        .await
        .context("the API server")?;
    if let Some(descriptor) = args.ready_fd {
        say_ready(descriptor)?;
    }
    let mut parts = Parts::new(shutdown.clone());
    let (scheduler, controllers, push, addons) = tokio::try_join!(
        from_kubeconfig(&pki.scheduler_kubeconfig),
        from_kubeconfig(&pki.controllers_kubeconfig),
        from_kubeconfig(&pki.push_kubeconfig),
        from_kubeconfig(&pki.addons_kubeconfig),
    )?;
    let serving = pki
        .push
        .read()
        .context("the certificate of configuration push")?;
    parts.scheduler(scheduler);
    parts.controllers(controllers, pki.ca_pem().to_owned());
    let options = push_options(args, serving)?;
    let manifest = system_manifest(args, &options, pki.ca_pem().to_owned())?;
    parts.system(addons, manifest, push, options);
    let ended = parts.end().await;
    server.wait().await;
    ended
}

/// Parts of the control plane against an API server of somebody else's.
async fn clients_only(args: &ControlArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let path = args
        .kubeconfig
        .as_deref()
        .context("--kubeconfig is needed")?;
    let mut parts = Parts::new(shutdown);
    for part in &args.parts {
        let client = from_kubeconfig(path).await?;
        match part {
            Part::Scheduler => parts.scheduler(client),
            Part::Controllers => parts.controllers(client, crate::client::ca_pem(path).await?),
            Part::Push => {
                let (Some(cert), Some(key)) = (&args.serving_cert, &args.serving_key) else {
                    anyhow::bail!(
                        "push needs --serving-cert and --serving-key: proxies and the API server verify it"
                    );
                };
                let read = |file: &Path| {
                    std::fs::read_to_string(file)
                        .with_context(|| format!("cannot read {}", file.display()))
                };
                parts.push(client, push_options(args, (read(cert)?, read(key)?))?);
            }
        }
    }
    parts.end().await
}

/// The running parts: when one ends, all end.
struct Parts {
    running: JoinSet<anyhow::Result<()>>,
    shutdown: CancellationToken,
}

impl Parts {
    fn new(shutdown: CancellationToken) -> Parts {
        Parts {
            running: JoinSet::new(),
            shutdown,
        }
    }

    fn scheduler(&mut self, client: Client) {
        let token = self.shutdown.clone();
        self.running.spawn_local(async move {
            meshgate_scheduler::run(client, token)
                .await
                .context("the scheduler")
        });
    }

    fn controllers(&mut self, client: Client, root_ca_pem: String) {
        let token = self.shutdown.clone();
        let options = meshgate_controllers::Options::new(root_ca_pem);
        self.running.spawn_local(async move {
            meshgate_controllers::run(client, options, token)
                .await
                .context("the controllers")
        });
    }

    fn push(&mut self, client: Client, options: meshgate_push::Options) {
        self.running
            .spawn_local(push(client, options, self.shutdown.clone()));
    }

    /// Configuration push on our own API server, and the objects that it stands on: nobody else brings them there.
    fn system(
        &mut self,
        addons: Client,
        manifest: Manifest,
        client: Client,
        options: meshgate_push::Options,
    ) {
        let token = self.shutdown.clone();
        self.running.spawn_local(async move {
            let apply = async |objects| {
                put_all(&addons, objects)
                    .await
                    .context("the system's own objects")
            };
            // Push would look for these in vain.
            apply(manifest.needed).await?;
            tokio::try_join!(apply(manifest.others), push(client, options, token))?;
            Ok(())
        });
    }

    /// Returns at the shutdown, or when a part has ended by itself.
    async fn end(mut self) -> anyhow::Result<()> {
        let first = tokio::select! {
            ended = self.running.join_next() => ended,
            () = self.shutdown.cancelled() => None,
        };
        self.shutdown.cancel();
        match first {
            Some(Ok(result)) => result.context("a part of the control plane ended"),
            Some(Err(panic)) => Err(panic).context("a part of the control plane ended"),
            None => Ok(()),
        }
    }
}

async fn push(
    client: Client,
    options: meshgate_push::Options,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    meshgate_push::run(client, options, shutdown)
        .await
        .context("configuration push")
}

/// Definitions, namespace, permissions, class and webhook wherever there is an API server; the edge where nodes run it.
fn system_manifest(
    args: &ControlArgs,
    push: &meshgate_push::Options,
    cluster_ca_pem: String,
) -> anyhow::Result<Manifest> {
    let webhook = push.webhook_listener.local_addr()?;
    Manifest::parse(&meshgate_push::manifests(&meshgate_push::ManifestOptions {
        control_address: webhook.ip(),
        push_port: push.push_listener.local_addr()?.port(),
        webhook_port: webhook.port(),
        cluster_ca_pem,
        edge: args.with_edge.then(|| meshgate_push::EdgeOptions {
            trace: args.trace.to_arguments(),
            ..meshgate_push::EdgeOptions::default()
        }),
    }))
    .context("the system's own objects")
}

/// Below a supervisor the certificates are there. By hand, the first start makes them.
fn pki(args: &ControlArgs, data_dir: &Path, advertise: SocketAddr) -> anyhow::Result<ClusterPki> {
    if args.api_fd.is_some() {
        return ClusterPki::open(data_dir).context("the cluster's certificates");
    }
    std::fs::create_dir_all(data_dir)
        .with_context(|| format!("cannot make {}", data_dir.display()))?;
    let url = format!("https://{advertise}");
    let options = ClusterPkiOptions {
        api_addresses: vec![advertise.ip()],
        api_names: Vec::new(),
        api_url_host: url.clone(),
        api_url_inside: url,
        cluster_name: "meshgate".to_owned(),
        nodes: Vec::new(),
    };
    ClusterPki::ensure(data_dir, &options).context("the cluster's certificates")
}

fn push_options(
    args: &ControlArgs,
    (serving_cert_pem, serving_key_pem): (String, String),
) -> anyhow::Result<meshgate_push::Options> {
    Ok(meshgate_push::Options {
        push_listener: listen(args.push_listen)?,
        webhook_listener: listen(args.webhook_listen)?,
        serving_cert_pem,
        serving_key_pem,
        trust_domain: names::TRUST_DOMAIN.to_owned(),
        cert_ttl: args.cert_ttl,
        edge_addresses: args
            .edge_address
            .iter()
            .copied()
            .map(meshgate_push::EdgeAddress::Ip)
            .collect(),
        inject: meshgate_push::inject::InjectOptions {
            trace: args.trace.to_arguments(),
            ..meshgate_push::inject::InjectOptions::default()
        },
    })
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

fn say_ready(descriptor: RawFd) -> anyhow::Result<()> {
    let mut pipe = std::fs::File::from(inherited(descriptor)?);
    pipe.write_all(b"r")
        .context("cannot say that the API server is ready")
}
