//! Global rate limits: one task owns all quotas, replicas lease slices of them.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::Stream;
use meshgate_api::{
    names,
    push::{self, LeaseRequest, LeaseResponse, quota_server::Quota, rate_limit::Scope},
};
use meshgate_routing::{
    Time,
    permit::{
        Rate,
        lease::{Demand, Grant, Use},
        owner::{QuotaOwner, QuotaTerms, ReplicaId},
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    compile::{Body, Key, Update},
    metrics::Metrics,
    server::Peer,
    xds::peer_identity,
};

/// Messages that may wait for the owner; a replica that sends faster waits.
const QUEUE: usize = 1024;
/// Answers that may wait for a replica to read them. More are dropped: their tokens then expire unused.
const ANSWERS_MAX: usize = 256;
/// Demands in one message.
const DEMANDS_MAX: usize = 4096;
/// Grants in one message, of which a replica takes at most 4 MiB. Many buckets may be served at the same moment.
const GRANTS_MAX: usize = 1024;

/// The stream of each replica, and where its answers go.
type Streams = HashMap<ReplicaId, (u64, mpsc::Sender<Result<LeaseResponse, Status>>)>;

/// What the owner is told.
enum Message {
    Limits(Vec<(String, Option<QuotaTerms>)>),
    Opened(ReplicaId, u64, mpsc::Sender<Result<LeaseResponse, Status>>),
    Demands(ReplicaId, Vec<Demand>),
    Closed(ReplicaId, u64),
}

/// The owner's face to the rest of the process.
#[derive(Clone)]
pub(crate) struct QuotaService {
    messages: mpsc::Sender<Message>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    next_stream: Arc<std::sync::atomic::AtomicU64>,
}

impl QuotaService {
    /// The service, and the owner that somebody must run.
    pub(crate) fn new(
        metrics: Metrics,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (messages, receiver) = mpsc::channel(QUEUE);
        let service = Self {
            messages,
            tasks,
            shutdown,
            next_stream: Arc::default(),
        };
        (service, own(receiver, metrics))
    }

    /// Limits that came, changed or went; takes effect before any demand that follows.
    pub(crate) async fn set_limits(&self, limits: Vec<(String, Option<QuotaTerms>)>) {
        if !limits.is_empty() {
            // The owner lives as long as the process.
            let _ = self.messages.send(Message::Limits(limits)).await;
        }
    }
}

#[tonic::async_trait]
impl Quota for QuotaService {
    type LeaseStream = Pin<Box<dyn Stream<Item = Result<LeaseResponse, Status>> + Send>>;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        let identity = peer_identity(&request)?;
        if (identity.namespace(), identity.service_account())
            != (names::SYSTEM_NAMESPACE, names::EDGE)
        {
            return Err(Status::permission_denied("only the edge leases quotas"));
        }
        let address = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.address.ip().to_string());
        let requests = request.into_inner();
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let service = self.clone();
        self.tasks.spawn(async move {
            let shutdown = service.shutdown.clone();
            let serve = service.serve(address.unwrap_or_default(), requests, answers);
            if let Some(Err(status)) = shutdown.run_until_cancelled(serve).await {
                tracing::debug!(reason = status.message(), "quota stream ended");
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl QuotaService {
    async fn serve(
        &self,
        address: String,
        mut requests: Streaming<LeaseRequest>,
        answers: mpsc::Sender<Result<LeaseResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(mut request) = requests.message().await? else {
            return Ok(());
        };
        let replica: ReplicaId = match request.replica.as_str() {
            "" => address.into(),
            replica => replica.into(),
        };
        let stream = self
            .next_stream
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.tell(Message::Opened(replica.clone(), stream, answers))
            .await?;
        let end = loop {
            if request.demands.len() > DEMANDS_MAX {
                break Err(Status::resource_exhausted(format!(
                    "more than {DEMANDS_MAX} demands in a message"
                )));
            }
            let demands = std::mem::take(&mut request.demands)
                .into_iter()
                .map(demand)
                .collect();
            self.tell(Message::Demands(replica.clone(), demands))
                .await?;
            match requests.message().await {
                Ok(Some(next)) => request = next,
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        self.tell(Message::Closed(replica, stream)).await?;
        end
    }

    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.messages
            .send(message)
            .await
            .map_err(|_| Status::unavailable("shutting down"))
    }
}

/// The task that owns all quotas: time goes in here, decisions are made in [`QuotaOwner`].
async fn own(mut messages: mpsc::Receiver<Message>, metrics: Metrics) {
    let origin = Instant::now();
    let now = || Time::since_origin(origin.elapsed());
    let mut owner = QuotaOwner::new(now());
    let mut streams: Streams = HashMap::new();
    loop {
        let due = owner.next_due().map(|due| due.since(now()));
        let message = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => Some(message),
                None => return,
            },
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => None,
        };
        let grants = match message {
            None => owner.serve_due(now()),
            Some(Message::Demands(replica, demands)) => {
                let at = now();
                demands
                    .iter()
                    .flat_map(|demand| owner.demand(at, &replica, demand))
                    .collect()
            }
            Some(Message::Limits(limits)) => {
                for (id, terms) in limits {
                    match terms {
                        Some(terms) => owner.set_limit(&id, terms, now()),
                        None => owner.remove_limit(&id),
                    }
                }
                Vec::new()
            }
            Some(Message::Opened(replica, stream, answers)) => {
                streams.insert(replica, (stream, answers));
                Vec::new()
            }
            Some(Message::Closed(replica, stream)) => {
                // It may have connected anew before the old stream's end was seen.
                if streams
                    .get(&replica)
                    .is_some_and(|(current, _)| *current == stream)
                {
                    streams.remove(&replica);
                    owner.disconnected(&replica);
                }
                Vec::new()
            }
        };
        metrics
            .quota_streams
            .set(i64::try_from(streams.len()).unwrap_or(i64::MAX));
        send(grants, &streams, &metrics);
    }
}

fn send(granted: Vec<(ReplicaId, Grant)>, streams: &Streams, metrics: &Metrics) {
    let mut by_replica: BTreeMap<ReplicaId, Vec<push::Grant>> = BTreeMap::new();
    for (replica, granted) in granted {
        metrics.quota_granted.inc_by(granted.tokens);
        by_replica.entry(replica).or_default().push(grant(&granted));
    }
    for (replica, grants) in by_replica {
        let Some((_, answers)) = streams.get(&replica) else {
            continue;
        };
        for part in grants.chunks(GRANTS_MAX) {
            let grants = part.to_vec();
            if answers.try_send(Ok(LeaseResponse { grants })).is_err() {
                tracing::debug!(
                    replica = &*replica,
                    "a replica does not read its grants: they expire"
                );
            }
        }
    }
}

fn demand(demand: push::Demand) -> Demand {
    let used = demand.used.iter().map(|used| Use {
        age: Duration::from_micros(used.age_us),
        count: used.count,
    });
    Demand {
        used: used.collect(),
        limit: demand.limit.into(),
        key: demand.key.into(),
        seen: demand.seen,
        want: demand.want,
        returned: demand.returned,
        whole: demand.whole,
    }
}

fn grant(grant: &Grant) -> push::Grant {
    let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    push::Grant {
        limit: grant.limit.to_string(),
        key: grant.key.to_string(),
        tokens: grant.tokens,
        // Down: a token must not live longer than the owner counts it. Up: asking earlier is in vain.
        valid_ms: ms(grant.valid),
        retry_after_ms: ms(grant.retry_after + Duration::from_micros(999)),
    }
}

/// Which global limits the compiled hosts have.
#[derive(Debug, Default)]
pub(crate) struct LimitBook {
    by_host: HashMap<Key, BTreeMap<String, QuotaTerms>>,
    /// How many hosts have a limit.
    uses: HashMap<String, (usize, QuotaTerms)>,
}

impl LimitBook {
    /// What an update means to the owner.
    pub(crate) fn update(&mut self, update: &Update) -> Vec<(String, Option<QuotaTerms>)> {
        let mut changed = Vec::new();
        for (key, body) in &update.resources {
            let limits = match body {
                Some(Body::EdgeHost(host)) => global_limits(host),
                _ => BTreeMap::new(),
            };
            let before = match limits.is_empty() {
                true => self.by_host.remove(key),
                false => self.by_host.insert(key.clone(), limits.clone()),
            };
            for (id, terms) in limits {
                let entry = self.uses.entry(id.clone()).or_insert((0, terms));
                if entry.0 == 0 || entry.1 != terms {
                    changed.push((id, Some(terms)));
                }
                *entry = (entry.0 + 1, terms);
            }
            for id in before.into_iter().flat_map(BTreeMap::into_keys) {
                if let Some((uses, _)) = self.uses.get_mut(&id) {
                    *uses -= 1;
                    if *uses == 0 {
                        self.uses.remove(&id);
                        changed.push((id, None));
                    }
                }
            }
        }
        changed
    }
}

fn global_limits(host: &push::EdgeHost) -> BTreeMap<String, QuotaTerms> {
    let limits = host.rules.iter().flat_map(|rule| &rule.rate_limits);
    limits
        .filter(|limit| limit.scope() == Scope::Global)
        .map(|limit| {
            let per = limit
                .per
                .and_then(|per| Duration::try_from(per).ok())
                .unwrap_or(Duration::from_secs(1));
            let terms = QuotaTerms {
                rate: Rate::new(limit.requests, per, limit.burst),
                replicas: limit.replicas,
            };
            (limit.id.clone(), terms)
        })
        .collect()
}
