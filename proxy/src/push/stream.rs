//! The push stream: subscribe, enforce, acknowledge; again after every break, with what is held already.
//!
//! The order that matters: a response is *enforced* (one swap, true for every request from then on) before it is
//! acknowledged, and what cannot be enforced is refused by name while everything else applies. When the stream breaks
//! nothing is taken back: the last good configuration serves on for as long as the process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::{FutureExt as _, TryFutureExt as _};
use meshgate_api::push as wire;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::dial::{ControlPlane, DialError};
use super::identity::{WorkloadIdentity, first};
use super::ledger::{Agreement, Ledger};
use super::metrics::ControlMetrics;
use super::report::Chain;
use super::resource::{Body, Changes, Kind};

/// Requests that may wait for the control plane to read them; more means that it does not.
const REQUESTS_MAX: usize = 256;
/// Subscriptions taken up together into one request.
const INTERESTS_PER_REQUEST: usize = 256;
/// Between attempts: quick at first (a restarted control plane is back at once), then patient.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
/// Longest text of one refusal.
const REASON_BYTES_MAX: usize = 1024;

/// What a proxy does with what is pushed to it.
pub trait Enforce: Send + 'static {
    /// Makes `changes` true for every request from now on, in one swap. Resources that cannot be are refused by name;
    /// their last good versions stay, unless that would let through what was to be refused: it is closed then.
    fn enforce(&mut self, changes: Changes) -> Vec<wire::Refusal>;
}

/// A change of what this proxy wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Subscribe.
    Want(Kind, String),
    /// No longer.
    Unwant(Kind, String),
}

/// What taking a response leads to.
struct Taken {
    /// Its acknowledgement: what was enforced stays so, whether or not both ends agree.
    answer: wire::DeltaRequest,
    agreed: Result<(), StreamEnd>,
}

/// How far this proxy follows its control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// A stream is open and has answered.
    pub connected: bool,
    /// Every type subscribed at the start has been answered and enforced once.
    pub initial: bool,
    /// The newest generation that is enforced.
    pub generation: u64,
    /// Resources refused so far.
    pub refused: u64,
    /// Streams opened so far.
    pub streams: u64,
}

/// The client of the push stream.
#[derive(Debug)]
pub struct PushClient<E> {
    control: ControlPlane,
    node: wire::Node,
    ledgers: BTreeMap<Kind, Ledger>,
    /// Types not answered yet since the process started.
    unanswered: BTreeSet<Kind>,
    enforce: E,
    interests: mpsc::Receiver<Interest>,
    progress: watch::Sender<Progress>,
    metrics: ControlMetrics,
}

impl<E: Enforce> PushClient<E> {
    /// A client that subscribes to `initial` and then to what comes through `interests`.
    pub(super) fn new(
        control: ControlPlane,
        node: wire::Node,
        initial: impl IntoIterator<Item = (Kind, Vec<String>)>,
        enforce: E,
        interests: mpsc::Receiver<Interest>,
        progress: watch::Sender<Progress>,
        metrics: ControlMetrics,
    ) -> Self {
        let ledgers: BTreeMap<Kind, Ledger> = initial
            .into_iter()
            .map(|(kind, wanted)| (kind, Ledger::new(kind, wanted)))
            .collect();
        Self {
            control,
            node,
            unanswered: ledgers
                .iter()
                .filter(|(_, ledger)| ledger.wants_any())
                .map(|(kind, _)| *kind)
                .collect(),
            ledgers,
            enforce,
            interests,
            progress,
            metrics,
        }
    }

    /// Follows the control plane until `shutdown`.
    pub async fn run(
        mut self,
        mut identity: watch::Receiver<Option<WorkloadIdentity>>,
        shutdown: CancellationToken,
    ) {
        let follow = async {
            let Some(identity) = first(&mut identity).await else {
                return;
            };
            let mut backoff = RECONNECT;
            loop {
                let end = self.stream(&identity, &mut backoff).await;
                self.progressed(|progress| progress.connected = false);
                let wait = backoff.failed(rand::random());
                warn!(reason = %Chain(&end), retry_ms = wait.as_millis(), "push stream ended; serving the last good configuration");
                // What comes meanwhile is in the next opening requests.
                let waited = tokio::time::sleep(wait).map(Ok::<_, Infallible>);
                let Ok(()) = self.meanwhile(waited, |_| Ok(())).await;
            }
        };
        shutdown.run_until_cancelled(follow).await;
    }

    /// One stream from its opening to its end.
    async fn stream(&mut self, identity: &WorkloadIdentity, backoff: &mut Backoff) -> StreamEnd {
        match self.try_stream(identity, backoff).await {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    async fn try_stream(
        &mut self,
        identity: &WorkloadIdentity,
        backoff: &mut Backoff,
    ) -> Result<Infallible, StreamEnd> {
        let control = self.control.clone();
        let dial = control.dial(Some(&identity.credential));
        let channel = self
            .meanwhile(dial.map_err(StreamEnd::Dial), |_| Ok(()))
            .await?;
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        for ledger in self.ledgers.values_mut().filter(|l| l.wants_any()) {
            let mut opening = ledger.opening();
            opening.node = Some(self.node.clone());
            send(&requests, opening)?;
        }
        let mut client = wire::push_client::PushClient::new(channel)
            .max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
        let open = client.delta(ReceiverStream::new(outgoing));
        let responses = self.meanwhile(open.map_err(StreamEnd::Status), |request| {
            send(&requests, request)
        });
        let mut responses = responses.await?.into_inner();
        self.progressed(|progress| progress.streams += 1);
        let mut interests = Vec::new();
        loop {
            tokio::select! {
                response = responses.message() => {
                    let response = response.map_err(StreamEnd::Status)?.ok_or(StreamEnd::Closed)?;
                    let taken = self.take(response)?;
                    send(&requests, taken.answer)?;
                    taken.agreed?;
                    backoff.succeeded();
                }
                count = self.interests.recv_many(&mut interests, INTERESTS_PER_REQUEST) => {
                    if count == 0 {
                        return Err(StreamEnd::Unneeded);
                    }
                    for request in self.note(interests.drain(..)) {
                        send(&requests, request)?;
                    }
                }
            }
        }
    }

    /// Enforces one response.
    fn take(&mut self, response: wire::DeltaResponse) -> Result<Taken, StreamEnd> {
        let began = Instant::now();
        let kind = Kind::of_type_url(&response.type_url)
            .ok_or_else(|| StreamEnd::UnknownType(response.type_url.clone()))?;
        let ledger = self
            .ledgers
            .get_mut(&kind)
            .ok_or_else(|| StreamEnd::UnknownType(response.type_url.clone()))?;
        let taken = ledger.take(&response);
        if taken.agreement == Agreement::Differs {
            ledger.doubt();
        }
        let mut refusals = Vec::new();
        let mut changes = Changes {
            generation: response.generation,
            updated: Vec::new(),
            removed: taken.removed.into_iter().map(|n| (kind, n)).collect(),
        };
        for resource in response.resources {
            match Body::decode(kind, resource.body.as_ref()) {
                Ok(body) => changes.updated.push((resource.name, body)),
                Err(unreadable) => refusals.push(wire::Refusal {
                    resource: resource.name,
                    reason: unreadable.to_string(),
                }),
            }
        }
        let (updated, removed) = (changes.updated.len(), changes.removed.len());
        if !changes.is_empty() {
            refusals.extend(self.enforce.enforce(changes));
        }
        for refusal in &mut refusals {
            refusal
                .reason
                .truncate(refusal.reason.floor_char_boundary(REASON_BYTES_MAX));
            warn!(resource = %refusal.resource, reason = %refusal.reason, "configuration refused; the last good one stays, or what it is about is closed");
        }
        ledger.refuse(refusals.iter().map(|refusal| refusal.resource.clone()));
        if taken.agreement != Agreement::Open {
            self.unanswered.remove(&kind);
        }
        let generation = self.note_progress(response.generation, refusals.len());
        debug!(
            ?kind,
            updated,
            removed,
            generation,
            micros = began.elapsed().as_micros(),
            "configuration enforced"
        );
        let answer = wire::DeltaRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            refusals,
            enforced_generation: generation,
            ..wire::DeltaRequest::default()
        };
        let agreed = match taken.agreement {
            Agreement::Differs => Err(StreamEnd::OutOfSync(kind)),
            Agreement::Agreed | Agreement::Open => Ok(()),
        };
        Ok(Taken { answer, agreed })
    }

    /// Publishes what is enforced now; returns its generation.
    fn note_progress(&self, generation: u64, refused: usize) -> u64 {
        let initial = self.unanswered.is_empty();
        let mut enforced = generation;
        self.progressed(|progress| {
            if initial && !progress.initial {
                info!(generation, "initial configuration enforced");
            }
            progress.connected = true;
            progress.initial = initial;
            progress.generation = progress.generation.max(generation);
            progress.refused += refused as u64;
            enforced = progress.generation;
        });
        enforced
    }

    fn progressed(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(|progress| {
            let before = *progress;
            change(progress);
            self.metrics.progressed(&before, progress);
        });
    }

    /// Takes up changes of interest; returns the requests that tell the control plane.
    fn note(&mut self, interests: impl Iterator<Item = Interest>) -> Vec<wire::DeltaRequest> {
        let mut wanted: BTreeMap<Kind, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for interest in interests {
            match interest {
                Interest::Want(kind, name) => wanted.entry(kind).or_default().0.push(name),
                Interest::Unwant(kind, name) => wanted.entry(kind).or_default().1.push(name),
            }
        }
        let mut requests = Vec::new();
        for (kind, (want, unwant)) in wanted {
            let ledger = self
                .ledgers
                .entry(kind)
                .or_insert_with(|| Ledger::new(kind, []));
            requests.extend(ledger.unwant(unwant));
            requests.extend(ledger.want(want));
        }
        requests
    }

    /// Does `work`, and takes up the changes of interest that come meanwhile: whoever has them does not wait for us.
    async fn meanwhile<T, F>(
        &mut self,
        work: impl Future<Output = Result<T, F>>,
        mut tell: impl FnMut(wire::DeltaRequest) -> Result<(), F>,
    ) -> Result<T, F> {
        let mut work = pin!(work);
        let mut interests = Vec::new();
        loop {
            let noting = self
                .interests
                .recv_many(&mut interests, INTERESTS_PER_REQUEST);
            tokio::select! {
                done = &mut work => return done,
                count = noting => if count == 0 {
                    return work.await;
                }
            }
            for request in self.note(interests.drain(..)) {
                tell(request)?;
            }
        }
    }
}

fn send(
    requests: &mpsc::Sender<wire::DeltaRequest>,
    request: wire::DeltaRequest,
) -> Result<(), StreamEnd> {
    requests
        .try_send(request)
        .map_err(|_| StreamEnd::ControlDoesNotRead)
}

/// Why a push stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot reach the control plane")]
    Dial(#[source] DialError),
    #[error("the control plane ended the stream: {} ({})", .0.message(), .0.code())]
    Status(tonic::Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("the control plane does not read our requests")]
    ControlDoesNotRead,
    #[error("the control plane sent a type that was not asked for: {0:?}")]
    UnknownType(String),
    #[error(
        "what is held of {0:?} differs from what the control plane sent; asking for everything"
    )]
    OutOfSync(Kind),
    #[error("nobody needs the configuration any more")]
    Unneeded,
}
