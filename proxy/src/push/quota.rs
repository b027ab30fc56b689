//! Leases of global rate limits: one stream to their owner, demands batched, never a round trip for each request.

use std::time::Duration;

use meshgate_api::push as wire;
use meshgate_routing::permit::lease::{Demand, Grant, Use};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::dial::{ControlPlane, DialError};
use super::identity::{WorkloadIdentity, first};
use super::report::Chain;
use crate::clock;
use crate::limits::Quota;

/// Messages that may wait for the owner to read them.
const MESSAGES_MAX: usize = 64;
/// An owner that neither reads nor answers for this long is as good as gone.
const READS_WITHIN: Duration = Duration::from_secs(1);
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));

/// Keeps the leases of `quota` fresh until `shutdown`. `replica` is who asks: the pod's UID, stable over reconnects.
pub(super) async fn run(
    control: ControlPlane,
    quota: Quota,
    replica: String,
    mut identity: watch::Receiver<Option<WorkloadIdentity>>,
    shutdown: CancellationToken,
) {
    let keep = async {
        let Some(identity) = first(&mut identity).await else {
            return;
        };
        let mut backoff = RECONNECT;
        loop {
            let end = match lease(&control, &quota, &replica, &identity, &mut backoff).await {
                Err(end) => end,
                Ok(never) => match never {},
            };
            quota.lost(clock::now());
            let wait = backoff.failed(rand::random());
            warn!(reason = %Chain(&end), retry_ms = wait.as_millis(), "quota stream ended; global limits follow their failure mode");
            tokio::time::sleep(wait).await;
        }
    };
    shutdown.run_until_cancelled(keep).await;
}

/// One stream from its opening to its end.
async fn lease(
    control: &ControlPlane,
    quota: &Quota,
    replica: &str,
    identity: &WorkloadIdentity,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, StreamEnd> {
    let channel = control
        .dial(Some(&identity.credential))
        .await
        .map_err(StreamEnd::Dial)?;
    let (messages, outgoing) = mpsc::channel(MESSAGES_MAX);
    let mut grants = wire::quota_client::QuotaClient::new(channel)
        .lease(ReceiverStream::new(outgoing))
        .await
        .map_err(StreamEnd::Status)?
        .into_inner();
    info!("quota stream open");
    quota.connected(clock::now());
    let mut introduced = false;
    loop {
        tokio::select! {
            answer = grants.message() => {
                let answer = answer.map_err(StreamEnd::Status)?.ok_or(StreamEnd::Closed)?;
                // Not when the stream opens: an owner that cannot bear what we tell would hear it over and over.
                backoff.succeeded();
                let grants: Vec<Grant> = answer.grants.into_iter().map(grant).collect();
                quota.granted(clock::now(), &grants);
            }
            room = room(quota, &messages) => {
                let room = room?;
                let demands = quota.demands(clock::now());
                if demands.is_empty() {
                    continue;
                }
                let message = wire::LeaseRequest {
                    demands: demands.into_iter().map(demand).collect(),
                    replica: if introduced { String::new() } else { replica.to_owned() },
                };
                introduced = true;
                room.send(message);
            }
        }
    }
}

/// Returns when there is something to tell the owner, and room to do so.
async fn room<'a>(
    quota: &Quota,
    messages: &'a mpsc::Sender<wire::LeaseRequest>,
) -> Result<mpsc::Permit<'a, wire::LeaseRequest>, StreamEnd> {
    quota.wanted().await;
    tokio::time::timeout(READS_WITHIN, messages.reserve())
        .await
        .map_err(|_| StreamEnd::OwnerDoesNotRead)?
        .map_err(|_| StreamEnd::Closed)
}

fn demand(demand: Demand) -> wire::Demand {
    wire::Demand {
        limit: demand.limit.to_string(),
        key: demand.key.to_string(),
        seen: demand.seen,
        want: demand.want,
        returned: demand.returned,
        used: demand.used.into_iter().map(used).collect(),
        whole: demand.whole,
    }
}

fn used(used: Use) -> wire::Use {
    wire::Use {
        age_us: u64::try_from(used.age.as_micros()).unwrap_or(u64::MAX),
        count: used.count,
    }
}

fn grant(wire: wire::Grant) -> Grant {
    Grant {
        limit: wire.limit.into(),
        key: wire.key.into(),
        tokens: wire.tokens,
        valid: Duration::from_millis(u64::from(wire.valid_ms)),
        retry_after: Duration::from_millis(u64::from(wire.retry_after_ms)),
    }
}

/// Why a quota stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("cannot reach the control plane")]
    Dial(#[source] DialError),
    #[error("the owner ended the stream: {} ({})", .0.message(), .0.code())]
    Status(tonic::Status),
    #[error("the owner closed the stream")]
    Closed,
    #[error("the owner does not read our demands")]
    OwnerDoesNotRead,
}
