//! What a head costs to read and to write, by HTTP/1 and by HTTP/2. Target for a browser's head on a connection that
//! has carried some already: 500 ns and 300 ns.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use meshgate_codec::http1::{self, Framing, HeadLimits, Persist};
use meshgate_codec::http2::{self, Decoder, Encoder, Scheme};
use meshgate_codec::{Fields, Known, Method, RequestHead};

const AUTHORITY: &str = "shop.example.com";
const PATH: &str = "/cart/items?id=7&color=red";

const REQUEST: [(&str, &str); 11] = [
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("referer", "https://shop.example.com/cart"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
];

const RESPONSE: [(&str, &str); 9] = [
    ("server", "shop"),
    ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "1024"),
    ("cache-control", "no-cache"),
    ("vary", "accept-encoding"),
    ("etag", "\"5f3e-1a2b\""),
    ("last-modified", "Fri, 20 Nov 2026 11:00:00 GMT"),
    ("strict-transport-security", "max-age=63072000"),
];

fn fields(lines: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.append(*name, value.as_bytes()).expect("a field");
    }
    fields
}

fn line() -> http2::RequestLine<'static> {
    http2::RequestLine {
        method: &Method::Get,
        scheme: Scheme::Https,
        authority: AUTHORITY,
        path: PATH,
        protocol: None,
    }
}

/// Both ends of a connection that has carried the head until nothing changes any more, and the last block.
fn settled(write: impl Fn(&mut Encoder, &mut Vec<u8>)) -> (Encoder, Decoder, Vec<u8>) {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut block = Vec::new();
    for _ in 0..4 {
        block.clear();
        write(&mut encoder, &mut block);
        decoder.decode(&block, |_| {}).expect("a good block");
    }
    (encoder, decoder, block)
}

fn http2_requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http2_request");
    let limits = HeadLimits::default();
    let fields = fields(&REQUEST);
    let write = |encoder: &mut Encoder, out: &mut Vec<u8>| {
        http2::encode_request(encoder, line(), &fields, out);
    };
    let (mut encoder, mut decoder, block) = settled(write);
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let head = http2::decode_request(&mut decoder, black_box(&block), &limits);
            assert!(head.as_ref().is_ok_and(Result::is_ok));
            head
        });
    });
    let mut out = Vec::with_capacity(4096);
    group.bench_function("write", |bench| {
        bench.iter(|| {
            out.clear();
            write(&mut encoder, &mut out);
            black_box(&out).len()
        });
    });
    let mut first = Vec::new();
    write(&mut Encoder::new(), &mut first);
    group.bench_function("read_first", |bench| {
        bench.iter(|| {
            let mut decoder = Decoder::new(4096);
            let head = http2::decode_request(&mut decoder, black_box(&first), &limits);
            assert!(head.as_ref().is_ok_and(Result::is_ok));
            head
        });
    });
    group.bench_function("write_first", |bench| {
        bench.iter(|| {
            out.clear();
            write(&mut Encoder::new(), &mut out);
            black_box(&out).len()
        });
    });
    group.finish();
}

fn http2_responses(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http2_response");
    let limits = HeadLimits::default();
    let fields = fields(&RESPONSE);
    let (mut encoder, mut decoder, block) = settled(|encoder, out| {
        http2::encode_response(encoder, 200, &fields, out);
    });
    group.bench_function("read", |bench| {
        bench.iter(|| {
            let head = http2::decode_response(&mut decoder, black_box(&block), &limits);
            assert!(head.as_ref().is_ok_and(Result::is_ok));
            head
        });
    });
    let mut out = Vec::with_capacity(4096);
    group.bench_function("write", |bench| {
        bench.iter(|| {
            out.clear();
            http2::encode_response(&mut encoder, 200, &fields, &mut out);
            black_box(&out).len()
        });
    });
    // Two values that no table has. They are made here too.
    let mut count = 0_u32;
    group.bench_function("write_changing", |bench| {
        bench.iter(|| {
            count = count.wrapping_add(1);
            let mut changed = fields.clone();
            for (name, value) in [
                (Known::ContentLength, format!("{count}")),
                (Known::Etag, format!("\"{count:x}-1a2b\"")),
            ] {
                changed.set(name, value.as_bytes()).expect("a field");
            }
            out.clear();
            http2::encode_response(&mut encoder, 200, &changed, &mut out);
            black_box(&out).len()
        });
    });
    group.finish();
}

/// The same request, for comparison.
fn http1_requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http1_request");
    let limits = HeadLimits::default();
    let fields = fields(&REQUEST);
    let line = http1::RequestLine {
        method: &Method::Get,
        target: PATH,
        authority: AUTHORITY,
    };
    let mut out = Vec::with_capacity(4096);
    group.bench_function("write", |bench| {
        bench.iter(|| {
            out.clear();
            let written =
                http1::encode_request(line, &fields, Framing::None, Persist::Keep, &mut out);
            assert!(written.is_ok());
            black_box(&out).len()
        });
    });
    let mut head = RequestHead::default();
    group.bench_function("read", |bench| {
        bench.iter(|| {
            assert!(http1::parse_request(black_box(&out), &limits, &mut head).is_ok());
            head.fields.len()
        });
    });
    group.finish();
}

criterion_group!(benches, http2_requests, http2_responses, http1_requests);
criterion_main!(benches);
