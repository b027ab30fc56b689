//! One request is one request to everybody: what our parser accepts, other servers must read as that same single
//! request, both as it came and as it is forwarded. Two readings of one text are how requests are smuggled.

mod go;
mod hyper;
mod reading;

use std::num::NonZeroUsize;

use meshgate_codec::http1::{
    CHUNK_END, Framing, HeadLimits, Parsed, Persist, RequestLine, encode_chunk_head, encode_last,
    encode_request, parse_request, request_framing, strip_hop_by_hop,
};
use meshgate_codec::{Method, RequestHead, Version};
use meshgate_routing::route::normalise;

use crate::chunked::Decoded;
pub use go::require as require_go;
use reading::{Field, Read, Reading};

/// As it came, a reader may refuse it or read the same; as it is forwarded, nobody may refuse it.
pub fn same_request(input: &[u8]) {
    let Some((message, request)) = first(input) else {
        return;
    };
    for (name, read) in readers() {
        match read(message) {
            Read::Refused => {}
            Read::Requests(readings) => agree(name, message, &readings, &request.reading()),
        }
    }
    let Some(forwarded) = request.forwarded() else {
        return;
    };
    // Without a host, as HTTP/1.0 may be: others take the empty Host that stands for it, we do not.
    let Some((again, meant)) = first(&forwarded) else {
        assert_eq!(request.head.authority(), Ok(None));
        return;
    };
    assert_eq!(again.len(), forwarded.len());
    for (name, read) in readers() {
        match read(&forwarded) {
            Read::Refused => assert!(
                reading::may_refuse(name, &meant.head),
                "{name} refuses {}",
                forwarded.escape_ascii()
            ),
            Read::Requests(readings) => agree(name, &forwarded, &readings, &meant.reading()),
        }
    }
}

type Reader = fn(&[u8]) -> Read;

/// hyper always, as it is linked here; Go's net/http when it was started.
fn readers() -> impl Iterator<Item = (&'static str, Reader)> {
    let go = go::is_there().then_some(("net/http", go::read as Reader));
    [("hyper", hyper::read as Reader)].into_iter().chain(go)
}

fn agree(name: &str, message: &[u8], readings: &[Reading], expected: &Reading) {
    assert_eq!(
        readings,
        std::slice::from_ref(expected),
        "{name} reads something else in {}",
        message.escape_ascii()
    );
}

/// A request as we read it.
struct Request {
    head: RequestHead,
    framing: Framing,
    body: Vec<u8>,
    trailers: meshgate_codec::Fields,
}

/// The first message of the input, if it is there as a whole and we take it.
fn first(input: &[u8]) -> Option<(&[u8], Request)> {
    let mut head = RequestHead::default();
    let Ok(Parsed::Head { consumed }) = parse_request(input, &HeadLimits::default(), &mut head)
    else {
        return None;
    };
    // Not one of the requests that are forwarded: what follows it is a tunnel.
    if head.method == Method::Connect {
        return None;
    }
    head.authority().ok()?;
    let framing = request_framing(&head).ok()?;
    let behind = &input[consumed..];
    let (body, trailers, length) = match framing {
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            let body = behind.get(..length)?;
            (body.to_vec(), Default::default(), length)
        }
        Framing::Chunked => {
            let decoded = Decoded::of([behind]);
            (decoded.verdict == Ok(true)).then_some(())?;
            (decoded.data, decoded.trailers, decoded.consumed)
        }
        _ => Default::default(),
    };
    let request = Request {
        head,
        framing,
        body,
        trailers,
    };
    Some((&input[..consumed + length], request))
}

impl Request {
    /// What others must see.
    fn reading(&self) -> Reading {
        let head = &self.head;
        let authority = head.authority().ok().flatten();
        let fields = head.fields.iter().map(|field| Field {
            name: String::from_utf8_lossy(field.name).to_ascii_lowercase(),
            value: field.value.to_vec(),
        });
        Reading::new(
            head.method.as_str(),
            head.target.as_str(),
            authority.map_or("", |authority| authority.as_str()),
            fields,
            self.body.clone(),
        )
    }

    /// As an edge sends it on; `None` when it does not.
    fn forwarded(&self) -> Option<Vec<u8>> {
        let head = &self.head;
        let target = match head.target.path_and_query() {
            None => head.target.as_str().to_owned(),
            Some(whole) => {
                let (path, query) = whole.split_at(whole.find('?').unwrap_or(whole.len()));
                format!("{}{query}", normalise(path).ok()?)
            }
        };
        let authority = head.authority().ok()?;
        let line = RequestLine {
            method: &head.method,
            target: &target,
            authority: authority.map_or("", |authority| authority.as_str()),
        };
        let mut fields = head.fields.clone();
        strip_hop_by_hop(&mut fields).ok()?;
        let mut out = Vec::new();
        encode_request(line, &fields, self.framing, Persist::Keep, &mut out)
            .expect("what was judged can be said");
        if self.framing == Framing::Chunked {
            for chunk in self.body.chunks(100) {
                let length = NonZeroUsize::new(chunk.len()).expect("chunks are not empty");
                encode_chunk_head(length, &mut out);
                out.extend_from_slice(chunk);
                out.extend_from_slice(CHUNK_END);
            }
            let mut trailers = self.trailers.clone();
            meshgate_codec::http1::clean_trailers(&mut trailers);
            encode_last(Some(&trailers), &mut out);
        } else {
            out.extend_from_slice(&self.body);
        }
        debug_assert!(head.version != Version::Http2);
        Some(out)
    }
}
