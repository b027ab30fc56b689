//! What an access record says.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::date;

/// One request, or one TCP connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) direction: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    /// Identity, or "plain".
    pub(crate) peer: Arc<str>,
    /// Method, host, path and request's id, one behind the other, and where each ends. Without the query: queries carry
    /// secrets.
    pub(super) asked: String,
    pub(super) ends: [usize; 4],
    pub(crate) route: Arc<str>,
    pub(crate) service: Arc<str>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) pod: Arc<str>,
    pub(crate) attempts: u32,
    /// Zero when the client left before an answer.
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) detail: Box<str>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) took: Duration,
}

impl Line {
    /// Nothing known.
    pub(crate) fn blank(nothing: Arc<str>) -> Self {
        Self {
            direction: "",
            protocol: "",
            client: SocketAddr::from(([0; 4], 0)),
            peer: nothing.clone(),
            asked: String::new(),
            ends: [0; 4],
            route: nothing.clone(),
            service: nothing.clone(),
            endpoint: None,
            pod: nothing,
            attempts: 0,
            status: 0,
            reason: "",
            detail: Box::default(),
            bytes_in: 0,
            bytes_out: 0,
            took: Duration::ZERO,
        }
    }

    /// What was asked.
    pub(crate) fn ask(&mut self, method: &str, host: &str, path: &str, request_id: &str) {
        self.asked.clear();
        for (part, end) in [method, host, path, request_id].iter().zip(&mut self.ends) {
            self.asked.push_str(part);
            *end = self.asked.len();
        }
    }

    fn part(&self, index: usize) -> &str {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        &self.asked[start..self.ends[index]]
    }

    fn method(&self) -> &str {
        self.part(0)
    }

    fn host(&self) -> &str {
        self.part(1)
    }

    fn path(&self) -> &str {
        self.part(2)
    }

    fn request_id(&self) -> &str {
        self.part(3)
    }

    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        object.time();
        object.text("direction", self.direction);
        object.display("client", self.client);
        object.text("peer", &self.peer);
        object.text("protocol", self.protocol);
        object.text("method", self.method());
        object.text("host", self.host());
        object.text("path", self.path());
        object.number("status", self.status);
        object.text("reason", self.reason);
        object.text("detail", &self.detail);
        object.text("route", &self.route);
        object.text("service", &self.service);
        if let Some(endpoint) = self.endpoint {
            object.display("endpoint", endpoint);
        }
        object.text("pod", &self.pod);
        object.number("attempts", self.attempts);
        object.number("bytes_in", self.bytes_in);
        object.number("bytes_out", self.bytes_out);
        object.number("duration_ms", self.took.as_micros() as f64 / 1000.0);
        object.text("request_id", self.request_id());
        object.close();
    }

    pub(crate) fn write_text(&self, out: &mut Vec<u8>) {
        date::write_timestamp(out);
        // Control characters never get here: paths are normalised, others are refused.
        let _ = write!(
            out,
            " {} {} {} \"{} {}{} {}\" {}",
            self.direction,
            self.client,
            self.peer,
            self.method(),
            self.host(),
            self.path(),
            self.protocol,
            self.status,
        );
        if !self.reason.is_empty() {
            let _ = write!(out, " ({}; {})", self.reason, self.detail);
        }
        let endpoint: &dyn fmt::Display = match &self.endpoint {
            Some(endpoint) => endpoint,
            None => &"-",
        };
        let _ = writeln!(
            out,
            " -> {} {endpoint} x{} {}/{} bytes {:.1} ms",
            self.service,
            self.attempts,
            self.bytes_in,
            self.bytes_out,
            self.took.as_secs_f64() * 1000.0
        );
    }
}

/// A JSON object in the making, on one line. Nothing fails: it is written to memory.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Names are ours and need no escape.
    fn name(&mut self, name: &str) {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn time(&mut self) {
        self.name("time");
        self.out.push(b'"');
        date::write_timestamp(self.out);
        self.out.push(b'"');
    }

    /// Left out when empty.
    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.name(name);
            let _ = serde_json::to_writer(&mut *self.out, text);
        }
    }

    /// Something whose text needs no escape.
    fn display(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    fn number(&mut self, name: &str, number: impl serde::Serialize) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, &number);
    }

    fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }
}
