//! The JSON that says what the server saw of a request.

use std::collections::BTreeMap;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use serde::Serialize;

use crate::options::PodContext;
use crate::tls::TlsFacts;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    path: &'a str,
    host: &'a str,
    method: &'a str,
    proto: &'static str,
    headers: BTreeMap<String, Vec<String>>,
    http_port: &'a str,
    #[serde(flatten)]
    context: &'a PodContext,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a TlsFacts>,
}

/// Where a request came in.
pub(crate) struct Seen<'a> {
    pub(crate) context: &'a PodContext,
    pub(crate) http_port: &'a str,
    pub(crate) tls: Option<&'a TlsFacts>,
}

/// The reply to a request, indented by one as echo-basic's.
pub(crate) fn json(request: &Parts, seen: &Seen<'_>) -> Vec<u8> {
    let reply = Reply {
        path: target(request),
        host: host(request),
        method: request.method.as_str(),
        proto: match request.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        headers: headers(&request.headers),
        http_port: seen.http_port,
        context: seen.context,
        tls: seen.tls,
    };
    let mut json = Vec::with_capacity(1024);
    let indented = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, indented);
    reply
        .serialize(&mut serializer)
        .expect("strings and maps with string keys, written to memory");
    json
}

pub(crate) fn target(request: &Parts) -> &str {
    request
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
}

pub(crate) fn host(request: &Parts) -> &str {
    let header = request.headers.get(http::header::HOST);
    let header = header.and_then(|host| host.to_str().ok());
    let authority = request.uri.authority().map(|authority| authority.as_str());
    authority.or(header).unwrap_or_default()
}

/// Names as Go writes them (`X-Forwarded-For`), without Host.
fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if name != http::header::HOST {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            all.entry(canonical(name.as_str())).or_default().push(value);
        }
    }
    all
}

fn canonical(name: &str) -> String {
    let mut first = true;
    let words = name.chars().map(|c| {
        let written = if first { c.to_ascii_uppercase() } else { c };
        first = c == '-';
        written
    });
    words.collect()
}

/// The headers that `X-Echo-Set-Header: name:value, …` asks for; what is no header is left out.
pub(crate) fn asked_headers(request: &HeaderMap) -> HeaderMap {
    let mut asked = HeaderMap::new();
    let lists = request.get_all("x-echo-set-header").iter();
    let lists = lists.filter_map(|list| list.to_str().ok());
    for pair in lists.flat_map(|list| list.split(',')) {
        let (name, value) = pair.trim().split_once(':').unwrap_or((pair.trim(), ""));
        let name = HeaderName::try_from(name);
        let value = HeaderValue::try_from(value.trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            asked.append(name, value);
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_in_go() {
        assert_eq!(
            canonical("x-forwarded-client-cert"),
            "X-Forwarded-Client-Cert"
        );
        assert_eq!(canonical("te"), "Te");
    }

    #[test]
    fn headers_to_set_are_pairs() {
        let mut request = HeaderMap::new();
        request.append("x-echo-set-header", "A:1, b: 2,bad name:3".parse().unwrap());
        request.append("x-echo-set-header", "a:4".parse().unwrap());
        let asked = asked_headers(&request);
        let all: Vec<_> = asked
            .iter()
            .map(|(n, v)| format!("{n}={}", v.to_str().unwrap()))
            .collect();
        assert_eq!(all, ["a=1", "a=4", "b=2"]);
    }
}
