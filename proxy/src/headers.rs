//! Fields that a proxy puts in. What it takes out of every message is the codec's to know.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use meshgate_codec::fields::Value;
use meshgate_codec::{Fields, Known, KnownSet, Name};

use crate::trace::TraceParent;

/// From proxy to proxy: port and protocol of the destination. Never from or to an application.
pub(crate) const DESTINATION: &str = Known::MeshgateDest.as_str();

/// What only trusted peers may say of the client.
const CLAIMS: KnownSet = KnownSet::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::Forwarded,
]);

/// What the edge tells the application about the client.
pub(crate) struct ForClient<'a> {
    /// Address of the connection's other end.
    pub(crate) peer: IpAddr,
    /// Whether that end may tell where the request came from.
    pub(crate) trusted: bool,
    pub(crate) scheme: &'static str,
    pub(crate) authority: &'a Arc<str>,
}

impl ForClient<'_> {
    /// The client's address: the peer's, or what trusted proxies say. `None`: what they say cannot be understood, and the
    /// last of them must not be taken for the client.
    pub(crate) fn client(
        &self,
        fields: &Fields,
        trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        if !self.trusted {
            return Some(self.peer);
        }
        let listed: Vec<&[u8]> = fields.all(Known::XForwardedFor).collect();
        let mut client = self.peer;
        let entries = listed
            .iter()
            .rev()
            .flat_map(|value| value.rsplit(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|entry| !entry.is_empty());
        for entry in entries {
            client = node(entry)?;
            if !trusted(client) {
                break;
            }
        }
        Some(client)
    }

    /// Sets the forwarded fields; what the client sent stays only when it is trusted.
    pub(crate) fn apply(&self, fields: &mut Fields, client: Option<IpAddr>) {
        if !self.trusted {
            fields.remove_all(CLAIMS);
        }
        add_element(fields, Known::XForwardedFor, |value| {
            value.address(self.peer);
        });
        set_missing(fields, Known::XForwardedProto, self.scheme);
        if !self.authority.is_empty() {
            set_missing(fields, Known::XForwardedHost, self.authority);
        }
        match client {
            Some(client) => set_with(fields, Known::XRealIp, |value| {
                value.address(client);
            }),
            None => {
                fields.remove(Known::XRealIp);
            }
        }
        add_element(fields, Known::Forwarded, |value| self.describe(value));
    }

    /// An element of `Forwarded` (RFC 7239).
    fn describe(&self, value: &mut Value<'_>) {
        match self.peer {
            IpAddr::V4(_) => value.text("for=").address(self.peer),
            IpAddr::V6(_) => value.text("for=\"[").address(self.peer).text("]\""),
        };
        if !self.authority.is_empty() {
            value.text(";host=\"").text(self.authority).text("\"");
        }
        value.text(";proto=").text(self.scheme);
    }
}

/// An address as proxies write it: alone, or with a port, where one of IPv6 is in brackets.
fn node(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|node: SocketAddr| node.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// What a connection's last request said of its client: the next one usually says the same.
#[derive(Debug, Default)]
pub(crate) struct Introduction {
    authority: Arc<str>,
    fields: Fields,
}

impl Introduction {
    /// Sets the forwarded fields of a client that nobody speaks for: they depend on the connection and on the authority
    /// alone.
    pub(crate) fn apply(&mut self, facts: &ForClient<'_>, fields: &mut Fields) {
        if self.fields.is_empty() || self.authority != *facts.authority {
            self.authority = facts.authority.clone();
            self.fields.clear();
            facts.apply(&mut self.fields, Some(facts.peer));
        }
        fields.remove_all(CLAIMS.and(KnownSet::of(&[Known::XRealIp])));
        if fields.append_all(&self.fields).is_err() {
            // Without room for it there was none for a whole request.
            facts.apply(fields, Some(facts.peer));
        }
    }
}

/// Names the request for logs: keeps what a trusted peer sent, else begins anew.
pub(crate) fn name_request(fields: &mut Fields, trusted: bool, [a, b, _]: [u64; 3]) {
    let keep_id = trusted && fields.get(Known::XRequestId).is_some_and(is_short_token);
    if !keep_id {
        set_with(fields, Known::XRequestId, |value| {
            value.hexadecimal(a).hexadecimal(b);
        });
    }
}

/// Names the request for traces that this proxy adds nothing to: keeps what a trusted peer sent, else begins anew.
pub(crate) fn name_trace(fields: &mut Fields, trusted: bool, chance: [u64; 3]) {
    if !trusted || TraceParent::of(fields).is_none() {
        TraceParent::new(chance, false).write(fields);
        fields.remove(Known::Tracestate);
    }
}

fn is_short_token(value: &[u8]) -> bool {
    (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// The verified peer for the application; whatever anyone else wrote there goes.
pub(crate) fn set_client_cert(fields: &mut Fields, identities: Option<(&str, &str)>) {
    fields.remove(Known::XForwardedClientCert);
    if let Some((own, peer)) = identities {
        set_with(fields, Known::XForwardedClientCert, |value| {
            value.text("By=").text(own).text(";URI=").text(peer);
        });
    }
}

/// What cannot be said must not leave what somebody else said in its place.
pub(crate) fn set<'a>(fields: &mut Fields, name: impl Into<Name<'a>> + Copy, value: &[u8]) {
    if fields.set(name, value).is_err() {
        fields.remove(name);
    }
}

/// The same, of a value that is written in its place.
pub(crate) fn set_with(fields: &mut Fields, name: Known, write: impl FnOnce(&mut Value<'_>)) {
    if fields.set_with(name, write).is_err() {
        fields.remove(name);
    }
}

fn set_missing(fields: &mut Fields, name: Known, value: &str) {
    if !fields.contains(name) {
        set(fields, name, value.as_bytes());
    }
}

/// Adds an element to a list field, as one line.
fn add_element(fields: &mut Fields, name: Known, write: impl FnOnce(&mut Value<'_>)) {
    let mut before: Vec<u8> = Vec::new();
    for value in fields.all(name) {
        before.extend_from_slice(value);
        before.extend_from_slice(b", ");
    }
    set_with(fields, name, |value| write(value.bytes(&before)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(*name, value.as_bytes()).unwrap();
        }
        fields
    }

    fn value<'a>(fields: &'a Fields, name: &'a str) -> &'a str {
        fields
            .get(name)
            .map_or("", |value| std::str::from_utf8(value).unwrap())
    }

    /// Nothing expected: nobody knows who the client is.
    fn check_client(trusted: bool, forwarded: &'static str, expected: &str, line: &str) {
        let mut headers = fields(&[("x-forwarded-for", forwarded), ("x-real-ip", "6.6.6.6")]);
        let inside = |address: IpAddr| address.to_string().starts_with("10.");
        let facts = ForClient {
            peer: "10.0.0.1".parse().unwrap(),
            trusted,
            scheme: "https",
            authority: &"a.test".into(),
        };
        let client = facts.client(&headers, inside);
        facts.apply(&mut headers, client);
        let client = client.map_or(String::new(), |client| client.to_string());
        assert_eq!(client, expected, "{forwarded}");
        assert_eq!(value(&headers, "x-forwarded-for"), line);
        assert_eq!(value(&headers, "x-real-ip"), expected);
        assert_eq!(value(&headers, "x-forwarded-proto"), "https");
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
        for (said, expected) in [
            ("nonsense", ""),
            ("1.2.3.4, unknown", ""),
            ("1.2.3.4, 10.0.0.7:x", ""),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("1.2.3.4, 10.0.0.7:80", "1.2.3.4"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("[1.2.3.4]", ""),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("1.2.3.4, , 10.0.0.7,", "1.2.3.4"),
            ("", "10.0.0.1"),
            (",", "10.0.0.1"),
        ] {
            let line = format!("{said}, 10.0.0.1");
            check_client(true, said, expected, &line);
        }
    }

    #[test]
    fn what_a_connection_said_before_is_said_again_only_of_the_same() {
        let mut introduction = Introduction::default();
        for authority in [
            "a.test",
            "a.test",
            "b.test:80",
            "",
            "a.test",
            "bad\u{1}",
            "c.test",
        ] {
            let facts = ForClient {
                peer: "2001:db8::7".parse().unwrap(),
                trusted: false,
                scheme: "https",
                authority: &authority.into(),
            };
            let sent = fields(&[
                ("X-Real-IP", "6.6.6.6"),
                ("x-forwarded-for", "6.6.6.6"),
                ("accept", "*/*"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Forwarded-Port", "6"),
                ("x-real-ip", "6.6.6.7"),
                ("X-Forwarded-Host", "six.test"),
            ]);
            let (mut anew, mut again) = (sent.clone(), sent);
            facts.apply(&mut anew, Some(facts.peer));
            introduction.apply(&facts, &mut again);
            let sorted = |fields: &Fields| {
                let lines = fields.iter().map(|field| {
                    let name = field.name.to_ascii_lowercase();
                    (name, field.value.to_vec())
                });
                let mut lines: Vec<_> = lines.collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&anew), sorted(&again), "{authority:?}");
            assert!(!format!("{again:?}").contains("6.6.6."), "{again:?}");
        }
    }

    #[test]
    fn names_are_kept_from_trusted_peers_only() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = fields(&[
            ("x-request-id", "abc"),
            ("traceparent", trace),
            ("tracestate", "a=b"),
        ]);
        name_request(&mut headers, true, [1, 2, 3]);
        name_trace(&mut headers, true, [1, 2, 3]);
        assert_eq!(
            (
                value(&headers, "x-request-id"),
                value(&headers, "traceparent")
            ),
            ("abc", trace)
        );
        name_request(&mut headers, false, [1, 2, 3]);
        name_trace(&mut headers, false, [1, 2, 3]);
        assert_eq!(
            value(&headers, "x-request-id"),
            "00000000000000010000000000000002"
        );
        assert_eq!(
            value(&headers, "traceparent"),
            "00-00000000000000010000000000000003-0000000000000003-00"
        );
        assert!(!headers.contains(Known::Tracestate));
    }
}
