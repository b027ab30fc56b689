//! A source of resources in this process, beside the link to a control plane: the same resources, the same answer.
//!
//! What is given is enforced whole, in one swap, or refused whole with a reason for each resource that cannot be. There
//! is no ledger: it compares the two ends of a wire, and here is none.

use std::sync::atomic::AtomicU64;

use meshgate_api::push as wire;
use meshgate_proxy::metrics::Metrics;
use meshgate_proxy::push::resource::Changes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, oneshot};

use crate::tables::Tables;

/// The end that gives.
#[derive(Debug, Clone)]
pub struct Giver {
    orders: mpsc::Sender<Order>,
    stale: Gauge,
}

/// The end that an edge takes from.
#[derive(Debug)]
pub struct Given {
    orders: mpsc::Receiver<Order>,
    stale: Gauge,
}

#[derive(Debug)]
struct Order {
    changes: Changes,
    answer: oneshot::Sender<Result<(), Vec<wire::Refusal>>>,
}

/// Why changes are not in force.
#[derive(Debug, thiserror::Error)]
pub enum NotEnforced {
    /// Some resources are refused, and all that came with them.
    #[error("{} resources are refused", .0.len())]
    Refused(Vec<wire::Refusal>),
    /// The edge has ended.
    #[error("the edge has ended")]
    Ended,
}

/// Both ends.
pub fn given() -> (Giver, Given) {
    // One at a time: whoever gives waits for the answer.
    let (sender, receiver) = mpsc::channel(1);
    let stale = Gauge::default();
    let giver = Giver {
        orders: sender,
        stale: stale.clone(),
    };
    let given = Given {
        orders: receiver,
        stale,
    };
    (giver, given)
}

impl Giver {
    /// Says in the metrics whether there is something newer that cannot be in force.
    pub fn tell_stale(&self, stale: bool) {
        self.stale.set(i64::from(stale));
    }

    /// Returns when `changes` are true for every request from now on, or refused.
    pub async fn give(&self, changes: Changes) -> Result<(), NotEnforced> {
        let (answer, answered) = oneshot::channel();
        let order = Order { changes, answer };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| NotEnforced::Ended)?;
        match answered.await {
            Ok(answer) => answer.map_err(NotEnforced::Refused),
            Err(_) => Err(NotEnforced::Ended),
        }
    }
}

impl Given {
    /// Enforces what is given, and calls `configured` after the first time.
    pub(crate) async fn follow(
        mut self,
        mut tables: Tables,
        metrics: &Metrics,
        configured: impl FnOnce(),
    ) {
        let counts = Counts::register(metrics, self.stale);
        let mut configured = Some(configured);
        while let Some(Order { changes, answer }) = self.orders.recv().await {
            let generation = changes.generation;
            let enforced = tables.enforce_whole(changes);
            match &enforced {
                Ok(()) => {
                    counts.generation.set(generation);
                    if let Some(configured) = configured.take() {
                        configured();
                    }
                }
                Err(refusals) => drop(counts.refused.inc_by(refusals.len() as u64)),
            }
            // Whoever gave it may have gone; it is in force all the same.
            let _ = answer.send(enforced);
        }
    }
}

/// Series of a given configuration.
#[derive(Debug, Default)]
struct Counts {
    generation: Gauge<u64, AtomicU64>,
    refused: Counter,
}

impl Counts {
    fn register(metrics: &Metrics, stale: Gauge) -> Self {
        let own = Self::default();
        metrics.register(|registry| {
            registry.register(
                "meshgate_configuration_generation",
                "The newest generation of the configuration that is enforced",
                own.generation.clone(),
            );
            registry.register(
                "meshgate_configuration_stale",
                "1 while the newest configuration is refused and the last good one stays",
                stale,
            );
            registry.register(
                "meshgate_configuration_resources_refused",
                "Resources refused; the last good configuration stays",
                own.refused.clone(),
            );
        });
        own
    }
}
