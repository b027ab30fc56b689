//! What is noted of a sampled request while it lasts, and what is left of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use meshgate_codec::{Fields, Known};
use meshgate_routing::Time;

use super::TraceParent;
use crate::failure::Reason;
use crate::record::Line;
use crate::serve::Connection;
use crate::upstream::Wire;

/// A client's words about itself, and a trace's state, are kept to this length (W3C Trace Context §3.3.1.1 asks for 512).
const SAID_BYTES_MAX: usize = 512;

/// The spans of one request, while it lasts.
#[derive(Debug)]
pub(crate) struct Trace {
    /// The request's own span.
    pub(super) own: TraceParent,
    /// The span that asks.
    pub(super) parent: Option<TraceParent>,
    /// Who serves it.
    pub(super) worker: usize,
    pub(super) scheme: &'static str,
    pub(super) user_agent: Box<str>,
    pub(super) state: Box<str>,
    pub(super) tries: Vec<Try>,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) span: u64,
    pub(super) endpoint: SocketAddr,
    pub(super) pod: Arc<str>,
    pub(super) wire: Wire,
    pub(super) started: Time,
    /// Nothing when it was given up.
    pub(super) outcome: Option<(Time, Outcome)>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this status.
    Answered(u16),
    /// Without an answer.
    Failed(Reason),
}

impl Trace {
    pub(super) fn new(own: TraceParent, parent: Option<TraceParent>) -> Self {
        Self {
            own,
            parent,
            worker: 0,
            scheme: "",
            user_agent: Box::default(),
            state: Box::default(),
            tries: Vec::new(),
        }
    }

    /// What the request says that its record does not tell.
    pub(crate) fn asked(&mut self, connection: &Connection, fields: &Fields) {
        self.worker = connection.tasks.worker();
        self.scheme = connection.scheme();
        self.user_agent = said(fields, Known::UserAgent);
        self.state = said(fields, Known::Tracestate);
    }

    /// An attempt begins: who is asked learns of its span.
    pub(crate) fn sending(
        &mut self,
        (endpoint, pod): (SocketAddr, &Arc<str>),
        wire: Wire,
        fields: &mut Fields,
        (chance, now): (u64, Time),
    ) {
        let span = chance | 1;
        TraceParent { span, ..self.own }.write(fields);
        self.tries.push(Try {
            span,
            endpoint,
            pod: pod.clone(),
            wire,
            started: now,
            outcome: None,
        });
    }

    /// It ended, or its answer began.
    pub(crate) fn met(&mut self, outcome: Outcome, now: Time) {
        if let Some(last) = self.tries.last_mut() {
            last.outcome = Some((now, outcome));
        }
    }
}

fn said(fields: &Fields, name: Known) -> Box<str> {
    let text = fields.get(name).unwrap_or_default();
    let text = text.get(..SAID_BYTES_MAX).unwrap_or(text);
    String::from_utf8_lossy(text).into()
}

/// A request that is over.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(super) trace: Box<Trace>,
    pub(super) line: Line,
    pub(super) started: Time,
    pub(super) ended: Time,
    /// What the clock on the wall showed when it ended.
    ended_unix_nanos: u64,
}

impl Finished {
    pub(crate) fn new(
        trace: Box<Trace>,
        line: Line,
        (started, ended): (Time, Time),
        wall: SystemTime,
    ) -> Self {
        let since_1970 = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            trace,
            line,
            started,
            ended,
            ended_unix_nanos: Time::since_origin(since_1970).as_nanos(),
        }
    }

    /// A moment of it, on the wall's clock: all by one reading, so that a clock that is set meanwhile turns none around.
    pub(super) fn unix_nanos(&self, moment: Time) -> u64 {
        let before = Time::since_origin(self.ended.since(moment)).as_nanos();
        self.ended_unix_nanos.saturating_sub(before)
    }

    pub(super) fn spans(&self) -> usize {
        1 + self.trace.tries.len()
    }

    /// Memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let trace = &self.trace;
        let texts = trace.user_agent.len() + trace.state.len() + self.line.text_bytes();
        size_of::<Self>() + size_of::<Trace>() + trace.tries.len() * size_of::<Try>() + texts
    }
}
