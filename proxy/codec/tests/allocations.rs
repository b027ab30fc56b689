//! A connection that has carried one message carries the next without an allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;

use meshgate_codec::http1::{
    CHUNK_END, Decoder, Framing, HeadLimits, Parsed, Persist, RequestLine, RequestParser,
    ResponseParser, StatusLine, StepKind, encode_chunk_head, encode_last, encode_request,
    encode_response, request_framing, response_framing, strip_hop_by_hop,
};
use meshgate_codec::http2;
use meshgate_codec::{Known, Method, RequestHead, ResponseHead};

struct Counting;

thread_local! {
    /// Of this thread: the harness has threads of its own.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

#[expect(
    unsafe_code,
    reason = "an allocator that counts can be written in no other way"
)]
// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const REQUEST: &[u8] = b"POST /cart/items?id=7&color=red HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://shop.example.com/cart\r\n\
    Connection: keep-alive, TE\r\n\
    TE: trailers\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    X-Request-ID:  8f14e45fceea167a5a36dedd4bea2543\r\n\
    Content-Type: application/json\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\n";

const BODY: &[u8] = b"5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";

#[derive(Default)]
struct Connection {
    request: RequestHead,
    response: ResponseHead,
    decoder: Decoder,
    out: Vec<u8>,
}

/// One request, its body, and its answer: read and written.
fn exchange(connection: &mut Connection) {
    let limits = HeadLimits::default();
    let Connection {
        request,
        response,
        decoder,
        out,
    } = connection;
    let mut parser = RequestParser::default();
    for end in [1, 100, REQUEST.len()] {
        let parsed = parser.parse(&REQUEST[..end], &limits, request);
        let whole = Parsed::Head {
            consumed: REQUEST.len(),
        };
        assert_eq!(parsed == Ok(whole), end == REQUEST.len());
    }
    let framing = request_framing(request).expect("a clear length");
    let authority = request.authority().expect("a host").expect("a host");
    assert_eq!(authority.host(), "shop.example.com");
    assert_eq!(
        strip_hop_by_hop(&mut request.fields).map(|s| s.takes_trailers),
        Ok(true)
    );
    request
        .fields
        .set(Known::XRequestId, b"1")
        .expect("a value");
    request
        .fields
        .append("x-forwarded-for", b"10.0.0.1")
        .expect("a value");
    out.clear();
    let line = RequestLine {
        method: &request.method,
        target: request.target.as_str(),
        authority: "shop",
    };
    encode_request(line, &request.fields, framing, Persist::Keep, out).expect("sayable");
    decoder.clear();
    let mut at = 0;
    loop {
        let step = decoder.decode(&BODY[at..]).expect("a good body");
        if let StepKind::Data(range) = step.kind {
            let data = &BODY[at..][range];
            encode_chunk_head(NonZeroUsize::new(data.len()).expect("some data"), out);
            out.extend_from_slice(data);
            out.extend_from_slice(CHUNK_END);
        } else {
            assert_eq!(step.kind, StepKind::End);
            break;
        }
        at += step.consumed;
    }
    encode_last(Some(decoder.trailers()), out);
    let parsed = ResponseParser::default().parse(RESPONSE, &limits, response);
    assert!(matches!(parsed, Ok(Parsed::Head { .. })));
    let framing = response_framing(response, &request.method).expect("a clear length");
    assert_eq!(framing, Framing::Length(5));
    strip_hop_by_hop(&mut response.fields).expect("few options");
    let line = StatusLine {
        status: response.status,
        version: request.version,
    };
    encode_response(line, &response.fields, framing, Persist::Keep, out).expect("sayable");
}

#[test]
fn the_second_exchange_allocates_nothing() {
    let mut connection = Connection::default();
    exchange(&mut connection);
    let first = connection.out.clone();
    let before = COUNT.with(Cell::get);
    assert!(before > 0, "the counter counts");
    exchange(&mut connection);
    assert_eq!(COUNT.with(Cell::get) - before, 0);
    assert_eq!(connection.out, first);
}

/// A head of HTTP/2 is the stream's own: its lines, their places, authority and path. Nothing else is allocated, by however
/// many fields and crumbs, as indices or as text.
#[test]
fn a_head_of_http2_allocates_four_times() {
    let limits = HeadLimits::default();
    let mut sent = RequestHead::default();
    let parsed = RequestParser::default().parse(REQUEST, &limits, &mut sent);
    assert!(matches!(parsed, Ok(Parsed::Head { .. })));
    let line = http2::RequestLine {
        method: &Method::Post,
        scheme: http2::Scheme::Https,
        authority: "shop.example.com",
        path: sent.target.as_str(),
        protocol: None,
    };
    let (mut encoder, mut decoder) = (http2::Encoder::new(), http2::Decoder::new(4096));
    let mut out = Vec::new();
    for _ in 0..3 {
        out.clear();
        http2::encode_request(&mut encoder, line, &sent.fields, &mut out);
        let head = http2::decode_request(&mut decoder, &out, &limits);
        assert!(matches!(head, Ok(Ok(_))), "{head:?}");
    }
    out.clear();
    let before = COUNT.with(Cell::get);
    http2::encode_request(&mut encoder, line, &sent.fields, &mut out);
    assert_eq!(COUNT.with(Cell::get) - before, 0);
    let head = http2::decode_request(&mut decoder, &out, &limits);
    assert_eq!(COUNT.with(Cell::get) - before, 4);
    assert!(matches!(head, Ok(Ok(head)) if head.fields.len() == sent.fields.len() - 3));
}
