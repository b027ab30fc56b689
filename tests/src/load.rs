//! A steady load of requests from a few connections, counted: HTTP/1.1 in the clear, and both versions of HTTP over TLS.

mod http1;
mod http2;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An answer that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    /// ADDR:PORT.
    pub address: String,
    /// Host header, and the server's name in TLS.
    pub host: String,
    /// Path.
    pub path: String,
    /// Requests a second, over all connections.
    pub rate: u32,
    /// Connections, each asking one request at a time.
    pub connections: u32,
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/1.1 over TLS.
    Https1,
    /// HTTP/2 over TLS.
    Https2,
}

/// How long a connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As long as the server keeps it.
    Kept,
    /// For one request.
    Fresh,
}

/// How one of the load's clients asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way(pub Protocol, pub Life);

/// When a connection was opened, and what the server showed then.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Before its first byte; since the load began.
    pub at: Duration,
    /// Serial number of the certificate as [`crate::tls::serial`] writes it; none in the clear.
    pub serial: Option<String>,
}

/// One request: when it was answered, and the status; 0 when there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Since the load began.
    pub at: Duration,
    /// HTTP status, or 0.
    pub status: u16,
    /// What went wrong, or the reason a proxy gave.
    pub detail: String,
    /// How it was asked.
    pub way: Way,
    /// The connection it came on; none without an answer.
    pub opened: Option<Arc<Opened>>,
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    workers: Vec<JoinHandle<Vec<Answer>>>,
    began: Instant,
}

impl Load {
    /// Begins, with HTTP/1.1 in the clear on connections that are kept.
    pub fn start(plan: &Plan) -> Load {
        Load::mixed(plan, &[Way(Protocol::Http1, Life::Kept)])
    }

    /// Begins, with each protocol on connections that are kept and on fresh ones.
    pub fn of_both_lives(plan: &Plan, protocols: &[Protocol]) -> Load {
        let lives = [Life::Kept, Life::Fresh];
        let ways = protocols
            .iter()
            .flat_map(|protocol| lives.map(|life| Way(*protocol, life)));
        Load::mixed(plan, &ways.collect::<Vec<_>>())
    }

    /// Begins; each way gets the same share of the connections, and so of the requests.
    pub fn mixed(plan: &Plan, ways: &[Way]) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        let pace = Duration::from_secs(1) * plan.connections / plan.rate;
        let ways = ways.iter().cycle();
        let workers = (0..plan.connections)
            .zip(ways)
            .map(|(i, way)| {
                let worker = Worker {
                    plan: plan.clone(),
                    way: *way,
                    began,
                    stop: stop.clone(),
                    asked: asked.clone(),
                };
                let first = began + pace * i / plan.connections;
                std::thread::spawn(move || worker.ask_until_stopped(first, pace))
            })
            .collect();
        Load {
            stop,
            asked,
            workers,
            began,
        }
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Requests that were answered or have failed so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Ends it; all answers, in order of time.
    pub fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers: Vec<Answer> = self
            .workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"))
            .collect();
        answers.sort_by_key(|answer| answer.at);
        answers
    }
}

/// The answers that are not 200.
pub fn failures(answers: &[Answer]) -> Vec<&Answer> {
    answers
        .iter()
        .filter(|answer| answer.status != 200)
        .collect()
}

struct Worker {
    plan: Plan,
    way: Way,
    began: Instant,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Worker {
    fn ask_until_stopped(&self, first: Instant, pace: Duration) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut kept = None;
        let mut next = first;
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += pace;
            let (status, detail, opened) = match self.ask(&mut kept) {
                Ok((reply, opened)) => (reply.status, reply.reason, Some(opened)),
                Err(error) => (0, error.to_string(), None),
            };
            answers.push(Answer {
                at: self.began.elapsed(),
                status,
                detail,
                way: self.way,
                opened,
            });
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        answers
    }

    /// One request. A kept connection that the server closed before it answered anything is no failure: a new one is used.
    fn ask(&self, kept: &mut Option<Connection>) -> io::Result<(Reply, Arc<Opened>)> {
        if let Some(connection) = kept.take()
            && let Some(answer) = self.exchange(connection, kept)?
        {
            return Ok(answer);
        }
        self.exchange(Connection::open(self)?, kept)?
            .ok_or_else(|| io::Error::other("the connection was closed without an answer"))
    }

    /// None when the connection had ended before the first byte of an answer.
    fn exchange(
        &self,
        mut connection: Connection,
        kept: &mut Option<Connection>,
    ) -> io::Result<Option<(Reply, Arc<Opened>)>> {
        let reply = match &mut connection.speaks {
            Speaks::Http1(stream) => http1::exchange(&self.plan, stream)?,
            Speaks::Http2(client) => client.exchange(&self.plan)?,
        };
        let Some(reply) = reply else {
            return Ok(None);
        };
        let opened = connection.opened.clone();
        if reply.again && self.way.1 == Life::Kept {
            *kept = Some(connection);
        }
        Ok(Some((reply, opened)))
    }
}

/// What the server said.
struct Reply {
    status: u16,
    /// Why a proxy answered by itself, or nothing.
    reason: String,
    /// Whether the connection goes on.
    again: bool,
}

struct Connection {
    opened: Arc<Opened>,
    speaks: Speaks,
}

enum Speaks {
    Http1(http1::Stream),
    Http2(http2::Client),
}

impl Connection {
    fn open(worker: &Worker) -> io::Result<Connection> {
        let at = worker.began.elapsed();
        let plan = &worker.plan;
        let (speaks, serial) = match worker.way.0 {
            Protocol::Http1 => (Speaks::Http1(http1::clear(plan)?), None),
            Protocol::Https1 => {
                let (stream, serial) = http1::secure(plan)?;
                (Speaks::Http1(stream), Some(serial))
            }
            Protocol::Https2 => {
                let (client, serial) = http2::Client::open(plan)?;
                (Speaks::Http2(client), Some(serial))
            }
        };
        let opened = Arc::new(Opened { at, serial });
        Ok(Connection { opened, speaks })
    }
}
