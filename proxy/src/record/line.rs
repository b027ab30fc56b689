//! What an access record says.

use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meshgate_codec::{digits, needs_no_escape};

use crate::date;

/// A member's name with what stands around it. Names are ours and need no escape; a first member is always there.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}
/// Room that is made for a line: most fit.
const LINE_BYTES: usize = 1024;
/// Room for a request's id: ours are so long.
const REQUEST_ID_BYTES: usize = 32;

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
    /// Nothing known but the peer.
    pub(crate) fn blank(nothing: &Arc<str>, peer: Arc<str>) -> Self {
        Self {
            direction: "",
            protocol: "",
            client: SocketAddr::from(([0; 4], 0)),
            peer,
            asked: String::new(),
            ends: [0; 4],
            route: nothing.clone(),
            service: nothing.clone(),
            endpoint: None,
            pod: nothing.clone(),
            attempts: 0,
            status: 0,
            reason: "",
            detail: Box::default(),
            bytes_in: 0,
            bytes_out: 0,
            took: Duration::ZERO,
        }
    }

    /// What was asked. It has no name yet.
    pub(crate) fn ask(&mut self, method: &str, host: &str, path: &str) {
        self.asked.clear();
        self.asked
            .reserve(method.len() + host.len() + path.len() + REQUEST_ID_BYTES);
        for (part, end) in [method, host, path, ""].iter().zip(&mut self.ends) {
            self.asked.push_str(part);
            *end = self.asked.len();
        }
    }

    /// What it is called.
    pub(crate) fn name(&mut self, request_id: &str) {
        let [_, _, path_end, end] = &mut self.ends;
        self.asked.truncate(*path_end);
        self.asked.push_str(request_id);
        *end = self.asked.len();
    }

    fn part(&self, index: usize) -> &str {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        &self.asked[start..self.ends[index]]
    }

    pub(crate) fn method(&self) -> &str {
        self.part(0)
    }

    pub(crate) fn host(&self) -> &str {
        self.part(1)
    }

    pub(crate) fn path(&self) -> &str {
        self.part(2)
    }

    pub(crate) fn request_id(&self) -> &str {
        self.part(3)
    }

    /// Memory that its own texts take.
    pub(crate) fn text_bytes(&self) -> usize {
        self.asked.len() + self.detail.len()
    }

    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        object.plain(name!("direction"), self.direction);
        object.address(name!("client"), self.client);
        object.text(name!("peer"), &self.peer);
        object.plain(name!("protocol"), self.protocol);
        // Judged when they were read: a token, and a host with an optional port.
        object.plain(name!("method"), self.method());
        object.plain(name!("host"), self.host());
        object.text(name!("path"), self.path());
        object.number(name!("status"), u64::from(self.status));
        object.plain(name!("reason"), self.reason);
        object.text(name!("detail"), &self.detail);
        object.text(name!("route"), &self.route);
        object.text(name!("service"), &self.service);
        if let Some(endpoint) = self.endpoint {
            object.address(name!("endpoint"), endpoint);
        }
        object.text(name!("pod"), &self.pod);
        object.number(name!("attempts"), u64::from(self.attempts));
        object.number(name!("bytes_in"), self.bytes_in);
        object.number(name!("bytes_out"), self.bytes_out);
        object.milliseconds(name!("duration_ms"), self.took);
        object.text(name!("request_id"), self.request_id());
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

/// A JSON object in the making, on one line. Nothing fails: it is written to memory. Names are constants, and written as
/// such where the functions are inlined.
struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// With the time as its first member.
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.reserve(LINE_BYTES);
        out.extend_from_slice(b"{\"time\":\"");
        date::write_timestamp(out);
        out.push(b'"');
        Self { out }
    }

    /// Left out when empty.
    fn text(&mut self, name: &[u8], text: &str) {
        if needs_no_escape(text) {
            self.plain(name, text);
        } else {
            self.out.extend_from_slice(name);
            let _ = serde_json::to_writer(&mut *self.out, text);
        }
    }

    /// A text that needs no escape. Left out when empty.
    #[inline(always)]
    fn plain(&mut self, name: &[u8], text: &str) {
        if !text.is_empty() {
            self.out.extend_from_slice(name);
            self.out.push(b'"');
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        }
    }

    fn address(&mut self, name: &[u8], address: SocketAddr) {
        self.out.extend_from_slice(name);
        self.out.push(b'"');
        digits::socket_address(address, self.out);
        self.out.push(b'"');
    }

    #[inline(always)]
    fn number(&mut self, name: &[u8], number: u64) {
        self.out.extend_from_slice(name);
        digits::decimal(number, self.out);
    }

    /// With microseconds behind the point, and at least one digit.
    fn milliseconds(&mut self, name: &[u8], duration: Duration) {
        let micros = duration.as_micros().try_into().unwrap_or(u64::MAX);
        self.number(name, micros / 1000);
        let behind = (micros % 1000) as u16;
        let digits = [behind / 100, behind / 10 % 10, behind % 10].map(|digit| b'0' + digit as u8);
        let count = match digits {
            [_, b'0', b'0'] => 1,
            [_, _, b'0'] => 2,
            _ => 3,
        };
        self.out.push(b'.');
        self.out.extend_from_slice(&digits[..count]);
    }

    fn close(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object() {
        let mut line = Line {
            direction: "edge",
            protocol: "HTTP/1.1",
            client: "10.0.0.1:1234".parse().unwrap(),
            endpoint: Some("[::1]:80".parse().unwrap()),
            status: 200,
            attempts: 1,
            bytes_out: u64::MAX,
            ..Line::blank(&"".into(), "".into())
        };
        line.ask("GET", "a.test", "/\u{1}\"\\\u{e4}");
        line.name("old");
        line.name("7");
        for micros in [0, 1, 10, 100, 110, 111, 1000, 1_200_000, 65_535] {
            line.took = Duration::from_micros(micros);
            let mut out = Vec::new();
            line.write_json(&mut out);
            assert_eq!(out.pop(), Some(b'\n'));
            let mut read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let time = read.as_object_mut().unwrap().remove("time").unwrap();
            assert!(
                time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
                "{time}"
            );
            assert_eq!(
                read,
                serde_json::json!({
                    "direction": "edge", "client": "10.0.0.1:1234", "protocol": "HTTP/1.1", "method": "GET",
                    "host": "a.test", "path": "/\u{1}\"\\\u{e4}", "status": 200, "endpoint": "[::1]:80",
                    "attempts": 1, "bytes_in": 0, "bytes_out": u64::MAX,
                    "duration_ms": micros as f64 / 1000.0, "request_id": "7",
                })
            );
        }
    }
}
