//! The push service: one task a stream, each reading the table at its own pace.

pub(crate) mod replicas;
pub(crate) mod stream;
mod subscription;
#[cfg(test)]
pub(crate) mod tests;
mod viewer;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::Stream;
use meshgate_api::push::{
    DeltaRequest, DeltaResponse, MESSAGE_BYTES_MAX,
    push_server::{Push, PushServer},
};
use meshgate_certs::identity::SpiffeId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use crate::{metrics::Metrics, server::Peer, table::Table};
use replicas::Replicas;
use stream::StreamState;
use viewer::{Refused, Viewer};

/// What all streams share.
#[derive(Clone)]
pub(crate) struct PushService {
    pub(crate) table: Arc<Table>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) metrics: Metrics,
    /// True once everything was listed: what is not in the table by then does not exist.
    pub(crate) ready: watch::Receiver<bool>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

#[tonic::async_trait]
impl Push for PushService {
    type DeltaStream = Pin<Box<dyn Stream<Item = Result<DeltaResponse, Status>> + Send>>;

    async fn delta(
        &self,
        request: Request<Streaming<DeltaRequest>>,
    ) -> Result<Response<Self::DeltaStream>, Status> {
        let identity = peer_identity(&request)?;
        // One response is on its way and one in the making: a reader that is slower sees newer ones instead of more.
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        let requests = request.into_inner();
        self.tasks.spawn(async move {
            let shutdown = service.shutdown.clone();
            let failures = sender.clone();
            let end = shutdown
                .run_until_cancelled(service.serve(identity, requests, sender))
                .await;
            let status = match end {
                Some(Ok(())) => return,
                Some(Err(status)) => status,
                None => Status::unavailable("the control plane is shutting down"),
            };
            // A reader that takes nothing any more sees the connection end instead.
            let _ = failures.try_send(Err(status));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl PushService {
    /// As a gRPC server takes it.
    pub(crate) fn server(self) -> PushServer<Self> {
        PushServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Serves one stream until either side ends it.
    async fn serve(
        mut self,
        identity: SpiffeId,
        mut requests: Streaming<DeltaRequest>,
        responses: mpsc::Sender<Result<DeltaResponse, Status>>,
    ) -> Result<(), Status> {
        let Some(first) = requests.message().await? else {
            return Ok(());
        };
        let viewer = Viewer::new(first.node.as_ref(), &identity)
            .map_err(|refused| self.refuse(&identity, &refused))?;
        let mut generation = self.table.subscribe();
        // Before that, an empty answer could mean "not listed yet", and a proxy would drop what it has.
        if self.ready.wait_for(|ready| *ready).await.is_err() {
            return Ok(());
        }
        let state = Arc::new(Mutex::new(StreamState::new(viewer)));
        let registered = self.replicas.register(state.clone());
        self.take(&state, first, &identity)?;
        let mut work = true;
        loop {
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => {
                        self.take(&state, request, &identity)?;
                        work = true;
                    }
                    None => break,
                },
                changed = generation.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    work = true;
                }
                permit = responses.reserve(), if work => {
                    let Ok(permit) = permit else { break };
                    generation.mark_unchanged();
                    match lock(&state).respond(&self.table.read()) {
                        Some(response) => {
                            self.metrics.sent(&response);
                            permit.send(Ok(response));
                        }
                        None => {
                            work = false;
                            self.replicas.progressed();
                        }
                    }
                }
            }
        }
        drop(registered);
        Ok(())
    }

    fn take(
        &self,
        state: &Mutex<StreamState>,
        request: DeltaRequest,
        identity: &SpiffeId,
    ) -> Result<(), Status> {
        let refusals = request.refusals.clone();
        let taken = lock(state).request(request, &self.table.read());
        let answered = taken.map_err(|refused| self.refuse(identity, &refused))?;
        if answered {
            self.metrics.answered(refusals.is_empty());
            self.replicas.progressed();
        }
        for refusal in refusals {
            tracing::warn!(%identity, resource = refusal.resource, reason = refusal.reason, "a proxy refused a resource and keeps the last good one");
        }
        Ok(())
    }

    fn refuse(&self, identity: &SpiffeId, refused: &Refused) -> Status {
        tracing::warn!(%identity, %refused, "push stream refused");
        let message = refused.to_string();
        match refused {
            Refused::NoNode | Refused::UnknownType { .. } | Refused::Wildcard => {
                Status::invalid_argument(message)
            }
            Refused::TooMany => Status::resource_exhausted(message),
            Refused::NotTheEdge { .. }
            | Refused::OtherNamespace { .. }
            | Refused::NotVisible { .. } => Status::permission_denied(message),
        }
    }
}

/// The workload at the other end of a request's connection.
pub(crate) fn peer_identity<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let peer = request.extensions().get::<Peer>();
    let identity = peer.and_then(|peer| peer.identity.clone());
    identity
        .ok_or_else(|| Status::unauthenticated("a workload certificate of this mesh is required"))
}

/// A panic elsewhere does not make the state wrong: each method leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
