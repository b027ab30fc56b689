//! Fields that a proxy must take out, put in or leave alone.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

pub(crate) static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// From proxy to proxy: port and protocol of the destination. Never from or to an application.
pub(crate) static DESTINATION: HeaderName = HeaderName::from_static("meshgate-dest");

/// Fields that a client cannot have removed by naming them in `Connection`.
const PROTECTED: [&str; 18] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "meshgate-dest",
    "traceparent",
    "tracestate",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "cache-control",
    "set-cookie",
];

/// Removes what concerns one connection only (RFC 9110 §7.6.1).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !PROTECTED.contains(&name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION] {
        headers.remove(name);
    }
    for name in [header::TRANSFER_ENCODING, header::UPGRADE, header::TE] {
        headers.remove(name);
    }
}

/// Trailers may not change what was decided from the head (RFC 9110 §6.5.1).
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            PROTECTED.contains(&name.as_str())
                || matches!(
                    name.as_str(),
                    "transfer-encoding"
                        | "connection"
                        | "te"
                        | "trailer"
                        | "upgrade"
                        | "keep-alive"
                        | "content-encoding"
                        | "content-range"
                        | "expect"
                        | "range"
                        | "www-authenticate"
                        | "proxy-authorization"
                        | "proxy-connection"
                        | "max-forwards"
                )
        })
        .cloned()
        .collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// Whether a comma-separated field has this token.
pub(crate) fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// What the edge tells the application about the client.
pub(crate) struct ForClient<'a> {
    /// Address of the connection's other end.
    pub(crate) peer: IpAddr,
    /// Whether that end may tell where the request came from.
    pub(crate) trusted: bool,
    pub(crate) scheme: &'static str,
    pub(crate) authority: &'a str,
}

impl ForClient<'_> {
    /// The client's address: the peer's, or what trusted proxies say.
    pub(crate) fn client(&self, headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
        if !self.trusted {
            return self.peer;
        }
        let listed = headers.get_all(&X_FORWARDED_FOR).iter().collect::<Vec<_>>();
        let mut client = self.peer;
        let entries = listed
            .iter()
            .rev()
            .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for entry in entries {
            let Some(address) = std::str::from_utf8(entry.trim_ascii())
                .ok()
                .and_then(|text| text.parse::<IpAddr>().ok())
            else {
                break;
            };
            client = address.to_canonical();
            if !trusted(client) {
                break;
            }
        }
        client
    }

    /// Sets the forwarded fields; what the client sent stays only when it is trusted.
    pub(crate) fn apply(&self, headers: &mut HeaderMap, client: IpAddr) {
        if !self.trusted {
            for name in [
                &X_FORWARDED_FOR,
                &X_FORWARDED_PROTO,
                &X_FORWARDED_HOST,
                &X_FORWARDED_PORT,
            ] {
                headers.remove(name);
            }
            headers.remove(header::FORWARDED);
        }
        let peer = self.peer.to_string();
        append(headers, &X_FORWARDED_FOR, &peer);
        set_missing(headers, &X_FORWARDED_PROTO, self.scheme);
        if !self.authority.is_empty() {
            set_missing(headers, &X_FORWARDED_HOST, self.authority);
        }
        set(headers, &X_REAL_IP, &client.to_string());
        let node = match self.peer {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let host = match self.authority {
            "" => String::new(),
            authority => format!(";host=\"{authority}\""),
        };
        let element = format!("for={node}{host};proto={}", self.scheme);
        append(headers, &header::FORWARDED, &element);
    }
}

/// Names the request for logs and traces: keeps what a trusted peer sent, else begins anew.
pub(crate) fn name_request(headers: &mut HeaderMap, trusted: bool, chance: [u64; 3]) {
    let keep_id = trusted && headers.get(&X_REQUEST_ID).is_some_and(is_short_token);
    if !keep_id {
        let [a, b, _] = chance;
        set(headers, &X_REQUEST_ID, &format!("{a:016x}{b:016x}"));
    }
    let keep_trace = trusted && headers.get(&TRACEPARENT).is_some_and(is_traceparent);
    if !keep_trace {
        let [a, b, c] = chance;
        // An all-zero id is invalid; one bit more costs nothing.
        let (trace, span) = (b | 1, c | 1);
        set(
            headers,
            &TRACEPARENT,
            &format!("00-{a:016x}{trace:016x}-{span:016x}-00"),
        );
        headers.remove(&TRACESTATE);
    }
}

fn is_short_token(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=128).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// `00-<32 hex>-<16 hex>-<2 hex>` (W3C Trace Context §3.2); later versions may be longer.
fn is_traceparent(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.len() >= 55
        && bytes.len() <= 256
        && bytes[..55]
            .iter()
            .enumerate()
            .all(|(index, byte)| match index {
                2 | 35 | 52 => *byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
            })
}

/// The verified peer for the application; whatever anyone else wrote there goes.
pub(crate) fn set_client_cert(headers: &mut HeaderMap, identities: Option<(&str, &str)>) {
    headers.remove(&CLIENT_CERT);
    if let Some((own, peer)) = identities {
        set(headers, &CLIENT_CERT, &format!("By={own};URI={peer}"));
    }
}

fn set(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => {
            headers.insert(name, value);
        }
        // A value that cannot be said must not leave the client's in its place.
        Err(_) => {
            headers.remove(name);
        }
    }
}

fn set_missing(headers: &mut HeaderMap, name: &HeaderName, value: &str) {
    if !headers.contains_key(name) {
        set(headers, name, value);
    }
}

/// Adds an element to a list field, as one line.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let mut line: Vec<u8> = Vec::new();
    for value in headers.get_all(name) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn connection_fields_go_but_protected_ones_stay() {
        let mut headers = map(&[
            (
                "connection",
                "close, X-Secret, x-forwarded-for, authorization",
            ),
            ("x-secret", "1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-forwarded-for"]);
    }

    fn check_client(trusted: bool, forwarded: &'static str, expected: &str, line: &str) {
        let mut headers = map(&[("x-forwarded-for", forwarded), ("x-real-ip", "6.6.6.6")]);
        let inside = |address: IpAddr| address.to_string().starts_with("10.");
        let facts = ForClient {
            peer: "10.0.0.1".parse().unwrap(),
            trusted,
            scheme: "https",
            authority: "a.test",
        };
        let client = facts.client(&headers, inside);
        facts.apply(&mut headers, client);
        assert_eq!(client.to_string(), expected);
        assert_eq!(headers["x-forwarded-for"], line);
        assert_eq!(headers["x-real-ip"], expected);
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn only_trusted_peers_tell_where_a_request_came_from() {
        check_client(false, "1.2.3.4", "10.0.0.1", "10.0.0.1");
        check_client(
            true,
            "9.9.9.9, 1.2.3.4, 10.0.0.7",
            "1.2.3.4",
            "9.9.9.9, 1.2.3.4, 10.0.0.7, 10.0.0.1",
        );
        check_client(true, "nonsense", "10.0.0.1", "nonsense, 10.0.0.1");
    }

    #[test]
    fn names_are_kept_from_trusted_peers_only() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = map(&[
            ("x-request-id", "abc"),
            ("traceparent", trace),
            ("tracestate", "a=b"),
        ]);
        name_request(&mut headers, true, [1, 2, 3]);
        assert_eq!(
            (&headers["x-request-id"], &headers["traceparent"]),
            (&"abc".parse().unwrap(), &trace.parse().unwrap())
        );
        name_request(&mut headers, false, [1, 2, 3]);
        assert_eq!(headers["x-request-id"], "00000000000000010000000000000002");
        assert!(is_traceparent(&headers["traceparent"]) && !headers.contains_key("tracestate"));
    }
}
