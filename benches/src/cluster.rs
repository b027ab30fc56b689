//! A cluster of the bench's own: data in a temporary folder, ports that were free.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::probe;

const MANIFEST: &str = include_str!("../bench.yaml");
/// Where the Secret with the edge's certificate goes.
const NAMESPACE: &str = "bench";

/// Where the cluster answers on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) api: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
}

impl Ports {
    /// Three ports that nobody uses now; fixed, so that a question can be asked before anybody listens.
    pub(crate) fn free() -> std::io::Result<Self> {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [api, http, https] = listeners.map(|listener| listener?.local_addr());
        Ok(Self {
            api: api?,
            http: http?,
            https: https?,
        })
    }
}

/// Stopped when dropped; its data goes with it.
pub(crate) struct Cluster {
    data: TempDir,
    ports: Ports,
    runs: bool,
}

/// From the start of `up`.
pub(crate) struct Times {
    pub(crate) first_answer: Duration,
    pub(crate) ready: Duration,
}

/// A process of the cluster.
pub(crate) struct Component {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

impl Cluster {
    pub(crate) fn prepare(ports: Ports) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("meshgate-bench-")
            .tempdir()?;
        Ok(Self {
            data,
            ports,
            runs: false,
        })
    }

    pub(crate) fn start(ports: Ports, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut cluster = Self::prepare(ports)?;
        run(cluster.up_command(arguments)?)?;
        cluster.runs = true;
        Ok(cluster)
    }

    /// Starts and waits for the first 200 at `host`, asking all the time.
    pub(crate) fn up(&mut self, arguments: &[&str], host: &str) -> anyhow::Result<Times> {
        let command = self.up_command(arguments)?;
        let (address, host) = (self.ports.http, host.to_owned());
        let start = Instant::now();
        let asking = std::thread::spawn(move || {
            probe::until(address, &host, "/", |answer| answer.status == 200)?;
            anyhow::Ok(start.elapsed())
        });
        self.runs = true;
        run(command)?;
        let ready = start.elapsed();
        let first_answer = asking
            .join()
            .map_err(|_| anyhow::anyhow!("asking failed"))??;
        Ok(Times {
            first_answer,
            ready,
        })
    }

    pub(crate) fn down(&mut self) -> anyhow::Result<()> {
        self.runs = false;
        run(self.command("down")?).map(|_| ())
    }

    fn up_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.command("up")?;
        command.arg("--detach").args(arguments);
        for (name, address) in [
            ("--api", self.ports.api),
            ("--http", self.ports.http),
            ("--https", self.ports.https),
        ] {
            command.arg(name).arg(address.to_string());
        }
        Ok(command)
    }

    fn command(&self, subcommand: &str) -> anyhow::Result<Command> {
        let binary = std::env::var_os("MESHGATE")
            .context("MESHGATE names the binary to measure: use benches/edge.sh")?;
        let mut command = Command::new(binary);
        command
            .arg(subcommand)
            .args(["--name", &format!("bench-{}", std::process::id())])
            .arg("--data-dir")
            .arg(self.data_dir());
        Ok(command)
    }

    fn data_dir(&self) -> PathBuf {
        self.data.path().join("data")
    }

    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let kubeconfig = self.data_dir().join("kubeconfig");
        Ok(meshgate_api::client::connect(&kubeconfig).await?)
    }

    pub(crate) fn components(&self) -> anyhow::Result<Vec<Component>> {
        let mut command = self.command("status")?;
        command.args(["-o", "json"]);
        let status: Value = serde_json::from_str(&run(command)?).context("status")?;
        let components = status["components"].as_array().context("no components")?;
        components
            .iter()
            .map(|component| {
                let pid = component["pid"].as_u64().context("no pid")?;
                Ok(Component {
                    name: component["name"].as_str().context("no name")?.to_owned(),
                    pid: u32::try_from(pid).context("no pid")?,
                })
            })
            .collect()
    }

    /// The process of the component whose name starts so.
    pub(crate) fn pid_of(&self, name: &str) -> anyhow::Result<u32> {
        let components = self.components()?;
        let mut components = components.iter();
        let found = components.find(|component| component.name.starts_with(name));
        Ok(found.with_context(|| format!("no component {name}"))?.pid)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.runs
            && let Ok(mut command) = self.command("down")
        {
            let _ = command.output();
        }
    }
}

fn run(mut command: Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| shown.clone())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The objects that are measured, with a certificate for the edge.
pub(crate) fn manifest() -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = documents(MANIFEST)?;
    let names = ["bench.test".to_owned(), "mesh.test".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": NAMESPACE, "name": "certificate"},
        "type": "kubernetes.io/tls",
        "stringData": {
            "tls.crt": certified.cert.pem(),
            "tls.key": certified.signing_key.serialize_pem(),
        },
    });
    // After its namespace, before what refers to it.
    objects.insert(1, serde_json::from_value(secret)?);
    Ok(objects)
}

/// The objects of a manifest.
pub(crate) fn documents(manifest: &str) -> anyhow::Result<Vec<DynamicObject>> {
    use serde::Deserialize as _;
    let documents = serde_norway::Deserializer::from_str(manifest).map(DynamicObject::deserialize);
    documents.collect::<Result<_, _>>().context("a manifest")
}

/// Creates the objects, in order.
pub(crate) async fn apply(client: &Client, objects: &[DynamicObject]) -> anyhow::Result<()> {
    for object in objects {
        let name = object
            .metadata
            .name
            .clone()
            .context("an object without name")?;
        let api = api_of(client, object)?;
        api.create(&Default::default(), object)
            .await
            .with_context(|| format!("creating {name}"))?;
    }
    Ok(())
}

fn api_of(client: &Client, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("an object without kind")?;
    let (group, version) = types
        .api_version
        .split_once('/')
        .unwrap_or(("", &types.api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    Ok(match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Merges `change` into an object, and returns when the API server has acknowledged it.
pub(crate) async fn patch(
    client: &Client,
    kind: GroupVersionKind,
    name: &str,
    change: &Value,
) -> anyhow::Result<()> {
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let params = PatchParams::default();
    api.patch(name, &params, &Patch::Merge(change)).await?;
    Ok(())
}
