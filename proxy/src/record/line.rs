//! What an access record says.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// One request, or one TCP connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) direction: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    /// Identity, or "plain".
    pub(crate) peer: Arc<str>,
    pub(crate) method: Box<str>,
    pub(crate) host: Box<str>,
    /// Without query: queries carry secrets.
    pub(crate) path: Box<str>,
    pub(crate) request_id: Box<str>,
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
            method: Box::default(),
            host: Box::default(),
            path: Box::default(),
            request_id: Box::default(),
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

    pub(crate) fn write_json(&self, out: &mut String) {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| {
            let empty = matches!(&value, Value::String(text) if text.is_empty());
            if !empty {
                object.insert(name.into(), value);
            }
        };
        put("time", Timestamp::now().to_string().into());
        put("direction", self.direction.into());
        put("client", self.client.to_string().into());
        put("peer", (*self.peer).into());
        put("protocol", self.protocol.into());
        put("method", (*self.method).into());
        put("host", (*self.host).into());
        put("path", (*self.path).into());
        put("status", self.status.into());
        put("reason", self.reason.into());
        put("detail", (*self.detail).into());
        put("route", (*self.route).into());
        put("service", (*self.service).into());
        if let Some(endpoint) = self.endpoint {
            put("endpoint", endpoint.to_string().into());
        }
        put("pod", (*self.pod).into());
        put("attempts", self.attempts.into());
        put("bytes_in", self.bytes_in.into());
        put("bytes_out", self.bytes_out.into());
        put(
            "duration_ms",
            (self.took.as_micros() as f64 / 1000.0).into(),
        );
        put("request_id", (*self.request_id).into());
        let _ = writeln!(out, "{}", Value::Object(object));
    }

    pub(crate) fn write_text(&self, out: &mut String) {
        let endpoint = match self.endpoint {
            Some(endpoint) => endpoint.to_string(),
            None => "-".to_owned(),
        };
        let _ = write!(
            out,
            "{} {} {} {} \"{} {}{} {}\" {}",
            Timestamp::now(),
            self.direction,
            self.client,
            self.peer,
            self.method,
            self.host,
            // Control characters never get here: paths are normalised, others are refused.
            self.path,
            self.protocol,
            self.status,
        );
        if !self.reason.is_empty() {
            let _ = write!(out, " ({}; {})", self.reason, self.detail);
        }
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
