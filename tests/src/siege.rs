//! A siege: many clients that do what a server must bear at once, each until the server lets go of it, and then again.
//!
//! Every kind of attack has source addresses of its own (127.10.0.1 and up), as many as keep each below what an edge usually
//! allows one client: it is the sum that has to be borne. All of it runs on one thread.

mod attack;
mod frames;
mod slow;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustls::ClientConfig;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub use attack::Attack;

use crate::tls;

/// Whom it is laid to.
#[derive(Debug, Clone)]
pub struct Target {
    /// HTTP in the clear, both versions.
    pub http: SocketAddr,
    /// HTTPS.
    pub https: SocketAddr,
    /// A host that both know.
    pub host: String,
    /// A path of an answer larger than the buffers between.
    pub large: String,
}

/// How many connections of each kind there are at any time.
pub type Force = BTreeMap<Attack, usize>;

/// What came of one kind of attack so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that were made.
    pub opened: usize,
    /// Those that could not be made.
    pub failed: usize,
    /// Those that the server closed.
    pub closed: usize,
    /// Those that stand where they should, such as an idle one that was answered once.
    pub standing: usize,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicUsize,
    failed: AtomicUsize,
    closed: AtomicUsize,
    standing: AtomicUsize,
}

/// A siege that goes on until it is lifted.
#[derive(Debug)]
pub struct Siege {
    counts: BTreeMap<Attack, Arc<Counts>>,
    lift: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Siege {
    /// Begins.
    pub fn lay(target: &Target, force: &Force) -> Siege {
        let counts: BTreeMap<Attack, Arc<Counts>> =
            force.keys().map(|kind| (*kind, Arc::default())).collect();
        let ground = Arc::new(Ground {
            target: target.clone(),
            http1: tls::client("http/1.1"),
            http2: tls::client("h2"),
        });
        let fronts: Vec<(Front, usize)> = force
            .iter()
            .map(|(kind, count)| {
                let front = Front {
                    attack: *kind,
                    ground: ground.clone(),
                    counts: counts[kind].clone(),
                };
                (front, *count)
            })
            .collect();
        let (lift, lifted) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let mut attackers = JoinSet::new();
                for (front, count) in fronts {
                    for number in 0..count {
                        attackers.spawn(front.clone().attack(number));
                    }
                }
                // Whoever drops it lifts it as well.
                let _ = lifted.await;
            });
        });
        Siege {
            counts,
            lift,
            thread,
        }
    }

    /// What came of one kind so far.
    pub fn tally(&self, kind: Attack) -> Tally {
        self.counts
            .get(&kind)
            .map_or_else(Tally::default, |counts| counts.tally())
    }

    /// Ends it: all connections are closed when this returns. What came of it.
    pub fn lift(self) -> BTreeMap<Attack, Tally> {
        drop(self.lift);
        self.thread.join().expect("attackers do not panic");
        let each = self.counts.iter();
        each.map(|(kind, counts)| (*kind, counts.tally())).collect()
    }
}

impl Counts {
    fn tally(&self) -> Tally {
        let [opened, failed, closed, standing] =
            [&self.opened, &self.failed, &self.closed, &self.standing]
                .map(|count| count.load(Ordering::Relaxed));
        Tally {
            opened,
            failed,
            closed,
            standing,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} opened, {} failed, {} closed by the server",
            self.opened, self.failed, self.closed
        )
    }
}

/// What all attackers need.
#[derive(Debug)]
struct Ground {
    target: Target,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// The attackers of one kind.
#[derive(Debug, Clone)]
struct Front {
    attack: Attack,
    ground: Arc<Ground>,
    counts: Arc<Counts>,
}

/// An attacker that stands; no more when dropped.
struct Stands<'a>(&'a AtomicUsize);

impl<'a> Stands<'a> {
    fn at(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Stands(count)
    }
}

impl Drop for Stands<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
