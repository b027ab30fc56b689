//! A proxy's tie to its control plane as a whole: identity, configuration and, at the edge, quotas, each on its own.

use std::path::{Path, PathBuf};

use meshgate_api::names::{IDENTITY_TOKEN_DIR, SERVICE_ACCOUNT_DIR};
use meshgate_api::push as wire;
use meshgate_certs::identity::TrustDomain;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::dial::{ControlAddress, ControlPlane};
use super::identity::{IdentityClient, WorkloadIdentity, first};
use super::mesh::mesh_tls;
use super::metrics::ControlMetrics;
use super::quota;
use super::report::Chain;
use super::resource::Kind;
use super::stream::{Enforce, Interest, Progress, PushClient};
use crate::{Engine, Readiness};

/// Readiness condition: a certificate is in force.
pub const CERTIFICATE: &str = "certificate";
/// Readiness condition: the initial configuration is enforced.
pub const CONFIGURATION: &str = "configuration";
/// Changes of interest that may wait to be sent; a proxy asks for no more at once.
const INTERESTS_MAX: usize = 1024;

/// Where the control plane is, and who asks.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// `HOST:PORT` of push, identity and quota.
    pub control: ControlAddress,
    /// SPIFFE trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// The projected token that proves who we are.
    pub token_path: PathBuf,
    /// The cluster's CA.
    pub ca_path: PathBuf,
    /// The pod this runs in.
    pub pod: PodName,
}

/// A pod, as the downward API tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodName {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `spec.nodeName`
    pub node: String,
}

impl PodName {
    /// From POD_NAMESPACE, POD_NAME, POD_UID and NODE_NAME; what is missing is empty.
    pub fn from_env() -> Self {
        let read = |name| std::env::var(name).unwrap_or_default();
        Self {
            namespace: read("POD_NAMESPACE"),
            name: read("POD_NAME"),
            uid: read("POD_UID"),
            node: read("NODE_NAME"),
        }
    }
}

impl ControlOptions {
    /// Reads token and CA from where the injector and our manifests mount them.
    pub fn in_pod(control: ControlAddress, trust_domain: TrustDomain) -> Self {
        // Our own volume first: it is there for pods without a service account token, too.
        let own = Path::new(IDENTITY_TOKEN_DIR).join("ca.crt");
        let usual = Path::new(SERVICE_ACCOUNT_DIR).join("ca.crt");
        Self {
            control,
            trust_domain,
            token_path: Path::new(IDENTITY_TOKEN_DIR).join("token"),
            ca_path: if own.exists() { own } else { usual },
            pod: PodName::from_env(),
        }
    }
}

/// What this proxy wants of its control plane.
#[derive(Debug)]
pub struct Wants<E> {
    /// Edge or sidecar.
    pub role: wire::node::Role,
    /// Subscriptions from the start.
    pub initial: Vec<(Kind, Vec<String>)>,
    /// What enforces the configuration.
    pub enforce: E,
    /// Whether it enforces global rate limits.
    pub quotas: bool,
}

/// The running tie. Its tasks end with the token given to [`Link::start`].
#[derive(Debug)]
pub struct Link {
    /// The identity, once there is one.
    pub identity: watch::Receiver<Option<WorkloadIdentity>>,
    /// How far the configuration is followed.
    pub progress: watch::Receiver<Progress>,
    tasks: JoinSet<()>,
}

/// The end of a [`Link`] that tells what else to subscribe to. Made first: what enforces may need it.
#[derive(Debug, Clone)]
pub struct Interests(mpsc::Sender<Interest>);

/// The end that [`Link::start`] takes.
#[derive(Debug)]
pub struct InterestsReceiver(mpsc::Receiver<Interest>);

/// Both ends.
pub fn interests() -> (Interests, InterestsReceiver) {
    let (sender, receiver) = mpsc::channel(INTERESTS_MAX);
    (Interests(sender), InterestsReceiver(receiver))
}

impl Interests {
    /// Tells all of them, or none where too much waits already; then false.
    pub fn tell(&self, interests: Vec<Interest>) -> bool {
        let Ok(room) = self.0.try_reserve_many(interests.len()) else {
            return false;
        };
        for (place, interest) in room.zip(interests) {
            place.send(interest);
        }
        true
    }
}

impl Link {
    /// Starts to follow the control plane: sets the engine's identity, hands configuration to `wants.enforce`, and
    /// meets the conditions [`CERTIFICATE`] and [`CONFIGURATION`] of `readiness`.
    pub fn start<E: Enforce>(
        options: &ControlOptions,
        wants: Wants<E>,
        interests: InterestsReceiver,
        engine: &Engine,
        readiness: &Readiness,
        shutdown: &CancellationToken,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let metrics = ControlMetrics::register(engine.metrics());
        let control = ControlPlane {
            address: options.control.clone(),
            ca_path: options.ca_path.clone(),
            mark: engine.socket_mark(),
        };

        let (publish, identity) = watch::channel(None);
        let client = IdentityClient {
            control: control.clone(),
            token_path: options.token_path.clone(),
            trust_domain: options.trust_domain.clone(),
        };
        let certified = metrics.clone();
        let stop = shutdown.clone();
        tasks.spawn(async move {
            let on_validity = move |validity| certified.certified(validity);
            client.run(publish, on_validity, stop).await;
        });
        let use_first = use_identity(
            identity.clone(),
            engine.clone(),
            options.trust_domain.clone(),
            readiness.clone(),
        );
        let stop = shutdown.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(use_first).await;
        });

        if wants.quotas {
            let quota = engine.limits().quota();
            tasks.spawn(quota::run(
                control.clone(),
                quota,
                options.pod.uid.clone(),
                identity.clone(),
                shutdown.clone(),
            ));
        }

        let (publish, progress) = watch::channel(Progress::default());
        let client = PushClient::new(
            control,
            node(wants.role, &options.pod),
            wants.initial,
            wants.enforce,
            interests.0,
            publish,
            metrics,
        );
        tasks.spawn(client.run(identity.clone(), shutdown.clone()));
        let (mut initial, ready) = (progress.clone(), readiness.clone());
        let stop = shutdown.clone();
        tasks.spawn(async move {
            let enforced = initial.wait_for(|progress| progress.initial);
            if let Some(Ok(_)) = stop.run_until_cancelled(enforced).await {
                ready.met(CONFIGURATION);
            }
        });
        Self {
            identity,
            progress,
            tasks,
        }
    }

    /// Returns when the initial configuration is enforced.
    pub async fn configured(&mut self) {
        // The sender lives in a task of ours: an error means that this is being shut down.
        let _ = self.progress.wait_for(|progress| progress.initial).await;
    }

    /// Returns when every task has ended; they do so once the token is cancelled.
    pub async fn ended(mut self) {
        while let Some(task) = self.tasks.join_next().await {
            if let Err(defect) = task {
                error!(%defect, "a task of the tie to the control plane ended by a defect");
            }
        }
    }
}

/// Gives the engine the identity when there is one. Later certificates are swapped inside it.
async fn use_identity(
    mut identity: watch::Receiver<Option<WorkloadIdentity>>,
    engine: Engine,
    domain: TrustDomain,
    readiness: Readiness,
) {
    let Some(identity) = first(&mut identity).await else {
        return;
    };
    match mesh_tls(&identity, &domain) {
        Ok(mesh) => {
            engine.set_mesh_tls(mesh);
            readiness.met(CERTIFICATE);
        }
        Err(failure) => error!(failure = %Chain(&failure), "cannot use this workload's identity"),
    }
}

fn node(role: wire::node::Role, pod: &PodName) -> wire::Node {
    wire::Node {
        role: role.into(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node_name: pod.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
