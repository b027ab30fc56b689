//! The guard that sees an exchange through: whatever happens, it is counted and recorded exactly once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use meshgate_codec::Fields;
use meshgate_routing::Time;

use super::Line;
use crate::body::Replay;
use crate::clock::{self, chance};
use crate::engine::Shared;
use crate::failure::{Failure, Reason};
use crate::head::Request;
use crate::metrics::{Spent, Told};
use crate::serve::Connection;
use crate::trace::{Finished, Outcome, Trace};
use crate::upstream::{Upgraded, Wire};

/// One exchange, open until dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    line: Line,
    started: Time,
    body: Option<Replay>,
    /// The request is sampled.
    trace: Option<Box<Trace>>,
    ended: bool,
    forgotten: bool,
}

impl Exchange {
    pub(crate) fn open(connection: &Connection, protocol: &'static str) -> Box<Self> {
        Self::begun(connection, protocol, clock::now())
    }

    /// One that began at that moment.
    pub(crate) fn begun(
        connection: &Connection,
        protocol: &'static str,
        started: Time,
    ) -> Box<Self> {
        Box::new(Self {
            shared: connection.shared.clone(),
            started,
            body: None,
            trace: None,
            ended: false,
            forgotten: false,
            line: Line {
                direction: connection.direction.name(),
                protocol,
                client: connection.client,
                ..Line::blank(&connection.shared.nothing, connection.peer_label())
            },
        })
    }

    /// What was asked. Only worth its copies when somebody reads records.
    pub(crate) fn asked(&mut self, method: &str, host: &str, path: &str) {
        if self.shared.recorder.is_on() {
            self.line.ask(method, host, path);
        }
    }

    /// It is sampled.
    pub(crate) fn traced(&mut self, mut trace: Box<Trace>, connection: &Connection, of: &Request) {
        trace.asked(connection, &of.fields);
        self.line.ask(of.method.as_str(), &of.authority, of.path());
        self.trace = Some(trace);
    }

    /// What the request is called.
    pub(crate) fn named(&mut self, request_id: &[u8]) {
        if self.shared.recorder.is_on() || self.trace.is_some() {
            let text = std::str::from_utf8(request_id).unwrap_or_default();
            self.line.name(text);
        }
    }

    pub(crate) fn client(&mut self, client: SocketAddr) {
        self.line.client = client;
    }

    pub(crate) fn body(&mut self, body: Option<Replay>) {
        self.body = body;
    }

    pub(crate) fn routed(&mut self, route: &Arc<str>, service: &Arc<str>) {
        self.line.route = route.clone();
        self.line.service = service.clone();
    }

    pub(crate) fn attempt(&mut self, endpoint: SocketAddr, pod: &Arc<str>) {
        self.line.attempts += 1;
        self.line.endpoint = Some(endpoint);
        self.line.pod = pod.clone();
    }

    /// An attempt is about to be sent: who gets it learns of its span.
    pub(crate) fn sending(&mut self, wire: Wire, fields: &mut Fields) {
        if let (Some(trace), Some(endpoint)) = (&mut self.trace, self.line.endpoint) {
            let to = (endpoint, &self.line.pod);
            trace.sending(to, wire, fields, (chance(), clock::now()));
        }
    }

    /// What came of an attempt.
    pub(crate) fn met(&mut self, outcome: &Result<Upgraded, Failure>) {
        if let Some(trace) = &mut self.trace {
            let outcome = match outcome {
                Ok(Upgraded::No(response)) => Outcome::Answered(response.status.as_u16()),
                Ok(Upgraded::Yes { .. }) => Outcome::Answered(101),
                Err(failure) => Outcome::Failed(failure.reason),
            };
            trace.met(outcome, clock::now());
        }
    }

    pub(crate) fn answered(&mut self, status: u16) {
        self.line.status = status;
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.line.status = failure.status().as_u16();
        self.line.reason = failure.reason.as_str();
        self.line.detail = failure.detail.as_ref().into();
    }

    pub(crate) fn received(&mut self, bytes: u64) {
        self.line.bytes_in += bytes;
    }

    pub(crate) fn sent(&mut self, bytes: u64) {
        self.line.bytes_out += bytes;
    }

    /// The client has everything.
    pub(crate) fn completed(mut self: Box<Self>) {
        self.ended = true;
    }

    /// The endpoint ended the answer early.
    pub(crate) fn cut(mut self: Box<Self>) {
        self.ended = true;
        self.line.reason = Reason::UpstreamReset.as_str();
        self.line.detail = "the answer ended early".into();
    }

    /// A TCP connection ended.
    pub(crate) fn tcp_ended(mut self: Box<Self>) {
        self.ended = true;
    }

    /// It turned out to be none; another record tells the story.
    pub(crate) fn forget(mut self: Box<Self>) {
        self.forgotten = true;
    }

    /// Hands the spans on. Rare enough to be a call.
    #[cold]
    fn tell_trace(&mut self, trace: Box<Trace>, ended: Time) {
        let nothing = Line::blank(&self.shared.nothing, self.shared.plain.clone());
        let line = std::mem::replace(&mut self.line, nothing);
        if let Some(tracer) = &self.shared.tracer {
            let times = (self.started, ended);
            tracer.finished(Finished::new(trace, line, times, SystemTime::now()));
        }
    }

    fn is_tcp(&self) -> bool {
        self.line.protocol == "TCP"
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        if !self.ended && self.line.reason.is_empty() {
            self.line.reason = Reason::ClientGone.as_str();
        }
        if let Some(body) = &self.body {
            self.line.bytes_in += body.bytes();
        }
        let ended = clock::now();
        self.line.took = ended.since(self.started);
        let metrics = self.shared.recorder.metrics();
        let line = &self.line;
        if self.is_tcp() {
            metrics.bytes(line.direction, "in", line.bytes_in);
            metrics.bytes(line.direction, "out", line.bytes_out);
            metrics.tcp(line.direction, &line.service, &line.peer, line.reason);
        } else {
            let told = Told {
                direction: line.direction,
                route: &line.route,
                service: &line.service,
                peer: &line.peer,
                status: line.status,
                reason: line.reason,
            };
            let spent = Spent {
                took: line.took,
                bytes_in: line.bytes_in,
                bytes_out: line.bytes_out,
            };
            metrics.request(told, spent);
        }
        if self.shared.recorder.is_on() {
            self.shared.recorder.write(&self.line);
        }
        if let Some(trace) = self.trace.take() {
            self.tell_trace(trace, ended);
        }
    }
}
