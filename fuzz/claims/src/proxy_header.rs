//! PROXY protocol headers.

use std::net::{IpAddr, SocketAddr};

use meshgate_codec::proxy_protocol::{
    BadHeader, Origin, Parsed, Transport, encode_v1, encode_v2, parse,
};

/// The verdict does not change with more bytes and comes in time; what is told is told the same after it was written.
pub fn proxy_header(input: &[u8]) {
    let whole = parse(input);
    let mut verdict = None;
    for end in 0..=input.len() {
        let found = parse(&input[..end]);
        match (verdict, found) {
            (None, Ok(Parsed::Partial)) => {}
            (None, found) => verdict = Some(found),
            (Some(verdict), found) => assert_eq!(found, verdict, "with {end} bytes"),
        }
    }
    assert_eq!(verdict.unwrap_or(Ok(Parsed::Partial)), whole);
    match whole {
        Ok(Parsed::Partial) => assert!(input.len() < 4096),
        Ok(Parsed::Header { consumed, origin }) => {
            assert!(consumed <= input.len() && consumed <= 4096);
            same_when_written(origin);
        }
        Err(_) => {}
    }
}

fn same_when_written(origin: Origin) {
    let mut text = Vec::new();
    encode_v1(&origin, &mut text);
    let told = match origin {
        Origin::Client {
            transport: Transport::Stream,
            ..
        } => origin,
        _ => Origin::Untold,
    };
    assert_eq!(parse(&text), whole(&text, told));
    let mut binary = Vec::new();
    encode_v2(&origin, &mut binary);
    assert_eq!(parse(&binary), whole(&binary, origin));
    if let Origin::Client {
        source,
        destination,
        ..
    } = origin
    {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
        let plain = |address: SocketAddr| match address {
            SocketAddr::V4(_) => true,
            SocketAddr::V6(v6) => v6.flowinfo() == 0 && v6.scope_id() == 0,
        };
        assert!(plain(source) && plain(destination));
        one_of_each_family(source);
    }
}

/// A pair of two families is told in one.
fn one_of_each_family(source: SocketAddr) {
    let other: IpAddr = match source {
        SocketAddr::V4(_) => [0x20; 16].into(),
        SocketAddr::V6(_) => [10, 0, 0, 1].into(),
    };
    let origin = Origin::Client {
        transport: Transport::Stream,
        source,
        destination: SocketAddr::new(other, 443),
    };
    for encode in [encode_v1, encode_v2] {
        let mut out = Vec::new();
        encode(&origin, &mut out);
        let Ok(Parsed::Header { consumed, origin }) = parse(&out) else {
            panic!("{origin:?} was written as {:?}", out.escape_ascii());
        };
        let Origin::Client {
            source: read,
            destination,
            ..
        } = origin
        else {
            panic!("{origin:?} is no client");
        };
        assert_eq!(consumed, out.len());
        assert_eq!(canonical(read), canonical(source));
        assert_eq!(canonical(destination), SocketAddr::new(other, 443));
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn whole(bytes: &[u8], origin: Origin) -> Result<Parsed, BadHeader> {
    Ok(Parsed::Header {
        consumed: bytes.len(),
        origin,
    })
}
